"""The command that goes on with a text: the engine's draws, from every kind of file, told piece by piece."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from text_files import TOKENS, gpt2_state, llama, write_folder, write_gguf
from tiny_model import tiny
from tiny_text import text_model

from models.checkpoint import CheckpointError, Training
from models.checkpoint import write as write_checkpoint
from models.engine import Engine
from models.gpt2 import GPT2, GPT2Config
from models.sampling import Sampling, probabilities
from models.spelling import Characters, Piecewise, read_spelling, spelling_of
from models.text import TextError, TextTokenizer, byte_pairs
from models.write import WriteConfig, main
from models.writer import Writer, load_writer, write

ROOT = Path(__file__).parents[2]
UNKNOWN = Training(start=None, end=None, symbols=(), bar_s=1.0, embargo_bars=0)
LETTERS = "\n ABCDEFGHIJKLMNOPQRSTUVWabcdefghijklmnopqrstuvwx."  # 50, as many as tokens of a tiny model

needs_llm = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("gguf", "tokenizers")), reason="wants the extra `llm`"
)


def tokenizer() -> str:
    merges = [" ".join(pair) for pair in (("s", "h"), ("sh", "a"), ("r", "e"))]
    return byte_pairs({token: i for i, token in enumerate(TOKENS)}, merges, [], "gpt-2")


def checkpoint(folder: Path, codec: Any = None, name: str = "gpt2") -> Path:
    model = text_model(name)
    arguments: dict[str, Any] = {"training": UNKNOWN, "metrics": {}, "tensors": model.to_tensors()}
    write_checkpoint(folder, kind="gpt2", config=asdict(model.config), codec=codec, **arguments)
    return folder


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("own") / "made", {"tokens": "characters", "characters": LETTERS})


def test_it_draws_what_the_engine_draws(letters: Path) -> None:
    writer = load_writer(letters)
    for sampling in (Sampling(), Sampling(temperature=0.7, top_k=9), Sampling(top_p=0.6), Sampling(temperature=0.0)):
        found = "".join(write(writer, "Sad ", 15, sampling=sampling, seed=5))

        engine = Engine(GPT2.load(letters), 1)
        tokens = engine.sample(Characters(LETTERS).encode("Sad "), 15, sampling=sampling, seed=5)
        assert found == "".join(LETTERS[token] for token in tokens)
    assert found == "".join(write(writer, Characters(LETTERS).encode("Sad "), 15, sampling=sampling, seed=6))


@torch.no_grad()
@pytest.mark.parametrize("start", [3, 24, 40])
def test_beyond_the_context_it_goes_on_from_the_later_half(start: int) -> None:
    model = text_model("gpt2")  # a context of 24
    prompt = (LETTERS * 2)[:start]
    found = "".join(write(Writer(model, Characters(LETTERS), "tiny"), prompt, 60, sampling=Sampling(temperature=0.0)))

    seen = Characters(LETTERS).encode(prompt)[-24:]
    expected = ""
    for _ in range(60):
        if len(seen) > 24:
            seen = seen[-12:]
        token = int(model(torch.tensor([seen]))[0, -1].argmax())
        seen.append(token)
        expected += LETTERS[token]
    assert found == expected


def test_a_token_that_ends_a_text_ends_it() -> None:
    model = text_model("gpt2")
    whole = list(write(Writer(model, Characters(LETTERS), "tiny"), "A", 20, seed=1))
    end = whole[4]
    stopped = Writer(model, Characters(LETTERS), "tiny", stop=(LETTERS.index(end),))
    assert list(write(stopped, "A", 20, seed=1)) == whole[: whole.index(end)]


def test_the_most_probable_of_many_tokens_is_found_without_a_table_of_all_pairs() -> None:
    chances = probabilities(np.arange(10**6)[None], Sampling(temperature=0.0))  # pairs would take 8 TB
    assert (chances.argmax(), chances.sum()) == (10**6 - 1, 1.0)


def test_a_context_of_one_token_is_enough() -> None:
    model = GPT2(GPT2Config(vocabulary=50, context=1, layers=1, width=8, heads=2)).eval()
    assert len("".join(write(Writer(model, Characters(LETTERS), "tiny"), "ABC", 9))) == 9


# --- spelling ---


@needs_llm
@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30), at=st.integers(0, 200))
def test_pieces_are_the_text_and_no_character_is_cut(text: str, at: int) -> None:
    spelling = TextTokenizer(tokenizer())
    tokens = spelling.encode(text)  # a token a byte, nearly
    at = min(at, len(tokens))
    pieces = Piecewise(spelling)
    found = [pieces.add(token) for token in tokens[:at]]
    found += [pieces.rest()] if at < len(tokens) else []
    assert "".join(found) == spelling.decode(tokens[:at])
    if at == len(tokens):
        assert "\ufffd" in text or not any("\ufffd" in piece for piece in found)


@needs_llm
def test_bytes_that_are_no_character_do_not_hold_up_the_text() -> None:
    spelling = TextTokenizer(tokenizer())
    bad = spelling.encode("ÿ")[:1]
    pieces = Piecewise(spelling)
    found = [pieces.add(token) for token in [*bad * 9, *spelling.encode("share")]]
    assert "".join(found) == "\ufffd" * 9 + "share"
    assert any(found[:4])


def test_a_character_that_the_model_has_never_seen_is_refused(letters: Path) -> None:
    with pytest.raises(TextError, match=r"want characters that the model has seen, .*, was 'é'"):
        next(write(load_writer(letters), "café", 3))
    with pytest.raises(TextError, match="of at least one token, was none"):
        next(write(load_writer(letters), [], 3))


@pytest.mark.parametrize(
    "codec",
    [
        {},
        {"tokens": "words"},
        {"tokens": "characters"},
        {"tokens": "characters", "characters": ""},
        {"tokens": "characters", "characters": "AA"},
        {"tokens": "characters", "characters": ["A"]},
        {"tokens": "bpe", "tokenizer": "{}"},
        {"tokens": "bpe", "tokenizer": {}, "vocabulary": 3},
    ],
)
def test_a_spelling_that_is_none_is_refused(codec: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="here"):
        spelling_of(codec, "here")
    with pytest.raises(CheckpointError):
        load_writer(checkpoint(tmp_path / "made", codec))


# --- what models are in ---


def test_a_checkpoint_that_spells_fewer_tokens_than_it_has_is_refused(tmp_path: Path) -> None:
    made = checkpoint(tmp_path / "made", {"tokens": "characters", "characters": LETTERS[:-1]})
    with pytest.raises(CheckpointError, match="has 50 tokens, and says what 49 mean"):
        load_writer(made)


def test_a_nanogpt_writes_with_a_tokenizer_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = text_model("gpt2-bare")
    c = model.config
    shape = {"n_layer": c.layers, "n_head": c.heads, "n_embd": c.width, "block_size": c.context}
    state = {f"transformer.{name}": tensor for name, tensor in gpt2_state(model, turned=False).items()}
    torch.save({"model": state, "model_args": shape | {"bias": False, "vocab_size": 50}}, tmp_path / "ckpt.pt")
    (tmp_path / "meta.json").write_text(json.dumps({"tokens": "characters", "characters": LETTERS}))
    flags = [str(tmp_path / "ckpt.pt"), "--prompt", "Ham", "--tokens", "9"]

    assert main(flags) == 2
    assert "does not say what its tokens mean: want --tokenizer FILE" in capsys.readouterr().err
    assert main([*flags, "--tokenizer", str(tmp_path / "meta.json")]) == 0

    writer = Writer(model, Characters(LETTERS), "")
    expected = "".join(write(writer, "Ham", 9, sampling=Sampling(temperature=0.8)))
    assert capsys.readouterr().out == f"Ham{expected}\n"


@needs_llm
def test_a_gguf_file_and_a_folder_write_and_a_chat_model_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write_gguf(tmp_path / "tiny.gguf", llama())
    flags = ["--prompt", "share", "--tokens", "8"]
    assert main([str(path), *flags]) == 0
    first = capsys.readouterr().out
    assert first.startswith("share")
    assert main([str(path), *flags]) == 0
    assert capsys.readouterr().out == first
    assert main([str(path), *flags, "--seed", "1"]) == 0
    assert capsys.readouterr().out != first

    assert main([str(path), *flags, "--chat"]) == 0
    writer = load_writer(path)
    start = writer.answer([{"role": "user", "content": "share"}])
    assert writer.chats is not None
    assert start == writer.chats.chat_tokens([{"role": "user", "content": "share"}])
    answer = "".join(write(writer, start, 8, sampling=Sampling(temperature=0.8)))
    assert capsys.readouterr().out.rstrip("\n") == shown(answer).rstrip("\n")

    torch.manual_seed(0)
    model = GPT2(GPT2Config(vocabulary=len(TOKENS), context=24, layers=1, width=16, heads=2)).eval()
    config = {"model_type": "gpt2", "vocab_size": len(TOKENS), "n_positions": 24, "n_layer": 1, "n_embd": 16}
    folder = write_folder(tmp_path / "hf", gpt2_state(model, turned=True), config | {"n_head": 2})
    (folder / "tokenizer.json").write_text(tokenizer())
    assert main([str(folder), *flags]) == 0
    spelling = read_spelling(folder / "tokenizer.json")
    expected = "".join(write(Writer(model, spelling, ""), "share", 8, sampling=Sampling(temperature=0.8)))
    assert capsys.readouterr().out == f"share{shown(expected)}\n"
    assert main([str(folder), *flags, "--chat"]) == 2
    assert "want a model with a chat template" in capsys.readouterr().err


def shown(text: str) -> str:
    """Without what steers a terminal."""
    return "".join("\ufffd" if ord(c) in (*range(9), *range(11, 32), *range(127, 160)) else c for c in text)


def test_what_would_steer_a_terminal_is_not_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    characters = "".join(map(chr, range(50)))  # escape, bell and return among them
    made = checkpoint(tmp_path / "made", {"tokens": "characters", "characters": characters})
    assert main([str(made), "--tokens", "200", "--temperature", "2"]) == 0
    out = capsys.readouterr().out
    assert "\ufffd" in out
    assert not {c for c in out if ord(c) < 32} - {"\n", "\t"}


# --- the command ---


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nowhere"], "nowhere cannot be read"),
        (["checkpoints/demo"], "want a checkpoint of kind gpt2"),
        (["LETTERS", "--prompt", "é"], "want characters that the model has seen"),
        (["LETTERS", "--prompt", ""], "prompt must have a character"),
        (["LETTERS", "--tokens", "0"], "tokens must lie in"),
        (["LETTERS", "--temperature", "nan"], "temperature finite"),
        (["LETTERS", "--top-p", "0"], "top_p in"),
        (["LETTERS", "--dtype", "int8"], "dtype must be one of"),
        (["LETTERS", "--tokenizer", "nowhere.json"], "nowhere.json cannot be read"),
    ],
)
def test_what_cannot_work_is_said_in_a_sentence(
    letters: Path, argv: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert main([str(letters) if word == "LETTERS" else word for word in argv]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""


def test_a_price_model_is_refused(tmp_path: Path) -> None:
    model = tiny()
    arguments: dict[str, Any] = {"training": UNKNOWN, "metrics": {}, "tensors": model.to_tensors()}
    write_checkpoint(tmp_path / "made", kind="fingpt", config=model.to_manifest(), codec=None, **arguments)
    with pytest.raises(CheckpointError, match="is of kind fingpt"):
        load_writer(tmp_path / "made", tokenizer="")


def test_ctrl_c_ends_it_in_a_line_and_keeps_what_was_written(letters: Path) -> None:
    command = [sys.executable, "-m", "models.write", str(letters), "--prompt", "Sad ", "--tokens", "1000000"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        begun = os.read(process.stdout.fileno(), 4)
        assert begun == b"Sad "
        assert os.read(process.stdout.fileno(), 1)  # as it comes, long before the end
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err.decode() == "python -m models.write: interrupted\n"


def test_flags_do_not_wait_for_torch() -> None:
    script = (
        "import sys\nfrom models.write import main\n"
        "try:\n    main(['--help'])\nfinally:\n    assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--temperature" in done.stdout


@pytest.mark.parametrize("wrong", [{"prompt": ""}, {"tokens": 0}, {"threads": 0}, {"seed": -1}, {"top_k": -1}])
def test_impossible_configs_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|want"):
        WriteConfig(**wrong)


def test_a_chance_that_underflows_is_never_drawn() -> None:
    model = text_model("gpt2")
    with torch.no_grad():
        model.norm.weight.mul_(1e3)  # logits of thousands: all chances but one or two are 0 in 64 bits
    writer = Writer(model, Characters(LETTERS), "tiny")
    sure = "".join(write(writer, "A", 12, sampling=Sampling(temperature=0.0)))
    assert "".join(write(writer, "A", 12, seed=int(np.random.default_rng(0).integers(99)))) == sure
