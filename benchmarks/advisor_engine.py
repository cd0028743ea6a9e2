"""Does a tick take longer while the advisor reads? A live graph with a feed of ticks, and `gpt` at work in its worker.

    idle      nobody reads
    worker    gpt reads headlines back to back in the worker of nodes/infer.py, as a live run has it
    process   it reads in another process: they share memory and caches, and no interpreter

A latency is the time from the push of a tick on the feed's thread until the last of a chain of nodes has seen it; the
time from when the tick was due is told beside it, since a feed is a thread of the same interpreter. Each run is a
process of its own, and they take turns. The worker's p99 must be at most twice that of the idle runs.

    python -m benchmarks.advisor_engine [--rounds 3] [--seconds 15] [--gpt CHECKPOINT] [--model FILE]
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import csp
import numpy as np
import torch
from csp import ts

from benchmarks.advisor import headlines_of
from benchmarks.models import processor
from feeds.loop import LoopAdapter, Push
from feeds.record import Inputs
from models.advisor.advice import Headline
from models.advisor.backends import GPT_SHIPPED, installed_model
from models.advisor.gpt import Gpt
from nodes.infer import InferConfig, Request, infer

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
TICKS_PER_S = 200
CHAIN = 10  # nodes that a tick passes
KEYS = 8  # headlines that wait at once: the worker is never without one
ASKS_PER_S = 200
SETTLED_S = 3.0  # before latencies count
RATIO_MAX = 2.0
WAYS = ("idle", "worker", "process")


class Tick(csp.Struct):
    due: int  # ns of the monotonic clock
    pushed: int


class Ask(Request):
    text: str


class Said(csp.Struct):
    symbol: str
    asof: datetime
    score: float


class Reading:
    """gpt as a model of the graph."""

    name = "advisor"

    def __init__(self, gpt: Gpt) -> None:
        self._gpt = gpt
        self.read = 0

    def predict(self, requests: Sequence[Any]) -> list[Said]:
        answers = self._gpt.advise([Headline(text=request.text) for request in requests])
        self.read += len(requests)
        pairs = zip(requests, answers, strict=True)
        return [Said(symbol=request.key, asof=request.asof, score=answer.score) for request, answer in pairs]

    def merge(self, waiting: Any, newer: Any) -> Any:
        return newer

    def close(self) -> None:
        """There is nothing to let go of."""


class Ticker:
    """A feed: ticks at a fixed rate, from the loop's thread."""

    async def run(self, push: Push) -> None:
        due = time.monotonic_ns()
        while True:
            due += 10**9 // TICKS_PER_S
            await asyncio.sleep(max(0.0, (due - time.monotonic_ns()) / 1e9))
            push("ticks", Tick(due=due, pushed=time.monotonic_ns()))

    def take(self, name: str, value: Any) -> None:
        raise NotImplementedError(f"nothing is sent to the feed, was {name}")


@csp.node
def passed(tick: ts[Tick]) -> ts[Tick]:
    if csp.ticked(tick):
        return tick


@csp.node
def seen(tick: ts[Tick], rows: list):  # type: ignore[type-arg] # csp takes no parameters
    if csp.ticked(tick):
        rows.append((time.monotonic_ns(), tick.pushed, tick.due))


@csp.node
def asking(timer: ts[bool], texts: list) -> ts[Ask]:  # type: ignore[type-arg]
    with csp.state():
        s_count = 0

    if csp.ticked(timer):
        s_count += 1
        return Ask(key=f"h{s_count % KEYS}", asof=csp.now(), text=texts[s_count % len(texts)])


def run_graph(reading: Reading | None, texts: list[str], seconds: float) -> list[tuple[int, int, int]]:
    """Times of each tick: seen, pushed, due."""
    rows: list[tuple[int, int, int]] = []

    def graph() -> None:
        edge = LoopAdapter("ticker", Ticker(), {"ticks": Tick}).edge("ticks")
        for _ in range(CHAIN):
            edge = passed(edge)
        seen(edge, rows)
        if reading is not None:
            asked = asking(csp.timer(timedelta(seconds=1.0 / ASKS_PER_S), True), texts)
            done = infer([asked], reading, Said, InferConfig(), live=csp.const(True), inputs=Inputs())
            csp.add_graph_output("answers", done.answer, tick_count=1)
            csp.add_graph_output("errors", done.error, tick_count=1)

    found = csp.run(graph, endtime=timedelta(seconds=seconds), realtime=True)
    if found and found.get("errors"):
        raise SystemExit(f"the worker failed: {found['errors'][-1][1]}")
    return rows


def child(arguments: argparse.Namespace) -> None:
    """One run; prints its latencies, or reads until it is told to stop."""
    torch.set_num_threads(1)
    texts = headlines_of(arguments.headlines)
    if arguments.child == "reader":
        gpt = Gpt(arguments.model, arguments.gpt)
        print("reads", flush=True)
        while True:
            gpt.advise([Headline(text=text) for text in texts[:KEYS]])
    reading = Reading(Gpt(arguments.model, arguments.gpt)) if arguments.child == "worker" else None
    rows = np.array(run_graph(reading, texts, SETTLED_S + arguments.seconds), dtype=np.float64)  # (N, 3)
    rows = rows[rows[:, 0] > rows[0, 0] + SETTLED_S * 1e9]
    print(
        json.dumps(
            {
                "pushed": ((rows[:, 0] - rows[:, 1]) / 1e6).tolist(),
                "due": ((rows[:, 0] - rows[:, 2]) / 1e6).tolist(),
                "read_per_s": reading.read / (SETTLED_S + arguments.seconds) if reading else 0.0,
            }
        )
    )


def _command(way: str, arguments: argparse.Namespace) -> list[str]:
    command = [sys.executable, "-m", "benchmarks.advisor_engine", "--child", way, "--seconds", str(arguments.seconds)]
    command += ["--model", str(arguments.model), "--gpt", str(arguments.gpt)]
    return command + ([] if arguments.headlines is None else ["--headlines", str(arguments.headlines)])


@contextmanager
def _reader(arguments: argparse.Namespace) -> Iterator[None]:
    """gpt at work in another process."""
    process = subprocess.Popen(_command("reader", arguments), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        if process.stdout.readline().strip() != "reads":
            raise SystemExit("the reader did not start")
        yield
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def measured(way: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One run in a process of its own."""
    if way == "process":
        with _reader(arguments):
            return measured("idle", arguments)
    done = subprocess.run(_command(way, arguments), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def p99(runs: Sequence[dict[str, Any]], what: str = "pushed") -> float:
    """Median over the runs: one run that was disturbed does not decide."""
    return float(np.median([np.quantile(run[what], 0.99) for run in runs]))


def _line(way: str, runs: Sequence[dict[str, Any]]) -> str:
    latencies = np.concatenate([run["pushed"] for run in runs])
    rounds = [float(np.quantile(run["pushed"], 0.99)) for run in runs]
    numbers = (np.median(latencies), p99(runs), np.quantile(latencies, 0.999), latencies.max(), p99(runs, "due"))
    p50, high, higher, most, due = (f"{number:.3f}" for number in numbers)
    read = f"{np.mean([run['read_per_s'] for run in runs]):.1f}" if way == "worker" else ""
    return f"| {way} | {p50} | {high} | {min(rounds):.3f} to {max(rounds):.3f} | {higher} | {most} | {due} | {read} |"


def report(arguments: argparse.Namespace, runs: dict[str, list[dict[str, Any]]], load: float) -> str:
    ratio = p99(runs["worker"]) / p99(runs["idle"])
    apart = p99(runs["process"]) / p99(runs["idle"])
    lines = [
        "# A tick while the advisor reads",
        "",
        f"`python -m benchmarks.advisor_engine --rounds {arguments.rounds} --seconds {arguments.seconds:g}`,",
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({processor()}), no GPU, Python",
        f"{platform.python_version()}, torch {version('torch')}, csp {version('csp')}. Load average: {load:.1f}.",
        f"{TICKS_PER_S} ticks a second through {CHAIN} nodes; `gpt` in fp32, one thread, never without a headline;",
        f"runs of {arguments.seconds:g} s, {arguments.rounds} of each, in turn. ms from the push of a tick until the",
        "last node has seen it; p99 is the median of the runs'.",
        "",
        "| | p50 | p99 | least to greatest run | p99.9 | most | p99 from when it was due | headlines a second |",
        "|---|---|---|---|---|---|---|---|",
        *(_line(way, found) for way, found in runs.items()),
        "",
        f"p99 with the advisor at work in its worker: {ratio:.2f} times that without (at most {RATIO_MAX}:",
        f"{'kept' if ratio <= RATIO_MAX else '**missed**'}); with it in another process {apart:.2f} times: the rest is",
        "the interpreter that they share.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--headlines", type=Path, default=None, help="CSV file with the column text")
    parser.add_argument("--gpt", type=Path, default=GPT_SHIPPED, help="checkpoint of the head")
    parser.add_argument("--model", type=Path, default=installed_model(), help="GGUF file; the installed one without")
    parser.add_argument("--out", type=Path, default=RESULTS / "advisor_engine.md")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.model is None:
        raise SystemExit("want a language model: make setup-llm, or --model FILE")
    if arguments.child:
        child(arguments)
        return
    load = os.getloadavg()[0]
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for number in range(arguments.rounds):
        for way, found in runs.items():
            found.append(measured(way, arguments))
            print(f"round {number + 1} of {arguments.rounds}, {way}: p99 {p99(found[-1:]):.3f} ms", flush=True)
    text = report(arguments, runs, load)
    print(text)
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(text)
    if p99(runs["worker"]) > RATIO_MAX * p99(runs["idle"]):
        raise SystemExit("slower than wanted")


if __name__ == "__main__":
    main()
