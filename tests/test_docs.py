"""The documentation agrees with the code: links, configs, tables, flags, and the example that it gives."""

import importlib
import importlib.util
import re
import runpy
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import csp
import pyarrow.parquet as pq
import pytest
from finished import daily_times, record

from brokers import events as broker_events
from brokers import reset, show
from brokers.events import OrderState
from brokers.local_exchange import __main__ as local_exchange
from brokers.orders import TransitionError, follow
from configs.load import build
from evaluation import forecasts
from evaluation.command import main as evaluation_main
from evaluation.display import activity_rows, risk_rows
from evaluation.trading import DEFINITIONS, evaluate
from feeds import events as feed_events
from feeds import macro, synthetic, yahoo
from graphs.cli import backtest_main
from graphs.config import BacktestConfig
from graphs.live_cli import live_main
from graphs.live_config import LiveConfig
from models.advisor.__main__ import main as advisor_main
from models.generate import main as generate_main
from models.write import main as write_main
from nodes import events as node_events
from nodes import health
from tokenizer.analysis import main as analysis_main
from trainer.__main__ import main as trainer_main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "feeds" / "sample" / "README.md"])
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """The text without what stands between fences."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def slugs(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def section(page: Path, title: str) -> str:
    """What stands under a heading, up to the next one."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page} has no section {title!r}"
    return found[1]


def cells(text: str) -> list[list[str]]:
    """The rows of the tables in a text, without heads."""
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if not row[0].startswith(("---", " key", " field"))]


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_relative_link_resolves(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if link.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in slugs(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_toml_block_is_a_config_or_part_of_one(page: Path) -> None:
    for text in blocks(page, "toml"):
        values = tomllib.loads(text)
        build(LiveConfig if "venue" in values or "orders" in values else BacktestConfig, values)


def test_the_config_reference_is_current() -> None:
    generator = loaded(DOCS / "generate_config.py")
    for name, written in (("config.md", generator.page()), ("config-live.md", generator.live_page())):
        assert (DOCS / "reference" / name).read_text() == written, "run python docs/generate_config.py"


def defined(kind: type, *modules: ModuleType) -> list[type[Any]]:
    """The subclasses of `kind` that the modules define."""
    found = [(module, value) for module in modules for value in vars(module).values() if isinstance(value, type)]
    return [value for module, value in found if value.__module__ == module.__name__ and issubclass(value, kind)]


STRUCTS = defined(csp.Struct, feed_events, broker_events, node_events, health)


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_every_field_of_an_event_is_described(struct: type[Any]) -> None:
    rows = cells(section(DOCS / "reference" / "events.md", struct.__name__))
    described = [(row[0].strip("*`"), row[1]) for row in rows]
    assert described == [(name, kind.__name__) for name, kind in struct.__annotations__.items()]


def test_every_enum_is_described() -> None:
    rows = {row[0]: row[1] for row in cells(section(DOCS / "reference" / "events.md", "Enums")) if row[0] != "enum"}
    enums = defined(csp.Enum, feed_events, broker_events, node_events)
    assert rows == {f"`{enum.__name__}`": ", ".join(f"`{member}`" for member in enum.__members__) for enum in enums}


def test_every_figure_is_defined_as_the_report_defines_it() -> None:
    page = DOCS / "reference" / "report.md"
    report = evaluate(record(daily_times(3), [100.0, 101.0, 102.0]))
    labels = {row.key: row.label for row in (*risk_rows(report), *activity_rows(report))}
    rows = cells(section(page, "Return and risk")) + cells(section(page, "Trading"))
    rows = [row for row in rows if row[0] != "figure"]
    assert {row[1].strip("`"): row[2] for row in rows} == DEFINITIONS
    assert all(labels[row[1].strip("`")].startswith(row[0]) for row in rows)


def test_every_name_in_origins_exists() -> None:
    rows = [row for row in cells((DOCS / "reference" / "origins.md").read_text()) if row[0] != "sketch"]
    assert len(rows) == 16
    for _, here, changed in rows:
        for text in (here, changed):
            for path in re.findall(r"`([\w/]+\.py)`", text):
                assert (ROOT / path).exists(), path
        for names, path in re.findall(r"((?:`\w+`(?:, | and )?)+) in `([\w/]+\.py)`", here):
            module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
            assert all(hasattr(module, name) for name in re.findall(r"`(\w+)`", names)), (names, path)


def test_the_life_of_an_order_is_told_as_it_is() -> None:
    page = DOCS / "reference" / "events.md"
    rows = [row for row in cells(section(page, "The life of an order")) if row[0] != "state"]
    told = {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[2])) for row in rows}
    possible = {old.name: {new.name for new in OrderState if _follows(old, new)} for old in OrderState}
    assert told == possible


def _follows(old: OrderState, new: OrderState) -> bool:
    try:
        follow("1", old, new)
    except TransitionError:
        return False
    return True


def test_every_flag_in_the_documentation_exists(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["program", "--help"])
    calls: list[Callable[[], Any]] = [
        lambda: backtest_main(["--help"]),
        lambda: yahoo.main(["--help"]),
        lambda: macro.main(["--help"]),
        synthetic.main,
        lambda: live_main(["--help"]),
        lambda: reset.main(["--help"]),
        lambda: show.main(["--help"]),
        lambda: local_exchange.main(["--help"]),
        lambda: trainer_main(["tokenizer", "--help"]),
        lambda: trainer_main(["fingpt", "--help"]),
        lambda: trainer_main(["advisor", "--help"]),
        lambda: trainer_main(["gpt", "--help"]),
        lambda: write_main(["--help"]),
        lambda: advisor_main(["--help"]),
        lambda: analysis_main(["--help"]),
        lambda: generate_main(["--help"]),
        lambda: evaluation_main(["--help"], program=forecasts.PROGRAM, about=forecasts.ABOUT, returns=True),
        *(partial(runpy.run_path, str(path), run_name="__main__") for path in sorted((ROOT / "examples").glob("*.py"))),
    ]
    for call in calls:
        with pytest.raises(SystemExit):
            call()
    flags = re.compile(r"(?<![\w-])--[a-z][a-z0-9.-]*[a-z0-9]")
    known = set(flags.findall(capsys.readouterr().out))
    for page in [*DOCS.rglob("*.md"), ROOT / "README.md"]:
        unknown = set(flags.findall(page.read_text())) - known
        assert not unknown, f"{page}: {unknown}"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a run with the plugin that the first page gives, and with nothing else."""
    folder = tmp_path_factory.mktemp("example")
    (source,) = blocks(DOCS / "get-started" / "backtest.md", "python")
    (folder / "my_signals.py").write_text(source)
    out = folder / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        argv = ["--quiet", "--end", "2019-02-01", "--signals.use", "--signals.plugins", "my_signals:volume_burst"]
        assert backtest_main([*argv, "--out", str(out)]) == 0
    return out


def test_the_plugin_of_the_first_page_trades(example: Path) -> None:
    assert pq.read_metadata(example / "fills.parquet").num_rows > 0


def test_every_output_file_is_described_column_by_column(example: Path) -> None:
    page = DOCS / "reference" / "files.md"
    for path in example.iterdir():
        if path.suffix == ".parquet":
            described = [row[0].strip("`") for row in cells(section(page, path.name)) if row[0] != "column"]
            assert described == pq.read_schema(path).names, path.name
        else:
            assert f"`{path.name}`" in section(page, "The report")
