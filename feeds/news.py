"""News from a JSON Lines file, replayed when it could have been known.

One object a line, sorted by `published`:

    {"published": "2018-03-04T09:30:00+00:00", "symbol": "BTC-USD", "headline": "...", "source": "..."}

`symbol` is "" for news about no one symbol. `body` and `id` may be left out; the id is then a hash of the content.
Other keys and blank lines are ignored.
"""

import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from csp import ts
from csp.impl.pulladapter import PullInputAdapter
from csp.impl.wiring import py_pull_adapter_def

from feeds.errors import DataError
from feeds.events import NewsItem
from feeds.raw import locate

LINE_BYTES_MAX = 1 << 20  # a longer line is not a headline; without a limit one line could fill the memory
IDS_REMEMBERED = 65_536  # a duplicate further back than this many items is let through

_REQUIRED = ("published", "symbol", "headline", "source")
_YEARS = (1970, 2200)  # well inside csp's range, which ends in 2262

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewsConfig:
    """Which file, and how long after publication a desk would have read it."""

    path: str  # JSON lines; relative to here, else to the project
    delay_s: float = 60.0  # published -> known

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path of the news file must not be empty")
        if not 0.0 <= self.delay_s <= 86_400.0 * 365:
            raise ValueError(f"delay_s must lie in [0, 31536000], was {self.delay_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewsSummary:
    """What a news file holds. Times are of publication, naive UTC."""

    count: int  # items that a replay ticks
    duplicates: int  # items that it drops
    first: datetime
    last: datetime


class NewsReader:
    """Iterate over the items of a file, one line in memory at a time; `duplicates` counts the items dropped so far.

    Raises:
        DataError: the file is missing or empty, or a line is not what the module's head says. Names file and line.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.duplicates = 0

    def __iter__(self) -> Iterator[NewsItem]:
        self.duplicates = 0
        seen: OrderedDict[str, None] = OrderedDict()
        last: datetime | None = None
        for where, line in self._lines():
            item = parse(where, line)
            if last is not None and item.event_time < last:
                raise DataError(f"{where}: wanted lines sorted by published; {item.event_time} follows {last}")
            last = item.event_time
            if item.item_id in seen:
                self.duplicates += 1
                continue
            seen[item.item_id] = None
            if len(seen) > IDS_REMEMBERED:
                seen.popitem(last=False)
            yield item
        if last is None:
            raise DataError(f"{self._path}: wanted news, one JSON object a line; the file is empty")

    def _lines(self) -> Iterator[tuple[str, bytes]]:
        """(file:line, content) of each line that is not blank."""
        number = 0
        try:
            with locate(self._path).open("rb") as file:
                while line := file.readline(LINE_BYTES_MAX + 1):
                    number += 1
                    where = f"{self._path}:{number}"
                    if len(line) > LINE_BYTES_MAX:
                        raise DataError(f"{where}: wanted a line of at most {LINE_BYTES_MAX} bytes; it is longer")
                    if line.strip():
                        yield where, line
        except OSError as error:
            raise DataError(f"{self._path}: wanted a news file; {error.strerror}") from error


def parse(where: str, line: bytes) -> NewsItem:
    """One line of a news file.

    Args:
        where: begins the message of an error, such as file and line.

    Raises:
        DataError: it is not what the module's head says.
    """
    try:
        record = json.loads(line.decode("utf-8-sig"))  # editors on Windows begin a file with a byte order mark
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: wanted one JSON object in UTF-8; {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: wanted a JSON object; it is a {type(record).__name__}")
    missing = [key for key in _REQUIRED if key not in record]
    if missing:
        raise DataError(f"{where}: wanted {', '.join(missing)}; found {', '.join(sorted(record)) or 'no key'}")
    published = _time(where, record["published"])
    symbol, headline, source = (_text(where, record, key) for key in ("symbol", "headline", "source"))
    if not headline.strip():
        raise DataError(f"{where}: wanted a headline; it is empty")
    body = _text(where, record, "body")
    content = json.dumps([published.isoformat(), symbol, headline, body, source])
    return NewsItem(
        symbol=symbol,
        event_time=published,
        item_id=_text(where, record, "id") or hashlib.sha256(content.encode()).hexdigest()[:16],
        headline=headline,
        body=body,
        source=source,
    )


def _time(where: str, value: Any) -> datetime:
    """Naive UTC from an ISO 8601 text with an offset."""
    wanted = f"{where}: wanted published as ISO 8601 with an offset, such as 2018-03-04T09:30:00+00:00"
    if not isinstance(value, str):
        raise DataError(f"{wanted}; it is {value!r}")
    try:
        when = datetime.fromisoformat(value)
        if when.tzinfo is None:
            raise DataError(f"{wanted}; {value} has none")
        when = when.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{wanted}; it is {value!r}") from error
    if not _YEARS[0] <= when.year < _YEARS[1]:
        raise DataError(f"{where}: wanted published between {_YEARS[0]} and {_YEARS[1]}; it is {value}")
    return when


def _text(where: str, record: dict[str, Any], key: str) -> str:
    """The text under `key`, "" where the key is missing or optional and null."""
    value = record.get(key)
    if value is None and key not in _REQUIRED:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: wanted {key} as text; it is {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair, UTF-8 cannot
        raise DataError(f"{where}: wanted {key} as text; {error.reason}") from error
    return value


def describe(config: NewsConfig) -> NewsSummary:
    """Read the whole file, so that a bad line stops a run before it starts rather than in its middle.

    Raises:
        DataError: as `NewsReader`.
    """
    reader = NewsReader(config.path)
    items = iter(reader)
    first = last = next(items)  # the reader refuses an empty file
    count = 1
    for item in items:
        last = item
        count += 1
    return NewsSummary(count=count, duplicates=reader.duplicates, first=first.event_time, last=last.event_time)


class _NewsReplay(PullInputAdapter):  # type: ignore[misc]
    def __init__(self, config: NewsConfig) -> None:
        self._config = config
        self._delay = timedelta(seconds=config.delay_s)
        self._reader = NewsReader(config.path)
        self._items: Iterator[NewsItem] = iter(())
        super().__init__()

    def start(self, starttime: datetime, endtime: datetime) -> None:
        self._items = (item for item in self._reader if item.event_time + self._delay >= starttime)
        super().start(starttime, endtime)

    def next(self) -> tuple[datetime, NewsItem] | None:
        item = next(self._items, None)
        return None if item is None else (item.event_time + self._delay, item)

    def stop(self) -> None:
        self._items = iter(())  # lets go of the reader's generator, which closes the file
        if self._reader.duplicates:
            log.warning("news_duplicates_dropped path=%s count=%d", self._config.path, self._reader.duplicates)


_news_replay = py_pull_adapter_def("news_replay", _NewsReplay, ts[NewsItem], config=NewsConfig)


def news_replay(config: NewsConfig) -> ts[NewsItem]:
    """Replay a file of news, each item when it could be known.

    Memory does not grow with the file: a line is read when the one before it was delivered.

    Ticks:
        Once an item, at published + `delay_s`; `event_time` is published. Items known before the start of the run
        are skipped. Items that share a time tick in the order of the file, each in its own engine cycle. An item
        whose id was seen among the last 65,536 is dropped; a warning in the log counts them when the run ends.
        Times are in microseconds.

    Raises:
        DataError: as `NewsReader`, when the line is reached; `describe` finds it before the run.
    """
    edge: ts[NewsItem] = _news_replay(config)
    return edge


def truncate(config: NewsConfig, cut: datetime, target: Path) -> int:
    """Copy the lines that are known at `cut` (naive UTC) to `target`; return how many."""
    delay = timedelta(seconds=config.delay_s)
    kept = [line for where, line in NewsReader(config.path)._lines() if parse(where, line).event_time + delay <= cut]
    if kept:
        target.write_bytes(b"".join(kept))
    return len(kept)
