from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kronos.bars import FEATURES, stamps
from kronos.windows import KEYS, Scale, Windows, future_timestamps
from tests.kronos.builders import make_bars, make_panel

DAYS = pd.bdate_range("2024-01-01", periods=24)
EXAMPLES = settings(deadline=None, max_examples=30)

# Scale


@EXAMPLES
@given(
    values=arrays(np.float32, (2, 5, 6), elements=st.floats(0, 1e9, width=32)),
    shift=st.sampled_from([0.0, 1e4]),
)
def test_scaling_and_scaling_back_returns_the_bars(values: np.ndarray, shift: float) -> None:
    values = values + np.float32(shift)
    scale = Scale.fit(values)
    back = scale.invert(scale.apply(values, clip=np.inf))
    # Six float32 roundings between, each relative to the largest number in sight: bar, mean or their distance.
    size = np.maximum(np.abs(values), np.abs(scale.mean)) + np.abs(values - scale.mean)
    assert (np.abs(back - values) <= 8 * np.finfo(np.float32).eps * size + 1e-30).all()


@EXAMPLES
@given(values=arrays(np.float32, (3, 7, 6), elements=st.floats(0, 1e6, width=32)), clip=st.floats(0.5, 5))
def test_scaled_bars_never_exceed_the_clip(values: np.ndarray, clip: float) -> None:
    assert np.abs(Scale.fit(values).apply(values, clip)).max() <= np.float32(clip)


def test_scaled_bars_have_mean_zero_and_population_deviation_one() -> None:
    values = np.random.default_rng(0).normal(50, 3, (4, 200, 6)).astype(np.float32)
    scaled = Scale.fit(values).apply(values, clip=np.inf).astype(float)
    # float32 means of 200 numbers; and the deviation is divided by itself plus 1e-5
    np.testing.assert_allclose(scaled.mean(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(axis=1), 1, atol=1e-4)


def test_bars_that_never_move_scale_to_zero_and_back_to_themselves() -> None:
    values = np.full((1, 4, 6), 7.0, np.float32)
    scale = Scale.fit(values)
    assert (scale.apply(values, clip=5) == 0).all()
    np.testing.assert_array_equal(scale.invert(np.zeros((1, 3, 6), np.float32)), values[:, :3])


def test_paths_scale_back_with_their_own_windows_scale() -> None:
    values = np.stack([make_bars(20, seed).to_numpy(np.float32) for seed in range(3)])
    scale = Scale.fit(values)
    paths = np.random.default_rng(0).normal(size=(3, 2, 4, 6)).astype(np.float32)  # (N, S, H, 6)
    back = scale.invert(paths)
    for i in range(3):
        alone = Scale(scale.mean[i : i + 1], scale.std[i : i + 1])
        np.testing.assert_array_equal(back[i, 1], alone.invert(paths[i : i + 1, 1])[0])


def test_a_windows_scale_is_that_of_its_own_bars_whatever_is_stacked_beside_it() -> None:
    short, long = (single(make_bars(count, seed)) for count, seed in ((5, 0), (9, 1)))
    both = Windows.stack([short, long]).scale()
    for i, alone in enumerate((short, long)):
        np.testing.assert_array_equal(both.mean[i], Scale.fit(alone.values).mean[0])
        np.testing.assert_array_equal(both.std[i], Scale.fit(alone.values).std[0])


# Windows.rolling


def single(bars: pd.DataFrame, horizon: int = 2) -> Windows:
    future = pd.bdate_range(bars.index[-1] + pd.offsets.BDay(), periods=horizon)
    return Windows.single("A", bars, future)


def rows_of(windows: Windows) -> dict[tuple, np.ndarray]:
    """Each window's own bars by key."""
    rows = zip(windows.keys, windows.values, windows.lengths, strict=True)
    return {key: values[:length] for key, values, length in rows}


@st.composite
def panels(draw: st.DrawFn) -> dict[str, pd.DataFrame]:
    """One to three instruments that trade on some of the DAYS each."""
    names = draw(st.lists(st.sampled_from(["A", "B", "C"]), min_size=1, max_size=3, unique=True))
    panel = {}
    for seed, name in enumerate(names):
        traded = draw(st.lists(st.booleans(), min_size=len(DAYS), max_size=len(DAYS)))
        traded[draw(st.integers(0, len(DAYS) - 1))] = True  # no frame without a bar
        dates = DAYS[np.array(traded)]
        panel[name] = make_bars(len(dates), seed).set_axis(dates)
    return panel


@EXAMPLES
@given(
    panel=panels(),
    lookback=st.integers(2, 6),
    slack=st.integers(0, 4),
    span=st.tuples(st.integers(0, 23), st.integers(0, 23)).map(sorted),
    as_frame=st.booleans(),
)
def test_rolling_gives_the_last_bars_up_to_each_date_and_nothing_else(
    panel: dict[str, pd.DataFrame], lookback: int, slack: int, span: list[int], as_frame: bool
) -> None:
    min_bars = max(2, lookback - slack)
    since, until = DAYS[span[0]], DAYS[span[1]]
    wanted = {}  # written plainly: every date, then every instrument that traded on it
    for date in DAYS:
        for name in sorted(panel):
            past = panel[name].loc[:date]
            if since <= date <= until and date in past.index and len(past) >= min_bars:
                wanted[date, name] = past.iloc[-lookback:]
    given_panel = (
        pd.concat(panel, names=["instrument", "datetime"]).swaplevel().sort_index() if as_frame else panel
    )
    arguments = {"since": since, "until": until, "min_bars": min_bars}
    if not wanted:
        with pytest.raises(ValueError, match=rf"window of {min_bars} bars within.*shorter lookback"):
            Windows.rolling(given_panel, lookback, 3, DAYS, **arguments)
        return
    windows = Windows.rolling(given_panel, lookback, 3, DAYS, **arguments)
    assert list(windows.keys) == list(wanted)
    assert windows.keys.names == list(KEYS)
    assert windows.values.dtype == np.float32
    assert windows.values.shape[1] == windows.stamps.shape[1] == windows.lengths.max()
    for i, bars in enumerate(wanted.values()):
        n = windows.lengths[i]
        assert n == len(bars)
        np.testing.assert_array_equal(windows.values[i, :n], bars.to_numpy(np.float32))
        np.testing.assert_array_equal(windows.stamps[i, :n], stamps(bars.index))
        assert not windows.values[i, n:].any()
        assert not windows.stamps[i, n:].any()
        np.testing.assert_array_equal(windows.last[i], bars.iloc[-1].to_numpy(np.float32))
    future = future_timestamps(pd.DatetimeIndex([date for date, _ in wanted]), DAYS, 3)
    np.testing.assert_array_equal(windows.future, future)


@EXAMPLES
@given(
    panel=panels(), lookback=st.integers(2, 6), day=st.integers(2, 22), factor=st.sampled_from([0.01, 100.0])
)
def test_a_window_never_sees_a_later_bar(
    panel: dict[str, pd.DataFrame], lookback: int, day: int, factor: float
) -> None:
    asof = DAYS[day]
    later = {name: bars.mul(np.where(bars.index > asof, factor, 1.0), axis=0) for name, bars in panel.items()}
    arguments = {"lookback": lookback, "horizon": 2, "calendar": DAYS, "until": asof, "min_bars": 2}
    try:
        before = Windows.rolling(panel, **arguments)
    except ValueError:
        return  # no window by then
    after = Windows.rolling(later, **arguments)
    assert before.keys.equals(after.keys)
    np.testing.assert_array_equal(before.values, after.values)
    np.testing.assert_array_equal(before.future, after.future)
    np.testing.assert_array_equal(before.scale().std, after.scale().std)
    assert before.digest() == after.digest()


def test_a_window_is_the_same_when_later_bars_do_not_exist_yet() -> None:
    panel = make_panel(20, "A", "B")
    asof = panel["A"].index[11]
    then = Windows.rolling({name: bars[:asof] for name, bars in panel.items()}, 5, 3, "B", since=asof)
    now = Windows.rolling(panel, 5, 3, "B", since=asof, until=asof)
    np.testing.assert_array_equal(then.values, now.values)
    np.testing.assert_array_equal(then.future, now.future)
    assert then.digest() == now.digest()


def test_only_the_asked_keys_are_cut_whatever_their_order() -> None:
    panel = make_panel(12, "A", "B")
    dates = panel["A"].index
    keys = pd.MultiIndex.from_tuples([(dates[9], "B"), (dates[4], "A"), (dates[9], "A")], names=KEYS)
    windows = Windows.rolling(panel, 4, 2, "B", keys=keys)
    assert list(windows.keys) == [(dates[4], "A"), (dates[9], "A"), (dates[9], "B")]
    everything = rows_of(Windows.rolling(panel, 4, 2, "B"))
    for key, bars in rows_of(windows).items():
        np.testing.assert_array_equal(bars, everything[key])


def test_keys_of_instruments_and_dates_without_a_window_are_passed_over() -> None:
    panel = make_panel(12, "A")
    dates = panel["A"].index
    keys = pd.MultiIndex.from_tuples(
        [(dates[5], "A"), (dates[5], "Z"), (dates[0], "A"), (pd.Timestamp("2030-01-01"), "A")], names=KEYS
    )
    assert list(Windows.rolling(panel, 4, 2, "B", keys=keys).keys) == [(dates[5], "A")]


def test_dates_may_be_given_as_text() -> None:
    panel = make_panel(12, "A")
    windows = Windows.rolling(panel, 4, 2, "B", since="2024-01-10", until="2024-01-11")
    assert [str(date.date()) for date, _ in windows.keys] == ["2024-01-10", "2024-01-11"]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"horizon": 0}, "horizon=0 .*at least 1"),
        ({"lookback": 1}, "lookback=1: .*2 <= min_bars <= lookback"),
        ({"min_bars": 1}, "min_bars=1 and lookback=4"),
        ({"min_bars": 5}, "min_bars=5 and lookback=4"),
    ],
)
def test_sizes_that_make_no_window_are_refused_by_name(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Windows.rolling(make_panel(8, "A"), **{"lookback": 4, "horizon": 2, "calendar": "B"} | sizes)


def test_bad_bars_are_refused_with_their_instrument() -> None:
    panel = make_panel(8, "A", "BAD")
    panel["BAD"].iloc[3, 3] = np.nan
    with pytest.raises(ValueError, match=r"bars of BAD .*'close' at 2024-01-05"):
        Windows.rolling(panel, 4, 2, "B")


def test_bars_without_times_are_refused_with_their_instrument() -> None:
    with pytest.raises(ValueError, match=r"bars of A have no DatetimeIndex.*set_index"):
        Windows.rolling({"A": make_bars(8).reset_index(drop=True)}, 4, 2, "B")


def test_a_frame_with_other_index_levels_is_refused() -> None:
    panel = pd.concat(make_panel(8, "A"), names=["instrument", "datetime"])
    with pytest.raises(
        ValueError, match=r"indexed by \['instrument', 'datetime'\].*\['datetime', 'instrument'\]"
    ):
        Windows.rolling(panel, 4, 2, "B")


def test_a_time_zone_is_refused_or_kept_as_wall_time_never_shifted() -> None:
    bars = make_bars(8, freq="h")
    plain = Windows.rolling({"A": bars}, 4, 2, "h")
    try:
        zoned = Windows.rolling({"A": bars.tz_localize("Asia/Shanghai")}, 4, 2, "h")
    except ValueError as error:
        assert "tz_localize" in str(error)  # noqa: PT017 (either way is right)
    else:
        np.testing.assert_array_equal(zoned.stamps, plain.stamps)
        np.testing.assert_array_equal(zoned.future_stamps, plain.future_stamps)


# Single windows, slices, stacks


def test_one_bar_is_no_window() -> None:
    with pytest.raises(ValueError, match=r"A has 1 bar.*at least 2"):
        single(make_bars(1))


@pytest.mark.parametrize(
    "rows", [slice(2, 5), np.array([4, 0, 4]), np.arange(8) % 2 == 0], ids=["slice", "integers", "mask"]
)
def test_some_of_the_windows_are_those_windows(rows: slice | np.ndarray) -> None:
    windows = Windows.rolling(make_panel(6, "A", "B"), 3, 2, "B")
    assert len(windows) == 8
    some, picked = windows[rows], np.arange(8)[rows]
    assert list(some.keys) == [windows.keys[i] for i in picked]
    for name in ("values", "stamps", "lengths", "future", "last", "future_stamps"):
        np.testing.assert_array_equal(getattr(some, name), getattr(windows, name)[picked])


def test_no_window_is_an_empty_slice_and_has_a_length() -> None:
    windows = Windows.rolling(make_panel(6, "A"), 3, 2, "B")
    none = windows[np.zeros(len(windows), bool)]
    assert len(none) == 0
    assert none.values.shape[0] == 0


def test_stacked_windows_of_any_lookback_stay_themselves() -> None:
    parts = [single(make_bars(count, count)) for count in (4, 9, 2)]
    stacked = Windows.stack(parts)
    assert list(stacked.lengths) == [4, 9, 2]
    for i, part in enumerate(parts):
        n = part.lengths[0]
        np.testing.assert_array_equal(stacked.values[i, :n], part.values[0])
        assert not stacked.values[i, n:].any()
        np.testing.assert_array_equal(stacked.future[i], part.future[0])


def test_future_stamps_are_the_calendar_fields_of_the_future() -> None:
    windows = Windows.rolling(make_panel(6, "A", "B"), 3, 4, "B")
    for i in range(len(windows)):
        np.testing.assert_array_equal(windows.future_stamps[i], stamps(pd.DatetimeIndex(windows.future[i])))


def test_equal_windows_have_equal_digests_and_any_change_another() -> None:
    windows = Windows.rolling(make_panel(6, "A", "B"), 3, 2, "B")
    assert Windows.rolling(make_panel(6, "A", "B"), 3, 2, "B").digest() == windows.digest()
    changed = make_panel(6, "A", "B")
    changed["B"].iloc[2, 4] += 1
    others = [
        Windows.rolling(changed, 3, 2, "B"),
        Windows.rolling(make_panel(6, "A", "B"), 3, 3, "B"),
        Windows.rolling(make_panel(6, "A", "B"), 4, 2, "B"),
        Windows.rolling(make_panel(6, "A", "C"), 3, 2, "B"),
        replace(windows, future=windows.future + np.timedelta64(1, "D")),
        windows[1:],
        windows[::-1],
    ]
    digests = {windows.digest(), *(other.digest() for other in others)}
    assert len(digests) == 1 + len(others)


# Future timestamps


@EXAMPLES
@given(
    days=st.lists(st.integers(0, 60), min_size=1, max_size=30, unique=True),
    asof=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    horizon=st.integers(1, 6),
    order=st.randoms(use_true_random=False),
)
def test_on_a_calendar_the_future_is_its_next_days_and_then_business_days(
    days: list[int], asof: list[int], horizon: int, order: object
) -> None:
    first = pd.Timestamp("2024-01-01")
    calendar = [first + pd.Timedelta(days=day) for day in days]
    order.shuffle(calendar)
    dates = [first + pd.Timedelta(days=day) for day in asof]
    for date, row in zip(
        dates, future_timestamps(pd.DatetimeIndex(dates), pd.DatetimeIndex(calendar), horizon), strict=True
    ):
        # Written plainly: the calendar goes on day by day over weekdays, from its own end.
        going_on = sorted(calendar)
        while sum(day > date for day in going_on) < horizon:
            day = going_on[-1] + pd.Timedelta(days=1)
            while day.weekday() >= 5:
                day += pd.Timedelta(days=1)
            going_on.append(day)
        assert list(pd.DatetimeIndex(row)) == [day for day in going_on if day > date][:horizon]


def test_the_future_of_a_date_does_not_depend_on_the_other_dates() -> None:
    calendar = pd.bdate_range("2024-01-01", "2024-01-05")
    early, late = pd.Timestamp("2024-01-10"), pd.Timestamp("2024-02-20")
    alone = future_timestamps(pd.DatetimeIndex([early]), calendar, 3)
    together = future_timestamps(pd.DatetimeIndex([early, late]), calendar, 3)
    np.testing.assert_array_equal(alone[0], together[0])


@EXAMPLES
@given(
    bars=st.lists(st.integers(0, 47), min_size=2, max_size=48, unique=True),
    asof=st.integers(0, 60),
    horizon=st.integers(1, 5),
)
def test_an_intraday_calendar_gives_ascending_times_strictly_after_the_bar(
    bars: list[int], asof: int, horizon: int
) -> None:
    midnight = pd.Timestamp("2024-01-05")
    calendar = midnight + pd.to_timedelta(np.sort(bars) * 30, unit="min")
    date = midnight + pd.Timedelta(minutes=30 * asof)
    (future,) = future_timestamps(pd.DatetimeIndex([date]), calendar, horizon)
    known = calendar[calendar > date][:horizon].to_numpy("datetime64[ns]")
    np.testing.assert_array_equal(future[: len(known)], known)
    assert future[0] > date.to_datetime64()
    assert (np.diff(future) > np.timedelta64(0)).all()


def test_an_intraday_calendar_that_ends_too_soon_goes_on_without_a_gap() -> None:
    calendar = pd.date_range("2024-01-05 09:30", periods=6, freq="5min")
    (future,) = future_timestamps(calendar[-2:-1], calendar, 3)
    assert [str(time)[11:16] for time in future] == ["09:55", "10:00", "10:05"]


def test_a_daily_calendar_stamped_at_the_close_goes_on_at_the_close() -> None:
    calendar = pd.DatetimeIndex(["2024-01-04 15:00", "2024-01-05 15:00"])
    (future,) = future_timestamps(calendar[-1:], calendar, 2)
    assert list(pd.DatetimeIndex(future)) == [
        pd.Timestamp("2024-01-08 15:00"),
        pd.Timestamp("2024-01-09 15:00"),
    ]


def test_a_calendar_with_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"calendar.*zone"):
        future_timestamps(DAYS[3:4], DAYS.tz_localize("Asia/Shanghai"), 2)


@EXAMPLES
@given(
    freq=st.sampled_from(["B", "D", "5min", "h", "W-FRI", "ME", "MS"]),
    minutes=st.lists(st.integers(0, 90 * 24 * 60), min_size=1, max_size=4),
    whole_days=st.booleans(),
    horizon=st.integers(1, 5),
)
def test_on_a_frequency_the_future_is_its_next_times_strictly_after_the_bar(
    freq: str, minutes: list[int], whole_days: bool, horizon: int
) -> None:
    start = pd.Timestamp("2024-01-01")
    dates = [start + pd.Timedelta(minutes=m) for m in minutes]
    dates = [date.normalize() if whole_days else date for date in dates]
    for date, row in zip(dates, future_timestamps(pd.DatetimeIndex(dates), freq, horizon), strict=True):
        step, time = pd.tseries.frequencies.to_offset(freq), date
        for got in pd.DatetimeIndex(row):
            time = time + step
            assert got == time
            assert got > date


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_the_future_is_in_nanoseconds_whatever_the_unit_of_the_bars(unit: str) -> None:
    asof = pd.DatetimeIndex(["2024-01-05"]).as_unit(unit)
    for calendar in ("B", DAYS.as_unit(unit), DAYS[:3].as_unit(unit)):
        future = future_timestamps(asof, calendar, 2)
        assert future.dtype == "datetime64[ns]"
        np.testing.assert_array_equal(
            future.astype("datetime64[D]").astype(str), [["2024-01-08", "2024-01-09"]]
        )


def test_an_empty_calendar_is_refused() -> None:
    with pytest.raises(ValueError, match="calendar"):
        future_timestamps(pd.DatetimeIndex(["2024-01-05"]), pd.DatetimeIndex([]), 2)


def test_features_are_in_the_order_of_the_released_weights() -> None:
    assert FEATURES == ("open", "high", "low", "close", "volume", "amount")
