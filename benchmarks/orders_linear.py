"""Does an order cost the same however many there are? Orders through gate, simulated venue, ledger and risk monitor.

Two forms, each with 25,000 to 200,000 orders:

    filled    market orders, bought and sold in turn; each fills at the next bar
    resting   limit orders far from the market; each is cancelled when half of all orders have come after it, so that
              at the peak half of them rest at once

Twice the orders must take at most 2.2 times the CPU.

    python benchmarks/orders_linear.py [--runs 2] [--orders 25000 50000 100000 200000]
"""

import argparse
import gc
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import csp
import matplotlib as mpl
import numpy as np
from csp import ts
from matplotlib import pyplot as plt

from brokers.costs import FillModel
from brokers.events import Answers, CancelRequest, OrderRequest, OrderState, OrderType, OrderUpdate
from brokers.paper import Market, PaperConfig, paper_venue
from feeds import replay
from feeds.events import Bar, Side
from feeds.files import Source, describe
from feeds.instruments import Instrument
from feeds.synthetic import SyntheticConfig, write
from graphs.account import Account
from graphs.config import StrategyConfig, TradingConfig
from graphs.edges import Feeds
from nodes.risk import RiskConfig

A_BAR = 10  # orders sent at a bar
SYMBOL = "SYN"
INSTRUMENT = Instrument(symbol=SYMBOL, tick="0.01", lot="1", maker_bps=2.0, taker_bps=10.0)
CASH = 1e9
RATIO_MAX = 2.2
# Every limit that an order is asked about, with room for half of all orders at once.
RISK = RiskConfig(
    drawdown_max=0.9,
    gross_exposure_max=100.0,
    net_exposure_max=100.0,
    position_notional_max=1e12,
    order_notional_max=1e6,
    order_lots_max=1_000,
    price_collar=0.99,
    quote_age_max_s=3_600.0,
    orders_per_second_max=1_000,
    var_max=None,  # of the market, not of the orders
)
RESULTS = Path(__file__).parent / "results"

_BUY, _SELL = Side.BUY, Side.SELL
_MARKET, _LIMIT = OrderType.MARKET, OrderType.LIMIT
_CANCELLED = OrderState.CANCELLED


@csp.node
def order_flow(bar: ts[Bar], count: int, rests: bool) -> csp.Outputs(
    order=ts[list[OrderRequest]], cancel=ts[list[CancelRequest]]
):
    """`count` orders, so many a bar; where they rest, each is taken back when half of `count` have come after it."""
    with csp.state():
        s_bars = 0

    if csp.ticked(bar):
        first, late = s_bars * A_BAR, s_bars * A_BAR - count // 2  # late: whose turn it is to be taken back
        s_bars += 1
        orders = []
        for number in range(first, min(first + A_BAR, count)):
            buys = number % 2 == 0
            # A hundred price levels on each side, half and twice the price away.
            level = (0.5 if buys else 2.0) * bar.close + (number // 2 % 100) * 0.01
            orders.append(
                OrderRequest(
                    order_id=f"flow-{number + 1}",
                    symbol=bar.symbol,
                    side=_BUY if buys else _SELL,
                    order_type=_LIMIT if rests else _MARKET,
                    quantity=1.0,
                    limit_price=round(level, 2) if rests else 0.0,
                )
            )
        if orders:
            csp.output(order=orders)
        if rests:
            cancels = [
                CancelRequest(order_id=f"flow-{number + 1}", symbol=bar.symbol)
                for number in range(max(late, 0), min(late + A_BAR, count))
            ]
            if cancels:
                csp.output(cancel=cancels)


@csp.node
def count_cancelled(update: ts[OrderUpdate]) -> ts[int]:
    with csp.state():
        s_count = 0

    if csp.ticked(update) and update.state is _CANCELLED:
        s_count += 1
        return s_count


@dataclass(frozen=True, slots=True)
class Run:
    cpu_s: float
    ended: int  # orders filled or cancelled


@dataclass(slots=True)
class Form:
    name: str
    rests: bool
    cpu_s: dict[int, float] = field(default_factory=dict)  # best, by orders

    def take(self, orders: int, run: Run) -> None:
        if run.ended != orders:
            raise SystemExit(f"want {orders} orders {self.name} to the end, were {run.ended}")
        self.cpu_s[orders] = min(run.cpu_s, self.cpu_s.get(orders, run.cpu_s))

    def fit(self) -> tuple[float, float]:
        """(seconds an order, seconds at the start) of the straight line through all points."""
        slope, start = np.polyfit(list(self.cpu_s), list(self.cpu_s.values()), 1)
        return float(slope), float(start)


def one_run(path: Path, count: int, rests: bool) -> Run:
    """Send `count` orders over the bars of `path`."""
    source = Source(path=str(path))
    described = describe(source)
    config = TradingConfig(
        instruments=(INSTRUMENT,), strategies=(StrategyConfig(name="flow"),), initial_cash=CASH, risk=RISK
    )

    def graph() -> None:
        bars = replay.bars(source, [SYMBOL], described.symbols)
        account = Account(Feeds(bars=bars, bar_lengths={SYMBOL: timedelta(minutes=1)}), config)
        flow = order_flow(bars[SYMBOL], count, rests)

        def venue(order: ts[OrderRequest], cancel: ts[CancelRequest]) -> Answers:
            paper = PaperConfig(fills=FillModel(slippage_bps=0.0))
            return paper_venue(order, cancel, Market(bars=bars), (INSTRUMENT,), paper)

        streams = account.trade(csp.unroll(flow.order), csp.unroll(flow.cancel), venue)
        csp.add_graph_output("equity", streams.equity, tick_count=1)
        csp.add_graph_output("fills", csp.count(streams.fills), tick_count=1)
        csp.add_graph_output("cancelled", count_cancelled(streams.updates), tick_count=1)

    gc.collect()
    began = time.process_time()
    out = csp.run(graph, starttime=described.first, endtime=described.last + timedelta(seconds=1))
    cpu_s = time.process_time() - began
    ended = out["cancelled" if rests else "fills"]
    return Run(cpu_s, ended[-1][1] if ended else 0)


def measure(counts: Sequence[int], runs: int) -> list[Form]:
    """Every form with every count, in turn, `runs` times over."""
    forms = [Form("filled", rests=False), Form("resting", rests=True)]
    with tempfile.TemporaryDirectory() as name:
        paths = {}
        for count in counts:
            paths[count] = Path(name) / f"{count}.parquet"
            rows = (count + count // 2) // A_BAR + 10  # resting orders are taken back after the last was sent
            write(SyntheticConfig(seed=1, rows=rows, symbol=SYMBOL, volatility_year=0.2), paths[count])
        for _ in range(runs):
            for count in counts:
                for form in forms:
                    form.take(count, one_run(paths[count], count, form.rests))
                    print(f"{form.name} {count:,}: {form.cpu_s[count]:.2f} s", flush=True)
    return forms


def ratio(form: Form) -> float:
    """CPU of the largest count over that of half of it."""
    most = max(form.cpu_s)
    return form.cpu_s[most] / form.cpu_s[most // 2]


def draw(forms: list[Form], path: Path) -> None:
    """CPU against orders, with the straight lines."""
    mpl.use("Agg")
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for form, colour in zip(forms, ("#1f6f8b", "#c0562f"), strict=True):
        counts = np.array(sorted(form.cpu_s))
        slope, start = form.fit()
        axes.plot(counts, [form.cpu_s[count] for count in counts], "o", color=colour)
        label = f"{form.name}: {slope * 1e6:.0f} µs an order"
        axes.plot([0, counts[-1]], [start, start + slope * counts[-1]], color=colour, label=label)
    axes.set(xlabel="orders", ylabel="CPU seconds of the run", xlim=(0, None), ylim=(0, None))
    axes.set_title("Orders through gate, venue and ledger: CPU against their number", loc="left")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def table(forms: list[Form], arguments: argparse.Namespace, picture: str) -> str:
    counts = sorted(forms[0].cpu_s)
    packages = ", ".join(f"{name} {version(name)}" for name in ("csp", "numpy", "pyarrow"))
    lines = [
        "# CPU against the number of orders",
        "",
        f"`python benchmarks/orders_linear.py --runs {arguments.runs}`, {datetime.now(UTC):%Y-%m-%d},",
        f"{os.cpu_count()} cores ({platform.machine()}), no GPU, Python {platform.python_version()}, {packages}.",
        f"CPU seconds of `csp.run`, best of the runs, {A_BAR} orders a bar: feed, gate, venue, ledger, risk monitor.",
        "*filled*: market orders, each filled at the next bar. *resting*: limits far from the market, each cancelled",
        "when half of all orders have come after it; half of them rest at once.",
        "",
        "| orders | " + " | ".join(form.name for form in forms) + " |",
        "|---" * (len(forms) + 1) + "|",
        *(f"| {count:,} | " + " | ".join(f"{form.cpu_s[count]:.2f}" for form in forms) + " |" for count in counts),
        f"| {counts[-1]:,} over half of it | " + " | ".join(f"{ratio(form):.2f}" for form in forms) + " |",
        "| µs an order, fitted | " + " | ".join(f"{form.fit()[0] * 1e6:.0f}" for form in forms) + " |",
        "",
        f"At most {RATIO_MAX} is wanted for twice the orders.",
        "",
        f"![CPU against orders]({picture})",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--orders", type=int, nargs="+", default=[25_000, 50_000, 100_000, 200_000])
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "orders_linear.md")
    arguments = parser.parse_args()
    counts = sorted(arguments.orders)
    if counts[-1] // 2 not in counts:
        parser.error(f"want the half of {counts[-1]} among the orders, were {counts}")
    forms = measure(counts, arguments.runs)
    arguments.out.parent.mkdir(exist_ok=True)
    picture = arguments.out.with_suffix(".png")
    draw(forms, picture)
    text = table(forms, arguments, picture.name)
    arguments.out.write_text(text)
    print(text)
    slow = [form.name for form in forms if ratio(form) > RATIO_MAX]
    if slow:
        raise SystemExit(f"want at most {RATIO_MAX} times the CPU for twice the orders, was more: {', '.join(slow)}")


if __name__ == "__main__":
    main()
