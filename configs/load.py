"""TOML into frozen dataclasses: every key known, every type right, every error a sentence.

TOML has no null: "none" stands for None where a key may be absent.

The dataclasses live beside the code that reads them; this module only knows how to fill them in.
"""

import dataclasses
import difflib
import reprlib
import tomllib
import types
import typing
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class ConfigError(Exception):
    """A config that cannot be used; the message names the key, what was wanted and what came."""


def load(cls: type[T], path: str | Path) -> T:
    """Read a TOML file into the dataclass `cls`.

    Raises:
        ConfigError: no such file, no TOML, an unknown key, a wrong type, or a value that `cls` refuses.
    """
    try:
        text = Path(path).read_bytes().decode()
    except FileNotFoundError:
        raise ConfigError(f"config file {path} does not exist") from None
    except OSError as exc:
        raise ConfigError(f"config file {path} cannot be read: {exc.strerror}") from None
    except UnicodeDecodeError as exc:
        raise ConfigError(f"config file {path} cannot be read: want UTF-8, was {exc}") from None
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as exc:  # tomllib lets int() and the stack speak for themselves
        raise ConfigError(f"config file {path} is not valid TOML: {exc}") from None
    try:
        return build(cls, data)
    except ConfigError as exc:
        raise ConfigError(f"config file {path}: {exc}") from None


def build(cls: type[T], data: dict[str, Any], where: str = "") -> T:
    """Turn parsed TOML into the dataclass `cls`.

    Args:
        where: the dotted key of `data` itself, for messages.

    Raises:
        ConfigError: as `load`.
    """
    hints = typing.get_type_hints(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    names = [field.name for field in fields]
    for key in data:
        if key not in names:
            raise ConfigError(f"unknown key {_join(where, key)!r}{nearest(key, names)}")
    for field in fields:
        no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if no_default and field.name not in data:
            raise ConfigError(f"{_join(where, field.name)} is missing: it has no default")
    values = {key: _convert(hints[key], value, _join(where, key)) for key, value in data.items()}
    try:
        return cls(**values)
    except ValueError as exc:
        raise ConfigError(f"[{where}] {exc}" if where else str(exc)) from None


def plain(config: Any) -> Any:
    """A config as what TOML or JSON can hold; `build` makes an equal one of it."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: plain(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, (tuple, list)):
        return [plain(item) for item in config]
    if isinstance(config, dict):
        return {key: plain(value) for key, value in config.items()}
    return "none" if config is None else config


def nearest(name: str, known: Sequence[str], what: str = "keys") -> str:
    """A hint such as `; did you mean 'x'?`, or what there is to choose from."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known {what} are {listed(sorted(known))}"


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names for a message: `a, b, c`, at most `most` of them."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint` wants it, or a ConfigError that names the key."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value == "none":  # TOML has no null
            return None
        (inner,) = (a for a in arguments if a is not type(None))  # only X | None is used
        return _convert(inner, value, where)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise _wrong(where, "a table", value)
        return build(typing.cast(type, hint), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(where, "an array", value)
        return tuple(_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(where, "a table", value)
        return {key: _convert(arguments[1], item, _join(where, key)) for key, item in value.items()}
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        with suppress(OverflowError):  # a TOML integer has no largest value
            return float(value)
    if hint is datetime and type(value) is date:
        return datetime(value.year, value.month, value.day)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        names = {float: "a number", int: "a whole number", str: "a string", bool: "true or false", datetime: "a date"}
        raise _wrong(where, names.get(hint, getattr(hint, "__name__", str(hint))), value)
    return value


def _wrong(where: str, wanted: str, value: Any) -> ConfigError:
    return ConfigError(f"{where} must be {wanted}, was {reprlib.repr(value)}")
