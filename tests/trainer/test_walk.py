"""Walk-forward trains each fold on what came before it, and goes on where it was stopped."""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from training_files import alone, as_before, bar_file, config_file, series  # noqa: F401 - a fixture

from configs.load import load
from models.checkpoint import read_manifest
from trainer.__main__ import main
from trainer.config import TrainConfig
from trainer.data import load_bars
from trainer.walk import walk_forward
from trainer.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching(World):
    """A process that notes, wherever all wait for each other, which file of folds is there."""

    folds: Path
    seen: list[int]

    def wait(self) -> None:
        self.seen.append(self.folds.stat().st_ino)


def test_walking_forward_gives_each_fold_its_own_tokenizer_and_resumes_with_the_folds_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_file(tmp_path, bar_file(tmp_path, [series("AAA", 1_200)]), "folds = 2", steps=10)
    assert main(["fingpt", str(config)]) == 0
    said = capsys.readouterr().out
    assert "2 folds: saved over the bigram" in said

    made = tmp_path / "made"
    rows = json.loads((made / "folds.json").read_text())
    assert [row["fold"] for row in rows] == ["fold-1", "fold-2"]
    manifests = [read_manifest(made / row["fold"]) for row in rows]
    assert manifests[0].codec != manifests[1].codec
    for row, manifest in zip(rows, manifests, strict=True):
        assert row["checkpoint"] == manifest.digest
        start, end = (datetime.fromisoformat(text) for text in row["parts"]["test"])
        assert not manifest.overlap(start, end)
        assert set(row["metrics"]["bits"]["baselines"]) == {"unigram", "bigram"}

    (made / "folds.json").write_text(json.dumps(rows[:1]))
    first = (made / "fold-1" / "weights.safetensors").stat().st_mtime_ns
    file = (made / "folds.json").stat().st_ino
    here = Watching(rank=0, size=1, device=alone().device, folds=made / "folds.json", seen=[])
    ours = load(TrainConfig, config)
    lines = walk_forward(ours, load_bars(ours.feeds), made, here, resume=True, quiet=True)
    assert lines == said.splitlines()
    assert here.seen[0] == file  # another process that reads it before it waits finds the same folds done
    assert json.loads((made / "folds.json").read_text()) == rows
    assert (made / "fold-1" / "weights.safetensors").stat().st_mtime_ns == first
