from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import pytest

from kronos.io.files import file_record, find_files, read_table, symbol_in_name, to_dates


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")


def test_a_folder_means_its_tables_sorted_by_name(tmp_path: Path) -> None:
    names = ["B.parquet", "A.csv", "deep/C.CSV.GZ", "deep/D.tsv"]
    touch(*(tmp_path / name for name in (*names, "notes.txt", "book.xlsx", ".hidden/E.csv", "._F.csv")))
    found = [file.relative_to(tmp_path).as_posix() for file in find_files(tmp_path)]
    assert found == ["A.csv", "B.parquet", "deep/C.CSV.GZ", "deep/D.tsv"]


def test_a_folder_without_other_tables_means_its_text_and_zip_files(tmp_path: Path) -> None:
    touch(tmp_path / "SH#600519.txt", tmp_path / "BTCUSDT-1h-2024-01.zip")
    assert [file.name for file in find_files(tmp_path)] == ["BTCUSDT-1h-2024-01.zip", "SH#600519.txt"]


def test_files_folders_and_patterns_are_joined_and_each_file_counts_once(tmp_path: Path) -> None:
    touch(tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "sub" / "c.csv", tmp_path / "x.json")
    found = find_files([tmp_path / "b.csv", str(tmp_path / "*.csv"), tmp_path / "sub"])
    assert [file.name for file in found] == ["b.csv", "a.csv", "c.csv"]
    assert [file.name for file in find_files(str(tmp_path / "*"))] == ["a.csv", "b.csv", "c.csv"]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nix.csv", r"nix\.csv is neither a file nor a folder of bars\. Check the path\."),
        ("*.csv", r"\*\.csv matches no file of bars\."),
        (".", r"contains no file of bars\. Pass files of the types \['\.parquet'"),
        ("a.xlsx", r"a\.xlsx is neither \.csv nor \.parquet\. Convert it first\."),
    ],
)
def test_a_path_without_files_is_refused(path: str, says: str, tmp_path: Path) -> None:
    touch(tmp_path / "a.xlsx")
    with pytest.raises((FileNotFoundError, ValueError), match=says):
        find_files(tmp_path / path)


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("AAA.csv", "AAA"),
        ("600519.SH.csv", "600519.SH"),
        ("600519.csv", "600519"),
        ("000001.SZ.daily.csv.gz", "000001.SZ"),
        ("SH600000.day.csv.gz", "SH600000"),
        ("sh600977_5min.csv", "sh600977"),
        ("BTCUSDT-1h-2024-01.csv", "BTCUSDT"),
        ("1INCHUSDT-1m-2024-01-31.zip", "1INCHUSDT"),
        ("BTC-USD.csv", "BTC-USD"),
        ("BTC_USDT-4h.parquet", "BTC_USDT"),
        ("BRK-B.csv", "BRK-B"),
        ("BRK.B_2010_2020.csv", "BRK.B"),
        ("EURUSD_M5_202401020900_202412312355.csv", "EURUSD"),
        ("AAPL_D1.csv", "AAPL"),
        ("AAPL_1d_2020-01-01_2024-12-31.csv", "AAPL"),
        ("600519_20200101-20241231_qfq.csv", "600519"),
        ("BINANCE_BTCUSDT, 60.csv", "BINANCE_BTCUSDT"),
        ("BINANCE_BTCUSDT, 1D.csv", "BINANCE_BTCUSDT"),
        ("five_min.csv", "five_min"),
        ("2330.csv", "2330"),
        ("bars.csv", "bars"),
        ("SPY_2x.CSV", "SPY_2x"),
    ],
)
def test_the_symbol_is_the_name_without_step_dates_and_suffix(name: str, symbol: str) -> None:
    assert symbol_in_name(Path(name)) == symbol


TABLE = pd.DataFrame(
    {"Code": ["000001", " 600000 "], "DATE": ["2024-01-02", "2024-01-03"], " Vol": [1.0, 2.0], "x": [3, 4]}
)


def save(table: pd.DataFrame, file: Path) -> Path:
    if file.suffix in (".parquet", ".pq", ".PQ"):
        table.to_parquet(file)
    else:
        table.to_csv(file, index=False)
    return file


@pytest.mark.parametrize("name", ["a.csv", "a.CSV", "a.csv.gz", "a.parquet", "a.PQ"])
def test_columns_go_by_their_usual_names_and_codes_stay_text(name: str, tmp_path: Path) -> None:
    got = read_table(save(TABLE, tmp_path / name), ("datetime", "instrument"), ("volume", "amount"))
    assert list(got.columns) == ["datetime", "instrument", "volume"]
    assert got["instrument"].tolist() == ["000001", "600000"]
    assert got["volume"].tolist() == [1.0, 2.0]


def test_a_column_under_its_own_name_comes_before_an_alias(tmp_path: Path) -> None:
    table = TABLE.assign(volume=[5.0, 6.0])
    got = read_table(save(table, tmp_path / "a.csv"), ("datetime",), ("volume",))
    assert got["volume"].tolist() == [5.0, 6.0]


def test_a_column_that_is_required_must_be_there(tmp_path: Path) -> None:
    file = save(TABLE, tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"a\.csv lacks the columns \['close'\]; it has \['Code', 'DATE'"):
        read_table(file, ("datetime", "close"), ())


def test_keys_may_be_in_the_index_instead_of_columns(tmp_path: Path) -> None:
    file = save(TABLE.set_index(["DATE", "Code"]), tmp_path / "a.parquet")
    assert list(read_table(file, ("datetime", "instrument"), ()).columns) == ["datetime", "instrument"]


def test_two_columns_for_one_are_refused(tmp_path: Path) -> None:
    file = save(TABLE.assign(ticker="x"), tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"which are all candidates for 'instrument'\. Keep one\."):
        read_table(file, ("instrument",), ())


def test_a_missing_instrument_stays_missing(tmp_path: Path) -> None:
    table = TABLE.assign(Code=["000001", None])
    assert read_table(save(table, tmp_path / "a.csv"), ("instrument",), ())["instrument"].isna().tolist() == [
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("column", "dates"),
    [
        (["2024-01-02", "2024-01-03 09:35"], ["2024-01-02", "2024-01-03 09:35"]),
        ([20240102, 20240103], ["2024-01-02", "2024-01-03"]),
        (["2024-01-02T09:35+08:00", None], ["2024-01-02 09:35", None]),
        (pd.to_datetime(["2024-01-02", "2024-01-03"]), ["2024-01-02", "2024-01-03"]),
    ],
    ids=["text", "numbers", "zone", "dates"],
)
def test_dates_are_read_with_the_year_first_and_the_local_clock(
    column: object, dates: list[str | None]
) -> None:
    got = to_dates(pd.Series(column, name="datetime"), Path("a.csv"))
    assert got.dtype == "datetime64[ns]"
    want = pd.Series([pd.Timestamp(date) for date in dates], name="datetime").astype(got.dtype)
    pd.testing.assert_series_equal(got, want)


@pytest.mark.parametrize("value", ["soon", "02.01.2024", 1577923200, "1066-10-14"])
def test_values_that_are_not_dates_are_refused_with_their_row(value: object) -> None:
    column = pd.Series([None, value], name="datetime")
    with pytest.raises(
        ValueError, match=r"a\.csv has 1 values in 'datetime' that are not dates.* in row 2\."
    ):
        to_dates(column, Path("a.csv"))


def test_a_fingerprint_is_the_name_and_hash_of_a_file(tmp_path: Path) -> None:
    file = save(TABLE, tmp_path / "a.csv")
    assert file_record(file) == {
        "name": "a.csv",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }


def test_a_path_that_is_not_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nix\.csv is not a file\. Check the path\."):
        read_table(tmp_path / "nix.csv", ("x",), ())
    for name, says in (("a.xlsx", r"neither \.csv nor \.parquet"), ("a.parquet", "cannot be read")):
        (tmp_path / name).write_text("")
        with pytest.raises(ValueError, match=says):
            read_table(tmp_path / name, ("x",), ())
