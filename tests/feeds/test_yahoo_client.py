"""What Yahoo refuses and how the client says so, end to end: the real yfinance against a Yahoo on 127.0.0.1."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yfinance as yf

from feeds.errors import FeedError, OfflineError, RateLimitError, UnknownSymbolError
from feeds.yahoo import cache_path
from tests.feeds.yahoo_server import Desk, bars, closed_port, desk_at

NOW = datetime(2024, 7, 2, 15, 10, 7)  # a Tuesday, 11:10 in New York


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with desk_at(NOW, tmp_path / "cache") as desk:
        yield desk


def test_a_split_does_not_destroy_bars_that_yahoo_no_longer_serves(desk: Desk) -> None:
    desk.server.now = datetime(2024, 6, 7, 12, tzinfo=UTC)
    before = desk.fetch("NVDA", "1m", "2024-05-20", "2024-05-21")
    desk.server.now = NOW.replace(tzinfo=UTC)

    with pytest.raises(FeedError, match=r"NVDA has split: move .*NVDA_1m\.parquet away"):
        desk.fetch("NVDA", "1m", "2024-06-27", "2024-06-28")
    assert bars(cache_path(desk.folder, "NVDA", "1m")) == before


def test_too_many_requests_say_so_and_keep_what_was_fetched(desk: Desk) -> None:
    desk.fetch("AAPL", "1h", "2024-06-27", "2024-06-28")
    desk.server.refusal = (429, "Too Many Requests\r\n")

    with pytest.raises(RateLimitError, match=r"NVDA: .*HTTP 429.*Wait some minutes"):
        desk.paths(["AAPL", "NVDA"], "1h", "2024-06-27", "2024-06-28")

    desk.server.refusal = None
    assert len(desk.fetch("NVDA", "1h", "2024-06-27", "2024-06-28")) == 7  # the refusal is not remembered


@pytest.mark.parametrize("shape", ["404", "200 with an empty quote", "404 for a symbol known before"])
def test_an_unknown_symbol_says_so_in_every_shape_of_the_answer(desk: Desk, shape: str) -> None:
    symbol = "APPL" if "empty" in shape else "NOSUCH"
    if "empty" in shape:
        desk.server.stubs.add(symbol)
    if "before" in shape:
        symbol = "7203.T"
        desk.fetch(symbol, "1d", "2024-06-03", "2024-06-05")
        del desk.server.listings[symbol]

    with pytest.raises(UnknownSymbolError, match=f"{symbol}: Yahoo has no such symbol"):
        desk.fetch(symbol, "1d", "2024-06-10", "2024-06-20")


def test_offline_says_so_and_names_what_the_cache_has(desk: Desk) -> None:
    desk.fetch("AAPL", "1h", "2024-06-27", "2024-06-28")
    desk.session.port = closed_port()

    assert len(desk.fetch("AAPL", "1h", "2024-06-27", "2024-06-28")) == 7
    with pytest.raises(OfflineError, match=r"could not be reached.*holds 2024-06-27 00:00:00 to 2024-06-28 00:00:00"):
        desk.fetch("AAPL", "1h", "2024-06-26", "2024-06-28")
    with pytest.raises(OfflineError, match=r"NVDA: Yahoo could not be reached.*holds nothing"):
        desk.fetch("NVDA", "1h", "2024-06-26", "2024-06-28")


def test_a_page_in_place_of_an_answer_is_a_feed_error(desk: Desk) -> None:
    desk.fetch("AAPL", "1h", "2024-06-27", "2024-06-28")
    for refusal in (
        (500, "<html>oops</html>"),
        (200, "Will be right back"),
        (200, "[]"),
        (200, '{"chart":{"result":[{"meta":{},"indicators":{"quote":[{"open":[1]}]}}],"error":null}}'),
        (401, '{"finance":{"result":null,"error":{"code":"Unauthorized","description":"Invalid Crumb"}}}'),
        (500, '{"chart":{"result":null,"error":{"code":"Internal Server Error","description":"went wrong"}}}'),
    ):
        desk.server.refusal = refusal
        with pytest.raises(FeedError, match="AAPL: ") as caught:
            desk.fetch("AAPL", "1h", "2024-06-26", "2024-06-28")
        assert type(caught.value) is FeedError, refusal
    assert desk.facts("AAPL", "1h")["windows"] == [["2024-06-27T00:00:00", "2024-06-28T00:00:00"]]


def test_nothing_goes_past_the_session_and_the_client_is_left_as_it_was(desk: Desk) -> None:
    before = yf.config.debug.hide_exceptions, yf.config.network.retries, logging.getLogger("yfinance").level
    desk.fetch("AAPL", "1h", "2024-06-27", "2024-06-28")

    assert desk.session.hosts <= {
        f"{name}.yahoo.com" for name in ("fc", "guce", "consent", "query1.finance", "query2.finance")
    }
    after = yf.config.debug.hide_exceptions, yf.config.network.retries, logging.getLogger("yfinance").level
    assert after == before


def test_the_command_offline_fails_in_one_line_with_the_session_of_everyday_use(tmp_path: Path) -> None:
    proxy = f"http://127.0.0.1:{closed_port()}"  # the only way out, and shut
    env = {**os.environ, "HTTPS_PROXY": proxy, "HTTP_PROXY": proxy, "ALL_PROXY": proxy, "NO_PROXY": ""}
    env |= {name.lower(): env[name] for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")}
    start = (datetime.now(UTC) - timedelta(days=5)).date().isoformat()
    command = [sys.executable, "-m", "feeds.yahoo", "AAPL", "--start", start, "--retries", "0"]

    done = subprocess.run([*command, "--cache-dir", str(tmp_path)], env=env, capture_output=True, text=True, timeout=60)

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: AAPL: Yahoo could not be reached")
    assert len(done.stderr.splitlines()) == 1


def test_a_window_of_minutes_without_a_session_is_only_empty(desk: Desk) -> None:
    with pytest.raises(FeedError, match="Yahoo has no 1m bars of AAPL from"):
        desk.fetch("AAPL", "1m", "2024-06-29T12:00", "2024-06-30")
