"""kill -9 in the middle of a run, and then the same losses and the same checkpoint as without it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from training_files import as_before, bar_file, config_file, losses, series  # noqa: F401 - a fixture

from trainer.__main__ import main
from trainer.logs import read_log

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0
STEPS = 160
KILLED_FROM = 20  # a second or more before the end, whoever else wants the processor


def test_a_run_that_was_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    data = bar_file(tmp_path, [series("AAA", 1_200)])
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = config_file(tmp_path / "whole", data, steps=STEPS)
    cut = config_file(tmp_path / "cut", data, steps=STEPS)
    assert main(["fingpt", str(whole), "--quiet"]) == 0

    command = [sys.executable, "-m", "trainer", "fingpt", str(cut), "--quiet", "--loop.save-every-steps", "1"]
    work = tmp_path / "cut" / "made-training"
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        give_up = time.monotonic() + PATIENCE_S
        while not (rows := read_log(work / "log.csv")) or rows[-1]["step"] < KILLED_FROM:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < give_up
            time.sleep(0.002)  # between two looks at the log
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert (work / "state.safetensors").exists()
    assert not (tmp_path / "cut" / "made").exists()
    assert KILLED_FROM <= read_log(work / "log.csv")[-1]["step"] < STEPS

    assert main(["fingpt", str(cut), "--quiet", "--resume"]) == 0

    logs = [losses(read_log(tmp_path / name / "made-training" / "log.csv")) for name in ("whole", "cut")]
    assert logs[0] == logs[1]
    for file in ("manifest.json", "weights.safetensors"):
        assert (tmp_path / "whole" / "made" / file).read_bytes() == (tmp_path / "cut" / "made" / file).read_bytes()
