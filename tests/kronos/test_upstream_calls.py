"""`predict` and `predict_batch` of upstream: inputs, results and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kronos.bars import FEATURES
from kronos.config import SampleConfig
from kronos.predictor import KronosPredictor
from tests.kronos.builders import make_bars, make_model, make_tokenizer

H = 5
SAMPLING = SampleConfig(samples=4, T=1.0, top_p=0.95, seed=3)


@pytest.fixture(scope="module")
def predictor() -> KronosPredictor:
    return KronosPredictor(make_model(), make_tokenizer(), "cpu", max_context=16)


# Upstream's doors
def call(**changes: Any) -> dict[str, Any]:
    """A call of `predict` that works, with changes."""
    bars = make_bars(10, freq="h")
    arguments = {
        "df": bars.reset_index(drop=True),
        "x_timestamp": pd.Series(bars.index),
        "y_timestamp": pd.Series(pd.date_range(bars.index[-1], periods=H + 1, freq="h")[1:]),
        "pred_len": H,
        "sample_count": 2,
        "verbose": False,
        "seed": 1,
    }
    return arguments | changes


def test_a_prediction_is_a_frame_of_features_by_time(predictor: KronosPredictor) -> None:
    arguments = call()
    before = arguments["df"].copy()
    frame = predictor.predict(**arguments)
    assert tuple(frame.columns) == FEATURES
    np.testing.assert_array_equal(frame.index, arguments["y_timestamp"])
    assert np.isfinite(frame).all(axis=None)
    pd.testing.assert_frame_equal(arguments["df"], before)


@pytest.mark.parametrize("verbose", [True, False])
def test_progress_is_shown_only_on_request(
    verbose: bool,
    predictor: KronosPredictor,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich draws on a terminal only
    predictor.predict(**call(verbose=verbose))
    assert bool(capsys.readouterr().out) == verbose


def test_one_series_and_a_batch_of_one_are_the_same(predictor: KronosPredictor) -> None:
    arguments = call()
    rest = {
        name: value for name, value in arguments.items() if name not in ("df", "x_timestamp", "y_timestamp")
    }
    (batch,) = predictor.predict_batch(
        [arguments["df"]], [arguments["x_timestamp"]], [arguments["y_timestamp"]], **rest
    )
    pd.testing.assert_frame_equal(predictor.predict(**arguments), batch)


def test_greedy_series_of_different_lookbacks_are_predicted_together_as_alone(
    predictor: KronosPredictor,
) -> None:
    calls = []
    for count in (4, 10, 30):  # the last is longer than the context
        bars = make_bars(count, seed=count, freq="h")
        later = pd.date_range(bars.index[-1], periods=H + 1, freq="h")[1:]
        calls.append((bars, bars.index, later))
    batch = predictor.predict_batch(*zip(*calls, strict=True), pred_len=H, T=0, verbose=False)
    for (bars, x, y), frame in zip(calls, batch, strict=True):
        alone = predictor.predict(bars, x, y, H, T=0, verbose=False)
        # float noise of another batch, in units of each column's spread
        assert ((alone - frame).abs() <= 1e-4 * bars.std(ddof=0)).all(axis=None)


@pytest.mark.parametrize(
    "kind",
    [
        lambda times: pd.DatetimeIndex(times),
        lambda times: list(times.astype(str)),
        lambda times: times.astype(str),
        lambda times: times.to_numpy(),
        lambda times: times.set_axis(range(100, 100 + len(times))),
    ],
    ids=["DatetimeIndex", "list of text", "Series of text", "array", "Series of another index"],
)
def test_timestamps_may_come_in_any_of_pandas_forms(
    kind: Callable[[pd.Series], Any], predictor: KronosPredictor
) -> None:
    plain = call()
    other = call(x_timestamp=kind(plain["x_timestamp"]), y_timestamp=kind(plain["y_timestamp"]))
    pd.testing.assert_frame_equal(
        predictor.predict(**plain), predictor.predict(**other), check_index_type=False, check_freq=False
    )


@pytest.mark.parametrize(
    "kind",
    [
        lambda times: times,
        lambda times: pd.DatetimeIndex(times),
        lambda times: list(times),
        lambda times: list(times.astype(str)),
        lambda times: times.astype(object),
    ],
    ids=["Series", "DatetimeIndex", "list", "list of text", "Series of objects"],
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "America/New_York"])
def test_timestamps_with_a_zone_are_read_by_the_local_clock_and_come_back_with_it(
    zone: str, kind: Callable[[pd.Series], Any], predictor: KronosPredictor
) -> None:
    plain = call()
    x, y = (plain[name].dt.tz_localize(zone) for name in ("x_timestamp", "y_timestamp"))
    frame = predictor.predict(**call(x_timestamp=kind(x), y_timestamp=kind(y)))
    np.testing.assert_array_equal(frame, predictor.predict(**plain))
    assert (frame.index == pd.DatetimeIndex(y)).all()
    assert frame.index.tz is not None


def test_an_hour_that_a_clock_shows_twice_is_two_bars(predictor: KronosPredictor) -> None:
    # New York sets its clocks back in the night to 3 November 2024: 01:00 comes twice.
    times = pd.Series(pd.date_range("2024-11-02 20:00", periods=10 + H, freq="h", tz="America/New_York"))
    assert times.dt.tz_localize(None).duplicated().any()
    frame = predictor.predict(**call(x_timestamp=times[:10], y_timestamp=times[10:]))
    assert np.isfinite(frame).all(axis=None)
    naive = times.dt.tz_localize(None)
    with pytest.raises(ValueError, match="twice"):
        predictor.predict(**call(x_timestamp=naive[:10], y_timestamp=naive[10:]))


@pytest.mark.parametrize(("x", "y"), [("UTC", None), (None, "UTC"), ("UTC", "Asia/Shanghai")])
def test_timestamps_of_two_zones_are_refused_together(
    x: str | None, y: str | None, predictor: KronosPredictor
) -> None:
    plain = call()
    changes = {
        name: plain[name].dt.tz_localize(zone)
        for name, zone in (("x_timestamp", x), ("y_timestamp", y))
        if zone
    }
    with pytest.raises(ValueError, match=rf"time zone {x}, y_timestamp in {y}\. Convert both to one"):
        predictor.predict(**call(**changes))


def test_bars_under_yfinances_columns_and_zone_are_predicted_like_plain_ones(
    predictor: KronosPredictor,
) -> None:
    plain = call()
    theirs = plain["df"].drop(columns="amount").rename(columns=str.capitalize)
    theirs.columns = pd.MultiIndex.from_product([theirs.columns, ["AAPL"]], names=["Price", "Ticker"])
    theirs.index = pd.DatetimeIndex(plain["x_timestamp"]).tz_localize("America/New_York")
    ours = predictor.predict(**call(df=plain["df"].drop(columns="amount")))
    pd.testing.assert_frame_equal(predictor.predict(**call(df=theirs)), ours)


def test_top_k_of_none_as_upstreams_callers_pass_it_is_off(predictor: KronosPredictor) -> None:
    pd.testing.assert_frame_equal(predictor.predict(**call(top_k=None)), predictor.predict(**call(top_k=0)))


def test_temperature_zero_is_greedy(predictor: KronosPredictor) -> None:
    greedy = predictor.predict(**call(T=0))
    pd.testing.assert_frame_equal(greedy, predictor.predict(**call(T=1.0, top_k=1)))
    pd.testing.assert_frame_equal(greedy, predictor.predict(**call(T=0, seed=2)))


def test_the_global_seed_and_the_argument_give_the_same_numbers(predictor: KronosPredictor) -> None:
    torch.manual_seed(1)
    pd.testing.assert_frame_equal(predictor.predict(**call(seed=None)), predictor.predict(**call(seed=1)))
    other = predictor.predict(**call(seed=None))  # the global stream has moved on
    assert not np.allclose(other, predictor.predict(**call(seed=1)))


def spoiled(column: str, value: Any) -> pd.DataFrame:
    frame = call()["df"]
    frame[column] = frame[column].astype(object if isinstance(value, str) else float)
    frame.loc[3, column] = value
    return frame


X, Y = call()["x_timestamp"], call()["y_timestamp"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"df": call()["df"].drop(columns="close")}, r"series 0 lacks the columns \['close'\]"),
        ({"df": spoiled("open", np.nan)}, "series 0 has 1 missing.*'open' at .*repair_bars"),
        ({"df": spoiled("amount", np.inf)}, "series 0 has 1 missing.*'amount' at .*repair_bars"),
        ({"df": spoiled("volume", -1.0)}, "series 0 has a negative volume"),
        ({"df": spoiled("high", 0.1)}, r"series 0 has open or close outside \[low, high\]"),
        ({"df": spoiled("low", "n/a")}, "series 0 has .*not numeric"),
        ({"df": call()["df"].iloc[:0], "x_timestamp": X[:0]}, "series 0 has no rows"),
        ({"df": call()["df"].iloc[:1], "x_timestamp": X[:1]}, "series 0 has 1 bar.*at least 2"),
        ({"x_timestamp": X[:-1]}, "x_timestamp of series 0 has 9 entries but 10 are needed"),
        ({"y_timestamp": Y[:-1]}, "y_timestamp of series 0 has 4 entries but 5 are needed"),
        ({"y_timestamp": Y[:0]}, "y_timestamp of series 0 has 0 entries but 5"),
        ({"pred_len": 0, "y_timestamp": Y[:0]}, "pred_len=0 .*at least 1"),
        ({"pred_len": -3}, "pred_len=-3 .*at least 1"),
        ({"y_timestamp": X[5:]}, "y_timestamp of series 0 starts at .*before its last bar.*Shift"),
        ({"x_timestamp": X[::-1]}, "x_timestamp of series 0 is not sorted by time"),
        ({"x_timestamp": X.where(X.index != 2, X[3])}, "x_timestamp of series 0 has the timestamp .* twice"),
        ({"x_timestamp": X.where(X.index != 2)}, "x_timestamp of series 0 has no timestamp in row 2"),
        ({"y_timestamp": Y[::-1]}, "y_timestamp of series 0 is not sorted by time"),
        ({"x_timestamp": ["soon"] * 10}, "x_timestamp of series 0 does not contain timestamps.*to_datetime"),
        ({"x_timestamp": None}, "x_timestamp of series 0 does not contain timestamps.*to_datetime"),
        ({"y_timestamp": "2030-01-01"}, "y_timestamp of series 0 does not contain timestamps.*to_datetime"),
        ({"x_timestamp": range(10)}, "x_timestamp of series 0 does not contain timestamps.*to_datetime"),
        ({"T": -1.0}, "T=-1.0 "),
        ({"top_p": 0.0}, "top_p=0.0 "),
        ({"top_p": 1.5}, "top_p=1.5 "),
        ({"top_k": -1}, "top_k=-1 "),
        ({"top_k": 2.5}, "top_k=2.5 "),
        ({"sample_count": 0}, "samples=0 "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_argument_is_refused_by_name_with_a_remedy(
    changes: dict[str, Any], message: str, predictor: KronosPredictor
) -> None:
    with pytest.raises(ValueError, match=message):
        predictor.predict(**call(**changes))


def test_anything_but_a_frame_is_refused(predictor: KronosPredictor) -> None:
    with pytest.raises(TypeError, match=r"series 0 is a ndarray.*DataFrame"):
        predictor.predict(**call(df=np.ones((10, 6))))


def test_a_horizon_that_does_not_fit_the_context_is_refused(predictor: KronosPredictor) -> None:
    times = pd.Series(pd.date_range("2030-01-01", periods=17, freq="h"))
    with pytest.raises(ValueError, match=r"17 bars does not fit max_context=16.*Shorten"):
        predictor.predict(**call(pred_len=17, y_timestamp=times))


def test_the_series_that_is_wrong_is_named_by_its_place_in_the_batch(predictor: KronosPredictor) -> None:
    good = call()
    with pytest.raises(ValueError, match=r"series 1 has 1 missing"):
        predictor.predict_batch([good["df"], spoiled("open", np.nan)], [X, X], [Y, Y], H, verbose=False)


@pytest.mark.parametrize(
    ("counts", "message"),
    [((2, 1, 2), "2 frames, 1 x_timestamps and 2 y_timestamps"), ((0, 0, 0), "0 frames.*at least one")],
)
def test_lists_that_do_not_pair_up_are_refused(
    counts: tuple[int, int, int], message: str, predictor: KronosPredictor
) -> None:
    frames, xs, ys = ([thing] * n for thing, n in zip((call()["df"], X, Y), counts, strict=True))
    with pytest.raises(ValueError, match=message):
        predictor.predict_batch(frames, xs, ys, H, verbose=False)
