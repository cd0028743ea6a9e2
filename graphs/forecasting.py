"""The price models in the graph: tokens in, forecasts out, and what a person should know of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import csp
from csp import ts

from configs.load import ConfigError
from feeds.instruments import Instrument
from feeds.record import ReplayedInputs
from feeds.streams import by_symbol, together
from feeds.times import length_label
from graphs.config import TradingConfig
from graphs.edges import Feeds
from graphs.flags import ROOT
from models.checkpoint import CheckpointError, read_manifest
from models.forms import FormError
from nodes.events import Alert, AlertLevel, Forecast
from nodes.forecast import ForecastConfig, drift_alert, surprise_alert
from nodes.guard import error_alert
from nodes.infer import infer
from nodes.price_model import Checkpoints, PriceModel, ask_about
from nodes.tokenize import tokenize
from tokenizer.codec import Codec


@dataclass(frozen=True, slots=True)
class Forecasts:
    """What the price models say. Empty where none speaks."""

    by_symbol: dict[str, ts[Forecast]] = field(default_factory=dict)
    alerts: list[ts[Alert]] = field(default_factory=list)


def checkpoints(config: ForecastConfig) -> Checkpoints | None:
    """What the checkpoints of a config say of themselves; None where no model is wanted.

    Raises:
        ConfigError: with a message for the user.
    """
    if not config.enabled:
        return None
    try:
        return Checkpoints.read([_located(name) for name in config.checkpoints])
    except (CheckpointError, ValueError) as exc:
        raise ConfigError(f"[forecast] checkpoints: {exc}") from None


def digests(config: ForecastConfig, known: Checkpoints | None) -> dict[str, str]:
    """Which weights those are: the digest of each, by its name in the config."""
    return {} if known is None else {n: m.digest for n, m in zip(config.checkpoints, known.manifests, strict=True)}


def digest_now(name: str) -> str:
    """The digest of the checkpoint that has this name now, or that there is none."""
    try:
        return read_manifest(_located(name)).digest
    except CheckpointError:
        return "cannot be read"


def price_forecasts(feeds: Feeds, config: TradingConfig) -> Forecasts:
    """Wire the price models between the bars and whoever asks what comes next.

    Only symbols whose bars are as long as those of the training are forecast; of the others one alert tells.

    Raises:
        ConfigError: a checkpoint or an exported form cannot be used.
    """
    settings = config.forecast
    known = checkpoints(settings)
    if known is None:
        return Forecasts()
    spoken = [i for i in config.instruments if feeds.bar_lengths[i.symbol].total_seconds() == known.bar_s]
    silent = [i.symbol for i in config.instruments if i not in spoken]
    alerts = [_once(_without(silent, feeds, known.bar_s), feeds.live)] if silent else []
    if not spoken:
        return Forecasts(alerts=alerts)
    model, codecs = _model(known, settings, len(spoken), load=not isinstance(feeds.inputs, ReplayedInputs))
    tokens = [_tokens(feeds, instrument, codecs, settings) for instrument in spoken]
    done = infer(
        [ask_about(token.frame) for token in tokens],
        model,
        Forecast,
        settings.infer,
        live=feeds.live,
        inputs=feeds.inputs,
    )
    forecasts = by_symbol(done.answer, [instrument.symbol for instrument in spoken])
    alerts.append(error_alert(together([*(token.error for token in tokens), done.error])))
    for forecast in forecasts.values():
        if settings.surprise_bits is not None:
            alerts.append(surprise_alert(forecast, settings.surprise_bits))
        if settings.drift_bits_max is not None:
            counts = tuple(codecs[0].code_counts.tolist())
            alerts.append(drift_alert(forecast, counts, settings.drift_window_bars, settings.drift_bits_max))
    return Forecasts(forecasts, alerts)


def _located(name: str) -> Path:
    """A folder relative to here, else to the project."""
    path = Path(name)
    return path if path.is_absolute() or path.exists() else ROOT / name


def _model(
    known: Checkpoints, settings: ForecastConfig, symbols: int, *, load: bool
) -> tuple[PriceModel, tuple[Codec, ...]]:
    """The model, with its weights where it will be asked: a replay has its answers."""
    try:
        codecs = known.codecs()
        model = PriceModel(known, codecs, symbols, settings)
        if load:
            model.load()
    except (CheckpointError, ValueError) as exc:
        raise ConfigError(f"[forecast] checkpoints: {exc}") from None
    except FormError as exc:
        raise ConfigError(f"[forecast] form: {exc}") from None
    return model, codecs


def _tokens(feeds: Feeds, instrument: Instrument, codecs: tuple[Codec, ...], settings: ForecastConfig) -> Any:
    symbol = instrument.symbol
    length = feeds.bar_lengths[symbol]
    return tokenize(feeds.bars[symbol], symbol, codecs, length, instrument.calendar, settings.missing_max)


def _once(alert: Alert, live: ts[bool] | None) -> ts[Alert]:
    """At the start, or when the run goes live: nobody is shown what history says."""
    told: ts[Alert] = csp.const(alert)
    return told if live is None else csp.sample(live, told)


def _without(symbols: Sequence[str], feeds: Feeds, bar_s: float) -> Alert:
    """That some symbols are traded without a forecast."""
    lengths = sorted({feeds.bar_lengths[symbol] for symbol in symbols})
    theirs = ", ".join(length_label(length) for length in lengths)
    message = (
        f"no forecast for {', '.join(symbols)}: bars of {theirs}, the checkpoint was trained on bars of"
        f" {length_label(timedelta(seconds=bar_s))}"
    )
    symbol = symbols[0] if len(symbols) == 1 else ""
    return Alert(level=AlertLevel.INFO, source="forecast", symbol=symbol, message=message, value=0.0)
