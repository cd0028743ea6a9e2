"""A recorder whose disk fails for good, as a program: prints the error that stopped the engine.

python recorder_faults.py full RUN     # the disk takes 16 KiB of a file
python recorder_faults.py hang RUN     # the second file cannot be opened, nor is that refused
"""

import os
import resource
import sys
from datetime import timedelta
from pathlib import Path

import csp
from csp import ts

from feeds.clock import utc_now
from feeds.record import Recorder, RecorderConfig
from feeds.recording import RecordingError


@csp.node
def hang(tick: ts[bool], path: str):
    """Put a pipe that nobody reads where the next file will be: opening it waits for ever, in the kernel."""
    with csp.state():
        s_done = False
    if csp.ticked(tick) and not s_done:
        s_done = True
        os.mkfifo(path)


def graph(root: Path, fault: str) -> None:
    ticks = csp.timer(timedelta(milliseconds=1))
    if fault == "hang":
        hang(ticks, str(root / "inputs/ticks-000002.arrow"))
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, 16_384))
    recorder = Recorder(root, RecorderConfig(flush_s=0.05, rotate_s=0.3 if fault == "hang" else 600.0, stall_max_s=1.0))
    recorder.record("ticks", bool, ticks)


if __name__ == "__main__":
    try:
        csp.run(
            graph, Path(sys.argv[2]), sys.argv[1], starttime=utc_now(), endtime=timedelta(seconds=60), realtime=True
        )
    except RecordingError as exc:
        print(exc)
        raise SystemExit(2) from None
