"""Fixtures and hooks of all tests."""

import gc
import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

from kronos.utils import collect_less

# The same examples in every run, so that a change fails only by its own faults; search for new ones with
# `pytest --hypothesis-profile=explore`.
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile("repeatable")
collect_less()  # a tenth of the time of all tests

SHARED_DATA = Path(os.environ.get("KRONOS_SHARED_DATA") or Path(__file__).parents[2] / "shared" / "data")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real bars, which is not part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real bars in {SHARED_DATA}; set KRONOS_SHARED_DATA")
    return SHARED_DATA


# Tests in these folders run an engine or a command from end to end, so all of them are integration tests.
INTEGRATION = ("kronos_strategies/backtrader", "kronos_strategies/cli", "kronos_strategies/qlib")
# So are these files slow: most of their tests take seconds of CPU time.
SLOW = (
    *("kronos/inference/test_cuda_graph.py", "kronos/inference/test_cuda_graph_chunks.py"),
    *("kronos_strategies/test_benchmark.py", "kronos_strategies/test_forecast_examples.py"),
    *("kronos_strategies/test_planted_effect.py", "kronos_strategies/backtest/test_sweep.py"),
    *("kronos_strategies/calibration/test_fit.py", "kronos_strategies/heads/test_probes.py"),
    *("kronos_strategies/store/test_locations.py", "kronos_strategies/store/test_fill.py"),
    *("kronos_strategies/evaluation/comparison/test_portfolios.py",),
    *("kronos_strategies/evaluation/comparison/test_metrics.py",),
    *("kronos_strategies/evaluation/comparison/test_gate.py", "benchmarks/test_accelerator.py"),
    *("kronos_strategies/evaluation/portfolio/test_sharpe.py", "kronos_strategies/report/test_figures.py"),
    *("kronos_strategies/evaluation/distribution/test_scores.py", "kronos_strategies/report/test_sweep.py"),
    *("kronos_strategies/report/test_show_report.py", "kronos/test_units.py"),
)
# `make test-fast` leaves out tests with these marks; no other test may start a process of these programs.
MARKS = ("integration", "slow")
PROGRAMS = ("python", "qrun", "kronos", "torchrun", "bash", "chrom")
running: list[pytest.Item] = []
# MLflow leaves its address in the environment, where later tests and their processes would find it.
TRACKING, TRACKING_BEFORE = "MLFLOW_TRACKING_URI", os.environ.get("MLFLOW_TRACKING_URI")


def refuse_processes(event: str, arguments: tuple) -> None:
    """An audit hook that fails an unmarked test as it starts a process."""
    if event != "subprocess.Popen" or not running or any(map(running[-1].get_closest_marker, MARKS)):
        return
    program, command = arguments[:2]
    first = program or (command if isinstance(command, str | bytes) else command[0])
    if Path(os.fsdecode(first)).name.startswith(PROGRAMS):
        raise RuntimeError(
            f"{running[-1].name} starts {os.fsdecode(first)}: mark it `integration` or `slow`."
        )


sys.addaudithook(refuse_processes)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """The garbage collector skips what the test files import: a million objects, half a second in each full run."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of whole folders; in a process of xdist, the files with the heaviest tests come first."""
    folders = [Path(__file__).parent / folder for folder in INTEGRATION]
    for item in items:
        if any(folder in item.path.parents for folder in folders):
            item.add_marker(pytest.mark.integration)
        if item.path.relative_to(Path(__file__).parent).as_posix() in SLOW:
            item.add_marker(pytest.mark.slow)
    if hasattr(config, "workerinput"):
        heavy = {item.path: 0 for item in items}
        for item in items:
            marks = [bool(item.get_closest_marker(mark)) for mark in ("slow", "integration")]
            heavy[item.path] = max(heavy[item.path], 2 * marks[0] + marks[1])
        # A heavy file that comes last leaves the other process idle. The sort keeps the tests of a file together.
        items.sort(key=lambda item: -heavy[item.path])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Which test runs, its fixtures included; the environment keeps its MLflow address."""
    running.append(item)
    try:
        return (yield)
    finally:
        running.pop()
        os.environ.pop(TRACKING, None)
        if TRACKING_BEFORE is not None:
            os.environ[TRACKING] = TRACKING_BEFORE
