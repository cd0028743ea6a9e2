"""A live run replayed in another process: the same bits, killed or stopped; and where a changed input shows."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from feeds import recording
from feeds.recording import COLUMN, Comparison
from tests.feeds.recorded_market import OUTPUTS

PROGRAM = Path(__file__).parent / "recorded_market.py"
DEADLINE_S = 60.0


def start(*args: str | Path, seed: int, log: Path) -> subprocess.Popen[bytes]:
    """The program with a hash seed of its own, so that an order that rests on hashes shows."""
    with log.open("wb") as stderr:
        command = [sys.executable, str(PROGRAM), *map(str, args)]
        return subprocess.Popen(command, stderr=stderr, env=os.environ | {"PYTHONHASHSEED": str(seed)})


def rows(root: Path, stream: str) -> int:
    """How many are on disk so far."""
    return sum(block.num_rows for block in recording.blocks(root, stream))


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert process.poll() is None, log.read_text()[-2_000:]
        assert time.monotonic() < deadline, "the program got nowhere"
        time.sleep(0.02)  # between two looks


def market_is_recorded(root: Path, orders: int) -> Callable[[], bool]:
    def check() -> bool:
        try:
            return rows(root, "outputs/orders") >= orders and rows(root, "inputs/status") >= 4
        except recording.DataError:  # not yet there
            return False

    return check


def replayed(root: Path, out: Path, seed: int = 7) -> Comparison:
    """Replay in a process of its own, and compare as far as the recording is complete."""
    log = out.with_suffix(".log")
    process = start("replay", root, out, seed=seed, log=log)
    assert process.wait(DEADLINE_S) == 0, log.read_text()[-2_000:]
    return recording.compare(root, out, OUTPUTS, recording.complete_before(root))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was asked to stop, and did."""
    folder = tmp_path_factory.mktemp("stopped")
    root, log = folder / "run", folder / "log"
    process = start("live", root, DEADLINE_S, seed=1, log=log)
    wait_for(market_is_recorded(root, 200), process, log)
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_S) == 0
    return root


def test_a_replay_in_another_process_is_identical(stopped: Path, tmp_path: Path) -> None:
    compared = replayed(stopped, tmp_path / "out")

    assert compared.first is None
    assert compared.identical
    assert compared.count("outputs/orders") >= 200
    assert compared.count("outputs/fills") >= 200
    assert compared.count("outputs/alerts") >= 2
    counts = recording.read_manifest(stopped)["counts"]
    assert [compared.count(stream) for stream in OUTPUTS] == [counts[stream] for stream in OUTPUTS]
    assert all(counts[f"inputs/{name}"] for name in ("history", "live", "stop", "updates", "depth", "quotes"))


def test_one_input_changed_by_hand_shows_where_the_replay_first_differs(stopped: Path, tmp_path: Path) -> None:
    changed_ns = change_a_price(stopped, tmp_path / "changed")

    compared = replayed(tmp_path / "changed", tmp_path / "out")

    assert not compared.identical
    assert compared.first is not None
    assert compared.first.engine_ns >= changed_ns
    for each in compared.streams:  # nothing before the change differs
        early = recording.compare(tmp_path / "changed", tmp_path / "out", [each.stream], changed_ns)
        assert early.identical
    assert sum(each.recorded for each in compared.streams) > 100
    assert f"{compared.first.stream} differs first at row {compared.first.row:,}" in str(compared.first)


def change_a_price(root: Path, copy: Path) -> int:
    """Copy a recording with one trade's price another; its engine time in nanoseconds."""
    shutil.copytree(root, copy)
    path = copy / "inputs/trades-000002.arrow"
    with pa.ipc.open_stream(path.read_bytes()) as reader:
        table = reader.read_all()
    at = table.num_rows // 2
    prices = table.column("price").to_pylist()
    prices[at] += 0.125
    table = table.set_column(table.schema.get_field_index("price"), "price", pa.array(prices))
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)
    return table.column(COLUMN).cast(pa.int64())[at].as_py()


@pytest.mark.parametrize("orders", [20, pytest.param(300, marks=pytest.mark.slow)])
def test_a_killed_run_loses_at_most_a_second_and_replays_up_to_its_watermark(tmp_path: Path, orders: int) -> None:
    root, log = tmp_path / "run", tmp_path / "log"
    process = start("live", root, DEADLINE_S, seed=2, log=log)
    wait_for(market_is_recorded(root, orders), process, log)
    wait_for(
        lambda: newest(log) - recording.read_watermark(root) > 150_000_000, process, log
    )  # much is not yet written

    process.kill()
    process.wait(DEADLINE_S)

    ticked = dict(truth(log))
    last = newest(log)
    for stream, times in ticked.items():
        kept = [
            ns for block in recording.blocks(root, stream) for ns in block.column(COLUMN).cast(pa.int64()).to_pylist()
        ]
        assert kept == times[: len(kept)]
        assert all(ns > last - 1_000_000_000 for ns in times[len(kept) :])
    mark = recording.complete_before(root)
    assert mark is not None
    assert last - 1_000_000_000 < mark <= last
    compared = replayed(root, tmp_path / "out")
    assert compared.first is None
    assert compared.count("outputs/orders") >= 10
    assert compared.count("outputs/fills") >= 10


def newest(log: Path) -> int:
    return max(times[-1] for _, times in truth(log))


def truth(log: Path) -> Iterator[tuple[str, list[int]]]:
    """Engine times of what ticked, as the killed process itself told in the cycle of each tick."""
    lines = [line.split() for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    for stream in ("inputs/trades", "inputs/status"):
        yield stream, [int(ns) for name, ns in lines if name == stream]
