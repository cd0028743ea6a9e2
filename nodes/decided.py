"""What a fill of a real venue cost against the price at which it was decided."""

from collections import OrderedDict

import csp
from csp import ts

from brokers.events import Fill, OrderRequest

_KEPT = 65_536  # orders whose price is remembered; an older one that fills has none


@csp.node
def decided(fill: ts[Fill], order: ts[OrderRequest], closes: dict[str, ts[float]]) -> ts[Fill]:
    """Write the last price of when its order was sent into every fill; a venue does not know it.

    Args:
        fill: as the venue tells it, with a decision price of 0.0.
        order: as sent.
        closes: last price by symbol, quote currency; passive.

    Ticks:
        With every fill.
    """
    with csp.state():
        s_prices: OrderedDict[str, float] = OrderedDict()
    with csp.start():
        csp.make_passive(closes)

    if csp.ticked(order) and csp.valid(closes[order.symbol]):
        s_prices[order.order_id] = closes[order.symbol]
        if len(s_prices) > _KEPT:
            s_prices.popitem(last=False)
    if csp.ticked(fill):
        told = fill.copy()
        told.decision_price = s_prices.get(fill.order_id, 0.0)
        return told
