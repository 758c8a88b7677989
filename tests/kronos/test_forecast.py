"""A forecast has the sizes and averages of its paths, and prints as a line and as a table."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kronos.bars import FEATURES
from kronos.config import SampleConfig
from kronos.forecast import MAX_ROWS, Forecast, Provenance
from kronos.predictor import KronosPredictor
from tests.kronos.builders import make_model, make_panel, make_tokenizer

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


@pytest.fixture(scope="module")
def twelve() -> Forecast:
    names = [f"N{number:02}" for number in range(MAX_ROWS + 2)]
    predictor = KronosPredictor(make_model(), make_tokenizer(), "cpu", max_context=16)
    return predictor.forecast(make_panel(9, *names), SampleConfig(4, T=1.0), horizon=3)


def test_it_prints_as_one_line_with_sizes_date_and_model(twelve: Forecast) -> None:
    assert repr(twelve) == (
        "Forecast(12 windows, 4 paths of 3 bars, as of 2024-01-12, 12 instruments, model Kronos, not calibrated)"
    )
    assert repr(twelve[:1]).startswith("Forecast(1 window, 4 paths of 3 bars, as of 2024-01-12, N00, ")
    assert repr(twelve[:0]).startswith("Forecast(0 windows, ")


def test_a_notebook_shows_the_closes_at_the_last_step_of_the_first_windows(twelve: Forecast) -> None:
    page = twelve._repr_html_()
    rows = re.findall(r"<tr>(<td>.*?)</tr>", page)
    assert len(rows) == MAX_ROWS
    assert "<p>2 more windows</p>" in page
    cells = re.findall(r"<td>(.*?)</td>", rows[3])
    ends = twelve.path("close")[3, :, -1]
    low, middle, high = np.quantile(ends, [0.05, 0.5, 0.95], method="weibull")
    assert cells == [
        "N03", "2024-01-12", f"{twelve.last_bar[3, 3]:.6g}", "2024-01-17",
        *(f"{value:.6g}" for value in (low, middle, high)),
    ]  # fmt: skip


def test_names_are_escaped_and_prices_below_zero_are_shown(twelve: Forecast) -> None:
    odd = twelve[:1]
    index = odd.index.set_levels(["<b>"], level="instrument")
    page = replace(odd, index=index, last_bar=-odd.last_bar)._repr_html_()
    assert "<td>&lt;b&gt;</td>" in page
    assert twelve[:0]._repr_html_().count("<tr>") == 1
