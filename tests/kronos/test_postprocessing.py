"""From sampled paths to those that are read: by name, in order, and never ahead of what was known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kronos.paths import china_limits
from kronos.postprocessing import PathOptions, Postprocessing
from tests.kronos.test_calibration import KNOWN, H, calibration, fit, forecast


def broken():
    """A forecast whose sampled highs lie below its closes on some paths."""
    raw = forecast()
    raw.paths[:, ::3, :, 1] *= 0.97
    return raw


def test_paths_are_calibrated_then_limited_then_repaired() -> None:
    made = calibration(fit(1.0, 1.2))
    read = Postprocessing(made, china_limits, "valid")(broken())
    by_hand = broken().calibrated(made).limited(china_limits).repaired()
    np.testing.assert_array_equal(read.paths, by_hand.paths)
    known = read.provenance
    assert (known.calibration, known.limits, known.candles) == (made.id, True, "valid")
    assert broken().violations().outside > 0
    assert read.violations().outside == 0
    other = broken().limited(china_limits).calibrated(made).repaired()
    assert not np.array_equal(read.paths, other.paths)  # so that the order decides the result


def test_repair_before_calibration_gives_the_same_candles_as_after() -> None:
    made = calibration()
    np.testing.assert_allclose(
        broken().repaired().calibrated(made).paths, broken().calibrated(made).repaired().paths, rtol=1e-6
    )


def test_auto_is_the_checkpoints_calibration_if_it_fits_and_else_none() -> None:
    own = calibration()
    assert PathOptions().resolve(own, KNOWN, H).calibration is own
    assert PathOptions().resolve(None, KNOWN, H).reason == "none: 'm' has no calibration"
    cold = replace(KNOWN, sampling=replace(KNOWN.sampling, T=0.5))
    unfit = PathOptions().resolve(own, cold, H)
    assert unfit.calibration is None
    assert "T=0.5" in unfit.reason
    assert PathOptions().resolve(own, KNOWN, H + 1).calibration is None
    assert PathOptions().resolve(own, KNOWN, H, 300.0).calibration is None
    assert PathOptions("none").resolve(own, KNOWN, H).calibration is None


def test_a_named_file_is_used_or_refused_and_never_ignored(tmp_path: Path) -> None:
    file = str(calibration().write(tmp_path / "c.json"))
    assert PathOptions(file).resolve(None, KNOWN, H).calibration == calibration()
    with pytest.raises(ValueError, match="fitted to 4 bars"):
        PathOptions(file).resolve(None, KNOWN, H + 1)
    with pytest.raises(FileNotFoundError, match="Choose 'auto', 'none'"):
        PathOptions(str(tmp_path / "nothing.json")).resolve(None, KNOWN, H)


def test_a_calibration_file_that_changes_is_read_again(tmp_path: Path) -> None:
    import os

    file = calibration().write(tmp_path / "c.json")
    first = PathOptions(str(file)).resolve(None, KNOWN, H).calibration
    calibration(fit(spread=0.4)).write(file)
    os.utime(file, ns=(1, 1))
    assert PathOptions(str(file)).resolve(None, KNOWN, H).calibration != first


@pytest.mark.parametrize(
    "options", [{"calibration": ""}, {"candles": "x"}, {"limits": "wide"}, {"limits": "2"}]
)
def test_an_invalid_option_is_refused_in_one_sentence(options: dict) -> None:
    with pytest.raises(ValueError, match="is unknown") as refusal:
        PathOptions(**options)
    assert "\n" not in str(refusal.value)


def test_limits_are_named_by_market_or_by_share() -> None:
    assert PathOptions(limits="china").price_limits() is china_limits
    assert PathOptions(limits="0.05").price_limits().rate == 0.05
    assert PathOptions().price_limits() is None


def test_a_reader_is_warned_of_a_calibration_that_knows_of_times_after_the_first_date() -> None:
    read = Postprocessing(calibration())
    assert read.warnings(pd.Timestamp("2024-01-01")) == []
    assert "until 2023-12-31" in read.warnings(pd.Timestamp("2023-06-01"))[0]
    walks = Postprocessing(calibration(walk_forward=True))
    assert walks.warnings(pd.Timestamp("2023-06-01")) == []
