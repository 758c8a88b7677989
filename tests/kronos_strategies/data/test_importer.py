import numpy as np
import pandas as pd
import pytest

from kronos.io.files import file_record
from kronos.io.rows import ReadOptions
from kronos_strategies.data.importer import import_bars, import_benchmarks, import_membership


@pytest.fixture
def save(tmp_path):
    """Write a frame as CSV or parquet, by the suffix."""

    def write(frame, name="bars.csv"):
        path = tmp_path / name
        frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
        return path

    return write


@pytest.fixture
def long_bars():
    """40 plain bars of one name."""
    days = pd.bdate_range("2024-01-01", periods=40)
    frame = pd.DataFrame({"instrument": "AAA", "datetime": days, "open": 10.0, "high": 11.0, "low": 9.0})
    return frame.assign(close=10.5, volume=100.0, amount=1000.0, factor=1.0)


DEFECTS = {
    "no instrument or no date": {"instrument": None},
    "missing price": {"close": np.nan},
    "infinite value": {"high": np.inf},
    "price not positive": {"low": 0.0},
    "open or close outside [low, high]": {"high": 10.2},
    "missing volume or amount": {"amount": np.nan},
    "negative volume or amount": {"volume": -1.0},
    "factor missing or not positive": {"factor": 0.0},
    "no trade (volume 0, one price)": {"open": 10.0, "high": 10.0, "low": 10.0, "close": 10.0, "volume": 0.0},
}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_every_defect_is_counted_once(long_bars, save, suffix):
    for number, change in enumerate(DEFECTS.values()):
        rows = [2 * number + 1, 2 * number + 2][: 1 + number % 2]
        long_bars.loc[rows, list(change)] = list(change.values())
    repeated = pd.concat([long_bars, long_bars.iloc[[30, 31]].assign(close=10.0)])
    kept, report = import_bars([save(repeated, f"bars.{suffix}")])

    counts = {drop.reason: drop.rows for drop in report.dropped}
    expected = {reason: 1 + number % 2 for number, reason in enumerate(DEFECTS)}
    assert counts == expected | {"duplicate key (the last is kept)": 2}
    assert report.rows_read == 42 == report.rows_kept + sum(counts.values())
    assert report.rows_kept == len(kept) == kept["close"].notna().sum()
    assert (kept.set_index("datetime")["close"][long_bars["datetime"][[30, 31]]] == 10.0).all()


def test_the_import_report_names_the_first_row_dropped(long_bars, save):
    long_bars.loc[[7, 9], "close"] = np.nan
    _, report = import_bars([save(long_bars)])
    assert [(drop.rows, drop.example) for drop in report.dropped] == [(2, "AAA 2024-01-10")]


def test_a_row_counts_under_the_first_check_that_it_fails(long_bars, save):
    long_bars.loc[3, ["close", "volume"]] = [np.nan, -1.0]
    _, report = import_bars([save(long_bars)])
    assert [drop.reason for drop in report.dropped] == ["missing price"]


def test_text_among_the_prices_is_a_missing_price(long_bars, save):
    frame = long_bars.astype({"close": object})
    frame.loc[0, "close"] = "--"
    _, report = import_bars([save(frame)])
    assert [drop.reason for drop in report.dropped] == ["missing price"]


def test_rounding_does_not_count_as_outside(long_bars, save):
    kept, _ = import_bars([save(long_bars.assign(close=11.0005))])
    assert len(kept) == 40


def test_a_day_at_one_price_with_volume_is_kept(long_bars, save):
    kept, _ = import_bars([save(long_bars.assign(open=10.0, high=10.0, low=10.0, close=10.0))])
    assert len(kept) == 40


def test_several_files_are_one_market_and_the_later_one_wins(long_bars, save):
    one = save(long_bars.head(30), "one.csv")
    two = save(long_bars.tail(20).assign(close=10.1), "two.parquet")
    kept, report = import_bars([one, two])
    assert report.rows_kept == 40
    assert (kept["close"].tail(20) == 10.1).all()
    assert report.files == (file_record(one), file_record(two))


def test_common_names_codes_and_dates_are_read(long_bars, save):
    frame = long_bars.drop(columns="factor").assign(instrument="000001")
    frame["datetime"] = frame["datetime"].dt.strftime("%Y%m%d").astype(int)
    plain = {"instrument": "Code", "datetime": "DATE", "volume": "Vol", "close": " Close"}
    kept, report = import_bars([save(frame.rename(columns=plain))])
    assert kept["instrument"].unique().tolist() == ["000001"]
    assert kept["datetime"].equals(long_bars["datetime"].astype(kept["datetime"].dtype))
    assert (kept["factor"] == 1).all()
    assert report.notes == ("no column 'factor': prices count as adjusted.",)


def test_dates_keep_their_local_day(long_bars, save):
    kept, _ = import_bars(
        [save(long_bars.assign(datetime=long_bars["datetime"].dt.tz_localize("Asia/Shanghai")))]
    )
    assert kept["datetime"].equals(long_bars["datetime"].astype(kept["datetime"].dtype))


def test_an_indexed_parquet_file_gives_the_same_bars_as_a_flat_one(long_bars, save):
    kept, _ = import_bars([save(long_bars.set_index(["datetime", "instrument"]), "bars.parquet")])
    assert len(kept) == 40


def test_a_move_that_looks_like_a_missed_split_is_noted(long_bars, save):
    prices = ["open", "high", "low", "close"]
    long_bars.loc[20:, prices] /= 2
    _, unadjusted = import_bars([save(long_bars)])
    assert "the first AAA 2024-01-29; a missed split" in unadjusted.notes[0]
    long_bars.loc[20:, "factor"] = 2.0
    _, adjusted = import_bars([save(long_bars)])
    assert adjusted.notes == ()


def test_an_index_needs_no_volume(long_bars, save):
    kept, _ = import_benchmarks(save(long_bars.drop(columns=["volume", "amount"])))
    assert (kept["volume"] == 0).all()
    assert "amount" not in kept


def test_membership_leaves_out_instruments_without_bars_and_ends_open_stays_on_the_last_day(bars, save):
    stays = pd.DataFrame(
        {
            "symbol": ["AAA", "AAA", "ZZZ"],
            "start": ["2024-01-01", "2024-01-05", "2024-01-01"],
            "end": ["2024-01-03", None, None],
        }
    )
    spans, left_out = import_membership(save(stays, "members.csv"), bars)
    assert left_out == 1
    assert spans["end"].tolist() == [pd.Timestamp("2024-01-03"), pd.Timestamp("2024-01-08")]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f.drop(columns=["close", "low"]), r"lacks the columns \['low', 'close'\]; it has"),
        (
            lambda f: f.assign(ticker="A", code="B").drop(columns="instrument"),
            "which are all candidates for 'instrument'",
        ),
        (
            lambda f: f.assign(datetime="soon"),
            r"40 values in 'datetime' that are not dates, the first 'soon' in row 1",
        ),
        (lambda f: f.assign(datetime=1577923), "not dates, the first '1577923'"),
        (lambda f: f.assign(datetime="02.01.2024"), "Write them as YYYY-MM-DD"),
        (lambda f: f.assign(close=0.0), "none of 40 rows in .* is a usable bar: 40 x price not positive"),
        (lambda f: f.head(0), r"bars\.csv has a header but no rows\. Pass a file with bars\."),
    ],
)
def test_files_without_bars_are_refused_in_one_sentence(long_bars, save, change, says):
    with pytest.raises(ValueError, match=says):
        import_bars([save(change(long_bars))])


def test_raw_and_adjusted_prices_are_not_mixed(long_bars, save, tmp_path):
    files = [save(long_bars, "a.csv"), save(long_bars.drop(columns="factor"), "b.csv")]
    with pytest.raises(ValueError, match=r"b.csv and .*a.csv differ in the columns \['factor'\]"):
        import_bars(files)
    for name, frame in (("AAA.csv", long_bars), ("BBB.csv", long_bars.drop(columns="factor"))):
        save(frame.drop(columns="instrument"), name)
    with pytest.raises(ValueError, match="some of the 2 files have a factor or an adjusted close"):
        import_bars([tmp_path / "AAA.csv", tmp_path / "BBB.csv"])


def test_how_each_file_was_read_is_reported(long_bars, save, tmp_path):
    (tmp_path / "folder").mkdir()
    for name in ("AAA", "BBB"):
        frame = long_bars.rename(columns={"factor": "Adj Close"}).drop(columns="instrument")
        save(frame.assign(**{"Adj Close": 5.25}), f"folder/{name}_1d.csv")
    kept, report = import_bars([tmp_path / "folder"])
    assert kept["instrument"].unique().tolist() == ["AAA", "BBB"]
    assert (kept["factor"] == 0.5).all()
    assert [line.partition(";")[0] for line in report.understood] == [
        "AAA_1d.csv: Yahoo",
        "BBB_1d.csv: Yahoo",
    ]
    assert all("factor = Adj Close / close" in line for line in report.understood)
    assert report.as_dict()["understood"] == list(report.understood)
    assert report.frequency == "1day"
    hours = long_bars.assign(datetime=pd.date_range("2024-01-01", periods=40, freq="h"))
    save(hours.drop(columns="instrument"), "folder/CCC.csv")
    with pytest.raises(
        ValueError, match=r"mixes bars of different frequencies: AAA in AAA_1d\.csv has 1day bars"
    ):
        import_bars([tmp_path / "folder"])


def test_a_volume_of_zero_throughout_is_imported_as_missing(long_bars, save):
    fx = long_bars.assign(instrument="EURUSD", volume=0, amount=0)
    kept, report = import_bars([save(pd.concat([long_bars, fx]))])
    assert report.dropped == ()
    assert kept.groupby("instrument")["volume"].count().to_dict() == {"AAA": 40, "EURUSD": 0}
    assert "volume is always 0 for EURUSD and ignored" in report.understood[0]


def test_codes_are_padded_equally_in_bars_and_membership(long_bars, save):
    options = ReadOptions(pad_codes=6)
    bars, _ = import_bars([save(long_bars.assign(instrument=1), "bars.parquet")], options)
    assert bars["instrument"].unique().tolist() == ["000001"]
    stays = pd.DataFrame({"instrument": [1], "start": ["2024-01-01"], "end": [None]})
    with pytest.raises(ValueError, match=r"members\.csv has the code 1"):
        import_membership(save(stays, "members.csv"), bars)
    spans, left_out = import_membership(save(stays, "members.csv"), bars, pad_codes=6)
    assert (spans["instrument"].tolist(), left_out) == (["000001"], 0)


def test_a_missing_file_and_a_file_that_is_not_a_table_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="Check the path"):
        import_bars([tmp_path / "nix.csv"])
    (tmp_path / "bars.xlsx").write_text("x")
    with pytest.raises(ValueError, match=r"neither \.csv nor \.parquet"):
        import_bars([tmp_path / "bars.xlsx"])
    for name, says in (("bars.parquet", "cannot be read"), ("bars.csv", r"bars\.csv is empty")):
        (tmp_path / name).write_text("")
        with pytest.raises(ValueError, match=says):
            import_bars([tmp_path / name])
