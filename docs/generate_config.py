"""Write docs/reference/config.md and config-live.md from the dataclasses that read the configs.

python docs/generate_config.py
"""

import ast
import inspect
import io
import json
import tokenize
import typing
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

from graphs.config import BacktestConfig
from graphs.live_config import LiveConfig

HEAD = """# Configuration of a backtest

<!-- Written by docs/generate_config.py from the dataclasses: change those, then run it. -->

The keys of a config, a TOML file; all but the *required* ones may be left out. Types are Python's: a `tuple` is an
array, a `dict` a table, `None` the word `"none"`. A key that is not written has its default. Each key is also a flag,
which wins ([flags](command-line.md)).
"""
LIVE_HEAD = """# Configuration of a live run

<!-- Written by docs/generate_config.py from the dataclasses: change those, then run it. -->

The keys of a file under `configs/live/`. The tables that a backtest has too, `[signals]`, `[fuse]`, `[sizing]`,
`[risk]`, `[broker]`, `[[instruments]]`, `[[conversions]]` and `[[strategies]]`, are [there](config.md). Secrets are in
no config: a key that ends in `_env` names the environment variable that holds one.
"""


def lines_of(cls: type) -> dict[str, tuple[str, str]]:
    """The annotation of each field and the comment behind it, those of base classes included."""
    found: dict[str, tuple[str, str]] = {}
    for base in filter(is_dataclass, reversed(cls.__mro__)):
        source = inspect.getsource(base)
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        notes = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
        for line in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
            if isinstance(line, ast.AnnAssign):
                said = " ".join(notes.get(n, "") for n in range(line.lineno, (line.end_lineno or 0) + 1))
                found[ast.unparse(line.target)] = ast.unparse(line.annotation), said.strip()
    return found


def page(cls: typing.Any = BacktestConfig, table: str = "", written: dict[type, str] | None = None) -> str:
    """The page; within it, the section of `cls` and of every table in it are added to what is `written`."""
    written = {} if written is None else written
    if cls in written:  # a second table of the same class; one inside another table has the same name there
        if "." not in table:
            written[cls] = written[cls].replace("\n", f", `[{table}]`\n", 1)
        return ""
    title, head = f"`[{table}]`" if table else "Top level", "| key | type | default | meaning |\n|---|---|---|---|\n"
    written[cls] = f"## {title}\n\n{inspect.getdoc(cls)}\n\n{head}"
    hints, lines = typing.get_type_hints(cls), lines_of(cls)
    for field in fields(cls):
        many = typing.get_origin(hints[field.name]) is tuple
        item = typing.get_args(hints[field.name])[0] if many else hints[field.name]
        if is_dataclass(item):
            path = f"{table.strip('[]')}.{field.name}".lstrip(".")
            page(item, f"[{path}]" if many else path, written)
            continue
        value = field.default if field.default_factory is MISSING else field.default_factory()
        default = "*required*" if value is MISSING else f"`{'None' if value is None else json.dumps(value)}`"
        kind, meaning = (text.replace("|", "\\|") for text in lines[field.name])
        written[cls] += f"| `{field.name}` | `{kind}` | {default} | {meaning} |\n"
    return "\n".join([HEAD, *written.values()])


def live_page() -> str:
    """The page of a live config, without the tables that the other page has."""
    known: dict[type, str] = {}
    page(BacktestConfig, written=known)
    written = dict(known)
    page(LiveConfig, written=written)
    return "\n".join([LIVE_HEAD, *(text for cls, text in written.items() if cls not in known)])


if __name__ == "__main__":
    REFERENCE = Path(__file__).parent / "reference"
    (REFERENCE / "config.md").write_text(page())
    (REFERENCE / "config-live.md").write_text(live_page())
