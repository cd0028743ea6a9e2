"""The journal of an account: what must outlive the process. Plain SQLite; it survives `kill -9` and a lost power line.

It holds the halts (that risk stopped trading, why, and that a person reset it; at most one is open), the runs, the
orders, each written before it is sent, the fills, each once, what risk measures from, and what the account held that is
not ours to trade (`baselines`). `python -m brokers.show FILE` prints it.
"""

from datetime import datetime
from decimal import Decimal

from brokers.journal_file import JournalError, JournalFile, KnownError
from brokers.journal_schema import (
    FILL_COLUMNS,
    FLOW_COLUMNS,
    NOT_SENT,
    OPEN_SQL,
    ORDER_COLUMNS,
    STATES,
    UNSETTLED_SQL,
    Halt,
    KeptFill,
    KeptFlow,
    KeptOrder,
    KeptRisk,
    KeptRun,
    fill_of,
    flow_of,
    halt_of,
    order_of,
    run_of,
    stored_figure,
)
from brokers.opening import decimal_of, plain
from feeds.clock import utc_now

__all__ = [
    "NOT_SENT",
    "Halt",
    "Journal",
    "JournalError",
    "KeptFill",
    "KeptFlow",
    "KeptOrder",
    "KeptRisk",
    "KeptRun",
    "KnownError",
]

_FILL_NUMBERS = ("quantity", "price", "fee", "base_fee")
_INSERT_ORDER = f"INSERT INTO orders ({', '.join(ORDER_COLUMNS)}) VALUES ({', '.join('?' * len(ORDER_COLUMNS))})"
_INSERT_FILL = (
    f"INSERT INTO fills ({', '.join(FILL_COLUMNS)}) VALUES ({', '.join('?' * len(FILL_COLUMNS))})"
    " ON CONFLICT (symbol, trade_id) DO NOTHING"
)
_INSERT_FLOW = f"INSERT INTO flows ({', '.join(FLOW_COLUMNS)}) VALUES ({', '.join('?' * len(FLOW_COLUMNS))})"
_SELECT_ORDERS = f"SELECT {', '.join(ORDER_COLUMNS)} FROM orders"


class Journal(JournalFile):
    """One account's journal. Every write is in the file when its method returns.

    One thread at a time may use one; a process may have several of the same file. One of them begins the run, the
    others add to it.

    Args:
        path: of the file; made where there is none.
        create: False: a file that is not there is an error.
        durable: True: every write is on the disk, and outlives a lost power line too (`synchronous=FULL`). False: it
            outlives the process alone, for an account without real money (`synchronous=NORMAL`).

        copy: True: work on a copy in memory, which ends with it; the file stays as it is, and may be a run's.

    Raises:
        JournalError: the file cannot be opened, is no journal, or is of a newer schema. Every method raises it when the
            file cannot be read or written.
    """

    _run = 0  # number of the run that new rows belong to; 0: the newest in the file

    # Halts

    def halt(
        self, code: str, message: str, engine_time: datetime, *, value: float, limit: float, equity: float
    ) -> Halt:
        """Write that trading was stopped; return the open halt, which is the earlier one where there was one.

        Args:
            code: stable, such as drawdown or daily_loss.
            engine_time: naive UTC.
            value, limit: what was passed, and by how much.
            equity: of the account at that moment, its currency.
        """
        self._write(
            "INSERT INTO halts (code, message, engine_time, value, figure_limit, equity) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (code, message, engine_time.isoformat(), *(stored_figure(figure) for figure in (value, limit, equity))),
        )
        written = self.open_halt()
        assert written is not None
        return written

    def open_halt(self) -> Halt | None:
        """The halt that no person has reset; None where trading may begin."""
        open_ones = self._halts("WHERE reset_time IS NULL")
        return open_ones[0] if open_ones else None

    def reset(self, by: str, wall_time: datetime, note: str = "") -> Halt | None:
        """End the open halt in the name of a person; return it as it stands now, None where there was none.

        Losses are measured anew from then on: by the old peak the next run would stop again at its first mark.

        Raises:
            ValueError: `by` is blank.
        """
        if not by.strip():
            raise ValueError("a halt is reset by a person, the name was blank")
        halt = self.open_halt()
        if halt is None:
            return None
        with self.transaction():
            self._write(
                "UPDATE halts SET reset_by = ?, reset_time = ?, reset_note = ? WHERE id = ? AND reset_time IS NULL",
                (by, wall_time.isoformat(), note, halt.number),
            )
            self.save_risk(0.0, "", 0.0)
        return self._halts("WHERE id = ?", halt.number)[0]

    def history(self) -> list[Halt]:
        """All halts, the oldest first."""
        return self._halts("")

    # Runs

    def begin_run(self, run_id: str, life: str, config_hash: str = "") -> int:
        """Take the account for a run, until `close` or the end of the process; return the number of the run.

        Args:
            run_id: never used before on this account, because the ids of its orders begin with it.
            life: what the account is, such as "paper" or "binance live": the same for all of its runs.

        Raises:
            JournalError: another run has the account, the id was used before, or the account is of another life.
        """
        if not run_id or not life:
            raise ValueError(f"a run wants an id and a life, was {run_id!r} and {life!r}")
        self._take_lock()
        others = self._rows("SELECT life FROM runs WHERE life <> ? LIMIT 1", life)
        if others:
            raise JournalError(
                f"journal {self._path} is of the account {others[0][0]!r}, was asked to go on as {life!r}:"
                " want a journal of its own for each account"
            )
        if self._rows("SELECT 1 FROM runs WHERE run_id = ?", run_id):
            raise JournalError(f"journal {self._path} knows a run {run_id!r}: want an id that was never used")
        cursor = self._write(
            "INSERT INTO runs (run_id, life, config_hash, begun) VALUES (?, ?, ?, ?)",
            (run_id, life, config_hash, utc_now().isoformat()),
        )
        self._run = int(cursor.lastrowid or 0)
        return self._run

    def end_run(self, outcome: str = "stop") -> None:
        """Write that this run has come to its end; one that was killed never does."""
        self._write(
            "UPDATE runs SET ended = ?, outcome = ? WHERE number = ?",
            (utc_now().isoformat(), outcome, self._current()),
        )

    def runs(self) -> list[KeptRun]:
        """All runs, the oldest first."""
        columns = "number, run_id, life, config_hash, begun, ended, outcome"
        return [run_of(row) for row in self._rows(f"SELECT {columns} FROM runs ORDER BY number")]

    # Orders

    def order_sent(self, order: KeptOrder) -> None:
        """Write an order; to be called before it is sent. Its `run` and `booked` are not read.

        Raises:
            KnownError: its client id or its order id is in the journal: it must not be sent again.
            ValueError: a quantity or price that is no decimal, or an unknown state.
        """
        _refuse_unknown(order.state)
        if not decimal_of(order.quantity, "quantity") > 0:
            raise ValueError(f"quantity of order {order.order_id} must be positive, was {order.quantity}")
        filled = _plain(order.filled, "filled")
        values = {
            "quantity": _plain(order.quantity, "quantity"),
            "limit_price": _plain(order.limit_price, "limit_price"),
            "stop_price": _plain(order.stop_price, "stop_price"),
            "filled": filled,
            "booked": filled,  # none, but for an adopted order
            "changed_ns": order.changed_ns or order.sent_ns,
            "run": self._current(),
        }
        row = [values[name] if name in values else getattr(order, name) for name in ORDER_COLUMNS]
        self._write(_INSERT_ORDER, tuple(row))

    def order_changed(
        self,
        client_id: str,
        state: str,
        *,
        changed_ns: int,
        venue_id: str = "",
        filled: str = "",
        code: str = "",
        revive: bool = False,
    ) -> bool:
        """Write what the venue said of an order.

        Args:
            state: the name of an `OrderState`.
            changed_ns: when it was heard, wall clock.
            venue_id, filled: "" where it was not told. Quantities that were filled never shrink.
            revive: an order that had ended may change too, because the venue says that it has not.

        Returns:
            False when the order had ended in this state or another: then only `venue_id`, and a larger `filled`, are
            written.

        Raises:
            JournalError: the journal has no such order.
        """
        _refuse_unknown(state)
        with self.transaction():
            old = self.order(client_id)
            if old is None:
                raise JournalError(f"journal {self._path} has no order {client_id!r}")
            told = max(decimal_of(filled or "0", "filled"), Decimal(old.filled))
            self._write(
                "UPDATE orders SET venue_id = ?, filled = ? WHERE client_id = ?",
                (venue_id or old.venue_id, plain(told), client_id),
            )
            if old.ended and not revive:
                return False
            self._write(
                "UPDATE orders SET state = ?, changed_ns = ?, code = ? WHERE client_id = ?",
                (state, changed_ns, code, client_id),
            )
        return True

    def order(self, client_id: str) -> KeptOrder | None:
        """The order that the venue knows by `client_id`."""
        rows = self._rows(f"{_SELECT_ORDERS} WHERE client_id = ?", client_id)
        return order_of(rows[0]) if rows else None

    def order_of(self, order_id: str) -> KeptOrder | None:
        """The order that the strategy knows by `order_id`."""
        rows = self._rows(f"{_SELECT_ORDERS} WHERE order_id = ?", order_id)
        return order_of(rows[0]) if rows else None

    def open_orders(self) -> list[KeptOrder]:
        """Orders that have not ended, in the order in which they were sent."""
        return [order_of(row) for row in self._rows(f"{_SELECT_ORDERS} WHERE {OPEN_SQL} ORDER BY sent_ns, rowid")]

    def unsettled_orders(self) -> list[KeptOrder]:
        """Orders of which the venue may know more than the journal: that have not ended, of which fills are missing,
        or that were given up as never sent; in the order in which they were sent."""
        return [order_of(row) for row in self._rows(f"{_SELECT_ORDERS} WHERE {UNSETTLED_SQL} ORDER BY sent_ns, rowid")]

    def orders(self, newest: int = -1) -> list[KeptOrder]:
        """All orders, or the `newest` of them, in the order in which they were written."""
        rows = self._rows(f"{_SELECT_ORDERS} ORDER BY rowid DESC LIMIT ?", newest)
        return [order_of(row) for row in reversed(rows)]

    # Fills

    def fill(self, fill: KeptFill) -> bool:
        """Book one execution, and what its order has filled with it. Its `number` and `run` are not read.

        Its order becomes PARTLY_FILLED or FILLED where it has not ended; CANCEL_PENDING remains until all is filled.

        Returns:
            False: this trade was booked before; nothing is changed.
        """
        values = {
            **{name: getattr(fill, name) for name in FILL_COLUMNS},
            **{name: _plain(getattr(fill, name), name) for name in _FILL_NUMBERS},
            "number": None,
            "run": self._current(),
        }
        with self.transaction():
            if not self._write(_INSERT_FILL, tuple(values.values())).rowcount:
                return False
            order = self.order(fill.client_id) if fill.client_id else None
            if order is not None:
                self._book(order, fill)
        return True

    def fills(self, after: int = 0) -> list[KeptFill]:
        """Fills with a number above `after`, in the order in which they were booked."""
        columns = ", ".join(FILL_COLUMNS)
        return [
            fill_of(row) for row in self._rows(f"SELECT {columns} FROM fills WHERE number > ? ORDER BY number", after)
        ]

    def last_fill(self, symbol: str) -> KeptFill | None:
        """The fill of `symbol` with the latest time at the venue."""
        columns = ", ".join(FILL_COLUMNS)
        rows = self._rows(
            f"SELECT {columns} FROM fills WHERE symbol = ? ORDER BY time_ns DESC, number DESC LIMIT 1", symbol
        )
        return fill_of(rows[0]) if rows else None

    def positions(self) -> dict[str, Decimal]:
        """Base units that the fills add up to, signed, by symbol in the order of the first fill."""
        held: dict[str, Decimal] = {}
        for fill in self.fills():
            sign = 1 if fill.side == "BUY" else -1
            moved = sign * Decimal(fill.quantity) - Decimal(fill.base_fee)
            held[fill.symbol] = held.get(fill.symbol, Decimal()) + moved
        return held

    def flow(self, flow: KeptFlow) -> None:
        """Book money that came or went without a trade. Its `number` and `run` are not read."""
        self._write(
            _INSERT_FLOW,
            (flow.symbol, _plain(flow.amount, "amount"), flow.kind, flow.time_ns, None, self._current()),
        )

    def flows(self) -> list[KeptFlow]:
        """All flows, in the order in which they were booked."""
        return [flow_of(row) for row in self._rows(f"SELECT {', '.join(FLOW_COLUMNS)} FROM flows ORDER BY number")]

    # What else a start wants to know

    def save_risk(self, equity_peak: float, day: str, day_start: float) -> None:
        """Write what drawdown and daily loss are measured from: account currency, ISO date, account currency."""
        with self.transaction():
            for key, value in (("equity_peak", repr(equity_peak)), ("day", day), ("day_start_equity", repr(day_start))):
                self._put("risk", key, value)

    def risk(self) -> KeptRisk:
        """What was saved last; zeros and "" where nothing was."""
        kept = dict(self._rows("SELECT key, value FROM risk"))
        return KeptRisk(
            float(kept.get("equity_peak", "0")), kept.get("day", ""), float(kept.get("day_start_equity", "0"))
        )

    def baselines(self) -> dict[str, str]:
        """What the account holds that is not ours to trade, by asset."""
        return dict(self._rows("SELECT asset, amount FROM baselines ORDER BY asset"))

    def baseline(self, asset: str) -> str | None:
        """Of one asset; None where none was set."""
        return self.baselines().get(asset)

    def set_baseline(self, asset: str, amount: str) -> None:
        self._put("baselines", asset, _plain(amount, f"baseline of {asset}"))

    def fact(self, key: str) -> str:
        """What was kept under `key`; "" where nothing was."""
        rows = self._rows("SELECT value FROM facts WHERE key = ?", key)
        return rows[0][0] if rows else ""

    def keep_fact(self, key: str, value: str) -> None:
        self._put("facts", key, value)

    # Inside

    def _book(self, order: KeptOrder, fill: KeptFill) -> None:
        booked = Decimal(order.booked) + Decimal(fill.quantity)
        state = order.state
        if not order.ended:
            if booked >= Decimal(order.quantity):
                state = "FILLED"
            elif state != "CANCEL_PENDING":
                state = "PARTLY_FILLED"
        self._write(
            "UPDATE orders SET booked = ?, filled = ?, state = ?, changed_ns = ? WHERE client_id = ?",
            (
                plain(booked),
                plain(max(booked, Decimal(order.filled))),
                state,
                max(order.changed_ns, fill.time_ns),
                order.client_id,
            ),
        )

    def _current(self) -> int:
        if not self._run:
            self._run = int(self._rows("SELECT coalesce(max(number), 0) FROM runs")[0][0])
            if not self._run:
                raise JournalError(f"journal {self._path} knows no run: want begin_run first")
        return self._run

    def _put(self, table: str, key: str, value: str) -> None:
        self._write(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", (key, value))

    def _halts(self, where: str, *values: object) -> list[Halt]:
        columns = "id, code, message, engine_time, value, figure_limit, equity, reset_by, reset_time, reset_note"
        return [halt_of(row) for row in self._rows(f"SELECT {columns} FROM halts {where} ORDER BY id", *values)]


def _plain(text: str, name: str) -> str:
    return text if text == "0" else plain(decimal_of(text, name))  # most are


def _refuse_unknown(state: str) -> None:
    if state not in STATES:
        raise ValueError(f"state of an order must be one of {', '.join(STATES)}, was {state!r}")
