"""What is made ready before a live run."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from brokers.journal import Journal
from brokers.venue import VenueConfig
from brokers.venue_ids import client_id
from configs.load import ConfigError
from feeds.crypto import CryptoConfig
from feeds.errors import FeedError
from feeds.exchange import ExchangeConfig
from feeds.instruments import Instrument
from graphs import live_plan
from graphs.live_config import LiveConfig
from graphs.live_plan import Prepared, prepare, unused

PAIR = "BTC/USDT"


def test_runs_that_begin_within_one_second_have_ids_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "j"
    names = []
    for _ in range(3):
        with Journal(path) as journal:
            names.append(unused("live-20240102T143000", journal))
            journal.begin_run(names[-1], "paper")
    assert names == ["live-20240102T143000", "live-20240102T143000.2", "live-20240102T143000.3"]
    assert client_id(f"{names[1]}-A-1") == f"tt-{names[1]}-A-1"  # a venue takes it as it is


def prepared(journal: Path) -> Prepared:
    """Of a run on paper that asks nothing of a network."""
    config = LiveConfig(
        crypto=(CryptoConfig(symbols=(PAIR,)),),
        instruments=(Instrument(symbol=PAIR, tick="0.01", lot="0.001", currency="USDT"),),
        journal=str(journal),
        warmup_bars=0,
    )
    return prepare(config, duration_s=None, dry_run=False, live_money=False, say=print, confirm=lambda _: False)


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
    config = LiveConfig(crypto=feeds, orders="venue", venue=VenueConfig(at=at), journal=str(tmp_path / "j"))
    asked: dict[str, Any] = {"duration_s": None, "live_money": False, "say": pytest.fail, "confirm": pytest.fail}
    with pytest.raises(FeedError, match="GONE_KEY is not set"):
        prepare(config, dry_run=False, **asked)
    with pytest.raises(ConfigError, match=r"the folder .*no.such of the journal .* does not exist"):
        prepare(replace(config, journal=str(tmp_path / "no" / "such" / "j")), dry_run=True, **asked)
