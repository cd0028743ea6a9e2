"""Plain spot orders to Binance, as ccxt would send them, without the road through its builder of requests.

ccxt weighs some forty parameters for each order, most of them of futures and margin accounts; of the time from a trade
to an order that was a third. The answer, its errors and its limits stay ccxt's.

Source: Binance Spot API, "New order" and "SIGNED endpoint security"; ccxt 4.5.90, `create_order_request` and `sign`.
"""

import hmac
from typing import Any
from urllib.parse import quote

from brokers.venue_terms import Terms

_EXCHANGES = ("binance", "binanceus")
_COST = 0.2  # of an order, as ccxt counts: 1 of the 6000 a minute


class QuickOrders:
    """The way of a client's plain orders.

    Args:
        exchange: a client of `feeds.exchange.connect` with keys.
    """

    def __init__(self, exchange: Any) -> None:
        self._exchange = exchange
        self._secret = exchange.secret.encode()
        self._speaks = exchange.id in _EXCHANGES and "PRIVATE KEY" not in exchange.secret  # those sign otherwise

    def takes(self, terms: Terms) -> bool:
        """Whether an order is plain: market or limit, spot, without a trigger."""
        return self._speaks and terms.stop_price is None and bool(self._exchange.market(terms.symbol)["spot"])

    async def place(self, terms: Terms) -> Any:
        """Send an order; return ccxt's structure of it. Raises what `create_order` raises."""
        exchange = self._exchange
        if exchange.enableRateLimit:
            await exchange.throttle(_COST)
        answer = await exchange.fetch(*self.request(terms))
        exchange.options["hasAlreadyAuthenticatedSuccessfully"] = True  # so that ccxt tells a ban from a wrong key
        return exchange.parse_order(answer, exchange.market(terms.symbol))

    def request(self, terms: Terms) -> tuple[str, str, dict[str, str], str]:
        """(address, method, headers, signed body)."""
        exchange, kind = self._exchange, terms.kind
        fields = [
            f"timestamp={exchange.nonce()}&symbol={exchange.market(terms.symbol)['id']}&side={terms.side.upper()}",
            f"newClientOrderId={quote(terms.client_id, safe='')}",
            f"newOrderRespType={exchange.options['newOrderRespType'][kind]}&quantity={terms.quantity}",
            f"recvWindow={exchange.options['recvWindow']}",
        ]
        if kind == "market":
            fields.append("type=MARKET")
        elif terms.params.get("postOnly"):
            fields.append(f"type=LIMIT_MAKER&price={terms.limit_price}")
        else:
            fields.append(f"type=LIMIT&price={terms.limit_price}&timeInForce={terms.time_in_force}")
        query = "&".join(fields)
        signature = hmac.digest(self._secret, query.encode(), "sha256").hex()
        headers = {"X-MBX-APIKEY": exchange.apiKey, "Content-Type": "application/x-www-form-urlencoded"}
        return f"{exchange.urls['api']['private']}/order", "POST", headers, f"{query}&signature={signature}"
