from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kronos.forecast import Forecast
from kronos_strategies.forecast_view.summary import (
    NORMAL_ENDS,
    forecast_steps,
    forecast_table,
    jump_warnings,
    score_held_back,
    write_table,
)
from kronos_strategies.signal import summary


def test_the_table_holds_returns_quantiles_and_drawdowns_of_each_window(forecast: Forecast) -> None:
    table = forecast_table(forecast)
    pd.testing.assert_frame_equal(
        table[["expected_return", "volatility", "prob_up"]].sort_index(),
        summary(forecast)[["expected_return", "volatility", "prob_up"]],
    )
    for row, key in enumerate(forecast.index):
        closes = forecast.path("close")[row].astype(float)
        last = float(forecast.last_bar[row, 3])
        low, middle, high = np.quantile(closes[:, -1], [0.05, 0.5, 0.95], method="weibull")
        falls = []
        for path in closes:
            walk = [last, *path]
            falls.append(min(walk[j] / max(walk[: j + 1]) - 1 for j in range(len(walk))))
        found = table.loc[key]
        assert found["close"] == last
        np.testing.assert_allclose([found["q05"], found["q50"], found["q95"]], [low, middle, high], rtol=1e-6)
        np.testing.assert_allclose(found["max_drawdown"], np.mean(falls), rtol=1e-6)
        assert found["timestamp"] == forecast.timestamps[row, -1]


def test_the_highest_score_comes_first_and_is_the_expected_return_unless_given(forecast: Forecast) -> None:
    assert forecast_table(forecast)["score"].is_monotonic_decreasing
    own = forecast_table(forecast)["expected_return"]
    given = forecast_table(forecast, -own)
    assert list(given.index) == list(own.index[::-1])


def test_a_step_has_the_mean_bar_the_quantiles_and_the_close_that_followed(
    forecast: Forecast, later: dict[str, pd.DataFrame]
) -> None:
    steps = forecast_steps(forecast, later)
    assert len(steps) == 2 * forecast.horizon
    realized = steps["realized"].unstack("step").droplevel("datetime")
    np.testing.assert_array_equal(realized.loc["A"], later["A"]["close"].iloc[:5])
    np.testing.assert_array_equal(realized.loc["B"].iloc[:3], later["B"]["close"])
    assert realized.loc["B"].iloc[3:].isna().all()
    assert (steps["q05"] <= steps["q50"]).all()
    assert (steps["q50"] <= steps["q95"]).all()


def test_a_score_on_held_back_bars_is_that_of_its_definition(
    forecast: Forecast, later: dict[str, pd.DataFrame]
) -> None:
    score = score_held_back(forecast, later)
    assert score is not None
    assert (score.windows, score.steps, score.level) == (2, 8, 0.9)
    errors, naive, crps, covered, normal, normal_covered = [], [], [], [], [], []
    volatility = forecast.trailing_volatility
    assert volatility is not None
    for row, name in enumerate("AB"):
        for step, close in enumerate(later[name]["close"].iloc[:5]):
            last = float(forecast.last_bar[row, 3])
            paths = np.log(forecast.path("close")[row, :, step].astype(float) / last)
            truth, spread = np.log(close / last), float(volatility[row]) * np.sqrt(step + 1)
            errors.append(abs(np.median(paths) - truth))
            naive.append(abs(truth))
            crps.append(np.abs(paths - truth).mean() - np.abs(paths[:, None] - paths).mean() / 2)
            low, high = np.quantile(paths, [0.05, 0.95], method="weibull")
            covered.append(low <= truth <= high)
            z = truth / spread
            normal.append(
                spread * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
            )
            normal_covered.append(0.05 <= stats.norm.cdf(z) <= 0.95)
    expected = [np.mean(each) for each in (errors, naive, crps, normal, covered, normal_covered)]
    found = [
        score.mae, score.mae_persistence, score.crps, score.crps_historical, score.coverage,
        score.coverage_historical,
    ]  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert str(score).startswith("8 bars of 2 instruments held back: MAE ")


def test_the_ends_of_a_normal_band_are_those_of_the_distribution() -> None:
    for level, end in NORMAL_ENDS.items():
        assert end == pytest.approx(stats.norm.ppf((1 + level) / 2), abs=1e-12)


def test_without_held_back_bars_there_is_no_score_and_few_paths_have_no_coverage(
    forecast: Forecast, later: dict[str, pd.DataFrame]
) -> None:
    assert score_held_back(forecast, {}) is None
    few = score_held_back(replace(forecast, paths=forecast.paths[:, :2]), later)
    assert few is not None
    assert few.level is None
    assert "band" not in str(few)


def test_a_first_step_far_from_the_last_close_is_warned_of(forecast: Forecast) -> None:
    calm = replace(forecast, trailing_volatility=np.full(2, 0.5, np.float32))
    assert jump_warnings(calm) == []
    paths = calm.paths.copy()
    paths[1] *= np.exp(6.0)
    (warning,) = jump_warnings(replace(calm, paths=paths))
    assert "median path of B jumps at the first bar" in warning


@pytest.mark.parametrize("suffix", ["csv", "parquet", "json"])
def test_every_kind_of_file_holds_the_same_rows(suffix: str, forecast: Forecast, tmp_path: Path) -> None:
    table = forecast_table(forecast)
    path = write_table(table, tmp_path / "new" / f"table.{suffix}")
    if suffix == "json":
        read = pd.DataFrame(json.loads(path.read_text()))
    else:
        read = pd.read_csv(path) if suffix == "csv" else pd.read_parquet(path)
    assert list(read.columns) == ["datetime", "instrument", *table.columns]
    np.testing.assert_allclose(read["q50"], table["q50"], rtol=1e-6)
    assert list(pd.to_datetime(read["datetime"]).dt.tz_localize(None)) == list(
        table.index.get_level_values(0)
    )


def test_another_kind_of_file_is_refused(forecast: Forecast, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in '.xlsx'. Choose one of .csv, .parquet, .json"):
        write_table(forecast_table(forecast), tmp_path / "table.xlsx")
