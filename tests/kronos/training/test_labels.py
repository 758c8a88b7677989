from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from kronos.bars import CLOSE
from kronos.training.bar_array import (
    HORIZONS,
    MIN_INSTRUMENTS,
    VOLATILITY_BARS,
    MappedBars,
    forward_returns,
    return_labels,
)
from tests.kronos.builders import make_bars
from tests.kronos.training.builders import make_mapped_bars, make_market

NAMES, BARS = 24, 60


@pytest.fixture
def market() -> MappedBars:
    """24 names of 60 bars on the same dates, end to end."""
    return make_market(NAMES, BARS)


def by_hand(close: np.ndarray, day: int, horizon: int) -> np.ndarray:
    """Labels of (names, bars) closes on one day, written plainly."""
    returns = close[:, day + 1 + horizon] / close[:, day + 1] - 1
    steps = np.diff(np.log(close[:, : day + 1]), axis=1)
    rank = (rankdata(returns) - 1) / (len(close) - 1) - 0.5
    style = (rankdata(steps[:, -20:].std(axis=1)) - 1) / (len(close) - 1) - 0.5
    slope, intercept = np.polyfit(style, rank, 1)
    return np.sqrt(12) * (rank - slope * style - intercept)


@pytest.mark.parametrize("day", [20, 37])
@pytest.mark.parametrize("horizon", HORIZONS)
def test_a_label_is_the_rank_of_the_next_return_beyond_volatility(
    day: int, horizon: int, market: MappedBars
) -> None:
    labels = return_labels(market, None).reshape(NAMES, BARS, len(HORIZONS))
    close = market.values[:, CLOSE].astype(float).reshape(NAMES, BARS)
    got = labels[:, day, HORIZONS.index(horizon)]
    np.testing.assert_allclose(got, by_hand(close, day, horizon), atol=1e-6)
    assert np.abs(got).max() > 1


def test_a_label_begins_with_the_volatility_and_ends_with_the_stretch(market: MappedBars) -> None:
    known = np.isfinite(return_labels(market, None)).reshape(NAMES, BARS, len(HORIZONS))
    for column, horizon in enumerate(HORIZONS):
        assert not known[:, :VOLATILITY_BARS, column].any()
        assert known[:, VOLATILITY_BARS : BARS - 1 - horizon, column].all()
        assert not known[:, BARS - 1 - horizon :, column].any()


def test_no_label_reaches_beyond_the_last_training_date(market: MappedBars) -> None:
    days = market.dates[:BARS]
    until = 40
    labels = return_labels(market, str(days[until])[:10])
    known = np.isfinite(labels).reshape(NAMES, BARS, len(HORIZONS))
    for column, horizon in enumerate(HORIZONS):
        assert known[:, until - 1 - horizon, column].all()
        assert not known[:, until - horizon :, column].any()
    later = np.tile(np.arange(BARS) > until, NAMES)
    values = market.values.copy()
    values[later] *= np.random.default_rng(0).uniform(0.5, 2, (later.sum(), 1))
    scrambled = return_labels(replace(market, values=values), str(days[until])[:10])
    np.testing.assert_array_equal(scrambled, labels)


@pytest.mark.parametrize("day", [25, 33])
def test_bars_after_the_longest_horizon_do_not_affect_labels(day: int, market: MappedBars) -> None:
    labels = return_labels(market, None).reshape(NAMES, BARS, -1)
    later = np.tile(np.arange(BARS) > day + 1 + max(HORIZONS), NAMES)
    values = market.values.copy()
    values[later] *= np.random.default_rng(0).uniform(0.5, 2, (later.sum(), 1))
    scrambled = return_labels(replace(market, values=values), None).reshape(NAMES, BARS, -1)
    np.testing.assert_array_equal(scrambled[:, : day + 1], labels[:, : day + 1])
    assert not np.array_equal(scrambled, labels, equal_nan=True)


def test_a_label_never_crosses_into_the_next_stretch(market: MappedBars) -> None:
    """One instrument has a break: the bars on either side are not neighbors."""
    whole = forward_returns(market, None)
    broken = replace(market, bounds=np.sort(np.r_[market.bounds, 30]))
    returns = forward_returns(broken, None)
    for column, horizon in enumerate(HORIZONS):
        lost = np.arange(30 - 1 - horizon, 30)
        assert np.isnan(returns[lost, column]).all()
        kept = np.setdiff1d(np.arange(len(returns)), lost)
        np.testing.assert_array_equal(returns[kept, column], whole[kept, column])
    # After the break the volatility begins again, and the other instruments are ranked without this one.
    labels = return_labels(broken, None).reshape(NAMES, BARS, -1)
    assert np.isnan(labels[0, 30 : 30 + VOLATILITY_BARS]).all()
    close = market.values[:, CLOSE].astype(float).reshape(NAMES, BARS)
    np.testing.assert_allclose(labels[1:, 35, 0], by_hand(close[1:], 35, 1), atol=1e-6)


@pytest.mark.parametrize("names", [MIN_INSTRUMENTS - 1, MIN_INSTRUMENTS])
def test_a_date_with_few_instruments_has_no_label(names: int) -> None:
    labels = return_labels(make_market(names, 40), None)
    assert np.isfinite(labels).any() == (names == MIN_INSTRUMENTS)


def test_bars_are_counted_by_position_and_ranked_by_date() -> None:
    """A name that was suspended for a week: its next bar is the one after the week."""
    series = [make_bars(BARS, seed) for seed in range(NAMES)]
    series[0] = series[0].drop(series[0].index[30:35])
    mapped = make_mapped_bars(*series)
    returns = forward_returns(mapped, None)
    close = series[0]["close"].to_numpy(np.float32).astype(float)
    assert returns[28, 0] == pytest.approx(close[30] / close[29] - 1)
    labels = pd.DataFrame(return_labels(mapped, None), index=pd.DatetimeIndex(mapped.dates))
    assert labels.loc[series[1].index[32]].notna().sum().tolist() == [NAMES - 1] * len(HORIZONS)
    assert labels.loc[series[1].index[28]].notna().sum().tolist() == [NAMES] * len(HORIZONS)
