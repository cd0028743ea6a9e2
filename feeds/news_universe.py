"""Which news is about which symbol: by what its source says of it, or by a table of a person's own. Nothing is guessed.

The table is a CSV in UTF-8 with the columns `symbol` and `alias`, one alias a line; other columns are ignored:

    symbol,alias
    AAPL,AAPL
    AAPL,Apple
    BRK-B,Berkshire Hathaway
    BTC/USDT,Bitcoin

A headline names a symbol where one of its aliases stands in it between word boundaries; of several that begin at the
same word the longest counts, so that "Apple Hospitality" is not Apple. An alias all in capitals must stand there in
capitals, case does not matter for others: "ALL" is not "all". A source's own tags and tickers name a symbol where one
equals it, or one of its aliases, case aside.
"""

import csv
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from feeds.errors import DataError
from feeds.raw import locate

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class UniverseConfig:
    """Which words in a headline mean which symbol."""

    path: str = ""  # CSV with the columns symbol and alias; "": headlines name no symbol


@dataclass(frozen=True, slots=True)
class _Alias:
    text: str  # as it must stand in a headline; casefolded unless it is exact
    exact: bool  # case matters
    words: int
    symbol: str


class Universe:
    """The table, ready to be looked up. Reading changes nothing in it: threads may share one.

    Args:
        rows: symbol and alias.

    Raises:
        ValueError: an alias that word boundaries cannot enclose, or an empty symbol.
    """

    def __init__(self, rows: Iterable[tuple[str, str]] = ()) -> None:
        self._by_first_word: dict[str, list[_Alias]] = {}
        self._by_tag: dict[str, list[str]] = {}
        for symbol, alias in rows:
            if not symbol:
                raise ValueError(f"want a symbol, was empty beside the alias {alias!r}")
            self._add(symbol, _normal(alias))

    def tagged(self, tags: Iterable[str]) -> tuple[str, ...]:
        """The symbols that a source's own tags name, each once."""
        found = (self._by_tag.get(_normal(tag).casefold(), ()) for tag in tags)
        return tuple(dict.fromkeys(symbol for symbols in found for symbol in symbols))

    def named(self, headline: str) -> tuple[str, ...]:
        """The symbols that a headline names, in its order, each once."""
        return tuple(dict.fromkeys(self._named(_normal(headline))))

    def _add(self, symbol: str, alias: str) -> None:
        words = _WORD.findall(alias)
        if not words or not alias.startswith(words[0]) or not alias.endswith(words[-1]):
            raise ValueError(f"an alias must begin and end with a letter or a digit, was {alias!r} for {symbol}")
        exact = alias.isupper()
        text = alias if exact else alias.casefold()
        known = self._by_first_word.setdefault(words[0].casefold(), [])
        known.append(_Alias(text, exact, len(words), symbol))
        known.sort(key=lambda other: -other.words)  # stable: the order of the table among equals
        for tag in (symbol, alias):
            symbols = self._by_tag.setdefault(_normal(tag).casefold(), [])
            if symbol not in symbols:
                symbols.append(symbol)

    def _named(self, text: str) -> Iterator[str]:
        words = list(_WORD.finditer(text))
        folded = [word[0].casefold() for word in words]
        at = 0
        while at < len(words):
            longest = 0
            for alias in self._by_first_word.get(folded[at], ()):
                last = at + alias.words - 1
                if alias.words < longest:
                    break
                if last < len(words) and _stands(alias, text[words[at].start() : words[last].end()]):
                    longest = alias.words
                    yield alias.symbol
            at += max(1, longest)


def load_universe(config: UniverseConfig) -> Universe:
    """Read the table.

    Raises:
        DataError: no such file, or a line that is not what the module's head says. Names file and line.
    """
    if not config.path:
        return Universe()
    try:
        with locate(config.path).open(encoding="utf-8-sig", newline="") as file:
            return Universe(_rows(csv.reader(file, strict=True), config.path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{config.path}: wanted a CSV in UTF-8 with the columns symbol and alias; {error}") from error
    except ValueError as error:
        raise DataError(f"{config.path}: {error}") from error


def _rows(lines: Iterator[Sequence[str]], path: str) -> Iterator[tuple[str, str]]:
    head = [name.strip() for name in next(lines, [])]
    if "symbol" not in head or "alias" not in head:
        raise DataError(f"{path}:1: wanted the columns symbol and alias; found {', '.join(head) or 'none'}")
    columns = head.index("symbol"), head.index("alias")
    count = 0
    for number, line in enumerate(lines, 2):
        if not any(cell.strip() for cell in line):
            continue
        if len(line) <= max(columns):
            raise DataError(f"{path}:{number}: wanted {len(head)} columns; found {len(line)}")
        count += 1
        yield line[columns[0]].strip(), line[columns[1]]
    if not count:
        raise DataError(f"{path}: wanted at least one alias; the table is empty")


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).replace("’", "'").split())


def _stands(alias: _Alias, text: str) -> bool:
    return (text if alias.exact else text.casefold()) == alias.text
