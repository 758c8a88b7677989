"""Signals of sampled paths: small cases by hand, and a plain computation path by path."""

import math
import statistics

import numpy as np
import pandas as pd
import pytest

from kronos.bars import FEATURES
from kronos_strategies.path_signals import PATH_SIGNALS, PathSignalSettings, expected_shortfall
from kronos_strategies.signal import path_signals, signals

from .test_signal import forecast

LEVELS = PathSignalSettings(tail=0.3, take_profit=0.02, stop_loss=0.03, drawdown=0.04)


def with_ranges(closes, up: float = 1.0, down: float = 1.0, last: float = 100.0):
    """Paths whose opens are the closes, with highs and lows in these ratios to them."""
    made = forecast(np.asarray(closes, float), last)
    close = made.path("close")
    for name, ratio in {"open": 1.0, "high": up, "low": down}.items():
        made.paths[..., FEATURES.index(name)] = close * ratio
    return made


@pytest.fixture(scope="module")
def random_paths():
    rng = np.random.default_rng(7)
    closes = 100 * np.exp(rng.normal(0.001, 0.02, (6, 9, 5)).cumsum(axis=2))
    made = with_ranges(closes)
    for name, sign in {"high": 1, "low": -1}.items():
        noise = np.abs(rng.normal(0, 0.01, closes.shape))
        made.paths[..., FEATURES.index(name)] *= 1 + sign * noise
    return made


def plain_statistics(returns: list[float], tail: float) -> dict[str, float]:
    """Signals of one window, with loops and the standard library."""
    count, mean = len(returns), statistics.fmean(returns)
    deviation = statistics.stdev(returns)
    worst, left = 0.0, tail * count
    for value in sorted(returns):
        share = min(1.0, left)
        worst, left = worst + share * value, left - share
    place = tail * (count + 1) - 1  # Weibull
    below = math.floor(place)
    low, high = sorted(returns)[below : below + 2]
    moment = statistics.fmean([(value - mean) ** 3 for value in returns])
    return {
        "deviation": deviation,
        "risk_adjusted": mean / deviation,
        "conviction": abs(mean) / (deviation / math.sqrt(count)),
        "downside": low + (place - below) * (high - low),
        "expected_shortfall": worst / (tail * count),
        "skew": moment / statistics.pstdev(returns) ** 3,
    }


def plain_barriers(bars: list[tuple[float, float]], entry: float, levels: PathSignalSettings) -> bool:
    for high, low in bars:
        if low <= entry * (1 - levels.stop_loss):
            return False
        if high >= entry * (1 + levels.take_profit):
            return True
    return False


def plain_drawdown(closes: list[float], start: float) -> float:
    peak, worst = start, 0.0
    for close in closes:
        peak = max(peak, close)
        worst = min(worst, close / peak - 1)
    return worst


@pytest.mark.parametrize("price", ["close", "open"])
def test_all_signals_are_those_of_a_plain_computation(random_paths, price):
    hold = 3
    found = signals(random_paths, hold, price, levels=LEVELS)
    first = 0 if price == "open" else 1
    for row in range(len(random_paths)):
        paths = random_paths.paths[row].astype(float)  # (S, H, 6)
        traded = paths[:, :, FEATURES.index(price)]
        returns = [float(path[hold] / path[0] - 1) for path in traded]
        expected = plain_statistics(returns, LEVELS.tail)
        ranges = paths[:, first : first + hold][..., [FEATURES.index("high"), FEATURES.index("low")]]
        reached = [
            plain_barriers([tuple(bar) for bar in bars], path[0], LEVELS)
            for bars, path in zip(ranges, traded, strict=True)
        ]
        falls = [plain_drawdown(list(path), 100.0) for path in paths[:, :, FEATURES.index("close")]]
        expected["prob_take_profit"] = statistics.fmean(reached)
        expected["max_drawdown"] = statistics.fmean(falls)
        expected["prob_drawdown"] = statistics.fmean(fall < -LEVELS.drawdown for fall in falls)
        for name, value in expected.items():
            assert found[name].iloc[row] == pytest.approx(value, rel=1e-6, abs=1e-9), name


def test_over_the_whole_horizon_the_position_is_entered_at_the_last_close(random_paths):
    found = path_signals(random_paths, LEVELS)
    assert tuple(found.columns) == PATH_SIGNALS
    for row in range(len(random_paths)):
        paths = random_paths.paths[row].astype(float)
        expected = plain_statistics([float(p[-1] / 100 - 1) for p in paths[:, :, 3]], LEVELS.tail)
        reached = [plain_barriers([tuple(bar) for bar in path[:, 1:3]], 100.0, LEVELS) for path in paths]
        expected["prob_take_profit"] = statistics.fmean(reached)
        for name, value in expected.items():
            assert found[name].iloc[row] == pytest.approx(value, rel=1e-6, abs=1e-9), name


def test_risk_adjusted_and_conviction_by_hand():
    # Returns of +10 % and -2 %: mean 4 %, deviation .12 / sqrt(2), Monte-Carlo error .06.
    row = signals(forecast(np.array([[[100.0, 110.0], [100.0, 98.0]]]))).iloc[0]
    assert row["deviation"] == pytest.approx(0.12 / 2**0.5, rel=1e-5)
    assert row["risk_adjusted"] == pytest.approx(0.04 / (0.12 / 2**0.5), rel=1e-5)
    assert row["conviction"] == pytest.approx(0.04 / 0.06, rel=1e-5)


def test_the_tie_break_orders_equal_shares_by_risk_and_never_different_shares():
    ups = [[110, 98], [101, 98], [90, 98], [101, 101], [100.01, 60]]
    closes = np.array([[[100.0, up] for up in pair] for pair in ups])
    found = signals(forecast(closes))
    assert found["prob_up"].tolist() == [0.5, 0.5, 0.0, 1.0, 0.5]
    assert found["prob_up_tiebreak"].rank(ascending=False).tolist() == [2, 3, 5, 1, 4]
    assert (found["prob_up_tiebreak"] - found["prob_up"]).abs().max() < 0.25  # half of 1 / S


def test_the_shortfall_takes_a_share_of_the_path_at_the_boundary():
    ordered = np.array([[-4.0, -2.0, 0.0, 1.0, 3.0]])
    assert expected_shortfall(ordered, 0.3)[0] == pytest.approx((-4 + 0.5 * -2) / 1.5)
    assert expected_shortfall(ordered, 0.1)[0] == -4
    assert expected_shortfall(ordered, 0.999999)[0] == pytest.approx(-0.4, abs=1e-4)


def test_a_bar_that_touches_both_levels_counts_as_stopped():
    levels = PathSignalSettings(take_profit=0.05, stop_loss=0.05)
    both = with_ranges([[[100, 100, 100]]], up=1.06, down=0.94)
    only_up = with_ranges([[[100, 100, 100]]], up=1.06, down=0.96)
    assert signals(both, 2, levels=levels)["prob_take_profit"].iloc[0] == 0
    assert signals(only_up, 2, levels=levels)["prob_take_profit"].iloc[0] == 1


def test_what_is_touched_first_decides_and_the_bar_of_the_entry_counts_only_for_the_open():
    levels = PathSignalSettings(take_profit=0.05, stop_loss=0.05)
    rises_then_falls = with_ranges([[[100, 106, 90], [100, 90, 110], [100, 101, 102]]])
    assert signals(rises_then_falls, 2, levels=levels)["prob_take_profit"].iloc[0] == pytest.approx(1 / 3)
    # The first bar falls by 6 % after its open: an entry at its close does not feel it.
    first_bar = with_ranges([[[100, 106, 106]]])
    first_bar.paths[0, 0, 0, FEATURES.index("low")] = 94
    assert signals(first_bar, 2, "close", levels=levels)["prob_take_profit"].iloc[0] == 1
    assert signals(first_bar, 2, "open", levels=levels)["prob_take_profit"].iloc[0] == 0


def test_a_drawdown_counts_from_the_last_close_on():
    row = signals(forecast(np.array([[[90.0, 120.0, 114.0], [101.0, 102.0, 103.0]]]))).iloc[0]
    assert row["max_drawdown"] == pytest.approx(-0.05, rel=1e-5)  # -10 % and 0
    assert signals(forecast(np.array([[[89.0, 120.0], [101.0, 95.0]]])))["prob_drawdown"].iloc[0] == 0.5


def test_a_single_path_or_equal_paths_have_no_risk_to_divide_by():
    single = signals(forecast(np.array([[[100.0, 101.0]]]))).iloc[0]
    equal = signals(forecast(np.full((1, 4, 2), 100.0))).iloc[0]
    for row in (single, equal):
        assert row[["risk_adjusted", "conviction", "skew"]].isna().all()
        assert np.isfinite(row[["prob_up_tiebreak", "downside", "expected_shortfall"]]).all()
    assert (np.isnan(single["deviation"]), equal["deviation"]) == (True, 0.0)


def test_a_window_never_depends_on_the_others(random_paths):
    together = signals(random_paths, 2, levels=LEVELS)
    alone = pd.concat([signals(random_paths[[row]], 2, levels=LEVELS) for row in range(len(random_paths))])
    pd.testing.assert_frame_equal(together, alone)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ({"tail": 0}, "tail=0 is out of range. Pass a number between 0 and 1, such as 0.1"),
        ({"stop_loss": 1}, "stop_loss=1 is out of range"),
        ({"take_profit": -0.1}, "take_profit=-0.1 is out of range. Pass a number above 0"),
        ({"drawdown": float("nan")}, "drawdown=nan is out of range"),
    ],
)
def test_levels_out_of_range_are_refused(levels, message):
    with pytest.raises(ValueError, match=message):
        PathSignalSettings(**levels)
