"""python -m brokers.local_exchange: what a user sees."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from exchange_process import ROOT
from exchange_watch import run

from brokers.local_exchange.__main__ import main

KEYS = {"LOCAL_EXCHANGE_KEY": "play", "LOCAL_EXCHANGE_SECRET": "money"}
SMALL = ("--listing.trades-per-s", "10", "--listing.rows", "1000", "--listing.history-s", "10")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_listens_and_ends_cleanly(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "brokers.local_exchange", *SMALL]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | KEYS, text=True, **pipes) as process:
        assert process.stdout is not None
        said = process.stdout.readline().split()
        assert said[:2] == ["listening", "on"]

        async def work() -> list[dict[str, object]]:
            async with aiohttp.ClientSession() as session, session.ws_connect(f"{said[2]}/stream/ws") as ws:
                async with session.get(f"{said[2]}/api/v3/trades?symbol=ESUSD") as answer:
                    trades = await answer.json()
                process.send_signal(number)  # with a socket open
                await ws.receive()
                return trades

        assert len(run(work())) >= 100
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


def test_what_would_puzzle_who_uses_it_is_told() -> None:
    command = [sys.executable, "-m", "brokers.local_exchange", *SMALL, "--listing.history-s", "1000"]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | dict.fromkeys(KEYS, ""), text=True, **pipes) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        _, err = process.communicate(timeout=30)
    account, market = err.splitlines()
    assert "LOCAL_EXCHANGE_KEY and LOCAL_EXCHANGE_SECRET are not both set: there is no account" in account
    assert "the data of ES/USD end before now, so nothing will be traded" in market


def test_a_file_may_say_it_all(tmp_path: Path) -> None:
    path = tmp_path / "exchange.toml"
    path.write_text('seed = -1\n[[listings]]\nsymbol = "BTC/USDT"\n[[listings]]\nsymbol = "ETH/USDT"\n')
    command = [sys.executable, "-m", "brokers.local_exchange", "--config", str(path)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 2
    assert answer.stderr.startswith("python -m brokers.local_exchange: error: ")
    assert "seed must be 0 or more, was -1" in answer.stderr


def test_what_a_user_can_get_wrong_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for flags, wanted in (
            ((*SMALL, "--port", port), "address already in use"),
            (("--listing.data", str(tmp_path / "gone.parquet")), "gone.parquet"),
            (("--config", str(tmp_path / "gone.toml")), "gone.toml does not exist"),
            (("--balances", "USD"), "USDT=100000"),
        ):
            assert main(list(flags)) == 2
            out, err = capsys.readouterr()
            assert (out, err.count("\n")) == ("", 1)
            assert wanted in err
