"""Applying a calibration: what moves, what stays, and which forecasts are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kronos.bars import CLOSE, FEATURES
from kronos.calibration import (
    CALIBRATION,
    Calibration,
    CalibrationFit,
    PathAdjustment,
    checkpoint_calibration,
)
from kronos.config import SampleConfig
from kronos.forecast import Forecast, Provenance
from kronos.paths import POOL, exchange_of, group_names, trailing_volatility
from kronos.predictor import KronosPredictor
from tests.kronos.builders import make_bars, make_model, make_tokenizer

S, H = 19, 4
DATES = pd.date_range("2024-01-01", periods=5, freq="D")
KNOWN = Provenance(
    "m",
    None,
    "a" * 64,
    None,
    SampleConfig(S, 1.0, 1.0),
    "shared",
    512,
    5,
    "recompute",
    "float32",
    "last_close",
    "",
)


def forecast(seed: int = 0) -> Forecast:
    """Two names on five dates."""
    random = np.random.default_rng(seed)
    keys = pd.MultiIndex.from_product([DATES, ["SH600000", "SZ000001"]], names=["datetime", "instrument"])
    n = len(keys)
    closes = 50 * np.exp(0.01 + random.normal(0, 0.02, (n, S, H)).cumsum(axis=2))
    high, low = closes * 1.01, closes * 0.98
    paths = np.stack([closes * 0.99, high, low, closes, closes * 0 + 7, closes * 0 + 9], axis=-1).astype(
        np.float32
    )
    times = keys.get_level_values(0).to_numpy()[:, None] + np.arange(1, H + 1) * np.timedelta64(1, "D")
    volatility = random.uniform(0.01, 0.04, n).astype(np.float32)
    last = np.full((n, len(FEATURES)), 50, np.float32)
    return Forecast(paths, keys, times.astype("datetime64[ns]"), last, KNOWN, None, volatility)


def fit(
    location: float = 0.5, spread: float = 0.2, trailing: float = 0.0, **changes: object
) -> CalibrationFit:
    row = (1.0,) * H
    moves = PathAdjustment(*((value,) * H for value in (location, spread, trailing)))
    bands = {0.5: tuple(1.1 * x for x in row), 0.9: tuple(1.5 * x for x in row)}
    made = CalibrationFit(
        "2023-12-31", "2023-01-01", 200, 400, {POOL: moves}, (), {4: (0.25,) * H, S: row}, bands
    )
    return replace(made, **changes)


def calibration(*fits: CalibrationFit, **changes: object) -> Calibration:
    made = Calibration(
        "m", "a" * 64, 1.0, 1.0, 0, S, "last_close", H, 86400.0, "csi300", 90, "none", fits or (fit(),)
    )
    return replace(made, **changes)


def test_the_mean_shrinks_and_deviations_grow_by_what_was_fitted() -> None:
    raw = forecast()
    before, after = raw.log_returns(), raw.calibrated(calibration()).log_returns()
    center = before.mean(axis=1, keepdims=True)
    expected = 0.5 * center + np.exp(0.2) * (before - center)
    np.testing.assert_allclose(after, expected, atol=1e-6)


def test_trailing_volatility_takes_the_place_of_the_sampled_deviation() -> None:
    raw = forecast()
    moved = raw.calibrated(calibration(fit(1.0, 0.0, 1.0))).log_returns()
    expected = raw.trailing_volatility[:, None] * np.sqrt(np.arange(1, H + 1))
    np.testing.assert_allclose(moved.std(axis=1), expected, rtol=1e-4)
    unknown = replace(raw, trailing_volatility=None)
    np.testing.assert_array_equal(unknown.calibrated(calibration(fit(1.0, 0.0, 1.0))).paths, raw.paths)


def test_calibrated_candles_stay_valid_since_all_prices_of_a_step_move_equally() -> None:
    raw, moved = forecast(), forecast().calibrated(calibration())
    factor = moved.paths[..., :4] / raw.paths[..., :4]
    np.testing.assert_allclose(factor, factor[..., :1].repeat(4, axis=-1), rtol=1e-6)
    assert np.abs(np.log(factor)).max() > 0.01
    np.testing.assert_array_equal(moved.paths[..., 4:], raw.paths[..., 4:])
    assert moved.violations().outside == moved.violations().crossed == 0


def test_a_calibration_without_effect_changes_no_bit_of_the_paths() -> None:
    raw = forecast()
    np.testing.assert_array_equal(raw.calibrated(calibration(fit(1.0, 0.0, 0.0))).paths, raw.paths)
    assert raw.calibrated(None) is raw
    assert raw.calibrated("none") is raw


def test_a_forecast_says_by_what_it_was_calibrated_and_is_not_calibrated_twice() -> None:
    made = calibration()
    moved = forecast().calibrated(made)
    assert forecast().provenance.calibration is None
    assert moved.provenance.calibration == made.id
    assert moved[:2].calibration is made
    with pytest.raises(ValueError, match=f"already calibrated by {made.id}"):
        moved.calibrated(made)


def test_shorter_paths_use_the_parameters_of_the_first_steps() -> None:
    raw = forecast()
    short = replace(raw, paths=raw.paths[:, :, :2], timestamps=raw.timestamps[:, :2])
    np.testing.assert_array_equal(
        short.calibrated(calibration()).paths, raw.calibrated(calibration()).paths[:, :, :2]
    )


def test_the_mean_of_fewer_paths_shrinks_further() -> None:
    few = replace(forecast(), paths=forecast().paths[:, :6])
    before, after = few.log_returns(), few.calibrated(calibration()).log_returns()
    np.testing.assert_allclose(after.mean(axis=1), 0.5 * 0.25 * before.mean(axis=1), atol=1e-6)


def test_bands_are_widened_around_the_median_by_the_conformal_factor_of_their_level() -> None:
    raw, moved = forecast(), forecast().calibrated(calibration(fit(1.0, 0.0)))
    for level, factor in ((0.5, 1.1), (0.7, 1.3), (0.9, 1.5), (0.95, 1.5)):
        own, wide = np.log(raw.band(level) / 50), np.log(moved.band(level) / 50)
        middle = np.median(raw.log_returns(), axis=1)[..., None]
        np.testing.assert_allclose(wide - middle, factor * (own - middle), atol=1e-6)
    ends = np.stack([raw.quantile(0.05), raw.quantile(0.95)], axis=-1)[:, :, CLOSE]
    np.testing.assert_allclose(raw.band(0.9), ends)


def test_groups_are_calibrated_separately_and_unknown_ones_as_all() -> None:
    groups = {POOL: fit().groups[POOL], "SH": PathAdjustment((1.0,) * H, (0.7,) * H, (0.0,) * H)}
    raw, moved = forecast(), forecast().calibrated(calibration(fit(groups=groups)))
    spread = np.log(moved.log_returns().std(axis=1) / raw.log_returns().std(axis=1))
    names = raw.index.get_level_values("instrument")
    np.testing.assert_allclose(spread[names == "SH600000"], 0.7, atol=1e-5)
    np.testing.assert_allclose(spread[names == "SZ000001"], 0.2, atol=1e-5)


def test_the_narrowest_group_that_a_fit_has_is_a_windows_own() -> None:
    keys = pd.MultiIndex.from_product(
        [DATES[:1], ["SH600000", "000001.SZ", "AAPL"]], names=["datetime", "instrument"]
    )
    moves = fit().groups[POOL]
    one = fit(
        groups=dict.fromkeys((POOL, "SH", "SH high volatility", "low volatility"), moves),
        terciles=(0.01, 0.02),
    )
    names = group_names(keys, np.array([0.03, 0.005, np.nan]), one.terciles, one.groups)
    assert names.tolist() == ["SH high volatility", "low volatility", POOL]
    exchanges = [exchange_of(name) for name in ("SH600000", "600000.SH", "BTCUSDT", "US30")]
    assert exchanges == ["SH", "SH", "", ""]


def test_a_calibration_that_walks_forward_takes_the_last_fit_known_and_none_before_the_first() -> None:
    early, late = fit(known_at="2024-01-02"), fit(spread=0.6, known_at="2024-01-04")
    raw, moved = forecast(), forecast().calibrated(calibration(early, late, walk_forward=True))
    growth = np.log(moved.log_returns().std(axis=1) / raw.log_returns().std(axis=1))[::2, 0]  # by date
    np.testing.assert_allclose(growth, [0, 0.2, 0.2, 0.6, 0.6], atol=1e-5)
    np.testing.assert_array_equal(moved.paths[:2], raw.paths[:2])
    assert moved.band_factors(0.9)[::2, 0].tolist() == [1.0, 1.5, 1.5, 1.5, 1.5]


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (
            replace(KNOWN, weights_sha256="b" * 64),
            "weights aaaaaaaaaaaa, and these are of 'm' with weights bbbb",
        ),
        (replace(KNOWN, weights_sha256=None), "unknown"),
        (replace(KNOWN, sampling=SampleConfig(S, 0.6, 1.0)), "T=1, .*of T=0.6"),
        (replace(KNOWN, anchor="decoded_close"), "from the last close, and these start at the decoded close"),
    ],
)
def test_forecasts_of_another_kind_are_refused_in_one_sentence(known: Provenance, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        replace(forecast(), provenance=known).calibrated(calibration())
    assert "\n" not in str(refusal.value)
    assert "kronos calibrate" in str(refusal.value)


def test_longer_paths_and_bars_of_another_frequency_are_refused() -> None:
    longer = replace(
        forecast(),
        paths=forecast().paths.repeat(2, axis=2),
        timestamps=forecast().timestamps.repeat(2, axis=1),
    )
    with pytest.raises(ValueError, match="fitted to 4 bars, and these paths have 8"):
        longer.calibrated(calibration())
    raw = forecast()
    dates = raw.index.get_level_values(0).to_numpy()[:, None]
    minutes = replace(raw, timestamps=dates + np.arange(1, H + 1) * np.timedelta64(5, "m"))
    with pytest.raises(ValueError, match="bars 1 days 00:00:00 apart, and these are 0 days 00:05:00"):
        minutes.calibrated(calibration())


def test_other_seeds_and_path_counts_fit() -> None:
    sampling = SampleConfig(10, 1.0, 1.0, seed=9)
    assert calibration().mismatch(replace(KNOWN, sampling=sampling), H) is None


def test_a_file_contains_all_parameters_and_their_evaluation(tmp_path: Path) -> None:
    groups = {POOL: fit().groups[POOL], "SH low volatility": fit().groups[POOL]}
    made = calibration(fit(groups=groups, terciles=(0.01, 0.02)), table=({"horizon": 1, "crps": 0.5},))
    back = Calibration.read(made.write(tmp_path / "new" / "c.json"))
    assert back == made
    assert back.id == made.id == replace(made, table=()).id
    assert back.table == made.table
    assert replace(made, T=0.9).id != made.id
    np.testing.assert_array_equal(
        forecast().calibrated(tmp_path / "new" / "c.json").paths, forecast().calibrated(made).paths
    )


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda values: values.pop("fits"), "is not a calibration"),
        (lambda values: values.update(format=99), "another version"),
        (lambda values: values.update(horizon=9), "not have 9 numbers"),
        (
            lambda values: values["fits"][0]["groups"][""].update(spread=[float("nan")] * H),
            "missing or infinite",
        ),
        (lambda values: values["fits"].clear(), "at least one fit"),
    ],
)
def test_a_file_that_is_not_a_calibration_is_refused_in_one_sentence(
    tmp_path: Path, edit, message: str
) -> None:
    file = calibration().write(tmp_path / "c.json")
    values = json.loads(file.read_text())
    edit(values)
    file.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message) as refusal:
        Calibration.read(file)
    assert "\n" not in str(refusal.value)
    with pytest.raises(FileNotFoundError, match="There is no calibration"):
        Calibration.read(tmp_path / "other.json")


def test_trailing_volatility_is_the_deviation_of_the_last_twenty_log_returns() -> None:
    closes = make_bars(60)["close"].to_numpy()
    ends, lengths = np.array([59, 40, 59, 10, 10]), np.array([60, 30, 5, 2, 3])
    found = trailing_volatility(closes, ends, lengths)
    for i, (end, length) in enumerate(zip(ends, lengths, strict=True)):
        steps = np.diff(np.log(closes[end + 1 - min(length, 21) : end + 1]))
        expected = steps.std(ddof=1) if len(steps) > 1 else np.nan
        np.testing.assert_allclose(found[i], expected, rtol=1e-6)
    assert np.isnan(trailing_volatility(np.array([1.0, -1.0, 2.0, 3.0]), np.array([3]), np.array([4])))[0]


def test_a_forecast_knows_the_volatility_of_its_windows() -> None:
    from kronos.windows import Windows

    windows = Windows.rolling({"A": make_bars(40)}, 30, 2, "B")
    made = KronosPredictor(make_model(), make_tokenizer(), "cpu", max_context=16).forecast(
        windows, SampleConfig(2)
    )
    logs = np.log(windows.values[..., CLOSE].astype(float))
    np.testing.assert_allclose(
        made.trailing_volatility, np.diff(logs, axis=1)[:, -20:].std(axis=1, ddof=1), rtol=1e-4
    )


def test_a_checkpoints_calibration_is_found_in_its_folder(tmp_path: Path, reference_folder: Path) -> None:
    import shutil

    pair = tmp_path / "pair"
    shutil.copytree(reference_folder, pair)
    assert checkpoint_calibration(pair) is None
    assert KronosPredictor.from_pretrained(pair, device="cpu").calibration is None
    made = calibration()
    made.write(pair / "predictor" / CALIBRATION)
    assert checkpoint_calibration(pair) == checkpoint_calibration(pair / "predictor") == made
    assert KronosPredictor.from_pretrained(pair, device="cpu").calibration == made
