"""Accounts of the exchange: balances, orders and trades in whole atoms of 1e-8. Nothing is made or lost but fees.

An order locks what it may cost: a buyer's limit its worth at that price, a market order what the depth wants for it, a
stop its worth at the stop, a sale what it sells. Fees are taken out of what is received.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count

from brokers.local_exchange.amounts import ATOMS, exact, text
from brokers.local_exchange.config import ExchangeConfig
from brokers.local_exchange.desk import Desk
from brokers.local_exchange.errors import ApiError, insufficient_balance, no_such_order, unknown_order, unknown_symbol
from brokers.local_exchange.market import Market
from brokers.local_exchange.orders import AccountOrder, AccountTrade, Json, trade_row
from brokers.local_exchange.rules import Terms, Ticket

_TEN_S_MS, _DAY_MS = 10_000, 86_400_000

Listener = Callable[[Json], None]  # is given each event of an account, at once


@dataclass(slots=True)
class Balance:
    """One asset, atoms."""

    free: int = 0
    locked: int = 0


class Account:
    """One account. Every method is told the exchange's time in ms.

    Args:
        name: of it, for people; not its key.
    """

    def __init__(
        self, name: str, terms: Mapping[str, Terms], market: Mapping[str, Market], balances: Mapping[str, int]
    ) -> None:
        self.name = name
        self.balances = {asset: Balance() for term in terms.values() for asset in (term.base, term.quote)}
        for asset, amount in balances.items():
            self.balances[asset] = Balance(amount)
        self.updated_ms = 0
        self.client_ids_seen: Counter[str] = Counter()  # of all orders that came, refused ones too
        self.listeners: dict[object, Listener] = {}  # by any key of their own
        self._terms = terms
        self._desks = {symbol: Desk(term, market[symbol], self) for symbol, term in terms.items()}
        self._orders: dict[str, dict[int, AccountOrder]] = {symbol: {} for symbol in terms}
        self._last_id = dict.fromkeys(terms, 0)
        self._by_client: dict[tuple[str, str], AccountOrder] = {}  # the last one of that id
        self._open: dict[tuple[str, int], AccountOrder] = {}
        self._trades: dict[str, list[tuple[AccountOrder, AccountTrade]]] = {symbol: [] for symbol in terms}
        self._event_ids = count(1)
        self._counted = {_TEN_S_MS: (0, 0), _DAY_MS: (0, 0)}  # orders: (which window, how many), by its length
        self._changed: dict[str, None] = {}  # assets, since the last event that told of them

    # --- questions

    def terms(self, symbol: str) -> Terms:
        """Raises ApiError where the exchange does not list `symbol`."""
        terms = self._terms.get(symbol)
        if terms is None:
            raise unknown_symbol()
        return terms

    def order(self, symbol: str, order_id: int | None, client_id: str) -> AccountOrder:
        """An order by its id, or the last one named `client_id` by its sender. Raises ApiError where it is unknown."""
        order = self._find(symbol, order_id, client_id)
        if order is None:
            raise no_such_order()
        return order

    def orders(self, symbol: str) -> list[AccountOrder]:
        """All of a symbol, the oldest first."""
        return list(self._orders[symbol].values())

    def open_orders(self, symbol: str | None = None) -> list[AccountOrder]:
        """Those that work, of one symbol or of all, the oldest first."""
        return [order for order in self._open.values() if symbol in (None, order.terms.symbol)]

    def trades(self, symbol: str) -> list[tuple[AccountOrder, AccountTrade]]:
        """All of a symbol with their orders, the oldest first."""
        return self._trades[symbol]

    # --- orders

    def count_order(self, now_ms: int, most_10s: int, most_day: int) -> None:
        """Count one more order. Raises ApiError where there were as many as there may be."""
        in_10s, in_day = self.order_counts(now_ms)
        for count_, most, span_ms, words in (
            (in_10s, most_10s, _TEN_S_MS, "10 SECOND"),
            (in_day, most_day, _DAY_MS, "1 DAY"),
        ):
            if count_ >= most:
                message = f"Too many new orders; current limit is {most} orders per {words}."
                raise ApiError(-1015, message, 429, -(-(span_ms - now_ms % span_ms) // 1000))
        self._counted = {_TEN_S_MS: (now_ms // _TEN_S_MS, in_10s + 1), _DAY_MS: (now_ms // _DAY_MS, in_day + 1)}

    def order_counts(self, now_ms: int) -> tuple[int, int]:
        """How many orders came in these ten seconds, and on this day."""
        in_10s, in_day = (
            counted if window == now_ms // span_ms else 0 for span_ms, (window, counted) in self._counted.items()
        )
        return in_10s, in_day

    def heard(self, client_id: str) -> None:
        """Count an order that came under an id of the client's making, whatever becomes of it."""
        if client_id:
            self.client_ids_seen[client_id] += 1

    def test(self, symbol: str, ticket: Ticket, now_ms: int) -> None:
        """Raises ApiError where an order would be refused."""
        self._desks[symbol].refresh(now_ms)
        self._tell_balances(now_ms)
        self._price_up(symbol, ticket)

    def place(self, symbol: str, ticket: Ticket, now_ms: int) -> AccountOrder:
        """Take an order and match it.

        Raises:
            ApiError: it is refused, and nothing has happened.
        """
        self._desks[symbol].refresh(now_ms)
        self._tell_balances(now_ms)
        quantity, lock = self._price_up(symbol, ticket)
        order = self._new_order(symbol, ticket, quantity, now_ms)
        if not ticket.stop:
            order.working_ms = now_ms
        self._lock(order, lock)
        self._orders[symbol][order.order_id] = order
        self._by_client[symbol, order.client_id] = order
        self._open[symbol, order.order_id] = order
        self._report(order, "NEW", now_ms)
        self._desks[symbol].enter(order, now_ms)
        self._tell_balances(now_ms)
        return order

    def refuse(self, symbol: str, ticket: Ticket, reason: str, now_ms: int) -> None:
        """Tell of an order that was never taken: where the cancel that it should have followed was carried out."""
        order = self._new_order(symbol, ticket, ticket.quantity, now_ms)
        order.status = "REJECTED"
        self._report(order, "REJECTED", now_ms, reject_reason=reason)

    def cancel(self, order: AccountOrder, now_ms: int, cancel_id: str = "") -> Json:
        """End a working order; return the answer to who cancelled it. Raises ApiError where it does not work."""
        if not order.is_open:
            raise unknown_order()
        self._desks[order.terms.symbol].remove(order, now_ms)
        cancel_id = cancel_id or f"cancel-{order.terms.symbol}-{order.order_id}"
        self._end(order, "CANCELED", now_ms, cancel_id)
        self._tell_balances(now_ms)
        return order.cancelled(cancel_id)

    def cancellable(self, symbol: str, order_id: int | None, client_id: str) -> AccountOrder:
        """The working order that a cancel means. Raises ApiError where there is none."""
        order = self._find(symbol, order_id, client_id)
        if order is None or not order.is_open:
            raise unknown_order()
        return order

    # --- the market

    def on_trade(self, symbol: str, price: int, size: int, now_ms: int) -> None:
        self._desks[symbol].on_trade(price, size, now_ms)
        if self._changed:
            self._tell_balances(now_ms)

    def on_quote(self, symbol: str, bid: int, ask: int, now_ms: int) -> None:
        self._desks[symbol].on_quote(bid, ask, now_ms)
        if self._changed:
            self._tell_balances(now_ms)

    # --- what a desk tells

    def triggered(self, order: AccountOrder, cost: int, now_ms: int) -> bool:
        """See `desk.Bookkeeper`."""
        if order.buys and not order.ticket.price:
            self._unlock(order, order.locked)
            if self.balances[order.pays_with].free < cost:
                self._end(order, "EXPIRED", now_ms)
                return False
            self._lock(order, cost)
        self._report(order, "NEW", now_ms)
        return True

    def filled(self, order: AccountOrder, price: int, quantity: int, fee: int, maker: bool, now_ms: int) -> None:
        """See `desk.Bookkeeper`."""
        worth = price * quantity // ATOMS
        base, quote = self.balances[order.terms.base], self.balances[order.terms.quote]
        if order.buys:
            limit = order.ticket.price
            self._unlock(order, limit * quantity // ATOMS if limit else worth)
            quote.free -= worth
            base.free += quantity - fee
        else:
            self._unlock(order, quantity)
            base.free -= quantity
            quote.free += worth - fee
        self._changed |= {order.terms.base: None, order.terms.quote: None}
        order.filled += quantity
        order.quote_filled += worth
        order.status = "FILLED" if order.filled == order.quantity else "PARTIALLY_FILLED"
        order.updated_ms = now_ms = max(now_ms, order.updated_ms)  # a trade may be told a moment after its time
        symbol = order.terms.symbol
        trade = AccountTrade(
            trade_id=len(self._trades[symbol]) + 1,
            order_id=order.order_id,
            price=price,
            quantity=quantity,
            fee=fee,
            fee_asset=order.terms.base if order.buys else order.terms.quote,
            time_ms=now_ms,
            buyer=order.buys,
            maker=maker,
        )
        order.trades.append(trade)
        self._trades[symbol].append((order, trade))
        if order.status == "FILLED":
            self._unlock(order, order.locked)
            del self._open[symbol, order.order_id]
        self._report(order, "TRADE", now_ms, trade)

    def expired(self, order: AccountOrder, now_ms: int) -> None:
        """See `desk.Bookkeeper`."""
        self._end(order, "EXPIRED", now_ms)

    # --- inside

    def _find(self, symbol: str, order_id: int | None, client_id: str) -> AccountOrder | None:
        if order_id is not None:
            order = self._orders[symbol].get(order_id)
            return None if order is not None and client_id and order.client_id != client_id else order
        return self._by_client.get((symbol, client_id))

    def _price_up(self, symbol: str, ticket: Ticket) -> tuple[int, int]:
        """How much a new order is for, and what it locks. Raises ApiError where it is refused."""
        terms, desk = self._terms[symbol], self._desks[symbol]
        known = self._by_client.get((symbol, ticket.client_id))
        if known is not None and known.is_open:
            raise ApiError(-2010, "Duplicate order sent.")
        if desk.triggers_now(ticket):
            raise ApiError(-2010, "Stop price would trigger immediately.")
        if ticket.kind == "LIMIT_MAKER" and desk.crosses(ticket):
            raise ApiError(-2010, "Order would immediately match and take.")
        quantity = ticket.quantity or desk.quantity_for(ticket.buys, ticket.quote_quantity)
        if not ticket.price:
            terms.check_quantity(quantity, market=True)
            terms.check_worth(ticket.stop or desk.last_price, quantity)
        if not ticket.buys:
            lock, asset = quantity, terms.base
        else:
            price = ticket.price or ticket.stop
            lock, asset = price * quantity // ATOMS if price else desk.cost(True, quantity), terms.quote
        if lock > self.balances[asset].free:
            raise insufficient_balance()
        return quantity, lock

    def _new_order(self, symbol: str, ticket: Ticket, quantity: int, now_ms: int) -> AccountOrder:
        self._last_id[symbol] = order_id = self._last_id[symbol] + 1
        return AccountOrder(
            terms=self._terms[symbol],
            ticket=ticket,
            order_id=order_id,
            client_id=ticket.client_id or f"local-{symbol}-{order_id}",
            created_ms=now_ms,
            updated_ms=now_ms,
            quantity=quantity,
        )

    def _lock(self, order: AccountOrder, amount: int) -> None:
        balance = self.balances[order.pays_with]
        balance.free -= amount
        balance.locked += amount
        order.locked += amount
        self._changed[order.pays_with] = None

    def _unlock(self, order: AccountOrder, amount: int) -> None:
        self._lock(order, -amount)

    def _end(self, order: AccountOrder, status: str, now_ms: int, cancel_id: str = "") -> None:
        order.status, order.updated_ms = status, max(now_ms, order.updated_ms)
        self._unlock(order, order.locked)
        del self._open[order.terms.symbol, order.order_id]
        self._report(order, status, now_ms, cancel_id=cancel_id)

    def _report(
        self,
        order: AccountOrder,
        what: str,
        now_ms: int,
        trade: AccountTrade | None = None,
        cancel_id: str = "",
        reject_reason: str = "NONE",
    ) -> None:
        self.updated_ms = now_ms
        event_id = next(self._event_ids)
        if self.listeners:
            self._send(order.report(what, now_ms, trade, cancel_id, reject_reason, event_id))

    def _tell_balances(self, now_ms: int) -> None:
        if not self._changed:
            return
        changed, self._changed = list(self._changed), {}
        if self.listeners:
            rows = [
                {"a": asset, "f": text(balance.free), "l": text(balance.locked)}
                for asset, balance in ((asset, self.balances[asset]) for asset in changed)
            ]
            self._send({"e": "outboundAccountPosition", "E": now_ms, "u": self.updated_ms, "B": rows})

    def _send(self, event: Json) -> None:
        for listener in list(self.listeners.values()):
            listener(event)


class Accounts:
    """All accounts, by their keys, and the market that they share.

    Args:
        config: the symbols, fees and first balances.
        market: by the exchange's names of the symbols, such as BTCUSDT.
        keys: the secret of each key; each has an account of its own, "account 1" and so on.

    Raises:
        ValueError: a symbol whose money cannot add up.
    """

    def __init__(self, config: ExchangeConfig, market: Mapping[str, Market], keys: Mapping[str, str]) -> None:
        self.terms = {listing.id: Terms(listing, config.maker_bps, config.taker_bps) for listing in config.listings}
        balances = {asset: exact(amount) for asset, _, amount in (b.partition("=") for b in config.balances)}
        self._by_key = {
            key: Account(f"account {number}", self.terms, market, balances) for number, key in enumerate(keys, 1)
        }
        self._secrets = dict(keys)

    def of(self, key: str) -> tuple[Account, str] | None:
        """The account of a key, and its secret."""
        account = self._by_key.get(key)
        return None if account is None else (account, self._secrets[key])

    @property
    def all(self) -> list[Account]:
        return list(self._by_key.values())

    @property
    def client_ids_seen(self) -> Counter[str]:
        """How many orders came under each id that a client has made, refused ones too; test orders do not count."""
        return sum((account.client_ids_seen for account in self.all), Counter())

    def on_trade(self, symbol: str, price: int, size: int, now_ms: int) -> None:
        """One trade of the market, atoms: what waits for it is matched, and the accounts' listeners are told."""
        for account in self._by_key.values():
            account.on_trade(symbol, price, size, now_ms)

    def on_quote(self, symbol: str, bid: int, bid_size: int, ask: int, ask_size: int, now_ms: int) -> None:
        """The best bid and ask have moved, atoms; the market already shows the depth around them."""
        for account in self._by_key.values():
            account.on_quote(symbol, bid, ask, now_ms)

    def state(self) -> Json:
        """Balances, orders and trades of all accounts by name, as the exchange knows them."""
        return {
            account.name: {
                "balances": {
                    asset: {"free": text(balance.free), "locked": text(balance.locked)}
                    for asset, balance in account.balances.items()
                },
                "orders": [order.state() for symbol in self.terms for order in account.orders(symbol)],
                "trades": [trade_row(*row) for symbol in self.terms for row in account.trades(symbol)],
                "client_ids": dict(account.client_ids_seen),
            }
            for account in self._by_key.values()
        }
