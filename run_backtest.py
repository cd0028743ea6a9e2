"""Replay history through the graph: python run_backtest.py --help"""

import sys

if __name__ == "__main__":
    try:
        from graphs.cli import backtest_main  # here, because Ctrl-C may come while it loads

        sys.exit(backtest_main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
