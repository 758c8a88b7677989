"""A package with an entry point, and baselines, wherever a checkpoint is named, as in docs/forecasters.md."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kronos.config import SampleConfig
from kronos_strategies.forecasters import load_forecaster
from kronos_strategies.forecasters.registry import known_kinds
from kronos_strategies.store import ForecastStore, WindowSpec
from kronos_strategies.store.fill import prepare
from tests.kronos.builders import make_bars, make_panel
from tests.kronos_strategies.cli.conftest import own_folder, run  # noqa: F401 (a fixture)

from .builders import market, windows_of

PAGE = Path(__file__).parents[3] / "docs" / "forecasters.md"


@pytest.fixture
def coin(tmp_path, monkeypatch) -> Path:
    """The package of the page, as pip installs it: a module and its metadata on the path."""
    (module,) = re.findall(r"```python\n(import numpy.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (line,) = re.findall(r'^(coin = )"(.*)"$', PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    site = tmp_path / "site"
    info = site / "coin-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "coin.py").write_text(f"from __future__ import annotations\n{module}")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: coin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[kronos_strategies.forecasters]\n{''.join(line)}\n")
    monkeypatch.syspath_prepend(site)
    return site


def test_an_installed_package_adds_a_kind(coin):
    assert "coin" in known_kinds()
    windows = windows_of(market(), horizon=4)
    made = load_forecaster("coin:fair?bound=0.05").forecast(windows, SampleConfig(samples=256))
    assert made.provenance.model == "coin:fair?bound=0.05"
    span = np.quantile(made.log_returns(), [0.25, 0.75], axis=1)[..., 3]
    np.testing.assert_allclose(span, [[-0.05] * len(windows), [0.05] * len(windows)], atol=0.004)
    assert not any(made.violations().shares().values())
    with pytest.raises(ValueError, match="Did you mean 'coin'"):
        load_forecaster("coyn:fair")


def test_the_command_line_forecasts_with_it(coin, tmp_path, capsys):
    for seed, name in enumerate(("AAA", "BBB")):
        make_bars(80, seed).to_csv(tmp_path / f"{name}.csv")
    words = ("--horizon", 5, "--samples", 19, "--lookback", 30, "--steps", tmp_path / "steps.csv")
    for model in ("coin:fair", "baseline:har"):
        code, out, err = run(
            capsys, "forecast", tmp_path / "AAA.csv", tmp_path / "BBB.csv", "--model", model, *words
        )
        assert (code, err) == (0, "")
        assert f"model: {model}, 19 paths\n" in out
        assert f"--model {model}" in out  # in the command that comes next
        assert len(pd.read_csv(tmp_path / "steps.csv")) == 10


def test_a_wrong_name_on_the_command_line_is_one_sentence(tmp_path, capsys):
    make_bars(80, 0).to_csv(tmp_path / "AAA.csv")
    code, _, err = run(capsys, "forecast", tmp_path / "AAA.csv", "--model", "baseline:gaarch")
    assert code == 2
    assert "'baseline:gaarch' is not a baseline. Did you mean 'garch'?" in " ".join(err.split())
    assert "Traceback" not in err


def test_a_head_is_refused_where_there_are_no_hidden_states(tmp_path, capsys):
    make_bars(80, 0).to_csv(tmp_path / "AAA.csv")
    words = ("--model", "baseline:ewma", "--score", "head")
    code, _, err = run(capsys, "forecast", tmp_path / "AAA.csv", *words)
    assert code == 2
    assert "Traceback" not in err


def test_an_evaluation_has_a_report_without_a_warning_about_training(tmp_path, capsys):
    pytest.importorskip("plotly")
    bars = pd.concat(
        [each.assign(instrument=name) for name, each in make_panel(160, "A", "B", "C", "D", "E", "F").items()]
    )
    bars.reset_index().to_parquet(tmp_path / "bars.parquet")
    words = ("--data", tmp_path / "bars.parquet", "--start", "2024-06-03", "--end", "2024-07-15")
    code, out, err = run(
        capsys, "evaluate", "baseline:bootstrap?block=2", *words, "--lookback", 60, "--samples", 20
    )
    assert code == 0, err
    (report,) = Path().glob("evaluation-baseline-bootstrap-block-2/report.html")
    page = report.read_text(encoding="utf-8")
    assert "baseline:bootstrap?block=2" in page
    assert "training cutoff" not in page
    assert "training cutoff" not in out


def test_stored_forecasts_are_filed_by_their_settings(tmp_path):
    windows, store = windows_of(market(), horizon=4), ForecastStore(tmp_path)
    spec, sampling = WindowSpec("all", 90, 4, 90), SampleConfig(samples=4)
    for name in ("baseline:ewma", "baseline:ewma?decay=0.9"):
        forecaster = load_forecaster(name)
        filled = store.fill(forecaster, windows, spec, sampling)
        assert filled.computed == 4
        assert store.fill(load_forecaster(name), windows, spec, sampling).computed == 0
        read = np.concatenate([each.paths for each in filled])
        np.testing.assert_array_equal(read, forecaster.forecast(windows, sampling, candles="raw").paths)
    sets = store.forecast_sets()
    assert [each.settings.provenance.model for each in sets] == [
        "baseline:ewma",
        "baseline:ewma?decay=0.9",
    ] or [each.settings.provenance.model for each in sets] == ["baseline:ewma?decay=0.9", "baseline:ewma"]
    # Temperature and filters do not matter, so that they do not name other forecasts.
    cold = SampleConfig(samples=4, T=0.3, top_p=0.5)
    assert store.fill(load_forecaster("baseline:ewma"), windows, spec, cold).computed == 0


def test_a_worker_may_set_the_device(tmp_path):
    from kronos.utils import package_version

    forecaster = load_forecaster("baseline:ewma")
    prepare(forecaster, "cpu", package_version())
    assert forecaster.device == "cpu"


def test_backtrader_reads_a_baseline():
    pytest.importorskip("backtrader")
    from tests.kronos_strategies.backtrader.builders import kronos
    from tests.kronos_strategies.backtrader.builders import run as run_engine

    panel = make_panel(60, "A", "B")
    found = run_engine(panel, kronos(model="baseline:bootstrap"))
    other = run_engine(panel, kronos(model="baseline:random-walk"))
    known = found["expected_return"].notna()
    assert known.sum() > 10
    assert (found["expected_return"] != other["expected_return"])[known].any()


@pytest.mark.integration
def test_qrun_trades_a_baseline_and_a_package(coin, small_store, empty_record, tmp_path):
    from tests.kronos_strategies.qlib.conftest import artifact_folder, qrun

    span = {"KRONOS_TEST_START": "2023-05-08", "KRONOS_TEST_END": "2023-05-26"}
    common = {"KRONOS_QLIB_DATA": str(small_store), "KRONOS_TOPK": "3", "KRONOS_N_DROP": "1", **span}
    path = os.pathsep.join([str(coin), os.environ.get("PYTHONPATH", "")])
    for model in ("coin:fair?bound=0.05", "baseline:garch"):
        folder = tmp_path / model.partition(":")[0]
        folder.mkdir()
        shutil.copy(empty_record, folder / "mlflow.db")
        done = qrun(folder, KRONOS_MODEL=model, KRONOS_SAMPLES="20", PYTHONPATH=path, **common)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "training cutoff" not in done.stdout + done.stderr
        assert json.loads((artifact_folder(folder) / "metrics.json").read_text())
        assert model in (artifact_folder(folder) / "report.html").read_text(encoding="utf-8")
    assert "windows are too short for GARCH" in done.stdout + done.stderr


def test_qlibs_model_has_no_head_to_fit_on_a_baseline(in_store):
    from kronos_strategies.qlib.dataset import KronosDataset
    from kronos_strategies.qlib.model import KronosModel

    segments = {
        "train": ("2022-06-01", "2022-09-30"), "valid": ("2022-10-10", "2022-12-30"),
        "test": ("2023-03-01", "2023-03-08"),
    }  # fmt: skip
    dataset = KronosDataset(segments, lookback=30, horizon=3)
    with pytest.raises(ValueError, match="fits a head on hidden states, and 'baseline:ewma' has none"):
        KronosModel("baseline:ewma", samples=2, fit_head="ridge").fit(dataset)
    assert KronosModel("baseline:ewma", samples=2).predict(dataset).notna().all()
    with pytest.raises(ValueError, match="lookback=600 is more than the model's context"):
        KronosModel(device="cpu", samples=2).predict(KronosDataset(segments, lookback=600, horizon=3))
