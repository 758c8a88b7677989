"""InformationCoefficient and KronosTearSheet on the real engine, compared with metrics computed by hand."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("backtrader")
pytest.importorskip("statsmodels")
import backtrader as bt

from kronos_strategies.backtrader import (
    ForecastData,
    InformationCoefficient,
    KronosIndicator,
    KronosRankStrategy,
    KronosTearSheet,
    LotSizeCommission,
    join_forecasts,
    read_forecasts,
    run_optimization,
)
from kronos_strategies.evaluation.signal.metrics import information_coefficients
from kronos_strategies.evaluation.significance import mean_test
from kronos_strategies.run_artifacts import RunArtifacts
from kronos_strategies.store import ForecastStore
from tests.kronos.builders import make_panel
from tests.kronos_strategies.backtrader.builders import SETTINGS
from tests.kronos_strategies.backtrader.planned_orders import (
    CASH,
    DAYS,
    Orders,
    ScoreFeed,
    bars_of,
    run,
)

NAMES = [f"N{i:02}" for i in range(12)]


# Coefficients


@pytest.mark.parametrize(("hold", "price"), [(1, "open"), (5, "close"), (3, "open")])
def test_coefficients_are_those_of_the_same_frame(hold, price):
    bars = bars_of(NAMES)
    found = run(bars, ic={"every": 2, "hold": hold, "price": price}).analyzers.ic.get_analysis()
    wide = pd.DataFrame({name: frame[price] for name, frame in bars.items()})
    label = (wide.shift(-1 - hold) / wide.shift(-1) - 1).rename_axis(index="datetime", columns="instrument")
    score = pd.DataFrame({name: frame["score"] for name, frame in bars.items()}).iloc[::2]
    score = score.rename_axis(index="datetime", columns="instrument").stack()
    expected = information_coefficients(score, label.stack(future_stack=True).reindex(score.index))
    for name in ("ic", "rank_ic"):
        assert list(found[name]) == list(expected.index.to_pydatetime())
        np.testing.assert_allclose(list(found[name].values()), expected[name])
        test = mean_test(expected[name], -(-hold // 2))
        assert found[f"{name}_test"] == pytest.approx(vars(test), nan_ok=True)
    assert found["rank_ic_test"]["undefined"] == int(expected["rank_ic"].isna().sum()) > 0
    assert found["label"] == f"{price}(t+{1 + hold}) / {price}(t+1) - 1"


def test_later_bars_change_no_earlier_score_or_coefficient():
    bars = bars_of(NAMES)
    whole = run(bars).analyzers.ic.get_analysis()["rank_ic"]
    part = run({name: frame.iloc[:30] for name, frame in bars.items()}).analyzers.ic.get_analysis()["rank_ic"]
    known = {time: value for time, value in part.items() if np.isfinite(value)}
    assert len(known) == 28
    assert {time: whole[time] for time in known} == known


def test_a_score_equal_to_the_future_return_has_a_coefficient_of_one():
    bars = bars_of(NAMES)
    for frame in bars.values():
        frame["score"] = (frame["open"].shift(-3) / frame["open"].shift(-1) - 1).fillna(0.0)
    found = run(bars, ic={"hold": 2}).analyzers.ic.get_analysis()
    assert found["rank_ic_test"]["mean"] == pytest.approx(1.0)


def test_too_few_instruments_leave_a_date_undefined_unless_fewer_are_allowed():
    bars = bars_of(NAMES[:6])
    assert run(bars).analyzers.ic.get_analysis()["rank_ic_test"]["dates"] == 0
    assert run(bars, ic={"min_instruments": 5}).analyzers.ic.get_analysis()["rank_ic_test"]["dates"] == 38


class Jumps(bt.Indicator):
    """A line made of others by arithmetic, which Backtrader keeps among the indicators."""

    lines = ("jump",)

    def __init__(self):
        self.lines.jump = self.data.close / self.data.close(-1) - 1


class LineArithmetic(Orders):
    def __init__(self):
        super().__init__()
        self.jumps = [Jumps(data) for data in self.datas]
        self.spread = self.datas[0].close - self.datas[1].close(-1)


def test_feeds_can_be_ranked_by_lines_made_by_arithmetic():
    bars = bars_of()
    strategy = run(bars, LineArithmetic, ic={"signal": "jump", "min_instruments": 3})
    scores = strategy.analyzers.sheet.artifacts.scores.iloc[:, 0]
    plain = run(bars).analyzers.sheet.artifacts.scores.iloc[:, 0]
    pd.testing.assert_series_equal(scores, plain)  # the sheet reads the feeds' own line in both
    found = strategy.analyzers.ic.get_analysis()
    assert found["signal"] == "jump"
    assert len(found["rank_ic"]) == len(DAYS) - 1  # the first bar has no jump


class Ranks(KronosRankStrategy):
    """Takes its signals from the feeds and records when it decides."""

    params = (("rank_by", "score"), ("topk", 2))

    def __init__(self):
        super().__init__()
        self.decided = []

    def weights(self, signals, previous, tradable):
        self.decided.append(self.datetime.datetime())
        return super().weights(signals, previous, tradable)


def test_rebalances_are_those_of_the_rank_strategy():
    bars = bars_of(NAMES)
    for frame in bars.values():
        frame.iloc[:7, frame.columns.get_loc("score")] = np.nan
    ran = run(bars, Ranks, every=4)
    assert list(ran.analyzers.ic.get_analysis()["rank_ic"]) == ran.decided
    assert len(ran.decided) == 9
    metadata = ran.analyzers.sheet.artifacts.metadata
    assert (metadata.hold, metadata.bars_between) == (4, 4)


# Errors


@pytest.mark.parametrize(
    ("kind", "params", "says"),
    [
        ("ic", {"signal": "nothing"}, "line 'nothing' to rank by"),
        ("ic", {"every": -1}, "every=-1"),
        ("ic", {"hold": -1}, "hold=-1"),
        ("sheet", {"price": "mid"}, "price='mid'"),
        ("sheet", {"benchmark": "SPY"}, "The benchmark 'SPY' is not a feed"),
    ],
)
def test_a_wrong_parameter_is_refused_before_the_first_bar(kind, params, says):
    with pytest.raises(ValueError, match=says):
        run(bars_of(), **{kind: params})


def test_a_run_that_keeps_too_few_bars_is_refused():
    with pytest.raises(ValueError, match="exactbars=1 keeps too few"):
        run(bars_of(), mode={"exactbars": 1})


# Artifacts and report


@pytest.fixture(scope="module")
def panel():
    panel = make_panel(70, *NAMES)
    panel["N04"] = panel["N04"].drop(panel["N04"].index[30:34])
    return panel


def kronos_run(panel, store="", feeds=None, **sheet):
    cerebro = bt.Cerebro(stdstats=False)
    for name, bars in panel.items():
        cerebro.adddata(feeds[name] if feeds else bt.feeds.PandasData(dataname=bars), name=name)
    cerebro.broker.setcash(CASH)
    cerebro.broker.addcommissioninfo(LotSizeCommission(commission=0.001))
    cerebro.addstrategy(KronosRankStrategy, topk=3, store=str(store), **SETTINGS)
    cerebro.addanalyzer(KronosTearSheet, _name="sheet", **sheet)
    return cerebro.run()[0].analyzers.sheet


@pytest.fixture(scope="module")
def stored(panel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    return folder, kronos_run(panel, folder, benchmark="N00", title="A test", notice="Take care.")


def test_the_report_has_all_sections_and_is_in_the_folder_of_its_artifacts(stored, tmp_path):
    pytest.importorskip("plotly")
    page, *_, kept = stored[1].save_report(tmp_path / "report")
    text = page.read_text()
    assert all(f'<section id="{each}"' in text for each in ("signal", "distribution", "portfolio"))
    assert "A test" in text
    assert "Take care." in text
    assert RunArtifacts.read(kept).metadata == stored[1].artifacts.metadata


def test_equal_runs_write_equal_bytes(panel, stored, tmp_path):
    pytest.importorskip("plotly")
    again = kronos_run(panel, tmp_path / "store", benchmark="N00", title="A test", notice="Take care.")
    for one, other in zip(
        stored[1].save_report(tmp_path / "one"), again.save_report(tmp_path / "other"), strict=True
    ):
        if one.is_file():
            assert one.read_bytes() == other.read_bytes(), one.name


def test_scores_labels_and_paths_are_of_the_bars_of_the_run(panel, stored):
    evidence = stored[1].artifacts
    assert next(iter(evidence.scores)) == "Kronos"
    assert "5-day reversal" in evidence.scores
    closes = pd.DataFrame({name: frame["close"] for name, frame in panel.items()})
    np.testing.assert_array_equal(evidence.market.closes, closes)
    opens = pd.DataFrame({name: frame["open"] for name, frame in panel.items()})
    label = (opens.shift(-6) / opens.shift(-1) - 1).rename_axis("datetime").stack(future_stack=True)
    np.testing.assert_allclose(evidence.labels[5], label.reindex(evidence.scores.index))
    whole = evidence.paths.score_by_num_paths[SETTINGS["samples"]]
    both = whole.index.intersection(evidence.scores.index)
    fresh = evidence.scores["Kronos"][both]
    np.testing.assert_allclose(whole[both], fresh, rtol=1e-9)
    assert len(both) > 0.9 * len(whole)
    ledger = list(evidence.metadata.sample_counts.values())
    assert ledger[0] == sum(ledger[1:])


def test_without_a_store_there_is_no_distribution_but_the_model_is_known(panel):
    evidence = kronos_run(panel).artifacts
    assert evidence.paths is None
    assert evidence.provenance.model == "kronos-nano"
    assert evidence.metadata.settings["trained until"] == evidence.provenance.trained_until


def test_stored_forecasts_as_lines_of_the_feeds_give_the_same_report(panel, stored):
    folder, usual = stored
    (run_of_store,) = ForecastStore(folder).forecast_sets()
    forecasts = read_forecasts(run_of_store)
    feeds = {
        name: ForecastData(dataname=join_forecasts(bars, forecasts, name)) for name, bars in panel.items()
    }
    offline = kronos_run(panel, feeds=feeds, forecasts=str(run_of_store.folder), benchmark="N00")
    pd.testing.assert_frame_equal(offline.artifacts.scores, usual.artifacts.scores)
    pd.testing.assert_frame_equal(offline.artifacts.paths.summary, usual.artifacts.paths.summary)
    pd.testing.assert_frame_equal(offline.result.returns, usual.result.returns)
    feeds = {
        name: ForecastData(dataname=join_forecasts(bars, forecasts, name)) for name, bars in panel.items()
    }
    unknown = kronos_run(panel, feeds=feeds).artifacts
    assert any("feeds have stored forecasts" in each for each in unknown.metadata.warnings)


def test_one_feed_alone_has_a_report_whose_ranking_is_undefined(panel, tmp_path):
    class Single(bt.Strategy):
        def __init__(self):
            self.k = KronosIndicator(self.data, **SETTINGS)

        def next(self):
            self.order_target_percent(target=0.9 * (self.k.prob_up[0] > 0.5))

    pytest.importorskip("plotly")
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.adddata(bt.feeds.PandasData(dataname=panel["N01"]))
    cerebro.addstrategy(Single)
    cerebro.addanalyzer(KronosTearSheet)
    sheet = cerebro.run()[0].analyzers.kronostearsheet
    assert sheet.save_report(tmp_path)[0].is_file()
    metadata = sheet.artifacts.metadata
    assert any(each.startswith("Only 1 feed is ranked") for each in metadata.warnings)
    assert any("charged no commission" in each for each in metadata.warnings)
    assert metadata.settings["feeds ranked"] == "1: data0"


def test_an_optimization_returns_both_analyzers(panel):
    cerebro = bt.Cerebro(stdstats=False)
    for name, bars in panel.items():
        cerebro.adddata(bt.feeds.PandasData(dataname=bars), name=name)
    cerebro.optstrategy(KronosRankStrategy, topk=(2, 4), **SETTINGS)
    cerebro.addanalyzer(InformationCoefficient, _name="ic")
    cerebro.addanalyzer(KronosTearSheet, _name="sheet")
    (two,), (four,) = pickle.loads(pickle.dumps(run_optimization(cerebro)))
    assert repr(two.analyzers.ic.get_analysis()) == repr(four.analyzers.ic.get_analysis())
    assert two.analyzers.sheet.result.positions.max() < four.analyzers.sheet.result.positions.max()
    assert two.analyzers.sheet.get_analysis()["turnover"] > 0
    assert len(two.analyzers.sheet.artifacts.scores) > 50


def test_a_feed_of_minutes_is_dated_with_times_and_annualized_accordingly(panel):
    times = pd.date_range("2024-03-01", periods=600, freq="5min")
    bars = bars_of(NAMES, times)
    cerebro = bt.Cerebro(stdstats=False)
    for name, frame in bars.items():
        feed = ScoreFeed(dataname=frame, timeframe=bt.TimeFrame.Minutes, compression=5)
        cerebro.adddata(feed, name=name)
    cerebro.addstrategy(Orders, plan={10: {"N00": 1}})
    cerebro.addanalyzer(KronosTearSheet, _name="sheet", signal="score", every=12)
    sheet = cerebro.run()[0].analyzers.sheet
    assert list(sheet.result.returns.index) == list(times[10:])
    assert sheet.result.bars_per_year == 365 * 288
    assert "5-bar reversal" in sheet.artifacts.scores


def test_trials_reach_the_deflated_sharpe_ratio(panel):
    one, many = kronos_run(panel, trials=1), kronos_run(panel, trials=50)
    assert many.get_analysis()["dsr"] < one.get_analysis()["dsr"]
    assert replace(one.artifacts.metadata, trials=50) == many.artifacts.metadata
