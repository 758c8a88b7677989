from dataclasses import replace
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from kronos.bars import FEATURES
from kronos.config import SampleConfig
from kronos.forecast import Forecast, Provenance
from kronos.zones import add_zones
from kronos_strategies.signal import SIGNALS, SUMMARY, signals, summary

PROVENANCE = Provenance(
    "test", None, None, None, SampleConfig(), "shared", 512, 5, "recompute", "float32", "last_close", ""
)


def forecast(closes: np.ndarray, last: float = 100.0) -> Forecast:
    """(N, S, H) close paths; opens are a tenth of a percent higher."""
    n, _, horizon = closes.shape
    paths = np.repeat(closes[..., None], len(FEATURES), axis=-1).astype(np.float32)
    paths[..., FEATURES.index("open")] *= 1.001
    keys = pd.MultiIndex.from_product(
        [[pd.Timestamp("2024-01-02")], [f"S{i}" for i in range(n)]], names=["datetime", "instrument"]
    )
    future = np.tile(pd.bdate_range("2024-01-03", periods=horizon).to_numpy(), (n, 1))
    return Forecast(paths, keys, future, np.full((n, len(FEATURES)), last, np.float32), PROVENANCE)


def test_the_score_is_earned_from_the_next_bar_on_not_from_the_last_close():
    # The jump from 100 to 110 comes before the next trade; only 110 -> 121 can be earned.
    row = signals(forecast(np.array([[[110.0, 121.0]]]))).iloc[0]
    assert row["score"] == pytest.approx(0.1, rel=1e-5)
    assert row["expected_return"] == pytest.approx(0.21, rel=1e-5)


def test_hold_sets_the_bar_of_the_exit():
    row = signals(forecast(np.array([[[100.0, 50.0, 130.0]]])), hold=2).iloc[0]
    assert row["score"] == pytest.approx(0.3, rel=1e-5)


def test_the_expectation_is_over_returns_not_of_an_averaged_path():
    paths = np.array([[[50.0, 100.0], [200.0, 200.0]]])
    row = signals(forecast(paths)).iloc[0]
    assert row["score"] == pytest.approx(0.5, rel=1e-5)  # the averaged path would say 150 / 125 - 1 = 0.2
    assert row["prob_up"] == 0.5


def test_volatility_is_that_of_the_paths_also_where_their_mean_is_constant():
    paths = np.array([[[110.0, 100.0], [90.0, 100.0]]])
    expected = np.sqrt(np.mean(np.square([np.log(1.1), np.log(1.1), np.log(0.9), np.log(0.9)])))
    assert signals(forecast(paths))["volatility"].iloc[0] == pytest.approx(expected, rel=1e-4)


def test_quantiles_of_known_paths_are_exact():
    gains = np.linspace(-0.09, 0.10, 19)
    paths = np.stack([np.full(19, 100.0), 100 * (1 + gains)], axis=-1)[None]
    row = signals(forecast(paths)).iloc[0]
    assert row["q05"] == pytest.approx(gains[0], abs=1e-5)  # Weibull: rank 0.05 * (19 + 1) = 1
    assert row["q95"] == pytest.approx(gains[-1], abs=1e-5)


def test_open_prices_are_used_where_trades_happen_at_the_open():
    f = forecast(np.array([[[100.0, 110.0]]]))
    f.paths[0, 0, 1, FEATURES.index("open")] = 120.12
    assert signals(f, price="open")["score"].iloc[0] == pytest.approx(0.2, rel=1e-4)


def test_columns_and_index_are_those_of_the_public_contract():
    f = forecast(np.full((3, 2, 2), 100.0))
    frame = signals(f)
    assert tuple(frame.columns) == SIGNALS
    assert frame.index.equals(f.index)


def test_a_sampled_price_below_zero_leaves_every_signal_finite():
    frame = signals(forecast(np.array([[[-3.0, 100.0], [100.0, -1.0]]])))
    assert np.isfinite(frame.to_numpy()).all()


def test_a_horizon_too_short_to_trade_is_refused_with_the_one_needed():
    with pytest.raises(ValueError, match=r"at least 3 bars"):
        signals(forecast(np.full((1, 1, 2), 100.0)), hold=2)


def test_a_last_close_of_zero_is_refused_by_name():
    with pytest.raises(ValueError, match="S0"):
        signals(forecast(np.full((1, 1, 2), 100.0), last=0.0))


def test_the_summary_is_of_the_whole_horizon_and_of_no_trade():
    paths = np.array([[[50.0, 110.0], [200.0, 120.0], [100.0, 97.0]]])
    row = summary(forecast(paths)).iloc[0]
    assert tuple(row.index) == SUMMARY
    assert row["expected_return"] == pytest.approx((0.10 + 0.20 - 0.03) / 3, rel=1e-5)
    assert row["prob_up"] == pytest.approx(2 / 3)
    assert (row["q05"], row["q95"]) == (pytest.approx(-0.03, rel=1e-5), pytest.approx(0.20, rel=1e-5))


def test_summary_and_signals_agree_on_what_they_share():
    f = forecast(np.random.default_rng(0).uniform(80, 120, (4, 7, 5)))
    shared = ["expected_return", "volatility"]
    pd.testing.assert_frame_equal(summary(f)[shared], signals(f, hold=2)[shared])


def test_signals_are_a_function_of_the_package() -> None:
    import kronos_strategies
    import kronos_strategies.signal as module

    assert kronos_strategies.signals is module.signals
    found = kronos_strategies.signals(forecast(np.full((2, 3, 4), 101.0)))
    assert list(found) == list(SIGNALS)


def test_a_signal_is_dated_in_the_time_zone_of_the_bars() -> None:
    made = forecast(np.full((2, 3, 4), 101.0))
    index, timestamps = add_zones(
        made.index, made.timestamps, dict.fromkeys(("S0", "S1"), ZoneInfo("Asia/Shanghai"))
    )
    found = signals(replace(made, index=index, timestamps=timestamps))
    assert str(found.index.get_level_values("datetime").tz) == "Asia/Shanghai"
    np.testing.assert_array_equal(found, signals(made))
