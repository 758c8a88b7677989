"""A recorded run is found by its id, reported again without forecasting, and compared with others."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from kronos.utils import git_commit
from kronos_strategies.comparison_inputs import compare_inputs, load_artifacts, load_input
from kronos_strategies.evaluation.signal.neutralization import read_industries
from kronos_strategies.qlib.experiment import TRACKING, KronosRecorder, absolute
from kronos_strategies.qlib.tracking import FORECASTS, count_trials, find_run
from kronos_strategies.run_artifacts import RunArtifacts
from tests.kronos_strategies.cli.conftest import run as command

from .conftest import TINY, artifact_folder

SPAN = ("--start", "2023-05-08", "--end", "2023-06-09")


@pytest.fixture(scope="module")
def folder(run, cache) -> Path:
    """Folder in which the run was started."""
    process, folder = run
    assert process.returncode == 0, process.stderr[-3000:]
    return folder


@pytest.fixture
def inside(folder, cache, monkeypatch) -> Path:
    """The working directory of the run, with its cache."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    for name in [name for name in os.environ if name.startswith(("KRONOS_", "MLFLOW_TRACKING"))]:
        monkeypatch.delenv(name)  # MLflow sets the latter itself
    return folder


@pytest.fixture(scope="module")
def run_id(folder) -> str:
    return artifact_folder(folder).parents[1].name


def record(run_id: str, folder: Path):
    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").get_run(run_id).data


def test_model_settings_data_and_code_are_recorded(run_id, folder):
    params, metrics = record(run_id, folder).params, record(run_id, folder).metrics
    assert params["kronos.model"] == str(TINY)
    assert (params["kronos.samples"], params["kronos.horizon"], params["kronos.hold"]) == ("2", "6", "5")
    assert params["kronos.score"] == "paths"
    for name in ("weights_sha256", "data_sha256"):
        assert len(params[f"kronos.{name}"]) == 64
    assert params["kronos.code_commit"] == (git_commit() or "-")
    page = json.loads((artifact_folder(folder) / "metrics.json").read_text())
    assert metrics["rank_ic"] == page["rank_ic"]
    assert metrics["trials"] == 1


def test_another_strategy_is_another_trial_and_another_seed_or_span_is_not(run_id, inside):
    run = find_run(run_id)
    recorder = KronosRecorder(run.info.experiment_id, absolute(TRACKING), mlflow_run=run)
    params = {name: value for name, value in run.data.params.items() if name.startswith("kronos.")}
    assert '"topk": 10' in params["kronos.trading"]
    assert "2023-05-08" not in params["kronos.trading"]
    assert count_trials(recorder, params) == 1
    same = {"kronos.seed": "7", "kronos.data_sha256": "0" * 64, "kronos.code_commit": "1" * 40}
    assert count_trials(recorder, params | same) == 1
    for name, value in (
        ("trading", params["kronos.trading"].replace('"topk": 10', '"topk": 11')),
        ("T", "0.3"),
    ):
        assert count_trials(recorder, params | {f"kronos.{name}": value}) == 2


def test_the_artifacts_have_what_qlib_traded(folder):
    artifacts = RunArtifacts.read(artifact_folder(folder) / "artifacts")
    traded = pd.read_pickle(artifact_folder(folder).parent / "portfolio_analysis" / "report_normal_1day.pkl")
    net = (traded["return"] - traded["cost"]).loc[artifacts.result.returns.index]
    np.testing.assert_allclose(artifacts.result.returns["net"], net)
    invested = artifacts.result.weights.groupby("datetime").sum()
    value, cash = traded["value"].loc[invested.index], traded["cash"].loc[invested.index]
    np.testing.assert_allclose(invested, value / (value + cash), rtol=1e-6)
    label = pd.read_pickle(artifact_folder(folder).parent / "label.pkl").iloc[:, 0]
    own = artifacts.labels[5]
    np.testing.assert_allclose(own, label.reindex(own.index), rtol=1e-6)
    from_bars = artifacts.market.lookup(artifacts.market.forward_return(5), own.index)
    np.testing.assert_allclose(own.dropna(), from_bars[own.notna()], atol=1e-6)  # Qlib's are float32


def test_a_score_is_neutralized_for_industries_where_they_are_known(folder):
    sectors = pd.read_csv(folder / "sectors.csv", index_col="instrument")["industry"]
    known = RunArtifacts.read(artifact_folder(folder) / "artifacts").exposures["industry"]
    assert known.nunique() > 3
    assert (known == known.index.get_level_values("instrument").map(sectors)).all()
    neutral = pd.read_csv(artifact_folder(folder) / "neutralized_rank_ic.csv", index_col=0)
    assert {"none", "volatility", "reversal", "size", "beta", "industry", "all"} == set(neutral.index)


def test_an_instrument_of_two_industries_is_refused(tmp_path):
    file = tmp_path / "twice.csv"
    file.write_text("instrument,industry\n000001,banks\n000002,steel\n000001,shops\n")
    with pytest.raises(ValueError, match="has several industries of 000001"):
        read_industries(file)


def test_report_makes_the_same_page_again_by_id_and_by_folder(run_id, inside, capsys, tmp_path):
    logged = (artifact_folder(inside) / "report.html").read_bytes()
    for name in (run_id[:8], str(artifact_folder(inside))):
        code, out, err = command(capsys, "report", name, "--output", tmp_path / name[:4].strip("/"))
        assert (code, err) == (0, "")
        assert "RankIC" in out
        assert (tmp_path / name[:4].strip("/") / "report.html").read_bytes() == logged


def test_a_run_and_its_own_forecasts_have_a_difference_of_exactly_zero(run_id, inside):
    (store,) = (inside / "forecasts").glob("*/*")
    candidates = [load_input(each, "sqlite:///mlflow.db", None, 5) for each in (run_id, f"store={store}")]
    assert [candidate.version.name for candidate in candidates] == [f"kronos_tiny-{run_id[:8]}", "store"]
    comparison = compare_inputs(candidates)
    paired = comparison.table[comparison.table["version"] == "store"]
    assert set(paired["metric"]) >= {"rank_ic", "spread", "crps_h1", "qlike_h1"}
    np.testing.assert_allclose(paired["difference"], 0, atol=1e-12)
    assert set(comparison.baselines["version"]) >= {"5-day reversal", "low 20-day volatility"}
    assert set(comparison.decay["horizon"]) >= {1, 5}


def test_kronos_forecast_is_on_record_and_compares_by_its_id(run_id, inside, capsys):
    options = ("--model", TINY, "--samples", 2, "--device", "cpu", *SPAN)
    code, _, err = command(capsys, "store", "fill", "others", *options, "--seed", 5, "--temperature", 0.5)
    assert code == 0, err
    client = MlflowClient("sqlite:///mlflow.db")
    (experiment,) = client.search_experiments(filter_string=f"name = '{FORECASTS}'")
    (made,) = client.search_runs([experiment.experiment_id])
    assert made.info.status == "FINISHED"
    assert (made.data.params["kronos.T"], made.data.params["kronos.seed"]) == ("0.5", "5")
    assert made.data.metrics["dates"] == 25
    code, out, err = command(
        capsys, "compare", f"first={run_id[:8]}", f"other={made.info.run_id}", "--json", "compare.json",
        "--html", "compare.html", "--gate", "rank_ic>=-1",
    )  # fmt: skip
    assert code == 0, err
    written = json.loads(Path("compare.json").read_text())
    assert written["versions"] == ["first", "other"]
    assert written["metrics"]["rank_ic"]["other"]["difference"] != 0
    assert written["provenance"]["other"]["sampling"].startswith("2 paths, T=0.5")
    assert Path("compare.html").stat().st_size > 1_000_000
    assert "Passed" in out


def test_a_run_can_be_reported_together_with_another(run_id, inside, capsys, tmp_path):
    (store,) = (inside / "forecasts").glob("*/*")
    code, _, err = command(capsys, "report", run_id, "--compare-with", f"again={store}", "--output", tmp_path)
    assert code == 0, err
    page = (tmp_path / "report.html").read_text()
    assert 'id="versions"' in page
    assert "again" in page


def test_an_experiment_means_its_latest_finished_run(run_id, inside):
    tracking = absolute(TRACKING)
    assert find_run("kronos_csi300").info.run_id == run_id
    client = MlflowClient(tracking_uri=tracking)
    experiment = client.get_experiment_by_name("kronos_csi300").experiment_id
    failed, later = client.create_run(experiment), client.create_run(experiment)
    client.set_terminated(failed.info.run_id, "FAILED")
    try:
        assert find_run("kronos_csi300").info.run_id == run_id  # the others failed, or still run
        client.set_terminated(later.info.run_id)
        assert find_run("kronos_csi300").info.run_id == later.info.run_id
    finally:
        for made in (failed, later):
            client.delete_run(made.info.run_id)


def test_an_unknown_run_is_refused_with_the_known_ones(run_id, inside, tmp_path, monkeypatch):
    latest = f"a run or a finished experiment in sqlite:///.*mlflow.db, whose latest runs are .*{run_id[:8]}"
    with pytest.raises(ValueError, match=latest):
        find_run("ffffffff")
    with pytest.raises(ValueError, match="is not a file, a folder of forecasts or of a report, a run"):
        find_run(run_id[:3])  # too short to be meant
    with pytest.raises(FileNotFoundError, match=r"neither forecasts .* Did you mean .*kronos_tiny"):
        load_input("forecasts", "sqlite:///mlflow.db", None, 1)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no record of runs at .*--tracking"):
        load_artifacts("ffffffff", "sqlite:///mlflow.db")
    assert not (tmp_path / "mlflow.db").exists()


def test_forecasts_too_short_for_the_trade_are_refused(inside):
    (store,) = (inside / "forecasts").glob("*/*")
    with pytest.raises(
        ValueError, match=r"forecasts of 6 bars, too short for a holding period of 9.*--horizon 10"
    ):
        load_input(str(store), "sqlite:///mlflow.db", None, 9)
