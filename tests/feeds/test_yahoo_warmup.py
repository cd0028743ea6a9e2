"""The bars that a live run begins with: the real yfinance against a Yahoo on 127.0.0.1."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from feeds.errors import FeedError, OfflineError
from feeds.events import Bar
from feeds.yahoo_live import YahooLiveConfig, warmup
from tests.feeds.yahoo_server import Desk, closed_port, desk_at

NOW = datetime(2024, 7, 2, 15, 10, 7)  # a Tuesday, 11:10 in New York


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with desk_at(NOW, tmp_path / "cache") as desk:
        yield desk


def config(desk: Desk, *symbols: str) -> YahooLiveConfig:
    return YahooLiveConfig(symbols=symbols or ("AAPL",), cache_dir=str(desk.folder))


@pytest.mark.parametrize(
    ("bar", "count", "first"),
    [("1m", 500, "06-28 19:51"), ("1h", 30, "06-25 20:00"), ("1d", 20, "06-03 20:00"), ("30m", 3, "07-02 14:00")],
)
def test_a_warm_up_has_the_last_bars_that_are_finished(desk: Desk, bar: str, count: int, first: str) -> None:
    found = warmup(config(desk, "aapl", "NVDA"), bar, count, session=desk.session, now=NOW)

    assert list(found) == ["AAPL", "NVDA"]
    for symbol, bars in found.items():
        assert len(bars) == count
        assert {b.symbol for b in bars} == {symbol}
        assert all(a.event_time <= b.open_time for a, b in pairwise(bars))
        assert all(b.received == Bar().received for b in bars)  # history
    assert f"{found['AAPL'][0].event_time:%m-%d %H:%M}" == first
    assert found["AAPL"][-1].event_time <= NOW - timedelta(seconds=5)


def test_a_warm_up_of_a_young_stock_is_shorter(desk: Desk) -> None:
    desk.server.listings["AAPL"].first_day = date(2024, 6, 28)

    assert len(warmup(config(desk), "1d", 50, session=desk.session, now=NOW)["AAPL"]) == 2


def test_a_warm_up_without_a_network_says_so_in_one_line(desk: Desk) -> None:
    desk.session.port = closed_port()

    with pytest.raises(OfflineError, match="AAPL: Yahoo could not be reached") as caught:
        warmup(config(desk), "1m", 10, session=desk.session, now=NOW)
    assert "\n" not in str(caught.value)


def test_a_warm_up_refuses_what_it_cannot_do(desk: Desk) -> None:
    with pytest.raises(ValueError, match=r"bar must be one of 1m .* 1d, was '1wk'"):
        warmup(config(desk), "1wk", 10)
    with pytest.raises(ValueError, match="count must be at least one, was 0"):
        warmup(config(desk), "1m", 0)
    desk.server.listings["AAPL"].first_day = date(2024, 7, 3)
    with pytest.raises(FeedError, match="AAPL: "):
        warmup(config(desk), "1m", 10, session=desk.session, now=NOW)
