"""Replay history through the graph: python run_backtest.py --help"""

import os
import signal
import sys


def _leave(*_: object) -> None:
    os.write(2, b"run_backtest.py: interrupted before the first event; nothing was written\n")
    os._exit(130)


if __name__ == "__main__":
    try:
        # While csp is imported, a KeyboardInterrupt inside it would abort the process; nothing is open yet, so leave.
        heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if heard:
            signal.signal(signal.SIGINT, _leave)
        elif signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # Who started us wants it ignored, as a shell does for a background job; csp would hear it all the same.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        from graphs.cli import backtest_main

        if heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.exit(backtest_main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
