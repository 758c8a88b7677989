"""A small simulated store and the tiny reference checkpoint, under the real Qlib."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("qlib")
import qlib
from mlflow.tracking import MlflowClient

from kronos_strategies.data.qlib_store import write_store
from kronos_strategies.data.simulate import MarketConfig, SimulatedMarket, simulate_market
from tests.kronos_strategies.warm import run_warm

CONFIG = Path(__file__).parents[3] / "configs" / "kronos_csi300.yaml"
TINY = Path(__file__).parents[2] / "reference" / "kronos_tiny"


@pytest.fixture(scope="session")
def small_market() -> SimulatedMarket:
    return simulate_market(
        MarketConfig(seed=3, instruments=24, sectors=4, start="2022-01-03", end="2023-06-30")
    )


def store_of(market: SimulatedMarket, bars: pd.DataFrame, folder: Path) -> Path:
    """`bars` with the market's membership and calendar; only the bars may differ from the market's own."""
    write_store(
        bars,
        folder,
        membership={"csi300": market.membership},
        benchmarks=market.benchmark,
        source={"kind": "test"},
    )
    return folder


def bars_of(names: list[str], times: pd.DatetimeIndex) -> pd.DataFrame:
    """Random walks of all instruments at the same times."""
    rng, parts = np.random.default_rng(1), []
    for name in names:
        close = 100 * np.exp(rng.normal(0, 0.004, len(times)).cumsum())
        open_ = close * np.exp(rng.normal(0, 0.001, len(times)))
        high, low = np.maximum(open_, close) * 1.001, np.minimum(open_, close) * 0.999
        prices = {"open": open_, "high": high, "low": low, "close": close}
        volume = rng.uniform(10, 20, len(times))
        parts.append(pd.DataFrame({"instrument": name, "datetime": times, **prices, "volume": volume}))
    return pd.concat(parts, ignore_index=True)


def use_store(folder: Path) -> None:
    qlib.init(provider_uri=str(folder), region="cn", kernels=1, skip_if_reg=False)


@pytest.fixture(scope="session")
def small_store(small_market: SimulatedMarket, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store_of(small_market, small_market.bars, tmp_path_factory.mktemp("qlib") / "store")


@pytest.fixture
def in_store(small_store: Path) -> Path:
    """Qlib reads the small store."""
    use_store(small_store)
    return small_store


@pytest.fixture(scope="session")
def empty_record(tmp_path_factory) -> Path:
    """A database of runs without any, which takes MLflow seconds to make."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def run_folder(empty_record: Path, tmp_path: Path) -> Path:
    """An empty folder for qrun, but for that database."""
    shutil.copy(empty_record, tmp_path / "mlflow.db")
    return tmp_path


def record_with(store: Path) -> None:
    """Qlib reads a store, and records runs in the working directory."""
    manager = {
        "class": "KronosExpManager",
        "module_path": "kronos_strategies.qlib.experiment",
        "kwargs": {"uri": "sqlite:///mlflow.db", "default_exp_name": "test"},
    }
    settings = {"region": "cn", "kernels": 1, "skip_if_reg": False}
    qlib.init(provider_uri=str(store), exp_manager=manager, **settings)


@pytest.fixture
def recorded(small_store: Path, run_folder: Path, monkeypatch) -> Path:
    """Qlib reads the small store and keeps its runs in an empty folder, which is the working directory."""
    monkeypatch.chdir(run_folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    record_with(small_store)
    return run_folder


def qrun_command_line(config: Path = CONFIG) -> list[Path]:
    return [Path(sys.executable).parent / "qrun", config]


def qrun_environment(**settings: str) -> dict[str, str]:
    ours = {k: v for k, v in os.environ.items() if not k.startswith("KRONOS_")}
    return {**ours, "KRONOS_DEVICE": "cpu", "KRONOS_SAMPLES": "2", "KRONOS_MODEL": str(TINY), **settings}


def qrun(folder: Path, config: Path = CONFIG, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a workflow as `qrun` does, in a process that has loaded Qlib already."""
    return run_warm(qrun_command_line(config), folder, qrun_environment(**settings))


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def run(tmp_path_factory, cache) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A month of the simulated market, which does not exist before; the one qrun that loads everything itself."""
    folder = tmp_path_factory.mktemp("run")
    sectors = simulate_market(MarketConfig()).sectors  # of the default market
    pd.DataFrame({"instrument": sectors.index, "industry": sectors.to_numpy()}).to_csv(folder / "sectors.csv")
    span = {"KRONOS_TEST_START": "2023-05-08", "KRONOS_TEST_END": "2023-06-09"}
    more = {"KRONOS_STORE": "forecasts", "KRONOS_INDUSTRY": "sectors.csv"}
    environment = qrun_environment(XDG_CACHE_HOME=str(cache), **more, **span)
    done = subprocess.run(
        qrun_command_line(),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return done, folder


def artifact_folder(folder: Path) -> Path:
    (found,) = folder.glob("mlruns/*/*/artifacts/kronos")
    return found
