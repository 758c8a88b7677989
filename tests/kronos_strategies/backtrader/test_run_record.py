"""Record of a run: its description and its warnings."""

import logging

import backtrader as bt
import pandas as pd
import pytest

from kronos_strategies.backtrader import KronosTearSheet
from tests.kronos_strategies.backtrader.test_strategy import DAYS, Planted, SignalFeed, market


def sheet_of(prepare, **params) -> list[str]:
    cerebro = bt.Cerebro(stdstats=False)
    prepare(cerebro)
    cerebro.addanalyzer(KronosTearSheet, signal="score", **params)
    return list(cerebro.run()[0].analyzers.kronostearsheet._record.warnings)


def minutes(days: int = 10) -> pd.DataFrame:
    index = pd.DatetimeIndex(
        [day + pd.Timedelta(minutes=575 + 5 * i) for day in DAYS[:days] for i in range(12)]
    )
    return market(1, days=index)["A"]


DAYS_OF = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum", "score": "last"}


@pytest.mark.parametrize(
    ("stamp", "warned"), [("0h", True), ("9h35min", True), ("16h", False), ("23h59min", False)]
)
def test_daily_bars_that_are_visible_before_they_are_complete_bring_a_warning(stamp, warned):
    def prepare(cerebro):
        fine = minutes()
        day = fine.groupby(fine.index.normalize()).agg(DAYS_OF | {"volatility": "last"})
        feed = SignalFeed(dataname=fine, timeframe=bt.TimeFrame.Minutes, compression=5)
        cerebro.adddata(feed, name="fine")
        cerebro.adddata(SignalFeed(dataname=day.set_axis(day.index + pd.Timedelta(stamp))), name="day")
        cerebro.addstrategy(bt.Strategy)

    found = [remark for remark in sheet_of(prepare) if "before they are complete" in remark]
    assert bool(found) == warned
    if warned:
        assert found[0].startswith(
            "Bars of day are stamped before they are complete: their close is visible while fine still has bars"
        )


@pytest.mark.parametrize(
    ("rule", "warned"), [("W-SUN", False), ("W-FRI", False), ("MS", True), ("ME", False)]
)
def test_longer_bars_that_are_visible_before_they_are_complete_bring_a_warning(rule, warned):
    def prepare(cerebro):
        days = market(1, days=pd.bdate_range("2024-01-01", periods=120))["A"]
        long = days.resample(rule).agg(DAYS_OF)
        cerebro.adddata(SignalFeed(dataname=days), name="days")
        cerebro.adddata(SignalFeed(dataname=long, volatility=None), name="long")
        cerebro.addstrategy(bt.Strategy)

    assert any("Bars of long" in remark for remark in sheet_of(prepare)) == warned


def test_days_that_backtrader_makes_bring_no_warning():
    def prepare(cerebro):
        feed = SignalFeed(dataname=minutes(), timeframe=bt.TimeFrame.Minutes, compression=5)
        cerebro.adddata(feed, name="fine")
        cerebro.resampledata(feed, name="day", timeframe=bt.TimeFrame.Days)
        cerebro.addstrategy(bt.Strategy)

    assert not any("before they are complete" in remark for remark in sheet_of(prepare))


def test_two_strategies_on_one_broker_bring_a_warning(caplog):
    def prepare(cerebro):
        for name, frame in market().items():
            cerebro.adddata(SignalFeed(dataname=frame), name=name)
        cerebro.addstrategy(Planted)
        cerebro.addstrategy(Planted, topk=1)

    with caplog.at_level(logging.WARNING):
        assert any("2 strategies shared one broker" in remark for remark in sheet_of(prepare))
    assert "2 strategies share one broker, but Planted needs the account for itself" in caplog.text


@pytest.mark.parametrize("setting", [{"every": 2.5}, {"trials": True}, {"hold": "5"}])
def test_a_parameter_that_is_not_a_whole_number_is_refused(setting):
    def prepare(cerebro):
        cerebro.adddata(SignalFeed(dataname=market()["A"]), name="A")
        cerebro.addstrategy(bt.Strategy)

    with pytest.raises(ValueError, match="is not a whole number"):
        sheet_of(prepare, **setting)


def test_the_analysis_is_computed_once(monkeypatch):
    from kronos_strategies.evaluation.portfolio import evaluation

    calls = []
    honest = evaluation.evaluate_portfolio
    monkeypatch.setattr(evaluation, "evaluate_portfolio", lambda *a, **k: calls.append(1) or honest(*a, **k))
    cerebro = bt.Cerebro(stdstats=False)
    for name, frame in market().items():
        cerebro.adddata(SignalFeed(dataname=frame), name=name)
    cerebro.addstrategy(Planted)
    cerebro.addanalyzer(KronosTearSheet, signal="score")
    sheet = cerebro.run()[0].analyzers.kronostearsheet
    first = sheet.get_analysis()
    first["sharpe"] = 99.0
    assert sheet.get_analysis() != first
    assert len(calls) == 1
