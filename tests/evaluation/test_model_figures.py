"""A model that knows something is told from one that does not, and both from their baselines."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from foretold import CODES, TRAINING, counted, tracks

from evaluation.bootstrap import edge
from evaluation.model_figures import (
    FORECASTS,
    MODEL,
    VOLATILITIES,
    ReturnPart,
    judge_bars,
    return_part,
    sweep_part,
    token_part,
)


@cache
def told(*, knows: bool) -> ReturnPart:
    foretold, table = tracks(knows=knows)
    return return_part(foretold, table, counted(foretold))


def test_knowing_the_beat_of_volatility_is_an_edge_in_every_part_but_direction() -> None:
    foretold, _ = tracks(knows=True)

    part, tokens = told(knows=True), token_part(foretold, counted(foretold), CODES)

    assert [row.name for row in part.rows] == list(FORECASTS)
    for row in part.rows[1:]:
        assert {loss: edge(gain) for loss, gain in row.gains.items()} == dict.fromkeys(row.gains, "better")
    for one in part.volatility[1:]:
        assert one.gain is not None
        assert edge(one.gain) == "better"
        # The range is the true variance here: the same truth, seen without noise.
        assert one.range_gain is not None
        assert one.range_gain.interval is not None
        assert one.gain.interval is not None
        assert edge(one.range_gain) == "better"
        assert np.ptp(one.range_gain.interval) < np.ptp(one.gain.interval)
    assert edge(part.direction.coin) == "no edge"
    model = part.rows[0]
    assert model.figures["coverage_90"] == pytest.approx(0.9, abs=0.02)
    assert model.figures["pit"] < 0.03
    bigram, unigram = tokens.rows[1:]
    assert bigram.gain is not None
    assert edge(bigram.gain) == "better"
    assert unigram.name == "unigram"


def test_knowing_nothing_is_no_edge_over_what_training_returns_say() -> None:
    foretold, _ = tracks(knows=False)

    part, tokens = told(knows=False), token_part(foretold, counted(foretold), CODES)

    rows = {row.name: row for row in part.rows}
    # The same distribution, once through codes and once without: the codes cost next to nothing.
    assert rows["marginal"].gains["bits"].value == pytest.approx(0.0, abs=0.01)
    assert rows["marginal"].gains["crps"].value == pytest.approx(0.0, abs=0.002)
    # Expected of every bar alike: the mean square of training, less what 64 quantiles cut off the outer codes.
    z = [track.returns / track.scale for track in foretold]
    came = np.concatenate([x[track.judged] for x, track in zip(z, foretold, strict=True)])
    seen = np.concatenate([x[track.training] for x, track in zip(z, foretold, strict=True)])
    expected = np.square(came).mean() / part.volatility[0].ratio
    assert 0.9 < expected / np.square(seen).mean() < 1.0
    gain = tokens.rows[-1].gain
    assert gain is not None
    assert gain.value == pytest.approx(0.0, abs=1e-3)


def test_figures_of_a_known_case() -> None:
    foretold, table = tracks(knows=True)
    bars = judge_bars(foretold, table, counted(foretold))
    part = told(knows=True)

    assert part.bars == len(bars.came) == sum(int(track.judged.sum()) for track in foretold)
    model = part.rows[0].figures
    assert model["bits"] == pytest.approx(bars.judged[MODEL].bits.mean())
    assert part.strongest in FORECASTS
    best = bars.judged[part.strongest]
    assert part.saved[-1] == pytest.approx((best.bits - bars.judged[MODEL].bits).sum())
    assert [row.name for row in part.volatility] == list(VOLATILITIES)
    assert [row.symbol for row in part.symbols] == ["S0", "S1"]
    assert sum(row.bars for row in part.symbols) == part.bars
    assert bars.bins == part.bins == 128


def test_nothing_that_is_judged_reaches_bins_counts_or_fits() -> None:
    foretold, table = tracks(knows=True)
    changed = []
    for track in foretold:
        returns, tokens = track.returns.copy(), track.tokens.copy()
        returns[-100:] *= -1.7
        tokens[-100:] = (tokens[-100:] + 5) % CODES
        changed.append(replace(track, returns=returns, tokens=tokens))

    before, after = (judge_bars(each, table, counted(each)) for each in (foretold, changed))

    for symbol, rows in before.symbols:
        kept = slice(rows.start, rows.stop - 100)
        for name in FORECASTS:
            for column in ("bits", "bits_plain", "crps", "pit_low"):
                one, other = (getattr(bars.judged[name], column)[kept] for bars in (before, after))
                assert one.tolist() == other.tolist(), (symbol, name, column)
    assert before.told == after.told


def test_a_symbol_without_training_bars_is_left_out_by_name() -> None:
    foretold, table = tracks(knows=True)
    late = replace(foretold[1], training=foretold[1].training & (np.arange(5_500) >= TRAINING - 100))

    part = return_part([foretold[0], late], table, counted(foretold))

    assert [row.symbol for row in part.symbols] == ["S0"]
    assert part.left_out[0][0] == "S1"
    assert "500 training returns" in part.left_out[0][1]
    with pytest.raises(ValueError, match="no symbol can be judged"):
        return_part([late], table, counted(foretold))


def test_five_symbols_have_a_cross_section() -> None:
    foretold, table = tracks(knows=True, symbols=5, bars=4_800)

    ranks = return_part(foretold, table, counted(foretold)).ranks

    assert ranks.symbols == 5
    assert ranks.instants == 500
    assert ranks.ic.value is not None


def test_a_sweep_of_a_good_and_two_poor_configs_is_not_overfitted() -> None:
    good, table = tracks(knows=True)
    poor, _ = tracks(knows=False)
    tables = dict.fromkeys("abc", table)

    assert sweep_part({"a": poor, "b": good, "c": poor}, tables).value == 0.0
    assert sweep_part({"a": good}, tables).reason == "needs a sweep of at least two configs"


def test_a_sweep_compares_in_one_unit_whatever_each_checkpoint_was_trained_on() -> None:
    # The same forecasts, but one calls the calm half of the bars its training: in its own unit it would lose always.
    one, table = tracks(knows=True)
    calm = [replace(t, training=t.training & (np.abs(t.returns) < np.median(np.abs(t.returns)))) for t in one]
    unseen = [replace(t, training=np.zeros_like(t.training)) for t in one]
    tables = dict.fromkeys("ab", table)

    for other in (calm, unseen):
        for runs in ({"a": one, "b": other}, {"a": other, "b": one}):
            assert sweep_part(runs, tables).value == 1.0  # equals: the one that is chosen is at the median


def test_nothing_judged_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one judged bar"):
        token_part([], [], CODES)
