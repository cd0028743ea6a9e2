"""What an order is at a real venue, and what is refused before anything is sent."""

import math
import re
from decimal import Decimal
from typing import Any

import ccxt.pro
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import T0

from brokers.events import NEVER, OrderRequest, OrderType, TimeInForce
from brokers.ledger import Contract
from brokers.venue_ids import client_id
from brokers.venue_terms import Drafter, Offer, Terms, decimals, offer
from feeds.events import Side
from feeds.instruments import Instrument

BTC = Instrument(symbol="BTC/USDT", tick="0.01", lot="0.00001", currency="USDT", min_notional="5")


def terms(offered: Offer | None = None, reducible: int = 0, **fields: Any) -> Terms | tuple[str, str]:
    wanted: dict[str, Any] = {
        "order_id": "r1-BTC/USDT-1",
        "symbol": "BTC/USDT",
        "side": Side.BUY,
        "order_type": OrderType.LIMIT,
        "quantity": 0.1,
        "limit_price": 60_000.0,
    }
    drafter = Drafter(BTC, Contract(BTC), offered or Offer())
    return drafter.terms(OrderRequest(**(wanted | fields)), T0, reducible)


def made(**fields: Any) -> Terms:
    drafted = terms(**fields)
    assert isinstance(drafted, Terms)
    return drafted


def refused(**fields: Any) -> str:
    drafted = terms(**fields)
    assert not isinstance(drafted, Terms)
    code, reason = drafted
    assert reason
    return code


def test_a_limit_order_is_sent_in_exact_decimals() -> None:
    drafted = made(quantity=0.123456789, limit_price=60_000.129)

    assert (drafted.kind, drafted.side) == ("limit", "buy")
    assert (drafted.quantity, drafted.limit_price) == ("0.12345", "60000.12")  # a buyer's price goes down
    assert drafted.params == {"clientOrderId": client_id("r1-BTC/USDT-1"), "timeInForce": "GTC"}


@pytest.mark.parametrize(
    ("fields", "kind", "params"),
    [
        ({"order_type": OrderType.MARKET}, "market", {}),
        ({"time_in_force": TimeInForce.IOC}, "limit", {"timeInForce": "IOC"}),
        ({"time_in_force": TimeInForce.FOK}, "limit", {"timeInForce": "FOK"}),
        ({"post_only": True}, "limit", {"postOnly": True}),
        ({"order_type": OrderType.STOP, "stop_price": 61_000.0}, "market", {"stopLossPrice": "61000.00"}),
        (
            {"order_type": OrderType.STOP_LIMIT, "stop_price": 61_000.0},
            "limit",
            {"stopLossPrice": "61000.00", "timeInForce": "GTC"},
        ),
        (
            {"order_type": OrderType.MARKET_IF_TOUCHED, "stop_price": 59_000.0},
            "market",
            {"takeProfitPrice": "59000.00"},
        ),
    ],
)
def test_types_and_times_in_force_are_said_in_ccxts_words(
    fields: dict[str, Any], kind: str, params: dict[str, Any]
) -> None:
    drafted = made(**fields)
    assert drafted.kind == kind
    assert drafted.params == {"clientOrderId": client_id("r1-BTC/USDT-1")} | params
    assert (drafted.limit_price is None) == (kind == "market")


@pytest.mark.parametrize(
    "fields",
    [
        {"group": "oco"},
        {"parent": "r1-BTC/USDT-0"},
        {"replaces": "r1-BTC/USDT-0"},
        {"order_type": OrderType.TRAILING_STOP, "trail_bps": 50.0},
        {"time_in_force": TimeInForce.DAY},
        {"time_in_force": TimeInForce.GTD, "expires": NEVER},
        {"reduce_only": True},  # it would rest, and might outlive the position
        {"order_type": OrderType.STOP, "stop_price": 1.0, "offered": Offer(stops=False)},
        {"order_type": OrderType.MARKET_IF_TOUCHED, "stop_price": 1.0, "offered": Offer(touches=False)},
        {"post_only": True, "offered": Offer(post_only=False)},
        {"time_in_force": TimeInForce.FOK, "offered": Offer(immediate=("IOC",))},
        {"order_type": OrderType.MARKET, "offered": Offer(market_buys=False)},
    ],
)
def test_what_the_venue_has_no_order_for_is_refused_before_it_is_sent(fields: dict[str, Any]) -> None:
    assert refused(**fields) == "unsupported"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"quantity": 0.000009}, "quantity_below_lot"),
        ({"quantity": math.nan}, "quantity_below_lot"),
        ({"quantity": -1.0}, "quantity_below_lot"),
        ({"limit_price": 0.0}, "limit_not_positive"),
        ({"limit_price": math.inf}, "limit_not_positive"),
        ({"order_type": OrderType.STOP, "stop_price": -1.0}, "stop_not_positive"),
        ({"quantity": 0.00008}, "filter"),  # worth 4.8 USDT
        ({"order_type": OrderType.MARKET, "reduce_only": True}, "reduce_only"),
    ],
)
def test_what_cannot_be_is_refused_with_a_code(fields: dict[str, Any], code: str) -> None:
    assert refused(**fields) == code


def test_a_client_id_has_what_the_venue_wants_before_it() -> None:
    drafted = made(offered=Offer(id_prefix="t-"))
    assert drafted.client_id == drafted.params["clientOrderId"] == client_id("r1-BTC/USDT-1", "t-")


def test_a_reduce_only_order_is_cut_where_the_venue_does_not_see_to_it() -> None:
    order = {"order_type": OrderType.MARKET, "side": Side.SELL, "reduce_only": True}

    cut = made(reducible=4_000, **order)
    assert (cut.quantity, cut.lots, cut.lots_asked) == ("0.04000", 4_000, 10_000)
    whole = made(reducible=20_000, **order)
    assert whole.lots == whole.lots_asked

    there = made(offered=Offer(reduce_only=True), reducible=0, **order)
    assert there.params["reduceOnly"] is True
    assert there.lots == there.lots_asked


def test_what_a_venue_offers_is_read_from_ccxt() -> None:
    exchange = ccxt.pro.binance()
    market = {"symbol": "BTC/USDT", "type": "spot", "subType": None, "info": {"orderTypes": ["LIMIT", "MARKET"]}}
    exchange.markets = {"BTC/USDT": market}

    assert offer(exchange, "BTC/USDT") == Offer(stops=False, touches=False, post_only=False)

    market["info"] = {"orderTypes": ["LIMIT_MAKER", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT"]}
    assert offer(exchange, "BTC/USDT") == Offer()


@given(st.integers(1, 10**9), st.sampled_from(["0.00000001", "0.001", "0.25", "1", "5"]))
def test_decimals_are_exact_and_without_exponent(count: int, step: str) -> None:
    text = decimals(count, step)
    assert Decimal(text) == count * Decimal(step)
    assert re.fullmatch(r"[0-9]+(\.[0-9]+)?", text)
