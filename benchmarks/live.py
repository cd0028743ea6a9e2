"""How long from a trade to an order? The live run against a bare ccxt.pro loop, on a local exchange beside them.

Both order at the same trades, 500 trades a second, and take turns. A latency is the time from the bytes of a trade at
one socket of the client to the bytes of the order's request at another: what the exchange takes is not in it. Then
10,000 trades come at once.

    python -m benchmarks.live [--rounds 5] [--seconds 20] [--burst 10000]
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.live_client import KEY_ENV, SECRET_ENV, SYMBOL

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
TRADES_PER_S = 500
EVERY = 25  # trades an order: 20 orders a second
BURST_EVERY = 1_000
SETTLED_S = 2.0  # after the first trade, before latencies count
BURST_AFTER_S, BURST_S = 3.0, 12.0
P50_MAX_MS, P99_MAX_MS, BURST_MAX = 0.3, 2.0, 2.0  # above, above, and times the bare loop

# Limits far above Binance's, because each run uses up a share of the same minute. No fees: they are taken out of what
# is bought, and where a busy machine is late with a fill, the sale of the whole that follows would be refused.
EXCHANGE = f"""
taker_bps = 0.0
orders_per_10s = 1000000
weight_per_minute = 100000000
balances = ["USDT=2000000", "BTC=100"]
[[listings]]
symbol = "{SYMBOL}"
trades_per_s = {TRADES_PER_S:.1f}
rows = 400000
loop = true
history_s = 400.0
"""
BARE = "a bare ccxt.pro loop"
GRAPHS = {  # name -> flags of benchmarks/live_client.py
    "the live run, journal NORMAL": (),
    "the live run, journal FULL": ("--journal", "full"),
    "the live run, journal NORMAL, recorded": ("--record",),
}
CONTESTANTS = {BARE: ("bare",), **{name: ("graph", *flags) for name, flags in GRAPHS.items()}}
JUDGED = next(iter(GRAPHS))

_Floats = npt.NDArray[np.float64]


@dataclass(slots=True)
class Latencies:
    """Of one contestant, milliseconds from the trade's bytes on."""

    strategy: list[float] = field(default_factory=list)  # until the strategy has the trade
    order: list[float] = field(default_factory=list)  # until the order's request

    def take(self, told: dict[str, Any]) -> None:
        """Add those of one run."""
        arrivals, seen = dict(told["arrivals"]), dict(told["seen"])
        begin = min(arrivals.values()) + SETTLED_S * 1e9
        for when, number in told["orders"]:
            if arrivals.get(number, 0) > begin:  # trades of the first moments came with history
                self.order.append((when - arrivals[number]) / 1e6)
                self.strategy.append((seen[number] - arrivals[number]) / 1e6)


@dataclass(frozen=True, slots=True)
class Burst:
    """How one run got through a burst."""

    lost: int
    seconds: float  # from the first bytes of the burst until the strategy had its last trade


@contextmanager
def exchange(folder: Path) -> Iterator[str]:
    """A local exchange in a process of its own; gives its URL."""
    config = folder / "exchange.toml"
    config.write_text(EXCHANGE)
    command = [sys.executable, "-m", "brokers.local_exchange", "--config", str(config)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line.startswith("listening on "):
            raise SystemExit(f"the local exchange did not start: {line!r}")
        yield line.split()[-1]
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def environment() -> dict[str, str]:
    return {**os.environ, KEY_ENV: "bench", SECRET_ENV: "bench-secret"}


def run_client(
    url: str, folder: Path, flags: tuple[str, ...], every: int, seconds: float, burst: int = 0
) -> tuple[dict[str, Any], int]:
    """Run one client; return what it saw, and when the burst was asked for, ns since 1970, 0 without one."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        out = Path(place) / "seen.json"
        command = [sys.executable, "-m", "benchmarks.live_client", *flags, "--url", url, "--out", str(out)]
        command += ["--every", str(every), "--seconds", str(seconds)]
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        asked = 0
        with process.stdout:
            for line in process.stdout:
                if burst and line.strip() == "started":
                    time.sleep(BURST_AFTER_S)
                    asked = time.time_ns()
                    body = json.dumps({"fault": "burst", "count": burst}).encode()
                    headers = {"Content-Type": "application/json"}
                    urllib.request.urlopen(urllib.request.Request(f"{url}/control/faults", body, headers)).close()
        if process.wait():
            raise SystemExit(f"{' '.join(flags)} ended with {process.returncode}")
        return json.loads(out.read_text()), asked


def measured_burst(told: dict[str, Any], asked: int, count: int) -> Burst:
    """What became of the burst that was asked for at `asked`."""
    arrivals, seen = dict(told["arrivals"]), dict(told["seen"])
    first = min(number for number, when in arrivals.items() if when >= asked)
    wanted = range(first, first + count)
    lost = sum(number not in seen for number in wanted)
    if len(seen) != len(told["seen"]):
        raise SystemExit("a trade was shown twice")
    return Burst(lost, (max(seen[number] for number in wanted if number in seen) - arrivals[first]) / 1e9)


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Latencies], dict[str, list[Burst]]]:
    """Every contestant in turn, `rounds` times over; then the bursts likewise."""
    latencies = {name: Latencies() for name in CONTESTANTS}
    bursts: dict[str, list[Burst]] = {BARE: [], JUDGED: []}
    with tempfile.TemporaryDirectory() as name, exchange(Path(name)) as url:
        for number in range(arguments.rounds):
            for contestant, flags in CONTESTANTS.items():
                told, _ = run_client(url, Path(name), flags, EVERY, arguments.seconds)
                latencies[contestant].take(told)
                p50, p99 = np.percentile(latencies[contestant].order, [50, 99])
                print(f"round {number + 1}, {contestant}: p50 {p50:.2f} ms, p99 {p99:.2f} ms so far", flush=True)
            for contestant, each in bursts.items():
                flags = CONTESTANTS[contestant]
                told, asked = run_client(url, Path(name), flags, BURST_EVERY, BURST_S, arguments.burst)
                each.append(measured_burst(told, asked, arguments.burst))
                print(f"round {number + 1}, {contestant}: {each[-1]}", flush=True)
    return latencies, bursts


def verdicts(latencies: dict[str, Latencies], bursts: dict[str, list[Burst]]) -> dict[str, bool]:
    """What is wanted, and whether it is so."""
    ours, bare = (np.percentile(latencies[name].order, [50, 99]) for name in (JUDGED, BARE))
    p50, p99 = (ours - bare).tolist()
    ratio = median_s(bursts[JUDGED]) / median_s(bursts[BARE])
    lost = sum(burst.lost for burst in bursts[JUDGED])
    return {
        f"p50 at most {P50_MAX_MS} ms above the loop's: {p50:+.2f} ms": p50 <= P50_MAX_MS,
        f"p99 at most {P99_MAX_MS:g} ms above the loop's: {p99:+.2f} ms": p99 <= P99_MAX_MS,
        f"no trade of a burst lost: {lost}": lost == 0,
        f"caught up with a burst within {BURST_MAX:g} times the loop's time: {ratio:.2f}": ratio <= BURST_MAX,
    }


def median_s(bursts: list[Burst]) -> float:
    return float(np.median([burst.seconds for burst in bursts]))


def table(
    arguments: argparse.Namespace, latencies: dict[str, Latencies], bursts: dict[str, list[Burst]], load: float
) -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("ccxt", "aiohttp", "csp", "orjson"))
    bare = np.percentile(latencies[BARE].order, [50, 99])
    rows = []
    for name, each in latencies.items():
        strategy, order = (np.percentile(values, [50, 99]) for values in (each.strategy, each.order))
        above = " | ".join("" if name == BARE else f"{value:+.2f}" for value in order - bare)
        rows.append(
            f"| {name} | {len(each.order):,} | {strategy[0]:.2f} / {strategy[1]:.2f} |"
            f" {order[0]:.2f} | {order[1]:.2f} | {above} |"
        )
    shown = [
        f"| {name} | {median_s(each):.2f} | {', '.join(f'{burst.seconds:.2f}' for burst in each)} |"
        f" {sum(burst.lost for burst in each)} |"
        for name, each in bursts.items()
    ]
    command = f"python -m benchmarks.live --rounds {arguments.rounds} --seconds {arguments.seconds:g}"
    lines = [
        "# From a trade to an order",
        "",
        f"`{command} --burst {arguments.burst}`, {datetime.now(UTC):%Y-%m-%d},",
        f"{os.cpu_count()} cores ({platform.machine()}), no GPU, Python {platform.python_version()}, {packages}.",
        f"Load average of the machine before the first run: {load:.1f}.",
        "",
        f"A local exchange in a process of its own tells {TRADES_PER_S} trades a second; a market order goes out at",
        f"each {EVERY}th. *The live run* is what `run_live.py` runs: feed with gap detection, signal, fusion, sizing,",
        "gate, journal before the send, venue, books. *The loop* is `watch_trades` and `create_order`, without ccxt's",
        "limiter, which would make every second order wait. Every run is a process of its own; contestants take turns,",
        "round after round. Milliseconds from the kernel's stamp of the trade's bytes (SO_TIMESTAMPNS) to the write of",
        "the request.",
        "",
        "|  | orders | to the strategy, p50 / p99 | to the request, p50 | p99 | above the loop, p50 | p99 |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"## {arguments.burst:,} trades at once",
        "",
        "Seconds from the first bytes of the burst until the strategy has its last trade.",
        "",
        "|  | median | by round | lost |",
        "|---|---|---|---|",
        *shown,
        "",
        "## What was wanted",
        "",
        *(f"- {'met' if met else '**missed**'}: {text}" for text, met in verdicts(latencies, bursts).items()),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="of a run")
    parser.add_argument("--burst", type=int, default=10_000, help="trades")
    parser.add_argument("--out", type=Path, default=RESULTS / "live.md")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    latencies, bursts = measure(arguments)
    text = table(arguments, latencies, bursts, load)
    arguments.out.write_text(text)
    print(text)
    missed = [aim for aim, met in verdicts(latencies, bursts).items() if not met]
    if missed:
        raise SystemExit(f"missed: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
