"""The command that trains a GPT-2 on text: from a file to a checkpoint that writes."""

import importlib.util
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_files import as_before, losses  # noqa: F401 - a fixture

import trainer.loop
from feeds.errors import DataError
from models.checkpoint import read_manifest
from models.gpt2 import GPT2
from models.sampling import Sampling
from models.writer import load_writer, write
from trainer.__main__ import main
from trainer.gpt_archive import fetch
from trainer.logs import read_log

ROOT = Path(__file__).parents[2]
SHAKESPEARE = ROOT / "configs" / "train" / "gpt_shakespeare.toml"

needs_llm = pytest.mark.skipif(importlib.util.find_spec("tokenizers") is None, reason="wants the extra `llm`")


def made_up(sentences: int = 1_500) -> str:
    """Sentences of a small grammar: letters say more in pairs than alone, and words more than pairs."""
    chance = np.random.default_rng(0)
    who, does, what = ("the king", "a ghost", "my lord"), ("sees", "fears", "loves"), ("the night", "a crown", "no man")
    lines = (" ".join(str(chance.choice(words)) for words in (who, does, what)) for _ in range(sentences))
    return "\n".join(lines) + "\n"


def config_file(folder: Path, *lines: str, steps: int = 100) -> Path:
    """A run of seconds on `made_up`; `lines` are put on top."""
    (folder / "text.txt").write_text(made_up())
    path = folder / "small.toml"
    path.write_text(
        "\n".join(
            [
                'name = "small"',
                f'out = "{folder / "made"}"',
                "validation_windows = 20\njudged_windows = 50",
                *lines,
                f'[data]\ntext = "{folder / "text.txt"}"\ncache = "{folder / "cache"}"\nvocabulary = 300',
                "[model]\nlayers = 1\nwidth = 32\nheads = 2\ncontext = 16\ndropout = 0.1",
                "[optim]\nlr = 1e-2\nwarmup_steps = 5",
                f"[loop]\nsteps = {steps}\nbatch = 8\neval_every_steps = 10\nlog_every_steps = 5\nsave_every_steps = 7",
                "patience = 0\nthreads = 1",
            ]
        )
    )
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where `gpt` has run once."""
    folder = tmp_path_factory.mktemp("run")
    assert main(["gpt", str(config_file(folder)), "--quiet"]) == 0
    return folder


def test_it_learns_and_says_how_well_beside_what_counting_gives(run: Path) -> None:
    manifest = read_manifest(run / "made")
    loss = manifest.metrics["validation_loss"]
    assert (manifest.kind, manifest.training.start, manifest.training.licence) == ("gpt2", None, "Not stated.")
    assert loss["value"] < loss["baselines"]["bigram"] < loss["baselines"]["unigram"] < math.log(30)
    bits = manifest.metrics["validation_bits_a_character"]
    assert bits["value"] == pytest.approx(loss["value"] / math.log(2.0))
    assert 49 * 8 < loss["tokens"] <= 51 * 8  # the first window is twice as long, the last perhaps shorter

    model = GPT2.load(run / "made")
    assert (model.config.layers, model.config.context, model.config.bias) == (1, 16, False)
    assert model.config.vocabulary == len(set(made_up()))


def test_the_loss_that_is_said_is_the_definition_over_the_held_out_text(tmp_path: Path) -> None:
    assert main(["gpt", str(config_file(tmp_path, steps=10)), "--quiet", "--judged-windows", "0"]) == 0
    model, writer = GPT2.load(tmp_path / "made"), load_writer(tmp_path / "made")
    text = made_up().strip("\n") + "\n"
    tokens = torch.tensor(writer.spelling.encode(text[round(0.9 * len(text)) :]))
    each, at = [], 0
    with torch.no_grad():
        while at + 1 < len(tokens):
            end = min(at + (16 if at == 0 else 8), len(tokens) - 1)
            start = max(0, end - 16)
            logits = model(tokens[None, start:end])[0].log_softmax(-1)
            each += [-float(logits[i - start, tokens[i + 1]]) for i in range(at, end)]
            at = end
    assert read_manifest(tmp_path / "made").metrics["validation_loss"]["value"] == pytest.approx(np.mean(each))


def test_logs_and_curves_lie_beside_the_checkpoint_and_the_state_is_gone(run: Path) -> None:
    work = run / "made-training"
    assert {path.name for path in work.iterdir()} == {"log.csv", "curves.png"}
    assert {path.name for path in (run / "made").iterdir()} == {"manifest.json", "weights.safetensors"}
    rows = read_log(work / "log.csv")
    assert (rows[-1]["step"], rows[-1]["tokens"]) == (100, 100 * 8 * 16)
    judged = [row["validation_loss"] for row in rows if "validation_loss" in row]
    assert len(judged) == 10
    assert judged[-1] < 0.8 * judged[0]


def test_it_writes_what_it_has_learned(run: Path, tmp_path: Path) -> None:
    assert main(["gpt", str(config_file(tmp_path)), "--quiet", "--loop.steps", "300", "--loop.batch", "16"]) == 0
    written = "".join(write(load_writer(tmp_path / "made"), "the ", 300, sampling=Sampling(temperature=0.5), seed=1))
    words = set(made_up().split())
    found = written.split()[1:-1]
    assert sum(word in words for word in found) > 0.9 * len(found)


def test_a_run_that_is_interrupted_goes_on_to_the_same_bytes(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(config_file(tmp_path))
    update = trainer.loop._Run._update

    def interrupted(self: Any) -> Any:
        if self.at.step == 37:
            raise KeyboardInterrupt
        return update(self)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.loop._Run, "_update", interrupted)
        assert main(["gpt", config, "--quiet"]) == 130
    assert "interrupted; --resume goes on from the last state saved" in capsys.readouterr().err
    assert (tmp_path / "made-training" / "state.safetensors").exists()

    assert main(["gpt", config, "--quiet", "--resume"]) == 0

    for name in ("manifest.json", "weights.safetensors"):
        assert (tmp_path / "made" / name).read_bytes() == (run / "made" / name).read_bytes()
    logs = [losses(read_log(folder / "made-training" / "log.csv")) for folder in (run, tmp_path)]
    assert logs[0] == logs[1]


def test_a_state_of_another_text_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(config_file(tmp_path, steps=10))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.gpt._write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(["gpt", config, "--quiet"]) == 130
    (tmp_path / "text.txt").write_text(made_up(1_400))
    assert main(["gpt", config, "--quiet", "--resume"]) == 2
    assert "of a run with other data" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--loop.precision", "bf16"], ["--loop.activation-checkpointing"]])
def test_mixed_precision_and_activations_computed_twice_learn_the_same(
    run: Path, tmp_path: Path, flags: list[str]
) -> None:
    assert main(["gpt", str(config_file(tmp_path)), "--quiet", *flags]) == 0
    found, usual = (read_manifest(folder / "made").metrics["validation_loss"]["value"] for folder in (tmp_path, run))
    assert found == pytest.approx(usual, rel=0.02)
    assert all(spec.dtype == "F32" for spec in read_manifest(tmp_path / "made").tensors.values())


@needs_llm
def test_byte_pairs_learn_and_write_and_their_tokenizer_lies_beside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gpt", str(config_file(tmp_path)), "--data.tokens", "bpe"]) == 0

    said, told = capsys.readouterr()
    assert " nats, best " in told
    metrics = read_manifest(tmp_path / "made").metrics
    assert f"to write: python -m models.write {tmp_path / 'made'}" in said
    assert metrics["validation_loss"]["value"] < metrics["validation_loss"]["baselines"]["unigram"]
    assert metrics["validation_bits_a_character"]["value"] < metrics["validation_loss"]["value"]
    own = load_writer(tmp_path / "made")
    other = load_writer(tmp_path / "made", tokenizer=tmp_path / "made-training" / "tokenizer.json")
    assert own.spelling.encode("the ghost — 😀") == other.spelling.encode("the ghost — 😀")
    pieces = [list(write(one, "my lord", 20, sampling=Sampling(temperature=0.5), seed=3)) for one in (own, other)]
    assert pieces[0] == pieces[1]
    assert "\ufffd" not in "".join(pieces[0])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--data.text", "none.txt"], "none.txt: wanted a text"),
        (["--data.text", ""], "want data.text, a file, or data.package"),
        (["--model.width", "20000"], "width must lie in"),
        (["--loop.steps", "5"], "more than optim.warmup_steps"),
        (["--loop.device", "cuda"], "no such device"),
        (["--out", "."], "out must end with a name"),
        (["--out", "TEXT"], "is no checkpoint, and is not replaced"),
        (["--out", "/proc/x"], "No such file or directory: /proc/x"),
    ],
)
def test_what_cannot_work_is_said_in_a_sentence(
    tmp_path: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "cuda" in flags and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    config = str(config_file(tmp_path))
    flags = [str(tmp_path / "text.txt") if flag == "TEXT" else flag for flag in flags]
    assert main(["gpt", config, "--quiet", *flags]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("flags", [["gpt", "--help"], ["gpt", str(SHAKESPEARE), "--nonsense"], ["gpt"]])
def test_flags_do_not_wait_for_torch(flags: list[str]) -> None:
    script = (
        "import sys\nfrom trainer.__main__ import main\n"
        f"try:\n    main({flags!r})\nfinally:\n    assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "AssertionError" not in done.stderr
    assert done.returncode == (0 if "--help" in flags else 2)


@pytest.mark.slow
def test_shakespeare_by_characters_is_under_2_5_after_500_steps(tmp_path: Path) -> None:
    from configs.load import load
    from trainer.gpt_config import GPTTrainConfig

    data, cache = load(GPTTrainConfig, SHAKESPEARE).data, tmp_path / "cache"
    try:
        fetch(data.package, data.sha256, cache, quiet=True)
    except DataError as error:
        pytest.skip(str(error))
    flags = ["--quiet", "--data.cache", str(cache), "--out", str(tmp_path / "made")]
    assert main(["gpt", str(SHAKESPEARE), *flags]) == 0

    loss = read_manifest(tmp_path / "made").metrics["validation_loss"]
    assert read_log(tmp_path / "made-training" / "log.csv")[-1]["step"] == 500
    assert loss["value"] < 2.5
    assert loss["value"] < loss["baselines"]["bigram"]
