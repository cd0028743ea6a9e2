"""A live run gives the same bytes again: in another process, from its inputs alone, on paper and at a venue."""

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from feeds import recording
from feeds.recording import COLUMN, Difference
from graphs.live import OUTCOMES
from tests.live import parity_runs, parity_signals
from tests.live.parity_runs import LIVES, Recorded, rows, times

STREAMS = [f"outputs/{name}" for name in OUTCOMES]
RUNS = [(life, which) for life in LIVES for which in ("first", "second")]


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recorded]:
    return parity_runs.record(tmp_path_factory.mktemp("parity"))


@pytest.fixture(scope="module")
def again(lives: dict[str, Recorded], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], Path]]:
    """Replays of copies that hold no orders, fills and alerts: what they recorded in turn."""
    folder = tmp_path_factory.mktemp("again")

    def replay(run: tuple[str, str]) -> Path:
        name = "-".join(run)
        copy = parity_runs.without_outcomes(getattr(lives[run[0]], run[1]), folder / f"{name}-inputs")
        done = parity_runs.replay(copy, folder / name, seed=7)
        # It has run to its end, and only then found nothing to compare with.
        assert done.returncode == 2, done.stdout + done.stderr
        assert "has no stream outputs/orders" in done.stderr
        return folder / name

    with ThreadPoolExecutor(2) as pool:
        yield dict(zip(RUNS, pool.map(replay, RUNS), strict=True))


@pytest.mark.parametrize(("life", "which"), RUNS)
def test_a_replay_without_what_was_recorded_of_orders_gives_the_same_bytes(
    lives: dict[str, Recorded], again: dict[tuple[str, str], Path], life: str, which: str
) -> None:
    root = getattr(lives[life], which)

    compared = recording.compare(root, again[life, which], STREAMS)

    assert compared.first is None, str(compared.first)
    assert compared.identical
    assert recording.read_manifest(root)["ended"] == "stop"
    least = {"orders": 10, "fills": 10, "alerts": 2} if which == "first" else {"orders": 1, "fills": 1, "alerts": 2}
    for name, count in least.items():
        assert compared.count(f"outputs/{name}") >= count, name


@pytest.mark.parametrize("life", LIVES)
def test_the_run_held_what_makes_replays_differ(lives: dict[str, Recorded], life: str) -> None:
    root = lives[life].first

    assert len(times(root, "inputs/warmup")) > 100
    assert len(times(root, "inputs/crypto0-quotes")) > 10
    assert len(times(root, "inputs/crypto1-depth")) > 10
    guesses, bars = len(times(root, "inputs/guesses-es-usd")), len(times(root, "inputs/warmup"))
    assert 3 <= guesses < bars  # the worker was too slow for all of them
    told = rows(root, "inputs/crypto0-status")["state"].to_pylist()
    assert "STALE" in told
    assert told[-1] == "RECOVERED"
    assert _longest_burst(root, "inputs/crypto0-trades") >= parity_runs.BURST
    assert _longest_burst(root, "inputs/crypto1-trades") >= parity_runs.BURST
    assert _stalls(root, "inputs/crypto0-trades") >= 5


def _longest_burst(root: Path, stream: str) -> int:
    """The most trades of one instant."""
    counts = rows(root, stream)["event_time"].value_counts()
    return max(item["counts"].as_py() for item in counts)


def _stalls(root: Path, stream: str) -> int:
    """How often the engine stood still; nothing has come in while it did."""
    names = [name for name in recording.stream_names(root) if name.startswith("inputs/")]
    ticked = sorted(ns for name in names for ns in times(root, name))
    stalled = times(root, stream)[parity_signals.STALL_EVERY - 1 :: parity_signals.STALL_EVERY]
    gaps = [min((ns for ns in ticked if ns > at), default=2**63) - at for at in stalled]
    assert all(gap >= parity_runs.STALL_S * 1e9 for gap in gaps)
    return len(gaps)


@pytest.mark.parametrize("life", LIVES)
def test_the_second_run_began_with_what_the_first_one_held(lives: dict[str, Recorded], life: str) -> None:
    fills = rows(lives[life].first, "outputs/fills").to_pylist()
    held: dict[str, float] = {}
    for fill in fills:
        signed = fill["quantity"] if fill["side"] == "BUY" else -fill["quantity"]
        held[fill["symbol"]] = held.get(fill["symbol"], 0.0) + signed - fill["base_fee"]

    opening = json.loads(recording.read_manifest(lives[life].second)["opening"])

    opened = {position["symbol"]: float(position["quantity"]) for position in opening["positions"]}
    assert opened["ES/USD"] > 0.0
    assert opened == pytest.approx({symbol: quantity for symbol, quantity in held.items() if abs(quantity) > 1e-9})


def test_a_replay_says_that_it_is_identical_and_with_how_much(lives: dict[str, Recorded], tmp_path: Path) -> None:
    root = lives["venue"].first

    done = parity_runs.replay(root, tmp_path / "out", seed=3)

    counts = recording.read_manifest(root)["counts"]
    told = ", ".join(f"{counts[f'outputs/{name}']} {name}" for name in ("orders", "fills", "alerts"))
    assert (done.returncode, done.stdout.strip()) == (0, f"identical: {told}")


Change = Callable[[dict[str, list[object]], int], None]


def _price(columns: dict[str, list[object]], row: int) -> None:
    columns["price"][row] += 0.25  # type: ignore[operator]


def _guess(columns: dict[str, list[object]], row: int) -> None:
    columns["value"][row] = -columns["value"][row]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("life", "stream", "change"),
    [("venue", "crypto0-trades", _price), ("paper", "guesses-es-usd", _guess)],
)
def test_one_input_changed_by_hand_shows_where_the_replay_first_differs(
    lives: dict[str, Recorded], tmp_path: Path, life: str, stream: str, change: Change
) -> None:
    root, out = tmp_path / "changed", tmp_path / "out"
    shutil.copytree(lives[life].first, root)
    changed_ns = _changed(root / f"inputs/{stream}-000001.arrow", change)

    done = parity_runs.replay(root, out, seed=7)

    first = recording.compare(root, out, STREAMS).first
    assert isinstance(first, Difference)
    assert done.returncode == 1
    assert done.stdout.startswith("NOT IDENTICAL (")
    assert str(first) in done.stdout
    assert first.engine_ns >= changed_ns
    assert recording.compare(root, out, STREAMS, changed_ns).identical  # nothing before it differs


def _changed(path: Path, change: Change) -> int:
    """Change one row in the middle of a file; its engine time in nanoseconds."""
    with pa.ipc.open_stream(path.read_bytes()) as reader:
        table = reader.read_all()
    row = table.num_rows // 3
    columns = {name: column.to_pylist() for name, column in zip(table.column_names, table.columns, strict=True)}
    before = dict(columns, **{name: list(values) for name, values in columns.items()})
    change(columns, row)
    for name, values in columns.items():
        if values != before[name]:
            field = table.schema.field(name)
            table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)
    at_ns: int = table.column(COLUMN).cast(pa.int64())[row].as_py()
    return at_ns
