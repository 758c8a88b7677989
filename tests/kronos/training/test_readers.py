from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kronos.bars import FEATURES
from kronos.training import readers
from kronos.training.config import Source
from kronos.training.readers import FileBars, is_qlib_store, open_reader
from kronos_strategies.data.qlib_store import write_store
from kronos_strategies.data.training import QlibBars
from kronos_strategies.data.validation import listing_spans
from tests.kronos.builders import make_bars
from tests.kronos.training.builders import tidy, write_bars


def read(path: Path, **settings: object) -> dict[str, pd.DataFrame]:
    """The series of files, by instrument."""
    series = list(open_reader(Source(path, **settings)).series())
    assert len({name for name, _ in series}) == len(series)
    return dict(series)


def assert_bars(got: pd.DataFrame, want: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(
        got[list(FEATURES)], want[list(FEATURES)], check_freq=False, check_index_type=False
    )


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_file_with_a_column_instrument_holds_several(suffix: str, tmp_path: Path) -> None:
    series = make_bars(30, 0), make_bars(20, 1)
    got = read(write_bars(tmp_path / f"bars{suffix}", *series))
    assert list(got) == ["I0", "I1"]
    for bars, want in zip(got.values(), series, strict=True):
        assert_bars(bars, want)


def test_a_file_without_one_holds_one_named_like_the_file(tmp_path: Path) -> None:
    make_bars(30).reset_index().to_csv(tmp_path / "SH600000.day.csv.gz", index=False)
    got = read(tmp_path / "SH600000.day.csv.gz")
    assert list(got) == ["SH600000"]
    assert_bars(got["SH600000"], make_bars(30))


def test_a_folder_holds_the_files_in_it_and_below_in_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "bars"
    (folder / "deep").mkdir(parents=True)
    make_bars(30, 1).reset_index().to_parquet(folder / "B.parquet")
    make_bars(30, 0).reset_index().to_csv(folder / "A.csv", index=False)
    make_bars(30, 2).to_parquet(folder / "deep" / "C.PQ")
    (folder / "notes.txt").write_text("no bars")
    reader = open_reader(Source(folder))
    assert [file.name for file in reader.files()] == ["A.csv", "B.parquet", "C.PQ"]
    assert [name for name, _ in reader.series()] == ["A", "B", "C"]
    for seed, (_, bars) in enumerate(reader.series()):
        assert_bars(bars, make_bars(30, seed))


def test_rows_may_come_in_any_order_and_the_last_of_two_bars_of_a_time_counts(tmp_path: Path) -> None:
    frame = tidy(make_bars(30, 0), make_bars(20, 1))
    wrong = frame.iloc[[3, 40]].assign(close=frame["high"].iloc[[3, 40]])
    pd.concat([wrong, frame.sample(frac=1, random_state=0)]).to_parquet(tmp_path / "bars.parquet")
    got = read(tmp_path / "bars.parquet")
    for seed, (name, count) in enumerate((("I0", 30), ("I1", 20))):
        assert_bars(got[name], make_bars(count, seed))


def test_fields_say_what_the_file_calls_a_feature(tmp_path: Path) -> None:
    frame = tidy(make_bars(30)).rename(columns={"amount": "Money", "instrument": "stk", "close": "last"})
    frame.assign(stk="000001").to_csv(tmp_path / "bars.csv", index=False)
    got = read(tmp_path / "bars.csv", fields={"amount": "Money", "instrument": "stk", "close": "last"})
    assert list(got) == ["000001"]  # codes stay text
    assert_bars(got["000001"], make_bars(30))


def test_fields_also_name_a_time_apart_and_an_adjusted_close(tmp_path: Path) -> None:
    frame = make_bars(30).reset_index().assign(clock="09:30", adj=lambda bars: bars["close"] / 2)
    frame.to_csv(tmp_path / "A.csv", index=False)
    got = read(tmp_path / "A.csv", fields={"time": "clock", "adj_close": "adj"})["A"]
    np.testing.assert_allclose(got["close"], make_bars(30)["close"] / 2)


def test_usual_names_need_no_fields(tmp_path: Path) -> None:
    plain = {"instrument": "Ticker", "datetime": "Date", "volume": "vol", "close": "Close"}
    tidy(make_bars(30)).rename(columns=plain).to_csv(tmp_path / "bars.csv", index=False)
    assert_bars(read(tmp_path / "bars.csv")["I0"], make_bars(30))


def test_volume_and_amount_may_be_absent(tmp_path: Path) -> None:
    write_bars(tmp_path / "bars.parquet", make_bars(30).drop(columns=["volume", "amount"]))
    assert list(read(tmp_path / "bars.parquet")["I0"].columns) == list(FEATURES[:4])


def test_a_reader_tells_what_it_understood_of_each_file(tmp_path: Path) -> None:
    yahoo = make_bars(30).rename(columns=str.title).assign(**{"Adj Close": make_bars(30)["close"] / 2})
    yahoo.drop(columns="Amount").to_csv(tmp_path / "AAA.csv", index_label="Date")
    reader = FileBars(Source(tmp_path))
    bars = dict(reader.series())["AAA"]
    np.testing.assert_allclose(bars["close"], make_bars(30)["close"] / 2)
    assert [line.partition(",")[0] for line in reader.notes()] == ["AAA.csv: Yahoo; AAA; 30 bars of 1day"]


def test_only_the_instruments_asked_for_are_read(tmp_path: Path) -> None:
    file = write_bars(tmp_path / "bars.parquet", make_bars(30, 0), make_bars(20, 1), make_bars(25, 2))
    got = read(file, instruments=("I2", "I0"))
    assert list(got) == ["I0", "I2"]
    assert_bars(got["I2"], make_bars(25, 2))


def test_a_pattern_stands_for_all_instruments_that_it_matches(tmp_path: Path) -> None:
    frame = tidy(*(make_bars(30, seed) for seed in range(4)))
    names = {"I0": "EURUSD@1d", "I1": "EURUSD@1h", "I2": "BTCUSD@1d", "I3": "[SPX"}
    frame.assign(instrument=frame["instrument"].map(names)).to_parquet(tmp_path / "bars.parquet")
    assert list(read(tmp_path / "bars.parquet", instruments=("*@1d",))) == ["BTCUSD@1d", "EURUSD@1d"]
    assert list(read(tmp_path / "bars.parquet", instruments=("[SPX", "EUR*@1?"))) == [
        "EURUSD@1d",
        "EURUSD@1h",
        "[SPX",
    ]
    with pytest.raises(ValueError, match=r"holds no \['\*@4h'\]\. Check the instruments\."):
        read(tmp_path / "bars.parquet", instruments=("*@1d", "*@4h"))


@pytest.mark.parametrize("column", ["factor", "factor_est"])
def test_prices_are_adjusted_by_a_factor_and_volume_against_it(column: str, tmp_path: Path) -> None:
    factor = np.linspace(1, 2, 30)
    write_bars(tmp_path / "bars.parquet", make_bars(30).assign(**{column: factor}))
    got, raw = read(tmp_path / "bars.parquet")["I0"], make_bars(30)
    np.testing.assert_allclose(got["close"], raw["close"] * factor)
    np.testing.assert_allclose(got["volume"], raw["volume"] / factor)
    np.testing.assert_allclose(got["amount"], raw["amount"])


def test_of_two_factors_the_exact_one_counts(tmp_path: Path) -> None:
    write_bars(tmp_path / "bars.parquet", make_bars(30).assign(factor=2.0, factor_est=3.0))
    np.testing.assert_allclose(read(tmp_path / "bars.parquet")["I0"]["close"], 2 * make_bars(30)["close"])


def test_a_qlib_store_is_read_by_whoever_announces_it(tmp_path: Path) -> None:
    bars = tidy(make_bars(30, 0), make_bars(20, 1))
    write_store(bars, tmp_path / "store", membership={"m": listing_spans(bars)}, source={})
    reader = open_reader(Source(tmp_path / "store"))
    assert is_qlib_store(tmp_path / "store")
    assert isinstance(reader, QlibBars)
    assert [name for name, _ in reader.series()] == ["I0", "I1"]
    (tmp_path / "store" / "calendars" / "day.txt").rename(tmp_path / "day.txt")
    (tmp_path / "store" / "calendars" / "day_future.txt").unlink()
    (tmp_path / "store" / "calendars").rmdir()
    assert not is_qlib_store(tmp_path / "store")


def test_without_a_source_the_simulated_market_is_read() -> None:
    reader = open_reader(None)
    assert isinstance(reader, QlibBars)
    assert len(list(reader.files())) > 400


def test_without_the_package_that_reads_stores_one_sentence_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "entry_points", lambda **_: ())
    with pytest.raises(ImportError, match="need kronos_strategies to be installed: pip install"):
        open_reader(None)
    file = write_bars(tmp_path / "bars.parquet", make_bars(30))
    assert isinstance(open_reader(Source(file)), FileBars)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("nowhere", {}, r"nowhere is neither a file nor a folder of bars\. Check the path\."),
        ("empty", {}, r"empty holds no file of bars\. It needs some of \['\.parquet'"),
        ("bars.csv", {"fields": {"amount": "money"}}, r"bars\.csv lacks the columns \['money'\]; it has \["),
        ("bars.csv", {"instruments": ("I0", "I9")}, r"bars\.csv holds no \['I9'\]\. Check the instruments\."),
        (
            "late.csv",
            {},
            r"late\.csv has 30 values in 'datetime' that are no dates, the first 'soon' in row 1",
        ),
        ("close.csv", {}, r"close\.csv lacks the columns \['close'\]; it has"),
        ("bars.xlsx", {}, r"bars\.xlsx is neither \.csv nor \.parquet\. Convert it first\."),
        ("bars.csv", {"timezone": "Mars/Base"}, r"timezone=Mars/Base is not a time zone\. Name the one"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_read_is_refused_in_one_sentence(
    name: str, settings: dict[str, object], says: str, tmp_path: Path
) -> None:
    bars = tidy(make_bars(30))
    (tmp_path / "empty").mkdir()
    bars.to_csv(tmp_path / "bars.csv", index=False)
    bars.assign(datetime="soon").to_csv(tmp_path / "late.csv", index=False)
    bars.drop(columns="close").to_csv(tmp_path / "close.csv", index=False)
    (tmp_path / "bars.xlsx").write_text("x")
    with pytest.raises((ValueError, OSError), match=says):
        read(tmp_path / name, **settings)
