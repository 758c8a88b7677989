"""InformationCoefficient and KronosTearSheet on the real engine, against figures computed by hand."""

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
    SteppedCommission,
    join_forecasts,
    read_forecasts,
    run_optimisation,
)
from kronos_strategies.backtrader.describe import bars_per_year
from kronos_strategies.evaluation.signal.ic import information_coefficients
from kronos_strategies.evaluation.significance import mean_test
from kronos_strategies.evidence import Evidence
from kronos_strategies.store import ForecastStore
from tests.kronos.builders import make_panel
from tests.kronos_strategies.backtrader.builders import MODES, SETTINGS

CASH, FEE = 10_000.0, 0.01
DAYS = pd.bdate_range("2024-01-01", periods=40)
NAMES = [f"N{i:02}" for i in range(12)]


class ScoreFeed(bt.feeds.PandasData):
    """Bars with a score."""

    lines = ("score",)
    params = (("score", "score"),)


class Orders(bt.Strategy):
    """Places planned orders at the closes of planned bars, and keeps what the account was worth."""

    params = (("plan", {}),)  # bar -> name -> size, negative to sell

    def __init__(self):
        self.worth, self.cash, self.sizes = {}, {}, {}

    def prenext(self):
        self.next()

    def next(self):
        day = pd.Timestamp(self.datetime.date())
        self.worth[day], self.cash[day] = self.broker.getvalue(), self.broker.getcash()
        self.sizes[day] = {
            data._name: position.size for data, position in self.broker.positions.items() if position.size
        }
        for name, size in self.p.plan.get(len(self), {}).items():
            data = self.getdatabyname(name)
            (self.buy if size > 0 else self.sell)(data=data, size=abs(size))


def bars_of(names=("A", "B", "C"), days=DAYS, seed=0) -> dict[str, pd.DataFrame]:
    """Random walks with a score that has nothing to do with them."""
    found = {}
    for i, name in enumerate(names):
        rng = np.random.default_rng([seed, i])
        close = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, len(days))))
        opened = close * np.exp(rng.normal(0, 0.01, len(days)))
        high, low = np.maximum(opened, close) * 1.01, np.minimum(opened, close) * 0.99
        columns = {"open": opened, "high": high, "low": low, "close": close, "volume": 1e6}
        found[name] = pd.DataFrame(columns | {"score": rng.normal(size=len(days))}, index=days)
    return found


def run(bars, strategy=Orders, commission=None, prepare=None, sheet=None, ic=None, mode=None, **params):
    cerebro = bt.Cerebro(stdstats=False, **(mode or {}))
    for name, frame in bars.items():
        cerebro.adddata(ScoreFeed(dataname=frame), name=name)
    cerebro.broker.setcash(CASH)
    cerebro.broker.addcommissioninfo(commission or SteppedCommission(commission=FEE))
    cerebro.addstrategy(strategy, **params)
    cerebro.addanalyzer(InformationCoefficient, _name="ic", **{"signal": "score"} | (ic or {}))
    cerebro.addanalyzer(KronosTearSheet, _name="sheet", **{"signal": "score"} | (sheet or {}))
    if prepare:
        prepare(cerebro)
    return cerebro.run()[0]


def result_of(*args, **kwargs):
    return run(*args, **kwargs).analyzers.sheet.result


# The book


def test_returns_costs_turnover_and_weights_are_those_of_the_trades():
    bars = bars_of()
    plan = {3: {"A": 100, "B": -20}, 6: {"A": -40.5}, 9: {"B": 20, "C": 10.25}}
    result = result_of(bars, plan=plan)
    cash, held, before = CASH, dict.fromkeys(bars, 0.0), CASH
    for number, day in enumerate(DAYS):
        traded = {name: size * bars[name].loc[day, "open"] for name, size in plan.get(number, {}).items()}
        paid = FEE * sum(map(abs, traded.values()))
        cash -= sum(traded.values()) + paid
        held = {name: size + plan.get(number, {}).get(name, 0) for name, size in held.items()}
        worth = {name: size * bars[name].loc[day, "close"] for name, size in held.items() if size}
        value = cash + sum(worth.values())
        if number < 3:
            assert day not in result.returns.index
            continue
        assert result.returns.loc[day, "net"] == pytest.approx(value / before - 1, abs=1e-12)
        assert result.returns.loc[day, "gross"] == pytest.approx((value + paid) / before - 1, abs=1e-12)
        assert result.cost[day] == pytest.approx(paid / before, abs=1e-12)
        assert result.turnover[day] == pytest.approx(sum(map(abs, traded.values())) / before, abs=1e-12)
        shares = {name: each / value for name, each in worth.items()}
        assert dict(result.weights[day]) == pytest.approx(shares, abs=1e-12)
        before = value
    assert result.positions.max() == 2
    assert result.weights.min() < 0


def test_a_fall_on_the_first_bar_counts():
    bars = bars_of()
    bars["A"].loc[DAYS[3], ["open", "high"]] = 2 * bars["A"].loc[DAYS[3], "close"]
    result = result_of(bars, plan={3: {"A": 90}})
    assert result.returns.index[0] == DAYS[3]
    assert result.returns["net"].iloc[0] < -0.3


def test_the_result_starts_with_the_first_purchase_and_benchmarks_earn_nothing_up_to_its_close():
    bars = bars_of()
    result = result_of(bars, plan={5: {"B": 10}}, sheet={"benchmark": "C"})
    assert result.returns.index[0] == DAYS[5]
    assert list(result.benchmarks) == ["C", "equal weight"]
    assert (result.benchmarks.iloc[0] == 0).all()
    closes = pd.DataFrame({name: frame["close"] for name, frame in bars.items()})
    moves = closes.pct_change().loc[DAYS[6] :]
    np.testing.assert_allclose(result.benchmarks["C"].iloc[1:], moves["C"])
    np.testing.assert_allclose(result.benchmarks["equal weight"].iloc[1:], moves.mean(axis=1))


def test_a_strategy_that_never_trades_has_a_flat_result():
    result = result_of(bars_of())
    assert len(result.returns) == len(DAYS)
    assert (result.returns == 0).all(axis=None)
    assert result.weights.empty


def test_a_held_feed_without_a_price_counts_at_its_last_one():
    bars = bars_of()
    bars["A"].loc[DAYS[10:13], ["open", "high", "low", "close"]] = np.nan
    ran = run(bars, plan={3: {"A": 50}})
    result = ran.analyzers.sheet.result
    assert np.isnan(ran.worth[DAYS[11]])
    assert (result.returns.loc[DAYS[10:13]] == 0).all(axis=None)
    close = bars["A"]["close"].ffill()
    values = {day: ran.cash[day] + 50 * close[day] for day in DAYS[3:]}
    np.testing.assert_allclose((1 + result.returns["net"]).cumprod() * CASH, list(values.values()))


@pytest.mark.parametrize("mode", [{}, {"runonce": False}, {"preload": False}, {"live": True}])
def test_late_and_ended_feeds_are_neither_scored_nor_valued_where_they_are_not(mode):
    bars = bars_of(NAMES)
    bars["N00"], bars["N01"] = bars["N00"].iloc[15:], bars["N01"].iloc[:19]
    ran = run(bars, plan={3: {"N01": 20}, 17: {"N00": 5}}, mode=mode)
    evidence, result = ran.analyzers.sheet.evidence, ran.analyzers.sheet.result
    scored = evidence.scores["score"].unstack()
    assert scored["N00"].first_valid_index() == DAYS[15]
    assert scored["N01"].last_valid_index() == DAYS[18]
    np.testing.assert_array_equal(scored["N02"], bars["N02"]["score"])
    worth = pd.Series(ran.worth).loc[DAYS[3] :]
    np.testing.assert_allclose((1 + result.returns["net"]).cumprod() * CASH, worth)
    assert any(each.startswith("N01 had no more bars") for each in evidence.about.warnings)
    assert not any("survivorship" in each for each in evidence.about.warnings)


def test_feeds_of_which_none_ever_ends_were_perhaps_chosen_afterwards():
    days = pd.bdate_range("2024-01-01", periods=130)
    bars = bars_of(NAMES, days)
    bars["N00"] = bars["N00"].iloc[10:-5]  # late, and suspended at the end
    warnings = run(bars).analyzers.sheet.evidence.about.warnings
    assert any("survivorship" in each for each in warnings)
    assert not any("no more bars" in each for each in warnings)


def test_cash_that_is_paid_in_is_no_return():
    class Saver(Orders):
        def next(self):
            super().next()
            if len(self) == 8:
                self.broker.add_cash(5_000)

    bars = bars_of()
    plain, more = result_of(bars, plan={3: {"A": 50}}), result_of(bars, Saver, plan={3: {"A": 50}})
    assert more.returns["net"].abs().max() < 0.2
    np.testing.assert_allclose(more.returns["net"].loc[: DAYS[7]], plain.returns["net"].loc[: DAYS[7]])


def test_a_future_weighs_its_notional():
    future = bt.CommissionInfo(commission=2.0, margin=500.0, mult=10.0, stocklike=False)
    ran = run(bars_of(), commission=future, plan={3: {"A": 2}})
    result = ran.analyzers.sheet.result
    close = bars_of()["A"]["close"]
    expected = {day: 2 * 10 * close[day] / ran.worth[day] for day in DAYS[3:]}
    assert dict(result.weights.xs("A", level="instrument")) == pytest.approx(expected)
    assert result.cost.iloc[0] == pytest.approx(4.0 / CASH)


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_all_modes_give_the_same_result_and_the_same_coefficients(mode):
    bars = bars_of(NAMES)
    bars["N03"] = bars["N03"].drop(DAYS[12:15])
    plan = {4: {"N03": 10, "N05": -5}, 20: {"N03": -10}}
    usual, other = run(bars, plan=plan), run(bars, plan=plan, mode=mode)
    assert repr(other.analyzers.ic.get_analysis()) == repr(usual.analyzers.ic.get_analysis())
    ours, theirs = other.analyzers.sheet.result, usual.analyzers.sheet.result
    pd.testing.assert_frame_equal(ours.returns, theirs.returns, check_exact=True)
    pd.testing.assert_series_equal(ours.weights, theirs.weights, check_exact=True)


def test_quick_notifications_cost_what_usual_ones_do():
    plan = {4: {"A": 10, "B": -5}, 20: {"A": -10}}
    usual, quick = (result_of(bars_of(), plan=plan, mode={"quicknotify": each}) for each in (False, True))
    pd.testing.assert_series_equal(quick.cost, usual.cost)


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


def test_bars_to_come_change_no_score_and_no_coefficient_that_was_known():
    bars = bars_of(NAMES)
    whole = run(bars).analyzers.ic.get_analysis()["rank_ic"]
    part = run({name: frame.iloc[:30] for name, frame in bars.items()}).analyzers.ic.get_analysis()["rank_ic"]
    known = {time: value for time, value in part.items() if np.isfinite(value)}
    assert len(known) == 28
    assert {time: whole[time] for time in known} == known


def test_a_score_that_foresees_returns_has_a_coefficient_of_one():
    bars = bars_of(NAMES)
    for frame in bars.values():
        frame["score"] = (frame["open"].shift(-3) / frame["open"].shift(-1) - 1).fillna(0.0)
    found = run(bars, ic={"hold": 2}).analyzers.ic.get_analysis()
    assert found["rank_ic_test"]["mean"] == pytest.approx(1.0)


def test_too_few_names_leave_a_date_undefined_unless_fewer_are_allowed():
    bars = bars_of(NAMES[:6])
    assert run(bars).analyzers.ic.get_analysis()["rank_ic_test"]["dates"] == 0
    assert run(bars, ic={"min_names": 5}).analyzers.ic.get_analysis()["rank_ic_test"]["dates"] == 38


class Jumps(bt.Indicator):
    """A line made of others by arithmetic, which Backtrader keeps beside the indicators."""

    lines = ("jump",)

    def __init__(self):
        self.lines.jump = self.data.close / self.data.close(-1) - 1


class LineArithmetic(Orders):
    def __init__(self):
        super().__init__()
        self.jumps = [Jumps(data) for data in self.datas]
        self.spread = self.datas[0].close - self.datas[1].close(-1)


def test_lines_made_by_arithmetic_stand_in_nobodys_way_and_can_be_ranked_by():
    bars = bars_of()
    strategy = run(bars, LineArithmetic, ic={"signal": "jump", "min_names": 3})
    scores = strategy.analyzers.sheet.evidence.scores.iloc[:, 0]
    plain = run(bars).analyzers.sheet.evidence.scores.iloc[:, 0]
    pd.testing.assert_series_equal(scores, plain)  # the sheet reads the feeds' own line in both
    found = strategy.analyzers.ic.get_analysis()
    assert found["signal"] == "jump"
    assert len(found["rank_ic"]) == len(DAYS) - 1  # the first bar has no jump


class Ranks(KronosRankStrategy):
    """Takes its signals from the feeds and keeps when it decided."""

    params = (("by", "score"), ("topk", 2))

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
    about = ran.analyzers.sheet.evidence.about
    assert (about.hold, about.bars_between) == (4, 4)


# What is refused


@pytest.mark.parametrize(
    ("kind", "params", "says"),
    [
        ("ic", {"signal": "nothing"}, "line 'nothing' to rank by"),
        ("ic", {"every": -1}, "every=-1"),
        ("ic", {"hold": -1}, "hold=-1"),
        ("sheet", {"price": "mid"}, "price='mid'"),
        ("sheet", {"benchmark": "SPY"}, "No feed is called 'SPY'"),
    ],
)
def test_a_wrong_parameter_is_refused_before_the_first_bar(kind, params, says):
    with pytest.raises(ValueError, match=says):
        run(bars_of(), **{kind: params})


def test_a_run_that_keeps_too_few_bars_is_refused():
    with pytest.raises(ValueError, match="exactbars=1 keeps too few"):
        run(bars_of(), mode={"exactbars": 1})


# Evidence and report


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
    cerebro.broker.addcommissioninfo(SteppedCommission(commission=0.001))
    cerebro.addstrategy(KronosRankStrategy, topk=3, store=str(store), **SETTINGS)
    cerebro.addanalyzer(KronosTearSheet, _name="sheet", **sheet)
    return cerebro.run()[0].analyzers.sheet


@pytest.fixture(scope="module")
def stored(panel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    return folder, kronos_run(panel, folder, benchmark="N00", title="A test", notice="Take care.")


def test_the_report_opens_with_all_sections_and_its_evidence_beside_it(stored, tmp_path):
    pytest.importorskip("plotly")
    page, *_, kept = stored[1].report(tmp_path / "report")
    text = page.read_text()
    assert all(f'<section id="{each}"' in text for each in ("signal", "distribution", "portfolio"))
    assert "A test" in text
    assert "Take care." in text
    assert Evidence.read(kept).about == stored[1].evidence.about


def test_equal_runs_write_equal_bytes(panel, stored, tmp_path):
    pytest.importorskip("plotly")
    again = kronos_run(panel, tmp_path / "store", benchmark="N00", title="A test", notice="Take care.")
    for one, other in zip(stored[1].report(tmp_path / "one"), again.report(tmp_path / "other"), strict=True):
        if one.is_file():
            assert one.read_bytes() == other.read_bytes(), one.name


def test_scores_labels_and_paths_are_of_the_bars_of_the_run(panel, stored):
    evidence = stored[1].evidence
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
    ledger = list(evidence.about.ledger.values())
    assert ledger[0] == sum(ledger[1:])


def test_without_a_store_there_is_no_distribution_but_the_model_is_known(panel):
    evidence = kronos_run(panel).evidence
    assert evidence.paths is None
    assert evidence.provenance.model == "kronos-nano"
    assert evidence.about.described["trained until"] == evidence.provenance.trained_until


def test_stored_forecasts_as_lines_of_the_feeds_are_judged_alike(panel, stored):
    folder, usual = stored
    (run_of_store,) = ForecastStore(folder).runs()
    forecasts = read_forecasts(run_of_store)
    feeds = {
        name: ForecastData(dataname=join_forecasts(bars, forecasts, name)) for name, bars in panel.items()
    }
    offline = kronos_run(panel, feeds=feeds, forecasts=str(run_of_store.folder), benchmark="N00")
    pd.testing.assert_frame_equal(offline.evidence.scores, usual.evidence.scores)
    pd.testing.assert_frame_equal(offline.evidence.paths.summary, usual.evidence.paths.summary)
    pd.testing.assert_frame_equal(offline.result.returns, usual.result.returns)
    feeds = {
        name: ForecastData(dataname=join_forecasts(bars, forecasts, name)) for name, bars in panel.items()
    }
    unknown = kronos_run(panel, feeds=feeds).evidence
    assert any("brought their forecasts along" in each for each in unknown.about.warnings)


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
    assert sheet.report(tmp_path)[0].is_file()
    about = sheet.evidence.about
    assert any(each.startswith("Only 1 feed is ranked") for each in about.warnings)
    assert any("charged no commission" in each for each in about.warnings)
    assert about.described["feeds ranked"] == "1: data0"


def test_an_optimisation_hands_both_analyzers_on(panel):
    cerebro = bt.Cerebro(stdstats=False)
    for name, bars in panel.items():
        cerebro.adddata(bt.feeds.PandasData(dataname=bars), name=name)
    cerebro.optstrategy(KronosRankStrategy, topk=(2, 4), **SETTINGS)
    cerebro.addanalyzer(InformationCoefficient, _name="ic")
    cerebro.addanalyzer(KronosTearSheet, _name="sheet")
    (two,), (four,) = pickle.loads(pickle.dumps(run_optimisation(cerebro)))
    assert repr(two.analyzers.ic.get_analysis()) == repr(four.analyzers.ic.get_analysis())
    assert two.analyzers.sheet.result.positions.max() < four.analyzers.sheet.result.positions.max()
    assert two.analyzers.sheet.get_analysis()["turnover"] > 0
    assert len(two.analyzers.sheet.evidence.scores) > 50


def test_a_feed_of_minutes_is_dated_with_its_time_and_annualised_so(panel):
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
    assert "5-bar reversal" in sheet.evidence.scores


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (pd.bdate_range("2024-01-01", periods=100), 252),
        (pd.date_range("2024-01-01", periods=100), 365),
        (pd.date_range("2020-01-01", periods=100, freq="W"), 52),
        (pd.date_range("2020-01-01", periods=50, freq="ME"), 12),
        (pd.date_range("2024-01-01", periods=3000, freq="5min"), 365 * 288),
        (pd.DatetimeIndex([day + pd.Timedelta(minutes=30 * i) for day in DAYS for i in range(13)]), 252 * 13),
        (DAYS[:1], 252),
    ],
)
def test_bars_a_year_are_told_from_the_bars(times, expected):
    assert bars_per_year(times) == expected


def test_trials_reach_the_deflated_sharpe_ratio(panel):
    one, many = kronos_run(panel, trials=1), kronos_run(panel, trials=50)
    assert many.get_analysis()["dsr"] < one.get_analysis()["dsr"]
    assert replace(one.evidence.about, trials=50) == many.evidence.about
