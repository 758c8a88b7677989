import os
import shutil

import numpy as np
import pandas as pd
import pytest
import qlib
from qlib.data import D
from qlib.data.filter import NameDFilter

from kronos_strategies.qlib.data_access import traded_bars
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.model import KronosModel
from tests.kronos_strategies.warm import run_warm

from .conftest import TINY, use_store

SPAN = ("2023-02-01", "2023-03-31")


def dataset(**changes) -> KronosDataset:
    return KronosDataset(**{"segments": {"test": SPAN}, "lookback": 40, **changes})


def traded(market, name: str) -> pd.DataFrame:
    """The simulated bars of one name, adjusted by hand."""
    bars = market.bars[market.bars["instrument"] == name].set_index("datetime").sort_index()
    for price in ("open", "high", "low", "close"):
        bars[price] *= bars["factor"]
    bars["volume"] /= bars["factor"]
    return bars


def test_a_window_has_the_last_traded_bars_even_from_before_membership(in_store, small_market):
    windows = dataset().windows()
    for i in (0, len(windows) // 2, len(windows) - 1):
        date, name = windows.index[i]
        bars = traded(small_market, name).loc[:date].tail(40)
        expected = bars[["open", "high", "low", "close", "volume", "amount"]].to_numpy()
        np.testing.assert_allclose(windows[i : i + 1].values[0], expected, rtol=1e-5)


def test_only_members_that_traded_on_the_day_get_a_window(in_store, small_market):
    keys = dataset(min_bars=2).windows().index
    spans = small_market.membership
    expected = {
        (row.datetime, row.instrument)
        for row in small_market.bars.itertuples()
        if pd.Timestamp(SPAN[0]) <= row.datetime <= pd.Timestamp(SPAN[1])
        and (
            (spans["instrument"] == row.instrument)
            & (spans["start"] <= row.datetime)
            & (row.datetime <= spans["end"])
        ).any()
    }
    assert set(keys) == expected


def test_an_instrument_that_joins_the_market_is_scored_on_its_first_day(in_store, small_market):
    spans = small_market.membership
    joined = spans[spans["start"] >= "2022-04-15"]  # 40 bars after the first day
    assert len(joined), "the small market reviews its index"
    first, name = joined["start"].iloc[0], joined["instrument"].iloc[0]
    around = (first - pd.Timedelta(days=3), first + pd.Timedelta(days=25))
    windows = dataset(segments={"test": around}).windows()
    dates = windows.index[windows.index.get_level_values("instrument") == name].get_level_values("datetime")
    assert dates[0] == first
    assert (
        windows[windows.index.get_loc((first, name)) : windows.index.get_loc((first, name)) + 1].lengths[0]
        == 40
    )


def test_future_timestamps_are_the_next_days_of_the_calendar(in_store):
    windows = dataset(hold=3).windows()
    assert dataset(horizon=7).windows().horizon == 7
    calendar = pd.DatetimeIndex(D.calendar(future=True))
    for date, future in zip(
        windows.index.get_level_values("datetime")[::37], windows.future[::37], strict=True
    ):
        at = calendar.get_loc(date)
        assert list(pd.DatetimeIndex(future)) == list(calendar[at + 1 : at + 5])


def test_the_last_day_of_the_store_still_has_future_timestamps(in_store, small_market):
    last = small_market.bars["datetime"].max()
    windows = dataset(segments={"test": (str(last.date()), str(last.date()))}).windows()
    assert len(windows)
    assert (pd.DatetimeIndex(windows.future.ravel()) > last).all()


@pytest.mark.parametrize(("hold", "price"), [(1, "close"), (3, "close"), (1, "open")])
def test_the_label_is_the_return_that_a_signal_of_that_day_can_trade(in_store, small_market, hold, price):
    label = dataset(hold=hold, deal_price=price).prepare("test", col_set="label").iloc[:, 0].dropna()
    calendar = pd.DatetimeIndex(D.calendar())
    checked = 0
    for (date, name), value in label.iloc[::97].items():
        bars = traded(small_market, name)[price].reindex(calendar)
        at = calendar.get_loc(date)
        assert value == pytest.approx(bars.iloc[at + 1 + hold] / bars.iloc[at + 1] - 1, rel=1e-3, abs=1e-5)
        checked += 1
    assert checked > 5


def test_suspended_days_are_not_bars(in_store, small_market):
    names = sorted(small_market.bars["instrument"].unique())
    end = small_market.bars["datetime"].max()
    panel = traded_bars(names, end)
    for name in names:
        assert list(panel[name].index) == list(traded(small_market, name).index)


def test_an_unknown_market_is_refused_with_the_known_ones(in_store):
    with pytest.raises(ValueError, match=r"no market 'csi3000'.*csi300"):
        dataset(market="csi3000")


def test_a_segment_outside_the_store_is_refused_with_its_span(in_store):
    with pytest.raises(ValueError, match=r"Segment 'test'.*2022-01-03 to 2023-06-30.*KRONOS_TEST_START"):
        dataset(segments={"test": ("2030-01-01", "2030-12-31")})


def test_a_segment_without_a_trading_day_is_refused(in_store):
    with pytest.raises(ValueError, match=r"2023-03-04 to 2023-03-05 has no trading day"):
        dataset(segments={"test": ("2023-03-04", "2023-03-05")})


def test_a_segment_that_ends_after_the_store_or_never_is_scored_as_far_as_bars_reach(in_store):
    for end in ("2023-07-31", None):
        late = dataset(segments={"test": ("2023-06-26", end)})
        dates = late.windows().index.get_level_values("datetime")
        assert dates.max() == pd.Timestamp("2023-06-30")
        label = late.prepare("test", col_set="label")
        assert label.index.equals(late.windows().index)


def test_without_a_future_calendar_the_last_day_is_scored_too(in_store, small_store, tmp_path):
    expected = dataset(segments={"test": ("2023-06-30", "2023-06-30")}, hold=3).windows().future
    shutil.copytree(small_store, tmp_path / "store")
    (tmp_path / "store" / "calendars" / "day_future.txt").unlink()
    use_store(tmp_path / "store")
    last = dataset(segments={"test": ("2023-06-30", "2023-06-30")}, hold=3).windows()
    assert len(last)
    np.testing.assert_array_equal(last.future, expected)


def test_a_missing_benchmark_is_refused_before_anything_is_forecast(in_store):
    with pytest.raises(ValueError, match=r"no benchmark 'SH000905'.*KRONOS_BENCHMARK"):
        dataset(benchmark="SH000905")
    dataset(benchmark="SH000300")


def test_a_missing_store_is_refused_with_both_remedies(small_store, tmp_path):
    qlib.init(provider_uri=str(tmp_path / "nowhere"), region="cn", kernels=1)
    with pytest.raises(FileNotFoundError, match=r"kronos data import.*KRONOS_QLIB_DATA"):
        dataset()


@pytest.mark.parametrize("change", [{"hold": 0}, {"deal_price": "high"}, {"horizon": 1}])
def test_an_impossible_trade_is_refused(in_store, change):
    (name,) = change
    with pytest.raises(ValueError, match=name):
        dataset(**change)


def of(keys) -> set[str]:
    return set(keys.get_level_values("instrument"))


def test_instruments_may_be_a_list_a_dict_or_a_market_with_filters(in_store):
    names = ["SH609001", "SZ009003"]
    week = {"segments": {"test": ("2023-03-01", "2023-03-07")}}
    listed = dataset(instruments=names, **week)
    assert of(listed.windows().index) == set(names)
    assert listed.prepare("test", col_set="label").index.equals(listed.windows().index)
    assert of(dataset(market=names, **week).windows().index) == set(names)
    rule = {
        "filter_type": "NameDFilter",
        "name_rule_re": "SH.*",
        "filter_start_time": None,
        "filter_end_time": None,
    }
    config = {"market": "csi300", "filter_pipe": [rule]}
    whole = dataset(**week).windows().index
    expected = whole[whole.get_level_values("instrument").str.startswith("SH")]
    for named in (dataset(market=config, **week), dataset(filter_pipe=[NameDFilter("SH.*")], **week)):
        assert named.windows().index.equals(expected)
        assert named.market.startswith("csi300-")
    spans = {"SH609001": [("2023-03-02", "2023-03-03")]}
    assert len(dataset(instruments=spans, **week).windows()) == 2
    assert listed.market != dataset(instruments=names[:1], **week).market  # forecasts of each have a folder


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"instruments": ["SH609001", "AAPL"]}, r"bars of 1 of 2 instruments, the first 'AAPL'"),
        ({"instruments": []}, r"list of instruments is empty"),
        (
            {"instruments": ["SH609001"], "filter_pipe": [1]},
            r"filter_pipe applies only to a market given by its name",
        ),
        ({"segments": {}}, r"There is no segment\. Pass one"),
        ({"lookback": 1}, r"lookback=1 and min_bars=1 do not satisfy 2 <= min_bars <= lookback"),
        ({"lookback": 30, "min_bars": 31}, r"lookback=30 and min_bars=31 do not satisfy"),
        ({"filter_pipe": [1]}, r"filter_pipe cannot be read \(.*Pass filters of qlib.data.filter"),
        (
            {"filter_pipe": [{"filter_type": "NameDFilter", "name_rule_re": "SH60"}]},
            r"filter_pipe cannot be read .*their settings",
        ),
        ({"freq": "5min"}, r"has bars of \['day'\], not of freq='5min'"),
        ({"segments": {"test": ("June", "2023-03-31")}}, r"segment 'test'='June' is not a date"),
        (
            {"segments": {"test": "2023-03-31"}},
            r"Segment 'test' is '2023-03-31'. Pass its first and its last",
        ),
        (
            {"segments": {"test": ("2023-03-31", "2023-03-01")}},
            r"has no trading day: it starts on 2023-03-31 and ends on",
        ),
        (
            {"segments": {"test": ("2019-01-01", "2023-03-01")}},
            r"starts on 2019-01-01, before the data directory",
        ),
    ],
)
def test_requests_that_the_store_cannot_serve_are_refused_in_one_sentence(in_store, change, says):
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        dataset(**change)


def test_the_store_may_be_given_by_frequency(small_store):
    qlib.init(provider_uri={"day": str(small_store)}, region="cn", kernels=1, skip_if_reg=False)
    assert len(dataset().windows())
    with pytest.raises(ValueError, match=r"no data of freq='60min', only of \['day'\]"):
        dataset(freq="60min")


def test_before_qlib_is_initialized_one_sentence_says_so(tmp_path):
    code = "from kronos_strategies.qlib.dataset import KronosDataset; KronosDataset({'test': ('2023-01-03', None)})"
    (tmp_path / "script.py").write_text(code)
    process = run_warm([tmp_path / "script.py"], tmp_path, os.environ)
    assert "ValueError: Qlib is not initialized. Call qlib.init(" in process.stderr


def test_vwap_is_a_deal_price_where_the_store_has_it(in_store, small_store, small_market, tmp_path):
    with pytest.raises(ValueError, match=r"has no vwap of csi300. Choose deal_price 'close' or 'open'"):
        dataset(deal_price="vwap")
    store = tmp_path / "store"
    shutil.copytree(small_store, store)
    for closes in store.glob("features/*/close.day.bin"):
        start, *close = np.fromfile(closes, "<f4")
        opens = np.fromfile(closes.with_name("open.day.bin"), "<f4")[1:]
        np.array([start, *((close + opens) / 2)], "<f4").tofile(closes.with_name("vwap.day.bin"))
    use_store(store)
    data = dataset(deal_price="vwap", segments={"test": ("2023-03-01", "2023-03-03")})
    label = data.prepare("test", col_set="label").iloc[:, 0]
    bars = traded(small_market, "SH609001")
    vwap = (bars["open"] + bars["close"]) / 2
    at = vwap.index.get_loc(pd.Timestamp("2023-03-01"))
    expected = vwap.iloc[at + 2] / vwap.iloc[at + 1] - 1
    assert label[pd.Timestamp("2023-03-01"), "SH609001"] == pytest.approx(expected, rel=1e-3)
    model = KronosModel(str(TINY), samples=2, device="cpu")
    scored = model.predict(data)
    (forecast,) = [
        f for f in model.forecasts(data.windows(), data.spec) if f.index[0][0] == scored.index[0][0]
    ]
    mean = model.postprocessing(forecast).paths[0, :, :, :4].astype(float).mean(axis=-1)
    assert scored.iloc[0] == pytest.approx((mean[:, 1] / mean[:, 0] - 1).mean(), rel=1e-5)


def test_another_model_that_requests_features_gets_an_error_with_alternatives(in_store):
    both = dataset().prepare(["test"], col_set="label")
    assert list(both[0].columns) == ["LABEL0"]
    for wanted in ("feature", ["feature", "label"]):
        with pytest.raises(
            ValueError, match=r"not the columns 'feature'. Use another dataset for another model"
        ):
            dataset().prepare("test", col_set=wanted)
