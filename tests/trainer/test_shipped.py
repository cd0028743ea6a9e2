"""A result is compared with the shipped checkpoint, and takes its place only when told."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import METRICS, TENSORS, TRAINING
from training_files import as_before, bar_file, config_file, series  # noqa: F401 - a fixture

from configs.version import code_version
from models.checkpoint import read_manifest, write
from trainer.__main__ import main
from trainer.shipped import compare
from trainer.tokenizer import joined


def checkpoint(folder: Path, *, bits: float | None = 5.99, shift: float = 0.0, **changed: Any) -> Path:
    metrics = {} if bits is None else {"test_bits": METRICS["test_bits"] | {"value": bits}}
    tensors = TENSORS | {"model.head.weight": TENSORS["model.head.weight"] + shift}
    given = {"kind": "fingpt", "config": {}, "codec": {"kind": "vqvae"}, "training": TRAINING, **changed}
    write(folder, metrics=metrics, tensors=tensors, **given)
    return folder


@pytest.mark.parametrize(
    ("bits", "shift", "changed", "same", "said"),
    [
        (5.99, 0.0, {}, True, "identical to"),
        (5.99, 0.0, {"code": "later"}, True, "but for the code that trained it, later and "),
        (5.99, 0.0, {"training": replace(TRAINING, licence="Another.")}, True, "the manifests differ"),
        (6.0, 1.0, {}, True, "6.0000 against 5.9900, 0.0100 apart"),
        (5.975, 1.0, {}, True, "0.0150 apart"),
        (6.02, 1.0, {}, False, "0.0300 apart, at most 0.02 expected"),
        (None, 1.0, {}, False, "test bits are not on both sides"),
        (5.99, 1.0, {"training": replace(TRAINING, data_sha256="cd" * 32)}, False, "trained on other bars"),
    ],
)
def test_other_machines_may_round_and_nothing_more(
    tmp_path: Path, bits: float | None, shift: float, changed: dict[str, Any], same: bool, said: str
) -> None:
    home = checkpoint(tmp_path / "home")
    found = compare(checkpoint(tmp_path / "made", bits=bits, shift=shift, **changed), home)
    assert found.same == same
    assert said in found.line


def test_the_shipped_checkpoint_is_compared_and_replaced_only_when_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    config = config_file(tmp_path, bar_file(tmp_path, [series("AAA", 1_200)]), f'shipped = "{home}"', steps=10)
    flags = ["fingpt", str(config), "--quiet"]

    assert main(flags) == 2
    assert f"want a checkpoint to compare with, {home} does not exist" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
    home.mkdir()
    (home / "manifest.json").write_text("{")
    assert main(flags) == 2  # before the work, as well
    assert "manifest.json" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
    assert main([*flags, "--update"]) == 0
    shipped = read_manifest(home).digest
    assert shipped == read_manifest(tmp_path / "made").digest
    assert read_manifest(home).code == read_manifest(tmp_path / "made-training" / "tokenizer").code == code_version()
    capsys.readouterr()

    shutil.rmtree(tmp_path / "made")
    assert main([*flags, "--resume"]) == 0  # the tokenizer is there already
    assert "identical to" in capsys.readouterr().out
    assert main([*flags, "--loop.steps", "6", "--optim.lr", "1e-5"]) == 1
    assert "other weights than" in capsys.readouterr().out
    assert read_manifest(home).digest == shipped


def test_advisors_are_compared_by_what_they_are_judged_by(tmp_path: Path) -> None:
    def head(name: str, f1: float, shift: float) -> Path:
        metrics = {"test_macro_f1": {"value": f1, "baselines": {"always_hold": 0.26}}}
        tensors = {"model.bias": np.full(3, shift, np.float32)}
        write(
            tmp_path / name, kind="advisor", config={}, codec=None, training=TRAINING, metrics=metrics, tensors=tensors
        )
        return tmp_path / name

    home = head("home", 0.80, 0.0)
    near, far = compare(head("near", 0.804, 1.0), home), compare(head("far", 0.81, 1.0), home)

    assert near.same
    assert not far.same
    assert "test macro-F1 0.8100 against 0.8000, 0.0100 apart, at most 0.005 expected" in far.line
    assert not compare(checkpoint(tmp_path / "price"), home).same


def test_a_tokenizer_of_the_same_bars_changes_nothing_of_what_was_seen() -> None:
    other = replace(TRAINING, data_sha256="cd" * 32)
    assert joined(TRAINING, TRAINING).data_sha256 == TRAINING.data_sha256
    assert joined(TRAINING, other).data_sha256 not in (TRAINING.data_sha256, other.data_sha256)
