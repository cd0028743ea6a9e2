"""A tiny random language model is tuned, written as a folder, and read again by the backend."""

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("gguf", reason="the extra 'llm' is not installed")
pytest.importorskip("tokenizers", reason="the extra 'llm' is not installed")

from text_files import llama, write_gguf

from models.advisor.advice import BUY_SIGNAL, HOLD, SELL_SIGNAL, Headline
from models.advisor.gpt import Gpt
from models.advisor.reader import Reader, open_model, plain_tokens
from models.checkpoint import read_manifest
from models.gguf import load_text_model
from models.llama import Llama
from trainer import loop
from trainer.__main__ import main
from trainer.advisor_tune import Tuned, model_folder
from trainer.llama_folder import write_folder

SAID = {"1": "shares rise", "0": "shares fall", "2": "share names"}


@pytest.fixture(scope="module", autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One thread, and no cache that others read."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", llama())


def config_file(folder: Path, model: Path, more: str = "", loop: str = "steps = 60") -> Path:
    names = [f"{first}{last}" for first in ("Ac", "Bo", "Cu", "De", "Fi", "Go") for last in ("me", "lt", "rex", "wyn")]
    lines = [f"{name} {said},{label}" for name in names for label, said in SAID.items()]
    (folder / "rows.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    path = folder / "tune.toml"
    path.write_text(
        f'name = "tiny"\nkind = "tune"\ndata = "{folder / "rows.csv"}"\nout = "{folder / "made"}"\nfolds = 3\n'
        f'alike = 1.0\nlearnt_until = "2022-09-30"\n[reading]\nmodel = "{model}"\nlearnt_until = "2024-11-30"\n'
        f"[tune]\n{more}\n[optim]\nlr = 3e-3\nwarmup_steps = 5\n"
        f"[loop]\nbatch = 8\neval_every_steps = 10\nsave_every_steps = 10\n{loop}\n"
    )
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    assert main(["advisor", str(config_file(folder, model)), "--quiet"]) == 0
    return folder / "made"


def losses(made: Path) -> list[float]:
    with (made.with_name(f"{made.name}-training") / "log.csv").open() as stream:
        return [float(row["validation_loss"]) for row in csv.DictReader(stream) if row["validation_loss"]]


def test_the_backend_gpt_runs_what_was_tuned(made: Path) -> None:
    advisor = Gpt(model_folder(made), made, threshold=0.5)

    answers = advisor.advise([Headline(text=f"Zeta {said}") for said in SAID.values()])

    assert [advice.action for advice in answers] == [BUY_SIGNAL, SELL_SIGNAL, HOLD]
    assert losses(made)[-1] < 0.5 * np.log(3.0)


def test_the_checkpoint_tells_what_it_saw(made: Path) -> None:
    manifest = read_manifest(made)
    assert manifest.training.end is not None
    assert f"{manifest.training.end:%Y-%m-%d}" == "2024-11-30"  # the later of the two
    assert manifest.config["reading"]["digest"] == open_model(model_folder(made), "fp32").digest
    assert manifest.config["reading"]["layer"] == 2
    assert manifest.metrics["test_macro_f1"]["value"] > manifest.metrics["test_macro_f1"]["baselines"]["always_hold"]


def test_what_the_backend_reads_is_what_was_trained_on(model: Path) -> None:
    text = open_model(model, "fp32")
    assert isinstance(text.model, Llama)
    told = ["shares rise", "Acme shares fall today and so on"]
    tokens = [plain_tokens(text, one) for one in told]
    filled = torch.tensor([one + [0] * (max(map(len, tokens)) - len(one)) for one in tokens])

    readings = Tuned(text.model, 0).readings(filled, torch.tensor([len(one) for one in tokens]))

    assert readings.detach().numpy() == pytest.approx(Reader(model).read(told, 2), abs=1e-4)


def test_a_written_model_is_the_same_model_with_the_same_words(model: Path, tmp_path: Path) -> None:
    text = load_text_model(model, torch.float32)
    assert isinstance(text.model, Llama)
    for tied in (True, False):
        source = llama(tied=tied)
        write_folder(text, source, tmp_path / "folder")
        found = load_text_model(tmp_path / "folder", torch.float32)
        tokens = torch.tensor([[5, 99, 7]])
        with torch.no_grad():
            assert torch.equal(found.model(tokens), source(tokens))
    assert (found.stop, found.template) == (text.stop, text.template)
    for said in ("shares <|im_end|> 12", "Zürich"):
        assert found.tokenizer.encode(said) == text.tokenizer.encode(said)
        assert found.plain.encode(said) == text.plain.encode(said)


def test_layers_that_are_not_tuned_stay_as_they_were(model: Path, tmp_path: Path) -> None:
    assert main(["advisor", str(config_file(tmp_path, model, "layers = 1", "steps = 10")), "--quiet"]) == 0
    before = open_model(model, "fp32").model.state_dict()
    after = open_model(model_folder(tmp_path / "made"), "fp32").model.state_dict()
    moved = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert moved
    assert all(name.startswith("blocks.1.") for name in moved)


def test_a_killed_tuning_goes_on_to_the_same_weights(model: Path, made: Path, tmp_path: Path) -> None:
    config = config_file(tmp_path, model)
    real, calls = loop._Run._update, 0

    def dies(run: loop._Run) -> tuple[float, float, float]:
        nonlocal calls
        calls += 1
        if calls == 35:
            raise KeyboardInterrupt
        return real(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Run, "_update", dies)
        assert main(["advisor", str(config), "--quiet"]) == 130
    assert not (tmp_path / "made").exists()

    assert main(["advisor", str(config), "--quiet", "--resume"]) == 0

    weights = [open_model(model_folder(folder), "fp32").model.state_dict() for folder in (made, tmp_path / "made")]
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
    assert not list((tmp_path / "made-training").glob("state*"))


def test_what_cannot_be_tuned_is_refused_in_a_sentence(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_file(tmp_path, model)
    for flags, said in (
        (["--tune.layers", "3"], "tune.layers must be at most 2"),
        (["--reading.model", str(tmp_path / "none.gguf")], "none.gguf"),
        (["--shipped", str(tmp_path / "home")], "too large to ship"),
        (["--kind", "head", "--resume"], "--resume is of kind tune"),
    ):
        assert main(["advisor", str(config), "--quiet", *flags]) == 2
        assert said in capsys.readouterr().err
    foreign = model_folder(tmp_path / "made")
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    assert main(["advisor", str(config), "--quiet"]) == 2
    assert "is no model that was tuned here" in capsys.readouterr().err
    assert [path.name for path in foreign.iterdir()] == ["notes.txt"]
    shutil.rmtree(foreign)
