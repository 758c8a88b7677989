"""The command line, run in this process."""

import pytest

from kronos_strategies.cli import main


@pytest.fixture(autouse=True)
def own_folder(tmp_path_factory, monkeypatch):
    """A working directory for each test, where a record of runs may be made; MLflow sets the variable itself."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def walk_market():
    """Half a year of 24 instruments."""
    from kronos_strategies.data.simulate import MarketConfig, simulate_market

    return simulate_market(MarketConfig(seed=3, names=24, sectors=4, start="2022-09-01", end="2023-03-31"))


@pytest.fixture(scope="session")
def walk_folder(walk_market, tmp_path_factory):
    """A Qlib directory `qlib`, the same bars as `bars.parquet`, and a store `forecasts` of three months."""
    from kronos_strategies.data.qlib_store import write_store
    from kronos_strategies.store import ForecastStore

    from .walks import SPEC, RandomWalks, windows_of

    folder = tmp_path_factory.mktemp("backtest")
    write_store(
        walk_market.bars,
        folder / "qlib",
        membership={"csi300": walk_market.membership},
        benchmarks=walk_market.benchmark,
        source={"kind": "test", "region": "cn"},
    )
    walk_market.bars.to_parquet(folder / "bars.parquet")
    ForecastStore(folder / "forecasts").fill(
        RandomWalks(), windows_of(walk_market), SPEC, RandomWalks.sampling
    )
    return folder


def run(capsys, *tokens) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `kronos TOKENS`."""
    try:
        main([str(token) for token in tokens])
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, *capsys.readouterr()
