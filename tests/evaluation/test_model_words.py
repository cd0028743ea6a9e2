"""What a report says of its price models: in words that no reader takes for more than they are."""

from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from finished import HOUR_NS, START_NS, market, record
from rich.console import Console

from evaluation.model_words import aim_grid, foresight_grid, training_lines, warning
from evaluation.report import summary_table, write
from evaluation.run import Checkpoint, PriceModel, RunRecord, VolatilityTarget
from evaluation.trading import Report, evaluate

HOURS = 24 * 20
START, END = datetime(2024, 1, 1, 1), datetime(2024, 1, 21)
DAY = timedelta(days=1)
HOSTILE = "<script>alert(1)</script>[red]"


def checkpoint(start: datetime | None, end: datetime | None, name: str = "checkpoints/a") -> Checkpoint:
    return Checkpoint(name=name, digest="d" * 64, start=start, end=end, guard_end=None if end is None else end + DAY)


def run_with(*checkpoints: Checkpoint, symbols: int = 1, targets: int = 1, **changes: Any) -> RunRecord:
    """Twenty days of hours in which a model foretold every bar."""
    times = START_NS + HOUR_NS * np.arange(1, HOURS + 1)
    names = [f"S{i}" for i in range(symbols)]
    chance = np.random.default_rng(0)
    prices = [100.0 * np.exp(np.cumsum(chance.normal(0.0, 0.01, HOURS))) for _ in names]
    n = HOURS * symbols
    columns: dict[str, Any] = {
        "time": np.repeat(times, symbols) + 1_000,
        "symbol": names * HOURS,
        "asof": np.repeat(times, symbols),
        "mean": np.zeros(n),
        "surprise": np.full(n, 6.0),
        "entropy": np.full(n, 6.5),
        "volatility": np.full(n, 0.01),
    }
    columns |= {name: np.full(n, z) for name, z in (("q05", -0.016), ("q25", -0.007), ("q75", 0.007), ("q95", 0.016))}
    closes = {name: (times, price) for name, price in zip(names, prices, strict=True)}
    model = PriceModel(checkpoints=checkpoints, halflife_bars=32.0, forecasts=pa.table(columns), closes=closes)
    fields: dict[str, Any] = {
        "markets": tuple(market(times, price, symbol=name) for name, price in zip(names, prices, strict=True)),
        "model": model,
        "targets": tuple(
            VolatilityTarget(strategy=f"s{i}", target=0.2, allocation=1.0, by="forecast") for i in range(targets)
        ),
    }
    return record(times.tolist(), prices[0].tolist(), position=[1.0] * HOURS, **(fields | changes))


def reported(*checkpoints: Checkpoint, **changes: Any) -> Report:
    return evaluate(run_with(*checkpoints, **changes))


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [
        (START - 30 * DAY, START - 2 * DAY, "; this run begins after it."),
        (END + DAY, END + 9 * DAY, "; this run ends before it."),
        (START - DAY, START + DAY, "; from 1 January 2024, 01:00 to 3 January 2024, 01:00 this run is in sample."),
        (None, None, " trained on data of unknown times, so the whole run counts as in sample."),
        (
            None,
            START - 2 * DAY,
            " data up to 30 December 2023, with an embargo to 31 December 2023; this run begins after it.",
        ),
        (None, START + DAY, "; from 1 January 2024, 01:00 to 3 January 2024, 01:00 this run is in sample."),
    ],
)
def test_the_training_is_told_beside_the_run(start: datetime | None, end: datetime | None, words: str) -> None:
    (line,) = training_lines(reported(checkpoint(start, end)))

    assert line.startswith("Price model checkpoints/a: trained on ")
    assert line.endswith(words)


def test_half_a_training_window_is_refused() -> None:
    with pytest.raises(ValueError, match="want the training window of checkpoints/a whole, its end alone, or none"):
        checkpoint(START, None)


def test_parts_in_sample_that_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match="in order and apart"):
        run_with(in_sample=((START, START + 2 * DAY), (START + DAY, END)))


def test_the_warning_names_the_part_or_the_whole() -> None:
    part, whole, none = (
        warning(reported(in_sample=parts)) for parts in (((START, START + DAY),), ((START - DAY, END + DAY),), ())
    )

    assert part.startswith("The part from 1 January 2024 to 2 January 2024 is what a price model was trained on")
    assert whole.startswith("The whole run is what a price model was trained on")
    assert none == ""


def test_symbols_stand_above_their_sum_and_one_alone_has_none() -> None:
    seen = checkpoint(START - 9 * DAY, START - 3 * DAY)
    several, one = (foresight_grid(reported(seen, symbols=count)) for count in (2, 1))

    assert several is not None
    assert [row[0] for row in several.rows] == ["S0", "S1", "All"]
    assert several.totals == 1
    assert several.rows[-1][-1] == f"{2 * (HOURS - 2):,}"  # the first return has no EWMA before it, the last none after
    assert one is not None
    assert [row[0] for row in one.rows] == ["S0"]
    assert one.rows[0][1].partition("\n")[0].rpartition(" ")[2] in ("edge", "better", "worse")
    assert one.rows[0][6].startswith("\N{MINUS SIGN}0.500\n")
    assert "half-life of 32 bars" in one.note


def test_a_target_stands_beside_what_was_realised() -> None:
    alone, several = (aim_grid(reported(targets=count)) for count in (1, 2))

    assert alone is not None
    assert [row[0] for row in alone.rows] == ["All of the time", "In the market"]
    realised, target, share = (alone.rows[1][i] for i in (1, 2, 3))
    assert target == "20.0\N{NO-BREAK SPACE}%"
    assert float(share) == pytest.approx(float(realised.split("\N{NO-BREAK SPACE}")[0]) / 20.0, abs=0.01)
    assert "sized by the forecast of the price model" in alone.note
    assert several is not None
    assert {row[2] for row in several.rows} == {"–"}
    assert "s0 20.0\N{NO-BREAK SPACE}% of 100.0\N{NO-BREAK SPACE}% of equity, by forecast; s1 " in several.note


def test_without_model_and_target_nothing_is_said(tmp_path: Path) -> None:
    run = run_with(model=None, targets=0)
    report = evaluate(run)

    assert (training_lines(report), warning(report)) == ([], "")
    assert foresight_grid(report) is None
    assert aim_grid(report) is None
    assert "<h2>Forecasts" not in write(tmp_path, run, report)[1].read_text()


def test_terminal_and_page_show_the_verdict_and_take_no_markup(tmp_path: Path) -> None:
    run = run_with(checkpoint(START - DAY, START + DAY, HOSTILE), in_sample=((START, START + DAY),))
    report = evaluate(run)
    screen = StringIO()

    Console(width=200, file=screen).print(summary_table(report))
    text = " ".join(screen.getvalue().split())

    assert text.startswith("A run (in sample)")
    assert "QLIKE saved over EWMA" in text
    assert "Volatility in the market" in text
    assert "annual, target 20.0 %" in text
    assert f"Price model {HOSTILE}: trained on" in text
    page = write(tmp_path, run, report)[1].read_text()
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;[red]") == 2  # the line above and the table of facts


def test_the_picture_shows_what_is_in_sample(tmp_path: Path) -> None:
    pictures = []
    for name, parts in (("a", ()), ("b", ((START, START + DAY),)), ("c", ((START, START + 2 * DAY),))):
        run = run_with(in_sample=parts)
        pictures.append(write(tmp_path / name, run, evaluate(run))[2].read_bytes())

    assert len(set(pictures)) == 3
