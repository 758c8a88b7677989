from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kronos.bars import FEATURES, stamps
from kronos.training import bar_array as module
from kronos.training.bar_array import MappedBars, cache_folder
from kronos.training.config import Source
from kronos.training.model_card import cleaning_table
from kronos.training.sources import InstrumentBars
from kronos_strategies.data.training import QlibBars
from tests.kronos.builders import make_bars
from tests.kronos.training.builders import LENGTH, make_mapped_bars, tidy, write_bars


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two instruments of 60 and 40 business days."""
    return write_bars(tmp_path / "bars.parquet", make_bars(60, 0), make_bars(40, 1))


def mapped_bars() -> list[str]:
    """Names of the mapped_bars in the cache."""
    return sorted(path.name for path in cache_folder().iterdir() if path.is_dir())


# What it holds


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_bar_array_contains_the_clean_bars_of_its_source(suffix: str, tmp_path: Path) -> None:
    series = make_bars(30, 0), make_bars(20, 1)
    mapped = MappedBars.open(Source(write_bars(tmp_path / f"bars{suffix}", *series)), min_bars=5)
    assert mapped.bounds.tolist() == [0, 30, 50]
    assert mapped.values.dtype == np.float32
    for bars, a, b in zip(series, mapped.bounds[:-1], mapped.bounds[1:], strict=True):
        np.testing.assert_array_equal(mapped.values[a:b], bars.to_numpy(np.float32))
        np.testing.assert_array_equal(mapped.stamps[a:b], stamps(bars.index))
        np.testing.assert_array_equal(mapped.dates[a:b], bars.index.to_numpy("datetime64[ns]"))


def test_features_keep_their_order_on_the_bar_array(tmp_path: Path) -> None:
    columns = ["volume", "instrument", "low", "datetime", "amount", "close", "open", "high"]
    tidy(make_bars(30))[columns].to_parquet(tmp_path / "bars.parquet")
    mapped = MappedBars.open(Source(tmp_path / "bars.parquet"), 5)
    np.testing.assert_array_equal(mapped.values, make_bars(30)[list(FEATURES)].to_numpy(np.float32))


@pytest.mark.parametrize("column", ["factor", "factor_est"])
def test_bars_are_adjusted_by_their_factor_so_that_a_split_is_not_a_gap(column: str, tmp_path: Path) -> None:
    whole = make_bars(30)
    split = whole.copy()
    split.iloc[15:, :4] /= 2
    split.iloc[15:, 4] *= 2
    raw = MappedBars.open(Source(write_bars(tmp_path / "raw.parquet", split)), 5)
    split[column] = np.r_[np.ones(15), np.full(15, 2.0)]
    adjusted = MappedBars.open(Source(write_bars(tmp_path / "adjusted.parquet", split)), 5)
    assert raw.bounds.tolist() == [0, 15, 30]  # half the price overnight
    assert adjusted.bounds.tolist() == [0, 30]
    np.testing.assert_allclose(adjusted.values, whole.to_numpy(np.float32), rtol=1e-6)


def test_the_cleaning_rule_is_that_of_the_sources_frequency(tmp_path: Path) -> None:
    bars = make_bars(40, freq="5min")
    bars.iloc[20:, :4] *= 1.2  # within a day's limit, not within five minutes'
    file = write_bars(tmp_path / "bars.parquet", bars)
    assert MappedBars.open(Source(file, frequency="1day"), 5).bounds.tolist() == [0, 40]
    assert MappedBars.open(Source(file, frequency="5min"), 5).bounds.tolist() == [0, 20, 40]


def test_a_source_starts_and_ends_on_its_dates_both_inclusive(tmp_path: Path) -> None:
    file = write_bars(tmp_path / "bars.parquet", make_bars(24 * 9, freq="h"))
    source = Source(file, frequency="60min", start="2024-01-03", end="2024-01-05")
    mapped = MappedBars.open(source, 5)
    assert mapped.dates.min() == np.datetime64("2024-01-03T00:00")
    assert mapped.dates.max() == np.datetime64("2024-01-05T23:00")
    assert (mapped.info.start, mapped.info.end) == ("2024-01-03", "2024-01-05")


@pytest.mark.parametrize("derived", [False, True])
def test_an_amount_may_be_taken_as_volume_times_the_mean_price(derived: bool, tmp_path: Path) -> None:
    bars = make_bars(60)
    file = write_bars(tmp_path / "bars.parquet", bars.assign(amount=7.0, factor=2.0))
    values = MappedBars.open(Source(file, derive_amount=derived), 20).values
    mean = 2 * bars[["open", "high", "low", "close"]].mean(axis=1)
    want = bars["volume"] / 2 * mean if derived else 7.0
    np.testing.assert_allclose(values[:, 5], want, rtol=1e-5)


def test_the_info_reports_bars_read_and_left(tmp_path: Path) -> None:
    bars = make_bars(60, 0)
    bars.iloc[30, 3] = np.nan  # splits, and is dropped
    source = Source(write_bars(tmp_path / "some.bars.parquet", bars, make_bars(40, 1), make_bars(4, 2)))
    info = MappedBars.open(source, 10).info
    assert asdict(info) | {"sha256": ""} == {
        "name": "some",
        "instruments": 2,
        "segments": 3,
        "bars_read": 104,
        "bars": 99,
        "start": "2024-01-02",
        "end": f"{bars.index[-1]:%Y-%m-%d}",
        "sha256": "",
        "frequency": "1day",
        "inferred": "1day",
        "cleaning": {
            "places": {"no price": 1, "short": 1},
            "bars": {"no price": 1, "short": 4},
            "lost": {"no price": 1, "short": 4},
            "longest": 40,
        },
        "notes": (
            "some.bars.parquet: columns by name; I0, I1, I2; 104 bars of 1day, 2024-01-02 to 2024-03-25; "
            "missing values: 1 in close",
        ),
    }


@pytest.mark.parametrize(
    ("freq", "frequency", "used", "inferred"),
    [
        ("5min", "auto", "5min", "5min"),
        ("B", "auto", "1day", "1day"),
        ("W", "auto", "1week", "1week"),
        ("5min", "1day", "1day", "5min"),
        ("2h", "auto", "4h", "2h"),
        ("3min", "auto", "5min", "3min"),
        ("10s", "auto", "1min", "10s"),
        ("MS", "auto", "1week", "31 days"),
    ],
)
def test_the_frequency_is_that_of_the_timestamps_unless_another_is_given(
    freq: str, frequency: str, used: str, inferred: str, tmp_path: Path
) -> None:
    file = write_bars(tmp_path / "bars.csv", make_bars(60, freq=freq))
    mapped = MappedBars.open(Source(file, frequency=frequency), 20)
    assert (mapped.info.frequency, mapped.info.inferred) == (used, inferred)
    assert len(mapped.values) == 60  # slow bars are not all pauses


def test_five_minute_bars_are_cleaned_by_their_own_rule_by_default(tmp_path: Path) -> None:
    bars = make_bars(60, freq="5min")
    bars.iloc[20:25, 3] = bars.iloc[19, 3]  # five unchanged closes: too many for days, not for five minutes
    bars["high"], bars["low"] = bars.max(axis=1), bars[["open", "close", "low"]].min(axis=1)
    file = write_bars(tmp_path / "bars.csv", bars)
    assert MappedBars.open(Source(file), 20).bounds.tolist() == [0, 60]
    assert MappedBars.open(Source(file, frequency="1day"), 20).bounds.tolist() == [0, 20, 55]


def test_a_source_of_several_frequencies_is_refused(tmp_path: Path) -> None:
    write_bars(tmp_path / "both" / "slow.csv", make_bars(60))
    write_bars(tmp_path / "both" / "fast.csv", make_bars(60, freq="5min"))
    with pytest.raises(ValueError, match=r"fast\.csv has 5min bars of I0 and .*slow\.csv has 1day bars"):
        MappedBars.open(Source(tmp_path / "both"), 20)


def test_a_frequency_that_is_given_stands_where_instruments_seem_to_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mixed:
        """A store of daily bars, one of whose shares trades once a week."""

        def files(self) -> list[Path]:
            return []

        def series(self) -> Iterator[InstrumentBars]:
            yield InstrumentBars("A", make_bars(60))
            yield InstrumentBars("B", make_bars(60, freq="W"))

        def notes(self) -> list[str]:
            return []

    monkeypatch.setattr(module, "open_reader", lambda source, read_qlib: Mixed())
    with pytest.raises(ValueError, match="mixes bars of different frequencies: A has 1day bars, B has 1week"):
        MappedBars.open(Source(tmp_path), 20)
    info = MappedBars.open(Source(tmp_path, frequency="1day"), 20).info
    assert (info.frequency, info.inferred, info.instruments) == ("1day", "several frequencies", 2)


def test_a_series_with_zero_volume_is_kept(tmp_path: Path) -> None:
    one, two = make_bars(60, 0), make_bars(60, 1)
    one["volume"] = one["amount"] = 0.0
    mapped = MappedBars.open(Source(write_bars(tmp_path / "bars.csv", one, two)), 20)
    assert mapped.bounds.tolist() == [0, 60, 120]
    assert (mapped.values[:60, 4:] == 0).all()
    assert (mapped.values[60:, 4:] > 0).any()


def test_reading_is_shown_on_a_terminal_only(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    MappedBars.open(Source(file), 5)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich draws on a terminal only
    MappedBars.open(Source(file), 6)
    assert "cleaning bars: 2 series, 100 bars" in capsys.readouterr().err


def test_the_hash_is_that_of_the_bars_wherever_they_lie(file: Path, tmp_path: Path) -> None:
    other = write_bars(tmp_path / "elsewhere" / "b.csv", make_bars(60, 0), make_bars(40, 1))
    changed = write_bars(tmp_path / "changed.parquet", make_bars(60, 0), make_bars(40, 2))
    one, two, three = (MappedBars.open(Source(path), 5).info.sha256 for path in (file, other, changed))
    assert one == two != three
    assert len(one) == 64


def test_a_source_without_a_long_enough_stretch_is_refused_by_name_and_leaves_nothing(tmp_path: Path) -> None:
    source = Source(write_bars(tmp_path / "bars.parquet", make_bars(9)))
    with pytest.raises(ValueError, match=r"^bars has no segment of 10 clean bars .* Pass longer series"):
        MappedBars.open(source, min_bars=10)
    assert mapped_bars() == []
    with pytest.raises(
        ValueError, match=r"^bars has no bars\. Check its path, instruments, start and end\.$"
    ):
        MappedBars.open(replace(source, start="2030-01-01"), min_bars=10)


def test_without_a_source_there_is_the_simulated_market() -> None:
    mapped = MappedBars.open(None, 101, QlibBars)
    assert mapped.info.name == "simulated"
    assert mapped.info.instruments > 50
    assert mapped.info.start < "2021-02"


# The cache


def test_a_bar_array_is_mapped_from_disk_not_read(file: Path) -> None:
    mapped = MappedBars.open(Source(file), 5)
    for array in (mapped.values, mapped.stamps, mapped.dates):
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable
    folder = cache_folder() / mapped_bars()[0]
    assert (folder / "values").stat().st_size == 100 * 6 * 4


def test_another_process_is_given_the_place_of_a_bar_array_not_its_bars(file: Path) -> None:
    mapped = MappedBars.open(Source(file, name="mine"), LENGTH)
    sent = pickle.dumps(mapped)
    assert len(sent) < 1000
    got = pickle.loads(sent)
    assert isinstance(got.values, np.memmap)
    assert got.info == mapped.info
    np.testing.assert_array_equal(got.values, mapped.values)
    changed = replace(mapped, values=mapped.values * 2)  # one that lies on no disk goes whole
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(changed)).values, mapped.values * 2)


def test_a_bar_array_is_made_once_and_then_found(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = MappedBars.open(Source(file), 5)
    monkeypatch.setattr(module, "clean_segments", None)  # nothing may be cleaned again
    found = MappedBars.open(Source(file), 5)
    np.testing.assert_array_equal(found.values, made.values)
    assert found.info == made.info
    assert len(mapped_bars()) == 1


def test_bar_arrays_are_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache" / "kronos" / "bars"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "kronos" / "bars"


def test_a_bar_array_is_rebuilt_when_its_file_changes(file: Path) -> None:
    before = MappedBars.open(Source(file), 5)
    write_bars(file, make_bars(60, 0), make_bars(40, 7))
    os.utime(file, ns=(0, before.info.bars))  # another time, even where the clock is coarse
    after = MappedBars.open(Source(file), 5)
    assert after.info.sha256 != before.info.sha256
    np.testing.assert_array_equal(after.values[60:], make_bars(40, 7).to_numpy(np.float32))


@pytest.mark.parametrize(
    "change",
    [
        {"frequency": "60min"},
        {"start": "2024-01-10"},
        {"end": "2024-02-10"},
        {"instruments": ("I0",)},
        {"fields": {"volume": "amount"}},
    ],
    ids=str,
)
def test_a_setting_that_may_change_bars_makes_another_bar_array(
    change: dict[str, object], file: Path
) -> None:
    MappedBars.open(Source(file), 5)
    MappedBars.open(replace(Source(file), **change), 5)
    assert len(mapped_bars()) == 2


def test_another_least_length_makes_another_bar_array(file: Path) -> None:
    MappedBars.open(Source(file), 5)
    MappedBars.open(Source(file), 6)
    assert len(mapped_bars()) == 2


def test_settings_that_do_not_affect_bars_reuse_the_bar_array(file: Path) -> None:
    MappedBars.open(Source(file), 5)
    other = Source(file, name="mine", weight=3.0, train_until="2024-02-01", validate_until="2024-03-01")
    assert MappedBars.open(other, 5).info.name == "mine"
    assert MappedBars.open(Source(file), 5).info.name == "bars"
    assert len(mapped_bars()) == 1


def test_an_incomplete_bar_array_is_rebuilt(file: Path) -> None:
    made = np.array(MappedBars.open(Source(file), 5).values)
    (folder,) = (cache_folder() / name for name in mapped_bars())
    (folder / "info.json").unlink()  # it is written last
    (folder / "values").write_bytes(b"half")
    np.testing.assert_array_equal(MappedBars.open(Source(file), 5).values, made)


@pytest.mark.integration
def test_processes_that_open_a_source_at_once_get_the_same_bar_array(file: Path, tmp_path: Path) -> None:
    script = """
        import json, sys, time
        from dataclasses import asdict
        from pathlib import Path
        from kronos.training import bar_array
        from kronos.training.config import Source

        def slow(*args, clean=bar_array.clean_segments):  # so that the other one comes meanwhile
            Path(sys.argv[2]).write_text("cleaning")
            time.sleep(0.5)
            return clean(*args)

        bar_array.clean_segments = slow
        made = bar_array.MappedBars.open(Source(Path(sys.argv[1])), 5)
        print(json.dumps([asdict(made.info), float(made.values.sum())]))
    """
    marks = [tmp_path / name for name in ("first", "second")]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), str(file), str(mark)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for mark in marks
    ]
    results = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert results[0] == results[1]
    assert [mark.exists() for mark in marks].count(True) == 1  # the other one waited
    assert len(mapped_bars()) == 1


# Windows


def test_every_window_lies_within_one_segment() -> None:
    mapped = make_mapped_bars(make_bars(60, 0), make_bars(40, 1), make_bars(LENGTH - 1, 2))
    want = [*range(60 - LENGTH + 1), *range(60, 100 - LENGTH + 1)]
    assert mapped.window_starts(LENGTH, None, None).tolist() == want


def test_windows_end_within_the_asked_dates_both_inclusive() -> None:
    mapped = make_mapped_bars(make_bars(60, 0), make_bars(40, 1))
    since, until = "2024-02-05", "2024-02-16"
    starts = mapped.window_starts(LENGTH, since, until)
    ends = pd.DatetimeIndex(mapped.dates[starts + LENGTH - 1])
    assert ends.min() == pd.Timestamp(since)
    assert ends.max() == pd.Timestamp(until)
    assert len(starts) == 2 * len(pd.bdate_range(since, until))


def test_held_bars_are_all_on_the_first_date_or_later() -> None:
    mapped = make_mapped_bars(make_bars(60, 0))
    starts = mapped.window_starts(LENGTH, "2024-02-05", None, held_out=4)
    first_held = pd.DatetimeIndex(mapped.dates[starts + LENGTH - 4])
    assert first_held.min() == pd.Timestamp("2024-02-05")
    assert len(starts) == len(mapped.window_starts(LENGTH, "2024-02-05", None)) - 3


def test_the_last_date_counts_to_its_last_bar() -> None:
    mapped = make_mapped_bars(make_bars(40, freq="h"))
    ends = pd.DatetimeIndex(mapped.dates[mapped.window_starts(5, None, "2024-01-02") + 4])
    assert ends.max() == pd.Timestamp("2024-01-02 23:00")


def test_a_share_of_the_span_lies_before_its_date() -> None:
    mapped = make_mapped_bars(make_bars(101, 0, freq="D"), make_bars(31, 1, start="2024-02-01", freq="D"))
    assert mapped.date_at(0.8) == "2024-03-22"  # 80 days after January 2


@pytest.mark.parametrize(("bars", "day"), [(144, "2024-01-02"), (300, "2024-01-07"), (20, "2024-01-01")])
def test_training_never_takes_the_last_of_several_days(bars: int, day: str) -> None:
    index = pd.DatetimeIndex(
        np.concatenate(
            [pd.date_range(d, periods=48, freq="5min") for d in pd.bdate_range("2024-01-01 09:35", periods=7)]
        )
    )[:bars]
    frame = make_bars(bars).set_axis(index)
    assert make_mapped_bars(frame).date_at(0.8) == day


def test_a_bar_array_remembers_what_was_understood_of_its_files(tmp_path: Path) -> None:
    write_bars(tmp_path / "AAA.csv", make_bars(60))
    source = Source(tmp_path / "AAA.csv")
    first, cached = (MappedBars.open(source, 20).info for _ in range(2))
    assert len(first.notes) == 1
    assert "AAA" in first.notes[0]
    assert cached == first
    assert first.notes[0] in cleaning_table(cached, 20, 3, 2)
