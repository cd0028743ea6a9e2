"""What a live config can say, and what it cannot."""

from pathlib import Path
from typing import Any

import pytest

from configs.load import ConfigError, build, load, plain
from feeds.crypto import CryptoConfig
from feeds.instruments import Instrument
from graphs.checks import check_currencies
from graphs.config import BacktestConfig
from graphs.flags import ROOT
from graphs.live_config import LiveConfig
from graphs.live_feeds import streamed
from graphs.live_plan import trading_of

LIVE = sorted((ROOT / "configs" / "live").glob("*.toml"))
CRYPTO: dict[str, Any] = {"symbols": ["BTC/USDT"]}


@pytest.mark.parametrize("path", LIVE, ids=lambda path: path.stem)
def test_the_configs_that_come_along_are_right_and_survive_a_manifest(path: Path) -> None:
    config = load(LiveConfig, path)

    assert streamed(config)
    assert build(LiveConfig, plain(config)) == config


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "backtest").glob("*.toml")), ids=lambda path: path.stem)
def test_plain_is_what_build_reads(path: Path) -> None:
    config = load(BacktestConfig, path)

    assert build(BacktestConfig, plain(config)) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"orders": "bank"}, "orders must be one of paper, venue, was 'bank'"),
        ({"warmup_bars": -1}, "warmup_bars must lie in"),
        ({"stop_timeout_s": 0.0}, "stop_timeout_s must lie in"),
        ({"crypto": [CRYPTO, CRYPTO]}, "want each symbol in one feed"),
        ({"crypto": [CRYPTO], "watch": ["ETH/USDT"]}, "no feed brings 'ETH/USDT'; did you mean 'BTC/USDT'?"),
        ({"crypto": [CRYPTO | {"streams": ["quotes"]}]}, "must have bars or trades"),
        ({"crypto": [CRYPTO], "orders": "venue"}, "needs a journal"),
        (
            {"crypto": [CRYPTO], "orders": "venue", "journal": "j"},
            'orders = "venue" needs cash_only = true under [risk]: a spot market lends nothing',
        ),
        ({"crypto": [CRYPTO], "instruments": [{"symbol": "X"}]}, "no feed brings 'X'"),
        ({"crypto": [CRYPTO], "conversions": [{"currency": "EUR", "symbol": "EUR/USD"}]}, "no feed brings 'EUR/USD'"),
        ({"crypto": [CRYPTO | {"at": {"key_env": "0Abc/def+secret"}}]}, "must name an environment variable"),
        ({"initial_cash": -1.0}, "initial_cash must lie in"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        build(LiveConfig, values)
    assert message in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_currency_without_a_rate_is_refused() -> None:
    config = LiveConfig(crypto=(CryptoConfig(symbols=("A", "B")),), currency="USD")
    instruments = (Instrument(symbol="A"), Instrument(symbol="B", currency="EUR"))

    with pytest.raises(ConfigError, match=r"B is traded in EUR and the account is in USD"):
        check_currencies(config, trading_of(config, instruments))
