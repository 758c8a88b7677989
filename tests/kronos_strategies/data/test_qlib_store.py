import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_strategies.data.append import append_days
from kronos_strategies.data.qlib_bins import FUTURE_DAYS, read_bars, read_calendar, read_market
from kronos_strategies.data.qlib_store import CHECKSUMS, MANIFEST, check_intact, read_summary, write_store
from kronos_strategies.data.validation import listing_spans

CALENDAR = pd.bdate_range("2024-01-01", periods=12)
SYMBOLS = st.from_regex(r"[A-Z^][A-Z0-9&.-]{0,5}[A-Z0-9]", fullmatch=True).filter(
    lambda s: s.lower() not in {"na", "nan", "null", "none"}
)
PRICE = st.floats(0.01, 1e6)


@st.composite
def tidy_frames(draw):
    """Bars of a few symbols on any subset of a few days, in any order."""
    rows = []
    for symbol in draw(st.sets(SYMBOLS, min_size=1, max_size=4)):
        for day in draw(st.sets(st.sampled_from(list(CALENDAR)), min_size=1)):
            prices = sorted(draw(st.tuples(PRICE, PRICE, PRICE, PRICE)))
            low, high = prices[0], prices[3]
            factor = draw(st.floats(0.1, 100.0))
            volume = float(draw(st.integers(0, 10**12)))
            rows.append((symbol, day, prices[1], high, low, prices[2], volume, factor))
    columns = ["instrument", "datetime", "open", "high", "low", "close", "volume", "factor"]
    return pd.DataFrame(draw(st.permutations(rows)), columns=columns)


def write(bars, to, **options):
    given_options = {"membership": {"market": listing_spans(bars)}, "source": {"kind": "test"}}
    return write_store(bars, to, **given_options | options)


@settings(max_examples=40, deadline=None)
@given(frame=tidy_frames())
def test_any_valid_bars_survive_the_bins(frame):
    with tempfile.TemporaryDirectory() as folder:
        store = write(frame, Path(folder) / "store").path
        days = sorted(frame["datetime"].unique())
        assert (store / "calendars" / "day.txt").read_text().split() == [f"{day:%Y-%m-%d}" for day in days]
        for symbol, bars in frame.sort_values("datetime").groupby("instrument"):
            position = np.searchsorted(days, bars["datetime"])
            close = bars["close"] * bars["factor"]
            expected = {
                "open": bars["open"] * bars["factor"],
                "close": close,
                "volume": bars["volume"] / bars["factor"],
                "factor": bars["factor"],
                "change": close.pct_change(),
            }
            for field, values in expected.items():
                start, *written = np.fromfile(store / f"features/{symbol.lower()}/{field}.day.bin", "<f4")
                assert start == position[0]
                assert len(written) == position[-1] - position[0] + 1
                np.testing.assert_allclose(np.array(written)[position - position[0]], values, rtol=1e-6)
                absent = np.setdiff1d(np.arange(len(written)), position - position[0])
                assert np.isnan(np.array(written)[absent]).all()


def test_bars_are_read_back_as_they_were_written(bars, tmp_path):
    store = write(bars.sample(frac=1, random_state=0), tmp_path / "store").path
    pd.testing.assert_frame_equal(read_bars(store), bars, rtol=1e-6, check_dtype=False)


def test_change_compares_with_the_last_traded_adjusted_close(bars, tmp_path):
    store = write(bars, tmp_path / "store").path
    start, *change = np.fromfile(store / "features/bbb/change.day.bin", "<f4")
    assert start == 1
    np.testing.assert_allclose(change, [np.nan, np.nan, 22 / 20 - 1, 2 * 11.5 / 22 - 1], rtol=1e-6)


def test_a_member_that_came_back_has_two_rows(bars, tmp_path):
    stays = pd.DataFrame(
        {
            "instrument": ["BBB", "AAA", "BBB"],
            "start": pd.to_datetime(["2024-01-05", "2024-01-02", "2024-01-02"]),
            "end": pd.to_datetime(["2024-01-08", "2024-01-04", "2024-01-03"]),
        }
    )
    summary = write(bars, tmp_path / "store", membership={"top2": stays})
    assert (summary.path / "instruments/top2.txt").read_text().splitlines() == [
        "AAA\t2024-01-02\t2024-01-04",
        "BBB\t2024-01-02\t2024-01-03",
        "BBB\t2024-01-05\t2024-01-08",
    ]
    assert read_market(summary.path)["start"].dt.day.tolist() == [2, 3]
    assert summary.markets == {"all": 2, "top2": 2}


def test_a_benchmark_has_bars_but_is_in_no_market(bars, tmp_path):
    index = bars[bars["instrument"] == "AAA"].assign(instrument="IDX")
    early = index.assign(datetime=index["datetime"] - pd.Timedelta(days=100))
    extra = index.tail(1).assign(instrument="IDX", datetime=pd.Timestamp("2024-01-06"))
    summary = write(bars, tmp_path / "store", benchmarks=pd.concat([early, index, extra]))
    assert summary.benchmarks == ("IDX",)
    assert "IDX" not in (summary.path / "instruments/all.txt").read_text()
    # Cut to the span of the bars, but a day on which only the index traded is a trading day.
    assert len(read_calendar(summary.path)) == 6
    assert len(read_bars(summary.path, ["IDX"])) == 6


def test_the_future_calendar_continues_by_business_days(bars, tmp_path):
    store = write(bars, tmp_path / "store").path
    days, future = read_calendar(store), read_calendar(store, future=True)
    assert future[: len(days)].equals(days)
    assert future[len(days) :].equals(pd.bdate_range("2024-01-09", periods=FUTURE_DAYS))


def test_a_market_that_trades_on_weekends_continues_every_day(bars, tmp_path):
    days = pd.date_range("2024-01-01", periods=14)
    daily = pd.concat([bars.head(1).assign(datetime=day) for day in days])
    future = read_calendar(write(daily, tmp_path / "store").path, future=True)
    assert future.equals(pd.date_range("2024-01-01", periods=14 + FUTURE_DAYS))


def test_the_future_calendar_keeps_to_the_weekdays_of_the_market(bars, tmp_path):
    """Riyadh trades from Sunday to Thursday."""
    whole = pd.date_range("2024-01-01", periods=200)
    days = whole[whole.day_of_week.isin([6, 0, 1, 2, 3])]
    past = days[:60].drop(days[7]).append(pd.DatetimeIndex(["2024-01-06"])).sort_values()  # a rare Saturday
    riyadh = pd.concat([bars.head(1).assign(datetime=day) for day in past])
    future = read_calendar(write(riyadh, tmp_path / "store").path, future=True)
    assert future[len(past) :].equals(days[60 : 60 + FUTURE_DAYS])


def test_weekly_bars_continue_by_weeks(bars, tmp_path):
    days = pd.date_range("2024-01-05", periods=30, freq="W-FRI")
    weekly = pd.concat([bars.head(1).assign(datetime=day) for day in days])
    future = read_calendar(write(weekly, tmp_path / "store").path, future=True)
    assert future.equals(pd.date_range("2024-01-05", periods=30 + FUTURE_DAYS, freq="W-FRI"))


def test_equal_contents_give_equal_hashes_wherever_they_lie(bars, tmp_path):
    one = write(bars, tmp_path / "one")
    two = write(bars.sample(frac=1, random_state=1), tmp_path / "deep" / "two")
    other = write(bars.assign(volume=bars["volume"] + 1), tmp_path / "other")
    assert one.sha256 == two.sha256 != other.sha256
    one.path.rename(tmp_path / "moved")
    assert read_summary(tmp_path / "moved").sha256 == one.sha256
    assert read_summary(tmp_path / "moved").path == tmp_path / "moved"


def test_devices_of_windows_get_the_folder_that_qlib_looks_for(bars, tmp_path):
    store = write(bars.replace({"instrument": {"AAA": "CON"}}), tmp_path / "store").path
    assert (store / "features/_qlib_con/close.day.bin").is_file()
    assert len(read_bars(store, ["CON"])) == 5


def test_a_store_is_replaced_only_on_demand(bars, tmp_path):
    first = write(bars, tmp_path / "store")
    with pytest.raises(FileExistsError, match="already contains a data directory"):
        write(bars.head(3), tmp_path / "store")
    assert read_summary(first.path).rows == len(bars)
    write(bars.head(3), tmp_path / "store", overwrite=True)
    assert read_summary(first.path).rows == 3
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_folder_that_is_not_a_store_is_never_replaced(bars, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "final.tex").write_text("precious")
    with pytest.raises(FileExistsError, match="is not a data directory that"):
        write(bars, tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "final.tex").read_text() == "precious"


def test_an_empty_folder_is_filled(bars, tmp_path):
    (tmp_path / "store").mkdir()
    assert write(bars, tmp_path / "store").path == tmp_path / "store"


def test_a_failed_build_leaves_nothing_behind(bars, tmp_path):
    write(bars, tmp_path / "store")
    huge = bars.assign(volume=1e39, amount=1.0)
    for to in (tmp_path / "new", tmp_path / "store"):
        with pytest.raises(ValueError, match="float32"):
            write(huge, to, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert read_summary(tmp_path / "store").rows == len(bars)


def test_the_first_of_two_writers_wins(bars, tmp_path):
    def other_writer(done, total):
        if done == 1:
            write(bars.head(3), tmp_path / "store")

    with pytest.raises(FileExistsError, match="already contains a data directory"):
        write(bars, tmp_path / "store", progress=other_writer)
    assert read_summary(tmp_path / "store").rows == 3
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_several_bars_a_day_are_refused(bars, tmp_path):
    intraday = pd.concat([bars, bars.assign(datetime=bars["datetime"] + pd.Timedelta(minutes=5))])
    with pytest.raises(ValueError, match=r"several rows of AAA 2024-01-02\. Only daily bars fit"):
        write(intraday, tmp_path / "store")


@pytest.mark.parametrize(
    ("symbol", "says"),
    [
        ("../AAA", "cannot name a folder"),
        ("BTC/USDT", "cannot name a folder"),
        ("A B", "cannot name a folder"),
        ("", "cannot name a folder"),
        ("NA", "as a missing value"),
        ("bbb", "would share a folder"),
    ],
)
def test_symbols_that_qlib_cannot_read_are_refused(bars, tmp_path, symbol, says):
    with pytest.raises(ValueError, match=says):
        write(bars.replace({"instrument": {"AAA": symbol}}), tmp_path / "store")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"instrument": "ZZZ"}, "1 members of market have no bars, e.g. ZZZ"),
        ({"end": pd.Timestamp("2000-01-01")}, "ends before it starts"),
        ({"end": pd.NaT}, "ends before it starts"),
    ],
)
def test_invalid_stays_are_refused(bars, tmp_path, change, says):
    with pytest.raises(ValueError, match=says):
        write(bars, tmp_path / "store", membership={"market": listing_spans(bars).assign(**change)})


@pytest.mark.parametrize("market", ["all", "CSI300", "../x", ""])
def test_names_that_no_market_can_have_are_refused(bars, tmp_path, market):
    with pytest.raises(ValueError, match="cannot name a market"):
        write(bars, tmp_path / "store", membership={market: listing_spans(bars)})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"close": 0.0, "low": 0.0}, "not positive"),
        ({"factor": -1.0}, "not positive"),
        ({"high": 1.0}, "outside"),
        ({"volume": lambda bars: bars["volume"].mask(bars.index == bars.index[1])}, "missing or infinite"),
        ({"datetime": "2024-01-02"}, "as 'datetime'"),
        ({"datetime": pd.NaT}, "without a date"),
    ],
)
def test_arguments_that_are_not_bars_are_refused(bars, tmp_path, change, says):
    with pytest.raises(ValueError, match=says):
        write(bars.assign(**change), tmp_path / "store")


def test_a_benchmark_from_another_time_is_refused(bars, tmp_path):
    index = bars.head(2).assign(instrument="IDX", datetime=pd.to_datetime(["1999-01-04", "1999-01-05"]))
    with pytest.raises(ValueError, match="IDX has no bar on the days"):
        write(bars, tmp_path / "store", benchmarks=index)


def test_a_folder_without_a_manifest_is_not_a_store(tmp_path):
    with pytest.raises(FileNotFoundError, match=MANIFEST):
        read_summary(tmp_path)


# Damage


def test_every_file_has_a_checksum_that_sha256sum_reads(bars, tmp_path):
    store = write(bars, tmp_path / "store").path
    names = [line.split("  ")[1] for line in (store / CHECKSUMS).read_text().splitlines()]
    files = {path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file()}
    assert set(names) == files - {CHECKSUMS, "kronos_store.json"}
    assert check_intact(store) == len(names)
    (store / "instruments" / "mine.txt").write_text("AAA\t2024-01-02\t2024-01-05\n")
    assert check_intact(store) == len(names), "files that a user adds are not damage"


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_bin_is_named_by_verification_and_refused_by_append(bars, tmp_path, damage):
    store = write(bars, tmp_path / "store").path
    path = store / "features/aaa/close.day.bin"
    content = bytearray(path.read_bytes())
    content[6] ^= 1
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flip" else content[:-4])
    for call in (check_intact, lambda store: append_days(store, bars, None, {})):
        with pytest.raises(
            ValueError, match=r"features/aaa/close.day.bin is damaged or missing.*--overwrite"
        ):
            call(store)


@pytest.mark.parametrize("left", [0, 3, 4, 10, 16])
def test_a_truncated_bin_is_never_read_as_bars(bars, tmp_path, left):
    store = write(bars, tmp_path / "store").path
    path = store / "features/aaa/volume.day.bin"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ValueError, match=r"damaged.*Import the bars again"):
        read_bars(store, ["AAA"])


def test_a_bin_that_reaches_beyond_the_calendar_is_never_read_as_bars(bars, tmp_path):
    store = write(bars, tmp_path / "store").path
    for path in (store / "features/aaa").iterdir():
        path.write_bytes(np.array([1e9], "<f4").tobytes() + path.read_bytes()[4:])
    with pytest.raises(ValueError, match=r"do not fit a calendar"):
        read_bars(store, ["AAA"])


# Names

ESCAPES = (
    "..", ".", "...", "../AAA", "..\\AAA", "/etc", "\\\\host\\share", "C:", "C:\\x", "A/../../B", "A\0B", "A\nB",
    "A\tB",
    "~/x/", "∕etc", "．．", "A\u202eB", "А", "é", "A" * 101, "A" * 5000, "nul.txt", "CON.x", "lpt1.day", "A.", ".A",
    "_qlib_CON", "A*", "A?", "A|B", "A<B", 'A"B', "",
)  # fmt: skip


@pytest.mark.parametrize("symbol", ESCAPES)
def test_no_instrument_name_leaves_the_data_directory(bars, tmp_path, symbol):
    with pytest.raises(ValueError, match=r"^[^\n]+$") as refused:
        write(bars.replace({"instrument": {"AAA": symbol}}), tmp_path / "deep" / "store")
    assert "the instrument" in str(refused.value)
    assert not list(tmp_path.rglob("*.bin"))


@pytest.mark.parametrize("symbol", ["..", "../../secret", "/etc/passwd", "a\\..\\b", "A\0B", "."])
def test_a_foreign_list_of_instruments_reads_no_file_outside(bars, tmp_path, symbol):
    store = write(bars, tmp_path / "store").path
    with pytest.raises(ValueError, match=r"is not the name of a folder"):
        read_bars(store, [symbol])


@pytest.mark.parametrize("device", ["con", "PRN", "aux", "NUL", "com1", "LPT9"])
def test_devices_of_windows_are_written_and_read_back(bars, tmp_path, device):
    store = write(bars.replace({"instrument": {"AAA": device}}), tmp_path / "store").path
    assert len(read_bars(store, [device])) == 5
    assert not (store / "features" / device.lower()).exists()


def test_instruments_that_begin_at_midnight_and_at_other_times_are_read_back(tmp_path):
    hours = pd.date_range("2024-01-02", periods=48, freq="h")
    prices = dict.fromkeys(("open", "high", "low", "close", "volume"), 1.0)
    midnight = pd.DataFrame({"instrument": "AAA", "datetime": hours, **prices})
    later = pd.DataFrame({"instrument": "BBB", "datetime": hours[9:30], **prices})
    bars = pd.concat([midnight, later], ignore_index=True)
    store = write(bars, tmp_path / "store", frequency="60min").path
    spans = read_market(store)
    assert list(spans["start"]) == [hours[0], hours[9]]
    assert len(read_bars(store)) == len(bars)
    (store / "instruments" / "odd.txt").write_text("AAA\tyesterday\t2024-01-02\n")
    with pytest.raises(
        ValueError, match=r"odd.txt has a date that cannot be read \(.*\)\. Write it like 2024-01-02"
    ):
        read_market(store, "odd")
