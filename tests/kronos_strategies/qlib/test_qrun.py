"""`qrun configs/kronos_csi300.yaml` as a user runs it: a process of its own, in an empty folder."""

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("qlib")
from mlflow.tracking import MlflowClient

from kronos_strategies.run_artifacts import RunArtifacts
from kronos_strategies.store import ForecastStore
from tests.kronos_strategies.warm import run_warm

from .conftest import artifact_folder, qrun

METRICS = ("ic", "icir", "rank_ic", "rank_icir", "annual_return", "sharpe", "max_drawdown")


def test_qrun_works_from_any_folder_and_simulates_its_market_on_first_use(run, cache):
    process, _ = run
    assert process.returncode == 0, process.stderr[-3000:]
    assert (cache / "kronos-strategies" / "simulated-v2" / "calendars" / "day.txt").is_file()
    assert "SIMULATED" in process.stderr
    assert "KRONOS_QLIB_DATA" in process.stderr


def test_qrun_prints_one_table_and_the_paths_of_saved_files(run):
    process, folder = run
    assert re.search(r"Kronos .*[+−]0\.\d{4}", process.stdout)
    for name in ("12-1 momentum", "5-day reversal", "strategy, net of costs", "benchmark", "equal weight"):
        assert name in process.stdout
    for name in ("report.html", "metrics.json"):
        assert str(artifact_folder(folder) / name) in process.stdout
        assert (artifact_folder(folder) / name).is_file()


def test_metrics_json_is_flat_and_agrees_with_qlibs_own_analysis(run):
    _, folder = run
    metrics = json.loads((artifact_folder(folder) / "metrics.json").read_text())
    assert set(METRICS) <= set(metrics)
    assert all(value is None or isinstance(value, int | float) for value in metrics.values())
    analysis = artifact_folder(folder).parent / "sig_analysis"
    assert metrics["ic"] == pytest.approx(pd.read_pickle(analysis / "ic.pkl").mean(), abs=1e-9)
    assert metrics["rank_ic"] == pytest.approx(pd.read_pickle(analysis / "ric.pkl").mean(), abs=1e-9)


def test_strategy_metrics_are_net_of_costs_and_compounded(run):
    _, folder = run
    metrics = json.loads((artifact_folder(folder) / "metrics.json").read_text())
    traded = pd.read_pickle(artifact_folder(folder).parent / "portfolio_analysis" / "report_normal_1day.pkl")
    net = (traded["return"] - traded["cost"]).loc[traded.index[traded["turnover"] > 0][0] :]
    assert net.index[0] == traded.index[1]  # a signal dated t is bought on t + 1
    wealth = np.concatenate([[1.0], (1 + net).cumprod()])
    assert metrics["max_drawdown"] == pytest.approx((wealth / np.maximum.accumulate(wealth) - 1).min())
    assert metrics["annual_return"] == pytest.approx(wealth[-1] ** (252 / len(net)) - 1)
    assert metrics["sharpe"] == pytest.approx(net.mean() / net.std() * 252**0.5)
    assert traded["cost"].sum() > 0


def test_metrics_with_the_name_of_qlib_are_those_that_qlib_logged(run):
    _, folder = run
    metrics = json.loads((artifact_folder(folder) / "metrics.json").read_text())
    analysis = pd.read_pickle(
        artifact_folder(folder).parent / "portfolio_analysis" / "port_analysis_1day.pkl"
    )["risk"]
    logged = (
        MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
        .get_run(artifact_folder(folder).parents[1].name)
        .data.metrics
    )
    table = pd.read_csv(artifact_folder(folder) / "qlib_metrics.csv", index_col="metric")
    for figure in ("annualized_return", "information_ratio", "max_drawdown"):
        theirs = analysis["excess_return_with_cost"][figure]
        name = f"excess_over_benchmark_{figure}"
        assert metrics[f"qlib_{name}"] == pytest.approx(theirs, abs=1e-9)
        assert logged[f"qlib_{name}"] == pytest.approx(
            logged[f"1day.excess_return_with_cost.{figure}"], abs=1e-9
        )
        assert table.loc[name, "value"] == pytest.approx(theirs, abs=1e-9)
        if figure != "max_drawdown":
            assert table.loc[name, "from_first_purchase"] != pytest.approx(theirs, abs=1e-6)
    page = (artifact_folder(folder) / "report.html").read_text()
    assert "Metrics start with the bar of the first purchase: 1 bar before it" in page


def test_every_scored_row_is_a_forecast_in_the_store(run):
    _, folder = run
    (forecast_set,) = ForecastStore(folder / "forecasts").forecast_sets()
    signals = pd.read_parquet(artifact_folder(folder) / "signals.parquet")
    assert forecast_set.frame().index.equals(signals.index)
    np.testing.assert_array_equal(forecast_set.frame()["expected_return"], signals["expected_return"])
    assert str(Path("forecasts")) in (artifact_folder(folder) / "report.html").read_text()


def test_every_member_row_is_accounted_for(run):
    _, folder = run
    signals = pd.read_parquet(artifact_folder(folder) / "signals.parquet")
    page = (artifact_folder(folder) / "report.html").read_text()
    assert "compared" in page
    assert signals.index.is_unique
    members, *others = RunArtifacts.read(
        artifact_folder(folder) / "artifacts"
    ).metadata.sample_counts.values()
    assert members == sum(others) > len(signals)
    assert members - others[0] == len(signals)  # all that have a forecast


def test_the_run_is_kept_in_a_database_and_outside_git_it_prints_no_usage(run):
    process, folder = run
    assert (folder / "mlflow.db").is_file()
    assert "usage: git diff" not in process.stdout + process.stderr


def test_a_wrong_store_fails_with_one_sentence_that_helps(tmp_path):
    process = qrun(tmp_path, KRONOS_QLIB_DATA=str(tmp_path / "nowhere"))
    assert process.returncode != 0
    assert "is not a Qlib data directory" in process.stderr
    assert "kronos data import" in process.stderr


@pytest.mark.slow
def test_the_same_file_runs_on_real_csi300_bars(shared_data, run_folder):
    store, prices, index = run_folder / "csi300", "csi300_2020_2023.parquet", "csi_index_2005_2023.parquet"
    kronos = Path(sys.executable).parent / "kronos"
    files = (shared_data / prices, "--benchmark", shared_data / index)
    imported = run_warm([kronos, "data", "import", *files, "--to", store], run_folder, os.environ)
    assert imported.returncode == 0, imported.stderr[-3000:]
    span = {"KRONOS_TEST_START": "2022-03-01", "KRONOS_TEST_END": "2022-03-31"}
    process = qrun(run_folder, KRONOS_QLIB_DATA=str(store), **span)
    assert process.returncode == 0, process.stderr[-3000:]
    assert "SIMULATED" not in process.stderr
    metrics = json.loads((artifact_folder(run_folder) / "metrics.json").read_text())
    assert metrics["dates"] == 23  # trading days of March 2022
    signals = pd.read_parquet(artifact_folder(run_folder) / "signals.parquet")
    assert signals.groupby(level="datetime").size().min() > 250
    flat = signals["deviation"] == 0  # all paths of an instrument that no longer moves agree
    ratios = ["risk_adjusted", "conviction", "skew"]
    assert flat.mean() < 0.01
    assert signals.loc[flat, ratios].isna().all(axis=None)
    assert np.isfinite(signals.drop(columns=ratios).to_numpy()).all()
    assert np.isfinite(signals.loc[~flat, ratios].to_numpy()).all()
