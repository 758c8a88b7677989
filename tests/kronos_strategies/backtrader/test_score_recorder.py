"""Any line of a run can be evaluated, and the forecasts it is computed from are found."""

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

pytest.importorskip("statsmodels")

from kronos_strategies.backtrader import ForecastData, KronosIndicator, KronosTearSheet
from kronos_strategies.backtrader.lines import ALL_LINES
from tests.kronos.builders import make_panel
from tests.kronos_strategies.backtrader.builders import SETTINGS, cerebro_of, pandas_feeds

TRAINED_ON = pd.bdate_range("2019-03-01", periods=60)  # the bundled checkpoint was trained on these dates
PANEL = {name: bars.set_axis(TRAINED_ON) for name, bars in make_panel(60, *"ABC").items()}


class Inside(bt.Indicator):
    """Makes its own KronosIndicator."""

    lines = ("edge",)

    def __init__(self):
        own = KronosIndicator(self.data, **SETTINGS)
        self.lines.edge = own.expected_return / own.volatility


class Derived(KronosIndicator):
    lines = ("edge",)

    def __init__(self):
        super().__init__()
        self.lines.edge = self.lines.expected_return / self.lines.volatility


class OnIt(bt.Indicator):
    """Reads another indicator."""

    lines = ("edge",)

    def __init__(self):
        self.lines.edge = self.data.expected_return / self.data.volatility


class OnLines(bt.Indicator):
    """Reads two lines."""

    lines = ("edge",)

    def __init__(self):
        self.lines.edge = self.data0 / self.data1


def on_lines(data):
    own = KronosIndicator(data, **SETTINGS)
    return OnLines(own.expected_return, own.volatility)


def kept(data):
    own = KronosIndicator(data, **SETTINGS)
    return own.expected_return / own.volatility


WAYS = {
    "made inside": Inside,
    "derived": lambda data: Derived(data, **SETTINGS),
    "on the indicator": lambda data: OnIt(KronosIndicator(data, **SETTINGS)),
    "on its lines": on_lines,
    "arithmetic in an attribute": kept,
}


def sheet_of(make, feeds=None, **params) -> KronosTearSheet:
    class Making(bt.Strategy):
        def __init__(self):
            self.edge = [make(data) for data in self.datas]

    cerebro = cerebro_of(feeds or pandas_feeds(PANEL))
    cerebro.addstrategy(Making)
    cerebro.addanalyzer(KronosTearSheet, _name="sheet", min_instruments=3, **params)
    return cerebro.run()[0].analyzers.sheet


@pytest.fixture(scope="module")
def expected() -> pd.Series:
    both = [
        sheet_of(lambda data: KronosIndicator(data, **SETTINGS), signal=name).artifacts.scores.iloc[:, 0]
        for name in ("expected_return", "volatility")
    ]
    return both[0] / both[1]


@pytest.mark.parametrize("way", WAYS)
def test_a_line_computed_from_a_forecast_is_reported_with_its_model_and_warnings(expected, way):
    evidence = sheet_of(WAYS[way], signal="edge").artifacts
    scores = evidence.scores.iloc[:, 0]
    np.testing.assert_array_equal(scores, expected)
    assert scores.name == "Kronos edge"
    assert evidence.provenance.model == "kronos-nano"
    assert any("trained" in warning for warning in evidence.metadata.warnings)
    assert evidence.metadata.bars_between == SETTINGS["every"]


@pytest.mark.parametrize(
    ("make", "signal"),
    [
        (lambda data: bt.ind.SMA(data.close, period=5), "sma"),
        (lambda data: bt.ind.SMA(bt.ind.RSI(data, period=3), period=5), "sma"),
        (lambda data: bt.ind.SMA(data.close - data.open, period=5), "sma"),
        (lambda data: bt.ind.MACD(data).macd - bt.ind.MACD(data).signal, "edge"),
        (lambda data: data.close / data.open, "edge"),
        (lambda data: bt.ind.If(data.close > data.open, data.close, data.open), "edge"),
    ],
)
def test_a_line_without_a_forecast_is_reported_under_its_own_name(make, signal):
    evidence = sheet_of(make, signal=signal).artifacts
    assert next(iter(evidence.scores)) == signal
    assert evidence.provenance is None
    assert set(evidence.scores.index.get_level_values("instrument")) == set(PANEL)


def test_lines_of_a_feed_with_stored_forecasts_are_recognized():
    def feeds():
        rng = np.random.default_rng(0)
        for name, bars in PANEL.items():
            brought = {each: rng.normal(size=len(bars)) for each in ALL_LINES} | {"age": 0.0}
            yield name, ForecastData(dataname=bars.assign(**brought))

    def about(make):
        return sheet_of(make, feeds=dict(feeds()), signal="sma").artifacts.metadata

    of_forecasts = about(lambda data: bt.ind.SMA(data.expected_return, period=3))
    of_prices = about(lambda data: bt.ind.SMA(data.close, period=3))
    assert any("feeds have stored forecasts" in each for each in of_forecasts.warnings)
    assert not any("feeds have stored forecasts" in each for each in of_prices.warnings)


def test_a_signal_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="line 'nothing' to rank by; the indicators have"):
        sheet_of(lambda data: bt.ind.SMA(data, period=3), signal="nothing")
