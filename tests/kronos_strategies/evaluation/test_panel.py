"""A panel index places each row by its key, for any order of rows, levels and values."""

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.evaluation.distribution.metrics import realized_variance
from kronos_strategies.evaluation.panel import ROWS, PanelIndex, PricePanel, read_rows
from kronos_strategies.lookahead import randomize_future
from tests.kronos_strategies.evaluation.walks import AT, DAYS, NAMES, market_of, tidy_bars

FOUR_DAYS = pd.date_range("2024-01-01", periods=4)
THREE_NAMES = ["A", "B", "C"]
LEVELS = ["datetime", "instrument"]


@pytest.fixture
def keys() -> pd.MultiIndex:
    """All but one of 4 dates x 3 names, in an arbitrary order."""
    whole = pd.MultiIndex.from_product([FOUR_DAYS, THREE_NAMES], names=LEVELS)
    return whole[[7, 0, 11, 3, 5, 1, 10, 2, 9, 8, 4]]


def unstacked(keys: pd.MultiIndex, values: np.ndarray) -> pd.DataFrame:
    return pd.Series(values, keys).unstack("instrument").sort_index().sort_index(axis=1)


def test_values_lie_where_pandas_unstacks_them(keys):
    grid, values = PanelIndex.from_index(keys), np.arange(11.0)
    expected = unstacked(keys, values)
    np.testing.assert_array_equal(grid.to_wide(values), expected)
    np.testing.assert_array_equal(grid.mask, expected.notna())
    pd.testing.assert_index_equal(grid.dates, FOUR_DAYS, check_names=False)
    pd.testing.assert_index_equal(grid.instruments, pd.Index(THREE_NAMES, name="instrument"))
    assert grid.dates.name == "datetime"


def test_wide_values_return_to_the_order_of_the_keys(keys):
    grid, values = PanelIndex.from_index(keys), np.arange(11.0)
    np.testing.assert_array_equal(grid.to_long(grid.to_wide(values)), values)


@pytest.mark.parametrize("dtype", [bool, np.int64, object])
def test_values_of_any_type_are_returned_unchanged(keys, dtype):
    wide = np.arange(12).reshape(4, 3).astype(dtype)
    found = PanelIndex.from_index(keys).to_long(wide)
    assert found.dtype == dtype
    assert list(found) == [wide[FOUR_DAYS.get_loc(day), THREE_NAMES.index(name)] for day, name in keys]


def test_a_transposed_array_is_read_by_row_and_column(keys):
    wide = np.arange(12.0).reshape(4, 3)
    np.testing.assert_array_equal(
        PanelIndex.from_index(keys).to_long(np.asfortranarray(wide)),
        PanelIndex.from_index(keys).to_long(wide),
    )


def test_levels_may_come_in_either_order(keys):
    values = np.arange(11.0)
    grid, swapped = PanelIndex.from_index(keys), PanelIndex.from_index(keys.swaplevel())
    np.testing.assert_array_equal(swapped.to_wide(values), grid.to_wide(values))
    assert list(swapped.instruments) == THREE_NAMES


def test_a_third_level_does_not_matter(keys):
    more = keys.to_frame(index=False).assign(horizon=5)
    grid = PanelIndex.from_index(pd.MultiIndex.from_frame(more[["horizon", *LEVELS]]))
    np.testing.assert_array_equal(
        grid.to_wide(np.arange(11.0)), PanelIndex.from_index(keys).to_wide(np.arange(11.0))
    )


def test_levels_may_hold_values_unsorted_and_of_no_row():
    keys = pd.MultiIndex(
        levels=[FOUR_DAYS[[2, 0, 3, 1]], ["never", "C", "A", "B"]],
        codes=[[0, 1, 1, 3], [3, 1, 2, 2]],
        names=LEVELS,
    )
    grid, values = PanelIndex.from_index(keys), np.arange(4.0)
    assert (list(grid.dates), list(grid.instruments)) == (list(FOUR_DAYS[:3]), THREE_NAMES)
    np.testing.assert_array_equal(grid.to_wide(values), unstacked(keys, values))


def test_a_slice_of_an_index_has_its_own_dates_and_instruments_only(keys):
    part = keys[(keys.get_level_values(0) > FOUR_DAYS[1]) & (keys.get_level_values(1) != "B")]
    grid = PanelIndex.from_index(part)
    assert (list(grid.dates), list(grid.instruments)) == (list(FOUR_DAYS[2:]), ["A", "C"])


def test_panels_with_more_rows_than_a_block_are_complete():
    names = [f"N{i:05}" for i in range(ROWS // 3)]
    keys = pd.MultiIndex.from_product([FOUR_DAYS, names], names=LEVELS)
    values = np.random.default_rng(0).standard_normal(len(keys))
    shuffled = np.random.default_rng(1).permutation(len(keys))
    grid = PanelIndex.from_index(keys[shuffled])
    np.testing.assert_array_equal(grid.to_wide(values[shuffled]), values.reshape(4, -1))
    np.testing.assert_array_equal(grid.to_long(values.reshape(4, -1)), values[shuffled])


@pytest.mark.parametrize("infinite", [np.inf, -np.inf])
def test_an_infinite_value_is_missing_and_the_given_ones_stay(keys, infinite):
    values = np.arange(11.0)
    values[4] = infinite
    wide = PanelIndex.from_index(keys).to_wide(values)
    assert np.isnan(wide).sum() == 2
    assert not np.isinf(wide).any()
    assert values[4] == infinite


def test_a_row_without_a_value_is_in_the_mask(keys):
    grid = PanelIndex.from_index(keys)
    assert np.isnan(grid.to_wide(np.full(11, np.nan))).all()
    assert grid.mask.sum() == 11


@pytest.mark.parametrize("values", [np.arange(11), np.arange(11, dtype=np.float32), np.arange(11) > 4])
def test_wide_values_are_float64(keys, values):
    assert PanelIndex.from_index(keys).to_wide(values).dtype == np.float64


def test_time_zones_are_kept():
    days = FOUR_DAYS.tz_localize("Asia/Shanghai")
    grid = PanelIndex.from_index(pd.MultiIndex.from_product([days, THREE_NAMES], names=LEVELS))
    assert grid.dates.equals(days)


def test_no_rows_give_an_empty_array(keys):
    grid = PanelIndex.from_index(keys[:0])
    assert grid.to_wide([]).shape == (0, 0)
    assert isinstance(grid.dates, pd.DatetimeIndex)


def test_a_repeated_key_is_refused(keys):
    with pytest.raises(ValueError, match=r"The scores have .*2024-01-02.*'A'.* twice. Keep one row"):
        PanelIndex.from_index(keys.append(keys[[3]]), "scores")


@pytest.mark.parametrize(("lacks", "has"), [("instrument", "stock"), ("datetime", "day")])
def test_a_missing_level_is_refused(keys, lacks, has):
    with pytest.raises(ValueError, match=rf"The data lack the index level '{lacks}', .*'{has}'"):
        PanelIndex.from_index(keys.rename({lacks: has}.get(name, name) for name in keys.names))


@pytest.mark.parametrize("level", LEVELS)
def test_a_key_without_a_date_or_an_instrument_is_refused(keys, level):
    frame = keys.to_frame(index=False)
    frame.loc[[2, 5], level] = None
    with pytest.raises(ValueError, match=f"2 rows without a value of '{level}'"):
        PanelIndex.from_index(pd.MultiIndex.from_frame(frame))


def test_values_of_another_number_are_refused(keys):
    with pytest.raises(ValueError, match=r"11 rows, but values of shape \(10,\)"):
        PanelIndex.from_index(keys).to_wide(np.arange(10))


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_order_of_the_rows_changes_nothing(shuffled):
    days, names = pd.bdate_range("2024-01-01", periods=4), list("ABC")
    keys = pd.MultiIndex.from_product([days, names], names=["datetime", "instrument"])
    values = pd.Series(np.arange(12.0), keys)
    values.iloc[[2, 7]] = [np.inf, np.nan]
    given = values.sample(frac=1, random_state=0) if shuffled else values
    before = given.copy()
    wide = PanelIndex.from_index(given.index, "values").to_wide(given)
    np.testing.assert_array_equal(wide, [[0, 1, np.nan], [3, 4, 5], [6, np.nan, 8], [9, 10, 11]])
    pd.testing.assert_series_equal(given, before)  # and the values given stay as they are


def test_rows_sorted_by_instrument_are_not_mistaken_for_rows_sorted_by_date():
    days, names = pd.bdate_range("2024-01-01", periods=3), list("ABC")
    keys = pd.MultiIndex.from_product([names, days], names=["instrument", "datetime"])
    np.testing.assert_array_equal(
        PanelIndex.from_index(keys, "values").to_wide(np.arange(9.0)), np.arange(9.0).reshape(3, 3).T
    )


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return tidy_bars()


@pytest.fixture(scope="module")
def market(bars) -> PricePanel:
    return market_of(bars)


@pytest.mark.parametrize("ahead", [1, 6])
def test_an_instrument_without_a_trade_on_both_ends_has_no_label(bars, market, ahead):
    at = AT[3]
    halted = bars[(bars["datetime"] != DAYS[at + ahead]) | (bars["instrument"] != NAMES[7])]
    found = market_of(halted).forward_return(5)
    assert np.isnan(found.loc[DAYS[at], NAMES[7]])
    assert np.isnan(found.to_numpy()[at]).sum() == 1
    assert (
        market_of(halted).historical_volatility.loc[DAYS[at + ahead]].notna().all()
    )  # the last known close stands in


def test_a_suspension_in_between_leaves_the_label_and_counts_its_move_once(bars, market):
    halted = bars[(bars["datetime"] != DAYS[50]) | (bars["instrument"] != "N07")]
    found = market_of(halted)
    for wide in (PricePanel.forward_return, PricePanel.log_return):
        assert wide(found, 5).loc[DAYS[47], "N07"] == wide(market, 5).loc[DAYS[47], "N07"]
    by_closes = found.variance(5)["close-to-close"].loc[DAYS[47], "N07"]
    assert by_closes == realized_variance(found.closes, 5).loc[DAYS[47], "N07"]
    assert np.isfinite(found.variance(5)["range-based"].loc[DAYS[47], "N07"])


def test_randomizing_later_bars_changes_nothing_known_on_a_date(bars, market):
    end = AT[10]
    other = market_of(randomize_future(bars, DAYS[end]))
    pd.testing.assert_frame_equal(
        market.historical_volatility.iloc[: end + 1], other.historical_volatility.iloc[: end + 1]
    )
    pd.testing.assert_frame_equal(market.ewma.iloc[: end + 1], other.ewma.iloc[: end + 1])


@pytest.mark.parametrize("compression", ["zstd", "snappy"])
def test_rows_are_read_as_pandas_reads_them(tmp_path, compression):
    rng = np.random.default_rng(0)
    days = pd.bdate_range("2024-01-01", periods=40)
    index = pd.MultiIndex.from_product([days, ["B", "A", "Ü", "600000"]], names=["datetime", "instrument"])
    frame = pd.DataFrame({"x": rng.standard_normal(160), "n": np.arange(160), "s": "industry"}, index)
    frame = frame.sample(frac=0.8, random_state=0)
    frame.iloc[3, 0] = np.nan
    file = tmp_path / "rows.parquet"
    frame.to_parquet(file, compression=compression, row_group_size=50)
    pd.testing.assert_frame_equal(read_rows(file), pd.read_parquet(file))


def test_rows_with_another_index_are_read_as_pandas_reads_them(tmp_path):
    days = pd.bdate_range("2024-01-01", periods=3)
    by_number = pd.MultiIndex.from_product([days, [1, 2]], names=["datetime", "instrument"])
    unnamed = pd.MultiIndex.from_product([days, ["A", None]])
    absent = pd.MultiIndex.from_product([days, ["A", None]], names=["datetime", "instrument"])
    for index in (by_number, unnamed, absent):
        file = tmp_path / "rows.parquet"
        pd.DataFrame({"x": range(6)}, index).to_parquet(file)
        pd.testing.assert_frame_equal(read_rows(file), pd.read_parquet(file))


def test_a_wide_view_of_rows_cannot_change_them():
    days = pd.bdate_range("2024-01-01", periods=3)
    index = pd.MultiIndex.from_product([days, ["A", "B"]], names=["datetime", "instrument"])
    values = np.arange(6.0)
    wide = PanelIndex.from_index(index).to_wide(values)
    np.testing.assert_array_equal(wide, values.reshape(3, 2))
    with pytest.raises(ValueError, match="read-only"):
        wide[0, 0] = 1
