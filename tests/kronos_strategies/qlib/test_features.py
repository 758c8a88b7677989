"""Kronos as features of Qlib's own models: the handler, what is learned from, one qrun for each set of features."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from qlib.contrib.data.handler import Alpha158
from qlib.data import D
from qlib.data.dataset.handler import DataHandlerLP

from kronos.predictor import KronosPredictor
from kronos_strategies.lookahead import check_causal
from kronos_strategies.qlib.checks import check_task
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.features import KronosFeatures, PurgedDataset
from kronos_strategies.qlib.model import KronosModel
from kronos_strategies.signal import SIGNALS
from tests.kronos_strategies.cli.conftest import run

from .conftest import CONFIG, TINY, qrun, store_of, use_store

pytest.importorskip("lightgbm")

SPAN = ("2023-03-01", "2023-03-10")
WORKFLOW = CONFIG.parent / "lightgbm_kronos_features.yaml"


def handler(
    features=("embedding",), samples: int = 0, store: Path | None = None, **changes
) -> KronosFeatures:
    model = {"checkpoint": str(TINY), "device": "cpu", "samples": samples, "store": store and str(store)}
    settings = {"start_time": SPAN[0], "end_time": SPAN[1], "lookback": 30, "hold": 5, "model": model}
    return KronosFeatures(features=features, **settings | changes)


def features_of(made: KronosFeatures) -> pd.DataFrame:
    return made.fetch(col_set="feature")


def alpha158() -> Alpha158:
    label = (["Ref($close,-6)/Ref($close,-1)-1"], ["LABEL0"])
    return Alpha158("csi300", *SPAN, label=label)


def test_rows_labels_and_qlibs_own_columns_are_those_of_alpha158(in_store):
    reference, both, alone = alpha158(), handler(("alpha158", "embedding")), handler(("alpha158",))
    for key in (DataHandlerLP.DK_R, DataHandlerLP.DK_I, DataHandlerLP.DK_L):
        expected, joined, own = (
            each.fetch(col_set=["feature", "label"], data_key=key) for each in (reference, both, alone)
        )
        pd.testing.assert_frame_equal(joined[expected.columns], expected)
        pd.testing.assert_frame_equal(own, expected)


def test_an_embedding_is_that_of_the_window_and_missing_exactly_where_there_is_no_window(in_store):
    span = ("2023-01-03", "2023-03-31")
    windows = KronosDataset({"test": span}, lookback=30, hold=5).windows()
    hidden = KronosPredictor.from_pretrained(TINY, device="cpu").embed(windows)
    found = features_of(handler(start_time=span[0], end_time=span[1]))
    assert list(found.columns) == [f"HIDDEN{i}" for i in range(hidden.shape[1])]
    np.testing.assert_allclose(found.loc[windows.index], hidden, rtol=1e-4, atol=1e-5)
    rest = found.drop(windows.index)
    assert len(rest) > 0  # suspended members
    assert rest.isna().all(axis=None)


def test_a_first_bar_without_enough_history_has_a_row_and_no_value(in_store):
    found = features_of(handler(start_time="2022-01-03", end_time="2022-02-28"))
    known = found.notna().any(axis=1).groupby(level="datetime").any()
    assert not known.iloc[:29].any()
    assert known.iloc[30:].all()


def test_statistics_of_paths_are_the_signals_of_the_stored_forecasts(in_store, tmp_path, monkeypatch):
    model = KronosModel(str(TINY), device="cpu", samples=3, store=str(tmp_path))
    expected = model.signals(KronosDataset({"test": SPAN}, lookback=30, hold=5))
    monkeypatch.setattr(KronosPredictor, "forecast", None)  # every call fails
    found = features_of(handler(("paths",), samples=3, store=tmp_path))
    assert list(found.columns) == [f"PATHS_{name.upper()}" for name in SIGNALS]
    np.testing.assert_allclose(found.loc[expected.index], expected, rtol=1e-6)


def test_embeddings_are_read_again_from_the_store(in_store, tmp_path, monkeypatch):
    first = features_of(handler(store=tmp_path))
    monkeypatch.setattr(KronosPredictor, "embed", None)  # every call fails
    pd.testing.assert_frame_equal(
        features_of(handler(("alpha158", "embedding"), store=tmp_path))[first.columns], first
    )


def test_randomizing_all_bars_after_t_changes_no_feature_up_to_t(small_market, tmp_path):
    runs = iter(range(100))

    def run(bars: pd.DataFrame) -> pd.DataFrame:
        use_store(store_of(small_market, bars, tmp_path / f"store{next(runs)}"))
        return features_of(handler(("alpha158", "embedding", "paths"), samples=2)).dropna(axis=1, how="all")

    check_causal(run, small_market.bars, ["2023-03-02", "2023-03-07"])


def test_a_forecaster_without_hidden_states_gives_statistics_of_its_paths_and_no_embedding(in_store):
    walk = {"checkpoint": "baseline:random-walk", "samples": 4}
    found = features_of(handler(("paths",), model=walk))
    assert found["PATHS_SCORE"].notna().mean() > 0.9
    with pytest.raises(ValueError, match="'baseline:random-walk' has no hidden states"):
        handler(("embedding",), model=walk)


def test_a_pickled_handler_has_neither_networks_nor_data_and_loads_later_dates(in_store, tmp_path):
    made = handler(store=tmp_path)
    first, content = features_of(made), pickle.dumps(made)
    assert len(content) < 20_000
    restored = pickle.loads(content)
    restored.config(end_time="2023-03-15")
    restored.setup_data(init_type=DataHandlerLP.IT_LS)
    found = features_of(restored)
    assert found.index.get_level_values("datetime").max() == pd.Timestamp("2023-03-15")
    pd.testing.assert_frame_equal(found.loc[first.index], first)


def test_features_of_qlib_alone_load_no_checkpoint(in_store):
    made = handler(("alpha158",), model={"checkpoint": "/nowhere"})
    assert made.training_overlap_warnings(pd.Timestamp("2000-01-03")) == []


def test_a_checkpoint_that_may_have_seen_the_test_dates_is_a_warning(in_store):
    (found,) = handler().training_overlap_warnings(pd.Timestamp(SPAN[0]))
    assert "cutoff" in found


def test_a_model_learns_from_no_label_that_is_known_after_its_segment(in_store):
    made = handler(("alpha158",), start_time="2023-01-03", end_time="2023-03-31")
    dataset = PurgedDataset(
        made, {"train": ("2023-01-03", "2023-02-28"), "test": ("2023-03-01", "2023-03-31")}
    )
    learned = dataset.prepare("train", data_key=DataHandlerLP.DK_L)
    calendar = pd.DatetimeIndex(D.calendar())
    last = calendar.get_loc(learned.index.get_level_values("datetime").max())
    assert calendar[last + 6] == pd.Timestamp(
        "2023-02-28"
    )  # the exit of a position of 5 days, entered a day later
    scored = dataset.prepare("train", data_key=DataHandlerLP.DK_I)
    assert scored.index.get_level_values("datetime").max() == pd.Timestamp("2023-02-28")


def test_a_purged_dataset_takes_any_handler_if_the_span_of_its_label_is_given(in_store):
    segments, theirs = {"train": SPAN}, alpha158()
    with pytest.raises(ValueError, match="label_bars of a Alpha158 is unknown"):
        PurgedDataset(theirs, segments)
    learned = PurgedDataset(theirs, segments, label_bars=6).prepare("train", data_key=DataHandlerLP.DK_L)
    assert learned.index.get_level_values("datetime").max() == pd.Timestamp("2023-03-02")
    with pytest.raises(ValueError, match="No label over 6 bars is known by 2022-01-05"):
        PurgedDataset(theirs, {"train": ("2022-01-03", "2022-01-05")}, 6).prepare(
            "train", data_key=DataHandlerLP.DK_L
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": ("alpha360",)}, "features has the unknown 'alpha360'"),
        ({"features": ()}, "features is empty"),
        ({"features": ("paths",)}, "'paths' needs sampled paths, but samples=0"),
        ({"lookback": 600}, "lookback=600 is more than the model's context"),
        ({"hold": 0}, "hold=0 is too short"),
        ({"horizon": 5}, "horizon=5 is too short for the exit"),
        ({"deal_price": "high"}, "deal_price='high' is not tradable"),
    ],
)
def test_settings_that_do_not_fit_are_refused(in_store, change, message):
    with pytest.raises(ValueError, match=message):
        handler(**change)


def test_a_backtest_that_holds_longer_than_the_label_is_refused_before_features_are_computed(in_store):
    strategy = {"class": "TopkDropoutStrategy", "kwargs": {"topk": 5, "n_drop": 1, "hold_thresh": 10}}
    backtest = {"start_time": SPAN[0], "end_time": SPAN[1], "benchmark": "SH000300"}
    record = {"class": "PortAnaRecord", "kwargs": {"config": {"strategy": strategy, "backtest": backtest}}}
    dataset = {
        "class": "PurgedDataset",
        "kwargs": {"handler": {"class": "KronosFeatures", "kwargs": {"hold": 5}}},
    }
    with pytest.raises(ValueError, match="hold=5 but the strategy has hold_thresh=10"):
        check_task({"dataset": dataset, "record": [record]})


@pytest.fixture(scope="module")
def runs(small_store, empty_record, tmp_path_factory) -> Path:
    """LightGBM on Alpha158, on Kronos with two paths, and on both."""
    folder = tmp_path_factory.mktemp("features")
    shutil.copy(empty_record, folder / "mlflow.db")
    dates = {
        "KRONOS_TRAIN_START": "2022-10-10",
        "KRONOS_TRAIN_END": "2022-12-30",
        "KRONOS_VALID_END": "2023-02-10",
        "KRONOS_TEST_START": "2023-02-20",
        "KRONOS_TEST_END": "2023-04-14",
    }
    size = {"KRONOS_TOPK": "5", "KRONOS_N_DROP": "1", "KRONOS_LOOKBACK": "30", "KRONOS_STORE": "forecasts"}
    for features in ("alpha158", "kronos", "both"):
        done = qrun(
            folder, WORKFLOW, KRONOS_FEATURES=features, KRONOS_QLIB_DATA=str(small_store), **dates, **size
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_kronos_compare_shows_lightgbm_on_alpha158_on_kronos_and_on_both(runs, in_store, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    names = ["alpha158", "kronos", "both"]
    code, _, err = run(
        capsys, "compare", *(f"{name}=lightgbm_{name}" for name in names), "--json", "compare.json"
    )
    assert code == 0, err
    found = json.loads((runs / "compare.json").read_text())
    assert found["versions"] == names
    means = [found["metrics"]["rank_ic"][name]["mean"] for name in names]
    assert len(set(means)) == 3  # each set of features ranks in its own way


def test_the_report_of_such_a_run_names_features_and_warns_of_the_checkpoint(runs):
    reports = [file.read_text() for file in runs.glob("mlruns/*/*/artifacts/kronos/artifacts/metadata.json")]
    found = {text["metadata"]["settings"]["features"]: text["metadata"] for text in map(json.loads, reports)}
    assert set(found) == {"alpha158", "embedding, paths", "alpha158, embedding, paths"}
    warned = {name: any("cutoff" in each for each in made["warnings"]) for name, made in found.items()}
    assert warned == {"alpha158": False, "embedding, paths": True, "alpha158, embedding, paths": True}
    assert {made["hold"] for made in found.values()} == {5}
