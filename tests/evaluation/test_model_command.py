"""The commands, from a checkpoint and a file to a report; and what they refuse."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from foretold import after, checkpoint, file, series

from evaluation import forecasts, tokens
from evaluation.command import main

BARS = [series("S0", 1_500, 1), series("S1", 1_500, 2)]
TRAINING = 1_000
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    checkpoint(root / "small", BARS, training=TRAINING)
    file(root / "bars.parquet", BARS)
    return root


def judge(folder: Path, *flags: str, returns: bool = True, name: str = "small") -> int:
    program = forecasts.PROGRAM if returns else tokens.PROGRAM
    argv = [str(folder / name), "--data", str(folder / "bars.parquet"), *flags]
    return main(argv, program=program, about=forecasts.ABOUT, returns=returns)


def test_forecasts_are_judged_from_file_to_report_twice_the_same(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "results.md"
    page.write_text("<!-- begin small -->\n<!-- end small -->\n")

    assert judge(folder, "--out", str(tmp_path / "a"), "--page", str(page)) == 0
    printed = capsys.readouterr()
    assert judge(folder, "--out", str(tmp_path / "b"), "--quiet") == 0

    assert "One decoding step, one thread, here and now:" in printed.out
    for name in ("model.json", "model.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    found = json.loads((tmp_path / "a" / "model.json").read_text())
    assert found["in_sample"] is False
    assert [one["symbol"] for one in found["judged"]] == ["S0", "S1"]
    assert found["returns"]["bars"] == found["tokens"]["tokens"] == 2 * (1_500 - TRAINING - 48 - 1)
    assert "**Next return.**" in page.read_text()
    assert capsys.readouterr().out.split() == [str(tmp_path / "b" / name) for name in ("model.json", "model.html")]


def test_tokens_are_judged_alone(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert judge(folder, "--out", str(tmp_path), "--symbols", "S1", "--recompute", returns=False) == 0

    found = json.loads((tmp_path / "model.json").read_text())
    assert found["returns"] is None
    assert [one["symbol"] for one in found["judged"]] == ["S1"]
    assert found["tokens"]["training_tokens"] == 2 * (TRAINING - 32)  # of both symbols of training, less the warm-up
    # A model that was never trained knows less than the bigram, and the report says so.
    assert found["tokens"]["models"]["bigram"]["bits_saved_by_model"]["verdict"] == "worse"
    again = found["tokens"]["models"]["recomputed"]
    assert again["bits"] == pytest.approx(found["tokens"]["models"]["model"]["bits"], abs=0.2)
    assert again["bits_saved_by_model"]["interval_95"] is not None
    assert "Next return" not in capsys.readouterr().out


def test_a_sweep_of_checkpoints_gets_its_probability_of_overfitting(folder: Path, tmp_path: Path) -> None:
    checkpoint(folder / "other", BARS, training=TRAINING, seed=1)

    assert judge(folder, "--sweep", str(folder / "other"), "--out", str(tmp_path), "--quiet") == 0

    found = json.loads((tmp_path / "model.json").read_text())["overfitting"]
    assert 0.0 <= found["value"] <= 1.0
    assert found["sweep"] == [str(folder / "small"), str(folder / "other")]


def test_files_are_written_though_nobody_reads_what_is_printed(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "evaluation.tokens", str(folder / "small"), "--data", str(folder / "bars.parquet")]
    read, write = os.pipe()
    os.close(read)
    try:
        subprocess.run([*command, "--out", str(tmp_path)], cwd=ROOT, stdout=write, timeout=120, check=False)
    finally:
        os.close(write)
    assert {path.name for path in tmp_path.iterdir()} == {"model.json", "model.html"}


def test_each_symbol_is_told_of_once_for_each_kind_of_work(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert judge(folder) == 0

    told = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("foretelling", "/"))]
    assert told == [f"{what} {symbol}" for what in ("fitting the baselines of", "judging") for symbol in ("S0", "S1")]


def test_a_checkpoint_of_a_sweep_that_has_seen_what_is_judged_is_refused_also_with_leave(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint(folder / "later", BARS, training=TRAINING + 100)

    assert judge(folder, "--sweep", str(folder / "later"), "--allow-in-sample") == 2

    assert "later has seen bars that are judged: want --start after" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--out", "{folder}/bars.parquet"), "Not a directory: {folder}/bars.parquet"),
        (("--out", "{folder}/bars.parquet/deeper"), "Not a directory: {folder}/bars.parquet/deeper"),
        (("--out", "/proc/x"), "No such file or directory: /proc/x"),
        (("--page", "{folder}/latin.md"), "latin.md cannot be read: want UTF-8"),
        (("--sweep", "{folder}/nothing"), "want a checkpoint folder"),
        (("--sweep", "{folder}/./small"), "want different checkpoints in a sweep"),
    ],
)
def test_what_cannot_be_delivered_is_refused_before_the_work(
    folder: Path, flags: tuple[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "latin.md").write_bytes("\u00e9".encode("latin-1"))

    assert judge(folder, flags[0], flags[1].format(folder=folder)) == 2

    (said,) = capsys.readouterr().err.splitlines()  # and nothing of any work
    assert message.format(folder=folder) in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--symbols", "NONE"), "want symbols among S0, S1, was NONE"),
        (("--start", after(BARS, 500)), "overlaps what the checkpoint has seen"),
        (("--start", "2031-01-01"), "no bar is left to judge"),
        (("--start", "2030-05-01", "--end", "2030-04-01"), "would start at 2030-05-01 00:00:00, and end at 2030-04-01"),
        (("--bar", "1d"), "bars"),
        (("--page", "nowhere.md", "--section", "x", "--quiet"), "nowhere.md"),
    ],
)
def test_what_cannot_be_judged_ends_with_a_sentence_and_exit_code_2(
    folder: Path, flags: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge(folder, *flags, returns=False) == 2

    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("python -m evaluation.tokens: ")
    assert message in said


def test_a_missing_checkpoint_ends_with_a_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert judge(folder, name="nothing") == 2
    assert "want a checkpoint folder" in capsys.readouterr().err


def test_seen_bars_are_judged_with_leave_and_marked(folder: Path, tmp_path: Path) -> None:
    flags = ("--start", after(BARS, 500), "--allow-in-sample", "--out", str(tmp_path), "--quiet")

    assert judge(folder, *flags, returns=False) == 0

    assert json.loads((tmp_path / "model.json").read_text())["in_sample"] is True


@pytest.mark.parametrize("flags", [("--start", "yesterday"), ("--start", "2024-01-01T00:00+01:00"), ("--nonsense",)])
def test_bad_flags_end_with_exit_code_2(folder: Path, flags: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        judge(folder, *flags)
    assert ended.value.code == 2
