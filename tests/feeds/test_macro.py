"""Point-in-time files, end to end: the real yfinance client against a Yahoo on 127.0.0.1."""

import json
import math
import tomllib
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feeds.errors import FeedError, UnknownSymbolError
from feeds.files import Source, describe
from feeds.macro import MARKET_SERIES, SCHEMA, MacroFetchConfig, fetch, main
from tests.feeds.yahoo_server import Desk, Listing, desk_at

NOW = datetime(2024, 7, 2, 15, 10, 7)
START, END = datetime(2024, 6, 24), datetime(2024, 6, 29)
DAY = timedelta(days=1)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with desk_at(NOW, tmp_path / "cache") as desk:
        index: dict[str, Any] = {"kind": "INDEX", "holidays": frozenset([date(2024, 6, 19)])}
        for listing in (
            Listing(symbol="^VIX", exchange="CXI", zone="America/Chicago", opens=time(2, 15), closes=time(15), **index),
            Listing(symbol="^TNX", exchange="CGI", zone="America/Chicago", opens=time(7, 20), closes=time(14), **index),
            Listing(symbol="^GSPC", exchange="SNP", base=5000.0, **index),
            Listing(symbol="DX-Y.NYB", exchange="NYB", opens=time(0), closes=time(17), **index),
            Listing(symbol="CL=F", exchange="NYM", kind="FUTURE", base=-30.0),
        ):
            desk.server.listings[listing.symbol] = listing
        yield desk


def points(path: Path) -> list[tuple[str, str, str, float]]:
    """(time, series, observed, value), times as text."""
    table = pq.read_table(path)
    assert table.schema.equals(SCHEMA)
    columns = [
        c.cast(pa.timestamp("s", "UTC"), safe=False) if pa.types.is_timestamp(c.type) else c for c in table.columns
    ]
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    return [(f"{t:%m-%d %H:%M:%S}", series, f"{o:%m-%d %H:%M}", value) for t, series, o, value in rows]


def fetched(desk: Desk, series: list[str], **options: Any) -> Path:
    place: dict[str, Any] = {"cache_dir": desk.folder, "session": desk.session, "now": desk.server.now, "retries": 0}
    return fetch(series, options.pop("start", START), options.pop("end", END), **place | options)


def test_a_daily_value_is_known_after_midnight_of_its_exchange_and_the_delay(desk: Desk) -> None:
    rows = points(fetched(desk, ["^VIX"]))

    assert [row[:3] for row in rows] == [
        ("06-25 05:15:00", "^VIX", "06-25 05:00"),
        ("06-26 05:15:00", "^VIX", "06-26 05:00"),
        ("06-27 05:15:00", "^VIX", "06-27 05:00"),
        ("06-28 05:15:00", "^VIX", "06-28 05:00"),
        ("06-29 05:15:00", "^VIX", "06-29 05:00"),
    ]
    closed = int(datetime.fromisoformat("2024-06-24T20:00:00+00:00").timestamp())  # 15:00 in Chicago
    assert rows[0][3] == pytest.approx(desk.server.listings["^VIX"].price(closed), abs=1e-6)


def test_series_are_merged_in_the_order_in_which_they_could_be_known(desk: Desk) -> None:
    path = fetched(desk, list(MARKET_SERIES), end=datetime(2024, 6, 26), publication_delay_s=0.5)

    assert path == desk.folder / "macro_1d.parquet"
    assert [row[:2] for row in points(path)] == [
        ("06-25 04:00:00", "DX-Y.NYB"),  # New York's midnight comes first; equal times go by name
        ("06-25 04:00:00", "^GSPC"),
        ("06-25 05:00:00", "^TNX"),
        ("06-25 05:00:00", "^VIX"),
        ("06-26 04:00:00", "DX-Y.NYB"),
        ("06-26 04:00:00", "^GSPC"),
        ("06-26 05:00:00", "^TNX"),
        ("06-26 05:00:00", "^VIX"),
    ]
    stamps = pq.read_table(path)["time"].cast(pa.int64()).to_pylist()
    assert {stamp % 1_000_000_000 for stamp in stamps} == {500_000_000}  # the half second is kept
    facts = json.loads(pq.read_schema(path).metadata[b"ticktorch"])
    assert facts == {"source": "yahoo", "interval": "1d", "publication_delay_s": 0.5}


def test_hourly_values_are_known_at_their_close_and_the_delay(desk: Desk) -> None:
    path = fetched(desk, ["^GSPC"], interval="1h", end=datetime(2024, 6, 25), publication_delay_s=60.0)

    assert [row[0] for row in points(path)][:2] == ["06-24 14:31:00", "06-24 15:31:00"]
    assert points(path)[-1][:3] == ("06-24 20:01:00", "^GSPC", "06-24 20:00")


def test_values_below_zero_are_kept(desk: Desk) -> None:
    rows = points(fetched(desk, ["CL=F"]))

    assert len(rows) == 5
    assert all(row[3] < 0.0 for row in rows)


def test_the_file_holds_the_window_and_not_what_the_cache_has_beside_it(desk: Desk) -> None:
    whole = points(fetched(desk, ["^VIX"], start=datetime(2024, 5, 1), out=desk.folder / "deep" / "vix.parquet"))
    desk.server.requests.clear()

    rows = points(fetched(desk, ["^VIX"]))

    assert desk.server.requests == []
    assert rows == whole[-5:]


def test_an_unknown_series_writes_nothing(desk: Desk) -> None:
    with pytest.raises(UnknownSymbolError, match="NOSERIES: Yahoo has no such symbol"):
        fetched(desk, ["^VIX", "NOSERIES"])
    assert not (desk.folder / "macro_1d.parquet").exists()


def test_a_file_that_cannot_be_written_says_so(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FeedError, match="cannot be written"):
        fetched(desk, ["^VIX"], out=tmp_path / "file" / "macro.parquet")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"series": ["^VIX", "^VIX"]}, "want each series once"),
        ({"series": []}, "at least one symbol"),
        ({"series": ["a b"]}, "symbols must be Yahoo's"),
        ({"publication_delay_s": -1.0}, "publication_delay_s must lie in"),
        ({"publication_delay_s": math.nan}, "publication_delay_s must lie in"),
        ({"publication_delay_s": math.inf}, "publication_delay_s must lie in"),
        ({"interval": "1y"}, "interval must be one of"),
        ({"end": START}, "start must lie before end"),
    ],
)
def test_impossible_arguments_are_refused_before_any_request(desk: Desk, call: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fetched(desk, call.pop("series", ["^VIX"]), **call)
    assert desk.server.requests == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    delay_s=st.floats(0.0, 10 * 86_400.0),
    series=st.lists(st.sampled_from([*MARKET_SERIES, "CL=F"]), min_size=1, unique=True),
    first=st.integers(0, 15),
    days=st.integers(5, 15),
)
def test_no_point_is_known_before_it_happened(
    desk: Desk, delay_s: float, series: list[str], first: int, days: int
) -> None:
    start = datetime(2024, 6, 1) + first * DAY

    table = pq.read_table(fetched(desk, series, start=start, end=start + days * DAY, publication_delay_s=delay_s))

    known, observed = (table[name].cast(pa.int64()).to_pylist() for name in ("time", "observed"))
    assert {k - o for k, o in zip(known, observed, strict=True)} == {round(delay_s * 1e9)}
    assert all(a <= b for a, b in pairwise(known))
    assert set(table["series"].to_pylist()) == set(series)


def test_the_command_writes_the_file_and_names_it(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    window = ["--start", "2024-06-24", "--end", "2024-06-29", "--cache-dir", str(desk.folder)]

    assert main(window, session=desk.session, now=NOW) == 0
    out = capsys.readouterr().out
    assert f"{desk.folder / 'macro_1d.parquet'}: 20 points of ^GSPC, ^VIX, ^TNX, DX-Y.NYB" in out
    (source,) = tomllib.loads(out)["macro"]
    replayed = describe(Source(**source))
    assert (replayed.kind, replayed.rows, set(replayed.symbols)) == ("macro", 20, set(MARKET_SERIES))
    assert replayed.first == datetime(2024, 6, 25, 4, 15)
    assert main(["NOSERIES", *window], session=desk.session, now=NOW) == 2
    assert "error: NOSERIES: Yahoo has no such symbol" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["^VIX"])
    assert caught.value.code == 2


def test_a_config_names_the_bars_that_it_is_made_of() -> None:
    config = MacroFetchConfig(start="2024-01-01")
    assert config.bars().symbols == MARKET_SERIES
    assert config.bars().interval == "1d"
