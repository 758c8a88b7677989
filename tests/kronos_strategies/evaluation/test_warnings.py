"""What a reader must be told is told, and nothing else."""

import dataclasses

import pytest

from kronos_strategies.evaluation.distribution.evaluation import DistributionEvaluation
from kronos_strategies.evaluation.portfolio.evaluation import PortfolioEvaluation
from kronos_strategies.evaluation.signal.evaluation import SignalEvaluation
from kronos_strategies.evaluation.warnings import (
    distribution_warnings,
    portfolio_warnings,
    sample_warnings,
    signal_warnings,
)
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


def test_a_short_sample_is_told_of(signal):
    assert list(signal_warnings(with_rank(signal, dates=250, undefined=0, overlap=5))) == []
    (said,) = signal_warnings(with_rank(signal, dates=249, undefined=0, overlap=5))
    assert said.startswith("249 dates hold 49 labels that do not overlap")


def test_many_undefined_dates_are_told_of(signal):
    assert list(signal_warnings(with_rank(signal, dates=900, undefined=100, overlap=1))) == []
    (said,) = signal_warnings(with_rank(signal, dates=899, undefined=101, overlap=1))
    assert said.startswith("RankIC is undefined on 101 of 1,000 dates")


@pytest.fixture
def covered(distribution):
    """A function: the study with one horizon, whose 80% band held so much."""

    def change(mean, low, high):
        score = distribution.distributions[0]
        test = dataclasses.replace(score.coverage[0.8], mean=mean, low=low, high=high)
        score = dataclasses.replace(score, coverage={0.8: test, 0.9: None})
        return dataclasses.replace(distribution, distributions=(score,))

    return change


@pytest.mark.parametrize(
    ("held", "says"),
    [
        ((0.7, 0.65, 0.75), ["The paths are too narrow: the 80% band held 70.0% 1 bar ahead."]),
        ((0.9, 0.87, 0.93), ["The paths are too wide: the 80% band held 90.0% 1 bar ahead."]),
        ((0.7, 0.58, 0.82), []),  # chance explains it
        ((0.78, 0.77, 0.79), []),  # sure, and near enough
    ],
)
def test_a_band_far_from_nominal_is_told_of_unless_chance_explains_it(covered, held, says):
    assert list(distribution_warnings(covered(*held))) == says


def test_many_trials_and_a_short_book_are_told_of(portfolio):
    study = portfolio
    long = dataclasses.replace(study, sharpe=dataclasses.replace(study.sharpe, dsr=0.96, trials=12))
    assert list(portfolio_warnings(long)) == []
    (said,) = portfolio_warnings(
        dataclasses.replace(study, sharpe=dataclasses.replace(study.sharpe, dsr=0.9, trials=12))
    )
    assert said.startswith("After 12 trials the deflated Sharpe ratio is 90.0%")
    first = study.result.returns.iloc[:100]
    short = dataclasses.replace(long, result=dataclasses.replace(study.result, returns=first))
    (said,) = portfolio_warnings(short)
    assert said.startswith("The book is 100 bars long")


@pytest.mark.parametrize(("compared", "told"), [(80, 0), (79, 1), (0, 1)])
def test_a_sample_that_lost_a_fifth_of_its_rows_is_told_of(compared, told):
    said = list(sample_warnings({"member rows": 100, "no trade": 100 - compared, "compared": compared}))
    assert len(said) == told
    assert all(f"Only {compared} of 100 rows ({compared}.0%)" in each for each in said)
    assert list(sample_warnings({})) == []
