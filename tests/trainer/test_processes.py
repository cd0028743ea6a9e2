"""Two processes train as one: the same batches, the same losses, one writer."""

import os
import subprocess
import sys
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
from trainer.fingpt import _cross_entropy, _loss
from trainer.logs import read_log
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
        shares = [_loss(model, 3, p, windows=windows, loop=loop, world=one) for one in ranks for p in range(parts)]
        return float(sum(share.item() for share in shares))

    with torch.no_grad():
        whole = total(1, 1)
        assert whole == pytest.approx(np.log(8.0), abs=0.3)
        for size, parts in ((1, 4), (2, 1), (2, 3), (4, 2)):
            assert total(size, parts) == pytest.approx(whole, rel=1e-6)
        sums = [sum(float(_cross_entropy(model, b)) for b in windows.batches(7, rank, 3)) for rank in range(3)]
        counts = [sum(int((b.targets != IGNORED).sum()) for b in windows.batches(7, rank, 3)) for rank in range(3)]
        assert sum(counts) == windows.decisions
        alone = sum(float(_cross_entropy(model, b)) for b in windows.batches(7))
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
