"""Books and marks: what ticks, when, and that it adds up."""

from datetime import timedelta
from typing import Any

import csp
import pytest
from csp.profiler import Profiler
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECOND, T0, at, run, ticks, values

from brokers.events import CashFlow, CorporateAction, Fill, Liquidity
from feeds.events import Side
from feeds.instruments import Instrument
from feeds.streams import SETTLE
from nodes.portfolio import ex_closes, portfolio, unit_values

A = Instrument(symbol="A", tick="0.01", lot="0.001")
B = Instrument(symbol="B", tick="0.25", lot="1", multiplier="50")
COIN = Instrument(symbol="COIN", tick="0.01", lot="0.001", base_unit="0.00000001", fees_in="received")
DAX = Instrument(symbol="DAX", tick="0.5", lot="1", multiplier="25", currency="EUR")


def fill(side: Side, quantity: float, price: float, fee: float = 0.0, symbol: str = "A", base_fee: float = 0.0) -> Fill:
    return Fill(
        market_time=T0,
        symbol=symbol,
        side=side,
        quantity=quantity,
        price=price,
        fee=fee,
        base_fee=base_fee,
        order_id="1",
        liquidity=Liquidity.TAKER,
    )


def account(
    fills: Any,
    closes: dict[str, Any],
    instruments: Any = (A,),
    cash: float = 1_000.0,
    rates: dict[str, Any] | None = None,
    flows: Any = (),
    actions: Any = (),
    **options: str,
) -> Any:
    """Run an account over lists: closes and rates one a second, the rest at seconds after T0."""

    def graph() -> Any:
        out = portfolio(
            at(*fills, typ=Fill),
            {k: ticks(*v) for k, v in closes.items()},
            instruments,
            cash,
            rates={k: ticks(*v, typ=float) for k, v in (rates or {}).items()},
            flow=at(*flows, typ=CashFlow) if flows else None,
            corporate=at(*actions, typ=CorporateAction) if actions else None,
            **options,
        )
        names = ("position", "cash", "equity", "position_value", "gross_exposure", "dividend")
        return {name: getattr(out, name) for name in names} | {f"value {k}": v for k, v in out.values.items()}

    return run(graph)


def after(seconds: float, extra: timedelta = timedelta()) -> Any:
    return T0 + timedelta(seconds=seconds) + extra


def test_equity_is_marked_at_every_price_from_the_first_fill_on() -> None:
    # Buy 1 at 100 a second after the start, sell 2 at 103 two seconds later.
    fills = [(1.0, fill(Side.BUY, 1.0, 100.0, 0.1)), (3.0, fill(Side.SELL, 1.0, 103.0, 0.1))]
    out = account(fills, {"A": [99.0, 101.0, 102.0, 103.0, 104.0]})

    assert out["equity"] == [
        (T0, 1_000.0),
        (T0 + SECOND, 1_000.9),
        (T0 + 2 * SECOND, 1_001.9),
        (T0 + 3 * SECOND, 1_002.8),
        (T0 + 4 * SECOND, 1_002.8),
    ]
    assert out["cash"] == [(T0, 1_000.0), (T0 + SECOND, 899.9), (T0 + 3 * SECOND, 1_002.8)]
    assert values(out["position_value"]) == [0.0, 101.0, 102.0, 0.0, 0.0]
    last = out["position"][-1][1]
    assert (last.quantity, last.average_price, last.realised, last.fees) == (0.0, 0.0, 3.0, 0.2)


def test_a_fill_at_the_start_ticks_cash_once() -> None:
    out = account([(0.0, fill(Side.BUY, 1.0, 100.0))], {"A": [100.0]})
    assert out["cash"] == [(T0, 900.0)]
    assert out["equity"] == [(T0, 1_000.0)]


def test_marks_of_one_instant_settle_together() -> None:
    fills = [(1.0, fill(Side.BUY, 1.0, 100.0)), (1.0, fill(Side.SELL, 2.0, 10.0, symbol="B"))]
    out = account(fills, {"A": [99.0, 101.0, 102.0], "B": [10.0, 10.0, 11.0]}, (A, B))

    assert out["equity"] == [
        (T0 + SETTLE, 1_000.0),
        (T0 + SECOND + SETTLE, 1_000.0 + 1.0),
        (T0 + 2 * SECOND + SETTLE, 1_000.0 + 2.0 - 2 * 50.0),
    ]
    assert out["gross_exposure"][-1][1] == 102.0 + 2 * 50 * 11.0
    assert [(when, p.symbol) for when, p in out["position"]] == [(after(1), "A"), (after(1), "B")]


def test_first_in_first_out_is_told_in_the_position() -> None:
    fills = [(i, fill(side, 1.0, p)) for i, (side, p) in enumerate([(Side.BUY, 100.0), (Side.BUY, 110.0)])]
    fills.append((2.0, fill(Side.SELL, 1.0, 120.0)))
    told = {m: account(fills, {"A": [100.0]}, method=m)["position"][-1][1] for m in ("average", "fifo")}
    assert {m: (p.realised, p.average_price) for m, p in told.items()} == {
        "average": (15.0, 105.0),
        "fifo": (20.0, 110.0),
    }


def test_a_base_fee_leaves_less_than_was_bought_and_the_dust_is_marked() -> None:
    # Buy 1 at 50 less 0.0005, then sell the 0.999 that are whole lots.
    fills = [
        (1.0, fill(Side.BUY, 1.0, 50.0, symbol="COIN", base_fee=0.0005)),
        (2.0, fill(Side.SELL, 0.999, 60.0, symbol="COIN")),
    ]
    out = account(fills, {"COIN": [50.0, 50.0, 60.0, 70.0]}, (COIN,))

    assert [(p.quantity, p.fees) for p in values(out["position"])] == [(0.9995, 0.025), (0.0005, 0.025)]
    assert out["cash"][1:] == [(after(1), 950.0), (after(2), 1_009.94)]
    assert values(out["position_value"]) == pytest.approx([0.0, 49.975, 0.03, 0.035], abs=1e-12)


def test_flows_are_cash_in_their_own_cycle() -> None:
    flows = [
        (1.0, CashFlow(symbol="A", amount=-0.25, kind="funding")),
        (2.5, CashFlow(symbol="A", amount=1.0, kind="interest")),
    ]
    out = account([(1.0, fill(Side.BUY, 1.0, 100.0))], {"A": [100.0, 100.0]}, flows=flows)
    assert out["cash"] == [(T0, 1_000.0), (after(1), 899.75), (after(2.5), 900.75)]
    assert out["equity"] == [(T0, 1_000.0), (after(1), 999.75), (after(2.5), 1_000.75)]
    assert len(out["position"]) == 1


# Several currencies.


def test_a_foreign_position_is_marked_at_its_rate_and_its_cash_too() -> None:
    # Buy 1 DAX at 100 (2,500 euros) with a fee of 2 euros; then the rate, then the price moves.
    fills = [(1.0, fill(Side.BUY, 1.0, 100.0, 2.0, symbol="DAX"))]
    out = account(
        fills, {"DAX": [100.0, 100.0, None, 101.0]}, (DAX,), rates={"EUR": [1.1, None, 1.2, None]}, currency="USD"
    )

    assert [(when, pytest.approx(v)) for when, v in out["cash"]] == [
        (T0, 1_000.0),
        (after(1), 1_000.0 - 1.1 * 2_502.0),
        (after(2), 1_000.0 - 1.2 * 2_502.0),
    ]
    assert [(when, pytest.approx(v)) for when, v in out["value DAX"]] == [
        (T0, 0.0),
        (after(1), 1.1 * 2_500.0),
        (after(2), 1.2 * 2_500.0),
        (after(3), 1.2 * 2_525.0),
    ]
    assert [(when, pytest.approx(v)) for when, v in out["equity"]] == [
        (after(0, SETTLE), 1_000.0),
        (after(1, SETTLE), 1_000.0 - 1.1 * 2.0),
        (after(2, SETTLE), 1_000.0 - 1.2 * 2.0),
        (after(3, SETTLE), 1_000.0 + 1.2 * 23.0),
    ]
    last = out["position"][-1][1]
    assert (last.average_price, last.fees) == (100.0, 2.0)  # euros


def test_nothing_is_summed_before_every_rate_is_known() -> None:
    fills = [(1.0, fill(Side.BUY, 1.0, 100.0, symbol="DAX")), (1.0, fill(Side.BUY, 1.0, 100.0))]
    out = account(
        fills,
        {"A": [100.0, 100.0, 101.0], "DAX": [100.0, 100.0, 100.0]},
        (A, DAX),
        rates={"EUR": [None, None, 1.1]},
        currency="USD",
    )
    assert [when for when, _ in out["cash"]] == [after(2)]
    assert [when for when, _ in out["equity"]] == [after(2, SETTLE)]
    assert out["equity"][0][1] == pytest.approx(1_001.0)
    assert out["position_value"][0][1] == pytest.approx(101.0 + 2_750.0)


def test_a_foreign_currency_without_a_rate_is_refused_before_the_run() -> None:
    message = "an account in USD wants a rate of EUR, in which DAX is traded; was none"
    with pytest.raises(ValueError, match=message):
        account([(1.0, fill(Side.BUY, 1.0, 100.0))], {"A": [1.0], "DAX": [1.0]}, (A, DAX), currency="USD")
    with pytest.raises(ValueError, match=message):
        unit_values({"A": csp.const(1.0), "DAX": csp.const(1.0)}, (A, DAX), "USD", {"GBP": csp.const(1.0)})


def test_unit_values_are_prices_times_multiplier_and_rate() -> None:
    def graph() -> Any:
        closes = {"A": ticks(1.0, 2.0), "B": ticks(10.0, 11.0), "DAX": ticks(100.0, None, 101.0)}
        worth = unit_values(closes, (A, B, DAX), "USD", {"EUR": ticks(None, 1.5)})
        assert worth["A"] is closes["A"]  # nothing to multiply with: no node
        return worth

    out = run(graph)
    assert out["B"] == [(T0, 500.0), (after(1), 550.0)]
    assert out["DAX"] == [(after(1), 3_750.0), (after(2), 3_787.5)]


# Corporate actions.


def test_a_split_changes_neither_equity_nor_value_until_the_market_says_so() -> None:
    # 3 at 30.00; three for two after the close of second 2; the next price is 21.00.
    fills = [(1.0, fill(Side.BUY, 3.0, 30.0))]
    actions = [(2.0, CorporateAction(symbol="A", split="3/2"))]
    out = account(fills, {"A": [30.0, 30.0, 33.0, 21.0]}, actions=actions)

    assert out["value A"] == [
        (T0, 0.0),
        (after(1), 90.0),
        (after(2), 99.0),
        (after(2, SETTLE), 99.0),
        (after(3), 94.5),
    ]
    assert values(out["equity"]) == [1_000.0, 1_000.0, 1_009.0, 1_009.0, 1_004.5]
    told = out["position"][-1]
    assert told[0] == after(2, SETTLE)
    assert (told[1].quantity, told[1].average_price, told[1].realised) == (4.5, 20.0, 0.0)


def test_a_part_of_a_unit_is_paid_out_at_the_last_price_of_the_new_kind() -> None:
    # 5 of lot 1 at 30: 7.5 become 7; the half is sold at 33 / 1.5 = 22, where it cost 10.
    share = Instrument(symbol="A", tick="0.01", lot="1")
    out = account(
        [(1.0, fill(Side.BUY, 5.0, 30.0))],
        {"A": [30.0, 30.0, 33.0]},
        (share,),
        actions=[(2.5, CorporateAction(symbol="A", split="3/2"))],
    )
    assert out["cash"][-1] == (after(2.5, SETTLE), 850.0 + 11.0)
    assert out["equity"][-1] == (after(2.5, SETTLE), 1_015.0)
    assert (out["position"][-1][1].quantity, out["position"][-1][1].realised) == (7.0, 1.0)


def test_a_dividend_is_cash_at_once_and_off_the_price_until_the_next_one() -> None:
    # 10 short at 50 pay 0.505 each; the price of the same instant is still that of the session before.
    fills = [(1.0, fill(Side.SELL, 10.0, 50.0))]
    actions = [(2.0, CorporateAction(symbol="A", dividend="0.505"))]
    out = account(fills, {"A": [50.0, 50.0, 50.0, 49.0]}, actions=actions)

    assert [(when, f.amount, f.kind) for when, f in out["dividend"]] == [(after(2, SETTLE), -5.05, "dividend")]
    assert out["cash"][-1] == (after(2, SETTLE), 1_494.95)
    assert values(out["equity"]) == pytest.approx([1_000.0, 1_000.0, 1_000.0, 1_000.0, 1_004.95])
    assert len(out["position"]) == 1


def test_a_dividend_and_a_split_of_one_instant_follow_each_other() -> None:
    actions = [
        (1.5, CorporateAction(symbol="A", dividend="2")),
        (1.5, CorporateAction(symbol="A", split="2")),
        (1.5, CorporateAction(symbol="B", split="2")),
    ]
    out = account([(1.0, fill(Side.BUY, 10.0, 50.0))], {"A": [50.0, 50.0], "B": [8.0, 8.0]}, (A, B), actions=actions)
    assert out["value A"][-1] == (after(1.5, SETTLE), 480.0)
    assert out["equity"][-1] == (after(1.5, 2 * SETTLE), 1_000.0)
    assert out["position"][-1][1].quantity == 20.0
    assert {p.symbol for p in values(out["position"])} == {"A"}  # B is not held


def test_a_fill_and_a_split_of_one_cycle_are_told_as_one_position() -> None:
    # The fill of a microsecond later meets the split in its cycle and is booked before it.
    late = 2.0 + SETTLE.total_seconds()
    out = account(
        [(late, fill(Side.BUY, 1.0, 50.0))],
        {"A": [50.0, 50.0, 50.0]},
        actions=[(2.0, CorporateAction(symbol="A", split="2"))],
    )
    assert [(when, p.quantity) for when, p in out["position"]] == [(after(2, SETTLE), 2.0)]
    assert values(out["equity"])[-1] == 1_000.0


def test_actions_of_other_symbols_are_passed_over() -> None:
    out = account(
        [(0.0, fill(Side.BUY, 1.0, 50.0))],
        {"A": [50.0, 50.0]},
        actions=[(0.5, CorporateAction(symbol="Z", split="2", dividend="1"))],
    )
    assert [when for when, _ in out["equity"]] == [T0, after(1)]
    assert out["dividend"] == []


def test_closes_without_actions_are_the_closes() -> None:
    def graph() -> None:
        closes = {"A": csp.const(1.0), "unused": csp.const(1.0)}
        assert ex_closes(closes, None, (A,)) == {"A": closes["A"]}

    run(graph)


# Hostile input.


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (fill(Side.BUY, 1.0, 100.001), "multiple of the tick of A"),
        (fill(Side.BUY, 0.0001, 100.0), "multiple of the lot of A"),
        (fill(Side.BUY, 1.0, 100.0, fee=0.001), "multiple of the unit of USD"),
        (fill(Side.BUY, 1.0, float("nan")), "finite multiple of the tick of A 1/100, was nan"),
        (fill(Side.BUY, float("inf"), 1.0), "finite multiple of the lot of A 1/1000, was inf"),
        (fill(Side.BUY, 1.0, 100.0, base_fee=0.0001), "multiple of the smallest quantity of A 1/1000, was 0.0001"),
        (fill(Side.SELL, 1.0, 100.0, base_fee=0.001), "A: a fee of 1 units cannot be taken out of -1000 bought"),
    ],
)
def test_a_fill_that_would_break_the_books_stops_the_engine(bad: Fill, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        account([(1.0, bad)], {"A": [100.0]})


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (CashFlow(symbol="A", amount=0.001, kind="funding"), "multiple of the unit of USD 1/100, was 0.001"),
        (CashFlow(symbol="A", amount=float("nan"), kind="funding"), "was nan"),
        (CashFlow(symbol="Z", amount=1.0, kind="borrow"), "want borrow of one of A, was of 'Z'"),
    ],
)
def test_a_flow_that_would_break_the_books_stops_the_engine(bad: CashFlow, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        account([], {"A": [100.0]}, flows=[(1.0, bad)])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (CorporateAction(symbol="A", split="0"), "a split must be a positive ratio"),
        (CorporateAction(symbol="A", dividend="-1"), "a dividend must be a decimal"),
        (
            CorporateAction(symbol="A", split="1/3"),
            "a split of A by 1/3 leaves a part of a unit, and there is no price",
        ),
    ],
)
def test_an_action_that_cannot_be_booked_stops_the_engine(bad: CorporateAction, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        account([(0.5, fill(Side.BUY, 0.001, 100.0))], {"A": [None, None, 100.0]}, actions=[(1.0, bad)])


# Properties.

trades = st.lists(st.tuples(st.booleans(), st.integers(1, 5_000), st.integers(1, 50_000)), max_size=15)


@settings(max_examples=40, deadline=None)
@given(trades)
def test_equity_is_cash_plus_position_at_every_mark(done: list[tuple[bool, int, int]]) -> None:
    fills = [
        (i + 0.5, fill(Side.BUY if buys else Side.SELL, lots / 1000, price / 100, 0.01))
        for i, (buys, lots, price) in enumerate(done)
    ]
    out = account(fills, {"A": [100.0 + i for i in range(20)]})

    cash, units = 1_000.0, 0.0
    for _, f in fills:
        sign = 1.0 if f.side is Side.BUY else -1.0
        cash -= sign * f.quantity * f.price + f.fee
        units += sign * f.quantity
    assert out["cash"][-1][1] == pytest.approx(cash, abs=1e-6)
    if fills:
        assert out["position"][-1][1].quantity == pytest.approx(units, abs=1e-9)
    for equity, value in zip(values(out["equity"]), values(out["position_value"]), strict=True):
        assert equity - value == pytest.approx(
            min(values(out["cash"]), key=lambda c: abs(equity - value - c)), abs=1e-6
        )


lives = st.lists(
    st.one_of(
        st.tuples(st.just("A"), st.integers(-5_000, 5_000).filter(bool), st.integers(1, 50_000)),
        st.tuples(st.just("DAX"), st.integers(-5, 5).filter(bool), st.integers(1, 50_000)),
        st.tuples(st.just("flow"), st.sampled_from(["A", "DAX"]), st.integers(-10_000, 10_000)),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(lives, st.lists(st.integers(50, 200), min_size=14, max_size=14))
def test_equity_of_two_currencies_is_what_a_hand_would_reckon(life: list[Any], rates: list[int]) -> None:
    """Something happens at each half second, prices and rates move at each whole one."""
    closes = {"A": [100.0 + i for i in range(14)], "DAX": [15_000.0 - i for i in range(14)]}
    fills: list[Any] = []
    flows: list[Any] = []
    cash, held = {"USD": 1_000.0, "EUR": 0.0}, {"A": 0.0, "DAX": 0.0}
    expected = []
    for i in range(14):
        if 0 < i <= len(life):
            kind, *what = life[i - 1]
            if kind == "flow":
                symbol, cents = what
                flows.append((i - 0.5, CashFlow(symbol=symbol, amount=cents / 100, kind="funding")))
                cash["USD" if symbol == "A" else "EUR"] += cents / 100
            else:
                lots, price_ticks = what
                quantity, price = (lots / 1000, price_ticks / 100) if kind == "A" else (lots, price_ticks / 2)
                side = Side.BUY if lots > 0 else Side.SELL
                fills.append((i - 0.5, fill(side, abs(quantity), price, 0.01, symbol=kind)))
                held[kind] += quantity
                cash["USD" if kind == "A" else "EUR"] -= quantity * price * (1 if kind == "A" else 25) + 0.01
        rate = rates[i] / 100
        net = held["A"] * closes["A"][i] + held["DAX"] * 25 * closes["DAX"][i] * rate
        expected.append((after(i, SETTLE), pytest.approx(cash["USD"] + cash["EUR"] * rate + net, abs=1e-3)))

    out = account(
        fills, closes, (A, DAX), rates={"EUR": [r / 100 for r in rates]}, flows=flows, currency="USD", method="fifo"
    )
    whole = [(when, equity) for when, equity in out["equity"] if when.microsecond == 1]
    assert whole == expected


@pytest.mark.parametrize("actions", [False, True])
def test_a_price_without_a_fill_wakes_no_python(actions: bool) -> None:
    def graph() -> None:
        corporate = csp.null_ts(CorporateAction) if actions else None
        closes = {"A": ticks(*(100.0 + i for i in range(500)))}
        out = portfolio(csp.null_ts(Fill), closes, (A,), 1_000.0, corporate=corporate)
        csp.add_graph_output("equity", out.equity)
        csp.add_graph_output("position", out.position)

    with Profiler() as profiler:
        csp.run(graph, starttime=T0, endtime=timedelta(days=1))
    executed = {name: stats["executions"] for name, stats in profiler.results().node_stats.items()}
    assert executed["book"] == 1  # the start
    assert executed.get("_ex_price", 0) == 0
