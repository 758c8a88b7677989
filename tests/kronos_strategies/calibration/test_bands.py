"""Conformal factors: how often bands hold what comes."""

import numpy as np
import pandas as pd
import pytest

from kronos.paths import band_ends
from kronos_strategies.calibration.estimators import adapted_level, conformal_factor, conformity

LEVEL = 0.8


def test_an_outcome_is_just_held_by_the_band_of_its_own_score():
    random = np.random.default_rng(0)
    returns, realized = random.normal(0, 1, (200, 19)), random.standard_t(3, 200)
    scores = conformity(returns, realized, LEVEL)
    for factor, holds in ((1 + 1e-9, True), (1 - 1e-6, False)):
        low, high = band_ends(returns, LEVEL, scores * factor)
        assert (((low <= realized) & (realized <= high)) == holds).all()
    assert np.isnan(conformity(returns[:1], np.array([np.nan]), LEVEL)).all()


@pytest.mark.parametrize("known", [9, 19, 49])
def test_bands_hold_their_level_in_finite_samples_of_exchangeable_outcomes(known):
    """And by no more than 1 / (n + 1) above it, however wrong the paths are."""
    repeats, samples = 4000, 9
    random = np.random.default_rng(known)
    returns = random.normal(0.3, 0.5, (repeats * (known + 1), samples))  # off to one side, and too narrow
    realized = random.standard_t(4, repeats * (known + 1))
    scores = conformity(returns, realized, LEVEL).reshape(repeats, known + 1)
    held = [own[-1] <= conformal_factor(own[:-1], LEVEL) for own in scores]
    error = np.sqrt(LEVEL * (1 - LEVEL) / repeats)
    assert LEVEL - 3 * error < np.mean(held) < LEVEL + 1 / (known + 1) + 3 * error


def test_the_factor_is_the_corrected_quantile():
    assert conformal_factor(np.arange(1.0, 10), 0.8) == 8  # ceil(10 * .8)
    assert conformal_factor(np.arange(1.0, 10), 0.95) == 9  # beyond them all
    assert conformal_factor(np.array([1.0, np.inf, 2.0]), 0.5) == 2
    assert conformal_factor(np.array([]), 0.5) == 1


def test_the_level_rises_after_misses_falls_after_hits_and_stays_on_what_is_exchangeable():
    dates = pd.bdate_range("2020-01-01", periods=300).to_numpy("datetime64[ns]").repeat(20)
    known = dates + np.timedelta64(5, "D")
    scores = np.abs(np.random.default_rng(0).normal(size=len(dates)))
    later = dates >= dates[len(dates) // 2]
    assert adapted_level(np.where(later, 2 * scores, scores), dates, known, LEVEL) > LEVEL + 0.02
    assert adapted_level(np.where(later, scores / 2, scores), dates, known, LEVEL) < LEVEL - 0.02
    assert adapted_level(scores, dates, known, LEVEL) == pytest.approx(LEVEL, abs=0.02)
