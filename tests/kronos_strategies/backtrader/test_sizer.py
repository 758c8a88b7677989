"""KronosSizer on the real engine: sizes of a strategy that buys whatever it can, in both modes."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("backtrader")
import backtrader as bt

from kronos_strategies.backtrader import KronosIndicator, KronosSizer, LotSizeCommission
from kronos_strategies.portfolio import PortfolioRules, UnsolvedError, target_weights
from tests.kronos.builders import make_bars

from .builders import SETTINGS, cerebro_of, pandas_feeds

NAMES = ("AAA", "BBB", "CCC")
CASH = 1e6
MODES = [{}, {"runonce": False}, {"runonce": False, "exactbars": -2}]
FORECAST = SETTINGS | {"samples": 20}


class Buyer(bt.Strategy):
    """Asks for a size of each feed every ten bars, buys, and sells everything five bars later."""

    params = (("short", False),)

    def __init__(self):
        self.k = {data: KronosIndicator(data, **FORECAST) for data in self.datas}
        self.asked, self.before, self.at_close = [], [], []

    def next(self):
        for data in self.datas:
            size = self.getsizing(data, isbuy=not self.p.short)
            position = self.getposition(data).size
            if len(data) % 10 == 0 and not position:
                lines = {name: getattr(self.k[data], name)[0] for name in ("volatility", "conviction")}
                value = self.broker.getvalue(), self.broker.getcash()
                self.asked.append((len(data), data._name, size, data.close[0], *value, *lines.values()))
                (self.sell if self.p.short else self.buy)(data=data)
            elif position:
                self.before.append((position, size, self.getsizing(data, isbuy=self.p.short)))
                if len(data) % 10 == 5:
                    (self.buy if self.p.short else self.sell)(data=data)


def market(bars: int = 60) -> dict[str, pd.DataFrame]:
    return {name: make_bars(bars, seed=i) for i, name in enumerate(NAMES)}


def bought(mode, short=False, bars=60, **params) -> Buyer:
    cerebro = cerebro_of(pandas_feeds(market(bars)))
    cerebro.broker.setcash(CASH)
    cerebro.broker.addcommissioninfo(LotSizeCommission(commission=0.0))
    cerebro.addstrategy(Buyer, short=short)
    cerebro.addsizer(KronosSizer, **FORECAST | params)
    return cerebro.run(**mode)[0]


@pytest.mark.parametrize("mode", MODES)
def test_each_position_alone_has_the_target_volatility(mode):
    made = bought(mode, target_volatility=0.02, max_weight=0.2)
    assert len(made.asked) >= 9
    for _, _, size, price, equity, _, volatility, _ in made.asked:
        weight = min(0.02 / (volatility * 252**0.5), 0.2)
        assert size == pytest.approx(weight * equity / price)
    assert made.before
    for position, again, close in made.before:
        assert close == position  # the order against it closes it
        assert again < position * 0.5  # it has its weight, up to what the price has moved


@pytest.mark.parametrize("mode", MODES)
def test_conviction_sizes_up_to_the_largest_weight(mode):
    made = bought(mode, by="conviction", full_conviction=3.0, max_weight=0.25)
    sizes = [
        (size * price / equity, min(conviction / 3, 1) * 0.25)
        for _, _, size, price, equity, _, _, conviction in made.asked
    ]
    np.testing.assert_allclose(*np.transpose(sizes), rtol=1e-9)
    assert len({round(weight, 6) for weight, _ in sizes}) > 1


def test_short_positions_are_opened_by_the_same_weight_and_bought_back():
    long, short = (bought({}, short=each, target_volatility=0.02) for each in (False, True))
    assert long.asked[0][2] == short.asked[0][2] > 0
    assert all(position < 0 and close == -position for position, _, close in short.before)


@pytest.mark.parametrize("mode", MODES)
def test_rules_give_the_weight_of_the_pure_function_over_all_feeds(mode, monkeypatch):
    calls = []

    def spied(signals, previous, rules, tradable=None, market=None):
        chosen = target_weights(signals, previous, rules, tradable, market)
        calls.append((signals, previous, rules, market, chosen))
        return chosen

    monkeypatch.setattr("kronos_strategies.backtrader.sizer.target_weights", spied)
    text = "topk=3,weighting=min_cvar,cvar_tail=0.2,max_weight=0.5,scenario_bars=60"
    made = bought(mode, by="rules", rules=text)
    assert calls
    seen = {}
    for signals, previous, rules, inputs, chosen in calls:
        assert rules == PortfolioRules(
            topk=3, weighting="min_cvar", cvar_tail=0.2, max_weight=0.5, scenario_bars=60
        )
        assert list(signals.index) == list(NAMES)
        assert inputs.paths.returns.shape == (3, 20, 3)
        np.testing.assert_allclose(  # the paths are those of the signals
            inputs.paths.returns[:, :, -1].mean(axis=1), signals["expected_return"], rtol=1e-6
        )
        if previous.empty:
            seen[len(inputs.closes)] = chosen
    checked = 0
    for bar, name, size, price, equity, cash, *_ in made.asked:
        if bar in seen and cash == equity:
            weight = seen[bar].get(name, 0.0)
            assert size == pytest.approx(weight * equity / price)
            checked += weight > 0
    assert checked >= 2


def test_both_modes_ask_for_the_same_sizes():
    text = "topk=2,weighting=mean_drawdown_cvar,scenario_bars=40"
    asked = [bought(mode, by="rules", rules=text).asked for mode in MODES]
    assert asked[0] == asked[1] == asked[2]
    assert any(row[2] > 0 for row in asked[0])


def test_without_a_result_nothing_is_bought(monkeypatch):
    def unsolved(*arguments, **named):
        raise UnsolvedError("there is no optimum")

    monkeypatch.setattr("kronos_strategies.backtrader.sizer.target_weights", unsolved)
    made = bought({}, by="rules", rules="weighting=equal")
    assert {row[2] for row in made.asked} == {0}
    assert not made.before


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"by": "kelly"}, "by='kelly' is unknown. Size by one of volatility, conviction, rules"),
        ({"rules": "topk=5"}, "Pass by='rules' as well"),
        ({"by": "rules", "rules": "topk=0"}, "topk=0 is out of range"),
        ({"max_weight": 0}, "max_weight=0 is out of range"),
        ({"target_volatility": -1}, "target_volatility=-1 is out of range"),
        ({"by": "rules", "rules": "weighting=min_cvar", "samples": 0}, "score|sampled paths"),
    ],
)
def test_invalid_settings_are_refused_before_the_run(params, message):
    with pytest.raises(ValueError, match=message):
        bought({}, **params)
