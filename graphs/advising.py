"""The advisor in the graph: headlines in, advice out, and what a person should know of it."""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from csp import ts

from configs.load import ConfigError
from feeds.record import ReplayedInputs
from feeds.streams import together
from graphs.config import TradingConfig
from graphs.edges import Feeds
from graphs.flags import ROOT
from models.advisor.advice import Advisor, AdvisorError
from models.advisor.backends import make
from nodes.advise import OFF, SOURCE, AdvisorConfig, Answer, screen, settle
from nodes.advisor_model import AdvisorModel
from nodes.events import Advice, Alert
from nodes.guard import error_alert
from nodes.infer import infer

_OF_ITSELF = ("auto", "lexicon", "head", "gpt", "score", "generate")  # what they say hangs on the headline alone


@dataclass(frozen=True, slots=True)
class Advised:
    """What the advisor says. None where nobody is asked."""

    advice: ts[Advice] | None = None
    alerts: list[ts[Alert]] = field(default_factory=list)


def asks(config: TradingConfig) -> bool:
    """Whether some strategy listens to an advisor."""
    return config.advisor.backend != OFF and any(SOURCE in strategy.signals.use for strategy in config.strategies)


def advise(feeds: Feeds, config: TradingConfig) -> Advised:
    """Wire the advisor between the news and whoever listens to it.

    Raises:
        ConfigError: the backend cannot be used.
    """
    if feeds.news is None or not asks(config):
        return Advised()
    settings = config.advisor
    symbols = tuple(instrument.symbol for instrument in config.instruments)
    screened = screen(feeds.news, symbols, settings)
    replayed = isinstance(feeds.inputs, ReplayedInputs)
    # In a backtest the weights and the answers of an earlier graph of this process are as good as new ones.
    model = _model(settings) if feeds.live is not None else advisor_of(settings)
    if not replayed:  # which has the answers
        loaded(model)
    done = infer([screened.request], model, Answer, settings.infer, live=feeds.live, inputs=feeds.inputs)
    strict = settings.backend == "replay" and feeds.live is None
    settled = settle(screened.request, done.answer, done.error, settings, strict)
    advice = together([screened.held, settled.advice])
    return Advised(advice, [screened.alert, error_alert(settled.error)])


def loaded(model: AdvisorModel) -> AdvisorModel:
    """The model, ready to be asked.

    Raises:
        ConfigError: its backend cannot be used.
    """
    try:
        model.load()
    except (AdvisorError, ValueError) as exc:
        raise ConfigError(f"[advisor] {exc}") from None
    return model


def advisor_of(config: AdvisorConfig) -> AdvisorModel:
    """What a backtest asks: one that earlier graphs of this process have used, where what it says hangs on the headline
    alone."""
    if config.backend not in _OF_ITSELF:
        return _model(config)
    return _kept(
        AdvisorConfig(
            backend=config.backend,
            model=config.model,
            checkpoint=config.checkpoint,
            dtype=config.dtype,
            learnt_until=config.learnt_until,
        )
    )


def _model(config: AdvisorConfig) -> AdvisorModel:
    def made() -> Advisor:
        return make(
            config.backend,
            model=config.model if config.backend == "chat" else _located(config.model),
            checkpoint=_located(config.checkpoint),
            answers=_located(config.answers),
            url=config.url,
            dtype=config.dtype,
            learnt_until=config.learnt_until,
        )

    return AdvisorModel(made)


@lru_cache(maxsize=2)
def _kept(config: AdvisorConfig) -> AdvisorModel:
    return _model(config)


def _located(name: str) -> str:
    """A path relative to here, else to the project; "" stays."""
    path = Path(name)
    return name if not name or path.is_absolute() or path.exists() else str(ROOT / name)
