"""KronosWeightStrategy in real Qlib backtests on the small simulated market, with planted signals."""

import os
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from qlib.backtest import backtest
from qlib.workflow import R

from kronos.postprocessing import Postprocessing
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from kronos_strategies.evaluation.warnings import unsolved_warnings
from kronos_strategies.portfolio import MarketInputs, PortfolioRules, target_weights
from kronos_strategies.qlib.strategy import UNSOLVED, KronosWeightStrategy
from kronos_strategies.signal import sampled_paths
from kronos_strategies.store import ForecastSet, ForecastStore
from tests.kronos_strategies.backtest.walks import SPEC, RandomWalks
from tests.kronos_strategies.cli.conftest import run as run_cli

from .conftest import TINY, artifact_folder, qrun

CONFIG = Path(__file__).parents[3] / "configs" / "kronos_csi300_weights.yaml"
SPAN = ("2023-03-01", "2023-04-14")
FREE = {"open_cost": 0.0, "close_cost": 0.0, "min_cost": 0.0, "limit_threshold": 9.0, "trade_unit": None}


class Recording(KronosWeightStrategy):
    """Keeps what it decided from, by the day it trades on."""

    def __init__(self, **arguments) -> None:
        super().__init__(**arguments)
        self.decided: dict[pd.Timestamp, tuple[pd.DataFrame, pd.Series, pd.Index, pd.Series]] = {}

    def weights(self, signals, previous, tradable):
        chosen = super().weights(signals, previous, tradable)
        self.decided[self.trade_calendar.get_step_time()[0]] = (signals, previous, tradable, chosen)
        return chosen


@pytest.fixture
def signals(in_store, small_market) -> pd.DataFrame:
    """Slowly changing random signals of all that traded."""
    closes = wide_closes(small_market)
    rng = np.random.default_rng(5)
    score = pd.DataFrame(rng.normal(size=closes.shape), closes.index, closes.columns).ewm(halflife=10).mean()
    volatility = pd.DataFrame(rng.uniform(0.01, 0.04, closes.shape), closes.index, closes.columns)
    columns = {"score": score, "prob_up": -score, "volatility": volatility}
    long = pd.concat({k: v.where(closes.notna()).stack() for k, v in columns.items()}, axis=1)
    return long.dropna().loc[SPAN[0] : SPAN[1]]


def wide_closes(market) -> pd.DataFrame:
    bars = market.bars.assign(adjusted=market.bars["close"] * market.bars["factor"])
    return bars.pivot(index="datetime", columns="instrument", values="adjusted")


def run(strategy: KronosWeightStrategy, **exchange):
    """Qlib's report and positions of a backtest without costs, lots or limits, unless asked for."""
    executor = {
        "class": "SimulatorExecutor",
        "module_path": "qlib.backtest.executor",
        "kwargs": {"time_per_step": "day", "generate_portfolio_metrics": True},
    }
    portfolio, _ = backtest(
        start_time=SPAN[0],
        end_time=SPAN[1],
        strategy=strategy,
        executor=executor,
        benchmark="SH000300",
        account=1e8,
        exchange_kwargs={"freq": "day", "deal_price": "close", **FREE, **exchange},
    )
    return portfolio["1day"]


def held(book) -> pd.Series:
    return pd.Series(book.get_stock_weight_dict(), dtype=float).sort_index()


def test_each_day_asks_the_pure_function_with_all_columns_and_what_is_held(signals):
    rules = {"topk": 5, "rank_buffer": 2, "weighting": "inverse_volatility", "rank_by": "prob_up"}
    strategy = Recording(signal=signals, rules=rules)
    _, books = run(strategy)
    days = sorted(books)
    assert list(strategy.decided) == days[1:]
    for yesterday, day in pairwise(days):
        seen, previous, tradable, chosen = strategy.decided[day]
        rows = signals.xs(yesterday, level="datetime")
        pd.testing.assert_frame_equal(seen.sort_index(), rows.sort_index(), check_names=False)
        pd.testing.assert_series_equal(previous.sort_index(), held(books[yesterday]), check_names=False)
        expected = target_weights(rows, held(books[yesterday]), PortfolioRules(**rules), tradable)
        pd.testing.assert_series_equal(chosen, expected, check_names=False)
        assert chosen.index[chosen.index.isin(rows.index)].size >= 4


def test_the_portfolio_at_the_next_close_has_the_targets_of_the_day_before(signals, small_market):
    strategy = Recording(signal=signals, rules={"topk": 5, "cash_buffer": 0.1})
    _, books = run(strategy)
    closes = wide_closes(small_market)
    days = sorted(books)
    checked = 0
    for yesterday, day in pairwise(days[1:]):
        *_, chosen = strategy.decided[day]
        if closes.loc[[yesterday, day], chosen.index].isna().any(axis=None):
            continue
        # Sized at yesterday's close, dealt at today's.
        grown = chosen * closes.loc[day, chosen.index] / closes.loc[yesterday, chosen.index]
        worth = books[yesterday].calculate_value()
        owned = pd.Series({n: books[day].get_stock_amount(n) for n in chosen.index})
        np.testing.assert_allclose(
            owned * closes.loc[day, chosen.index], grown * worth, rtol=1e-5, atol=1e-6 * worth
        )
        checked += 1
    assert checked > 10


def test_costs_lots_and_limits_of_the_exchange_apply_and_cash_is_never_overdrawn(signals, small_market):
    strategy = Recording(signal=signals, rules={"topk": 5})
    report, books = run(
        strategy, open_cost=0.0005, close_cost=0.0015, min_cost=5, limit_threshold=0.095, trade_unit=100
    )
    assert (report["cash"] >= 0).all()
    assert report["total_cost"].iloc[-1] > 0
    last = books[max(books)]
    assert 0.9 < held(last).sum() < 0.985
    for name in last.get_stock_list():
        bars = (
            small_market.bars[small_market.bars["instrument"] == name].set_index("datetime").loc[: max(books)]
        )
        shares = last.get_stock_amount(name) * bars["factor"].iloc[-1]
        assert shares == pytest.approx(100 * round(shares / 100), abs=0.5)


def test_a_suspended_instrument_keeps_its_weight_and_the_others_get_the_rest(signals, small_market):
    closes = wide_closes(small_market)
    strategy = Recording(
        signal=signals, rules={"topk": 16, "rank_buffer": 8}
    )  # nearly all instruments are held
    run(strategy)
    frozen = 0
    for seen, previous, tradable, chosen in strategy.decided.values():
        for name in previous.index.difference(tradable):
            assert name not in seen.index
            assert chosen[name] == previous[name]
            frozen += 1
        assert chosen.sum() <= 0.98 + 1e-9
    assert frozen > 0, "a held name is suspended in the span"
    assert closes.loc[SPAN[0] : SPAN[1]].isna().any(axis=None)


def test_the_strategy_rebalances_every_n_days_from_the_first_signal_and_not_in_between(signals):
    late = signals.loc["2023-03-08":]
    strategy = Recording(signal=late, rules={"topk": 5}, every=4)
    report, books = run(strategy)
    days = sorted(books)
    first = days.index(pd.Timestamp("2023-03-09"))
    assert list(strategy.decided) == days[first::4]
    traded = report.index[report["turnover"] > 0]
    assert set(traded) <= set(days[first::4])
    assert len(traded) > 3


def test_the_same_strategy_gives_the_same_result_twice(signals):
    strategy = Recording(signal=signals, rules={"topk": 5}, every=30)
    once, _ = run(strategy)
    twice, _ = run(strategy)
    assert once["turnover"].gt(0).any()
    pd.testing.assert_frame_equal(once, twice)


def test_a_series_of_scores_is_the_column_score(signals):
    one, _ = run(KronosWeightStrategy(signal=signals["score"], rules={"topk": 5}))
    other, _ = run(KronosWeightStrategy(signal=signals, rules={"topk": 5}))
    pd.testing.assert_frame_equal(one, other)


@pytest.fixture(scope="module")
def forecasts(small_market, tmp_path_factory) -> ForecastSet:
    """Random walks of all instruments on every date of SPAN."""
    closes = wide_closes(small_market)
    panel = {name: make_frame(closes[name].dropna()) for name in closes}
    windows = Windows.rolling(panel, SPEC.lookback, SPEC.horizon, "B", start=SPAN[0], end=SPAN[1])
    return ForecastStore(tmp_path_factory.mktemp("forecasts")).fill(RandomWalks(), windows, SPEC).forecast_set


def make_frame(close: pd.Series) -> pd.DataFrame:
    return pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), close)).assign(volume=1e6)


def test_scenarios_read_the_paths_of_the_signals_day_and_nothing_later(signals, forecasts):
    rules = {"topk": 6, "weighting": "min_cvar", "cvar_tail": 0.3}
    strategy = Recording(signal=signals, rules=rules, every=8, forecasts=str(forecasts.folder))
    asked = []
    inputs = strategy.market_inputs
    strategy.market_inputs = lambda names: asked.append(inputs(names)) or asked[-1]
    run(strategy)
    days = sorted(strategy.decided)
    assert len(days) == len(asked) >= 3
    dates = signals.index.get_level_values("datetime").unique()
    for day, market in zip(days, asked, strict=True):
        signal_day = dates[dates < day][-1]
        assert market.closes.index[-1] == signal_day
        assert len(market.closes) == 251
        expected = sampled_paths(Postprocessing()(forecasts.read(signal_day)))
        np.testing.assert_array_equal(market.paths.returns, expected.returns)


def test_a_rebalance_without_a_result_trades_nothing_and_the_report_counts_it(signals, forecasts, recorded):
    # 15 bars have too few windows, so that no rebalance has a result.
    rules = {"topk": 6, "weighting": "min_cvar", "scenario_bars": 15}
    with R.start(experiment_name="unsolved"):
        strategy = Recording(signal=signals, rules=rules, every=8, forecasts=str(forecasts.folder))
        report, _ = run(strategy)
        recorder = R.get_recorder()
    assert (report["turnover"] == 0).all()
    assert len(strategy.unsolved) >= 3
    assert not strategy.decided
    assert recorder.load_object(UNSOLVED) == strategy.unsolved
    (warning,) = unsolved_warnings(recorder.load_object(UNSOLVED))
    assert warning.startswith(f"{len(strategy.unsolved)} rebalances kept the weights")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"rules": {"weighting": "min_cvar"}},
            "weighting='min_cvar' needs sampled paths, and none are given",
        ),
        (
            {"rules": {"side": "long_short"}},
            "sells short, which Qlib's account does not support.*KronosRankStrategy",
        ),
        ({"rules": {"topk": 0}}, "topk=0"),
        ({"every": 0}, "every must be at least 1 day, got 0"),
    ],
)
def test_settings_that_qlib_cannot_trade_are_refused_before_the_backtest(signals, settings, message):
    with pytest.raises(ValueError, match=message):
        KronosWeightStrategy(signal=signals, **settings)


RUN = {"KRONOS_TOPK": "4", "KRONOS_RANK_BUFFER": "2", "KRONOS_CASH_BUFFER": "0.1", "KRONOS_SAMPLES": "2"}


@pytest.mark.integration
@pytest.mark.parametrize("weighting", ["volatility_target", "min_cvar"])
def test_qrun_trades_the_rules_over_risk_of_its_yaml(small_store, small_market, run_folder, weighting):
    span = {"KRONOS_TEST_START": SPAN[0], "KRONOS_TEST_END": "2023-03-31", "KRONOS_STORE": "forecasts"}
    chosen = {"KRONOS_WEIGHTING": weighting, "KRONOS_MAX_WEIGHT": "0.4"}
    config = CONFIG.with_name("kronos_csi300_risk.yaml")
    process = qrun(run_folder, config, KRONOS_QLIB_DATA=str(small_store), **RUN, **span, **chosen)
    assert process.returncode == 0, process.stderr[-3000:]
    backtested = artifact_folder(run_folder).parent / "portfolio_analysis"
    books = pd.read_pickle(backtested / "positions_normal_1day.pkl")
    days = sorted(books)
    first = held(books[days[1]])  # a signal dated t is bought on t + 1
    (stored,) = ForecastStore(run_folder / "forecasts").forecast_sets()
    rules = PortfolioRules(
        topk=4, rank_buffer=2, weighting=weighting, cash_buffer=0.1, max_weight=0.4, correlation_bars=60
    )
    expected = target_weights(
        pd.read_parquet(artifact_folder(run_folder) / "signals.parquet").xs(days[0], level="datetime"),
        pd.Series(dtype=float),
        rules,
        market=MarketInputs(
            closes=wide_closes(small_market).loc[: days[0]],
            paths=sampled_paths(Postprocessing()(stored.read(days[0]))),
        ),
    )
    expected = expected[expected > 0.01]  # a smaller position may not be worth a lot
    np.testing.assert_allclose(first[expected.index], expected, rtol=0.15)  # a day of prices, and lots
    page = (artifact_folder(run_folder) / "report.html").read_text(encoding="utf-8")
    assert "the optimization had no result" not in page


@pytest.fixture(scope="module")
def weights_run(small_store, empty_record, tmp_path_factory):
    """A run of the workflow file of target weights: its folder, positions by day, report and signals."""
    folder = tmp_path_factory.mktemp("weights")
    shutil.copy(empty_record, folder / "mlflow.db")
    span = {"KRONOS_TEST_START": SPAN[0], "KRONOS_TEST_END": SPAN[1]}
    process = qrun(folder, CONFIG, KRONOS_QLIB_DATA=str(small_store), KRONOS_STORE="forecasts", **RUN, **span)
    assert process.returncode == 0, process.stderr[-3000:]
    backtested = artifact_folder(folder).parent / "portfolio_analysis"
    books = pd.read_pickle(backtested / "positions_normal_1day.pkl")
    report = pd.read_pickle(backtested / "report_normal_1day.pkl")
    return folder, books, report, pd.read_parquet(artifact_folder(folder) / "signals.parquet")


def test_qrun_trades_the_target_weights_of_its_yaml(weights_run):
    _, books, report, signals = weights_run
    days = sorted(books)
    traded = [days.index(day) for day in report.index[report["turnover"] > 0]]
    assert traded[0] == 1  # a signal dated t is bought on t + 1
    assert {at % 5 for at in traded} == {1}
    first = held(books[days[1]])
    expected = target_weights(
        signals.xs(days[0], level="datetime"),
        pd.Series(dtype=float),
        PortfolioRules(topk=4, rank_buffer=2, weighting="inverse_volatility", cash_buffer=0.1),
    )
    assert set(first.index) == set(expected.index)
    np.testing.assert_allclose(first, expected, rtol=0.15)  # a day of prices, and lots
    assert (report["cash"] > 0).all()


@pytest.mark.integration
def test_picks_as_of_each_rebalance_are_the_predictions_and_the_trades_of_the_run(
    weights_run, small_store, small_market, capsys, monkeypatch
):
    folder, books, report, signals = weights_run
    monkeypatch.chdir(folder)
    for name in [name for name in os.environ if name.startswith("KRONOS_")]:
        monkeypatch.delenv(name)
    settings = {"KRONOS_MODEL": str(TINY), "KRONOS_QLIB_DATA": str(small_store), "KRONOS_STORE": "forecasts"}
    for name, value in {**settings, **RUN, "KRONOS_DEVICE": "cpu"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(KronosPredictor, "forecast", None)  # the store has both dates
    closes, days = wide_closes(small_market), sorted(books)
    rebalances = [days.index(day) for day in report.index[report["turnover"] > 0]]
    for at in rebalances[1:4]:
        date, day = days[at - 1], days[at]
        held(books[date]).rename("weight").rename_axis("instrument").to_csv("held.csv")
        words = ("--as-of", f"{date:%Y-%m-%d}", "--holdings", "held.csv", "--output", "picks.parquet")
        assert run_cli(capsys, "picks", *words)[0] == 0
        made = pd.read_parquet("picks.parquet").set_index("instrument")
        predicted = signals.xs(date, level="datetime")
        pd.testing.assert_frame_equal(
            made.loc[predicted.index, list(predicted.columns)], predicted, check_exact=True, check_names=False
        )
        owned = pd.Series({name: books[day].get_stock_amount(name) for name in books[day].get_stock_list()})
        worth = owned * closes.loc[date, owned.index] / books[date].calculate_value()
        target = made["target_weight"][made["target_weight"] > 0]
        assert set(target.index) == set(worth.index)
        np.testing.assert_allclose(worth[target.index], target, atol=0.002)  # lots and costs
