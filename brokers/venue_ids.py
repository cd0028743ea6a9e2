"""The name that an order of ours has at a venue: made of its own id alone, so that a restart finds it again."""

import hashlib
import re

PREFIX = "tt-"  # of all our client ids; an order at the venue without it is a person's
LONGEST = 36  # characters, Binance's limit

_PLAIN = re.compile(r"[.A-Za-z0-9/_-][.A-Z:a-z0-9/_-]*")  # Binance's characters, not ":" at the start
_HASHED = ":"


def client_id(order_id: str) -> str:
    """The client id of an order. Different orders have different ones, the same order always the same.

    An id that is too long, or has other characters than Binance takes, is hashed: `:` and 128 bits of SHA-256, which no
    id that is taken as it is begins with.

    Raises:
        ValueError: `order_id` is empty.

    Source: Binance Spot API, "newClientOrderId", ^[.A-Z:/a-z0-9_-]{1,36}$.
    """
    if not order_id:
        raise ValueError("an order needs an id, was ''")
    if len(PREFIX) + len(order_id) <= LONGEST and _PLAIN.fullmatch(order_id):
        return PREFIX + order_id
    return PREFIX + _HASHED + hashlib.sha256(order_id.encode()).hexdigest()[:32]


def is_ours(client: str) -> bool:
    """Whether a client id is one that `client_id` made."""
    return client.startswith(PREFIX)
