"""Bars of many symbols, out of files that `feeds.files` has checked, and tokens out of plain files."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from configs.load import ConfigError, listed, load
from feeds.errors import DataError
from feeds.files import Reader, Source
from feeds.times import length_label
from tokenizer.bars import BarSeries, hours_of_week
from tokenizer.codec import Codec
from trainer.config import TrainConfig

Ints = npt.NDArray[np.int64]

_PRICES = ("open", "high", "low", "close", "volume")
_EPOCH = datetime(1970, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSeries:
    """The tokens of one symbol, without the bars that had none."""

    symbol: str  # "" where it is not known
    tokens: Ints  # (n,)
    time: Ints | None  # (n,) ns UTC, when each was known; None where nobody knows
    hours: Ints | None  # (n,) hour of week, Monday 00:00 UTC = 0

    def __len__(self) -> int:
        return len(self.tokens)


def load_bars(sources: Sequence[Source]) -> dict[str, BarSeries]:
    """All bars of the sources, a series a symbol, in order of appearance.

    Raises:
        DataError: a file cannot be used, holds no bars, or bars of another length or a symbol that came before.
    """
    if not sources:
        raise DataError("the config names no [[feeds]]: want files of bars, or --tokens FILE")
    found: dict[str, BarSeries] = {}
    bar, first = timedelta(), ""
    for source in sources:
        reader = Reader(source)
        if reader.kind != "bars":
            raise DataError(f"{source.path} holds {reader.kind}, want bars")
        tables = list(reader.tables())
        if not tables:
            raise DataError(f"{source.path} has no rows")
        reader.check_bar()
        length = reader.bar or timedelta()
        bar, first = bar or length, first or source.path
        if length != bar:
            raise DataError(
                f"{source.path} has bars of {length_label(length)}, want those of {first}: {length_label(bar)}"
            )
        for symbol in reader.symbols:
            if symbol in found:
                raise DataError(f"{source.path} has bars of {symbol}, which an earlier file has too: join them")
            found[symbol] = _series(symbol, tables, bar)
    return found


def load_data(paths: Sequence[Path], *, bar: str, time_zone: str, stamp: str) -> dict[str, BarSeries]:
    """The bars of training configs (.toml: their feeds) and of market data files.

    Args:
        bar, time_zone, stamp: of plain files; see `feeds.files.Source`.

    Raises:
        ConfigError, DataError: a file cannot be used.
    """
    sources: list[Source] = []
    for path in paths:
        if path.suffix == ".toml":
            sources.extend(load(TrainConfig, path).feeds)
        else:
            try:
                sources.append(Source(path=str(path), bar=bar, time_zone=time_zone, stamp=stamp))
            except ValueError as exc:
                raise ConfigError(str(exc)) from None
    return load_bars(sources)


def _series(symbol: str, tables: Sequence[pa.Table], bar: timedelta) -> BarSeries:
    """The rows of one symbol; several symbols of a file are told apart here, where all of it is in memory anyway."""
    table = pa.concat_tables(tables)
    table = table.filter(pc.equal(table["symbol"], symbol))
    columns = {name: table[name].to_numpy().astype(np.float64) for name in _PRICES}
    close_time = table["time"].cast(pa.int64()).to_numpy()
    return BarSeries(symbol=symbol, bar_s=bar.total_seconds(), close_time=close_time, **columns)


def tokenize(series: Mapping[str, BarSeries], codec: Codec) -> list[TokenSeries]:
    """The tokens of each symbol over all of its bars. Encoding is causal, so a later split cannot leak backwards."""
    made = []
    for symbol, bars in series.items():
        tokens = np.asarray(codec.encode(bars).tokens, np.int64)
        there = tokens >= 0
        time = bars.close_time[there]
        made.append(TokenSeries(symbol=symbol, tokens=tokens[there], time=time, hours=hours_of_week(time)))
    return made


def load_tokens(path: Path, vocabulary: int) -> list[TokenSeries]:
    """Plain tokens: whole numbers between blanks, commas or line ends; an empty line begins another series.

    Raises:
        DataError: no such file, something else than whole numbers, or a number outside the vocabulary.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"token file {path} does not exist") from None
    except OSError as exc:
        raise DataError(f"token file {path} cannot be read: {exc.strerror}") from None
    except UnicodeDecodeError as exc:
        raise DataError(f"token file {path}: want text in UTF-8, was {exc}") from None
    series: list[list[int]] = [[]]
    for number, line in enumerate(text.splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words:
            series.append([])
        for word in words:
            if not (word.isascii() and word.isdigit() and len(word) <= 6 and int(word) < vocabulary):
                raise DataError(f"{path}, line {number}: want tokens from 0 to {vocabulary - 1}, was {word[:40]!r}")
            series[-1].append(int(word))
    if not any(series):
        raise DataError(f"token file {path} holds no token")
    return [TokenSeries(symbol="", tokens=np.array(one, np.int64), time=None, hours=None) for one in series if one]


def digest(series: Mapping[str, BarSeries]) -> str:
    """sha256 over the bars, symbol by symbol in order of name: the name, a zero byte, the count as int64, then the
    columns close_time (int64), open, high, low, close, volume (float64), all little-endian. It says which bars were
    seen, whatever the file's format and whatever else is in it."""
    total = hashlib.sha256()
    for symbol, bars in sorted(series.items()):
        total.update(symbol.encode() + b"\0" + len(bars).to_bytes(8, "little"))
        total.update(np.ascontiguousarray(bars.close_time, "<i8").tobytes())
        for name in _PRICES:
            total.update(np.ascontiguousarray(getattr(bars, name), "<f8").tobytes())
    return total.hexdigest()


def tokens_digest(series: Sequence[TokenSeries]) -> str:
    """sha256 over plain tokens: the count of each series, then its tokens, as little-endian int64."""
    total = hashlib.sha256()
    for one in series:
        total.update(len(one).to_bytes(8, "little") + np.ascontiguousarray(one.tokens, "<i8").tobytes())
    return total.hexdigest()


def nanoseconds(when: datetime) -> int:
    """Naive UTC as nanoseconds since 1970."""
    return (when - _EPOCH) // timedelta(microseconds=1) * 1_000


def moment(time_ns: int) -> datetime:
    """Nanoseconds since 1970 as naive UTC, to the microsecond below."""
    return _EPOCH + timedelta(microseconds=int(time_ns) // 1_000)


def span(series: Mapping[str, BarSeries]) -> tuple[datetime, datetime]:
    """The closes of the first and of the last bar.

    Raises:
        DataError: no symbol has a bar.
    """
    ends = [(int(s.close_time[0]), int(s.close_time[-1])) for s in series.values() if len(s)]
    if not ends:
        raise DataError(f"no bar of {listed(sorted(series))} lies in the training window")
    return moment(min(first for first, _ in ends)), moment(max(last for _, last in ends))
