"""Distributions that paths are compared with: what they are, and that they know nothing of what comes."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("arch")

from scipy import stats

from kronos_strategies.evaluation.distribution.baselines import (
    INSTRUMENTS,
    MIN_RETURNS,
    GarchModels,
    ShrunkWalk,
    score_normal,
    score_shape,
    score_student,
)
from kronos_strategies.evaluation.distribution.calibration import crps_normal
from kronos_strategies.evaluation.distribution.path_summary import LEVELS, summarize_forecasts
from kronos_strategies.evaluation.distribution.scores import (
    EWMA,
    GARCH,
    SHRUNK_WALK,
    evaluations_by_horizon,
    score_distributions,
)
from kronos_strategies.evaluation.panel import PricePanel
from tests.kronos_strategies.evaluation.walks import market_of, tidy_bars, walks

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
    assert set(models.parameters.index) <= set(long_market.closes.columns[-INSTRUMENTS:])
    assert len(models.parameters) > INSTRUMENTS / 2
    keys = pd.MultiIndex.from_product([long_market.calendar[331:390], models.parameters.index])
    keys = keys.set_names(["datetime", "instrument"])
    next_bar, freedom = models.forecast(keys, 1)
    came = long_market.lookup(long_market.log_return(1), keys).to_numpy()
    assert np.sqrt(np.nanmean((came / next_bar) ** 2)) == pytest.approx(1, abs=0.1)
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
