"""Client ids: one form for all venues, and ccxt carries it to them and asks for it."""

import asyncio
import re
from pathlib import Path
from typing import Any

import ccxt.pro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.journal import Journal, KeptOrder
from brokers.venue_ids import VENUES, client_id, is_ours

RULES = {
    "Binance": r"[.A-Z:/a-z0-9_-]{1,36}",
    "Bybit": r"[A-Za-z0-9_-]{1,36}",
    "Kraken": r"[ -~]{1,18}",
    "KuCoin": r"[A-Za-z0-9_-]{1,40}",
    "OKX": r"[A-Za-z0-9]{1,32}",
}
GATE = r"t-[A-Za-z0-9._-]{1,28}"
MARKET = {
    "id": "BTCUSDT",
    "symbol": "BTC/USDT",
    "base": "BTC",
    "quote": "USDT",
    "type": "spot",
    "spot": True,
    "precision": {"amount": 1e-5, "price": 0.01},
    "info": {"orderTypes": ["LIMIT", "MARKET"]},
}
ORDER_IDS = st.text(min_size=1, max_size=60)


@given(ORDER_IDS, ORDER_IDS)
def test_an_id_is_what_every_venue_takes_and_differs_as_the_orders_do(one: str, other: str) -> None:
    made = client_id(one)
    assert all(re.fullmatch(rule, made) for rule in RULES.values())
    assert re.fullmatch(GATE, client_id(one, VENUES["gate"]))
    assert (made == client_id(other)) == (one == other)
    assert is_ours(made)
    assert is_ours(client_id(one, VENUES["gate"]))


def test_an_id_lasts_over_versions() -> None:
    # Working orders are found by it after an update; another form would make strays of them.
    assert client_id("live-20240102T143000-BTC/USDT-1") == "tt4e83e4298f8e5c84"


def test_an_id_that_is_one_already_stays_as_it_is() -> None:
    for prefix in VENUES.values():
        assert client_id(client_id("a", prefix), prefix) == client_id("a", prefix)


def test_an_order_needs_an_id() -> None:
    with pytest.raises(ValueError, match="needs an id"):
        client_id("")


@pytest.mark.parametrize("name", ["web_1", "tt", "tt0123", "tt0123456789abcdeg", "xtt0123456789abcdef", "tt-", ""])
def test_a_persons_order_is_not_ours(name: str) -> None:
    assert not is_ours(name)


def test_an_order_of_an_older_journal_is_ours_and_still_found_by_its_own_name(tmp_path: Path) -> None:
    name = "tt-live-20240102T143000-BTC/USDT-1"
    assert is_ours(name)
    with Journal(tmp_path / "j") as journal:
        journal.begin_run("r0", "binance live")
        journal.order_sent(
            KeptOrder(
                client_id=name, order_id=name[3:], symbol="BTC/USDT", side="BUY", order_type="LIMIT", quantity="1",
                sent_ns=1, limit_price="1",
            )
        )  # fmt: skip
    with Journal(tmp_path / "j", create=False) as journal:
        (kept,) = journal.open_orders()
    assert (kept.client_id, kept.order_id) == (name, name[3:])


@pytest.mark.parametrize("name", VENUES)
def test_ccxt_sends_an_id_and_asks_for_it_as_it_is(name: str) -> None:
    wanted = client_id("run-BTC/USDT-1", VENUES[name])
    word = re.compile(rf"(?<![\w-]){wanted}(?![\w-])")
    sent: list[str] = []

    async def requests() -> list[str]:
        keys = {"apiKey": "key", "secret": "secret", "password": "password"}
        exchange: Any = getattr(ccxt.pro, name)({**keys, "enableRateLimit": False})
        exchange.set_markets([exchange.safe_market_structure(MARKET)])

        async def fetch(url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
            if word.search(f"{url} {body}"):
                sent.append(method)
                raise ccxt.NetworkError("seen")
            return {"code": "200000", "data": {}}  # what KuCoin is asked of the kind of account first

        exchange.fetch = fetch
        params = {"clientOrderId": wanted}
        for ask in (
            lambda: exchange.create_order("BTC/USDT", "limit", "buy", "0.1", "60000", params),
            lambda: exchange.fetch_order("", "BTC/USDT", params),
        ):
            with pytest.raises(ccxt.NetworkError, match="seen"):
                await ask()
        await exchange.close()
        return sent

    assert asyncio.run(requests()) == ["POST", "GET"]
