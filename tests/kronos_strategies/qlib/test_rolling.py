"""Walk-forward versions: each date is scored by one that has not seen it, and none is fitted twice."""

import pickle
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from qlib.data import D
from qlib.workflow import R

from kronos.config import CARD
from kronos_strategies.lookahead import check_causal
from kronos_strategies.qlib.artifacts import collect_artifacts
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.market_inputs import open_paths
from kronos_strategies.qlib.model import KronosModel
from kronos_strategies.qlib.rolling import FITTED_TO, RollingModel
from kronos_strategies.run_artifacts import RunArtifacts
from tests.kronos_strategies.cli.conftest import run
from tests.kronos_strategies.warm import Script

from .conftest import CONFIG, TINY, qrun, qrun_command_line, qrun_environment, record_with, store_of

pytest.importorskip("accelerate")
FINETUNE = {
    "max_steps": 2,
    "batch_size": 8,
    "validate_every": 2,
    "validation_windows": 16,
    "learning_rate": 1e-3,
}
SEGMENTS = {
    "train": ("2022-01-03", "2022-09-30"),
    "valid": ("2022-10-10", "2022-12-30"),
    "test": ("2023-01-03", "2023-02-17"),
}
STEP = 15


@pytest.fixture(scope="module")
def bars_cache(tmp_path_factory):
    """Where training bars are kept, of which each version reads others."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def runs(recorded, bars_cache, monkeypatch):
    """Runs are recorded in a folder of their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(bars_cache))
    return recorded


def dataset(**changes) -> KronosDataset:
    return KronosDataset(**{"segments": SEGMENTS, "market": "all", "lookback": 30, "hold": 1} | changes)


def config(**changes) -> dict[str, object]:
    kwargs = {"checkpoint": str(TINY), "samples": 2, "device": "cpu", "finetune": FINETUNE} | changes
    return {"class": "KronosModel", "module_path": "kronos_strategies.qlib.model", "kwargs": kwargs}


def rolling(step: int = STEP, rtype: str = "expanding", **changes) -> RollingModel:
    return RollingModel(config(**changes), step=step, rtype=rtype)


def spans(made: RollingModel, asked: KronosDataset, name: str) -> list[tuple[pd.Timestamp, pd.Timestamp]]:
    return [task["dataset"]["kwargs"]["segments"][name] for task in made.tasks(asked)]


class Fitted(NamedTuple):
    """Versions with weights, a head and a calibration of their own, as a run of Qlib has fitted them."""

    folder: Path
    versions: RollingModel
    outer: str
    active_after: str


@pytest.fixture(scope="module")
def fitted(small_store, empty_record, bars_cache, tmp_path_factory) -> Fitted:
    """Three versions, fitted once for the tests that only read them."""
    folder = tmp_path_factory.mktemp("fitted")
    shutil.copy(empty_record, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(bars_cache))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        record_with(small_store)
        more = {"fit_head": "ridge", "fit_every": 4, "fit_calibration": {"every": 2}}
        made = rolling(samples=4, prediction="signals", **more)
        with R.start(experiment_name="outer"):
            outer = R.get_recorder().id
            made.fit(dataset())
            return Fitted(folder, made, outer, R.get_recorder().id)


@pytest.fixture
def read(fitted, small_store, monkeypatch) -> Fitted:
    """The fitted versions, where Qlib finds their runs."""
    monkeypatch.chdir(fitted.folder)
    record_with(small_store)
    return fitted


@pytest.mark.parametrize(("rtype", "starts"), [("expanding", {0}), ("sliding", {0, 15, 30})])
def test_each_version_is_fitted_on_the_past_of_the_next_dates(in_store, rtype, starts):
    made, asked = rolling(rtype=rtype), dataset()
    calendar = pd.DatetimeIndex(D.calendar())
    train, valid, test = (spans(made, asked, name) for name in ("train", "valid", "test"))
    assert [calendar.get_loc(end) - calendar.get_loc(train[0][1]) for _, end in train] == [0, 15, 30]
    assert {calendar.get_loc(start) - calendar.get_loc(train[0][0]) for start, _ in train} == starts
    for (_, learned), (begun, selected), (first, last) in zip(train, valid, test, strict=True):
        assert learned < begun < selected < first <= last
    scored = [calendar[(calendar >= first) & (calendar <= last)] for first, last in test]
    wanted = calendar[(calendar >= "2023-01-03") & (calendar <= "2023-02-17")]
    assert list(np.concatenate(scored)) == list(wanted), "each date of the test once"


def test_the_last_version_may_begin_anywhere_near_the_end_of_the_calendar(in_store):
    calendar = pd.DatetimeIndex(D.calendar(future=True))
    last = pd.Timestamp(D.calendar()[-1])
    first = calendar[calendar.get_loc(last) - 4]
    asked = dataset(segments={**SEGMENTS, "test": (first, None)})
    for step in range(1, len(calendar) - calendar.get_loc(last) + 6):
        test = spans(rolling(step), asked, "test")
        assert test[0][0] == first
        assert test[-1][1] == last


def test_every_date_is_scored_by_its_own_version_alone(read):
    made, asked = read.versions, dataset()
    scored = made.predict(asked)
    assert scored.index.equals(asked.windows().index)
    for version, (first, last) in zip(made.versions, spans(made, asked, "test"), strict=True):
        assert version.first == first
        own = version.model.predict(asked, slice(first, last))
        pd.testing.assert_frame_equal(scored.loc[first:last], own)
    weights = [version.model.current_provenance().weights_sha256 for version in made.versions]
    assert len(set(weights)) == 3
    # A pickle has the versions, and scores later dates by the last one.
    restored = pickle.loads(pickle.dumps(made))
    pd.testing.assert_frame_equal(restored.predict(asked), scored)
    newest = made.versions[-1]
    later = slice(newest.first, "2023-03-10")
    pd.testing.assert_frame_equal(restored.predict(asked, later), newest.model.predict(asked, later))
    with pytest.raises(ValueError, match="first version scores from 2023-01-03, and 2022-12-30 is earlier"):
        made.predict(asked, slice("2022-12-30", "2023-01-10"))


def test_randomizing_all_bars_after_t_changes_no_score_up_to_t(small_market, runs, tmp_path):
    numbers = iter(range(100))

    def run(bars: pd.DataFrame) -> pd.DataFrame:
        record_with(store_of(small_market, bars, tmp_path / f"store{next(numbers)}"))
        made, asked = rolling(samples=0, fit_head="ridge", fit_every=4), dataset()
        made.fit(asked)
        return made.predict(asked).to_frame()

    # On the first date of a version, and in the middle of one.
    check_causal(run, small_market.bars, ["2023-01-24", "2023-02-06"], rtol=2e-3)


def test_recorded_versions_are_not_fitted_again(runs, monkeypatch):
    made, asked = rolling(), dataset()
    made.fit(asked)
    fits = []
    honest = KronosModel.fit
    monkeypatch.setattr(KronosModel, "fit", lambda *given: (fits.append(given), honest(*given)))
    again = rolling()
    again.fit(asked)
    assert fits == []
    assert [version.run_id for version in again.versions] == [version.run_id for version in made.versions]
    pd.testing.assert_series_equal(again.predict(asked), made.predict(asked))
    # A version that was killed, or lost its checkpoint, is.
    client = MlflowClient(R.exp_manager.uri)
    client.set_terminated(made.versions[0].run_id, "FAILED")
    shutil.rmtree(made.versions[2].model.tuned.folder)
    third = rolling()
    third.fit(asked)
    assert len(fits) == 2
    assert third.versions[1].run_id == made.versions[1].run_id
    pd.testing.assert_series_equal(third.predict(asked), made.predict(asked))
    # Other settings are other versions; a longer test is the same ones and one more.
    fits.clear()
    rolling(finetune=FINETUNE | {"learning_rate": 2e-3}).fit(asked)
    assert len(fits) == 3
    fits.clear()
    longer = rolling(workers=1, store="kept")
    longer.fit(dataset(segments={**SEGMENTS, "test": ("2023-01-03", "2023-03-10")}))
    assert len(fits) == 1
    assert {version.model.store for version in longer.versions} == {"kept"}


def test_each_version_is_a_run_with_its_dates_hashes_and_parent(read):
    made, asked, outer = read.versions, dataset(), read.outer
    assert read.active_after == outer, "the outer run is active again"
    client = MlflowClient(R.exp_manager.uri)
    for version, task in zip(made.versions, made.tasks(asked), strict=True):
        run = client.get_run(version.run_id)
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == outer
        for name, (start, end) in task["dataset"]["kwargs"]["segments"].items():
            assert run.data.params[f"kronos.{name}"] == f"{start:%Y-%m-%d} to {end:%Y-%m-%d}"
        known = version.model.current_provenance()
        assert run.data.params["kronos.weights_sha256"] == known.weights_sha256
        assert run.data.params["kronos.parent"] == str(TINY)
        assert run.data.params["kronos.parent_sha256"] != known.weights_sha256
        assert run.data.params["kronos.calibration"] == version.model.calibrated.id
        assert run.data.params["kronos.head_sha256"] == version.model.fitted.sha256
        assert {"val_loss", "start_val_loss", "head_validation_dates"} <= set(run.data.metrics)
        assert len(run.data.tags[FITTED_TO]) == 64
    assert client.get_run(outer).info.status == "FINISHED"


def test_a_version_that_fails_leaves_the_outer_run_active_and_is_recorded_as_failed(runs, monkeypatch):
    def fail(*given):
        raise ValueError("no")

    made = rolling()
    monkeypatch.setattr(KronosModel, "fit", fail)
    with R.start(experiment_name="outer"):
        outer = R.get_recorder().id
        with pytest.raises(ValueError, match="no"):
            made.fit(dataset())
        assert R.get_recorder().id == outer
    client = MlflowClient(R.exp_manager.uri)
    versions = client.get_experiment_by_name("kronos_versions")
    assert [run.info.status for run in client.search_runs([versions.experiment_id])] == ["FAILED"]


def test_warnings_name_the_dates_of_the_versions_that_have_seen_them(runs, tmp_path):
    known = shutil.copytree(TINY, tmp_path / "known")
    (known / CARD).write_text("---\ntrained_until: 2023-01-31\n---\n")
    made, asked = rolling(checkpoint=str(known)), dataset()
    made.fit(asked)
    trained = [version.model.current_provenance().trained_until for version in made.versions]
    assert trained == ["2023-01-31", "2023-01-31", "2023-02-13"]
    (warning,) = made.scored(asked).warnings()
    assert warning.startswith("Scores from 2023-01-03, 2023-01-24: The checkpoint was trained on data until")
    honest = shutil.copytree(TINY, tmp_path / "honest")
    (honest / CARD).write_text("---\ntrained_until: 2021-12-31\n---\n")
    made = rolling(checkpoint=str(honest))
    made.fit(asked)
    assert made.scored(asked).warnings() == []
    for version in made.versions:
        assert pd.Timestamp(version.model.current_provenance().trained_until) < version.first


def test_the_report_reads_each_forecast_with_the_calibration_of_its_version(read):
    made, asked = read.versions, dataset()
    scored = made.scored(asked)
    assert len(scored.forecasts) == len(asked.windows().index.unique("datetime"))
    used = {forecast.index[0][0]: scored.postprocess(forecast).calibration for forecast in scored.forecasts}
    for version, (first, last) in zip(made.versions, spans(made, asked, "test"), strict=True):
        own = {used[date].id for date in used if first <= date <= last}
        assert own == {version.model.calibrated.id}
        assert pd.Timestamp(version.model.calibrated.known_at) < first
    label = asked.prepare("test", "label").iloc[:, 0]
    artifacts = collect_artifacts(scored, scored.signals[["score"]], label, None, None, 1)
    assert artifacts.paths.uncalibrated.index.equals(artifacts.paths.summary.index)
    described = [name for name in artifacts.metadata.settings if name.startswith("scores from ")]
    assert described == [f"scores from {version.first:%Y-%m-%d}" for version in made.versions]
    assert artifacts.provenance.model == "kronos_tiny, rolling"


def test_settings_that_cannot_roll_are_refused_in_one_sentence(in_store):
    with pytest.raises(ValueError, match="has nothing to fit"):
        rolling(finetune=None)
    with pytest.raises(ValueError, match="step=0 is too small"):
        rolling(step=0)
    for wrong in ({}, config() | {"class": "KronosModl"}, config() | {"kwargs": {"finetun": {}}}):
        with pytest.raises(ValueError, match=r"of RollingModel does not give a KronosModel \("):
            RollingModel(wrong)
    with pytest.raises(ValueError, match="rtype='growing' is unknown"):
        rolling(rtype="growing")
    overlapping = {**SEGMENTS, "valid": ("2022-10-10", "2023-01-05")}
    with pytest.raises(ValueError, match="would score dates that it has seen"):
        rolling().tasks(dataset(segments=overlapping))
    with pytest.raises(ValueError, match=r"no segment \['valid'\]"):
        rolling().tasks(dataset(segments={k: v for k, v in SEGMENTS.items() if k != "valid"}))
    with pytest.raises(ValueError, match="Call fit first"):
        rolling().predict(dataset())
    with pytest.raises(ValueError, match="which a RollingModel does not pass on"):
        open_paths(rolling())


def settings(store, **more: str) -> dict[str, str]:
    """Settings of `configs/kronos_rolling.yaml` on the small store: three versions of two steps."""
    return {
        "KRONOS_QLIB_DATA": str(store), "KRONOS_MARKET": "all", "KRONOS_TOPK": "4", "KRONOS_N_DROP": "1",
        "KRONOS_LOOKBACK": "30", "KRONOS_HOLD": "1",
        "KRONOS_TRAIN_START": "2022-01-03", "KRONOS_TRAIN_END": "2022-09-30", "KRONOS_VALID_END": "2022-12-30",
        "KRONOS_TEST_START": "2023-01-03", "KRONOS_TEST_END": "2023-02-17", "KRONOS_STEP": "15",
        "KRONOS_MAX_STEPS": "2", "KRONOS_VALIDATE_EVERY": "2", "XDG_CACHE_HOME": "cache", **more,
    }  # fmt: skip


def finished_versions(folder) -> list[str]:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("kronos_versions")
    if experiment is None:
        return []
    return [
        run.info.run_id
        for run in client.search_runs([experiment.experiment_id], "attributes.status = 'FINISHED'")
    ]


@pytest.mark.slow
def test_qrun_walks_forward_continues_after_a_kill_and_is_compared_with_the_frozen_version(
    small_store, recorded, capsys
):
    folder, config_file = recorded, CONFIG.with_name("kronos_rolling.yaml")
    environment = qrun_environment(**settings(small_store))
    process = Script(qrun_command_line(config_file), folder, environment)
    deadline = time.monotonic() + 300
    while not (before := finished_versions(folder)) and process.poll() is None:
        assert time.monotonic() < deadline, "no version was recorded within five minutes"
        time.sleep(0.1)
    process.kill()
    process.finished()
    assert before
    rerun = qrun(folder, config_file, **settings(small_store))
    assert rerun.returncode == 0, rerun.stderr[-3000:]
    assert set(before) <= set(finished_versions(folder))
    assert len(finished_versions(folder)) == 3, "none is fitted twice"
    assert f"found in run {before[-1][:8]}" in rerun.stderr
    frozen = qrun(folder, **settings(small_store))
    assert frozen.returncode == 0, frozen.stderr[-3000:]
    named = ("frozen=kronos_csi300", "rolling=kronos_rolling")
    code, out, err = run(capsys, "compare", *named, "--html", "compare.html")
    assert code == 0, err
    assert "on 34 dates" in out
    page = (folder / "compare.html").read_text()
    assert "scores from 2023-01-24" in page
    (place,) = {file.parent for file in folder.glob("mlruns/*/*/artifacts/kronos/artifacts") if rolled(file)}
    artifacts = RunArtifacts.read(place / "artifacts")
    assert artifacts.scores.index.unique("datetime")[0] == pd.Timestamp("2023-01-03")
    assert len(artifacts.scores.index.unique("datetime")) == 34
    assert artifacts.result is not None
    assert (place / "report.html").is_file()


def rolled(folder) -> bool:
    return RunArtifacts.read(folder).provenance.model == "kronos_tiny, rolling"
