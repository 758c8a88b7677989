"""A forecast does not depend on the unit of price or volume."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kronos.bars import FEATURES, PRICES
from kronos.config import SampleConfig
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from tests.kronos.builders import make_panel

SAMPLING = SampleConfig(samples=4, T=1.0, top_p=1.0)
NAMES = tuple(f"N{i}" for i in range(30))
TENS = [10.0**k for k in (-8, -6, -5, -4, -2, 2, 4, 8)]


@pytest.fixture(scope="module")
def predictor() -> KronosPredictor:
    return KronosPredictor.from_pretrained(device="cpu")


def in_units(price: float, volume: float) -> dict[str, pd.DataFrame]:
    factors = dict.fromkeys(PRICES, price) | {"volume": volume, "amount": price * volume}
    return {name: bars * pd.Series(factors) for name, bars in make_panel(60, *NAMES).items()}


def paths(predictor: KronosPredictor, price: float = 1.0, volume: float = 1.0) -> np.ndarray:
    """(N, S, H, 6) of each instrument's last bar, back in the units of `make_panel`."""
    panel = in_units(price, volume)
    windows = Windows.rolling(panel, 60, 3, "B")
    factors = [*[price] * len(PRICES), volume, price * volume]
    return predictor.forecast(windows, SAMPLING).paths / np.array(factors)


@pytest.fixture(scope="module")
def usual(predictor: KronosPredictor) -> np.ndarray:
    return paths(predictor)


def same_windows(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Share of windows whose paths agree to 1e-5 of each feature's size."""
    size = np.abs(theirs).max(axis=(1, 2), keepdims=True)
    return float((np.abs(ours - theirs) <= 1e-5 * size).all(axis=(1, 2, 3)).mean())


@pytest.mark.parametrize("exponent", [-27, -13, 13, 27])
@pytest.mark.parametrize("what", ["price", "volume"])
def test_powers_of_two_change_no_bit_of_a_forecast(
    predictor: KronosPredictor, usual: np.ndarray, exponent: int, what: str
) -> None:
    np.testing.assert_array_equal(paths(predictor, **{what: 2.0**exponent}), usual)


@pytest.mark.parametrize("unit", TENS)
@pytest.mark.parametrize("what", ["price", "volume"])
def test_powers_of_ten_change_a_forecast_by_the_rounding_of_its_bars_only(
    predictor: KronosPredictor, usual: np.ndarray, unit: float, what: str
) -> None:
    # Rounded bars can put a bit of a token on its other side, in very few windows.
    assert same_windows(paths(predictor, **{what: unit}), usual) >= 0.9


@pytest.mark.parametrize("unit", [1e-10, 1e-8, 1e-6])
def test_upstreams_predict_is_right_at_small_prices(predictor: KronosPredictor, unit: float) -> None:
    agree = []
    for bars in make_panel(60, *NAMES[:10]).values():
        future = pd.bdate_range(bars.index[-1], periods=4)[1:]
        options = {"pred_len": 3, "T": 1.0, "top_p": 1.0, "sample_count": 2, "seed": 0, "verbose": False}
        ours, theirs = (
            predictor.predict(bars[list(PRICES)] * factor, bars.index, future, **options) / factor
            for factor in (unit, 2.0)  # prices near 100, where upstream's constant is the relative one
        )
        agree.append(np.allclose(ours[list(PRICES)], theirs[list(PRICES)], rtol=1e-4))
    assert np.mean(agree) >= 0.8


@pytest.mark.parametrize("method", ["forecast", "predict"])
def test_huge_volumes_give_finite_forecasts(predictor: KronosPredictor, method: str) -> None:
    panel = {"A": in_units(1.0, 1e24)["N0"]}
    if method == "forecast":
        found = predictor.forecast(Windows.rolling(panel, 60, 3, "B"), SAMPLING).paths
    else:
        bars = panel["A"]
        future = pd.bdate_range(bars.index[-1], periods=4)[1:]
        found = predictor.predict(bars, bars.index, future, 3, seed=0, verbose=False).to_numpy()
    assert np.isfinite(found).all()
    assert np.abs(found[..., FEATURES.index("volume")]).max() > 1e24


@pytest.mark.parametrize(("price", "volume"), [(1e-39, 1.0), (1.0, 1e36)])
def test_numbers_beyond_float32_are_refused_with_a_remedy(price: float, volume: float) -> None:
    with pytest.raises(ValueError, match=r"outside the range of float32 .*Use another unit\."):
        Windows.rolling({"A": in_units(price, volume)["N0"]}, 60, 3, "B")
