from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kronos.bars import PRICES, bars_from_closes
from kronos.io import BarFiles, BarsOfFiles, read_bars
from kronos.io.files import summarize
from kronos.io.rows import ReadOptions
from tests.kronos.io.builders import DAYS, make_prices, ohlcv, write_lines

BARS = make_prices(DAYS)
HOURS = make_prices(pd.date_range("2024-01-01", periods=48, freq="h"))
OHLCV = [*PRICES, "volume"]


def only(read: BarsOfFiles, instrument: str) -> pd.DataFrame:
    assert list(read.bars) == [instrument]
    return read.bars[instrument]


def assert_bars(got: pd.DataFrame, want: pd.DataFrame, columns: list[str] = OHLCV) -> None:
    pd.testing.assert_frame_equal(got[columns], want[columns], check_freq=False, check_index_type=False)


def write_tidy(file: Path, bars: pd.DataFrame, **columns: object) -> Path:
    frame = bars.reset_index().assign(**columns)
    frame.to_parquet(file) if file.suffix == ".parquet" else frame.to_csv(file, index=False)
    return file


def test_yahoo_keeps_raw_prices_and_takes_a_factor_from_the_adjusted_close(tmp_path: Path) -> None:
    for name in ("AAA", "BBB"):
        yahoo = BARS.rename(columns=str.title).assign(**{"Adj Close": BARS["close"] * 0.97})
        yahoo.to_csv(tmp_path / f"{name}.csv", index_label="Date")
    read = read_bars(tmp_path)
    assert list(read.bars) == ["AAA", "BBB"]
    for bars in read.bars.values():
        assert_bars(bars, BARS)
        np.testing.assert_allclose(bars["factor"], 0.97)
    assert str(read.files[0]) == (
        "AAA.csv: Yahoo; AAA; 12 bars of 1day, 2024-01-02 to 2024-01-17; "
        "factor = Adj Close / Close, prices kept raw"
    )
    assert read.frequency == "1day"


@pytest.mark.parametrize("order", ["price first", "ticker first"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_yfinance_has_two_rows_of_headers(order: str, suffix: str, tmp_path: Path) -> None:
    wide = pd.concat({"AAPL": BARS, "MSFT": BARS + 1}, axis=1, names=["Ticker", "Price"]).rename_axis("Date")
    wide = wide.rename(columns=str.title, level="Price")
    wide = wide.swaplevel(axis=1) if order == "price first" else wide
    file = tmp_path / f"two{suffix}"
    wide.to_parquet(file) if suffix == ".parquet" else wide.to_csv(file)
    read = read_bars(file)
    assert list(read.bars) == ["AAPL", "MSFT"]
    assert_bars(read.bars["AAPL"], BARS)
    assert_bars(read.bars["MSFT"], BARS + 1)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "utf-16"])
@pytest.mark.parametrize("lot", [1, 100])
def test_akshare_has_chinese_headers_in_any_encoding_and_shares_or_lots(
    encoding: str, lot: int, tmp_path: Path
) -> None:
    file = write_lines(
        tmp_path / "a.csv",
        "股票代码,日期,开盘,最高,最低,收盘,成交量,成交额,换手率",
        BARS.assign(volume=BARS["volume"] / lot),
        lambda t, b: f"000001,{t:%Y-%m-%d},{ohlcv(b)},{b['volume'] * lot * b['close']:.2f},1.2",
        encoding,
    )
    got = only(read_bars(file), "000001")
    assert_bars(got, BARS)
    np.testing.assert_allclose(got["amount"], BARS["volume"] * BARS["close"], rtol=1e-6)


def test_tushare_has_the_newest_day_first_in_lots_and_thousands(tmp_path: Path) -> None:
    file = write_lines(
        tmp_path / "a.csv",
        "ts_code,trade_date,open,high,low,close,vol,amount",
        BARS.assign(volume=BARS["volume"] / 100)[::-1],
        lambda t, b: f"600519.SH,{t:%Y%m%d},{ohlcv(b)},{b['volume'] * b['close'] / 10:.4f}",
    )
    read = read_bars(file)
    got = only(read, "600519.SH")
    assert_bars(got, BARS)
    np.testing.assert_allclose(got["amount"], BARS["volume"] * BARS["close"], rtol=1e-6)
    assert "Tushare; 600519.SH" in str(read.files[0])
    assert "volume in lots x 100, amount in thousands x 1,000" in str(read.files[0])


@pytest.mark.parametrize(
    "header", ["", "open_time,open,high,low,close,volume,close_time,quote_volume,count,tb,tq,i"]
)
@pytest.mark.parametrize("unit", [10**6, 10**3])
def test_binance_klines_are_in_utc_with_the_quote_volume_as_amount(
    header: str, unit: int, tmp_path: Path
) -> None:
    file = write_lines(
        tmp_path / "BTCUSDT-1h-2024-01.csv",
        header,
        HOURS,
        lambda t, b: f"{t.value // unit},{ohlcv(b)},{t.value // unit + 1},{b['volume'] * 2},5,1,2,0",
    )
    read = read_bars(file)
    got = only(read, "BTCUSDT")
    assert_bars(got, HOURS)
    assert (got["amount"] == 2 * HOURS["volume"]).all()
    assert (read.frequency, read.files[0].layout.partition(",")[0]) == ("60min", "Binance klines")


def test_monthly_files_of_one_symbol_are_joined_in_order_of_time(tmp_path: Path) -> None:
    for name, bars in (("2024-02", HOURS[24:]), ("2024-01", HOURS[:30])):
        file = tmp_path / f"BTCUSDT-1h-{name}.csv"
        write_lines(file, "", bars, lambda t, b: f"{t.value // 10**6},{ohlcv(b)},0,1,1,1,1,0")
        with zipfile.ZipFile(file.with_suffix(".zip"), "w") as archive:
            archive.write(file, file.name)
        file.unlink()
    read = read_bars(tmp_path)
    assert_bars(only(read, "BTCUSDT"), HOURS)
    assert [note.rows for note in read.files] == [30, 24]
    assert "rows with a repeated time: 6, the last one is used" in str(read.files[0])


METATRADER = "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>"


def test_metatrader_has_dates_and_times_apart_and_ticks_for_volume(tmp_path: Path) -> None:
    file = write_lines(
        tmp_path / "EURUSD_H1_202401010000_202401022300.csv",
        METATRADER,
        HOURS,
        lambda t, b: f"{t:%Y.%m.%d}\t{t:%H:%M:%S}\t{ohlcv(b, chr(9))}\t0\t2",
    )
    read = read_bars(file)
    assert_bars(only(read, "EURUSD"), HOURS)
    assert "<DATE> and <TIME> joined; volume from <TICKVOL>, since <VOL> is always 0" in str(read.files[0])


@pytest.mark.parametrize(
    ("header", "date", "time"),
    [
        ("Date,Time,Open,High,Low,Close,Volume", "%Y-%m-%d", "%H:%M"),
        ("date,time,open,high,low,close,volume", "%Y%m%d", "%H%M"),
        ("Date,Timestamp,Open,High,Low,Close,Volume", "%Y%m%d", "%H:%M:%S"),
        ("日期,时间,开盘,最高,最低,收盘,成交量", "%Y/%m/%d", "%H%M%S"),
        ("", "%Y.%m.%d", "%H:%M"),
    ],
)
def test_dates_and_times_apart_are_joined(header: str, date: str, time: str, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "A.csv", header, HOURS, lambda t, b: f"{t:{date}},{t:{time}},{ohlcv(b)}")
    read = read_bars(file)
    assert_bars(only(read, "A"), HOURS)
    assert read.frequency == "60min"


def test_a_column_of_dates_gives_way_to_one_that_is_finer(tmp_path: Path) -> None:
    file = write_lines(
        tmp_path / "a.csv",
        "date,time,code,open,high,low,close,volume",
        HOURS,
        lambda t, b: f"{t:%Y-%m-%d},{t:%Y%m%d%H%M%S}000,sh.600000,{ohlcv(b)}",
    )
    assert_bars(only(read_bars(file), "sh.600000"), HOURS)


def test_days_of_shanghai_stored_in_utc_keep_their_dates(tmp_path: Path) -> None:
    moments = BARS.tz_localize("Asia/Shanghai").tz_convert("UTC")
    for name, index in (
        ("offset", moments.index),
        ("epoch", moments.index.as_unit("ms").asi8),
        ("bare", moments.index.tz_localize(None)),
    ):
        file = write_tidy(
            tmp_path / f"{name}.csv", moments.set_axis(index).rename_axis("datetime"), instrument="A"
        )
        for zone in (None, "Asia/Shanghai"):
            read = read_bars(file, timezone=zone)
            assert_bars(only(read, "A"), BARS)
            assert "Asia/Shanghai" in str(
                read.files[0]
            ) or "2024-01-01 16:00 is assigned to 2024-01-02" in str(read.files[0])


def test_ambiguous_days_are_refused_with_the_option(tmp_path: Path) -> None:
    crypto = make_prices(pd.date_range("2024-01-01", periods=30))
    moments = crypto.tz_localize("Asia/Shanghai").tz_convert("UTC")
    file = write_tidy(tmp_path / "A.csv", moments)
    with pytest.raises(
        ValueError, match=r"A\.csv has daily bars at 16:00: it is unclear.*--timezone Asia/Shanghai"
    ):
        read_bars(file)
    assert_bars(only(read_bars(file, timezone="Asia/Shanghai"), "A"), crypto)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_local_days_with_two_offsets_stay(suffix: str, tmp_path: Path) -> None:
    bars = make_prices(pd.bdate_range("2024-02-20", periods=60))
    file = write_tidy(tmp_path / f"A{suffix}", bars.tz_localize("America/New_York"))
    assert_bars(only(read_bars(file), "A"), bars)


def test_intraday_bars_keep_the_clock_of_the_file_or_take_that_of_a_zone(tmp_path: Path) -> None:
    file = write_tidy(tmp_path / "A.csv", HOURS.tz_localize("Asia/Shanghai"))
    assert_bars(only(read_bars(file), "A"), HOURS)
    assert only(read_bars(file, timezone="UTC"), "A").index[0] == pd.Timestamp("2023-12-31 16:00")


@pytest.mark.parametrize(
    ("suffix", "zone", "option", "known"),
    [
        (".parquet", "Asia/Shanghai", None, "Asia/Shanghai"),
        (".csv", "Asia/Shanghai", None, "UTC+08:00"),
        (".csv", "Asia/Shanghai", "America/New_York", "America/New_York"),
        (".csv", None, "Asia/Shanghai", "Asia/Shanghai"),  # local times
        (".csv", None, None, None),
    ],
)
def test_the_time_zone_is_known_where_the_file_or_an_option_states_it(
    suffix: str, zone: str | None, option: str | None, known: str | None, tmp_path: Path
) -> None:
    files = BarFiles(
        write_tidy(tmp_path / f"A{suffix}", HOURS.tz_localize(zone)), ReadOptions(timezone=option)
    )
    list(files.series())
    assert {name: str(each) for name, each in files.zones.items()} == ({} if known is None else {"A": known})


def test_files_of_several_offsets_or_moved_days_have_no_zone(tmp_path: Path) -> None:
    days = make_prices(pd.bdate_range("2024-02-20", periods=60))
    write_tidy(tmp_path / "A.csv", days.tz_localize("America/New_York"))
    write_tidy(tmp_path / "B.csv", BARS.tz_localize("Asia/Shanghai").tz_convert("UTC"))  # at 16:00
    epochs = HOURS.set_axis(pd.Index(HOURS.index.astype("int64") // 10**9, name="time"))
    epochs.to_csv(tmp_path / "C.csv")
    files = BarFiles([tmp_path / f"{name}.csv" for name in "ABC"])
    list(files.series())
    assert {name: str(zone) for name, zone in files.zones.items()} == {"C": "UTC"}


def test_separators_of_thousands_and_decimal_commas_are_read(tmp_path: Path) -> None:
    thousands = write_lines(
        tmp_path / "A.csv",
        "date,open,high,low,close,volume",
        BARS,
        lambda t, b: f'{t:%Y-%m-%d},{ohlcv(b).rpartition(",")[0]},"{b["volume"]:,.0f}"',
    )
    assert_bars(only(read_bars(thousands), "A"), BARS)
    commas = write_lines(
        tmp_path / "B.csv",
        "date;open;high;low;close;volume",
        BARS,
        lambda t, b: (
            f"{t:%d.%m.%Y};{ohlcv(b, ';').rpartition(';')[0].replace('.', ',')};{b['volume']:,.0f}".replace(
                f"{b['volume']:,.0f}", f"{b['volume']:,.0f}".replace(",", ".")
            )
        ),
    )
    read = read_bars(commas)
    assert_bars(only(read, "B"), BARS)
    assert "dates as day first; decimal commas" in str(read.files[0])


def test_marks_for_missing_values_are_missing_and_counted(tmp_path: Path) -> None:
    file = write_tidy(tmp_path / "A.csv", BARS.astype(object).assign(close=["--", *BARS["close"][1:]]))
    read = read_bars(file)
    assert np.isnan(only(read, "A")["close"].iloc[0])
    assert "missing values: 1 in close" in str(read.files[0])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_codes_without_their_zeros_are_padded_or_refused(suffix: str, tmp_path: Path) -> None:
    file = write_tidy(tmp_path / f"bars{suffix}", BARS, code=1)
    with pytest.raises(ValueError, match="has the code 1 in 'code', which may have lost leading zeros"):
        read_bars(file)
    read = read_bars(file, pad_codes=6)
    assert_bars(only(read, "000001"), BARS)
    assert "codes padded to 6 digits" in str(read.files[0])


def closes_of(*names: str) -> pd.DataFrame:
    """Closes by instrument; the second is listed later."""
    wide = pd.DataFrame({name: make_prices(DAYS, seed)["close"] for seed, name in enumerate(names)})
    wide.iloc[:3, 1] = np.nan
    return wide


@pytest.mark.parametrize("form", [".csv", ".parquet", "semicolons", "no name", "newest first"])
def test_closes_by_instrument_are_read_with_the_assumption_stated(form: str, tmp_path: Path) -> None:
    wide = closes_of("AAPL", "MSFT", "LOW", "600519.SH")  # LOW is a company
    file = tmp_path / ("wide.parquet" if form == ".parquet" else "wide.csv")
    if form == ".parquet":
        wide.to_parquet(file)
    else:
        wide = wide.iloc[::-1] if form == "newest first" else wide
        wide.rename_axis(None if form == "no name" else "Date").to_csv(
            file, sep=";" if form == "semicolons" else ","
        )
    read = read_bars(file)
    assert list(read.bars) == ["600519.SH", "AAPL", "LOW", "MSFT"]
    assert len(read.bars["MSFT"]) == len(DAYS) - 3
    pd.testing.assert_frame_equal(
        read.bars["AAPL"], bars_from_closes(BARS["close"]), check_freq=False, check_like=True
    )
    assert "wide; 4 instruments" in str(read.files[0])
    assert "only closes: bars open at the previous close" in str(read.files[0])


@pytest.mark.parametrize("columns", [["close"], list(BARS.columns)])
def test_a_column_of_instruments_without_any_is_named(columns: list[str], tmp_path: Path) -> None:
    write_tidy(tmp_path / "bars.csv", BARS[columns], instrument="")
    with pytest.raises(ValueError, match=r"bars\.csv names no instrument in its column 'instrument'\. Fill"):
        read_bars(tmp_path / "bars.csv")


def test_codes_may_name_the_columns_of_a_wide_file(tmp_path: Path) -> None:
    closes_of("600519", "000001").rename_axis("date").to_csv(tmp_path / "wide.csv")
    assert list(read_bars(tmp_path / "wide.csv").bars) == ["000001", "600519"]


def test_wide_files_of_the_same_instruments_are_joined(tmp_path: Path) -> None:
    wide = closes_of("A", "B", "D")
    wide.iloc[:6].to_csv(tmp_path / "first.csv")
    wide.iloc[6:].to_csv(tmp_path / "second.csv")
    read = read_bars(tmp_path)
    assert {name: len(bars) for name, bars in read.bars.items()} == {"A": 12, "B": 9, "D": 12}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_fields_by_instrument_may_lack_all_but_the_closes(suffix: str, tmp_path: Path) -> None:
    fields = pd.concat({"A": BARS, "B": BARS + 1}, axis=1, names=["instrument", "field"]).swaplevel(axis=1)
    file = tmp_path / f"fields{suffix}"
    fields = fields[["close", "volume"]]
    fields.to_parquet(file) if suffix == ".parquet" else fields.to_csv(file)
    read = read_bars(file)
    assert list(read.bars) == ["A", "B"]
    assert read.bars["A"]["open"].tolist()[1:] == BARS["close"].tolist()[:-1]
    assert read.bars["A"]["volume"].tolist() == BARS["volume"].tolist()
    assert "only closes" in str(read.files[0])


@pytest.mark.parametrize(
    "heads",
    [["Opening", "Highest", "Lowest", "Ending"], ["open", "high", "low", "Last"], ["x"], ["open", "x"]],
)
def test_columns_that_may_be_prices_of_one_instrument_are_not_taken_for_instruments(
    heads: list[str], tmp_path: Path
) -> None:
    frame = BARS.iloc[:, : len(heads)].set_axis(heads, axis=1)
    frame.to_csv(tmp_path / "A.csv")
    with pytest.raises(
        ValueError, match=rf"lacks the columns .*it has \['datetime', '{heads[0]}'.*--columns \w+=COLUMN"
    ):
        read_bars(tmp_path / "A.csv")


def test_zeros_throughout_count_as_absent_for_that_instrument_alone(tmp_path: Path) -> None:
    frames = [
        BARS.assign(instrument="A", amount=0.0),
        BARS.assign(instrument="INDEX", volume=0.0, amount=0.0),
        BARS.assign(
            instrument="SUSPENDED", open=20.0, high=20.0, low=20.0, close=20.0, volume=0.0, amount=0.0
        ),
    ]
    read = read_bars(write_tidy(tmp_path / "bars.parquet", pd.concat(frames)))
    assert {name: list(bars.columns[4:]) for name, bars in read.bars.items()} == {
        "A": ["volume"],
        "INDEX": [],
        "SUSPENDED": ["volume", "amount"],
    }
    assert "volume is always 0 for INDEX and ignored" in str(read.files[0])


def test_a_footer_is_not_a_bar_and_a_title_is_not_a_header(tmp_path: Path) -> None:
    file = write_lines(
        tmp_path / "SH600519.txt",
        "600519 name daily\n      日期\t    开盘\t    最高\t    最低\t    收盘\t    成交量",
        BARS,
        lambda t, b: f"{t:%Y/%m/%d}\t{ohlcv(b, chr(9))}",
        "gbk",
    )
    with file.open("a", encoding="gbk") as stream:
        stream.write("#数据来源\n")
    read = read_bars(file)
    assert_bars(only(read, "SH600519"), BARS)
    assert "rows dropped without date and price: 1; encoding GBK" in str(read.files[0])


def test_compressed_and_separated_files_are_recognized_by_their_content(tmp_path: Path) -> None:
    for separator in (",", ";", "\t", "|"):
        text = BARS.to_csv(sep=separator)
        for content in (text.encode(), gzip.compress(text.encode())):
            (tmp_path / "A.csv").write_bytes(content)
            assert_bars(only(read_bars(tmp_path / "A.csv"), "A"), BARS)


def test_an_index_without_a_name_contains_the_times(tmp_path: Path) -> None:
    BARS.rename_axis(None).to_csv(tmp_path / "A.csv")
    BARS.rename_axis(None).to_parquet(tmp_path / "B.parquet")
    read = read_bars([tmp_path / "A.csv", tmp_path / "B.parquet"])
    assert list(read.bars) == ["A", "B"]
    for bars in read.bars.values():
        assert_bars(bars, BARS)


def test_tidy_files_that_share_an_instrument_are_joined_and_the_later_file_wins(tmp_path: Path) -> None:
    write_tidy(tmp_path / "1.csv", BARS[:8], instrument="A")
    write_tidy(tmp_path / "2.parquet", BARS[6:] + 1, instrument="A")
    got = only(read_bars(tmp_path), "A")
    assert_bars(got, pd.concat([BARS[:6], BARS[6:] + 1]))


def test_only_the_requested_instruments_are_read(tmp_path: Path) -> None:
    write_tidy(tmp_path / "A.csv", BARS)
    (tmp_path / "B.csv").write_text("no,bars,at,all,here\n1,2,3,4,5\n")
    files = BarFiles(tmp_path, instruments=["A"])
    assert [name for name, _ in files.series()] == ["A"]
    tidy = write_tidy(
        tmp_path / "tidy.parquet", pd.concat([BARS.assign(instrument=name) for name in ("A1", "A2", "B1")])
    )
    assert list(read_bars(tidy, instruments=["A*", "B?"]).bars) == ["A1", "A2", "B1"]
    assert list(read_bars(tidy, instruments=["?2"]).bars) == ["A2"]
    tidy.unlink()
    with pytest.raises(ValueError, match=r"does not contain \['C'\]\. Check the instruments\."):
        read_bars(tmp_path, instruments=["C"])


def test_frequencies_of_one_source_must_agree(tmp_path: Path) -> None:
    write_tidy(tmp_path / "A.csv", BARS)
    write_tidy(tmp_path / "B.csv", HOURS)
    with pytest.raises(ValueError, match=r"mixes .*: A in A\.csv has 1day bars, B in B\.csv has 60min bars"):
        read_bars(tmp_path)
    assert len(list(BarFiles(tmp_path).series())) == 2  # the reader itself still reads them


def test_a_file_without_rows_is_left_out_among_others_and_refused_alone(tmp_path: Path) -> None:
    write_tidy(tmp_path / "A.csv", BARS)
    write_tidy(tmp_path / "B.csv", BARS[:0])
    (tmp_path / "C.csv").write_text("")
    read = read_bars(tmp_path)
    assert list(read.bars) == ["A"]
    assert [str(note) for note in read.files[1:]] == ["B.csv: no rows, skipped", "C.csv: no rows, skipped"]
    for name, says in (("B.csv", "has a header but no rows"), ("C.csv", "is empty")):
        with pytest.raises(ValueError, match=says):
            read_bars(tmp_path / name)
    with pytest.raises(ValueError, match="has no rows. Pass files with bars."):  # noqa: RUF043
        read_bars([tmp_path / "B.csv", tmp_path / "C.csv"])


def test_columns_are_named_by_options_also_by_position(tmp_path: Path) -> None:
    write_tidy(tmp_path / "A.csv", BARS.rename(columns={"close": "Last"}))
    assert_bars(only(read_bars(tmp_path / "A.csv", columns={"close": "last"}), "A"), BARS)
    write_lines(tmp_path / "B.csv", "", BARS, lambda t, b: f"x,{ohlcv(b)},{t:%Y-%m-%d}")
    positions = dict(zip(("open", "high", "low", "close", "volume", "datetime"), "234567", strict=True))
    assert_bars(only(read_bars(tmp_path / "B.csv", columns=positions), "B"), BARS)
    with pytest.raises(ValueError, match=r"columns has unknown names \['last'\]\. Known ones are"):
        ReadOptions({"last": "close"})


def test_many_files_are_described_by_one_line_per_kind(tmp_path: Path) -> None:
    for number in range(25):
        write_tidy(tmp_path / f"S{number:02}.csv", BARS if number else BARS.drop(columns="volume"))
    lines = summarize(read_bars(tmp_path).files)
    assert lines == [
        "S00.csv: columns by name; S00; 12 bars of 1day, 2024-01-02 to 2024-01-17; no volume",
        "24 files, S01.csv to S24.csv: columns by name; 24 instruments (S01, S02, S03, ...); 288 bars of 1day, "
        "2024-01-02 to 2024-01-17",
    ]
