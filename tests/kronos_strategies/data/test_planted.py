from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr, t

from kronos.bars import check_bars
from kronos_strategies.data.planted import (
    DELAY,
    EFFECTS,
    MEMORY,
    PlantedConfig,
    PlantedMarket,
    plant,
    size_rank_ic,
)
from kronos_strategies.evaluation.signal.metrics import information_coefficients_wide
from kronos_strategies.evaluation.significance import mean_test

PLANTED = [effect for effect in EFFECTS if effect != "none"]
SMALL = PlantedConfig(instruments=20, days=60)


def wide(market: PlantedMarket, feature: str) -> pd.DataFrame:
    return pd.DataFrame({name: bars[feature] for name, bars in market.panel.items()})


def by_date(score: pd.DataFrame, market: PlantedMarket) -> np.ndarray:
    """RankIC of each date that has a signal and a return."""
    rank_ic = information_coefficients_wide(score.to_numpy(), market.target.to_numpy())[1]
    return rank_ic[MEMORY:-DELAY]


@pytest.mark.parametrize("strength", [0.05, 0.3])
@pytest.mark.parametrize("effect", PLANTED)
def test_the_optimum_has_the_rank_ic_that_was_asked_for(effect: str, strength: float) -> None:
    market = plant(PlantedConfig(effect, strength, instruments=100, days=1500))
    found = by_date(market.optimum, market)
    # Without an effect a date of N names has a RankIC of deviation (N - 1)^-0.5. Of ten tests one fails at 4
    # deviations with a chance of 6e-4.
    assert abs(found.mean() - strength) < 4 * 99**-0.5 * len(found) ** -0.5


def test_the_rank_ic_of_sizes_is_spearmans_correlation() -> None:
    random = np.random.default_rng(0)
    z, e = random.standard_normal((2, 400_000))
    for kappa in (0.1, 0.7, 2.0):
        drawn = spearmanr(z, np.abs(e) * np.exp(kappa * z)).statistic
        assert size_rank_ic(kappa) == pytest.approx(drawn, abs=4 * 400_000**-0.5)
    assert size_rank_ic(0.0) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("effect", PLANTED)
def test_the_optimum_depends_on_the_bars_up_to_its_date(effect: str) -> None:
    market = plant(PlantedConfig(effect, 0.2, instruments=30, days=80))
    logs = np.log(wide(market, "close"))
    expected = {
        "reversal": -logs.diff(MEMORY),
        "momentum": logs.diff(MEMORY),
        "lead-lag": pd.DataFrame(np.roll(logs.diff(), -1, axis=1), logs.index, logs.columns),
        "volatility": logs.diff().abs().rolling(MEMORY).sum(),
        "volume": wide(market, "volume"),
    }[effect]
    since, until = market.optimum.index[[MEMORY, -DELAY - 1]]
    pd.testing.assert_frame_equal(
        market.optimum.loc[since:until].rank(axis=1),
        expected.loc[since:until].rank(axis=1),
        check_names=False,
    )


@pytest.mark.parametrize("effect", EFFECTS)
def test_the_target_is_what_a_score_of_its_date_can_earn(effect: str) -> None:
    market = plant(PlantedConfig(effect, 0.2 if effect != "none" else 0.0, instruments=20, days=40))
    steps = np.log(wide(market, "close")).diff()
    earned = (steps.abs() if effect == "volatility" else steps).shift(-2)
    pd.testing.assert_frame_equal(market.target, earned, check_names=False)


def test_every_market_has_returns_of_one_deviation() -> None:
    for effect in PLANTED:
        market = plant(PlantedConfig(effect, 0.3, instruments=50, days=500))
        steps = np.log(wide(market, "close")).diff()
        assert steps.stack().std() == pytest.approx(0.02, rel=0.05)


def test_bars_are_valid() -> None:
    for name, bars in plant(SMALL).panel.items():
        pd.testing.assert_frame_equal(check_bars(bars, name), bars, check_dtype=False)
        assert (bars["low"] <= bars[["open", "close"]].min(axis=1)).all()
        assert (bars["high"] >= bars[["open", "close"]].max(axis=1)).all()


def test_without_an_effect_no_signal_finds_anything() -> None:
    scores = {}
    for seed in range(10):
        market = plant(PlantedConfig("none", 0.0, instruments=40, days=300, seed=seed))
        assert not market.optimum.to_numpy().any()
        logs = np.log(wide(market, "close"))
        for name, score in {
            "reversal": -logs.diff(MEMORY),
            "volume": wide(market, "volume"),
            "volatility": logs.diff().rolling(MEMORY).std(),
        }.items():
            scores[seed, name] = mean_test(by_date(score, market))
    # Of 30 tests the largest |t| exceeds this bound in one of a thousand markets like these.
    assert all(abs(s.t) < t.ppf(1 - 0.0005 / len(scores), s.df) for s in scores.values())


def test_the_leader_is_not_visible_in_an_instruments_own_bars() -> None:
    market = plant(PlantedConfig("lead-lag", 0.3, instruments=60, days=600))
    logs = np.log(wide(market, "close"))
    for bars in (1, 2, MEMORY, 20):
        assert mean_test(by_date(logs.diff(bars), market)).p > 0.001 / 4


def test_equal_configurations_give_equal_markets_and_other_seeds_others() -> None:
    one, two = plant(SMALL), plant(SMALL)
    pd.testing.assert_frame_equal(one.panel["N0003"], two.panel["N0003"])
    other = plant(PlantedConfig(instruments=20, days=60, seed=1))
    assert not other.target.equals(one.target)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"effect": "alpha"}, "effect='alpha' is unknown"),
        ({"effect": "none"}, "effect='none' has a strength of 0.1"),
        ({"strength": 0.0}, "strength=0.0 is not a possible RankIC"),
        ({"strength": 0.95}, r"Pass one in \(0, 0.9\]"),
        ({"instruments": 5}, "instruments=5"),
        ({"days": 7}, "days=7 are too few"),
    ],
)
def test_invalid_configurations_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlantedConfig(**change)
