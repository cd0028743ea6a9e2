"""Which news is about which symbol."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.errors import DataError
from feeds.news_live import UniverseConfig
from feeds.news_universe import Universe, load_universe

TABLE = Universe(
    [
        ("AAPL", "AAPL"),
        ("AAPL", "Apple"),
        ("APLE", "Apple Hospitality REIT"),
        ("ALL", "ALL"),
        ("T", "AT&T"),
        ("BTC/USDT", "Bitcoin"),
        ("BTC/USDT", "BTC-USD"),
        ("GOOG", "Google"),
        ("GOOGL", "Google"),
        ("MCO", "Moody's"),
    ]
)


@pytest.mark.parametrize(
    ("headline", "symbols"),
    [
        ("Apple beats forecasts", ("AAPL",)),
        ("APPLE'S profit rises", ("AAPL",)),
        ("Pineapple exports rise; apples too", ()),
        ("Apple Hospitality REIT raises its dividend", ("APLE",)),
        ("Apple and Apple Hospitality REIT", ("AAPL", "APLE")),
        ("Not all is well", ()),
        ("ALL misses forecasts", ("ALL",)),
        ("aapl falls", ()),
        ("AT&T cuts jobs", ("T",)),
        ("AT T cuts jobs", ()),
        ("Google is sued, bitcoin slides, and Google again", ("GOOG", "GOOGL", "BTC/USDT")),
        ("Moody’s downgrades a bank", ("MCO",)),
        ("Ａｐｐｌｅ in full width", ("AAPL",)),
        ("BTC-USD at a high", ("BTC/USDT",)),
        ("", ()),
    ],
)
def test_a_headline_names_what_stands_in_it_as_words(headline: str, symbols: tuple[str, ...]) -> None:
    assert TABLE.named(headline) == symbols


def test_tags_name_what_they_equal() -> None:
    assert TABLE.tagged(["btc-usd", "markets", " Apple ", "aapl", "T"]) == ("BTC/USDT", "AAPL", "T")
    assert TABLE.tagged(["Apple pie", "app", ""]) == ()


@given(st.text(max_size=60), st.sampled_from(["Apple", "AT&T", "Apple Hospitality REIT"]), st.text(max_size=60))
def test_an_alias_is_found_between_blanks_whatever_stands_around_it(before: str, alias: str, after: str) -> None:
    table = Universe([("X", alias)])

    assert table.named(f"{before} | {alias} | {after}") == ("X",)


@given(st.text(max_size=80))
def test_what_is_named_stands_in_the_headline(headline: str) -> None:
    for symbol in Universe([("A", "ab"), ("B", "b c")]).named(headline):
        assert {"A": "ab", "B": "b c"}[symbol] in " ".join(headline.casefold().split()) or not headline.isascii()


def write(folder: Path, content: bytes) -> UniverseConfig:
    path = folder / "universe.csv"
    path.write_bytes(content)
    return UniverseConfig(path=str(path))


def test_a_table_is_read_from_a_file(tmp_path: Path) -> None:
    config = write(tmp_path, b'\xef\xbb\xbfalias,note,symbol\r\nApple,x,AAPL\r\n\r\n"Deere & Company",y,DE\r\n')

    table = load_universe(config)

    assert table.named("Apple sues Deere & Company") == ("AAPL", "DE")


def test_without_a_table_nothing_is_named() -> None:
    table = load_universe(UniverseConfig())

    assert table.named("AAPL Apple") == table.tagged(["AAPL"]) == ()


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"ticker,name\nAAPL,Apple\n", "wanted the columns symbol and alias; found ticker, name"),
        (b"symbol,alias\n", "at least one alias"),
        (b"symbol,alias\nAAPL\n", ":2: wanted 2 columns; found 1"),
        (b"symbol,alias\n,Apple\n", "want a symbol, was empty beside the alias 'Apple'"),
        (b"symbol,alias\nAAPL,\n", "must begin and end with a letter or a digit, was '' for AAPL"),
        (b"symbol,alias\nYHOO,Yahoo!\n", "must begin and end with a letter or a digit, was 'Yahoo!'"),
        (b"symbol,alias\nA,\xff\n", "UTF-8"),
        (b'symbol,alias\nA,"x\n', "wanted a CSV"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes, wanted: str) -> None:
    with pytest.raises(DataError, match=r"universe\.csv") as refused:
        load_universe(write(tmp_path, content))
    assert wanted in str(refused.value)


def test_a_missing_table_is_refused() -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv does not exist"):
        load_universe(UniverseConfig(path="nowhere.csv"))
