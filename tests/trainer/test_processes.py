"""Two processes train as one: the same batches, the same losses, one writer."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from training_files import as_before, bar_file, config_file, losses, series  # noqa: F401 - a fixture

from configs.load import ConfigError
from models.checkpoint import read_manifest
from models.fingpt import FinGPT
from models.fingpt_config import FinGPTConfig
from trainer.__main__ import main
from trainer.config import LoopConfig
from trainer.data import TokenSeries
from trainer.fingpt import _forward
from trainer.logs import read_log
from trainer.runs import batch_loss, cross_entropy
from trainer.windows import IGNORED, Windows
from trainer.world import World, world

ROOT = Path(__file__).parents[2]


def test_the_shares_of_processes_and_parts_add_up_to_the_loss_of_the_whole_batch() -> None:
    tokens = np.random.default_rng(0).integers(0, 8, 300)
    made = [TokenSeries(symbol="A", tokens=tokens, time=None, hours=None)] * 2
    windows = Windows(made, [(0, 250), (3, 8)], 16, symbols=None, hours=False)  # the second is shorter than a window
    torch.manual_seed(0)
    model = FinGPT(FinGPTConfig(vocabulary=8, context=16, layers=1, width=8, heads=2, kv_heads=2)).eval()
    cpu = torch.device("cpu")

    def total(size: int, parts: int) -> float:
        loop = LoopConfig(batch=24, accumulate=parts, seed=5)
        ranks = [World(rank=rank, size=size, device=cpu) for rank in range(size)]
        share = partial(batch_loss, model, 3, windows=windows, loop=loop, forward=_forward)
        shares = [share(part, world=one) for one in ranks for part in range(parts)]
        return float(sum(share.item() for share in shares))

    with torch.no_grad():
        whole = total(1, 1)
        assert whole == pytest.approx(np.log(8.0), abs=0.3)
        for size, parts in ((1, 4), (2, 1), (2, 3), (4, 2)):
            assert total(size, parts) == pytest.approx(whole, rel=1e-6)
        sums = [sum(float(cross_entropy(model, b, _forward)) for b in windows.batches(7, rank, 3)) for rank in range(3)]
        counts = [sum(int((b.targets != IGNORED).sum()) for b in windows.batches(7, rank, 3)) for rank in range(3)]
        assert sum(counts) == windows.decisions
        alone = sum(float(cross_entropy(model, b, _forward)) for b in windows.batches(7))
        assert sum(sums) == pytest.approx(alone, rel=1e-6)


def test_a_batch_that_cannot_be_shared_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="multiple of processes times accumulate"), world(LoopConfig(batch=32)):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("parts", ["1", "2"])
def test_two_processes_reach_the_losses_of_one(tmp_path: Path, parts: str) -> None:
    data = bar_file(tmp_path, [series("AAA", 1_200)])
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    # Without dropout, which is drawn in each process for itself.
    flags = ["--quiet", "--model.dropout", "0", "--loop.accumulate", parts]
    configs = [str(config_file(folder, data, steps=20)) for folder in folders]
    assert main(["fingpt", configs[0], *flags]) == 0

    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    quiet = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, "-m", "trainer", "fingpt", configs[1], *flags],
        cwd=ROOT,
        env=quiet,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    one, two = (losses(read_log(folder / "made-training" / "log.csv")) for folder in folders)
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for ours, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4)
    manifests = [read_manifest(folder / "made") for folder in folders]
    assert manifests[0].training == manifests[1].training
    bits = [manifest.metrics["test_bits"]["value"] for manifest in manifests]
    assert bits[0] == pytest.approx(bits[1], rel=1e-4)


@pytest.mark.slow
def test_two_processes_learn_a_text_as_one_does(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the night sees no man, no man sees the night. " * 200)
    flags = ["--data.text", "text.txt", "--data.cache", "cache", "--loop.steps", "30", "--loop.batch", "8"]
    flags += ["--optim.warmup-steps", "5", "--model.layers", "1", "--model.width", "32", "--loop.save-every-steps", "0"]
    (tmp_path / "empty.toml").write_text("")
    usual = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    both = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    for name, launch in (("one", ["-m"]), ("two", both)):
        command = [sys.executable, *launch, "trainer", "gpt", "empty.toml", "--out", name, *flags, "--quiet"]
        done = subprocess.run(
            command, cwd=tmp_path, env=usual, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr

    one, two = (losses(read_log(tmp_path / f"{name}-training" / "log.csv")) for name in ("one", "two"))
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for ours, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4)
    judged = [read_manifest(tmp_path / name).metrics["validation_loss"]["value"] for name in ("one", "two")]
    assert judged[0] == pytest.approx(judged[1], rel=1e-4)
