"""The graph against backtesting.py and NautilusTrader: the same strategy, the same data, CPU seconds.

Every contestant runs in a process of its own, in turn, several rounds. Two figures of each: CPU (user + system) of its
engine alone, and of the whole process with imports and loading. The peers live in their own virtual environment, which
is made beside this file from requirements.txt.

    python benchmarks/peers/run.py [--rounds 3] [--bars 100000] [--trades 300000] [--only bars]
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from contest import CASH, FAST, FEE, SLOW

from feeds.synthetic import SyntheticConfig, write

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
PEERS = HERE / ".venv"

# Of this seed 100,000 bars make exactly 5,555 fills, and no contestant's warm-up changes the first of them: the fast
# average is above the slow one at the 20th bar and at the 21st, and both close at the same price.
BARS_SEED = 7271
# A volume that no contestant's fill model can run out of.
BARS = {"symbol": "SYN", "lot": "1", "size_mean": 1.0, "volume_mean": 3_000.0}
TRADES_SEED = 8
TRADES = {"symbol": "SYN", "lot": "0.001", "gap_mean_s": 0.05}


@dataclass(slots=True)
class Contestant:
    name: str
    python: Path
    script: str
    flags: tuple[str, ...] = ()
    rounds: list[dict[str, Any]] = field(default_factory=list)

    def run(self, *arguments: str) -> None:
        command = [str(self.python), "-W", "ignore", str(HERE / self.script), *arguments, *self.flags]
        with tempfile.TemporaryFile() as out:
            # No progress bar in the peer's own time.
            process = subprocess.Popen(command, stdout=out, env=os.environ | {"TQDM_DISABLE": "1"})
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            lines = out.read().decode().splitlines()
        if process.returncode or not lines:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {lines[-1:]}")
        self.rounds.append(json.loads(lines[-1]) | {"process_cpu_s": usage.ru_utime + usage.ru_stime})

    def best(self, key: str = "engine_cpu_s") -> float:
        return min(one[key] for one in self.rounds)

    def all(self, key: str = "engine_cpu_s") -> str:
        return ", ".join(f"{one[key]:.2f}" for one in self.rounds)

    def found(self, key: str) -> Any:
        """What every round found; a contestant that does not repeat itself is no contestant."""
        values = {json.dumps(one[key]) for one in self.rounds}
        if len(values) != 1:
            raise SystemExit(f"{self.name} found different {key} in its rounds: {sorted(values)}")
        return self.rounds[0][key]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bars", type=int, default=100_000)
    parser.add_argument("--trades", type=int, default=300_000)
    parser.add_argument("--only", choices=("bars", "trades"))
    parser.add_argument("--out", type=Path, default=RESULTS / "peers.md")
    arguments = parser.parse_args()
    environment()
    arguments.load = os.getloadavg()[0]
    lines: list[str] = []
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        if arguments.only != "trades":
            lines += bars_table(Path(name), arguments.bars, arguments.rounds, versions)
        if arguments.only != "bars":
            lines += trades_table(Path(name), arguments.trades, arguments.rounds, versions)
    text = "\n".join([*header(arguments, versions), *lines]) + "\n"
    print(text)
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(text)


def environment() -> None:
    """Make the peers' virtual environment, unless it is there for these very requirements."""
    wanted = hashlib.sha256((HERE / "requirements.txt").read_bytes()).hexdigest()
    stamp = PEERS / "requirements.sha256"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(PEERS)], check=True)
    pip = [str(PEERS / "bin" / "pip"), "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "-r", str(HERE / "requirements.txt")], check=True)
    stamp.write_text(wanted)


def header(arguments: argparse.Namespace, versions: dict[str, str]) -> list[str]:
    flags = f"--rounds {arguments.rounds} --bars {arguments.bars} --trades {arguments.trades}"
    flags += f" --only {arguments.only}" if arguments.only else ""
    packages = ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))
    return [
        "# The graph and its peers",
        "",
        f"`python benchmarks/peers/run.py {flags}`, {datetime.now(UTC):%Y-%m-%d},",
        f"{os.cpu_count()} cores ({platform.machine()}), no GPU, Python {platform.python_version()}; {packages}.",
        "Every run is a process of its own; contestants take turns, round after round. CPU is user and system seconds:",
        "*engine* is the run alone, *process* adds imports, loading and preparing (`import csp` alone is most of the",
        "graph's). Ratios compare the best rounds. Load average of the machine before the first run:",
        f"{arguments.load:.1f}.",
        "",
    ]


def turns(contestants: list[Contestant], rounds: int, versions: dict[str, str], *arguments: str) -> None:
    """Run all in turn, so that a slow moment of the machine hits all of them."""
    for number in range(rounds):
        for contestant in contestants:
            contestant.run(*arguments)
            print(f"round {number + 1}: {contestant.name}: {contestant.all()}", file=sys.stderr)
    for contestant in contestants:
        for name, number in contestant.found("versions").items():
            owner = "" if contestant.python == Path(sys.executable) or name not in ("numpy", "pyarrow") else " (peers)"
            versions[name + owner] = number


def heading(events: str, *found: str) -> list[str]:
    columns = [
        "",
        "engine CPU s, by round",
        f"{events} per CPU s",
        "engine / graph",
        "process CPU s",
        "process / graph",
    ]
    columns += found
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def row(one: Contestant, ours: Contestant, events: int, cells: str) -> str:
    engine, process = one.best() / ours.best(), one.best("process_cpu_s") / ours.best("process_cpu_s")
    return (
        f"| {one.name} | {one.all()} | {events / one.best():,.0f} | {engine:.2f} "
        f"| {one.best('process_cpu_s'):.2f} | {process:.2f} | {cells} |"
    )


def verdict(peer: Contestant, ours: Contestant) -> list[str]:
    """Who is faster, in a sentence each for engine and process; where it is the peer, in bold."""
    lines = []
    for what, key in (("engine", "engine_cpu_s"), ("process", "process_cpu_s")):
        ratio = peer.best(key) / ours.best(key)
        lead = f"**{peer.name} is faster**" if ratio < 1.0 else f"{peer.name} is slower"
        lines.append(f"- {lead}, {what}: {ratio:.2f} times the CPU of {ours.name}.")
    return lines


# --- one-minute bars --------------------------------------------------------------------------------------------------


def bars_table(folder: Path, rows: int, rounds: int, versions: dict[str, str]) -> list[str]:
    path = folder / "bars.parquet"
    write(SyntheticConfig(seed=BARS_SEED, rows=rows, **BARS), path)  # type: ignore[arg-type]
    mine, theirs = Path(sys.executable), PEERS / "bin" / "python"
    ours = Contestant("the graph, every limit on", mine, "ours_bars.py")
    bare = Contestant("the graph, no limits", mine, "ours_bars.py", ("--no-limits",))
    backtesting = Contestant("backtesting.py", theirs, "backtesting_bars.py")
    nautilus = Contestant("NautilusTrader", theirs, "nautilus_bars.py")
    unchecked = Contestant("NautilusTrader, risk engine bypassed", theirs, "nautilus_bars.py", ("--no-risk",))
    everyone = [ours, bare, backtesting, nautilus, unchecked]
    turns(everyone, rounds, versions, str(path))

    def cells(one: Contestant) -> str:
        equity, fills = one.found("equity"), one.found("fills")
        apart = equity - ours.found("equity")
        same = abs(apart) < 1e-6 and fills == ours.found("fills") and one.found("volume") == ours.found("volume")
        return f"{fills:,} | {equity:,.5f} | {'none' if same else f'{apart:+.5f}'}"

    return [
        f"## {rows:,} one-minute bars, SMA {FAST}/{SLOW} crossover, market orders, {100 * FEE:g} % fee",
        "",
        f"`feeds.synthetic`, seed {BARS_SEED}. One unit long or short, turned at every cross; cash {CASH:,}.",
        "",
        *heading("bars", "fills", "final equity", "difference"),
        *(row(one, ours, rows, cells(one)) for one in everyone),
        "",
        *verdict(backtesting, ours),
        *verdict(nautilus, ours),
        "",
        *BARS_NOTES,
        "",
    ]


BARS_NOTES = """\
What makes them equal, and what does not:

- **Time of a fill.** The graph and backtesting.py fill an order at the open of the bar after the one that decided.
  NautilusTrader moves its market through open, high, low and close of a bar before the strategy sees it, and fills the
  order at once, at that close. An invented bar opens where the last one closed, so the prices are the same.
- **First bar.** backtesting.py skips one bar more than the averages need. The first signal of this series stands at
  both bars, and both lead to the same price.
- **Ties.** Averages nearer than 1e-12 of themselves count as equal everywhere: rounding makes no cross.
- **Fees.** They are counted in units of 1e-8 everywhere (backtesting.py: in floats), so none is rounded.
- **A flip** is one order of two units in the graph and in NautilusTrader; backtesting.py closes a trade and opens the
  next within one exclusive order. It is one fill in the table.
- **Work that only some do.** The graph reads and checks the Parquet file within its engine figure; the peers get it
  loaded and converted before. The graph keeps exact books, its gate judges every order, its monitor every bar.
  NautilusTrader keeps accounts, positions and order events, and its risk engine checks orders. backtesting.py checks
  nothing, and computes its statistics within `run()`. All keep every fill; the graph and backtesting.py keep equity at
  every bar.
- **Settings of the peers.** backtesting.py: indicators vectorised through `self.I`, `exclusive_orders`, no progress
  bar. NautilusTrader: low-level `BacktestEngine`, bars made beforehand, its own compiled averages, logging bypassed, no
  analysis after the run; an average kept by hand in the strategy was no faster.""".splitlines()


# --- trades -----------------------------------------------------------------------------------------------------------


def trades_table(folder: Path, rows: int, rounds: int, versions: dict[str, str]) -> list[str]:
    path = folder / "trades.parquet"
    write(SyntheticConfig(seed=TRADES_SEED, rows=rows, **TRADES), path, kind="trades")  # type: ignore[arg-type]
    level = float(np.mean(pq.read_table(path, columns=["price"])["price"].to_numpy()))
    mine, theirs = Path(sys.executable), PEERS / "bin" / "python"
    ours = Contestant("the graph, Trade Structs", mine, "ours_trades.py")
    columns = Contestant("the graph, bare columns", mine, "ours_trades.py", ("--columns",))
    nautilus = Contestant("NautilusTrader", theirs, "nautilus_trades.py")
    everyone = [ours, columns, nautilus]
    series: dict[str, Path] = {}
    for one in everyone:
        one.flags += ("--series", str(folder / f"{len(series)}.npy"))
        series[one.name] = Path(one.flags[-1])
    turns(everyone, rounds, versions, str(path), repr(level))

    def cells(one: Contestant) -> str:
        mine, its = np.load(series[ours.name]), np.load(series[one.name])
        if len(mine) != len(its):
            same = f"{len(its)} windows against {len(mine)}"
        elif np.array_equal(mine, its):
            same = "the same, bit for bit"
        else:
            same = f"differs by up to {np.max(np.abs(its / mine - 1.0)):.1e} of the price"
        return f"{one.found('windows'):,} | {one.found('signals'):,} | {same}"

    return [
        f"## {rows:,} trades, one-second VWAP with a threshold signal",
        "",
        f"`feeds.synthetic`, seed {TRADES_SEED}, a trade every {TRADES['gap_mean_s']} s on average. A window opens",
        "with its first trade and holds those of one second; the signal changes when its VWAP changes sides of the",
        "mean price.",
        "",
        *heading("trades", "windows", "signals", "series"),
        *(row(one, ours, rows, cells(one)) for one in everyone),
        "",
        *verdict(nautilus, ours),
        "",
        *TRADES_NOTES,
    ]


TRADES_NOTES = """\
- The graph reads the Parquet file within its engine figure, and checks every trade; it also gives volume, count, high
  and low of each window, and closes it by an alarm exactly one second after its first trade.
- NautilusTrader gets its trade ticks made beforehand. Its strategy keeps two sums, and closes a window when the next
  trade comes: cheaper than a timer, and the same windows.
- backtesting.py knows bars alone, and does not take part.""".splitlines()


if __name__ == "__main__":
    main()
