import json
import logging
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import csp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import T0

import feeds.news
from feeds.errors import DataError
from feeds.news import NewsConfig, NewsReader, describe, news_replay, truncate

SAMPLE = Path(feeds.news.__file__).parent / "sample" / "news_fictional.jsonl"


def record(seconds: float = 0.0, **changes: Any) -> dict[str, Any]:
    """One valid record, published `seconds` after T0."""
    published = (T0 + timedelta(seconds=seconds)).replace(tzinfo=UTC).isoformat()
    return {"published": published, "symbol": "BTC-USD", "headline": "A headline", "source": "test"} | changes


def write(folder: Path, *records: Any) -> str:
    path = folder / "news.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return str(path)


def replay(path: str, *, delay_s: float = 60.0, start: datetime = T0, seconds: float = 86_400.0) -> Any:
    def graph() -> None:
        csp.add_graph_output(0, news_replay(NewsConfig(path=path, delay_s=delay_s)))

    return csp.run(graph, starttime=start, endtime=timedelta(seconds=seconds))[0]


def test_news_is_known_when_published_plus_the_delay(tmp_path: Path) -> None:
    path = write(tmp_path, record(0, headline="first", id="a"), record(5, headline="second", id="b", body="text"))

    out = replay(path, delay_s=1.5)

    assert [when for when, _ in out] == [T0 + timedelta(seconds=1.5), T0 + timedelta(seconds=6.5)]
    first, second = (item for _, item in out)
    assert (first.event_time, first.item_id, first.headline, first.body) == (T0, "a", "first", "")
    assert (second.event_time, second.body, second.source) == (T0 + timedelta(seconds=5), "text", "test")
    assert first.symbol == "BTC-USD"


def test_items_that_share_a_time_tick_in_file_order(tmp_path: Path) -> None:
    path = write(tmp_path, *(record(0, headline=h) for h in "abc"))

    out = replay(path)

    assert [(when, item.headline) for when, item in out] == [(T0 + timedelta(seconds=60), h) for h in "abc"]


def test_any_offset_is_converted_to_utc(tmp_path: Path) -> None:
    path = write(tmp_path, record(published="2024-01-02T09:30:00-05:00"), record(published="2024-01-02T14:30:01Z"))

    assert [when for when, _ in replay(path, delay_s=0.0)] == [T0, T0 + timedelta(seconds=1)]


def test_what_was_known_before_the_start_is_skipped_and_what_was_only_published_is_not(tmp_path: Path) -> None:
    path = write(
        tmp_path, record(-61, headline="known"), record(-60, headline="just now"), record(-59, headline="soon")
    )

    out = replay(path, delay_s=60.0)

    assert [(when, i.headline) for when, i in out] == [(T0, "just now"), (T0 + timedelta(seconds=1), "soon")]


def test_an_item_after_the_end_does_not_tick(tmp_path: Path) -> None:
    path = write(tmp_path, record(0), record(100, headline="late"))

    assert len(replay(path, delay_s=0.0, seconds=99.0)) == 1


def test_duplicates_are_dropped_counted_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # By id, whatever the content; without ids, by equal content.
    path = write(
        tmp_path, record(id="x"), record(1, id="x", headline="again"), record(2), record(2), record(2, body="b")
    )

    with caplog.at_level(logging.WARNING, logger="feeds.news"):
        out = replay(path)

    assert len(out) == 3
    assert describe(NewsConfig(path=path)).duplicates == 2
    assert [r.getMessage() for r in caplog.records] == [f"news_duplicates_dropped path={path} count=2"]


def test_a_derived_id_depends_on_content_alone(tmp_path: Path) -> None:
    path = write(tmp_path, record(), record(headline="Another"), record(symbol="ETH-USD"))

    once, again = ([item.item_id for _, item in replay(path)] for _ in range(2))

    assert once == again
    assert len(set(once)) == 3


def test_a_duplicate_is_remembered_for_a_bounded_number_of_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds.news, "IDS_REMEMBERED", 2)
    path = write(tmp_path, *(record(id=i) for i in "abbaca"))

    # With room for two ids, c pushes out a: the third a is new again.
    assert [item.item_id for item in NewsReader(path)] == ["a", "b", "c", "a"]


def test_describe_gives_count_and_range(tmp_path: Path) -> None:
    path = write(tmp_path, record(0), record(5), record(9, headline="last"))

    summary = describe(NewsConfig(path=path))

    assert (summary.count, summary.duplicates) == (3, 0)
    assert (summary.first, summary.last) == (T0, T0 + timedelta(seconds=9))


@pytest.mark.parametrize(
    ("lines", "number", "message"),
    [
        ([b"{not json}"], 1, "wanted one JSON object"),
        ([json.dumps(record()).encode(), b'{"headline": "\xff"}'], 2, "UTF-8"),
        ([b"[1, 2]"], 1, "it is a list"),
        ([b"[" * 100_000], 1, "wanted one JSON object"),
        ([b"{}"], 1, "wanted published, symbol, headline, source; found no key"),
        ([b"", json.dumps({"title": "t", "symbol": ""}).encode()], 2, "found symbol, title"),
        ([json.dumps(record(published="2024-01-02T14:30:00")).encode()], 1, "has none"),
        ([json.dumps(record(published="yesterday")).encode()], 1, "ISO 8601"),
        ([json.dumps(record(published=1704205800)).encode()], 1, "ISO 8601"),
        ([json.dumps(record(published="0001-01-01T00:00:00+14:00")).encode()], 1, "ISO 8601"),
        ([json.dumps(record(published="2500-01-01T00:00:00+00:00")).encode()], 1, "between 1970 and 2200"),
        ([json.dumps(record(headline="  ")).encode()], 1, "headline; it is empty"),
        ([json.dumps(record(headline=None)).encode()], 1, "headline as text; it is None"),
        ([json.dumps(record(symbol=7)).encode()], 1, "symbol as text; it is 7"),
        ([json.dumps(record(body=["x"])).encode()], 1, "body as text"),
        ([json.dumps(record(headline="\ud800")).encode()], 1, "surrogates not allowed"),
        ([json.dumps(record(1)).encode(), json.dumps(record(0)).encode()], 2, "sorted by published"),
        ([json.dumps(record(headline="x" * (1 << 20))).encode()], 1, "at most 1048576 bytes"),
    ],
)
def test_a_bad_line_is_refused_by_file_and_line(tmp_path: Path, lines: list[bytes], number: int, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")

    with pytest.raises(DataError, match=message) as described:
        describe(NewsConfig(path=str(path)))
    with pytest.raises(DataError, match=message):
        replay(str(path))

    assert str(described.value).startswith(f"{path}:{number}: wanted ")


@pytest.mark.parametrize("content", [b"", b"\n \n\n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_bytes(content)

    with pytest.raises(DataError, match=r"empty\.jsonl.* is empty"):
        describe(NewsConfig(path=str(path)))
    with pytest.raises(DataError, match=r"empty\.jsonl.* is empty"):
        replay(str(path))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl does not exist"):
        replay(str(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="is a folder, want a file"):
        describe(NewsConfig(path=str(tmp_path)))


def test_a_bad_line_stops_the_run_when_it_is_reached(tmp_path: Path) -> None:
    path = write(tmp_path, record(0), record(1), record(500, symbol=None))

    assert len(replay(path, delay_s=0.0, seconds=0.5)) == 1  # a run that ends before it never reads it
    with pytest.raises(DataError, match=r"news\.jsonl:3: wanted symbol as text"):
        replay(path, delay_s=0.0)


def test_byte_order_mark_blank_lines_and_other_keys_are_read_over(tmp_path: Path) -> None:
    path = tmp_path / "bom.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(record(url="https://example.org", body=None)).encode() + b"\r\n\r\n")

    assert [item.headline for _, item in replay(str(path))] == ["A headline"]


def test_replay_does_not_hold_the_file_in_memory(tmp_path: Path) -> None:
    # 2,000 bodies of 10 kB: 20 MB on disk.
    path = write(tmp_path, *(record(i, id=str(i), body="x" * 10_000) for i in range(2_000)))

    tracemalloc.start()
    try:
        count = sum(1 for _ in NewsReader(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert count == 2_000
    assert peak < 2_000_000


@pytest.mark.parametrize(
    "changes", [{"delay_s": -1.0}, {"delay_s": float("nan")}, {"delay_s": float("inf")}, {"path": ""}]
)
def test_impossible_config_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"(delay_s|path).* must"):
        NewsConfig(**({"path": "x"} | changes))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seconds=st.lists(st.integers(0, 1_000), min_size=1, max_size=20).map(sorted),
    delay_s=st.integers(0, 500).map(float),
    text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(str.strip),
)
def test_every_item_ticks_once_in_order_and_never_before_it_was_known(
    tmp_path: Path, seconds: list[int], delay_s: float, text: str
) -> None:
    path = write(tmp_path, *(record(s, id=str(i), headline=text) for i, s in enumerate(seconds)))

    out = replay(path, delay_s=delay_s)

    assert [item.item_id for _, item in out] == [str(i) for i in range(len(seconds))]
    assert [when - item.event_time for when, item in out] == [timedelta(seconds=delay_s)] * len(seconds)
    assert {item.headline for _, item in out} == {text}


def test_the_sample_says_that_it_is_invented_and_covers_its_years() -> None:
    summary = describe(NewsConfig(path=str(SAMPLE)))
    items = list(NewsReader(str(SAMPLE)))

    assert 60 <= summary.count <= 100
    assert summary.duplicates == 0
    assert summary.first >= datetime(2017, 7, 1)
    assert summary.last < datetime(2019, 10, 17)
    assert {item.source for item in items} == {"fictional sample"}
    assert {item.symbol for item in items} == {"", "BTC-USD"}
    assert "invented" in items[0].headline


def test_truncate_keeps_the_lines_that_are_known_at_the_cut(tmp_path: Path) -> None:
    path = write(tmp_path, *(record(s, id=str(s)) for s in (0, 10, 20)))
    target = tmp_path / "cut.jsonl"
    config = NewsConfig(path=path, delay_s=60.0)

    assert truncate(config, T0 + timedelta(seconds=70), target) == 2  # the second is known at 70 s, not a moment before
    assert [item.item_id for item in NewsReader(str(target))] == ["0", "10"]
    assert truncate(config, T0 + timedelta(seconds=59), tmp_path / "none.jsonl") == 0
    assert not (tmp_path / "none.jsonl").exists()
