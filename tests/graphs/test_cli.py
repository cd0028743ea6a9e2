"""The command line as a person meets it: flags, help, folders, printed lines, pipes and Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from market_files import FIRST_BARS

from configs.load import ConfigError
from graphs import advising, folders
from graphs.cli import backtest_main
from graphs.flags import ROOT, parse
from models.advisor import backends

COMMAND = [sys.executable, str(ROOT / "run_backtest.py")]
DAYS = ["--quiet", *FIRST_BARS, "--end", "2017-07-12"]  # the default config until its first orders


def flat(box: str) -> str:
    """The words of a message without the box around them, which is of ASCII where the terminal knows no other."""
    inside = (re.sub(r"^[│|] ?|[│|]$", "", line).strip() for line in box.splitlines())
    return " ".join(line for line in inside if not re.match(r"[╭╰─+-]{2}(?!\w)", line))


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def command(*argv: str) -> str:
        try:
            code: object = backtest_main(argv)
        except SystemExit as exc:
            code = exc.code
        assert code == 2
        told = capsys.readouterr()
        assert told.out == ""
        return flat(told.err)

    return command


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--quite"], "Unrecognized options: --quite Perhaps you meant: --quiet"),
        (["--sizing.leverage-mx", "2"], "Perhaps you meant: --sizing.leverage-max FLOAT"),
        (["stray"], "Unrecognized options: stray"),
        (["--speed"], "Missing value for argument '--speed'"),
        (["--speed", "0"], "--speed must be positive and finite, was 0.0"),
        (["--speed", "-1"], "--speed must be positive and finite, was -1.0"),
        (["--speed", "nan"], "--speed must be positive and finite, was nan"),
        (["--speed", "inf"], "--speed must be positive and finite, was inf"),
        (["--speed", "fast"], "Error parsing --speed: want a number or none, was 'fast'"),
        (["--speed", ""], "Error parsing --speed: want a number or none, was ''"),
        (["--start", "yesterday"], "Error parsing --start: want a date such as 2018-01-31 or"),
        (["--start", ""], "Error parsing --start: want a date such as"),
        (["--start", "2018-13-01"], "Error parsing --start: want a date such as"),
        (["--start", "0001-01-01T00:00+14:00"], "start must lie from 1700 to 2199"),
        (["--trials", "1.5"], "Error parsing --trials: want a whole number, was '1.5'"),
        (["--risk.drawdown-max", "high"], "Error parsing --risk.drawdown-max: want a number or none, was 'high'"),
        (["--risk.drawdown-max", "2"], "Error parsing config.risk: drawdown_max must lie in (0, 1), was 2.0"),
        (["--sizing.mode", ""], "mode must be one of fixed, fraction, volatility, kelly, was ''"),
        (["--signals.use", "tecnical"], "unknown signal source 'tecnical' in use; did you mean 'technical'?"),
        (["--signals.plugins", ""], "a plugin is named 'module:function', was ''"),
        (["--initial-cash", "nan"], "initial_cash must lie in (0, 1e13], was nan"),
        (["--initial-cash", "100.001"], "initial_cash: want a multiple of the unit of USD 1/100, was 100.001"),
        (["--name", ""], "name must be 1 to 100 printable characters"),
        (["--symbols", ""], "symbol '' is not in the data, which hold BTC-USD"),
        (["--symbols", "ETH-USD"], "symbol 'ETH-USD' is not in the data, which hold BTC-USD"),
        (["--feeds.0.path", ""], "the path of a data file is empty"),
        (["--config", ""], "Error parsing --config: want a path or none, was ''"),
        (["--allow-changed"], "--allow-changed is for --replay"),
        (["--config", "nope.toml"], "config file nope.toml does not exist"),
        (["--data", ""], "Error parsing --data: want a path or none, was ''"),
        (["--data", "nope.csv"], "data file nope.csv does not exist"),
        (["--out", ""], "Error parsing --out: want a path or none, was ''"),
        (
            ["--config", "configs/backtest/eur_usd_1h.toml", "--end", "2016-01-01"],
            "the window from the first event to 2016-01-01 00:00:00 lies outside the data",
        ),
        (["--start", "2018-01-02", "--end", "2018-01-01"], "start must lie before end"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_a_wrong_flag_is_told_with_its_name(refused: Callable[..., str], argv: list[str], message: str) -> None:
    assert message in refused(*argv)


def test_an_offset_is_taken_away() -> None:
    config = parse(["--start", "2018-01-01T00:00:00+02:00", "--end", "2018-01-01T00:00:00"]).config
    assert config.start == datetime(2017, 12, 31, 22)
    assert config.end == datetime(2018, 1, 1)


def test_flags_override_the_file_and_none_switches_off(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("name = 'c'\n[sizing]\nfraction = 0.25\n[risk]\ndrawdown_max = 0.1\n")
    config = parse(["--config", str(tmp_path / "c.toml"), "--risk.drawdown-max", "None", "--trials", "3"]).config
    assert (config.name, config.sizing.fraction, config.risk.drawdown_max, config.trials) == ("c", 0.25, None, 3)


def test_data_of_a_known_name_bring_their_config(capsys: pytest.CaptureFixture[str]) -> None:
    config = parse(["--data", "elsewhere/eur_usd_1h_2017.parquet"]).config
    assert config.feeds[0].path == "elsewhere/eur_usd_1h_2017.parquet"
    assert (config.name, config.instruments[0].symbol) == ("eur-usd-1h", "EUR-USD")
    assert "using configs/backtest/eur_usd_1h.toml, which describes eur_usd_1h_2017.parquet" in capsys.readouterr().err


def test_help_names_every_flag_and_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        backtest_main(["--help"])
    assert left.value.code == 0
    told = capsys.readouterr()
    assert told.err == ""
    lines = told.out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    words = flat(told.out)
    for flag in ("--config FILE", "--data FILE", "--out FOLDER", "--speed FLOAT", "--quiet", "--check-lookahead"):
        assert f" {flag} " in words
    for flag in (
        "--start DATE|none",
        "--sizing.mode STR",
        "--risk.drawdown-max FLOAT|none",
        "--broker.latency-ms FLOAT",
    ):
        assert f" {flag} " in words
    assert "2 bad usage, config or data" in words
    # What one run differs in from the next comes before what the strategy is made of.
    flags = re.findall(r" (--[\w.-]+)", words.partition("show this help message and exit")[2])
    assert flags[:6] == ["--config", "--data", "--out", "--speed", "--quiet", "--replay"]
    assert flags[6:8] == ["--allow-changed", "--check-lookahead"]


LINES = {
    "ai_signals": r"(BUY_SIGNAL|SELL_SIGNAL|HOLD) (BTC-USD|the market) score [+-][01]\.\d{3}, confidence [01]\.\d{3}: "
    r"[a-z .\d]+ \[(head|gpt), item fictional-\d{3}\]",
    "final_signals": r"BTC-USD score [+-][01]\.\d{3}, confidence [01]\.\d{3} \[fused\]",
    "orders": r"(BUY|SELL) \d+(\.\d{1,8})? BTC-USD at market \[btc-usd-1h-BTC-USD-\d+\]",
    "fills": r"(BUY|SELL) [\d.]+ BTC-USD at \d+(\.\d\d?)?, fee [\d.]+, taker, traded 2017[\d :-]+ \[btc-usd-1h-.+\]",
    "alerts": r"(INFO|WARNING|ALERT) BTC-USD .+ \[\w+\]",
}


def test_the_streams_are_printed_a_line_a_tick(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert backtest_main([*FIRST_BARS, "--end", "2017-08-01", "--out", str(tmp_path / "o")]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    printed = [line for line in told.out.splitlines() if re.match(r"2017-0\d", line)]
    seen = set()
    for line in printed:
        name, _, words = line.split(" ", 2)[2].partition(": ")
        assert re.fullmatch(LINES[name], words), line
        seen.add(name)
    assert seen == set(LINES)
    assert [line[:19] for line in printed] == sorted(line[:19] for line in printed)
    assert pq.read_table(tmp_path / "o" / "orders.parquet").num_rows == sum(" orders: " in line for line in printed)


def test_a_quiet_run_prints_the_report_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "o"
    assert backtest_main([*DAYS, "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "Buy and hold" in told.out
    assert f"report: {out / 'report.html'}" in flat(told.out)
    assert " orders:" not in told.out


def test_an_instrument_that_is_not_listed_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [*DAYS, "--instruments.0.symbol", "BTCUSD", "--out", str(tmp_path / "o")]
    assert backtest_main(argv) == 0
    note = "run_backtest.py: note: no [[instruments]] for BTC-USD: traded unrounded and free of fees\n"
    assert capsys.readouterr().err == note


def test_a_second_run_replaces_every_file_of_the_first(tmp_path: Path) -> None:
    out = tmp_path / "o"
    assert backtest_main([*DAYS, "--out", str(out)]) == 0
    first = {path.name: path.stat().st_ino for path in out.iterdir()}
    (out / "signals.parquet").write_bytes(b"of a run that recorded more")
    assert backtest_main([*DAYS, "--initial-cash", "5000", "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == set(first)
    assert json.loads((out / "manifest.json").read_text())["config"]["initial_cash"] == 5000.0
    assert pq.read_table(out / "equity.parquet")["equity"][0].as_py() == 5000.0


def test_a_run_that_is_refused_leaves_the_first_alone(
    tmp_path: Path, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o"
    assert backtest_main([*DAYS, "--out", str(out)]) == 0
    capsys.readouterr()
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    refused(*DAYS, "--signals.use", "advisor", "--fuse.trend-following", "nonsense", "--out", str(out))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_folder_that_is_not_of_a_run_is_left_alone(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    told = refused(*DAYS, "--out", str(tmp_path))
    assert "holds files that are not of a run (thesis.tex); name another one" in told
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "file").write_text("")
    assert "file cannot be used: Not a directory" in refused(*DAYS, "--out", str(tmp_path / "file"))
    assert "below cannot be used: Not a directory" in refused(*DAYS, "--out", str(tmp_path / "file" / "below"))
    (tmp_path / "loose").symlink_to(tmp_path / "gone")
    assert "loose cannot be used: File exists" in refused(*DAYS, "--out", str(tmp_path / "loose"))
    assert "/proc/nope cannot be used" in refused(*DAYS, "--out", "/proc/nope")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "mine").mkdir(mode=0o500)
    assert "cannot be written to" in refused(*DAYS, "--out", str(tmp_path / "mine"))
    assert "cannot be used: Permission denied" in refused(*DAYS, "--out", str(tmp_path / "mine" / "below"))


def test_two_runs_of_one_second_have_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = [folders.fresh("x") for _ in range(20)]  # far less than 20 seconds
    assert len(set(made)) == 20
    assert all(folder.is_dir() and folder.name.split("-x")[0][:8].isdigit() for folder in made)


def test_a_name_that_no_folder_can_have_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="cannot be made: File name too long"):
        folders.fresh("Ω" * 200)
    (tmp_path / "runs").rmdir()
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be made: Not a directory"):
        folders.fresh("x")


def test_a_reader_that_goes_away_ends_the_run_quietly(tmp_path: Path) -> None:
    out = tmp_path / "o"
    with subprocess.Popen(
        [*COMMAND, *FIRST_BARS, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        assert b" ai_signals: " in run.stdout.readline()
        run.stdout.close()
        assert run.stderr.read() == b""
    assert run.returncode == 141
    # Two years were not printed to nobody: the streams end early, and are whole.
    equity = pq.read_table(out / "equity.parquet")
    assert equity["time"][-1].as_py().year == 2017
    assert not (out / "report.json").exists()


@pytest.mark.slow
def test_no_stdout_at_all_is_no_error(tmp_path: Path) -> None:
    line = f"exec {' '.join((*COMMAND, *FIRST_BARS))} --end 2017-07-12 --out {tmp_path / 'o'} >&-"
    run = subprocess.run(["sh", "-c", line], stderr=subprocess.PIPE, timeout=60, check=False)
    assert (run.returncode, run.stderr) == (0, b"")
    assert (tmp_path / "o" / "report.json").exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_device_is_a_message(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [*COMMAND, *FIRST_BARS, "--end", "2017-07-12", "--out", str(tmp_path / "o")]
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (run.returncode, run.stderr) == (2, b"run_backtest.py: error: No space left on device\n")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="nothing tells how far the start is")
@pytest.mark.parametrize("after_s", [0.0, 0.2, 0.5, 0.9])
def test_ctrl_c_while_it_starts_leaves_without_a_trace(tmp_path: Path, after_s: float) -> None:
    command = [*COMMAND, "--quiet", "--speed", "100000", "--out", str(tmp_path / "o")]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    # Before the first import of a package it is Python itself that is interrupted, and has its own words for it.
    while "site-packages" not in Path(f"/proc/{run.pid}/maps").read_text():
        time.sleep(0.001)
    time.sleep(after_s)  # whatever it is doing then: importing csp, reading a config, running
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert b"Traceback" not in errors
    assert errors.count(b"\n") <= 1


@pytest.mark.slow
def test_ctrl_c_ends_the_look_ahead_check_without_a_verdict(tmp_path: Path) -> None:
    run = subprocess.Popen(
        [*COMMAND, "--check-lookahead", *FIRST_BARS, "--end", "2018-01-01"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert run.stdout is not None
    assert b"cut at " in run.stdout.readline()
    run.send_signal(signal.SIGINT)
    told, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert errors == b"run_backtest.py: interrupted\n"
    assert b"look-ahead" not in told.lower()


@pytest.mark.parametrize("installed", [True, False])
def test_the_default_reads_the_news_with_and_without_a_language_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    if installed and backends.installed_model() is None:
        pytest.skip("no language model is installed: make setup-llm")
    if not installed:
        monkeypatch.setattr(backends, "installed_model", lambda: None)
    advising._kept.cache_clear()  # what an earlier run of this process found
    flags = ["--forecast.no-enabled", "--end", "2019-02-01", "--out", str(tmp_path / "o")]

    assert backtest_main(flags) == 0

    told = capsys.readouterr().out
    reader = "gpt" if installed else "head"
    assert len(re.findall(rf"(?m)^2019-01-\d\d .* ai_signals: .* \[{reader}, item fictional-04[78]\]$", told)) == 2
    assert f"Advisor {reader}: its weights know the world until " in flat(told)
    advising._kept.cache_clear()
