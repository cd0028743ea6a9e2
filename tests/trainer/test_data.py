"""Files become series of bars, and series become tokens, without a look ahead."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_files import bar_file, series

from feeds.errors import DataError
from feeds.files import Source
from tokenizer.codec import TokenizerConfig
from tokenizer.features import FeatureConfig
from tokenizer.fit import fit
from trainer.data import digest, load_bars, load_tokens, moment, nanoseconds, span, tokenize, tokens_digest


def test_bars_of_a_file_become_a_series_a_symbol_known_at_the_close(tmp_path: Path) -> None:
    a, b = series("AAA", 40), series("BBB", 30, seed=1)

    found = load_bars([Source(path=str(bar_file(tmp_path, [a, b])), bar="1h")])

    assert list(found) == ["AAA", "BBB"]
    for made in (a, b):
        got = found[made.symbol]
        assert got.bar_s == 3600.0
        np.testing.assert_array_equal(got.close_time, made.close_time)
        np.testing.assert_array_equal(got.low, made.low)
        np.testing.assert_array_equal(got.volume, np.zeros(len(made)))  # the file has none


def test_a_symbol_in_two_files_is_refused(tmp_path: Path) -> None:
    sources = [Source(path=str(bar_file(tmp_path, [series()], name)), bar="1h") for name in "ab"]
    with pytest.raises(DataError, match="AAA, which an earlier file has too"):
        load_bars(sources)


def test_bars_of_two_lengths_are_refused(tmp_path: Path) -> None:
    hourly = Source(path=str(bar_file(tmp_path, [series("AAA", 40)], "a")), bar="1h")
    whole = series("BBB", 40)
    columns = {name: getattr(whole, name)[::2] for name in ("close_time", "open", "high", "low", "close", "volume")}
    longer = Source(path=str(bar_file(tmp_path, [replace(whole, **columns)], "b")), bar="2h")
    with pytest.raises(DataError, match=r"has bars of 2h, want those of .*: 1h"):
        load_bars([hourly, longer])
    with pytest.raises(DataError, match="want bars 0:30:00 long"):
        load_bars([replace(hourly, bar="30m")])


def test_trades_and_missing_files_and_no_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names no"):
        load_bars([])
    with pytest.raises(DataError, match="does not exist"):
        load_bars([Source(path=str(tmp_path / "none.parquet"), bar="1h")])
    with pytest.raises(DataError, match="holds trades, want bars"):
        load_bars([Source(path="feeds/sample/es_trades_2013-09.parquet")])


def test_the_digest_names_the_bars_and_not_the_file() -> None:
    a, b = series("AAA", 40), series("BBB", 30)
    whole = digest({"AAA": a, "BBB": b})
    assert digest({"BBB": b, "AAA": a}) == whole
    assert digest({"AAA": a.slice(end_ns=int(a.close_time[-1])), "BBB": b}) != whole
    low = a.low.copy()
    low[3] = np.nextafter(low[3], 0.0)
    assert digest({"AAA": replace(a, low=low), "BBB": b}) != whole


def test_tokens_come_with_the_time_and_hour_of_their_bar_and_without_the_warm_up() -> None:
    made = series(bars=600)
    config = TokenizerConfig(codes=16, hidden=8, features=FeatureConfig(warmup_bars=8))
    codec = fit([made], config, seed=0, steps=60)

    (found,) = tokenize({"AAA": made}, codec)

    skipped = len(made) - len(found)
    assert skipped >= 8
    assert found.time is not None
    assert found.hours is not None
    np.testing.assert_array_equal(found.time, made.close_time[skipped:])
    np.testing.assert_array_equal(found.tokens, codec.encode(made).tokens[skipped:])
    np.testing.assert_array_equal(found.hours, (found.time // 3_600_000_000_000 + 72) % 168)


def test_tokens_of_a_file_are_numbers_and_an_empty_line_parts_series(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    path.write_text("80 81,83\n89\n\n\n66 5\n")
    found = load_tokens(path, 128)
    assert [one.tokens.tolist() for one in found] == [[80, 81, 83, 89], [66, 5]]
    assert all(one.time is None and one.hours is None for one in found)
    assert tokens_digest(found) != tokens_digest(found[:1])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"1 2 x", "line 1: want tokens from 0 to 127, was 'x'"),
        (b"1\n-2", "line 2"),
        (b"128", "was '128'"),
        (b"1.5", "was '1.5'"),
        ("٣".encode(), "want tokens"),
        (b"9" * 5000, "want tokens"),
        (b"\xff\xfe", "UTF-8"),
        (b" \n ", "holds no token"),
    ],
)
def test_what_is_no_token_is_refused_with_its_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "tokens.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        load_tokens(path, 128)


def test_a_missing_token_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_tokens(tmp_path / "none.txt", 128)


@given(st.datetimes(datetime(1971, 1, 1), datetime(2199, 1, 1)))
def test_times_survive_the_way_to_nanoseconds_and_back(when: datetime) -> None:
    assert moment(nanoseconds(when)) == when


def test_the_span_of_no_bars_is_refused() -> None:
    empty = series(bars=10).slice(end_ns=0)
    with pytest.raises(DataError, match="no bar of AAA"):
        span({"AAA": empty})
