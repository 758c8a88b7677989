"""Properties of all baselines, and the known answer of each."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest

from kronos.bars import CLOSE, FEATURES
from kronos.config import SampleConfig
from kronos.windows import Windows
from kronos_strategies.forecasters import load_forecaster
from kronos_strategies.forecasting import iter_forecasts
from kronos_strategies.lookahead import check_causal
from kronos_strategies.signal import signals

from .builders import candles, market, windows_of

pytest.importorskip("arch")

NAMES = ("random-walk", "ewma", "garch", "garch?o=1,refit=week", "har", "bootstrap")
MANY = SampleConfig(samples=64)


@pytest.fixture(scope="module")
def panel():
    return market(instruments=4, bars=300)


@pytest.fixture(params=NAMES)
def baseline(request):
    return load_forecaster(f"baseline:{request.param}")


def test_candles_are_valid_as_sampled(baseline, panel):
    made = baseline.forecast(windows_of(panel), MANY, candles="raw")
    assert made.paths.shape == (16, 64, 5, len(FEATURES))
    assert not any(made.violations().shares().values())
    assert np.isfinite(made.paths).all()


def test_a_forecast_does_not_depend_on_the_windows_that_are_forecast_with_it(baseline, panel, monkeypatch):
    windows = windows_of(panel)
    whole = baseline.forecast(windows, MANY)
    monkeypatch.setattr(type(baseline), "chunk_paths", 3 * MANY.samples)
    np.testing.assert_allclose(baseline.forecast(windows, MANY).paths, whole.paths, rtol=1e-5)
    for row in (0, 9):
        alone = load_forecaster(baseline.name).forecast(windows[row : row + 1], MANY)
        np.testing.assert_allclose(alone.paths[0], whole.paths[row], rtol=1e-5)
    dates = iter_forecasts(baseline, windows, MANY)
    np.testing.assert_allclose(np.concatenate([each.paths for each in dates]), whole.paths, rtol=1e-5)


def test_bars_after_the_date_change_no_forecast(baseline, panel):
    tidy = pd.concat(
        [bars.reset_index().assign(instrument=name) for name, bars in panel.items()], ignore_index=True
    )
    days = panel["S0"].index

    def run(bars: pd.DataFrame) -> pd.DataFrame:
        frames = {name: own.set_index("datetime").drop(columns="instrument") for name, own in
                  bars.groupby("instrument")}  # fmt: skip
        windows = Windows.rolling(frames, 200, 5, days[-20:].union(pd.bdate_range(days[-1], periods=9)),
                                  start=days[-20])  # fmt: skip
        return signals(baseline.forecast(windows, SampleConfig(samples=16)), hold=3)

    check_causal(run, tidy, [days[-12], days[-5]])


def test_more_samples_keep_the_first_ones(baseline, panel):
    windows = windows_of(panel)
    few, many = (baseline.forecast(windows, SampleConfig(samples=n)).paths for n in (8, 32))
    np.testing.assert_allclose(many[:, :8], few, rtol=1e-5)


def test_another_seed_gives_other_paths_and_temperature_none(baseline, panel):
    windows = windows_of(panel)
    known = baseline.forecast(windows, MANY)
    assert (baseline.forecast(windows, SampleConfig(samples=64, seed=1)).paths != known.paths).any()
    cold = baseline.forecast(windows, SampleConfig(samples=64, T=0, top_k=3))
    np.testing.assert_array_equal(cold.paths, known.paths)
    assert cold.provenance == known.provenance


def test_a_pickled_baseline_forecasts_the_same(baseline, panel):
    copy, windows = pickle.loads(pickle.dumps(baseline)), windows_of(panel)
    np.testing.assert_array_equal(copy.forecast(windows, MANY).paths, baseline.forecast(windows, MANY).paths)


@pytest.mark.parametrize("length", [2, 3, 30])
def test_short_windows_and_constant_prices_have_forecasts(baseline, length):
    flat = candles(np.zeros(length))
    flat[["open", "high", "low", "close"]] = 7.0
    short = {"A": candles(np.linspace(-0.01, 0.02, length)), "B": flat}
    made = baseline.forecast(Windows.rolling(short, length, 4, "B"), MANY)
    assert np.isfinite(made.paths).all()
    np.testing.assert_allclose(made.paths[1, ..., :4], 7.0, rtol=1e-6)


def test_bars_without_a_positive_price_are_not_drawn(baseline):
    bars = candles(np.random.default_rng(0).normal(0, 0.01, 200)).assign(amount=1e6)
    bars.iloc[50, :4] = -1.0
    made = baseline.forecast(Windows.rolling({"A": bars}, 200, 5, "B"), MANY)
    assert np.abs(made.log_returns()).max() < 0.5
    bars.iloc[-1, :4] = -1.0
    with pytest.raises(ValueError, match=r"last close of .* is not positive"):
        baseline.forecast(Windows.rolling({"A": bars}, 200, 5, "B"), MANY)


def test_a_date_draws_the_same_ranks_for_every_instrument(panel):
    made = load_forecaster("baseline:random-walk").forecast(windows_of(panel, last=1), MANY)
    first = made.log_returns()[:, :, 0]
    ranks = first.argsort(axis=1).argsort(axis=1)
    for other in ranks[1:]:
        assert np.corrcoef(ranks[0], other)[0, 1] > 0.99


def test_the_random_walk_has_the_variance_of_the_window_and_no_drift(panel):
    windows = windows_of(panel, horizon=4)
    made = load_forecaster("baseline:random-walk").forecast(windows, SampleConfig(samples=4096))
    variance = np.log(windows.values[..., CLOSE]).astype(float)
    variance = np.diff(variance, axis=1).var(axis=1)
    found = made.log_returns()
    steps = np.arange(1, 5)
    np.testing.assert_allclose(found.var(axis=1), variance[:, None] * steps, rtol=0.1)
    assert np.abs(found.mean(axis=1) / np.sqrt(variance[:, None] * steps)).max() < 0.05


def test_the_bootstrap_is_made_of_the_windows_bars_in_blocks(panel):
    windows = windows_of(panel, horizon=6)
    made = load_forecaster("baseline:bootstrap?block=3").forecast(windows, SampleConfig(samples=16))
    for row in range(len(windows)):
        bars = windows.values[row].astype(float)
        past = np.log(bars[1:, :4] / bars[:-1, [CLOSE]])
        closes = made.paths[row, ..., CLOSE].astype(float)
        before = np.concatenate([np.full((16, 1), bars[-1, CLOSE]), closes[:, :-1]], axis=1)
        drawn = np.log(made.paths[row, ..., :4] / before[..., None])
        distance = np.abs(drawn[:, :, None] - past).max(axis=-1)  # (S, H, K)
        assert distance.min(axis=-1).max() < 1e-5
        chosen = distance.argmin(axis=-1)
        np.testing.assert_array_equal(np.diff(chosen[:, :3], axis=1), 1)
        np.testing.assert_array_equal(np.diff(chosen[:, 3:], axis=1), 1)
        np.testing.assert_allclose(made.paths[row, ..., 4], bars[1:, 4][chosen], rtol=1e-5)


def test_every_block_is_equally_likely():
    bars = candles(np.random.default_rng(1).normal(0, 0.01, 21))
    made = load_forecaster("baseline:bootstrap?block=1").forecast(
        Windows.rolling({"A": bars}, 21, 1, "B"), SampleConfig(samples=2000)
    )
    counts = np.unique(made.paths[0, :, 0, CLOSE].round(4), return_counts=True)[1]
    assert len(counts) == 20
    assert np.abs(counts - 100).max() <= 2


def test_the_paths_of_ewma_have_its_variance():
    rng = np.random.default_rng(2)
    returns = np.concatenate([rng.normal(0, 0.005, 400), rng.normal(0, 0.02, 100)])
    windows = Windows.rolling({"A": candles(returns)}, 500, 3, "B")
    made = load_forecaster("baseline:ewma?decay=0.9").forecast(windows, SampleConfig(samples=4096))
    assert made.log_returns()[0, :, 0].std() == pytest.approx(0.02, rel=0.25)
    assert made.log_returns()[0, :, 2].var() == pytest.approx(3 * made.log_returns()[0, :, 0].var(), rel=0.1)
    calm = Windows.rolling({"A": candles(returns[::-1])}, 500, 3, "B")
    made = load_forecaster("baseline:ewma?decay=0.9").forecast(calm, SampleConfig(samples=4096))
    assert made.log_returns()[0, :, 0].std() == pytest.approx(0.005, rel=0.25)


def test_the_paths_of_har_follow_the_ranges_of_the_bars():
    rng = np.random.default_rng(3)
    calm, wild = rng.normal(0, 0.004, 150), rng.normal(0, 0.02, 150)
    panel = {"calm": candles(np.append(wild, calm)), "wild": candles(np.append(calm, wild))}
    made = load_forecaster("baseline:har").forecast(Windows.rolling(panel, 300, 3, "B"), MANY)
    by_name = dict(zip(made.index.get_level_values(1), made.log_returns()[:, :, 0].std(axis=1), strict=True))
    assert by_name["wild"] > 2.5 * by_name["calm"]
