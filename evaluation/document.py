"""A report as plain data: what report.json and trips.parquet hold."""

from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

import pyarrow as pa

from evaluation.aims import AIM_DEFINITIONS, Aim
from evaluation.bootstrap import REPLICATIONS as DAY_REPLICATIONS
from evaluation.bootstrap import SEED as DAY_SEED
from evaluation.bootstrap import edge
from evaluation.costs import COST_DEFINITIONS, Breakdown, Cost
from evaluation.drawdowns import Drawdown
from evaluation.figures import Figure
from evaluation.foresight import FORESIGHT_DEFINITIONS, Foresight
from evaluation.hindsight import hindsight
from evaluation.returns import REPLICATIONS, SEED, Performance
from evaluation.run import NEVER, Checkpoint
from evaluation.tables import TABLE_DEFINITIONS, Contribution
from evaluation.trading import DEFINITIONS, Report
from evaluation.trips import RoundTrip

SCHEMA = 4
TRIPS_FILE = "trips.parquet"
TRIPS_SCHEMA = pa.schema(
    {
        "strategy": pa.string(),
        "symbol": pa.string(),
        "side": pa.string(),
        "opened": pa.timestamp("ns", "UTC"),
        "closed": pa.timestamp("ns", "UTC"),
        "quantity": pa.float64(),
        "entry_price": pa.float64(),
        "exit_price": pa.float64(),
        "profit": pa.float64(),
        "fees": pa.float64(),
        "entry_return": pa.float64(),
    }
)


def plain(report: Report) -> dict[str, Any]:
    """The report as JSON-ready data: finite numbers, strings, booleans, None, lists and dicts in a fixed order."""
    return {
        "schema": SCHEMA,
        "title": report.title,
        "partial": report.partial,
        "data": {
            "path": report.data.path,
            "sha256": report.data.sha256,
            "rows": report.data.rows,
            "start": _stamp(report.data.start),
            "end": _stamp(report.data.end),
        },
        "window": {"start": _stamp(report.start), "end": _stamp(report.end)},
        "in_sample": [{"start": _stamp(start), "end": _stamp(end)} for start, end in report.in_sample],
        "advisor": _advisor(report),
        "symbols": list(report.symbols),
        "costs": list(report.costs),
        "sample": report.sample,
        "facts": dict(report.facts),
        "currency": report.currency,
        "initial_cash": report.initial_cash,
        "final_equity": report.final_equity,
        "open_symbols": list(report.open_symbols),
        "strategy": _performance(report.strategy),
        "activity": _figures(report.activity),
        "buy_and_hold": _performance(report.buy_and_hold) | {"fees": figure_values(report.buy_and_hold_fees)},
        "months": dict(report.months),
        "by_strategy": None if report.by_strategy is None else [_contribution(part) for part in report.by_strategy],
        "by_symbol": [_contribution(part) for part in report.by_symbol],
        "profit_elsewhere": report.elsewhere,
        "shortfall": {
            "total": _breakdown(report.costs_paid.total),
            "symbols": [_breakdown(part) for part in report.costs_paid.symbols],
        },
        "price_model": None if not report.checkpoints else _price_model(report),
        "volatility_target": None if report.aim is None else _aim(report.aim),
        "trips": {"count": len(report.trips), "file": TRIPS_FILE, "by_strategy": report.by_strategy is not None},
        "method": {
            "days_per_year": report.days_per_year,
            "daily_returns": report.strategy.returns,
            "trials": report.trials,
            "bootstrap": {
                "kind": "stationary, percentile interval, 95 %",
                "replications": REPLICATIONS,
                "seed": SEED,
                "mean_block_days": report.strategy.block_days,
            },
            "day_bootstrap": {
                "kind": "stationary over whole days, percentile interval, 95 %",
                "replications": DAY_REPLICATIONS,
                "seed": DAY_SEED,
            },
        },
        "definitions": DEFINITIONS
        | {
            "contributions": TABLE_DEFINITIONS,
            "shortfall": COST_DEFINITIONS,
            "price_model": FORESIGHT_DEFINITIONS,
            "volatility_target": AIM_DEFINITIONS,
        },
    }


def trips_table(trips: tuple[RoundTrip, ...]) -> pa.Table:
    """Every round trip, a row each, in the order of their ends. `strategy` is null for trips of the whole account."""
    columns = {
        "strategy": [trip.strategy for trip in trips],
        "symbol": [trip.symbol for trip in trips],
        "side": ["LONG" if trip.long else "SHORT" for trip in trips],
        "opened": [trip.opened_ns for trip in trips],
        "closed": [trip.closed_ns for trip in trips],
    }
    for name in TRIPS_SCHEMA.names[len(columns) :]:
        columns[name] = [getattr(trip, name) for trip in trips]
    arrays = [pa.array(values, TRIPS_SCHEMA.field(name).type) for name, values in columns.items()]
    return pa.Table.from_arrays(arrays, schema=TRIPS_SCHEMA)


def figure_values(figure: Figure) -> dict[str, Any]:
    """A figure with its uncertainty, in JSON values."""
    return {
        "value": figure.value,
        "standard_error": figure.standard_error,
        "interval_95": None if figure.interval is None else list(figure.interval),
        "reason": figure.reason,
    }


def _figures(part: Any) -> dict[str, Any]:
    """The figures among the fields of a dataclass."""
    pairs = ((field.name, getattr(part, field.name)) for field in fields(part))
    return {name: figure_values(value) for name, value in pairs if isinstance(value, Figure)}


def _price_model(report: Report) -> dict[str, Any]:
    every, *symbols = report.foresight
    return {
        "checkpoints": [_checkpoint(one) for one in report.checkpoints],
        "ewma_halflife_bars": report.halflife_bars,
        "all": _foresight(every),
        "symbols": {part.symbol: _foresight(part) for part in symbols},
    }


def _checkpoint(one: Checkpoint) -> dict[str, Any]:
    times = {"start": one.start, "end": one.end, "embargo_end": one.guard_end}
    return {
        "name": one.name,
        "digest": one.digest,
        "training": {name: None if time is None else _stamp(time) for name, time in times.items()},
    }


def _foresight(part: Foresight) -> dict[str, Any]:
    return {"bars": part.bars} | _figures(part) | {"verdict": edge(part.gain)}


def _aim(aim: Aim) -> dict[str, Any]:
    return {
        "strategies": [asdict(target) for target in aim.targets],
        "target": aim.target,
        **_figures(aim),
        "hours": aim.hours,
        "hours_in_market": aim.hours_in_market,
    }


def _advisor(report: Report) -> dict[str, Any] | None:
    one = report.advisor
    if one is None:
        return None
    until = None if one.learnt_until in (None, NEVER) else _stamp(one.learnt_until)
    told = {"backend": one.backend, "model_id": one.model_id, "learnt_until": until}
    return told | {"hindsight": bool(hindsight(report))}


def _performance(performance: Performance) -> dict[str, Any]:
    return _figures(performance) | {"drawdowns": [_drawdown(fall) for fall in performance.drawdowns]}


def _drawdown(fall: Drawdown) -> dict[str, Any]:
    return {
        "peak": _stamp(fall.peak),
        "trough": _stamp(fall.trough),
        "recovered": None if fall.recovered is None else _stamp(fall.recovered),
        "depth": fall.depth,
        "days_down": fall.days_down,
        "days_up": fall.days_up,
        "days": fall.days,
    }


def _contribution(part: Contribution) -> dict[str, Any]:
    return {
        "name": part.name,
        "fills": part.fills,
        "volume": part.volume,
        "notional": part.notional,
        "turnover": figure_values(part.turnover),
        "realised": part.realised,
        "open": part.open,
        "fees": part.fees,
        "carry": part.carry,
        "profit": part.profit,
        "share": figure_values(part.share),
        "round_trips": part.trips.count,
        "win_rate": figure_values(part.trips.win_rate),
        "profit_factor": figure_values(part.trips.profit_factor),
        "mean_trip": figure_values(part.trips.mean_trip),
        "deepest_fall": figure_values(part.deepest_fall),
    }


def _breakdown(part: Breakdown) -> dict[str, Any]:
    costs = {name: getattr(part, name) for name in ("fees", "spread", "slippage", "delay", "shortfall")}
    return {"symbol": part.symbol, "fills": part.fills, "priced_fills": part.priced, "notional": part.notional} | {
        name: _cost(cost) for name, cost in costs.items()
    }


def _cost(cost: Cost) -> dict[str, Any]:
    return {"amount": cost.amount.value, "bps": cost.bps.value, "reason": cost.amount.reason or cost.bps.reason}


def _stamp(time: datetime) -> str:
    return time.isoformat() + "Z"
