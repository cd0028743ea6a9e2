"""The venue as edges of a graph that runs in realtime."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import csp
import pytest
from csp import ts
from exchange_process import KEY, SECRET, exchange_thread

from brokers.events import Fill, OrderRequest, OrderState, OrderType, OrderUpdate
from brokers.journal import Journal
from brokers.venue import OUTPUTS, VenueService
from feeds.clock import utc_now
from feeds.events import FeedStatus, Side
from feeds.loop import LoopAdapter
from tests.brokers.venue_account import BTC, KEY_ENV, LOCAL, SECRET_ENV, SYMBOL, config, market, truth

_FILLED = OrderState.FILLED


@csp.node
def _trade(status: ts[FeedStatus], update: ts[OrderUpdate]) -> ts[OrderRequest]:
    """Buys once the venue is there, and stops the engine when it has."""
    if csp.ticked(update) and update.state is _FILLED:
        csp.stop_engine()
    if csp.ticked(status) and status.symbol == "":
        return OrderRequest(
            order_id="g1-1", symbol="BTC/USDT", side=Side.BUY, order_type=OrderType.MARKET, quantity=0.01
        )


def test_an_order_of_a_graph_comes_back_as_a_fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setenv(SECRET_ENV, SECRET)
    journal = tmp_path / "journal.db"

    def graph(url: str) -> None:
        service = VenueService(config(url), (BTC,), journal)
        venue = LoopAdapter("venue", service, OUTPUTS)
        update = csp.feedback(OrderUpdate)
        order = _trade(venue.edge("status"), update.out())
        venue.send("order", order)
        update.bind(venue.edge("updates"))
        csp.add_graph_output("updates", venue.edge("updates"))
        csp.add_graph_output("fills", venue.edge("fills"))

    with exchange_thread(LOCAL, tapes=market()) as running:
        with Journal(journal, durable=False) as kept:
            kept.begin_run("g1", "test")
            out: dict[str, Any] = csp.run(
                graph, running.url, starttime=utc_now(), endtime=timedelta(seconds=30), realtime=True
            )
            positions = kept.positions()
        assert truth(running).open_orders() == []
    fills: list[Fill] = [fill for _, fill in out["fills"]]
    assert sum(fill.quantity for fill in fills) == pytest.approx(0.01)
    assert out["updates"][-1][1].state is _FILLED
    assert out["fills"][-1][0] <= out["updates"][-1][0]  # no end is told before its fill
    assert float(positions[SYMBOL]) == pytest.approx(0.01 - sum(fill.base_fee for fill in fills))
