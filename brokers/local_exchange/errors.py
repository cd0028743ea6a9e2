"""What the exchange answers to a request that it will not carry out: Binance's codes and sentences.

Source: Binance spot API, "Error codes".
"""


class ApiError(Exception):
    """A refusal, as it goes over the wire.

    Args:
        code: Binance's, negative.
        message: Binance's sentence.
        status: of the HTTP answer.
        retry_after_s: what it says of when to come back, if anything.
    """

    def __init__(self, code: int, message: str, status: int = 400, retry_after_s: int | None = None) -> None:
        super().__init__(f"{code} {message}")
        self.code, self.message, self.status, self.retry_after_s = code, message, status, retry_after_s

    def body(self) -> dict[str, object]:
        """The answer's JSON."""
        return {"code": self.code, "msg": self.message}


def filter_failure(name: str) -> ApiError:
    """An order that breaks a rule of its symbol, such as LOT_SIZE."""
    return ApiError(-1013, f"Filter failure: {name}")


def missing(name: str) -> ApiError:
    return ApiError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def illegal(name: str, legal: str) -> ApiError:
    return ApiError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")


def unknown_symbol() -> ApiError:
    return ApiError(-1121, "Invalid symbol.")


def insufficient_balance() -> ApiError:
    return ApiError(-2010, "Account has insufficient balance for requested action.")


def unknown_order() -> ApiError:
    """A cancel of an order that does not work."""
    return ApiError(-2011, "Unknown order sent.")


def no_such_order() -> ApiError:
    """A question about an order that never was."""
    return ApiError(-2013, "Order does not exist.")
