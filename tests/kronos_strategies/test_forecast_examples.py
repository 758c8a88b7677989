"""`backtests/forecast_examples.py`, the counterparts of upstream's example scripts, on the simulated market."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from kronos import SampleConfig
from kronos.predictor import KronosPredictor
from tests.kronos_strategies.qlib.conftest import TINY

SCRIPT = Path(__file__).parents[2] / "backtests" / "forecast_examples.py"


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("forecast_examples", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "FILE", Path("nowhere.parquet"))
    monkeypatch.setattr(module, "SAMPLING", SampleConfig(samples=2, T=1.0))
    return module


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list:
    """Forecasts that the model makes."""
    found, forecast = [], KronosPredictor.forecast

    def keep(self, *given, **named):
        found.append(forecast(self, *given, **named))
        return found[-1]

    monkeypatch.setattr(KronosPredictor, "forecast", keep)
    return found


@pytest.mark.parametrize("volume", [True, False])
def test_a_series_is_forecast_and_drawn_with_and_without_volume(examples, made, volume, tmp_path, capsys):
    examples.series(tmp_path / "out.png", model=TINY, volume=volume)
    (forecast,) = made
    assert forecast.paths.shape == (1, 2, 120, 6)
    assert bool(forecast.last_bar[0, 4] > 0) is volume
    assert (tmp_path / "out.png").stat().st_size > 10_000
    assert "out.png" in capsys.readouterr().out


def test_a_batch_is_one_call_of_several_dates(examples, made, tmp_path):
    examples.batch(tmp_path / "out.png", model=TINY)
    (forecast,) = made
    assert forecast.paths.shape == (5, 2, 120, 6)
    assert forecast.index.get_level_values("datetime").is_unique


def test_forecasts_of_a_chinese_share_stay_within_its_price_limits(examples, monkeypatch, tmp_path):
    pytest.importorskip("exchange_calendars", reason="needs the extra 'calendars'")
    written, save = [], examples.save_forecast_plot

    def keep(forecast, *given):
        written.append(forecast)
        return save(forecast, *given)

    monkeypatch.setattr(examples, "save_forecast_plot", keep)
    examples.a_share(tmp_path / "out.png", model=TINY)
    (drawn,) = written
    assert drawn.paths.shape == (1, 2, 10, 6)
    assert drawn.provenance.limits
    closes = np.concatenate([np.repeat(drawn.last_bar[:, None, 3:4], 2, axis=1), drawn.path("close")], axis=2)
    assert (np.abs(np.diff(closes) / closes[..., :-1]) < 0.1001).all()
    assert (tmp_path / "out.png").is_file()


def test_the_real_bars_are_read_where_they_exist(examples, monkeypatch, shared_data):
    file = shared_data / "sh600977_5min_2024.parquet"
    if not file.is_file():
        pytest.skip(f"no {file}")
    monkeypatch.setattr(examples, "FILE", file)
    name, bars = examples.load_bars()
    assert (name, len(bars)) == ("SH600977", 2500)
