"""What a user names becomes an advisor, or a sentence at once; and each advisor says until when it has learnt."""

import hashlib
import importlib.util
import subprocess
import sys
from datetime import datetime, time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from text_files import gguf_tensors, llama, write_gguf

from configs.load import plain
from models.advisor.advice import LEARNT_NOTHING, LEARNT_UNKNOWN, Advisor, AdvisorError, Headline, moment
from models.advisor.backends import make
from models.advisor.head import Head
from models.advisor.lexicon import Lexicon
from models.advisor.ngrams import NgramConfig
from models.advisor.replay import Recorder, Replay
from models.advisor.weights import HeadConfig, Reading
from models.checkpoint import Training, write

END = datetime(2020, 1, 31, 12)
JUNE = datetime.combine(datetime(2024, 6, 30), time.max)


def checkpoint(folder: Path, *, end: datetime | None = END, **reading: Any) -> Path:
    """A head of small random numbers: over n-grams alone, or over the reading of a language model."""
    ngrams = NgramConfig(buckets_log2=8)
    draw = np.random.default_rng(0).normal
    tensors = {"model.ngrams": draw(size=(256, 3)), "model.bias": draw(size=3)}
    kind = "head"
    if reading:
        width = reading.pop("width")
        kind = "gpt"
        tensors |= {"model.dense": draw(size=(width, 3)), "model.mean": np.zeros(width), "model.scale": np.ones(width)}
    config = HeadConfig(
        advisor=kind, threshold=0.4, ngrams=ngrams, reading=Reading(**reading) if kind == "gpt" else None
    )
    start = None if end is None else datetime(2019, 1, 1)
    write(
        folder,
        kind="advisor",
        config=plain(config),
        codec=None,
        training=Training(start=start, end=end, symbols=(), bar_s=1.0, embargo_bars=0),
        metrics={},
        tensors={name: tensor.astype(np.float32) for name, tensor in tensors.items()},
    )
    return folder


# --- until when it has learnt ---


@pytest.mark.parametrize(("end", "until"), [(END, END), (None, LEARNT_UNKNOWN)])
def test_a_head_has_learnt_until_its_rows_end(tmp_path: Path, end: datetime | None, until: datetime) -> None:
    assert Head(checkpoint(tmp_path / "head", end=end)).learnt_until == until
    assert make("head", checkpoint=str(tmp_path / "head"), learnt_until="2024-06-30").learnt_until == until


def test_a_list_of_words_has_learnt_nothing() -> None:
    advisor: Advisor = Lexicon()
    assert advisor.learnt_until == LEARNT_NOTHING == datetime(1, 1, 1)


def test_of_another_model_nobody_knows_it_but_who_says_so(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    recorder = Recorder(Lexicon(), path)
    recorder.advise([Headline(text="Acme rises")])
    assert recorder.learnt_until == LEARNT_NOTHING
    assert Replay(path).learnt_until == make("replay", answers=str(path)).learnt_until == LEARNT_UNKNOWN
    assert make("replay", answers=str(path), learnt_until="2024-06-30").learnt_until == JUNE
    assert make("chat", model="m").learnt_until == LEARNT_UNKNOWN
    said = make("chat", model="m", url="http://127.0.0.1:9/v1", learnt_until="2024-06-30")
    assert (said.learnt_until, said.model_id) == (JUNE, "m@127.0.0.1:9")


def test_a_date_means_its_end_and_a_time_itself() -> None:
    assert moment("") == LEARNT_UNKNOWN
    assert moment("2024-06-30") == JUNE > datetime(2024, 6, 30, 23, 59)
    assert moment("2024-06-30T08:00:00") == datetime(2024, 6, 30, 8)


@pytest.mark.parametrize("text", ["soon", "2024", "2024-06-31", "2024-06-30T08:00:00+00:00", " "])
@pytest.mark.parametrize("backend", ["lexicon", "chat"])
def test_what_is_no_moment_is_refused(backend: str, text: str) -> None:
    with pytest.raises(AdvisorError, match=r"want learnt_until|learnt_until must be"):
        make(backend, model="m", learnt_until=text)


# --- which one is made ---


def test_without_a_language_model_it_is_the_head_and_torch_is_not_imported() -> None:
    program = (
        "import sys; sys.modules.update({'torch': None, 'aiohttp': None, 'gguf': None})\n"  # an import of them fails
        "from models.advisor.advice import Headline\n"
        "from models.advisor.backends import default_backend, make\n"
        "advisor = make('auto')\n"
        "(advice,) = advisor.advise([Headline(text='Acme shares plunge after profit warning')])\n"
        "print(default_backend(), advisor.backend, advice.action)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100)
    assert said.stdout.split() == ["head", "head", "SELL_SIGNAL"]


# --- a model that cannot be used ---

needs_llm = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("gguf", "tokenizers")), reason="wants the extra `llm`"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", llama(context=1_024))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def over(folder: Path, model: Path, **changed: Any) -> str:
    """A head over the tiny model, which is 64 wide and has 2 layers."""
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    return str(
        checkpoint(folder, **{"model": "tiny", "digest": digest, "layer": 2, "share": 0.1, "width": 128} | changed)
    )


def broken(folder: Path, model: Path, how: str) -> Path:
    """A model file that cannot be used."""
    path = folder / f"{how}.gguf"
    whole = model.read_bytes()
    if how == "missing":
        tensors = gguf_tensors(llama())
        del tensors["blk.1.ffn_up.weight"]
        return write_gguf(path, llama(), tensors=tensors)
    if how == "architecture":
        return write_gguf(path, llama(), arch="mamba")
    if how == "other":
        return write_gguf(path, llama(context=512))
    if how != "nothing":
        path.write_bytes({"truncated": whole[: 2 * len(whole) // 3], "empty": b"", "text": b"GGUF in words"}[how])
    return path


@needs_llm
@pytest.mark.parametrize("backend", ["gpt", "score", "generate"])
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("truncated", "truncated.gguf is truncated or no GGUF file"),
        ("architecture", "want a model of the architecture llama in .*, was 'mamba'"),
        ("missing", r"want blocks.1.mlp.up.weight of shape \(192, 64\), was nothing"),
        ("nothing", "nothing.gguf cannot be read"),
        ("empty", "empty.gguf is truncated or no GGUF file"),
        ("text", "text.gguf is truncated or no GGUF file"),
    ],
)
def test_a_broken_model_is_one_sentence_at_once(tmp_path: Path, model: Path, backend: str, how: str, said: str) -> None:
    head = over(tmp_path / "head", model) if backend == "gpt" else ""
    with pytest.raises(AdvisorError, match=said) as refused:
        make(backend, model=str(broken(tmp_path, model, how)), checkpoint=head)
    assert "\n" not in str(refused.value)


@needs_llm
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"digest": "0" * 64}, "want the model tiny .000000000000. that the head at .* was fitted on, was A tiny one"),
        ({"layer": 3}, "want a layer in .1, 2., was 3"),
        ({"width": 126}, r"want a reading of \(126,\), was \(128,\)"),
    ],
)
def test_a_head_that_does_not_fit_its_model_is_one_sentence_at_once(
    tmp_path: Path, model: Path, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(AdvisorError, match=said) as refused:
        make("gpt", model=str(model), checkpoint=over(tmp_path / "head", model, **changed))
    assert "\n" not in str(refused.value)


@needs_llm
@pytest.mark.parametrize("damage", ["changed", "half", "missing"])
def test_a_damaged_head_is_one_sentence_at_once(tmp_path: Path, model: Path, damage: str) -> None:
    folder = Path(over(tmp_path / "head", model))
    weights = folder / "weights.safetensors"
    whole = weights.read_bytes()
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(whole[:-1] + b"\x7f" if damage == "changed" else whole[: len(whole) // 2])
    with pytest.raises(AdvisorError, match=r"weights\.safetensors"):
        make("gpt", model=str(model), checkpoint=str(folder))


@needs_llm
@pytest.mark.parametrize(("backend", "context"), [("score", 420), ("generate", 300)])
def test_a_model_without_room_for_a_headline_is_refused_at_once(tmp_path: Path, backend: str, context: int) -> None:
    small = write_gguf(tmp_path / "small.gguf", llama(context=context))  # for the question there is
    with pytest.raises(AdvisorError, match=rf"want a model that sees \d+ tokens, A tiny one sees {context}"):
        make(backend, model=str(small))


@needs_llm
def test_a_model_without_a_chat_template_is_refused_at_once_where_it_is_to_write(tmp_path: Path) -> None:
    bare = write_gguf(tmp_path / "bare.gguf", llama(context=1_024), without=("tokenizer.chat_template",))
    with pytest.raises(AdvisorError, match="want a chat template"):
        make("generate", model=str(bare))


@needs_llm
def test_a_head_over_a_model_that_sees_little_reads_what_it_can(tmp_path: Path) -> None:
    small = write_gguf(tmp_path / "small.gguf", llama(context=32))
    advisor = make("gpt", model=str(small), checkpoint=over(tmp_path / "head", small))
    (advice,) = advisor.advise([Headline(text="Acme shares " + "rise and rise again, " * 9)])
    assert advice.confidence > 0.0


@needs_llm
def test_models_say_until_when_they_have_learnt(tmp_path: Path, model: Path) -> None:
    for backend in ("score", "generate"):
        assert make(backend, model=str(model)).learnt_until == LEARNT_UNKNOWN
        assert make(backend, model=str(model), learnt_until="2024-06-30").learnt_until == JUNE
    assert make("gpt", model=str(model), checkpoint=over(tmp_path / "head", model)).learnt_until == END
    unknown = over(tmp_path / "other", model, end=None)
    assert make("gpt", model=str(model), checkpoint=unknown).learnt_until == LEARNT_UNKNOWN
