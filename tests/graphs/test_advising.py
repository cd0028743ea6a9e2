"""The advisor in the whole graph: what it moves and what it may not, in a backtest and beside a live engine."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import csp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp import web
from csp import ts
from tokenizer_bars import MONDAY_NS, walk

from configs.load import ConfigError
from feeds.clock import utc_now
from feeds.events import Bar, NewsItem
from feeds.instruments import Instrument
from graphs.advising import advise, advisor_of
from graphs.cli import backtest_main
from graphs.config import StrategyConfig, TradingConfig
from graphs.edges import Feeds
from models.advisor.advice import Headline
from models.advisor.lexicon import Lexicon
from models.advisor.replay import Recorder
from nodes.advise import AdvisorConfig
from nodes.events import Advice, AdviceAction, Alert
from nodes.infer import InferConfig
from tests.models.advisor.chat_server import ChatServer, chat_server

BARS = 300
MONDAY = datetime(2024, 1, 1)
HOUR = timedelta(hours=1)
UP, DOWN = "Acme surges on record profit", "Acme plunges on fraud"

_CONFIG = """
name = "advised"
[[feeds]]
path = "{bars}"
symbol = "X"
time_zone = "UTC"
bar = "1h"
[[news]]
path = "{news}"
[forecast]
enabled = false
[advisor]
backend = "lexicon"
[signals]
use = ["technical", "advisor"]
[signals.technical]
enabled = ["ema_cross", "momentum"]
[sizing]
mode = "fraction"
change_min = 0.05
[fuse.weights]
advisor = 5.0
[fuse.share_max]
advisor = 0.8
[risk]
drawdown_max = 0.95
"""


def headlines(path: Path, *texts: str, every: timedelta = 20 * HOUR, symbol: str = "X") -> Path:
    """News that is known 30 minutes into a bar, a minute after it was published."""
    lines = []
    for n, text in enumerate(texts):
        when = MONDAY + 30 * HOUR + n * every + timedelta(minutes=29)
        said = {"published": f"{when.isoformat()}+00:00", "symbol": symbol, "headline": text, "source": "test"}
        lines.append(json.dumps(said))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A random walk of 300 hours, and twelve headlines, none of them twice."""
    bars = walk(BARS, seed=3)
    table = pa.table(
        {
            "open_time": pa.array(MONDAY_NS + 3_600 * 10**9 * np.arange(BARS), pa.timestamp("ns")),
            **{name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume")},
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    texts = [f"{(UP, DOWN)[n % 2]} in quarter {'abcdefghijkl'[n]} of {'nopqrstuvwxy'[n]}" for n in range(12)]
    news = headlines(tmp_path / "news.jsonl", *texts)
    path = tmp_path / "config.toml"
    path.write_text(_CONFIG.format(bars=tmp_path / "x.parquet", news=news))
    return path


def backtest(config: Path, out: Path, *flags: str, code: int = 0) -> dict[str, Any]:
    """The streams of a run, by file."""
    assert backtest_main(["--config", str(config), "--quiet", "--out", str(out), *flags]) == code
    return {path.stem: pq.read_table(path) for path in out.glob("*.parquet")}


def test_each_headline_is_printed_and_kept_with_what_was_made_of_it(config: Path, tmp_path: Path) -> None:
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert backtest_main(["--config", str(config), "--out", str(tmp_path / "out")]) == 0

    lines = [line for line in printed.getvalue().splitlines() if " ai_signals: " in line]
    assert len(lines) == 12
    assert lines[0].startswith("2024-01-02 06:30:00.250000 ai_signals: BUY_SIGNAL X score +0.571, confidence 0.643: ")
    assert " [lexicon, item " in lines[0]
    rows = pq.read_table(tmp_path / "out" / "ai_signals.parquet").to_pylist()
    assert [row["action"] for row in rows] == ["BUY_SIGNAL", "SELL_SIGNAL"] * 6
    assert rows[0]["time"].replace(tzinfo=None) == MONDAY + 30.5 * HOUR + timedelta(milliseconds=250)
    assert rows[0]["asof"].replace(tzinfo=None) == MONDAY + 30.5 * HOUR
    assert rows[0]["latency_ms"] == 250.0
    assert len(rows[0]["input_hash"]) == 64


def test_advice_changes_what_is_traded_and_without_room_changes_nothing(config: Path, tmp_path: Path) -> None:
    off = backtest(config, tmp_path / "off", "--advisor.backend", "off")
    on = backtest(config, tmp_path / "on")
    bound = backtest(config, tmp_path / "bound", "--advisor.exposure-max", "0")
    slow = backtest(config, tmp_path / "slow", "--advisor.exposure-hour-max", "0")

    assert "ai_signals" not in off
    assert not on["orders"].equals(off["orders"])
    for capped in (bound, slow):
        assert capped["ai_signals"].equals(on["ai_signals"])
        assert all(capped[name].equals(off[name]) for name in ("orders", "fills", "updates", "equity"))


def test_the_advisor_alone_does_not_trade(config: Path, tmp_path: Path) -> None:
    streams = backtest(config, tmp_path / "out", "--signals.use", "advisor")

    assert streams["ai_signals"].num_rows == 12
    assert streams["orders"].num_rows == 0


def test_a_strategy_of_news_alone_may_be_asked_for_and_stays_within_its_exposure(config: Path, tmp_path: Path) -> None:
    text = config.read_text().replace("advisor = 0.8", "advisor = 1.0").replace('["technical", ', "[")
    config.write_text(text)

    streams = backtest(config, tmp_path / "out", "--advisor.exposure-max", "0.1", "--sizing.fraction", "0.5")

    exposure = max(
        abs(row["position_value"]) / row["equity"] for row in streams["equity"].to_pylist() if row["equity"] > 0
    )
    assert streams["fills"].num_rows > 0
    assert 0.05 < exposure < 0.115  # the target is set before the fill, and prices move


def test_a_position_taken_on_news_alone_is_left_when_the_advice_expires(config: Path, tmp_path: Path) -> None:
    headlines(tmp_path / "news.jsonl", DOWN)  # known at hour 30.5, and advice until 42.5
    config.write_text(config.read_text().replace("advisor = 0.8", "advisor = 1.0").replace('["technical", ', "["))

    rows = backtest(config, tmp_path / "out")["equity"].to_pylist()

    held = [row["time"].replace(tzinfo=None) for row in rows if abs(row["position_value"]) > 0.01 * row["equity"]]
    assert MONDAY + 31 * HOUR < held[0] < MONDAY + 34 * HOUR
    assert held[-1] <= MONDAY + 43 * HOUR  # what is sent at 42.5 fills at the next open, known at its close


def test_a_prefix_of_history_gives_the_prefix_of_the_results(config: Path, tmp_path: Path) -> None:
    whole = backtest(config, tmp_path / "whole")
    part = backtest(config, tmp_path / "part", "--end", "2024-01-08")

    for name in ("ai_signals", "orders"):
        count = part[name].num_rows
        assert 0 < count < whole[name].num_rows
        assert part[name].equals(whole[name].slice(0, count))
        assert whole[name]["time"][count].as_py().replace(tzinfo=None) > datetime(2024, 1, 8)


def test_what_its_weights_may_have_known_is_said_everywhere(config: Path, tmp_path: Path) -> None:
    flags = ["--advisor.backend", "replay", "--advisor.answers", str(_recorded(config, tmp_path / "answers.jsonl"))]

    told = {}
    for until in ("2023-06-30", "2024-06-30", ""):
        out, printed = tmp_path / f"out{until}", io.StringIO()
        with redirect_stdout(printed):
            learnt = ["--advisor.learnt-until", until] if until else []
            assert backtest_main(["--config", str(config), "--out", str(out), *flags, *learnt]) == 0
        document = json.loads((out / "report.json").read_text())["advisor"]
        page = (out / "report.html").read_text()
        words = " ".join(printed.getvalue().split())
        told[until] = document["hindsight"], "<strong>Hindsight.</strong>" in page, "may be hindsight" in words

    assert told == {"2023-06-30": (False,) * 3, "2024-06-30": (True,) * 3, "": (True,) * 3}


def _recorded(config: Path, path: Path) -> Path:
    """What the lexicon says of the headlines of a config, as a file."""
    texts = [json.loads(line)["headline"] for line in (config.parent / "news.jsonl").read_text().splitlines()]
    Recorder(Lexicon(), path).advise([Headline(text=text, symbol="X") for text in texts])
    return path


def test_recorded_answers_give_the_same_trades_and_a_missing_one_stops_the_run(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = _recorded(config, tmp_path / "answers.jsonl")
    asked = backtest(config, tmp_path / "asked")
    flags = ["--advisor.backend", "replay", "--advisor.answers", str(answers)]

    again = backtest(config, tmp_path / "again", *flags)

    assert all(again[name].equals(asked[name]) for name in ("ai_signals", "orders", "fills", "equity"))
    answers.write_text("".join(answers.read_text().splitlines(keepends=True)[:-1]))
    backtest(config, tmp_path / "missing", *flags, code=2)
    assert "no answer is recorded to the headline" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--advisor.backend", "score", "--advisor.model", "nowhere.gguf"], "nowhere.gguf"),
        (["--advisor.backend", "head", "--advisor.checkpoint", "nowhere"], "nowhere"),
        (["--advisor.backend", "replay"], "wants a file of recorded answers"),
        (["--advisor.backend", "replay", "--advisor.answers", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--advisor.backend", "chat", "--advisor.url", "ftp://x", "--advisor.model", "m"], "url must be http"),
    ],
)
def test_a_backend_that_cannot_be_used_is_refused_before_the_run(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    backtest(config, tmp_path / "out", *flags, code=2)

    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "orders.parquet").exists()


def test_backtests_of_one_process_share_what_is_costly_to_load() -> None:
    one = AdvisorConfig(backend="head")

    assert advisor_of(one) is advisor_of(AdvisorConfig(backend="head", exposure_max=0.1, infer=InferConfig()))
    assert advisor_of(replace(one, backend="lexicon")) is not advisor_of(one)
    chat = AdvisorConfig(backend="chat", model="m")  # which has a budget of its own
    assert advisor_of(chat) is not advisor_of(chat)


# --- beside a live engine, against a server on this machine ---


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        yield running


@csp.node
def _note(
    advice: ts[Advice], alert: ts[Alert], beat: ts[bool], told: object, alerts: object, enough: object
) -> ts[bool]:
    if csp.ticked(advice):
        told.append((csp.now(), advice))
    if csp.ticked(alert):
        alerts.append(alert)
    if csp.ticked(beat) and enough():
        return True


def live(
    advisor: AdvisorConfig, texts: list[str], enough: Callable[[list[Any]], bool]
) -> tuple[list[Advice], list[Alert], int]:
    """Advice and alerts of an engine that runs live, and how often it beat, a hundred times a second."""
    told: list[tuple[datetime, Advice]] = []
    alerts: list[Alert] = []
    beats: list[datetime] = []

    def graph() -> None:
        now = utc_now()
        items = [
            NewsItem(symbol="X", event_time=now, item_id=f"i{n}", headline=text, body="", source="test")
            for n, text in enumerate(texts)
        ]
        config = TradingConfig(
            instruments=(Instrument(symbol="X"),), strategies=(StrategyConfig(name="main"),), advisor=advisor
        )
        feeds = Feeds(
            bars={"X": csp.null_ts(Bar)},
            bar_lengths={"X": HOUR},
            news=csp.curve(NewsItem, [(timedelta(milliseconds=n), item) for n, item in enumerate(items)]),
            live=csp.const(True),
        )
        said = advise(feeds, config)
        assert said.advice is not None
        beat = csp.timer(timedelta(milliseconds=10))
        alert = csp.flatten(said.alerts)
        csp.stop_engine(_note(said.advice, alert, _beat(beat, beats), told, alerts, lambda: enough(told)))

    csp.run(graph, starttime=utc_now(), endtime=timedelta(seconds=60), realtime=True)
    return [advice for _, advice in told], alerts, len(beats)


@csp.node
def _beat(beat: ts[bool], beats: object) -> ts[bool]:
    if csp.ticked(beat):
        beats.append(csp.now())
        return True


def chat(server: ChatServer, **infer: Any) -> AdvisorConfig:
    settings = InferConfig(settle_ms=0.0, **infer)
    return AdvisorConfig(backend="chat", model="m", url=server.url, infer=settings)


def test_a_server_is_asked_while_the_engine_goes_on(server: ChatServer) -> None:
    told, alerts, _ = live(chat(server), ["prices go up", "prices go down", "nothing"], lambda told: len(told) == 3)

    assert [advice.action.name for advice in told] == ["BUY_SIGNAL", "SELL_SIGNAL", "HOLD"]
    assert {advice.backend for advice in told} == {"chat"}
    assert all(0.0 < advice.latency_ms < 60_000.0 for advice in told)
    assert alerts == []


def test_a_model_that_raises_is_hold_and_an_alert_and_the_graph_goes_on(server: ChatServer) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"error": "no such key"}, status=401)

    server.faults = [refuse]

    told, alerts, beats = live(
        chat(server, batch_max=1), ["prices go up", "prices go down"], lambda told: len(told) == 2
    )

    assert [(advice.action.name, advice.reason) for advice in told] == [
        ("HOLD", "failed"),
        ("SELL_SIGNAL", told[1].reason),
    ]
    assert [(alert.level.name, alert.source, alert.symbol) for alert in alerts] == [("WARNING", "advisor", "X")]
    assert "401" in alerts[0].message
    assert beats > 0


def test_a_model_that_hangs_is_hold_and_an_alert_and_the_graph_goes_on(server: ChatServer) -> None:
    async def hang(_: web.Request) -> web.Response:
        while True:
            await web.asyncio.sleep(3600.0)

    server.faults = [hang] * 9

    told, alerts, beats = live(chat(server, stale_after_s=0.3), ["prices go up"], lambda told: len(told) == 1)

    assert [(advice.action, advice.reason, advice.confidence) for advice in told] == [
        (AdviceAction.HOLD, "timeout", 0.0)
    ]
    assert [alert.source for alert in alerts] == ["advisor"]
    assert "TimeoutError" in alerts[0].message
    assert beats > 10


def test_live_a_backend_that_cannot_be_used_is_refused_before_the_run() -> None:
    config = TradingConfig(
        instruments=(Instrument(symbol="X"),),
        strategies=(StrategyConfig(name="main"),),
        advisor=AdvisorConfig(backend="score", model="nowhere.gguf"),
    )
    feeds = Feeds(
        bars={"X": csp.null_ts(Bar)}, bar_lengths={"X": HOUR}, news=csp.null_ts(NewsItem), live=csp.null_ts(bool)
    )

    with pytest.raises(ConfigError, match=r"\[advisor\] .*nowhere\.gguf"):
        csp.build_graph(lambda: advise(feeds, config), starttime=MONDAY, endtime=MONDAY)
