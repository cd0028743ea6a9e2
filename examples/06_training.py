"""Train a small price model, kill the training in the middle, and go on as if nothing had happened.

python examples/06_training.py

One learns: how a training is started from a config with flags over it; what it leaves behind; that a killed one goes on
from its last state with the same losses; and that a result stands beside baselines, on bars after its training window.
The tokenizer is the shipped one, which saves fitting another.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from configs.command import run_command
from trainer.logs import read_log

ROOT = Path(__file__).parent.parent
TINY = ["--model.layers", "1", "--model.width", "32", "--model.heads", "2", "--model.kv-heads", "2"]
TINY += ["--model.context", "64", "--model.dropout", "0", "--optim.lr", "3e-3", "--optim.warmup-steps", "10"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Train on the data that come with ticktorch."""

    steps: int = 200  # of the whole training
    out: Path | None = None  # folder that keeps the results; absent: they are thrown away

    def __post_init__(self) -> None:
        if not 60 <= self.steps <= 10_000:
            raise ValueError(f"steps must lie in [60, 10000], was {self.steps}")


def train(folder: Path, steps: int, *flags: str) -> subprocess.Popen[bytes]:
    """Start the trainer on the config of the shipped model, made tiny."""
    command = [sys.executable, "-m", "trainer", "fingpt", "configs/train/demo.toml", "--out", str(folder / "tiny")]
    command += ["--name", "tiny", "--shipped", "", "--fit.checkpoint", "checkpoints/demo", *TINY]
    command += ["--loop.steps", str(steps), "--loop.eval-every-steps", "20", "--loop.save-every-steps", "20"]
    return subprocess.Popen([*command, *flags], cwd=ROOT)


def killed_after(process: subprocess.Popen[bytes], log: Path, step: int) -> None:
    """Kill the training as a power cut would, once its log has reached a step."""
    while process.poll() is None:
        rows = read_log(log)
        if rows and rows[-1]["step"] >= step:
            process.kill()
            process.wait()
            print(f"killed after step {rows[-1]['step']} of the log\n", flush=True)
            return
        time.sleep(0.05)  # between two looks at the log
    raise SystemExit(f"the training ended with {process.returncode} before it could be killed")


def run(options: Options, folder: Path) -> int:
    log = folder / "tiny-training" / "log.csv"
    log.unlink(missing_ok=True)  # of an earlier run of this example
    killed_after(train(folder, options.steps), log, options.steps // 2)

    code = train(folder, options.steps, "--resume").wait()
    if code != 0:
        return code
    print("\nstep  training loss  validation loss, nats")
    for row in read_log(log):  # one log, without a seam
        if "validation_loss" in row:
            print(f"{row['step']:>4}  {row['loss']:>13.4f}  {row['validation_loss']:>15.4f}")
    bits = json.loads((folder / "tiny" / "manifest.json").read_text())["metrics"]["test_bits"]
    baselines = ", ".join(f"{name} {value:.3f}" for name, value in bits["baselines"].items())
    print(f"\nbits a token after the training window: {bits['value']:.3f}, {baselines}; the model is {bits['verdict']}")
    if options.out is not None:
        print(f"checkpoint: {folder / 'tiny'}; log, curves and tokenizer: {log.parent}")
    return 0


def main() -> int:
    options = tyro.cli(Options, description=__doc__)
    if options.out is not None:
        return run(options, options.out.absolute())
    with tempfile.TemporaryDirectory(prefix="ticktorch-training-") as folder:
        return run(options, Path(folder))


if __name__ == "__main__":
    sys.exit(run_command(Path(__file__).name, main, ()))
