"""How fast is the real graph? One-minute bars through strategy, risk gate, venue and ledger; trades through windows.

Each figure is CPU time of this process, best of several runs, beside a plain Python loop that does the same work in the
same process and gives the same equity to the cent.

    python -m benchmarks.backtest_speed [--rows 1000000] [--trades 2000000] [--runs 3]
"""

import argparse
import gc
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import csp
import numpy as np
import pyarrow.parquet as pq
from csp import ts

from brokers.costs import FillModel
from brokers.paper import PaperConfig
from feeds import replay
from feeds.files import Source, describe
from feeds.instruments import Instrument
from feeds.synthetic import SyntheticConfig, write
from graphs.backtest import plan, replayed_feeds, simulated_venue
from graphs.config import BacktestConfig, SignalsConfig
from graphs.trading import trading_system
from nodes.bars import one_second_aggregator
from nodes.events import TradeWindow
from nodes.fuse import FuseConfig
from nodes.risk import RiskConfig
from nodes.sizing import SizingConfig
from nodes.technical import SmaCrossConfig, TechnicalConfig

FAST, SLOW = 10, 20
QUANTITY = 1.0
CASH = 1_000_000.0
INSTRUMENT = Instrument(symbol="SYN", tick="0.01", lot="1", taker_bps=10.0)  # 0.1 %
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Run:
    cpu_s: float
    fills: int
    equity: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--trades", type=int, default=2_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "backtest_speed.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        lines = bars_table(Path(name), arguments.rows, arguments.runs)
        lines += trades_table(Path(name), arguments.trades, arguments.runs)
    text = "\n".join([*header(arguments), *lines]) + "\n"
    print(text)
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(text)


def header(arguments: argparse.Namespace) -> list[str]:
    packages = ", ".join(f"{name} {version(name)}" for name in ("csp", "numpy", "pyarrow"))
    return [
        "# Speed of the backtest",
        "",
        f"`python -m benchmarks.backtest_speed --rows {arguments.rows} --trades {arguments.trades}",
        f"--runs {arguments.runs}`, {datetime.now(UTC):%Y-%m-%d},",
        f"{os.cpu_count()} cores ({platform.machine()}), no GPU, Python {platform.python_version()}, {packages}.",
        "CPU seconds of one process, best of the runs; the loop and the graph take turns.",
        "",
    ]


def turns(runs: int, *works: Callable[[], Run]) -> list[Run]:
    """The best run of each work, taken in turns so that a slow moment of the machine hits all of them."""
    best: list[Run | None] = [None] * len(works)
    for _ in range(runs):
        for i, work in enumerate(works):
            gc.collect()
            result = work()
            if best[i] is None or result.cpu_s < best[i].cpu_s:
                best[i] = result
    return [run for run in best if run is not None]


# --- one-minute bars: SMA crossover, market orders, 0.1 % fee ---------------------------------------------------------


def bars_config(path: Path, band: float) -> BacktestConfig:
    return BacktestConfig(
        name="bench",
        feeds=(Source(path=str(path)),),
        instruments=(INSTRUMENT,),
        initial_cash=CASH,
        signals=SignalsConfig(
            use=("technical",),
            technical=TechnicalConfig(
                enabled=("sma_cross",),
                sma_cross=SmaCrossConfig(fast_bars=FAST, slow_bars=SLOW, band=band, confidence=1.0),
            ),
        ),
        fuse=FuseConfig(),
        sizing=SizingConfig(mode="fixed", quantity=QUANTITY),
        risk=RiskConfig(drawdown_max=0.999, var_max=None),
        broker=PaperConfig(fills=FillModel(slippage_bps=0.0)),
    )


def graph_run(config: BacktestConfig) -> Run:
    """The shipped graph, venue and ledger; from the first bar read to the last mark."""
    planned = plan(config)

    def graph() -> None:
        feeds = replayed_feeds(planned)

        streams = trading_system(feeds, simulated_venue(planned, feeds), planned.trading, run_id=config.name)
        csp.add_graph_output("fills", csp.count(streams.fills), tick_count=1)
        csp.add_graph_output("equity", streams.equity, tick_count=1)

    began = time.process_time()
    out = csp.run(graph, starttime=planned.start, endtime=planned.end)
    cpu = time.process_time() - began
    return Run(cpu, out["fills"][-1][1] if out["fills"] else 0, out["equity"][-1][1])


def loop_run(path: Path, band: float) -> Run:
    """The same strategy, orders, fees and marks in a plain loop: what a quant would write first."""
    began = time.process_time()
    ring = [0] * SLOW
    fast_sum = slow_sum = 0
    cash, position, side, wanted = CASH, 0.0, 0, 0.0
    fills, equity, seen = 0, CASH, 0
    for batch in pq.ParquetFile(path).iter_batches(65_536, columns=["open", "close"]):
        for open_, close in zip(batch["open"].to_pylist(), batch["close"].to_pylist(), strict=True):
            if wanted != position:
                quantity = wanted - position
                notional = abs(quantity) * open_
                cash -= quantity * open_ + math.floor(notional * 0.001 * 100.0 + 0.5) / 100.0
                position = wanted
                fills += 1
            cents = round(close * 100.0)  # whole numbers: a running sum of floats drifts, and a tie becomes a cross
            slot = seen % SLOW
            fast_sum += cents - ring[(seen - FAST) % SLOW]
            slow_sum += cents - ring[slot]
            ring[slot] = cents
            seen += 1
            if seen >= SLOW:
                fast, slow = fast_sum * SLOW, slow_sum * FAST
                if fast > slow * (1.0 + band) and side <= 0:
                    side, wanted = 1, QUANTITY
                elif fast < slow * (1.0 - band) and side >= 0:
                    side, wanted = -1, -QUANTITY
            equity = cash + position * close
    return Run(time.process_time() - began, fills, equity)


def bars_table(folder: Path, rows: int, runs: int) -> list[str]:
    path = folder / "bars.parquet"
    write(SyntheticConfig(seed=7, rows=rows, symbol="SYN"), path)
    quiet, busy = bars_config(path, 0.5), bars_config(path, 0.0)
    idle_graph, graph, idle_loop, loop = turns(
        runs,
        lambda: graph_run(quiet),
        lambda: graph_run(busy),
        lambda: loop_run(path, 0.5),
        lambda: loop_run(path, 0.0),
    )
    if abs(graph.equity - loop.equity) >= 0.005 or graph.fills != loop.fills:
        raise SystemExit(f"the graph and the loop disagree: {graph} and {loop}")
    added = (graph.cpu_s - idle_graph.cpu_s) / graph.fills * 1e6
    loop_added = (loop.cpu_s - idle_loop.cpu_s) / loop.fills * 1e6

    def row(name: str, run: Run, plain: Run) -> str:
        ratio = run.cpu_s / plain.cpu_s
        return f"| {name} | {run.cpu_s:.2f} | {rows / run.cpu_s:,.0f} | {plain.cpu_s:.2f} | {ratio:.2f} |"

    return [
        f"## {rows:,} one-minute bars, SMA {FAST}/{SLOW} crossover, market orders, 0.1 % fee",
        "",
        "From Parquet through the shipped graph: feed, `sma_cross`, `fuse_signals`, `target_position`,",
        "`generate_orders`, `risk_filter`, `paper_venue`, ledger, marks at every bar from the first fill on, and the",
        "drawdown and exposure checks.",
        "The loop reads the same file. VaR is off in both.",
        "",
        "| | graph, CPU s | bars per CPU s | loop, CPU s | graph / loop |",
        "|---|---|---|---|---|",
        row("no fills (the band is never reached)", idle_graph, idle_loop),
        row(f"{graph.fills:,} fills", graph, loop),
        "",
        f"Each added fill costs {added:.1f} microseconds in the graph, {loop_added:.1f} in the loop.",
        f"Final equity: {graph.equity:,.2f} and {loop.equity:,.2f}.",
        "",
    ]


# --- trades: one-second VWAP with a threshold signal ------------------------------------------------------------------

SYMBOLS = tuple(f"SYM{i}" for i in range(10))


@csp.node
def crosses(window: ts[TradeWindow], level: float) -> ts[float]:
    """+1 or -1 when the VWAP of a window changes sides of `level`."""
    with csp.state():
        s_side = 0.0

    if csp.ticked(window):
        side = 1.0 if window.vwap > level else -1.0
        if side != s_side:
            s_side = side
            return side


def columns_run(path: Path, level: float) -> Run:
    source = Source(path=str(path))
    described = describe(source)

    def graph() -> None:
        price, size = replay.trade_columns(source)
        csp.add_graph_output("n", csp.count(crosses(one_second_aggregator(price, size), level)), tick_count=1)

    began = time.process_time()
    out = csp.run(graph, starttime=described.first, endtime=datetime(2100, 1, 1))
    return Run(time.process_time() - began, out["n"][-1][1], 0.0)


def structs_run(path: Path, level: float) -> Run:
    source = Source(path=str(path))
    described = describe(source)

    def graph() -> None:
        trades = replay.trades(source, list(SYMBOLS), described.symbols)
        for symbol, trade in trades.items():
            windows = one_second_aggregator(trade.price, trade.size)
            csp.add_graph_output(symbol, csp.count(crosses(windows, level)), tick_count=1)

    began = time.process_time()
    out = csp.run(graph, starttime=described.first, endtime=datetime(2100, 1, 1))
    return Run(time.process_time() - began, sum(ticks[-1][1] for ticks in out.values() if ticks), 0.0)


def structs_only_run(path: Path, level: float) -> Run:
    """The feed alone: Trade Structs, demultiplexed, counted in C++."""
    source = Source(path=str(path))
    described = describe(source)

    def graph() -> None:
        for symbol, trade in replay.trades(source, list(SYMBOLS), described.symbols).items():
            csp.add_graph_output(symbol, csp.count(trade), tick_count=1)

    began = time.process_time()
    out = csp.run(graph, starttime=described.first, endtime=datetime(2100, 1, 1))
    return Run(time.process_time() - began, sum(ticks[-1][1] for ticks in out.values()), 0.0)


def columns_only_run(path: Path, level: float) -> Run:
    """The feed alone: bare price and size columns, counted in C++."""
    source = Source(path=str(path))
    described = describe(source)

    def graph() -> None:
        for name, column in zip(("price", "size"), replay.trade_columns(source), strict=True):
            csp.add_graph_output(name, csp.count(column), tick_count=1)

    began = time.process_time()
    out = csp.run(graph, starttime=described.first, endtime=datetime(2100, 1, 1))
    return Run(time.process_time() - began, out["price"][-1][1], 0.0)


def trades_loop(path: Path, level: float) -> Run:
    """One-second windows, armed by their first trade, and the same signal, in a plain loop."""
    began = time.process_time()
    state: dict[str, list[float]] = {}
    signals = 0
    for batch in pq.ParquetFile(path).iter_batches(65_536):
        columns = (batch["time"].cast("int64"), batch["symbol"], batch["price"], batch["size"])
        for when, symbol, price, size in zip(*(c.to_pylist() for c in columns), strict=True):
            window = state.get(symbol)
            if window is None:
                window = state[symbol] = [
                    0,
                    0,
                    0.0,
                    0.0,
                    price,
                    price,
                    0.0,
                ]  # end, count, notional, volume, high, low, side
            if window[1] and when >= window[0]:
                side = 1.0 if window[2] / window[3] > level else -1.0
                if side != window[6]:
                    window[6] = side
                    signals += 1
                window[1] = 0
            if window[1] == 0:
                window[0:6] = [when + 1_000_000_000, 0, 0.0, 0.0, price, price]
            elif price > window[4]:
                window[4] = price
            elif price < window[5]:
                window[5] = price
            window[1] += 1
            window[2] += price * size
            window[3] += size
    for window in state.values():
        if window[1]:
            signals += (1.0 if window[2] / window[3] > level else -1.0) != window[6]
    return Run(time.process_time() - began, signals, 0.0)


def trades_table(folder: Path, rows: int, runs: int) -> list[str]:
    one, ten = folder / "trades1.parquet", folder / "trades10.parquet"
    write(SyntheticConfig(seed=8, rows=rows, symbol="SYM0", gap_mean_s=0.01, lot="0.001"), one, kind="trades")
    table = pq.read_table(one)
    level = float(np.mean(table["price"].to_numpy()))
    names = np.array(SYMBOLS)[np.random.default_rng(9).integers(0, len(SYMBOLS), rows)]
    pq.write_table(table.set_column(table.column_names.index("symbol"), "symbol", [names.astype(object)]), ten)
    columns, columns_only, loop_one = turns(
        runs, lambda: columns_run(one, level), lambda: columns_only_run(one, level), lambda: trades_loop(one, level)
    )
    structs, structs_only, loop_ten = turns(
        runs, lambda: structs_run(ten, level), lambda: structs_only_run(ten, level), lambda: trades_loop(ten, level)
    )
    if (columns.fills, structs.fills) != (loop_one.fills, loop_ten.fills):
        raise SystemExit(f"signals differ: {columns}, {loop_one}; {structs}, {loop_ten}")

    def row(name: str, run: Run, loop: Run) -> str:
        return (
            f"| {name} | {run.cpu_s:.2f} | {rows / run.cpu_s:,.0f} | {loop.cpu_s:.2f} | {run.cpu_s / loop.cpu_s:.2f} |"
        )

    return [
        f"## {rows:,} trades from Parquet, one-second VWAP with a threshold signal",
        "",
        "Reading, checking every row, windows and signals. The loop reads the same file and checks nothing.",
        "",
        "| | graph, CPU s | trades per CPU s | loop, CPU s | graph / loop |",
        "|---|---|---|---|---|",
        row("bare price and size columns, one symbol", columns, loop_one),
        row("the same, feed alone, counted in C++", columns_only, loop_one),
        row(f"Trade Structs, demultiplexed into {len(SYMBOLS)} symbols", structs, loop_ten),
        row("the same, feed alone, counted in C++", structs_only, loop_ten),
        "",
        f"Signals: {columns.fills:,} in both for one symbol, {structs.fills:,} in both for {len(SYMBOLS)}.",
    ]


if __name__ == "__main__":
    main()
