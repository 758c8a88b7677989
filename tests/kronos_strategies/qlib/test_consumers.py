"""Classes of Qlib that read a prediction, on a small simulated store."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from qlib.backtest import backtest
from qlib.contrib.strategy import EnhancedIndexingStrategy
from qlib.contrib.workflow.record_temp import MultiSegRecord, SignalMseRecord
from qlib.data import D
from qlib.model.ens.ensemble import AverageEnsemble
from qlib.workflow import R
from qlib.workflow.online.manager import OnlineManager
from qlib.workflow.online.strategy import RollingStrategy
from qlib.workflow.online.update import LabelUpdater, PredUpdater
from qlib.workflow.record_temp import SigAnaRecord, SignalRecord
from qlib.workflow.task.gen import RollingGen

from kronos_strategies.qlib.data_access import traded_bars
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.model import KronosModel

from .conftest import TINY, use_store

MODEL = {"checkpoint": str(TINY), "samples": 2, "device": "cpu"}


def dataset(start: str, end: str) -> KronosDataset:
    return KronosDataset(segments={"test": (start, end)}, lookback=30, min_bars=10)


def record_of(model: KronosModel, data: KronosDataset):
    """A run that keeps model, dataset, prediction and label, as `qrun` does."""
    with R.start(experiment_name="kept"):
        recorder = R.get_recorder()
        R.save_objects(**{"params.pkl": model})
        data.config(dump_all=False, recursive=True)
        R.save_objects(dataset=data)
        SignalRecord(model, data, recorder).generate()
    return recorder


def test_predictions_and_labels_on_record_are_continued_as_days_pass(recorded):
    recorder = record_of(KronosModel(**MODEL), dataset("2023-06-20", "2023-06-23"))
    before = recorder.load_object("pred.pkl")
    PredUpdater(recorder, to_date="2023-06-28").update()
    LabelUpdater(recorder, to_date="2023-06-28", from_date="2023-06-20").update()
    after = recorder.load_object("pred.pkl")
    assert list(after.columns) == ["score"]
    pd.testing.assert_frame_equal(after.loc[before.index], before)
    whole = KronosModel(**MODEL).predict(dataset("2023-06-20", "2023-06-28"))
    pd.testing.assert_series_equal(after["score"], whole, rtol=1e-4, atol=1e-6)
    assert recorder.load_object("label.pkl").index.equals(after.index)
    PredUpdater(recorder).update()  # up to the last day of the store
    last = recorder.load_object("pred.pkl").index.get_level_values("datetime").max()
    assert last == D.calendar()[-1]


@pytest.mark.slow
def test_an_online_manager_rolls_updates_and_hands_out_signals(recorded):
    task = {
        "model": {"class": "KronosModel", "module_path": KronosModel.__module__, "kwargs": MODEL},
        "dataset": {
            "class": "KronosDataset",
            "module_path": KronosDataset.__module__,
            "kwargs": {
                "segments": {
                    "train": ("2022-06-01", "2022-08-31"),
                    "valid": ("2022-09-01", "2022-09-30"),
                    "test": ("2023-06-12", "2023-06-16"),
                },
                "lookback": 30,
                "min_bars": 10,
            },
        },
        "record": [{"class": "SignalRecord", "module_path": "qlib.workflow.record_temp"}],
    }
    strategy = RollingStrategy("rolling", task, RollingGen(step=4, rtype=RollingGen.ROLL_SD))
    manager = OnlineManager(strategy, begin_time="2023-06-16")
    manager.first_train()
    manager.routine("2023-06-27")
    manager.routine()  # on the last day of the store, whose segment ends after it
    signals = manager.get_signals()
    signals = signals[
        ~signals.index.duplicated(keep="last")
    ]  # Qlib repeats the last date of the routine before
    dates = signals.index.get_level_values("datetime")
    assert (dates.min(), dates.max()) == (pd.Timestamp("2023-06-12"), D.calendar()[-1])
    assert dates.nunique() == len(D.calendar("2023-06-12"))
    date = pd.Timestamp("2023-06-14")
    score = KronosModel(**MODEL).predict(dataset("2023-06-14", "2023-06-14")).loc[date]
    expected = (score - score.mean()) / score.std()
    pd.testing.assert_series_equal(signals.loc[date], expected, check_names=False, rtol=1e-3, atol=1e-4)


def test_an_ensemble_averages_scores_and_nothing_else(in_store):
    data = dataset("2023-06-20", "2023-06-21")
    first, other = (KronosModel(**MODEL, seed=seed).predict(data) for seed in (0, 1))
    mean = AverageEnsemble()({"first": first.to_frame("score"), "other": other.to_frame("score")})
    by_date = [score.groupby("datetime") for score in (first, other)]
    scaled = [
        (s - d.transform("mean")) / d.transform("std") for s, d in zip((first, other), by_date, strict=True)
    ]
    pd.testing.assert_series_equal(mean, (scaled[0] + scaled[1]) / 2, check_names=False)


def test_error_and_coefficients_on_record_are_those_of_score_and_label(recorded):
    model, data = KronosModel(**MODEL), dataset("2023-06-12", "2023-06-30")  # the last labels are unknown
    recorder = record_of(model, data)
    with R.start(experiment_name="kept", recorder_id=recorder.id, resume=True):
        SigAnaRecord(recorder).generate()
        SignalMseRecord(recorder).generate()
        MultiSegRecord(model, data, recorder).generate({"part": slice("2023-06-12", "2023-06-16")}, save=True)
    pred, label = (recorder.load_object(name).iloc[:, 0] for name in ("pred.pkl", "label.pkl"))
    assert label.isna().any()
    expected = float(((pred - label) ** 2).mean())
    assert recorder.load_object("sig_analysis/mse.pkl") == pytest.approx(expected, rel=1e-5)
    by_date = pd.DataFrame({"p": pred, "l": label}).groupby("datetime")
    expected = by_date.apply(lambda rows: rows["p"].corr(rows["l"])).dropna()
    part = recorder.load_object("results-part.pkl")["all-IC"]
    np.testing.assert_allclose(part, expected.loc["2023-06-12":"2023-06-16"], rtol=1e-6)


def write_risk_model(folder: Path, moves: pd.DataFrame, dates: np.ndarray) -> None:
    """Three principal components of daily returns, known on each date."""
    values, vectors = np.linalg.eigh(moves.cov())
    exposures = vectors[:, -3:]
    rest = moves - moves.to_numpy() @ exposures @ exposures.T
    for date in dates:
        (folder / f"{date:%Y%m%d}").mkdir(parents=True)
        for name, table in {
            "factor_exp": pd.DataFrame(exposures, moves.columns),
            "factor_cov": pd.DataFrame(np.diag(values[-3:])),
            "specific_risk": rest.std(),
        }.items():
            table.to_pickle(folder / f"{date:%Y%m%d}" / f"{name}.pkl")


def test_enhanced_indexing_optimizes_over_the_score(small_store, tmp_path):
    """It needs a risk model, and the benchmark's weights as a field of the store: both are written first."""
    pytest.importorskip("ecos", reason="Qlib's optimizer asks cvxpy for ECOS")
    store = tmp_path / "store"
    shutil.copytree(small_store, store)
    for closes in store.glob("features/*/close.day.bin"):
        start, *values = np.fromfile(closes, "<f4")
        weights = np.where(np.isfinite(values), 1 / 18, np.nan)  # the members on these days
        np.array([start, *weights], "<f4").tofile(closes.with_name("csi300_weight.day.bin"))
    use_store(store)
    scores = KronosModel(**MODEL).predict(dataset("2023-06-20", "2023-06-22"))
    names = sorted(scores.index.get_level_values("instrument").unique())
    bars = traded_bars(names, pd.Timestamp("2023-06-19"))
    closes = pd.DataFrame({name: frame["close"] for name, frame in bars.items()})
    moves = closes.pct_change(fill_method=None).tail(120).fillna(0.0)
    write_risk_model(tmp_path / "risk", moves, D.calendar("2023-06-19", "2023-06-22"))
    found, _ = backtest(
        "2023-06-20",
        "2023-06-26",
        EnhancedIndexingStrategy(signal=scores, riskmodel_root=str(tmp_path / "risk"), market="csi300"),
        {
            "class": "SimulatorExecutor",
            "module_path": "qlib.backtest.executor",
            "kwargs": {"time_per_step": "day", "generate_portfolio_metrics": True},
        },
        benchmark="SH000300",
        account=1e8,
        exchange_kwargs={"deal_price": "close", "limit_threshold": 0.095},
    )
    _, positions = found["1day"]
    assert len(positions[pd.Timestamp("2023-06-21")].get_stock_list()) > 5
