"""One-second VWAP and its threshold signal in the graph, from Parquet: `Trade` Structs, or bare columns."""

import sys
from datetime import datetime
from typing import Any

import csp
import numpy as np
from contest import Stopwatch, report
from csp import ts

from feeds import replay
from feeds.files import Source, describe
from nodes.bars import one_second_aggregator


@csp.node
def crosses(vwap: ts[float], level: float) -> ts[float]:
    """+1 or -1 when the VWAP of a window changes sides of `level`."""
    with csp.state():
        s_side = 0.0

    if csp.ticked(vwap):
        side = 1.0 if vwap > level else -1.0
        if side != s_side:
            s_side = side
            return side


def main(path: str, level: float, series: str, columns: bool) -> None:
    source = Source(path=path)
    described = describe(source)

    def graph() -> None:
        if columns:
            price, size = replay.trade_columns(source)
        else:
            trade = replay.trades(source, ["SYN"], described.symbols)["SYN"]
            price, size = trade.price, trade.size
        vwap = one_second_aggregator(price, size).vwap
        csp.add_graph_output("vwap", vwap)
        csp.add_graph_output("signals", csp.count(crosses(vwap, level)), tick_count=1)

    def run() -> Any:
        return csp.run(graph, starttime=described.first, endtime=datetime(2100, 1, 1))

    watch = Stopwatch()
    out = watch.time(run)
    np.save(series, np.array([vwap for _, vwap in out["vwap"]]))
    report(watch, ("csp", "numpy", "pyarrow"), windows=len(out["vwap"]), signals=out["signals"][-1][1])


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[sys.argv.index("--series") + 1], columns="--columns" in sys.argv)
