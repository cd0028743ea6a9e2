import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "07_generation.py"


def example(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments], capture_output=True, text=True, timeout=240, check=False
    )


def test_generation_draws_a_fan_that_widens_and_the_same_again(tmp_path: Path) -> None:
    flags = ("--paths", "40", "--horizon", "12", "--out")

    done, again = (example(*flags, str(tmp_path / name / "fan.png")) for name in ("one", "two"))

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.replace("/one/", "/two/") == again.stdout
    pictures = [(tmp_path / name / "fan.png").read_bytes() for name in ("one", "two")]
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(b"\x89PNG")
    close = float(re.findall(r"the last close is ([\d,.]+);", done.stdout)[0].replace(",", ""))
    rows = re.findall(r"^ +(\d+) h +(\S+) +(\S+) +(\S+)$", done.stdout, re.MULTILINE)
    assert [hour for hour, *_ in rows] == ["1", "6", "12"]
    spreads = []
    for _, *told in rows:
        low, middle, high = (float(value.replace(",", "")) for value in told)
        assert low < middle < high
        assert middle == pytest.approx(close, rel=0.05)
        spreads.append(high - low)
    assert spreads == sorted(spreads)


def test_the_example_goes_on_by_a_bar_at_least() -> None:
    done = example("--horizon", "0")

    assert done.returncode == 2
    assert "horizon must lie in [1, 1000], was 0" in done.stdout + done.stderr
