"""Everything between an order and the books: gate, venue, portfolio, risk monitor. Nothing else knows the venue."""

from functools import cached_property
from typing import Any, TypeVar

import csp
from csp import ts

from brokers.events import CancelRequest, CashFlow, Fill, OrderRequest, OrderUpdate
from brokers.ledger import Contract, Ledger
from brokers.opening import Opening
from feeds.streams import by_symbol, together
from graphs.config import AccountConfig
from graphs.edges import AccountStreams, Feeds, Venue
from nodes.carry import borrow, funding
from nodes.close_out import close_out
from nodes.events import Alert, PositionUpdate, RiskAction
from nodes.exposure import Exposure
from nodes.feed_status import status_alert
from nodes.gate import risk_filter
from nodes.halts import close_halted
from nodes.hold import hold_until_live
from nodes.opening import held_units, note_alerts, value_at_cost, wanted_at_start, working_orders
from nodes.orders import unfilled
from nodes.portfolio import Books, portfolio, unit_values
from nodes.risk import action_alert, risk_monitor

T = TypeVar("T")


class Account:
    """One account, as strategies see it.

    What the venue answers, and what it does to the account, comes back by feedback, one engine cycle later: so the
    attributes can be read by whatever makes the orders that `trade` then takes.

    Args:
        feeds: market data; `bars` of every instrument. While one of `status` is STALE or has a GAP, risk of its symbols
            can only be reduced; what the account starts with is marked from `live` on.
        config: instruments, cash and risk limits.
        opening: what is held and works at the start, in place of the initial cash.

    Raises:
        ValueError: an opening that this account cannot start with; see `Ledger` and `Exposure`.
    """

    def __init__(self, feeds: Feeds, config: AccountConfig, opening: Opening | None = None) -> None:
        self._feeds, self._config, self.opening = feeds, config, opening
        self._cash = config.initial_cash if opening is None else float(opening.cash)
        if opening is not None:  # what cannot be is refused before anything runs
            Exposure(config.instruments, opening)
            Ledger(config.instruments, 0.0, currency=config.currency, opening=opening)
        self._updates: Any = None
        symbols = [instrument.symbol for instrument in config.instruments]
        self._fill, self._unfilled = csp.feedback(Fill), csp.feedback(OrderUpdate)
        self._position, self._action, self._marked = (
            csp.feedback(PositionUpdate),
            csp.feedback(RiskAction),
            csp.feedback(float),
        )
        self.closes: dict[str, ts[float]] = {  # what the books and the gate go by
            symbol: feeds.marks[symbol] if symbol in feeds.marks else feeds.bars[symbol].close for symbol in symbols
        }
        rates = feeds.rates
        self.prices: dict[str, ts[float]] = {  # the same in the currency of the account
            i.symbol: self.closes[i.symbol] * rates[i.currency] if i.currency in rates else self.closes[i.symbol]
            for i in config.instruments
        }
        self.fills: dict[str, ts[Fill]] = by_symbol(self._fill.out(), symbols)
        self.unfilled: dict[str, ts[OrderUpdate]] = by_symbol(self._unfilled.out(), symbols)  # cuts and ends
        self.positions: dict[str, ts[PositionUpdate]] = by_symbol(self._position.out(), symbols)
        self.action: ts[RiskAction] = self._action.out()
        self._again = csp.feedback(list[str])
        self.again: ts[list[str]] = self._again.out()  # symbols of which an order was refused and may pass by now
        # As long as what is held at the start has no price it counts at what it cost.
        worth = config.initial_cash if opening is None else value_at_cost(opening)
        self.equity: ts[float] = csp.default(self._marked.out(), worth)
        # What the run before wanted to hold, in base units by symbol.
        self.wanted: dict[str, float] = {i.symbol: wanted_at_start(opening, i) for i in config.instruments}

    @cached_property
    def updates(self) -> dict[str, ts[OrderUpdate]]:
        """Every change of state of every order; each costs an engine cycle, so it is wired only where it is read."""
        self._updates = csp.feedback(OrderUpdate)
        return by_symbol(self._updates.out(), list(self.closes))

    def trade(
        self,
        order: ts[OrderRequest],
        cancel: ts[CancelRequest],
        venue: Venue,
        *,
        actions: tuple[ts[RiskAction], ...] = (),
        alerts: tuple[ts[Alert], ...] = (),
        flatten_as: str = "",
        halted: bool = False,
    ) -> AccountStreams:
        """Send orders through the gate to the venue, and book what it answers. To be called once.

        Args:
            order, cancel: what the strategies want.
            venue: executes what the gate lets pass.
            actions: further risk actions, beside the monitor's.
            alerts: further alerts, to come out in one stream with the account's own.
            flatten_as: the first part of the ids of the orders that close positions when risk asks for it; "" where
                `order` comes of targets, which risk sees to before they become orders.
            halted: a person has not reset an earlier stop: nothing may trade, and what is held is closed where a stop
                closes it.
        """
        feeds, config = self._feeds, self._config
        if flatten_as:
            order = together([order, *self._closing(flatten_as)])
        instruments, risk = config.instruments, config.risk
        worth = unit_values(self.closes, instruments, config.currency, feeds.rates)
        cash = csp.feedback(float)
        gate = risk_filter(
            order,
            cancel,
            self._fill.out(),
            self._unfilled.out(),
            self.action,
            self.equity,
            csp.default(cash.out(), self._cash),
            self.closes,
            worth,
            instruments,
            risk,
            halted,
            feeds.corporate_actions,
            feeds.status,
            self.opening,
        )
        answer = venue(gate.approved, csp.unroll(gate.cancel))
        self._fill.bind(answer.fill)
        self._again.bind(gate.again)
        update = together([gate.refused, answer.update])
        if self._updates is not None:
            self._updates.bind(update)
        self._unfilled.bind(together([gate.refused, unfilled(answer.update)]))

        carry = self._carry()
        # A fill is booked in the cycle that tells of it: no mark holds the old position at the new price.
        books = portfolio(
            answer.fill,
            self.closes,
            instruments,
            config.initial_cash,
            currency=config.currency,
            method=config.cost_basis,
            rates=feeds.rates,
            flow=carry,
            corporate=feeds.corporate_actions,
            opening=self.opening,
            live=feeds.live,
        )
        watched = risk_monitor(books, self.closes, instruments, risk, worth, self.opening, feeds.forecasts)
        left = self._left() if halted and risk.flatten else []
        action: Any = together([watched, *left, *actions])
        self._position.bind(books.position)
        self._marked.bind(books.equity)
        self._action.bind(action)
        cash.bind(books.cash)
        return AccountStreams(
            orders=order,
            approved=gate.approved,
            updates=update,
            fills=answer.fill,
            risk=action,
            state=gate.state,
            alerts=together([*self._told(), action_alert(self.action), *alerts, gate.alert]),
            position=books.position,
            equity=books.equity,
            cash=books.cash,
            position_value=books.position_value,
            gross_exposure=books.gross_exposure,
            flows=self._flows(carry, books),
        )

    def _closing(self, run_id: str) -> list[ts[OrderRequest]]:
        """What closes positions when risk stops the account or halts a symbol."""
        return [
            close_out(
                self.action,
                self.fills[instrument.symbol],
                self.unfilled[instrument.symbol],
                instrument,
                self._config.risk.flatten,
                run_id,
                self._feeds.corporate_actions,
                self.opening,
                self.again,
            )
            for instrument in self._config.instruments
        ]

    def _left(self) -> list[ts[RiskAction]]:
        """What closes what an earlier stop has left, each symbol when it can be traded."""
        asked = []
        for instrument in self._config.instruments:
            symbol, contract = instrument.symbol, Contract(instrument)
            lots = contract.whole_lots(held_units(self.opening, contract))
            if lots or working_orders(self.opening, symbol):  # which are being cancelled, and may fill all the same
                action = close_halted(self.prices[symbol], symbol, contract.lots.value(lots))
                asked.append(once_connected(action, symbol, self._feeds))
        return asked

    def _told(self) -> list[ts[Alert]]:
        """What a person should know of how the run began, and of its feeds."""
        told: list[ts[Alert]] = []
        if self.opening is not None and self.opening.notes:
            told.append(csp.unroll(note_alerts(self.opening.notes)))
        if self._feeds.status is not None:
            told.append(status_alert(self._feeds.status))
        return told

    def _flows(self, carry: ts[CashFlow] | None, books: Books) -> ts[CashFlow] | None:
        dividend = None if self._feeds.corporate_actions is None else books.dividend
        there = [flow for flow in (carry, dividend) if flow is not None]
        return together(there) if there else None

    def _carry(self) -> ts[CashFlow] | None:
        """What positions cost, or earn, by being held; None where nothing does."""
        flows = []
        for instrument in self._config.instruments:
            symbol = instrument.symbol
            position, close = self.positions[symbol], self.closes[symbol]
            if symbol in self._feeds.funding:
                flows.append(funding(self._feeds.funding[symbol], position, close, instrument))
            if instrument.borrow_bps > 0.0:
                flows.append(borrow(position, close, instrument.borrow_bps, instrument))
        return together(flows) if flows else None


def once_connected(wanted: ts[T], symbol: str, feeds: Feeds) -> ts[T]:
    """Live, nothing is wanted of a symbol before each feed that it needs has delivered."""
    if feeds.live is None or feeds.status is None:
        return wanted
    return hold_until_live(wanted, feeds.live, feeds.status, symbol, feeds.required.get(symbol, ()))
