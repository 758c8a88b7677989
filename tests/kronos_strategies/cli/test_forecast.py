"""`kronos forecast` as a user runs it, on files and on a small simulated data directory."""

import json
import re

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("plotly")

from kronos.forecast import Forecast
from kronos.predictor import KronosPredictor
from kronos_strategies.data.qlib_store import write_store
from kronos_strategies.data.simulate import MarketConfig, simulate_market
from tests.kronos.builders import headed_pair, make_bars
from tests.kronos_strategies.qlib.conftest import TINY

from .conftest import run

SETTINGS = ("--model", TINY, "--device", "cpu", "--samples", 19, "--lookback", 30, "--horizon", 5)


@pytest.fixture(autouse=True)
def no_settings_of_mine(monkeypatch):
    monkeypatch.delenv("KRONOS_CALIBRATION", raising=False)


@pytest.fixture
def files(tmp_path):
    """Two files of 80 daily bars, and one without volume."""
    for seed, name in enumerate(("AAA", "BBB")):
        make_bars(80, seed).to_csv(tmp_path / f"{name}.csv")
    make_bars(80, 4).drop(columns=["volume", "amount"]).to_csv(tmp_path / "bare.csv")
    return tmp_path


def forecast(capsys, *more):
    given = {
        name: value for name, value in zip(SETTINGS[::2], SETTINGS[1::2], strict=True) if name not in more
    }
    return run(capsys, "forecast", *more, *(word for pair in given.items() for word in pair))


def test_the_command_prints_a_table_and_the_command_that_tests_an_earlier_date(files, capsys):
    code, out, err = forecast(capsys, files / "AAA.csv", files / "BBB.csv")
    assert (code, err) == (0, "")
    bars = make_bars(80, 0)
    assert f"5 bars after {bars.index[-1]:%Y-%m-%d}" in out
    assert f"{bars['close'].iloc[-1]:.6g}" in re.findall(r"^ ?AAA .*$", out, re.MULTILINE)[0]
    assert re.search(rf"Next: kronos forecast .*--as-of {bars.index[-6]:%Y-%m-%d}", out)


def test_held_back_bars_are_scored_in_one_line_and_do_not_change_the_forecast(files, capsys, monkeypatch):
    seen = []
    original = KronosPredictor.forecast

    def spy(self, windows, *rest, **named):
        seen.append(windows)
        return original(self, windows, *rest, **named)

    monkeypatch.setattr(KronosPredictor, "forecast", spy)
    as_of = make_bars(80).index[-6]
    code, out, _ = forecast(capsys, files / "AAA.csv", "--as-of", f"{as_of:%Y-%m-%d}")
    assert code == 0
    assert re.search(
        r"^5 bars held back: MAE .*persistence.*CRPS .*historical volatility.*90% band", out, re.M
    )
    assert "kronos evaluate" in out
    (windows,) = seen
    assert windows.index[0][0] == as_of
    np.testing.assert_allclose(windows.bars, make_bars(80).loc[:as_of].iloc[-30:].to_numpy(), rtol=1e-6)


def test_a_forecast_of_a_past_date_is_the_one_that_was_made_then(files, capsys):
    as_of = make_bars(80).index[-6]
    (files / "then").mkdir()
    make_bars(80).loc[:as_of].to_csv(files / "then" / "AAA.csv")
    options = ("--as-of", f"{as_of:%Y-%m-%d}", "--output")
    forecast(capsys, files / "AAA.csv", *options, files / "now.csv")
    forecast(capsys, files / "then" / "AAA.csv", "--output", files / "then.csv")
    assert (files / "now.csv").read_text() == (files / "then.csv").read_text()


def test_table_and_predicted_bars_are_written(files, capsys):
    as_of = make_bars(80).index[-3]
    code, _, _ = forecast(
        capsys, files / "*AA.csv", "--as-of", f"{as_of:%Y-%m-%d}",
        "--output", files / "table.json", "--steps", files / "steps.parquet",
    )  # fmt: skip
    assert code == 0
    (row,) = json.loads((files / "table.json").read_text())
    steps = pd.read_parquet(files / "steps.parquet")
    assert (row["instrument"], len(steps)) == ("AAA", 5)
    assert steps["q50"].iloc[-1] == pytest.approx(row["q50"])
    assert steps["realized"].notna().tolist() == [True, True, False, False, False]


def test_closes_by_instrument_are_forecast_with_the_assumption_stated(tmp_path, capsys):
    closes = pd.DataFrame({name: make_bars(80, seed)["close"] for seed, name in enumerate("ABD")})
    closes.to_csv(tmp_path / "wide.csv")
    table = tmp_path / "table.csv"
    code, out, err = forecast(capsys, tmp_path / "wide.csv", "--output", table, "--instrument", "A", "B")
    assert (code, err) == (0, "")
    assert "wide; A, B, D; 240 bars" in out
    assert "only closes: bars open at the previous close" in out
    assert "No volume and amount of A, B: the model reads zeros" in out
    assert sorted(pd.read_csv(table)["instrument"]) == ["A", "B"]


def test_fields_by_instrument_are_the_bars_of_each(files, capsys):
    panel = {
        name: pd.read_csv(files / f"{name}.csv", index_col=0, parse_dates=True) for name in ("AAA", "BBB")
    }
    fields = pd.concat(panel, axis=1, names=["Ticker", "Price"]).swaplevel(axis=1)
    fields.to_csv(files / "fields.csv")
    forecast(capsys, files / "fields.csv", "--output", files / "fields_table.csv")
    forecast(capsys, files / "AAA.csv", files / "BBB.csv", "--output", files / "table.csv")
    assert (files / "fields_table.csv").read_text() == (files / "table.csv").read_text()


def in_zone(name, zone, folder, seed=0, suffix="csv"):
    """A file of 80 hourly bars around the clock, with the offset or the zone of their times."""
    index = pd.date_range("2024-03-04 09:00", periods=80, freq="h", tz=zone, name="datetime")
    bars = make_bars(80, seed).set_axis(index)
    path = folder / f"{name}.{suffix}"
    if suffix == "csv":
        bars.to_csv(path)
    else:
        bars.to_parquet(path)
    return path


@pytest.mark.parametrize("suffix", ["csv", "parquet", "json"])
def test_files_are_written_in_the_time_zone_of_the_bars(suffix, tmp_path, capsys):
    bars = in_zone("AAA", "Asia/Shanghai", tmp_path, suffix="parquet")
    table, steps = (tmp_path / f"{name}.{suffix}" for name in ("table", "steps"))
    options = ("--as-of", "2024-03-07 10:00", "--plot", tmp_path / "out.html")
    code, out, err = forecast(capsys, bars, "--output", table, "--steps", steps, *options)
    assert (code, err) == (0, "")
    assert "5 bars after 2024-03-07 10:00+08:00, until 2024-03-07 15:00+08:00" in out
    if suffix == "parquet":
        read = {name: pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("table", "steps")}
        assert {str(frame[name].dt.tz) for frame in read.values() for name in ("datetime", "timestamp")} == {
            "Asia/Shanghai"
        }
        assert read["steps"]["timestamp"].iloc[0] == pd.Timestamp("2024-03-07 11:00", tz="Asia/Shanghai")
    else:
        first = "2024-03-07T11:00:00+08:00" if suffix == "json" else "2024-03-07 11:00:00+08:00"
        assert first in steps.read_text()
        assert first.replace("11", "10", 1) in table.read_text()


def test_bars_of_several_zones_keep_theirs(tmp_path, capsys):
    for seed, (name, zone) in enumerate({"CN": "Asia/Shanghai", "UK": "Europe/London"}.items()):
        in_zone(name, zone, tmp_path, seed)
    for suffix in ("csv", "parquet"):
        code, _, _ = forecast(capsys, tmp_path / "*.csv", "--steps", tmp_path / "steps" / f"all.{suffix}")
        assert code == 0
    text = pd.read_csv(tmp_path / "steps" / "all.csv").groupby("instrument")["timestamp"].first()
    assert text.to_dict() == {"CN": "2024-03-07 17:00:00+08:00", "UK": "2024-03-07 17:00:00+00:00"}
    table = pd.read_parquet(tmp_path / "steps" / "all.parquet").groupby("instrument")["timestamp"].first()
    assert table.to_dict() == {name: pd.Timestamp(time).tz_convert("UTC") for name, time in text.items()}


def test_a_zone_of_only_some_files_is_dropped_with_a_note(tmp_path, capsys):
    in_zone("AAA", "Asia/Shanghai", tmp_path)
    in_zone("BBB", None, tmp_path)
    code, out, _ = forecast(capsys, tmp_path / "*.csv", "--steps", tmp_path / "steps" / "all.csv")
    assert code == 0
    assert "no single time zone of BBB, so all times are local" in out
    assert set(pd.read_csv(tmp_path / "steps" / "all.csv")["timestamp"].str[11:]) == {
        f"{hour}:00:00" for hour in range(17, 22)
    }


def test_bars_in_utc_follow_the_hours_of_a_named_exchange(tmp_path, capsys):
    pytest.importorskip("exchange_calendars", reason="needs the extra 'calendars'")
    clock = pd.timedelta_range("9h35min", "11h30min", freq="5min").append(
        pd.timedelta_range("13h5min", "15h", freq="5min")
    )
    days = pd.bdate_range("2024-09-27", "2024-09-30").to_numpy()
    index = pd.DatetimeIndex(np.add.outer(days, clock.to_numpy()).ravel(), name="datetime")
    utc = index.tz_localize("Asia/Shanghai").tz_convert("UTC")
    make_bars(len(utc)).set_axis(utc).to_csv(tmp_path / "bars.csv")
    steps = tmp_path / "steps.csv"
    code, _, _ = forecast(capsys, tmp_path / "bars.csv", "--calendar", "XSHG", "--steps", steps)
    assert code == 0
    assert pd.read_csv(steps)["timestamp"].iloc[0] == "2024-10-08 01:35:00+00:00"  # National Day is over


@pytest.mark.parametrize("suffix", ["html", "png"])
def test_the_picture_is_written(suffix, files, capsys):
    code, out, _ = forecast(capsys, files / "AAA.csv", "--plot", files / f"out.{suffix}")
    assert code == 0
    assert str(files / f"out.{suffix}") in out
    assert (files / f"out.{suffix}").stat().st_size > 10_000


def test_bars_without_volume_are_forecast_with_a_note(files, capsys):
    code, out, _ = forecast(capsys, files / "bare.csv", "--plot", files / "out.png")
    assert code == 0
    assert "No volume and amount of bare: the model reads zeros" in out


def test_instruments_of_a_qlib_data_directory_are_named_and_dated_by_its_calendar(tmp_path, capsys):
    market = simulate_market(
        MarketConfig(seed=3, instruments=6, sectors=2, start="2022-07-01", end="2023-04-28")
    )
    store = tmp_path / "store"
    write_store(market.bars, store, membership={"csi300": market.membership}, source={"kind": "simulation"})
    name = sorted(market.bars["instrument"].unique())[0]
    code, _, err = forecast(capsys, store)
    assert code == 2
    assert re.search(rf"Qlib data directory of \d+ instruments.*--instrument, such as {name}", err)
    code, out, _ = forecast(
        capsys, store, "--instrument", name, "--as-of", "2023-03-31", "--steps", tmp_path / "steps.csv"
    )
    assert code == 0
    days = (store / "calendars" / "day.txt").read_text().split()
    found = pd.read_csv(tmp_path / "steps.csv")
    assert found["timestamp"].tolist() == days[days.index("2023-03-31") + 1 :][:5]
    assert "5 bars held back" in out


def test_a_return_head_ranks_the_table_where_it_fits(files, tmp_path_factory, capsys, monkeypatch):
    pair = headed_pair(TINY, tmp_path_factory.mktemp("pair") / "headed", 48, lookback=30)
    table = ("--output", files / "table.csv", "--model", pair)
    _, out, _ = forecast(capsys, files / "AAA.csv", files / "BBB.csv", *table)
    assert "return head" in out
    ranked = pd.read_csv(files / "table.csv")
    assert (ranked["score"] != ranked["expected_return"]).all()
    assert ranked["score"].is_monotonic_decreasing
    forecast(capsys, files / "AAA.csv", files / "BBB.csv", *table, "--score", "paths")
    ranked = pd.read_csv(files / "table.csv")
    assert (ranked["score"] == ranked["expected_return"]).all()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["nowhere.csv"], r"nowhere\.csv is neither a file nor a folder"),
        (["AAA.csv", "--horizon", 0], r"horizon=0"),
        (["AAA.csv", "--lookback", 1], r"lookback=1 is too short"),
        (["AAA.csv", "--lookback", 90], r"No instrument has 90 bars, the longest has 80"),
        (["AAA.csv", "--as-of", "soon"], r"--as-of soon is not a date or time"),
        (["AAA.csv", "--samples", 0], r"samples=0 gives no path"),
        (["AAA.csv", "--score", "head"], r"needs a return head"),
        (["AAA.csv", "--calibration", "nowhere.json"], r"nowhere\.json"),
        (["AAA.csv", "--output", "table.xlsx"], r"ends in '\.xlsx'"),
        (["AAA.csv", "--plot", "out.gif"], r"ends in '\.gif'"),
        (["AAA.csv", "--columns", "close"], r"columns=close is not a column"),
        (["AAA.csv", "--instrument", "ZZZ"], r"does not contain \['ZZZ'\]"),
        (["odd.csv"], r"odd\.csv.*Last"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(files, capsys, monkeypatch, more, says):
    monkeypatch.chdir(files)
    make_bars(80).rename(columns={"close": "Last"}).to_csv("odd.csv")
    code, _, err = forecast(capsys, *more)
    assert code == 2
    assert re.search(says, err), err
    assert len(err.strip().splitlines()) == 1


def test_a_column_of_another_name_can_be_given_by_a_flag(files, capsys):
    make_bars(80).rename(columns={"close": "Ending"}).to_csv(files / "odd.csv")
    assert forecast(capsys, files / "odd.csv", "--columns", "close=Ending")[0] == 0


def test_the_forecast_is_the_same_as_in_python(files, capsys):
    forecast(capsys, files / "AAA.csv", "--output", files / "table.csv", "--calibration", "none")
    predictor = KronosPredictor.from_pretrained(TINY, device="cpu")
    bars = pd.read_csv(files / "AAA.csv", index_col=0, parse_dates=True)
    sampling = predictor.sampling.with_overrides(19, None, None, None, 0)
    made = predictor.forecast(bars, sampling, horizon=5, lookback=30)
    assert isinstance(made, Forecast)
    median = np.median(made.path("close")[0, :, -1])
    assert pd.read_csv(files / "table.csv")["q50"][0] == pytest.approx(median, rel=1e-5)


def test_bars_of_5_minutes_continue_at_the_sessions_that_followed(shared_data, tmp_path, capsys):
    file = shared_data / "sh600977_5min_2024.parquet"
    code, out, _ = forecast(
        capsys,
        file,
        "--lookback",
        400,
        "--horizon",
        120,
        "--as-of",
        "2024-08-26",
        "--steps",
        tmp_path / "a.csv",
    )
    assert code == 0
    assert "120 bars held back" in out
    later = pd.read_parquet(file).query("datetime > '2024-08-27'")
    steps = pd.read_csv(tmp_path / "a.csv", parse_dates=["timestamp"])
    assert steps["timestamp"].tolist() == later["datetime"].tolist()
    assert steps["realized"].tolist() == pytest.approx(later["close"].tolist())
