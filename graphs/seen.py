"""What the judge of a backtest must know of its price models: what they had seen, what they said, and what came."""

from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from evaluation.run import NEVER, Advisor, Checkpoint, Floats, Ints, PriceModel, VolatilityTarget
from feeds.files import Description, Source, tables
from feeds.times import bar_length, length_label
from graphs.advising import advisor_of, asks
from graphs.backtest import Outcome, Plan
from models.advisor.advice import LEARNT_NOTHING, LEARNT_UNKNOWN

_US_NS = 1_000


def price_model(plan: Plan, outcome: Outcome, folder: Path) -> PriceModel | None:
    """The price models of a run whose streams are in `folder`; None where none was asked."""
    known = plan.models
    if known is None:
        return None
    spoken = [s for s in _symbols(plan) if _length(plan, _fed(plan, s)[1]).total_seconds() == known.bar_s]
    if not spoken:
        return None
    seen = [
        Checkpoint(
            name=name,
            digest=manifest.digest,
            start=manifest.training.start,
            end=manifest.training.end,
            guard_end=manifest.training.guard_end,
        )
        for name, manifest in zip(plan.config.forecast.checkpoints, known.manifests, strict=True)
    ]
    codec = known.manifests[0].codec
    assert codec is not None  # else `Checkpoints.read` had refused it
    said = folder / "forecasts.parquet"
    return PriceModel(
        checkpoints=tuple(seen),
        halflife_bars=float(codec["config"]["features"]["scale_halflife_bars"]),
        forecasts=pq.read_table(said) if said.exists() else None,
        closes={symbol: _closes(plan, outcome, symbol) for symbol in spoken},
    )


def advisor(plan: Plan) -> Advisor | None:
    """Who read the news of a run; None where nobody did."""
    if not plan.config.news or not asks(plan.trading):
        return None
    with closing(advisor_of(plan.trading.advisor)) as model:
        one = model.load()
        known = one.learnt_until
        until = NEVER if known == LEARNT_NOTHING else None if known == LEARNT_UNKNOWN else known
        return Advisor(backend=one.backend, model_id=one.model_id, learnt_until=until)


def without_model(plan: Plan) -> str:
    """Why no price model spoke."""
    if plan.models is None:
        return "off"
    named, length = ", ".join(plan.config.forecast.checkpoints), timedelta(seconds=plan.models.bar_s)
    return f"not used: no symbol has bars of {length_label(length)}, on which {named} was trained"


def in_sample(plan: Plan, outcome: Outcome) -> tuple[tuple[datetime, datetime], ...]:
    """The parts of what was run that a price model was trained on, in order and apart."""
    parts: list[tuple[datetime, datetime]] = []
    for first, last in sorted(plan.in_sample):
        last = min(last, outcome.reached)
        if first > last:
            continue
        if parts and first <= parts[-1][1]:
            first, last = parts[-1][0], max(last, parts[-1][1])
            parts.pop()
        parts.append((first, last))
    return tuple(parts)


def volatility_targets(plan: Plan, model: PriceModel | None) -> tuple[VolatilityTarget, ...]:
    """What the strategies that size by volatility aim at."""
    return tuple(
        VolatilityTarget(
            strategy=strategy.name,
            target=strategy.sizing.volatility_target,
            allocation=strategy.allocation,
            by="realised" if model is None else strategy.sizing.volatility_from,
        )
        for strategy in plan.trading.strategies
        if strategy.sizing.mode == "volatility"
    )


def _symbols(plan: Plan) -> list[str]:
    return [instrument.symbol for instrument in plan.trading.instruments]


def _length(plan: Plan, description: Description) -> timedelta:
    return description.bar or bar_length(plan.config.bar)


def _fed(plan: Plan, symbol: str) -> tuple[Source, Description]:
    """Whose bars a symbol was traded on: the shortest, rather a file's than built from trades."""
    held = [(source, description) for source, description in plan.feeds if symbol in description.symbols]
    return min(held, key=lambda fed: (_length(plan, fed[1]), fed[1].kind == "trades"))


def _closes(plan: Plan, outcome: Outcome, symbol: str) -> tuple[Ints, Floats]:
    """When the bars of a symbol closed in the run, ns UTC cut to microseconds as the engine does, and at what price."""
    source, description = _fed(plan, symbol)
    trades = description.kind == "trades"
    length = _length(plan, description) // timedelta(microseconds=1) * _US_NS
    ends: list[Ints] = []
    prices: list[Floats] = []
    for table in tables(source, plan.start, outcome.reached, [symbol]):
        time: Ints = table["time"].cast("int64").to_numpy()
        price: Floats = table["price" if trades else "close"].to_numpy()
        if trades:  # a bar is [start, end), and closes with the last trade in it
            time = (time // length + 1) * length
            last = np.append(np.diff(time) > 0, True)
            time, price = time[last], price[last]
            if ends and len(time) and ends[-1][-1] == time[0]:
                ends[-1], prices[-1] = ends[-1][:-1], prices[-1][:-1]
        ends.append(time - time % _US_NS)
        prices.append(price)
    close = np.concatenate([np.empty(0, np.int64), *ends])
    done = close <= np.datetime64(outcome.reached, "ns").astype(np.int64)  # a bar that the run ended in never closed
    return close[done], np.concatenate([np.empty(0), *prices])[done]
