"""An optimization that other processes can import; run as a script, it forks after PyTorch has started threads."""

from __future__ import annotations

import multiprocessing
import sys

import backtrader as bt

from kronos_strategies.backtrader import KronosIndicator, run_optimization
from tests.kronos.builders import make_panel
from tests.kronos_strategies.backtrader.builders import SETTINGS, cerebro_of, pandas_feeds


class LastReturns(bt.Analyzer):
    """The forecasts at the end."""

    def get_analysis(self) -> dict[str, float]:
        return self.found

    def stop(self) -> None:
        own = self.strategy.kronos
        self.found = {data._name: line.expected_return[0] for data, line in own.items()}


class Thresholds(bt.Strategy):
    """Varies one parameter that does not change a forecast and one that does."""

    params = (("threshold", 0.0), ("horizon", 3), ("store", None))

    def __init__(self) -> None:
        settings = SETTINGS | {"horizon": self.p.horizon, "store": self.p.store}
        self.kronos = {data: KronosIndicator(data, **settings) for data in self.datas}


def prepare(**varied: object) -> bt.Cerebro:
    cerebro = cerebro_of(pandas_feeds(make_panel(40, "A", "B")))
    cerebro.addanalyzer(LastReturns, _name="last")
    cerebro.optstrategy(Thresholds, **varied)
    return cerebro


def results(runs: list) -> list[tuple[float, int, dict[str, float]]]:
    found = [run[0] for run in runs]
    return [(run.p.threshold, run.p.horizon, run.analyzers.last.get_analysis()) for run in found]


def find_in_fresh_processes(store: str) -> object:
    """The error of an optimization over two spawned processes, if there is one."""
    usual = multiprocessing.get_start_method()
    varied = {"threshold": (0.0, 0.1), "horizon": (3,)}
    found = results(run_optimization(prepare(**varied, store=(store,)), maxcpus=2))
    if found != results(run_optimization(prepare(**varied))):
        return "other results"
    return 0 if multiprocessing.get_start_method() == usual else "another start method"


if __name__ == "__main__":
    import torch

    if sys.argv[1:2] == ["spawn"]:
        sys.exit(find_in_fresh_processes(sys.argv[2]))

    torch.set_num_threads(2)
    here = results(prepare(threshold=(0.0, 0.1)).run(maxcpus=1))  # torch starts its threads
    there = results(prepare(threshold=(0.0, 0.1), horizon=(3, 4)).run(maxcpus=2))
    sys.exit(0 if there[::2] == here else "other results")
