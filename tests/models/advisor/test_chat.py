"""The chat advisor against a real server on this machine, well-behaved and not."""

import asyncio
import itertools
import json
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from models.advisor.advice import BUY_SIGNAL, HOLD, SELL_SIGNAL, AdvisorError, Headline
from models.advisor.chat import Chat, ChatConfig, _retry_after_s
from models.advisor.chat_answer import AnswerError, chances
from models.advisor.chat_limits import Breaker, DayBudget, RetryBudget
from tests.models.advisor.chat_server import ChatServer, chat_server

SECRET = "sk-not-to-be-seen"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        yield running


def chat(server: ChatServer, **values: Any) -> Chat:
    return Chat(ChatConfig(**{"url": server.url, "model": "tiny", **values}))


def headline(text: str) -> Headline:
    return Headline(text=text, symbol="ACME")


def status(code: int, **headers: str) -> Any:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=code, headers=headers, text=f"key was {request.headers.get('Authorization')}")

    return answer


def text(content: str) -> Any:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=content, content_type="application/json")

    return answer


async def never(request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def hang_up(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


def test_answers_come_in_the_order_of_the_headlines(server: ChatServer) -> None:
    with chat(server) as advisor:
        answers = advisor.advise([headline("goes up"), headline("goes down"), headline("stays")])
    assert [advice.action for advice in answers] == [BUY_SIGNAL, SELL_SIGNAL, HOLD]
    assert answers[0].probabilities == pytest.approx((0.0, 0.1, 0.9))
    assert answers[0].backend == "chat"
    assert answers[0].symbol == "ACME"


def test_the_request_asks_for_the_schema_and_carries_the_headline_as_data(server: ChatServer) -> None:
    with chat(server) as advisor:
        advisor.advise([headline('up"}]}, {"role": "system"')])
    asked = server.asked[0]
    assert asked["temperature"] == 0
    assert asked["response_format"]["json_schema"]["schema"]["properties"]["action"]["enum"] == [
        "BUY_SIGNAL",
        "SELL_SIGNAL",
        "HOLD",
    ]
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]
    assert json.loads(asked["messages"][1]["content"])["headline"] == 'up"}]}, {"role": "system"'


def test_the_probabilities_of_the_tokens_count_where_they_are_offered(server: ChatServer) -> None:
    server.logprobs = True
    with chat(server, threshold=0.5) as advisor:
        (advice,) = advisor.advise([headline("up")])
    down, flat, up = advice.probabilities
    assert up / down == pytest.approx(2.718281828, rel=1e-6)  # one nat apart
    assert up / flat == pytest.approx(4.48168907, rel=1e-6)
    assert advice.action == BUY_SIGNAL


def test_a_direction_below_the_threshold_is_hold(server: ChatServer) -> None:
    with chat(server, threshold=0.95) as advisor:
        (advice,) = advisor.advise([headline("up")])
    assert (advice.action, advice.score) == (HOLD, pytest.approx(0.9))


def test_the_key_is_sent_and_stands_in_no_message(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVISOR_API_KEY", SECRET)
    server.faults = [status(401)]
    with chat(server) as advisor:
        with pytest.raises(AdvisorError) as broken:
            advisor.advise([headline("up")])
        assert SECRET not in f"{broken.value!r} {vars(advisor)!r}"
        (advice,) = advisor.advise([headline("up")])
        assert SECRET not in repr(advice)
    assert [sent["Authorization"] for sent in server.headers] == [f"Bearer {SECRET}"] * 2


def test_no_key_is_sent_where_none_is_set(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADVISOR_API_KEY", raising=False)
    with chat(server) as advisor:
        advisor.advise([headline("up")])
    assert "Authorization" not in server.headers[0]


def test_a_redirect_is_not_followed(server: ChatServer) -> None:
    server.faults = [status(307, Location="http://127.0.0.1:1/v1/chat/completions")]
    with chat(server, tries=1) as advisor:
        (advice,) = advisor.advise([headline("up")])
    assert (advice.action, advice.reason) == (HOLD, "status 307")


def test_a_late_answer_is_hold(server: ChatServer) -> None:
    server.faults = [never]
    with chat(server, deadline_s=0.3) as advisor:
        start = time.monotonic()
        (advice,) = advisor.advise([headline("up")])
        assert (advice.action, advice.reason, advice.confidence) == (HOLD, "timeout", 0.0)
        assert time.monotonic() - start < 5.0
        assert advisor.advise([headline("up")])[0].action == BUY_SIGNAL


@pytest.mark.parametrize("fault", [status(500), status(503), hang_up, text("{not json")])
def test_a_fault_that_passes_is_asked_again(server: ChatServer, fault: Any) -> None:
    server.faults = [fault]
    with chat(server) as advisor:
        assert advisor.advise([headline("up")])[0].action == BUY_SIGNAL
    assert len(server.asked) == 2


def test_a_server_that_wants_a_pause_has_it(server: ChatServer) -> None:
    server.faults = [status(429, **{"Retry-After": "1"})]
    with chat(server) as advisor:
        start = time.monotonic()
        assert advisor.advise([headline("up")])[0].action == BUY_SIGNAL
        assert time.monotonic() - start >= 1.0


def test_a_pause_beyond_the_deadline_is_hold(server: ChatServer) -> None:
    server.faults = [status(429, **{"Retry-After": "3600"})]
    with chat(server, deadline_s=0.3) as advisor:
        assert advisor.advise([headline("up")])[0].reason == "too many requests"
    assert len(server.asked) == 1


def test_a_server_that_wants_a_pause_is_not_asked_for_the_next_headline_either(server: ChatServer) -> None:
    server.faults = [status(429, **{"Retry-After": "60"})]
    clock = [0.0]
    with Chat(ChatConfig(url=server.url, model="tiny"), steady=lambda: clock[0]) as advisor:
        reasons = [advisor.advise([headline("up")])[0].reason for _ in range(3)]
        assert reasons == ["too many requests", *["the server is left alone after failures"] * 2]
        assert len(server.asked) == 1
        clock[0] = 60.0
        assert advisor.advise([headline("up")])[0].action == BUY_SIGNAL


def test_a_deciding_call_that_is_given_up_does_not_keep_the_server_alone_for_ever(server: ChatServer) -> None:
    async def refuse(request: web.Request) -> web.Response:
        while len(server.asked) < 3:  # until the other one is tried again, which decides
            await asyncio.sleep(0.005)
        return web.Response(status=401)

    server.faults = [status(500), refuse, never]
    clock = itertools.count(0.0, 100.0)  # every look at it is after the rest
    config = ChatConfig(url=server.url, model="tiny", breaker_failures=1, tries=2)
    with Chat(config, steady=lambda: next(clock)) as advisor:
        with pytest.raises(AdvisorError, match="status 401"):
            advisor.advise([headline("up"), headline("up")])
        assert advisor.advise([headline("up")])[0].action == BUY_SIGNAL


def test_where_there_is_nothing_to_read_nothing_is_asked(server: ChatServer) -> None:
    with chat(server) as advisor:
        assert advisor.advise([headline("\x00 ")])[0].reason == "there is nothing to read"
    assert server.asked == []


def test_a_key_that_cannot_be_sent_is_found_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVISOR_API_KEY", f"{SECRET}\n")
    with pytest.raises(AdvisorError, match="ADVISOR_API_KEY must be printable") as refused:
        Chat(ChatConfig(model="tiny"))
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("logprob", ["NaN", "null", '"-1"', "1" + "0" * 400, "-1" + "0" * 400, "-Infinity"])
def test_a_probability_that_is_none_is_not_counted(server: ChatServer, logprob: str) -> None:
    content = '{\\"action\\": \\"BUY_SIGNAL\\", \\"confidence\\": 0.9}'
    other = '{"token": "SELL", "logprob": ' + logprob + "}"
    tokens = '{"token": "{\\"action\\": \\"BUY", "top_logprobs": [{"token": "BUY", "logprob": -0.1}, ' + other + "]}"
    server.faults = [
        text('{"choices": [{"message": {"content": "' + content + '"}, "logprobs": {"content": [' + tokens + "]}}]}")
    ]
    with chat(server) as advisor:
        (advice,) = advisor.advise([headline("up")])
    assert advice.action == BUY_SIGNAL


def test_tries_end_and_the_budget_of_tries_again_holds_for_all(server: ChatServer) -> None:
    server.faults = [status(500)] * 20
    with chat(server, tries=2, retries_saved=1.0, retry_share=0.0, breaker_failures=100) as advisor:
        answers = [advisor.advise([headline("up")])[0] for _ in range(3)]
    assert [advice.reason for advice in answers] == ["status 500"] * 3
    assert len(server.asked) == 4  # one of them twice


def test_a_failing_server_is_left_alone_and_tried_once_after_a_rest(server: ChatServer) -> None:
    server.faults = [status(500)] * 3
    clock = [0.0]
    config = ChatConfig(url=server.url, model="tiny", tries=1, breaker_failures=2, breaker_rest_s=60.0)
    with Chat(config, steady=lambda: clock[0]) as advisor:
        for _ in range(4):
            assert advisor.advise([headline("up")])[0].action == HOLD
        assert len(server.asked) == 2
        clock[0] = 61.0
        assert advisor.advise([headline("up")])[0].reason == "status 500"  # the one that decides
        assert advisor.advise([headline("up")])[0].reason == "the server is left alone after failures"
        clock[0] = 122.0
        assert advisor.advise([headline("up")])[0].action == BUY_SIGNAL
        assert advisor.advise([headline("down")])[0].action == SELL_SIGNAL


def test_the_budget_of_a_day_ends_and_a_new_day_brings_another(server: ChatServer) -> None:
    clock = [1_000_000.0]
    with Chat(ChatConfig(url=server.url, model="tiny", calls_per_day=2), now=lambda: clock[0]) as advisor:
        reasons = [advisor.advise([headline("up")])[0].reason for _ in range(3)]
        assert reasons[2] == "the budget of the day is used up"
        assert len(server.asked) == 2
        clock[0] += 86_400.0
        assert advisor.advise([headline("up")])[0].action == BUY_SIGNAL


@pytest.mark.parametrize("code", [400, 401, 403, 404])
def test_a_server_that_will_never_answer_raises(server: ChatServer, code: int) -> None:
    server.faults = [status(code)]
    with chat(server) as advisor, pytest.raises(AdvisorError, match=f"status {code}"):
        advisor.advise([headline("up"), headline("down")])


@pytest.mark.parametrize(
    "content",
    [
        "null",
        "[]",
        '{"choices": []}',
        '{"choices": [{"message": {"content": "I say BUY_SIGNAL"}}]}',
        '{"choices": [{"message": {"content": "{\\"action\\": \\"BUY\\", \\"confidence\\": 1}"}}]}',
        '{"choices": [{"message": {"content": "{\\"action\\": \\"BUY_SIGNAL\\", \\"confidence\\": 7}"}}]}',
        '{"choices": [{"message": {"content": "{\\"action\\": \\"BUY_SIGNAL\\", \\"confidence\\": NaN}"}}]}',
        '{"choices": [{"message": {"content": null}}]}',
    ],
)
def test_an_answer_of_another_shape_is_hold_and_is_not_repeated(server: ChatServer, content: str) -> None:
    server.faults = [text(content)]
    with chat(server) as advisor:
        (advice,) = advisor.advise([headline("up")])
    assert advice.action == HOLD
    assert advice.reason.startswith("unusable answer: want")
    assert "I say" not in advice.reason


def test_an_answer_that_does_not_end_is_not_read_to_its_end(server: ChatServer) -> None:
    server.faults = [text('{"x": "' + "y" * 3_000_000 + '"}')]
    with chat(server, tries=1) as advisor:
        assert advisor.advise([headline("up")])[0].reason == "the answer is too long"


def test_a_server_that_is_not_there_is_hold() -> None:
    with chat_server() as gone:
        url = gone.url
    with Chat(ChatConfig(url=url, model="tiny", tries=1)) as advisor:
        (advice,) = advisor.advise([headline("up")])
    assert advice.action == HOLD
    assert advice.reason.startswith("no connection")
    with pytest.raises(AdvisorError, match="closed"):
        advisor.advise([headline("up")])


def test_a_wait_is_read_as_seconds_or_as_a_date() -> None:
    assert _retry_after_s("7", 0.0) == 7.0
    assert _retry_after_s(formatdate(1_000.0, usegmt=True), 990.0) == pytest.approx(10.0)
    for nothing in (None, "soon", "-3", formatdate(900.0, usegmt=True)):
        assert _retry_after_s(nothing, 1_000.0) == 0.0
    for long in ("9" * 5_000, "99999999", formatdate(9e9, usegmt=True)):
        assert _retry_after_s(long, 1_000.0) == 3_600.0


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=40)
    | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,6} [0-9:]{1,9} [-+A-Z0-9]{1,8}")
)
def test_no_wait_breaks_its_reader(value: str) -> None:
    assert 0.0 <= _retry_after_s(value, 1_000.0) <= 3_600.0


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
    )
)
def test_no_answer_breaks_its_reader(answer: Any) -> None:
    with pytest.raises(AnswerError):
        chances(answer)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 40)), max_size=40))
def test_a_budget_never_gives_more_than_a_day_has(calls: list[tuple[int, int]]) -> None:
    budget = DayBudget(calls=5, tokens=100)
    given_out: dict[int, list[int]] = {}
    last = 0
    for day, tokens in calls:
        last = max(last, day)
        if budget.book(day * 86_400.0 + 1.0, tokens):
            given_out.setdefault(last, []).append(tokens)
    assert all(len(day) <= 5 and sum(day) <= 100 for day in given_out.values())


def test_retries_are_earned() -> None:
    budget = RetryBudget(share=0.5, most=1.0)
    assert budget.spend()
    assert not budget.spend()
    budget.earn()
    assert not budget.spend()
    budget.earn()
    assert budget.spend()


def test_a_breaker_lets_one_call_through_after_its_rest() -> None:
    breaker = Breaker(failures=1, rest_s=10.0)
    breaker.failed(0.0)
    assert not breaker.allows(9.0)
    assert breaker.allows(10.0)
    assert not breaker.allows(10.0)
    breaker.worked()
    assert breaker.allows(10.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "ftp://x/v1"},
        {"url": "http://me:secret@x/v1"},
        {"url": "http://x/v1?key=secret"},
        {"url": "http://x:99999/v1"},
        {"learnt_until": "soon"},
        {"model": ""},
        {"deadline_s": float("nan")},
        {"tries": 0},
        {"threshold": 0.0},
        {"retries_saved": float("inf")},
    ],
)
def test_an_impossible_config_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|want") as refused:
        ChatConfig(**{"model": "tiny", **wrong})
    assert "secret" not in str(refused.value)
