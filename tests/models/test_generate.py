"""The command that lets a checkpoint speak."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from price_checkpoint import CODES, make_checkpoint, small_codec
from tiny_model import tiny
from tokenizer_bars import rows, walk
from training_files import bar_file, series

from configs.outputs import check_writable
from models.checkpoint import Training, write
from models.engine import Engine, Fed
from models.fan import Fan, bands, fan_png
from models.fingpt import FinGPT
from models.generate import GenerateConfig, GenerateError, main, parse_tokens, run
from models.sampling import Sampling
from tokenizer.bars import BarSeries, hours_of_week
from tokenizer.codec import Codec

PNG = b"\x89PNG\r\n"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("models") / "checkpoint")


def bars_file(path: Path, bars: BarSeries, hours: int = 1) -> Path:
    opened = (bars.close_time - hours * 3_600 * 10**9).astype("datetime64[ns]").astype("datetime64[s]")
    lines = ["open_time,open,high,low,close,volume"]
    for when, bar in zip(opened.astype(str), rows(bars), strict=True):
        lines.append(f"{when}Z," + ",".join(f"{number!r}" for number in bar))
    path.write_text("\n".join(lines) + "\n")
    return path


def config(folder: Path, **values: Any) -> GenerateConfig:
    return GenerateConfig(**{"seed_tokens": "1 2 3", "out": str(folder / "fan.png"), "paths": 20, **values})


def test_seed_tokens_are_continued_as_the_engine_does(checkpoint: Path, tmp_path: Path) -> None:
    said = run(checkpoint, config(tmp_path, num_generate=7, start_hour=166, seed=3)).splitlines()

    engine = Engine(FinGPT.load(checkpoint), 1)
    engine.feed([Fed(symbol="", tokens=[1, 2, 3], hours=[166, 167, 0])])
    expected = engine.sample("", 7, hours=[1, 2, 3, 4, 5, 6, 7], seed=3)
    assert said[0] == " ".join(map(str, expected))
    assert "log return in scales" in said[1]
    assert (tmp_path / "fan.png").read_bytes().startswith(PNG)


def test_bars_are_continued_from_their_last_close_and_hour(checkpoint: Path, tmp_path: Path) -> None:
    bars = walk(300, seed=8)
    path = bars_file(tmp_path / "WALK_1h.csv", bars)

    said = run(checkpoint, config(tmp_path, data=str(path), num_generate=5, horizon=10)).splitlines()

    codec = Codec.load(checkpoint)
    tokens, hours = codec.encode(bars).tokens[32:], hours_of_week(bars.close_time)[32:]
    engine = Engine(FinGPT.load(checkpoint), 1)
    engine.feed([Fed(symbol="WALK", tokens=tokens.tolist(), hours=hours.tolist())])
    ahead = [(int(hours[-1]) + i) % 168 for i in range(1, 6)]
    assert said[0] == " ".join(map(str, engine.sample("WALK", 5, hours=ahead)))
    low, middle, high = (float(part.split()[0]) for part in said[1].split("close: ")[1].split(", "))
    assert low < middle < high
    assert middle == pytest.approx(bars.close[-1], rel=0.2)


def test_the_same_command_gives_the_same_picture(checkpoint: Path, tmp_path: Path) -> None:
    pictures = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        run(checkpoint, config(tmp_path / name, scale=0.01, temperature=0.7))
        pictures.append((tmp_path / name / "fan.png").read_bytes())

    assert pictures[0] == pictures[1]
    run(checkpoint, config(tmp_path, scale=0.01, temperature=0.7, seed=1))
    assert (tmp_path / "fan.png").read_bytes() != pictures[0]


def test_a_model_without_a_tokenizer_speaks_tokens_only(tmp_path: Path) -> None:
    model, training = tiny(), Training(start=None, end=None, symbols=("A",), bar_s=60.0, embargo_bars=0)
    arguments: dict[str, Any] = {"kind": "fingpt", "codec": None, "training": training, "metrics": {}}
    write(tmp_path / "bare", config=model.to_manifest(), tensors=model.to_tensors(), **arguments)

    said = run(tmp_path / "bare", config(tmp_path, num_generate=4))

    assert len(said.splitlines()[0].split()) == 4
    assert "no fan chart" in said
    assert not (tmp_path / "fan.png").exists()
    with pytest.raises(GenerateError, match="without a tokenizer"):
        run(tmp_path / "bare", config(tmp_path, data="bars.csv"))


def test_bars_of_another_length_and_too_few_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    few = bars_file(tmp_path / "FEW_1h.csv", walk(20))
    with pytest.raises(GenerateError, match="warm-up of 32, was 20"):
        run(checkpoint, config(tmp_path, data=str(few)))

    other = make_checkpoint(tmp_path / "daily", bar_s=86_400.0)
    with pytest.raises(GenerateError, match="want bars of 86400 s"):
        run(other, config(tmp_path, data=str(few)))


@pytest.mark.parametrize("text", ["", " , ", "1 -2", f"{CODES}", "1.5", "x", "1" * 50, "٣"])
def test_impossible_seed_tokens_are_refused(text: str) -> None:
    with pytest.raises(GenerateError, match="seed token"):
        parse_tokens(text, CODES)


@pytest.mark.parametrize(
    "wrong",
    [
        {"start_hour": 168},
        {"scale": 0.0},
        {"scale": float("nan")},
        {"num_generate": -1},
        {"paths": -1},
        {"horizon": 0},
        {"seed": -1},
        {"top_p": 0.0},
    ],
)
def test_impossible_configs_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must lie"):
        GenerateConfig(**wrong)


def test_more_bars_of_paths_than_memory_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="paths x horizon must be at most 100,000,000, was 100,000 x 1,001"):
        GenerateConfig(paths=100_000, horizon=1_001)


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("there/none.png", "Not a directory"),
        ("there/is/none.png", "Not a directory"),
        ("folder", "Is a directory"),
        ("x" * 300 + ".png", "File name too long"),
    ],
)
def test_an_impossible_picture_is_refused_before_the_work(
    checkpoint: Path, tmp_path: Path, out: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").write_text("a file")
    (tmp_path / "folder").mkdir()
    asked = [str(checkpoint), "--seed-tokens", "wrong", "--out", str(tmp_path / out)]

    assert main(asked) == 2  # seed tokens are read once the model is loaded
    assert reason in capsys.readouterr().err
    assert main([*asked, "--paths", "0"]) == 2
    assert "want seed tokens" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "there"]


def test_asking_whether_a_file_can_be_written_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "there.png").write_bytes(b"former")

    check_writable(tmp_path / "there.png")
    check_writable(tmp_path / "a" / "b" / "new.png")

    assert [path.name for path in tmp_path.iterdir()] == ["there.png"]
    assert (tmp_path / "there.png").read_bytes() == b"former"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # without the refusal there would be many
@pytest.mark.parametrize("data", [True, False])
def test_paths_beyond_all_numbers_are_refused(tmp_path: Path, data: bool) -> None:
    tame = small_codec()
    wild = Codec(tame.config, tame.to_tensors() | {"codec.returns_table": 40.0 * tame.returns_table})
    checkpoint = make_checkpoint(tmp_path / "checkpoint", codec=wild)
    values = {"data": str(bars_file(tmp_path / "WALK_1h.csv", walk(100)))} if data else {"scale": 0.5}

    with pytest.raises(GenerateError, match="paths of 400 bars at temperature 1 leave what a number can hold"):
        run(checkpoint, config(tmp_path, horizon=400, paths=3, num_generate=1, **values))
    assert not (tmp_path / "fan.png").exists()


def test_returns_are_told_in_percent_and_without_a_scale_in_scales(checkpoint: Path, tmp_path: Path) -> None:
    percent = run(checkpoint, config(tmp_path, scale=0.01, horizon=4)).splitlines()[1]
    scales = run(checkpoint, config(tmp_path, horizon=4)).splitlines()[1]

    assert re.fullmatch(r"after 4 bars, return: (-?\d+\.\d\d % \(\S+( %)?\)(, )?){3}", percent)
    low, in_scales = (float(said.split(": ")[1].split()[0]) for said in (percent, scales))
    assert low == pytest.approx(100.0 * np.expm1(0.01 * in_scales), abs=0.011)


def test_a_title_says_that_seed_tokens_are_no_bars_of_the_symbol(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Fan] = []
    monkeypatch.setattr("models.fan.fan_png", lambda fan: drawn.append(fan) or fan_png(fan))
    data = str(bars_file(tmp_path / "WALK_1h.csv", walk(100)))

    for values in ({}, {"symbol": "WALK"}, {"data": data}):
        run(checkpoint, config(tmp_path, horizon=4, num_generate=1, **values))

    said = ["Unknown symbol after seed tokens", "WALK after seed tokens", "WALK"]
    assert [fan.title for fan in drawn] == [f"{name}: 20 paths of 4 bars" for name in said]


def test_the_command_prints_and_exits(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    done = main([str(checkpoint), "--seed-tokens", "1, 2 3", "--num-generate", "9", "--paths", "8", "--horizon", "6"])
    printed = capsys.readouterr().out.splitlines()

    assert done == 0
    assert len(printed[0].split()) == 9
    assert printed[-1] == "runs/generate/fan.png"
    assert main([str(checkpoint), "--seed-tokens", "99"]) == 2
    assert main([str(tmp_path / "none")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert all(line.startswith("python -m models.generate: error: ") for line in errors)
    assert len(errors) == 2
    assert main([str(checkpoint), "--top-p", "2"]) == 2
    assert "error: top_p must lie in (0, 1]" in capsys.readouterr().err
    assert main([str(checkpoint), "--data", "bars.csv", "--scale", "0.01"]) == 2
    assert "data bring their own scale" in capsys.readouterr().err
    assert main([str(checkpoint), "--calendar", "NYSE"]) == 2
    assert "want data or no calendar, was NYSE" in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        main([str(checkpoint), "--top-p", "x"])
    assert left.value.code == 2
    assert "want a number, was 'x'" in capsys.readouterr().err


def test_of_several_symbols_one_is_asked_for_and_an_unknown_one_is_told(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", symbols=("AAA",))
    both = bar_file(tmp_path, [series("AAA", 200), series("BBB", 200, seed=1)])
    asked = {"data": str(both), "num_generate": 3, "horizon": 4}

    with pytest.raises(GenerateError, match="AAA, BBB, was none"):
        run(checkpoint, config(tmp_path, **asked))
    with pytest.raises(GenerateError, match="AAA, BBB, was CCC"):
        run(checkpoint, config(tmp_path, **asked, symbol="CCC"))
    known = run(checkpoint, config(tmp_path, **asked, symbol="AAA")).splitlines()
    other = run(checkpoint, config(tmp_path, **asked, symbol="BBB")).splitlines()
    assert [line.split(":")[0] for line in known[1:]] == ["after 4 bars, close", known[-1]]
    assert other[1] == f"{checkpoint} does not know BBB (known: AAA): taken as an unknown symbol"


def test_what_the_model_may_have_seen_is_marked(tmp_path: Path) -> None:
    data = bar_file(tmp_path, [series("AAA", 200)])  # of January 2024
    pictures = {}
    for name, end in (("before", datetime(2023, 12, 1)), ("within", datetime(2024, 2, 1)), ("unknown", None)):
        start = None if end is None else datetime(2017, 1, 1)
        checkpoint = make_checkpoint(tmp_path / name, start=start, end=end)
        said = run(checkpoint, config(tmp_path, data=str(data), num_generate=3, horizon=4))
        assert ("in sample: " in said) == (name != "before")
        pictures[name] = (tmp_path / "fan.png").read_bytes()
    assert pictures["within"] == pictures["unknown"] != pictures["before"]  # in the title


def test_bands_are_quantiles_over_the_paths() -> None:
    future = np.array([[1.0, 10.0], [3.0, 0.0], [2.0, 5.0]])

    assert bands(future, (0.0, 0.5, 1.0)).tolist() == [[1.0, 0.0], [2.0, 5.0], [3.0, 10.0]]


def test_a_fan_of_one_path_and_one_bar_can_be_drawn() -> None:
    assert fan_png(Fan("One", "value", np.array([1.0]), np.array([[2.0]]))).startswith(PNG)


def test_sampling_of_a_config_is_its_flags() -> None:
    assert GenerateConfig(temperature=0.5, top_k=3, top_p=0.9).sampling == Sampling(temperature=0.5, top_k=3, top_p=0.9)
