"""Whatever a user gets wrong is a sentence on stderr and exit code 2, never a traceback; bugs keep theirs."""

import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import csp
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from market_files import FIRST_BARS

from configs.load import ConfigError, load
from feeds.errors import DataError
from graphs.backtest import Options, plan, replayed_feeds, run
from graphs.cli import backtest_main
from graphs.config import BacktestConfig
from graphs.flags import ROOT

Refusal = Callable[..., str]

HEAD = "time,open,high,low,close,volume"
FEED = '[[feeds]]\npath = "x.csv"\nbar = "1h"\n'
SILENT = "[forecast]\nenabled = false\n"  # no price model, whose loading takes longer than the rest


def row(hour: int, prices: str = "100,101,99,100.5", volume: str = "5", zone: str = "Z") -> str:
    return f"2024-01-02T{hour:02d}:00:00{zone},{prices},{volume}"


def bars(*rows: str) -> str:
    """A day of good bars, with others in place of the last ones."""
    good = [row(hour) for hour in range(12)]
    return "\n".join([HEAD, *good[: 12 - len(rows)], *rows]) + "\n"


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command in a folder of its own; return its message after checking that it is one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text(bars())

    def command(*argv: str, toml: str = "", data: str | None = None) -> str:
        if data is not None:
            (tmp_path / "x.csv").write_text(data)
        if toml:
            (tmp_path / "c.toml").write_text(toml)
            argv = ("--config", "c.toml", *argv)
        assert backtest_main(["--quiet", *argv]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith("run_backtest.py: error: ")
        assert told.err.count("\n") == 1
        assert len(told.err) < 320
        assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())
        return told.err

    return command


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param("", "x.csv is empty (0 bytes)", id="empty file"),
        pytest.param(HEAD + "\n", "x.csv has no rows", id="no rows"),
        pytest.param("a,b\n1,2\n", "x.csv has the columns a, b; wanted a time and open, high", id="wrong columns"),
        pytest.param(bars(row(11), row(10)), "row 12: want times in order", id="unsorted"),
        pytest.param(bars(row(10), row(10)), "row 12: want one bar of x a time", id="duplicate bar"),
        pytest.param(bars(row(11, "nan,101,99,100")), "row 12: want a number in 'open', was nan", id="nan"),
        pytest.param(bars(row(11, "100,inf,99,100")), "row 12: want a number in 'high', was inf", id="infinite"),
        pytest.param(bars(row(11, "100,101,99,")), "row 12: want a number in 'close', was empty", id="missing price"),
        pytest.param(bars(row(11, "100,101,ten,100")), "row 12: want a number in 'low', was ten", id="text"),
        pytest.param(bars(row(11, "100,101,0,100")), "row 12: want a positive low, was 0.0", id="zero price"),
        pytest.param(bars(row(11, "100,101,99,-1")), "row 12: want a positive close, was -1.0", id="negative price"),
        pytest.param(bars(row(11, "98.5,98,99,98.5")), "row 12: want a high not below the low", id="high below low"),
        pytest.param(bars(row(11, "102,101,99,100")), "row 12: want the open between low and high", id="open outside"),
        pytest.param(bars(row(11, volume="-5")), "row 12: want a volume of zero or more, was -5.0", id="volume"),
        pytest.param(bars(row(11, zone="")), "row 12", id="mixed zones"),
        pytest.param(bars(*(row(h, zone="") for h in range(12))), "has no time zone; say which one", id="naive"),
        pytest.param(bars("yesterday,1,1,1,1,1"), "row 12", id="no time"),
        pytest.param(bars(row(11) + ",7"), "row 12: want 6 cells, were 7", id="ragged"),
    ],
)
def test_a_bad_file_is_named_with_its_row(refused: Refusal, data: str, message: str) -> None:
    told = refused(toml=FEED, data=data)
    assert "x.csv" in told
    assert message in told


def test_equal_trade_times_are_legal_and_keep_their_order(tmp_path: Path) -> None:
    prices = [100.0, 102.0, 101.0, 103.0, 99.0]
    lines = [f"2024-01-02T14:30:00Z,{price},1" for price in prices]
    (tmp_path / "t.csv").write_text("\n".join(["time,price,size", *lines, "2024-01-02T14:31:00Z,100,1"]) + "\n")
    (tmp_path / "c.toml").write_text(f'[[feeds]]\npath = "{tmp_path}/t.csv"\nsymbol = "T"\n')
    planned = plan(load(BacktestConfig, tmp_path / "c.toml"))

    def graph() -> None:
        csp.add_graph_output("price", replayed_feeds(planned).trades["T"].price)

    ticks = csp.run(graph, starttime=planned.start, endtime=planned.end)["price"]
    assert [price for _, price in ticks] == [*prices, 100.0]
    assert run(planned, Options(out=tmp_path / "o", quiet=True)).reached == datetime(2024, 1, 2, 14, 31)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('[[feeds]]\npath = "y.csv"\n', "data file y.csv does not exist"),
        ('[[feeds]]\npath = ""\n', "the path of a data file is empty"),
        ('[[feeds]]\npath = "."\n', ". is a folder, want a file"),
        ('[[feeds]]\npath = "x.csv"\n', "say how long one is, such as bar = '1h'"),
        ('[[feeds]]\npath = "x.csv"\nbar = "1x"\n', "[feeds[0]] a bar length is a number and one of"),
        ('[[feeds]]\nbar = "1h"\n', "feeds[0].path is missing"),
        ("[[feeds]]\npath = 3\n", "feeds[0].path must be a string, was 3"),
        ('[feeds]\npath = "x.csv"\n', "feeds must be an array, was {'path': 'x.csv'}"),
        (FEED + 'kind = "macro"\ncolumns = { value = "close" }\n', "under [[feeds]] want bars or trades"),
        (FEED + FEED, "x has 1h bars twice: in x.csv and in x.csv"),
        ('name = "x"\n', "there is no market data"),
        ('nmae = "x"\n' + FEED, "unknown key 'nmae'; did you mean 'name'?"),
        ('[[crypto]]\nsymbols = ["A/B"]\n', "c.toml is one of run_live.py: python run_live.py --config "),
        (FEED + "[sizing]\nleverage_mx = 2\n", "unknown key 'sizing.leverage_mx'; did you mean 'leverage_max'?"),
        ("initial_cash = '1'\n" + FEED, "initial_cash must be a number, was '1'"),
        ("initial_cash = nan\n" + FEED, "initial_cash must lie in (0, 1e13], was nan"),
        ("initial_cash = 100.001\n" + FEED, "initial_cash: want a multiple of the unit of USD 1/100, was 100.001"),
        (f"initial_cash = {'9' * 400}\n" + FEED, "initial_cash must be a number, was 9999"),
        ("start = 2024-01-03\nend = 2024-01-02\n" + FEED, "start must lie before end, was 2024-01-03"),
        ("start = 0001-01-01\n" + FEED, "start must lie from 1700 to 2199"),
        (
            "start = 2024-02-01\n" + FEED,
            "outside the data, which reach from 2024-01-02 01:00:00 to 2024-01-02 12:00:00",
        ),
        ("start = 2024-01-02T01:10:00\nend = 2024-01-02T01:20:00\n" + FEED, "there are no market data between"),
        ("trials = 0\n" + FEED, "trials must lie in [1, 1000000], was 0"),
        ('name = "a/b"\n' + FEED, "name must be 1 to 100 printable characters without '/'"),
        ('bar = ""\n' + FEED, "a bar length is a number and one of"),
        ('symbols = ["Y"]\n' + FEED, "symbol 'Y' is not in the data, which hold x"),
        (
            FEED + "[sizing]\nmode = 'kely'\n",
            "mode must be one of fixed, fraction, volatility, kelly, was 'kely'",
        ),
        (FEED + "[risk]\ndrawdown_max = 2\n", "[risk] drawdown_max must lie in (0, 1), was 2.0"),
        (FEED + "[risk]\nvar_window = 1000000000000\n", "[risk] var_window must lie in [20, 100000]"),
        (FEED + "[broker]\nlatency_ms = 0\n", "[broker] latency_ms must lie in [0.001, 3600000), was 0.0"),
        (
            FEED + "[signals]\nuse = ['tecnical']\n",
            "unknown signal source 'tecnical' in use; did you mean 'technical'?",
        ),
        (FEED + SILENT + "[signals]\nuse = []\n", "x has no source of signals"),
        (FEED + "[signals.technical]\nenabled = ['rsj']\n", "was 'rsj'; did you mean rsi?"),
        (
            FEED + SILENT + "[fuse.weights]\nmomentun = 1\n",
            "fuse names an unknown source 'momentun'; did you mean 'momentum'?",
        ),
        (FEED + "[fuse.weights]\nrsi = -1\n", "weight of rsi must lie in [0, 1000], was -1.0"),
        (FEED + "[signals.market]\ntrend_window_bars = 9223372036854775808\n", "trend_window_bars must lie in"),
    ],
)
def test_a_bad_config_is_named_with_its_key(refused: Refusal, toml: str, message: str) -> None:
    assert message in refused(toml=toml)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("", "not valid TOML"),
        ("[[feeds]", "not valid TOML"),
        ("name = 'a'\nname = 'b'\n", "not valid TOML"),
        (f"trials = {'9' * 5000}\n", "not valid TOML"),
        (f"feeds = {'[' * 3000}{']' * 3000}\n", "not valid TOML"),
    ],
    ids=["value", "table", "twice", "digits", "depth"],
)
def test_a_file_that_is_not_toml_is_refused(refused: Refusal, toml: str, message: str) -> None:
    assert message in refused(toml=toml or "name = ")


def test_a_config_file_that_cannot_be_read_is_named(refused: Refusal, tmp_path: Path) -> None:
    assert "config file nope.toml does not exist" in refused("--config", "nope.toml")
    assert "config file . cannot be read: Is a directory" in refused("--config", ".")
    (tmp_path / "latin.toml").write_bytes('name = "ö"'.encode("latin-1"))
    assert "config file latin.toml cannot be read: want UTF-8" in refused("--config", "latin.toml")


@pytest.mark.parametrize(
    ("instrument", "message"),
    [
        ('tick = "abc"', "tick of x must be a positive decimal such as '0.01', was 'abc'"),
        ('tick = "0"', "tick of x must be a positive decimal"),
        ('lot = "-1"', "lot of x must be a positive decimal"),
        ('lot = ""', "lot of x must be a positive decimal such as '0.01', was ''"),
        ('multiplier = "1e-400"', "multiplier of x must be a positive decimal"),
        ('currency_unit = "nan"', "currency_unit of x must be a positive decimal"),
        ("taker_bps = 1e9", "taker_bps of x must lie in [-100, 1000]"),
        ('tick = "1000"', "the tick 1000 of x is larger than its price, which fell to 99"),
        (
            'lot = "10000"',
            "nothing can be traded: initial_cash and [sizing] allow at most 1010.1 of x, less than one lot",
        ),
        ('calendar = "NYS"', "instrument x: calendar must be '24/7' or a name of pandas_market_calendars, was 'NYS'"),
        ('calendar = ""', "instrument x: calendar must be"),
        ('symbol = " "', "must not be blank"),
    ],
)
def test_an_instrument_that_cannot_be_traded_is_refused(refused: Refusal, instrument: str, message: str) -> None:
    symbol = "" if instrument.startswith("symbol") else 'symbol = "x"\n'
    assert message in refused(toml=f"{FEED}[[instruments]]\n{symbol}{instrument}\n")


def test_a_foreign_currency_wants_an_account_and_a_rate(refused: Refusal) -> None:
    other = FEED + 'symbol = "y"\n[[instruments]]\nsymbol = "y"\ncurrency = "EUR"\n'
    assert "x is traded in USD and the account is in EUR: want [[conversions]] with currency = 'USD'" in refused(
        toml='currency = "EUR"\n' + FEED + '[[instruments]]\nsymbol = "x"\ncurrency = "USD"\n'
    )
    rate = '[[conversions]]\ncurrency = "USD"\nsymbol = "EUR/USD"\n'
    assert "conversions: symbol 'EUR/USD' for USD is not in the data, which hold x" in refused(
        toml='currency = "EUR"\n' + FEED + rate
    )
    assert "want the currency of the account, the instruments are in EUR, USD" in refused(toml=FEED + other)


def test_a_falling_price_may_not_fall_below_its_tick(refused: Refusal) -> None:
    # The first price is far above the tick: the fall must be found all the same.
    crash = bars(row(10, "100,101,0.5,1"), row(11, "1,1,0.5,1"))
    instrument = '[[instruments]]\nsymbol = "x"\ntick = "0.75"\n'
    assert "the tick 0.75 of x is larger than its price, which fell to 0.5" in refused(
        toml=FEED + instrument, data=crash
    )


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('[[macro]]\npath = "m.csv"\n', "data file m.csv does not exist"),
        ('[[macro]]\npath = "x.csv"\nbar = "1h"\n', "x.csv was read as bars; under [[macro]] want macro"),
        ('[[macro]]\npath = "x.csv"\nkind = "macro"\n', "x.csv has no column for the value"),
        (
            '[[macro]]\npath = "x.csv"\nkind = "macro"\ncolumns = { value = "close" }\n',
            "risk_on and risk_off name ^GSPC, ^VIX, DX-Y.NYB, but the macro files hold x",
        ),
        ('[[news]]\npath = "n.jsonl"\n', "data file n.jsonl does not exist"),
        ('[[news]]\npath = "x.csv"\n', "x.csv:1: wanted one JSON object"),
        ('[[news]]\npath = ""\n', "path of the news file must not be empty"),
        ('[[news]]\npath = "x.csv"\ndelay_s = -1\n', "delay_s must lie in [0, 31536000], was -1.0"),
    ],
)
def test_bad_macro_and_news_files_are_named(refused: Refusal, toml: str, message: str) -> None:
    assert message in refused(toml=FEED + toml)


PLUGINS = """
import csp
from csp import ts
from feeds.events import Bar
from pathlib import Path
from nodes.events import Signal

constant = 3

def raises(bar, symbol, feeds):
    return {}["nothing"]

def nothing(bar, symbol, feeds):
    return None

def prices(bar, symbol, feeds):
    return bar.close

def spoils(bar, symbol, feeds):
    # The files were checked when this runs; the engine reads them after it.
    Path("worse.parquet").rename("m.parquet")
    return csp.null_ts(Signal)

@csp.node
def broken(bar: ts[Bar]) -> ts[Signal]:
    if csp.ticked(bar):
        return {}["a bug"]

def bug(bar, symbol, feeds):
    return broken(bar)
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad_plugins.py").write_text(PLUGINS)
    (tmp_path / "bad_syntax.py").write_text("def f(:\n")
    (tmp_path / "bad_import.py").write_text("x = 1\n1 / 0\n")
    for name in ("bad_plugins", "bad_syntax", "bad_import"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        ("", "a plugin is named 'module:function', was ''"),
        ("no_function", "a plugin is named 'module:function', was 'no_function'"),
        ("not_there:f", "'not_there:f' cannot be loaded: ModuleNotFoundError: No module named 'not_there'"),
        ("bad_syntax:f", "'bad_syntax:f' cannot be loaded: SyntaxError: invalid syntax (bad_syntax.py, line 1)"),
        ("bad_import:f", "cannot be loaded: ZeroDivisionError: division by zero (bad_import.py, line 2)"),
        ("bad_plugins:other", "'bad_plugins:other' cannot be loaded: bad_plugins has no function 'other'"),
        ("bad_plugins:constant", "bad_plugins has no function 'constant'"),
        ("bad_plugins:raises", "'bad_plugins:raises' failed for x: KeyError: 'nothing' (bad_plugins.py, line 11)"),
        ("bad_plugins:nothing", "'bad_plugins:nothing' must return ts[Signal], returned None"),
        ("bad_plugins:prices", "'bad_plugins:prices' must return ts[Signal], returned ts[float]"),
    ],
)
def test_a_plugin_that_cannot_be_wired_is_named_with_its_line(refused: Refusal, plugin: str, message: str) -> None:
    assert message in refused(toml=f'{FEED}{SILENT}[signals]\nplugins = ["{plugin}"]\n')


def minutes(bad: int | None = None) -> pa.Table:
    """70,000 bars of a minute, the price a tenth higher from the 30,000th on; one of them without a close."""
    start = datetime(2024, 1, 1)
    price = [100.0] * 30_000 + [110.0] * 40_000
    close = price.copy()
    if bad is not None:
        close[bad] = float("nan")
    times = pa.array([start + timedelta(minutes=i) for i in range(70_000)], pa.timestamp("us", "UTC"))
    return pa.table({"time": times, "open": price, "high": price, "low": price, "close": close})


@pytest.mark.usefixtures("plugins")
def test_a_file_that_goes_bad_during_the_run_ends_it_with_what_was_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pq.write_table(minutes(), tmp_path / "m.parquet")
    pq.write_table(minutes(bad=69_000), tmp_path / "worse.parquet")
    (tmp_path / "c.toml").write_text(
        '[[feeds]]\npath = "m.parquet"\nbar = "1m"\n'
        '[signals]\nuse = ["price_alert"]\nplugins = ["bad_plugins:spoils"]\n' + SILENT
    )
    assert backtest_main(["--config", "c.toml", "--quiet", "--out", "o"]) == 2
    told = capsys.readouterr().err
    assert told == "run_backtest.py: error: m.parquet, row 69001: want a number in 'close', was nan\n"
    # The first table of 65,536 rows was replayed, and the streams of it are whole.
    alerts = pq.read_table(tmp_path / "o" / "alerts.parquet").to_pylist()
    assert [alert["time"].replace(tzinfo=None) for alert in alerts] == [
        datetime(2024, 1, 1) + timedelta(minutes=30_001)
    ]
    assert pq.read_table(tmp_path / "o" / "orders.parquet").num_rows == 0
    assert not (tmp_path / "o" / "report.json").exists()


@pytest.mark.usefixtures("plugins")
def test_a_bug_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text(bars())
    (tmp_path / "c.toml").write_text(FEED + SILENT + '[signals]\nplugins = ["bad_plugins:bug"]\n')
    with pytest.raises(KeyError, match="a bug"):
        backtest_main(["--config", "c.toml", "--quiet", "--out", "o"])


def test_an_account_without_limits_may_lose_more_than_everything(tmp_path: Path) -> None:
    # Fifty times leverage, no limit of risk: equity goes far below zero, and nothing breaks.
    off = [word for limit in ("drawdown", "gross-exposure", "var") for word in (f"--risk.{limit}-max", "None")]
    bold = ["--sizing.leverage-max", "50", "--sizing.volatility-target", "50", "--end", "2018-01-31"]
    assert backtest_main(["--quiet", *FIRST_BARS, *off, *bold, "--out", str(tmp_path / "o")]) == 0
    assert min(pq.read_table(tmp_path / "o" / "equity.parquet")["equity"].to_pylist()) < 0.0


def test_the_library_raises_what_the_command_tells(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no market data"):
        plan(BacktestConfig())
    (tmp_path / "x.csv").write_text(HEAD + "\n")
    (tmp_path / "c.toml").write_text(FEED.replace("x.csv", f"{tmp_path}/x.csv"))
    with pytest.raises(DataError, match="has no rows"):
        plan(load(BacktestConfig, tmp_path / "c.toml"))


def test_every_shipped_config_is_accepted() -> None:
    paths = sorted((ROOT / "configs" / "backtest").glob("*.toml"))
    assert paths
    for path in paths:
        assert load(BacktestConfig, path).feeds
