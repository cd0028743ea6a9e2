"""The JSON of market data, as Binance's websocket and REST say it.

Source: Binance spot API, "WebSocket Streams" and "Market Data endpoints".
"""

import json
from collections.abc import Iterable
from typing import Any

from brokers.local_exchange.amounts import ATOMS, text
from brokers.local_exchange.market import AGGREGATE_OFFSET, Depth, Kline, Market, Quote, Traded

_TRUTH = ("false", "true")
Row = tuple[int, int]  # (price, size)


def trade(market: Market, told: Traded, now_ms: int) -> str:
    """A trade on its stream."""
    return (
        f'{{"e":"trade","E":{now_ms},"s":"{market.id}","t":{told.id},"p":"{text(told.price)}","q":"{text(told.size)}",'
        f'"T":{told.time_ms},"m":{_TRUTH[told.buyer_maker]},"M":true}}'
    )


def aggregate(market: Market, told: Traded, now_ms: int) -> str:
    """A trade as an aggregate of one."""
    return (
        f'{{"e":"aggTrade","E":{now_ms},"s":"{market.id}","a":{told.id + AGGREGATE_OFFSET},"p":"{text(told.price)}",'
        f'"q":"{text(told.size)}","f":{told.id},"l":{told.id},"T":{told.time_ms},"m":{_TRUTH[told.buyer_maker]},"M":true}}'
    )


def book_ticker(market: Market, quote: Quote) -> str:
    """The best bid and ask on their stream: no event, no time, as at Binance."""
    return (
        f'{{"u":{quote.version},"s":"{market.id}","b":"{text(quote.bid)}","B":"{text(quote.bid_size)}",'
        f'"a":"{text(quote.ask)}","A":"{text(quote.ask_size)}"}}'
    )


def kline(market: Market, interval: str, bar: Kline, closed: bool, now_ms: int) -> str:
    """A bar on its stream."""
    body = {
        "t": bar.open_ms,
        "T": bar.close_ms,
        "s": market.id,
        "i": interval,
        "f": bar.first_id,
        "L": bar.last_id,
        "o": text(bar.open),
        "c": text(bar.close),
        "h": text(bar.high),
        "l": text(bar.low),
        "v": text(bar.volume),
        "n": bar.trades,
        "x": closed,
        "q": money(bar.quote_volume),
        "V": text(bar.buy_volume),
        "Q": money(bar.buy_quote_volume),
        "B": "0",
    }
    return dumped({"e": "kline", "E": now_ms, "s": market.id, "k": body})


def kline_row(bar: Kline) -> list[int | str]:
    """A bar as REST gives it."""
    return [
        bar.open_ms,
        text(bar.open),
        text(bar.high),
        text(bar.low),
        text(bar.close),
        text(bar.volume),
        bar.close_ms,
        money(bar.quote_volume),
        bar.trades,
        text(bar.buy_volume),
        money(bar.buy_quote_volume),
        "0",
    ]


def depth_update(market: Market, first: int, last: int, bids: Iterable[Row], asks: Iterable[Row], now_ms: int) -> str:
    """What has changed in the book since the update before `first`; a size of 0 deletes a level."""
    head = {"e": "depthUpdate", "E": now_ms, "s": market.id, "U": first, "u": last}
    return dumped(head | {"b": rows(bids), "a": rows(asks)})


def depth(book: Depth, levels: int) -> dict[str, Any]:
    """The book, of REST and of the streams of its first levels."""
    return {"lastUpdateId": book.version, "bids": rows(book.bids[:levels]), "asks": rows(book.asks[:levels])}


def rows(levels: Iterable[Row]) -> list[list[str]]:
    """Levels as pairs of decimals."""
    return [[text(price), text(size)] for price, size in levels]


def mini_ticker(market: Market, day: Kline, now_ms: int) -> str:
    """The day on the stream of the few figures."""
    head = {"e": "24hrMiniTicker", "E": now_ms, "s": market.id, "c": text(day.close), "o": text(day.open)}
    return dumped(head | {"h": text(day.high), "l": text(day.low), "v": text(day.volume), "q": money(day.quote_volume)})


def ticker(market: Market, day: Kline, now_ms: int) -> str:
    """The day on the stream of all figures."""
    figures = day_figures(market, day)
    short = {
        "p": "priceChange",
        "P": "priceChangePercent",
        "w": "weightedAvgPrice",
        "x": "prevClosePrice",
        "c": "lastPrice",
        "Q": "lastQty",
        "b": "bidPrice",
        "B": "bidQty",
        "a": "askPrice",
        "A": "askQty",
        "o": "openPrice",
        "h": "highPrice",
        "l": "lowPrice",
        "v": "volume",
        "q": "quoteVolume",
        "O": "openTime",
        "C": "closeTime",
        "F": "firstId",
        "L": "lastId",
        "n": "count",
    }
    head = {"e": "24hrTicker", "E": now_ms, "s": market.id}
    return dumped(head | {key: figures[name] for key, name in short.items()})


def day_figures(market: Market, day: Kline) -> dict[str, Any]:
    """The day as REST gives it."""
    quote, change = market.quote(), day.close - day.open
    average = day.quote_volume // day.volume if day.volume else day.close
    percent = round(100_000 * change / day.open)  # in 1e-3
    return {
        "symbol": market.id,
        "priceChange": text(change),
        "priceChangePercent": f"{percent / 1000:.3f}",
        "weightedAvgPrice": text(average),
        "prevClosePrice": text(day.open),
        "lastPrice": text(day.close),
        "lastQty": text(market.trade(market.emitted).size) if market.emitted else text(0),
        "bidPrice": text(quote.bid),
        "bidQty": text(quote.bid_size),
        "askPrice": text(quote.ask),
        "askQty": text(quote.ask_size),
        "openPrice": text(day.open),
        "highPrice": text(day.high),
        "lowPrice": text(day.low),
        "volume": text(day.volume),
        "quoteVolume": money(day.quote_volume),
        "openTime": day.open_ms,
        "closeTime": day.close_ms,
        "firstId": day.first_id,
        "lastId": day.last_id,
        "count": day.trades,
    }


def money(squares: int) -> str:
    """1e-16 of the quote currency, with 8 decimals, the rest dropped."""
    return text(squares // ATOMS)


def dumped(message: dict[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))
