"""Replay history through the graph: python run_backtest.py --help"""

import sys

from graphs.cli import backtest_main

if __name__ == "__main__":
    sys.exit(backtest_main(sys.argv[1:]))
