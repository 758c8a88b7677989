import numpy as np
import pandas as pd
import pytest

from kronos_strategies.lookahead import LookAheadError, check_causal, randomize_future

DAYS = pd.bdate_range("2024-01-01", periods=30)


@pytest.fixture
def bars() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frames = []
    for name in ("AAA", "BBB", "CCC"):
        close = 50 * np.exp(rng.normal(0, 0.02, len(DAYS)).cumsum())
        frames.append(
            pd.DataFrame(
                {
                    "instrument": name, "datetime": DAYS, "open": close, "high": close * 1.01, "low": close * 0.99,
                    "close": close, "volume": 1e6,
                }
            )
        )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def closes(bars: pd.DataFrame) -> pd.DataFrame:
    return bars.pivot(index="datetime", columns="instrument", values="close")


def long(wide: pd.DataFrame) -> pd.DataFrame:
    return wide.stack().rename("value").to_frame()


def test_a_trailing_mean_passes(bars):
    check_causal(lambda b: long(closes(b).rolling(3, min_periods=1).mean()), bars, [DAYS[10], DAYS[20]])


@pytest.mark.parametrize(
    "cheat",
    [
        lambda wide: wide.shift(-1),
        lambda wide: (wide - wide.mean()) / wide.std(),
        lambda wide: wide.rolling(3, center=True, min_periods=1).mean(),
        lambda wide: wide.bfill(limit=1) / wide.iloc[-1],
    ],
    ids=["tomorrow's close", "scaling by the whole sample", "centered mean", "adjusting to the last price"],
)
def test_look_ahead_is_reported_with_its_time_and_row(bars, cheat):
    with pytest.raises(LookAheadError, match=r"2024-01-15.*"):
        check_causal(lambda b: long(cheat(closes(b))), bars, ["2024-01-15"])


def test_look_ahead_by_one_bar_is_found(bars):
    alone = bars[bars["instrument"] == "AAA"].assign(close=lambda b: b["close"] * 1.003)

    def intraday(b: pd.DataFrame) -> pd.DataFrame:
        move = b.set_index(["datetime", "instrument"])
        return (move["close"] / move["open"] - 1).shift(-1).rename("value").to_frame()

    with pytest.raises(LookAheadError):
        check_causal(intraday, alone, ["2024-01-15"])


def test_an_infinite_value_does_not_hide_look_ahead(bars):
    def leak(b: pd.DataFrame) -> pd.DataFrame:
        wide = closes(b).shift(-1)
        wide.iloc[0, 0] = np.inf
        return long(wide)

    with pytest.raises(LookAheadError):
        check_causal(leak, bars, ["2024-01-15"])


def test_randomized_bars_are_valid_bars(bars):
    other = randomize_future(bars, pd.Timestamp("2024-01-15"))
    assert (other["high"] >= other[["open", "close", "low"]].max(axis=1)).all()
    assert (other["low"] <= other[["open", "close"]].min(axis=1)).all()


def test_dropping_instruments_by_later_data_is_detected(bars):
    def survivors(b: pd.DataFrame) -> pd.DataFrame:
        wide = closes(b)
        return long(wide.loc[:, wide.iloc[-1] > wide.iloc[0]])

    with pytest.raises(LookAheadError, match="appear or disappear"):
        check_causal(survivors, bars, DAYS[5:25:5])


def test_a_check_at_a_date_outside_of_the_bars_is_refused(bars):
    with pytest.raises(ValueError, match="nothing to check"):
        check_causal(lambda b: long(closes(b)), bars, ["2020-01-01"])


def test_scrambling_touches_only_what_is_later_and_keeps_every_day(bars):
    other = randomize_future(bars, pd.Timestamp("2024-01-15"))
    past, past_other = (b[b["datetime"] <= "2024-01-15"].reset_index(drop=True) for b in (bars, other))
    pd.testing.assert_frame_equal(past, past_other)
    assert set(other["datetime"]) == set(bars["datetime"])
    later = other.merge(bars, on=["instrument", "datetime"])
    later = later[later["datetime"] > "2024-01-15"]
    assert not np.isclose(later["close_x"], later["close_y"]).any()
    assert len(later) < (bars["datetime"] > "2024-01-15").sum()
