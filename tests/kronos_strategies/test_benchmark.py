"""Forecasters are compared on the paper's tasks on the same windows, and nothing is forecast twice."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("statsmodels")
pytest.importorskip("arch")
pytest.importorskip("lightgbm")
pytest.importorskip("plotly")

from kronos.bars import FEATURES
from kronos.config import SampleConfig
from kronos.forecast import Forecast, Provenance
from kronos.windows import Windows
from kronos_strategies.benchmark import (
    REAL,
    BenchmarkSettings,
    benchmark,
    discriminative_scores,
    find_outcomes,
)
from kronos_strategies.checkpoint_evaluation import EvaluationData
from kronos_strategies.evaluation.comparison.comparison import Comparison
from kronos_strategies.forecasters import load_forecaster
from kronos_strategies.store.store import ForecastStore
from tests.kronos_strategies.cli.conftest import run
from tests.kronos_strategies.evaluation.walks import DAYS, NAMES, PROVENANCE, tidy_bars

SETTINGS = BenchmarkSettings(DAYS[20], every=4, lookback=20, horizon=8)


class Oracle:
    """Forecasts the bars that follow, on every path."""

    sampling, device, max_context, calibration = SampleConfig(), "cpu", 512, None

    def __init__(self, bars: pd.DataFrame) -> None:
        self.bars, self.calls = bars, 0

    def forecast(self, windows: Windows, sampling=None, progress=None, candles="valid") -> Forecast:
        self.calls += 1
        keys = [
            pd.MultiIndex.from_product([pd.DatetimeIndex(future), [name]])
            for future, name in zip(windows.future, windows.index.get_level_values("instrument"), strict=True)
        ]
        bars = np.stack([self.bars.loc[each, list(FEATURES)].to_numpy(np.float32) for each in keys])
        paths = np.repeat(bars[:, None], sampling.samples, axis=1)
        known = self.provenance(sampling, windows.digest())
        return Forecast(paths, windows.index, windows.future, windows.last_bar, known)

    def provenance(self, sampling: SampleConfig, data_sha256: str) -> Provenance:
        return replace(PROVENANCE, weights_sha256="0" * 64, sampling=sampling, data_sha256=data_sha256)


@pytest.fixture(scope="module")
def data() -> EvaluationData:
    bars = tidy_bars().assign(amount=1.0).set_index(["datetime", "instrument"])
    return EvaluationData("walks", bars, bars.index)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ForecastStore:
    return ForecastStore(tmp_path_factory.mktemp("forecasts"))


@pytest.fixture(scope="module")
def oracle(data) -> Oracle:
    return Oracle(data.bars)


@pytest.fixture(scope="module")
def comparison(data, store, oracle) -> Comparison:
    return benchmark(models(oracle), data, SETTINGS, store)


def models(oracle: Oracle) -> dict:
    return {"walk": load_forecaster("baseline:random-walk"), "oracle": oracle}


def test_perfect_forecasts_are_perfect_on_every_task(comparison):
    means = comparison.table[comparison.table["version"] == "oracle"].set_index("metric")["mean"]
    for metric in ("ic", "rank_ic", "price_ic", "price_rank_ic", "volatility_r2"):
        assert means[metric] == pytest.approx(1, abs=1e-5)
    assert means["volatility_mae"] == pytest.approx(0, abs=1e-6)
    assert discriminative_scores(comparison)["oracle"] < 0.01
    of_real = comparison.by_date["tstr_volatility_rank_ic"]
    np.testing.assert_allclose(of_real["oracle"], of_real[REAL], atol=0.05)


def test_differences_are_tested_and_better_is_known_for_each_metric(comparison):
    rows = comparison.table[comparison.table["version"] == "oracle"].set_index("metric")
    assert (rows.loc[["rank_ic", "price_ic", "volatility_r2"], "difference_low"] > 0).all()
    assert rows.loc["volatility_mae", "difference_high"] < 0
    assert (rows.loc[["rank_ic", "volatility_mae"], "p_holm"] < 0.01).all()
    assert comparison.overlap == 2


def test_a_second_run_forecasts_nothing(data, store, oracle, comparison):
    before, done = oracle.calls, []
    again = benchmark(
        models(oracle), data, SETTINGS, store, progress=lambda count, total: done.append(count == total)
    )
    assert oracle.calls == before
    pd.testing.assert_frame_equal(again.table, comparison.table)


def test_windows_without_all_of_their_next_bars_are_left_out_for_every_model(data):
    gap = (DAYS[60], NAMES[3])
    whole = find_outcomes(data, SETTINGS)
    fewer = find_outcomes(replace(data, bars=data.bars.drop(gap), members=data.members.drop(gap)), SETTINGS)
    lost = whole.windows.index.difference(fewer.windows.index)
    assert set(lost.get_level_values("instrument")) == {NAMES[3]}
    assert DAYS[20 + 4 * 9] in lost.get_level_values("datetime")
    assert whole.windows.index.equals(whole.long.index)


def test_no_window_reads_a_later_bar(data):
    bars = data.bars.copy()
    late = bars.index.get_level_values("datetime") > DAYS[60]
    bars.loc[late, list(FEATURES)] *= 1.2
    one, other = (find_outcomes(each, SETTINGS) for each in (data, replace(data, bars=bars)))
    early = one.windows.index.get_level_values("datetime") <= DAYS[60]
    for of in ("windows", "long"):
        np.testing.assert_array_equal(getattr(one, of).values[early], getattr(other, of).values[early])


def test_few_windows_leave_realism_out_with_a_warning_and_measure_the_rest(data, store):
    one = data.bars.index.get_level_values("instrument") == NAMES[0]
    alone = replace(data, bars=data.bars[one], members=data.members[one])
    chosen = {name: load_forecaster(f"baseline:{name}") for name in ("ewma", "random-walk")}
    found = benchmark(chosen, alone, SETTINGS, store)
    assert {"price_ic", "volatility_mae"} <= set(found.by_date)
    assert not {"discrimination", "tstr_rank_ic"} & set(found.by_date)
    assert any("Realism is not measured" in text for text in found.warnings)
    assert discriminative_scores(found) == {}
    means = found.table.query("metric == 'volatility_mae'").set_index("version")["mean"]
    assert means["ewma"] > 0


def test_lookback_and_horizon_are_those_of_the_paper_unless_set():
    daily, minutes = DAYS, pd.date_range("2024-01-01", periods=9, freq="5min")
    assert BenchmarkSettings(DAYS[0]).spans(daily) == (40, 12)
    assert BenchmarkSettings(DAYS[0], horizon=6).spans(minutes) == (480, 6)
    with pytest.raises(ValueError, match="bars of 7 minutes"):
        BenchmarkSettings(DAYS[0]).spans(pd.date_range("2024-01-01", periods=9, freq="7min"))


def test_the_command_writes_a_page_and_json(tmp_path, capsys):
    tidy_bars().to_parquet(tmp_path / "bars.parquet")
    code, out, err = run(
        capsys, "benchmark", "--data", tmp_path / "bars.parquet", "--models", "baseline:random-walk",
        "baseline:ewma", "--start", f"{DAYS[40]:%Y-%m-%d}", "--every", 4, "--samples", 4,
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert code == 0, err
    assert "baseline:ewma" in out
    found = json.loads((tmp_path / "out" / "scoreboard.json").read_text())
    assert set(found["metrics"]["volatility_mae"]) == {"baseline:random-walk", "baseline:ewma"}
    assert found["metrics"]["volatility_mae"]["baseline:ewma"]["p"] is not None
    assert set(found["discriminative_score"]) == {"baseline:random-walk", "baseline:ewma"}
    assert "volatility_mae" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "baseline:ewma"], "Name two or more models"),
        (["--models", "baseline:ewma", "baseline:ewma"], "Two models are called 'baseline:ewma'"),
        (["--lookback", 0, "--models", "baseline:ewma", "baseline:har"], "lookback=0 is too small"),
        (["--horizon", 0, "--models", "baseline:ewma", "baseline:har"], "horizon=0 is too small"),
        (["--instruments", 0, "--models", "baseline:ewma", "baseline:har"], "instruments=0 is too small"),
        (
            ["--long-lookback", -5, "--models", "baseline:ewma", "baseline:har"],
            "long_lookback=-5 is too small",
        ),
        (
            ["--reference", "unknown", "--models", "baseline:ewma", "baseline:har"],
            "the reference is 'unknown'",
        ),
        (["--horizon", 90, "--models", "baseline:ewma", "baseline:har"], "is followed by 90 bars"),
    ],
)
def test_mistakes_are_one_sentence(options, message, tmp_path, capsys):
    tidy_bars().to_parquet(tmp_path / "bars.parquet")
    start = f"{DAYS[50]:%Y-%m-%d}"
    code, _, err = run(capsys, "benchmark", "--data", tmp_path / "bars.parquet", "--start", start, *options)
    assert code == 2
    assert message in err
