import pickle
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from qlib.data.dataset import DatasetH
from qlib.data.dataset.handler import DataHandlerLP

from kronos.calibration import Calibration, CalibrationFit, PathAdjustment
from kronos.config import SampleConfig
from kronos.paths import POOL
from kronos.predictor import KronosPredictor
from kronos_strategies.lookahead import check_causal
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.model import KronosModel
from kronos_strategies.signal import SIGNALS, signals

from .conftest import TINY, store_of, use_store

SPAN = ("2023-03-01", "2023-03-10")


def dataset() -> KronosDataset:
    return KronosDataset(segments={"test": SPAN}, lookback=30, min_bars=10)


def model(**changes) -> KronosModel:
    return KronosModel(**{"checkpoint": str(TINY), "samples": 3, "device": "cpu", **changes})


def test_predict_scores_each_window_once_with_the_score_first(in_store):
    scored = model(prediction="signals").predict(dataset())
    assert list(scored.columns) == list(SIGNALS)
    assert scored.columns[0] == "score"
    assert list(scored.index.names) == ["datetime", "instrument"]
    assert scored.index.equals(dataset().windows().index)
    ratios = scored[["risk_adjusted", "conviction", "skew"]]
    assert np.isfinite(scored.drop(columns=ratios.columns).to_numpy()).all()
    assert (ratios.isna().any(axis=1) == scored["deviation"].eq(0)).all(), "undefined where all paths agree"


def test_a_prediction_is_the_score_alone_unless_signals_are_asked_for(in_store):
    kronos = model()
    scored = kronos.predict(dataset())
    assert isinstance(scored, pd.Series)
    assert scored.name == "score"
    pd.testing.assert_series_equal(scored, kronos.signals(dataset())["score"])
    with pytest.raises(ValueError, match=r"prediction='all' is unknown.*'score', 'signals'"):
        model(prediction="all")


def test_a_segment_may_be_named_or_a_slice_of_dates(in_store):
    kronos = model()
    part = kronos.predict(dataset(), slice("2023-03-06", "2023-03-08"))
    dates = part.index.get_level_values("datetime").unique()
    assert [f"{date:%m-%d}" for date in dates] == ["03-06", "03-07", "03-08"]
    with pytest.raises(ValueError, match=r"no segment 'valid'.*'test'"):
        kronos.predict(dataset(), "valid")


def test_every_scored_row_is_a_row_of_the_label(in_store):
    label = dataset().prepare("test", col_set="label", data_key=DataHandlerLP.DK_R)
    assert model().predict(dataset()).index.equals(label.index)


@pytest.mark.parametrize("forecast_set", [True, False])
def test_scrambling_all_bars_after_t_changes_no_score_up_to_t(small_market, tmp_path, forecast_set):
    runs = iter(range(100))

    def run(bars: pd.DataFrame) -> pd.DataFrame:
        use_store(store_of(small_market, bars, tmp_path / f"store{next(runs)}"))
        return model(store=str(tmp_path / "forecasts") if forecast_set else None).signals(dataset())

    check_causal(run, small_market.bars, ["2023-03-02", "2023-03-07"])


def test_settings_that_are_not_given_are_those_of_the_checkpoint(tmp_path):
    pair = tmp_path / "pair"
    shutil.copytree(TINY, pair)
    (pair / "predictor" / "sampling.json").write_text('{"T": 0.9, "top_p": 0.8}')
    assert model(checkpoint=str(pair), seed=4).sampling == SampleConfig(3, T=0.9, top_p=0.8, seed=4)
    assert model(checkpoint=str(pair), T=0.0).sampling == SampleConfig(3, T=0.0, top_p=0.8)
    assert model().sampling == SampleConfig(3)


def test_a_pickled_model_scores_the_same(in_store):
    original = model()
    first = original.predict(dataset())
    restored = pickle.loads(pickle.dumps(original))
    pd.testing.assert_series_equal(restored.predict(dataset()), first)


def test_two_runs_with_one_seed_agree_and_another_seed_differs(in_store):
    first, again, other = (model(seed=s).predict(dataset()) for s in (5, 5, 6))
    pd.testing.assert_series_equal(first, again)
    assert not np.allclose(first, other)


def test_a_segment_can_be_scored_in_parts(in_store):
    whole = model().predict(dataset())
    part = KronosDataset(segments={"test": ("2023-03-06", SPAN[1])}, lookback=30, min_bars=10)
    alone = model().predict(part)
    pd.testing.assert_series_equal(alone, whole.loc[alone.index], rtol=1e-4, atol=1e-5)


def test_scores_of_several_workers_are_those_of_one(in_store, monkeypatch):
    monkeypatch.setattr("kronos_strategies.forecasting.CHUNK_WINDOWS", 40)
    pd.testing.assert_frame_equal(model(workers=2).signals(dataset()), model().signals(dataset()))
    with pytest.raises(ValueError, match=r"workers=0"):
        model(workers=0)


def test_scores_from_a_store_are_those_without_one_and_are_computed_once(in_store, tmp_path, monkeypatch):
    plain = model().predict(dataset())
    kept = model(store=str(tmp_path))
    pd.testing.assert_series_equal(kept.predict(dataset()), plain, rtol=1e-4, atol=1e-6)
    again, restored = model(store=str(tmp_path)), pickle.loads(pickle.dumps(kept))
    monkeypatch.setattr(KronosPredictor, "forecast", None)  # every call fails
    for other in (again, restored):
        pd.testing.assert_series_equal(other.predict(dataset()), plain, rtol=1e-4, atol=1e-6)
    assert again.provenance == kept.provenance
    assert again.provenance.data_sha256 == dataset().windows().digest()


@pytest.mark.parametrize("forecast_set", [True, False])
def test_no_more_than_a_chunk_is_forecast_at_once(in_store, tmp_path, monkeypatch, forecast_set):
    monkeypatch.setattr("kronos_strategies.forecasting.CHUNK_WINDOWS", 40)
    asked, honest = [], KronosPredictor.forecast

    def spy(self, windows, *rest, candles):
        asked.append(windows.index)
        return honest(self, windows, *rest, candles=candles)

    monkeypatch.setattr(KronosPredictor, "forecast", spy)
    scored = model(store=str(tmp_path) if forecast_set else None).predict(dataset())
    assert len(asked) > 2
    assert max(map(len, asked)) <= 40
    assert asked[0].append(asked[1:]).equals(scored.index)


def test_a_longer_horizon_scores_the_same_trade(in_store):
    longer = KronosDataset(segments={"test": SPAN}, lookback=30, min_bars=10, horizon=5)
    forecasts = list(model().forecasts(longer.windows(), longer.spec))
    assert {forecast.horizon for forecast in forecasts} == {5}
    pd.testing.assert_frame_equal(
        model().signals(longer), pd.concat([signals(forecast.repaired(), hold=1) for forecast in forecasts])
    )


def widened(known, spread: float = 0.5) -> Calibration:
    """A calibration of forecasts of that provenance, over two bars."""
    moves = PathAdjustment((0.0, 0.0), (spread, spread), (0.0, 0.0))
    fit = CalibrationFit("2023-01-31", "2022-01-03", 200, 400, {POOL: moves}, (), {}, {0.9: (1.2, 1.2)})
    s = known.sampling
    sampling = (s.T, s.top_p, s.top_k, s.samples)
    return Calibration(
        known.model, known.weights_sha256, *sampling, known.anchor, 2, 86400.0, "csi300", 30, "none", (fit,)
    )


def test_scores_are_of_calibrated_and_repaired_paths_and_the_store_keeps_them_as_sampled(in_store, tmp_path):
    plain = model(store=str(tmp_path / "forecasts"))
    before = plain.signals(dataset())
    file = widened(plain.provenance).write(tmp_path / "c.json")
    moved = model(store=str(tmp_path / "forecasts"), calibration=str(file))
    scored = moved.signals(dataset())
    raw = list(plain.forecasts(dataset().windows(), dataset().spec))
    assert {(each.provenance.calibration, each.provenance.candles) for each in raw} == {(None, "raw")}
    assert sum(each.violations().outside for each in raw) > 0
    by_hand = [signals(each.calibrated(file).repaired()) for each in raw]
    pd.testing.assert_frame_equal(scored, pd.concat(by_hand))
    spread, old = scored["q95"] - scored["q05"], before["q95"] - before["q05"]
    assert (spread / old).median() > 1.3
    assert moved.postprocessing.reason.endswith(str(file))
    assert len(list((tmp_path / "forecasts").glob("*/*"))) == 1  # one set of forecasts for both


def test_auto_takes_the_checkpoints_own_calibration_where_it_fits(in_store, tmp_path):
    pair = tmp_path / "pair"
    shutil.copytree(TINY, pair)
    plain = model(checkpoint=str(pair))
    before = plain.signals(dataset())
    assert "has no calibration" in plain.postprocessing.reason
    widened(plain.provenance).write(pair / "predictor" / "calibration.json")
    own, none, cold = (
        model(checkpoint=str(pair), **more) for more in ({}, {"calibration": "none"}, {"T": 0.1})
    )
    assert not np.allclose(own.signals(dataset())["score"], before["score"])
    pd.testing.assert_frame_equal(none.signals(dataset()), before)
    cold.signals(dataset())
    assert "does not fit" in cold.postprocessing.reason


def test_a_calibration_of_another_checkpoint_is_refused(in_store, tmp_path):
    plain = model()
    plain.signals(dataset())
    other = replace(widened(plain.provenance), weights_sha256="0" * 64)
    with pytest.raises(ValueError, match=r"does not fit these forecasts.*weights 000000000000"):
        model(calibration=str(other.write(tmp_path / "c.json"))).signals(dataset())
    with pytest.raises(ValueError, match="candles='nice' is unknown"):
        model(candles="nice")


def test_fit_leaves_the_checkpoint_as_it_is(in_store):
    kronos = model()
    before = {k: v.clone() for k, v in kronos._predictor.model.state_dict().items()}
    kronos.fit(dataset())
    assert all(v.equal(before[k]) for k, v in kronos._predictor.model.state_dict().items())


def test_another_kind_of_dataset_is_refused_with_the_one_to_use(in_store):
    with pytest.raises(TypeError, match="Use the class KronosDataset"):
        model().predict(DatasetH(handler=dataset().handler, segments={"test": SPAN}))


def test_an_unknown_checkpoint_fails_before_any_data_is_read(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises((FileNotFoundError, ValueError), match="no-such-model"):
        model(checkpoint="no-such-model")
