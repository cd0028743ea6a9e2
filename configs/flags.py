"""What the flags of every command share: a value is read one way, and what is wrong with it is said one way."""

import argparse
import types
import typing
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

# What a flag shows, and what it wants where it was given something else.
_SCALARS: dict[Any, tuple[str, str]] = {
    int: ("INT", "a whole number"),
    float: ("FLOAT", "a number"),
    Path: ("PATH", "a path"),
    datetime: ("DATE", "a date such as 2018-01-31 or 2018-01-31T12:00+01:00"),
}


def named_files(argv: Sequence[str], *flags: str) -> argparse.Namespace:
    """The files that the other flags are defaults of; None where not given, or wrong: tyro will say it better."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for flag in flags:
        first.add_argument(f"--{flag}", type=_text)
    named = argparse.Namespace(**dict.fromkeys(flags))
    with suppress(argparse.ArgumentError):
        first.parse_known_args(argv, named)
    return named


def _text(text: str) -> str | None:
    return None if text.lower() in ("", "none") else text


def registry() -> ConstructorRegistry:
    """tyro reads `X | None` as one of two things to try, and tells of both failures; here it is one thing."""
    rules = ConstructorRegistry()

    @rules.primitive_rule
    def scalar(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        union = info.type_origin in (typing.Union, types.UnionType)
        kinds = [kind for kind in typing.get_args(info.type) if kind is not type(None)] if union else [info.type]
        if len(kinds) != 1 or kinds[0] not in _SCALARS:
            return None
        kind, (shown, wanted) = kinds[0], _SCALARS[kinds[0]]

        def read(words: list[str]) -> Any:
            (text,) = words
            if union and text.lower() == "none":  # as Python says it, or a config file
                return None
            try:
                return _scalar(kind, text)
            except ValueError:
                raise ValueError(f"want {wanted}{' or none' if union else ''}, was {text!r}") from None

        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=f"{shown}|none" if union else shown,
            instance_from_str=read,
            is_instance=lambda value: value is None if union else isinstance(value, kind),
            str_from_instance=lambda value: ["none" if value is None else str(value)],
        )

    return rules


def _scalar(kind: Any, text: str) -> Any:
    if kind is datetime:
        return datetime.fromisoformat(text)
    if not text:
        raise ValueError
    return kind(text)
