"""What an order must pass. The examples of docs/concepts/risk.md are tests here, and their sentences stand there."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.events import Fill, Liquidity, OrderRequest, OrderState, OrderType, OrderUpdate
from feeds.events import Side
from feeds.instruments import Instrument
from nodes import order_checks
from nodes.exposure import Exposure
from nodes.order_checks import CODES, OrderChecks, SeenIds
from nodes.risk import RiskConfig, TradingState

PAGE = (Path(__file__).parents[2] / "docs" / "concepts" / "risk.md").read_text()
NOW = datetime(2024, 1, 3, 15, 0)  # a Wednesday, within the hours of the NYSE
BUY, SELL = Side.BUY, Side.SELL
ACME = Instrument(symbol="ACME", tick="0.01", lot="1", calendar="NYSE")
ES = Instrument(symbol="ES", tick="0.25", lot="1", multiplier="50")
NOTHING = RiskConfig(gross_exposure_max=None)


class Desk:
    """The checks of an account of 10,000 in cash, ACME at 100 and ES at 1,600, without csp."""

    def __init__(self, instruments: tuple[Instrument, ...] = (ACME, ES), **config: Any) -> None:
        self.exposure = Exposure(instruments)
        self.checks = OrderChecks(self.exposure, instruments, replace(NOTHING, **config))
        self.state = TradingState.ACTIVE
        self.equity = self.cash = 10_000.0
        self.now = self.quoted = NOW
        self.prices = {"ACME": (100.0, 100.0), "ES": (1_600.0, 80_000.0)}
        self.count = 0

    def hold(self, quantity: float, symbol: str = "ACME") -> None:
        self.fill("before", BUY if quantity > 0 else SELL, abs(quantity), symbol)

    def fill(self, key: str, side: Side, quantity: float, symbol: str = "ACME") -> None:
        self.exposure.filled(
            Fill(
                market_time=NOW, symbol=symbol, side=side, quantity=quantity, price=100.0, fee=0.0, order_id=key,
                liquidity=Liquidity.TAKER,
            )
        )  # fmt: skip

    def send(self, side: Side, quantity: float, kind: str = "MARKET", **terms: Any) -> str:
        """Ask for an order; "" when it passes, else `code: sentence`."""
        self.count += 1
        terms = {"order_id": f"r-{self.count}", "symbol": "ACME"} | terms
        request = OrderRequest(side=side, order_type=OrderType[kind], quantity=quantity, **terms)
        refusal = self.checks.refusal(request, self.now, self.state, self.quoted, self.prices, self.equity, self.cash)
        return f"{refusal[0]}: {refusal[1]}" if refusal else ""

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def documented(refusal: str) -> None:
    """The refusal is an example of docs/concepts/risk.md, word for word."""
    assert refusal.partition(":")[0] in CODES
    assert f"\n{refusal}\n" in PAGE, refusal


def test_example_order_lots() -> None:
    desk = Desk(order_lots_max=50)
    assert desk.send(BUY, 50.0) == ""
    documented(desk.send(BUY, 51.0))


def test_example_order_notional() -> None:
    desk = Desk(order_notional_max=5_000.0)
    assert desk.send(BUY, 50.0) == ""
    documented(desk.send(BUY, 51.0))
    documented(desk.send(SELL, 1.0, symbol="ES"))  # one contract is 50 × 1,600


def test_example_position_notional() -> None:
    desk = Desk(position_notional_max=5_000.0)
    desk.hold(30.0)
    assert desk.send(BUY, 15.0) == ""
    documented(desk.send(BUY, 6.0))
    assert desk.send(SELL, 30.0) == ""


def test_example_gross_exposure() -> None:
    desk = Desk(gross_exposure_max=1.0)
    desk.hold(40.0)
    assert desk.send(BUY, 50.0) == ""
    documented(desk.send(BUY, 11.0))
    assert desk.send(BUY, 10.0) == ""


def test_example_net_exposure() -> None:
    other = replace(ACME, symbol="OTHER")
    desk = Desk((ACME, other), net_exposure_max=0.5)
    desk.prices["OTHER"] = (100.0, 100.0)
    desk.hold(40.0)
    assert desk.send(SELL, 40.0, symbol="OTHER") == ""
    documented(desk.send(BUY, 20.0))  # nothing of the other is sold yet
    desk.fill("r-1", SELL, 40.0, "OTHER")
    assert desk.send(BUY, 20.0) == ""


def test_example_worst_case() -> None:
    desk = Desk(gross_exposure_max=1.0)
    assert desk.send(BUY, 60.0, "LIMIT", limit_price=90.0) == ""
    assert desk.send(SELL, 60.0, "LIMIT", limit_price=110.0) == ""
    documented(desk.send(SELL, 40.0))  # 60 × 110 + 40 × 100, if no buy fills
    assert desk.send(BUY, 46.0) == ""  # 60 × 90 + 46 × 100 = 10,000, if no sale fills


def test_example_group() -> None:
    desk = Desk(gross_exposure_max=1.0)
    assert desk.send(BUY, 90.0, "LIMIT", limit_price=95.0, group="entry") == ""
    assert desk.send(BUY, 90.0, "STOP", stop_price=105.0, group="entry") == ""
    documented(desk.send(BUY, 6.0))  # 90 × 105 and 6 × 100


def test_example_bracket() -> None:
    desk = Desk(gross_exposure_max=1.0, orders_per_second_max=1)
    assert desk.send(BUY, 100.0, order_id="entry") == ""
    assert desk.send(SELL, 100.0, "STOP", stop_price=95.0, parent="entry", group="exit") == ""
    assert desk.send(SELL, 100.0, "LIMIT", limit_price=110.0, parent="entry", group="exit") == ""
    documented(desk.send(SELL, 101.0, "STOP", stop_price=95.0, parent="entry"))


def test_example_replacement() -> None:
    desk = Desk(gross_exposure_max=1.0)
    assert desk.send(BUY, 100.0, "LIMIT", limit_price=90.0, order_id="entry") == ""
    assert desk.send(BUY, 100.0, "LIMIT", limit_price=99.0, order_id="higher", replaces="entry") == ""
    documented(desk.send(BUY, 102.0, "LIMIT", limit_price=99.0, replaces="higher"))
    assert desk.send(BUY, 50.0, "LIMIT", limit_price=99.0, replaces="higher") == ""


def test_example_reducing_orders_are_not_held_up() -> None:
    desk = Desk(order_lots_max=1, order_notional_max=1.0, gross_exposure_max=0.1, orders_per_second_max=1)
    desk.hold(50.0)
    assert desk.send(SELL, 20.0) == ""
    assert desk.send(SELL, 30.0) == ""
    documented(desk.send(SELL, 2.0))  # all 50 are being sold already


def test_example_price_collar_of_limits() -> None:
    desk = Desk(price_collar=0.05)
    assert desk.send(BUY, 1.0, "LIMIT", limit_price=105.0) == ""
    documented(desk.send(BUY, 1.0, "LIMIT", limit_price=110.0))
    documented(desk.send(SELL, 1.0, "LIMIT", limit_price=10.0))
    assert desk.send(BUY, 1.0, "LIMIT", limit_price=1.0) == ""


def test_example_price_collar_of_stops() -> None:
    desk = Desk(price_collar=0.05)
    assert desk.send(SELL, 1.0, "STOP", stop_price=80.0) == ""
    documented(desk.send(SELL, 1.0, "STOP", stop_price=120.0))
    documented(desk.send(BUY, 1.0, "STOP", stop_price=90.0))
    assert desk.send(BUY, 1.0, "MARKET_IF_TOUCHED", stop_price=90.0) == ""
    assert desk.send(BUY, 1.0, "MARKET_IF_TOUCHED", stop_price=110.0).startswith("price_collar: the touch price 110")
    assert desk.send(SELL, 1.0, "MARKET_IF_TOUCHED", stop_price=90.0).startswith("price_collar: the touch price 90")


def test_the_limit_of_a_stop_limit_is_compared_with_its_stop() -> None:
    desk = Desk(price_collar=0.05)
    assert desk.send(BUY, 1.0, "STOP_LIMIT", stop_price=120.0, limit_price=125.0) == ""
    assert desk.send(BUY, 1.0, "STOP_LIMIT", stop_price=120.0, limit_price=130.0) == (
        "price_collar: the limit price 130 is 8.33% on the wrong side of 120, the limit 5.00%"
    )
    assert desk.send(SELL, 1.0, "STOP_LIMIT", stop_price=80.0, limit_price=77.0) == ""
    assert desk.send(SELL, 1.0, "STOP_LIMIT", stop_price=80.0, limit_price=70.0).startswith("price_collar")


def test_a_child_is_compared_with_the_price_of_its_parent() -> None:
    desk = Desk(price_collar=0.05)
    assert desk.send(BUY, 1.0, "LIMIT", limit_price=80.0, order_id="entry") == ""
    assert desk.send(SELL, 1.0, "LIMIT", limit_price=85.0, parent="entry", group="g") == ""  # far below 100
    assert desk.send(SELL, 1.0, "STOP", stop_price=90.0, parent="entry", group="g").startswith("price_collar")


def test_example_stale_quote() -> None:
    desk = Desk(quote_age_max_s=2.0)
    desk.later(2.0)
    assert desk.send(BUY, 1.0) == ""
    desk.later(0.5)
    documented(desk.send(BUY, 1.0))


def test_example_closed_session() -> None:
    desk = Desk(session_check=True)
    assert desk.send(BUY, 1.0) == ""
    desk.now = desk.quoted = datetime(2024, 1, 3, 21, 30)
    documented(desk.send(BUY, 1.0))
    desk.now = datetime(2024, 1, 1, 15, 0)  # New Year
    assert desk.send(BUY, 1.0) == "closed_session: NYSE is not open at 2024-01-01 15:00:00: CLOSED"
    assert desk.send(BUY, 1.0, symbol="ES") == ""  # 24/7 is never closed


def test_example_duplicate() -> None:
    desk = Desk(duplicate_window_s=5.0)
    assert desk.send(BUY, 1.0) == ""
    desk.later(3.0)
    documented(desk.send(BUY, 1.0))
    assert desk.send(BUY, 2.0) == ""
    assert desk.send(SELL, 1.0) == ""
    assert desk.send(BUY, 1.0, strategy="other") == ""
    desk.later(2.0)
    assert desk.send(BUY, 1.0) == ""


def test_an_order_that_was_refused_may_be_sent_again() -> None:
    desk = Desk(duplicate_window_s=5.0, order_notional_max=500.0)
    assert desk.send(BUY, 6.0).startswith("order_notional")
    desk.prices["ACME"] = (50.0, 50.0)
    assert desk.send(BUY, 6.0) == ""


def test_example_duplicate_id() -> None:
    desk = Desk()
    assert desk.send(BUY, 1.0, order_id="run-7") == ""
    documented(desk.send(SELL, 2.0, order_id="run-7"))


def test_example_order_rate() -> None:
    desk = Desk(orders_per_second_max=2)
    assert [desk.send(BUY, 1.0), desk.send(BUY, 1.0)] == ["", ""]
    documented(desk.send(BUY, 1.0))
    desk.later(1.0)
    assert desk.send(BUY, 1.0) == ""


def test_example_cash() -> None:
    desk = Desk((replace(ACME, taker_bps=10.0), ES), cash_only=True)
    assert desk.send(BUY, 50.0) == ""
    documented(desk.send(BUY, 50.0))  # 100 × 100 and a fee of 0.1 %
    assert desk.send(BUY, 49.0) == ""


def test_example_short() -> None:
    desk = Desk(cash_only=True)
    desk.hold(10.0)
    assert desk.send(SELL, 6.0) == ""
    documented(desk.send(SELL, 5.0))
    assert desk.send(SELL, 4.0) == ""


def test_cash_counts_every_kind_of_fee() -> None:
    fees = replace(ACME, fee_per_unit="0.5", fee_min="20")
    desk = Desk((fees, ES), cash_only=True)
    desk.cash = 1_050.0
    assert desk.send(BUY, 10.0) == ""  # 1000, 5 a unit, at least 20 an order
    desk.cash = 1_145.0
    assert desk.send(BUY, 1.0) == (
        "cash: all that is being bought would cost 1145.50 with fees, the cash is 1145.00"
    )  # 1100, 0.5 a unit, 20 an order


def test_what_a_received_fee_takes_is_no_cash() -> None:
    desk = Desk((replace(ACME, fees_in="received", taker_bps=100.0), ES), cash_only=True)
    assert desk.send(BUY, 100.0) == ""


def test_example_halted_reducing_and_frozen() -> None:
    desk = Desk()
    desk.hold(10.0)
    desk.state = TradingState.REDUCING
    documented(desk.send(BUY, 1.0))
    desk.state = TradingState.HALTED
    documented(desk.send(BUY, 1.0))
    documented(desk.send(SELL, 11.0))
    assert desk.send(SELL, 10.0) == ""
    frozen = Desk(flatten=False)
    frozen.hold(10.0)
    frozen.state = TradingState.HALTED
    documented(frozen.send(SELL, 10.0))


def test_example_symbol_halted() -> None:
    desk = Desk()
    desk.hold(10.0)
    desk.checks.halted_until["ACME"] = datetime(2024, 1, 4)
    documented(desk.send(BUY, 1.0))
    assert desk.send(BUY, 1.0, symbol="ES") == ""
    assert desk.send(SELL, 10.0) == ""
    desk.now = datetime(2024, 1, 4)
    assert desk.send(BUY, 1.0) == ""


def test_example_malformed() -> None:
    desk = Desk()
    documented(desk.send(BUY, float("nan")))
    documented(desk.send(BUY, 0.5))
    documented(desk.send(BUY, 1.0, "LIMIT"))
    documented(desk.send(BUY, 1.0, symbol="ACNE"))
    desk.prices = {}
    documented(desk.send(BUY, 1.0))


def test_example_links() -> None:
    desk = Desk()
    assert desk.send(BUY, 10.0, "LIMIT", limit_price=90.0, order_id="entry", group="in") == ""
    documented(desk.send(BUY, 1.0, "LIMIT", limit_price=90.0, symbol="ES", replaces="entry"))
    assert desk.send(SELL, 1.0, symbol="ES", parent="entry").startswith("link: the order entry that it is a child of")
    documented(desk.send(BUY, 10.0, "LIMIT", limit_price=91.0, replaces="entry", group="other"))
    assert desk.send(BUY, 10.0, "LIMIT", limit_price=91.0, replaces="entry", group="in") == ""


def test_example_beyond_counting() -> None:
    desk = Desk()
    documented(desk.send(BUY, 1e300))
    documented(desk.send(SELL, 1.0, "LIMIT", limit_price=1e307))
    for kind in ("STOP", "STOP_LIMIT", "MARKET_IF_TOUCHED"):
        assert desk.send(BUY, 1.0, kind, limit_price=1.0, stop_price=1e307).startswith("price: the stop price")
    assert desk.send(SELL, 1.0, "TRAILING_STOP", trail=1e307).startswith("price")
    desk.prices["ACME"] = (1e307, 1e307)
    assert desk.send(BUY, 1.0).startswith("no_price")


def test_a_deep_bid_is_no_licence_to_sell_short() -> None:
    desk = Desk(order_notional_max=5_000.0, gross_exposure_max=1.0)
    assert desk.send(BUY, 10_000.0, "LIMIT", limit_price=0.01) == ""
    assert desk.send(SELL, 10_000.0).startswith("order_notional")


def test_after_a_stop_nothing_passes_beside_what_closes_the_position() -> None:
    desk = Desk()
    desk.hold(10.0)
    desk.state = TradingState.HALTED
    assert desk.send(SELL, 10.0, reduce_only=True) == ""
    assert desk.send(SELL, 10.0).startswith("halted")


@pytest.mark.parametrize("state", [TradingState.HALTED, TradingState.REDUCING, TradingState.ACTIVE])
def test_no_child_reopens_what_its_parent_closes(state: TradingState) -> None:
    desk = Desk()
    desk.hold(10.0)
    desk.state = state
    if state is TradingState.ACTIVE:
        desk.checks.halted_until["ACME"] = datetime(2024, 1, 4)
    assert desk.send(SELL, 10.0, "LIMIT", limit_price=90.0, order_id="exit") == ""
    assert desk.send(BUY, 10.0, "STOP", stop_price=100.0, parent="exit") != ""
    assert desk.send(BUY, 10.0, "STOP", stop_price=100.0, parent="exit", reduce_only=True) == ""


def test_while_reducing_a_stop_may_be_tightened_and_a_resting_short_not_sold_at_once() -> None:
    desk = Desk()
    desk.hold(10.0)
    assert desk.send(SELL, 10.0, "STOP", stop_price=90.0, order_id="stop") == ""
    assert desk.send(SELL, 5.0, "LIMIT", limit_price=150.0, order_id="short") == ""
    desk.state = TradingState.REDUCING
    assert desk.send(SELL, 5.0, replaces="short").startswith("reducing")
    desk.exposure.remove("short")
    assert desk.send(SELL, 10.0, "STOP", stop_price=95.0, replaces="stop") == ""


def test_cash_only_never_goes_short_through_a_reduce_only_sale() -> None:
    for first, second in ((True, False), (False, True)):
        desk = Desk(cash_only=True)
        desk.hold(10.0)
        assert desk.send(SELL, 10.0, reduce_only=first) == ""
        assert desk.send(SELL, 10.0, reduce_only=second).startswith("short: 20 ACME would be for sale, 10 are held")


def test_a_reduce_only_sale_may_not_make_room_for_a_short_beyond_the_limit() -> None:
    desk = Desk(gross_exposure_max=1.0)
    desk.hold(100.0)
    assert desk.send(SELL, 200.0) == ""
    assert desk.send(SELL, 100.0, reduce_only=True).startswith("gross_exposure: exposure would be 20000.00")


def test_every_code_is_an_example_of_the_page() -> None:
    assert {code for code in CODES if f"\n{code}: " not in PAGE} == set()


def test_a_refused_order_leaves_no_trace_but_its_id() -> None:
    desk = Desk(gross_exposure_max=0.5, duplicate_window_s=60.0, orders_per_second_max=1)
    assert desk.send(BUY, 90.0).startswith("gross_exposure")
    assert desk.exposure.orders == {}
    assert desk.exposure.holdings["ACME"].idle
    assert desk.send(BUY, 50.0) == ""


def test_a_sale_with_a_limit_of_one_tick_is_worth_the_last_price() -> None:
    desk = Desk(order_notional_max=1_000.0)
    assert desk.send(SELL, 11.0, "LIMIT", limit_price=0.01).startswith("order_notional: the order is worth 1100.00")


# IDS


def test_ids_of_one_maker_are_told_apart_in_constant_memory() -> None:
    seen = SeenIds()
    assert all(seen.add(f"run-A-{i}") for i in range(1, 200_001))
    assert not any(seen.add(f"run-A-{i}") for i in (1, 77, 100_000, 200_000))
    assert "run-A-200000" in seen
    assert "run-A-200001" not in seen
    assert (len(seen._next), seen._ahead, seen._others) == (1, {}, {})


def test_other_ids_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_checks, "_IDS_MAX", 3)
    monkeypatch.setattr(order_checks, "_AHEAD_MAX", 3)
    seen = SeenIds()
    assert [seen.add(key) for key in ("a", "b", "a", "c", "d", "a")] == [True, True, False, True, True, True]
    assert all(seen.add(f"{first}-1") for first in "abcd")
    assert len(seen._next) == 3
    assert [seen.add(f"x-{n}") for n in (1, 3, 5, 7, 9, 2, 3)] == [True] * 5 + [False, False]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.sampled_from([f"{a}-{n}" for a in ("r", "r-A", "") for n in (1, 2, 3, 4, 10, "07", "x", "")] + ["r", "1"])
    )
)
def test_an_id_passes_once(ids: list[str]) -> None:
    seen, known = SeenIds(), set[str]()
    for key in ids:
        assert (key in seen) == (key in known)
        assert seen.add(key) == (key not in known)
        known.add(key)


# PROPERTIES

QUANTITY = st.integers(1, 120)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), QUANTITY, st.sampled_from(("fill", "part", "rest", "cancel"))), max_size=20),
    st.booleans(),
)
def test_whatever_fills_the_position_stays_inside_the_limit(
    wanted: list[tuple[bool, int, str]], cash_only: bool
) -> None:
    desk = Desk(gross_exposure_max=1.0, cash_only=cash_only)
    waiting: list[tuple[str, Side, float]] = []
    position = 0.0

    def happen(key: str, side: Side, quantity: float) -> None:
        nonlocal position
        if quantity:
            desk.fill(key, side, quantity)
            position += quantity if side is BUY else -quantity
            desk.cash = 10_000.0 - position * 100.0
        assert abs(position) * 100.0 <= desk.equity + 1e-6
        if cash_only:
            assert position >= 0.0
            assert desk.cash >= -1e-6

    for buys, quantity, what in wanted:
        side = BUY if buys else SELL
        if desk.send(side, float(quantity)) != "":
            continue
        key = f"r-{desk.count}"
        if what == "fill":
            happen(key, side, float(quantity))
        elif what == "part":
            happen(key, side, float(quantity // 2))
            waiting.append((key, side, float(quantity - quantity // 2)))
        elif what == "rest":
            waiting.append((key, side, float(quantity)))
        else:
            desk.exposure.updated(
                OrderUpdate(
                    order_id=key, symbol="ACME", state=OrderState.CANCELLED, remaining=quantity, code="", reason=""
                )
            )  # fmt: skip
    for buys in (True, False):  # the worst order in which the rest can fill
        for key, side, quantity in waiting:
            if (side is BUY) == buys:
                happen(key, side, quantity)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), QUANTITY), max_size=15), st.integers(-60, 60))
def test_after_a_stop_a_position_only_shrinks_and_never_turns(wanted: list[tuple[bool, int]], start: int) -> None:
    desk = Desk()
    if start:
        desk.hold(float(start))
    desk.state = TradingState.HALTED
    position = float(start)
    for buys, quantity in wanted:
        side = BUY if buys else SELL
        if desk.send(side, float(quantity)) == "":
            after = position + (quantity if buys else -quantity)
            assert abs(after) < abs(position)
            assert after * start >= 0.0
            desk.fill(f"r-{desk.count}", side, float(quantity))
            position = after
