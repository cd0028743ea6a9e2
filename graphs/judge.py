"""A finished backtest, judged: the record for the evaluation, the report, the manifest."""

import hashlib
import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.version import code_version
from evaluation import report as files
from evaluation.run import Advisor, DataDescription, Market, RunRecord
from evaluation.trading import Report, evaluate
from feeds.files import tables
from feeds.instruments import Instrument
from feeds.raw import locate
from graphs.backtest import Outcome, Plan
from graphs.forecasting import digests
from graphs.seen import advisor, in_sample, price_model, volatility_targets, without_model

_POINTS = 20_000  # prices kept per symbol for buy-and-hold and the charts
_PACKAGES = ("csp", "numpy", "pandas", "pyarrow", "torch")


def judge(plan: Plan, outcome: Outcome, folder: Path) -> Report | None:
    """Evaluate the streams in `folder` and write report.json, report.html, equity.png and manifest.json beside them.

    None, and only the manifest, where the run was interrupted before its first event.
    """
    advised = advisor(plan)
    _write_manifest(plan, outcome, advised, folder)
    written = folder / "equity.parquet"
    if not written.exists() or (equity := pq.read_table(written)).num_rows == 0:
        return None
    partial = outcome.interrupted
    markets = [_market(plan, instrument, outcome) for instrument in plan.trading.instruments]
    descriptions = [description for _, description in plan.feeds]
    digest = _digest([d.sha256 for d in descriptions])
    model = price_model(plan, outcome, folder)
    record = RunRecord(
        title=plan.config.name,
        data=DataDescription(
            path=", ".join(source.path for source, _ in plan.feeds),
            sha256=digest,
            rows=sum(d.rows for d in descriptions),
            start=plan.start,
            end=min(plan.end, outcome.reached),
        ),
        costs=_costs(plan),
        initial_cash=plan.trading.initial_cash,
        equity=equity,
        fills=pq.read_table(folder / "fills.parquet"),
        markets=tuple(market for market in markets if market is not None),
        days_per_year=365 if all(i.calendar == "24/7" for i in plan.trading.instruments) else 252,
        strategy_fills=_table(folder / "strategy_fills.parquet"),
        flows=_table(folder / "flows.parquet"),
        partial=partial,
        currency=plan.trading.currency or plan.trading.instruments[0].currency,
        sample=plan.config.sample,
        trials=plan.config.trials,
        facts=(
            ("Halted by risk", _halted(plan, outcome) or "no"),
            *((("Price model", without_model(plan)),) if model is None else ()),
            *(("Macro data", source.path) for source, _ in plan.macro),
            *(("News", item.path) for item in plan.config.news),
            ("Code", code_version()),
        ),
        model=model,
        in_sample=in_sample(plan, outcome),
        advisor=advised,
        targets=volatility_targets(plan, model),
    )
    report = evaluate(record)
    files.write(folder, record, report)
    return report


def _table(path: Path) -> pa.Table | None:
    return pq.read_table(path) if path.exists() else None


def _market(plan: Plan, instrument: Instrument, outcome: Outcome) -> Market | None:
    """What one symbol's price did: its last price in each of some thousand equal intervals, read as a stream.

    None where it had no price in the window.
    """
    start = np.datetime64(plan.start, "ns").astype(np.int64)
    end = np.datetime64(outcome.reached, "ns").astype(np.int64)
    width = max(1, (end - start) // _POINTS)
    times: dict[int, int] = {}
    closes: dict[int, float] = {}
    first = last = 0.0
    here = [(source, held) for source, held in plan.feeds if instrument.symbol in held.symbols]
    for source, description in sorted(here, key=lambda pair: pair[1].first - pair[1].last)[:1]:  # the longest
        trades = description.kind == "trades"
        for table in tables(source):
            time = table["time"].cast("int64").to_numpy()
            inside = (time >= start) & (time <= end)
            inside &= table["symbol"].to_numpy(zero_copy_only=False) == instrument.symbol
            if not inside.any():
                continue
            close = table["price" if trades else "close"].to_numpy()[inside]
            time = time[inside]
            if not first and trades:
                first = float(close[0])
            elif not first:  # the first open that an order at the start could have had
                opens = table["open"].to_numpy()[table["open_time"].cast("int64").to_numpy() >= start]
                first = float(opens[0]) if len(opens) else 0.0
            last = float(close[-1])
            slot = (time - start) // width
            ends = np.flatnonzero(np.append(np.diff(slot) > 0, True))
            for i in ends.tolist():
                times[int(slot[i])], closes[int(slot[i])] = int(time[i]), float(close[i])
    if not times:
        return None
    first = first or last  # no bar opened inside the window
    model = plan.config.broker.fills
    slippage = (model.slippage_bps + 0.5 * model.spread_bps) * 1e-4
    return Market(
        symbol=instrument.symbol,
        times=np.array(list(times.values()), dtype=np.int64),
        closes=np.array(list(closes.values())),
        first_price=first,
        last_price=last,
        multiplier=float(instrument.multiplier),
        tick=float(instrument.tick),
        lot=float(instrument.lot),
        taker_bps=instrument.taker_bps,
        slippage=first * slippage,
        currency=instrument.currency,
        rate=outcome.rates.get(instrument.currency, 1.0),
    )


def _costs(plan: Plan) -> tuple[str, ...]:
    """The costs of the simulated venue, a sentence each."""
    broker, fills = plan.config.broker, plan.config.broker.fills
    lines = [_fees(i) for i in plan.trading.instruments]
    lines.append(
        f"A taker pays half a spread of {fills.spread_bps:g} bps, slippage of {fills.slippage_bps:g} bps, and"
        f" {fills.impact_bps:g} bps times the squared volume share."
    )
    cap = fills.participation_max
    lines.append(f"Orders take at most {cap:.0%} of the volume." if cap else "Orders of any size fill at once.")
    jitter = broker.latency_jitter_ms
    more = f", and a random delay of {jitter:g} ms on average" if jitter else ""
    lines.append(f"Latency of {broker.latency_ms:g} ms from strategy to venue{more}.")
    return tuple(lines)


def _fees(instrument: Instrument) -> str:
    i = instrument
    parts = [f"maker {i.maker_bps:g} bps, taker {i.taker_bps:g} bps of notional"]
    if float(i.fee_per_unit):
        parts.append(f"{i.fee_per_unit} {i.currency} a unit")
    if float(i.fee_min):
        parts.append(f"at least {i.fee_min} {i.currency} an order")
    if i.fees_in == "received":
        parts.append("a buyer's in what it bought")
    return f"{i.symbol}: {', '.join(parts)}, rounded half up to {i.currency_unit}; tick {i.tick}, lot {i.lot}"


def _halted(plan: Plan, outcome: Outcome) -> str:
    return f"from the start, since {plan.halted.engine_time}" if plan.halted else outcome.halted


def _digest(hashes: list[str]) -> str:
    """The hash of one file, or of the hashes of several."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def _write_manifest(plan: Plan, outcome: Outcome, advised: Advisor | None, folder: Path) -> None:
    """What is needed to run this again: config, data hashes, versions, how it ended."""
    manifest: dict[str, Any] = {
        "schema": 1,
        "run_id": plan.config.name,
        "config": asdict(plan.config),
        "data": [
            {"path": source.path, "sha256": description.sha256, "rows": description.rows}
            for source, description in (*plan.feeds, *plan.macro)
        ]
        + [
            {"path": item.path, "sha256": hashlib.sha256(locate(item.path).read_bytes()).hexdigest()}
            for item in plan.config.news
        ],
        "window": {"start": plan.start, "end": plan.end, "reached": outcome.reached},
        "partial": outcome.interrupted,
        "checkpoints": digests(plan.config.forecast, plan.models),
        "advisor": None if advised is None else {"backend": advised.backend, "model_id": advised.model_id},
        "in_sample": plan.in_sample,
        "halted": _halted(plan, outcome) or None,
        "code": code_version(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }
    text = json.dumps(manifest, indent=2, default=str)
    (folder / "manifest.json").write_text(text + "\n")
