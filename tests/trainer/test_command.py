"""The command, whole: from a file of bars or tokens to a checkpoint, with an exit code that tells."""

import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from training_files import START, as_before, bar_file, config_file, losses, series  # noqa: F401 - a fixture

from configs.version import code_version
from evaluation.model_figures import token_part
from evaluation.subject import choose_window, foretell, load_data, load_subject, training_tokens
from models.checkpoint import read_manifest
from models.fingpt import FinGPT
from tokenizer.codec import Codec
from trainer.__main__ import main
from trainer.data import digest
from trainer.logs import read_log

ROOT = Path(__file__).parents[2]
WINDOW_END = datetime(2024, 2, 5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bar_file(tmp_path_factory.mktemp("data"), [series("AAA", 1_200), series("BBB", 1_200, seed=1)])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A folder where `fingpt` has run once."""
    folder = tmp_path_factory.mktemp("run")
    config = config_file(folder, data, "tensorboard = false")
    assert main(["fingpt", str(config), "--quiet", "--model.symbols", "AAA", "BBB"]) == 0
    return folder


def test_a_checkpoint_holds_model_and_codec_and_what_they_have_seen(run: Path) -> None:
    manifest = read_manifest(run / "made")
    bars = {s.symbol: s.slice(end_ns=None) for s in (series("AAA", 1_200), series("BBB", 1_200, seed=1))}
    cut = (WINDOW_END - datetime(1970, 1, 1)) // timedelta(microseconds=1) * 1_000

    assert manifest.training.start == START + timedelta(hours=1)
    assert manifest.training.end == WINDOW_END - timedelta(hours=1)
    assert manifest.training.symbols == ("AAA", "BBB")
    assert manifest.training.bar_s == 3600.0
    assert manifest.training.embargo_end == WINDOW_END + timedelta(hours=16)
    assert not manifest.overlap(WINDOW_END + timedelta(hours=17), WINDOW_END + timedelta(days=9))
    assert manifest.overlap(WINDOW_END, WINDOW_END + timedelta(days=9))
    seen = {name: one.slice(end_ns=cut) for name, one in bars.items()}
    for one in seen.values():  # the file has no volume
        one.volume[:] = 0.0
    assert manifest.training.data_sha256 == digest(seen)
    model, codec = FinGPT.load(run / "made"), Codec.load(run / "made")
    assert model.config.vocabulary == codec.codes == 16
    assert model.config.symbols == ("AAA", "BBB")


def test_every_figure_stands_beside_its_baselines(run: Path) -> None:
    metrics = read_manifest(run / "made").metrics
    for name in ("validation_bits", "test_bits"):
        assert set(metrics[name]["baselines"]) == {"unigram", "bigram"}
        low, high = metrics[name]["interval_95"] or (-9.0, 9.0)
        assert low < metrics[name]["gain_over_bigram"] < high
    assert metrics["test_mse"]["value"] < metrics["test_mse"]["baselines"]["training_mean"]
    assert metrics["validation_bits"]["sample"] == "Not stated."
    first = datetime.fromisoformat(metrics["test_bits"]["first"])
    assert first > WINDOW_END + timedelta(hours=17)


def test_unigram_and_bigram_say_the_same_as_where_the_checkpoint_is_judged_later(run: Path, data: Path) -> None:
    subject = load_subject(run / "made")
    bars = load_data([data], bar="1h", time_zone="UTC", stamp="open")
    tracks = foretell(subject, bars, choose_window(subject, bars, None, None, allow_in_sample=False))

    part = token_part(tracks, training_tokens(subject, bars), 16)

    metrics = read_manifest(run / "made").metrics
    assert part.tokens == metrics["test_bits"]["tokens"]
    for row in part.rows[1:]:
        for key in ("bits", "accuracy", "top_5"):
            assert row.figures[key] == metrics[f"test_{key}"]["baselines"][row.name]


def test_logs_and_curves_lie_beside_the_checkpoint_and_the_state_is_gone(run: Path) -> None:
    work = run / "made-training"
    assert {path.name for path in work.iterdir()} == {"log.csv", "curves.png", "tokenizer"}
    assert {path.name for path in (run / "made").iterdir()} == {"manifest.json", "weights.safetensors"}
    rows = read_log(work / "log.csv")
    assert rows[-1]["step"] == 30
    assert rows[-1]["tokens"] == 30 * 4 * 16
    tokenizer = read_manifest(work / "tokenizer")
    assert tokenizer.kind == "tokenizer"
    assert tokenizer.training.end is not None
    assert tokenizer.training.end < WINDOW_END - timedelta(days=3)  # validation did not shape it


def test_the_same_run_gives_the_same_bytes(run: Path, data: Path, tmp_path: Path) -> None:
    assert main(["fingpt", str(config_file(tmp_path, data)), "--quiet", "--model.symbols", "AAA", "BBB"]) == 0
    for name in ("manifest.json", "weights.safetensors"):
        assert (tmp_path / "made" / name).read_bytes() == (run / "made" / name).read_bytes()
    logs = [losses(read_log(folder / "made-training" / "log.csv")) for folder in (run, tmp_path)]
    assert logs[0] == logs[1]


def test_activations_computed_twice_and_events_change_nothing(run: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="the extra 'train' is not installed")
    flags = ["--quiet", "--model.symbols", "AAA", "BBB", "--loop.activation-checkpointing", "--tensorboard"]
    assert main(["fingpt", str(config_file(tmp_path, data)), *flags]) == 0
    weights = [(folder / "made" / "weights.safetensors").read_bytes() for folder in (run, tmp_path)]
    assert weights[0] == weights[1]
    assert list((tmp_path / "made-training" / "tensorboard").iterdir())


def test_the_future_changes_no_weight(run: Path, tmp_path: Path) -> None:
    longer = [series("AAA", 1_200), series("BBB", 1_200, seed=1)]
    for one in longer:
        after = one.close_time >= (WINDOW_END - datetime(1970, 1, 1)) // timedelta(microseconds=1) * 1_000
        for name in ("open", "high", "low", "close"):
            getattr(one, name)[after] *= 3.0
    config = config_file(tmp_path, bar_file(tmp_path, longer))
    assert main(["fingpt", str(config), "--quiet", "--model.symbols", "AAA", "BBB"]) == 0
    weights = [(folder / "made" / "weights.safetensors").read_bytes() for folder in (run, tmp_path)]
    assert weights[0] == weights[1]


def test_a_tokenizer_alone_and_then_a_model_on_it(run: Path, data: Path, tmp_path: Path) -> None:
    config = config_file(tmp_path, data)
    assert main(["tokenizer", str(config), "--quiet"]) == 0
    made = tmp_path / "made-tokenizer"
    weights = [(folder / "weights.safetensors").read_bytes() for folder in (made, run / "made-training" / "tokenizer")]
    assert weights[0] == weights[1]

    assert main(["fingpt", str(config), "--quiet", "--fit.checkpoint", str(made)]) == 0

    manifest = read_manifest(tmp_path / "made")
    assert manifest.codec == read_manifest(made).codec
    assert manifest.training.start == START + timedelta(hours=1)
    assert manifest.training.end == WINDOW_END - timedelta(hours=1)


def test_a_tokenizer_that_has_seen_the_test_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_file(tmp_path, data)
    assert main(["tokenizer", str(config), "--quiet", "--split.end", "2024-02-15"]) == 0
    flags = ["--quiet", "--fit.checkpoint", str(tmp_path / "made-tokenizer"), "--split.validation-start", "2024-01-15"]
    assert main(["fingpt", str(config), *flags, "--split.end", "2024-01-20"]) == 2
    assert "has seen bars up to" in capsys.readouterr().err


def test_plain_tokens_are_in_sample_everywhere(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    steps = np.cumsum(rng.integers(0, 3, 2_000)) % 16  # each token is at most two above the one before
    tokens = tmp_path / "tokens.txt"
    tokens.write_text(" ".join(map(str, steps)))
    config = config_file(tmp_path, data, steps=60)

    flags = ["--model.no-hours", "--model.vocabulary", "16", "--optim.lr", "0.01", "--tokens", str(tokens)]
    assert main(["fingpt", str(config), *flags]) == 0

    assert "every figure is in-sample" in capsys.readouterr().out
    manifest = read_manifest(tmp_path / "made")
    assert manifest.codec is None
    assert manifest.training.start is None
    assert manifest.overlap(datetime(1980, 1, 1), datetime(1980, 1, 2))
    assert manifest.overlap(datetime(2090, 1, 1), datetime(2090, 1, 2))
    assert manifest.metrics["validation_bits"]["value"] < 3.0  # it found the rule: the unigram has 4
    assert "test_bits" not in manifest.metrics


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--tokens", "none.txt"], "neither hour nor symbol"),
        (["--tokens", "none.txt", "--model.no-hours"], "none.txt does not exist"),
        (["--tokens", "none.txt", "--model.no-hours", "--folds", "2"], "want folds = 0"),
        (["--model.symbols", "ZZZ"], "model.symbols names ZZZ"),
        (["--update"], "the config names none"),
        (["--split.embargo-bars", "15"], "at least the context"),
        (["--split.end", "2024-01-01T12:00"], "nothing is left to train on"),
        (["--tokenizer.codes", "4096"], "no tokenizer can be fitted"),
        (["--fit.checkpoint", "nowhere"], "nowhere"),
        (["--loop.device", "cuda"], "no such device"),
        (["--feeds.0.path", "none.parquet"], "none.parquet does not exist"),
        (["--out", "."], "out must end with a name"),
        (["--update", "--shipped", "x", "--folds", "2"], "not by folds"),
    ],
)
def test_what_cannot_work_is_said_in_a_sentence(
    data: Path, tmp_path: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "cuda" in flags and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert main(["fingpt", str(config_file(tmp_path, data)), "--quiet", *flags]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("flag", ["--resume", "--update"])
def test_flags_that_would_do_nothing_for_a_tokenizer_are_refused(
    data: Path, tmp_path: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tokenizer", str(config_file(tmp_path, data)), flag]) == 2
    assert "--resume and --update are of fingpt" in capsys.readouterr().err


def test_a_tokenizer_that_is_there_is_not_fitted(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tokenizer", str(config_file(tmp_path, data)), "--fit.checkpoint", "checkpoints/demo"]) == 2
    assert "this command fits one" in capsys.readouterr().err


def test_a_folder_with_a_slash_at_its_end_is_the_same_folder(data: Path, tmp_path: Path) -> None:
    flags = ["--quiet", "--fit.steps", "20", "--tokenizer.codes", "4", "--out", f"{tmp_path / 'made'}/"]
    assert main(["tokenizer", str(config_file(tmp_path, data)), *flags]) == 0
    assert read_manifest(tmp_path / "made-tokenizer").kind == "tokenizer"


@pytest.mark.parametrize(("command", "out"), [("fingpt", "made"), ("tokenizer", "made-tokenizer")])
@pytest.mark.parametrize("occupied", ["a folder", "a file"])
def test_a_place_that_no_checkpoint_can_take_is_refused_before_the_work(
    data: Path, tmp_path: Path, command: str, out: str, occupied: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if occupied == "a folder":
        (tmp_path / out).mkdir()
    (tmp_path / out / "mine.txt" if occupied == "a folder" else tmp_path / out).write_text("mine")
    config = config_file(tmp_path, data)
    there = sorted(tmp_path.iterdir())
    assert main([command, str(config), "--quiet"]) == 2
    assert f"{out} is no checkpoint, and is not replaced" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == there


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--out", "/proc/x"), "No such file or directory: /proc/x"),
        (("--shipped", "nowhere"), "want a checkpoint to compare with, nowhere does not exist: --update makes it"),
    ],
)
def test_what_cannot_end_well_is_refused_before_the_work(
    data: Path, tmp_path: Path, flags: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fingpt", str(config_file(tmp_path, data)), *flags]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert "step" not in said.err  # of the tokenizer's progress


def test_the_code_is_named_when_the_run_begins(data: Path, tmp_path: Path) -> None:
    code_version.cache_clear()
    assert main(["fingpt", str(config_file(tmp_path, data)), "--feeds.0.path", "none.parquet"]) == 2
    assert code_version.cache_info().currsize == 1


def test_a_collapsed_codebook_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat = series("AAA", 1_200)
    columns = {name: np.full(len(flat), 100.0) for name in ("open", "high", "low", "close")}
    for name, column in columns.items():
        getattr(flat, name)[:] = column
    config = config_file(tmp_path, bar_file(tmp_path, [flat]))
    assert main(["fingpt", str(config), "--quiet"]) == 2
    assert "the tokenizer is of no use" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_help_needs_no_config_and_no_command_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, code in ((["--help"], 0), (["fingpt", "--help"], 0), ([], 2), (["sing", "x.toml"], 2), (["fingpt"], 2)):
        with pytest.raises(SystemExit) as left:
            main(argv)
        assert left.value.code == code
    shown = capsys.readouterr().out
    assert "--loop.steps" in shown
    assert "torchrun" in shown


@pytest.mark.parametrize(
    "flags", [["--help"], ["fingpt", "--help"], ["fingpt", "configs/train/demo.toml", "--nonsense"]]
)
def test_flags_do_not_wait_for_torch(flags: list[str]) -> None:
    script = (
        "import sys\nfrom trainer.__main__ import main\n"
        f"try:\n    main({flags!r})\nfinally:\n    assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "AssertionError" not in done.stderr
    assert done.returncode in (0, 2)
