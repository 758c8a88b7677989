"""The names of folders, and the contents of a manifest."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from kronos.config import SampleConfig
from kronos.forecast import Provenance
from kronos_strategies.store import ForecastSet, ForecastStore, WindowSpec
from kronos_strategies.store.settings import READING_FIELDS, StoreSettings

from .conftest import SAMPLING, SPEC

SHA = "0123456789abcdef" * 4


@pytest.fixture
def made(predictor) -> Provenance:
    return dataclasses.replace(predictor.provenance(SampleConfig(), ""), weights_sha256=SHA)


@pytest.fixture
def settings(made) -> Callable[..., StoreSettings]:
    """The recipe of `made`, some of it changed."""
    return lambda **changes: StoreSettings(dataclasses.replace(made, **changes), SPEC, "float32")


@pytest.mark.parametrize(
    ("model", "folder"),
    [
        ("kronos-nano", "kronos-nano-0123456789ab"),
        ("NeoQuasar/Kronos-small", "NeoQuasar--Kronos-small-0123456789ab"),
        ("/data/runs/my model", "my-model-0123456789ab"),
        ("../tuned", "tuned-0123456789ab"),
        ("~/tuned", "tuned-0123456789ab"),
        ("a:b*c?", "a-b-c-0123456789ab"),
        ("/", "model-0123456789ab"),
    ],
)
def test_a_models_folder_is_its_name_as_any_file_system_takes_it_and_its_weights_hash(
    settings, model, folder
):
    assert settings(model=model).folder.parts[0] == folder
    assert len(settings(model=model).folder.parts) == 2


def test_settings_that_change_no_number_do_not_change_the_hash(settings):
    same = settings(trained_until="2024-06-30", revision="abc", data_sha256="d")
    assert same.settings_sha256 == settings().settings_sha256
    assert (
        settings(sampling=SampleConfig(T=1)).settings_sha256
        == settings(sampling=SampleConfig(T=1.0)).settings_sha256
    )


def test_a_setting_that_a_provenance_gains_later_names_another_folder(made):
    @dataclasses.dataclass(frozen=True)
    class Wider(Provenance):
        rounding: str = "nearest"

    wider = Wider(**vars(made), rounding="down")
    assert StoreSettings(wider, SPEC, "float32").settings["rounding"] == "down"
    assert StoreSettings(wider, SPEC, "float32").folder != StoreSettings(made, SPEC, "float32").folder


def test_settings_survive_a_round_trip_through_json(settings):
    written = json.loads(json.dumps([settings().model, settings().settings]))
    assert StoreSettings.from_json(*written) == settings()


def test_the_manifest_holds_every_setting_the_weights_hash_and_the_hash_of_the_data(
    tmp_path, predictor, windows
):
    forecast_set = ForecastStore(tmp_path).fill(predictor, windows, SPEC, SAMPLING).forecast_set
    manifest = json.loads((forecast_set.folder / "_manifest.json").read_text())
    assert manifest == forecast_set.manifest
    assert manifest["model"] == {
        "model": "kronos-nano",
        "revision": None,
        "weights_sha256": predictor.checkpoint_info.sha256,
        "trained_until": predictor.checkpoint_info.trained_until,
    }
    settings = manifest["settings"]
    assert settings["window_spec"] == {"universe": "four", "lookback": 20, "horizon": 3, "min_bars": 20}
    assert settings["sampling"] == dataclasses.asdict(SAMPLING)
    assert (settings["dtype"], settings["max_context"], settings["format"]) == ("float32", 512, 4)
    known = {field.name for field in dataclasses.fields(Provenance)} - {"data_sha256", *READING_FIELDS}
    assert known <= set(manifest["model"]) | set(settings)
    data = manifest["data"]
    assert (data["dates"], data["first"], data["last"]) == (15, "2024-02-12", "2024-03-01")
    assert len(data["sha256"]) == 64
    assert forecast_set.folder.name == manifest["settings_sha256"][:12]


def test_the_datas_hash_moves_with_the_data_and_with_nothing_else(tmp_path, predictor, windows):
    def data(folder: str, some) -> str:
        return (
            ForecastStore(tmp_path / folder)
            .fill(predictor, some, SPEC, SAMPLING)
            .forecast_set.manifest["data"]["sha256"]
        )

    assert data("a", windows[:8]) == data("b", windows[:8]) != data("a", windows[:12])


def test_a_store_is_opened_by_its_settings_or_by_its_folder(tmp_path, predictor, windows):
    store = ForecastStore(tmp_path)
    folder = store.fill(predictor, windows[:4], SPEC, SAMPLING).forecast_set.folder
    assert store.open(predictor.provenance(SAMPLING, ""), SPEC).folder == folder
    assert [forecast_set.folder for forecast_set in store.forecast_sets()] == [folder]
    moved = folder.rename(tmp_path / "elsewhere")
    assert len(ForecastSet(moved).read("2024-02-12")) == 4
    with pytest.raises(FileNotFoundError, match=r"not a folder of forecasts.*kronos store fill"):
        store.open(predictor.provenance(SampleConfig(seed=9), ""), SPEC)


def test_an_edited_manifest_is_refused(tmp_path, predictor, windows, caplog):
    store = ForecastStore(tmp_path)
    path = store.fill(predictor, windows[:4], SPEC, SAMPLING).forecast_set.folder / "_manifest.json"
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 2'))
    with pytest.raises(ValueError, match=r"_manifest.json cannot be used.*edited.*another store"):
        store.fill(predictor, windows, SPEC, SAMPLING)
    path.write_text("{")
    with pytest.raises(ValueError, match="is not a JSON object"):
        ForecastSet(path.parent)
    path.write_text('{"model": {}, "settings": {"sampling": {}}}')
    with pytest.raises(ValueError, match="another version"):
        ForecastSet(path.parent)
    assert store.forecast_sets() == []
    assert "another version" in caplog.text


def test_an_unknown_type_of_paths_is_refused(made):
    with pytest.raises(ValueError, match=r"float8.*float32"):
        ForecastStore("nowhere", dtype="float8")
    with pytest.raises(ValueError, match="float8"):
        StoreSettings(made, WindowSpec("four", 20, 3, 20), "float8")


@pytest.mark.integration
def test_a_store_is_read_without_torch(tmp_path, predictor, windows):
    ForecastStore(tmp_path).fill(predictor, windows[:4], SPEC, SAMPLING)
    script = (
        "import sys\nfrom kronos_strategies.store import ForecastStore\n"
        f"(stored,) = ForecastStore({str(tmp_path)!r}).forecast_sets()\n"
        "assert len(next(iter(stored))) == 4\nassert len(stored.frame()) == 4\n"
        "sys.exit(f'{heavy}' if (heavy := {'torch', 'qlib', 'duckdb'} & set(sys.modules)) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
