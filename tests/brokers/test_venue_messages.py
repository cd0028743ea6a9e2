"""ccxt's dictionaries in lots and ticks, and those that cannot be."""

import math
from typing import Any

import pytest

from brokers.venue_messages import Execution, Market, MessageError, Snapshot, execution, snapshot
from feeds.events import Side
from feeds.instruments import Instrument

BTC = Instrument(
    symbol="BTC/USDT",
    tick="0.01",
    lot="0.001",
    currency="USDT",
    currency_unit="0.00000001",
    base_unit="0.00000001",
    fees_in="received",
)
MARKETS = {"BTC/USDT": Market.of(BTC, "BTC", "USDT")}
ORDER = {"id": "7", "clientOrderId": "tt-a", "symbol": "BTC/USDT", "status": "open", "filled": 0.002}
TRADE = {
    "id": "9",
    "order": "7",
    "symbol": "BTC/USDT",
    "side": "sell",
    "price": 100.01,
    "amount": 0.003,
    "timestamp": 1_700_000_000_123,
    "takerOrMaker": "maker",
    "fee": {"cost": 0.00030003, "currency": "USDT"},
}


def test_an_order_and_a_trade_are_read() -> None:
    assert snapshot(ORDER, MARKETS) == Snapshot("tt-a", "7", "BTC/USDT", "open", 2)
    assert execution(TRADE, MARKETS) == Execution(
        trade_id="9",
        venue_id="7",
        symbol="BTC/USDT",
        side=Side.SELL,
        lots=3,
        ticks=10_001,
        fee=0.00030003,
        base_fee=0.0,
        other_fee="",
        maker=True,
        time_ms=1_700_000_000_123,
    )


@pytest.mark.parametrize(
    ("status", "state"), [(None, "open"), ("canceling", "open"), ("closed", "closed"), ("expired", "expired")]
)
def test_states_are_few(status: str | None, state: str) -> None:
    read = snapshot({**ORDER, "status": status}, MARKETS)
    assert read is not None
    assert read.state == state


def test_what_is_of_no_symbol_of_ours_is_nothing() -> None:
    assert snapshot({**ORDER, "symbol": "ETH/USDT"}, MARKETS) is None
    assert execution({**TRADE, "symbol": None}, MARKETS) is None


@pytest.mark.parametrize(
    ("fees", "fee", "base_fee", "other"),
    [
        ([{"cost": 1e-6, "currency": "BTC"}], 0.0, 1e-6, ""),
        ([{"cost": 0.5, "currency": "USDT"}, {"cost": 1e-7, "currency": "BTC"}], 0.5, 1e-7, ""),
        ([{"cost": 0.0001, "currency": "BNB"}], 0.0, 0.0, "0.0001 BNB"),
        ([{"cost": None, "currency": None}], 0.0, 0.0, ""),
        ([{"cost": 1.23456789012, "currency": "USDT"}], 1.23456789, 0.0, ""),  # to the nearest unit
    ],
)
def test_fees_are_told_apart_by_currency(fees: list[Any], fee: float, base_fee: float, other: str) -> None:
    read = execution({**TRADE, "fee": None, "fees": fees}, MARKETS)
    assert read is not None
    assert (read.fee, read.base_fee, read.other_fee) == (fee, base_fee, other)


@pytest.mark.parametrize(
    "change",
    [
        {"id": None},
        {"order": None},
        {"side": "both"},
        {"timestamp": None},
        {"timestamp": -1},
        {"timestamp": 10**18},
        {"price": math.nan},
        {"price": -100.0},
        {"price": 0.0},
        {"price": 100.001},
        {"price": "100.01"},
        {"amount": math.inf},
        {"amount": 0.0},
        {"amount": 0.0005},
        {"amount": True},
        {"fee": {"cost": math.nan, "currency": "USDT"}},
    ],
)
def test_a_trade_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        execution({**TRADE, **change}, MARKETS)


@pytest.mark.parametrize(
    "change", [{"id": None, "clientOrderId": None}, {"status": "lost"}, {"filled": -0.001}, {"filled": math.nan}]
)
def test_an_order_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        snapshot({**ORDER, **change}, MARKETS)
