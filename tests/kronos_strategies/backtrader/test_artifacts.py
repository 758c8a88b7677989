"""The report of one instrument: an evaluation over time, from what the run itself recorded."""

import re

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

pytest.importorskip("statsmodels")
pytest.importorskip("plotly")

from kronos_strategies.backtrader import (
    ForecastData,
    KronosIndicator,
    KronosTearSheet,
    join_forecasts,
    read_forecasts,
)
from kronos_strategies.report.report import build_report
from kronos_strategies.run_artifacts import RunArtifacts
from kronos_strategies.store import ForecastStore
from tests.kronos.builders import make_bars
from tests.kronos_strategies.backtrader.builders import FIVE, SETTINGS, session_bars

DAILY = make_bars(150)
HOURS = session_bars(12, 12)


class Following(bt.Strategy):
    """Holds the asset while it is forecast to rise."""

    params = (("store", ""), ("own", True))

    def __init__(self):
        self.kronos = [
            KronosIndicator(data, **SETTINGS | {"samples": 8}, level=0.7, store=self.p.store)
            if self.p.own
            else data
            for data in self.datas
        ]

    def next(self):
        for data, own in zip(self.datas, self.kronos, strict=True):
            if own.expected_return[0] > 0 and not self.getposition(data).size:
                self.buy(data=data, size=10)
            elif own.expected_return[0] <= 0 and self.getposition(data).size:
                self.close(data=data)


def sheet_of(*bars: pd.DataFrame, mode=None, feed=bt.feeds.PandasData, sheet=None, timing=None, **params):
    cerebro = bt.Cerebro(stdstats=False)
    for name, each in zip("ABC", bars, strict=False):
        cerebro.adddata(feed(dataname=each, **(timing or {})), name=name)
    cerebro.addstrategy(Following, **params)
    cerebro.addanalyzer(KronosTearSheet, _name="sheet", title="One", **(sheet or {}))
    return cerebro.run(**(mode or {}))[0].analyzers.sheet


@pytest.fixture(scope="module")
def daily() -> KronosTearSheet:
    return sheet_of(DAILY)


def test_a_single_feed_is_evaluated_over_time_without_a_store(daily):
    study = daily.build_report().time_series
    (own,) = study.instruments
    assert own.correlation.dates == 25
    assert np.isfinite(
        [own.correlation.mean, own.correlation.low, own.hit_rate.mean, own.coverage.mean]
    ).all()
    assert (own.level, own.horizon) == (0.7, SETTINGS["horizon"])
    assert np.isfinite([own.crps, own.crps_walk, own.crps_skill, own.crps_reduction.mean]).all()
    metrics = daily.build_report().metrics
    assert {"time_correlation", "time_hit_rate", "time_crps_skill", "trade_hit_rate"} <= set(metrics)


def test_pairs_are_scores_and_forward_returns(daily):
    (own,) = daily.build_report().time_series.instruments
    opens = DAILY["open"]
    outcome = opens.shift(-6) / opens.shift(-1) - 1
    np.testing.assert_allclose(own.pairs["outcome"], outcome[own.pairs.index])
    correlation = np.corrcoef(own.pairs.dropna()["score"], own.pairs.dropna()["outcome"])[0, 1]
    assert own.correlation.mean == pytest.approx(correlation)


def test_bands_and_paths_are_those_of_the_store(daily, tmp_path):
    stored = sheet_of(DAILY, store=str(tmp_path))
    (own,), (kept,) = (
        daily.build_report().time_series.instruments,
        stored.build_report().time_series.instruments,
    )
    assert (own.crps, own.crps_walk) == (kept.crps, kept.crps_walk)
    (run,) = ForecastStore(tmp_path).forecast_sets()
    read = read_forecasts(run, level=0.7)
    kept_ends = daily.artifacts.outlooks[list(range(8))]
    np.testing.assert_allclose(kept_ends.mean(axis=1), read["forecast_close"][kept_ends.index], rtol=1e-6)
    frame = join_forecasts(DAILY, read, "A")
    offline = sheet_of(frame, feed=ForecastData, own=False, sheet={"forecasts": str(run.folder)})
    (own,) = offline.build_report().time_series.instruments
    assert own.crps == pytest.approx(kept.crps)
    assert own.coverage.mean == kept.coverage.mean


@pytest.mark.parametrize("mode", [{"runonce": False}, {"exactbars": -2}])
def test_every_mode_has_the_same_metrics(daily, mode):
    again = sheet_of(DAILY, mode=mode)
    assert again.build_report().metrics == pytest.approx(daily.build_report().metrics, nan_ok=True)
    pd.testing.assert_frame_equal(again.artifacts.outlooks, daily.artifacts.outlooks, check_exact=True)


def test_the_report_opens_with_the_evaluation_over_time_and_hides_the_empty_ranking(daily, tmp_path):
    page, *written = daily.save_report(tmp_path)
    text = page.read_text()
    assert '<section id="time-series"' in text
    assert '<section id="trades"' in text
    assert '<section id="signal"' not in text
    assert "The correlation of forecast and outcome over 25 dates is" in text
    assert "RankIC is undefined" not in text
    assert {"trades.csv", "scores_over_time.csv", "bands_over_time.csv"} <= {path.name for path in written}


def test_saved_artifacts_give_the_same_report(daily, tmp_path):
    again = build_report(RunArtifacts.read(daily.artifacts.write(tmp_path)))
    assert again.metrics == pytest.approx(daily.build_report().metrics, nan_ok=True)
    assert len(again.trades.trades) == len(daily.trades) > 3


def test_intraday_bars_are_shown_with_their_times(tmp_path):
    sheet = sheet_of(HOURS, timing=FIVE)
    text = sheet.save_report(tmp_path)[0].read_text()
    shown = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    section = {
        name: shown.split(f'<section id="{name}"')[1].split("</section>")[0]
        for name in ("portfolio", "trades")
    }
    assert re.search(r"Backtest over 2024-03-\d\d \d\d:\d\d to 2024-03-\d\d \d\d:\d\d", section["portfolio"])
    for of in section.values():
        dates = re.findall(r"2024-\d\d-\d\d(?: \d\d:\d\d)?", re.sub(r"<[^>]+>", "|", of))
        assert dates
        assert all(":" in each for each in dates), dates[:9]
    assert re.search(r"<td>144, 2024-03-04 09:35 to 2024-03-19 10:30</td>", shown)
    assert not re.search(r"\b20 days\b|\b5-day\b", shown)


def test_a_few_instruments_are_evaluated_one_by_one(tmp_path):
    sheet = sheet_of(DAILY, make_bars(150, 1), make_bars(150, 2))
    assert [each.name for each in sheet.build_report().time_series.instruments] == ["A", "B", "C"]
    text = sheet.save_report(tmp_path)[0].read_text()
    assert (
        "Of 3 instruments, the correlation of forecast and outcome over time is significantly above zero for"
        in text
    )


def test_a_score_equal_to_the_future_return_is_reported_as_skill_and_noise_is_not():
    class Foreseen(bt.feeds.PandasData):
        lines = ("score",)
        params = (("score", "score"),)

    rng = np.random.default_rng(0)
    bars = make_bars(600)
    for share, headline in (
        (0.7, "Forecasts correlate with outcomes over time"),
        (0.0, "No evidence of skill over time"),
    ):
        moved = (bars["open"].shift(-2) / bars["open"].shift(-1) - 1).fillna(0.0)
        noise = rng.normal(size=600) * moved.std()
        cerebro = bt.Cerebro(stdstats=False)
        cerebro.adddata(Foreseen(dataname=bars.assign(score=share * moved + (1 - share) * noise)), name="A")
        cerebro.addstrategy(bt.Strategy)
        cerebro.addanalyzer(KronosTearSheet, _name="sheet", signal="score")
        from kronos_strategies.report.summary import summarize

        assert summarize(cerebro.run()[0].analyzers.sheet.build_report()).headline == headline


def test_a_resampled_feed_is_evaluated_on_its_own_bars():
    fine = session_bars(60, 6)

    class OnDays(bt.Strategy):
        def __init__(self):
            self.kronos = KronosIndicator(self.getdatabyname("days"), **SETTINGS)

    cerebro = bt.Cerebro(stdstats=False)
    feed = bt.feeds.PandasData(dataname=fine, **FIVE)
    cerebro.adddata(feed, name="fine")
    cerebro.resampledata(feed, name="days", timeframe=bt.TimeFrame.Days)
    cerebro.addstrategy(OnDays)
    cerebro.addanalyzer(KronosTearSheet, _name="sheet")
    (own,) = cerebro.run()[0].analyzers.sheet.build_report().time_series.instruments
    rules = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    days = fine.groupby(fine.index.normalize()).agg(rules)
    (plain,) = sheet_of(days, sheet={"every": SETTINGS["every"]}).build_report().time_series.instruments
    assert own.correlation.dates >= 7
    assert list(own.pairs.index.normalize()) == list(plain.pairs.index[: len(own.pairs)])
    known = own.pairs["outcome"].notna().to_numpy()
    np.testing.assert_allclose(own.pairs["outcome"][known], plain.pairs["outcome"][: len(known)][known])


def test_feeds_in_different_time_zones_are_dated_with_their_own_bars():
    """London and New York trade at the same moments, which are five hours apart in local time."""
    moments = pd.DatetimeIndex(
        [
            day + pd.Timedelta(minutes=875 + 5 * i)
            for day in pd.bdate_range("2024-01-08", periods=12)
            for i in range(12)
        ]
    )
    cerebro = bt.Cerebro(stdstats=False)
    for seed, zone in enumerate(("Europe/London", "America/New_York")):
        feed = bt.feeds.PandasData(dataname=make_bars(144, seed).set_axis(moments), tz=zone, **FIVE)
        cerebro.adddata(feed, name=zone)
    cerebro.addstrategy(Following)
    cerebro.addanalyzer(KronosTearSheet, _name="sheet")
    artifacts = cerebro.run()[0].analyzers.sheet.artifacts
    for zone in ("Europe/London", "America/New_York"):
        stamps = artifacts.scores.xs(zone, level="instrument").index
        assert len(stamps) > 20
        assert stamps.isin(moments.tz_localize("UTC").tz_convert(zone).tz_localize(None)).all()
