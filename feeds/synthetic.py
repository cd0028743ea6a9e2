"""Markets that never were: seeded bars and trades of any length, for benchmarks and tests.

    python -m feeds.synthetic --out bars.parquet --rows 1000000 --model jumps

The efficient log price is a random walk, folded back at a hundredth and at a hundred times the first price, so that a
series of any length keeps to its grid. Three models set the size of its steps:

    random_walk   normal steps with constant volatility
    regime        volatility switches between calm and wild: a two-state Markov chain, the mean variance stays the same
    jumps         random_walk, and on top of it jumps of normal size that come as a Poisson process

No strategy should be judged on it: there is nothing in it to find.

Source: high and low of a bar are drawn from the law of a Brownian bridge's maximum (Glasserman, "Monte Carlo Methods in
Financial Engineering", section 6.4); the bounce between bid and ask is Roll's (Journal of Finance 39(4), 1984); the
jumps are Merton's (Journal of Financial Economics 3, 1976).
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from feeds.instruments import Instrument

TABLE_ROWS = 65_536  # rows of a table and of a Parquet row group
BLOCK_ROWS = 65_536  # rows drawn at once from one generator; changing it changes every series
MODELS = ("random_walk", "regime", "jumps")

_FOLD = math.log(100.0)  # how far the log price strays from the first one
_YEAR_S = 365.25 * 86_400
_LAST_NS = 2**63 - 1  # in the year 2262
_EXACT = 2**53  # integers up to this are exact as floats

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticConfig:
    """What to invent. A longer series with the same seed begins with the shorter one."""

    seed: int = 0
    rows: int = 100_000  # bars or trades
    model: str = "random_walk"  # or regime, jumps
    symbol: str = "SYNTH"
    start: str = "2024-01-01T00:00:00+00:00"  # the first bar opens here, the first trade comes after it
    bar_s: float = 60.0
    gap_mean_s: float = 1.0  # between trades, exponential
    price: float = 100.0  # the first one, quote currency
    volatility_year: float = 0.6  # of log returns, without the jumps; a year has 365.25 days of 24 hours
    tick: str = "0.01"  # quote currency
    lot: str = "0.001"  # base units
    spread_ticks: float = 4.0  # between bid and ask; trades only
    size_mean: float = 0.5  # of a trade, base units
    volume_mean: float = 30.0  # of a bar, base units
    regime_rows_mean: float = 2_000.0  # how long a regime lasts
    regime_ratio: float = 4.0  # volatility, wild to calm
    jumps_a_day: float = 4.0
    jump_std: float = 0.02  # of the log price

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"model must be one of {', '.join(MODELS)}, was {self.model!r}")
        if self.seed < 0 or self.rows < 1:
            raise ValueError(f"want seed >= 0 and rows >= 1, was {self.seed} and {self.rows}")
        if not self.symbol:
            raise ValueError("symbol must not be empty")
        for name, low, high in (
            ("bar_s", 1e-6, 1e9),
            ("gap_mean_s", 1e-6, 1e9),
            ("volatility_year", 0.0, 100.0),
            ("spread_ticks", 0.0, 1e6),
            ("regime_rows_mean", 1.0, 1e9),
            ("regime_ratio", 1.0, 1e3),
            ("jumps_a_day", 0.0, 1e6),
            ("jump_std", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} must lie in [{low:g}, {high:g}], was {value}")
        Instrument(symbol=self.symbol, tick=self.tick, lot=self.lot)  # refuses a step that is no positive decimal
        self._check_grid("price", self.tick, 10_000)  # a hundred ticks are left at the lower fold
        self._check_grid("size_mean", self.lot, 1)
        self._check_grid("volume_mean", self.lot, 1)
        if start_ns(self) + self.rows * max(self.bar_s, 2 * self.gap_mean_s) * 1e9 > _LAST_NS:
            raise ValueError(f"{self.rows} rows from {self.start} must end before 2262")

    def _check_grid(self, name: str, step: str, steps_min: int) -> None:
        low = steps_min * float(step)
        high = 1e-4 * _EXACT / Decimal(step).as_integer_ratio()[1]  # 1e-4: room for the upper fold and for the tails
        if not low <= getattr(self, name) <= high:
            raise ValueError(f"{name} must lie in [{low:g}, {high:g}] with steps of {step}, was {getattr(self, name)}")


def start_ns(config: SyntheticConfig) -> int:
    """`start` in nanoseconds since 1970.

    Raises:
        ValueError: it is not ISO 8601 with an offset, or before 1970.
    """
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    try:
        since = datetime.fromisoformat(config.start) - epoch  # TypeError where there is no offset
    except (TypeError, ValueError):
        since = timedelta(-1)
    if since < timedelta(0):
        raise ValueError(f"start must be ISO 8601 with an offset, 1970 or later, was {config.start!r}")
    return since // timedelta(microseconds=1) * 1_000


def bar_tables(config: SyntheticConfig, table_rows: int = TABLE_ROWS) -> Iterator[pa.Table]:
    """Bars: time (the close), symbol, open_time, open, high, low, close, volume. A bar opens where the last one closed.

    Args:
        table_rows: rows of each table but the last; it has no effect on the series.

    Yields:
        Tables, drawn as they are asked for: memory does not grow with `rows`.
    """
    return _tables(_bar_blocks(config), table_rows)


def trade_tables(config: SyntheticConfig, table_rows: int = TABLE_ROWS) -> Iterator[pa.Table]:
    """Trades: time, symbol, price, size. They strike half a spread above or below the efficient price, by a fair coin.

    Args, Yields: as `bar_tables`. No two trades share a time, but many share a microsecond when the gap is short.
    """
    return _tables(_trade_blocks(config), table_rows)


def write(config: SyntheticConfig, path: str | Path, kind: Literal["bars", "trades"] = "bars") -> None:
    """Write bars or trades as Parquet, a table a row group. The file appears when it is complete."""
    if kind not in ("bars", "trades"):
        raise ValueError(f"kind must be bars or trades, was {kind!r}")
    tables = bar_tables(config) if kind == "bars" else trade_tables(config)
    part = Path(f"{path}.part")
    try:
        first = next(tables)
        with pq.ParquetWriter(part, first.schema) as writer:
            for table in itertools.chain((first,), tables):
                writer.write_table(table)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _tables(blocks: Iterator[dict[str, Any]], table_rows: int) -> Iterator[pa.Table]:
    """Cut blocks into tables of `table_rows`; the last may be shorter."""
    if table_rows < 1:
        raise ValueError(f"table_rows must be at least 1, was {table_rows}")
    held: pa.Table | None = None
    for block in blocks:
        held = pa.table(block) if held is None else pa.concat_tables([held, pa.table(block)])
        while len(held) >= table_rows:
            yield held.slice(0, table_rows)
            held = held.slice(table_rows)
    if held is not None and len(held):
        yield held


def _bar_blocks(config: SyntheticConfig) -> Iterator[dict[str, Any]]:
    bar_ns = round(config.bar_s * 1e9)
    steps = _Steps(config)
    walked = 0.0  # the log price before it is folded, relative to the first
    for first, rows, draw in _blocks(config, kind=0):
        step, sigma = steps.draw(draw, np.full(rows, config.bar_s))
        path = _walk(walked, step)  # (rows + 1,)
        walked = float(path[-1])
        level = _fold(path)  # (rows + 1,)
        close = _ticks(config, level)  # (rows + 1,)
        rise, fall = (
            np.sqrt(np.diff(level) ** 2 + 2 * sigma**2 * draw(use).standard_exponential(rows))
            for use in (_Use.HIGH, _Use.LOW)
        )
        middle = level[:-1] + level[1:]
        # A bridge reaches at least as far as its ends, except for rounding: it must not put a high below a close.
        high = np.maximum(_ticks(config, (middle + rise) / 2), np.maximum(close[:-1], close[1:]))
        low = np.minimum(_ticks(config, (middle - fall) / 2), np.minimum(close[:-1], close[1:]))
        noise = np.exp(0.5 * draw(_Use.VOLUME).standard_normal(rows) - 0.125)  # log-normal, mean 1
        lots = np.rint(config.volume_mean / float(config.lot) * steps.activity(sigma, config.bar_s) * noise)
        opened = start_ns(config) + bar_ns * np.arange(first, first + rows, dtype=np.int64)
        yield {
            "time": _time_column(opened + bar_ns),
            "symbol": pa.repeat(config.symbol, rows),
            "open_time": _time_column(opened),
            "open": _on_grid(close[:-1], config.tick),
            "high": _on_grid(high, config.tick),
            "low": _on_grid(low, config.tick),
            "close": _on_grid(close[1:], config.tick),
            "volume": _on_grid(np.maximum(lots.astype(np.int64), 1), config.lot),
        }


def _trade_blocks(config: SyntheticConfig) -> Iterator[dict[str, Any]]:
    steps = _Steps(config)
    last_ns = start_ns(config)
    walked = 0.0
    for _, rows, draw in _blocks(config, kind=1):
        gap_s = config.gap_mean_s * draw(_Use.GAP).standard_exponential(rows)
        if last_ns + 1e9 * float(gap_s.sum()) + rows > _LAST_NS:
            raise ValueError(f"{config.rows} trades from {config.start} must end before 2262")
        gap_ns = np.maximum(np.rint(1e9 * gap_s).astype(np.int64), 1)
        time_ns = last_ns + np.cumsum(gap_ns)
        last_ns = int(time_ns[-1])
        path = _walk(walked, steps.draw(draw, gap_ns * 1e-9)[0])
        walked = float(path[-1])
        side = 2 * draw(_Use.SIDE).integers(0, 2, rows) - 1
        struck = _price(config, _fold(path)[1:]) / float(config.tick) + side * (config.spread_ticks / 2)
        yield {
            "time": _time_column(time_ns),
            "symbol": pa.repeat(config.symbol, rows),
            "price": _on_grid(np.maximum(np.rint(struck).astype(np.int64), 1), config.tick),
            "size": _on_grid(draw(_Use.SIZE).geometric(float(config.lot) / config.size_mean, rows), config.lot),
        }


class _Use(IntEnum):
    """What a generator is for. Each use has its own, so that a block cut short has the values of the full one."""

    STEP = 0
    REGIME = 1
    JUMP_COUNT = 2
    JUMP_SIZE = 3
    HIGH = 4
    LOW = 5
    VOLUME = 6
    GAP = 7
    SIDE = 8
    SIZE = 9


_Draw = Callable[[_Use], np.random.Generator]


class _Steps:
    """Draws the steps of the log price, block after block; remembers the regime between blocks."""

    def __init__(self, config: SyntheticConfig) -> None:
        self._config = config
        self._wild = False
        calm = wild = config.volatility_year / math.sqrt(_YEAR_S)
        if config.model == "regime":  # half of the time each: the mean variance stays
            calm *= math.sqrt(2.0 / (1.0 + config.regime_ratio**2))
            wild = calm * config.regime_ratio
        self._volatility = (calm, wild)  # for the root of a second

    def draw(self, draw: _Draw, elapsed_s: Floats) -> tuple[Floats, Floats]:
        """(step, its standard deviation without jumps) of each row, given how long the row lasts."""
        rows = len(elapsed_s)
        calm, wild = self._volatility
        sigma = np.where(self._is_wild(draw, rows), wild, calm) * np.sqrt(elapsed_s)
        step = sigma * draw(_Use.STEP).standard_normal(rows)
        if self._config.model == "jumps":
            count = draw(_Use.JUMP_COUNT).poisson(self._config.jumps_a_day / 86_400 * elapsed_s)
            step += self._config.jump_std * np.sqrt(count) * draw(_Use.JUMP_SIZE).standard_normal(rows)
        return step, sigma

    def activity(self, sigma: Floats, elapsed_s: float) -> Floats:
        """How busy each row is: volatility over its mean; 1.0 where prices stand still."""
        mean = sum(self._volatility) / 2 * math.sqrt(elapsed_s)
        return sigma / mean if mean > 0.0 else np.ones_like(sigma)

    def _is_wild(self, draw: _Draw, rows: int) -> npt.NDArray[np.bool_]:
        if self._config.model != "regime":
            return np.zeros(rows, dtype=np.bool_)
        switches = draw(_Use.REGIME).random(rows) < 1.0 / self._config.regime_rows_mean
        wild: npt.NDArray[np.bool_] = (np.cumsum(switches) + self._wild) % 2 == 1
        self._wild = bool(wild[-1])
        return wild


def _blocks(config: SyntheticConfig, kind: int) -> Iterator[tuple[int, int, _Draw]]:
    """(first row, rows, generators) of each block."""
    for block, first in enumerate(range(0, config.rows, BLOCK_ROWS)):
        yield first, min(BLOCK_ROWS, config.rows - first), partial(_generator, config.seed, kind, block)


def _generator(seed: int, kind: int, block: int, use: _Use) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(kind, block, use))))


def _walk(start: float, step: Floats) -> Floats:
    """start, start + step 0, start + step 0 + step 1, ..."""
    return np.cumsum(np.concatenate(([start], step)))


def _fold(path: Floats) -> Floats:
    """Reflect an unbounded path into [-_FOLD, _FOLD]. Steps keep their size."""
    return _FOLD - np.abs((path + _FOLD) % (4 * _FOLD) - 2 * _FOLD)


def _price(config: SyntheticConfig, level: Floats) -> Floats:
    return config.price * np.exp(level)


def _ticks(config: SyntheticConfig, level: Floats) -> Ints:
    ticks: Ints = np.rint(_price(config, level) / float(config.tick)).astype(np.int64)
    return np.maximum(ticks, 1)


def _on_grid(steps: Ints, step: str) -> Floats:
    """The floats nearest to `steps` times a decimal: 3 steps of 0.1 are 0.3, not 0.30000000000000004."""
    numerator, denominator = Decimal(step).as_integer_ratio()
    grid: Floats = steps * numerator / denominator
    return grid


def _time_column(time_ns: Ints) -> pa.Array:
    return pa.array(time_ns).view(pa.timestamp("ns", tz="UTC"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Command(SyntheticConfig):
    """Write an invented market to a Parquet file."""

    out: Path
    kind: Literal["bars", "trades"] = "bars"


def main() -> None:
    """The command line: a field of `SyntheticConfig` a flag."""
    import tyro

    command = tyro.cli(_Command, prog="python -m feeds.synthetic")
    write(command, command.out, command.kind)


if __name__ == "__main__":
    main()
