"""A file of news that is followed as it grows, is renamed, cut, and damaged."""

import asyncio
import json
import os
from collections.abc import Callable, Coroutine
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.errors import FeedError
from feeds.news import LINE_BYTES_MAX
from feeds.news_follow import Tail
from feeds.news_live import FollowConfig, NewsFeed, UniverseConfig
from tests.feeds.hand_clock import HandClock, Live, living

NOW = datetime(2024, 7, 2, 15, 10, 7)
SECOND = timedelta(seconds=1)
Story = Callable[[Live, Path], Coroutine[Any, Any, None]]


def line(headline: str, **changes: Any) -> str:
    published = NOW.replace(tzinfo=UTC).isoformat()
    fields = {"published": published, "symbol": "ACME", "headline": headline, "source": "desk"}
    return json.dumps(fields | changes) + "\n"


def tell(folder: Path, story: Story, before: str | None = "", **options: Any) -> Live:
    """Tell a story to a feed that looks at a file every half second and misses it after five."""
    path = folder / "news.jsonl"
    if before is not None:
        path.write_text(before, encoding="utf-8")

    async def work() -> Live:
        clock = HandClock(NOW, lambda _: None)
        config = FollowConfig(path=str(path), stale_after_s=5.0, **options)
        async with living(NewsFeed((config,), UniverseConfig(), clock=clock), clock) as live:
            await story(live, path)
        return live

    return asyncio.run(work())


def append(path: Path, text: str | bytes) -> None:
    with path.open("ab") as file:
        file.write(text.encode() if isinstance(text, str) else text)


async def pause(live: Live, seconds: float = 1.0) -> None:
    await live.until(live.clock.now() + timedelta(seconds=seconds))


def headlines(live: Live) -> list[str]:
    return [news.headline for news in live.of("items")]


def test_what_is_appended_is_told_as_the_file_has_it(tmp_path: Path) -> None:
    async def story(live: Live, path: Path) -> None:
        assert live.of("items") == []
        append(path, line("A", id="7", body="text") + "\n" + line("B", symbol=""))
        await pause(live)

    live = tell(tmp_path, story, line("Before"))

    first, second = live.of("items")
    assert (first.item_id, first.headline, first.body, first.source, first.symbol) == ("7", "A", "text", "desk", "ACME")
    assert (first.event_time, first.received) == (NOW, NOW + SECOND / 2)
    assert (second.symbol, len(second.item_id)) == ("", 16)
    assert [(status.feed, status.symbol, status.state.name) for status in live.of("status")] == [
        ("file news", str(tmp_path / "news.jsonl"), "CONNECTED")
    ]


def test_from_start_also_what_is_in_it(tmp_path: Path) -> None:
    async def story(live: Live, path: Path) -> None:
        append(path, line("B"))
        await pause(live)

    assert headlines(tell(tmp_path, story, line("A"), from_start=True)) == ["A", "B"]


def test_a_line_counts_when_its_end_is_written(tmp_path: Path) -> None:
    whole = line("Zürich").encode()

    async def story(live: Live, path: Path) -> None:
        for byte in whole:
            assert live.of("items") == []
            append(path, bytes([byte]))
            await pause(live, 0.5)

    # The file ends in the middle of a line when the run begins: that line is news too.
    assert headlines(tell(tmp_path, story)) == ["Zürich"]
    half = len(whole) // 2

    async def rest(live: Live, path: Path) -> None:
        append(path, whole[half:])
        await pause(live)

    assert headlines(tell(tmp_path, rest, line("Before") + whole[:half].decode())) == ["Zürich"]


def test_a_file_may_come_into_being_later(tmp_path: Path) -> None:
    async def story(live: Live, path: Path) -> None:
        await pause(live, 10.0)
        assert live.states() == ["STALE"]
        path.write_text(line("First"), encoding="utf-8")
        await pause(live, 10.0)

    live = tell(tmp_path, story, None)

    assert headlines(live) == ["First"]
    assert live.states() == ["STALE", "RECOVERED"]
    assert "no such file yet" in live.of("status")[0].detail


def test_a_rotated_file_is_read_to_its_end_and_then_the_new_one(tmp_path: Path) -> None:
    async def story(live: Live, path: Path) -> None:
        append(path, line("A"))
        path.rename(tmp_path / "news.jsonl.1")
        await pause(live)
        append(tmp_path / "news.jsonl.1", line("B") + line("C")[:-1])  # its writer has not noticed yet
        path.write_text(line("D"), encoding="utf-8")
        await pause(live)
        append(path, line("E"))
        await pause(live)

    live = tell(tmp_path, story)

    assert headlines(live) == ["A", "B", "C", "D", "E"]
    assert live.states() == ["CONNECTED"]


def test_a_file_that_is_gone_is_stale_until_there_is_one_again(tmp_path: Path) -> None:
    async def story(live: Live, path: Path) -> None:
        path.unlink()
        await pause(live, 20.0)
        path.write_text(line("Back"), encoding="utf-8")
        await pause(live, 10.0)

    live = tell(tmp_path, story)

    assert headlines(live) == ["Back"]
    assert live.states() == ["CONNECTED", "STALE", "RECOVERED"]
    assert "the file is gone" in live.of("status")[1].detail


@pytest.mark.parametrize("longer", [False, True])
def test_a_file_that_is_written_anew_in_its_place_is_read_from_its_beginning(tmp_path: Path, longer: bool) -> None:
    async def story(live: Live, path: Path) -> None:
        append(path, line("A") + line("B") + '{"half')
        await pause(live)
        inode = path.stat().st_ino
        path.write_text(line("C" * 500 if longer else "C"), encoding="utf-8")
        assert path.stat().st_ino == inode
        await pause(live)

    live = tell(tmp_path, story)

    assert headlines(live) == ["A", "B", "C" * 500 if longer else "C"]


def test_a_bad_line_is_dropped_and_told_of_and_the_rest_counts(tmp_path: Path) -> None:
    bad = [
        b"no json\n",
        b'{"\\ud800": 1}\n',
        b"\xff\xfe\n",
        b"[1]\n",
        line("").encode(),
        line("x", published="now").encode(),
    ]
    bad += [b"[" * 50_000 + b"\n", json.dumps({"headline": "\ud800"}).encode() + b"\n"]

    async def story(live: Live, path: Path) -> None:
        for n, text in enumerate(bad):
            append(path, text + line(f"Good {n}").encode())
        await pause(live)

    live = tell(tmp_path, story)

    assert headlines(live) == [f"Good {n}" for n in range(8)]
    assert [(status.state.name, status.value) for status in live.of("status")] == [
        ("DROPPED" if value else "CONNECTED", value) for value in (0.0, 1.0, 2.0, 4.0, 8.0)
    ]
    assert "news.jsonl at byte 0: wanted one JSON object" in live.of("status")[1].detail
    assert all(len(status.detail.encode()) < 300 and "\n" not in status.detail for status in live.of("status"))


@pytest.mark.parametrize("times", [1, 3])
def test_a_line_without_end_is_dropped_and_fills_no_memory(tmp_path: Path, times: int) -> None:
    async def story(live: Live, path: Path) -> None:
        for _ in range(times):
            append(path, b"x" * (LINE_BYTES_MAX + 1))
            await pause(live)
        append(path, b"\n" + line("After").encode())
        await pause(live)

    live = tell(tmp_path, story)

    assert headlines(live) == ["After"]
    assert [status.value for status in live.of("status")] == [0.0, 1.0]
    assert "a line of more than" in live.of("status")[1].detail


def test_a_file_that_begins_in_a_line_without_end_is_joined_behind_it(tmp_path: Path) -> None:
    async def story(live: Live, path: Path) -> None:
        append(path, "xx\n" + line("After"))
        await pause(live)

    assert headlines(tell(tmp_path, story, "x" * (LINE_BYTES_MAX + 5))) == ["After"]


def test_a_big_file_comes_whole_and_in_order_without_waiting_for_the_next_look(tmp_path: Path) -> None:
    texts = [f"News number {n} {'x' * 200}" for n in range(5000)]

    async def story(live: Live, path: Path) -> None:
        append(path, "".join(map(line, texts)))
        await pause(live)

    live = tell(tmp_path, story)

    assert headlines(live) == texts
    assert live.of("items")[-1].received == NOW + SECOND / 2


def test_an_item_from_the_future_is_dated_by_its_arrival(tmp_path: Path) -> None:
    async def story(live: Live, path: Path) -> None:
        append(
            path, line("A", published="2031-01-01T00:00:00+00:00") + line("B", published="2020-01-01T00:00:00+00:00")
        )
        await pause(live)

    live = tell(tmp_path, story)

    assert [news.event_time for news in live.of("items")] == [NOW + SECOND / 2, datetime(2020, 1, 1)]


def test_a_folder_or_a_pipe_is_no_file_of_news(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in (".", "pipe"):
        with pytest.raises(FeedError, match="want a regular file"):
            Tail(str(tmp_path / name), True, print).read()


def test_the_feed_closes_its_file(tmp_path: Path) -> None:
    async def story(live: Live, path: Path) -> None:
        assert any(os.path.samefile(f"/proc/self/fd/{fd}", path) for fd in open_files())

    path = tmp_path / "news.jsonl"
    tell(tmp_path, story)

    assert not any(os.path.samefile(f"/proc/self/fd/{fd}", path) for fd in open_files())


def open_files() -> list[str]:
    return [fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_line_comes_once_and_in_order_however_it_is_written(data: st.DataObject, tmp_path_factory: Any) -> None:
    # Written in pieces of any size, looked at in between or not, rotated between two lines.
    path = tmp_path_factory.mktemp("tail") / "news"
    path.touch()
    wrong: list[str] = []
    seen, wanted = list[bytes](), list[bytes]()
    with closing(Tail(str(path), False, wrong.append)) as tail:
        tail.read()
        for n in range(data.draw(st.integers(1, 12))):
            wanted.append(f"{n} {data.draw(st.text('aé€', max_size=20))}".encode())
            whole = wanted[-1] + b"\n"
            cut = data.draw(st.integers(0, len(whole)))
            for part in (whole[:cut], whole[cut:]):
                append(path, part)
                seen += drain(tail) if data.draw(st.booleans()) else []
            if data.draw(st.booleans()):
                path.rename(f"{path}.{n}")
                path.touch()
                seen += drain(tail)
        seen += drain(tail)

    assert seen == wanted
    assert not wrong


def drain(tail: Tail) -> list[bytes]:
    lines, more = tail.read()
    while more:
        further, more = tail.read()
        lines = lines + further
    return [text for _, text in lines]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"path": ""}, "must not be empty"),
        ({"poll_s": 0.0}, "poll_s must be positive"),
        ({"stale_after_s": float("nan")}, "stale_after_s must be positive"),
    ],
)
def test_impossible_configs_are_refused(options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        FollowConfig(**{"path": "news.jsonl"} | options)
