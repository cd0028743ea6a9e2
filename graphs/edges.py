"""What goes into the graph and what comes out of it: edges by name."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from csp import ts

from brokers.events import Answers, CancelRequest, CashFlow, CorporateAction, Fill, OrderRequest, OrderUpdate
from feeds.events import Bar, Depth, FeedStatus, MacroPoint, NewsItem, Quote, Trade
from feeds.files import Source
from feeds.record import Inputs
from nodes.events import Advice, Alert, Forecast, PositionUpdate, RiskAction, Signal, StrategyFill, TargetPosition
from nodes.risk import TradingState

# Where approved orders and cancels go.
Venue = Callable[[ts[OrderRequest], ts[CancelRequest]], Answers]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feeds:
    """What the graph hears. A symbol needs `bars`; the rest is there or not."""

    bars: dict[str, ts[Bar]]
    bar_lengths: dict[str, timedelta]
    slower_bars: dict[tuple[str, str], ts[Bar]] = field(default_factory=dict)  # by (symbol, bar length)
    trades: dict[str, ts[Trade]] = field(default_factory=dict)
    quotes: dict[str, ts[Quote]] = field(default_factory=dict)
    depth: dict[str, ts[Depth]] = field(default_factory=dict)
    news: ts[NewsItem] | None = None
    macro: ts[MacroPoint] | None = None
    rates: dict[str, ts[float]] = field(default_factory=dict)  # account currency for one of a foreign one
    funding: dict[str, ts[float]] = field(default_factory=dict)  # rates of perpetual futures, by symbol
    corporate_actions: ts[CorporateAction] | None = None
    sources: tuple[Source, ...] = ()  # the files behind `bars` and `trades`, where there are any
    status: ts[FeedStatus] | None = None  # of the live feeds and the venue; None: files cannot fail in the middle
    live: ts[bool] | None = None  # ticks once, when history is over and what follows is live; None: it is all history
    forecasts: dict[str, ts[Forecast]] = field(default_factory=dict)  # of the next bar, where the price models speak
    advice: ts[Advice] | None = None  # of the news, where an advisor is asked
    marks: dict[str, ts[float]] = field(default_factory=dict)  # prices of the books where they are not the bars' closes
    required: dict[str, tuple[str, ...]] = field(default_factory=dict)  # live feeds that a symbol cannot trade without
    inputs: Inputs = field(default_factory=Inputs)  # of what a plugin brings in itself: recorded live, then replayed


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountStreams:
    """What an account says. Edges; each can be printed, recorded, or left alone at no cost."""

    orders: ts[OrderRequest]  # as the strategies want them, before the gate
    approved: ts[OrderRequest]  # what the gate lets pass, and the venue gets
    updates: ts[OrderUpdate]
    fills: ts[Fill]
    risk: ts[RiskAction]
    state: ts[TradingState]
    alerts: ts[Alert]
    position: ts[PositionUpdate]
    equity: ts[float]
    cash: ts[float]
    position_value: ts[float]
    gross_exposure: ts[float]
    flows: ts[CashFlow] | None  # None: nothing pays or costs by being held


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams(AccountStreams):
    """What the whole graph says."""

    signals: ts[Signal]
    final_signals: ts[Signal]
    targets: ts[TargetPosition]
    forecasts: ts[Forecast] | None = None  # None: no price model speaks
    ai_signals: ts[Advice] | None = None  # None: no advisor is asked
    strategy_fills: ts[StrategyFill] | None = None  # None: there is one strategy, and the fills are its own
