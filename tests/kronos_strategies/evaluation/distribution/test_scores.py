"""Planted forecasts get the scores they deserve, and no bar beyond the label counts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest

from kronos.forecast import Forecast
from kronos_strategies.evaluation.distribution.metrics import crps_normal
from kronos_strategies.evaluation.distribution.path_summary import LEVELS, summarize_forecasts
from kronos_strategies.evaluation.distribution.scores import (
    HISTORICAL,
    MODEL,
    RANDOM_WALK,
    DistributionScore,
    VolatilityScore,
    evaluations_by_horizon,
    score_distributions,
    score_volatilities,
    series_by_date,
)
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.lookahead import randomize_future
from tests.kronos_strategies.evaluation.walks import (
    AT,
    DAYS,
    HORIZONS,
    NAMES,
    forecast,
    market_of,
    oracles,
    tidy_bars,
    walks,
)


@dataclass(frozen=True)
class Scores:
    distributions: tuple[DistributionScore, ...]
    volatilities: tuple[VolatilityScore, ...]

    @property
    def by_date(self) -> pd.DataFrame:
        return series_by_date((*self.distributions, *self.volatilities))


def score(forecasts: Iterable[Forecast], market: PricePanel, horizons: Sequence[int] = HORIZONS) -> Scores:
    kept, _ = summarize_forecasts(forecasts, market, horizons, hold=1)
    rows = evaluations_by_horizon(kept.summary, market)
    return Scores(
        tuple(found for each in rows for found in score_distributions(each, LEVELS)),
        tuple(found for each in rows for found in score_volatilities(each)),
    )


@pytest.fixture(scope="module")
def market() -> PricePanel:
    return market_of(tidy_bars())


@pytest.fixture(scope="module")
def scores(market) -> Scores:
    return score(walks(market), market)


def volatility(
    scores: Scores, name: str, measure: str = "close-to-close", horizon: int = 5
) -> VolatilityScore:
    wanted = (name, measure, horizon)
    return next(s for s in scores.volatilities if (s.name, s.measure, s.horizon) == wanted)


def distribution(scores: Scores, name: str, horizon: int = 5) -> DistributionScore:
    return next(s for s in scores.distributions if (s.name, s.horizon) == (name, horizon))


def test_a_forecast_that_knows_the_future_has_perfect_scores(market):
    scores = score(oracles(market), market)
    for horizon in HORIZONS:
        assert volatility(scores, MODEL, horizon=horizon).rank_ic.mean == pytest.approx(1, abs=1e-3)
        assert distribution(scores, MODEL, horizon).crps.mean == pytest.approx(0, abs=1e-5)


def test_true_volatility_beats_that_of_the_last_20_days(scores):
    for measure in ("close-to-close", "range-based"):
        naive = volatility(scores, HISTORICAL, measure)
        assert naive.rank_ic_difference.low > 0
        assert volatility(scores, MODEL, measure).rank_ic.mean - naive.rank_ic.mean == pytest.approx(
            naive.rank_ic_difference.mean
        )
    assert volatility(scores, HISTORICAL).qlike_difference.high < 0


def test_a_true_distribution_is_calibrated_and_beats_the_random_walk(scores):
    found = distribution(scores, MODEL)
    assert found.coverage[0.8].mean == pytest.approx(0.8, abs=0.03)
    assert found.coverage[0.9].mean == pytest.approx(0.9, abs=0.03)
    assert found.pit_mean == pytest.approx(0.5, abs=0.06)
    assert found.pit_deviation == pytest.approx(0.289, abs=0.02)
    assert found.skill > found.skill_ensemble
    assert distribution(scores, RANDOM_WALK).skill == 0
    assert distribution(scores, RANDOM_WALK).crps_difference.mean < 0


@pytest.mark.parametrize("horizon", HORIZONS)
def test_the_random_walk_is_normal_with_the_deviation_of_20_days_times_the_root_of_the_horizon(
    market, scores, horizon
):
    realized = np.log(market.closes.shift(-horizon) / market.closes)
    scale = market.closes.pct_change().rolling(20).std() * np.sqrt(horizon)
    within = [(realized.abs() <= z * scale).iloc[AT].to_numpy().mean() for z in (1.2815516, 1.6448536)]
    found = distribution(scores, RANDOM_WALK, horizon)
    assert [found.coverage[level].mean for level in (0.8, 0.9)] == pytest.approx(within)
    assert within == pytest.approx([0.8, 0.9], abs=0.05)
    crps = crps_normal(np.zeros(realized.shape), scale.to_numpy(), realized.to_numpy())[AT]
    assert found.crps.mean == found.crps_ensemble.mean == pytest.approx(crps.mean())


def test_paths_with_half_of_the_volatility_have_too_low_coverage(market):
    def halved() -> Iterator[Forecast]:
        for each in walks(market):
            start = each.last_bar[:, None, None, :1]
            yield replace(each, paths=start * np.sqrt(each.paths / start))

    found = score(halved(), market, (5,))
    assert distribution(found, MODEL).coverage[0.9].mean < 0.7
    assert distribution(found, MODEL).pit_deviation > 0.33
    assert volatility(found, HISTORICAL).qlike_difference.low > 0


def test_a_band_that_the_samples_cannot_reach_is_left_out(market):
    found = distribution(score(walks(market, samples=10), market, (5,)), MODEL)
    assert found.coverage[0.9] is None
    assert found.coverage[0.8].mean == pytest.approx(0.8, abs=0.05)


def test_dates_without_an_outcome_yet_are_undefined():
    bars = tidy_bars()
    market = market_of(bars[bars["datetime"] <= DAYS[AT[-1]]])
    found = score(walks(market), market, HORIZONS)
    assert distribution(found, MODEL, 5).crps.undefined == 5
    assert distribution(found, MODEL, 1).crps.undefined == 1


def test_a_path_below_zero_leaves_the_metrics_of_all_outcomes_defined(market):
    def violent() -> Iterator[Forecast]:
        for each in walks(market):
            each.paths[0, 0, 2:] = -1
            yield each

    found = score(violent(), market, HORIZONS)
    assert distribution(found, MODEL).outcomes == len(AT) * len(NAMES)


def test_paths_of_another_market_are_refused(market):
    stranger = forecast(AT[0], np.ones(1), np.zeros((1, 2, 2)), ["OTHER"])
    with pytest.raises(ValueError, match=r"1 rows are on dates or instruments .*'OTHER'"):
        score([stranger], market, (1,))


def test_paths_that_are_too_short_are_refused(market):
    with pytest.raises(ValueError, match="Forecast 7 bars"):
        score(walks(market), market, (1, 6))


@pytest.mark.parametrize(("every", "overlap"), [(1, 5), (2, 3), (5, 1), (7, 1)])
def test_thinned_dates_overlap_less(market, scores, every, overlap):
    thin = score(walks(market, AT[::every]), market, (5,))
    assert volatility(thin, MODEL).qlike.overlap == distribution(thin, MODEL).crps.overlap == overlap
    every_date = distribution(scores, MODEL).by_date.iloc[::every]
    pd.testing.assert_frame_equal(distribution(thin, MODEL).by_date, every_date, check_freq=False)


def test_bars_beyond_the_label_change_nothing(market):
    forecasts, end = list(walks(market)), AT[-1] - 20
    one = score(forecasts, market).by_date
    other = score(forecasts, market_of(randomize_future(tidy_bars(), DAYS[end]))).by_date
    settled = one["datetime"] <= DAYS[end - max(HORIZONS)]
    assert 0 < settled.sum() < len(one)
    pd.testing.assert_frame_equal(one[settled], other[settled])
    assert not one[~settled].equals(other[~settled])


def test_series_by_date_are_those_that_the_means_are_of(scores):
    long = scores.by_date
    assert list(long.columns) == ["datetime", "horizon", "of", "name", "measure", "value"]
    assert not long.duplicated(["datetime", "horizon", "of", "name", "measure"]).any()
    some = long.query(
        "horizon == 5 and of == 'range-based volatility' and name == @HISTORICAL and measure == 'qlike'"
    )
    assert some["value"].mean() == pytest.approx(volatility(scores, HISTORICAL, "range-based").qlike.mean)
