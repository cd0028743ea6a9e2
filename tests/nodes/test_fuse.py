import itertools
import math
from datetime import timedelta
from typing import Any

import csp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import T0, at, run, values

from configs.load import build
from feeds.events import Session
from nodes.events import MarketState, Regime, Signal, Trend, VolumeProfile
from nodes.fuse import FuseConfig, check_names, combine, fuse_signals

EPS = timedelta(microseconds=1)


def signal(seconds: float, source: str, score: float, confidence: float = 1.0, **changes: Any) -> Signal:
    fields = {"symbol": "S", "horizon_s": 100.0, "asof": T0 + timedelta(seconds=seconds)}
    return Signal(source=source, score=score, confidence=confidence, **(fields | changes))


def state(
    regime: Regime = Regime.NORMAL,
    trend: Trend = Trend.FLAT,
    volume: VolumeProfile = VolumeProfile.NORMAL,
    session: Session = Session.MARKET_HOURS,
) -> MarketState:
    return MarketState(symbol="S", regime=regime, trend=trend, volume=volume, session=session, volatility=0.01)


def fused(
    *signals: Signal, states: Any = (), trigger: Any = (), config: FuseConfig | None = None, seconds: float = 10_000.0
) -> Any:
    """Fuse signals that tick when they are asof, one edge a source, with (seconds, state) and trigger seconds."""

    def graph() -> Any:
        by_source: dict[str, list[Signal]] = {}
        for s in signals:
            by_source.setdefault(s.source, []).append(s)
        edges = [csp.curve(Signal, [(s.asof, s) for s in group]) for group in by_source.values()]
        market = at(*states, typ=MarketState) if states else csp.null_ts(MarketState)
        clock = at(*((second, 1.0) for second in trigger), typ=float) if trigger else None
        return fuse_signals(edges, market, "S", config or FuseConfig(), clock)

    return run(graph, seconds=seconds)


def test_the_order_in_which_signals_come_into_a_cycle_changes_no_bit() -> None:
    # 0.1 + 0.2 + 0.3 is another float than 0.3 + 0.2 + 0.1. A signal that is deeper in the graph comes later.
    def graph(depths: tuple[int, ...]) -> Any:
        edges = []
        for source, score, depth in zip("abc", (0.1, 0.2, 0.3), depths, strict=True):
            edge = at((1.0, signal(1.0, source, score)))
            for _ in range(depth):
                edge = csp.merge(edge, csp.null_ts(Signal))
            edges.append(edge)
        return fuse_signals(edges, csp.null_ts(MarketState), "S", FuseConfig())

    scores = {run(lambda d=depths: graph(d))[0][1].score for depths in itertools.permutations(range(1, 4))}

    assert scores == {(0.1 + 0.2 + 0.3) / 3.0}


def test_one_source_passes_through() -> None:
    ((when, out),) = fused(signal(3, "rsi", -0.5, 0.4, horizon_s=60.0))

    assert when == T0 + timedelta(seconds=3)
    assert out == signal(3, "fused", -0.5, 0.4, horizon_s=60.0)


def test_sources_are_weighed_by_weight_confidence_and_age() -> None:
    config = FuseConfig(weights={"rsi": 2.0, "macro": 0.5})

    out = fused(signal(0, "rsi", 1.0, 0.5, horizon_s=50.0), signal(100, "macro", -1.0, 0.8), config=config)

    old, new = 2.0 * 0.5 * math.exp(-100 / 50), 0.5 * 0.8
    assert [when for when, _ in out] == [T0, T0 + timedelta(seconds=100)]
    last = out[-1][1]
    assert last.score == pytest.approx((old - new) / (old + new))
    assert last.confidence == pytest.approx((old + new) / 2.5)
    assert last.horizon_s == pytest.approx((50 * old + 100 * new) / (old + new))
    assert last.asof == T0 + timedelta(seconds=100)


def test_signals_of_one_cycle_are_all_read_before_the_one_tick() -> None:
    out = fused(signal(5, "rsi", 1.0), signal(5, "sma_cross", 0.0), signal(5, "momentum", -0.25))

    assert [(when, s.score) for when, s in out] == [(T0 + timedelta(seconds=5), pytest.approx(0.25))]


def test_the_latest_signal_of_a_source_replaces_the_one_before() -> None:
    out = fused(signal(0, "rsi", 1.0), signal(1, "rsi", -1.0))

    assert [s.score for s in values(out)] == [1.0, -1.0]


def test_of_two_edges_of_one_source_the_later_one_counts() -> None:
    both = [csp.const(signal(0, "rsi", score)) for score in (1.0, -1.0)]

    out = run(lambda: fuse_signals(both, csp.null_ts(MarketState), "S", FuseConfig()))

    assert [s.score for s in values(out)] == [-1.0]


def test_a_source_without_confidence_leaves_the_score_to_the_others() -> None:
    out = fused(signal(0, "rsi", 1.0), signal(0, "macro", -1.0), signal(1, "macro", -1.0, 0.0))

    assert out[-1][1].score == 1.0
    # Its share of the confidence goes with it: weight 1.0 of the 1.5 that has spoken, a second old.
    assert out[-1][1].confidence == pytest.approx(math.exp(-0.01) / 1.5)
    assert out[-1][1].asof == T0


def test_when_all_fall_silent_score_and_confidence_are_zero() -> None:
    out = fused(signal(0, "rsi", 0.001, 0.001), signal(1, "rsi", 0.0, 0.0))

    assert [(s.score, s.confidence) for s in values(out)] == [(0.001, 0.001), (0.0, 0.0)]
    assert out[1][1].asof == T0 + timedelta(seconds=1)


def test_silence_from_the_start_is_not_told() -> None:
    assert fused(signal(0, "rsi", 1.0, 0.0), trigger=(1, 2)) == []


def test_weight_zero_switches_a_source_off() -> None:
    assert fused(signal(0, "rsi", 1.0), config=FuseConfig(weights={"rsi": 0.0})) == []


def test_age_is_looked_at_when_the_trigger_ticks() -> None:
    signals = (signal(0, "rsi", 1.0), signal(0, "macro", -1.0, horizon_s=10.0))

    without = fused(*signals)
    out = fused(*signals, trigger=(20, 20.001, 1_000_000), seconds=2_000_000.0)

    assert [when for when, _ in without] == [T0]
    # 20.001 moves nothing by change_min; at the end both are forgotten.
    assert [when for when, _ in out] == [T0, T0 + timedelta(seconds=20), T0 + timedelta(seconds=1_000_000)]
    rsi, news = math.exp(-0.2), 0.5 * math.exp(-2.0)
    assert out[1][1].score == pytest.approx((rsi - news) / (rsi + news))
    assert (out[2][1].score, out[2][1].confidence) == (0.0, 0.0)


def test_the_trigger_before_any_signal_is_silent() -> None:
    assert [when for when, _ in fused(signal(5, "rsi", 1.0), trigger=(0, 1))] == [T0 + timedelta(seconds=5)]


def test_small_moves_are_silent_and_a_step_of_change_min_is_not() -> None:
    scores = (0.5, 0.509, 0.51, 0.505, 0.52)

    out = fused(*(signal(i, "rsi", score) for i, score in enumerate(scores)), config=FuseConfig(change_min=0.01))

    assert [s.score for s in values(out)] == [0.5, 0.51, 0.52]


@pytest.mark.parametrize(("first", "second", "change_min"), [(0.5, 0.75, 0.25), (0.2, 0.3, 0.1)])
def test_a_step_of_exactly_change_min_ticks_whichever_way_it_rounds(
    first: float, second: float, change_min: float
) -> None:
    out = fused(signal(0, "rsi", first), signal(1, "rsi", second), config=FuseConfig(change_min=change_min))

    assert [s.score for s in values(out)] == [first, second]


def test_a_change_of_sign_ticks_however_small() -> None:
    scores = (0.004, 0.003, -0.001, 0.0, -0.001)

    out = fused(*(signal(i, "rsi", score) for i, score in enumerate(scores)))

    assert [s.score for s in values(out)] == [0.004, -0.001, 0.0, -0.001]


def test_opposite_opinions_that_cancel_are_exactly_zero() -> None:
    # 0.1 + 0.2 - 0.3 is 5.6e-17 in floats, which is not a change of sign.
    config = FuseConfig(weights={"a": 0.1, "b": 0.2, "c": 0.3})

    out = fused(signal(0, "a", 1.0), signal(0, "b", 1.0), signal(0, "c", -1.0), config=config)

    assert [s.score for s in values(out)] == [0.0]


def test_a_volatile_market_discounts_trend_followers_alone() -> None:
    signals = (signal(0, "sma_cross@1h", 1.0), signal(0, "rsi", -1.0))

    out = fused(*signals, states=[(0, state()), (0.000001, state(regime=Regime.VOLATILE))])

    assert [when for when, _ in out] == [T0, T0 + EPS]
    assert out[0][1].score == 0.0
    assert out[1][1].score == pytest.approx((0.5 - 1.0) / 1.5)
    assert out[1][1].confidence == pytest.approx(0.75)


@pytest.mark.parametrize(("trend", "score"), [(Trend.UP, (1 - 0.75) / 1.75), (Trend.DOWN, (0.75 - 1) / 1.75)])
def test_a_signal_against_the_trend_is_discounted(trend: Trend, score: float) -> None:
    out = fused(
        signal(0, "rsi", 1.0),
        signal(0, "macro", -1.0, 1.0),
        states=[(0, state(trend=trend))],
        config=FuseConfig(weights={"macro": 1.0}),
    )

    assert out[0][1].score == pytest.approx(score)


def test_low_volume_lowers_the_confidence_and_not_the_score() -> None:
    out = fused(signal(0, "rsi", 1.0), states=[(0, state(volume=VolumeProfile.LOW))])

    assert (out[0][1].score, out[0][1].confidence) == (1.0, 0.75)


def test_a_closed_session_holds_and_its_signals_count_at_the_opening() -> None:
    states = [(0, state()), (1, state(session=Session.CLOSED)), (9, state(session=Session.PRE_MARKET))]

    out = fused(signal(0, "rsi", 1.0), signal(5, "rsi", -1.0), states=states, trigger=(6, 7, 8))

    assert [(when, s.score) for when, s in out] == [(T0, 1.0), (T0 + timedelta(seconds=9), -1.0)]
    assert out[1][1].confidence == pytest.approx(math.exp(-0.04))


def test_a_bar_length_takes_the_weight_of_its_base_unless_it_has_its_own() -> None:
    config = FuseConfig(weights={"rsi": 2.0, "rsi@1d": 3.0}, default_weight=0.25)
    signals = [signal(0, name, 1.0, c) for name, c in (("rsi@1h", 1.0), ("rsi@1d", 0.0), ("mine", 0.0))]

    assert fused(*signals, config=config)[0][1].confidence == pytest.approx(2.0 / (2.0 + 3.0 + 0.25))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": math.nan}, "score and confidence of rsi must lie in"),
        ({"score": 1.5}, "score and confidence of rsi must lie in"),
        ({"confidence": math.nan}, "score and confidence of rsi must lie in"),
        ({"confidence": -0.1}, "score and confidence of rsi must lie in"),
        ({"horizon_s": 0.0}, "horizon_s of rsi must be positive"),
        ({"horizon_s": math.inf}, "horizon_s of rsi must be positive"),
        ({"symbol": "T"}, "must be about S, was about T"),
        ({"source": ""}, "must name its source"),
        ({"asof": T0 + timedelta(seconds=1)}, "must not rest on the future"),
    ],
)
def test_a_signal_that_breaks_its_contract_stops_the_engine(changes: dict[str, Any], message: str) -> None:
    bad = signal(0, "rsi", 0.5)
    bad.update(**changes)

    with pytest.raises(ValueError, match=message):
        run(lambda: fuse_signals([csp.const(bad)], csp.null_ts(MarketState), "S", FuseConfig()))


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": {"rsi": -1.0}},
        {"weights": {"rsi": math.nan}},
        {"default_weight": math.inf},
        {"volatile_factor": 1.1},
        {"against_trend_factor": math.nan},
        {"low_volume_factor": -0.1},
        {"change_min": 2.0},
        {"share_max": {"rsi": 1.1}},
        {"share_max": {"rsi": math.nan}},
    ],
)
def test_impossible_config_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        FuseConfig(**changes)


def test_weights_come_from_a_table_and_add_to_the_default() -> None:
    config = build(FuseConfig, {"weights": {"advisor": 2, "rsi@1h": 0.0}, "share_max": {"rsi": 0.5}})

    assert config.weights == {"macro": 0.5, "advisor": 2.0, "rsi@1h": 0.0}
    assert config.share_max == {"advisor": 0.3, "rsi": 0.5}
    assert FuseConfig().weights == {"macro": 0.5, "advisor": 0.5}
    assert FuseConfig().share_max == {"advisor": 0.3}


def test_equal_configs_hash_equally_whatever_the_order() -> None:
    one, two = FuseConfig(weights={"a": 1.0, "b": 2.0}), FuseConfig(weights={"b": 2.0, "a": 1.0})

    assert one == two
    assert hash(one) == hash(two)


def test_a_config_does_not_share_the_dict_it_was_given() -> None:
    mine = {"rsi": 1.0}
    config = FuseConfig(weights=mine)
    mine["rsi"] = -1.0

    assert config.weights["rsi"] == 1.0


def test_a_name_without_a_source_is_refused_with_the_nearest() -> None:
    check_names(FuseConfig(weights={"rsi": 1.0, "rsi@1h": 2.0}), ["rsi@1h"])

    with pytest.raises(ValueError, match="unknown source 'rsj'; did you mean 'rsi'"):
        check_names(FuseConfig(weights={"rsj": 1.0}), ["rsi", "adaptive"])
    with pytest.raises(ValueError, match="unknown source 'xyzzy'; sources are adaptive"):
        check_names(FuseConfig(trend_following=("xyzzy",)), ["adaptive"])
    with pytest.raises(ValueError, match="unknown source 'rsj'"):
        check_names(FuseConfig(share_max={"rsj": 0.5}), ["rsi"])


def test_a_source_with_a_largest_share_never_has_more_and_alone_says_nothing() -> None:
    config = FuseConfig(weights={"advisor": 5.0}, share_max={"advisor": 0.25})

    assert fused(signal(0, "advisor", -1.0), config=config) == []
    out = fused(signal(0, "advisor", -1.0), signal(1, "rsi", 1.0), signal(2, "rsi", 1.0, 0.0), config=config)
    assert [(s.score, s.confidence > 0.0) for s in values(out)] == [(pytest.approx(0.75 - 0.25), True), (0.0, False)]


@pytest.mark.parametrize("most", [0.0, 0.3])
def test_a_source_of_a_largest_share_that_has_gone_silent_is_as_if_it_had_never_spoken(most: float) -> None:
    config = FuseConfig(weights={"advisor": 50.0}, share_max={"advisor": most})
    rest = {"rsi": signal(0, "rsi", 1.0, 0.5), "mean": signal(0, "mean", -0.5, 0.4)}

    silent = combine({**rest, "advisor": signal(1, "advisor", 0.0, 0.0)}, None, T0 + timedelta(seconds=2), config)

    assert silent == combine(rest, None, T0 + timedelta(seconds=2), config)


def test_a_source_within_its_largest_share_counts_as_any_other() -> None:
    signals = signal(0, "advisor", -1.0, 0.2), signal(0, "rsi", 1.0)

    assert fused(*signals) == fused(*signals, config=FuseConfig(share_max={"advisor": 1.0}))


@settings(max_examples=50, deadline=None)
@given(st.floats(0.0, 1.0), st.floats(-1.0, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 0.9))
def test_the_largest_share_bounds_how_far_a_source_moves_the_score(
    confidence: float, score: float, other: float, most: float
) -> None:
    rest = {"rsi": signal(0, "rsi", score, other)}
    config = FuseConfig(weights={"advisor": 100.0}, share_max={"advisor": most})

    alone, _, _, _ = combine(rest, None, T0, config)
    both, _, _, _ = combine({"advisor": signal(0, "advisor", 1.0, confidence), **rest}, None, T0, config)

    assert alone - 1e-9 <= both <= alone + most * (1.0 - alone) + 1e-9


SIGNALS = st.lists(
    st.builds(
        signal,
        st.integers(0, 500),
        st.sampled_from(["rsi", "macro", "sma_cross@1h"]),
        st.floats(-1.0, 1.0),
        st.floats(0.0, 1.0),
        horizon_s=st.floats(1e-3, 1e6),
    ),
    min_size=1,
    max_size=20,
    unique_by=lambda s: (s.source, s.asof),
).map(lambda signals: sorted(signals, key=lambda s: s.asof))
STATES = st.builds(
    state,
    st.sampled_from(list(Regime)),
    st.sampled_from(list(Trend)),
    st.sampled_from(list(VolumeProfile)),
    st.sampled_from([Session.MARKET_HOURS, Session.AFTER_HOURS]),
)


@settings(max_examples=100, deadline=None)
@given(SIGNALS, STATES | st.none(), st.integers(0, 10_000))
def test_the_score_lies_among_the_scores_and_age_only_lowers_the_confidence(
    signals: list[Signal], market: MarketState | None, later: int
) -> None:
    latest = {s.source: s for s in signals}
    now = max(s.asof for s in signals)

    score, confidence, horizon_s, asof = combine(latest, market, now, FuseConfig())
    aged = combine(latest, market, now + timedelta(seconds=later), FuseConfig())

    low, high = min(s.score for s in latest.values()), max(s.score for s in latest.values())
    assert min(low, 0.0) - 1e-9 <= score <= max(high, 0.0) + 1e-9
    assert 0.0 <= confidence <= max(s.confidence for s in latest.values()) + 1e-9
    assert aged[1] <= confidence
    assert horizon_s <= max(s.horizon_s for s in latest.values()) * (1 + 1e-9)
    assert asof <= now


@settings(max_examples=50, deadline=None)
@given(SIGNALS, st.lists(st.tuples(st.integers(0, 500), STATES), max_size=5), st.integers(0, 500))
def test_every_tick_says_something_new_and_a_prefix_of_history_gives_a_prefix(
    signals: list[Signal], states: list[tuple[int, MarketState]], cut: int
) -> None:
    states = sorted(states, key=lambda point: point[0])
    trigger = tuple(range(0, 600, 60))

    out = fused(*signals, states=states, trigger=trigger)
    prefix = fused(*signals, states=states, trigger=trigger, seconds=float(cut))

    told = [(0.0, 0.0), *((s.score, s.confidence) for s in values(out))]
    for (score, confidence), (score_next, confidence_next) in itertools.pairwise(told):
        step = max(abs(score - score_next), abs(confidence - confidence_next))
        assert step >= 0.01 - 1e-9 or score * score_next <= 0.0 or confidence * confidence_next == 0.0
    assert prefix == [(when, s) for when, s in out if when <= T0 + timedelta(seconds=cut)]
