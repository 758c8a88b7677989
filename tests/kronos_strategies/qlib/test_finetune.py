"""`KronosModel.fit` fine-tunes and calibrates on the segments train and valid; the run keeps the checkpoint.

docs/rolling.md shows a script that fits within a run, as these tests do.
"""

import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
from qlib.workflow import R

from kronos.head import ReturnHead
from kronos.predictor import KronosPredictor
from kronos_strategies.lookahead import randomize_future
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.experiment import active_recorder
from kronos_strategies.qlib.finetune import check_finetune
from kronos_strategies.qlib.model import KronosModel
from tests.kronos.builders import headed_pair

from .conftest import TINY, record_with, store_of

pytest.importorskip("accelerate")
STEPS = {
    "max_steps": 4,
    "batch_size": 8,
    "validate_every": 2,
    "validation_windows": 16,
    "learning_rate": 1e-3,
}
SEGMENTS = {
    "train": ("2022-01-03", "2022-09-30"),
    "valid": ("2022-10-10", "2022-12-30"),
    "test": ("2023-03-01", "2023-03-10"),
}


def dataset(**changes) -> KronosDataset:
    return KronosDataset(**{"segments": SEGMENTS, "market": "all", "lookback": 30, "hold": 1} | changes)


def model(**changes) -> KronosModel:
    return KronosModel(
        **{"checkpoint": str(TINY), "samples": 3, "device": "cpu", "finetune": STEPS} | changes
    )


def fitted(made: KronosModel, asked: KronosDataset) -> KronosModel:
    with R.start(experiment_name="fits"):
        made.fit(asked)
        R.save_objects(**{"params.pkl": made})
    return made


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A cache of training bars of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_fitted_checkpoint_is_an_artifact_that_the_pickled_model_finds_again(
    recorded, cached, tmp_path, monkeypatch
):
    made, asked = fitted(model(), dataset()), dataset()
    folder = made.tuned.path()
    assert folder.is_relative_to(tmp_path / "mlruns")
    assert {file.name for file in (folder / "predictor").iterdir()} == {
        "config.json",
        "model.safetensors",
        "training.json",
    }
    before = KronosPredictor.from_pretrained(str(TINY), device="cpu").provenance(made.sampling, "")
    assert made.current_provenance().weights_sha256 != before.weights_sha256
    scored = made.signals(asked)
    assert not np.allclose(scored["score"], model(finetune=None).signals(asked)["score"])
    saved = pickle.loads(next(tmp_path.glob("mlruns/*/*/artifacts/params.pkl")).read_bytes())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    pd.testing.assert_frame_equal(saved.signals(asked), scored)
    assert not any((tmp_path / "cache" / "kronos-strategies" / "finetune").rglob("*.safetensors"))


def test_a_deleted_checkpoint_is_one_sentence(recorded, cached):
    made = fitted(model(), dataset())
    shutil.rmtree(made.tuned.folder)
    with pytest.raises(FileNotFoundError, match=r"no longer has its fine-tuned checkpoint .* call fit again"):
        pickle.loads(pickle.dumps(made)).signals(dataset())


def test_without_settings_fit_changes_nothing_and_needs_no_run(recorded):
    made = model(finetune=None)
    before = made.current_provenance()
    made.fit(dataset())
    assert made.tuned is None
    assert made.current_provenance() == before


def test_training_ends_with_its_segment_and_validation_lies_within_its_own(recorded, cached):
    record = fitted(model(), dataset()).tuned.record
    (data,) = record["data"]
    assert "2022-09-01" < data["train_until"] <= "2022-09-30"
    assert data["validate_until"] == data["end"] == "2022-12-30"
    assert data["start"] == "2022-01-03"
    settings = record["settings"]
    assert (settings["validate_from"], settings["validate_until"]) == ("2022-10-10", "2022-12-30")


def test_bars_after_the_validation_change_no_weight_and_no_calibration(
    small_market, recorded, cached, tmp_path
):
    made = fitted(model(fit_calibration={"every": 2}), dataset())
    bars = randomize_future(small_market.bars, pd.Timestamp("2022-12-30"))
    changed = store_of(small_market, bars, tmp_path / "changed")
    other = fitted(model(fit_calibration={"every": 2}), on(changed))
    assert other.tuned.record["data"][0]["instruments"] == made.tuned.record["data"][0]["instruments"]
    ours, theirs = (
        KronosPredictor.from_pretrained(str(each.tuned.path()), device="cpu").model.state_dict()
        for each in (made, other)
    )
    for name, weight in ours.items():
        np.testing.assert_allclose(theirs[name], weight, rtol=1e-4, atol=1e-5)
    (first,), (second,) = made.calibrated.fits, other.calibrated.fits
    assert first.known_at[:10] <= "2022-12-30"
    assert first.windows == second.windows
    np.testing.assert_allclose(second.groups[""].spread, first.groups[""].spread, rtol=0.05, atol=0.02)


def on(store) -> KronosDataset:
    """The dataset, of another store, with runs recorded as before."""
    record_with(store)
    return dataset()


def test_a_head_and_a_calibration_are_fitted_to_the_new_weights_and_saved_with_them(recorded, cached):
    made = fitted(model(fit_head="ridge", fit_every=3, fit_calibration={"every": 2}), dataset())
    sha256 = made.current_provenance().weights_sha256
    assert made.fitted.info.weights_sha256 == made.calibrated.weights_sha256 == sha256
    scored = made.signals(dataset())
    assert made.choice.heads == (made.fitted,)
    assert made.postprocessing.calibration == made.calibrated
    # The folder alone is the same checkpoint.
    alone = KronosModel(str(made.tuned.path()), samples=3, device="cpu")
    pd.testing.assert_frame_equal(alone.signals(dataset()), scored, rtol=1e-4, atol=1e-6)
    assert ReturnHead.from_pretrained(made.tuned.path()).sha256 == made.fitted.sha256


def test_the_head_of_a_checkpoint_is_trained_with_it(recorded, cached, tmp_path):
    pair = headed_pair(TINY, tmp_path / "headed", 48, lookback=30)
    made = fitted(model(checkpoint=str(pair), samples=0), dataset())
    head = ReturnHead.from_pretrained(made.tuned.path())
    assert head.sha256 != ReturnHead.from_pretrained(pair).sha256
    assert head.info.trained_until is None or head.info.trained_until <= "2022-12-30"
    made.signals(dataset())
    assert [each.sha256 for each in made.choice.heads] == [head.sha256]
    without = fitted(model(checkpoint=str(pair), finetune=STEPS | {"head_weight": 0}), dataset())
    assert not (without.tuned.path() / "predictor" / "head.json").exists()


def test_a_calibration_of_frozen_weights_is_kept_by_the_model(recorded):
    made = model(finetune=None, fit_calibration={"every": 2})
    made.fit(dataset())
    assert made.tuned is None
    scored = made.signals(dataset())
    assert made.postprocessing.calibration == made.calibrated
    restored = pickle.loads(pickle.dumps(made))
    pd.testing.assert_frame_equal(restored.signals(dataset()), scored)
    assert not np.allclose(model(finetune=None).signals(dataset())["deviation"], scored["deviation"])


def test_a_list_of_instruments_is_fine_tuned_on_alone(recorded, cached):
    names = ["SH600000", "SH600001", "SH600002"]
    known = dataset().windows().index.get_level_values("instrument").unique()
    names = sorted(known)[:3]
    made = fitted(model(), dataset(market=names))
    (data,) = made.tuned.record["data"]
    assert data["instruments"] == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 5}, r"unknown settings \['steps'\].*'max_steps'"),
        ({"train_until": "2022-01-01"}, "finetune.train_until follows from the dataset"),
        ({"max_steps": 0}, "max_steps=0 is too small"),
        ({"learning_rate": "fast"}, "learning_rate"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_read(settings, message):
    with pytest.raises(ValueError, match=message):
        check_finetune(settings)


def test_a_calibration_without_paths_or_in_addition_to_another_is_refused():
    with pytest.raises(ValueError, match="fit_calibration needs paths, but samples=0"):
        model(samples=0, fit_calibration={})
    with pytest.raises(ValueError, match="calibration='none' asks for another"):
        model(calibration="none", fit_calibration={})
    with pytest.raises(ValueError, match=r"unknown settings \['days'\]"):
        model(fit_calibration={"days": 5})


def test_fine_tuning_without_a_run_or_without_segments_says_so(recorded):
    assert active_recorder() is None
    with pytest.raises(ValueError, match=r"there is none\. Call fit within"):
        model().fit(dataset())
    with R.start(experiment_name="fits"), pytest.raises(ValueError, match=r"no segment \['train', 'valid'\]"):
        model().fit(dataset(segments={"test": SEGMENTS["test"]}))
    with pytest.raises(ValueError, match="finetune trains networks, and 'baseline:ewma' has none"):
        model(checkpoint="baseline:ewma").fit(dataset())
    backwards = {**SEGMENTS, "train": SEGMENTS["valid"], "valid": SEGMENTS["train"]}
    with R.start(experiment_name="fits"), pytest.raises(ValueError, match="not after segment 'train'"):
        model().fit(dataset(segments=backwards))


def test_the_settings_of_a_run_that_was_killed_while_training_continue_it(recorded, cached, monkeypatch):
    from kronos.training.run_directory import RunDirectory

    honest = RunDirectory.save_state

    def kill(self, accelerator, network, progress):
        honest(self, accelerator, network, progress)
        raise KeyboardInterrupt

    monkeypatch.setattr(RunDirectory, "save_state", kill)  # at step 2 of 4
    with pytest.raises(KeyboardInterrupt):
        fitted(model(), dataset())
    R.end_exp()
    steps = []

    def count(self, accelerator, network, progress):
        steps.append(progress.step)
        honest(self, accelerator, network, progress)

    monkeypatch.setattr(RunDirectory, "save_state", count)
    assert fitted(model(), dataset()).tuned is not None
    assert steps == [4]
