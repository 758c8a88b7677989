"""The score that location and spread are fitted by."""

import numpy as np
import pytest

pytest.importorskip("scipy")

from kronos_strategies.calibration.estimators import AS_SAMPLED, Move, Spread, fit_move
from kronos_strategies.evaluation.distribution.calibration import crps_ensemble, crps_fair

RANDOM = np.random.default_rng(0)
RETURNS = RANDOM.normal(0.01, 0.02, (300, 12))
RATIO, CAME = RANDOM.normal(0, 0.3, 300), RANDOM.normal(0, 0.03, 300)


def test_it_is_halfway_between_the_fair_score_and_that_of_an_ensemble():
    spread = Spread.of(RETURNS, RATIO, CAME)
    between = (crps_fair(RETURNS, CAME).mean() + crps_ensemble(RETURNS, CAME).mean()) / 2
    assert spread.crps(np.array([1.0, 0, 0]))[0] == pytest.approx(between)
    factor = np.exp(0.2 + 0.5 * RATIO)[:, None]
    center = RETURNS.mean(axis=1, keepdims=True)
    moved = 0.3 * center + factor * (RETURNS - center)
    between = (crps_fair(moved, CAME).mean() + crps_ensemble(moved, CAME).mean()) / 2
    assert spread.crps(np.array([0.3, 0.2, 0.5]))[0] == pytest.approx(between)


def test_its_gradient_is_its_slope():
    spread, at, step = Spread.of(RETURNS, RATIO, CAME), np.array([0.4, 0.1, 0.3]), 1e-7
    for i, slope in enumerate(spread.crps(at)[1]):
        up, down = (spread.crps(at + sign * step * np.eye(3)[i])[0] for sign in (1, -1))
        assert slope == pytest.approx((up - down) / (2 * step), rel=1e-3)


def test_windows_without_an_outcome_count_for_nothing():
    realized = np.where(np.arange(300) % 3, CAME, np.nan)
    kept = np.isfinite(realized)
    some, part = Spread.of(RETURNS, RATIO, realized), Spread.of(RETURNS[kept], RATIO[kept], CAME[kept])
    assert some.crps(np.zeros(3))[0] == part.crps(np.zeros(3))[0]
    assert fit_move(Spread.of(RETURNS, RATIO, CAME * np.nan), Move(0.3, 0.1, 0.2), 0.1) == Move(0.3, 0.1, 0.2)


def test_a_strong_prior_holds_the_fit_where_it_is():
    spread = Spread.of(RETURNS, RATIO, CAME)
    free, held = (fit_move(spread, AS_SAMPLED, strength) for strength in (0.0, 100.0))
    assert np.abs(np.array(held)).max() < 0.01 < np.abs(np.array(free)).max()
