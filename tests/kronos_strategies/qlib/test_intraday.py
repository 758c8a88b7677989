"""Bars within the day: a store of crypto pairs, and one of shares with sessions, under the real Qlib."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from qlib.data import D

from kronos_strategies.data.qlib_bins import later_sessions, read_bars, read_calendar
from kronos_strategies.data.qlib_store import read_summary, write_store
from kronos_strategies.data.validation import listing_spans
from kronos_strategies.lookahead import check_causal
from kronos_strategies.qlib.checks import check_task
from kronos_strategies.qlib.data_access import bars_per_year
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.model import KronosModel
from tests.kronos_strategies.cli.conftest import run as command

from .conftest import CONFIG, TINY, artifact_folder, bars_of, qrun, use_store

PAIRS = [
    f"{name}USDT"
    for name in ("ADA", "BNB", "BTC", "DOGE", "ETH", "LTC", "SOL", "TRX", "XMR", "XRP", "ZEC", "DASH")
]
HOURS = pd.date_range("2024-01-01", periods=24 * 20, freq="60min")
CRYPTO = CONFIG.with_name("kronos_crypto.yaml")
MORNING, AFTERNOON = ("09:35", "11:30"), ("13:05", "15:00")


def store_of(bars: pd.DataFrame, folder: Path, frequency: str, market: str = "crypto") -> Path:
    write_store(
        bars, folder, membership={market: listing_spans(bars)}, source={"kind": "test", "region": "us"},
        frequency=frequency,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def crypto(tmp_path_factory) -> Path:
    return store_of(bars_of(PAIRS, HOURS), tmp_path_factory.mktemp("crypto") / "store", "60min")


def dataset(**changes) -> KronosDataset:
    given = {
        "segments": {"test": ("2024-01-15", "2024-01-16")},
        "market": "crypto",
        "lookback": 48,
        "hold": 2,
    }
    return KronosDataset(**{**given, "freq": "60min", **changes})


def test_every_bar_of_a_date_is_scored_and_labels_count_bars(crypto):
    use_store(crypto)
    data = dataset()
    windows = data.windows()
    assert len(windows) == 48 * len(PAIRS)
    times = windows.index.get_level_values("datetime").unique()
    assert (times[0], times[-1]) == (pd.Timestamp("2024-01-15 00:00"), pd.Timestamp("2024-01-16 23:00"))
    steps = np.diff(windows.future, axis=1)
    assert (steps == np.timedelta64(60, "m")).all()
    label = data.prepare("test", col_set="label").iloc[:, 0]
    assert label.index.equals(windows.index)
    closes = read_bars(crypto, ["BTCUSDT"]).set_index("datetime")["close"]
    at = HOURS.get_loc(pd.Timestamp("2024-01-15 07:00"))
    expected = closes.iloc[at + 3] / closes.iloc[at + 1] - 1
    assert label[HOURS[at], "BTCUSDT"] == pytest.approx(expected, abs=1e-6)
    assert data.spec.universe == "crypto-60min"


def test_the_last_bar_of_the_store_has_a_forecast(crypto):
    use_store(crypto)
    data = dataset(segments={"test": ("2024-01-20", None)})
    score = KronosModel(str(TINY), samples=2, device="cpu").predict(data)
    assert score.index.get_level_values("datetime").max() == HOURS[-1]
    assert np.isfinite(score).all()


def test_later_bars_change_no_score(tmp_path):
    bars, runs = bars_of(PAIRS[:6], HOURS[:200]), iter(range(9))

    def run(each: pd.DataFrame) -> pd.DataFrame:
        use_store(store_of(each, tmp_path / f"store{next(runs)}", "60min"))
        data = dataset(segments={"test": ("2024-01-08", "2024-01-08")})
        return KronosModel(str(TINY), samples=2, device="cpu").signals(data)

    check_causal(run, bars, ["2024-01-08 03:00", "2024-01-08 04:00"])


def sessions(days: int) -> pd.DatetimeIndex:
    dates = pd.bdate_range("2024-01-01", periods=days)
    clock = [t for half in (MORNING, AFTERNOON) for t in pd.date_range(*half, freq="5min").strftime("%H:%M")]
    return pd.DatetimeIndex([f"{date:%Y-%m-%d} {time}" for date in dates for time in clock])


def test_forecasts_skip_lunch_nights_and_weekends(tmp_path):
    times = sessions(5)  # to Friday the 5th
    assert len(times) == 5 * 48
    store = store_of(bars_of(PAIRS[:3], times), tmp_path / "store", "5min")
    use_store(store)
    data = dataset(segments={"test": ("2024-01-05", None)}, freq="5min", lookback=30, horizon=4)
    windows = data.windows()
    future = dict(zip(windows.index.get_level_values("datetime"), windows.future, strict=True))
    lunch = [str(t)[5:16] for t in pd.DatetimeIndex(future[pd.Timestamp("2024-01-05 11:25")])]
    assert lunch == ["01-05 11:30", "01-05 13:05", "01-05 13:10", "01-05 13:15"]
    night = [str(t)[5:16] for t in pd.DatetimeIndex(future[pd.Timestamp("2024-01-05 15:00")])]
    assert night == ["01-08 09:35", "01-08 09:40", "01-08 09:45", "01-08 09:50"]
    (store / "calendars" / "5min_future.txt").unlink()
    use_store(store)
    np.testing.assert_array_equal(dataset(
        segments={"test": ("2024-01-05", None)}, freq="5min", lookback=30, horizon=4
    ).windows().future, windows.future)  # fmt: skip
    year, qlibs = bars_per_year("5min")
    assert (year, qlibs) == (48 * 252, 238 * 240 / 5)


def test_an_incomplete_day_continues_its_session():
    times = sessions(5)[:-10]
    later = later_sessions(times, 1)
    assert [f"{t:%d %H:%M}" for t in later[:2]] == ["05 14:15", "05 14:20"]
    assert len(later) == 10 + 48


def test_bars_of_a_frequency_go_through_the_import_as_they_are(tmp_path, capsys):
    bars_of(PAIRS, HOURS).to_csv(tmp_path / "bars.csv", index=False)
    code, out, err = command(capsys, "data", "import", tmp_path / "bars.csv", "--to", tmp_path / "store")
    assert (code, err.strip()) == (0, "")
    assert "configs/kronos_crypto.yaml" in out
    summary = read_summary(tmp_path / "store")
    assert (summary.freq, summary.rows, summary.source["region"]) == ("60min", 480 * 12, "us")
    assert list(summary.markets) == ["all", "crypto"]
    assert read_calendar(tmp_path / "store").equals(HOURS)
    use_store(tmp_path / "store")
    assert len(D.calendar(freq="60min")) == 480
    code, _, err = command(
        capsys, "data", "import", daily(tmp_path), "--to", tmp_path / "store", "--append"
    )  # fmt: skip
    assert (code, "has bars of 60min and the files have 1day" in err) == (2, True)


def test_the_last_day_of_a_membership_counts_to_its_end(tmp_path, capsys):
    bars_of(PAIRS, HOURS).to_csv(tmp_path / "bars.csv", index=False)
    members = "instrument,start,end\nBTCUSDT,2024-01-01,2024-01-15\nETHUSDT,2024-01-01,\n"
    (tmp_path / "members.csv").write_text(members)
    options = ["--membership", tmp_path / "members.csv", "--to", tmp_path / "store"]
    assert command(capsys, "data", "import", tmp_path / "bars.csv", *options)[0] == 0
    use_store(tmp_path / "store")
    keys = dataset().windows().index  # of the 15th and the 16th
    assert keys.get_level_values("instrument").value_counts().to_dict() == {"ETHUSDT": 48, "BTCUSDT": 24}


def daily(folder: Path) -> Path:
    bars_of(PAIRS, pd.date_range("2024-01-01", periods=30)).to_csv(folder / "daily.csv", index=False)
    return folder / "daily.csv"


def test_a_backtest_by_other_bars_than_the_datasets_is_refused(crypto, monkeypatch):
    import yaml
    from qlib.cli.run import render_template

    use_store(crypto)
    for name, value in {
        "QLIB_DATA": crypto,
        "TEST_START": "2024-01-15",
        "TEST_END": "2024-01-19",
        "TOPK": 2,
        "N_DROP": 1,
    }.items():
        monkeypatch.setenv(f"KRONOS_{name}", str(value))
    task = yaml.safe_load(render_template(str(CRYPTO)))["task"]
    check_task(task)
    task["dataset"]["kwargs"]["freq"] = "5min"
    with pytest.raises(FileNotFoundError, match=r"has bars of \['60min', 'day'\], not of freq='5min'"):
        check_task(task)
    task["dataset"]["kwargs"]["freq"] = "60min"
    del task["record"][2]["kwargs"]["config"]["executor"]
    with pytest.raises(ValueError, match=r"time_per_step of the executor is 'day'. Make them agree"):
        check_task(task)


@pytest.mark.slow
def test_the_crypto_workflow_runs_from_bars_to_report(crypto, run_folder):
    process: subprocess.CompletedProcess[str] = qrun(
        run_folder, config=CRYPTO, KRONOS_QLIB_DATA=str(crypto), KRONOS_TEST_START="2024-01-15",
        KRONOS_TEST_END="2024-01-19", KRONOS_TOPK="2", KRONOS_N_DROP="1", KRONOS_LOOKBACK="48",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    metrics = json.loads((artifact_folder(run_folder) / "metrics.json").read_text())
    assert metrics["dates"] > 100
    analysis = pd.read_pickle(
        artifact_folder(run_folder).parent / "portfolio_analysis" / "port_analysis_60min.pkl"
    )["risk"]
    assert metrics["qlib_excess_over_benchmark_annualized_return"] == pytest.approx(
        analysis["excess_return_with_cost"]["annualized_return"], abs=1e-9
    )


def test_a_store_within_days_has_the_days_too(crypto):
    use_store(crypto)
    days = D.features(["BTCUSDT"], ["$open", "$high", "$close", "$volume"], freq="day").droplevel(
        "instrument"
    )
    bars = read_bars(crypto, ["BTCUSDT"]).set_index("datetime")
    by_day = bars.groupby(bars.index.normalize())
    np.testing.assert_allclose(days["$close"], by_day["close"].last(), rtol=1e-6)
    np.testing.assert_allclose(days["$high"], by_day["high"].max(), rtol=1e-6)
    np.testing.assert_allclose(days["$volume"], by_day["volume"].sum(), rtol=1e-6)
    assert (
        len(dataset(freq="day", lookback=5, hold=1, segments={"test": ("2024-01-15", None)}).windows()) == 72
    )


DATES = ("--start", "2024-01-03", "--train-until", "2024-01-10", "--valid-until", "2024-01-14")


@pytest.mark.parametrize(
    "words",
    [
        ["picks", "--market", "crypto"],
        ["train", "quantiles", *DATES, "--output", "fitted"],
    ],
)
def test_commands_that_read_daily_bars_refuse_intraday_ones(
    crypto: Path, words: list[str], capsys, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = command(capsys, *words, "--data", crypto)
    assert code == 2
    assert f"has bars of 60min, and kronos {words[0]}" in " ".join(err.split())
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "fitted").exists()
