"""The figures of known paths."""

import numpy as np
import pandas as pd

from kronos.bars import FEATURES
from kronos.config import SampleConfig
from kronos.forecast import Forecast, Provenance
from kronos_strategies.backtrader.outlook import LINES, lines, outlooks


def forecast_of(*paths: list[float], last: float = 100.0) -> Forecast:
    """One window with these closes."""
    closes = np.array(paths, np.float32)
    bars = np.repeat(closes[None, :, :, None], len(FEATURES), axis=-1)
    keys = pd.MultiIndex.from_tuples([(pd.Timestamp("2024-01-02"), "A")], names=["datetime", "instrument"])
    made = Provenance(
        "m", None, None, None, SampleConfig(), "d", 512, 5, "recompute", "float32", "last_close", ""
    )
    times = pd.date_range("2024-01-03", periods=closes.shape[1]).to_numpy()[None]
    return Forecast(bars, keys, times, np.full((1, len(FEATURES)), last, np.float32), made)


def figures(forecast: Forecast, level: float = 0.9) -> dict[str, float]:
    return dict(zip(LINES, lines(outlooks(forecast), level)[0], strict=True))


def test_the_drawdown_of_a_path_is_its_deepest_fall_from_the_highest_close_so_far():
    assert np.isclose(figures(forecast_of([120, 90, 110]))["max_drawdown"], 90 / 120 - 1)
    assert np.isclose(
        figures(forecast_of([80, 90, 110]))["max_drawdown"], 80 / 100 - 1
    )  # the last close counts
    assert figures(forecast_of([101, 102, 103]))["max_drawdown"] == 0


def test_drawdowns_are_averaged_over_paths():
    assert np.isclose(figures(forecast_of([120, 90], [100, 100]))["max_drawdown"], (90 / 120 - 1) / 2)


def test_return_chance_and_price_are_of_the_last_bar():
    found = figures(forecast_of([50, 110], [200, 96]))
    assert np.isclose(found["expected_return"], 0.03)
    assert found["prob_up"] == 0.5
    assert np.isclose(found["forecast_close"], 103)


def test_the_band_holds_its_share_of_paths():
    ends = np.arange(1.0, 100.0)
    found = figures(forecast_of(*([end] for end in ends)), level=0.8)
    assert np.isclose(found["lower"], 10)
    assert np.isclose(found["upper"], 90)


def test_a_path_below_zero_leaves_every_figure_finite():
    assert np.isfinite(list(figures(forecast_of([-5, 110], [100, -20])).values())).all()


def test_no_forecast_has_no_lines():
    assert lines(np.empty((0, 8)), 0.9).shape == (0, len(LINES))
