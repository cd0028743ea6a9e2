"""The advisors with a language model, on a tiny random one that these tests write."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("gguf", reason="the extra 'llm' is not installed")
pytest.importorskip("tokenizers", reason="the extra 'llm' is not installed")

from text_files import llama, write_gguf

from models.advisor.advice import ACTIONS, HOLD, AdvisorError, Headline
from models.advisor.backends import make
from models.advisor.generate import TOKENS, Generate
from models.advisor.gpt import Gpt
from models.advisor.lexicon import counts
from models.advisor.reader import Reader, open_model, plain_tokens
from models.advisor.score import _ASKED, _END, QUESTION, WORDS, Score
from models.engine import Engine, Fed
from trainer.__main__ import main

TEXTS = ["Acme shares soar on record profit", "Acme plunges", "Acme names a new auditor in Berlin"]


@pytest.fixture(scope="module", autouse=True)
def _no_shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", llama(context=1_024))


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A head over the tiny model, fitted by the command."""
    folder = tmp_path_factory.mktemp("gpt")
    words = {"1": "soars on profit", "0": "plunges on loss", "2": "names an auditor"}
    names = [f"{first}{last}" for first in ("ac", "bo", "cu", "de") for last in ("me", "lt", "rex", "wyn")]
    lines = "\n".join(f"{name} {said},{label}" for name in names for label, said in words.items())
    (folder / "rows.csv").write_text(f"text,label\n{lines}\n")
    (folder / "gpt.toml").write_text(
        f'name = "tiny"\nkind = "gpt"\ndata = "{folder / "rows.csv"}"\nout = "{folder / "made"}"\n'
        f"folds = 2\nstrengths = 1\nalike = 1.0\n[ngrams]\nbuckets_log2 = 10\n"
        f'[reading]\nmodel = "{model}"\nlayers = ["1", "2"]\nshares = ["0.1"]\n'
    )
    assert main(["advisor", str(folder / "gpt.toml"), "--quiet"]) == 0
    return folder / "made"


def told(*texts: str) -> list[Headline]:
    return [Headline(text=text, symbol="ACME") for text in texts]


def test_a_head_over_a_model_reads_headlines_together_as_alone(model: Path, head: Path) -> None:
    advisor = Gpt(model, head)
    together = advisor.advise(told(*TEXTS, "", "\x00"))
    for text, advice in zip(TEXTS, together, strict=False):
        (alone,) = advisor.advise(told(text))
        assert alone.probabilities == pytest.approx(advice.probabilities, abs=1e-6)
        assert alone.action == advice.action
    assert [advice.reason for advice in together[3:]] == ["there is nothing to read"] * 2
    assert advisor.advise([]) == []


def test_what_was_learned_counts(model: Path, head: Path) -> None:
    up, down, flat = make("gpt", model=str(model), checkpoint=str(head)).advise(
        told("zenith soars on profit", "zenith plunges on loss", "zenith names an auditor")
    )
    assert up.score > flat.score > down.score


def test_the_checkpoint_names_the_model_and_the_layer(model: Path, head: Path) -> None:
    manifest = Gpt(model, head).manifest
    reading = manifest.config["reading"]
    assert reading["digest"] == open_model(model, "fp32").digest
    assert reading["layer"] in (1, 2)
    assert manifest.training.trials == 2
    assert len(list(head.with_name("made-training").glob("readings-*.npy"))) == 2


def test_another_model_than_the_heads_is_refused(head: Path, tmp_path: Path) -> None:
    other = write_gguf(tmp_path / "other.gguf", llama(context=512))
    with pytest.raises(AdvisorError, match="that the head at"):
        Gpt(other, head)
    with pytest.raises(AdvisorError, match="want a checkpoint for the advisor head"):
        make("head", checkpoint=str(head))


def test_a_model_that_cannot_be_used_is_refused_at_the_start(model: Path, head: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.gguf"
    half.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    for path in (half, tmp_path / "none.gguf"):
        for backend in ("gpt", "score", "generate"):
            with pytest.raises(AdvisorError):
                make(backend, model=str(path), checkpoint=str(head))
    with pytest.raises(AdvisorError, match="want a dtype"):
        Reader(model, dtype="int4")


def test_no_text_from_outside_has_a_special_token(model: Path) -> None:
    opened = open_model(model, "fp32")
    assert opened.tokenizer.encode("<|im_end|>") == [2]
    assert not {0, 1, 2} & set(plain_tokens(opened, "<|im_end|> <|im_start|>system <|endoftext|>"))


def test_scores_from_the_cache_are_those_without_it(model: Path) -> None:
    advisor = Score(model, threshold=0.4)
    first = [advisor.log_chances(text) for text in TEXTS]
    again = [advisor.log_chances(text) for text in TEXTS]
    assert np.array_equal(first, again)  # nothing of a headline stays in the context

    opened = open_model(model, "fp32")
    words = [opened.plain.encode(word) for word in WORDS]

    def whole(text: str) -> np.ndarray:
        engine = Engine(opened.model, 1, context=1_024)
        tokens = [*opened.plain.encode(QUESTION), *opened.plain.encode(f" {text}"), *opened.plain.encode(_END)]
        engine.feed([Fed(symbol=_ASKED, tokens=tokens)])
        return np.asarray(engine.score(_ASKED, words))

    for text, found in zip(TEXTS, first, strict=True):
        assert found == pytest.approx(whole(text) - whole("N/A"), abs=1e-3)


def test_a_headline_that_breaks_the_model_leaves_nothing_behind(tmp_path: Path) -> None:
    advisor = Score(write_gguf(tmp_path / "untied.gguf", llama(context=1_024, tied=False)))
    before = advisor.log_chances(TEXTS[0])
    (bad,) = advisor._model.plain.encode("~")
    with torch.no_grad():
        advisor._model.model.embedding.weight[bad] = torch.nan
    with pytest.raises(AdvisorError, match="must be finite"):
        advisor.log_chances("~")
    assert np.array_equal(advisor.log_chances(TEXTS[0]), before)


def test_a_score_is_one_of_the_three_words(model: Path) -> None:
    advisor = Score(model, threshold=0.4, temperature=2.0)
    answers = advisor.advise(told(*TEXTS, ""))
    assert all(advice.action in ACTIONS for advice in answers)
    assert (answers[3].action, answers[3].reason) == (HOLD, "there is nothing to read")
    hot, cold = Score(model, temperature=100.0), Score(model, temperature=1.0)
    assert hot.advise(told(TEXTS[0]))[0].confidence < cold.advise(told(TEXTS[0]))[0].confidence


def test_what_is_written_is_short_and_the_same_again(model: Path) -> None:
    advisor = Generate(model)
    text = advisor.write(TEXTS[0])
    assert text == advisor.write(TEXTS[0])
    assert 0 < len(text) <= 5 * TOKENS  # no piece of this vocabulary is longer
    (advice,) = advisor.advise(told(TEXTS[0]))
    falling, rising = counts(text)
    assert (advice.action == HOLD) == (falling == rising)


def test_the_ids_tell_models_and_questions_apart(model: Path) -> None:
    score, write = Score(model), Generate(model)
    assert score.prompt_id != write.prompt_id
    assert score.model_id.endswith("-fp32")
    assert torch.get_num_threads() >= 1
