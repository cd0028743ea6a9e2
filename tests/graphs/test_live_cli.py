"""How a person stops a live run."""

import signal

import pytest

from graphs.live_cli import Stopper


def test_a_request_that_the_engine_cannot_hear_yet_is_not_lost() -> None:
    # SIGTERM comes once. Between the call of csp.run and the start of its adapters a tick would be dropped.
    stopper = Stopper()
    stopper.edge()
    stopper.running = True
    with pytest.raises(KeyboardInterrupt):
        stopper._heard(signal.SIGTERM, None)
