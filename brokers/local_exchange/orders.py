"""The orders and trades of an account as the exchange keeps them, and every form in which it tells of them.

Source: Binance spot API, "Trading endpoints", "Account endpoints" and "User data streams".
"""

from dataclasses import dataclass, field

from brokers.local_exchange.amounts import ATOMS, text
from brokers.local_exchange.rules import Terms, Ticket

Json = dict[str, object]


@dataclass(slots=True, kw_only=True)
class AccountTrade:
    """One execution. Amounts in atoms of 1e-8, time in ms."""

    trade_id: int  # from 1, a symbol
    order_id: int
    price: int
    quantity: int
    fee: int
    fee_asset: str
    time_ms: int
    buyer: bool
    maker: bool

    @property
    def worth(self) -> int:
        """In the quote currency."""
        return self.price * self.quantity // ATOMS


@dataclass(slots=True, kw_only=True)
class AccountOrder:
    """One order from its acceptance on. Amounts in atoms of 1e-8, times in ms."""

    terms: Terms
    ticket: Ticket
    order_id: int  # from 1, a symbol
    client_id: str
    created_ms: int
    updated_ms: int
    quantity: int
    status: str = "NEW"
    working_ms: int = -1  # since when it is in the book; -1 for a stop that waits
    filled: int = 0
    quote_filled: int = 0
    locked: int = 0  # of the asset that it pays with
    trades: list[AccountTrade] = field(default_factory=list)

    @property
    def buys(self) -> bool:
        return self.ticket.buys

    @property
    def pays_with(self) -> str:
        return self.terms.quote if self.buys else self.terms.base

    @property
    def is_open(self) -> bool:
        return self.status in ("NEW", "PARTIALLY_FILLED")

    # --- answers

    def state(self) -> Json:
        """As queries tell of it."""
        return {
            "symbol": self.terms.symbol,
            "orderId": self.order_id,
            "orderListId": -1,
            "clientOrderId": self.client_id,
            "price": text(self.ticket.price),
            "origQty": text(self.quantity),
            "executedQty": text(self.filled),
            "cummulativeQuoteQty": text(self.quote_filled),
            "status": self.status,
            "timeInForce": self.ticket.force,
            "type": self.ticket.kind,
            "side": self.ticket.side,
            "stopPrice": text(self.ticket.stop),
            "icebergQty": text(0),
            "time": self.created_ms,
            "updateTime": self.updated_ms,
            "isWorking": self.working_ms >= 0,
            "workingTime": self.working_ms,
            "origQuoteOrderQty": text(self.ticket.quote_quantity),
            "selfTradePreventionMode": "NONE",
        }

    def answer(self, kind: str) -> Json:
        """To who placed it, in the detail asked for: ACK, RESULT or FULL."""
        ack: Json = {
            "symbol": self.terms.symbol,
            "orderId": self.order_id,
            "orderListId": -1,
            "clientOrderId": self.client_id,
            "transactTime": self.updated_ms,
        }
        if kind == "ACK":
            return ack
        result = ack | {
            "price": text(self.ticket.price),
            "origQty": text(self.quantity),
            "executedQty": text(self.filled),
            "origQuoteOrderQty": text(self.ticket.quote_quantity),
            "cummulativeQuoteQty": text(self.quote_filled),
            "status": self.status,
            "timeInForce": self.ticket.force,
            "type": self.ticket.kind,
            "side": self.ticket.side,
            "workingTime": self.working_ms,
            "selfTradePreventionMode": "NONE",
        }
        if self.ticket.stop:
            result["stopPrice"] = text(self.ticket.stop)
        if kind == "FULL":
            result["fills"] = [_fill(trade) for trade in self.trades]
        return result

    def cancelled(self, cancel_id: str) -> Json:
        """To who cancelled it."""
        answer: Json = {
            "symbol": self.terms.symbol,
            "origClientOrderId": self.client_id,
            "orderId": self.order_id,
            "orderListId": -1,
            "clientOrderId": cancel_id,
            "transactTime": self.updated_ms,
            "price": text(self.ticket.price),
            "origQty": text(self.quantity),
            "executedQty": text(self.filled),
            "origQuoteOrderQty": text(self.ticket.quote_quantity),
            "cummulativeQuoteQty": text(self.quote_filled),
            "status": self.status,
            "timeInForce": self.ticket.force,
            "type": self.ticket.kind,
            "side": self.ticket.side,
            "selfTradePreventionMode": "NONE",
        }
        if self.ticket.stop:
            answer["stopPrice"] = text(self.ticket.stop)
        return answer

    # --- events

    def report(
        self,
        what: str,
        now_ms: int,
        trade: AccountTrade | None = None,
        cancel_id: str = "",
        reject_reason: str = "NONE",
        event_id: int = 0,
    ) -> Json:
        """An executionReport.

        Args:
            what: NEW, TRADE, CANCELED, EXPIRED or REJECTED.
            cancel_id: of the request that cancelled it, which then takes the place of the order's own in `c`.
            event_id: of this report.
        """
        terms, asked = self.terms, self.ticket
        worked = {"W": self.working_ms} if self.working_ms >= 0 else {}
        return {
            "e": "executionReport",
            "E": now_ms,
            "s": terms.symbol,
            "c": cancel_id or self.client_id,
            "S": asked.side,
            "o": asked.kind,
            "f": asked.force,
            "q": text(self.quantity),
            "p": text(asked.price),
            "P": text(asked.stop),
            "F": text(0),
            "g": -1,
            "C": self.client_id if cancel_id else "",
            "x": what,
            "X": self.status,
            "r": reject_reason,
            "i": self.order_id,
            "l": text(trade.quantity if trade else 0),
            "z": text(self.filled),
            "L": text(trade.price if trade else 0),
            "n": text(trade.fee) if trade else "0",
            "N": trade.fee_asset if trade else None,
            "T": self.updated_ms,
            "t": trade.trade_id if trade else -1,
            "I": event_id,
            "w": self.is_open and self.working_ms >= 0,
            "m": trade.maker if trade else False,
            "M": trade is not None,
            "O": self.created_ms,
            "Z": text(self.quote_filled),
            "Y": text(trade.worth if trade else 0),
            "Q": text(asked.quote_quantity),
            "V": "NONE",
        } | worked


def trade_row(order: AccountOrder, trade: AccountTrade) -> Json:
    """As myTrades tells of it."""
    return {
        "symbol": order.terms.symbol,
        "id": trade.trade_id,
        "orderId": trade.order_id,
        "orderListId": -1,
        "price": text(trade.price),
        "qty": text(trade.quantity),
        "quoteQty": text(trade.worth),
        "commission": text(trade.fee),
        "commissionAsset": trade.fee_asset,
        "time": trade.time_ms,
        "isBuyer": trade.buyer,
        "isMaker": trade.maker,
        "isBestMatch": True,
    }


def _fill(trade: AccountTrade) -> Json:
    return {
        "price": text(trade.price),
        "qty": text(trade.quantity),
        "commission": text(trade.fee),
        "commissionAsset": trade.fee_asset,
        "tradeId": trade.trade_id,
    }
