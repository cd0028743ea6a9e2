"""What a failed request means: a stable code, and whether the order may be there all the same."""

import aiohttp
import ccxt
import pytest

from brokers.venue_errors import trouble
from feeds.exchange import ExchangeConfig

AT = ExchangeConfig(url="http://127.0.0.1:1", key_env="TEST_KEY", secret_env="TEST_SECRET")


@pytest.mark.parametrize(
    ("error", "code", "certain"),
    [
        (ccxt.InsufficientFunds('binance {"code":-2010,"msg":"insufficient balance"}'), "insufficient_funds", True),
        (ccxt.BadRequest('binance {"code":-1013,"msg":"Filter failure: NOTIONAL"}'), "filter", True),
        (ccxt.InvalidOrder("binance order amount should be evenly divisible by lot size {}"), "filter", True),
        (ccxt.DDoSProtection('binance 429 {"code":-1003,"msg":"Too much weight"}'), "rate_limit", True),
        (ccxt.RateLimitExceeded('binance {"code":-1015,"msg":"Too many new orders."}'), "rate_limit", True),
        (ccxt.OrderNotFound('binance {"code":-2011,"msg":"Unknown order sent."}'), "unknown_order", True),
        (ccxt.AuthenticationError('binance {"code":-1022,"msg":"Signature is not valid."}'), "auth", True),
        (ccxt.InvalidNonce('binance {"code":-1021,"msg":"Timestamp is outside of the recvWindow."}'), "clock", True),
        (ccxt.BadSymbol("binance does not have market symbol X/Y"), "bad_symbol", True),
        (ccxt.OperationRejected('binance {"code":-2010,"msg":"This symbol is not permitted."}'), "rejected", True),
        # From here on the order may be at the venue.
        (ccxt.InvalidOrder('binance {"code":-2010,"msg":"Duplicate order sent."}'), "duplicate_id", False),
        (ccxt.DuplicateOrderId("the id was used"), "duplicate_id", False),
        (ccxt.RequestTimeout("binance POST http://127.0.0.1:1/api/v3/order"), "no_answer", False),
        (ccxt.ExchangeNotAvailable("binance 503 Service Unavailable"), "no_answer", False),
        (ccxt.OperationFailed('binance {"code":-1006,"msg":"Execution status unknown."}'), "no_answer", False),
        (ccxt.NullResponse("binance returned empty response"), "no_answer", False),
        (KeyError("orderId"), "no_answer", False),
    ],
)  # fmt: skip
def test_each_failure_has_one_code(error: Exception, code: str, certain: bool) -> None:
    what = trouble(error, AT)
    assert (what.code, what.certain) == (code, certain)
    assert what.reason
    assert "\n" not in what.reason


def _raised(outer: Exception, inner: BaseException) -> Exception:
    try:
        raise outer from inner
    except Exception as error:
        return error


def test_what_was_never_connected_was_never_sent() -> None:
    refused = aiohttp.ClientConnectorError(None, OSError(111, "refused"))  # type: ignore[arg-type]
    what = trouble(_raised(ccxt.ExchangeNotAvailable("binance POST http://127.0.0.1:1/api/v3/order"), refused), AT)
    assert (what.code, what.certain) == ("venue_down", True)
    assert what.reason == "POST http://127.0.0.1:1/api/v3/order (refused)"  # it is not Binance that refused


def test_an_answer_that_was_cut_is_no_refusal() -> None:
    # ccxt makes an ExchangeError of it, which is what a refusal is too.
    cut = aiohttp.ClientPayloadError("response payload is not completed")
    what = trouble(_raised(ccxt.ExchangeError("binance POST http://127.0.0.1:1/api/v3/order"), cut), AT)
    assert (what.code, what.certain) == ("no_answer", False)


def test_the_venues_words_come_without_queries_and_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SECRET", "hunter2-hunter2")
    error = ccxt.RequestTimeout(
        "binance GET https://api/v3/order?symbol=BTCUSDT&signature=abcdef hunter2-hunter2\n  twice"
    )
    reason = trouble(error, AT).reason
    assert reason == "GET https://api/v3/order *** twice (no answer in time)"


def test_only_a_rate_limit_asks_to_wait() -> None:
    assert trouble(ccxt.DDoSProtection("429"), AT, wait_s=7.0).wait_s == 7.0
    assert trouble(ccxt.InsufficientFunds("no"), AT, wait_s=7.0).wait_s == 0.0
