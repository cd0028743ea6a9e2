import re
import subprocess
import sys
from pathlib import Path

from models.checkpoint import read_manifest

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "05_model_and_forward.py"


def example(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments], capture_output=True, text=True, timeout=240, check=False
    )


def test_the_cache_gives_what_one_pass_gives_and_quantiles_rise() -> None:
    done = example("--bars", "400", "--forecasts", "4")

    assert (done.returncode, done.stderr) == (0, "")
    manifest = read_manifest(ROOT / "checkpoints" / "demo")
    assert done.stdout.startswith(f"{manifest.parameters:,} parameters: ")
    assert f"test_bits {manifest.metrics['test_bits']['value']:.3f}, unigram" in done.stdout
    (apart,) = re.findall(r"log-probabilities at most (\S+) apart", done.stdout)
    assert float(apart) < 1e-4
    rows = [[float(word) for word in row.split()] for row in re.findall(r"^ {32}( [-+ \d.]+)$", done.stdout, re.M)]
    assert len(rows) == 4
    for *quantiles, volatility, up, _ in rows:
        assert quantiles == sorted(quantiles)
        assert len(quantiles) == 5
        assert volatility > 0.0
        assert 0.0 < up < 1.0
    (bits,) = re.findall(r"([\d.]+) bits a token over these 400 bars", done.stdout)
    assert 0.0 < float(bits) < 7.0


def test_the_example_forecasts_fewer_bars_than_it_reads() -> None:
    done = example("--forecasts", "1")

    assert done.returncode == 2
    assert "want 2 <= forecasts < bars <= 5000, was 1 and 600" in done.stdout + done.stderr
