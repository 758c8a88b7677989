"""`kronos calibrate` as a user runs it: from a store on a small simulated market to a calibrated run."""

import json
from contextlib import suppress

import pandas as pd
import pytest

pytest.importorskip("qlib")
pytest.importorskip("scipy")

from kronos.calibration import Calibration
from kronos.forecast import Forecast
from kronos_strategies.data.qlib_store import write_store
from kronos_strategies.data.simulate import MarketConfig, simulate_market
from kronos_strategies.store import ForecastStore
from tests.kronos_strategies.qlib.conftest import TINY

from .conftest import run

SPAN = ("2022-12-01", "2023-03-31")


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """A Qlib data directory of 24 simulated names."""
    market = simulate_market(
        MarketConfig(seed=3, instruments=24, sectors=4, start="2022-07-01", end="2023-04-28")
    )
    folder = tmp_path_factory.mktemp("bars") / "store"
    membership = {"csi300": market.membership}
    write_store(
        market.bars, folder, membership=membership, benchmarks=market.benchmark, source={"kind": "test"}
    )
    return folder


@pytest.fixture(scope="module")
def store(bars, tmp_path_factory):
    """Forecasts of four months, 10 paths of 2 bars."""
    from kronos_strategies.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("cwd"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        folder = tmp_path_factory.mktemp("forecasts")
        settings = ("--model", TINY, "--samples", 10, "--temperature", 1, "--lookback", 30, "--horizon", 2)
        span = ("--start", SPAN[0], "--end", SPAN[1], "--device", "cpu", "--data", bars)
        tokens = [str(token) for token in ("store", "fill", folder, *span, *settings)]
        with suppress(SystemExit):
            main(tokens)
    assert len(ForecastStore(folder).forecast_sets()[0]) > 70
    return folder


def test_the_command_shows_scores_before_and_after_and_writes_a_file_that_forecasts_read(
    store, bars, tmp_path, capsys
):
    file = tmp_path / "c.json"
    code, out, err = run(capsys, "calibrate", store, "--until", SPAN[1], "--output", file, "--data", bars)
    assert (code, err.strip()) == (0, "")
    made = Calibration.read(file)
    (kept,) = ForecastStore(store).forecast_sets()
    assert made.weights_sha256 == kept.settings.provenance.weights_sha256
    assert (made.market, made.horizon, made.samples, made.lookback) == ("csi300", 2, 10, 30)
    assert pd.Timestamp(made.known_at) == pd.Timestamp(SPAN[1])
    assert "Held back:" in out
    assert f"KRONOS_CALIBRATION={file} qrun" in out
    rows = {row["forecast"]: row for row in made.table if row["horizon"] == 1}
    assert {"as sampled", "calibrated", "Gaussian random walk"} <= set(rows)
    assert rows["calibrated"]["crps"] < rows["as sampled"]["crps"]
    assert rows["calibrated"]["first"] > "2023-02-01"
    one = kept.read(kept.dates[-1])
    assert isinstance(one.calibrated(file), Forecast)
    assert json.loads(file.read_text())["embargo"]


def test_a_walk_forward_fits_at_the_given_number_of_dates(store, bars, tmp_path, capsys):
    file = tmp_path / "c.json"
    more = ("--until", SPAN[1], "--output", file, "--data", bars, "--every", 20)
    code, out, _ = run(capsys, "calibrate", store, *more)
    made = Calibration.read(file)
    assert code == 0
    assert made.walk_forward
    assert len(made.fits) > 2
    assert f"{len(made.fits)}, the last known at" in out


def test_versions_are_compared_under_a_calibration(store, bars, tmp_path, capsys):
    file = tmp_path / "c.json"
    run(capsys, "calibrate", store, "--until", SPAN[1], "--output", file, "--data", bars)
    (folder,) = (path.folder for path in ForecastStore(store).forecast_sets())
    both = (
        f"a={folder}",
        f"b={folder}",
        "--data",
        bars,
        "--label-horizon",
        1,
        "--json",
        tmp_path / "out.json",
    )
    code, out, err = run(capsys, "compare", *both, "--calibration", file)
    assert code == 0, err
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["provenance"]["a"]["calibration"].endswith(str(file))
    assert "uses outcomes until 2023-03-31" in " ".join(out.split())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--until", "2022-12-20"), "Outcomes of"),
        (("--until", "2020-01-01"), "has no forecast until 2020-01-01"),
        (("--until", SPAN[1], "--every", 0), "every=0"),
    ],
)
def test_an_impossible_fit_is_one_sentence_and_exit_code_2(store, bars, tmp_path, capsys, more, message):
    code, _, err = run(capsys, "calibrate", store, *more, "--output", tmp_path / "c.json", "--data", bars)
    assert code == 2
    assert message in " ".join(err.split())
    assert not (tmp_path / "c.json").exists()


def test_an_empty_store_is_refused(tmp_path, capsys):
    code, _, err = run(capsys, "calibrate", tmp_path, "--until", SPAN[1], "--output", tmp_path / "c.json")
    assert code == 2
    assert "contains no forecasts" in " ".join(err.split())
