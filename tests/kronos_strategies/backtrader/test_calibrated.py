"""Lines of calibrated forecasts, with a store, without, and from a feed that brings stored ones along."""

import numpy as np
import pandas as pd
import pytest

from kronos.calibration import Calibration, CalibrationFit, PathAdjustment
from kronos.paths import POOL
from kronos.postprocessing import PathOptions
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from kronos_strategies.backtrader.feeds import read_forecasts
from kronos_strategies.backtrader.outlook import LINES
from kronos_strategies.signals import summary
from kronos_strategies.store import ForecastStore
from tests.kronos.builders import make_bars
from tests.kronos_strategies.backtrader.builders import SETTINGS, kronos, run

H, BARS = SETTINGS["horizon"], make_bars(40)


@pytest.fixture(scope="module")
def predictor() -> KronosPredictor:
    return KronosPredictor.from_pretrained("kronos-nano", device="cpu")


@pytest.fixture(scope="module")
def file(predictor, tmp_path_factory):
    """Walks forward: bars from the 30th on have wider paths and even wider bands."""
    sampling = predictor.sampling.with_overrides(4, None, None, None, 0)
    known = predictor.provenance(sampling, "")
    moves = PathAdjustment((0.5,) * H, (0.4,) * H, (0.3,) * H)
    day = f"{BARS.index[29]:%Y-%m-%d}"
    fit = CalibrationFit(day, "2023-01-02", 99, 99, {POOL: moves}, (), {}, {0.5: (2.0,) * H})
    made = Calibration(
        known.model, known.weights_sha256, sampling.T, sampling.top_p, sampling.top_k, 4, known.anchor, H,
        86400.0, "bars", 20, "none", (fit,), walk_forward=True,
    )  # fmt: skip
    return made.write(tmp_path_factory.mktemp("calibration") / "c.json")


def of(table: pd.DataFrame) -> pd.DataFrame:
    return table.xs("AAA", level="instrument")


@pytest.mark.parametrize("mode", [{}, {"runonce": False}, {"preload": False}])
def test_lines_are_those_of_calibrated_paths_and_their_widened_bands(predictor, file, mode):
    made = kronos(every=1, level=0.5, calibration=str(file))
    table = of(run({"AAA": BARS}, made, **mode)).dropna()
    windows = Windows.rolling({"AAA": BARS}, SETTINGS["lookback"], H, "B")
    raw = predictor.forecast(
        windows, predictor.sampling.with_overrides(4, None, None, None, 0), candles="raw"
    )
    moved = raw.calibrated(file).repaired()
    figures = summary(moved).droplevel("instrument")
    for name in ("expected_return", "volatility", "prob_up"):
        np.testing.assert_allclose(table[name], figures[name], rtol=1e-9)
    np.testing.assert_allclose(table[["lower", "upper"]], moved.band(0.5)[:, -1], rtol=1e-6)
    plain = of(run({"AAA": BARS}, kronos(every=1, level=0.5, calibration="none"))).dropna()
    changed = (table["volatility"] != plain["volatility"]).to_numpy()
    assert (changed == (table.index >= BARS.index[29])).all()
    assert changed.any()


def test_a_store_serves_any_calibration_and_a_feed_reads_the_same_lines(file, tmp_path):
    stored = kronos(every=1, level=0.5, calibration=str(file), store=str(tmp_path))
    table = of(run({"AAA": BARS}, stored)).dropna()
    plain = of(run({"AAA": BARS}, kronos(every=1, level=0.5, store=str(tmp_path)))).dropna()
    (kept,) = ForecastStore(tmp_path).runs()
    for options, lines in ((PathOptions(str(file)), table), (PathOptions(), plain)):
        read = of(read_forecasts(kept, 0.5, options))
        np.testing.assert_allclose(read[list(LINES)], lines[list(LINES)], rtol=1e-9)


def test_a_calibration_that_does_not_fit_is_refused_before_anything_runs(file):
    with pytest.raises(ValueError, match=r"T=0\.3"):
        run({"AAA": BARS}, kronos(T=0.3, calibration=str(file)))
    with pytest.raises(FileNotFoundError, match="no calibration"):
        run({"AAA": BARS}, kronos(calibration="nothing.json"))
