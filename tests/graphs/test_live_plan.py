"""What is made ready before a live run."""

import asyncio
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from exchange_process import KEY, SECRET, exchange_thread
from trading_desk import CONFIG, trader, trades

from brokers.journal import Journal, KeptFill, KeptOrder
from brokers.venue_config import VenueConfig
from configs.load import ConfigError
from feeds.crypto import CryptoConfig
from feeds.errors import FeedError
from feeds.exchange import ExchangeConfig
from feeds.instruments import Instrument
from graphs import live_plan
from graphs.live_config import LiveConfig
from graphs.live_plan import Prepared, prepare, unused
from nodes.risk import RiskConfig

PAIR = "BTC/USDT"


def test_runs_that_begin_within_one_second_have_ids_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "j"
    names = []
    for _ in range(3):
        with Journal(path) as journal:
            names.append(unused("live-20240102T143000", journal))
            journal.begin_run(names[-1], "paper")
    assert names == ["live-20240102T143000", "live-20240102T143000.2", "live-20240102T143000.3"]


def prepared(journal: Path, *, dry_run: bool = False, **fields: Any) -> Prepared:
    """Of a run on paper that asks nothing of a network."""
    config = LiveConfig(
        crypto=(CryptoConfig(symbols=(PAIR,)),),
        instruments=(Instrument(symbol=PAIR, tick="0.01", lot="0.001", currency="USDT"),),
        journal=str(journal),
        warmup_bars=0,
        initial_cash=10_000.0,
        **fields,
    )
    return prepare(config, duration_s=None, dry_run=dry_run, live_money=False, say=print, confirm=lambda _: False)


@pytest.mark.parametrize("orders", ["paper", "venue"])
def test_a_dry_run_begins_with_what_a_run_would_and_leaves_the_journal_alone(
    tmp_path: Path, orders: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.begin_run("before", "paper")
        journal.fill(
            KeptFill(symbol=PAIR, trade_id="1", order_id="0", side="BUY", quantity="0.5", price="100", time_ns=1)
        )
        journal.order_sent(
            KeptOrder(
                client_id="tt-1", order_id="1", symbol=PAIR, side="BUY", order_type="LIMIT", quantity="1", sent_ns=1
            )
        )
        journal.save_risk(99_950.0, "2026-01-02", 98_000.0)
        journal.end_run()
    real = prepared(path)
    real.close("stop")
    with Journal(path) as journal:
        journal.halt("drawdown", "too deep", datetime(2026, 1, 1), value=0.5, limit=0.3, equity=1.0)
    at = VenueConfig(at=ExchangeConfig(url="http://127.0.0.1:9"))  # whom nobody asks

    with Journal(path) as running:
        running.begin_run("beside it", "paper")
        ready = prepared(path, dry_run=True, orders=orders, venue=at, risk=RiskConfig(cash_only=True))
        ready.close("stop")
        runs = running.runs()
        running.end_run()

    assert ready.plan.opening == real.plan.opening
    assert ready.plan.opening is not None
    assert [p.quantity for p in ready.plan.opening.positions] == ["0.5"]
    assert (ready.plan.opening.equity_peak, ready.plan.opening.day_start) == (99_950.0, 98_000.0)
    assert ready.plan.halted
    assert [run.run_id for run in runs][-1] == "beside it"
    told = "a dry run begins with what the journal holds, but for 1 orders that may work there: local exchange is not"
    assert (told in capsys.readouterr().out) is (orders == "venue")


@pytest.mark.parametrize(
    ("policy", "codes"), [("adopt", ["order_adopted"]), ("cancel", ["order_cancelled", "order_ended"])]
)
def test_what_works_at_a_start_goes_on_or_not_as_the_config_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, codes: list[str]
) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setenv("TEST_SECRET", SECRET)
    path = tmp_path / "j"

    async def place(url: str) -> str:
        async with trader(url) as client:
            params = {"clientOrderId": "tt-between-1"}
            return str((await client.create_order(PAIR, "limit", "buy", 0.01, 40_000, params))["id"])

    with exchange_thread(CONFIG, tapes={PAIR: trades(60_000.0)}) as running:
        at = ExchangeConfig(url=running.url, key_env="TEST_KEY", secret_env="TEST_SECRET")
        venue = VenueConfig(at=at, working=policy, recv_window_ms=300)
        fields: dict[str, Any] = {"orders": "venue", "venue": venue, "risk": RiskConfig(cash_only=True)}
        prepared(path, **fields).close("stop")
        with Journal(path) as journal:
            journal.begin_run("between", "local exchange test")
            order = KeptOrder(
                client_id="tt-between-1", order_id="between-1", symbol=PAIR, side="BUY", order_type="LIMIT",
                quantity="0.01", limit_price="40000", sent_ns=1,
            )  # fmt: skip
            journal.order_sent(order)
            journal.order_changed("tt-between-1", "ACCEPTED", changed_ns=1, venue_id=asyncio.run(place(running.url)))

        ready = prepared(path, **fields)
        ready.close("stop")

        assert ready.plan.opening is not None
        assert [note.code for note in ready.plan.opening.notes] == codes
        assert len(ready.plan.opening.orders) == (policy == "adopt")


@pytest.mark.parametrize("ends", [False, True])
def test_what_became_of_a_stop_while_a_run_waited_for_its_feeds_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.begin_run("before", "paper")
        if ends:
            journal.halt("drawdown", "too deep", datetime(2026, 1, 1), value=0.5, limit=0.3, equity=1.0)

    def history(*_: Any) -> tuple[()]:
        with Journal(path) as journal:
            if ends:
                journal.reset("a person", datetime(2026, 1, 2))
            else:
                journal.halt("drawdown", "too deep", datetime(2026, 1, 1), value=0.5, limit=0.3, equity=1.0)
        return ()

    monkeypatch.setattr(live_plan, "_history", history)
    ready = prepared(path)
    ready.close("stop")
    assert ready.plan.halted is not ends


def test_a_run_that_never_began_is_not_taken_for_one_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(live_plan, "paper_opening", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path / "j")
    with Journal(tmp_path / "j") as journal:
        assert [run.outcome for run in journal.runs()] == ["did not begin"]


def test_what_the_config_wants_of_this_machine_is_looked_for_before_a_venue_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GONE_KEY", raising=False)
    at = ExchangeConfig(url="http://127.0.0.1:9", key_env="GONE_KEY", secret_env="GONE_SECRET")
    feeds = (CryptoConfig(symbols=(PAIR,), at=at),)
    risk = RiskConfig(cash_only=True)
    config = LiveConfig(crypto=feeds, orders="venue", venue=VenueConfig(at=at), journal=str(tmp_path / "j"), risk=risk)
    asked: dict[str, Any] = {"duration_s": None, "live_money": False, "say": pytest.fail, "confirm": pytest.fail}
    with pytest.raises(FeedError, match="GONE_KEY is not set"):
        prepare(config, dry_run=False, **asked)
    with pytest.raises(ConfigError, match=r"the folder .*no.such of the journal .* does not exist"):
        prepare(replace(config, journal=str(tmp_path / "no" / "such" / "j")), dry_run=True, **asked)
