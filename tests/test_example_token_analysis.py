import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "examples" / "04_token_analysis.py"


def example(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments], capture_output=True, text=True, timeout=240, check=False
    )


def test_tokens_come_live_as_in_the_series_and_say_something_about_later_ones() -> None:
    done = example("--top", "3")

    assert (done.returncode, done.stderr) == (0, "")
    assert "stream and series give the same 20,111 tokens: True" in done.stdout
    assert re.search(r"^20,079 tokens, entropy 6\.\d\d of 7\.00 bits$", done.stdout, re.MULTILINE)
    told = re.findall(r"(\d+) bars later  (0\.\d+) bits  (0\.\d+) by chance", done.stdout)
    assert [lag for lag, _, _ in told] == ["1", "2", "24", "168"]
    assert all(float(bits) > float(chance) for _, bits, chance in told)
    assert len(re.findall(r"after +\d+, \d+\.\d bits, z [+-]\d+\.\d\d", done.stdout)) == 3


def test_the_example_asks_for_at_least_one() -> None:
    done = example("--top", "0")

    assert done.returncode == 2
    assert "top must lie in [1, 50], was 0" in done.stdout + done.stderr


def test_a_missing_checkpoint_is_a_sentence() -> None:
    done = example("--checkpoint", "nofolder")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "04_token_analysis.py: error: want a checkpoint folder at nofolder, was nothing\n"
