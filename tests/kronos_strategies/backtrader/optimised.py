"""An optimisation that other processes can import; run as a script, one that forks behind torch's back."""

from __future__ import annotations

import sys

import backtrader as bt

from kronos_strategies.backtrader import KronosIndicator
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
    """Varies what does not change a forecast, and what does."""

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


if __name__ == "__main__":
    import torch

    torch.set_num_threads(2)
    here = results(prepare(threshold=(0.0, 0.1)).run(maxcpus=1))  # torch starts its threads
    there = results(prepare(threshold=(0.0, 0.1), horizon=(3, 4)).run(maxcpus=2))
    sys.exit(0 if there[::2] == here else "other results")
