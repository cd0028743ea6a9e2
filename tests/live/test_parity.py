"""A live run gives the same bytes again: in another process, from its inputs alone, on paper and at a venue."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from feeds import recording
from feeds.recording import COLUMN, Difference
from graphs.live import OUTCOMES
from tests.live import parity_runs, parity_signals
from tests.live.parity_runs import LIVES, RUNS, Run, rows, times

STREAMS = [f"outputs/{name}" for name in OUTCOMES]
WHOLE = ("venue", "second")  # replayed as it is; of the others, copies without what came out of the graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One input that a person has changed."""

    run: Run
    stream: str
    column: str
    by: Callable[[Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A replay, and what it was a replay of."""

    root: Path
    out: Path
    code: int
    text: str
    changed_ns: int = 0  # engine time of the input that was changed


PRICE = Change(run=("venue", "first"), stream="inputs/crypto0-trades", column="price", by=lambda price: price + 0.25)
OTHERS = {
    "guess": Change(run=("paper", "first"), stream="inputs/guesses-es-usd", column="value", by=lambda value: -value),
    "advice": Change(run=("venue", "first"), stream="inputs/advisor-answers", column="score", by=lambda score: -score),
    "forecast": Change(
        run=("paper", "first"), stream="inputs/forecast-answers", column="surprise", by=lambda bits: 40.0
    ),
    "quote": Change(
        run=("paper", "first"), stream="inputs/crypto0-quotes", column="bid_size", by=lambda size: size + 1
    ),
    "history": Change(run=("paper", "second"), stream="inputs/warmup", column="volume", by=lambda volume: volume + 1.0),
    "fill": Change(run=("venue", "first"), stream="inputs/venue-fills", column="fee", by=lambda fee: fee + 0.01),
}


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> dict[Run, Path]:
    """Recordings."""
    return parity_runs.record(tmp_path_factory.mktemp("parity"))


@pytest.fixture(scope="module")
def again(lives: dict[Run, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[Run | str, Replayed]:
    """Replays of every run, and that of one that was changed, as "changed"."""
    folder = tmp_path_factory.mktemp("again")

    def replay(what: Run | str) -> Replayed:
        if isinstance(what, str):
            return _changed(lives, PRICE, folder)
        root = lives[what]
        if what != WHOLE:
            root = parity_runs.without_outcomes(root, folder / f"{'-'.join(what)}-inputs")
        return _replayed(root, folder / "-".join(what))

    wanted = [*RUNS, "changed"]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(wanted, pool.map(replay, wanted), strict=True))


def _replayed(root: Path, out: Path, changed_ns: int = 0) -> Replayed:
    done = parity_runs.replay(root, out, 7, *(["--allow-changed"] if changed_ns else []))
    return Replayed(root=root, out=out, code=done.returncode, text=done.stdout + done.stderr, changed_ns=changed_ns)


def _changed(lives: dict[Run, Path], change: Change, folder: Path) -> Replayed:
    """Copy a recording, change one row after the first third of a stream, and replay it."""
    root = folder / "changed"
    shutil.copytree(lives[change.run], root)
    path = root / f"{change.stream}-000001.arrow"
    with pa.ipc.open_stream(path.read_bytes()) as reader:
        table = reader.read_all()
    row, index = table.num_rows // 3, table.schema.get_field_index(change.column)
    values = table.column(index).to_pylist()
    values[row] = change.by(values[row])
    field = table.schema.field(index)
    table = table.set_column(index, field, pa.array(values, field.type))
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)
    changed_ns = table.column(COLUMN).cast(pa.int64())[row].as_py()
    return _replayed(root, folder / "replayed", changed_ns)


@pytest.mark.parametrize("run", RUNS, ids="-".join)
def test_a_replay_gives_the_same_bytes(lives: dict[Run, Path], again: dict[Run | str, Replayed], run: Run) -> None:
    compared = recording.compare(lives[run], again[run].out, STREAMS)

    assert compared.first is None, str(compared.first)
    assert compared.identical
    assert recording.read_manifest(lives[run])["ended"] == "stop"
    least = {"orders": 10, "fills": 10, "alerts": 2} if run[1] == "first" else {"orders": 1, "fills": 1, "alerts": 2}
    for name, count in least.items():
        assert compared.count(f"outputs/{name}") >= count, name
    assert compared.count("outputs/ai_signals") == len(parity_runs.HEADLINES)


@pytest.mark.parametrize("run", [run for run in RUNS if run != WHOLE], ids="-".join)
def test_it_never_read_what_came_out_of_the_live_run(again: dict[Run | str, Replayed], run: Run) -> None:
    # There was none, which it found when it had run to its end and wanted to compare.
    assert not (again[run].root / "outputs").exists()
    assert again[run].code == 2
    assert "has no stream outputs/orders" in again[run].text


def test_it_says_that_it_is_identical_and_with_how_much(again: dict[Run | str, Replayed]) -> None:
    whole = again[WHOLE]
    counts = recording.read_manifest(whole.root)["counts"]
    told = ", ".join(f"{counts[f'outputs/{name}']} {name}" for name in ("orders", "fills", "alerts"))
    assert (whole.code, whole.text) == (0, f"identical: {told}\n")


def test_one_input_changed_by_hand_shows_where_the_replay_first_differs(again: dict[Run | str, Replayed]) -> None:
    _shows_where_it_first_differs(again["changed"])


@pytest.mark.slow
@pytest.mark.parametrize("what", OTHERS)
def test_every_other_input_shows_too(lives: dict[Run, Path], tmp_path: Path, what: str) -> None:
    _shows_where_it_first_differs(_changed(lives, OTHERS[what], tmp_path))


def _shows_where_it_first_differs(changed: Replayed) -> None:
    first = recording.compare(changed.root, changed.out, STREAMS).first
    assert isinstance(first, Difference)
    assert first.engine_ns >= changed.changed_ns
    assert changed.code == 1
    assert changed.text.startswith("NOT IDENTICAL (")
    assert str(first) in changed.text
    assert recording.compare(changed.root, changed.out, STREAMS, changed.changed_ns).identical  # nothing before it


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_it_holds_again_and_again(tmp_path: Path, seed: int) -> None:
    for run, root in parity_runs.record(tmp_path).items():
        done = parity_runs.replay(root, tmp_path / f"{'-'.join(run)}-again", seed=seed)
        assert (done.returncode, done.stdout.split(":")[0]) == (0, "identical"), done.stdout + done.stderr


@pytest.mark.parametrize("life", LIVES)
def test_the_run_held_what_makes_replays_differ(lives: dict[Run, Path], life: str) -> None:
    root = lives[life, "first"]
    history = len(times(root, "inputs/warmup"))
    assert history > 100
    assert len(times(root, "inputs/crypto0-quotes")) >= 3  # how many differ from run to run: only changes are told
    assert len(times(root, "inputs/crypto1-depth")) >= 3
    assert 3 <= len(times(root, "inputs/guesses-es-usd")) < history  # the worker was too slow for all bars
    assert len(times(root, "inputs/forecast-answers")) >= 3  # of the price model
    said = rows(root, "outputs/ai_signals").to_pylist()
    assert [each["backend"] for each in said] == ["head", "head", "head", "guard", "guard"]
    assert {"BUY_SIGNAL", "SELL_SIGNAL"} <= {each["action"] for each in said}
    assert len(times(root, "inputs/advisor-answers")) == 3
    for feed in ("crypto0", "crypto1"):
        told = rows(root, f"inputs/{feed}-status")["state"].to_pylist()
        assert "STALE" in told  # the outage
        assert told[-1] == "RECOVERED"
        assert _longest_burst(root, f"inputs/{feed}-trades") >= parity_runs.BURST
    assert _stalls(root, "inputs/crypto0-trades") >= 5


def _longest_burst(root: Path, stream: str) -> int:
    """The most trades of one instant."""
    return max(each["counts"].as_py() for each in rows(root, stream)["event_time"].value_counts())


def _stalls(root: Path, stream: str) -> int:
    """How often the engine stood still; nothing has come in while it did."""
    names = [name for name in recording.stream_names(root) if name.startswith("inputs/")]
    ticked = sorted(ns for name in names for ns in times(root, name))
    every = parity_signals.STALL_EVERY
    stalled = times(root, stream)[every - 1 :: every]
    following = [min((ns for ns in ticked if ns > at), default=2**63) for at in stalled]
    assert all(ns - at >= parity_runs.STALL_S * 1e9 for at, ns in zip(stalled, following, strict=True))
    return len(stalled)


@pytest.mark.parametrize("life", LIVES)
def test_the_second_run_began_with_what_the_first_one_held(lives: dict[Run, Path], life: str) -> None:
    held: dict[str, float] = {}
    for fill in rows(lives[life, "first"], "outputs/fills").to_pylist():
        signed = fill["quantity"] if fill["side"] == "BUY" else -fill["quantity"]
        held[fill["symbol"]] = held.get(fill["symbol"], 0.0) + signed - fill["base_fee"]

    opening = json.loads(recording.read_manifest(lives[life, "second"])["opening"])

    opened = {position["symbol"]: float(position["quantity"]) for position in opening["positions"]}
    assert opened["ES/USD"] > 0.0
    assert opened == pytest.approx({symbol: quantity for symbol, quantity in held.items() if abs(quantity) > 1e-9})
