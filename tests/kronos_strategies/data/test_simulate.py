import dataclasses

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.data._simulator import LIMIT, TICK, Life, latent_returns, trade
from kronos_strategies.data.simulate import BENCHMARK, MarketConfig, _review, simulate_market
from kronos_strategies.data.validation import check_tidy

SMALL = MarketConfig(instruments=12, end="2021-09-30")


def adjusted_closes(market):
    adjusted = market.bars.assign(adjusted=market.bars["close"] * market.bars["factor"])
    return adjusted.pivot(index="datetime", columns="instrument", values="adjusted")


def traded_returns(closes):
    """Return against the previous traded close, NaN on days without a bar."""
    return (closes / closes.ffill().shift() - 1).where(closes.notna())


def rank_ic(closes):
    """Mean daily rank correlation of minus the last five-day return with the next close-to-close return."""
    signal, target = 1 - closes / closes.shift(5), closes.shift(-1) / closes - 1
    both = signal.notna() & target.notna()
    return signal.where(both).rank(axis=1).corrwith(target.where(both).rank(axis=1), axis=1).mean()


def test_equal_configurations_give_equal_markets():
    one, two = simulate_market(SMALL), simulate_market(SMALL)
    for name in ("bars", "membership", "benchmark"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(two, name))


def test_another_seed_gives_another_market():
    other = simulate_market(dataclasses.replace(SMALL, seed=1))
    assert not other.bars["close"].head(50).equals(simulate_market(SMALL).bars["close"].head(50))


def test_bars_are_consistent_and_on_the_grid_of_ticks_and_lots(market):
    bars = check_tidy(market.bars)
    ticks = bars[["open", "high", "low", "close"]].to_numpy() / TICK
    np.testing.assert_allclose(ticks, ticks.round(), atol=1e-6)
    assert (bars["volume"] % 100 == 0).all()
    assert (bars["volume"] > 0).all()
    price = bars["amount"] / bars["volume"]
    assert price.between(bars["low"] - TICK, bars["high"] + TICK).all()


def test_no_close_moves_further_than_the_limit(market):
    bars = market.bars.sort_values(["instrument", "datetime"])
    adjusted = bars["close"] * bars["factor"]
    before = adjusted.groupby(bars["instrument"]).shift()
    # An exchange rounds the limit price to a tick.
    slack = TICK * bars["factor"]
    assert ((adjusted - before).abs() <= LIMIT * before + slack).where(before.notna(), True).all()


def test_a_move_beyond_the_limit_continues_on_the_next_day(market):
    returns = traded_returns(adjusted_closes(market))
    at_limit = returns.abs() > LIMIT - 0.002
    following = (returns.shift(-1) * np.sign(returns)).where(at_limit)
    assert at_limit.sum().sum() > 50
    assert following.stack().mean() > 0.01


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_planted_reversal_can_be_found(seed):
    assert 0.08 < rank_ic(adjusted_closes(simulate_market(MarketConfig(seed=seed)))) < 0.14


def test_without_the_planted_effect_the_signal_finds_nothing():
    closes = [adjusted_closes(simulate_market(MarketConfig(seed=seed, reversal=0))) for seed in (0, 1, 2)]
    assert abs(np.mean([rank_ic(c) for c in closes])) < 0.008


def test_returns_have_the_statistics_of_stock_returns(market):
    returns = np.log1p(traded_returns(adjusted_closes(market)))
    correlation = returns.corr(min_periods=200).to_numpy()
    index = market.benchmark["close"].pct_change()
    assert 0.25 < returns.std().median() * 250**0.5 < 0.45
    assert 4.5 < returns.kurt().median() + 3 < 10
    assert 0.2 < np.nanmean(correlation[np.triu_indices_from(correlation, 1)]) < 0.4
    assert 0.14 < index.std() * 250**0.5 < 0.23
    assert market.bars[["low", "high"]].stack().between(3, 300).all()


def test_ranges_agree_with_close_to_close_volatility(market):
    for bars, closes in (
        (market.bars, adjusted_closes(market)),
        (market.benchmark, market.benchmark.set_index("datetime")[["close"]]),
    ):
        parkinson = np.sqrt((np.log(bars["high"] / bars["low"]) ** 2).mean() / (4 * np.log(2)))
        close_to_close = np.sqrt((np.log1p(traded_returns(closes)) ** 2).stack().mean())
        # Below 1, since a range sees neither the overnight part nor what happens between two steps.
        assert 0.75 < parkinson / close_to_close < 1.0


def test_volume_rises_with_the_size_of_the_move(market):
    returns = traded_returns(adjusted_closes(market))
    volume = market.bars.pivot(index="datetime", columns="instrument", values="volume")
    assert np.log(volume).corrwith(returns.abs()).median() > 0.3


def test_a_split_leaves_adjusted_prices_continuous(market):
    bars = market.bars.sort_values(["instrument", "datetime"])
    before = bars.groupby("instrument")[["close", "factor"]].shift()
    split = before["factor"].notna() & (bars["factor"] != before["factor"])
    assert split.sum() >= 3
    assert (bars["factor"] == 2 * before["factor"])[split].all()
    assert (bars["close"] / before["close"])[split].between(0.44, 0.56).all()


def test_suspensions_last_one_to_thirty_days_and_may_overlap_nothing_else(market):
    closes = adjusted_closes(market)
    gaps = []
    for _, column in closes.items():
        alive = column.loc[column.first_valid_index() : column.last_valid_index()].isna()
        runs = alive.groupby((~alive).cumsum()).sum()
        gaps.extend(runs[runs > 0])
    assert len(gaps) > 40
    assert min(gaps) >= 1
    assert np.mean(np.array(gaps) <= 30) > 0.95  # two suspensions may touch
    first = closes.apply(pd.Series.first_valid_index)
    last = closes.apply(pd.Series.last_valid_index)
    assert (first > closes.index[40]).sum() >= 5
    assert (last < closes.index[-40]).sum() >= 3


@pytest.mark.parametrize("seed", range(3))
def test_the_index_has_exits_and_reentries(seed):
    membership = simulate_market(MarketConfig(seed=seed)).membership
    stays = membership.groupby("instrument").size()
    assert (stays > 1).any()
    assert (membership["start"] <= membership["end"]).all()
    assert (membership["end"] < membership["end"].max()).sum() > 5


def test_the_benchmark_follows_its_members(market):
    days = market.benchmark["datetime"]
    returns = traded_returns(adjusted_closes(market))
    member = pd.DataFrame(False, index=days, columns=returns.columns)
    for stay in market.membership.itertuples():
        member.loc[stay.start : stay.end, stay.instrument] = True
    average = returns.where(member).mean(axis=1)
    assert market.benchmark["instrument"].unique().tolist() == [BENCHMARK]
    assert np.corrcoef(average[1:], market.benchmark["close"].pct_change()[1:])[0, 1] > 0.9
    check_tidy(market.benchmark)


def test_nothing_in_a_session_depends_on_a_later_one():
    days, names, cut = 60, 9, 30
    latent = latent_returns(days, names, 3, 0.1, np.random.default_rng(0))
    alive = np.ones((days, names), bool)
    alive[10:15, 2] = False
    split_days = np.arange(days) == 20
    before = trade(latent, Life(alive, alive), split_days, np.random.default_rng(1))

    later = alive.copy()
    later[cut:, :4] = False
    wild = latent._replace(returns=latent.returns.copy(), volatility=latent.volatility.copy())
    wild.returns[cut:] *= -3
    wild.volatility[cut:] *= 3
    after = trade(wild, Life(alive, later), split_days | (np.arange(days) == 40), np.random.default_rng(1))
    for name in ("paths", "reference", "factor", "capital", "volume", "amount"):
        np.testing.assert_array_equal(getattr(before, name)[:cut], getattr(after, name)[:cut])
    # The review that takes effect on a day knows no more than its capital before the session.
    np.testing.assert_array_equal(after.capital[cut], before.capital[cut])
    known = _review(before.capital[: cut + 1], alive[: cut + 1])
    np.testing.assert_array_equal(known, _review(after.capital, alive)[: cut + 1])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": -1}, "seed=-1 is negative"),
        ({"instruments": 1}, "instruments=1 is too small"),
        ({"sectors": 0}, "sectors=0 is too small"),
        ({"reversal": 1.5}, "reversal=1.5 is out of range"),
        ({"end": "2021-01-04"}, "fewer than 2 trading days"),
    ],
)
def test_invalid_configurations_are_refused(change, says):
    with pytest.raises(ValueError, match=says):
        MarketConfig(**change)
