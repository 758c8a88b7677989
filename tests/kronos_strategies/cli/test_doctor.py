import json
import os
import sys
from importlib import metadata

import pytest

from kronos_strategies import doctor as module
from kronos_strategies.data.simulate import MarketConfig, write_simulated
from kronos_strategies.doctor import diagnose

from .conftest import run


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in ("KRONOS_QLIB_DATA", "KRONOS_STORE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def without(monkeypatch):
    """Make packages look as if they were not installed, and importing them fail."""

    def remove(*names):
        known = metadata.version

        def version(name):
            if name.replace("_", "-").lower() in names:
                raise metadata.PackageNotFoundError(name)
            return known(name)

        monkeypatch.setattr(metadata, "version", version)
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)

    return remove


@pytest.fixture
def requires(monkeypatch):
    """Replace what the package requires."""

    def set_to(*texts):
        monkeypatch.setattr(module.metadata, "requires", lambda name: list(texts))

    return set_to


def test_a_healthy_installation_exits_with_0_and_shows_versions_devices_and_threads(capsys):
    code, out, err = run(capsys, "doctor")
    assert (code, err.strip()) == (0, "")
    for part in ("python", "torch", "cuda", "numpy blas", "threads", "kronos-nano"):
        assert part in out
    assert "Nothing to fix." in out or "Fix first:" in out


def test_json_has_the_same_facts(capsys):
    code, out, _ = run(capsys, "doctor", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["healthy"] is True
    assert facts["problems"] == []
    assert facts["system"]["python"] == sys.version.split()[0]
    assert facts["packages"]["required"]["torch"] == metadata.version("torch")
    assert facts["devices"]["torch"] == metadata.version("torch")
    assert facts["threads"]["torch"] >= 1
    assert "kronos-nano" in facts["checkpoints"]["bundled"]


@pytest.mark.parametrize(
    "extra",
    [["pyqlib", "mlflow"], ["backtrader"], ["plotly", "jinja2"], ["lightgbm"], ["scipy", "statsmodels"]],
)
def test_a_missing_extra_is_advice_and_not_a_problem(extra, without, capsys):
    without(*extra)
    code, out, _ = run(capsys, "doctor", "--json")
    facts = json.loads(out)
    assert code == 0
    assert "pip install 'kronos-strategies[" in facts["fix_first"]
    assert any(versions.get(extra[0], "x") is None for versions in facts["packages"].values())


def test_a_missing_requirement_is_a_problem(without, capsys):
    without("pyarrow")
    code, out, _ = run(capsys, "doctor")
    assert code == 1
    assert "Fix first: pyarrow is not installed: pip install 'pyarrow>=" in out


def test_a_torch_that_does_not_load_is_fixed_first(monkeypatch, without, capsys):
    without("pyarrow")
    monkeypatch.setitem(sys.modules, "torch", None)
    code, out, _ = run(capsys, "doctor", "--json")
    facts = json.loads(out)
    assert code == 1
    assert "torch cannot be imported" in facts["fix_first"]
    assert len(facts["problems"]) == 2
    assert facts["devices"] == {"torch": None}


def test_a_package_that_is_too_old_is_a_problem(requires):
    requires("numpy>=99", "rich>=13")
    (problem,) = diagnose().problems
    assert problem == f"numpy {metadata.version('numpy')} does not fit >=99: pip install 'numpy>=99'."


def test_requirements_of_another_python_do_not_count(requires):
    requires("nothing-of-the-kind>=1; python_version < '3'")
    assert diagnose().problems == []


def test_more_threads_than_processors_are_advice(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 64)
    monkeypatch.setattr(module, "usable_cpus", lambda: 2)
    assert any("Set OMP_NUM_THREADS=2." in each for each in diagnose().advice)


def test_a_full_disk_is_named(monkeypatch, tmp_path):
    usage = module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    (problem,) = diagnose(store=tmp_path).problems
    assert "1.0 kB free" in problem


# Data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    to = tmp_path_factory.mktemp("data") / "store"
    write_simulated(to, MarketConfig(instruments=4, start="2023-01-02", end="2023-06-30"), "csi300")
    return to


def test_a_data_directory_is_described_by_its_span_and_markets(data, capsys):
    code, out, _ = run(capsys, "doctor", "--data", data, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["data"]["start"] >= "2023-01-02"
    assert facts["data"]["end"] <= "2023-06-30"
    assert facts["data"]["bars"] > 100
    assert facts["data"]["markets"]["all"] == 4
    assert any("SIMULATED" in each for each in facts["advice"])


def test_a_folder_without_data_is_a_problem(tmp_path, capsys):
    code, out, _ = run(capsys, "doctor", "--data", tmp_path / "nowhere")
    assert code == 1
    assert "is not a Qlib data directory" in out
    (tmp_path / "calendars").mkdir()
    (tmp_path / "calendars" / "day.txt").write_text("")
    assert run(capsys, "doctor", "--data", tmp_path)[0] == 1


# Forecast store


def test_a_store_is_counted_without_reading_its_files(tmp_path, capsys, data):
    folder = tmp_path / "forecasts"
    span = ["--start", "2023-06-26", "--end", "2023-06-28", "--data", data]
    small = ["--lookback", 16, "--horizon", 2, "--samples", 1, "--score", "paths"]
    code, _, err = run(capsys, "store", "fill", folder, *span, *small)
    assert code == 0, err
    code, out, _ = run(capsys, "doctor", "--store", folder, "--json")
    facts = json.loads(out)["store"]
    assert code == 0
    assert (facts["forecast sets"], facts["dates"], facts["unusable"]) == (1, 3, 0)
    assert (facts["start"], facts["end"]) == ("2023-06-26", "2023-06-28")

    file = next(folder.rglob("*.parquet"))
    (file.parent / ".x.parquet.12345678.tmp").write_bytes(b"half")
    found = diagnose(store=folder)
    assert found.problems == []
    assert any("1 unfinished files" in each for each in found.advice)

    os.truncate(file, 0)
    (problem,) = diagnose(store=folder).problems
    assert f"1 files of {folder} are empty" in problem

    manifest = next(folder.rglob("_manifest.json"))
    manifest.write_text("{}")
    code, out, _ = run(capsys, "doctor", "--store", folder)
    assert code == 1
    assert "1 forecast sets cannot be read" in out


def test_a_missing_store_is_a_problem(tmp_path, capsys):
    code, out, _ = run(capsys, "doctor", "--store", tmp_path / "nowhere")
    assert code == 1
    assert "There is no forecast store" in out
