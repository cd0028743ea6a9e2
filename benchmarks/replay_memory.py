"""Does memory grow with the file? Peak memory of replaying a million and ten million trades from Parquet.

Each replay runs in a process of its own, whose peak Linux tells; it counts the interpreter and the libraries too.

    python benchmarks/replay_memory.py [--rows 1000000 10000000] [--runs 3]
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import csp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feeds import replay
from feeds.files import Source
from feeds.synthetic import SyntheticConfig, trade_tables

SYMBOLS = tuple(f"SYM{i}" for i in range(10))
GROWTH_MAX = 0.10  # of the peak, from the fewest rows to the most
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Replay:
    """One replay in a process of its own."""

    way: str
    rows: int
    imported_mb: float  # peak before the replay
    peak_mb: float
    cpu_s: float  # of the replay


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "replay_memory.md")
    parser.add_argument("--child", nargs=2, metavar=("WAY", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        way, path = arguments.child
        print(json.dumps(asdict(replay_once(way, Path(path)))))
        return
    replays = measure(arguments.rows, arguments.runs)
    text = "\n".join(report(replays, arguments)) + "\n"
    print(text)
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(text)
    grown = max(growth(replays, way) for way in WAYS)
    if grown > GROWTH_MAX:
        raise SystemExit(f"peak memory grew by {grown:.0%}, want at most {GROWTH_MAX:.0%}")


def measure(rows: list[int], runs: int) -> list[Replay]:
    """The run with the smallest peak, for each way and number of rows."""
    replays = []
    with tempfile.TemporaryDirectory() as folder:
        for count in sorted(rows):
            path = Path(folder) / f"{count}.parquet"
            write_trades(path, count)
            for way in WAYS:
                took = [child(way, path) for _ in range(runs)]
                replays.append(min(took, key=lambda one: one.peak_mb))
            path.unlink()
    return replays


def write_trades(path: Path, rows: int) -> None:
    """Invented trades of ten symbols, a table at a time."""
    chance = np.random.default_rng(1)
    writer = None
    for table in trade_tables(SyntheticConfig(seed=1, rows=rows, gap_mean_s=0.01)):
        symbol = pa.array(np.array(SYMBOLS, object)[chance.integers(0, len(SYMBOLS), len(table))])
        table = table.set_column(table.column_names.index("symbol"), "symbol", symbol)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def child(way: str, path: Path) -> Replay:
    command = [sys.executable, __file__, "--child", way, str(path)]
    return Replay(**json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def replay_once(way: str, path: Path) -> Replay:
    """Replay a file in this process and look at what it needed."""
    rows = pq.read_metadata(path).num_rows
    imported_mb = peak_mb()
    began = time.process_time()
    out = csp.run(WAYS[way], path, starttime=datetime(2024, 1, 1), endtime=datetime(2100, 1, 1))
    cpu_s = time.process_time() - began
    counted = sum(ticks[-1][1] for ticks in out.values()) // (2 if way == "columns" else 1)
    if counted != rows:
        raise SystemExit(f"{way}: {counted} of {rows} trades ticked")
    return Replay(way, rows, imported_mb, peak_mb(), cpu_s)


def peak_mb() -> float:
    """Peak resident memory of this process. Not its `ru_maxrss`: Linux starts that at the peak of the parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def columns(path: Path) -> None:
    for name, column in zip(("price", "size"), replay.trade_columns(Source(path=str(path))), strict=True):
        csp.add_graph_output(name, csp.count(column), tick_count=1)


def structs(path: Path) -> None:
    for symbol, trade in replay.trades(Source(path=str(path)), list(SYMBOLS), SYMBOLS).items():
        csp.add_graph_output(symbol, csp.count(trade), tick_count=1)


WAYS: dict[str, Callable[[Path], None]] = {"columns": columns, "structs": structs}
TITLES = {
    "columns": "bare price and size columns",
    "structs": f"Trade Structs, demultiplexed into {len(SYMBOLS)} symbols",
}


def growth(replays: list[Replay], way: str) -> float:
    """From the fewest rows to the most."""
    peaks = [one.peak_mb for one in sorted(replays, key=lambda one: one.rows) if one.way == way]
    return peaks[-1] / peaks[0] - 1.0


def report(replays: list[Replay], arguments: argparse.Namespace) -> list[str]:
    packages = ", ".join(f"{name} {version(name)}" for name in ("csp", "numpy", "pyarrow"))
    rows = " ".join(str(count) for count in arguments.rows)
    return [
        "# Memory of a replay",
        "",
        f"`python benchmarks/replay_memory.py --rows {rows} --runs {arguments.runs}`, {datetime.now(UTC):%Y-%m-%d},",
        f"{os.cpu_count()} cores ({platform.machine()}), no GPU, Python {platform.python_version()}, {packages}.",
        "",
        "Invented trades of ten symbols stream from Parquet through every check into `csp.count`. The peak is the",
        "resident memory (VmHWM) of a process that does nothing else; imports are what it was before the replay.",
        f"Of {arguments.runs} runs, the one with the smallest peak; CPU is that of the replay.",
        "",
        "| | trades | imports, MB | peak, MB | CPU s |",
        "|---|---|---|---|---|",
        *(
            f"| {TITLES[one.way]} | {one.rows:,} | {one.imported_mb:.0f} | {one.peak_mb:.0f} | {one.cpu_s:.2f} |"
            for one in replays
        ),
        "",
        f"Growth of the peak from {min(arguments.rows):,} to {max(arguments.rows):,} trades:",
        ", ".join(f"{TITLES[way]} {growth(replays, way):+.1%}" for way in WAYS) + ".",
    ]


if __name__ == "__main__":
    main()
