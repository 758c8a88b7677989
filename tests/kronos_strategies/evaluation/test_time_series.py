"""Forecasts of one instrument over time, against planted truths and other libraries."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("scoringrules")
pytest.importorskip("statsmodels")
from scipy import stats as scipy_stats

from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.evaluation.time_series import (
    correlation_contributions,
    correlation_test,
    evaluate_time_series,
)


def series(size: int, r: float = 0.0, seed: int = 0) -> tuple[pd.Series, pd.Series]:
    rng = np.random.default_rng(seed)
    index = pd.bdate_range("2010-01-01", periods=size)
    x = rng.normal(size=size)
    y = r * x + np.sqrt(1 - r**2) * rng.normal(size=size)
    return pd.Series(x, index), pd.Series(0.01 * y, index)


@pytest.mark.parametrize("ranks", [False, True])
def test_the_correlation_is_that_of_scipy(ranks):
    x, y = series(300, 0.3)
    x.iloc[[3, 50]], y.iloc[[7, 50]] = np.nan, np.nan
    both = x.notna() & y.notna()
    expected = (scipy_stats.spearmanr if ranks else scipy_stats.pearsonr)(x[both], y[both]).statistic
    found = correlation_test(x, y, 1, ranks=ranks)
    assert found.mean == pytest.approx(expected, abs=1e-12)
    assert (found.dates, found.undefined) == (297, 3)


def test_the_interval_is_that_of_fisher_where_dates_are_independent():
    x, y = series(4000, 0.4)
    found = correlation_test(x, y, 1)
    fisher = (1 - found.mean**2) / np.sqrt(4000)
    assert found.std_error == pytest.approx(fisher, rel=0.12)


def test_noise_with_overlapping_labels_is_called_skill_no_more_often_than_promised():
    """Persistent forecasts and outcomes that overlap: a plain t finds skill in over a third of such noise."""
    rng, plain, honest, runs = np.random.default_rng(0), 0, 0, 300
    for _ in range(runs):
        steps = rng.normal(size=(2, 620))
        x = pd.Series(steps[0]).ewm(alpha=0.05).mean().iloc[100:600]
        y = pd.Series(steps[1]).rolling(10).sum().shift(-9).iloc[100:600]
        plain += scipy_stats.pearsonr(x, y).pvalue < 0.05
        honest += correlation_test(x, y, 10).p < 0.05
    assert plain / runs > 0.3
    assert honest / runs < 0.09


def test_a_series_that_does_not_vary_has_no_correlation():
    _, y = series(100)
    assert np.isnan(correlation_test(pd.Series(1.0, y.index), y, 1).mean)
    assert correlation_contributions(pd.Series(1.0, y.index), y).isna().all()


def market_of(closes: pd.Series, name: str = "A") -> PricePanel:
    index = pd.MultiIndex.from_arrays([closes.index, [name] * len(closes)], names=["datetime", "instrument"])
    columns = {each: closes.to_numpy() for each in ("open", "high", "low", "close")}
    return PricePanel.from_bars(pd.DataFrame(columns | {"volume": 1.0}, index))


def long(values: pd.Series, name: str = "A") -> pd.Series:
    keys = pd.MultiIndex.from_product([values.index, [name]], names=["datetime", "instrument"])
    return pd.Series(values.to_numpy(), keys, name="Kronos")


def walk(size: int = 1500, seed: int = 0, deviation: float = 0.01) -> pd.Series:
    rng = np.random.default_rng(seed)
    index = pd.bdate_range("2015-01-01", periods=size)
    return pd.Series(100 * np.exp(np.cumsum(rng.normal(0, deviation, size))), index)


def forecasts_of(
    closes: pd.Series, width: float, samples: int = 50, horizon: int = 4, every: int = 4, drift=0.0
):
    rng = np.random.default_rng(1)
    made = closes.iloc[30:-1:every]
    drift = drift if np.isscalar(drift) else drift[made.index].to_numpy()[:, None]
    ends = made.to_numpy()[:, None] * np.exp(drift + width * rng.normal(size=(len(made), samples)))
    low, high = np.quantile(ends, [0.05, 0.95], axis=1, method="weibull")
    keys = pd.MultiIndex.from_product([made.index, ["A"]], names=["datetime", "instrument"])
    frame = pd.DataFrame({"lower": low, "upper": high, "level": 0.9, "horizon": horizon}, keys)
    return frame.join(pd.DataFrame(ends, keys))


def study(closes: pd.Series, score: pd.Series, forecasts=None, **options):
    outcome = closes.shift(-4) / closes - 1
    (found,) = evaluate_time_series(
        long(score), long(outcome[score.index]), market_of(closes), 4, 4, forecasts, **options
    ).instruments
    return found


def test_signs_are_counted_and_compared_with_always_one_way():
    closes = walk()
    outcome = closes.shift(-4) / closes - 1
    score = outcome.iloc[:-4:4].copy()
    score.iloc[::5] *= -1
    found = study(closes, score)
    assert found.hit_rate.mean == pytest.approx(0.8, abs=0.01)
    rises = float((score[score != 0].abs() > 0).mean() and (outcome[score.index] > 0).mean())
    assert found.share_up == pytest.approx(rises)
    assert found.hit_rate_difference.mean == pytest.approx(found.hit_rate.mean - max(rises, 1 - rises))


def test_in_a_rising_market_always_buying_is_not_skill():
    closes = walk(seed=3) * np.exp(0.004 * np.arange(1500))
    found = study(closes, pd.Series(1.0, closes.index[:-4:4]))
    assert found.hit_rate.mean > 0.7
    assert found.hit_rate_difference.mean == 0.0
    assert np.isnan(found.correlation.mean)


def test_a_score_without_a_direction_has_no_hit_rate():
    closes = walk()
    found = study(closes, pd.Series(1.0, closes.index[:-4:4]), signed=False)
    assert found.hit_rate is None
    assert found.hit_rate_difference is None


@pytest.mark.parametrize(("width", "low", "high"), [(0.02, 0.86, 0.94), (0.01, 0.5, 0.68), (0.06, 0.98, 1.0)])
def test_coverage_is_that_of_the_band(width, low, high):
    closes = walk()
    found = study(closes, closes.iloc[30:-1:4] * 0 + 1.0, forecasts_of(closes, width))
    assert low <= found.coverage.mean <= high
    assert (found.level, found.horizon) == (0.9, 4)


def test_crps_skill_is_near_zero_for_the_walk_itself_and_positive_for_foresight():
    closes = walk()
    score = closes.iloc[30:-1:4] * 0 + 1.0
    fair = study(closes, score, forecasts_of(closes, 0.02))
    assert abs(fair.crps_skill) < 0.05
    moved = np.log(closes.shift(-4) / closes).fillna(0.0)
    knowing = study(closes, score, forecasts_of(closes, 0.01, drift=0.8 * moved))
    assert knowing.crps_skill > 0.4
    assert knowing.crps_reduction.p < 0.001
    narrow = study(closes, score, forecasts_of(closes, 0.001))
    assert narrow.crps_skill < -0.1


def test_the_walk_has_the_deviation_of_the_last_twenty_bars():
    from scoringrules import crps_normal

    closes = walk()
    forecasts = forecasts_of(closes, 0.02)
    found = study(closes, closes.iloc[30:-1:4] * 0 + 1.0, forecasts)
    days = forecasts.index.get_level_values("datetime")
    deviation = np.log(closes).diff().rolling(20).std()[days] * 2.0  # four bars
    moved = np.log(closes.shift(-4) / closes)[days]
    assert found.crps_walk == pytest.approx(np.nanmean(crps_normal(moved, 0.0, deviation)))


def test_later_bars_change_nothing_that_was_known():
    closes = walk()
    score, forecasts = closes.iloc[30:-1:4].pct_change(), forecasts_of(closes, 0.02)
    whole, cut = (
        study(closes, score, forecasts),
        study(closes.iloc[:1000], score.loc[: closes.index[990]], forecasts),
    )
    until = closes.index[980]
    pd.testing.assert_frame_equal(whole.bands.loc[:until], cut.bands.loc[:until])


def test_means_of_fifths_rise_with_a_score_that_foresees():
    closes = walk()
    outcome = (closes.shift(-4) / closes - 1).iloc[:-4:4]
    found = study(closes, outcome)
    assert len(found.bins) == 5
    assert found.bins["outcome"].is_monotonic_increasing
    assert found.bins["dates"].sum() == len(outcome)


def test_horizons_count_the_bars_of_the_instrument_not_of_others():
    """An instrument that trades on every second day of the market."""
    closes = walk(400)
    thin = walk(400, seed=5).iloc[::2]
    panel = pd.concat({"A": thin, "B": closes}, names=["instrument", "datetime"]).swaplevel().sort_index()
    frame = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), panel)).assign(volume=1.0)
    score = long(thin.iloc[30:-1:4] * 0 + 1.0)
    forecasts = forecasts_of(thin, 0.02)
    (found,) = evaluate_time_series(
        score, score * 0.0, PricePanel.from_bars(frame), 4, 4, forecasts
    ).instruments
    expected = (thin.shift(-4) / thin - 1)[found.bands.index]
    np.testing.assert_allclose(found.bands["outcome"], expected)


def test_metrics_of_one_instrument_have_plain_names_and_of_several_carry_theirs():
    closes = walk(300)
    score = long(closes.iloc[:-4:4].pct_change())
    one = evaluate_time_series(score, score, market_of(closes), 4, 4).metrics()
    assert one["time_correlation"] == pytest.approx(1.0)
    two = pd.concat([score, long(closes.iloc[:-4:4].pct_change(), "B")]).sort_index()
    both = pd.concat([closes.rename("A"), closes.rename("B")], axis=1).stack().rename("close")
    both.index.names = ["datetime", "instrument"]
    frame = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), both)).assign(volume=1.0)
    assert "time_B_hit_rate" in evaluate_time_series(two, two, PricePanel.from_bars(frame), 4, 4).metrics()
