"""Chronos-2, Chronos-Bolt and TiRex as forecasters, on tiny checkpoints in their own formats."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from kronos.bars import CLOSE
from kronos.config import SampleConfig
from kronos.utils import MissingExtra
from kronos.windows import Windows
from kronos_strategies.forecasters import load_forecaster
from kronos_strategies.lookahead import check_causal
from kronos_strategies.signal import signals

from . import checkpoints
from .markets import DAYS, panel_from, panel_of, tidy

MODELS = {
    "chronos-2": checkpoints.chronos_2,
    "chronos-bolt": checkpoints.chronos_bolt,
    "tirex": checkpoints.tirex,
}
KINDS = {"chronos-2": "chronos", "chronos-bolt": "chronos", "tirex": "tirex"}
SAMPLING = SampleConfig(samples=8)
HORIZON = 5


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each model whose package is installed."""
    made = {}
    for model, make in MODELS.items():
        try:
            made[model] = make(tmp_path_factory.mktemp(model) / "checkpoint")
        except ImportError:
            continue
    return made


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest, folders: dict[str, Path]) -> str:
    if request.param not in folders:
        pytest.skip(f"the package of {request.param} is not installed")
    return f"{KINDS[request.param]}:{folders[request.param]}"


@pytest.fixture
def chronos(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a Chronos-2 checkpoint, to damage."""
    if "chronos-2" not in folders:
        pytest.skip("chronos-forecasting is not installed")
    return Path(shutil.copytree(folders["chronos-2"], tmp_path / "copy"))


def windows_of(
    panel: dict[str, pd.DataFrame], lookback: int = 60, horizon: int = HORIZON, **options
) -> Windows:
    return Windows.rolling(panel, lookback, horizon, "B", **options)


def test_forecasts_are_valid_candles_from_the_last_close_on(name: str) -> None:
    windows = windows_of(panel_of(), start=DAYS[190])
    forecast = load_forecaster(name, device="cpu").forecast(windows, SAMPLING)
    assert forecast.paths.shape == (len(windows), 8, HORIZON, 6)
    assert forecast.index.equals(windows.index)
    assert not any(vars(forecast.violations())[what] for what in ("outside", "crossed", "not_positive"))
    assert (forecast.log_returns().std(axis=(1, 2)) > 0).all()


def test_a_window_does_not_depend_on_the_others_of_a_call(name: str) -> None:
    windows = windows_of(panel_of(), 50, min_bars=20, start=DAYS[19], end=DAYS[60], every=9)
    assert len(set(windows.lengths)) > 3
    forecaster = load_forecaster(name, device="cpu")
    whole = forecaster.forecast(windows, SAMPLING).paths
    alone = [forecaster.forecast(windows[i : i + 1], SAMPLING).paths for i in range(len(windows))]
    np.testing.assert_allclose(np.concatenate(alone), whole, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::kronos.bars.BarsWarning")  # of the randomized future
def test_no_later_bar_changes_a_forecast(name: str) -> None:
    forecaster = load_forecaster(name, device="cpu")

    def run(bars: pd.DataFrame) -> pd.DataFrame:
        windows = windows_of(panel_from(bars), start=DAYS[180], every=5)
        return signals(forecaster.forecast(windows, SAMPLING), hold=2)

    check_causal(run, tidy(panel_of()), [DAYS[185], DAYS[190]])


def test_bars_before_the_context_of_the_model_are_not_read(name: str) -> None:
    forecaster = load_forecaster(name, device="cpu")
    assert forecaster.max_context == checkpoints.CONTEXT
    long, short = (windows_of(panel_of(1), n, start=DAYS[190]) for n in (150, checkpoints.CONTEXT))
    closes = [forecaster.forecast(each, SAMPLING).path("close") for each in (long, short)]
    np.testing.assert_allclose(*closes, rtol=1e-5)


def test_forecasts_have_no_unit_of_price(name: str) -> None:
    forecaster = load_forecaster(name, device="cpu")
    cheap = panel_of(1)
    expensive = {
        key: bars.assign(**{p: bars[p] * 1000 for p in ("open", "high", "low", "close")})
        for key, bars in cheap.items()
    }
    returns = [
        forecaster.forecast(windows_of(panel, start=DAYS[190]), SAMPLING).log_returns()
        for panel in (cheap, expensive)
    ]
    np.testing.assert_allclose(*returns, atol=1e-4)


def test_a_close_that_is_not_positive_is_unknown_to_the_model(name: str) -> None:
    windows = windows_of(panel_of(1), start=DAYS[190])
    windows.bars[windows.end_positions[0] - 10, CLOSE] = 0.0
    assert np.isfinite(load_forecaster(name, device="cpu").forecast(windows, SAMPLING).paths).all()


def test_a_copy_from_a_pickle_forecasts_the_same(name: str) -> None:
    windows = windows_of(panel_of(1), start=DAYS[190])
    forecaster = load_forecaster(name, device="cpu")
    copied = pickle.loads(pickle.dumps(forecaster))
    np.testing.assert_allclose(
        copied.forecast(windows, SAMPLING).paths, forecaster.forecast(windows, SAMPLING).paths, rtol=1e-4
    )
    assert copied.provenance(SAMPLING, "") == forecaster.provenance(SAMPLING, "")


def test_provenance_names_the_model_and_other_weights_have_another_hash(name: str, tmp_path: Path) -> None:
    known = load_forecaster(name, device="cpu").provenance(SAMPLING, "data")
    assert (known.model, known.revision, known.data_sha256) == (name, None, "data")
    kind, _, folder = name.partition(":")
    same = load_forecaster(f"{kind}:{shutil.copytree(folder, tmp_path / 'same')}", device="cpu")
    assert same.weights_sha256 == known.weights_sha256
    make = next(make for model, make in MODELS.items() if model in folder)
    other = load_forecaster(f"{kind}:{make(tmp_path / 'other', seed=1)}", device="cpu")
    assert other.weights_sha256 != known.weights_sha256


def test_a_model_card_dates_the_end_of_training(chronos: Path) -> None:
    assert load_forecaster(f"chronos:{chronos}", device="cpu").trained_until is None
    (chronos / "README.md").write_text("---\ntrained_until: 2024-06-30\n---\n")
    assert load_forecaster(f"chronos:{chronos}", device="cpu").trained_until == "2024-06-30"


def test_weights_of_the_cache_of_the_hub_are_known_by_their_commit(
    chronos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    commit, repo = "0123456789abcdef0123456789abcdef01234567", tmp_path / "hub" / "models--me--tiny"
    shutil.copytree(chronos, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    for name in ("chronos:me/tiny", f"chronos:me/tiny?revision={commit}"):
        known = load_forecaster(name, device="cpu").provenance(SAMPLING, "")
        assert (known.model, known.revision) == (name, commit)


def test_a_model_that_is_not_in_the_cache_is_named_with_the_command_that_fetches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r"amazon/chronos-2.*downloads are off.*hf download amazon/chronos-2"
    ):
        load_forecaster("chronos:amazon/chronos-2", device="cpu")


def test_a_folder_without_weights_says_what_it_lacks(chronos: Path) -> None:
    (chronos / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks \['model\.safetensors'\]"):
        load_forecaster(f"chronos:{chronos}", device="cpu")


def test_damaged_weights_are_refused(chronos: Path) -> None:
    file = chronos / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is not a checkpoint of Chronos-2 or Chronos-Bolt"):
        load_forecaster(f"chronos:{chronos}", device="cpu")


def test_a_checkpoint_that_lacks_a_weight_is_refused_rather_than_completed_at_random(chronos: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = chronos / "model.safetensors"
    weights = load_file(file)
    dropped = next(key for key in weights if key.endswith("wo.weight"))
    save_file({key: value for key, value in weights.items() if key != dropped}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=f"lacks 1 weights, the first {dropped}"):
        load_forecaster(f"chronos:{chronos}", device="cpu")


def test_another_kind_of_model_is_refused(chronos: Path) -> None:
    config = json.loads((chronos / "config.json").read_text())
    (chronos / "config.json").write_text(json.dumps(config | {"chronos_pipeline_class": "Other"}))
    with pytest.raises(ValueError, match=r"is not a checkpoint of Chronos-2 or Chronos-Bolt \(.*Other.*\)"):
        load_forecaster(f"chronos:{chronos}", device="cpu")


def test_a_horizon_beyond_that_of_training_is_refused(chronos: Path) -> None:
    windows = windows_of(panel_of(1), horizon=checkpoints.HORIZON + 1, start=DAYS[198])
    with pytest.raises(ValueError, match=r"horizon=17 is longer than the 16 bars"):
        load_forecaster(f"chronos:{chronos}", device="cpu").forecast(windows, SAMPLING)


def test_weights_that_are_not_finite_are_found_at_the_first_forecast(chronos: Path) -> None:
    forecaster = load_forecaster(f"chronos:{chronos}", device="cpu")
    with torch.no_grad():
        next(forecaster.model.network.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match=r"N00.*not finite"):
        forecaster.forecast(windows_of(panel_of(1), start=DAYS[198]), SAMPLING)


def test_the_device_can_be_changed_by_name(chronos: Path) -> None:
    forecaster = load_forecaster(f"chronos:{chronos}", device="cpu")
    forecaster.device = "cpu"
    assert forecaster.device == torch.device("cpu")
    with pytest.raises(ValueError, match="device 'nothing' is not available"):
        forecaster.device = "nothing"
    assert forecaster.device == torch.device("cpu")


@pytest.mark.parametrize(("package", "kind"), [("chronos", "chronos"), ("tirex", "tirex")])
def test_a_missing_package_names_its_extra(
    package: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in ("config.json", "model.safetensors", "model.ckpt"):
        (tmp_path / file).touch()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"pip install 'kronos-strategies\[{kind}\]'"):
        load_forecaster(f"{kind}:{tmp_path}", device="cpu")


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no setting 'size'"):
        load_forecaster(f"chronos:{tmp_path}?size=small", device="cpu")
