"""strategies_compared.py and volatility_rules.py of backtests, from start to end, on a small simulated market."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("statsmodels")
pytest.importorskip("arch")
pytest.importorskip("plotly")

from kronos_strategies.backtest import TradingRules, backtest_rules
from kronos_strategies.backtest.inputs import read_prices
from kronos_strategies.data.simulate import MarketConfig, simulate_market
from kronos_strategies.portfolio import PortfolioRules
from kronos_strategies.signal import signals
from kronos_strategies.store import ForecastSet, ForecastStore
from tests.kronos_strategies.warm import run_warm

from .backtest.walks import SPEC, RandomWalks, windows_of

pytestmark = pytest.mark.integration
SCRIPTS = Path(__file__).parents[2] / "backtests"
COSTS = "lot=0,min_cost=0,limit=0,open_cost=0.001,close_cost=0.001"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Bars of a market, and a store of its forecasts over three months."""
    folder = tmp_path_factory.mktemp("rules")
    market = simulate_market(
        MarketConfig(seed=3, instruments=24, sectors=4, start="2022-09-01", end="2023-03-31")
    )
    market.bars.to_parquet(folder / "bars.parquet")
    ForecastStore(folder / "forecasts").fill(RandomWalks(), windows_of(market), SPEC, RandomWalks.sampling)
    return folder


def run(script: str, folder: Path, *more: object) -> dict:
    output = folder / "out" / script
    words = (folder / "forecasts", "--data", folder / "bars.parquet", "--trading", COSTS, "--output", output)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = run_warm([SCRIPTS / script, *words, *more], folder, environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return {file.stem: json.loads(file.read_text()) for file in output.glob("*.json")}


@pytest.fixture(scope="module")
def compared(folder) -> dict:
    return run("strategies_compared.py", folder, "--topk", 4, "--hold", 5)["compare"]


def test_every_rule_is_compared_with_the_first(compared, folder):
    names = compared["versions"]
    assert names[0] == compared["reference"] == "top k"
    assert {"inverse volatility", "Kelly", "risk parity", "rank by downside", "long-short tenth"} <= set(
        names
    )
    assert list(compared["metrics"]) == ["net_return", "sharpe", "turnover", "volatility_variation"]
    others = [compared["metrics"]["net_return"][name] for name in names[1:]]
    assert all(row["difference_low"] < row["difference"] < row["difference_high"] for row in others)
    page = (folder / "out" / "strategies_compared.py" / "compare.html").read_text()
    assert "rank by downside" in page
    table = (folder / "out" / "strategies_compared.py" / "compare.md").read_text().splitlines()
    assert len(table) == len(names) + 2


def test_a_rule_of_the_page_is_the_backtest_of_its_signals(compared, folder):
    stored = ForecastSet.find(folder / "forecasts")
    prices = read_prices(folder / "bars.parquet", _instruments(stored))
    trading = TradingRules(open_cost=0.001, close_cost=0.001)
    table = pd.concat([signals(stored.read(date), 5) for date in stored.dates])
    rules = PortfolioRules(rank_by="downside", topk=4, no_trade_band=0)
    result = backtest_rules(table, rules, prices.panel, trading, 5)
    net = result.returns["net"].loc[: stored.dates[-1]]
    found = compared["metrics"]["net_return"]["rank by downside"]
    assert found["dates"] == len(net)
    assert found["mean"] == pytest.approx(net.mean() * 252, rel=1e-9)


def _instruments(stored: ForecastSet) -> list[str]:
    return sorted(stored.frame().index.get_level_values("instrument").unique())


def test_rules_can_be_given_by_name(folder):
    rules = ("--rule", "few:topk=2", "many:topk=8,weighting=score")
    found = run("strategies_compared.py", folder, *rules)["compare"]
    assert found["versions"] == ["few", "many"]
    assert (
        found["provenance"]["many"]["rules"]
        == "topk=8, weighting=score, correlation_bars=60, no_trade_band=0"
    )


def test_each_weighting_is_sized_by_each_kind_of_volatility(folder):
    found = run("volatility_rules.py", folder, "--every", 5, "--target", 0.1, "--block", 10)
    assert set(found) == {"inverse_volatility", "risk_parity", "volatility_target"}
    kinds = ["20 days", "EWMA", "paths, calibrated", "paths, raw"]
    assert found["inverse_volatility"]["versions"] == [*kinds, "equal weights"]
    assert found["volatility_target"]["versions"] == kinds
    assert "volatility_deviation" in found["volatility_target"]["metrics"]
    assert "volatility_deviation" not in found["risk_parity"]["metrics"]
    turnover = found["inverse_volatility"]["metrics"]["turnover"]
    assert turnover["EWMA"]["difference"] != 0
    means = pd.Series({name: row["mean"] for name, row in turnover.items()})
    assert means.idxmin() == "equal weights"
    assert np.isfinite(means).all()
