import math

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("empyrical")

from kronos_strategies.evaluation.portfolio.parity import qlib_figures

DAYS = pd.bdate_range("2022-01-03", periods=300, name="datetime")
FIGURES = ("annualized_return", "information_ratio", "max_drawdown")


def drawn(seed: int) -> pd.Series:
    return pd.Series(np.random.default_rng(seed).normal(0.0004, 0.01, len(DAYS)), DAYS)


@pytest.mark.filterwarnings("ignore")
def test_figures_are_those_of_qlib():
    risk_analysis = pytest.importorskip("qlib.contrib.evaluate").risk_analysis
    net, index, equal = drawn(0), drawn(1), drawn(2)
    ours = qlib_figures(net, pd.DataFrame({"benchmark": index, "equal weight": equal}))
    streams = {
        "net": net, "excess_over_benchmark": net - index, "excess_over_equal_weight": net - equal,
    }  # fmt: skip
    assert set(ours) == {f"{of}_{name}" for of in streams for name in FIGURES}
    for of, returns in streams.items():
        theirs = risk_analysis(returns, freq="day")["risk"]
        assert [ours[f"{of}_{name}"] for name in FIGURES] == pytest.approx([theirs[name] for name in FIGURES])


def test_qlib_does_not_see_a_fall_on_the_first_bar():
    figures = qlib_figures(pd.Series([-0.1, 0.02, 0.01]), pd.DataFrame(index=range(3)))
    assert figures["net_max_drawdown"] == 0


def test_of_minutes_a_year_has_as_many_as_qlib_counts():
    risk_analysis = pytest.importorskip("qlib.contrib.evaluate").risk_analysis
    ours = qlib_figures(drawn(0), pd.DataFrame(index=DAYS), 238 * 240 / 5)
    theirs = risk_analysis(drawn(0), freq="5min")["risk"]
    assert [ours[f"net_{name}"] for name in FIGURES] == pytest.approx([theirs[name] for name in FIGURES])


def test_a_bar_that_either_lacks_is_left_out():
    net, index = drawn(0), drawn(1)
    net.iloc[4], index.iloc[9] = np.nan, np.nan
    kept = DAYS.delete([4, 9])
    ours = qlib_figures(net, pd.DataFrame({"benchmark": index}))
    alone = qlib_figures(net[kept], pd.DataFrame({"benchmark": index[kept]}))
    name = "excess_over_benchmark_information_ratio"
    assert ours[name] == pytest.approx(alone[name])


@pytest.mark.parametrize("values", [[], [0.1], [0.001] * 9])
def test_without_a_spread_there_is_no_information_ratio(values):
    figures = qlib_figures(pd.Series(values, dtype=float), pd.DataFrame(index=range(len(values))))
    assert math.isnan(figures["net_information_ratio"])
    assert math.isnan(figures["net_annualized_return"]) == (not values)
