"""Print what a journal holds: python -m brokers.show JOURNAL"""

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from brokers.journal import Journal, JournalError, KeptFill, KeptOrder
from brokers.opening import plain

_DONE, _BAD_USAGE = 0, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Print it, also while a run has the account. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        with Journal(options.journal, create=False) as journal:
            for line in _told(journal, options.journal, options.newest):
                print(line)
    except JournalError as exc:
        print(f"show: {exc}", file=sys.stderr)
        return _BAD_USAGE
    return _DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m brokers.show",
        description="Print what the journal of an account holds: its runs, what works, the newest orders and fills,"
        " positions, what was left alone, what risk measures from, and halts.",
        epilog="Exit codes: 0 printed; 2 bad usage, or no such journal.",
    )
    parser.add_argument("journal", metavar="JOURNAL", help="the journal file of the account")
    parser.add_argument(
        "--newest", metavar="N", type=_count, default=10, help="how many runs, ended orders and fills (default: 10)"
    )
    return parser


def _told(journal: Journal, path: str, newest: int) -> Iterator[str]:
    yield from _runs(journal, newest)
    yield from _halts(journal, path)
    working = journal.open_orders()
    yield f"orders that have not ended: {len(working) or 'none'}"
    yield from (f"  {_order(order)}" for order in working)
    ended = [order for order in journal.orders(newest) if order.ended]
    if ended:
        yield "of the newest orders, ended:"
        yield from (f"  {_order(order)}" for order in ended)
    fills = journal.fills()
    yield f"fills: {len(fills) or 'none'}"
    yield from (f"  {_fill(fill)}" for fill in fills[-newest:])
    yield from _listed("positions", {symbol: plain(held) for symbol, held in journal.positions().items() if held})
    yield from _listed("held beside them, not traded with", journal.baselines())
    risk = journal.risk()
    if risk.day:
        yield f"equity peak {risk.equity_peak:,.2f}; the day {risk.day} began with {risk.day_start:,.2f}"


def _runs(journal: Journal, newest: int) -> Iterator[str]:
    runs = journal.runs()
    yield f"runs: {len(runs) or 'none'}"
    for run in runs[-newest:]:
        end = f"{_time(run.ended)} {run.outcome}" if run.ended else "not ended: it runs, or was killed"
        yield f"  {run.run_id}  {run.life}  {_time(run.begun)} to {end}"


def _halts(journal: Journal, path: str) -> Iterator[str]:
    halt = journal.open_halt()
    if halt is None:
        yield f"halts: none open, {len(journal.history())} in all"
    else:
        yield f"HALTED since {_time(halt.engine_time)}: {halt.message}"
        yield f"  to re-arm it: python -m brokers.reset {shlex.quote(path)}"


def _order(order: KeptOrder) -> str:
    price = "".join(
        f" {name} {value}" for name, value in (("limit", order.limit_price), ("stop", order.stop_price)) if value != "0"
    )
    code = f" ({order.code})" if order.code else ""
    return (
        f"{_venue_time(order.sent_ns)}  {order.order_id}  {order.side} {order.quantity} {order.symbol}"
        f" {order.order_type}{price} {order.time_in_force}  {order.state}{code}, filled {order.booked}"
    )


def _fill(fill: KeptFill) -> str:
    fee = f"fee {fill.fee}" if fill.base_fee == "0" else f"fee {fill.base_fee} of what was bought"
    return (
        f"{_venue_time(fill.time_ns)}  {fill.order_id}  {fill.side} {fill.quantity} {fill.symbol} at {fill.price},"
        f" {fee}, trade {fill.trade_id}"
    )


def _listed(name: str, amounts: dict[str, str]) -> Iterator[str]:
    yield f"{name}: {', '.join(f'{amount} {key}' for key, amount in amounts.items()) or 'none'}"


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"


def _venue_time(time_ns: int) -> str:
    return _time(datetime.fromtimestamp(time_ns // 10**9, UTC))


def _count(text: str) -> int:
    count = int(text) if text.isascii() and text.isdigit() else 0
    if not 0 < count <= 10**9:
        raise argparse.ArgumentTypeError(f"want a whole number from 1, was {text!r}")
    return count


if __name__ == "__main__":
    sys.exit(main())
