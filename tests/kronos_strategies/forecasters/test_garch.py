"""GARCH: known answers, the anchors of its fits, and warnings where a fit fails."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

from kronos.bars import stamps
from kronos.config import SampleConfig
from kronos.windows import Windows
from kronos_strategies.forecasters import load_forecaster

from .builders import candles, garch_returns, market, uniforms_of, windows_of

pytest.importorskip("arch")

from kronos_strategies.forecasters import garch
from kronos_strategies.forecasters.candles import PastCandles
from kronos_strategies.forecasters.volatility import GarchFit, filter_variances

KNOWN = GarchFit(omega=0.04, alpha=0.05, gamma=0.06, beta=0.88, freedom=8.0)
MANY = SampleConfig(samples=8192)


def test_the_sampled_variance_is_the_closed_form():
    windows = windows_of(market(2, 300), horizon=6, last=1)
    past, uniforms = PastCandles.read(windows), uniforms_of(windows, 8192)
    paths = garch._garch_paths(past, np.array([KNOWN, KNOWN]), uniforms)
    found = np.log(paths[..., 3] / past.last_close[:, None, None])
    average = KNOWN.omega / (1 - KNOWN.model.persistence)
    first = filter_variances(KNOWN.model, past.returns * 100, np.full(2, average))[:, -1:]
    steps = np.arange(6)
    expected = (average + (first - average) * KNOWN.model.persistence**steps).cumsum(axis=1) / 100**2
    np.testing.assert_allclose(found.var(axis=1), expected, rtol=0.05)
    assert np.abs(found.mean(axis=1) / np.sqrt(expected)).max() < 0.03


def test_the_next_return_has_students_quantiles():
    from scipy import stats

    windows = windows_of(market(1, 300), horizon=1, last=1)
    past = PastCandles.read(windows)
    paths = garch._garch_paths(past, np.array([KNOWN]), uniforms_of(windows, 8192))
    found = np.log(paths[0, :, 0, 3] / past.last_close[0]) * 100
    average = KNOWN.omega / (1 - KNOWN.model.persistence)
    variance = filter_variances(KNOWN.model, past.returns * 100, np.array([average]))[0, -1]
    levels = [0.01, 0.1, 0.5, 0.75, 0.99]
    expected = stats.t.ppf(levels, 8.0) * np.sqrt(variance * 6 / 8)
    np.testing.assert_allclose(np.quantile(found, levels), expected, rtol=0.03, atol=0.01)


@pytest.mark.slow
def test_the_parameters_of_a_process_are_recovered():
    from kronos_strategies.forecasters.volatility import fit_garch

    found = fit_garch(garch_returns(20_000, *KNOWN), asymmetric=True)
    np.testing.assert_allclose(found[1:], KNOWN[1:], atol=0.03, rtol=0.1)


def test_windows_of_a_month_share_one_fit_however_they_are_forecast(monkeypatch):
    fitted = []
    original = garch.fit_garch

    def spy(returns, asymmetric=False):
        fitted.append(returns.tobytes())
        return original(returns, asymmetric)

    monkeypatch.setattr(garch, "fit_garch", spy)
    monkeypatch.setattr(garch, "_FITS", {})
    windows = windows_of(market(2, 400), lookback=300, last=45)
    baseline, sampling = load_forecaster("baseline:garch"), SampleConfig(samples=2)
    whole = baseline.forecast(windows, sampling)
    months = pd.DatetimeIndex(windows.index.get_level_values(0)).to_period("M").nunique()
    assert 2 * months <= len(fitted) <= 2 * (months + 1)
    assert len(set(fitted)) == len(fitted)
    again = [baseline.forecast(windows[row : row + 1], sampling).paths for row in range(0, len(windows), 7)]
    assert len(set(fitted)) == len(fitted)
    np.testing.assert_allclose(np.concatenate(again), whole.paths[::7], rtol=1e-5)


def test_an_anchor_is_the_last_bar_of_the_last_complete_period():
    days = pd.bdate_range("2023-10-02", "2024-03-14")
    fields = stamps(days)[None]
    ends = {"day": "2024-03-13", "week": "2024-03-08", "month": "2024-02-29", "quarter": "2023-12-29",
            "year": "2023-12-29", "auto": "2024-02-29"}  # fmt: skip
    for refit, end in ends.items():
        (count,) = garch.anchors(fields, refit)
        assert days[count] == pd.Timestamp(end), refit  # as many returns as bars up to it, but for the first
    assert garch.anchors(fields, "bar") == len(days) - 1
    # The last bar of a month is known to be the last only a bar later.
    for last, end in (("2024-02-29", "2024-01-31"), ("2024-03-01", "2024-02-29")):
        known = days[days <= last]
        assert known[garch.anchors(stamps(known)[None], "month")[0]] == pd.Timestamp(end)


@pytest.mark.parametrize(
    ("times", "period"),
    [
        (pd.date_range("2024-01-02", periods=400, freq="5min"), "day"),
        (pd.date_range("2024-01-02", periods=400, freq="1min"), "hour"),
        (pd.date_range("2024-01-02", periods=400, freq="h"), "day"),
        (pd.date_range("2024-01-02", periods=400, freq="4h"), "week"),
        (pd.date_range("2016-01-03", periods=400, freq="W"), "year"),
    ],
)
def test_the_period_fits_the_spacing_of_the_bars(times, period):
    fields = stamps(times)[None]
    assert garch.anchors(fields, "auto") == garch.anchors(fields, period)


def test_windows_that_are_too_short_are_forecast_by_ewma_and_counted(caplog):
    windows = windows_of(market(2, 300), lookback=90)
    baseline = load_forecaster("baseline:garch")
    assert baseline.notes() == []
    with caplog.at_level(logging.WARNING):
        made = baseline.forecast(windows, SampleConfig(samples=4))
    expected = load_forecaster("baseline:ewma").forecast(windows, SampleConfig(samples=4))
    np.testing.assert_array_equal(made.paths, expected.paths)
    assert len(caplog.records) == 1
    assert "EWMA forecasts" in caplog.text
    (note,) = baseline.notes()
    assert note.startswith("8 of 8 windows are too short for GARCH")


def test_a_fit_that_fails_is_counted_and_does_not_fail_the_others(monkeypatch):
    windows = windows_of(market(2, 400), lookback=300, last=1)
    original = garch._cached_fit

    def fails(returns, asymmetric):
        whole = PastCandles.read(windows).returns[1] * 100
        return None if np.isin(returns[0], whole) else original(returns, asymmetric)

    monkeypatch.setattr(garch, "_cached_fit", fails)
    baseline = load_forecaster("baseline:garch")
    made = baseline.forecast(windows, SampleConfig(samples=4))
    assert baseline.notes() == ["1 of 2 windows were forecast by EWMA because their GARCH fit failed."]
    ewma = load_forecaster("baseline:ewma").forecast(windows, SampleConfig(samples=4))
    np.testing.assert_array_equal(made.paths[1], ewma.paths[1])
    assert (made.paths[0] != ewma.paths[0]).any()


def test_gjr_predicts_more_variance_after_a_fall():
    returns = garch_returns(900, 0.1, 0.02, 0.2, 0.75, 8.0, seed=6) / 100
    fall, rise = returns.copy(), returns.copy()
    fall[-1], rise[-1] = -0.04, 0.04
    panel = {"fall": candles(fall), "rise": candles(rise)}
    windows = Windows.rolling(panel, 900, 1, "B")
    widths = {}
    for name in ("baseline:garch", "baseline:garch?o=1"):
        made = load_forecaster(name).forecast(windows, SampleConfig(samples=512))
        deviation = made.log_returns()[:, :, 0].std(axis=1)
        widths[name] = deviation[0] / deviation[1]
    assert widths["baseline:garch"] == pytest.approx(1.0, abs=0.02)
    assert widths["baseline:garch?o=1"] > 1.15
