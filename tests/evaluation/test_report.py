"""The files of a report: whole, strict, the same every time, safe to open, and readable without a network."""

import json
import re
import struct
from collections.abc import Callable
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finished import Row, compounded, daily_times, market, record
from rich.console import Console

from evaluation import charts
from evaluation.display import activity_rows, hours, probability, risk_rows, uncertainty, verdict
from evaluation.document import TRIPS_SCHEMA, plain
from evaluation.figures import absent, measured
from evaluation.report import BRIEF, summary_table, write
from evaluation.run import RunRecord
from evaluation.trading import DEFINITIONS, evaluate

DAYS = daily_times(400)
Build = Callable[..., RunRecord]
HOSTILE = "<script>alert(1)</script>"
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Reads a page: its tags balanced, its text, its scripts, and all that it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.loads += [values[name] or "" for name in ("src", "href", "data", "action") if name in values]
        self.ids += [values["id"] or ""] if "id" in values else []
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def run_record(**changes: object) -> RunRecord:
    rows: list[Row] = [
        (DAYS[10 * i], "X", "SELL" if i % 2 else "BUY", 1.0, 100.0 + 7 * (i % 5), 0.1) for i in range(20)
    ]
    prices = compounded([0.012, -0.01] * 200)
    fields: dict[str, object] = {"markets": (market(DAYS, prices, taker_bps=10.0),)}
    equity = compounded(np.random.default_rng(2).normal(0.0, 0.01, 400))
    return record(DAYS, equity, *rows, position=[50.0] * 400, **(fields | changes))


@pytest.fixture(scope="module")
def run() -> RunRecord:
    return run_record()


@pytest.fixture(scope="module")
def written(run: RunRecord, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return write(tmp_path_factory.mktemp("report") / "deep" / "er", run, evaluate(run))


def page_of(run: RunRecord, folder: Path) -> tuple[str, Page]:
    text = write(folder, run, evaluate(run))[1].read_text(encoding="utf-8")
    return text, Page(text)


def test_four_files_and_no_draft_are_left(written: tuple[Path, ...]) -> None:
    assert [path.name for path in written] == ["report.json", "report.html", "equity.png", "trips.parquet"]
    assert sorted(written[0].parent.iterdir()) == sorted(written)


def test_the_json_is_strict_and_is_the_report(run: RunRecord, written: tuple[Path, ...]) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"not JSON: {constant}")

    document = json.loads(written[0].read_text(encoding="utf-8"), parse_constant=refuse)

    assert document == json.loads(json.dumps(plain(evaluate(run))))


def test_the_same_run_gives_the_same_bytes(run: RunRecord, written: tuple[Path, ...], tmp_path: Path) -> None:
    again = write(tmp_path, run, evaluate(run))

    for first, second in zip(written, again, strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_the_page_is_balanced_loads_nothing_and_forbids_itself_to(written: tuple[Path, ...]) -> None:
    text = written[1].read_text(encoding="utf-8")
    page = Page(text)

    assert page.open == []
    assert page.loads == ["data:,"]
    assert "default-src 'none'" in text
    assert len(set(page.ids)) == len(page.ids)
    payload, plotly, code = page.scripts
    assert len(plotly) > 1_000_000
    assert set(json.loads(payload)["figures"]) == {"equity", "price-0", "exposure"} <= set(page.ids)
    assert "Plotly.react" in code


def test_the_page_shows_every_figure_with_its_uncertainty_and_definition(
    run: RunRecord, written: tuple[Path, ...]
) -> None:
    text = Page(written[1].read_text(encoding="utf-8")).text
    report = evaluate(run)

    rows = risk_rows(report) + activity_rows(report)
    assert {row.key for row in rows} == set(DEFINITIONS)
    for row in rows:
        for words in (row.label, row.strategy, row.uncertainty, row.hold, row.definition):
            assert " ".join(words.split()) in text
    for fact in ("ab" * 32, "data/x.parquet", "Fees: 10 bps of notional.", "2,000 replications"):
        assert fact in text
    assert " ".join(verdict(report).split()) in text


def test_the_month_table_has_a_cell_a_month_and_a_total_a_year(written: tuple[Path, ...]) -> None:
    text = written[1].read_text(encoding="utf-8")

    assert len(re.findall(r'<td class="(?:gain|loss)"', text)) == 14  # 400 days from January 2024
    assert re.findall(r'<th scope="row">(\d{4})</th>', text) == ["2024", "2025"]


def test_a_partial_run_says_so_and_a_whole_one_does_not(written: tuple[Path, ...], tmp_path: Path) -> None:
    _, partial = page_of(run_record(partial=True), tmp_path)

    assert "Partial run." in partial.text
    assert "Partial run." not in Page(written[1].read_text(encoding="utf-8")).text


def test_text_from_the_run_cannot_become_markup(tmp_path: Path) -> None:
    prices = compounded([0.01, -0.01] * 200)
    table = record(DAYS, [100.0] * 400, (DAYS[3], HOSTILE, "BUY", 1.0, 5.0, 0.0)).fills
    hostile = run_record(
        title=f"A & B {HOSTILE} $title ${{js}}",
        markets=(market(DAYS, prices, symbol=HOSTILE),),
        fills=table,
        costs=(HOSTILE,),
        currency="<b>",
        sample=HOSTILE,
        facts=((HOSTILE, HOSTILE),),
        strategy_fills=table.append_column("strategy", pa.array([HOSTILE])),
    )

    text, page = page_of(hostile, tmp_path)

    assert "<script>alert" not in text
    assert len(page.scripts) == 3
    assert page.open == []
    assert "<b>" not in page.scripts[0]
    assert page.text.count(HOSTILE) >= 5  # shown as text
    assert "$title ${js}" in page.text
    # plotly reads tags in its texts, so they arrive there escaped as well
    figures = json.loads(page.scripts[0])["figures"]
    assert "&lt;script&gt;" in figures["price-0"]["layout"]["annotations"][0]["text"]


def test_a_bankrupt_run_is_still_reported(tmp_path: Path) -> None:
    broke = record(DAYS[:60], [100.0 - 2.0 * i for i in range(60)], markets=(market(DAYS[:60], [1.0] * 60),))

    _, page = page_of(broke, tmp_path)

    assert "equity fell to zero or below" in page.text
    assert page.open == []


def test_a_single_mark_without_fills_is_still_reported(tmp_path: Path) -> None:
    _, page = page_of(record(DAYS[:1], [100.0]), tmp_path)

    assert "needs 30 daily returns" in page.text
    assert page.open == []


def test_many_markets_are_drawn_up_to_a_limit_busiest_first(tmp_path: Path) -> None:
    markets = tuple(market(DAYS, [1.0] * 400, symbol=f"S{i:02d}") for i in range(15))
    rows: list[Row] = [(DAYS[0], "S14", "BUY", 1.0, 1.0, 0.0)]

    _, page = page_of(record(DAYS, [100.0] * 400, *rows, markets=markets), tmp_path)

    drawn = [name for name in json.loads(page.scripts[0])["figures"] if name.startswith("price")]
    assert len(drawn) == charts.PRICE_CHARTS_MAX
    assert "S14: price and fills" in page.text
    assert "3 further markets with fewer fills not drawn." in page.text


def test_the_picture_is_a_png_of_the_promised_size(written: tuple[Path, ...]) -> None:
    content = written[2].read_bytes()

    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (1500, 900)


def test_a_dollar_sign_in_a_title_is_no_formula(tmp_path: Path) -> None:
    run = record(DAYS[:3], [100.0] * 3, title=r"$\frac{ costs $5", currency="US$")

    assert write(tmp_path, run, evaluate(run))[2].exists()


def shown(run: RunRecord, width: int = 140) -> str:
    screen = StringIO()
    Console(width=width, file=screen).print(summary_table(evaluate(run)))
    return screen.getvalue()


def test_the_terminal_shows_risk_and_the_main_figures_of_trading_and_takes_no_markup() -> None:
    run = run_record(title="[red]A run[/red]", currency="[b]")
    text = shown(run)

    assert "[red]A run[/red]" in text
    for row in risk_rows(evaluate(run)) + [row for row in activity_rows(evaluate(run)) if row.key in BRIEF]:
        assert row.label in text
        assert row.strategy in text


def test_the_terminal_fits_a_screen_and_names_strategies_and_costs(busy: Build) -> None:
    text = shown(busy(), width=100)

    assert len(text.splitlines()) <= 32
    assert re.search(r"Profit of \(unallocated\) .* \d+ trips, ", text)
    assert re.search(r"Implementation shortfall .* USD .* bps: fees ", text)
    assert "not recorded" in shown(busy(priced=False))


def test_the_verdict_says_whether_luck_alone_could_have_done_it() -> None:
    lucky = evaluate(run_record())
    sure = evaluate(record(DAYS, compounded([0.02, -0.001] * 200)))

    assert "includes zero: luck alone could have made it." in verdict(lucky)
    assert "excludes zero, as far as one history can tell." in verdict(sure)
    assert "No annual figures: needs 30 daily returns, has 3." in verdict(evaluate(record(DAYS[:3], [100.0] * 3)))


def test_missing_figures_show_their_reason() -> None:
    report = evaluate(record(DAYS[:3], [100.0, 101.0, 99.0]))
    row = next(row for row in risk_rows(report) if row.key == "sharpe")

    assert (row.strategy, row.reason) == ("–", "needs 30 daily returns, has 3")


def test_numbers_read_as_people_write_them() -> None:
    assert probability(0.9997) == "> 99.9\N{NO-BREAK SPACE}%"
    assert probability(0.0001) == "< 0.1\N{NO-BREAK SPACE}%"
    assert (hours(5.25), hours(240.0)) == ("5.2 h", "10.0 days")
    figure = measured(1.0, interval=(-0.5, 2.0), standard_error=0.25)
    assert uncertainty(figure, lambda value: f"{value:g}") == "-0.5 to 2 · s.e. 0.25"
    assert uncertainty(absent("no"), str) == ""


def test_every_table_is_on_the_page_and_scrolls_in_a_box_of_its_own(busy: Build, tmp_path: Path) -> None:
    text, page = page_of(busy(), tmp_path)

    assert page.open == []
    for title in ("By strategy", "By symbol", "Costs", "Deepest drawdowns", "Round trips"):
        assert f"<h2>{title}</h2>" in text
    assert text.count('<table class="grid">') == 5
    assert len(re.findall(r'<div class="scroll[^>]*><table class="grid">', text)) == 5
    assert "(unallocated)" in page.text


def test_the_page_shows_the_newest_trips_and_the_file_holds_all(busy: Build, tmp_path: Path) -> None:
    run = busy(1_000)
    report = evaluate(run)
    text, page = page_of(run, tmp_path)
    table = pq.read_table(tmp_path / "trips.parquet")

    assert table.schema == TRIPS_SCHEMA
    assert table.num_rows == len(report.trips) > 200
    assert table["profit"].to_pylist() == [trip.profit for trip in report.trips]
    assert table["closed"].cast(pa.int64()).to_pylist() == [trip.closed_ns for trip in report.trips]
    assert f"The newest 200 of {len(report.trips)}; all are in trips.parquet." in page.text
    assert text.split("<h2>Round trips</h2>")[1].split("</table>")[0].count("<tr>") == 201
    assert json.loads((tmp_path / "report.json").read_text())["trips"] == {
        "count": len(report.trips),
        "file": "trips.parquet",
        "by_strategy": True,
    }
