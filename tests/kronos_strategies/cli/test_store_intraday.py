"""`kronos store fill` on hourly bars that `kronos data import` has read, and the commands that read its store."""

import json
import re
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("qlib")

from kronos.head import ReturnHead
from kronos.predictor import KronosPredictor
from kronos_strategies.cli import main
from kronos_strategies.comparison_inputs import load_input
from kronos_strategies.data.qlib_bins import read_bars
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.model import KronosModel
from kronos_strategies.run_artifacts import RunArtifacts
from kronos_strategies.store import ForecastStore
from tests.kronos.builders import headed_pair
from tests.kronos_strategies.qlib.conftest import TINY, bars_of, use_store

from .conftest import run

PAIRS = [f"{name}USDT" for name in ("ADA", "BNB", "BTC", "DOGE", "ETH", "LTC", "SOL", "XRP")]
HOURS = pd.date_range("2024-01-01", periods=24 * 6, freq="60min")
DAY = ("2024-01-05", "2024-01-05")  # 24 bars
SETTINGS = {"model": TINY, "samples": 2, "lookback": 24, "horizon": 3, "device": "cpu", "market": "crypto"}


@pytest.fixture(autouse=True)
def no_settings_of_mine(monkeypatch):
    monkeypatch.delenv("KRONOS_QLIB_DATA", raising=False)


def imported(bars: pd.DataFrame, folder: Path) -> Path:
    """The data directory that `kronos data import` makes of bars."""
    bars.to_csv(folder / "bars.csv", index=False)
    with suppress(SystemExit):
        main(["data", "import", str(folder / "bars.csv"), "--to", str(folder / "data")])
    assert (folder / "data" / "calendars" / "60min.txt").is_file()
    return folder / "data"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return imported(bars_of(PAIRS, HOURS), tmp_path_factory.mktemp("hourly"))


@pytest.fixture(scope="module", autouse=True)
def record(tmp_path_factory):
    """One record of runs for all tests, which takes MLflow seconds to make."""
    SETTINGS["tracking"] = f"sqlite:///{tmp_path_factory.mktemp('record') / 'mlflow.db'}"


def fill(capsys, store, data, *more, start=DAY[0], end=DAY[1], **changes):
    given = {"start": start, "end": end, "data": data, **SETTINGS, **changes}
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    return run(capsys, "store", "fill", store, *words, *more)


def stored_bytes(folder) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.glob("*/**/date=*/*.parquet"))
    }


def test_every_bar_of_the_span_is_forecast_to_the_next_bars_of_the_calendar(data, tmp_path, capsys):
    code, out, err = fill(capsys, tmp_path, data)
    assert code == 0, err
    assert "24, 2024-01-05 00:00 to 2024-01-05 23:00" in out
    (stored,) = ForecastStore(tmp_path).forecast_sets()
    assert list(stored.dates) == list(pd.date_range("2024-01-05", periods=24, freq="60min"))
    assert stored.settings.spec.universe == "crypto-60min"
    forecast = stored.read("2024-01-05 13:00")
    assert forecast.paths.shape[0] == len(PAIRS)
    steps = np.asarray(forecast.timestamps, "datetime64[ns]") - np.datetime64("2024-01-05T13:00")
    assert (steps == np.arange(1, 4) * np.timedelta64(1, "h")).all()
    closes = read_bars(data, ["ETHUSDT"]).set_index("datetime")["close"]
    at = forecast.index.get_level_values("instrument").get_loc("ETHUSDT")
    assert stored.frame("2024-01-05 13:00", "2024-01-05 13:00")["last_close"].iloc[at] == pytest.approx(
        closes["2024-01-05 13:00"], rel=1e-6
    )
    code, out, _ = run(capsys, "store", "ls", tmp_path)
    assert (code, "crypto-60min" in out, "2024-01-05 23:00" in out) == (0, True, True)
    assert run(capsys, "store", "verify", tmp_path)[0] == 0


def test_times_of_the_span_and_every_count_bars(data, tmp_path, capsys):
    code, _, _ = fill(capsys, tmp_path, data, start="2024-01-05T06:00", end="2024-01-05T18:00", every=6)
    assert code == 0
    (stored,) = ForecastStore(tmp_path).forecast_sets()
    assert [f"{date:%H:%M}" for date in stored.dates] == ["06:00", "12:00", "18:00"]


def test_the_next_command_is_the_intraday_workflow_which_computes_nothing(
    data, tmp_path, capsys, monkeypatch
):
    _, out, _ = fill(capsys, tmp_path, data)
    (command,) = re.findall(r"Next: (.*qrun .*configs/kronos_crypto.yaml)", out)
    assert "KRONOS_TEST_START=2024-01-05 KRONOS_TEST_END=2024-01-05" in command
    use_store(data)
    dataset = KronosDataset({"test": DAY}, market="crypto", freq="60min", lookback=24, horizon=3, hold=2)
    model = KronosModel(str(TINY), device="cpu", samples=2, store=str(tmp_path))
    monkeypatch.setattr(KronosPredictor, "forecast", None)  # whoever calls it fails
    assert model.predict(dataset).index.equals(dataset.windows().index)


def test_bars_after_a_timestamp_change_no_stored_byte_up_to_it(tmp_path, capsys):
    bars, cut = bars_of(PAIRS[:3], HOURS), pd.Timestamp("2024-01-05 11:00")
    later = bars["datetime"] > cut
    other = bars.copy()
    factors = np.random.default_rng(7).uniform(0.97, 1.03, later.sum())
    for price in ("open", "high", "low", "close", "volume"):
        other.loc[later, price] *= factors  # of a bar alike: it stays a bar
    found = []
    for name, each in (("one", bars), ("other", other)):
        (tmp_path / name).mkdir()
        folder = imported(each, tmp_path / name)
        assert fill(capsys, tmp_path / name / "store", folder, start="2024-01-05T08:00")[0] == 0
        found.append(stored_bytes(tmp_path / name / "store"))
    before, after = ({k: v for k, v in each.items() if _hour(k) <= "T11"} for each in found)
    assert len(before) == 4
    assert before == after
    assert found[0] != found[1]


def _hour(name: str) -> str:
    return re.findall(r"date=2024-01-05(T\d\d)", name)[0]


def test_two_workers_store_the_bytes_of_one(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("kronos_strategies.forecasting.CHUNK_WINDOWS", 40)
    for name, workers in (("alone", 1), ("shared", 2)):
        assert fill(capsys, tmp_path / name, data, workers=workers)[0] == 0
    alone, shared = (stored_bytes(tmp_path / name) for name in ("alone", "shared"))
    assert len(alone) == 24
    assert shared == alone


def test_a_head_for_hours_is_stored_and_one_for_days_is_not_used(data, tmp_path, capsys):
    for frequency, count in (("60min", 24), ("1day", 0)):
        pair = headed_pair(TINY, tmp_path / frequency, 48, lookback=24, frequency=frequency)
        store = tmp_path / f"store of {frequency}"
        code, out, _ = fill(capsys, store, data, model=pair)
        assert code == 0
        assert len(list(store.glob("*/heads/*/date=*/*.parquet"))) == count
        assert len(list(store.glob("*/*/date=*/*.parquet"))) == 24
    assert "bars are of 60min" in " ".join(out.replace("│", " ").split())
    use_store(data)
    dataset = KronosDataset({"test": DAY}, market="crypto", freq="60min", lookback=24, horizon=6)
    model = KronosModel(str(tmp_path / "1day"), device="cpu", samples=2)
    assert "bars are of 60min" in model.choose(dataset).why


def test_a_comparison_reads_two_stores_with_labels_over_bars(data, tmp_path, capsys):
    folders = []
    for seed in (0, 1):
        assert fill(capsys, tmp_path / str(seed), data, seed=seed)[0] == 0
        folders += [stored.folder for stored in ForecastStore(tmp_path / str(seed)).forecast_sets()]
    code, out, err = run(
        capsys, "compare", f"a={folders[0]}", f"b={folders[1]}", "--label-horizon", 2, "--data", data
    )
    assert code == 0, err
    assert "on 24 dates" in out
    one = load_input(f"a={folders[0]}", "unused", data, hold=2)
    closes = read_bars(data, ["BTCUSDT"]).set_index("datetime")["close"]
    at = HOURS.get_loc(pd.Timestamp("2024-01-05 07:00"))
    expected = closes.iloc[at + 3] / closes.iloc[at + 1] - 1
    assert one.labels.loc[(HOURS[at], "BTCUSDT"), 2] == pytest.approx(expected, abs=1e-6)


def test_the_days_of_an_intraday_directory_are_forecast_under_the_names_of_days(data, tmp_path, capsys):
    code, out, _ = fill(
        capsys, tmp_path, data, "--frequency", "day", start="2024-01-05", end="2024-01-06", lookback=3
    )
    assert code == 0
    assert "2, 2024-01-05 to 2024-01-06" in out
    (stored,) = ForecastStore(tmp_path).forecast_sets()
    assert stored.settings.spec.universe == "crypto"


def test_a_directory_of_several_frequencies_needs_one_of_them(data, tmp_path, capsys):
    several = tmp_path / "several"
    shutil.copytree(data, several)
    (several / "kronos_store.json").unlink()
    (several / "calendars" / "day.txt").unlink()
    shutil.copy(several / "calendars" / "60min.txt", several / "calendars" / "5min.txt")
    code, _, err = fill(capsys, tmp_path / "store", several)
    assert (code, err.strip()) == (
        2, f"{several} has bars of 5min, 60min: choose one of them with --frequency."
    )  # fmt: skip
    code, _, err = fill(capsys, tmp_path / "store", several, "--frequency", "1min")
    assert (code, err.strip()) == (
        2, f"{several} has bars of 5min, 60min, and none of --frequency 1min: choose one of these."
    )  # fmt: skip
    assert not (tmp_path / "store").exists()
    assert fill(capsys, tmp_path / "store", several, "--frequency", "60min")[0] == 0


def test_a_calibration_and_a_backtest_read_the_hours_of_the_store(data, tmp_path, capsys):
    assert fill(capsys, tmp_path / "store", data, start="2024-01-04", samples=4)[0] == 0
    file = tmp_path / "calibration.json"
    words = ("--until", "2024-01-05", "--output", file, "--data", data)
    code, out, err = run(capsys, "calibrate", tmp_path / "store", *words)
    assert code == 0, err
    assert "kronos_crypto.yaml" in out
    made = json.loads(file.read_text())
    assert made["market"] == "crypto"
    assert made["fits"][-1]["known_at"].startswith("2024-01-05T23:")  # a date ends with its last bar
    words = ("--rules", "topk=2", "--hold", 2, "--end", "2024-01-05", "--data", data)
    words += ("--output", tmp_path / "report")
    code, _, err = run(capsys, "backtest", tmp_path / "store", *words)
    assert code == 0, err
    result = RunArtifacts.read(tmp_path / "report" / "artifacts").result
    assert set(np.diff(result.returns.index)) == {np.timedelta64(1, "h")}
    assert result.bars_per_year > 365


def test_a_head_fitted_on_hours_knows_its_frequency_and_the_last_hour(tmp_path, capsys):
    folder = imported(bars_of([f"P{i:02}USDT" for i in range(24)], HOURS[:120]), tmp_path)
    dates = ("--train-until", "2024-01-04T00:00", "--valid-until", "2024-01-05", "--horizons", 1, 2)
    settings = ("--market", "crypto", "--lookback", 24, "--every", 3, "--device", "cpu")
    words = (*dates, *settings, "--data", folder, "--output", tmp_path / "head")
    code, out, err = run(capsys, "train", "head", TINY, *words)
    assert code == 0, err
    info = ReturnHead.from_pretrained(tmp_path / "head").info
    assert (info.frequency, info.markets, info.trained_until) == ("60min", ("crypto",), "2024-01-05")
    assert "kronos_crypto.yaml" in out
    code, out, _ = fill(capsys, tmp_path / "store", folder, heads=tmp_path / "head", samples=0)
    assert code == 0
    assert len(list((tmp_path / "store").glob("*/heads/*/date=*/*.parquet"))) == 24


def test_no_command_is_printed_that_would_trade_an_incomplete_day(tmp_path, capsys):
    folder = imported(bars_of(PAIRS[:2], HOURS[:-3]), tmp_path)  # to the 6th at 20:00
    span = {"start": "2024-01-05T20:00", "end": "2024-01-06", "every": 1, "samples": 1}
    code, out, err = fill(capsys, tmp_path / "store", folder, **span)
    assert code == 0, err
    assert "25, 2024-01-05 20:00 to 2024-01-06 20:00" in out
    assert "KRONOS_TEST_START=2024-01-05 KRONOS_TEST_END=2024-01-05" in out
    assert "a backtest must end by 2024-01-05" in " ".join(out.split())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"start": "2024-01-05T10:00", "end": "2024-01-05T09:00"}, "starts on 2024-01-05 10:00:00"),
        (
            {"end": "2024-01-08"},
            "ends after the data directory, which spans 2024-01-01 to 2024-01-06 23:00:00",
        ),
        ({"start": "2024-01-05T09:00+08:00"}, "by the clock of the data directory"),
        ({"market": "crypt"}, "has no market 'crypt'"),
    ],
)
def test_a_mistake_is_one_sentence(data, tmp_path, capsys, changes, says):
    code, _, err = fill(capsys, tmp_path / "store", data, **changes)
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert says in err
    assert not (tmp_path / "store").exists()
