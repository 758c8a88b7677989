"""RunArtifacts survive a round trip to disk, and so does the report built from them."""

import json
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.evaluation.baselines import baseline_scores

pytest.importorskip("arch")

from kronos.config import SampleConfig
from kronos_strategies.backtest_result import BacktestResult
from kronos_strategies.comparison_inputs import load_artifacts
from kronos_strategies.evaluation.distribution.path_summary import summarize_forecasts
from kronos_strategies.evaluation.signal.neutralization import price_exposures
from kronos_strategies.report.export import save_report
from kronos_strategies.report.report import build_report
from kronos_strategies.run_artifacts import METADATA, RunArtifacts, RunMetadata
from tests.kronos_strategies.evaluation.walks import (
    AT,
    DAYS,
    NAMES,
    PROVENANCE,
    market_of,
    tidy_bars,
    walks,
)


def result() -> BacktestResult:
    days = DAYS[AT[0] : AT[-1]]
    moves = pd.Series(np.random.default_rng(1).normal(0, 0.01, len(days)), days)
    held = pd.MultiIndex.from_product([days, NAMES[:3]], names=["datetime", "instrument"])
    return BacktestResult(
        returns=pd.DataFrame({"gross": moves, "net": moves - 0.001}),
        benchmarks=pd.DataFrame({"equal weight": moves / 2, "the index": -moves}),
        turnover=pd.Series(0.5, days, name="turnover"),
        cost=pd.Series(0.001, days, name="cost"),
        weights=pd.Series(0.3, held, name="weight"),
        bars_per_year=238,
        whole=pd.DataFrame({"net": moves - 0.001, "equal weight": moves, "the index": -moves}),
        qlib_bars_per_year=238 * 48,
    )


@pytest.fixture(scope="module")
def artifacts() -> RunArtifacts:
    return make_artifacts()


def make_artifacts() -> RunArtifacts:
    """Artifacts of every kind over a small market."""
    market = market_of(tidy_bars())
    provenance = replace(PROVENANCE, sampling=SampleConfig(samples=40, T=0.9), weights_sha256="ab" * 32)
    forecasts = (replace(each, provenance=provenance) for each in walks(market))
    paths, known = summarize_forecasts(forecasts, market, (1, 5), hold=2)
    keys = paths.summary.index
    return RunArtifacts(
        metadata=RunMetadata(
            "A test", 2, 1, 3, {"model": "test"}, {"member rows": 2400}, ("a warning",), 238
        ),
        scores=pd.DataFrame(
            {
                "Kronos": paths.score_by_num_paths[40],
                "5-day reversal": baseline_scores(market, keys)[0]["5-day reversal"],
            }
        ),
        labels=pd.DataFrame({h: market.lookup(market.forward_return(h), keys) for h in (1, 2, 5)}),
        exposures=pd.DataFrame(
            {
                name: market.lookup(wide, keys)
                for name, wide in price_exposures(market.closes, market.amounts).items()
            }
        ),
        market=market,
        paths=paths,
        provenance=known,
        result=result(),
    )


@pytest.fixture(scope="module")
def read(artifacts, tmp_path_factory) -> RunArtifacts:
    return RunArtifacts.read(artifacts.write(tmp_path_factory.mktemp("evidence") / "new"))


def test_every_part_is_read_as_it_was(artifacts, read):
    assert read.metadata == artifacts.metadata
    assert read.provenance == artifacts.provenance
    for name in ("scores", "labels", "exposures"):
        pd.testing.assert_frame_equal(
            getattr(read, name), getattr(artifacts, name), check_column_type=False, check_freq=False
        )
    for name in ("opens", "closes", "amounts", "range_variance"):
        pd.testing.assert_frame_equal(
            getattr(read.market, name), getattr(artifacts.market, name), check_freq=False
        )
    for part in fields(BacktestResult):
        ours, theirs = getattr(read.result, part.name), getattr(artifacts.result, part.name)
        if isinstance(theirs, pd.DataFrame):
            pd.testing.assert_frame_equal(ours, theirs, check_freq=False)
        elif isinstance(theirs, pd.Series):
            pd.testing.assert_series_equal(ours, theirs, check_freq=False)
        else:
            assert ours == theirs


def test_a_report_made_from_the_disk_has_the_same_bytes(artifacts, read, tmp_path):
    first = save_report(build_report(artifacts), tmp_path / "first")
    second = save_report(build_report(read), tmp_path / "second")
    assert [path.name for path in first] == [path.name for path in second]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_metrics_come_from_every_part(artifacts):
    metrics = build_report(artifacts).metrics
    for name in (
        "rank_ic",
        "rank_ic_neutral",
        "coverage_80_h5",
        "crps_skill_h1",
        "sharpe",
        "dsr",
        "beta_the_index",
    ):
        assert np.isfinite(metrics[name]), name
    assert metrics["trials"] == 3
    assert 0.7 < metrics["coverage_80_h5"] < 0.9  # the forecasts say what is true


def test_a_score_alone_makes_a_report_of_its_signal_alone(artifacts, tmp_path):
    bare = replace(artifacts, paths=None, provenance=None, result=None)
    read = RunArtifacts.read(bare.write(tmp_path))
    report = build_report(read)
    assert report.distribution is None
    assert report.portfolio is None
    assert report.signal.rank_ic == build_report(artifacts).signal.rank_ic


def test_a_portfolio_that_never_bought_is_read_too(artifacts, tmp_path):
    none = artifacts.result.weights.iloc[:0]
    idle = replace(
        artifacts, result=replace(artifacts.result, weights=none, benchmarks=pd.DataFrame(index=DAYS[30:89]))
    )
    read = RunArtifacts.read(idle.write(tmp_path))
    assert read.result.positions.eq(0).all()
    assert read.result.benchmarks.shape == (59, 0)


def test_a_folder_without_artifacts_is_refused(artifacts, tmp_path):
    with pytest.raises(FileNotFoundError, match="no run artifacts"):
        RunArtifacts.read(tmp_path)
    artifacts.write(tmp_path)
    metadata = json.loads((tmp_path / METADATA).read_text())
    (tmp_path / METADATA).write_text(json.dumps(metadata | {"format": 99}))
    with pytest.raises(ValueError, match="format 99"):
        RunArtifacts.read(tmp_path)


@pytest.mark.parametrize("place", [".", "evidence", "kronos/evidence"])
def test_files_of_the_first_format_are_refused_by_that(place, tmp_path):
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "about.json").write_text('{"format": 1}')
    (tmp_path / "pred.pkl").touch()
    with pytest.raises(ValueError, match=r"has format 1, this version reads 3. Run the experiment again"):
        load_artifacts(str(tmp_path), "")
