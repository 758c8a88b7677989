from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kronos.bars import FEATURES
from kronos.config import SampleConfig
from kronos.forecast import Forecast, Provenance

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
        "none", None, None, None, SampleConfig(S), "shared", 512, 5, "exact", "float32", "0"
    )
    return Forecast(paths, keys, timestamps, paths[:, 0, 0], provenance)


def test_its_sizes_are_those_of_its_paths(forecast: Forecast) -> None:
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
    with pytest.raises(ValueError, match=r"'price' is no feature.*'close'"):
        forecast.path("price")


def test_the_frame_holds_each_average_bar_under_its_key_step_and_time(forecast: Forecast) -> None:
    frame = forecast.frame()
    assert frame.index.names == ["datetime", "instrument", "step"]
    assert list(frame.columns) == ["timestamp", *FEATURES]
    assert len(frame) == N * H
    for i, key in enumerate(forecast.keys):
        for step in range(1, H + 1):
            row = frame.loc[(*key, step)]
            assert row["timestamp"] == pd.Timestamp(forecast.timestamps[i, step - 1])
            np.testing.assert_array_equal(
                row[list(FEATURES)].to_numpy(np.float32), forecast.mean()[i, step - 1]
            )
