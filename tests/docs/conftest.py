"""A home directory that holds what the pages take for granted: bars, forecasts, a checkpoint."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kronos import KronosPredictor, SampleConfig, Windows, adjust_bars
from kronos_strategies.data.simulate import MarketConfig, simulate_market
from kronos_strategies.store import ForecastStore, WindowSpec

from .pages import ROOT

NANO = ROOT / "kronos" / "pretrained" / "kronos-nano"


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with everything that a page reads; pages write to copies of it."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(ROOT / "configs", home / "configs")
    shutil.copy(NANO / "predictor" / "calibration.json", home / "calibration.json")
    shutil.copytree(NANO, home / "out" / "five_min" / "best")
    five_min = walk(pd.date_range("2024-07-01", periods=150, freq="5min", name="datetime"))
    five_min.to_csv(home / "five_min.csv")
    (home / "klines").mkdir()
    klines = walk(pd.date_range("2024-01-01", periods=48, freq="60min", name="datetime"))
    klines.to_csv(home / "klines" / "BTCUSDT-1h-2024-01.csv")
    held = {"SH609020": 0.12, "SH609009": 0.10, "SZ009005": 0.08}
    pd.Series(held, name="weight").to_csv(home / "holdings.csv", index_label="instrument")
    fill_store(home / "forecasts")
    return home


@pytest.fixture
def home(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory and home of a page; kronos, qrun and python are those of this environment."""
    folder = tmp_path / "home"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))  # the home of Windows
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    for name in [name for name in os.environ if name.startswith("KRONOS_")]:
        monkeypatch.delenv(name)
    return folder


def walk(times: pd.DatetimeIndex) -> pd.DataFrame:
    """Bars of a random walk."""
    close = 100 * np.exp(np.random.default_rng(0).normal(0, 0.002, len(times)).cumsum())
    before = np.concatenate([[100.0], close[:-1]])
    high, low = np.maximum(before, close) * 1.001, np.minimum(before, close) * 0.999
    columns = {"open": before, "high": high, "low": low, "close": close, "volume": 1_000.0}
    return pd.DataFrame(columns, index=times)


def fill_store(folder: Path) -> None:
    """Three dates of eight simulated instruments, forecast by kronos-nano."""
    market = simulate_market(MarketConfig(instruments=8, start="2022-12-01", end="2023-06-30"))
    panel = adjust_bars(market.bars).set_index(["datetime", "instrument"])
    span = {"start": "2023-05-31", "end": "2023-06-02"}
    windows = Windows.rolling(panel, lookback=90, horizon=6, calendar="B", **span)
    predictor = KronosPredictor.from_pretrained("kronos-nano", device="cpu")
    spec = WindowSpec("csi300", lookback=90, horizon=6, min_bars=90)
    ForecastStore(folder).fill(predictor, windows, spec, SampleConfig(samples=4, T=1.0, top_p=1.0, seed=0))
