from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from cyclopts import App
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos import BarsWarning
from kronos.bars import (
    FEATURES,
    PRICES,
    STAMPS,
    adjust_bars,
    bars_from_closes,
    check_bars,
    check_timestamps,
    repair_bars,
    stamps,
    wall_clock,
)
from kronos.predictor import KronosPredictor
from kronos.utils import run_command
from kronos.windows import Windows
from tests.kronos.builders import make_bars, make_model, make_tokenizer

AT = 3  # the row that the tests spoil


def spoiled(column: str, value: float) -> pd.DataFrame:
    bars = make_bars(6)
    bars.loc[bars.index[AT], column] = value
    return bars


def test_checked_bars_keep_their_values_and_index_and_lose_other_columns() -> None:
    bars = make_bars(6)
    checked = check_bars(bars.assign(turnover=1.0)[["turnover", *reversed(FEATURES)]])
    pd.testing.assert_frame_equal(checked, bars)
    assert tuple(checked.columns) == FEATURES


def test_checking_does_not_change_the_frame_of_the_caller() -> None:
    bars = make_bars(6).drop(columns=["volume", "amount"])
    before = bars.copy()
    check_bars(bars)
    pd.testing.assert_frame_equal(bars, before)


def test_without_volume_both_volume_and_amount_are_zero_even_if_amount_was_given() -> None:
    checked = check_bars(make_bars(6).drop(columns="volume"))
    assert (checked[["volume", "amount"]] == 0).all(axis=None)


def test_without_amount_it_is_volume_times_the_mean_price() -> None:
    bars = make_bars(6).drop(columns="amount")
    mean = (bars["open"] + bars["high"] + bars["low"] + bars["close"]) / 4
    np.testing.assert_allclose(check_bars(bars)["amount"], bars["volume"] * mean)


@pytest.mark.parametrize(
    "bars", [[1, 2], np.ones((3, 6)), make_bars(3)["close"]], ids=["list", "array", "series"]
)
def test_anything_but_a_frame_is_refused(bars: object) -> None:
    with pytest.raises(TypeError, match=rf"mine is a {type(bars).__name__}.*DataFrame"):
        check_bars(bars, "mine")


def test_an_empty_frame_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mine has no rows.*at least 2"):
        check_bars(make_bars(3).iloc[:0], "mine")


def test_the_error_for_missing_columns_lists_the_existing_ones() -> None:
    with pytest.raises(ValueError, match=r"mine lacks the columns \['open', 'low'\].*'close'.*Rename"):
        check_bars(make_bars(3).drop(columns=["open", "low"]), "mine")


@pytest.mark.parametrize(
    "form", [str.capitalize, str.upper, lambda name: f" {name.title()} "], ids=["Close", "CLOSE", " Close "]
)
def test_columns_are_found_in_any_case(form: Callable[[str], str]) -> None:
    bars = make_bars(4)
    theirs = bars.rename(columns=form)
    pd.testing.assert_frame_equal(check_bars(theirs), bars)
    pd.testing.assert_frame_equal(repair_bars(theirs), bars)
    pd.testing.assert_frame_equal(adjust_bars(theirs.assign(f=1.0), "f")[list(FEATURES)], bars)


def test_a_column_with_the_exact_name_takes_precedence_over_one_in_another_case() -> None:
    bars = make_bars(4)
    pd.testing.assert_frame_equal(check_bars(bars.assign(Close=-1.0, **{"Adj Close": 2.0})), bars)


def test_two_columns_that_may_be_the_same_feature_are_refused() -> None:
    bars = make_bars(4).rename(columns={"close": "Close"}).assign(CLOSE=1.0)
    with pytest.raises(ValueError, match=r"mine has the columns \['Close', 'CLOSE'\].*Keep one"):
        check_bars(bars, "mine")


def two_levels(
    *tickers: str, price_first: bool = True, names: list[str | None] | None = None
) -> pd.DataFrame:
    """A frame as yfinance.download returns it, with a column that is not a feature."""
    frames = {
        ticker: make_bars(4, seed).rename(columns=str.capitalize) for seed, ticker in enumerate(tickers)
    }
    frames = {ticker: frame.drop(columns="Amount").assign(Dividends=0.0) for ticker, frame in frames.items()}
    wide = pd.concat(frames, axis=1, names=["Ticker", "Price"])
    wide = wide.swaplevel(axis=1).sort_index(axis=1) if price_first else wide
    return wide.rename_axis(columns=names) if names else wide


@pytest.mark.parametrize("price_first", [True, False], ids=["price first", "ticker first"])
@pytest.mark.parametrize("names", [None, [None, None]], ids=["named", "unnamed"])
def test_columns_of_two_levels_are_read_if_they_have_one_instrument(
    price_first: bool, names: list[str | None] | None
) -> None:
    plain = make_bars(4).drop(columns="amount")
    wide = two_levels("AAPL", price_first=price_first, names=names)
    pd.testing.assert_frame_equal(check_bars(wide), check_bars(plain))
    pd.testing.assert_frame_equal(repair_bars(wide)[list(plain)], plain, check_names=False)
    several = two_levels("AAPL", "MSFT", price_first=price_first)
    pd.testing.assert_frame_equal(check_bars(several.xs("AAPL", axis=1, level="Ticker")), check_bars(plain))


@pytest.mark.parametrize("price_first", [True, False], ids=["price first", "ticker first"])
@pytest.mark.parametrize("function", [check_bars, repair_bars, adjust_bars], ids=lambda f: f.__name__)
def test_columns_of_several_instruments_are_refused_with_the_way_to_take_one(
    function: Callable[[pd.DataFrame], pd.DataFrame], price_first: bool
) -> None:
    wide = two_levels("AAPL", "MSFT", price_first=price_first)
    with pytest.raises(ValueError, match=r"2 instruments.*bars\.xs\('AAPL', axis=1, level='Ticker'\)"):
        function(wide)
    unnamed = two_levels("AAPL", "MSFT", price_first=price_first, names=[None, None])
    with pytest.raises(ValueError, match=rf"bars\.xs\('AAPL', axis=1, level={int(price_first)}\)"):
        function(unnamed)


@pytest.mark.parametrize("function", [check_bars, repair_bars, adjust_bars], ids=lambda f: f.__name__)
def test_columns_of_two_levels_without_prices_are_refused(
    function: Callable[[pd.DataFrame], pd.DataFrame],
) -> None:
    wide = two_levels("AAPL")
    with pytest.raises(ValueError, match=r"2 levels, none of which holds \['open'"):
        function(wide.drop(columns="Open", level=0))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", FEATURES)
def test_a_value_that_is_not_finite_is_refused_with_its_column_and_row(column: str, value: float) -> None:
    bars = spoiled(column, value)
    with pytest.raises(ValueError, match=rf"1 missing.*'{column}' at {bars.index[AT]}.*repair_bars"):
        check_bars(bars)


@pytest.mark.parametrize("column", ["volume", "amount"])
def test_a_negative_volume_or_amount_is_refused_with_its_row(column: str) -> None:
    bars = spoiled(column, -1)
    with pytest.raises(ValueError, match=rf"negative {column} at {bars.index[AT]}.*repair_bars"):
        check_bars(bars)


def test_text_is_refused_with_its_column() -> None:
    bars = make_bars(3).assign(low=["9.8", "n/a", "9.9"])
    with pytest.raises(ValueError, match=r"column 'low'.*not numeric.*'n/a'.*Convert"):
        check_bars(bars)


def test_numbers_as_text_are_read() -> None:
    bars = make_bars(3)
    np.testing.assert_array_equal(check_bars(bars.map(repr)), bars)


def test_a_repeated_column_is_refused() -> None:
    bars = make_bars(3)
    with pytest.raises(ValueError, match="'close'"):
        check_bars(pd.concat([bars, bars[["close"]]], axis=1))


@pytest.mark.parametrize(("column", "factor"), [("high", 0.5), ("low", 2.0), ("close", 3.0), ("open", 0.1)])
def test_a_bar_outside_its_own_range_is_refused_with_its_row(column: str, factor: float) -> None:
    bars = make_bars(6)
    bars.loc[bars.index[AT], column] *= factor
    with pytest.raises(ValueError, match=rf"\[low, high\] in 1 rows.*{bars.index[AT]}.*repair_bars"):
        check_bars(bars)


def test_a_high_below_the_low_is_refused() -> None:
    bars = make_bars(6)
    swapped = bars.rename(columns={"high": "low", "low": "high"})
    with pytest.raises(ValueError, match=r"\[low, high\] in 6 rows"):
        check_bars(swapped)


def test_prices_rounded_to_float32_are_a_valid_bar() -> None:
    bars = make_bars(50)
    bars["close"] = bars["high"] * (1 + 1e-6)
    check_bars(bars)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, 2, 1, 3], r"not sorted by time: 2024-01-03 00:00:00 follows.*sort_index"),
        ([0, 1, 1, 2], r"timestamp 2024-01-03 00:00:00 twice.*repair_bars"),
    ],
)
def test_timestamps_out_of_order_are_refused_with_the_first_offender(rows: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_bars(make_bars(6).iloc[rows])


def test_an_unknown_timestamp_is_refused_with_its_row() -> None:
    index = pd.DatetimeIndex(["2024-01-02", pd.NaT, "2024-01-04"])
    with pytest.raises(ValueError, match=r"no timestamp in row 1.*Drop"):
        check_timestamps(index)


def test_timestamps_keep_their_zone_and_are_read_by_its_clock() -> None:
    bars = make_bars(4, start="2024-01-02 23:30", freq="h").tz_localize("Asia/Shanghai")
    pd.testing.assert_frame_equal(check_bars(bars), bars)
    pd.testing.assert_frame_equal(repair_bars(bars), bars, check_freq=False)
    np.testing.assert_array_equal(stamps(bars.index), stamps(bars.index.tz_localize(None)))
    assert wall_clock(bars.index)[0] == pd.Timestamp("2024-01-02 23:30")


def test_times_in_a_zone_must_ascend_as_instants() -> None:
    index = pd.date_range("2024-11-03 00:00", periods=4, freq="h", tz="America/New_York")  # 01:00 comes twice
    check_timestamps(index)
    with pytest.raises(ValueError, match=r"not sorted by time: 2024-11-03 01:00:00-04:00 follows"):
        check_timestamps(index[[0, 2, 1, 3]])


def test_an_index_without_times_is_not_checked() -> None:
    bars = make_bars(4).reset_index(drop=True).set_axis([3, 1, 2, 1])
    assert list(check_bars(bars).index) == [3, 1, 2, 1]


def test_calendar_fields_are_minute_hour_weekday_day_and_month_with_monday_zero() -> None:
    times = pd.DatetimeIndex(["2024-02-05 09:35", "2023-12-31 23:59"])  # a Monday and a Sunday
    np.testing.assert_array_equal(stamps(times), [[35, 9, 0, 5, 2], [59, 23, 6, 31, 12]])
    assert STAMPS == ("minute", "hour", "weekday", "day", "month")


PIECES = st.lists(
    st.tuples(
        st.integers(0, 8),  # the day: unsorted and repeated
        *[st.sampled_from([9.0, 10.0, 11.0, np.nan, np.inf]) for _ in PRICES],
        st.sampled_from([5.0, 0.0, -3.0, np.nan, np.inf]),
        st.sampled_from([50.0, -1.0, np.nan]),
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=40)
@given(rows=PIECES)
def test_repaired_bars_pass_the_check_and_repairing_again_changes_nothing(rows: list[tuple]) -> None:
    bars = pd.DataFrame([row[1:] for row in rows], columns=list(FEATURES))
    bars.index = pd.Timestamp("2024-01-01") + pd.to_timedelta([row[0] for row in rows], unit="D")
    repaired = repair_bars(bars)
    pd.testing.assert_frame_equal(repair_bars(repaired), repaired)
    if len(repaired):
        check_bars(repaired)
    last = {row[0]: row[1:5] for row in rows}  # the last row of each day
    days = sorted(day for day, prices in last.items() if np.isfinite(prices).all())
    assert list((repaired.index - pd.Timestamp("2024-01-01")).days) == days
    for day, row in zip(days, repaired.itertuples(), strict=True):
        assert (row.open, row.close) == (last[day][0], last[day][3])
        assert (row.high, row.low) == (max(last[day]), min(last[day]))


def test_repairing_good_bars_changes_nothing() -> None:
    bars = make_bars(8)
    pd.testing.assert_frame_equal(repair_bars(bars), bars)


def test_repairing_names_the_columns_it_lacks() -> None:
    with pytest.raises(ValueError, match=r"lack the columns \['close'\].*Rename"):
        repair_bars(make_bars(3).drop(columns="close"))


def test_adjusting_multiplies_prices_by_the_factor_divides_volume_and_keeps_amount() -> None:
    bars = make_bars(4)
    factor = np.array([1.0, 1.0, 2.0, 4.0])
    adjusted = adjust_bars(bars.assign(factor=factor))
    assert list(adjusted.columns) == list(FEATURES)
    for price in PRICES:
        np.testing.assert_array_equal(adjusted[price], bars[price] * factor)
    np.testing.assert_array_equal(adjusted["volume"], bars["volume"] / factor)
    np.testing.assert_array_equal(adjusted["amount"], bars["amount"])


def test_adjusting_works_without_volume_and_does_not_change_the_frame_of_the_caller() -> None:
    bars = make_bars(4).drop(columns=["volume", "amount"]).assign(mine=2.0)
    before = bars.copy()
    pd.testing.assert_frame_equal(adjust_bars(bars, "mine"), bars[list(PRICES)] * 2)
    pd.testing.assert_frame_equal(bars, before)


def test_adjusting_names_the_factor_it_lacks() -> None:
    with pytest.raises(ValueError, match=r"lack the column 'ratio'.*adjustment factor"):
        adjust_bars(make_bars(3), "ratio")


def split(bars: pd.DataFrame, row: int, factor: float) -> pd.DataFrame:
    bars = bars.copy()
    bars.iloc[row:, :4] *= factor
    return bars


@pytest.mark.parametrize(
    ("factor", "what"),
    [
        (0.5, r"open 5\d% below"),
        (2.0, r"open \d+% above"),
        (0.1, r"open 9\d% below"),
        (1 / 1.5, r"open 3\d% below"),
    ],
)
def test_an_unadjusted_split_is_named_with_instrument_and_date(factor: float, what: str) -> None:
    bars = split(make_bars(50), 30, factor)
    with pytest.warns(
        BarsWarning, match=rf"^bars of AAA {what} the previous close at {bars.index[30]:%Y-%m-%d}: "
    ) as seen:
        check_bars(bars, "bars of AAA")
    assert len(seen) == 1
    assert "\n" not in str(seen[0].message)


@pytest.mark.parametrize("columns", [PRICES, ("high",), ("close", "high"), ("low",), ("open", "high")])
@pytest.mark.parametrize("row", [20, 49])
def test_a_bad_print_of_ten_times_the_price_is_named(columns: tuple[str, ...], row: int) -> None:
    bars = make_bars(50)
    bars.loc[bars.index[row], list(columns)] *= 0.1 if columns == ("low",) else 10
    with pytest.warns(BarsWarning, match=rf"at {bars.index[row]:%Y-%m-%d}"):
        check_bars(bars)


def test_further_jumps_are_counted_in_the_same_line() -> None:
    bars = split(split(make_bars(60), 20, 0.5), 40, 0.5)
    with pytest.warns(BarsWarning, match=r"\(1 more such bar\)") as seen:
        check_bars(bars)
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("freq", "factor", "warned"),
    [
        ("1min", 1.12, True),
        ("5min", 1.12, False),
        ("5min", 1.17, True),
        ("10min", 1.17, True),
        ("h", 1.17, False),
        ("h", 1.25, True),
        ("B", 1.25, False),
        ("B", 1.35, True),
        ("W", 1.35, False),
        ("MS", 1.35, False),
        ("MS", 1.6, True),
    ],
)
def test_the_limit_is_that_of_the_training_rules_for_the_bars_frequency(
    freq: str, factor: float, warned: bool
) -> None:
    flat = make_bars(60, freq=freq)
    flat.iloc[:, :4] = 50.0
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        check_bars(split(flat, 30, factor))
    assert bool(seen) == warned


def test_ordinary_bars_give_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_bars(make_bars(200))
        check_bars(make_bars(200).reset_index(drop=True))  # no times, so no frequency
        check_bars(make_bars(1))


def test_windows_and_predict_warn_as_well() -> None:
    bars = split(make_bars(30), 20, 0.5)
    with pytest.warns(BarsWarning, match="bars of AAA open"):
        Windows.rolling({"AAA": bars}, 10, 2, "B")
    predictor = KronosPredictor(make_model(), make_tokenizer(), "cpu")
    future = pd.bdate_range(bars.index[-1], periods=3)[1:]
    with pytest.warns(BarsWarning, match=f"series 0 open .* at {bars.index[20]:%Y-%m-%d}"):
        predictor.predict(bars.reset_index(drop=True), bars.index, future, 2, verbose=False)


def test_a_command_prints_the_warning_as_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    app = App()

    @app.default
    def command() -> None:
        warnings.simplefilter("always")
        check_bars(split(make_bars(50), 30, 0.5), "bars of [AAA]")

    with warnings.catch_warnings():
        warnings.showwarning = usual = print  # pytest records warnings in a place of its own
        with pytest.raises(SystemExit, match="0"):
            run_command(app, [])
        assert warnings.showwarning is usual
    line = capsys.readouterr().err
    assert line.startswith("Warning: bars of [AAA] open")
    assert line.count("\n") == 1


def test_bars_from_closes_open_at_the_previous_close() -> None:
    closes = pd.Series([10.0, 12.0, 11.0], pd.date_range("2024-01-01", periods=3))
    bars = bars_from_closes(closes)
    assert bars.to_numpy().tolist() == [[10, 10, 10, 10], [10, 12, 10, 12], [12, 12, 11, 11]]
    assert list(bars) == ["open", "high", "low", "close"]
    assert check_bars(bars)["volume"].tolist() == [0, 0, 0]
