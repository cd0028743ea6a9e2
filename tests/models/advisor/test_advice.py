"""What an answer must be, and the backends that need no model."""

import math
import re
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.advisor.advice import ACTIONS, BUY_SIGNAL, HOLD, SELL_SIGNAL, Advice, AdvisorError, Headline, hold, judged
from models.advisor.head import SHIPPED, Head
from models.advisor.lexicon import Lexicon, counts
from models.advisor.ngrams import NgramConfig, alike, buckets
from models.advisor.replay import Recorder, Replay

WORDS = Lexicon()


def headline(text: str, symbol: str = "ACME") -> Headline:
    return Headline(text=text, symbol=symbol)


@settings(max_examples=100, deadline=None)
@given(st.tuples(*[st.floats(0.0, 1e6)] * 3).filter(lambda p: sum(p) > 0), st.floats(0.01, 1.0))
def test_probabilities_give_an_answer_within_its_bounds(chances: tuple[float, float, float], threshold: float) -> None:
    advice = judged(WORDS, headline("x"), chances, threshold)
    down, _, up = advice.probabilities
    assert advice.score == pytest.approx(up - down)
    assert advice.confidence == max(advice.probabilities)
    if advice.action == HOLD:
        assert max(up, down) < threshold or up == down
    else:
        assert max(up, down) >= threshold
        assert (advice.action == BUY_SIGNAL) == (up > down)


@pytest.mark.parametrize("chances", [(0.0, 0.0, 0.0), (math.nan, 0.5, 0.5), (-0.1, 0.6, 0.5), (math.inf, 0.0, 0.0)])
def test_what_is_no_probability_is_refused(chances: tuple[float, float, float]) -> None:
    with pytest.raises(AdvisorError, match="want three probabilities"):
        judged(WORDS, headline("x"), chances, 0.5)


def test_an_impossible_answer_cannot_be_made() -> None:
    good = hold(WORDS, headline("x"), "no reason")
    values = {name: getattr(good, name) for name in Advice.__dataclass_fields__}
    for wrong in (
        {"action": "BUY"},
        {"score": 1.5},
        {"score": math.nan},
        {"confidence": -0.1},
        {"probabilities": (0.5, 0.5, 0.5)},
    ):
        with pytest.raises(ValueError, match=r"must|want"):
            Advice(**{**values, **wrong})
    assert (good.score, good.confidence) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("Acme profit rises", BUY_SIGNAL),
        ("Acme shares plunge", SELL_SIGNAL),
        ("Analysts are no longer bullish on Acme", SELL_SIGNAL),
        ("Acme avoids no crash", HOLD),
        ("Bullishness index of Acmebullish Ltd", HOLD),  # words, not parts of words
        ("Acme rises, then falls", HOLD),
        ("", HOLD),
    ],
)
def test_the_lexicon_knows_negation_and_whole_words(text: str, action: str) -> None:
    assert WORDS.advise([headline(text)])[0].action == action


def test_a_negation_reaches_three_words_within_its_clause() -> None:
    assert counts("not a strong gain here") == (2, 0)
    assert counts("no deal. Profit gains") == (0, 1)
    assert counts("not one two three gains") == (0, 1)


def test_names_and_figures_are_made_alike() -> None:
    assert alike("$ACME +18.5% https://t.co/x") == " $t +0% "
    small = NgramConfig(buckets_log2=12)
    for one, other in zip(buckets("$ACME up 5%", small), buckets("$XYZ  up 17.25%", small), strict=True):
        assert np.array_equal(one, other)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=700))
def test_every_text_has_buckets_within_the_table(text: str) -> None:
    config = NgramConfig(buckets_log2=10)
    for found in buckets(text, config):
        assert ((found >= 0) & (found < 1024)).all()
        assert len(np.unique(found)) == len(found)


def test_a_word_has_its_bucket_wherever_it_stands() -> None:
    config = NgramConfig(words_max=1)
    alone = buckets("plunges", config)[1]
    assert len(alone) == 1
    assert alone[0] in buckets("the stock of Acme plunges today", config)[1]


def test_buckets_are_the_same_on_every_machine() -> None:
    pieces, words = buckets("Acme soars", NgramConfig())
    assert words.tolist() == [75749, 95199, 124742]
    assert (len(pieces), int(pieces.sum())) == (38, 2360673)


def test_the_shipped_head_reads_headlines() -> None:
    head = Head()
    told = [
        "Acme shares plunge after profit warning",
        "Acme upgraded to buy from neutral",
        "Acme publishes the agenda of its annual meeting",
    ]
    answers = head.advise([headline(text) for text in told])
    assert [advice.action for advice in answers] == [SELL_SIGNAL, BUY_SIGNAL, HOLD]
    assert all(advice.model_id == f"head-{head.manifest.digest[:12]}" for advice in answers)
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 1_000_000


def test_the_head_takes_no_more_than_a_millisecond_of_a_processor_a_headline() -> None:
    head = Head()
    batch = [
        headline(f"Acme number {i} raises its outlook after a strong quarter in Europe and Asia") for i in range(200)
    ]
    head.advise(batch)
    best = min(_seconds(head, batch) for _ in range(5))
    assert best / len(batch) < 1e-3


def _seconds(head: Head, batch: list[Headline]) -> float:
    start = time.process_time()  # of this process alone: others may be at work
    head.advise(batch)
    return time.process_time() - start


def test_the_head_gives_each_headline_alone_what_it_gives_it_among_others() -> None:
    head = Head()
    batch = [headline("Acme soars"), headline(""), headline("Acme \x00 falls"), headline("Acme soars")]
    assert head.advise(batch) == [head.advise([one])[0] for one in batch]
    assert head.advise([]) == []


def test_a_head_of_another_advisor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdvisorError, match="want a checkpoint folder"):
        Head(tmp_path / "none")
    demo = SHIPPED.parent / "demo"
    with pytest.raises(AdvisorError, match="want a checkpoint for the advisor head"):
        Head(demo)


def test_recorded_answers_come_again_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    recorder = Recorder(Lexicon(), path)
    batch = [headline("Acme rises"), headline("Acme falls"), headline("Acme rises", "OTHER")]
    answers = recorder.advise(batch)

    replay = Replay(path)

    assert replay.advise(batch) == answers
    assert replay.advise(list(reversed(batch))) == list(reversed(answers))
    assert (replay.model_id, replay.prompt_id) == (Lexicon.model_id, "")


def test_an_answer_that_cannot_be_written_down_is_not_given(tmp_path: Path) -> None:
    with pytest.raises(AdvisorError, match="cannot be written: Is a directory"):
        Recorder(Lexicon(), tmp_path).advise([headline("Acme rises")])


@pytest.mark.parametrize("text", ["", " \x00", "https://t.co/x"])
@pytest.mark.parametrize("make", [Lexicon, Head])
def test_where_there_is_nothing_to_read_nothing_is_believed(make: type[Lexicon] | type[Head], text: str) -> None:
    (advice,) = make().advise([headline(text)])
    assert (advice.action, advice.confidence, advice.reason) == (HOLD, 0.0, "there is nothing to read")


def test_the_lexicon_reads_what_a_person_sees() -> None:
    (advice,) = WORDS.advise([headline("Acme<b> ri</b>\u00adses &#114;ises https://x.y/crash")])
    assert advice.action == BUY_SIGNAL


def test_a_headline_that_was_not_recorded_raises(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    Recorder(Lexicon(), path).advise([headline("Acme rises")])
    for other in (headline("Acme falls"), headline("Acme rises", "OTHER")):
        with pytest.raises(AdvisorError, match="has no answer"):
            Replay(path).advise([other])


@pytest.mark.parametrize("damage", ["half", "number", "huge", "action", "list", "empty", "missing"])
def test_a_damaged_recording_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "answers.jsonl"
    Recorder(Lexicon(), path).advise([headline("Acme rises")])
    text = path.read_text()
    changed = {
        "half": text[: len(text) // 2],
        "number": text.replace('"reason": "', '"reason": 1, "x": "'),
        "huge": re.sub(r"\[[0-9.]+", "[1" + "0" * 400, text),
        "action": text.replace(BUY_SIGNAL, "BUY"),
        "list": "[]\n",
        "empty": "",
    }
    if damage == "missing":
        path.unlink()
    else:
        path.write_text(changed[damage])
    with pytest.raises(AdvisorError, match="answer"):
        Replay(path)


def test_the_three_words_are_the_only_answers() -> None:
    assert ACTIONS == ("BUY_SIGNAL", "SELL_SIGNAL", "HOLD")
