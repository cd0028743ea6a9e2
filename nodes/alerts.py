"""Alerts on price."""

import math
from dataclasses import dataclass

import csp
from csp import ts

from nodes.events import Alert, AlertLevel


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceAlertConfig:
    """When a price move is worth a person's eye."""

    change_min: float = 0.05  # fraction, since the last alert

    def __post_init__(self) -> None:
        if not 0.0 < self.change_min < math.inf:
            raise ValueError(f"change_min must be positive and finite, was {self.change_min}")


@csp.node
def price_change_alert(price: ts[float], symbol: str, config: PriceAlertConfig) -> ts[Alert]:
    """Alert when the price has moved by `change_min` since the last alert: ALERT up, WARNING down.

    Args:
        price: last price, quote currency, positive.

    Ticks:
        On the price that reaches the threshold; that price is the new base. The first price is the first base.

    Raises:
        ValueError: `price` is not a positive number.
    """
    with csp.state():
        s_base = 0.0

    if csp.ticked(price):
        if not 0.0 < price < math.inf:
            raise ValueError(f"price of {symbol} must be positive and finite, was {price} at {csp.now()}")
        change = price / s_base - 1.0 if s_base else 0.0
        if s_base == 0.0:
            s_base = price
        elif abs(change) >= config.change_min:
            s_base = price
            return Alert(
                level=AlertLevel.ALERT if change > 0 else AlertLevel.WARNING,
                source="price_change",
                symbol=symbol,
                message=f"{symbol} moved {change:+.2%} to {price:g}",
                value=change,
            )
