"""An account whose strategies send orders of their own: what risk closes stays closed, and a split makes no money."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import csp
import pytest
from csp import ts
from support import T0, run, values

from brokers.costs import FillModel
from brokers.events import CancelRequest, CorporateAction, OrderRequest, OrderType
from brokers.paper import Market, PaperConfig, paper_venue
from feeds.events import Bar, Side
from feeds.instruments import Instrument
from feeds.streams import SETTLE
from graphs.account import Account
from graphs.config import AccountConfig
from graphs.edges import Feeds
from nodes.events import RiskAction, RiskActionKind
from nodes.risk import RiskConfig

HOUR = timedelta(hours=1)
A = Instrument(symbol="A", tick="0.01", lot="1")
STOP = RiskAction(kind=RiskActionKind.EMERGENCY_STOP, code="drawdown", value=0.5, limit=0.3)
HALT = RiskAction(
    kind=RiskActionKind.HALT_SYMBOL, code="symbol_loss", value=0.5, limit=0.3, symbol="A", until=T0 + 24 * HOUR
)


def order(key: str, side: Side, kind: OrderType, quantity: float, **terms: Any) -> OrderRequest:
    return OrderRequest(order_id=key, symbol="A", side=side, order_type=kind, quantity=quantity, **terms)


BUY = (1.0, order("buy", Side.BUY, OrderType.MARKET, 100.0))


def traded(
    prices: Sequence[float],
    orders: Sequence[tuple[float, OrderRequest]],
    *,
    actions: Sequence[tuple[float, RiskAction]] = (),
    split: tuple[float, str] | None = None,
    part: float | None = None,
) -> dict[str, list[tuple[datetime, Any]]]:
    """The ticks of an account on flat hourly bars of 100 units; times in hours."""

    def graph() -> dict[str, Any]:
        hours = [
            Bar(symbol="A", event_time=T0 + (n + 1) * HOUR, open_time=T0 + n * HOUR, open=p, high=p, low=p, close=p,
                volume=100.0)
            for n, p in enumerate(prices)
        ]  # fmt: skip
        bars = {"A": csp.curve(Bar, [(bar.event_time - T0, bar) for bar in hours])}
        known = [] if split is None else [(split[0] * HOUR, CorporateAction(symbol="A", split=split[1]))]
        feeds = Feeds(bars=bars, bar_lengths={"A": HOUR}, corporate_actions=csp.curve(CorporateAction, known))
        market = Market(bars=bars, corporate=feeds.corporate_actions)
        broker = PaperConfig(fills=FillModel(slippage_bps=0.0, participation_max=part))

        def venue(order: ts[OrderRequest], cancel: ts[CancelRequest]) -> Any:
            return paper_venue(order, cancel, market, (A,), broker)

        risk = RiskConfig(drawdown_max=None, gross_exposure_max=None, var_max=None)
        done = Account(feeds, AccountConfig(instruments=(A,), initial_cash=20_000.0, risk=risk)).trade(
            csp.curve(OrderRequest, [(hour * HOUR, each) for hour, each in orders]),
            csp.null_ts(CancelRequest),
            venue,
            actions=(csp.curve(RiskAction, [(hour * HOUR, each) for hour, each in actions]),),
            flatten_as="close",
        )
        return {name: getattr(done, name) for name in ("orders", "updates", "fills", "position", "equity")}

    return run(graph, seconds=3_600.0 * (len(prices) + 1))


@pytest.mark.parametrize("actions", [(STOP, HALT), (HALT, STOP)], ids=["stop first", "halt first"])
def test_a_stop_and_a_halt_end_flat_whichever_comes_first(actions: tuple[RiskAction, RiskAction]) -> None:
    # 30 are sold a bar; the second action comes while 40 are still held.
    ticks = traded([100.0] * 14, [BUY], actions=[(6.5, actions[0]), (9.5, actions[1])], part=0.3)
    assert ticks["position"][-1][1].quantity == 0.0
    assert sum(f.quantity for f in values(ticks["fills"])) == 200.0


@pytest.mark.parametrize(
    ("ratio", "price", "held"), [("2", 50.0, 200.0), ("1/10", 1_000.0, 10.0)], ids=["forward", "reverse"]
)
def test_a_split_cancels_what_rests_so_it_makes_no_money(ratio: str, price: float, held: float) -> None:
    resting = [
        (2.0, order("stop", Side.SELL, OrderType.STOP, 100.0, stop_price=90.0)),
        (2.1, order("target", Side.SELL, OrderType.LIMIT, 100.0, limit_price=120.0)),
    ]
    ticks = traded([100.0] * 3 + [price] * 4, [BUY, *resting], split=(3.0, ratio))
    assert [f.order_id for f in values(ticks["fills"])] == ["buy"]
    told = [(t, u.order_id, u.code) for t, u in ticks["updates"] if u.code]
    assert told == [(T0 + 3 * HOUR + SETTLE, key, "split") for key in ("stop", "target")]
    assert ticks["position"][-1][1].quantity == held
    assert {round(e, 9) for e in values(ticks["equity"])} == {20_000.0}


@pytest.mark.parametrize(("ratio", "price"), [("2", 50.0), ("1/10", 1_000.0)], ids=["forward", "reverse"])
@pytest.mark.parametrize("hour", [2.5, 4.5], ids=["stop before", "stop after"])
def test_a_stop_closes_all_of_a_position_that_is_split(ratio: str, price: float, hour: float) -> None:
    ticks = traded([100.0] * 4 + [price] * 12, [BUY], actions=[(hour, STOP)], split=(4.0, ratio), part=0.5)
    assert ticks["position"][-1][1].quantity == 0.0
    assert round(ticks["equity"][-1][1], 9) == 20_000.0


def test_a_reduce_only_order_reduces_what_a_split_has_left() -> None:
    exit_ = (5.0, order("exit", Side.SELL, OrderType.MARKET, 200.0, reduce_only=True))
    ticks = traded([100.0] * 3 + [50.0] * 5, [BUY, exit_], split=(3.0, "2"))
    assert [f.quantity for f in values(ticks["fills"])] == [100.0, 200.0]
