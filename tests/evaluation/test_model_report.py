"""The report of a model: what it says, and that it says the same each time."""

import json
import re
from dataclasses import replace
from datetime import timedelta
from functools import cache
from io import StringIO
from pathlib import Path

import pytest
from foretold import CODES, counted, tracks
from rich.console import Console

from evaluation.direction import DIRECTION_DEFINITIONS
from evaluation.figures import absent, measured
from evaluation.judge import RETURN_DEFINITIONS
from evaluation.model_document import Checkpoint, Judgement, ModelReport, plain
from evaluation.model_figures import FORECAST_DEFINITIONS, FORECASTS, VOLATILITY_DEFINITIONS, return_part, token_part
from evaluation.model_grids import heading, return_grids, tokens_grid, verdicts
from evaluation.model_page import render
from evaluation.model_report import markdown, show, update_page, write
from evaluation.ranks import RANK_DEFINITIONS
from evaluation.run import moment
from evaluation.token_figures import TOKEN_DEFINITIONS
from evaluation.tracks import Size, Window


@cache
def made(*, knows: bool = True) -> ModelReport:
    foretold, table = tracks(knows=knows)
    first, last = (moment(int(foretold[0].times[foretold[0].judged][place])) for place in (0, -1))
    return ModelReport(
        title="A model, judged",
        checkpoint=Checkpoint(
            name="small",
            digest="ab" * 32,
            code="ticktorch 0",
            model={"layers": 1},
            tokenizer={"codes": CODES},
            training_start=moment(int(foretold[0].times[0])),
            training_end=moment(int(foretold[0].times[3_999])),
            guard_end=moment(int(foretold[0].times[4_200])),
            symbols=("S0", "S1"),
            bar_s=3_600.0,
            trials=3,
            seed=0,
            licence="Made up.",
        ),
        window=Window(start=first, end=last, in_sample=False),
        data_sha256="cd" * 32,
        judged=tuple(
            Judgement(symbol=track.symbol, bars=int(track.judged.sum()), first=first, last=last) for track in foretold
        ),
        size=Size(parameters=1_000, weights_bytes=4_000, context=8, multiply_adds=2_000, cache_bytes=512),
        tokens=token_part(foretold, counted(foretold), CODES),
        returns=return_part(foretold, table, counted(foretold)),
        overfitting=absent("needs a sweep of at least two configs"),
        sweep=(),
    )


def shown(report: ModelReport, width: int = 100) -> str:
    console = Console(file=StringIO(), width=width)
    show(console, report)
    return " ".join(str(console.file.getvalue()).split())  # type: ignore[attr-defined]


def test_an_edge_is_called_one_and_none_is_called_none() -> None:
    knows, knows_not = (" ".join(verdicts(made(knows=knows))) for knows in (True, False))

    assert "over the bigram it saves" in knows
    assert "Direction: over a coin no edge" in knows
    for said in re.findall(r"no edge \((\S+) \w+, 95 %: (\S+) to (\S+)\)", knows + knows_not):
        value, low, high = (float(x.replace("\N{MINUS SIGN}", "-")) for x in said)
        assert low <= value <= high
        assert low <= 0.0 <= high
    assert "no edge" in knows_not
    assert "Direction: over a coin no edge" in knows_not


def test_every_difference_in_the_document_has_an_interval_and_the_verdict_it_implies() -> None:
    found = []

    def look(value: object) -> None:
        if isinstance(value, dict):
            if "verdict" in value:
                found.append(value)
            for inner in value.values():
                look(inner)
        elif isinstance(value, list):
            for inner in value:
                look(inner)

    look(plain(made()))

    assert len(found) > 20
    for one in found:
        if one["value"] is None:
            assert one["reason"]
            continue
        low, high = one["interval_95"]
        assert one["verdict"] == ("no edge" if low <= 0.0 <= high else "better" if low > 0.0 else "worse")


def test_token_figures_and_return_figures_never_share_a_table() -> None:
    tokens = tokens_grid(made().tokens)
    names = {cell.partition("\n")[0] for row in tokens.rows for cell in row[:1]}
    assert names == {"Model", "Bigram", "Unigram"}
    for grid in return_grids(made()):
        assert not {"Unigram", "Bigram"} & {row[0] for row in grid.rows}
        assert not {"Perplexity", "Top 5", "Nats"} & set(grid.heads)
    document = plain(made())
    assert not {"crps", "qlike"} & set(str(document["tokens"]).split("'"))
    assert not {"perplexity", "top_5"} & set(str(document["returns"]).split("'"))


def test_all_baselines_stand_in_the_tables() -> None:
    gains = next(grid for grid in return_grids(made()) if grid.title.startswith("What the model saves"))

    assert [row[0] for row in gains.rows] == [name for key, name in FORECASTS.items() if key != "model"]
    assert set(FORECAST_DEFINITIONS) == set(FORECASTS)


def test_the_same_report_gives_the_same_bytes(tmp_path: Path) -> None:
    one = [path.read_bytes() for path in write(tmp_path / "a", made())]
    made.cache_clear()
    other = [path.read_bytes() for path in write(tmp_path / "b", made())]

    assert one == other
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["model.html", "model.json"]
    document = json.loads(one[0])
    assert document == json.loads(json.dumps(plain(made())))
    definitions = document["definitions"]
    assert definitions["returns"] == RETURN_DEFINITIONS
    assert definitions["direction"] == DIRECTION_DEFINITIONS


def test_the_page_needs_nothing_else_and_escapes_what_it_is_told() -> None:
    page = render(replace(made(), title="</script><script>alert(1)</script>"))

    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page
    body = page[: page.index('<script type="application/json"')]
    assert "://" not in body
    payload = re.search(r'<script type="application/json" id="payload">(.*?)</script>', page, re.DOTALL)
    assert payload is not None
    assert set(json.loads(payload[1])["figures"]) == {"saved", "transform"}
    for name in ("saved", "transform"):
        assert f'id="{name}"' in body


def test_in_sample_is_said_everywhere() -> None:
    report = replace(made(), window=replace(made().window, in_sample=True))

    assert "<strong>In sample.</strong>" in render(report)
    assert "in the training window" in heading(report)
    assert "**In sample: every figure is flattered.**" in markdown(report)
    assert "IN SAMPLE: every figure is flattered." in shown(report)
    assert plain(report)["in_sample"] is True
    assert "In sample" not in render(made())


def test_bars_before_the_training_window_are_not_said_to_come_after_it() -> None:
    report = made()
    checkpoint = replace(report.checkpoint, training_start=report.window.end + timedelta(hours=1))
    assert heading(report).endswith("after the training window and its embargo.")
    assert heading(replace(report, checkpoint=checkpoint)).endswith("before the training window.")


def test_tokens_alone_make_a_report_without_charts() -> None:
    report = replace(made(), returns=None)

    page = render(report)
    assert "Next return" not in page
    assert "Next token" in page
    assert len(page) < 100_000  # plotly is left out
    assert plain(report)["returns"] is None
    assert len(verdicts(report)) == 1


def test_the_terminal_shows_size_and_every_table() -> None:
    text = shown(made())

    for title in ("Next token", "Next return", "Volatility", "Direction", "Size and cost", "Parameters"):
        assert title in text
    assert "Cross-section: None: needs 5 symbols in one instant, the most were 2." in text
    assert "Overfitting of a sweep: None: needs a sweep" in text


def test_a_sweep_is_told_where_there_was_one() -> None:
    report = replace(made(), overfitting=measured(0.25), sweep=("a", "b"))

    assert "best of 2 checkpoints" in shown(report, width=200)
    assert "25.0" in markdown(report)
    assert plain(report)["overfitting"]["sweep"] == ["a", "b"]


def test_markdown_tables_are_whole_and_page_markers_are_kept(tmp_path: Path) -> None:
    text = markdown(made())
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) >= 6
    for table in tables:
        assert len({line.count("|") - line.count("\\|") for line in table.splitlines()}) == 1
    page = tmp_path / "page.md"
    page.write_text("# Results\n\n<!-- begin small -->\nold\n<!-- end small -->\n\nThe end.\n")

    update_page(page, "small", text)
    update_page(page, "small", text)

    assert page.read_text() == f"# Results\n\n<!-- begin small -->\n\n{text}\n<!-- end small -->\n\nThe end.\n"
    with pytest.raises(ValueError, match="begin other"):
        update_page(page, "other", text)


def test_every_figure_is_defined_in_the_documentation_as_the_report_defines_it() -> None:
    page = (Path(__file__).parents[2] / "docs" / "concepts" / "forecasting.md").read_text()
    every = (
        TOKEN_DEFINITIONS,
        RETURN_DEFINITIONS,
        VOLATILITY_DEFINITIONS,
        DIRECTION_DEFINITIONS,
        RANK_DEFINITIONS,
        FORECAST_DEFINITIONS,
    )
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", page, flags=re.MULTILINE)
    assert sorted(rows) == sorted((key, text) for part in every for key, text in part.items())
