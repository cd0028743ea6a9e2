"""Bars to tokens in the graph: as the codec's own stream, gaps counted, and nothing of the future."""

from datetime import timedelta
from typing import Any

import csp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from price_checkpoint import small_codec
from support import T0
from tokenizer_bars import rows, walk

from feeds.events import Bar
from nodes.tokenize import tokenize
from tokenizer.codec import Codec

HOUR = timedelta(hours=1)
MONDAY = T0.replace(hour=0, minute=0) - timedelta(days=1)  # 2024-01-01


@pytest.fixture(scope="module")
def codec() -> Codec:
    return small_codec()


def bar(closed_h: float, row: tuple[float, ...]) -> Bar:
    closed = MONDAY + closed_h * HOUR
    names = ("open", "high", "low", "close", "volume")
    return Bar(symbol="X", event_time=closed, open_time=closed - HOUR, **dict(zip(names, row, strict=True)))


def tokens(bars: list[Bar], *codecs: Codec, calendar: str = "24/7", missing_max: int = 3) -> dict[str, Any]:
    def graph() -> dict[str, Any]:
        edge = csp.curve(Bar, [(each.event_time, each) for each in bars])
        out = tokenize(edge, "X", codecs, HOUR, calendar, missing_max)
        return {"frame": out.frame, "error": out.error}

    def wired() -> None:
        for name, edge in graph().items():
            csp.add_graph_output(name, edge)

    return csp.run(wired, starttime=MONDAY, endtime=MONDAY + timedelta(days=400))


def test_tokens_are_those_of_the_codec_and_come_with_the_bar(codec: Codec) -> None:
    series = walk(120, seed=5)
    bars = [bar(i + 1, row) for i, row in enumerate(rows(series))]

    out = tokens(bars, codec)

    encoded = codec.encode(series)
    warm = codec.config.features.warmup_bars
    assert [frame.tokens for _, frame in out["frame"]] == [[t] for t in encoded.tokens[warm:].tolist()]
    assert [when for when, _ in out["frame"]] == [each.event_time for each in bars[warm:]]
    first = out["frame"][0][1]
    assert (first.symbol, first.asof, first.missing) == ("X", bars[warm].event_time, 0)
    assert first.hour == warm + 1  # Monday's first bar closes at hour 1
    assert first.scale == pytest.approx(encoded.scale[warm + 1])  # of the next bar
    assert out["error"] == []


def test_several_codecs_give_a_token_each(codec: Codec) -> None:
    other = small_codec(seed=1)
    series = walk(60, seed=6)
    bars = [bar(i + 1, row) for i, row in enumerate(rows(series))]

    out = tokens(bars, codec, other)

    wanted = zip(codec.encode(series).tokens.tolist(), other.encode(series).tokens.tolist(), strict=True)
    assert [tuple(frame.tokens) for _, frame in out["frame"]] == list(wanted)[32:]


def test_missing_bars_are_counted_up_to_one_more_than_is_bridged(codec: Codec) -> None:
    given = rows(walk(40, seed=7))
    closes = [*range(1, 36), 37, 40, 60, 61, 62]  # one is missing, two, nineteen

    out = tokens([bar(h, row) for h, row in zip(closes, given, strict=True)], codec)

    assert [frame.missing for _, frame in out["frame"]] == [0, 0, 0, 1, 2, 4, 0, 0]


def test_a_night_and_a_weekend_are_no_hole_for_a_stock(codec: Codec) -> None:
    # New York opens at 14:30 UTC in January; six and a half hours make seven bars, the last one short.
    given = rows(walk(70, seed=8))
    days = [d for d in range(1, 20) if (MONDAY + timedelta(days=d)).weekday() < 5 and d not in (14,)]
    closes = [24 * d + 15.5 + h for d in days for h in range(7)][:70]

    out = tokens([bar(h, row) for h, row in zip(closes, given, strict=True)], codec, calendar="NYSE")

    assert len(out["frame"]) == 38
    assert {frame.missing for _, frame in out["frame"]} == {0}


def test_a_bar_that_cannot_be_is_an_error_and_the_next_follows_the_last_that_could(codec: Codec) -> None:
    series = walk(60, seed=9)
    given = rows(series)
    bars = [bar(i + 1, row) for i, row in enumerate(given)]
    broken = bar(40.5, (1.0, 0.5, 2.0, float("nan"), 0.0))

    out = tokens([*bars[:40], broken, *bars[40:]], codec)

    assert [frame.tokens for _, frame in out["frame"]] == [[t] for t in codec.encode(series).tokens[32:].tolist()]
    ((when, error),) = out["error"]
    assert when == broken.event_time
    assert (error.node, error.symbol) == ("tokenize", "X")
    assert error.error.startswith("ValueError: ")


@given(st.integers(33, 59), st.floats(0.5, 2.0))
@settings(max_examples=15, deadline=None)
def test_no_token_knows_a_later_bar(cut: int, factor: float) -> None:
    codec = small_codec()
    given = rows(walk(60, seed=10))
    changed = [*given[:cut], *((o * factor, h * factor, lo * factor, c * factor, v) for o, h, lo, c, v in given[cut:])]

    one, other = (tokens([bar(i + 1, row) for i, row in enumerate(each)], codec) for each in (given, changed))

    told = [[(when, f.tokens, f.scale) for when, f in out["frame"]][: cut - 32] for out in (one, other)]
    assert told[0] == told[1]
