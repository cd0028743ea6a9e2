import csv
import gzip
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import csp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import T0, run, ticks

import feeds.news
from feeds.events import NewsItem
from feeds.news import NewsReader
from nodes.news import BEARISH, BULLISH, NEGATIONS, NewsSignalConfig, keyword_score, news_signal

SHARED = Path(__file__).parents[3] / "shared" / "data" / "news" / "twitter_fin_train.csv.gz"
SAMPLE = Path(feeds.news.__file__).parent / "sample" / "news_fictional.jsonl"


def item(headline: str, symbol: str = "BTC-USD", **fields: Any) -> NewsItem:
    return NewsItem(symbol=symbol, event_time=T0, item_id="1", headline=headline, source="test", **fields)


def signals(*items: NewsItem | None, config: NewsSignalConfig | None = None) -> Any:
    news = ticks(*items, typ=NewsItem) if any(items) else csp.null_ts(NewsItem)
    return run(lambda: news_signal(news, "BTC-USD", config or NewsSignalConfig()))


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Bitcoin climbs to a record", 1.0),
        ("Bitcoin FALLS on fraud fears", -1.0),
        ("Shares rise, then fall", 0.0),
        ("Shares rise and gain, then fall", 1 / 3),
        ("Bitcoin trades sideways", 0.0),
        ("", 0.0),
        ("Savers are bullish", 1.0),
        ("Savers are no longer bullish", -1.0),
        ("Savers aren't bullish", -1.0),
        ("Savers aren’t very bullish", -1.0),
        ("Savers are not at all as bullish", 1.0),  # the fourth word is out of reach
        ("Not so. Savers are bullish", 1.0),  # nor does it reach over a full stop
        ("No crash in sight", 0.0),
        ("No crash, no losses, but growth", 1.0),
        ("Highest 1000 % !!! 上涨 \x00 growth", 1.0),
        ("gains'", 1.0),
        ("against-the-tide rise", 1.0),
    ],
)
def test_keyword_score(text: str, score: float) -> None:
    assert keyword_score(text) == pytest.approx(score)


def test_lists_do_not_overlap_and_are_lower_case() -> None:
    assert not BULLISH & BEARISH
    assert not (BULLISH | BEARISH) & NEGATIONS
    assert all(word == word.lower() for word in BULLISH | BEARISH | NEGATIONS)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*sorted(BULLISH | BEARISH | NEGATIONS), "the", ".", ","])))
def test_score_is_bounded_and_blind_to_case_and_spacing(words: list[str]) -> None:
    score = keyword_score(" ".join(words))

    assert -1.0 <= score <= 1.0
    assert keyword_score("   ".join(words).upper()) == score


@given(st.text())
def test_any_text_scores(text: str) -> None:
    assert -1.0 <= keyword_score(text) <= 1.0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(sorted(BULLISH)), min_size=1), st.lists(st.sampled_from(sorted(BEARISH)), min_size=1))
def test_without_negation_order_does_not_matter(bullish: list[str], bearish: list[str]) -> None:
    expected = (len(bullish) - len(bearish)) / (len(bullish) + len(bearish))

    assert keyword_score(" ".join(bullish + bearish)) == keyword_score(" ".join(bearish + bullish)) == expected


def test_ticks_only_on_items_about_the_symbol_or_the_market_that_score() -> None:
    out = signals(
        item("Bitcoin climbs"),
        item("Ether climbs", symbol="ETH-USD"),
        item("Bitcoin trades sideways"),
        item("Investors fear a recession", symbol=""),
        item("Bitcoin", body="Volume is strong."),
        config=NewsSignalConfig(confidence=0.4, market_wide_factor=0.5, horizon_s=60.0),
    )

    assert [(when, s.score, s.confidence) for when, s in out] == [
        (T0, 1.0, 0.4),
        (T0 + timedelta(seconds=3), -1.0, 0.2),
        (T0 + timedelta(seconds=4), 1.0, 0.4),
    ]
    assert {(s.symbol, s.source, s.horizon_s) for _, s in out} == {("BTC-USD", "news", 60.0)}
    assert [s.asof for _, s in out] == [when for when, _ in out]


def test_a_negation_at_the_end_of_a_headline_does_not_reach_into_the_body() -> None:
    assert signals(item("A rise? Not", body="Growth is back"))[0][1].score == 1.0


def test_hostile_headlines_are_silent() -> None:
    assert signals(item(""), item("\x00\n"), item("!" * 10_000), item("1e400 NaN inf")) == []


def test_no_news_no_signal() -> None:
    assert signals(None) == []


@pytest.mark.parametrize(
    "changes", [{"confidence": 1.1}, {"confidence": float("nan")}, {"market_wide_factor": -0.1}, {"horizon_s": 0.0}]
)
def test_impossible_config_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(changes))} must"):
        NewsSignalConfig(**changes)


def test_the_note_at_the_head_of_the_sample_is_no_opinion() -> None:
    assert keyword_score(next(iter(NewsReader(str(SAMPLE)))).headline) == 0.0


def test_beats_always_neutral_on_labelled_headlines() -> None:
    if not SHARED.exists():
        pytest.skip("the labelled headlines are not part of the project")
    with gzip.open(SHARED, "rt", encoding="utf-8") as file:
        rows = [({"0": -1, "1": 1, "2": 0}[r["label"]], keyword_score(r["text"])) for r in csv.DictReader(file)]
    pairs = Counter((label, (score > 0) - (score < 0)) for label, score in rows)
    sides = sum(n for (_, said), n in pairs.items() if said)

    # The figures of `news_signal`: right over all, "neutral" every time, takes sides, and right when it does.
    assert sum(n for (label, said), n in pairs.items() if label == said) / len(rows) == pytest.approx(0.70, abs=0.01)
    assert sum(n for (label, _), n in pairs.items() if label == 0) / len(rows) == pytest.approx(0.65, abs=0.01)
    assert sides / len(rows) == pytest.approx(0.29, abs=0.01)
    assert (pairs[1, 1] + pairs[-1, -1]) / sides == pytest.approx(0.55, abs=0.01)
