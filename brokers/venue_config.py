"""What an account's owner says about the venue that takes the orders."""

import math
from dataclasses import dataclass, field

from brokers.venue_ids import VENUES
from feeds.exchange import ExchangeConfig

_POLICIES = ("cancel", "keep")
_FOUND = ("cancel", "adopt")


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueConfig:
    """Where orders go, and what becomes of them when a run begins and ends."""

    at: ExchangeConfig = field(default_factory=ExchangeConfig)
    on_stop: str = "cancel"  # "cancel" or "keep" what works
    working: str = "adopt"  # "adopt" or "cancel" orders of the journal that still work at a start
    strays: str = "cancel"  # "cancel" or "adopt" orders with our client id that the journal does not know
    ack_timeout_s: float = 5.0  # until an order that was not answered counts as unknown
    poll_s: float = 5.0  # between polls, while there is something to hear of
    recv_window_ms: int = 5_000  # for which the venue may take a request after its time stamp
    in_flight_max: int = 50  # orders without an answer; what is more is refused, not sent late
    backoff_max_s: float = 30.0  # between tries to reach the venue
    seed: int = 0  # of the jitter between them

    def __post_init__(self) -> None:
        if self.at.exchange not in VENUES:
            raise ValueError(
                f"orders want an exchange at which ccxt can find them again by ids of ours: {', '.join(VENUES)}, was"
                f" {self.at.exchange!r}; its feeds can be traded on paper"
            )
        if self.on_stop not in _POLICIES:
            raise ValueError(f"on_stop must be one of {', '.join(_POLICIES)}, was {self.on_stop!r}")
        for name in ("working", "strays"):
            if getattr(self, name) not in _FOUND:
                raise ValueError(f"{name} must be one of {', '.join(_FOUND)}, was {getattr(self, name)!r}")
        for name in ("ack_timeout_s", "poll_s", "backoff_max_s"):
            if not 0.01 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0.01, was {getattr(self, name)}")
        if not 1 <= self.recv_window_ms <= 60_000:  # Binance's limits
            raise ValueError(f"recv_window_ms must lie in [1, 60000], was {self.recv_window_ms}")
        if self.in_flight_max < 1:
            raise ValueError(f"in_flight_max must be at least 1, was {self.in_flight_max}")
        if self.seed < 0:
            raise ValueError(f"seed must be from 0, was {self.seed}")

    @property
    def real_money(self) -> bool:
        return not (self.at.url or self.at.sandbox)
