"""Return heads in Qlib: scores, their choice, a head fitted in `fit`, and one qrun of all of it."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest

from kronos.head import ReturnHead
from kronos.predictor import KronosPredictor
from kronos_strategies.lookahead import check_causal
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.model import KronosModel
from kronos_strategies.run_artifacts import RunArtifacts
from kronos_strategies.signal import SIGNALS
from tests.kronos.builders import headed_pair, make_head

from .conftest import CONFIG, TINY, artifact_folder, qrun, store_of, use_store

SPAN = ("2023-03-01", "2023-03-10")
WIDTH = 48  # of the tiny reference checkpoint


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The tiny checkpoint with a random head for 30 bars."""
    return headed_pair(TINY, tmp_path_factory.mktemp("pair") / "headed", WIDTH, lookback=30)


def dataset(hold: int = 5, **changes) -> KronosDataset:
    return KronosDataset(**{"segments": {"test": SPAN}, "lookback": 30, "hold": hold} | changes)


def model(pair, **changes) -> KronosModel:
    return KronosModel(**{"checkpoint": str(pair), "samples": 2, "device": "cpu"} | changes)


def by_hand(pair, windows, column: int) -> np.ndarray:
    hidden = KronosPredictor.from_pretrained(pair, device="cpu").embed(windows)
    return ReturnHead.from_pretrained(pair)(hidden)[:, column]


@pytest.mark.parametrize(("hold", "column"), [(1, 0), (5, 1), (10, 2)])
def test_the_score_is_the_heads_output_for_the_holding_and_the_rest_stays_the_paths(
    in_store, pair, hold, column
):
    asked = dataset(hold)
    scored, paths = model(pair).signals(asked), model(pair, score="paths").signals(asked)
    assert list(scored.columns) == list(SIGNALS)
    np.testing.assert_allclose(scored["score"], by_hand(pair, asked.windows(), column), rtol=1e-4, atol=1e-5)
    others = list(SIGNALS[1:])
    pd.testing.assert_frame_equal(scored[others], paths[others])
    assert not np.allclose(scored["score"], paths["score"])


@pytest.mark.parametrize("change", [{"hold": 3}, {"deal_price": "open"}, {"lookback": 25}])
def test_a_use_that_the_head_was_not_trained_for_is_scored_by_paths(in_store, pair, change):
    asked = dataset(**change)
    automatic, paths = model(pair), model(pair, score="paths")
    pd.testing.assert_frame_equal(automatic.signals(asked), paths.signals(asked))
    assert automatic.choice.heads == ()


def test_without_samples_the_score_is_the_only_column_and_nothing_is_sampled(in_store, pair, monkeypatch):
    expected = model(pair).signals(dataset())[["score"]]
    monkeypatch.setattr(KronosPredictor, "forecast", None)  # every call fails
    pd.testing.assert_frame_equal(model(pair, samples=0).signals(dataset()), expected)


def test_without_samples_and_without_a_fitting_head_the_error_says_why(in_store, pair):
    with pytest.raises(ValueError, match="a holding period of 3 bars is not one of 1, 5 and 10"):
        model(pair, samples=0).signals(dataset(hold=3))
    with pytest.raises(ValueError, match="the checkpoint has no return head"):
        model(TINY, samples=0).signals(dataset())
    with pytest.raises(ValueError, match="needs paths, but samples=0"):
        model(pair, samples=0, score="paths")


@pytest.mark.parametrize("forecast_set", [True, False])
def test_scrambling_all_bars_after_t_changes_no_head_score_up_to_t(
    small_market, pair, tmp_path, forecast_set
):
    runs = iter(range(100))

    def run(bars: pd.DataFrame) -> pd.DataFrame:
        use_store(store_of(small_market, bars, tmp_path / f"store{next(runs)}"))
        store = str(tmp_path / "forecasts") if forecast_set else None
        return model(pair, samples=0, store=store).signals(dataset())

    check_causal(run, small_market.bars, ["2023-03-02", "2023-03-07"])


def test_scores_are_found_again_in_the_store_by_the_heads_hash(in_store, pair, tmp_path, monkeypatch):
    first = model(pair, samples=0, store=str(tmp_path)).signals(dataset())
    honest = KronosPredictor.embed
    monkeypatch.setattr(KronosPredictor, "embed", None)  # every call fails
    again = model(pair, samples=0, store=str(tmp_path))
    pd.testing.assert_frame_equal(again.signals(dataset()), first)
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(again)).signals(dataset()), first)
    monkeypatch.setattr(KronosPredictor, "embed", honest)
    other = headed_pair(TINY, tmp_path / "other", WIDTH, lookback=30, seed=1)
    assert not np.allclose(model(other, samples=0, store=str(tmp_path)).signals(dataset()), first)


def test_heads_by_name_are_averaged_as_ranks(in_store, pair, tmp_path):
    other = headed_pair(TINY, tmp_path / "other", WIDTH, lookback=30, seed=1)
    asked = dataset()
    both = model(pair, samples=0, heads=f"{pair}, {other}").signals(asked)["score"]
    parts = []
    for each in (pair, other):
        output = pd.Series(by_hand(each, asked.windows(), 1), both.index).groupby(level="datetime")
        parts.append(((output.rank() - 1) / (output.transform("size") - 1) - 0.5) * 12**0.5)
    np.testing.assert_allclose(both, (parts[0] + parts[1]) / 2, atol=1e-9)


def test_a_head_fitted_on_other_weights_is_refused(in_store, tmp_path):
    head = make_head(WIDTH, lookback=30, kind="ridge", checkpoint=str(TINY), weights_sha256="0" * 64)
    head.save(tmp_path / "head")
    with pytest.raises(ValueError, match=r"was fitted on weights of .* that differ"):
        model(TINY, heads=[str(tmp_path / "head")])


SEGMENTS = {
    "train": ("2022-03-01", "2022-09-30"),
    "valid": ("2022-09-30", "2023-01-31"),
    "test": SPAN,
}  # of market="all": a label needs 20 instruments


@pytest.mark.parametrize("kind", ["ridge", "lightgbm"])
def test_a_head_fitted_in_fit_scores_without_samples(in_store, kind, tmp_path):
    if kind == "lightgbm":
        pytest.importorskip("lightgbm")
    fits = model(TINY, samples=0, fit_head=kind, fit_every=3, fit_seeds=1, store=str(tmp_path / "kept"))
    asked = dataset(segments=SEGMENTS, market="all")
    with pytest.raises(ValueError, match="Call fit first"):
        fits.signals(asked)
    fits.fit(asked)
    scored = fits.signals(asked)
    assert scored["score"].groupby(level="datetime").std().gt(0).all()
    assert fits.fitted.info.kind == kind
    assert fits.fitted.info.trained_until == "2023-01-31"
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(fits)).signals(asked), scored)
    # Saved, it is a head like any other.
    fits.fitted.save(tmp_path / "head")
    named = model(TINY, samples=0, heads=str(tmp_path / "head"))
    pd.testing.assert_frame_equal(named.signals(dataset(market="all")), scored, rtol=1e-4, atol=1e-6)


def test_fit_uses_no_bar_after_the_validation(small_market, tmp_path):
    def fitted(bars: pd.DataFrame, name: str) -> ReturnHead:
        use_store(store_of(small_market, bars, tmp_path / name))
        fits = model(TINY, samples=0, fit_head="ridge", fit_every=4)
        fits.fit(dataset(segments=SEGMENTS, market="all"))
        return fits.fitted

    bars = small_market.bars.copy()
    later = bars["datetime"] > "2023-01-31"
    for price in ("open", "high", "low", "close"):
        bars.loc[later, price] *= 1.5
    hidden = np.random.default_rng(0).normal(size=(5, WIDTH)).astype(np.float32)
    np.testing.assert_allclose(
        fitted(bars, "other")(hidden), fitted(small_market.bars, "own")(hidden), rtol=1e-3, atol=1e-5
    )


def test_fit_without_its_segments_is_refused(in_store):
    with pytest.raises(ValueError, match=r"no segment \['train', 'valid'\]"):
        model(TINY, samples=0, fit_head="ridge").fit(dataset())


def test_an_unknown_kind_of_head_or_score_is_refused():
    with pytest.raises(ValueError, match="fit_head='forest' is unknown"):
        model(TINY, fit_head="forest")
    with pytest.raises(ValueError, match="score='best' is unknown"):
        model(TINY, score="best")


def test_qrun_fits_scores_trades_and_reports_a_head(cache, run_folder):
    span = {
        "KRONOS_TRAIN_START": "2022-03-01",
        "KRONOS_TRAIN_END": "2022-09-30",
        "KRONOS_VALID_END": "2022-12-30",
        "KRONOS_TEST_START": "2023-05-08",
        "KRONOS_TEST_END": "2023-06-02",
        "KRONOS_LOOKBACK": "30",
        "KRONOS_FIT_EVERY": "10",
        "KRONOS_SAMPLES": "",
        "KRONOS_STORE": "kept",
    }
    config = CONFIG.with_name("kronos_csi300_head.yaml")
    process = qrun(run_folder, config, XDG_CACHE_HOME=str(cache), **span)
    assert process.returncode == 0, process.stderr[-3000:]
    artifacts = RunArtifacts.read(artifact_folder(run_folder) / "artifacts")
    assert "return head ridge head on" in artifacts.metadata.settings["score"]
    assert "sampling" not in artifacts.metadata.settings
    assert artifacts.paths is None
    assert any("not trained on" in warning for warning in artifacts.metadata.warnings) is False
    signals = pd.read_parquet(artifact_folder(run_folder) / "signals.parquet")
    assert list(signals.columns) == ["score"]
    page = (artifact_folder(run_folder) / "report.html").read_text()
    assert "return head ridge head on" in page
    assert (
        json.loads((artifact_folder(run_folder) / "metrics.json").read_text())["dates"]
        == signals.index.levels[0].size
    )
