"""Invalid sampled bars: how many there are, and what is left of them after repair."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kronos.bars import FEATURES, check_bars
from kronos.config import SampleConfig
from kronos.forecast import Forecast
from kronos.paths import (
    PriceLimits,
    Violations,
    china_limits,
    count_violations,
    limit_paths,
    repair_paths,
)
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from tests.kronos.builders import make_bars

LAST = np.array([100.0])


def path(*bars: list[float]) -> np.ndarray:
    """(1, 1, H, 6) of open, high, low, close, volume, amount."""
    return np.array(bars, np.float32)[None, None]


def crypto_like(count: int, seed: int) -> pd.DataFrame:
    """Bars of a small price, with heavy tails, flat bars and volumes over many orders of magnitude."""
    random = np.random.default_rng(seed)
    close = 0.05 * np.exp(np.cumsum(random.standard_t(3, count) * 0.01))
    open_ = np.r_[close[0], close[:-1]]
    wick = random.exponential(0.004, (2, count)) * (random.random(count) > 0.2)
    volume = random.lognormal(3, 3, count)
    prices = [
        open_,
        np.maximum(open_, close) * (1 + wick[0]),
        np.minimum(open_, close) * (1 - wick[1]),
        close,
    ]
    index = pd.date_range("2024-01-01", periods=count, freq="5min", name="datetime")
    return pd.DataFrame(dict(zip(FEATURES, [*prices, volume, volume * close], strict=True)), index=index)


@pytest.fixture(scope="module")
def windows() -> Windows:
    panel = {f"C{i}": crypto_like(100, i) for i in range(12)}
    return Windows.rolling(panel, 90, 5, "5min")


@pytest.fixture(scope="module")
def predictor() -> KronosPredictor:
    return KronosPredictor.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def sampled(predictor: KronosPredictor, windows: Windows) -> Forecast:
    return predictor.forecast(windows, SampleConfig(samples=6, T=1.0, top_p=1.0), candles="raw")


def bars_of(paths: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(paths.reshape(-1, len(FEATURES)), columns=list(FEATURES))


def test_check_bars_refuses_sampled_paths_and_accepts_every_repaired_one(sampled: Forecast) -> None:
    with pytest.raises(ValueError, match=r"open or close outside|negative"):
        check_bars(bars_of(sampled.paths))
    check_bars(bars_of(sampled.repaired().paths))
    assert (sampled.repaired().paths[..., :4] > 0).all()


def test_a_forecast_is_repaired_unless_raw_paths_are_requested(
    sampled: Forecast, predictor: KronosPredictor, windows: Windows
) -> None:
    made = predictor.forecast(windows, SampleConfig(samples=6, T=1.0, top_p=1.0))
    np.testing.assert_array_equal(made.paths, sampled.repaired().paths)
    assert (sampled.provenance.candles, made.provenance.candles) == ("raw", "valid")
    with pytest.raises(ValueError, match=r"candles='japanese' is unknown\. Choose one of \['valid', 'raw'\]"):
        predictor.forecast(windows, candles="japanese")  # type: ignore[arg-type]


def test_violations_are_counted_as_sampled_and_none_are_left(sampled: Forecast) -> None:
    found = sampled.violations()
    o, h, l, c = (sampled.path(name) for name in ("open", "high", "low", "close"))  # noqa: E741
    size = np.maximum.reduce([o, h, l, c]) * 1e-6
    outside = (np.maximum(o, c) > h + size) | (np.minimum(o, c) < l - size)
    assert found.outside == outside.sum() > 0
    assert found.paths_outside == outside.any(axis=2).sum()
    assert found.crossed == (h < l).sum()
    assert found.bars == found.paths * sampled.horizon == len(sampled) * 6 * 5
    left = sampled.repaired().violations()
    assert left == Violations(found.bars, found.paths)
    assert (found + left).shares()["outside"] == pytest.approx(found.outside / found.bars / 2)


def test_high_and_low_are_stretched_around_open_and_close_which_stay() -> None:
    found = repair_paths(path([101, 100, 99, 102, 5, 6], [98, 99, 97, 96, 5, 6]), LAST)
    np.testing.assert_array_equal(found[0, 0], [[101, 102, 99, 102, 5, 6], [98, 99, 96, 96, 5, 6]])


def test_crossed_highs_prices_below_zero_and_negative_volumes_are_repaired() -> None:
    found = repair_paths(path([100, 98, 103, 101, -5, -6], [3, 4, -2, 0, 1, 0]), LAST)[0, 0]
    np.testing.assert_allclose(found, [[100, 103, 98, 101, 0, 0], [3, 4, 0.1, 0.1, 1, 0]], rtol=1e-6)


def test_a_valid_bar_is_unchanged_bit_for_bit() -> None:
    bars = make_bars(30).to_numpy(np.float32)[None, None]
    np.testing.assert_array_equal(repair_paths(bars, LAST), bars)
    assert count_violations(bars).shares() == dict.fromkeys(count_violations(bars).shares(), 0.0)


# Price limits


def test_each_step_keeps_within_the_limit_of_the_close_before_and_catches_up() -> None:
    jump = path(*[[130, 135, 128, 130, 1, 1]] * 4)
    closes = limit_paths(jump, LAST, np.array([0.1]), np.array([np.nan]))[0, 0, :, 3]
    np.testing.assert_allclose(closes, [110, 121, 130, 130], rtol=1e-6)


def test_limits_are_rounded_to_ticks_half_up() -> None:
    fall = path([9, 9, 9, 9, 1, 1])
    low = limit_paths(fall, np.array([10.05]), np.array([0.1]), np.array([0.01]))[0, 0, 0, 3]
    assert low == pytest.approx(9.05)  # 9.045, rounded up


def test_a_limited_forecast_is_of_bars_within_limits_by_board(sampled: Forecast) -> None:
    wild = path([150, 160, 140, 150, 1, 1]).repeat(2, axis=0)
    keys = pd.MultiIndex.from_product(
        [[pd.Timestamp("2024-01-02")], ["SH600000", "SZ300750"]], names=["datetime", "instrument"]
    )
    times = np.full((2, 1), np.datetime64("2024-01-03", "ns"))
    forecast = Forecast(wild, keys, times, np.full((2, 6), 100, np.float32), sampled.provenance)
    found = forecast.limited(china_limits)
    np.testing.assert_allclose(found.path("close")[:, 0, 0], [110, 120], rtol=1e-6)
    assert found.provenance.limits
    assert not forecast.provenance.limits


@pytest.mark.parametrize(("rate", "tick"), [(0, None), (1.5, None), (0.1, 0)])
def test_invalid_limits_are_refused_in_one_sentence(rate: float, tick: float | None) -> None:
    with pytest.raises(ValueError, match="Pass a") as refusal:
        PriceLimits(rate, tick)
    assert "\n" not in str(refusal.value)
