"""Baselines use the documented closes and no later one, and are scored by one rule."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("arch")

from scipy import stats

from kronos_strategies.evaluation.baselines import (
    BASELINES,
    GARCH_INSTRUMENTS,
    MIN_COVERAGE,
    MIN_RETURNS,
    GarchModels,
    ShrunkWalk,
    baseline_scores,
    low_volatility_20,
    momentum_12_1,
    reversal_5,
    reversal_20,
    score_normal,
    score_shape,
    score_student,
)
from kronos_strategies.evaluation.distribution.metrics import crps_normal
from kronos_strategies.evaluation.distribution.path_summary import LEVELS, summarize_forecasts
from kronos_strategies.evaluation.distribution.scores import (
    EWMA,
    GARCH,
    SHRUNK_WALK,
    evaluations_by_horizon,
    score_distributions,
)
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.lookahead import randomize_future
from tests.kronos_strategies.evaluation.walks import DAYS, NAMES, market_of, tidy_bars, walks

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


RANDOM = np.random.default_rng(0)
BANDS = (0.5, 0.9)
CAME, DEVIATION = RANDOM.normal(0, 0.02, 400), np.exp(RANDOM.normal(-4, 0.3, 400))


def test_a_shape_of_normal_quantiles_and_a_t_of_many_degrees_are_scored_as_a_normal():
    truth = crps_normal(np.zeros(400), DEVIATION, CAME)
    shape = stats.norm.ppf((np.arange(4000) + 0.5) / 4000)
    for found in (
        score_normal(DEVIATION, CAME, BANDS),
        score_shape(DEVIATION, shape, CAME, BANDS),
        score_student(DEVIATION, np.full(400, 1e5), CAME, BANDS),
    ):
        np.testing.assert_allclose(found["crps"], truth, rtol=2e-3)
        np.testing.assert_allclose(found["pit"], stats.norm.cdf(CAME / DEVIATION), atol=1e-3)
        inside = np.abs(CAME / DEVIATION) <= stats.norm.ppf(0.95)
        assert (found["covered_90"] == inside).mean() > 0.995


def test_what_has_no_deviation_has_no_score():
    for found in (
        score_normal(np.zeros(400), CAME, BANDS),
        score_shape(np.full(400, np.nan), np.array([-1.0, 1.0]), CAME, BANDS),
        score_student(DEVIATION, np.full(400, 1.5), CAME, BANDS),
    ):
        assert found.isna().all(axis=None)


@pytest.fixture(scope="module")
def long_market() -> PricePanel:
    """400 bars of 25 names whose volatility clusters, as a GARCH(1, 1) with alpha .1 and beta .85 has it."""
    random, days, names = np.random.default_rng(1), 400, 25
    steps, variance = np.empty((days, names)), np.full(names, 4e-4)
    for t in range(days):
        steps[t] = np.sqrt(variance) * random.standard_normal(names)
        variance = 4e-4 * 0.05 + 0.1 * steps[t] ** 2 + 0.85 * variance
    closes = pd.DataFrame(
        20 * np.exp(steps.cumsum(axis=0)),
        pd.bdate_range("2020-01-01", periods=days, name="datetime"),
        pd.Index([f"N{i:02d}" for i in range(names)], name="instrument"),
    )
    amounts = closes * 0 + np.arange(1.0, names + 1)
    return PricePanel(closes, closes, amounts, closes * 0 + 1e-4)


def altered(market: PricePanel, after: pd.Timestamp) -> PricePanel:
    later = np.asarray(market.calendar > after)[:, None]
    noise = np.random.default_rng(3).lognormal(0, 0.3, market.closes.shape)
    closes = market.closes * np.where(later, noise, 1.0)
    return PricePanel(closes, closes, market.amounts, market.range_variance)


def test_nothing_after_the_first_forecast_decides_a_baseline(long_market):
    first = long_market.calendar[330]
    other = altered(long_market, first)
    walk, same = (ShrunkWalk.fit(market, 5, first) for market in (long_market, other))
    assert (walk.slope, walk.center) == (same.slope, same.center)
    np.testing.assert_array_equal(walk.shape, same.shape)
    names = long_market.closes.columns
    models, again = (GarchModels.fit(market, names, first) for market in (long_market, other))
    pd.testing.assert_frame_equal(models.parameters, again.parameters)
    pd.testing.assert_frame_equal(models.variances.loc[:first], again.variances.loc[:first])
    pd.testing.assert_frame_equal(long_market.ewma.loc[:first], other.ewma.loc[:first])


def test_the_shrunk_walk_covers_what_it_was_fitted_to_and_draws_volatility_to_the_average(long_market):
    walk = ShrunkWalk.fit(long_market, 1, long_market.calendar[330])
    assert 0 < walk.slope < 1
    low, high = walk.scale(np.array([0.01, 0.04]))
    assert 1 < high / low < 4
    assert np.isnan(walk.scale(np.array([0.0])))[0]
    assert ShrunkWalk.fit(long_market, 1, long_market.calendar[60]) is None


def test_garch_of_the_most_traded_instruments_finds_the_volatility_of_the_next_bar(long_market):
    first = long_market.calendar[330]
    models = GarchModels.fit(long_market, long_market.closes.columns, first)
    assert set(models.parameters.index) <= set(long_market.closes.columns[-GARCH_INSTRUMENTS:])
    assert len(models.parameters) > GARCH_INSTRUMENTS / 2
    keys = pd.MultiIndex.from_product([long_market.calendar[331:390], models.parameters.index])
    keys = keys.set_names(["datetime", "instrument"])
    next_bar, freedom = models.forecast(keys, 1)
    realized = long_market.lookup(long_market.log_return(1), keys).to_numpy()
    assert np.sqrt(np.nanmean((realized / next_bar) ** 2)) == pytest.approx(1, abs=0.1)
    assert (freedom > 2).all()
    longer, more = models.forecast(keys, 10)
    assert (longer > next_bar).all()
    assert (more >= freedom).all()
    stranger = pd.MultiIndex.from_tuples([(first, "N00")], names=["datetime", "instrument"])
    assert np.isnan(models.forecast(stranger, 1)[0]).all()
    assert (
        GarchModels.fit(long_market, long_market.closes.columns, long_market.calendar[MIN_RETURNS - 2])
        is None
    )


def names_of_baselines(market: PricePanel, at: range) -> set[str]:
    kept, _ = summarize_forecasts(walks(market, at), market, (1,), hold=1)
    (rows,) = evaluations_by_horizon(kept.summary, market)
    return {score.name for score in score_distributions(rows, LEVELS)}


def test_only_baselines_that_the_history_is_long_enough_for_are_scored():
    market = market_of(tidy_bars())
    names = names_of_baselines(market, range(85, 90))
    assert {EWMA, SHRUNK_WALK} <= names  # 85 bars
    assert GARCH not in names
    assert SHRUNK_WALK not in names_of_baselines(market, range(30, 35))
