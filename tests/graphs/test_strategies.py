"""Several strategies in one account, and an account in several currencies: the books add up."""

import json
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from feeds.synthetic import SyntheticConfig, write
from graphs.cli import backtest_main

START = "2024-01-01T00:00:00+00:00"
CONFIG = """
name = "desk"
initial_cash = 100000.0
[[feeds]]
path = "{folder}/aaa.parquet"
[[feeds]]
path = "{folder}/bbb.parquet"
[[instruments]]
symbol = "AAA"
tick = "0.01"
lot = "0.001"
taker_bps = 5.0
[[instruments]]
symbol = "BBB"
tick = "0.01"
lot = "1"
taker_bps = 5.0
[risk]
var_max = "none"
gross_exposure_max = 5.0
"""
STRATEGIES = """
[[strategies]]
name = "trend"
allocation = 0.5
[strategies.signals]
use = ["technical"]
[strategies.signals.technical]
enabled = ["sma_cross"]
[strategies.sizing]
mode = "fraction"

[[strategies]]
name = "reversal"
allocation = 0.5
[strategies.signals]
use = ["technical"]
[strategies.signals.technical]
enabled = ["bollinger"]
[strategies.sizing]
mode = "fraction"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    write(SyntheticConfig(seed=1, rows=3_000, symbol="AAA", start=START), folder / "aaa.parquet")
    write(SyntheticConfig(seed=2, rows=3_000, symbol="BBB", start=START), folder / "bbb.parquet")
    return folder


def rows(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def money(row: dict[str, Any]) -> tuple[Decimal, Decimal]:
    """(signed quantity, cash flow) of a fill."""
    quantity = Decimal(str(row["quantity"])) * (1 if row["side"] == "BUY" else -1)
    return quantity, -quantity * Decimal(str(row["price"])) - Decimal(str(row["fee"]))


def sums(fills: list[dict[str, Any]]) -> dict[str, tuple[Decimal, Decimal]]:
    totals = defaultdict(lambda: (Decimal(0), Decimal(0)))
    for fill in fills:
        quantity, cash = money(fill)
        totals[fill["symbol"]] = totals[fill["symbol"]][0] + quantity, totals[fill["symbol"]][1] + cash
    return dict(totals)


def test_what_the_strategies_got_is_what_the_account_got_to_the_last_unit(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "desk.toml"
    config.write_text(CONFIG.format(folder=folder) + STRATEGIES)
    assert backtest_main(["--config", str(config), "--quiet", "--out", str(tmp_path / "out")]) == 0

    fills, shares = (rows(tmp_path / "out" / f"{name}.parquet") for name in ("fills", "strategy_fills"))
    assert sums(fills) == sums(shares)
    assert {share["strategy"] for share in shares} >= {"trend", "reversal"}
    crossed = [share for share in shares if not share["order_id"]]
    assert crossed  # the two do stand against each other at times
    assert all(share["fee"] == 0.0 for share in crossed)

    report = json.loads((tmp_path / "out" / "report.json").read_text())
    by_strategy = {row["name"]: row for row in report["by_strategy"]}
    assert {"trend", "reversal"} <= set(by_strategy)
    profit = sum(row["profit"] for row in by_strategy.values())
    assert profit == pytest.approx(report["final_equity"] - 100_000.0, abs=1e-6)
    assert sum(row["profit"] for row in report["by_symbol"]) == pytest.approx(profit, abs=1e-6)


def test_netting_saves_fees(folder: Path, tmp_path: Path) -> None:
    def fees(name: str, strategies: str) -> float:
        config = tmp_path / f"{name}.toml"
        config.write_text(CONFIG.format(folder=folder) + strategies)
        assert backtest_main(["--config", str(config), "--quiet", "--out", str(tmp_path / name)]) == 0
        return sum(fill["fee"] for fill in rows(tmp_path / name / "fills.parquet"))

    trend, reversal = STRATEGIES.split('\n[[strategies]]\nname = "reversal"')
    alone = fees("trend", trend) + fees("reversal", '\n[[strategies]]\nname = "reversal"' + reversal)
    assert 0.0 < fees("both", STRATEGIES) < alone


def test_a_strategy_that_loses_too_much_rests_and_the_other_goes_on(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "desk.toml"
    limits = "[strategies.limits]\nloss_max = 0.0005\nloss_since = 'start'\ncool_down_s = 1e8\n"
    config.write_text(CONFIG.format(folder=folder) + STRATEGIES + limits)  # of the second strategy
    assert backtest_main(["--config", str(config), "--quiet", "--out", str(tmp_path / "out")]) == 0

    (halt,) = [a for a in rows(tmp_path / "out" / "alerts.parquet") if a["message"].startswith("HALT_STRATEGY")]
    assert "reversal" in halt["message"]
    after = [s for s in rows(tmp_path / "out" / "strategy_fills.parquet") if s["time"] > halt["time"]]
    assert "trend" in {share["strategy"] for share in after}
    held = sum(
        money(share)[0]
        for share in rows(tmp_path / "out" / "strategy_fills.parquet")
        if share["strategy"] == "reversal"
    )
    assert held == 0


def test_an_account_in_another_currency_is_marked_at_the_last_rate(folder: Path, tmp_path: Path) -> None:
    rate_of = SyntheticConfig(seed=3, rows=3_000, symbol="USD/EUR", start=START, price=0.9, tick="0.00001")
    write(rate_of, tmp_path / "rate.parquet")
    config = tmp_path / "desk.toml"
    text = CONFIG.format(folder=folder).replace('symbol = "AAA"', 'symbol = "AAA"\ncurrency = "USD"')
    text = text.replace('name = "desk"', 'name = "desk"\ncurrency = "EUR"\nsymbols = ["AAA"]')
    text += f'[[feeds]]\npath = "{tmp_path}/rate.parquet"\n'
    text += '[[conversions]]\ncurrency = "USD"\nsymbol = "USD/EUR"\n[signals]\nuse = ["technical"]\n'
    config.write_text(text)
    assert backtest_main(["--config", str(config), "--quiet", "--out", str(tmp_path / "out")]) == 0

    fills = rows(tmp_path / "out" / "fills.parquet")
    assert fills
    held, dollars = sums(fills)["AAA"]
    price = rows(folder / "aaa.parquet")[-1]["close"]
    rate = rows(tmp_path / "rate.parquet")[-1]["close"]
    equity = rows(tmp_path / "out" / "equity.parquet")[-1]["equity"]
    assert equity == pytest.approx(100_000.0 + (float(dollars) + float(held) * price) * rate, abs=1e-6)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["currency"] == "EUR"
    assert report["final_equity"] == equity


def test_a_fraction_of_equity_is_one_in_any_currency(folder: Path, tmp_path: Path) -> None:
    # 100,000 EUR at 0.9 EUR a dollar are some 111,111 USD: half of them, in AAA at some 100 USD.
    rate_of = SyntheticConfig(
        seed=3, rows=3_000, symbol="USD/EUR", start=START, price=0.9, tick="0.00001", volatility_year=0.0
    )
    write(rate_of, tmp_path / "rate.parquet")
    config = tmp_path / "desk.toml"
    text = CONFIG.format(folder=folder).replace('name = "desk"', 'name = "desk"\ncurrency = "EUR"\nsymbols = ["AAA"]')
    text += f'[[feeds]]\npath = "{tmp_path}/rate.parquet"\n[[conversions]]\ncurrency = "USD"\nsymbol = "USD/EUR"\n'
    text += '[signals]\nuse = ["technical"]\n[signals.technical]\nenabled = ["sma_cross"]\n'
    text += '[signals.technical.sma_cross]\nconfidence = 1.0\n[sizing]\nmode = "fraction"\nfraction = 0.5\n'
    config.write_text(text)
    assert backtest_main(["--config", str(config), "--quiet", "--out", str(tmp_path / "out")]) == 0
    first = rows(tmp_path / "out" / "fills.parquet")[0]
    assert first["quantity"] * first["price"] == pytest.approx(0.5 * 100_000.0 / 0.9, rel=0.01)
