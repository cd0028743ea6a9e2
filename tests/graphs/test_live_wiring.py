"""What the live graph gives to what trades in it."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import csp
import pytest

from brokers.venue_config import VenueConfig
from feeds.crypto import CryptoConfig
from feeds.events import Bar
from feeds.exchange import ExchangeConfig
from feeds.instruments import Instrument
from feeds.record import Inputs, ReplayedInputs
from feeds.yahoo_live import YahooLiveConfig
from graphs import live_feeds
from graphs.live import Ends, LivePlan, live_graph
from graphs.live_config import LiveConfig
from graphs.live_plan import trading_of
from nodes.risk import RiskConfig

START = datetime(2026, 11, 2, 15)


class Silent(ReplayedInputs):
    """Edges that never tick."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"))

    def edge(self, name: str, kind: type, make: Any) -> Any:
        return csp.null_ts(kind)


class Wired(Exception):  # noqa: N818 - no error: the feeds, and the graph need not be finished
    pass


def required(**fields: Any) -> Any:
    """By symbol, the feeds that it cannot be traded without."""
    config = LiveConfig(crypto=(CryptoConfig(symbols=("BTC/USDT",), streams=("trades", "quotes")),), **fields)
    instruments = (Instrument(symbol="BTC/USDT", tick="0.01", lot="0.001", currency="USDT"),)
    plan = LivePlan(config=config, trading=trading_of(config, instruments), run_id="r", start=START)

    def system(feeds: Any, *_: Any, **__: Any) -> Any:
        raise Wired(feeds.required)

    ends = Ends(inputs=Silent(), stop=lambda: None)
    with pytest.raises(Wired) as wired:
        csp.build_graph(live_graph, plan, ends, system, starttime=START, endtime=timedelta(seconds=1))
    return wired.value.args[0]


def test_nothing_is_wanted_of_a_venue_before_it_takes_orders() -> None:
    # It would be refused: an alert about nothing.
    at = ExchangeConfig(url="http://127.0.0.1:8765")
    feeds = ("binance trades", "binance quotes")
    assert required() == {"BTC/USDT": feeds}
    risk = RiskConfig(cash_only=True)
    at_venue = required(orders="venue", journal="j", venue=VenueConfig(at=at), risk=risk)
    assert at_venue == {"BTC/USDT": (*feeds, "local exchange orders")}


def test_every_feed_goes_on_where_the_history_of_its_symbols_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: dict[str, Any] = {}

    class Adapter:
        def edge(self, output: str) -> Any:
            return csp.null_ts(live_feeds._KINDS.get(output, live_feeds.FeedStatus))

    def made(source: str) -> Any:
        return lambda config, since=None: begun.update({source: since}) or Adapter()

    monkeypatch.setattr(live_feeds, "crypto_feed", made("crypto"))
    monkeypatch.setattr(live_feeds, "yahoo_feed", made("yahoo"))
    config = LiveConfig(
        crypto=(CryptoConfig(symbols=("BTC/USDT",)),), yahoo=(YahooLiveConfig(symbols=("aapl",), streams=("bars",)),)
    )
    warm = [_bar(symbol, minute) for minute in (1, 2) for symbol in ("AAPL", "BTC/USDT")]

    def graph() -> None:
        live_feeds.live_feeds(config, (), Inputs(), warm)

    csp.build_graph(graph, starttime=START, endtime=timedelta(seconds=1))
    end = START + timedelta(minutes=2)
    assert begun == {"crypto": {"BTC/USDT": end}, "yahoo": {"AAPL": end}}


def _bar(symbol: str, minute: int) -> Bar:
    close = START + timedelta(minutes=minute)
    fields = dict.fromkeys(("open", "high", "low", "close", "volume"), 1.0)
    return Bar(symbol=symbol, event_time=close, open_time=close - timedelta(minutes=1), **fields)
