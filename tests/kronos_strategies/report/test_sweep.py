"""The page of a sweep: its verdict, its heat map, and text that cannot become markup."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("plotly")
pytest.importorskip("arch")

from kronos_strategies.backtest.inputs import BacktestSettings
from kronos_strategies.backtest.trading import TradingRules
from kronos_strategies.backtest.trials import SweepResult
from kronos_strategies.evaluation.portfolio.overfitting import evaluate_overfitting
from kronos_strategies.evaluation.portfolio.sharpe import infer_sharpe
from kronos_strategies.portfolio import PortfolioRules
from kronos_strategies.report.figures.portfolio import heat_map, relative_ranks
from kronos_strategies.report.sweep import render, save_sweep, summarize_sweep, sweep_warnings

TOPK, BUFFER = (10, 20, 50), (0, 25)


def sweep_of(skill: float, error: str = "", earlier: int = 0, bars: int = 500) -> SweepResult:
    """Six settings, the last of which earns `skill` per bar more than noise of 1 %."""
    shocks = np.random.default_rng(0).normal(0, 0.01, (bars, len(TOPK) * len(BUFFER)))
    shocks[:, -1] += skill
    returns = pd.DataFrame(shocks, pd.bdate_range("2022-01-03", periods=bars))
    pairs = [(topk, buffer) for topk in TOPK for buffer in BUFFER]
    rows = []
    for (topk, buffer), name in zip(pairs, returns, strict=True):
        found = infer_sharpe(returns[name], trials=len(pairs))
        rows.append(
            {
                "topk": topk, "rank_buffer": buffer, "sharpe": found.sharpe, "sharpe_low": found.low,
                "sharpe_high": found.high, "psr": found.psr, "annual_return": 0.1, "volatility": 0.16,
                "max_drawdown": -0.2, "calmar": 0.5, "turnover": topk / 100, "annual_cost": 0.01, "positions": topk,
                "dsr": found.dsr, "error": "",
            }
        )  # fmt: skip
    table = pd.DataFrame(rows).sort_values("sharpe", ascending=False, ignore_index=True)
    if error:
        table.loc[len(table)] = {"topk": 99, "rank_buffer": 0, "error": error}
        table["error"] = table["error"].fillna("")
    best = BacktestSettings(PortfolioRules(), TradingRules(), 5, 5, trials=6)
    return SweepResult(
        table, ("topk", "rank_buffer"), best, 6 + earlier, evaluate_overfitting(returns), returns
    )


def test_skill_and_noise_are_told_apart():
    good, noise = sweep_of(0.004), sweep_of(0.0)
    assert summarize_sweep(good).status == "good"
    assert summarize_sweep(noise).status == "none"
    assert not list(sweep_warnings(good))
    assert "without skill could reach this Sharpe ratio after 6 trials" in " ".join(sweep_warnings(noise))


def test_a_choice_that_is_below_the_median_out_of_sample_is_warned_of():
    result = sweep_of(0.0)
    pbo = result.overfitting.pbo
    warned = "choosing the best of these settings is no better than choosing any" in " ".join(
        sweep_warnings(result)
    )
    assert warned == (pbo >= 0.5)


def test_failures_and_earlier_trials_are_warned_of():
    warnings = " ".join(sweep_warnings(sweep_of(0.004, error="it needs amounts", earlier=3)))
    assert "1 setting fails and does not count, for example: it needs amounts" in warnings
    assert "3 trials of earlier sweeps on the same data count as well" in warnings


def test_a_cell_of_the_heat_map_is_the_mean_over_all_other_parameters():
    table = pd.DataFrame(
        {
            "topk": [10, 10, 50, 50, 10],
            "every": [1, 5, 1, 5, 1],
            "weighting": list("aaaab"),
            "sharpe": [1, 2, 3, 4, 5],
        }
    )
    trace = heat_map(table, "topk", "every", "sharpe", ".2f").data[0]
    assert (list(trace.x), list(trace.y)) == (["10", "50"], ["1", "5"])
    np.testing.assert_array_equal(trace.z, [[3, 3], [2, 4]])
    np.testing.assert_array_equal(trace.customdata, [[2, 1], [1, 1]])
    text = heat_map(table, "weighting", "topk", "sharpe", ".2f").data[0]
    assert list(text.x) == ["a", "b"]
    assert np.isnan(text.z[1, 1])


def test_many_random_values_are_grouped():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"band": rng.uniform(0, 0.1, 200), "topk": rng.integers(1, 4, 200), "sharpe": 1.0})
    trace = heat_map(table, "band", "topk", "sharpe", ".2f").data[0]
    assert len(trace.x) == 8
    assert trace.customdata.sum() == 200


def test_ranks_of_all_splits_are_counted():
    overfitting = sweep_of(0.004).overfitting
    trace = relative_ranks(overfitting).data[0]
    assert trace.y.sum() == pytest.approx(1)
    assert trace.y[trace.x < 0.5].sum() == pytest.approx(overfitting.pbo, abs=0.01)


def test_the_files_are_equal_for_equal_results_and_without_external_resources(tmp_path):
    for name in ("one", "two"):
        save_sweep(sweep_of(0.002), tmp_path / name)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name
    page = (tmp_path / "one" / "sweep.html").read_text()
    ours = page.partition("<script>")[0]  # what follows is the library of the charts
    assert "default-src 'none'" in ours
    assert not re.search(r'(src|href)="(?!data:)[^"#]', ours)
    charts = re.findall(r'data-chart="([\w-]+)"', page)
    assert charts == ["heat-map", "sharpe-by-rank", "relative-ranks"]
    metrics = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert (metrics["trials"], metrics["failed"]) == (6, 0)
    assert metrics["best_sharpe"] == pd.read_csv(tmp_path / "one" / "sweep.csv")["sharpe"].max()


def test_text_of_a_failure_is_escaped():
    page = render(sweep_of(0.0, error="<script>alert(1)</script>"))
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_one_parameter_has_no_heat_map_and_few_bars_no_cross_validation():
    result = sweep_of(0.0, bars=30)
    one = SweepResult(
        result.table.drop(columns="rank_buffer"),
        ("topk",),
        result.best,
        6,
        result.overfitting,
        result.returns,
    )
    page = render(one)
    assert "A heat map needs two parameters" in page
    assert "Cross-validation needs at least two different settings and 32 bars" in page
