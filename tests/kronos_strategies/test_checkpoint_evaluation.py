"""A checkpoint is evaluated on the members' bars, by the usual report, and a mistake is one sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("statsmodels")
pytest.importorskip("arch")

from kronos.bars import FEATURES
from kronos.config import SampleConfig
from kronos.forecast import Forecast, Provenance
from kronos.windows import Windows
from kronos_strategies.checkpoint_evaluation import (
    EvaluationData,
    EvaluationSettings,
    evaluate_checkpoint,
    read_evaluation_data,
)
from kronos_strategies.data.qlib_store import write_store
from kronos_strategies.data.simulate import MarketConfig, simulate_market
from kronos_strategies.evaluation.baselines import MODEL
from kronos_strategies.lookahead import randomize_future
from kronos_strategies.report.report import build_report
from kronos_strategies.run_artifacts import RunArtifacts
from tests.kronos_strategies.cli.conftest import run
from tests.kronos_strategies.evaluation.walks import DAYS, NAMES, PROVENANCE, tidy_bars

SETTINGS = EvaluationSettings(DAYS[30], DAYS[80], every=2, hold=5, lookback=20)
SAMPLING = SampleConfig(samples=20)


class Oracle:
    """Forecasts the closes that follow, on every path."""

    sampling = SAMPLING

    def __init__(self, bars: pd.DataFrame) -> None:
        self.closes = bars.pivot(index="datetime", columns="instrument", values="close")

    def forecast(self, windows: Windows, sampling=None, progress=None, candles="valid") -> Forecast:
        paths = np.ones((len(windows), sampling.samples, windows.horizon, len(FEATURES)), np.float32)
        for row, (date, name) in enumerate(windows.index):
            at = self.closes.index.get_loc(date)
            ahead = self.closes[name].iloc[at + 1 : at + 1 + windows.horizon].to_numpy()
            paths[row, :, : len(ahead), :4] = ahead[:, None]
        known = self.provenance(sampling, windows.digest())
        return Forecast(paths, windows.index, windows.future, windows.last_bar, known)

    def provenance(self, sampling: SampleConfig, data_sha256: str) -> Provenance:
        return replace(PROVENANCE, sampling=sampling, data_sha256=data_sha256)


def data_of(bars: pd.DataFrame, tmp_path: Path) -> EvaluationData:
    bars.to_parquet(tmp_path / "bars.parquet")
    return read_evaluation_data([tmp_path / "bars.parquet"])


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory) -> RunArtifacts:
    data = data_of(tidy_bars(), tmp_path_factory.mktemp("bars"))
    return evaluate_checkpoint(Oracle(tidy_bars()), "oracle", data, SETTINGS, SAMPLING)


def test_a_forecast_that_knows_the_future_ranks_it_perfectly(artifacts):
    report = build_report(artifacts)
    assert report.signal.rank_ic.mean == pytest.approx(1, abs=1e-3)
    assert report.distribution.distributions[0].crps.mean == pytest.approx(0, abs=1e-5)
    assert report.portfolio is None
    assert report.signal.name == MODEL


def test_every_second_date_is_forecast_for_every_instrument_and_labels_overlap_accordingly(artifacts):
    dates = artifacts.scores.index.get_level_values("datetime").unique()
    assert list(dates) == list(DAYS[30:81:2])
    assert len(artifacts.scores) == len(dates) * len(NAMES)
    assert artifacts.overlap == 3
    counts = artifacts.metadata.sample_counts
    assert counts["member rows"] == counts["compared"] == len(artifacts.scores)


def test_bars_after_the_labels_change_nothing(artifacts, tmp_path):
    end = DAYS[80 + 1 + 20]  # the end of the longest label
    scrambled = randomize_future(tidy_bars(), end)
    other = evaluate_checkpoint(
        Oracle(tidy_bars()), "oracle", data_of(scrambled, tmp_path), SETTINGS, SAMPLING
    )
    pd.testing.assert_frame_equal(other.scores, artifacts.scores)
    pd.testing.assert_frame_equal(other.exposures, artifacts.exposures)


def test_artifacts_are_read_back_for_a_report(artifacts, tmp_path):
    read = RunArtifacts.read(artifacts.write(tmp_path / "evidence"))
    assert build_report(read).metrics == pytest.approx(build_report(artifacts).metrics, nan_ok=True)


def test_only_members_of_a_qlib_directory_are_evaluated(tmp_path):
    bars = tidy_bars().assign(factor=1.0, amount=1e7)
    universe = pd.DataFrame(
        {"instrument": NAMES[:12], "start": DAYS[0], "end": [DAYS[60]] * 6 + [DAYS[-1]] * 6}
    )
    write_store(bars, tmp_path / "store", membership={"some": universe}, source={})
    data = read_evaluation_data([tmp_path / "store"], "some")
    members = data.members.to_frame(index=False)
    assert set(members["instrument"]) == set(NAMES[:12])
    leavers = members[members["instrument"].isin(NAMES[:6])]
    assert leavers["datetime"].max() == DAYS[60]
    assert members["datetime"].max() == DAYS[-1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"start": pd.Timestamp("2090-01-01"), "end": None},
            "no bars between 2090-01-01 .* Choose other dates",
        ),
        ({"every": 0}, "every must be at least 1, got 0"),
        ({"hold": 0}, "hold must be at least 1, got 0"),
    ],
)
def test_settings_that_cannot_be_evaluated_are_refused(tmp_path, change, reason):
    data = data_of(tidy_bars(), tmp_path)
    with pytest.raises(ValueError, match=reason):
        evaluate_checkpoint(Oracle(tidy_bars()), "oracle", data, replace(SETTINGS, **change), SAMPLING)


def test_a_single_path_and_an_instrument_in_two_files_are_refused(tmp_path):
    data = data_of(tidy_bars(), tmp_path)
    with pytest.raises(ValueError, match="at least 2 paths, got 1"):
        evaluate_checkpoint(Oracle(tidy_bars()), "oracle", data, SETTINGS, SampleConfig(samples=1))
    with pytest.raises(ValueError, match="occurs in two of the data paths"):
        read_evaluation_data([tmp_path / "bars.parquet"] * 2)


@pytest.mark.slow
def test_the_command_writes_a_report_that_kronos_report_reads_again(tmp_path, capsys):
    bars = simulate_market(MarketConfig(instruments=12)).bars
    days = pd.DatetimeIndex(bars["datetime"].unique()).sort_values()
    bars[bars["datetime"] >= days[-400]].to_parquet(tmp_path / "bars.parquet")
    folder = tmp_path / "report"
    code, out, _ = run(
        capsys, "evaluate", "kronos-nano", "--data", tmp_path / "bars.parquet", "--start", days[-60].date(),
        "--end", days[-12].date(), "--every", 10, "--samples", 4, "--lookback", 40,
        "--device", "cpu", "--output", folder,
    )  # fmt: skip
    assert (code, "baselines" in out) == (0, True)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert {"rank_ic", "crps_h5", "qlike_h5"} <= set(metrics)
    assert "sharpe" not in metrics
    assert run(capsys, "report", folder, "--output", tmp_path / "again")[0] == 0
    again = json.loads((tmp_path / "again" / "metrics.json").read_text(encoding="utf-8"))
    assert again == pytest.approx(metrics, nan_ok=True)


def test_bars_without_four_prices_are_refused_by_a_sentence(tmp_path):
    file = tmp_path / "bars.csv"
    tidy_bars().assign(high=np.nan).to_csv(file, index=False)
    with pytest.raises(
        ValueError, match=r"no bars with four prices in .*bars.csv. Check the paths and columns"
    ):
        read_evaluation_data([file])
