"""Every key known, every type right, every error a sentence."""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.load import ConfigError, build, load


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    size_max: float = 1.0

    def __post_init__(self) -> None:
        if not self.size_max > 0.0:
            raise ValueError(f"size_max must be positive, was {self.size_max}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    name: str = "x"
    count: int = 1
    flag: bool = False
    start: datetime | None = None
    words: tuple[str, ...] = ()
    weights: dict[str, float] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)
    many: tuple[Inner, ...] = ()


def test_a_full_file_fills_every_field(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        'name = "y"\ncount = 3\nflag = true\nstart = 2020-01-02\nwords = ["a"]\n'
        "[weights]\na = 1\n[inner]\nsize_max = 2\n[[many]]\nsize_max = 3.5\n"
    )
    assert load(Outer, path) == Outer(
        name="y",
        count=3,
        flag=True,
        start=datetime(2020, 1, 2),
        words=("a",),
        weights={"a": 1.0},
        inner=Inner(size_max=2.0),
        many=(Inner(size_max=3.5),),
    )


def test_none_is_written_as_a_word() -> None:
    assert build(Outer, {"start": "none"}).start is None
    assert build(Outer, {"name": "none"}).name == "none"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"nmae": "y"}, r"unknown key 'nmae'; did you mean 'name'\?"),
        ({"zzz": 1}, "unknown key 'zzz'; known keys are count, flag"),
        ({"inner": {"size_mx": 1.0}}, r"unknown key 'inner.size_mx'; did you mean 'size_max'\?"),
        ({"count": "3"}, "count must be a whole number, was '3'"),
        ({"count": 1.5}, "count must be a whole number, was 1.5"),
        ({"count": True}, "count must be a whole number, was True"),
        ({"flag": 1}, "flag must be true or false, was 1"),
        ({"start": "yesterday"}, "start must be a date, was 'yesterday'"),
        ({"words": "a"}, "words must be an array, was 'a'"),
        ({"words": [1]}, r"words\[0\] must be a string, was 1"),
        ({"weights": {"a": "b"}}, "weights.a must be a number, was 'b'"),
        ({"inner": 1}, "inner must be a table, was 1"),
        ({"inner": {"size_max": -1.0}}, r"\[inner\] size_max must be positive, was -1.0"),
        ({"many": [{"size_max": 0.0}]}, r"\[many\[0\]\] size_max must be positive"),
    ],
)
def test_each_mistake_is_named(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Outer, data)


def test_file_errors_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load(Outer, tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(Outer, tmp_path)
    bad = tmp_path / "bad.toml"
    bad.write_text("name = ")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(Outer, bad)


@given(st.dictionaries(st.text(min_size=1), st.integers() | st.text() | st.booleans() | st.lists(st.integers())))
def test_any_table_either_builds_or_is_a_config_error(data: dict[str, Any]) -> None:
    built: Any = None
    with suppress(ConfigError):
        built = build(Outer, data)
    assert built is None or isinstance(built, Outer)
