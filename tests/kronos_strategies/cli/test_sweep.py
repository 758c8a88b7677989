"""`kronos sweep` as a user runs it: from a YAML file, a store and bars to a table, a page and a report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

pytest.importorskip("statsmodels")
pytest.importorskip("arch")
pytest.importorskip("plotly")

from kronos_strategies.run_artifacts import RunArtifacts

from .conftest import run

GRID = {
    "hold": [2, 5],
    "every": 2,
    "rules": {"topk": [3, 6], "rank_buffer": 2, "weighting": ["equal", "inverse_volatility"]},
    "trading": {"price": "close", "min_cost": 0, "lot": 0},
}
CONFIG = Path(__file__).parents[3] / "configs" / "sweep.yaml"


def write(values: dict) -> Path:
    file = Path("sweep.yaml")
    file.write_text(yaml.safe_dump(values))
    return file


def sweep(capsys, folder, values, *more):
    words = ("--store", folder / "forecasts", "--data", folder / "qlib", "--output", "out", "--workers", 1)
    code, out, err = run(capsys, "sweep", write(values), *words, *more)
    return code, " ".join(out.split()), " ".join(err.split())


@pytest.mark.integration
def test_the_table_has_every_setting_and_the_best_one_gets_the_report_of_kronos_backtest(walk_folder, capsys):
    code, out, err = sweep(capsys, walk_folder, GRID)
    assert (code, err) == (0, "")
    table = pd.read_csv("out/sweep.csv")
    assert len(table) == 8
    assert set(zip(table["hold"], table["topk"], table["weighting"], strict=True)) == {
        (hold, topk, w) for hold in (2, 5) for topk in (3, 6) for w in ("equal", "inverse_volatility")
    }
    assert table["sharpe"].is_monotonic_decreasing
    assert (table["sharpe_low"] < table["sharpe"]).all()
    assert "sweep.html" in out
    assert "best/report.html" in out
    metrics = json.loads(Path("out/metrics.json").read_text())
    assert (metrics["trials"], metrics["settings"], metrics["failed"]) == (8, 8, 0)
    assert 0 <= metrics["pbo"] <= 1
    made = RunArtifacts.read(Path("out/best/artifacts"))
    assert made.metadata.trials == 8, "the report says how many trials the setting cost"
    best = table.iloc[0]
    report = json.loads(Path("out/best/metrics.json").read_text())
    for name in (
        "sharpe",
        "sharpe_low",
        "sharpe_high",
        "psr",
        "dsr",
        "annual_return",
        "max_drawdown",
        "turnover",
    ):
        assert report[name] == pytest.approx(best[name], rel=1e-9), name

    rules = f"topk={best['topk']},rank_buffer=2,weighting={best['weighting']}"
    words = (
        "--store",
        "--rules",
        rules,
        "--trading",
        "min_cost=0,lot=0",
        "--hold",
        int(best["hold"]),
        "--every",
        2,
    )
    data = ("--data", walk_folder / "qlib", "--output", "alone")
    assert run(capsys, "backtest", walk_folder / "forecasts", *words, *data)[0] == 0
    alone = RunArtifacts.read(Path("alone/artifacts")).result
    pd.testing.assert_frame_equal(made.result.returns, alone.returns)
    stored = pd.read_parquet("out/sweep.parquet")
    np.testing.assert_allclose(stored["sharpe"], table["sharpe"])


@pytest.mark.integration
def test_the_shipped_file_runs(walk_folder, capsys):
    words = ("--store", walk_folder / "forecasts", "--data", walk_folder / "qlib", "--workers", 1)
    values = yaml.safe_load(CONFIG.read_text())
    values["rules"]["topk"] = [4, 8]
    code, _, err = run(capsys, "sweep", write(values), *words)
    assert (code, err.strip()) == (0, "")
    assert Path("out/sweep/sweep.html").is_file()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rule": {}}, "'rule' is not a setting of a sweep. Did you mean 'rules'?"),
        ({"topk": [3, 4]}, "'topk' is not a setting of a sweep. Write it below `rules:`."),
        ({"rules": {"top_k": [3, 4]}}, "'top_k' is not a field of PortfolioRules. Did you mean 'topk'?"),
        ({"trading": {"lots": 5}}, "'lots' is not a field of TradingRules. Did you mean 'lot'?"),
        ({"rules": {"topk": [3, 0]}}, "topk=0 is out of range"),
        ({"hold": 7}, "hold=7 needs forecasts of 8 bars"),
        ({"start": "2024-01-02"}, "has 0 forecast dates from 2024-01-02"),
    ],
)
def test_a_mistake_is_one_sentence(walk_folder, capsys, values, message):
    code, out, err = sweep(capsys, walk_folder, values)
    assert (code, out) == (2, "")
    assert message in err


def test_a_store_must_be_named(capsys):
    code, _, err = run(capsys, "sweep", write({"rules": {"topk": 5}}))
    assert (code, "names no store. Write `store:` or pass --store." in " ".join(err.split())) == (2, True)
    code, _, err = run(capsys, "sweep", "nowhere.yaml")
    assert (code, "nowhere.yaml is not a file" in " ".join(err.split())) == (2, True)
