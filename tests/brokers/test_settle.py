"""A start against a real exchange process-to-process: what the journal and the venue know becomes one, through ccxt."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import ccxt
import pytest
from exchange_process import KEY, SECRET, Running, exchange_thread
from killed_trader import AFTER_KILL, BTC, SETTLE, at, killed
from trading_desk import CONFIG, trader, trades

from brokers.journal import NOT_SENT, Journal, KeptOrder
from brokers.local_exchange.config import ExchangeConfig as LocalConfig
from brokers.opening import Opening
from brokers.reconcile import NEVER_ARRIVED, ReconcileConfig, ReconcileError
from brokers.settle import SettleConfig, settle
from brokers.venue_ids import client_id, is_ours
from feeds.errors import FeedError, OfflineError

DEADLINE_S = 60.0
KEYS = {"TEST_KEY": KEY, "TEST_SECRET": SECRET}


class Account:
    """One account at a local exchange, its journal, and the runs on it."""

    def __init__(self, running: Running, path: Path) -> None:
        self.running, self.path = running, path
        self.at = at(running.url)
        self.runs = 0

    @contextmanager
    def run(self) -> Iterator[Journal]:
        with Journal(self.path, durable=False) as journal:
            self.runs = len(journal.runs())
            journal.begin_run(f"r{self.runs}", "local")
            yield journal

    def settle(self, journal: Journal, config: SettleConfig = SETTLE) -> Opening:
        return asyncio.run(asyncio.wait_for(settle(self.at, journal, config, (BTC,)), DEADLINE_S))

    def start(self, config: SettleConfig = SETTLE) -> Opening:
        """A run that begins and ends at once."""
        with self.run() as journal:
            return self.settle(journal, config)

    def trade(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        """Do something with a client of the exchange."""

        async def connected() -> Any:
            async with trader(self.running.url) as client:
                return await work(client)

        return asyncio.run(asyncio.wait_for(connected(), DEADLINE_S))

    def send(
        self, journal: Journal, name: str, side: str, quantity: str, price: str = "", *, arrives: bool = True
    ) -> str | None:
        """Journal an order and send it; the venue's id, None where no answer came."""
        journal.order_sent(
            KeptOrder(
                client_id=client_id(name),
                order_id=name,
                symbol="BTC/USDT",
                side=side,
                order_type="LIMIT" if price else "MARKET",
                quantity=quantity,
                limit_price=price or "0",
                sent_ns=time.time_ns(),
            )
        )

        async def order(client: Any) -> Any:
            kind = "limit" if price else "market"
            params = {"clientOrderId": client_id(name)}
            with suppress(ccxt.NetworkError, ccxt.ExchangeError):
                return await client.create_order("BTC/USDT", kind, side.lower(), quantity, price or None, params)

        answer = self.trade(order) if arrives else None
        if answer is None:
            return None
        journal.order_changed(client_id(name), "ACCEPTED", changed_ns=time.time_ns(), venue_id=answer["id"])
        return str(answer["id"])

    @property
    def truth(self) -> Any:
        """The account as the exchange knows it."""
        return self.running.call(lambda: self.running.exchange.accounts.state())["account 1"]

    def agrees(self, opening: Opening) -> None:
        """Positions, cash and orders are the venue's, each trade of ours is booked once, and no id came twice."""
        truth = self.truth
        held = {asset: Decimal(b["free"]) + Decimal(b["locked"]) for asset, b in truth["balances"].items()}
        with Journal(self.path) as journal:
            baselines, fills, open_orders = journal.baselines(), journal.fills(), journal.open_orders()
        position = sum((Decimal(position.quantity) for position in opening.positions), Decimal())
        assert max(Decimal(baselines["BTC"]), Decimal()) + position == held.get("BTC", 0)
        assert max(Decimal(baselines["USDT"]), Decimal()) + Decimal(opening.cash) == held["USDT"]
        ours = {order["orderId"] for order in truth["orders"] if is_ours(order["clientOrderId"])}
        assert sorted(int(fill.trade_id) for fill in fills) == [
            trade["id"] for trade in truth["trades"] if trade["orderId"] in ours
        ]
        working = {
            order["clientOrderId"]: Decimal(order["origQty"]) - Decimal(order["executedQty"])
            for order in truth["orders"]
            if order["status"] in ("NEW", "PARTIALLY_FILLED") and is_ours(order["clientOrderId"])
        }
        assert {order.client_id for order in open_orders} == set(working)
        assert {client_id(order.order_id): Decimal(order.remaining) for order in opening.orders} == working
        assert set(truth["client_ids"].values()) <= {1}


@contextmanager
def exchange(tmp_path: Path, *prices: float, config: LocalConfig = CONFIG) -> Iterator[Account]:
    """An exchange whose first trade has happened, the others come by `burst`; and our account there."""
    with exchange_thread(config, tapes={"BTC/USDT": trades(*(prices or (60_000.0,)))}) as running:
        yield Account(running, tmp_path / "j")


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setenv("TEST_SECRET", SECRET)


def codes(opening: Opening) -> list[str]:
    return [note.code for note in opening.notes]


def test_a_first_start_sets_the_baselines_and_the_next_finds_nothing_to_do(tmp_path: Path) -> None:
    with exchange(tmp_path) as account:
        opening = account.start()
        assert (opening.cash, opening.positions, codes(opening)) == ("10000", (), ["baseline_set"])
        account.agrees(opening)
        assert account.start() == Opening(cash="10000")


def test_fills_and_ends_of_the_last_run_are_found_and_what_works_goes_on(tmp_path: Path) -> None:
    with exchange(tmp_path, 60_000.0, 50_000.0) as account:
        with account.run() as journal:
            account.settle(journal)
            account.send(journal, "r0-1", "BUY", "0.05")
            account.send(journal, "r0-2", "BUY", "0.02", "55000")
            account.send(journal, "r0-3", "BUY", "0.03", "40000")
        account.running.faults.burst(1)  # to 50000
        opening = account.start()
        assert sorted(codes(opening)) == [
            "fills_booked",
            "fills_booked",
            "order_adopted",
            "order_ended",
            "order_ended",
        ]
        assert [(order.order_id, order.remaining) for order in opening.orders] == [("r0-3", "0.03")]
        # 0.1 % of the first and 0.05 % of the second were the fees
        assert [position.quantity for position in opening.positions] == ["0.06994"]
        assert opening.clean
        account.agrees(opening)
        again = account.start(SettleConfig(found=ReconcileConfig(working="cancel"), recv_window_ms=300))
        assert codes(again) == ["order_cancelled", "order_ended"]
        assert again.cash == opening.cash
        account.agrees(again)


def test_an_order_whose_acknowledgement_was_lost_is_found_by_its_client_id(tmp_path: Path) -> None:
    with exchange(tmp_path) as account:
        with account.run() as journal:
            account.settle(journal)
            account.running.faults.lost_ack(2)
            assert account.send(journal, "r0-1", "BUY", "0.05") is None
            assert account.send(journal, "r0-2", "BUY", "0.05", "40000") is None
            journal.order_changed(client_id("r0-1"), "REJECTED", changed_ns=1, code=NOT_SENT)
        opening = account.start()
        assert [order.order_id for order in opening.orders] == ["r0-2"]
        assert [position.quantity for position in opening.positions] == ["0.04995"]
        assert opening.clean
        account.agrees(opening)


def test_an_order_that_never_arrived_is_given_up_once_the_venue_could_not_take_it_any_more(tmp_path: Path) -> None:
    with exchange(tmp_path) as account:
        with account.run() as journal:
            account.settle(journal)
            account.send(journal, "r0-1", "BUY", "0.05", arrives=False)
        began = time.monotonic()
        opening = account.start(SettleConfig(recv_window_ms=1500))
        assert time.monotonic() - began > 1.5
        assert (codes(opening), opening.orders, opening.clean) == ([NEVER_ARRIVED], (), True)
        account.agrees(opening)
        # It is asked less and less often meanwhile: at Binance twenty looks a second would use a minute's weight up.
        assert account.running.call(lambda: account.running.exchange.requests.count("/api/v3/account")) <= 30


def test_one_that_arrives_while_it_is_waited_for_is_adopted(tmp_path: Path) -> None:
    # What the kernel still held when the process died comes through while the next start already asks.
    with exchange(tmp_path) as account, account.run() as journal:
        account.settle(journal)
        account.send(journal, "r0-1", "BUY", "0.05", "40000", arrives=False)

        async def both() -> Opening:
            async with trader(account.running.url) as client:
                start = asyncio.create_task(settle(account.at, journal, SettleConfig(recv_window_ms=2000), (BTC,)))
                while not asked(account):
                    await asyncio.sleep(0.01)
                params = {"clientOrderId": client_id("r0-1")}
                await client.create_order("BTC/USDT", "limit", "buy", "0.05", "40000", params)
                return await start

        opening = asyncio.run(asyncio.wait_for(both(), DEADLINE_S))
        assert [order.order_id for order in opening.orders] == ["r0-1"]
        account.agrees(opening)


@pytest.mark.parametrize(("policy", "left"), [("cancel", 1), ("adopt", 2)])
def test_strays_are_cancelled_or_adopted_and_a_persons_order_is_left(tmp_path: Path, policy: str, left: int) -> None:
    async def place(client: Any) -> None:
        for name in (client_id("old-1"), "by_hand"):
            await client.create_order("BTC/USDT", "limit", "buy", 0.01, 50_000.0, {"clientOrderId": name})

    with exchange(tmp_path) as account:
        account.trade(place)
        config = SettleConfig(found=ReconcileConfig(strays=policy), recv_window_ms=300)
        opening = account.start(config)
        assert "foreign_order" in codes(opening)
        assert ("stray_adopted" if policy == "adopt" else "stray_cancelled") in codes(opening)
        assert sum(order["status"] == "NEW" for order in account.truth["orders"]) == left
        account.agrees(opening)
        opening = account.start(config)
        assert codes(opening) == (["order_adopted"] if policy == "adopt" else []) + ["foreign_order"]
        account.agrees(opening)


def test_what_a_person_trades_by_hand_is_told_and_left_alone(tmp_path: Path) -> None:
    async def sell(client: Any) -> None:
        await client.create_order("BTC/USDT", "market", "sell", 0.5)

    with exchange(tmp_path) as account:
        account.start()
        account.trade(sell)
        opening = account.start(SettleConfig(recv_window_ms=300, patience_s=0.5))
        assert (codes(opening), opening.clean) == (["balance_differs", "balance_differs"], False)
        assert (opening.cash, opening.positions) == ("10000", ())
        account.agrees(opening)
        assert account.start().clean


def test_balances_of_more_digits_than_a_float_has_are_exact(tmp_path: Path) -> None:
    config = LocalConfig(listings=CONFIG.listings, balances=("USDT=123456789012.12345678", "BTC=0.00000001"))
    with exchange(tmp_path, config=config) as account:
        account.agrees(account.start())
        with Journal(account.path) as journal:
            assert journal.baselines() == {"BTC": "0.00000001", "USDT": "123456779012.12345678"}


def test_a_venue_that_refuses_or_fails_for_a_while_is_asked_again(tmp_path: Path) -> None:
    with exchange(tmp_path) as account:
        account.start()
        for status in (503, 429):
            account.running.faults.http(status, count=3)
            assert account.start() == Opening(cash="10000")


def test_one_that_stays_away_is_offline_and_nothing_is_written(tmp_path: Path) -> None:
    with exchange(tmp_path) as account:
        account.running.faults.outage(60.0)
        with pytest.raises(OfflineError, match="local exchange could not be asked for the account") as failed:
            account.start(SettleConfig(patience_s=0.3))
        assert SECRET not in str(failed.value)
        with Journal(account.path) as journal:
            assert journal.baselines() == {}


def test_a_refused_key_ends_the_start_at_once_and_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SECRET", "another-secret")
    with exchange(tmp_path) as account:
        with pytest.raises(FeedError, match=r"local exchange refuses \(auth\)") as failed:
            account.start()
        assert KEY not in str(failed.value)
        assert "another-secret" not in str(failed.value)


@pytest.mark.parametrize("ms", [-30_000, 30_000])
def test_a_clock_that_differs_from_the_venues_is_allowed_for(tmp_path: Path, ms: int) -> None:
    with exchange(tmp_path) as account:
        account.running.faults.skew(ms)
        assert account.start().clean


def test_less_cash_than_the_run_is_to_have_is_told(tmp_path: Path) -> None:
    config = SettleConfig(found=ReconcileConfig(initial_cash=100_000.01))
    with exchange(tmp_path) as account, pytest.raises(ReconcileError, match="the account has 100000 USDT"):
        account.start(config)


@pytest.mark.parametrize(
    "changed", [{"recv_window_ms": 0}, {"recv_window_ms": 60_001}, {"patience_s": 0.0}, {"patience_s": float("nan")}]
)
def test_a_config_that_cannot_be_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changed))):
        SettleConfig(**changed)


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_a_trader_killed_again_and_again_loses_and_doubles_nothing(tmp_path: Path, kills: int) -> None:
    source = random.Random(7)
    with exchange(tmp_path, config=replace(CONFIG, orders_per_10s=10_000)) as account:
        for _ in range(kills):
            killed(account.running.url, account.path, KEYS, source)
            opening = account.start(AFTER_KILL)
            assert opening.clean, opening.notes
            account.agrees(opening)
        with Journal(account.path) as journal:
            trades = account.truth["trades"]
            bought = sum(Decimal(t["qty"]) * (1 if t["isBuyer"] else -1) for t in trades)
            fees = sum(Decimal(t["commission"]) for t in trades if t["commissionAsset"] == "BTC")
            assert journal.positions().get("BTC/USDT", 0) == bought - fees
            assert len(journal.runs()) == 2 * kills


def test_one_killed_between_the_send_and_its_acknowledgement_finds_its_order(tmp_path: Path) -> None:
    source = random.Random(7)
    with exchange(tmp_path) as account:
        account.running.faults.slow_ack(60_000.0)  # it has the order, and says so after the kill
        said = killed(
            account.running.url,
            account.path,
            KEYS,
            source,
            due=lambda: account.truth["client_ids"].get(client_id("k0-0")) == 1,
        )
        assert said == ["begun", "settled", "sending k0-0"]
        with Journal(account.path) as journal:
            assert [order.state for order in journal.orders()] == ["PENDING"]
        account.running.faults.clear()
        opening = account.start(AFTER_KILL)
        assert opening.clean
        account.agrees(opening)
        with Journal(account.path) as journal:
            assert [order.state in ("ACCEPTED", "FILLED") for order in journal.orders()] == [True]


def asked(account: Account) -> bool:
    """The exchange was asked for an order by its client id."""
    return any(
        request.path == "/api/v3/order" and request.method == "GET"
        for request in account.running.call(lambda: list(account.running.exchange.requests.log))
    )
