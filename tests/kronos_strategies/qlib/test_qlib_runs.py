"""Runs of other Qlib models, with Qlib's own records: compared, reported, and recorded by KronosRecord."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.tracking import MlflowClient
from qlib.model.trainer import task_train

from kronos_strategies.comparison_inputs import load_artifacts, load_input
from kronos_strategies.qlib.pickles import Foreign, read_settings_pickle, read_table_pickle
from kronos_strategies.qlib.qlib_runs import label_of
from tests.kronos_strategies.cli.conftest import run as command

pytest.importorskip("lightgbm")

TEST = ("2023-03-01", "2023-05-31")
WORKFLOW = """
model:
  class: LGBModel
  module_path: qlib.contrib.model.gbdt
  kwargs: {loss: mse, num_leaves: 8, num_threads: 1, num_boost_round: 5, verbosity: -1}
dataset:
  class: DatasetH
  module_path: qlib.data.dataset
  kwargs:
    handler:
      class: Alpha158
      module_path: qlib.contrib.data.handler
      kwargs:
        instruments: csi300
        start_time: 2022-06-01
        end_time: 2023-05-31
        fit_start_time: 2022-06-01
        fit_end_time: 2022-12-31
    segments:
      train: ["2022-06-01", "2022-12-31"]
      valid: ["2023-01-03", "2023-02-28"]
      test: ["2023-03-01", "2023-05-31"]
record:
  - {class: SignalRecord, module_path: qlib.workflow.record_temp}
  - class: PortAnaRecord
    module_path: qlib.workflow.record_temp
    kwargs:
      config:
        strategy:
          class: TopkDropoutStrategy
          module_path: qlib.contrib.strategy
          kwargs: {signal: <PRED>, topk: 4, n_drop: 1}
        backtest:
          start_time: 2023-03-01
          end_time: 2023-05-31
          account: 100000000
          benchmark: SH000300
          exchange_kwargs: {deal_price: close, limit_threshold: 0.095}
"""


@pytest.fixture(scope="module")
def folder(small_store, empty_record, tmp_path_factory) -> Path:
    """Folder of two runs of LightGBM on Alpha158: with Qlib's records, and with ours after them."""
    import qlib

    folder, before = tmp_path_factory.mktemp("lightgbm"), Path.cwd()
    shutil.copy(empty_record, folder / "mlflow.db")
    os.chdir(folder)
    try:
        manager = {
            "class": "KronosExpManager",
            "module_path": "kronos_strategies.qlib.experiment",
            "kwargs": {"uri": "sqlite:///mlflow.db", "default_exp_name": "lightgbm"},
        }
        init = {"provider_uri": str(small_store), "region": "cn", "kernels": 1, "exp_manager": manager}
        qlib.init(**init, skip_if_reg=False)
        task = yaml.safe_load(WORKFLOW)
        # `qrun` keeps the whole file, with the model where a record names it as <MODEL>.
        recorder = task_train(task, experiment_name="plain")
        kept = {"record": [{"kwargs": {"model": recorder.load_object("params.pkl")}}]}
        recorder.save_objects(config={"qlib_init": init, "task": kept})
        task["record"].append({"class": "KronosRecord", "module_path": "kronos_strategies.qlib.record"})
        task_train(task, experiment_name="reported")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def inside(folder, monkeypatch) -> Path:
    monkeypatch.chdir(folder)
    for name in [name for name in os.environ if name.startswith(("KRONOS_", "MLFLOW_TRACKING"))]:
        monkeypatch.delenv(name)
    return folder


def run_of(folder: Path, experiment: str) -> tuple[str, Path]:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return run.info.run_id, Path(run.info.artifact_uri.removeprefix("file://"))


def test_a_run_is_a_version_by_its_id_its_artifacts_and_its_prediction(inside):
    run_id, artifacts = run_of(inside, "plain")
    prediction, label = (pd.read_pickle(artifacts / f"{name}.pkl") for name in ("pred", "label"))
    for argument in (run_id[:8], str(artifacts), str(artifacts / "pred.pkl")):
        found = load_input(argument, "sqlite:///mlflow.db", None, 5)
        assert found.horizon == 1
        pd.testing.assert_series_equal(
            found.version.score, prediction["score"].dropna(), check_names=False, check_freq=False
        )
        own = found.labels[1].dropna()
        np.testing.assert_allclose(own, label.iloc[:, 0].reindex(own.index), rtol=1e-6)
        assert set(found.labels) >= {1, 5}
        assert "5-day reversal" in found.baselines


def test_versions_are_compared_by_any_of_these_names(inside, capsys):
    run_id, artifacts = run_of(inside, "plain")
    other = run_of(inside, "reported")[0]
    code, _, err = command(
        capsys, "compare", f"a={run_id}", f"b={artifacts / 'pred.pkl'}", f"c={other}", "--json", "out.json"
    )
    assert code == 0, err
    comparison = json.loads(Path("out.json").read_text())
    assert comparison["versions"] == ["a", "b", "c"]
    assert comparison["metrics"]["rank_ic"]["b"]["difference"] == pytest.approx(0, abs=1e-12)
    assert comparison["metrics"]["rank_ic"]["c"]["difference"] == pytest.approx(0, abs=1e-9)


def test_a_run_is_reported_with_its_own_backtest(inside, capsys, tmp_path):
    run_id, artifacts = run_of(inside, "plain")
    code, out, err = command(capsys, "report", run_id, "--output", tmp_path / "report")
    assert code == 0, err
    assert "LGBModel" in out
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    analysis = pd.read_pickle(artifacts / "portfolio_analysis" / "port_analysis_1day.pkl")["risk"]
    assert metrics["qlib_excess_over_benchmark_information_ratio"] == pytest.approx(
        analysis["excess_return_with_cost"]["information_ratio"], abs=1e-9
    )
    by_folder = load_artifacts(
        str(artifacts), "sqlite:///mlflow.db"
    )  # positions are not tables: without weights
    assert by_folder.result is not None
    assert by_folder.result.weights.empty
    own = load_artifacts(run_id, "sqlite:///mlflow.db").result
    pd.testing.assert_frame_equal(by_folder.result.returns, own.returns)


def test_our_record_works_after_another_model(inside):
    run_id, artifacts = run_of(inside, "reported")
    metrics = json.loads((artifacts / "kronos" / "metrics.json").read_text())
    assert np.isfinite(metrics["rank_ic"])
    assert (artifacts / "kronos" / "report.html").stat().st_size > 1_000_000
    params = MlflowClient(f"sqlite:///{inside / 'mlflow.db'}").get_run(run_id).data.params
    assert params["kronos.model"] == "LGBModel"
    artifacts = load_artifacts(run_id, "sqlite:///mlflow.db")
    assert next(iter(artifacts.scores)) == "LGBModel"
    assert artifacts.metadata.title == "LGBModel on csi300"


def test_a_run_is_reported_by_its_prediction_too(inside, capsys, tmp_path):
    _, artifacts = run_of(inside, "plain")
    code, _, err = command(capsys, "report", artifacts / "pred.pkl", "--output", tmp_path / "report")
    assert code == 0, err
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["rank_ic"] is not None


def test_runs_with_different_holding_periods_are_compared_at_the_chosen_one(inside, tmp_path, capsys):
    _, artifacts = run_of(inside, "plain")
    longer = tmp_path / "longer"
    longer.mkdir()
    shutil.copy(artifacts / "pred.pkl", longer)
    task = pd.read_pickle(artifacts / "task")
    task["dataset"]["kwargs"]["handler"]["kwargs"]["label"] = ["Ref($close, -6)/Ref($close, -1) - 1"]
    for name, content in {"task": task, "config": pd.read_pickle(artifacts / "config")}.items():
        (longer / name).write_bytes(pickle.dumps(content))
    given = ("compare", f"a={artifacts}", f"b={longer}")
    code, _, err = command(capsys, *given)
    assert code == 2
    assert "{'a': 1, 'b': 5} bars. Choose one to evaluate all of them by" in " ".join(err.split())
    for horizon in ("1", "3", "5"):
        code, _, err = command(capsys, *given, "--label-horizon", horizon, "--json", tmp_path / "out.json")
        assert code == 0, err
        found = json.loads((tmp_path / "out.json").read_text())
        assert found["label_horizon"] == int(horizon)
        assert found["metrics"]["rank_ic"]["b"]["difference"] == pytest.approx(0, abs=1e-12)
        other = [each for each in found["warnings"] if "is evaluated by returns" in each]
        assert len(other) == (2 if horizon == "3" else 1)
    code, _, err = command(capsys, *given, "--label-horizon", "4")
    assert code == 2
    assert "no returns over 4 bars, only over [1, 2, 3, 5, 10, 20]" in " ".join(err.split())


def test_without_a_label_returns_come_from_the_bars(inside, small_store, tmp_path):
    _, artifacts = run_of(inside, "plain")
    shutil.copy(artifacts / "pred.pkl", tmp_path / "pred.pkl")
    alone = load_input(f"alone={tmp_path / 'pred.pkl'}", "sqlite:///mlflow.db", None, 5)
    assert alone.labels is None
    found = load_input(f"alone={tmp_path / 'pred.pkl'}", "sqlite:///mlflow.db", small_store, 5)
    label = pd.read_pickle(artifacts / "label.pkl").iloc[:, 0]
    own = found.labels[1].dropna()
    np.testing.assert_allclose(own, label.reindex(own.index), atol=1e-6)


def test_the_span_of_a_label_is_inferred_from_the_bars_where_it_is_not_recorded(
    inside, small_store, tmp_path
):
    from qlib.data import D

    from .conftest import use_store

    _, artifacts = run_of(inside, "plain")
    use_store(small_store)
    label = (
        D.features(D.instruments("csi300"), ["Ref($open,-4)/Ref($open,-1)-1"], *TEST).swaplevel().sort_index()
    )
    shutil.copy(artifacts / "pred.pkl", tmp_path / "pred.pkl")
    label.to_pickle(tmp_path / "label.pkl")
    found = load_input(str(tmp_path), "sqlite:///mlflow.db", small_store, 1)
    assert found.horizon == 3
    assert found.version.provenance["label"] == "open(t+4) / open(t+1) - 1"


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ({"dataset": {"kwargs": {"handler": {"class": "Alpha158"}}}}, (1, "close")),
        (
            {
                "dataset": {
                    "kwargs": {
                        "handler": {
                            "class": "Alpha158",
                            "kwargs": {"label": ["Ref($open, -6)/Ref($open, -1) - 1"]},
                        }
                    }
                }
            },
            (5, "open"),
        ),
        ({"dataset": {"class": "KronosDataset", "kwargs": {"hold": 3}}}, (3, "close")),
        ({}, (None, "close")),
    ],
)
def test_the_span_of_a_label_is_read_from_the_task(task, expected):
    assert label_of(task) == expected


class Evil:
    def __reduce__(self):
        return os.system, ("touch stolen",)


@pytest.mark.parametrize("content", [Evil(), {"a": [Evil()]}, np.memmap, pd.read_pickle, pd.HDFStore])
def test_an_untrusted_pickle_runs_no_code(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    Path("pred.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"pred.pkl cannot be read as a table of pandas and numpy"):
        load_input("pred.pkl", "sqlite:///mlflow.db", None, 1)
    assert not Path("stolen").exists()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_tables_are_read_as_they_were_written(tmp_path, protocol):
    days = pd.bdate_range("2023-01-02", periods=3)
    index = pd.MultiIndex.from_product([days, ["A", "B"]], names=["datetime", "instrument"])
    table = pd.DataFrame({"score": np.arange(6.0), "name": list("abcabc")}, index)
    for each in (table, table["score"], {"when": (pd.Timestamp("2023-01-02"), np.float64(2))}):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(each, protocol))
        read = read_table_pickle(tmp_path / "x.pkl")
        assert read == each if isinstance(each, dict) else read.equals(each)


def test_settings_from_elsewhere_are_read_without_their_objects(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    foreign = [Evil(), Path("/x"), 1.5, os.system]
    settings = {"qlib_init": {"provider_uri": "/store"}, "model": Evil(), "more": foreign}
    Path("config").write_bytes(pickle.dumps(settings))
    read = read_settings_pickle(Path("config"))
    assert not Path("stolen").exists()
    assert read["qlib_init"] == settings["qlib_init"]
    assert read["more"][2] == 1.5
    assert isinstance(read["model"], Foreign)
    assert read["more"][3] is Foreign


def test_another_pickle_is_refused_with_a_way_out(tmp_path):
    pd.Series([1.0]).to_pickle(tmp_path / "scores.pkl")
    with pytest.raises(ValueError, match=r"not called pred.pkl.*to_parquet"):
        load_input(str(tmp_path / "scores.pkl"), "sqlite:///mlflow.db", None, 1)
