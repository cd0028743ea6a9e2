"""The graph among live feeds: the same for a run and for its replay."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import csp
from csp import ts

from brokers.events import Answers, CancelRequest, Fill, OrderRequest, OrderUpdate
from brokers.opening import Opening
from brokers.paper import Market, paper_venue
from brokers.venue import OUTPUTS, VenueService
from feeds.events import Bar, FeedStatus
from feeds.loop import LoopAdapter
from feeds.record import Inputs, Recorder
from feeds.streams import together
from feeds.tap import Tap
from graphs.config import TradingConfig
from graphs.edges import AccountStreams, Feeds, Venue
from graphs.live_config import LiveConfig
from graphs.live_feeds import live_feeds
from graphs.live_outcome import LiveOutcome, remember
from graphs.sinks import WATCHED, print_refusals, print_streams
from graphs.trading import Plugins, trading_system
from nodes.decided import decided
from nodes.events import Advice, Alert, RiskAction
from nodes.halts import keep_halt
from nodes.keep import keep_fills, keep_flows, keep_risk
from nodes.since import after_live, from_live, since_live
from nodes.unsent import unsent
from nodes.wind_down import CANCEL, finished, wind_down

# What trades: from the feeds and a venue to all that the account says; called as `trading_system` is, and as a rule it.
System = Callable[..., AccountStreams]

OUTCOMES: dict[str, type] = {  # what a replay is compared with
    "orders": OrderRequest,
    "updates": OrderUpdate,
    "fills": Fill,
    "risk": RiskAction,
    "alerts": Alert,
    "ai_signals": Advice,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LivePlan:
    """A live run, checked and ready: what the venue told of its instruments and account is in here."""

    config: LiveConfig
    trading: TradingConfig
    run_id: str
    start: datetime  # of the engine, naive UTC: the close of the first bar of history
    opening: Opening | None = None  # what the account starts with; None: cash alone
    plugins: Plugins = field(default_factory=dict)
    halted: bool = False  # an emergency stop of an earlier run that nobody has reset
    duration_s: float | None = None  # after which it stops by itself
    dry_run: bool = False
    live_money: bool = False  # a person has said that it may be

    @property
    def at_venue(self) -> bool:
        """Whether orders go to a real venue."""
        return self.config.orders == "venue" and not self.dry_run


@dataclass(slots=True, eq=False)  # compared by identity, so that csp can hash it
class Ends:
    """Where a live graph ends: what differs between a live run and its replay.

    Args:
        inputs: of everything that comes from outside.
        stop: makes the edge on which a person asks the run to stop; not called in a replay.
        warm: bars of history, sorted by close; not read in a replay.
        recorder: of the outcomes; None where nobody looks at them later.
        journal: of the account; "" where nothing outlives the run, and in a replay, which changes nothing outside.
        show: print the streams.
    """

    inputs: Inputs
    stop: Callable[[], Any]
    warm: tuple[Bar, ...] = ()
    recorder: Recorder | None = None
    journal: str = ""
    show: bool = True
    outcome: LiveOutcome = field(default_factory=LiveOutcome)


def live_graph(plan: LivePlan, ends: Ends, system: System = trading_system) -> None:
    """The whole graph of a live run, or of its replay.

    Args:
        system: what trades in it; one that sends orders of its own wires a `graphs.account.Account`.
    """
    config, trading, inputs = plan.config, plan.trading, ends.inputs
    asked = inputs.edge("stop", bool, ends.stop)
    tap = _venue_tap(plan, ends) if plan.at_venue else None
    status = [] if tap is None else [tap.edge("status", FeedStatus)]
    feeds = live_feeds(config, trading.instruments, inputs, ends.warm, status)
    if tap is not None:  # what is wanted before the venue can take it would be refused: an alert about nothing
        name = f"{config.venue.at.name} orders"
        feeds = replace(feeds, required={symbol: (*names, name) for symbol, names in feeds.required.items()})
    assert feeds.live is not None
    stop = asked if plan.duration_s is None else together([asked, after_live(feeds.live, plan.duration_s)])

    on_stop = config.venue.on_stop if plan.at_venue else CANCEL
    streams = system(
        feeds,
        _venue(plan, feeds, tap),
        trading,
        run_id=plan.run_id,
        plugins=plan.plugins,
        halted=plan.halted,
        opening=plan.opening,
        actions=(wind_down(stop, on_stop),),
    )

    approved, updates, fills = streams.approved, streams.updates, streams.fills
    over = finished(stop, approved, updates, fills, on_stop, config.stop_timeout_s, plan.opening)
    csp.stop_engine(over)
    watched = [name for name in WATCHED if getattr(streams, name, None) is not None]  # a system of one's own says less
    seen = replace(streams, **{name: from_live(getattr(streams, name), feeds.live) for name in (*watched, "updates")})
    remember(seen, over, ends.outcome)
    if ends.journal:
        _keep(plan, streams, feeds.live, ends.journal)
    if ends.recorder is not None:
        for name, kind in OUTCOMES.items():
            edge = getattr(streams, name, None)
            ends.recorder.record(name, kind, csp.null_ts(kind) if edge is None else edge, "outputs")
    if ends.show:
        print_streams(seen, (*watched, "approved") if plan.dry_run else tuple(watched))
        if not plan.dry_run:  # which lets every order expire
            print_refusals(seen)


def _venue_tap(plan: LivePlan, ends: Ends) -> Tap:
    config = plan.config

    def adapter() -> LoopAdapter:
        service = VenueService(config.venue, plan.trading.instruments, ends.journal, live_money=plan.live_money)
        return LoopAdapter("venue", service, OUTPUTS)

    return Tap("venue", adapter, ends.inputs)


def _venue(plan: LivePlan, feeds: Feeds, tap: Tap | None) -> Venue:
    """Where orders go: to the venue of the config, to the simulated one, or, in a dry run, nowhere."""
    instruments = plan.trading.instruments
    market = Market(bars=feeds.bars, trades=feeds.trades, quotes=feeds.quotes, depth=feeds.depth)

    def venue(order: ts[OrderRequest], cancel: ts[CancelRequest]) -> Answers:
        if plan.dry_run:
            return Answers(update=unsent(order, cancel), fill=csp.null_ts(Fill))
        if tap is None:
            return paper_venue(order, cancel, market, instruments, plan.config.broker, plan.opening)
        tap.send("order", order)
        tap.send("cancel", cancel)
        closes = {symbol: feeds.marks[symbol] for symbol in feeds.bars}
        return Answers(update=tap.edge("updates", OrderUpdate), fill=decided(tap.edge("fills", Fill), order, closes))

    return venue


def _keep(plan: LivePlan, streams: AccountStreams, live: ts[bool], journal: str) -> None:
    """Write what must outlive the run. At a venue, fills are in the journal before the graph hears of them."""
    keep_halt(streams.risk, streams.equity, journal)
    keep_risk(since_live(streams.equity, live), journal, plan.opening)
    if not plan.at_venue:
        keep_fills(streams.fills, plan.trading.instruments, journal)
    if streams.flows is not None:
        keep_flows(streams.flows, plan.trading.instruments, journal)
