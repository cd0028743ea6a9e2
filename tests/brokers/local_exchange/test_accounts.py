"""What an account of the local exchange gets for an order, and that its money adds up."""

from contextlib import suppress
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trading_desk import CONFIG, LISTING, SYMBOL, Venue, atoms, shown

from brokers.local_exchange.accounts import Accounts
from brokers.local_exchange.amounts import ATOMS, parsed, text
from brokers.local_exchange.config import ExchangeConfig, Listing
from brokers.local_exchange.errors import ApiError
from brokers.units import half_up

# The first price has traded already. A fall is told as a sale: the best bid is the price, the ask a tick above.
START = 60_000.0
ILLEGAL = "Illegal characters found in parameter '%s'; legal range is '^([0-9]{1,20})(\\.[0-9]{1,20})?$'."
ILLEGAL_ID = "Illegal characters found in parameter 'newClientOrderId'; legal range is '^[\\.A-Z\\:/a-z0-9_-]{1,36}$'."
BTC, USDT = atoms("2"), atoms("100000")


def wide(spread_ticks: int, tick: str = "0.01", usdt: str = "100000") -> ExchangeConfig:
    """A market with room between its prices."""
    listing = replace(LISTING, spread_ticks=spread_ticks, tick=tick)
    return replace(CONFIG, listings=(listing,), balances=(f"USDT={usdt}", "BTC=2"))


def refused(venue: Venue, code: int, message: str, *args: object, **params: object) -> None:
    """Placing it is refused with this code and sentence, and changes nothing."""
    before = venue.accounts.state()
    with pytest.raises(ApiError) as refusal:
        venue.place(*args, **params)  # type: ignore[arg-type]
    assert (refusal.value.code, refusal.value.message) == (code, message)
    assert venue.accounts.state() == before


def test_market_order_takes_the_depth_level_by_level() -> None:
    venue = Venue(START)
    asks = venue.market.depth().asks
    quantity = asks[0][1] + asks[1][1] + atoms("0.001")

    order = venue.place("BUY", "MARKET", text(quantity))

    wanted = [asks[0], asks[1], (asks[2][0], atoms("0.001"))]
    assert [(trade.price, trade.quantity) for trade in order.trades] == wanted
    assert order.status == "FILLED"
    assert order.quote_filled == sum(price * size // ATOMS for price, size in wanted)
    fee = sum(trade.fee for trade in order.trades)
    assert fee == half_up(Fraction(quantity, 1000))  # 10 basis points of what was bought
    assert venue.held("USDT") == (USDT - order.quote_filled, 0)
    assert venue.held("BTC") == (BTC + quantity - fee, 0)


def test_what_was_taken_is_gone_until_the_market_moves() -> None:
    venue = Venue(START, START, START)
    best, second = venue.market.depth().asks[:2]

    first = venue.place("BUY", "MARKET", text(best[1]))
    after = venue.place("BUY", "MARKET", "0.001")
    venue.step()
    again = venue.place("BUY", "MARKET", "0.001")

    assert [trade.price for trade in first.trades] == [best[0]]
    assert [trade.price for trade in after.trades] == [second[0]]
    assert [trade.price for trade in again.trades] == [venue.market.depth().asks[0][0]]


def test_market_order_ends_where_the_depth_does() -> None:
    venue = Venue(10.0, config=CONFIG)
    whole = sum(size for _, size in venue.market.depth().asks)

    order = venue.place("BUY", "MARKET", text(whole + atoms("1")))

    assert (order.status, order.filled) == ("EXPIRED", whole)
    assert venue.held("USDT") == (USDT - order.quote_filled, 0)
    assert venue.account.open_orders() == []
    assert shown(venue.events, "x", "X")[-1] == ("EXPIRED", "EXPIRED")


def test_quote_quantity_buys_what_it_pays_for_and_no_more() -> None:
    venue = Venue(START)

    order = venue.place("BUY", "MARKET", quoteOrderQty="9000")

    step = venue.market.depth().asks[len(order.trades)][0] * venue.accounts.terms[SYMBOL].lot // ATOMS
    assert atoms("9000") - step < order.quote_filled <= atoms("9000")
    assert order.state()["origQuoteOrderQty"] == "9000.00000000"
    assert order.status == "FILLED"


def test_quote_quantity_sells_for_no_more_than_was_asked() -> None:
    # 1012 lots at the bid of 59900, and a rest that would pay for one at the second bid, of 59800, but not here.
    venue = Venue(START, config=wide(1, tick="100"))

    order = venue.place("SELL", "MARKET", quoteOrderQty="606.7865")

    assert (order.quantity, order.quote_filled) == (atoms("0.01012"), atoms("606.188"))


def test_what_was_taken_no_longer_pays_for_a_market_order() -> None:
    venue = Venue(START, config=wide(1, tick="1000", usdt="60000"))
    price, size = venue.market.depth().asks[0]
    venue.place("BUY", "MARKET", text(size))
    at_best = venue.held("USDT")[0] * ATOMS // price // 1000 * 1000  # what the balance would buy at the old best

    refused(venue, -2010, "Account has insufficient balance for requested action.", "BUY", "MARKET", text(at_best))


def test_limit_order_that_crosses_pays_the_asks_and_gets_the_rest_back() -> None:
    venue = Venue(START)
    ask = venue.market.depth().asks[0]

    order = venue.limit("BUY", text(ask[1]), text(ask[0] + atoms("100")))

    assert [(trade.price, trade.maker) for trade in order.trades] == [(ask[0], False)]
    assert venue.held("USDT") == (USDT - ask[0] * ask[1] // ATOMS, 0)


def test_rest_of_a_crossing_limit_order_locks_no_more_than_its_own_worth() -> None:
    venue = Venue(START)
    (_, first), (limit, second) = venue.market.depth().asks[:2]

    order = venue.limit("BUY", text(first + second + atoms("0.1")), text(limit))

    assert (order.status, order.filled) == ("PARTIALLY_FILLED", first + second)
    assert venue.held("USDT") == (USDT - order.quote_filled - limit // 10, limit // 10)


def test_resting_limit_locks_what_it_may_cost_and_a_cancel_frees_it() -> None:
    venue = Venue(START)

    buy = venue.limit("BUY", "0.5", "50000")
    sale = venue.limit("SELL", "0.25", "70000")

    assert venue.held("USDT") == (USDT - atoms("25000"), atoms("25000"))
    assert venue.held("BTC") == (BTC - atoms("0.25"), atoms("0.25"))
    venue.cancel(buy)
    venue.cancel(sale)
    assert (venue.held("USDT"), venue.held("BTC")) == ((USDT, 0), (BTC, 0))
    with pytest.raises(ApiError, match="-2011 Unknown order sent"):
        venue.cancel(buy)


def test_resting_limit_fills_at_its_price_once_the_market_is_beyond_it() -> None:
    venue = Venue(START, 59_990.01, 59_990.0, 59_989.98)
    order = venue.limit("BUY", "0.01", "59990")

    venue.step()  # a tick above: ask a further tick away
    assert order.filled == 0
    venue.step()  # trades at the limit, which may be others' orders; the ask is above it
    assert order.filled == 0
    venue.step()

    assert [(trade.price, trade.quantity, trade.maker) for trade in order.trades] == [
        (atoms("59990"), atoms("0.01"), True)
    ]
    assert order.trades[0].fee == atoms("0.000005")  # 5 basis points of what it bought, as a maker
    assert venue.held("USDT") == (USDT - atoms("599.9"), 0)


def test_trade_through_fills_no_more_than_it_was_of() -> None:
    venue = Venue(START, 59_000.0, config=wide(3))  # the ask stays two ticks above what has traded
    order = venue.limit("BUY", "0.2", "59000.01")

    venue.step()

    assert [(trade.price, trade.quantity, trade.maker) for trade in order.trades] == [
        (atoms("59000.01"), atoms("0.05"), True)
    ]
    assert (order.status, order.locked) == ("PARTIALLY_FILLED", atoms("0.15") * 5_900_001 // 100)


def test_ioc_takes_what_is_there_and_fok_all_or_nothing() -> None:
    venue = Venue(START)
    price, size = venue.market.depth().asks[0]

    nothing = venue.limit("BUY", text(size + atoms("0.001")), text(price), "FOK")
    part = venue.limit("BUY", text(size + atoms("0.001")), text(price), "IOC")

    assert (nothing.status, nothing.filled) == ("EXPIRED", 0)
    assert (part.status, part.filled) == ("EXPIRED", size)
    assert venue.held("USDT") == (USDT - price * size // ATOMS, 0)


def test_limit_maker_rests_or_is_refused() -> None:
    venue = Venue(START)
    ask, bid = venue.market.depth().asks[0][0], venue.market.depth().bids[0][0]

    would_take = "Order would immediately match and take."
    refused(venue, -2010, would_take, "BUY", "LIMIT_MAKER", "0.1", price=text(ask))
    refused(venue, -2010, would_take, "SELL", "LIMIT_MAKER", "0.1", price=text(bid))
    order = venue.place("BUY", "LIMIT_MAKER", "0.1", price=text(bid))

    assert (order.status, order.filled) == ("NEW", 0)


@pytest.mark.parametrize(
    ("kind", "side", "stop", "reached"),
    [
        ("STOP_LOSS", "SELL", "59000", 59_000.0),
        ("STOP_LOSS", "BUY", "61000", 61_000.0),
        ("TAKE_PROFIT", "SELL", "61000", 61_000.0),
        ("TAKE_PROFIT", "BUY", "59000", 59_000.0),
    ],
)
def test_stop_waits_for_the_last_price_and_is_a_market_order_then(
    kind: str, side: str, stop: str, reached: float
) -> None:
    venue = Venue(START, 0.5 * (START + reached), reached)
    order = venue.place(side, kind, "0.01", stopPrice=stop)

    venue.step()
    assert (order.status, order.state()["isWorking"], order.filled) == ("NEW", False, 0)
    venue.step()

    assert (order.status, order.state()["isWorking"]) == ("FILLED", True)
    assert venue.held("USDT")[1] == venue.held("BTC")[1] == 0
    assert [what for (what,) in shown(venue.events, "x")] == ["NEW", "NEW", "TRADE"]


def test_triggered_stop_is_paid_from_what_it_has_locked() -> None:
    venue = Venue(START, 61_000.0)
    order = venue.place("BUY", "STOP_LOSS", "1.5", stopPrice="61000")
    assert venue.held("USDT") == (atoms("8500"), atoms("91500"))

    venue.step()

    assert order.status == "FILLED"
    assert venue.held("USDT") == (USDT - order.quote_filled, 0)


def test_triggered_stop_limit_rests_at_its_limit() -> None:
    venue = Venue(START, 59_000.0, 59_500.02)
    order = venue.place("SELL", "STOP_LOSS_LIMIT", "0.01", stopPrice="59000", price="59500", timeInForce="GTC")

    venue.step()
    assert (order.status, order.filled, order.state()["isWorking"]) == ("NEW", 0, True)
    assert venue.held("BTC") == (BTC - atoms("0.01"), atoms("0.01"))
    venue.step()

    assert [(trade.price, trade.maker) for trade in order.trades] == [(atoms("59500"), True)]


def test_stop_that_would_trigger_at_once_is_refused() -> None:
    venue = Venue(START)
    message = "Stop price would trigger immediately."
    refused(venue, -2010, message, "SELL", "STOP_LOSS", "0.01", stopPrice="60000")
    refused(venue, -2010, message, "BUY", "TAKE_PROFIT", "0.01", stopPrice="60000")


def test_triggered_stop_that_cannot_be_paid_expires() -> None:
    # It locked its worth at the stop; the market jumps far beyond it, and the account has no more.
    venue = Venue(START, 90_000.0)
    order = venue.place("BUY", "STOP_LOSS", "1.6", stopPrice="61000")

    venue.step()

    assert (order.status, order.filled) == ("EXPIRED", 0)
    assert venue.held("USDT") == (USDT, 0)


@pytest.mark.parametrize(
    ("code", "message", "params"),
    [
        (-1013, "Filter failure: PRICE_FILTER", {"price": "60000.001"}),
        (-1013, "Filter failure: PRICE_FILTER", {"price": "0"}),
        (-1013, "Filter failure: PRICE_FILTER", {"price": "99999999"}),
        (-1013, "Filter failure: LOT_SIZE", {"quantity": "0.000001"}),
        (-1013, "Filter failure: LOT_SIZE", {"quantity": "0.100001"}),
        (-1013, "Filter failure: LOT_SIZE", {"quantity": "99999999"}),
        (-1013, "Filter failure: NOTIONAL", {"quantity": "0.00001"}),
        (-1013, "Invalid quantity.", {"quantity": "0.0"}),
        (-1111, "Parameter 'price' has too much precision.", {"price": "1.123456789"}),
        (-1100, ILLEGAL % "price", {"price": "NaN"}),
        (-1100, ILLEGAL % "quantity", {"quantity": "-1"}),
        (-1100, ILLEGAL % "quantity", {"quantity": "1e2"}),
        (-1100, ILLEGAL_ID, {"newClientOrderId": "no spaces"}),
        (-1100, ILLEGAL_ID, {"newClientOrderId": "a" * 37}),
        (-1102, "Mandatory parameter 'quantity' was not sent, was empty/null, or malformed.", {"quantity": ""}),
        (-1102, "Mandatory parameter 'price' was not sent, was empty/null, or malformed.", {"price": ""}),
        (-1102, "Mandatory parameter 'timeInForce' was not sent, was empty/null, or malformed.", {"timeInForce": ""}),
        (-1106, "Parameter 'stopPrice' sent when not required.", {"stopPrice": "1"}),
        (-1115, "Invalid timeInForce.", {"timeInForce": "GTX"}),
        (-1116, "Invalid orderType.", {"type": "ICEBERG"}),
        (-1117, "Invalid side.", {"side": "HOLD"}),
        (-2010, "Account has insufficient balance for requested action.", {"quantity": "2"}),
    ],
)  # fmt: skip
def test_impossible_order_is_refused_in_binances_words(code: int, message: str, params: dict[str, str]) -> None:
    asked = {"side": "BUY", "type": "LIMIT", "quantity": "0.1", "price": "60000", "timeInForce": "GTC"} | params
    refused(Venue(START), code, message, asked.pop("side"), asked.pop("type"), asked.pop("quantity"), **asked)


def test_order_worth_the_least_is_taken() -> None:
    assert Venue(START).limit("BUY", "0.0001", "50000").status == "NEW"  # 5 USDT


def test_market_order_is_held_against_what_the_depth_costs() -> None:
    venue = Venue(START)
    asks = venue.market.depth().asks
    assert sum(size for _, size in asks) > atoms("1.7")
    refused(venue, -2010, "Account has insufficient balance for requested action.", "BUY", "MARKET", "1.7")
    refused(venue, -2010, "Account has insufficient balance for requested action.", "SELL", "MARKET", "2.00001")
    refused(venue, -1013, "Filter failure: NOTIONAL", "SELL", "MARKET", "0.00001")


def test_client_id_is_refused_while_it_works_and_counted_for_ever() -> None:
    venue = Venue(START)
    first = venue.limit("BUY", "0.1", "50000", newClientOrderId="mine")

    refused(venue, -2010, "Duplicate order sent.", "SELL", "MARKET", "0.1", newClientOrderId="mine")
    venue.cancel(first)
    second = venue.limit("BUY", "0.1", "51000", newClientOrderId="mine")

    assert first.order_id != second.order_id
    assert venue.account.order(SYMBOL, None, "mine") is second
    assert venue.account.order(SYMBOL, first.order_id, "") is first


def test_events_tell_every_step_and_the_balances_after_it() -> None:
    venue = Venue(START)
    ask = venue.market.depth().asks[0]

    venue.limit("BUY", text(ask[1] + atoms("0.001")), text(ask[0]), newClientOrderId="a")
    venue.cancel(venue.account.open_orders()[0])

    size, rest = text(ask[1]), text(ask[1] + atoms("0.001"))
    assert shown(venue.events, "x", "X", "l", "z", "t", "c", "C") == [
        ("NEW", "NEW", "0.00000000", "0.00000000", -1, "a", ""),
        ("TRADE", "PARTIALLY_FILLED", size, size, 1, "a", ""),
        ("CANCELED", "CANCELED", "0.00000000", size, -1, "cancel-BTCUSDT-1", "a"),
    ]
    assert all(event["q"] == rest for event in venue.events if event["e"] == "executionReport")
    told = [event for event in venue.events if event["e"] == "outboundAccountPosition"]
    assert told[-1]["B"] == [{"a": "USDT", "f": text(venue.held("USDT")[0]), "l": "0.00000000"}]
    reports = [event for event in venue.events if event["e"] == "executionReport"]
    assert reports[1]["N"] == "BTC"
    assert reports[1]["n"] == text(venue.account.trades(SYMBOL)[0][1].fee)


def test_money_that_cannot_add_up_is_refused() -> None:
    config = ExchangeConfig(listings=(Listing(tick="0.00001", lot="0.00001"),))
    with pytest.raises(ValueError, match=r"tick 0\.00001 times lot 0\.00001 must be a multiple of 0\.00000001"):
        Accounts(config, {}, {})


@given(st.integers(min_value=-(10**25), max_value=10**25))
def test_amounts_read_back_as_they_were_written(amount: int) -> None:
    assert parsed("price", text(amount).lstrip("-")) == abs(amount)


_steps = st.sampled_from([f"{part}" for part in ("0.001", "0.05", "0.3", "0.7", "1.5")])
_sides = st.sampled_from(["BUY", "SELL"])
_away = st.integers(min_value=-300, max_value=300)  # ticks of a quarter from the last price
_actions = st.one_of(
    st.tuples(st.just("market"), _sides, _steps, _away),
    st.tuples(st.sampled_from(["GTC", "IOC", "FOK", "LIMIT_MAKER"]), _sides, _steps, _away),
    st.tuples(
        st.sampled_from(["STOP_LOSS", "TAKE_PROFIT", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"]), _sides, _steps, _away
    ),
    st.tuples(st.just("cancel"), _sides, _steps, _away),
    st.tuples(st.just("step"), _sides, _steps, _away),
    st.tuples(st.just("step"), _sides, _steps, _away),
)


def _act(venue: Venue, action: tuple[str, str, str, int]) -> None:
    """Carry out one random action; a refusal is an answer too."""
    what, side, quantity, away = action
    near = text(venue.market.trade(venue.market.emitted).price + away * atoms("0.25"))
    working = venue.account.open_orders()
    with suppress(ApiError):
        match what:
            case "step":
                if venue.market.next_ms is not None:
                    venue.step()
            case "cancel":
                if working:
                    venue.cancel(working[away % len(working)])
            case "market":
                venue.place(side, "MARKET", quantity)
            case "LIMIT_MAKER":
                venue.place(side, what, quantity, price=near)
            case "STOP_LOSS" | "TAKE_PROFIT":
                venue.place(side, what, quantity, stopPrice=near)
            case "STOP_LOSS_LIMIT" | "TAKE_PROFIT_LIMIT":
                venue.place(side, what, quantity, stopPrice=near, price=near, timeInForce="GTC")
            case _:
                venue.limit(side, quantity, near, what)


def _assert_adds_up(venue: Venue) -> None:
    account, lot = venue.account, venue.accounts.terms[SYMBOL].lot
    base, quote = BTC, USDT
    for order in account.orders(SYMBOL):
        fees = {True: Fraction(0), False: Fraction(0)}
        assert order.filled == sum(trade.quantity for trade in order.trades)
        assert order.quote_filled == sum(trade.worth for trade in order.trades)
        assert order.status != "FILLED" or order.filled == order.quantity
        waits_at = order.ticket.price or order.ticket.stop
        open_worth = (order.quantity - order.filled) * (waits_at if order.buys else ATOMS) // ATOMS
        assert order.locked == (open_worth if order.is_open else 0)
        for trade in order.trades:
            assert trade.quantity % lot == 0
            assert (
                order.ticket.price == 0
                or (trade.price <= order.ticket.price) == order.buys
                or (trade.price == order.ticket.price)
            )
            sign = 1 if trade.buyer else -1
            base += sign * trade.quantity - (trade.fee if trade.buyer else 0)
            quote -= sign * trade.worth + (0 if trade.buyer else trade.fee)
            received = trade.quantity if trade.buyer else trade.worth
            fees[trade.maker] += Fraction(received * (5 if trade.maker else 10), 10_000)
        assert sum(trade.fee for trade in order.trades) == half_up(fees[True] + fees[False])
    for asset, held in (("BTC", base), ("USDT", quote)):
        free, locked = venue.held(asset)
        assert free >= 0
        assert free + locked == held
        assert locked == sum(order.locked for order in account.open_orders() if order.pays_with == asset)


@settings(max_examples=60, deadline=None)
@given(
    moves=st.lists(st.integers(min_value=-400, max_value=400), min_size=30, max_size=30),
    actions=st.lists(_actions, min_size=25, max_size=60),
)
def test_no_money_is_made_or_lost_but_fees(moves: list[int], actions: list[tuple[str, str, str, int]]) -> None:
    prices = [START]
    for move in moves:
        prices.append(prices[-1] + move * 0.25)
    venue = Venue(*prices)
    for action in actions:
        _act(venue, action)
        _assert_adds_up(venue)
