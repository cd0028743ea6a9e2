"""Where does the time from a trade to an order go? The live run of benchmarks/live.py, stamped at each stage.

A stamp costs less than a microsecond warm, and some where it is cold, as the rest of the way is. Stages are told as the
median and the 90th of a hundred of the time since the stage before.

    python -m benchmarks.live_stages [--seconds 20]
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import structlog

import brokers.journal
import brokers.venue
import brokers.venue_link
import brokers.venue_quick
import brokers.venue_tracker
import feeds.loop
import nodes.order_checks
import nodes.orders
from benchmarks import live, live_client

SETTLED = 40  # orders, before stages count

# What is stamped when it begins, and the words for the stage that ends there. The first is the kernel's stamp.
STAGES: dict[str, tuple[Any, str]] = {
    "the message is read, the trade parsed and in order": (feeds.loop._Loop, "_push"),
    "to the engine's thread, to the strategy": (live_client.Seen, "trade"),
    "signal, fusion, sizing, target": (nodes.orders.Flight, "missing"),
    "the order, to the gate": (nodes.order_checks.OrderChecks, "refusal"),
    "the gate, to the edge of the graph": (feeds.loop._LoopIn, "on_tick"),
    "to the loop's thread": (feeds.loop._Loop, "_deliver"),
    "what the venue makes of it": (brokers.venue.VenueService, "_send"),
    "the row for the journal": (brokers.journal.Journal, "order_sent"),
    "the journal": (brokers.venue_tracker.Tracker, "send"),
    "a task for the order": (brokers.venue_link.Link, "place"),
    "the limiter": (brokers.venue_quick.QuickOrders, "request"),
    "the request, signed": (aiohttp.ClientSession, "_request"),
    "aiohttp, to the socket": (live_client.Stamped, "send"),
}
STARTS = ("the message is read, the trade parsed and in order", "to the engine's thread, to the strategy")


class Stamps:
    """The stamps of each order's way: every stage once, from the trade that asks for it on."""

    def __init__(self, every: int) -> None:
        self.rows: list[dict[str, int]] = []
        self._every = every

    def wrap(self, stage: str, owner: Any, name: str) -> None:
        """Stamp each call of a method."""
        work = getattr(owner, name)

        def stamped(*values: Any, **named: Any) -> Any:
            now = time.time_ns()
            if stage == STARTS[0]:
                if values[1] == "trades" and values[2].trade_id % self._every == 0:
                    self.rows.append({"trade": values[2].trade_id, stage: now})
            elif self.rows and (stage != STARTS[1] or values[1] == self.rows[-1]["trade"]):
                row = self.rows[-1]
                if len(row) == 1 + list(STAGES).index(stage):  # in this order, whatever else calls it
                    row[stage] = now
            return work(*values, **named)

        setattr(owner, name, stamped)


def child(arguments: argparse.Namespace) -> None:
    """The live run, stamped."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    stamps, seen = Stamps(live.EVERY), live_client.Seen()
    for stage, (owner, name) in STAGES.items():
        stamps.wrap(stage, owner, name)
    live_client.stamp_sockets(seen)
    options = {"url": arguments.child, "every": live.EVERY, "seconds": arguments.seconds, "out": arguments.out}
    live_client.run_graph(argparse.Namespace(**options, journal="normal", record=False), seen)
    arrivals = seen.arrivals()
    rows = [
        [arrivals[row["trade"]], *(row[stage] for stage in STAGES)] for row in stamps.rows if len(row) > len(STAGES)
    ]
    arguments.out.write_text(json.dumps(rows))


def table(rows: list[list[int]], seconds: float, load: float) -> str:
    """Microseconds of each stage."""
    steps = np.diff(np.array(rows[SETTLED:], dtype=np.float64), axis=1) / 1e3
    lines = [
        "# From a trade to an order, stage by stage",
        "",
        f"`python -m benchmarks.live_stages --seconds {seconds:g}`, {datetime.now(UTC):%Y-%m-%d},",
        f"{os.cpu_count()} cores ({platform.machine()}), no GPU, Python {platform.python_version()}, journal NORMAL.",
        f"{len(steps)} orders; load average before: {load:.1f}.",
        "",
        "| stage | median, us | p90, us |",
        "|---|---|---|",
    ]
    for stage, step in zip(STAGES, steps.T, strict=True):
        lines.append(f"| {stage} | {np.median(step):.0f} | {np.percentile(step, 90):.0f} |")
    whole = steps.sum(axis=1)
    lines.append(f"| all | {np.median(whole):.0f} | {np.percentile(whole, 90):.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--out", type=Path, default=live.RESULTS / "live_stages.md")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name, live.exchange(Path(name)) as url:
        out = Path(name) / "rows.json"
        command = [sys.executable, "-m", "benchmarks.live_stages", "--child", url, "--out", str(out)]
        command += ["--seconds", str(arguments.seconds)]
        subprocess.run(command, env=live.environment(), cwd=live.ROOT, stdout=subprocess.DEVNULL, check=True)
        rows = json.loads(out.read_text())
    text = table(rows, arguments.seconds, load)
    arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
