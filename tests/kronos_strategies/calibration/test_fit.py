"""Fits recover known parameters, use nothing later, and improve forecasts of later dates."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("scipy")

from kronos.calibration import Calibration
from kronos.forecast import Forecast
from kronos.paths import POOL, band_ends
from kronos_strategies.calibration import before_and_after, calibrate, collect, fit_calibration
from kronos_strategies.calibration.fit import (
    AS_SAMPLED,
    LEVELS,
    Move,
    Spread,
    adapted_level,
    conformal_factor,
    conformity,
    fit_move,
)
from kronos_strategies.evaluation.distribution.metrics import crps_ensemble, crps_fair
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.lookahead import check_causal
from kronos_strategies.signal import signals
from tests.kronos_strategies.evaluation.walks import NAMES, forecast, market_of, tidy_bars

from .known import PROVENANCE, H, S, joined, known_past

END = pd.Timestamp("2030-01-01")


@pytest.mark.parametrize(
    ("location", "spread", "trailing"), [(0.4, 0.4, 0.0), (0.9, -0.3, 0.5), (0.0, 0.1, 1.0)]
)
def test_a_known_miscalibration_is_recovered(location, spread, trailing):
    fit = fit_calibration(known_past(location, spread, trailing), END)
    moves = fit.groups[POOL]
    np.testing.assert_allclose(moves.location, location, atol=0.06)
    np.testing.assert_allclose(moves.spread, spread, atol=0.05)
    np.testing.assert_allclose(moves.trailing, trailing, atol=0.08)


def test_calibrated_paths_stay_nearly_unchanged():
    past = known_past(1.0, 0.0, 0.0)
    fit = fit_calibration(past, END)
    moved = fit.shift(past.returns, past.trailing, past.keys)
    assert np.abs(moved).mean() < 0.03 * past.returns.std()
    # Quantiles of even draws at Weibull positions lie a little too far out: see `covered`.
    assert all(0.85 < factor < 1 for level in LEVELS for factor in fit.bands[level])


def test_on_later_dates_a_calibrated_forecast_scores_better_and_its_bands_have_their_coverage():
    past, market = known_past(dates=160), market_of(tidy_bars())
    start = past.dates.unique()[100]
    fit = fit_calibration(past, start)
    later = past[np.asarray(past.dates > start)]
    shift = fit.shift(later.returns, later.trailing, later.keys)
    from kronos_strategies.evaluation.distribution.metrics import covered, crps_fair

    for h in range(H):
        raw, moved = later.returns[:, :, h], later.returns[:, :, h] + shift[:, :, h]
        assert (
            crps_fair(moved, later.realized[:, h]).mean() < 0.95 * crps_fair(raw, later.realized[:, h]).mean()
        )
        for level in LEVELS:
            held = covered(moved, later.realized[:, h], level, fit.band_factor(level)[h]).mean()
            assert held == pytest.approx(level, abs=0.03)
        assert covered(raw, later.realized[:, h], 0.9).mean() < 0.8
    assert market is not None


def test_outcomes_known_after_a_date_do_not_change_the_fit_of_that_date():
    past, rng = known_past(), np.random.default_rng(5)
    day = past.dates.unique()[60]
    late = past.known > np.datetime64(day)
    other = replace(past, realized=np.where(late, rng.normal(0, 1, past.realized.shape), past.realized))
    assert late.any()
    assert fit_calibration(other, day, ("volatility",)) == fit_calibration(past, day, ("volatility",))
    assert not np.isfinite(past.at(day).realized[-1]).all()


def test_groups_are_fitted_separately_and_small_ones_shrink_to_the_fit_of_all():
    wide = known_past(0.4, 0.5, names=40, prefix="SH6")
    narrow = known_past(0.4, -0.2, names=40, prefix="SZ0", seed=1)
    tiny = known_past(0.4, 0.5, names=1, prefix="BJ4", seed=2)
    fit = fit_calibration(joined(wide, narrow, tiny), END, ("exchange",))
    assert set(fit.groups) == {POOL, "SH", "SZ"}  # 120 windows of BJ are too few
    assert fit.groups["SH"].spread[0] > fit.groups[POOL].spread[0] + 0.15
    assert fit.groups["SZ"].spread[0] < fit.groups[POOL].spread[0] - 0.15
    both = fit_calibration(joined(wide, narrow), END, ("exchange", "volatility"))
    assert "SZ low volatility" in both.groups


def test_outcomes_of_too_few_dates_are_refused():
    with pytest.raises(ValueError, match=r"Outcomes of 9 forecast dates .*needs 8"):
        fit_calibration(known_past(dates=9), END)


def test_an_unknown_group_is_refused():
    with pytest.raises(ValueError, match=r"groups=\['sector'\] are unknown"):
        fit_calibration(known_past(), END, ("sector",))


# From bars to calibrated forecasts


def narrow_forecasts(market: PricePanel, at: range) -> list[Forecast]:
    """Random walks with half of each name's volatility of the last 20 bars: all of it known at the close."""
    found, known = [], np.log(market.last_close).diff().rolling(20).std().to_numpy()
    even = np.random.default_rng(0).standard_normal((1, S, H))
    for t in at:
        made = forecast(t, market.last_close.iloc[t].to_numpy(), 0.5 * even * known[t][:, None, None], NAMES)
        here = (
            np.isfinite(made.last_bar[:, 3])
            & np.isfinite(known[t])
            & market.closes.iloc[t].notna().to_numpy()
        )
        made = replace(made, provenance=PROVENANCE, trailing_volatility=known[t].astype(np.float32))
        found.append(made[np.flatnonzero(here)])
    return found


@pytest.fixture(scope="module")
def walking() -> tuple[Calibration, PricePanel]:
    market = market_of(tidy_bars())
    past = collect(narrow_forecasts(market, range(30, 100)), market)
    return calibrate(past, market, "walks", 20, pd.Timestamp("2030-01-01"), every=10), market


def test_a_walk_forward_calibration_widens_narrow_bands_and_reports_the_gain(walking):
    made, _ = walking
    assert made.walk_forward
    assert len(made.fits) == 5
    assert [fit.known_at for fit in made.fits] == sorted(fit.known_at for fit in made.fits)
    last = {row["forecast"]: row for row in made.table if row["horizon"] == 1}
    assert last["calibrated"]["crps"] < last["as sampled"]["crps"]
    assert last["as sampled"]["coverage_90"] < 0.75
    assert last["calibrated"]["coverage_90"] == pytest.approx(0.9, abs=0.05)
    assert last["Gaussian random walk"]["skill"] == pytest.approx(0, abs=1e-12)
    assert {"as sampled", "calibrated", "Gaussian random walk"} <= set(last)


def test_scrambling_all_bars_after_t_changes_no_calibrated_signal_up_to_t():
    def run(bars: pd.DataFrame) -> pd.DataFrame:
        market = market_of(bars)
        forecasts = narrow_forecasts(market, range(30, 90))
        made = calibrate(collect(forecasts, market), market, "walks", 20, pd.Timestamp("2030-01-01"), every=7)
        return pd.concat([signals(each.calibrated(made), hold=1) for each in forecasts])

    calendar = market_of(tidy_bars()).calendar
    check_causal(run, tidy_bars(), [calendar[60], calendar[77]])


def test_one_fit_is_evaluated_on_dates_that_it_was_not_fitted_to(walking):
    _, market = walking
    past = collect(narrow_forecasts(market, range(30, 100)), market)
    made = calibrate(past, market, "walks", 20, pd.Timestamp("2030-01-01"))
    assert not made.walk_forward
    assert len(made.fits) == 1
    held_back = past.dates.unique()[int(len(past.at(END).dates.unique()) * 0.7)]
    assert made.table[0]["first"] == f"{held_back:%Y-%m-%d}"
    trial = replace(made, fits=(fit_calibration(past, held_back),), table=())
    assert before_and_after(past.between(held_back, None), trial, market, LEVELS) == made.table


def test_a_limit_keeps_every_date_and_alternates_among_instruments(walking):
    _, market = walking
    forecasts = narrow_forecasts(market, range(30, 50))
    part = collect(forecasts, market, limit=200, dates=20)
    assert len(part) == 200
    assert part.dates.nunique() == 20
    assert part.keys.get_level_values("instrument").nunique() == len(NAMES)


def test_calibrated_forecasts_are_no_data_to_fit_to(walking):
    made, market = walking
    one = narrow_forecasts(market, range(90, 91))[0]
    with pytest.raises(ValueError, match="already calibrated"):
        collect([one.calibrated(made)], market)
    with pytest.raises(ValueError, match="no forecasts to calibrate"):
        collect([], market)


RANDOM = np.random.default_rng(0)
RETURNS = RANDOM.normal(0.01, 0.02, (300, 12))
RATIO, REALIZED = RANDOM.normal(0, 0.3, 300), RANDOM.normal(0, 0.03, 300)


def test_the_loss_is_halfway_between_the_fair_crps_and_that_of_an_ensemble():
    spread = Spread.of(RETURNS, RATIO, REALIZED)
    between = (crps_fair(RETURNS, REALIZED).mean() + crps_ensemble(RETURNS, REALIZED).mean()) / 2
    assert spread.crps(np.array([1.0, 0, 0]))[0] == pytest.approx(between)
    factor = np.exp(0.2 + 0.5 * RATIO)[:, None]
    center = RETURNS.mean(axis=1, keepdims=True)
    moved = 0.3 * center + factor * (RETURNS - center)
    between = (crps_fair(moved, REALIZED).mean() + crps_ensemble(moved, REALIZED).mean()) / 2
    assert spread.crps(np.array([0.3, 0.2, 0.5]))[0] == pytest.approx(between)


def test_the_gradient_of_the_loss_is_that_of_finite_differences():
    spread, at, step = Spread.of(RETURNS, RATIO, REALIZED), np.array([0.4, 0.1, 0.3]), 1e-7
    for i, slope in enumerate(spread.crps(at)[1]):
        up, down = (spread.crps(at + sign * step * np.eye(3)[i])[0] for sign in (1, -1))
        assert slope == pytest.approx((up - down) / (2 * step), rel=1e-3)


def test_windows_without_an_outcome_do_not_change_the_loss():
    realized = np.where(np.arange(300) % 3, REALIZED, np.nan)
    kept = np.isfinite(realized)
    some, part = Spread.of(RETURNS, RATIO, realized), Spread.of(RETURNS[kept], RATIO[kept], REALIZED[kept])
    assert some.crps(np.zeros(3))[0] == part.crps(np.zeros(3))[0]
    assert fit_move(Spread.of(RETURNS, RATIO, REALIZED * np.nan), Move(0.3, 0.1, 0.2), 0.1) == Move(
        0.3, 0.1, 0.2
    )


def test_a_strong_prior_keeps_the_fit_at_the_prior():
    spread = Spread.of(RETURNS, RATIO, REALIZED)
    free, held = (fit_move(spread, AS_SAMPLED, strength) for strength in (0.0, 100.0))
    assert np.abs(np.array(held)).max() < 0.01 < np.abs(np.array(free)).max()


LEVEL = 0.8


def test_an_outcome_is_on_the_edge_of_the_band_of_its_own_score():
    random = np.random.default_rng(0)
    returns, realized = random.normal(0, 1, (200, 19)), random.standard_t(3, 200)
    scores = conformity(returns, realized, LEVEL)
    for factor, holds in ((1 + 1e-9, True), (1 - 1e-6, False)):
        low, high = band_ends(returns, LEVEL, scores * factor)
        assert (((low <= realized) & (realized <= high)) == holds).all()
    assert np.isnan(conformity(returns[:1], np.array([np.nan]), LEVEL)).all()


@pytest.mark.parametrize("known", [9, 19, 49])
def test_bands_have_their_coverage_in_finite_samples_of_exchangeable_outcomes(known):
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


def test_the_level_rises_after_misses_falls_after_hits_and_stays_for_exchangeable_outcomes():
    dates = pd.bdate_range("2020-01-01", periods=300).to_numpy("datetime64[ns]").repeat(20)
    known = dates + np.timedelta64(5, "D")
    scores = np.abs(np.random.default_rng(0).normal(size=len(dates)))
    later = dates >= dates[len(dates) // 2]
    assert adapted_level(np.where(later, 2 * scores, scores), dates, known, LEVEL) > LEVEL + 0.02
    assert adapted_level(np.where(later, scores / 2, scores), dates, known, LEVEL) < LEVEL - 0.02
    assert adapted_level(scores, dates, known, LEVEL) == pytest.approx(LEVEL, abs=0.02)
