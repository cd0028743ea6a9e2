import re
import subprocess
import sys
from pathlib import Path

from configs.load import load
from models.checkpoint import read_manifest
from trainer.config import TrainConfig

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "06_training.py"


def example(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments], capture_output=True, text=True, timeout=240, check=False
    )


def test_a_training_that_was_killed_goes_on_without_a_seam(tmp_path: Path) -> None:
    done = example("--steps", "80", "--out", str(tmp_path))

    assert done.returncode == 0, done.stderr
    (step,) = re.findall(r"killed after step (\d+) of the log", done.stdout)
    assert 40 <= int(step) < 80
    rows = re.findall(r"^ *(\d+) +(\d\.\d{4}) +(\d\.\d{4})$", done.stdout, re.MULTILINE)
    assert [int(step) for step, _, _ in rows] == [20, 40, 60, 80]
    assert float(rows[-1][2]) < float(rows[0][2])
    manifest = read_manifest(tmp_path / "tiny")
    assert f"bits a token after the training window: {manifest.metrics['test_bits']['value']:.3f}" in done.stdout
    window_end = load(TrainConfig, ROOT / "configs" / "train" / "demo.toml").split.end
    assert window_end is not None
    assert manifest.training.end is not None
    assert manifest.training.end < window_end
    assert (tmp_path / "tiny-training" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_example_trains_long_enough_to_be_killed() -> None:
    done = example("--steps", "1")

    assert done.returncode == 2
    assert "steps must lie in [60, 10000], was 1" in done.stdout + done.stderr
