"""Lines of known paths, the cache of forecasts, calibrations and return heads."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from kronos.bars import FEATURES
from kronos.calibration import Calibration, CalibrationFit, PathAdjustment
from kronos.checkpoint import PRETRAINED
from kronos.config import SampleConfig
from kronos.forecast import Forecast, Provenance
from kronos.head import ReturnHead
from kronos.paths import POOL
from kronos.postprocessing import PathOptions
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from kronos_strategies.backtrader import KronosRankStrategy, KronosTearSheet, forecasts, scheduler
from kronos_strategies.backtrader.forecasts import ForecastSettings
from kronos_strategies.backtrader.indicators import read_forecasts
from kronos_strategies.backtrader.lines import FINAL_CLOSES, LINES, indicator_lines, path_statistics
from kronos_strategies.lookahead import check_causal
from kronos_strategies.path_signals import PATH_SIGNALS, PathSignalSettings
from kronos_strategies.signal import path_signals, summary
from kronos_strategies.store import ForecastStore
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


def forecast_of(*paths: list[float], last: float = 100.0) -> Forecast:
    """One window with these closes."""
    closes = np.array(paths, np.float32)
    bars = np.repeat(closes[None, :, :, None], len(FEATURES), axis=-1)
    keys = pd.MultiIndex.from_tuples([(pd.Timestamp("2024-01-02"), "A")], names=["datetime", "instrument"])
    made = Provenance(
        "m", None, None, None, SampleConfig(), "d", 512, 5, "recompute", "float32", "last_close", ""
    )
    times = pd.date_range("2024-01-03", periods=closes.shape[1]).to_numpy()[None]
    return Forecast(bars, keys, times, np.full((1, len(FEATURES)), last, np.float32), made)


def figures(forecast: Forecast, level: float = 0.9) -> dict[str, float]:
    return dict(zip(LINES, indicator_lines(path_statistics(forecast), level)[0], strict=True))


def test_the_drawdown_of_a_path_is_its_largest_fall_from_the_highest_close_so_far():
    assert np.isclose(figures(forecast_of([120, 90, 110]))["max_drawdown"], 90 / 120 - 1)
    assert np.isclose(
        figures(forecast_of([80, 90, 110]))["max_drawdown"], 80 / 100 - 1
    )  # the last close counts
    assert figures(forecast_of([101, 102, 103]))["max_drawdown"] == 0


def test_drawdowns_are_averaged_over_paths():
    assert np.isclose(figures(forecast_of([120, 90], [100, 100]))["max_drawdown"], (90 / 120 - 1) / 2)


def test_return_probability_and_price_are_of_the_last_bar():
    found = figures(forecast_of([50, 110], [200, 96]))
    assert np.isclose(found["expected_return"], 0.03)
    assert found["prob_up"] == 0.5
    assert np.isclose(found["forecast_close"], 103)


def test_the_signals_of_paths_are_lines_at_the_levels_that_are_set():
    forecast = forecast_of([101, 96, 110], [99, 103, 90], [100, 100, 107], [95, 92, 91])
    levels = PathSignalSettings(tail=0.4, take_profit=0.01, stop_loss=0.06, drawdown=0.02)
    found = dict(zip(LINES, indicator_lines(path_statistics(forecast, levels), 0.9)[0], strict=True))
    expected = path_signals(forecast, levels).iloc[0]
    assert {name: found[name] for name in PATH_SIGNALS} == pytest.approx(expected.to_dict())
    assert found["prob_take_profit"] != figures(forecast)["prob_take_profit"]


def test_the_band_contains_its_share_of_paths():
    ends = np.arange(1.0, 100.0)
    found = figures(forecast_of(*([end] for end in ends)), level=0.8)
    assert np.isclose(found["lower"], 10)
    assert np.isclose(found["upper"], 90)


def test_a_path_below_zero_leaves_every_line_finite():
    assert np.isfinite(list(figures(forecast_of([-5, 110], [100, -20])).values())).all()


def test_no_forecast_has_no_lines():
    assert indicator_lines(np.empty((0, FINAL_CLOSES + 3)), 0.9).shape == (0, len(LINES))


FORECAST = ForecastSettings(lookback=20, horizon=3, samples=4, device="cpu")


@pytest.fixture(autouse=True)
def forget():
    forecasts._CACHE.clear()


def windows_of(*names: str, bars: int = 24) -> Windows:
    return Windows.rolling(make_panel(bars, *names), 20, 3, "B")


def test_numbers_of_bars_may_be_numpy_integers():
    theirs = replace(FORECAST, lookback=np.int64(20), horizon=np.int32(3), every=np.int64(5))
    assert theirs == FORECAST
    assert {type(theirs.lookback), type(theirs.horizon), type(theirs.every)} == {
        int
    }  # as the store writes them
    for wrong in (True, 2.5, "5", None):
        for name in ("lookback", "horizon", "every"):
            with pytest.raises(ValueError, match=f"{name}={wrong!r} is not a valid number of bars"):
                replace(FORECAST, **{name: wrong})


def test_only_windows_that_are_new_are_forecast(asked):
    few, all_of_them = windows_of("A"), windows_of("A", "B")
    FORECAST.path_statistics(few, ("A",))
    found = FORECAST.path_statistics(all_of_them, ("A", "B"))
    assert [len(windows) for windows in asked] == [5, 5]
    forecasts._CACHE.clear()
    np.testing.assert_array_equal(found, FORECAST.path_statistics(all_of_them, ("A", "B")))


def test_other_settings_are_other_forecasts(asked):
    windows = windows_of("A")
    for settings in (FORECAST, replace(FORECAST, T=0.5)) * 2:
        settings.path_statistics(windows, ("A",))
    assert len(asked) == 2


def test_a_window_of_another_date_is_another_window(asked):
    panel = make_panel(20, "A")
    later = {"A": panel["A"].set_axis(panel["A"].index + pd.DateOffset(years=28))}  # the same weekdays
    FORECAST.path_statistics(Windows.rolling(panel, 20, 3, "B"), ("A",))
    FORECAST.path_statistics(Windows.rolling(later, 20, 3, "B"), ("A",))
    assert len(asked) == 2


def test_forecasts_of_networks_without_a_checksum_are_not_cached(monkeypatch, asked):
    honest = KronosPredictor.provenance
    monkeypatch.setattr(
        KronosPredictor, "provenance", lambda *known: replace(honest(*known), weights_sha256=None)
    )
    first = FORECAST.path_statistics(windows_of("A"), ("A",))
    np.testing.assert_array_equal(FORECAST.path_statistics(windows_of("A"), ("A",)), first)
    assert [len(windows) for windows in asked] == [5, 5]
    assert not forecasts._CACHE


def test_the_cache_is_bounded_and_drops_the_oldest_first(monkeypatch, asked):
    monkeypatch.setattr(forecasts, "CACHE_SIZE", 3)
    FORECAST.path_statistics(windows_of("A"), ("A",))
    (memory,) = forecasts._CACHE.values()
    assert len(memory) == 3
    FORECAST.path_statistics(windows_of("A")[2:], ("A",))
    assert len(asked) == 1


def test_cached_windows_count_as_done():
    reported: list[tuple[int, int]] = []
    FORECAST.path_statistics(windows_of("A"), ("A",))
    FORECAST.path_statistics(windows_of("A", "B"), ("A", "B"), lambda *counts: reported.append(counts))
    assert reported[0] == (5, 10)
    assert reported[-1] == (10, 10)


def test_runonce_reports_all_planned_windows(monkeypatch):
    reported: list[tuple[int, int]] = []

    @contextmanager
    def watched(what, unit):
        yield lambda *counts: reported.append(counts)

    monkeypatch.setattr(scheduler, "progress_bar", watched)
    run(make_panel(45, "A", "B"))
    assert {total for _, total in reported} == {12}
    assert reported[-1] == (12, 12)


H, BARS = SETTINGS["horizon"], make_bars(40)


@pytest.fixture(scope="module")
def predictor() -> KronosPredictor:
    return KronosPredictor.from_pretrained("kronos-nano", device="cpu")


@pytest.fixture(scope="module")
def file(predictor, tmp_path_factory):
    """Walks forward: bars from the 30th on have wider paths and even wider bands."""
    sampling = predictor.sampling.with_overrides(4, None, None, None, 0)
    known = predictor.provenance(sampling, "")
    moves = PathAdjustment((0.5,) * H, (0.4,) * H, (0.3,) * H)
    day = f"{BARS.index[29]:%Y-%m-%d}"
    fit = CalibrationFit(day, "2023-01-02", 99, 99, {POOL: moves}, (), {}, {0.5: (2.0,) * H})
    made = Calibration(
        known.model, known.weights_sha256, sampling.T, sampling.top_p, sampling.top_k, 4, known.anchor, H,
        86400.0, "bars", 20, "none", (fit,), walk_forward=True,
    )  # fmt: skip
    return made.write(tmp_path_factory.mktemp("calibration") / "c.json")


@pytest.mark.parametrize("mode", [{}, {"runonce": False}, {"preload": False}])
def test_lines_are_those_of_calibrated_paths_and_their_widened_bands(predictor, file, mode):
    made = kronos(every=1, level=0.5, calibration=str(file))
    table = of(run({"AAA": BARS}, made, **mode), "AAA").dropna()
    windows = Windows.rolling({"AAA": BARS}, SETTINGS["lookback"], H, "B")
    raw = predictor.forecast(
        windows, predictor.sampling.with_overrides(4, None, None, None, 0), candles="raw"
    )
    moved = raw.calibrated(file).repaired()
    figures = summary(moved).droplevel("instrument")
    for name in ("expected_return", "volatility", "prob_up"):
        np.testing.assert_allclose(table[name], figures[name], rtol=1e-9)
    np.testing.assert_allclose(table[["lower", "upper"]], moved.band(0.5)[:, -1], rtol=1e-6)
    plain = of(run({"AAA": BARS}, kronos(every=1, level=0.5, calibration="none")), "AAA").dropna()
    changed = (table["volatility"] != plain["volatility"]).to_numpy()
    assert (changed == (table.index >= BARS.index[29])).all()
    assert changed.any()


def test_a_store_serves_any_calibration_and_a_feed_reads_the_same_lines(file, tmp_path):
    stored = kronos(every=1, level=0.5, calibration=str(file), store=str(tmp_path))
    table = of(run({"AAA": BARS}, stored), "AAA").dropna()
    plain = of(run({"AAA": BARS}, kronos(every=1, level=0.5, store=str(tmp_path))), "AAA").dropna()
    (kept,) = ForecastStore(tmp_path).forecast_sets()
    for options, expected in ((PathOptions(str(file)), table), (PathOptions(), plain)):
        read = of(read_forecasts(kept, 0.5, options), "AAA")
        np.testing.assert_allclose(read[list(LINES)], expected[list(LINES)], rtol=1e-9)


def test_a_calibration_that_does_not_fit_is_refused_before_anything_runs(file):
    with pytest.raises(ValueError, match=r"T=0\.3"):
        run({"AAA": BARS}, kronos(T=0.3, calibration=str(file)))
    with pytest.raises(FileNotFoundError, match="no calibration"):
        run({"AAA": BARS}, kronos(calibration="nothing.json"))


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
def test_the_score_is_the_heads_output_for_the_hold(pair, hold, every, horizon):
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


def test_bars_that_are_not_daily_rank_by_paths(pair):
    panel = {"AAA": make_bars(60, freq="5min")}
    table = run(panel, kronos(model=str(pair)))
    pd.testing.assert_series_equal(table["score"], table["expected_return"], check_names=False)
    with pytest.raises(ValueError, match=r"samples=0 samples no path.*bars are of another length"):
        run(panel, kronos(model=str(pair), samples=0))
    forced = run(panel, kronos(model=str(pair), score="head"))
    assert not np.allclose(forced["score"].dropna(), forced["expected_return"].dropna())


def test_a_hold_without_its_own_output_takes_the_mean_of_5_and_10_where_the_head_is_required(pair):
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


def test_without_samples_only_the_score_is_computed(pair, monkeypatch):
    panel = make_panel(40, "AAA", "BBB")
    expected = run(panel, kronos(model=str(pair)))["score"]
    monkeypatch.setattr(KronosPredictor, "forecast", None)  # a call fails
    table = run(panel, kronos(model=str(pair), samples=0))
    pd.testing.assert_series_equal(table["score"], expected)
    assert table[PATHS].isna().all().all()


@pytest.mark.parametrize(
    ("change", "why"),
    [({"every": 3}, "a holding period of 3 bars"), ({"score": "paths"}, "score='paths' was requested")],
)
def test_without_samples_and_without_a_fitting_head_the_error_says_why(pair, change, why):
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


def test_scores_in_a_store_are_reused(pair, tmp_path, monkeypatch):
    panel = make_panel(40, "AAA", "BBB")
    make = kronos(model=str(pair), samples=0, store=str(tmp_path))
    first = run(panel, make)
    assert list(tmp_path.glob("*/heads/*/date=*/*.parquet"))
    monkeypatch.setattr(KronosPredictor, "embed", None)  # a call fails
    pd.testing.assert_frame_equal(run(panel, make), first)


def test_the_source_of_the_scores_is_logged(pair, caplog):
    with caplog.at_level(logging.INFO):
        run(make_panel(30, "AAA"), kronos(model=str(pair), samples=0))
    assert "Scores of daily bars come from return head headed (sha256" in caplog.text


class Seen(KronosRankStrategy):
    """Records what it ranks."""

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
    evidence = strategy.analyzers.kronostearsheet.artifacts
    assert evidence.metadata.settings["score"].startswith("return head headed (sha256")
    assert evidence.paths is None
    assert "sampling" not in evidence.metadata.settings


def test_weekly_bars_do_not_count_as_daily(pair):
    panel = {"AAA": make_bars(40, freq="W-FRI")}
    feeds = pandas_feeds(panel, timeframe=bt.TimeFrame.Weeks)
    from tests.kronos_strategies.backtrader.builders import record

    table = record(cerebro_of(feeds), kronos(model=str(pair)))
    pd.testing.assert_series_equal(table["score"], table["expected_return"], check_names=False)


def test_a_single_asset_scored_by_a_head_alone_is_evaluated_over_time_without_bands(pair):
    class Scored(bt.Strategy):
        def __init__(self):
            self.kronos = kronos(model=str(pair), samples=0, hold=1, every=2)(self.data)

    cerebro = cerebro_of(pandas_feeds({"A": make_bars(90)}))
    cerebro.addstrategy(Scored)
    cerebro.addanalyzer(KronosTearSheet, _name="sheet", signal="score")
    (own,) = cerebro.run()[0].analyzers.sheet.build_report().time_series.instruments
    assert np.isfinite(own.correlation.mean)
    assert own.coverage is None
    assert own.crps_reduction is None
    assert own.hit_rate is None  # the sign of a rank is not a direction
