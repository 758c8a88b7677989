from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from kronos_strategies.forecast_view.inputs import parse_as_of, read_forecast_bars
from tests.kronos.builders import make_bars


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate(("AAA", "BBB")):
        make_bars(60, seed).to_csv(tmp_path / f"{name}.csv")
    make_bars(30, 5).drop(columns=["volume", "amount"]).to_csv(tmp_path / "CCC.csv")
    make_bars(60, 6).drop(columns="amount").to_csv(tmp_path / "DDD.csv")
    return tmp_path


def test_bars_after_the_date_are_held_back_and_no_other(folder: Path) -> None:
    read = read_forecast_bars([folder / "AAA.csv", folder / "BBB.csv"], as_of="2024-03-01")
    assert list(read.known) == ["AAA", "BBB"]
    for name, bars in read.known.items():
        assert bars.index[-1] == pd.Timestamp("2024-03-01")
        assert read.held_back[name].index[0] == pd.Timestamp("2024-03-04")
        assert len(bars) + len(read.held_back[name]) == 60
    assert (read.frequency, read.calendar, read.warnings) == ("1day", None, ())
    assert len(read.notes) >= 1


def test_without_a_date_nothing_is_held_back(folder: Path) -> None:
    read = read_forecast_bars([folder / "AAA.csv"])
    assert len(read.known["AAA"]) == 60
    assert read.held_back["AAA"].empty


def test_a_date_includes_all_bars_of_its_day_and_a_time_those_until_then() -> None:
    assert parse_as_of("2024-08-26") == pd.Timestamp("2024-08-27") - pd.Timedelta(1, "ns")
    assert parse_as_of("2024-08-26 10:30") == pd.Timestamp("2024-08-26 10:30")
    assert parse_as_of("2024-08-26 10:30+08:00") == pd.Timestamp("2024-08-26 02:30", tz="UTC")
    for bad in ("soon", "2024-08-26+08:00"):
        with pytest.raises(ValueError, match=r"--as-of .* is not a date or time"):
            parse_as_of(bad)


def test_a_moment_divides_bars_of_several_zones_at_once(tmp_path: Path) -> None:
    hours = pd.date_range("2024-03-01", periods=60, freq="h", tz="UTC")
    for zone in ("Asia/Tokyo", "America/New_York"):
        name = zone.partition("/")[2]
        make_bars(60).set_axis(hours.tz_convert(zone)).rename_axis("datetime").to_parquet(
            tmp_path / f"{name}.parquet"
        )
    read = read_forecast_bars([tmp_path], as_of="2024-03-02T12:00+00:00")
    assert {name: frame.index[-1] for name, frame in read.known.items()} == dict.fromkeys(
        read.known, hours[36]
    )
    assert len(read.known) == 2
    local = read_forecast_bars([tmp_path], as_of="2024-03-02 12:00")
    assert {str(frame.index[-1].time()) for frame in local.known.values()} == {"12:00:00"}


def test_a_moment_needs_bars_with_a_time_zone(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"has a UTC offset, but the times of AAA have no time zone"):
        read_forecast_bars([folder / "AAA.csv"], as_of="2024-08-26T10:30Z")


def test_missing_volume_and_amount_are_stated(folder: Path) -> None:
    warnings = read_forecast_bars([folder]).warnings
    assert "No volume and amount of CCC: the model reads zeros, and no volume is shown." in warnings
    assert "No amount of DDD: it is computed as volume times the mean price." in warnings
    assert any(warning.startswith("The last bars differ") for warning in warnings)


def test_short_instruments_are_left_out_and_named(folder: Path) -> None:
    read = read_forecast_bars([folder], lookback=40)
    assert sorted(read.known) == ["AAA", "BBB", "DDD"]
    assert "Fewer than 40 bars, left out: CCC." in read.warnings
    with pytest.raises(ValueError, match=r"No instrument has 90 bars by 2024-02-01, the longest has 23"):
        read_forecast_bars([folder], lookback=90, as_of="2024-02-01")


def test_bars_without_prices_are_left_out_and_counted(folder: Path) -> None:
    bars = make_bars(30)
    bars.iloc[3, 0] = None
    bars.to_csv(folder / "EEE.csv")
    read = read_forecast_bars([folder / "EEE.csv"])
    assert len(read.known["EEE"]) == 29
    assert "Bars without four prices, left out: 1." in read.warnings


def test_instruments_are_chosen_by_pattern(folder: Path) -> None:
    assert list(read_forecast_bars([folder], ["A*"]).known) == ["AAA"]
    with pytest.raises(ValueError, match=r"does not contain \['ZZZ'\]"):
        read_forecast_bars([folder], ["ZZZ"])


def test_a_later_date_than_the_last_bar_holds_nothing_back(folder: Path) -> None:
    read = read_forecast_bars([folder / "AAA.csv"], as_of="2030-01-01")
    assert "No bar is later than 2030-01-01, so nothing is held back." in read.warnings


def test_raw_prices_with_a_factor_are_adjusted(tmp_path: Path) -> None:
    bars = make_bars(30)
    bars.assign(factor=2.0).to_csv(tmp_path / "AAA.csv")
    read = read_forecast_bars([tmp_path / "AAA.csv"])
    assert read.known["AAA"]["close"].tolist() == pytest.approx((2 * bars["close"]).tolist())


def test_a_forecast_store_is_refused_with_the_command_that_fills_it(tmp_path: Path) -> None:
    (tmp_path / "model" / "settings").mkdir(parents=True)
    (tmp_path / "model" / "settings" / "_manifest.json").write_text("{}")
    with pytest.raises(ValueError, match=r"is a forecast store.*kronos store fill"):
        read_forecast_bars([tmp_path])


def test_without_a_file_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv is neither a file nor a folder"):
        read_forecast_bars([tmp_path / "nowhere.csv"])
