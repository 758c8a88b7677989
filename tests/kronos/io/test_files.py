from __future__ import annotations

from pathlib import Path

import pytest

from kronos.io.files import find_files, symbol_in_name


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")


def test_a_folder_stands_for_its_tables_by_name(tmp_path: Path) -> None:
    names = ["B.parquet", "A.csv", "deep/C.CSV.GZ", "deep/D.tsv"]
    touch(*(tmp_path / name for name in (*names, "notes.txt", "book.xlsx", ".hidden/E.csv", "._F.csv")))
    found = [file.relative_to(tmp_path).as_posix() for file in find_files(tmp_path)]
    assert found == ["A.csv", "B.parquet", "deep/C.CSV.GZ", "deep/D.tsv"]


def test_a_folder_without_other_tables_stands_for_its_text_and_zip_files(tmp_path: Path) -> None:
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
        (".", r"holds no file of bars\. It needs some of \['\.parquet'"),
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
