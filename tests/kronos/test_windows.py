from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kronos.bars import FEATURES, stamps, wall_clock
from kronos.calendar import is_frequency, next_timestamps
from kronos.future import future_timestamps
from kronos.panels import KEYS
from kronos.scale import Scale
from kronos.windows import Windows
from tests.kronos.builders import make_bars, make_panel

DAYS = pd.bdate_range("2024-01-01", periods=24)
EXAMPLES = settings(deadline=None, max_examples=30)


def test_a_windows_scale_depends_on_its_own_bars_only() -> None:
    short, long = (single(make_bars(count, seed)) for count, seed in ((5, 0), (9, 1)))
    both = Windows.stack([short, long]).scale()
    for i, alone in enumerate((short, long)):
        np.testing.assert_array_equal(both.mean[i], Scale.fit(alone.values).mean[0])
        np.testing.assert_array_equal(both.width[i], Scale.fit(alone.values).width[0])


# Windows.rolling


def single(bars: pd.DataFrame, horizon: int = 2) -> Windows:
    future = pd.bdate_range(bars.index[-1] + pd.offsets.BDay(), periods=horizon)
    return Windows.single("A", bars, future)


def rows_of(windows: Windows) -> dict[tuple, np.ndarray]:
    """Each window's own bars by key."""
    rows = zip(windows.index, windows.values, windows.lengths, strict=True)
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
    arguments = {"start": since, "end": until, "min_bars": min_bars}
    if not wanted:
        with pytest.raises(ValueError, match=rf"window of {min_bars} bars within.*shorter lookback"):
            Windows.rolling(given_panel, lookback, 3, DAYS, **arguments)
        return
    windows = Windows.rolling(given_panel, lookback, 3, DAYS, **arguments)
    assert list(windows.index) == list(wanted)
    assert windows.index.names == list(KEYS)
    assert windows.values.dtype == np.float32
    assert windows.values.shape[1] == windows.stamps.shape[1] == windows.lengths.max()
    for i, bars in enumerate(wanted.values()):
        n = windows.lengths[i]
        assert n == len(bars)
        np.testing.assert_array_equal(windows.values[i, :n], bars.to_numpy(np.float32))
        np.testing.assert_array_equal(windows.stamps[i, :n], stamps(bars.index))
        assert not windows.values[i, n:].any()
        assert not windows.stamps[i, n:].any()
        np.testing.assert_array_equal(windows.last_bar[i], bars.iloc[-1].to_numpy(np.float32))
    future = next_timestamps(pd.DatetimeIndex([date for date, _ in wanted]), DAYS, 3)
    np.testing.assert_array_equal(windows.future, future)


@EXAMPLES
@given(panel=panels(), lookback=st.integers(2, 6), every=st.integers(1, 5))
def test_every_few_timestamps_has_the_windows_that_all_have_there(
    panel: dict[str, pd.DataFrame], lookback: int, every: int
) -> None:
    assume(any(len(bars) >= lookback for bars in panel.values()))
    windows = Windows.rolling(panel, lookback, 3, DAYS)
    dates = windows.index.get_level_values("datetime")
    kept = windows[dates.isin(dates.unique().sort_values()[::every])]
    some = Windows.rolling(panel, lookback, 3, DAYS, every=every)
    assert some.index.equals(kept.index)
    assert some.digest() == kept.digest()


def test_every_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="every=0 is too small"):
        Windows.rolling({"A": make_bars(9)}, 3, 1, "B", every=0)


@EXAMPLES
@given(
    panel=panels(), lookback=st.integers(2, 6), day=st.integers(2, 22), factor=st.sampled_from([0.01, 100.0])
)
def test_a_window_never_sees_a_later_bar(
    panel: dict[str, pd.DataFrame], lookback: int, day: int, factor: float
) -> None:
    asof = DAYS[day]
    later = {name: bars.mul(np.where(bars.index > asof, factor, 1.0), axis=0) for name, bars in panel.items()}
    arguments = {"lookback": lookback, "horizon": 2, "calendar": DAYS, "end": asof, "min_bars": 2}
    try:
        before = Windows.rolling(panel, **arguments)
    except ValueError:
        return  # no window by then
    after = Windows.rolling(later, **arguments)
    assert before.index.equals(after.index)
    np.testing.assert_array_equal(before.values, after.values)
    np.testing.assert_array_equal(before.future, after.future)
    np.testing.assert_array_equal(before.scale().width, after.scale().width)
    assert before.digest() == after.digest()


def test_a_window_is_the_same_when_later_bars_do_not_exist_yet() -> None:
    panel = make_panel(20, "A", "B")
    asof = panel["A"].index[11]
    then = Windows.rolling({name: bars[:asof] for name, bars in panel.items()}, 5, 3, "B", start=asof)
    now = Windows.rolling(panel, 5, 3, "B", start=asof, end=asof)
    np.testing.assert_array_equal(then.values, now.values)
    np.testing.assert_array_equal(then.future, now.future)
    assert then.digest() == now.digest()


def test_only_the_requested_windows_are_made_in_any_order() -> None:
    panel = make_panel(12, "A", "B")
    dates = panel["A"].index
    keys = pd.MultiIndex.from_tuples([(dates[9], "B"), (dates[4], "A"), (dates[9], "A")], names=KEYS)
    windows = Windows.rolling(panel, 4, 2, "B", index=keys)
    assert list(windows.index) == [(dates[4], "A"), (dates[9], "A"), (dates[9], "B")]
    everything = rows_of(Windows.rolling(panel, 4, 2, "B"))
    for key, bars in rows_of(windows).items():
        np.testing.assert_array_equal(bars, everything[key])


def test_instruments_may_be_categories_of_which_some_have_no_bar() -> None:
    panel = pd.concat(make_panel(12, "A", "B", "C"), names=["instrument", "datetime"]).swaplevel()
    frame = panel.reset_index().astype({"instrument": "category"})
    some = frame[frame["instrument"] != "B"].set_index(["datetime", "instrument"])
    index = some.index[[10, 11, 22, 23]]
    assert (
        Windows.rolling(some, 4, 2, "B").digest()
        == Windows.rolling(panel.drop("B", level=1), 4, 2, "B").digest()
    )
    assert set(Windows.rolling(some, 4, 2, "B", index=index).index) == set(index)


def test_keys_of_instruments_and_dates_without_a_window_are_skipped() -> None:
    panel = make_panel(12, "A")
    dates = panel["A"].index
    keys = pd.MultiIndex.from_tuples(
        [(dates[5], "A"), (dates[5], "Z"), (dates[0], "A"), (pd.Timestamp("2030-01-01"), "A")], names=KEYS
    )
    assert list(Windows.rolling(panel, 4, 2, "B", index=keys).index) == [(dates[5], "A")]


def test_dates_may_be_given_as_text() -> None:
    panel = make_panel(12, "A")
    windows = Windows.rolling(panel, 4, 2, "B", start="2024-01-10", end="2024-01-11")
    assert [str(date.date()) for date, _ in windows.index] == ["2024-01-10", "2024-01-11"]


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


def test_one_bar_is_not_a_window() -> None:
    with pytest.raises(ValueError, match=r"A has 1 bar.*at least 2"):
        single(make_bars(1))


@pytest.mark.parametrize(
    "rows", [slice(2, 5), np.array([4, 0, 4]), np.arange(8) % 2 == 0], ids=["slice", "integers", "mask"]
)
def test_some_of_the_windows_are_those_windows(rows: slice | np.ndarray) -> None:
    windows = Windows.rolling(make_panel(6, "A", "B"), 3, 2, "B")
    assert len(windows) == 8
    some, picked = windows[rows], np.arange(8)[rows]
    assert list(some.index) == [windows.index[i] for i in picked]
    for name in ("values", "stamps", "lengths", "future", "last_bar", "future_stamps"):
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


def test_future_calendar_fields_are_those_of_the_future_timestamps() -> None:
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


def test_features_are_in_the_order_of_the_released_weights() -> None:
    assert FEATURES == ("open", "high", "low", "close", "volume", "amount")


# Time zones


def zoned(panel: dict[str, pd.DataFrame], zone: str | None) -> dict[str, pd.DataFrame]:
    return {name: bars.tz_localize(zone) for name, bars in panel.items()}


@pytest.mark.parametrize("form", ["mapping", "frame"])
@pytest.mark.parametrize("calendar", ["frequency", "timestamps"])
def test_windows_of_bars_in_a_zone_are_those_of_the_local_clock(calendar: str, form: str) -> None:
    panel = {
        name: bars.set_axis(pd.date_range("2024-03-29 15:00", periods=9, freq="h", name="datetime"))
        for name, bars in make_panel(9, "A", "B").items()
    }
    times = pd.date_range("2024-03-29 15:00", periods=40, freq="h")

    def roll(zone: str | None) -> Windows:
        bars = zoned(panel, zone)
        given = bars if form == "mapping" else pd.concat(bars, names=["instrument", "datetime"]).swaplevel()
        when = "h" if calendar == "frequency" else times.tz_localize(zone)
        since = pd.Timestamp("2024-03-29 20:00", tz=zone)
        until = pd.Timestamp("2024-03-29 22:00", tz=zone)
        return Windows.rolling(given, 4, 3, when, start=since, end=until)

    plain, local = roll(None), roll("Asia/Shanghai")
    assert len(plain) == 6
    assert local.index.equals(plain.index)
    assert local.digest() == plain.digest()


def test_keys_in_a_zone_name_windows_by_the_local_clock() -> None:
    panel = make_panel(9, "A")
    dates = panel["A"].index[[5, 7]]
    keys = pd.MultiIndex.from_product([dates.tz_localize("UTC"), ["A"]], names=KEYS)
    windows = Windows.rolling(zoned(panel, "UTC"), 4, 3, "B", index=keys)
    assert list(windows.index.get_level_values("datetime")) == list(dates)


@pytest.mark.parametrize(("bars", "calendar"), [(None, "UTC"), ("UTC", None), ("UTC", "Asia/Shanghai")])
def test_bars_and_a_calendar_of_two_zones_are_refused(bars: str | None, calendar: str | None) -> None:
    times = pd.date_range("2024-01-01", periods=40, tz=calendar)
    with pytest.raises(
        ValueError, match=rf"A: the bars are in the time zone {bars}, the calendar in {calendar}\."
    ):
        Windows.rolling(zoned(make_panel(9, "A"), bars), 4, 3, times)


def test_bars_over_an_hour_that_the_clock_shows_twice_are_refused_with_a_remedy() -> None:
    index = pd.date_range("2024-11-02 20:00", periods=12, freq="h", tz="America/New_York")
    bars = make_bars(12).set_axis(index)
    message = r"bars of A have the local time 2024-11-03 01:00:00 twice.*tz_convert\('UTC'\)"
    with pytest.raises(ValueError, match=message):
        Windows.rolling({"A": bars}, 4, 3, "h")
    assert len(Windows.rolling({"A": bars.tz_convert("UTC")}, 4, 3, "h")) == 9


def test_the_error_for_two_level_columns_says_how_to_convert_them() -> None:
    wide = pd.concat(make_panel(9, "A", "B"), axis=1, names=["Ticker", "Price"])
    for panel, level in ((wide, 0), (wide.swaplevel(axis=1), 1)):
        with pytest.raises(
            ValueError, match=rf"indexed by \['datetime'\].*panel\.stack\({level}, future_stack"
        ):
            Windows.rolling(panel, 4, 3, "B")
    stacked = wide.stack(level="Ticker", future_stack=True).rename_axis(KEYS)
    assert (
        Windows.rolling(stacked, 4, 3, "B").digest()
        == Windows.rolling(make_panel(9, "A", "B"), 4, 3, "B").digest()
    )


@pytest.mark.parametrize(("bars", "future"), [(None, "UTC"), ("UTC", None), ("UTC", "Asia/Shanghai")])
def test_a_single_window_and_its_future_of_two_zones_are_refused(
    bars: str | None, future: str | None
) -> None:
    past = make_bars(5).tz_localize(bars)
    later = pd.date_range("2024-02-01", periods=3, tz=future)
    with pytest.raises(ValueError, match=rf"A: the bars are in the time zone {bars}, .* in {future}\."):
        Windows.single("A", past, later)
    alike = Windows.single("A", past, later.tz_localize(None).tz_localize(bars))
    assert alike.digest() == Windows.single("A", make_bars(5), later.tz_localize(None)).digest()


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
        alone = Scale(scale.mean[i : i + 1], scale.width[i : i + 1])
        np.testing.assert_array_equal(back[i, 1], alone.invert(paths[i : i + 1, 1])[0])


UNITS = [1e-8, 1e-6, 1e-4, 1e-2, 1e2, 1e4, 1e6, 1e8]


@pytest.mark.parametrize("unit", UNITS)
def test_bars_normalize_equally_in_every_unit_of_price_and_volume(unit: float) -> None:
    bars = np.stack([make_bars(90, seed).to_numpy() for seed in range(5)])
    for columns in (slice(0, 4), slice(4, 6), slice(0, 6)):
        other = bars.copy()
        other[..., columns] *= unit
        ours, theirs = (
            Scale.fit(values).apply(values, clip=5)
            for values in (bars.astype(np.float32), other.astype(np.float32))
        )
        # Bars are rounded to float32 in each unit: 6e-8 of a price that is some ten deviations.
        np.testing.assert_allclose(ours, theirs, atol=5e-6)


def test_upstreams_scale_is_the_plain_formula_at_ordinary_prices() -> None:
    values = np.stack([make_bars(90, seed).to_numpy(np.float32) for seed in range(5)])
    for level in (1, 0.02, 1e3):  # prices near 50, 1 and 50,000
        prices = values * np.float32(level)
        plain = (prices - prices.mean(1, keepdims=True)) / (prices.std(1, keepdims=True) + np.float32(1e-5))
        ours = Scale.fit_upstream(prices).apply(prices, clip=np.inf)
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize("unit", [1e-10, 1e-8, 1e-6])
def test_upstreams_scale_takes_small_prices_in_any_unit(unit: float) -> None:
    values = make_bars(90).to_numpy()[None]
    wanted = Scale.fit(values.astype(np.float32)).apply(values.astype(np.float32), clip=5)
    small = (values * unit).astype(np.float32)
    np.testing.assert_allclose(
        Scale.fit_upstream(small).apply(small, clip=5)[..., :4], wanted[..., :4], atol=1e-4
    )


@pytest.mark.parametrize("fit", [Scale.fit, Scale.fit_upstream])
def test_huge_volumes_do_not_overflow(fit: Callable[[np.ndarray], Scale]) -> None:
    values = make_bars(90).to_numpy(np.float32)[None]
    huge = values.copy()
    huge[..., 4:] *= np.float32(1e25)  # squares of 1e30 are beyond float32
    with np.errstate(over="raise", invalid="raise"):
        ours, wanted = (fit(part).apply(part, clip=5) for part in (huge, values))
    np.testing.assert_allclose(ours, wanted, atol=1e-4)


def test_a_column_of_zeros_stays_near_zero() -> None:
    scale = Scale.fit(np.zeros((1, 9, 6), np.float32))
    assert np.abs(scale.invert(np.full((1, 2, 6), 5, np.float32))).max() <= 1e-4


# Exchanges


def bars_at(index: pd.DatetimeIndex) -> pd.DataFrame:
    return make_bars(len(index)).set_axis(index)


def china(first: str, last: str) -> pd.DatetimeIndex:
    days = pd.bdate_range(first, last)
    morning, afternoon = (("9h35min", "11h30min"), ("13h5min", "15h"))
    clock = [pd.timedelta_range(*span, freq="5min") for span in (morning, afternoon)]
    return pd.DatetimeIndex(np.add.outer(days.to_numpy(), clock[0].append(clock[1]).to_numpy()).ravel())


new_york = pd.bdate_range("2024-10-28", "2024-11-06").drop("2024-11-05")
EXCHANGES = {
    "5 minutes": ("XSHG", china("2024-09-26", "2024-09-30")),
    "5 minutes in UTC": (
        "XSHG",
        china("2024-09-27", "2024-09-30").tz_localize("Asia/Shanghai").tz_convert("UTC"),
    ),
    "hours across a change of clocks": (
        "XNYS",
        pd.DatetimeIndex([d + pd.Timedelta(hours=h, minutes=30) for d in new_york for h in range(10, 16)])
        .tz_localize("America/New_York")
        .tz_convert("UTC"),
    ),
    "days": ("XSHG", pd.bdate_range("2024-09-02", "2024-09-30")),
    "days in a zone": ("XNYS", pd.bdate_range("2024-10-01", "2024-11-29", tz="America/New_York")),
    "days at a time": (
        "XNYS",
        (pd.bdate_range("2024-11-01", "2024-11-27", tz="UTC") + pd.Timedelta(hours=14)),
    ),
    "weeks": ("XSHG", pd.date_range("2024-01-05", periods=20, freq="W-FRI")),
    "a market that never closes": ("24/7", pd.date_range("2024-03-30", periods=40, freq="4h", tz="UTC")),
}


@pytest.mark.parametrize("case", EXCHANGES)
def test_windows_of_an_exchange_have_its_timestamps_as_known_at_their_last_bar(case: str) -> None:
    pytest.importorskip("exchange_calendars", reason="needs the extra 'calendars'")
    exchange, times = EXCHANGES[case]
    windows = Windows.rolling({"A": bars_at(times)}, 12, 5, exchange, min_bars=4)
    assert len(windows) == len(times) - 3
    for row in range(len(windows)):
        known = future_timestamps(times[: row + 4], 5, exchange)
        np.testing.assert_array_equal(windows.future[row], wall_clock(known).to_numpy("datetime64[ns]"))


def test_windows_of_an_exchange_do_not_see_later_timestamps() -> None:
    pytest.importorskip("exchange_calendars", reason="needs the extra 'calendars'")
    times = china("2024-09-26", "2024-09-30")
    later = times[:60].append(pd.date_range("2024-10-05 17:01", periods=60, freq="min"))
    now, then = (Windows.rolling({"A": bars_at(each)}, 12, 5, "XSHG") for each in (times, later))
    np.testing.assert_array_equal(now.future[:49], then.future[:49])


def test_instruments_of_one_exchange_each_continue_from_their_own_bars() -> None:
    pytest.importorskip("exchange_calendars", reason="needs the extra 'calendars'")
    panel = {
        "A": bars_at(pd.bdate_range("2024-09-02", "2024-09-30")),
        "B": bars_at(china("2024-09-27", "2024-09-30")),
    }
    windows = Windows.rolling(panel, 12, 1, "XSHG", start="2024-09-30")
    last = {name: windows.future[windows.index.get_level_values(1) == name][-1, 0] for name in "AB"}
    assert last == {"A": np.datetime64("2024-10-08"), "B": np.datetime64("2024-10-08T09:35")}


@pytest.mark.parametrize("calendar", ["XSHGG", "every day", "5 mins of"])
def test_text_that_is_neither_a_frequency_nor_an_exchange_is_refused(calendar: str) -> None:
    pytest.importorskip("exchange_calendars", reason="needs the extra 'calendars'")
    with pytest.raises(ValueError, match=rf"calendar='{calendar}' is not an exchange .*pandas frequency"):
        Windows.rolling(make_panel(8, "A"), 4, 2, calendar)


def test_no_name_of_an_exchange_is_a_frequency() -> None:
    calendars = pytest.importorskip("exchange_calendars", reason="needs the extra 'calendars'")
    assert [name for name in calendars.get_calendar_names() if is_frequency(name)] == []
    assert all(is_frequency(text) for text in ("B", "b", "5min", "5MIN", "h", "W-FRI", "QS-OCT", "1D12h"))


# Windows.compact


@EXAMPLES
@given(data=st.data())
def test_compact_windows_are_the_same_windows_with_no_other_bar(data: st.DataObject) -> None:
    windows = Windows.rolling(
        make_panel(24, "A", "B", "C"), 6, 2, DAYS.append(DAYS + pd.Timedelta(days=60)), min_bars=2
    )
    rows = np.array(data.draw(st.lists(st.integers(0, len(windows) - 1), min_size=1, unique=True)))
    part = windows[rows]
    compact = part.compact()
    assert compact.digest() == part.digest()
    assert compact.index.equals(part.index)
    np.testing.assert_array_equal(compact.lengths, part.lengths)
    read = {
        row
        for end, length in zip(part.end_positions, part.lengths, strict=True)
        for row in range(end + 1 - length, end + 1)
    }
    assert len(compact.bars) == len(compact.bar_stamps) == len(read)
    np.testing.assert_array_equal(compact.bars, windows.bars[sorted(read)])


def test_no_window_is_compact_already() -> None:
    windows = Windows.rolling(make_panel(24, "A"), 6, 2, "B")
    assert len(windows[:0].compact().bars) == 0
