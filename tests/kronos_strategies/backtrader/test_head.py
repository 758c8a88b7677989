"""The line `score` of a KronosIndicator: the output of a return head where one fits, else the expected return."""

from __future__ import annotations

import logging
from pathlib import Path

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from kronos.checkpoint import PRETRAINED
from kronos.head import ReturnHead
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from kronos_strategies.backtrader import KronosRankStrategy, KronosTearSheet
from kronos_strategies.causal import check_causal
from tests.kronos.builders import headed_pair, make_bars, make_panel
from tests.kronos_strategies.backtrader.builders import (
    MODES,
    SETTINGS,
    awkward_panel,
    cerebro_of,
    kronos,
    pandas_feeds,
    run,
)

DAYS = make_bars(80).index
PATHS = ["expected_return", "volatility", "prob_up", "forecast_close", "lower", "upper", "max_drawdown"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled checkpoint with a random head for the lookback of these tests."""
    source = PRETRAINED / "kronos-nano"
    width = KronosPredictor.from_pretrained(device="cpu").model.config.d_model
    return headed_pair(source, tmp_path_factory.mktemp("pair") / "headed", width, SETTINGS["lookback"])


def by_hand(pair: Path, bars: pd.DataFrame) -> pd.DataFrame:
    """Outputs by date and horizon."""
    windows = Windows.rolling({"AAA": bars}, SETTINGS["lookback"], 1, "B")
    hidden = KronosPredictor.from_pretrained(pair, device="cpu").embed(windows)
    dates = windows.index.get_level_values("datetime")
    return pd.DataFrame(ReturnHead.from_pretrained(pair)(hidden), dates, [1, 5, 10])


def of(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table.xs(name, level="instrument")


@pytest.mark.parametrize(("hold", "every", "horizon"), [(0, 1, 1), (5, 1, 5), (10, 1, 10)])
def test_the_score_is_the_heads_output_for_the_holding(pair, hold, every, horizon):
    bars = make_bars(40)
    table = of(run({"AAA": bars}, kronos(model=str(pair), hold=hold, every=every)), "AAA").dropna()
    np.testing.assert_allclose(table["score"], by_hand(pair, bars)[horizon], rtol=1e-4, atol=1e-5)


def test_the_other_lines_stay_those_of_the_paths(pair):
    panel = make_panel(40, "AAA", "BBB")
    head, paths = (run(panel, kronos(model=str(pair), score=score)) for score in ("head", "paths"))
    pd.testing.assert_frame_equal(head.drop(columns="score"), paths.drop(columns="score"))
    pd.testing.assert_series_equal(paths["score"], paths["expected_return"], check_names=False)
    assert not np.allclose(head["score"].dropna(), paths["score"].dropna())


@pytest.mark.parametrize("change", [{"every": 3}, {"hold": 2}, {"lookback": 15}])
def test_a_use_that_the_head_was_not_trained_for_ranks_by_paths(pair, change):
    panel = {"AAA": make_bars(40)}
    table = run(panel, kronos(model=str(pair), **change))
    pd.testing.assert_series_equal(table["score"], table["expected_return"], check_names=False)


def test_bars_that_are_no_days_rank_by_paths(pair):
    panel = {"AAA": make_bars(60, freq="5min")}
    table = run(panel, kronos(model=str(pair)))
    pd.testing.assert_series_equal(table["score"], table["expected_return"], check_names=False)
    with pytest.raises(ValueError, match=r"samples=0 samples no path.*bars are of another length"):
        run(panel, kronos(model=str(pair), samples=0))
    forced = run(panel, kronos(model=str(pair), score="head"))
    assert not np.allclose(forced["score"].dropna(), forced["expected_return"].dropna())


def test_a_holding_of_no_horizon_takes_the_mean_of_5_and_10_where_the_head_is_asked_for(pair):
    bars = make_bars(40)
    table = of(run({"AAA": bars}, kronos(model=str(pair), score="head", every=1, hold=3)), "AAA").dropna()
    np.testing.assert_allclose(
        table["score"], by_hand(pair, bars)[[5, 10]].mean(axis=1), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("samples", [0, 4])
@pytest.mark.parametrize("mode", MODES)
def test_scores_are_the_same_in_every_mode(pair, mode, samples):
    make = kronos(model=str(pair), samples=samples)
    expected = run(awkward_panel(), make)
    assert expected["score"].notna().any()
    pd.testing.assert_frame_equal(run(awkward_panel(), make, **MODES[mode]), expected, rtol=1e-5, atol=1e-6)


def test_without_samples_only_the_score_is_there_and_nothing_is_sampled(pair, monkeypatch):
    panel = make_panel(40, "AAA", "BBB")
    expected = run(panel, kronos(model=str(pair)))["score"]
    monkeypatch.setattr(KronosPredictor, "forecast", None)  # whoever calls it fails
    table = run(panel, kronos(model=str(pair), samples=0))
    pd.testing.assert_series_equal(table["score"], expected)
    assert table[PATHS].isna().all().all()


@pytest.mark.parametrize(
    ("change", "why"),
    [({"every": 3}, "a holding of 3 bars"), ({"score": "paths"}, "score='paths' was asked for")],
)
def test_without_samples_and_without_a_fitting_head_it_says_why(pair, change, why):
    with pytest.raises(ValueError, match=f"samples=0 samples no path.*{why}"):
        run(make_panel(40, "AAA"), kronos(model=str(pair), samples=0, **change))


def test_scrambling_all_bars_after_t_changes_no_score_up_to_t(pair):
    def scores(bars: pd.DataFrame) -> pd.DataFrame:
        panel = {name: own.set_index("datetime") for name, own in bars.groupby("instrument")}
        return run(panel, kronos(model=str(pair), samples=0))[["score"]].dropna()

    parts = [
        bars.reset_index().assign(instrument=name) for name, bars in make_panel(60, "AAA", "BBB").items()
    ]
    check_causal(scores, pd.concat(parts, ignore_index=True), [DAYS[31], DAYS[44]], rtol=1e-6)


def test_scores_in_a_store_are_found_again(pair, tmp_path, monkeypatch):
    panel = make_panel(40, "AAA", "BBB")
    make = kronos(model=str(pair), samples=0, store=str(tmp_path))
    first = run(panel, make)
    assert list(tmp_path.glob("*/heads/*/date=*/*.parquet"))
    monkeypatch.setattr(KronosPredictor, "embed", None)  # whoever calls it fails
    pd.testing.assert_frame_equal(run(panel, make), first)


def test_it_is_said_where_scores_come_from(pair, caplog):
    with caplog.at_level(logging.INFO):
        run(make_panel(30, "AAA"), kronos(model=str(pair), samples=0))
    assert "Scores of daily bars come from return head headed (sha256" in caplog.text


class Seen(KronosRankStrategy):
    """Remembers what it ranked."""

    def __init__(self) -> None:
        super().__init__()
        self.ranked: list[pd.DataFrame] = []

    def weights(self, signals, previous, tradable):
        self.ranked.append(signals)
        return super().weights(signals, previous, tradable)


def test_the_rank_strategy_holds_the_best_by_the_head_and_its_report_says_so(pair):
    pytest.importorskip("plotly")
    panel = make_panel(60, *"ABCDEF")
    cerebro = cerebro_of(pandas_feeds(panel))
    cerebro.addstrategy(Seen, model=str(pair), lookback=20, horizon=3, samples=0, topk=2, device="cpu")
    cerebro.addanalyzer(KronosTearSheet)
    strategy = cerebro.run()[0]
    scores = by_hand(pair, panel["A"])
    first = strategy.ranked[0]
    assert first.loc["A", "score"] == pytest.approx(scores[5].iloc[0], rel=1e-4)
    held = {data._name for data in strategy.datas if strategy.getposition(data).size}
    last = strategy.ranked[-2]["score"]  # what the last bar decides would trade on the next one
    assert held == set(last.nlargest(2).index)
    evidence = strategy.analyzers.kronostearsheet.evidence
    assert evidence.about.described["score"].startswith("return head headed (sha256")
    assert evidence.paths is None
    assert "sampling" not in evidence.about.described


def test_weekly_bars_are_no_days(pair):
    panel = {"AAA": make_bars(40, freq="W-FRI")}
    feeds = pandas_feeds(panel, timeframe=bt.TimeFrame.Weeks)
    from tests.kronos_strategies.backtrader.builders import record

    table = record(cerebro_of(feeds), kronos(model=str(pair)))
    pd.testing.assert_series_equal(table["score"], table["expected_return"], check_names=False)


def test_a_single_asset_scored_by_a_head_alone_is_judged_over_time_without_bands(pair):
    class Scored(bt.Strategy):
        def __init__(self):
            self.kronos = kronos(model=str(pair), samples=0, hold=1, every=2)(self.data)

    cerebro = cerebro_of(pandas_feeds({"A": make_bars(90)}))
    cerebro.addstrategy(Scored)
    cerebro.addanalyzer(KronosTearSheet, _name="sheet", signal="score")
    (own,) = cerebro.run()[0].analyzers.sheet.summary.time_series.instruments
    assert np.isfinite(own.correlation.mean)
    assert own.coverage is None
    assert own.crps_lead is None
