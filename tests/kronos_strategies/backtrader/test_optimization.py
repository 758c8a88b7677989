"""Optimizations in this process, in spawned ones, and in forked ones."""

import multiprocessing
import subprocess
import sys

import backtrader as bt
import pytest

from kronos.predictor import KronosPredictor
from kronos_strategies.backtrader import forecasts, run_optimization
from tests.kronos_strategies.backtrader.optimization_runs import Thresholds, prepare, results


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models loaded since the test began."""
    forecasts._load.cache_clear()
    forecasts._CACHE.clear()
    found: list[str] = []
    honest = KronosPredictor.from_pretrained.__func__

    def load(cls, spec, *rest, **settings):
        found.append(spec)
        return honest(cls, spec, *rest, **settings)

    monkeypatch.setattr(KronosPredictor, "from_pretrained", classmethod(load))
    return found


def test_one_process_loads_one_model_and_forecasts_each_window_once(loads, asked):
    found = results(run_optimization(prepare(threshold=(0.0, 0.1, 0.2), horizon=(3, 4))))
    assert [run[:2] for run in found] == [(t, h) for t in (0.0, 0.1, 0.2) for h in (3, 4)]
    assert loads == ["kronos-nano"]
    assert len(asked) == 2  # of each horizon
    assert found[0][2] == found[2][2] != found[1][2]


@pytest.mark.slow
def test_spawned_processes_give_the_same_results(tmp_path):
    # A script, since the processes that it starts import its main module, and a test runner is not one.
    module = "tests.kronos_strategies.backtrader.optimization_runs"
    script = [sys.executable, "-m", module, "spawn", str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="no process can be forked here"
)
def test_forked_processes_use_one_thread_with_a_warning():
    script = [sys.executable, "-m", "tests.kronos_strategies.backtrader.optimization_runs"]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "PyTorch used 2 threads, which do not exist here: forecasts use 1 thread" in done.stderr


def test_zero_processes_are_refused():
    with pytest.raises(ValueError, match="maxcpus=0"):
        run_optimization(bt.Cerebro(), maxcpus=0)


def test_strategies_of_an_interactive_session_are_refused(monkeypatch):
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    monkeypatch.setattr(Thresholds, "__module__", "__main__")
    with pytest.raises(ValueError, match="Thresholds is defined in an interactive session"):
        run_optimization(prepare(threshold=(0.0, 0.1)), maxcpus=2)
