"""An advisor behind the seam: what was answered is not asked again, and a failure is one of all that were asked."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from threading import Event, Lock

import pytest
from support import T0

from models.advisor.advice import LEARNT_NOTHING, Advice, AdvisorError, Headline, hold, judged
from models.advisor.lexicon import Lexicon
from models.advisor.replay import key_of
from nodes.advise import HeadlineRequest
from nodes.advisor_model import AdvisorModel
from nodes.events import AdviceAction


class Counting:
    """A real judgement on made-up probabilities, and a count of who asked."""

    backend, model_id, prompt_id, learnt_until = "counting", "m", "p", LEARNT_NOTHING

    def __init__(self) -> None:
        self.asked: list[Headline] = []
        self.silent = False
        self.closed = 0

    def advise(self, batch: Sequence[Headline]) -> list[Advice]:
        self.asked += batch
        if any("broken" in headline.text for headline in batch):
            raise AdvisorError("broken")
        if self.silent:
            return [hold(self, headline, "busy") for headline in batch]
        return [judged(self, headline, (0.05, 0.05, 0.9), 0.8) for headline in batch]

    def close(self) -> None:
        self.closed += 1


def request(key: str, text: str, symbol: str = "S", published: datetime = T0) -> HeadlineRequest:
    return HeadlineRequest(key=key, asof=T0, text=text, symbol=symbol, published=published, source="wire", item_id=key)


def test_the_shipped_lexicon_answers_under_the_keys_of_the_requests() -> None:
    model = AdvisorModel(Lexicon)

    up, down = model.predict([request("1", "Shares surge on record profit"), request("2", "Shares plunge on fraud")])

    assert (up.symbol, up.action, up.backend, up.asof) == ("1", AdviceAction.BUY_SIGNAL, "lexicon", T0)
    assert (down.symbol, down.action) == ("2", AdviceAction.SELL_SIGNAL)
    assert up.input_hash == key_of(
        Headline(text="Shares surge on record profit", symbol="S"), up.model_id, up.prompt_id
    )


def test_the_same_question_is_asked_once_in_a_batch_and_later() -> None:
    advisor = Counting()
    model = AdvisorModel(lambda: advisor)

    first = model.predict([request("1", "a"), request("2", "a"), request("3", "a", symbol="T")])
    again = model.predict([request("4", "a")])

    assert [h.symbol for h in advisor.asked] == ["S", "T"]
    assert [a.symbol for a in (*first, *again)] == ["1", "2", "3", "4"]
    assert len({a.input_hash for a in first}) == 2


def test_what_could_not_be_answered_is_asked_again() -> None:
    advisor = Counting()
    model = AdvisorModel(lambda: advisor)
    advisor.silent = True
    model.predict([request("1", "a")])
    advisor.silent = False

    assert model.predict([request("2", "a")])[0].action is AdviceAction.BUY_SIGNAL
    assert len(advisor.asked) == 2


def test_memory_has_an_end() -> None:
    advisor = Counting()
    model = AdvisorModel(lambda: advisor)
    model.predict([request(str(n), str(n)) for n in range(4_097)])
    before = len(advisor.asked)

    model.predict([request("last", "4096"), request("first", "0")])

    assert [h.text for h in advisor.asked[before:]] == ["0"]


def test_a_failure_is_raised_and_nothing_of_it_is_remembered() -> None:
    advisor = Counting()
    model = AdvisorModel(lambda: advisor)

    with pytest.raises(AdvisorError, match="broken"):
        model.predict([request("1", "a"), request("2", "broken")])
    assert model.predict([request("3", "a")])[0].symbol == "3"
    assert [h.text for h in advisor.asked] == ["a", "broken", "a"]


def test_threads_that_share_one_are_answered_in_turn() -> None:
    within, overlaps = Lock(), []

    class Alone(Counting):
        def advise(self, batch: Sequence[Headline]) -> list[Advice]:
            if not within.acquire(blocking=False):
                overlaps.append(batch)
                return super().advise(batch)
            try:
                together.wait(0.2)  # as long as another would need to come in
                return super().advise(batch)
            finally:
                within.release()

    together = Event()
    model = AdvisorModel(Alone)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: model.predict([request(str(n), str(n))]), range(4)))

    assert [answer.symbol for (answer,) in answers] == ["0", "1", "2", "3"]
    assert overlaps == []


def test_it_is_made_when_first_asked_and_kept_when_it_was_closed() -> None:
    made: list[Counting] = []

    def make() -> Counting:
        made.append(Counting())
        return made[-1]

    model = AdvisorModel(make)
    model.close()
    assert made == []
    model.predict([request("1", "a")])
    model.close()
    model.predict([request("2", "b")])

    assert [advisor.closed for advisor in made] == [1]
