"""A log that survives a kill, a picture of it, and progress with its end in sight."""

import csv
from pathlib import Path

import pytest

from configs.load import ConfigError
from trainer import logs
from trainer.logs import COLUMNS, Log, draw, progress, read_log


def written(folder: Path, steps: range, *, resumed_from: int = 0, tensorboard: bool = False) -> list[dict[str, float]]:
    with Log(folder, resumed_from, tensorboard=tensorboard) as log:
        for step in steps:
            log.row(step, 10 * step, loss=1.0 / step, lr=0.1, grad_norm=2.0)
    return read_log(log.path)


def test_a_row_is_on_disk_when_it_is_written_and_floats_come_back_exactly(tmp_path: Path) -> None:
    with Log(tmp_path) as log:
        log.row(3, 30, loss=0.1 + 0.2, lr=1e-3, grad_norm=1.5)
        log.row(4, 40, validation_loss=1.25)
        first, second = read_log(log.path)
    assert first["loss"] == 0.1 + 0.2
    assert "validation_loss" not in first
    assert (second["step"], second["tokens"], second["validation_loss"]) == (4, 40.0, 1.25)
    assert "loss" not in second
    with log.path.open() as stream:
        assert tuple(next(csv.reader(stream))) == COLUMNS


def test_resuming_drops_rows_after_the_state_and_time_goes_on(tmp_path: Path) -> None:
    before = written(tmp_path, range(1, 6))
    after = written(tmp_path, range(4, 7), resumed_from=3)
    assert [row["step"] for row in after] == [1, 2, 3, 4, 5, 6]
    assert after[:3] == before[:3]
    seconds = [row["seconds"] for row in after]
    assert seconds == sorted(seconds)


def test_a_line_that_was_cut_off_by_a_kill_is_dropped(tmp_path: Path) -> None:
    written(tmp_path, range(1, 4))
    path = tmp_path / "log.csv"
    path.write_text(path.read_text() + "4,0.2")
    assert [row["step"] for row in read_log(path)] == [1, 2, 3]
    path.write_text(path.read_text() + "5,half\n6,0.1,,,,60,1.0,1.0\n")
    assert [row["step"] for row in read_log(path)] == [1, 2, 3]


def test_beginning_anew_forgets_the_earlier_log(tmp_path: Path) -> None:
    written(tmp_path, range(1, 4))
    assert [row["step"] for row in written(tmp_path, range(1, 2))] == [1]


def test_no_log_has_no_rows(tmp_path: Path) -> None:
    assert read_log(tmp_path / "log.csv") == []


def test_tensorboard_gets_the_same_scalars(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="the extra 'train' is not installed")
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import RecordWriter  # noqa: F401 - the format that is read below

    written(tmp_path, range(1, 4), tensorboard=True)

    (path,) = (tmp_path / "tensorboard").iterdir()
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):  # length (8 bytes), its checksum (4), the event, its checksum (4)
        size = int.from_bytes(data[at : at + 8], "little")
        event = Event.FromString(data[at + 12 : at + 12 + size])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        at += 16 + size
    losses = [(step, value) for step, tag, value in found if tag == "loss"]
    assert losses == [(1, 1.0), (2, 0.5), (3, pytest.approx(1.0 / 3.0))]


def test_tensorboard_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match=r"pip install 'ticktorch\[train\]'"):
        Log(tmp_path, tensorboard=True)


@pytest.mark.parametrize(
    "rows", [[], [{"step": 1, "loss": 4.0}], [{"step": s, "validation_loss": 4.0} for s in (1, 2)]]
)
def test_curves_are_drawn_of_whatever_there_is_and_the_same_twice(tmp_path: Path, rows: list[dict[str, float]]) -> None:
    for name in ("a.png", "b.png"):
        draw(rows, tmp_path / name, "title")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_without_a_terminal_progress_is_a_line_each_tenth_with_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1_000))
    monkeypatch.setattr(logs.time, "perf_counter", lambda: float(next(clock)))
    with progress("demo", 20, quiet=False) as told:
        for step in range(1, 21):
            told(step, "validation 5.0000 bits" if step == 10 else "")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "demo: step 2 of 20, at most 18 s left"
    assert lines[-1] == "demo: step 20 of 20, at most 0 s left validation 5.0000 bits"


def test_progress_of_a_resumed_run_is_measured_by_its_own_steps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 102.0])  # what came before the first step, loading and all, is no step
    monkeypatch.setattr(logs.time, "perf_counter", lambda: next(clock))
    with progress("demo", 20, quiet=False) as told:
        for step in (11, 12):
            told(step, "")
    assert capsys.readouterr().err == "demo: step 12 of 20, at most 16 s left\n"


def test_quiet_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("demo", 2, quiet=True) as told:
        told(1, "")
        told(2, "words")
    assert capsys.readouterr().err == ""
