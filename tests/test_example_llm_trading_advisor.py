"""Headlines from a followed file and from RSS become `ai_signals`: what the example prints is what the advisor says."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from models.advisor.advice import Headline
from models.advisor.backends import default_backend, make

EXAMPLE = Path(__file__).parents[1] / "examples" / "08_llm_trading_advisor.py"
READ = [  # symbol and headline, of those that nothing speaks against
    ("ACME", "Acme profit soars to a record as orders surge"),
    ("GLOBEX", "Globex warns of weak demand and cuts its outlook"),
    ("GLOBEX", "Globex names a new head of research"),
    ("GLOBEX", "Globex downgraded to sell, shares fall"),
    ("the market", "Stocks rally broadly as inflation eases"),
]
HELD = [
    ("ACME", "the same news again"),
    ("GLOBEX", "it holds the words of an answer"),
    ("ACME", "stale"),
]
LINE = re.compile(
    r"^\S+ \S+ ai_signals: (\w+) (.+) score (\S+), confidence (\S+): (.+) \[(\w+), item (\w+)\]$", re.MULTILINE
)


def example(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What it says; the files that it makes are in `folder` while it runs."""
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=os.environ | {"TMPDIR": str(folder)},
    )


@pytest.mark.parametrize(("backend", "source"), [("lexicon", ()), ("head", ("--rss",))])
def test_each_headline_is_read_or_held_back_and_told(tmp_path: Path, backend: str, source: tuple[str, ...]) -> None:
    done = example(tmp_path, "--backend", backend, "--seconds", "120", *source)

    assert (done.returncode, done.stderr) == (0, "")
    told = LINE.findall(done.stdout)
    answers = make(backend).advise([Headline(text=text) for _, text in READ])
    assert [line[:6] for line in told if line[5] != "guard"] == [
        (a.action, symbol, f"{a.score:+.3f}", f"{a.confidence:.3f}", a.reason, backend)
        for (symbol, _), a in zip(READ, answers, strict=True)
    ]
    held = [line for line in told if line[5] == "guard"]
    assert [line[:5] for line in held] == [("HOLD", symbol, "+0.000", "0.000", reason) for symbol, reason in HELD]
    attack = held[1][6]
    assert re.findall(r"alerts: (.*)$", done.stdout, re.MULTILINE) == [
        f"WARNING advisor did not read a headline of newswire ({attack}): it holds the words of an answer"
    ]
    assert done.stdout.splitlines()[-1].startswith("8 of 8 headlines: ")
    assert list(tmp_path.glob("ticktorch-*")) == []


def test_the_best_model_that_is_there_reads_them_or_its_absence_is_a_sentence(tmp_path: Path) -> None:
    done = example(tmp_path, "--backend", "gpt", "--seconds", "120")

    if default_backend() == "gpt":
        assert (done.returncode, done.stderr) == (0, "")
        assert [line[1] for line in LINE.findall(done.stdout) if line[5] == "gpt"] == [symbol for symbol, _ in READ]
    else:
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("08_llm_trading_advisor.py: error: [advisor] ")
        assert done.stderr.count("\n") == 1
    assert list(tmp_path.glob("ticktorch-*")) == []


def test_when_time_is_up_the_example_says_how_far_it_came(tmp_path: Path) -> None:
    done = example(tmp_path, "--backend", "lexicon", "--seconds", "1")

    assert (done.returncode, done.stderr) == (1, "")
    count = len(LINE.findall(done.stdout))
    assert count < 8
    assert done.stdout.splitlines()[-1].startswith(f"{count} of 8 headlines: ")
    assert list(tmp_path.glob("ticktorch-*")) == []


def test_ctrl_c_ends_the_example_with_a_line_and_130(tmp_path: Path) -> None:
    command = [sys.executable, "-u", str(EXAMPLE), "--backend", "lexicon", "--seconds", "120", "--rss"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # who runs the tests may want it ignored
    ) as process:
        assert process.stdout is not None
        assert " ai_signals: " in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        told, error = process.communicate(timeout=60)

    assert (process.returncode, error) == (130, "08_llm_trading_advisor.py: interrupted\n")
    assert "headlines: " not in told
    assert list(tmp_path.glob("ticktorch-*")) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--backend", "oracle"), "invalid choice 'oracle'"),
        (("--seconds", "nan"), "seconds must lie in (0, 3600], was nan"),
    ],
)
def test_the_example_refuses_flags_that_cannot_be(tmp_path: Path, flags: tuple[str, ...], message: str) -> None:
    done = example(tmp_path, *flags)

    assert done.returncode == 2
    assert message in done.stdout + done.stderr
