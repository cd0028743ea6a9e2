"""The price model behind the seam: it says what engine and table say, in every grouping and after every failure."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from price_checkpoint import CODES, make_checkpoint, small_codec

from models.checkpoint import read_manifest, read_tensors, write
from models.engine import Engine, Fed
from models.fingpt import FinGPT
from models.returns import ReturnTable
from nodes.events import Forecast, TokenFrame
from nodes.forecast import LEVELS, ForecastConfig
from nodes.price_model import BarsRequest, Checkpoints, PriceModel
from tokenizer.codec import Codec

MONDAY = datetime(2024, 1, 1)
CONFIG = ForecastConfig(missing_max=3)
SCALE = 0.004


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "one")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "other", seed=1)


def price_model(*folders: Path, symbols: int = 3) -> PriceModel:
    known = Checkpoints.read(folders)
    return PriceModel(known, known.codecs(), symbols, CONFIG)


def frame(hour: int, *tokens: int, symbol: str = "X", missing: int = 0, scale: float = SCALE) -> TokenFrame:
    asof = MONDAY + timedelta(hours=hour)
    return TokenFrame(symbol=symbol, asof=asof, tokens=list(tokens), hour=hour % 168, scale=scale, missing=missing)


def request(*frames: TokenFrame, fresh: bool = False) -> BarsRequest:
    last = frames[-1]
    return BarsRequest(key=last.symbol, asof=last.asof, frames=list(frames), fresh=fresh)


def bits(forecast: Forecast) -> tuple[Any, ...]:
    names = ("symbol", "asof", "mean", "volatility", "probability_up", "entropy", "token")
    return (*(getattr(forecast, name) for name in names), forecast.quantiles.tobytes())


def tokens_of(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, CODES, count).tolist()


def near(one: Forecast, other: Forecast) -> None:
    assert (one.symbol, one.asof, one.token) == (other.symbol, other.asof, other.token)
    for name in ("mean", "volatility", "probability_up", "entropy"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-5, abs=1e-9)
    assert one.quantiles == pytest.approx(other.quantiles, rel=1e-4, abs=1e-9)


def test_a_forecast_is_what_engine_and_table_say(folder: Path) -> None:
    tokens = tokens_of(6)
    model = price_model(folder)

    told = [model.predict([request(frame(i, token))])[0] for i, token in enumerate(tokens)]

    engine = Engine(FinGPT.load(folder), 1)
    chances = [engine.feed([Fed(symbol="X", tokens=[token], hours=[i])]) for i, token in enumerate(tokens)]
    codec = Codec.load(folder)
    features = codec.config.features
    table = ReturnTable(codec.returns_table, features.scale_halflife_bars, features.scale_floor, features.clip)
    step = table.forecast(chances[-1], np.array([SCALE]))
    last = told[-1]
    assert last.mean == pytest.approx(step.mean[0])
    assert last.volatility == pytest.approx(step.volatility[0])
    assert last.quantiles == pytest.approx(step.quantile(LEVELS)[0])
    assert last.probability_up == pytest.approx(step.probability_up[0] + 0.5 * step.probability_flat[0])
    assert last.entropy == pytest.approx(-float((chances[-1] * np.log2(chances[-1])).sum()))
    assert np.isnan(told[0].surprise)
    assert [each.surprise for each in told[1:]] == pytest.approx(
        [-np.log2(chance[0, token]) for chance, token in zip(chances, tokens[1:], strict=False)]
    )


def test_symbols_together_are_as_each_alone(folder: Path) -> None:
    together, alone = price_model(folder), {name: price_model(folder) for name in "ABC"}
    for i in range(16):  # further than the context of 12
        asked = [request(frame(i, token, symbol=name)) for name, token in zip("ABC", tokens_of(3, i), strict=True)]
        for one, batch in zip(asked, together.predict(asked), strict=True):
            near(alone[one.key].predict([one])[0], batch)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8))
@settings(max_examples=15, deadline=None)
def test_bars_that_waited_together_are_as_one_by_one(folder: Path, pieces: list[int]) -> None:
    tokens = tokens_of(sum(pieces))
    one_by_one, in_pieces = price_model(folder), price_model(folder)
    start = 0
    for count in pieces:
        frames = [frame(i, tokens[i]) for i in range(start, start + count)]
        asked = request(frames[0])
        for each in frames[1:]:
            asked = in_pieces.merge(asked, request(each))
        (got,) = in_pieces.predict([asked])
        singles = [one_by_one.predict([request(each)])[0] for each in frames]
        near(got, singles[-1])
        if count > 1:
            assert np.isnan(got.surprise)  # it was not asked before the last of them
        start += count


def test_what_waits_is_no_longer_than_a_model_can_see(folder: Path) -> None:
    model, tokens = price_model(folder), tokens_of(40)
    model.predict([request(frame(0, 3))])
    waiting = request(frame(1, tokens[1]))
    for i in range(2, 40):
        waiting = model.merge(waiting, request(frame(i, tokens[i])))

    assert len(waiting.frames) == 12
    assert waiting.fresh  # what it saw before is not next to these
    fresh = price_model(folder)
    near(model.predict([waiting])[0], fresh.predict([request(*(frame(i, tokens[i]) for i in range(28, 40)))])[0])


def test_a_hole_that_is_too_wide_is_forgotten_behind_and_a_small_one_is_bridged(folder: Path) -> None:
    before, after = [frame(i, i) for i in range(5)], [frame(20, 7), frame(21, 8)]
    for missing, known in ((4, []), (3, before)):
        model, want = price_model(folder), price_model(folder)
        model.predict([request(*before)])
        holed = [frame(20, 7, missing=missing), after[1]]
        (got,) = model.predict([request(*holed)])
        near(got, want.predict([request(*known, *after)])[0])


def test_a_hole_inside_a_request_is_one_too(folder: Path) -> None:
    (got,) = price_model(folder).predict([request(frame(0, 1), frame(20, 7, missing=4), frame(21, 8))])
    near(got, price_model(folder).predict([request(frame(20, 7), frame(21, 8))])[0])


@pytest.mark.parametrize("where", ["first engine", "second engine", "table"])
def test_after_a_failure_nothing_is_lost(
    folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    # X alone, then X and Y, then a failure with both, after which Y's bar comes later than X's.
    tokens = tokens_of(8)
    model, want = price_model(folder, other), price_model(folder, other)

    def asked(i: int, symbol: str) -> BarsRequest:
        return request(frame(i, tokens[i], tokens[7 - i], symbol=symbol))

    for i in range(4):
        batch = [asked(i, name) for name in ("XY" if i > 1 else "X")]
        model.predict(batch)
        want.predict(batch)
    with monkeypatch.context() as patch:
        if where == "table":
            patch.setattr(ReturnTable, "forecast", _raise)
        else:
            engine = model._engines[where == "second engine"]
            patch.setattr(engine._model, "step", _raise)
        with pytest.raises(MemoryError, match="no more"):
            model.predict([asked(4, "X"), asked(4, "Y")])

    want.predict([asked(4, "X"), asked(4, "Y")])
    for i, names in ((5, "X"), (5, "Y"), (6, "XY")):
        batch = [asked(i, name) for name in names]
        for got, wanted in zip(model.predict(batch), want.predict(batch), strict=True):
            near(got, wanted)
            if i == 5:
                assert np.isnan(got.surprise)  # of a bar before which there was no forecast
            else:
                assert got.surprise == pytest.approx(wanted.surprise, rel=1e-5)


def _raise(*_: Any) -> None:
    raise MemoryError("no more")


@pytest.mark.parametrize(
    "wrong", [frame(4, 99), frame(4, -1), frame(4), frame(4, 1, 2), frame(4, 1, scale=np.nan), frame(4, 1, scale=0.0)]
)
def test_an_impossible_frame_fails_once_and_harms_no_other_symbol(folder: Path, wrong: TokenFrame) -> None:
    tokens = tokens_of(8)
    model, want = price_model(folder), price_model(folder)
    for i in range(4):
        batch = [request(frame(i, tokens[i], symbol=name)) for name in "XY"]
        model.predict(batch)
        want.predict(batch)

    with pytest.raises(ValueError, match="want a token of X below 16, an hour of the week, a positive scale, was"):
        model.predict([request(wrong), request(frame(4, tokens[4], symbol="Y"))])

    want.predict([request(frame(4, tokens[4], symbol="Y"))])
    x, y = (request(frame(5, tokens[5], symbol=name)) for name in "XY")
    got = model.predict([x, y])
    near(got[0], price_model(folder).predict([x])[0])  # X begins anew
    near(got[1], want.predict([y])[0])


def test_symbols_that_close_at_other_times_are_as_each_alone(folder: Path) -> None:
    # A is always there, B of another calendar comes and goes, C has closes between the hours, D starts late.
    together, alone = price_model(folder, symbols=4), {name: price_model(folder) for name in "ABCD"}
    rng = np.random.default_rng(0)
    for i in range(60):
        names = {0: "C", 1: "A" if i % 6 > 2 else "BA"}[i % 2] + ("D" if i > 40 else "")
        asked = [request(frame(i, int(rng.integers(CODES)), symbol=name)) for name in names]
        for one, batch in zip(asked, together.predict(asked), strict=True):
            near(alone[one.key].predict([one])[0], batch)


def test_more_symbols_than_there_is_room_for_are_said_and_the_known_ones_go_on(folder: Path) -> None:
    model, want = price_model(folder, symbols=2), price_model(folder, symbols=2)
    for name in "AB":
        model.predict([request(frame(0, 1, symbol=name))])
        want.predict([request(frame(0, 1, symbol=name))])

    with pytest.raises(ValueError, match="want at most 2 symbols, was 3"):
        model.predict([request(frame(1, 2, symbol="C"))])

    for name in "AB":
        asked = [request(frame(1, 3, symbol=name))]
        near(model.predict(asked)[0], want.predict(asked)[0])


def test_what_is_remembered_of_a_symbol_is_no_longer_than_a_model_can_see(folder: Path) -> None:
    model = price_model(folder)
    for i in range(100):
        model.predict([request(frame(i, i % CODES, symbol=name)) for name in "AB"])

    assert {name: len(frames) for name, frames in model._recent.items()} == {"A": 12, "B": 12}
    for chances in model._expected.values():
        assert [chance.base for chance in chances] == [None]  # not the whole batch, held by a row of it


def test_several_checkpoints_are_mixed_in_equal_parts(folder: Path, other: Path) -> None:
    (both,) = price_model(folder, other).predict([request(frame(0, 3, 5))])
    (one,) = price_model(folder).predict([request(frame(0, 3))])
    (two,) = price_model(other).predict([request(frame(0, 5))])

    assert both.mean == pytest.approx(0.5 * (one.mean + two.mean))
    square = 0.5 * (one.volatility**2 + one.mean**2 + two.volatility**2 + two.mean**2)
    assert both.volatility == pytest.approx(np.sqrt(square - both.mean**2))
    assert both.entropy == pytest.approx(0.5 * (one.entropy + two.entropy))
    assert min(one.quantiles[3], two.quantiles[3]) <= both.quantiles[3] <= max(one.quantiles[3], two.quantiles[3])


def test_the_same_requests_give_the_same_bits(folder: Path) -> None:
    runs = []
    for _ in range(2):
        model = price_model(folder)
        runs.append([bits(model.predict([request(frame(i, token))])[0]) for i, token in enumerate(tokens_of(20))])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("context", [0, 10**12, "12", None, [12]])
def test_a_checkpoint_of_an_impossible_context_is_refused_before_its_weights_are_read(
    folder: Path, tmp_path: Path, context: Any
) -> None:
    sound = read_manifest(folder)
    write(
        tmp_path / "odd",
        kind="fingpt",
        config={**sound.config, "context": context},
        codec=sound.codec,
        training=sound.training,
        metrics={},
        tensors=read_tensors(folder, sound),
    )

    with pytest.raises(ValueError, match=r"want the context of .*odd to lie in \[1, 65536\], was"):
        Checkpoints.read([tmp_path / "odd"])


def test_checkpoints_that_do_not_go_together_are_refused(folder: Path, tmp_path: Path) -> None:
    daily = make_checkpoint(tmp_path / "daily", bar_s=86_400.0)
    with pytest.raises(ValueError, match="want checkpoints of one bar length, were 3600 s, 86400 s"):
        Checkpoints.read([folder, daily])
    odd = make_checkpoint(tmp_path / "odd", vocabulary=32)
    with pytest.raises(ValueError, match=r"want a tokenizer of 32 codes, as the model of .*odd reads, was of 16"):
        Checkpoints.read([odd]).codecs()
    slow = make_checkpoint(tmp_path / "slow", codec=small_codec(scale_halflife_bars=100.0))
    with pytest.raises(ValueError, match=r"one scale_halflife_bars, to mix what they say, were \[32.0, 100.0\]"):
        Checkpoints.read([folder, slow]).codecs()
