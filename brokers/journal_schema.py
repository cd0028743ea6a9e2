"""The tables of a journal and what their rows are in Python. Prices, quantities and money are decimal text."""

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

APPLICATION = 0x7469636B  # of all journals: PRAGMA application_id
SCHEMA = 2  # PRAGMA user_version; a later one can read all earlier ones
ENDED = ("FILLED", "CANCELLED", "REJECTED", "EXPIRED")
STATES = ("PENDING", "ACCEPTED", "PARTLY_FILLED", "CANCEL_PENDING", *ENDED)  # of `brokers.events.OrderState`
NOT_SENT = "not_sent"  # code of an order that seems never to have reached the venue; asked for once more at a start

_ENDED_SQL = ", ".join(f"'{state}'" for state in ENDED)
OPEN_SQL = f"state NOT IN ({_ENDED_SQL})"
# The venue may still know more of these than the journal does.
UNSETTLED_SQL = f"state NOT IN ({_ENDED_SQL}) OR filled <> booked OR code = '{NOT_SENT}'"

_HALTS = (
    """
    CREATE TABLE halts (
        id INTEGER PRIMARY KEY,
        code TEXT NOT NULL,
        message TEXT NOT NULL,
        engine_time TEXT NOT NULL,  -- ISO, UTC
        value REAL,                 -- NULL is a figure that was no number
        figure_limit REAL,
        equity REAL,
        reset_by TEXT,
        reset_time TEXT,            -- ISO, UTC, of the wall clock, NULL while the halt is open
        reset_note TEXT
    )
    """,
    "CREATE UNIQUE INDEX one_open ON halts ((1)) WHERE reset_time IS NULL",
)
_TRADING = (
    """
    CREATE TABLE runs (
        number INTEGER PRIMARY KEY,
        run_id TEXT NOT NULL UNIQUE,  -- order ids begin with it: used twice, an order id would be too
        life TEXT NOT NULL,
        config_hash TEXT NOT NULL,
        begun TEXT NOT NULL,          -- ISO, UTC, of the wall clock
        ended TEXT,                   -- NULL while it runs, and for ever where it was killed
        outcome TEXT
    )
    """,
    """
    CREATE TABLE orders (
        client_id TEXT PRIMARY KEY,
        order_id TEXT NOT NULL UNIQUE,
        run INTEGER NOT NULL REFERENCES runs (number),
        symbol TEXT NOT NULL,
        side TEXT NOT NULL,
        order_type TEXT NOT NULL,
        quantity TEXT NOT NULL,
        limit_price TEXT NOT NULL,
        stop_price TEXT NOT NULL,
        time_in_force TEXT NOT NULL,
        reduce_only INTEGER NOT NULL,
        strategy TEXT NOT NULL,
        sent_ns INTEGER NOT NULL,
        state TEXT NOT NULL,
        venue_id TEXT NOT NULL DEFAULT '',
        filled TEXT NOT NULL DEFAULT '0',  -- as the venue says
        booked TEXT NOT NULL DEFAULT '0',  -- as its rows in fills add up
        changed_ns INTEGER NOT NULL,
        code TEXT NOT NULL DEFAULT ''
    )
    """,
    """
    CREATE TABLE fills (
        number INTEGER PRIMARY KEY,  -- the order in which they were booked
        symbol TEXT NOT NULL,
        trade_id TEXT NOT NULL,
        client_id TEXT NOT NULL,     -- '' on a simulated venue
        order_id TEXT NOT NULL,
        run INTEGER NOT NULL REFERENCES runs (number),
        side TEXT NOT NULL,
        quantity TEXT NOT NULL,
        price TEXT NOT NULL,
        fee TEXT NOT NULL,           -- quote currency
        base_fee TEXT NOT NULL,      -- base units
        liquidity TEXT NOT NULL,
        time_ns INTEGER NOT NULL,    -- of the venue
        strategy TEXT NOT NULL,
        UNIQUE (symbol, trade_id)
    )
    """,
    """
    CREATE TABLE flows (
        number INTEGER PRIMARY KEY,
        run INTEGER NOT NULL REFERENCES runs (number),
        symbol TEXT NOT NULL,
        amount TEXT NOT NULL,  -- quote currency, positive is received
        kind TEXT NOT NULL,
        time_ns INTEGER NOT NULL
    )
    """,
    "CREATE TABLE risk (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE baselines (asset TEXT PRIMARY KEY, amount TEXT NOT NULL)",
    "CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
)
STEPS = {1: _HALTS, 2: _TRADING}  # what makes each schema out of the one before


@dataclass(frozen=True, slots=True)
class Halt:
    """One emergency stop. `reset_by` is "" while it is open."""

    number: int
    code: str
    message: str
    engine_time: datetime
    value: float
    limit: float
    equity: float
    reset_by: str = ""
    reset_time: datetime | None = None
    reset_note: str = ""


@dataclass(frozen=True, slots=True)
class KeptRun:
    """One run on the account. `ended` is None while it runs, and for ever where it was killed."""

    number: int
    run_id: str
    life: str
    config_hash: str
    begun: datetime
    ended: datetime | None = None
    outcome: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptOrder:
    """One order. Names of side, type, state and time in force are those of `brokers.events`; a price of "0" is none."""

    client_id: str  # under which the venue knows it
    order_id: str
    symbol: str
    side: str
    order_type: str
    quantity: str  # base units, decimal
    sent_ns: int  # wall clock, written before the send
    limit_price: str = "0"  # quote currency
    stop_price: str = "0"  # quote currency
    time_in_force: str = "GTC"
    reduce_only: bool = False
    strategy: str = ""
    state: str = "PENDING"
    venue_id: str = ""  # the venue's own id
    filled: str = "0"  # of the quantity, as the venue says
    booked: str = "0"  # of the quantity, as the journal's fills add up
    changed_ns: int = 0  # of the last change
    code: str = ""  # why it ended, where there is something to explain
    run: int = 0  # the journal fills it in

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFill:
    """One execution, once for each pair of symbol and trade id."""

    symbol: str
    trade_id: str  # the venue's
    order_id: str
    side: str
    quantity: str  # base units, decimal
    price: str  # quote currency
    time_ns: int  # of the venue
    client_id: str = ""  # "" on a simulated venue
    fee: str = "0"  # quote currency, positive when paid
    base_fee: str = "0"  # base units
    liquidity: str = "TAKER"
    strategy: str = ""
    number: int = 0  # from 1 in the order of booking; the journal fills it in
    run: int = 0  # the journal fills it in


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFlow:
    """Money that came or went without a trade."""

    symbol: str
    amount: str  # quote currency, positive is received
    kind: str
    time_ns: int
    number: int = 0
    run: int = 0


@dataclass(frozen=True, slots=True)
class KeptRisk:
    """What drawdown and daily loss are measured from, account currency."""

    equity_peak: float = 0.0
    day: str = ""  # ISO date
    day_start: float = 0.0


ORDER_COLUMNS = tuple(KeptOrder.__dataclass_fields__)
FILL_COLUMNS = tuple(KeptFill.__dataclass_fields__)
FLOW_COLUMNS = tuple(KeptFlow.__dataclass_fields__)


def halt_of(row: tuple[Any, ...]) -> Halt:
    number, code, message, engine_time, value, limit, equity, by, wall_time, note = row
    return Halt(
        number=number,
        code=code,
        message=message,
        engine_time=datetime.fromisoformat(engine_time),
        value=read_figure(value),
        limit=read_figure(limit),
        equity=read_figure(equity),
        reset_by=by or "",
        reset_time=datetime.fromisoformat(wall_time) if wall_time else None,
        reset_note=note or "",
    )


def run_of(row: tuple[Any, ...]) -> KeptRun:
    number, run_id, life, config_hash, begun, ended, outcome = row
    return KeptRun(
        number,
        run_id,
        life,
        config_hash,
        datetime.fromisoformat(begun),
        datetime.fromisoformat(ended) if ended else None,
        outcome or "",
    )


def order_of(row: tuple[Any, ...]) -> KeptOrder:
    values = dict(zip(ORDER_COLUMNS, row, strict=True))
    return KeptOrder(**{**values, "reduce_only": bool(values["reduce_only"])})


def fill_of(row: tuple[Any, ...]) -> KeptFill:
    return KeptFill(**dict(zip(FILL_COLUMNS, row, strict=True)))


def flow_of(row: tuple[Any, ...]) -> KeptFlow:
    return KeptFlow(**dict(zip(FLOW_COLUMNS, row, strict=True)))


def read_figure(figure: float | None) -> float:
    return math.nan if figure is None else figure


def stored_figure(figure: float) -> float | None:
    return None if math.isnan(figure) else figure
