"""Optimal weights over scenarios: equal to the definitions, better than any other weights, within all caps."""

import itertools
import sys

import numpy as np
import pandas as pd
import pytest

from kronos.utils import MissingExtra
from kronos_strategies.path_signals import expected_shortfall
from kronos_strategies.portfolio import (
    SCENARIO_WEIGHTINGS,
    MarketInputs,
    PortfolioRules,
    SampledPaths,
    UnsolvedError,
    target_weights,
)
from kronos_strategies.portfolio.optimization import ScenarioProblem, optimal_weights

pytest.importorskip("cvxpy")

NOTHING = pd.Series(dtype=float)
NAMES = [f"N{i}" for i in range(8)]


def problem(seed: int = 0, names: int = 3, samples: int = 30, bars: int = 4, **changes) -> ScenarioProblem:
    rng = np.random.default_rng(seed)
    steps = rng.normal(0.001, 0.02 * np.arange(1, names + 1), (samples, bars, names))
    given = {
        "scenarios": np.exp(steps.cumsum(axis=1)) - 1,
        "side": np.ones(names),
        "budgets": {1: 1.0},
        "held": np.zeros(names),
        "frozen": np.empty(0),
        "groups": np.full(names, -1),
        "rooms": np.empty(0),
    }
    return ScenarioProblem(**given | changes)


def rules(weighting: str, **fields) -> PortfolioRules:
    return PortfolioRules(weighting=weighting, **{"turnover_cost": 0.0, **fields})


def risk(weights: np.ndarray, scenarios: np.ndarray, made: PortfolioRules) -> float:
    """The risk that a weighting minimizes, from its definition."""
    returns = scenarios @ weights  # (S, B)
    if made.weighting.endswith("drawdown_cvar"):
        values = np.concatenate([np.zeros((len(returns), 1)), returns], axis=1)
        falls = (np.maximum.accumulate(values, axis=1) - values).max(axis=1)
        return -float(expected_shortfall(np.sort(-falls)[None], made.cvar_tail)[0])
    if made.weighting.endswith("cvar"):
        return -float(expected_shortfall(np.sort(returns[:, -1])[None], made.cvar_tail)[0])
    from sklearn.covariance import ledoit_wolf

    variance = float(weights @ ledoit_wolf(scenarios[:, -1])[0] @ weights)
    return variance**0.5 if made.weighting == "min_variance" else variance / 2


def objective(weights: np.ndarray, given: ScenarioProblem, made: PortfolioRules) -> float:
    cost = made.turnover_cost * float(np.abs(weights - given.held).sum())
    if made.weighting.startswith("min_"):
        return risk(weights, given.scenarios, made) + cost
    mean = (1 - made.shrinkage) * float(given.scenarios[:, -1].mean(axis=0) @ weights)
    return made.risk_aversion * risk(weights, given.scenarios, made) + cost - mean


@pytest.mark.parametrize("weighting", SCENARIO_WEIGHTINGS)
@pytest.mark.parametrize("cost", [0.0, 0.01])
def test_no_weights_on_a_fine_grid_are_better(weighting, cost):
    given = problem(held=np.array([0.1, 0.2, 0.6]))
    made = rules(weighting, turnover_cost=cost, risk_aversion=0.3, cvar_tail=0.15)
    found = optimal_weights(given, made)
    assert found.sum() == pytest.approx(1.0, abs=1e-5)
    steps = np.arange(0, 1.0001, 0.02)
    grid = [np.array([a, b, 1 - a - b]) for a, b in itertools.product(steps, steps) if a + b <= 1 + 1e-9]
    best = min(objective(each, given, made) for each in grid)
    assert objective(found, given, made) <= best + 1e-6
    assert objective(found, given, made) > best - 0.01


@pytest.mark.parametrize("weighting", SCENARIO_WEIGHTINGS)
def test_short_positions_hedge_and_each_side_has_its_budget(weighting):
    given = problem(names=4, side=np.array([1, 1, -1, -1]), budgets={1: 0.5, -1: 0.4})
    found = optimal_weights(given, rules(weighting, max_weight=0.3))
    assert found[:2].sum() == pytest.approx(0.5, abs=1e-5)
    assert found[2:].sum() == pytest.approx(-0.4, abs=1e-5)
    assert np.abs(found).max() <= 0.3


def test_a_frozen_position_is_hedged():
    given = problem(names=3)
    twin = given.scenarios[:, :, :1]  # the frozen position moves as the first instrument does
    with_frozen = problem(
        names=3,
        scenarios=np.concatenate([given.scenarios, twin], axis=2),
        frozen=np.array([0.4]),
        budgets={1: 0.6},
    )
    alone = problem(names=3, budgets={1: 0.6})
    made = rules("min_cvar")
    assert optimal_weights(with_frozen, made)[0] < optimal_weights(alone, made)[0]


def test_turnover_costs_keep_what_is_held():
    given = problem(names=3, held=np.array([0.0, 0.0, 1.0]))
    free, expensive = (optimal_weights(given, rules("min_cvar", turnover_cost=cost)) for cost in (0.0, 10.0))
    assert free[2] < 0.5
    assert expensive[2] == pytest.approx(1.0, abs=1e-6)


def test_more_risk_aversion_means_less_risk():
    given = problem(names=5)
    found = [
        risk(optimal_weights(given, made), given.scenarios, made)
        for made in (rules("mean_cvar", risk_aversion=each) for each in (0.0, 0.5, 100.0))
    ]
    assert found[0] > found[2]
    assert found[0] >= found[1] >= found[2]


# With the whole rule


def market(seed: int = 0, samples: int = 40, bars: int = 4) -> tuple[pd.DataFrame, MarketInputs]:
    rng = np.random.default_rng(seed)
    dates = pd.bdate_range("2024-01-01", periods=80)
    closes = pd.DataFrame(20 * np.exp(rng.normal(0, 0.02, (80, len(NAMES))).cumsum(axis=0)), dates, NAMES)
    paths = np.exp(rng.normal(0.002, 0.02, (len(NAMES), samples, bars)).cumsum(axis=2)) - 1
    signals = pd.DataFrame({"score": np.arange(8.0)}, pd.Index(NAMES, name="instrument"))
    industries = pd.Series(list("XXXXYYYZ"), NAMES)
    return signals, MarketInputs(industries, None, None, closes, SampledPaths(pd.Index(NAMES), paths))


@pytest.mark.parametrize("weighting", SCENARIO_WEIGHTINGS)
@pytest.mark.parametrize("side", ["long", "long_short"])
def test_caps_hold_and_the_rest_stays_in_cash(weighting, side):
    signals, inputs = market()
    made = PortfolioRules(
        topk=4 if side == "long_short" else 8,
        weighting=weighting,
        side=side,
        max_weight=0.2,
        max_industry_weight=0.3,
        cash_buffer=0.05,
    )
    chosen = target_weights(signals, NOTHING, made, market=inputs)
    by_industry = chosen.abs().groupby(inputs.industries).sum()
    assert chosen.abs().max() <= 0.2 + 1e-9
    assert by_industry.max() <= 0.3 + 1e-6
    first, others = 0.3, 0.3 + 0.2  # N0 to N3 are X; Z has one name only
    invested = first + (others if side == "long" else min(others, 0.95 / 2))
    assert chosen.abs().sum() == pytest.approx(invested, abs=1e-4)


def test_weights_do_not_depend_on_the_order_of_rows_or_on_other_instruments():
    signals, inputs = market()
    made = PortfolioRules(topk=5, weighting="min_cvar", max_weight=0.4)
    expected = target_weights(signals, NOTHING, made, market=inputs)
    turned = NAMES[::-1]
    at = [NAMES.index(name) for name in turned]
    closes = inputs.closes[turned].assign(OTHER=1.0)
    again = MarketInputs(closes=closes, paths=SampledPaths(pd.Index(turned), inputs.paths.returns[at]))
    pd.testing.assert_series_equal(target_weights(signals.loc[turned], NOTHING, made, market=again), expected)


def test_closes_of_the_date_and_before_the_scenario_bars_change_nothing():
    signals, inputs = market()
    made = PortfolioRules(topk=8, weighting="min_cvar", scenario_bars=50)
    expected = target_weights(signals, NOTHING, made, market=inputs)
    closes = inputs.closes.copy()
    closes.iloc[-1] *= np.linspace(0.5, 2, 8)
    closes.iloc[:-51] *= np.random.default_rng(3).uniform(0.5, 2, (29, 8))
    changed = MarketInputs(closes=closes, paths=inputs.paths)
    pd.testing.assert_series_equal(target_weights(signals, NOTHING, made, market=changed), expected)
    closes.iloc[-2] *= np.linspace(0.5, 2, 8)
    moved = target_weights(signals, NOTHING, made, market=changed)
    assert not moved.equals(expected)


def test_an_instrument_without_paths_is_sold_and_a_suspended_one_stays():
    signals, inputs = market()
    returns = inputs.paths.returns.copy()
    returns[7] = np.nan
    inputs = MarketInputs(closes=inputs.closes, paths=SampledPaths(pd.Index(NAMES), returns))
    held = pd.Series({"N7": 0.3, "N0": 0.2})
    made = PortfolioRules(topk=4, weighting="min_drawdown_cvar", no_trade_band=0.0)
    chosen = target_weights(signals, held, made, pd.Index(NAMES[1:]), inputs)
    assert "N7" not in chosen
    assert chosen["N0"] == 0.2
    assert set(chosen.index) <= {"N0", "N4", "N5", "N6"}
    assert chosen.sum() == pytest.approx(0.98, abs=1e-5)


def test_a_failed_solve_says_why():
    given = problem(scenarios=problem().scenarios * 1e200)
    with pytest.raises(UnsolvedError, match=r"HIGHS|CLARABEL"):
        optimal_weights(given, rules("min_cvar"))
    with pytest.raises(UnsolvedError, match="not finite"):
        optimal_weights(problem(scenarios=problem().scenarios * np.inf), rules("min_cvar"))


@pytest.mark.parametrize(
    ("package", "weighting"), [("cvxpy", "min_cvar"), ("sklearn.covariance", "min_variance")]
)
def test_without_its_packages_the_error_names_the_extra(monkeypatch, package, weighting):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"pip install 'kronos-strategies\[portfolio\]'"):
        optimal_weights(problem(), rules(weighting))


@pytest.mark.parametrize("given", ["closes", "paths"])
def test_a_weighting_without_its_inputs_is_refused(given):
    signals, inputs = market()
    part = MarketInputs(**{given: getattr(inputs, given)})
    with pytest.raises(
        ValueError, match=r"weighting='min_cvar' needs (sampled paths|past closes), and none are"
    ):
        target_weights(signals, NOTHING, PortfolioRules(weighting="min_cvar"), market=part)
    with pytest.raises(ValueError, match="correlation_bars=20 needs past closes"):
        target_weights(signals, NOTHING, PortfolioRules(correlation_bars=20))


def test_correlations_of_past_closes_are_those_that_are_given():
    signals, inputs = market()
    signals["volatility"] = np.linspace(0.01, 0.03, 8)
    made = PortfolioRules(topk=8, weighting="risk_parity", correlation_bars=40)
    by_closes = target_weights(signals, NOTHING, made, market=MarketInputs(closes=inputs.closes))
    moves = np.log(inputs.closes).diff().iloc[-40:]
    given = moves.corr() * 0.5 + 0.5 * made.correlation
    by_table = target_weights(signals, NOTHING, made, market=MarketInputs(correlations=given))
    pd.testing.assert_series_equal(by_closes, by_table)
    assert not np.allclose(
        by_closes, target_weights(signals, NOTHING, PortfolioRules(weighting="risk_parity", topk=8))
    )
