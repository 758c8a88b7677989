from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kronos.bars import FEATURES
from kronos.config import SampleConfig
from kronos.forecast import Forecast, Provenance, anchor_paths

N, S, H = 3, 9, 4


@pytest.fixture
def forecast() -> Forecast:
    paths = np.random.default_rng(0).normal(100, 5, (N, S, H, 6)).astype(np.float32)
    keys = pd.MultiIndex.from_tuples(
        [
            (pd.Timestamp("2024-01-02"), "A"),
            (pd.Timestamp("2024-01-02"), "B"),
            (pd.Timestamp("2024-01-03"), "A"),
        ],
        names=["datetime", "instrument"],
    )
    timestamps = np.datetime64("2024-01-04", "ns") + np.arange(N * H).reshape(N, H) * np.timedelta64(1, "D")
    provenance = Provenance(
        "none", None, None, None, SampleConfig(S), "shared", 512, 5, "recompute", "float32", "last_close", "0"
    )
    return Forecast(paths, keys, timestamps, paths[:, 0, 0], provenance, paths[:, 0, 0, 3])


def test_the_sizes_of_a_forecast_are_those_of_its_paths(forecast: Forecast) -> None:
    assert (len(forecast), forecast.samples, forecast.horizon) == (N, S, H)


def test_the_mean_is_over_paths_and_keeps_windows_and_steps_apart(forecast: Forecast) -> None:
    plain = sum(forecast.paths[:, i].astype(float) for i in range(S)) / S
    # float32 averages of nine numbers near 100
    np.testing.assert_allclose(forecast.mean(), plain, rtol=1e-6)
    assert forecast.mean().dtype == np.float32


@pytest.mark.parametrize("k", range(1, S + 1))
def test_quantile_k_of_s_plus_one_is_the_k_th_smallest_path_which_makes_coverage_exact(
    k: int, forecast: Forecast
) -> None:
    # A truth exchangeable with S paths lies below their k-th smallest with probability k / (S + 1).
    kth = np.sort(forecast.paths, axis=1)[:, k - 1]
    np.testing.assert_allclose(forecast.quantile(k / (S + 1)), kth, rtol=1e-6)


def test_a_path_of_one_feature_is_that_feature(forecast: Forecast) -> None:
    for i, feature in enumerate(FEATURES):
        np.testing.assert_array_equal(forecast.path(feature), forecast.paths[:, :, :, i])


def test_an_unknown_feature_is_refused_and_the_known_ones_are_listed(forecast: Forecast) -> None:
    with pytest.raises(ValueError, match=r"'price' is not a feature.*'close'"):
        forecast.path("price")


def test_the_frame_contains_each_mean_bar_by_index_step_and_time(forecast: Forecast) -> None:
    frame = forecast.frame()
    assert frame.index.names == ["datetime", "instrument", "step"]
    assert list(frame.columns) == ["timestamp", *FEATURES]
    assert len(frame) == N * H
    for i, key in enumerate(forecast.index):
        for step in range(1, H + 1):
            row = frame.loc[(*key, step)]
            assert row["timestamp"] == pd.Timestamp(forecast.timestamps[i, step - 1])
            np.testing.assert_array_equal(
                row[list(FEATURES)].to_numpy(np.float32), forecast.mean()[i, step - 1]
            )


@pytest.mark.parametrize("rows", [slice(1, 3), np.array([2, 0]), np.array([True, False, True])], ids=str)
def test_some_windows_of_a_forecast_are_a_forecast(forecast: Forecast, rows: slice | np.ndarray) -> None:
    part = forecast[rows]
    for name in ("paths", "timestamps", "last_bar", "decoded_close"):
        np.testing.assert_array_equal(getattr(part, name), getattr(forecast, name)[rows])
    assert part.index.equals(forecast.index[rows])
    assert part.provenance == forecast.provenance


def test_a_forecast_without_a_tokenizer_has_no_decoded_close(forecast: Forecast) -> None:
    assert replace(forecast, decoded_close=None)[:1].decoded_close is None


def test_anchored_prices_are_scaled_from_the_decoded_close_to_the_true_one() -> None:
    paths = np.full((2, 3, 4, 6), 8.0, np.float32)
    anchor_paths(paths, np.array([10, 16], np.float32), np.array([20, 8], np.float32))
    np.testing.assert_array_equal(paths[0, ..., :4], 16)
    np.testing.assert_array_equal(paths[1, ..., :4], 4)
    np.testing.assert_array_equal(paths[..., 4:], 8)  # volume and amount have no part in it


@pytest.mark.parametrize("decoded", [4.9, 0.1, 0.0, -3.0])
def test_a_close_decoded_at_less_than_half_of_itself_doubles_prices_and_no_more(decoded: float) -> None:
    paths = np.ones((1, 1, 1, 6), np.float32)
    anchor_paths(paths, np.array([decoded], np.float32), np.array([10], np.float32))
    np.testing.assert_array_equal(paths[..., :4], 2)
