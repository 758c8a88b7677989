"""Qlib's own graphs and risk models on our predictions: all work with the pinned plotly 6 and pandas 2.3.

Qlib 0.9.7 is older than plotly 7 and pandas 3; docs/qlib.md says what fails with those, and so do the reasons here.
"""

import numpy as np
import pandas as pd
import plotly
import pytest
from qlib.contrib.evaluate import risk_analysis
from qlib.model.riskmodel import POETCovEstimator, ShrinkCovEstimator, StructuredCovEstimator

from kronos_strategies.qlib.data_access import traded_bars
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.model import KronosModel

from .conftest import TINY

PANDAS_3 = int(pd.__version__.split(".")[0]) >= 3
needs_plotly_6 = pytest.mark.skipif(
    int(plotly.__version__.split(".")[0]) >= 7, reason="Qlib imports create_distplot, which plotly 7 has not"
)
MODELS = [POETCovEstimator, ShrinkCovEstimator, StructuredCovEstimator]


@pytest.fixture(scope="module")
def judged(small_store) -> pd.DataFrame:
    """Score and label of two months, as Qlib's graphs take them."""
    from .conftest import use_store

    use_store(small_store)
    data = KronosDataset({"test": ("2023-05-02", "2023-06-27")}, lookback=30, min_bars=10)
    score = KronosModel(str(TINY), samples=2, device="cpu").predict(data)
    label = data.prepare("test", col_set="label").iloc[:, 0]
    return pd.DataFrame({"score": score, "label": label}).swaplevel().sort_index()


@pytest.fixture
def book() -> pd.DataFrame:
    """A portfolio report of Qlib's."""
    rng, days = np.random.default_rng(0), pd.bdate_range("2023-01-02", periods=120)
    moves = rng.normal(0, 0.01, (2, len(days)))
    return pd.DataFrame({"return": moves[0], "bench": moves[1], "cost": 5e-4, "turnover": 0.1}, days)


@needs_plotly_6
@pytest.mark.parametrize(
    "graph",
    [
        "group_return",
        pytest.param("pred_ic", marks=pytest.mark.skipif(PANDAS_3, reason="pandas 3 has no frequency 1M")),
        "pred_autocorr",
        "pred_turnover",
    ],
)
def test_the_performance_of_a_prediction_is_drawn(judged, graph):
    from qlib.contrib.report import analysis_model

    figures = analysis_model.model_performance_graph(judged, graph_names=[graph], show_notebook=False)
    assert len(figures) >= 1
    assert all(len(figure.data) for figure in figures)


@needs_plotly_6
def test_portfolio_and_coefficients_of_a_score_are_plotted(judged, book):
    from qlib.contrib.report import analysis_position

    for figures in (
        analysis_position.report_graph(book, show_notebook=False),
        analysis_position.score_ic_graph(judged, show_notebook=False),
    ):
        assert all(len(figure.data) for figure in figures)


@needs_plotly_6
@pytest.mark.skipif(PANDAS_3, reason="pandas 3 drops the column that Qlib groups by")
def test_a_risk_analysis_is_drawn(book):
    from qlib.contrib.report import analysis_position

    excess = book["return"] - book["bench"]
    found = {
        "excess_return_without_cost": risk_analysis(excess, freq="day"),
        "excess_return_with_cost": risk_analysis(excess - book["cost"], freq="day"),
    }
    figures = analysis_position.risk_analysis_graph(pd.concat(found), book, show_notebook=False)
    assert len(figures) == 5


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("copied", [True, False])
def test_risk_models_estimate_from_returns(in_store, model, copied):
    if PANDAS_3 and not copied:
        pytest.skip("pandas 3 hands out read-only values, which Qlib scales in place: docs/qlib.md")
    names = ["SH609001", "SH609002", "SZ009003", "SZ009004"]
    bars = traded_bars(names, None)
    closes = pd.DataFrame({name: frame["close"] for name, frame in bars.items()})
    moves = closes.pct_change(fill_method=None).tail(100).fillna(0.0)
    given = {"num_factors": 2} if model is not ShrinkCovEstimator else {}
    estimator = model(scale_return=False, **given)
    plain = estimator.predict(moves.to_numpy(copy=True), is_price=False)
    # Before pandas 3 this scales the frame itself.
    scaled = model(**given).predict(moves.to_numpy(copy=True) if copied else moves, is_price=False)
    np.testing.assert_allclose(np.asarray(scaled), np.asarray(plain) * 1e4, rtol=0.3)
