"""Run the graph on live feeds: python run_live.py --help"""

import os
import signal
import sys


def _leave(*_: object) -> None:
    os.write(2, b"run_live.py: interrupted before it began; nothing was sent\n")
    os._exit(130)


if __name__ == "__main__":
    # While csp is imported, a KeyboardInterrupt inside it would abort the process; nothing is open yet, so leave.
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as who started us wants it
    if not ignored:
        signal.signal(signal.SIGINT, _leave)
    signal.signal(signal.SIGTERM, _leave)
    from graphs.live_cli import live_main

    sys.exit(live_main(sys.argv[1:]))
