"""Baselines use the closes they say and no later one, and are scored by one rule."""

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.evaluation.baselines import (
    BASELINES,
    MIN_COVERAGE,
    baseline_scores,
    low_volatility_20,
    momentum_12_1,
    reversal_5,
    reversal_20,
)
from kronos_strategies.lookahead import randomize_future
from tests.kronos_strategies.evaluation.walks import DAYS, NAMES, market_of, tidy_bars

LONGEST = 252  # bars of history that the longest baseline needs
AT = 270  # the bar that is looked at; 30 follow


@pytest.fixture
def closes() -> pd.DataFrame:
    """300 bars x 4 names."""
    steps = np.random.default_rng(0).normal(0, 0.02, (300, 4))
    dates = pd.bdate_range("2023-01-02", periods=300)
    return pd.DataFrame(10 * np.exp(steps.cumsum(axis=0)), index=dates, columns=list("ABCD"))


def test_momentum_is_the_return_from_252_to_21_bars_ago(closes):
    expected = closes.iloc[AT - 21] / closes.iloc[AT - 252] - 1
    np.testing.assert_allclose(momentum_12_1(closes).iloc[AT], expected)


@pytest.mark.parametrize(("score", "bars"), [(reversal_5, 5), (reversal_20, 20)])
def test_reversal_is_minus_the_return_of_so_many_bars(closes, score, bars):
    expected = -(closes.iloc[AT] / closes.iloc[AT - bars] - 1)
    np.testing.assert_allclose(score(closes).iloc[AT], expected)


def test_low_volatility_is_minus_the_deviation_of_20_returns(closes):
    window = closes.iloc[AT - 20 : AT + 1].to_numpy()
    expected = -np.std(window[1:] / window[:-1] - 1, axis=0, ddof=1)
    np.testing.assert_allclose(low_volatility_20(closes).iloc[AT], expected)


@pytest.mark.parametrize("name", BASELINES)
def test_no_baseline_uses_a_later_close(closes, name):
    scrambled = closes.copy()
    scrambled.iloc[AT + 1 :] = scrambled.iloc[AT + 1 :].to_numpy()[::-1] * 7
    before, after = BASELINES[name](closes), BASELINES[name](scrambled)
    pd.testing.assert_frame_equal(before.iloc[: AT + 1], after.iloc[: AT + 1], check_exact=True)
    assert not before.iloc[AT + 1 :].equals(after.iloc[AT + 1 :])


@pytest.mark.parametrize("name", BASELINES)
def test_a_truncated_history_scores_its_last_bar_the_same(closes, name):
    whole, cut = BASELINES[name](closes), BASELINES[name](closes.iloc[: AT + 1])
    pd.testing.assert_series_equal(whole.iloc[AT], cut.iloc[-1], check_exact=True)


@pytest.mark.parametrize("name", BASELINES)
def test_the_stated_history_is_enough_and_less_is_not_for_the_longest(closes, name):
    score = BASELINES[name]
    last = score(closes.iloc[AT - LONGEST : AT + 1]).iloc[-1]
    np.testing.assert_allclose(last, score(closes).iloc[AT], rtol=1e-9)
    longest = momentum_12_1(closes.iloc[AT - LONGEST + 1 : AT + 1]).iloc[-1]
    assert longest.isna().all()


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_does_not_depend_on_other_instruments_or_the_price_level(closes, name):
    scores = BASELINES[name](closes)
    assert scores.shape == closes.shape
    changed = closes.assign(A=closes["A"] * 1000, D=closes["D"].to_numpy()[::-1])
    rescaled = BASELINES[name](changed)
    np.testing.assert_allclose(rescaled[["A", "B", "C"]], scores[["A", "B", "C"]], rtol=1e-6, atol=1e-12)


def test_winners_losers_and_low_volatility_score_high():
    days = pd.bdate_range("2023-01-02", periods=300)
    step = np.arange(300)
    closes = pd.DataFrame(
        {"winner": 1.001**step, "loser": 0.999**step, "wild": 1 + 0.1 * (step % 2)}, index=days
    )
    assert momentum_12_1(closes).iloc[-1].idxmax() == "winner"
    for reversal in (reversal_5, reversal_20):
        assert reversal(closes[["winner", "loser"]]).iloc[-1].idxmax() == "loser"
    assert low_volatility_20(closes).iloc[-1].idxmin() == "wild"


def test_a_gap_leaves_momentum_and_reversal_undefined_and_volatility_with_fewer_returns(closes):
    gapped = closes.copy()
    gapped.loc[gapped.index[AT - 5], "A"] = np.nan
    assert np.isnan(reversal_5(gapped).iloc[AT]["A"])
    assert np.isnan(momentum_12_1(gapped).iloc[AT + 16]["A"])
    kept = closes["A"].pct_change().iloc[AT - 19 : AT + 1].drop(closes.index[[AT - 5, AT - 4]])
    np.testing.assert_allclose(low_volatility_20(gapped).iloc[AT]["A"], -kept.std(), rtol=1e-9)


def test_a_baseline_with_a_value_on_less_than_half_of_the_rows_is_left_out_and_named():
    prices = market_of(tidy_bars())
    index = pd.MultiIndex.from_product([DAYS[10:30], NAMES], names=["datetime", "instrument"])
    scores, warnings = baseline_scores(prices, index)
    assert "5-day reversal" in scores
    assert scores.notna().mean().min() >= MIN_COVERAGE
    left_out = set(BASELINES) - set(scores)
    assert left_out == {warning.partition(" is left out")[0] for warning in warnings}
    assert "12-1 momentum" in left_out


def test_baseline_scores_are_those_of_the_last_known_closes_and_know_no_later_bar():
    bars = tidy_bars()
    halted = bars[(bars["datetime"] != DAYS[60]) | (bars["instrument"] != NAMES[3])]
    index = pd.MultiIndex.from_product([DAYS[50:70], NAMES], names=["datetime", "instrument"])
    scores, _ = baseline_scores(market_of(halted), index)
    closes = halted.pivot(index="datetime", columns="instrument", values="close").ffill()
    assert scores["5-day reversal"][DAYS[60], NAMES[3]] == reversal_5(closes).loc[DAYS[60], NAMES[3]]
    later, _ = baseline_scores(market_of(randomize_future(halted, DAYS[60])), index)
    known = index.get_level_values("datetime") <= DAYS[60]
    pd.testing.assert_frame_equal(later[known], scores[known])


def test_baselines_of_bars_that_are_not_days_are_named_by_bars():
    index = pd.MultiIndex.from_product([DAYS[50:70], NAMES], names=["datetime", "instrument"])
    scores, _ = baseline_scores(market_of(tidy_bars()), index, daily=False)
    assert not [name for name in scores if "day" in name]
