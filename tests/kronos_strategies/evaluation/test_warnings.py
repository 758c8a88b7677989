"""Warnings are given where they are due, and nowhere else."""

import dataclasses

import pandas as pd
import pytest

from kronos_strategies.evaluation.distribution.evaluation import DistributionEvaluation
from kronos_strategies.evaluation.portfolio.evaluation import PortfolioEvaluation
from kronos_strategies.evaluation.signal.evaluation import SignalEvaluation
from kronos_strategies.evaluation.warnings import (
    crowded_portfolio_warnings,
    distribution_warnings,
    portfolio_warnings,
    sample_warnings,
    signal_warnings,
    training_overlap_warnings,
    universe_warnings,
)
from tests.kronos_strategies.evaluation.walks import PROVENANCE
from tests.kronos_strategies.report.simulated import Simulated


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    return Simulated(dates=260, names=40)


@pytest.fixture(scope="module")
def signal(simulated) -> SignalEvaluation:
    return simulated.signal()


@pytest.fixture(scope="module")
def distribution(simulated) -> DistributionEvaluation:
    return simulated.distribution()


@pytest.fixture(scope="module")
def portfolio(simulated) -> PortfolioEvaluation:
    return simulated.portfolio()


def with_rank(study, **changes):
    return dataclasses.replace(study, rank_ic=dataclasses.replace(study.rank_ic, **changes))


def test_a_short_sample_is_warned_of(signal):
    assert list(signal_warnings(with_rank(signal, dates=250, undefined=0, overlap=5))) == []
    (warning,) = signal_warnings(with_rank(signal, dates=249, undefined=0, overlap=5))
    assert warning.startswith("249 dates have 49 non-overlapping labels")


def test_many_undefined_dates_are_warned_of(signal):
    assert list(signal_warnings(with_rank(signal, dates=900, undefined=100, overlap=1))) == []
    (warning,) = signal_warnings(with_rank(signal, dates=899, undefined=101, overlap=1))
    assert warning.startswith("RankIC is undefined on 101 of 1,000 dates")


@pytest.fixture
def covered(distribution):
    """A function: the study with one horizon, whose 80% band has this coverage."""

    def change(mean, low, high):
        score = distribution.distributions[0]
        test = dataclasses.replace(score.coverage[0.8], mean=mean, low=low, high=high)
        score = dataclasses.replace(score, coverage={0.8: test, 0.9: None})
        return dataclasses.replace(distribution, distributions=(score,))

    return change


@pytest.mark.parametrize(
    ("coverage", "expected"),
    [
        ((0.7, 0.65, 0.75), ["The paths are too narrow: the 80% band covers 70.0% 1 bar ahead."]),
        ((0.9, 0.87, 0.93), ["The paths are too wide: the 80% band covers 90.0% 1 bar ahead."]),
        ((0.7, 0.58, 0.82), []),  # chance explains it
        ((0.78, 0.77, 0.79), []),  # significant, but close enough
    ],
)
def test_a_band_far_from_nominal_is_warned_of_unless_chance_explains_it(covered, coverage, expected):
    assert list(distribution_warnings(covered(*coverage))) == expected


def test_many_trials_and_a_short_backtest_are_warned_of(portfolio):
    study = portfolio
    long = dataclasses.replace(study, sharpe=dataclasses.replace(study.sharpe, dsr=0.96, trials=12))
    assert list(portfolio_warnings(long)) == []
    (warning,) = portfolio_warnings(
        dataclasses.replace(study, sharpe=dataclasses.replace(study.sharpe, dsr=0.9, trials=12))
    )
    assert warning.startswith("The deflated Sharpe ratio is 90.0%")
    first = study.result.returns.iloc[:100]
    short = dataclasses.replace(long, result=dataclasses.replace(study.result, returns=first))
    (warning,) = portfolio_warnings(short)
    assert warning.startswith("The backtest has 100 bars")


@pytest.mark.parametrize(("compared", "warned"), [(80, 0), (79, 1), (0, 1)])
def test_a_sample_that_lost_a_fifth_of_its_rows_is_warned_of(compared, warned):
    found = list(sample_warnings({"member rows": 100, "no trade": 100 - compared, "compared": compared}))
    assert len(found) == warned
    assert all(f"Only {compared} of 100 rows ({compared}.0%)" in each for each in found)
    assert list(sample_warnings({})) == []


@pytest.mark.parametrize(
    ("cutoff", "expected"),
    [(None, "does not state its training cutoff"), ("2023-01-03", "trained on data until 2023-01-03")],
)
def test_a_checkpoint_that_may_have_seen_the_test_dates_is_warned_of(cutoff, expected):
    known = dataclasses.replace(PROVENANCE, trained_until=cutoff)
    (warning,) = training_overlap_warnings(known, pd.Timestamp("2023-01-03"))
    assert expected in warning
    known = dataclasses.replace(PROVENANCE, trained_until="2023-01-02")
    assert training_overlap_warnings(known, pd.Timestamp("2023-01-03")) == []


def test_a_universe_that_never_changes_and_one_of_few_dates_are_warned_of():
    def members(dates: int, leaves: bool) -> pd.MultiIndex:
        days = pd.bdate_range("2023-01-02", periods=dates)
        index = pd.MultiIndex.from_product([days, list("ABC")], names=["datetime", "instrument"])
        return index[:-1] if leaves else index

    assert universe_warnings(members(120, leaves=True)) == []
    (warning,) = universe_warnings(members(120, leaves=False))
    assert "survivorship" in warning
    (warning,) = universe_warnings(members(99, leaves=False))
    assert "only 99 dates" in warning


def test_a_portfolio_of_more_than_half_of_its_universe_is_warned_of():
    assert crowded_portfolio_warnings(10, 20, "hold fewer") == []
    (warning,) = crowded_portfolio_warnings(11, 20, "hold fewer")
    assert warning == "The portfolio holds up to 11 of 20 members: hold fewer."
