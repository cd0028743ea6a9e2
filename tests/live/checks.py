"""What must hold of a live run, whatever the exchange did to it.

Three witnesses are compared: what the run recorded, its journal, and what the exchange knows to be true. Nothing here
asks the code that is judged: what is held, which feed is sound and what an order may do are worked out anew.

run = read_run(recording, "ES/USD")
books = read_books(journal, state(url)["accounts"]["account 1"])
assert violations(run, books, tape, limits) == []
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from brokers.journal import Journal, KeptFill, KeptOrder
from brokers.opening import Opening
from brokers.venue_ids import is_ours
from feeds.recording import COLUMN, TIME, blocks, read_manifest, stream_names
from nodes.order_checks import CODES

Row = dict[str, Any]

SECOND = 1_000_000_000  # nanoseconds
_WELL = ("CONNECTED", "RECOVERED")
_BAD = ("STALE", "GAP")
_GONE = ("CANCELLED", "REJECTED", "EXPIRED")
_STATES = {  # of an order: the exchange's word, and ours
    "NEW": "ACCEPTED",
    "PARTIALLY_FILLED": "PARTLY_FILLED",
    "FILLED": "FILLED",
    "CANCELED": "CANCELLED",
    "EXPIRED": "EXPIRED",
    "REJECTED": "REJECTED",
}
_ENDED = ("FILLED", *_GONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run recorded. Rows are in the order of the engine, whose time is their `ns`; all times are nanoseconds,
    enums are names."""

    symbol: str
    source: str = "local exchange"  # the first word of its feeds' names
    cash: Decimal = Decimal(100_000)  # at the start
    held: Decimal = Decimal()  # at the start, base units
    warm_ns: int = 0  # the close of the last bar of history; 0: there was none
    trades: list[Row] = field(default_factory=list)
    status: list[Row] = field(default_factory=list)  # of all feeds
    orders: list[Row] = field(default_factory=list)  # as the strategy wanted them, before the gate
    updates: list[Row] = field(default_factory=list)
    fills: list[Row] = field(default_factory=list)
    alerts: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What the journal and the exchange say of one account. `balances`, `told_orders`, `told_trades` and `client_ids`
    are the exchange's own words."""

    orders: list[KeptOrder]
    fills: list[KeptFill]
    baselines: dict[str, str]
    balances: dict[str, Row]
    told_orders: list[Row]
    told_trades: list[Row]
    client_ids: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the feed was told to notice, and how much later than that a loaded machine may be."""

    stale_after_s: float
    lag_max_s: float
    slack_s: float = 3.0


def violations(run: Run, books: Books, tape: dict[int, Row], limits: Limits) -> list[str]:
    """Everything that is wrong, a sentence each."""
    return [
        *trade_violations(run, tape),
        *status_violations(run, limits),
        *risk_violations(run),
        *order_violations(run, books),
        *fill_violations(run, books),
        *money_violations(run, books),
    ]


# --- what the witnesses say


def read_run(root: Path, symbol: str) -> Run:
    """The streams of a recording."""
    opening = Opening.from_json(read_manifest(root)["opening"])
    held = {position.symbol: Decimal(position.quantity) for position in opening.positions}
    names = [name for name in stream_names(root) if name.endswith("-status")]
    status = [row for name in names for row in rows(root, name)]
    return Run(
        symbol=symbol,
        cash=Decimal(opening.cash),
        held=held.get(symbol, Decimal()),
        warm_ns=max((row["event_time"] for row in rows(root, "inputs/warmup")), default=0),
        trades=list(rows(root, "inputs/crypto0-trades")),
        status=sorted(status, key=lambda row: row["ns"]),
        orders=list(rows(root, "outputs/orders")),
        updates=list(rows(root, "outputs/updates")),
        fills=list(rows(root, "outputs/fills")),
        alerts=list(rows(root, "outputs/alerts")),
    )


def rows(root: Path, stream: str) -> Iterator[Row]:
    """The rows of a stream."""
    for table in blocks(root, stream):
        names = ["ns" if name == COLUMN else name for name in table.column_names]
        columns = [c.cast(pa.int64()) if c.type == TIME else c for c in table.columns]
        yield from pa.table(columns, names=names).to_pylist()


def read_books(journal: Path, account: Row) -> Books:
    """The journal, and one account of the exchange as GET /control/state tells of it."""
    with Journal(journal, create=False) as kept:
        return Books(
            orders=kept.orders(),
            fills=kept.fills(),
            baselines=kept.baselines(),
            balances=account["balances"],
            told_orders=account["orders"],
            told_trades=account["trades"],
            client_ids=account["client_ids"],
        )


# --- every trade once, in order, and as it was


def trade_violations(run: Run, tape: dict[int, Row]) -> list[str]:
    """Trades of the recording against those of the exchange.

    Args:
        tape: `price`, `size` and `event_time` by id, of all trades between the first and the last recorded one, and of
            the one before them.
    """
    found = []
    if not run.trades:
        return ["no trade was recorded"]
    for before, row in zip(run.trades, run.trades[1:], strict=False):
        step = row["trade_id"] - before["trade_id"]
        if step > 1:
            found.append(f"{step - 1} trades are missing after {before['trade_id']}")
        elif step == 0:
            found.append(f"trade {row['trade_id']} came twice")
        elif step < 0:
            found.append(f"trade {row['trade_id']} came after {before['trade_id']}")
    for row in run.trades:
        true = tape.get(row["trade_id"])
        if true is None:
            found.append(f"trade {row['trade_id']} never happened")
        elif any(row[name] != true[name] for name in ("price", "size", "event_time")):
            found.append(f"trade {row['trade_id']} was recorded as {row}, it was {true}")
    first = run.trades[0]
    before = tape.get(first["trade_id"] - 1)
    if run.warm_ns and before is not None and before["event_time"] >= run.warm_ns:
        found.append(f"trades are missing between history and {first['trade_id']}")
    if run.warm_ns and first["event_time"] < run.warm_ns:
        found.append(f"trade {first['trade_id']} is of history, and came again")
    return found


# --- what a person is told of the feeds


class Feeds:
    """Which feeds cannot be relied upon, by what they said last of a symbol, or of all."""

    def __init__(self) -> None:
        self._said: dict[str, dict[str, str]] = {}

    def hear(self, row: Row) -> None:
        if row["state"] == "LAGGING":  # what is late is there
            return
        if not row["symbol"]:
            self._said[row["feed"]] = {}
        self._said.setdefault(row["feed"], {})[row["symbol"]] = row["state"]

    def bad(self, symbol: str) -> list[str]:
        """The feeds that are STALE or have a GAP for a symbol."""
        said = {feed: by.get(symbol, by.get("", "")) for feed, by in self._said.items()}
        return [f"{feed} {state}" for feed, state in said.items() if state in _BAD]


def status_violations(run: Run, limits: Limits) -> list[str]:
    """Every trouble of a feed is told, is alerted, and ends; and no feed is told to be well that is not."""
    found, feeds = [], Feeds()
    alerts = Counter((row["ns"], row["source"], row["symbol"]) for row in run.alerts)
    for row in run.status:
        if not alerts[row["ns"], row["feed"], row["symbol"]]:
            found.append(f"no alert says that {row['feed']} {row['symbol']} is {row['state']}")
        feeds.hear(row)
    found += [f"at the end {what}" for what in feeds.bad(run.symbol)]
    return found + _silent(run, limits) + _late(run, limits)


def _silent(run: Run, limits: Limits) -> list[str]:
    """Times without a trade for which no feed took the blame. The market of these runs is never at rest."""
    found, most_ns = [], round((limits.stale_after_s + limits.slack_s) * SECOND)
    told = [row for row in run.status if row["feed"] == f"{run.source} trades"]
    for before, row in zip(run.trades, run.trades[1:], strict=False):
        if row["ns"] - before["ns"] <= most_ns:
            continue
        known = [status["state"] for status in told if status["ns"] <= before["ns"]][-1:]
        known += [status["state"] for status in told if before["ns"] < status["ns"] <= row["ns"]]
        if not any(state in _BAD for state in known):
            silent_s = (row["ns"] - before["ns"]) / SECOND
            found.append(f"{silent_s:.1f} s without a trade before {row['trade_id']}, and nobody was told")
    return found


def _late(run: Run, limits: Limits) -> list[str]:
    """Trades that came late from a feed that was said to be well, and of which nobody was told."""
    found, most_ns = [], round(limits.lag_max_s * SECOND)
    told = iter([row for row in run.status if row["feed"] == f"{run.source} trades"] + [{"ns": 2**63, "state": ""}])
    state, following = "", next(told)
    for row in run.trades:
        while following["ns"] <= row["ns"]:
            state, following = following["state"], next(told)
        late_ns = row["received"] - row["event_time"]
        if late_ns > most_ns and state in _WELL and following["state"] not in ("LAGGING", *_BAD):
            found.append(f"trade {row['trade_id']} came {late_ns / SECOND:.1f} s late, and the feed was {state}")
    return found


# --- no new risk on what cannot be relied upon


def refused_by_gate(run: Run) -> dict[str, str]:
    """Why, by order id."""
    return {row["order_id"]: row["code"] for row in run.updates if row["state"] == "REJECTED" and row["code"] in CODES}


def risk_violations(run: Run) -> list[str]:
    """Orders that passed the gate and enlarge risk while a feed of their symbol was STALE or had a GAP; and fills of
    reduce-only orders, which pass then, that did not reduce."""
    refused, feeds, held, flying = refused_by_gate(run), Feeds(), run.held, dict[str, Decimal]()
    closing = {row["order_id"] for row in run.orders if row["reduce_only"]}
    found = []
    streams = (run.status, run.fills, run.updates, run.orders)  # in which order one cycle of the gate hears them
    events = [(row["ns"], kind, row) for kind, stream in enumerate(streams) for row in stream]
    for _, kind, row in sorted(events, key=lambda event: event[:2]):
        if kind == 0:
            feeds.hear(row)
        elif row["symbol"] != run.symbol:
            continue
        elif kind == 1:
            moved, key = _sign(row) * _exact(row["quantity"]), row["order_id"]
            if key in closing and abs(held + moved) > abs(held):
                found.append(f"{key} is reduce-only and brought {moved:f} to {held:f} held")
            held += _moved(row)
            if key in flying:
                flying[key] -= moved
        elif kind == 2 and row["state"] in _GONE:
            flying.pop(row["order_id"], None)
        elif kind == 3 and row["order_id"] not in refused:
            quantity = _sign(row) * _exact(row["quantity"])
            bad = feeds.bad(run.symbol)
            if bad and not row["reduce_only"] and _enlarges(held, quantity, flying.values()):
                found.append(f"{row['order_id']}, {quantity:f}, passed with {held:f} held while {', '.join(bad)}")
            flying[row["order_id"]] = quantity
    return found


def _enlarges(held: Decimal, quantity: Decimal, flying: Iterable[Decimal]) -> bool:
    """Whether an order could enlarge or turn what is held, if it and all others of its side filled first."""
    if held * quantity >= 0:
        return True
    same = sum((other for other in flying if other * quantity > 0), Decimal())
    return abs(quantity + same) > abs(held)


# --- no order lost or doubled


def order_violations(run: Run, books: Books) -> list[str]:
    """Orders of the recording, of the journal and of the exchange are the same."""
    found = [f"client id {key} was used {n} times" for key, n in books.client_ids.items() if n != 1]
    told = {row["clientOrderId"]: row for row in books.told_orders if is_ours(row["clientOrderId"])}
    kept = {order.client_id: order for order in books.orders}
    found += [f"{key} is at the exchange and not in the journal" for key in told.keys() - kept.keys()]
    for key, order in kept.items():
        row = told.get(key)
        if row is not None:
            found += _unlike(order, row)
        elif order.state != "REJECTED":
            found.append(f"{key} is {order.state} in the journal, and the exchange does not know it")
        if not order.ended:
            found.append(f"{key} still works: {order.state}")
    return found + _unrecorded(run, books)


def _unlike(order: KeptOrder, row: Row) -> list[str]:
    """In what an order of the journal differs from the exchange's."""
    ours = (order.state, order.side, Decimal(order.quantity), Decimal(order.filled))
    theirs = (_STATES[row["status"]], row["side"], Decimal(row["origQty"]), Decimal(row["executedQty"]))
    found = [] if ours == theirs else [f"{order.client_id} is {ours} in the journal and {theirs} at the exchange"]
    if Decimal(order.booked) != Decimal(order.filled):
        found.append(f"{order.client_id} has filled {order.filled}, booked are {order.booked}")
    return found


def _unrecorded(run: Run, books: Books) -> list[str]:
    """In what the recording differs from the journal."""
    wanted = Counter(row["order_id"] for row in run.orders)
    last = {row["order_id"]: row["state"] for row in run.updates}
    kept = {order.order_id: order for order in books.orders}
    found = [f"order id {key} was wanted {n} times" for key, n in wanted.items() if n > 1]
    found += [f"{key} is in the journal and was not recorded" for key in kept.keys() - wanted.keys()]
    for key in wanted:
        if last.get(key) not in _ENDED:
            found.append(f"{key} was wanted, and nobody told how it ended: {last.get(key)}")
        elif key in kept and kept[key].state != last[key]:
            found.append(f"{key} was told to be {last[key]}, the journal says {kept[key].state}")
        elif key not in kept and last[key] != "REJECTED":
            found.append(f"{key} was told to be {last[key]}, and is not in the journal")
    return found


# --- each fill once, and the money that follows


def fill_violations(run: Run, books: Books) -> list[str]:
    """Executions of the recording, of the journal and of the exchange are the same, each once."""
    base = run.symbol.split("/")[0]
    clients = {order.order_id: order.client_id for order in books.orders}
    names = {row["orderId"]: row["clientOrderId"] for row in books.told_orders}
    told = Counter(
        (
            str(row["id"]),
            names.get(row["orderId"], ""),
            "BUY" if row["isBuyer"] else "SELL",
            *(Decimal(row[name]) for name in ("qty", "price")),
            Decimal() if row["commissionAsset"] == base else Decimal(row["commission"]),
            Decimal(row["commission"]) if row["commissionAsset"] == base else Decimal(),
        )
        for row in books.told_trades
    )
    kept = Counter((fill.trade_id, fill.client_id, *_terms(fill)) for fill in books.fills)
    found = _differences(told, kept, "at the exchange", "in the journal")
    written = Counter((fill.client_id, *_terms(fill)) for fill in books.fills)
    heard = Counter(
        (
            clients.get(row["order_id"], ""),
            row["side"],
            *(_exact(row[name]) for name in ("quantity", "price", "fee", "base_fee")),
        )
        for row in run.fills
    )
    return found + _differences(written, heard, "in the journal", "in the recording")


def _terms(fill: KeptFill) -> tuple[str, Decimal, Decimal, Decimal, Decimal]:
    return (fill.side, *(Decimal(text) for text in (fill.quantity, fill.price, fill.fee, fill.base_fee)))


def _differences(left: Counter[Any], right: Counter[Any], there: str, here: str) -> list[str]:
    found = [f"fill {key} is {n} times more {there} than {here}" for key, n in (left - right).items()]
    return found + [f"fill {key} is {n} times more {here} than {there}" for key, n in (right - left).items()]


def money_violations(run: Run, books: Books) -> list[str]:
    """What the recorded fills make of position and cash is what the exchange holds for us."""
    base, quote = run.symbol.split("/")
    cash = run.cash + sum((_paid(row) for row in run.fills), Decimal())
    held = run.held + sum((_moved(row) for row in run.fills), Decimal())
    found = []
    for asset, ours in ((base, held), (quote, cash)):
        balance = books.balances[asset]
        theirs = Decimal(balance["free"]) + Decimal(balance["locked"]) - Decimal(books.baselines.get(asset, "0"))
        if ours != theirs:
            found.append(f"{ours:f} {asset} by the fills, {theirs:f} at the exchange")
        if Decimal(balance["locked"]):
            found.append(f"{balance['locked']} {asset} are locked, and no order works")
    return found


def _exact(value: float) -> Decimal:
    """The decimal that a float was read from."""
    return Decimal(repr(value))


def _sign(row: Row) -> int:
    return 1 if row["side"] == "BUY" else -1


def _moved(fill: Row) -> Decimal:
    """Base units that a fill brings."""
    return _sign(fill) * _exact(fill["quantity"]) - _exact(fill["base_fee"])


def _paid(fill: Row) -> Decimal:
    """Quote currency that a fill brings."""
    return -_sign(fill) * _exact(fill["quantity"]) * _exact(fill["price"]) - _exact(fill["fee"])
