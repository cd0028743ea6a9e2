"""Several strategies in one account: their targets are netted before the venue, its fills shared among their books."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import csp
from csp import ts

from brokers.events import Fill, OrderState, OrderUpdate
from brokers.ledger import Contract
from brokers.opening import Opening
from brokers.orders import ENDED
from feeds.events import Bar, Side, Trade
from feeds.instruments import Instrument
from feeds.streams import SETTLE
from nodes.events import RiskAction, RiskActionKind, StrategyFill, TargetPosition
from nodes.opening import held_units

RESIDUAL = ""  # the book of what no strategy wanted
# Bound once: looking a member up on its class costs more than comparing it.
_BUY, _SELL = Side.BUY, Side.SELL
_EMERGENCY_STOP, _HALT_SYMBOL = RiskActionKind.EMERGENCY_STOP, RiskActionKind.HALT_SYMBOL
_UNFILLED = ENDED - {OrderState.FILLED}


def shared(total: int, weights: Sequence[int]) -> list[int]:
    """`total` divided in proportion to `weights`, each part whole and next to its exact value.

    The parts are rounded down, and what is left goes to the largest remainders, the earlier of two equal ones first.
    Weights may differ in sign.

    Raises:
        ValueError: the weights add up to nothing.

    Source: the method of largest remainders (Hamilton), Balinski & Young, "Fair Representation", 1982, ch. 2.
    """
    whole = sum(weights)
    if whole == 0:
        raise ValueError(f"want weights that do not add up to 0, was {list(weights)}")
    sign = 1 if whole > 0 else -1
    scaled = [total * weight * sign for weight in weights]
    parts = [share // abs(whole) for share in scaled]
    left = total - sum(parts)
    if left:
        largest = sorted(range(len(parts)), key=lambda i: -(scaled[i] % abs(whole)))
        for i in largest[:left]:
            parts[i] += 1
    return parts


class Share(NamedTuple):
    """What one book gets of an execution or of a cross."""

    strategy: str
    lots: int  # signed
    fee: int = 0  # smallest units of the currency, negative when received
    base_fee: int = 0  # smallest quantities of the instrument
    crossed: bool = False  # with another strategy, not with the market


class Shares:
    """The books of one symbol: what each strategy wants and holds, and the residual book, which wants nothing.

    Positions are counted in units, the smallest quantity of the instrument, of which a lot has `units_per_lot`; they
    add up to the account's. A book's outstanding interest is what brings it to its target, in whole lots towards zero.

    Raises:
        ValueError: no strategy, a name twice, or the residual book's.
    """

    __slots__ = ("_units_per_lot", "names", "targets", "units")

    def __init__(self, strategies: Iterable[str], units_per_lot: int = 1) -> None:
        self.names = tuple(strategies)
        if not self.names or len(set(self.names)) != len(self.names) or RESIDUAL in self.names:
            raise ValueError(f"want strategies of different names, none of them blank, was {self.names}")
        self._units_per_lot = units_per_lot
        self.targets = dict.fromkeys(self.names, 0)  # lots
        self.units = dict.fromkeys((*self.names, RESIDUAL), 0)

    def outstanding(self) -> dict[str, int]:
        """The signed lots that each book is short of its target, the residual book last."""
        return {
            name: _whole(self.targets.get(name, 0) * self._units_per_lot - units, self._units_per_lot)
            for name, units in self.units.items()
        }

    def opposed(self) -> bool:
        """Whether one book wants to buy what another wants to sell."""
        needs = self.outstanding().values()
        return min(needs) < 0 < max(needs)

    def force(self, total: int) -> None:
        """Set targets that add up to a net target on which the strategies did not agree.

        The positions are scaled, all by the same factor; where that would enlarge or turn them, the targets are; where
        that would too, each position stays as it is. So 0 is flat for everyone.
        """
        held = [_whole(self.units[name], self._units_per_lot) for name in self.names]
        wanted = list(self.targets.values())
        if total == 0:
            parts = [0] * len(held)
        elif _within(total, sum(held)):
            parts = shared(total, held)
        elif _within(total, sum(wanted)):
            parts = shared(total, wanted)
        else:
            parts = held
        self.targets = dict(zip(self.names, parts, strict=True))

    def fill(self, lots: int, fee: int = 0, base_fee: int = 0) -> list[Share]:
        """Share one execution, then cross what still stands against each other.

        The lots go to the books that want that side, in proportion to what they want; what is more than that goes to
        the residual book. The fee follows the lots.

        Args:
            lots: signed, not 0.
            fee: smallest units of the currency.
            base_fee: units that the buyer pays out of what it bought.

        Raises:
            ValueError: no lots, or a base fee of a sale or of more than was bought.
        """
        if lots == 0 or not 0 <= base_fee <= max(lots, 0) * self._units_per_lot:
            raise ValueError(f"want lots, and a base fee of at most what was bought, was {lots} and {base_fee}")
        sign = 1 if lots > 0 else -1
        wants = {name: need * sign for name, need in self.outstanding().items() if need * sign > 0}
        given = min(abs(lots), sum(wants.values()))
        parts = dict(zip(wants, shared(given, list(wants.values())), strict=True)) if wants else {}
        if abs(lots) > given:
            parts[RESIDUAL] = parts.get(RESIDUAL, 0) + abs(lots) - given
        parts = {name: part for name, part in parts.items() if part}
        fees = shared(fee, list(parts.values()))
        base_fees = shared(base_fee, list(parts.values()))
        shares = [Share(name, part * sign, fees[i], base_fees[i]) for i, (name, part) in enumerate(parts.items())]
        self._book(shares)
        return shares + self.cross()

    def cross(self) -> list[Share]:
        """Let the books that want to buy and those that want to sell trade with each other, as far as it goes."""
        needs = self.outstanding()
        buyers = {name: need for name, need in needs.items() if need > 0}
        sellers = {name: need for name, need in needs.items() if need < 0}
        lots = min(sum(buyers.values()), -sum(sellers.values()))
        if lots == 0:
            return []
        parts = dict(zip(buyers, shared(lots, list(buyers.values())), strict=True))
        parts |= dict(zip(sellers, shared(-lots, list(sellers.values())), strict=True))
        shares = [Share(name, parts[name], crossed=True) for name in needs if parts.get(name)]
        self._book(shares)
        return shares

    def _book(self, shares: list[Share]) -> None:
        for share in shares:
            self.units[share.strategy] += share.lots * self._units_per_lot - share.base_fee


def _whole(units: int, units_per_lot: int) -> int:
    """Units as lots, towards zero."""
    lots = abs(units) // units_per_lot
    return lots if units > 0 else -lots


def _within(total: int, of: int) -> bool:
    """Whether `total` is a part of `of`: on the same side of zero, and no farther from it."""
    return total * of > 0 and abs(total) <= abs(of)


class Desk:
    """The shares of one symbol in floats: fills and market prices in, fills of the strategies out.

    Args:
        opening: what the account holds at the start. No strategy has asked for it yet: it is in the residual book.
    """

    __slots__ = ("_contract", "shares")

    def __init__(self, strategies: Iterable[str], instrument: Instrument, opening: Opening | None = None) -> None:
        self._contract = Contract(instrument)
        self.shares = Shares(strategies, self._contract.units_per_lot)
        self.shares.units[RESIDUAL] = held_units(opening, self._contract)

    def lots(self, quantity: float) -> int:
        """Signed lots of a quantity. Raises ValueError when it is no multiple of the lot."""
        return self._contract.lots.exact(quantity)

    def fill(self, fill: Fill) -> list[StrategyFill]:
        """Share an execution of the account; crosses take its price."""
        contract = self._contract
        lots = self.lots(fill.quantity if fill.side is _BUY else -fill.quantity)
        fee = contract.denomination.quanta(fill.fee) // contract.fee_unit
        base_fee = contract.units.exact(fill.base_fee)
        return self._told(self.shares.fill(lots, fee, base_fee), fill.price, fill.order_id)

    def cross(self, price: float) -> list[StrategyFill]:
        """Cross what stands against each other at a price of the market, rounded to the tick."""
        ticks = self._contract.ticks
        return self._told(self.shares.cross(), ticks.value(max(1, ticks.nearest(price))), "")

    def _told(self, shares: list[Share], price: float, order_id: str) -> list[StrategyFill]:
        contract = self._contract
        return [
            StrategyFill(
                strategy=share.strategy,
                symbol=contract.instrument.symbol,
                side=_BUY if share.lots > 0 else _SELL,
                quantity=contract.lots.value(abs(share.lots)),
                price=price,
                fee=contract.money(share.fee * contract.fee_unit),
                order_id="" if share.crossed else order_id,
                base_fee=contract.units.value(share.base_fee),
            )
            for share in shares
        ]


@csp.node
def net_target(targets: dict[str, ts[TargetPosition]], instrument: Instrument) -> ts[TargetPosition]:
    """The sum of what the strategies want of one symbol.

    Args:
        targets: by strategy; one that has not ticked wants nothing.

    Ticks:
        With every target, once for those of one cycle, also where the sum stays the same: `allocate` has to hear that
        risk let it pass.

    Raises:
        ValueError: a target that is no multiple of the lot.
    """
    with csp.state():
        s_lots = Contract(instrument).lots
        s_wanted = dict[str, int]()

    if csp.ticked(targets):
        for name, target in targets.tickeditems():  # type: ignore[attr-defined]
            s_wanted[name] = s_lots.exact(target.quantity)
        quantity = s_lots.value(sum(s_wanted.values()))
        return TargetPosition(symbol=instrument.symbol, quantity=quantity, asof=csp.now())


@csp.node
def allocate(
    fill: ts[Fill],
    update: ts[OrderUpdate],
    targets: dict[str, ts[TargetPosition]],
    net: ts[TargetPosition],
    bar: ts[Bar],
    trade: ts[Trade],
    action: ts[RiskAction],
    instrument: Instrument,
    halted: bool = False,
    opening: Opening | None = None,
) -> ts[list[StrategyFill]]:
    """Share the account's fills of one symbol among the strategies' books, as `Shares` does.

    What a target asks for counts from the end of its instant: a fill that comes in the same instant is of an order sent
    before. Interests that stand against each other cross at the price of the next fill; where none will come, because
    they cancel out or the net order was refused, at the next price of the market after they were made: the open of a
    bar that opened no earlier, or a later trade.

    Risk may overrule a strategy's target before it gets here, or the net target after `net_target`. Then the strategies
    are scaled to what was let through, see `Shares.force`. From an EMERGENCY_STOP on, and while a HALT_SYMBOL of this
    symbol lasts, they are so even where their targets cancel out: an account that is flat leaves no book open.

    Args:
        fill: executions of the account.
        update: what became of its orders.
        targets: by strategy, as they went into `net_target`; passive.
        net: the net target that orders are made of, after risk.
        bar, trade: the market; passive unless something waits to be crossed. One of them may never tick.
        action: what the risk monitor asks.
        halted: an earlier stop was not reset: no target counts, so the strategies do not trade with each other either.
        opening: what the account holds at the start. It is in the residual book, which the strategies take it from, or
            sell it for, as their targets come.

    Ticks:
        With every fill, and with every cross: what each book got of the fill, then of the cross; the strategies in
        their order, the residual book last. The lots add up to the fill's, and so do the fees.

    Raises:
        ValueError: a fill or target off its steps.
    """
    with csp.state():
        s_desk = Desk(targets.keys(), instrument, opening)
        s_symbol = instrument.symbol
        s_halted: datetime | None = None  # until then
        s_next: dict[str, int] | None = None  # targets that do not count yet, lots
        s_total = 0  # the net of them that risk let pass
        s_forced = False  # they were overruled
        s_since: datetime | None = None  # engine time of the targets that count, or will
        s_refused = False  # no order is on its way that could bring a fill
    with csp.start():
        csp.make_passive(targets)
        csp.make_passive(bar)
        csp.make_passive(trade)

    shares = s_desk.shares
    now = csp.now()
    if s_next is not None and s_since is not None and now > s_since:
        shares.targets = s_next
        s_next = None
        if s_forced:
            shares.force(s_total)
    out = list[StrategyFill]()
    if csp.ticked(fill):
        out += s_desk.fill(fill)
        s_refused = False
    if csp.ticked(update) and update.state in _UNFILLED:
        s_refused = True
    waits = shares.opposed() and (s_refused or sum(shares.outstanding().values()) == 0)
    if waits and s_since is not None:
        if csp.ticked(bar) and bar.open_time >= s_since - SETTLE:  # decisions on several symbols take that to settle
            out += s_desk.cross(bar.open)
            waits = False
        elif csp.ticked(trade) and now > s_since:
            out += s_desk.cross(trade.price)
            waits = False
    if csp.ticked(action):
        if action.kind is _EMERGENCY_STOP or (action.kind is _HALT_SYMBOL and action.symbol == s_symbol):
            s_halted = action.until if s_halted is None else max(s_halted, action.until)
    if csp.ticked(net) and not halted:
        s_next = {name: s_desk.lots(targets[name].quantity) for name in targets.validkeys()}  # type: ignore[attr-defined]
        s_next = {name: s_next.get(name, 0) for name in shares.names}
        s_total = s_desk.lots(net.quantity)
        s_forced = s_total != sum(s_next.values()) or (s_halted is not None and now < s_halted)
        s_since = now
        s_refused = False
    if waits or s_next is not None:
        csp.make_active(bar)
        csp.make_active(trade)
    else:
        csp.make_passive(bar)
        csp.make_passive(trade)
    if out:
        csp.output(out)
