import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "examples" / "01_host_health.py"


def example(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_example_prints_the_status_of_this_machine() -> None:
    done = example("--seconds", "2", "--host.poll-interval-s", "0.1")

    assert (done.returncode, done.stderr) == (0, "")
    scores = re.findall(r"status:HealthStatus\( score=([0-9.]+), sensors=(\d+)", done.stdout)
    assert scores
    assert scores[0][0] == "1.0"  # nothing is judged on the first poll
    assert all(0.0 <= float(score) <= 1.0 and int(sensors) >= 3 for score, sensors in scores)


def test_the_example_explains_itself() -> None:
    done = example("--help")

    assert done.returncode == 0
    assert "--seconds" in done.stdout


def test_the_example_refuses_a_time_that_cannot_be() -> None:
    done = example("--seconds", "0")

    assert done.returncode == 2
    assert "seconds must be positive and finite, was 0.0" in done.stdout + done.stderr
