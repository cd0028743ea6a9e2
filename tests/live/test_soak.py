"""Half an hour at two hundred trades a second: the run neither grows nor loses anything.

SOAK_MINUTES=6 makes a shorter try of it, at least six: what a run needs it has taken after five.
"""

import os
import re
import time
from pathlib import Path

import pytest

from tests.live.ordeals import Ordeal, ordeal

MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
SETTLED_S = 300.0  # after which memory may grow no more
SAMPLE_S = 5.0
GROWTH_MAX = 0.03
TRADES_PER_S = 200
MARKET = (
    "--listing.trades-per-s", str(TRADES_PER_S), "--listing.history-s", "60", "--listing.loop",
    "--taker-bps", "1", "--maker-bps", "1", "--weight-per-minute", "1000000",
)  # fmt: skip
FLAGS = ("--signals.plugins", "tests.live.restless:calm")


def _resident_mb(pid: int) -> float:
    """Memory that a process holds, by the kernel's word."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024.0


def _watched(suffering: Ordeal) -> list[tuple[float, float]]:
    """Samples of seconds and megabytes, to the end of the soak."""
    began, samples = time.monotonic(), []
    while (now_s := time.monotonic() - began) < MINUTES * 60.0:
        assert not suffering.live.ended, suffering.live.text[-5000:]
        samples.append((now_s, _resident_mb(suffering.live.pid)))
        time.sleep(SAMPLE_S)
    return samples


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_long_run_keeps_its_memory_and_every_trade(tmp_path: Path) -> None:
    assert MINUTES >= 6.0, f"SOAK_MINUTES must be at least 6, was {MINUTES}"
    with ordeal(tmp_path, MARKET, FLAGS) as suffering:
        samples = _watched(suffering)
        run, found = suffering.stop()
    settled = [mb for now_s, mb in samples if now_s <= SETTLED_S][-1]
    later = [mb for now_s, mb in samples if now_s > SETTLED_S]
    print(
        f"\nsoak: {MINUTES:g} min, {len(run.trades):,} trades, {len(run.fills)} fills; memory {samples[0][1]:.1f} MB at"
        f" the start, {settled:.1f} after 5 min, then {min(later):.1f} to {max(later):.1f}, at the end {later[-1]:.1f}"
    )
    assert found == []
    assert len(run.trades) >= 0.95 * TRADES_PER_S * 60.0 * MINUTES
    assert max(later) <= (1.0 + GROWTH_MAX) * settled
