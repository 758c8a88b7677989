"""The YAML file of a sweep: grids and random searches of any field, and mistakes as one sentence."""

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from kronos_strategies.backtest.parameters import Range
from kronos_strategies.backtest.search import SweepConfig, read_config
from kronos_strategies.backtest.trading import TradingRules
from kronos_strategies.path_signals import PathSignalSettings
from kronos_strategies.portfolio import PortfolioRules

HOME = TradingRules(close_cost=0.0015, limit=0.095)


def read(tmp_path, text: str) -> SweepConfig:
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    return read_config(file)


def test_a_grid_has_every_combination_of_its_lists_and_keeps_single_values(tmp_path):
    config = read(
        tmp_path,
        """
        hold: [2, 5]
        rules: {topk: [20, 50], weighting: kelly, no_trade_band: [1e-3]}
        trading: {price: [open, close], lot: 0}
        levels: {tail: 0.05}
        """,
    )
    trials = config.trials(HOME)
    assert [dict(each.parameters) for each in trials[:3]] == [
        {"hold": 2, "topk": 20, "trading.price": "open"},
        {"hold": 2, "topk": 20, "trading.price": "close"},
        {"hold": 2, "topk": 50, "trading.price": "open"},
    ]
    assert len(trials) == 8
    made = trials[-1].settings
    assert made.rules == PortfolioRules(topk=50, weighting="kelly", no_trade_band=0.001)
    assert made.trading == TradingRules("close", close_cost=0.0015, limit=0.095), "costs of the region stay"
    assert (made.hold, made.every, made.levels) == (5, 5, PathSignalSettings(tail=0.05))


def test_a_file_without_lists_is_one_setting(tmp_path):
    (trial,) = read(tmp_path, "every: 3\nrules:\n").trials(HOME)
    assert (dict(trial.parameters), trial.settings.hold, trial.settings.every) == ({}, 5, 3)


def test_a_random_search_draws_different_settings_within_its_ranges_and_the_same_for_a_seed(tmp_path):
    text = """
    search: random
    settings: 400
    seed: {seed}
    every: [1, 5]
    rules:
      topk: {{min: 5, max: 100}}
      max_turnover: {{min: 0.01, max: 1, scale: log}}
    """
    config = read(tmp_path, text.format(seed=3))
    values = [dict(each.parameters) for each in config.trials(HOME)]
    assert values == [dict(each.parameters) for each in config.trials(HOME)]
    assert values != [dict(each.parameters) for each in read(tmp_path, text.format(seed=4)).trials(HOME)]
    assert len({tuple(each.values()) for each in values}) == 400
    topk, turnover = ([each[name] for each in values] for name in ("topk", "max_turnover"))
    assert {type(each) for each in topk} == {int}
    assert min(topk) >= 5
    assert max(topk) <= 100
    assert 0.01 <= min(turnover) < 0.02
    assert 0.5 < max(turnover) <= 1
    assert np.median(np.log10(turnover)) == pytest.approx(-1, abs=0.15)
    assert {each["every"] for each in values} == {1, 5}


def test_whole_numbers_of_a_range_are_equally_likely():
    rng = np.random.default_rng(0)
    drawn = [Range(1, 4, False, True).draw(rng) for _ in range(4000)]
    shares = np.bincount(drawn)[1:] / 4000
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=0.03)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: [topk]", "rules is not a mapping of fields"),
        ("- rules", "is not a mapping of settings"),
        ("rules: {topk: [5, 10}", "is not YAML"),
        ("rules: {topk: [!!python/object:os.system 5]}", "is not YAML"),
        ("rules: {topk: [5, 10]}\nrules: {topk: [20, 50]}", "'rules' occurs twice"),
        ("rules: {topk: 5, topk: 10}", "'topk' occurs twice"),
        ("rules: {topkk: [5, 10]}", "'topkk' is not a field of PortfolioRules. Did you mean 'topk'?"),
        ("serch: random", "'serch' is not a setting of a sweep. Did you mean 'search'?"),
        ("price: open", "'price' is not a setting of a sweep. Write it below `trading:`."),
        ("rules: {topk: []}", "topk has an empty list"),
        ("rules: {topk: [5, 5.0]}", "topk lists 5.0 twice"),
        ("rules: {topk: [[5]]}", "topk has the value [5]. Write a number or a word"),
        ("rules: {topk: [true, 5]}", "topk has the value True"),
        ("rules: {topk: many}", "topk='many' is not a number"),
        ("rules: {weighting: [equal, best]}", "weighting='best' is unknown"),
        ("trading: {price: [vwap, open]}", "price='vwap' is unknown"),
        ("hold: [0, 5]", "hold=0 is out of range"),
        ("hold: 2.5", "hold=2.5 is not a whole number"),
        ("search: bayes", "search='bayes' is unknown"),
        ("search: random", "A random search needs the number of its settings"),
        ("settings: 5", "a grid has as many as its lists give"),
        ("search: random\nsettings: 5\nrules: {topk: [3, 4]}", "only some 2 different settings"),
        ("rules: {topk: {min: 3, max: 9}}", "A range of values needs a random search"),
        ("rules: {topk: {low: 3, max: 9}}", "The range of topk has no 'low'"),
        ("search: random\nsettings: 2\nrules: {topk: {min: 9, max: 3}}", "min below max"),
        ("search: random\nsettings: 2\nrules: {topk: {min: 0.5, max: 3}}", "topk is a whole number"),
        (
            "search: random\nsettings: 2\nrules: {quantile: {min: 0, max: 1, scale: log}}",
            "a logarithm needs more",
        ),
        ("heat_map: [topk, hold]\nrules: {topk: [3, 4]}", "does not name two parameters that are searched"),
        ("start: soon", "'soon' is not a date"),
        (
            f"rules: {{topk: {list(range(1, 200))}, rank_buffer: {list(range(200))}}}",
            "The grid has 39,800 settings",
        ),
    ],
)
def test_a_mistake_names_the_file_and_what_to_write(tmp_path, text, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read(tmp_path, text)
    assert str(error.value).startswith(str(tmp_path / "sweep.yaml"))
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"none.yaml is not a file. Write one with `kronos init configs`"
    ):
        read_config(tmp_path / "none.yaml")


def test_the_shipped_file_and_the_one_of_the_docs_are_valid(tmp_path):
    root = Path(__file__).parents[3]
    assert len(read_config(root / "configs" / "sweep.yaml").trials(HOME)) == 36
    (block,) = re.findall(r"```yaml\n(.*?)```", (root / "docs" / "sweep.md").read_text(), re.DOTALL)
    assert len(read(tmp_path, block).trials(HOME)) == 12


def test_every_field_of_the_rules_can_be_searched(tmp_path):
    """New rules need no change here."""
    for field in fields(PortfolioRules):
        value = getattr(PortfolioRules(), field.name)
        other = {"side": "long_short", "weighting": "kelly", "rank_by": "prob_up"}.get(field.name)
        other = (
            other if isinstance(value, str) else value + 1 if isinstance(value, int) else value / 2 + 0.005
        )
        trials = read(tmp_path, f"rules: {{{field.name}: [{value}, {other}]}}").trials(HOME)
        assert [getattr(each.settings.rules, field.name) for each in trials] == [value, other]
