import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from tokenizer_bars import rows as bar_rows
from tokenizer_bars import walk

from feeds.errors import DataError
from models.checkpoint import write
from models.manifest import Training
from tokenizer.analysis import AnalysisConfig, analyse, encoded, main, read_tokens
from tokenizer.codec import Codec, TokenizerConfig
from tokenizer.fit import fit
from tokenizer.pictures import _free_side
from tokenizer.vocabulary import Outlier, TokenRow

ALL = {"usage.png", "codes.png", "returns.png", "transitions.png", "memory.png", "ngrams.png", "surprise.png"}
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def codec() -> Codec:
    return fit([walk(2_000)], TokenizerConfig(codes=32, hidden=32), seed=0, steps=100, batch=128)


@pytest.fixture(scope="module")
def checkpoint(codec: Codec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "tokenizer"
    training = Training(
        start=datetime(2024, 1, 1),
        end=datetime(2024, 3, 1),
        symbols=("WALK",),
        bar_s=3600.0,
        embargo_bars=256,
        data_sha256="0" * 64,
        licence="made up",
    )
    write(
        folder,
        kind="tokenizer",
        config={},
        codec=codec.to_manifest(),
        training=training,
        metrics={},
        tensors=codec.to_tensors(),
    )
    return folder


def bars_file(path: Path, count: int, hours: int = 1) -> Path:
    bars = walk(count, seed=3)
    opened = (hours * bars.close_time - hours * 3_600 * 10**9).astype("datetime64[ns]").astype("datetime64[s]")
    lines = ["open_time,open,high,low,close,volume"]
    lines += [
        f"{when}Z," + ",".join(f"{number!r}" for number in bar)
        for when, bar in zip(opened.astype(str), bar_rows(bars), strict=True)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_codec_comes_back_from_a_checkpoint(codec: Codec, checkpoint: Path) -> None:
    loaded, bars = Codec.load(checkpoint), walk(500, seed=9)

    assert loaded.config == codec.config
    assert np.array_equal(loaded.encode(bars).tokens, codec.encode(bars).tokens)


def test_bars_give_all_pictures_and_the_same_bytes_again(codec: Codec) -> None:
    rows = encoded(codec, [walk(1_500, seed=1), walk(1_000, seed=2, symbol="OTHER"), walk(20, symbol="SHORT")])

    one, two = (analyse(rows, codec, AnalysisConfig(top=3)) for _ in range(2))

    assert set(one.pictures) == ALL
    assert all(png.startswith(PNG) for png in one.pictures.values())
    assert one.pictures == two.pictures
    assert one.figures == two.figures
    assert one.figures["symbols"] == ["OTHER", "WALK"]
    assert one.figures["tokens"] == 1_500 + 1_000 - 2 * 32
    assert json.loads(json.dumps(one.figures, allow_nan=False)) == json.loads(json.dumps(two.figures))


def test_a_codec_alone_shows_its_training_tokens(codec: Codec) -> None:
    found = analyse([], codec, AnalysisConfig())

    assert set(found.pictures) == {"usage.png", "codes.png"}
    assert found.figures["perplexity"] == codec.perplexity


@pytest.mark.parametrize("said", [[0], [5] * 50])
def test_few_or_dull_tokens_are_drawn_as_well(said: list[int]) -> None:
    found = analyse([TokenRow(symbol="", tokens=np.array(said, np.int64))], None, AnalysisConfig())

    assert set(found.pictures) == ALL - {"codes.png", "returns.png"}
    json.dumps(found.figures, allow_nan=False)


def test_many_symbols_and_many_codes_are_drawn(codec: Codec) -> None:
    random = np.random.default_rng(0)
    rows = [TokenRow(symbol=str(i), tokens=random.integers(0, 300, 300)) for i in range(40)]

    found = analyse(rows, None, AnalysisConfig(codes=300, gram=2, top=3))

    assert found.figures["codes"] == 300


def test_token_files_are_read_by_blanks_commas_and_empty_lines(tmp_path: Path) -> None:
    file = tmp_path / "said.txt"
    file.write_text("80 81,83\n89\n\n\n66, 7\n")

    assert [row.tokens.tolist() for row in read_tokens(file, 128)] == [[80, 81, 83, 89], [66, 7]]
    assert [row.symbol for row in read_tokens(file, 128)] == ["said 1", "said 2"]


@pytest.mark.parametrize("text", ["1 128", "1 -1", "1.5", "one", "", "\n\n", "²", "1e3", "9" * 5_000, "0" * 18 + "999"])
def test_a_file_of_other_things_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "said.txt"
    file.write_text(text)

    with pytest.raises(DataError, match=r"token"):
        read_tokens(file, 128)


def test_the_command_writes_pictures_figures_and_a_summary(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bars_file(tmp_path / "ACME_1h.csv", 800)
    out = tmp_path / "found"

    code = main([str(checkpoint), "--data", str(data), "--top", "3", "--out", str(out)])

    assert code == 0, capsys.readouterr().err
    assert {path.name for path in out.iterdir()} == ALL | {"analysis.json"}
    figures = json.loads((out / "analysis.json").read_text())
    assert figures["symbols"] == ["ACME"]
    said = capsys.readouterr().out
    assert f"perplexity    {figures['perplexity']:.1f} of 32 codes" in said
    assert "bits a token on the last" in said


def test_the_command_reads_plain_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "said.txt").write_text(" ".join(str(i % 7) for i in range(500)))

    assert main([str(tmp_path / "said.txt"), "--codes", "8", "--top", "2", "--out", str(tmp_path / "found")]) == 0

    assert "perplexity    7.0 of 8 codes, 1 unused" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.txt"], "want a checkpoint folder or a text file of tokens, and missing.txt does not exist"),
        (["said.txt", "--data", "bars.csv"], "plain tokens come without one"),
        (["empty"], "python -m tokenizer.analysis: error: empty is no checkpoint"),
        (["wrong.txt", "--out", "said.txt"], "Not a directory: said.txt/analysis.json"),  # before it is read
        (["said.txt", "--out", "mine"], "want an empty --out, or that of an earlier analysis, mine holds usage.png"),
        (["said.txt", "--codes", "4097"], "codes must lie in [2, 4096], was 4097"),
    ],
)
def test_what_cannot_be_analysed_is_a_sentence_and_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "said.txt").write_text("1 2 3")
    (tmp_path / "wrong.txt").write_text("no tokens")
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "usage.png").write_text("of the user")

    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert (tmp_path / "mine" / "usage.png").read_text() == "of the user"


def test_pictures_of_an_earlier_analysis_do_not_stay(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "found"
    out.mkdir()
    for name in (*ALL, "analysis.json", "notes.txt"):
        (out / name).write_text("of another day")

    assert main([str(checkpoint), "--out", str(out)]) == 0

    assert {path.name for path in out.iterdir()} == {"usage.png", "codes.png", "analysis.json", "notes.txt"}


def test_a_tokenizer_of_too_many_codes_is_refused(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("tokenizer.analysis._CODES_MAX", 31)

    assert main([str(checkpoint), "--codes", "8", "--out", str(tmp_path / "x")]) == 2
    assert "want a tokenizer of at most 31 codes" in capsys.readouterr().err


def test_the_number_of_an_outlier_stands_away_from_the_nearest_other_one() -> None:
    times = np.array([0, 5, 6, 20]) * 10**9
    one = TokenRow(symbol="A", tokens=np.zeros(4, np.int64), close_time=times)
    named = [Outlier("A", 0, index, int(times[index]), 0, 0, 9.0, None) for index in (1, 2, 3)]

    assert [_free_side([one], named, which) for which in range(3)] == [-1, 1, 1]
    assert _free_side([one], named[:1], 0) == 1


def test_an_impossible_flag_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["said.txt", "--gram", "1"]) == 2
    assert "error: gram must lie in [2, 6], was 1" in capsys.readouterr().err


def test_bars_that_end_in_the_warm_up_and_two_files_of_one_symbol_are_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    short = bars_file(tmp_path / "ACME_1h.csv", 20)
    again = bars_file(tmp_path / "other" / "ACME_1h.csv", 20)

    assert main([str(checkpoint), "--data", str(short), "--out", str(tmp_path / "x")]) == 2
    assert "no bar after the warm-up of 32 bars" in capsys.readouterr().err
    assert main([str(checkpoint), "--data", str(short), str(again), "--out", str(tmp_path / "x")]) == 2
    assert "bars of ACME, which an earlier file has too" in capsys.readouterr().err


def test_bars_of_another_length_than_in_training_are_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bars_file(tmp_path / "ACME.csv", 400, hours=2)

    assert main([str(checkpoint), "--data", str(data), "--bar", "2h", "--out", str(tmp_path / "x")]) == 2
    assert "want bars of 3600 s as in training, ACME has 7200 s" in capsys.readouterr().err
