"""Cost of the Backtrader adapter, compared with the model alone and with an indicator that predicts every bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

from kronos.bars import PRICES
from kronos.predictor import KronosPredictor
from tests.benchmarks.measure import Record, timed
from tests.kronos.builders import make_bars, make_panel

SUPPORTED = find_spec("backtrader") is not None
ASSETS, BARS, LOOKBACK, HORIZON, SAMPLES, EVERY = 50, 1000, 90, 5, 20, 5
MODES: dict[str, dict[str, bool]] = {"runonce": {}, "bar by bar": {"runonce": False}}
NAIVE_BARS = 140  # of one asset; of which those from the lookback on are forecast


def compare(assets: int, bars: int) -> Record:
    """Each mode and an empty strategy over the same feeds, then the naive indicator on a part, scaled.

    CPU seconds. Ours is what a run takes beyond the model's calls and what Backtrader takes without us.
    """
    from kronos_strategies.backtrader import KronosIndicator, forecasts

    def ours(data: Any) -> Any:
        sizes = {"lookback": LOOKBACK, "horizon": HORIZON, "samples": SAMPLES, "every": EVERY}
        return KronosIndicator(data, device="cpu", **sizes)

    run({"A": make_bars(LOOKBACK + 5)}, ours)  # loads and packs
    panel = make_panel(bars, *(f"A{i:03}" for i in range(assets)))
    record: Record = {"assets": assets, "bars": bars, "every": EVERY, "modes": {}}
    for name, mode in MODES.items():
        forecasts._CACHE.clear()
        bare = timed(partial(run, panel, None, **mode))
        with model_calls() as calls:
            whole = timed(partial(run, panel, ours, **mode))
        again = timed(partial(run, panel, ours, **mode))
        windows = sum(call["windows"] for call in calls)
        record["modes"][name] = {
            "calls": len(calls),
            "windows": windows,
            "model": sum(call["cpu"] for call in calls),
            "bare": bare["cpu"],
            "whole": whole["cpu"],
            "again": again["cpu"],  # all forecasts remembered
        }
    record["naive"] = naive(assets, bars)
    return record


def naive(assets: int, bars: int) -> Record:
    """An indicator that calls `predict` in each `next`: a part of one asset's bars, scaled to all."""
    spent = timed(lambda: run({"A": make_bars(NAIVE_BARS)}, naive_indicator(), runonce=False))["cpu"]
    measured, each_bar = NAIVE_BARS - LOOKBACK + 1, assets * (bars - LOOKBACK + 1)
    return {"measured": measured, "seconds": spent, "calls": each_bar, "scaled": spent * each_bar / measured}


def naive_indicator() -> Callable[[Any], Any]:
    """The first thing that one writes."""
    import backtrader as bt
    import pandas as pd

    predictor = KronosPredictor.from_pretrained("kronos-nano", device="cpu")

    class Naive(bt.Indicator):
        lines = ("forecast_close",)

        def __init__(self) -> None:
            self.addminperiod(LOOKBACK)

        def next(self) -> None:
            columns = {name: getattr(self.data, name).get(size=LOOKBACK) for name in (*PRICES, "volume")}
            past = pd.Series([bt.num2date(day) for day in self.data.datetime.get(size=LOOKBACK)])
            ahead = pd.Series(pd.bdate_range(past.iloc[-1], periods=HORIZON + 1)[1:])
            found = predictor.predict(
                pd.DataFrame(columns), past, ahead, HORIZON, top_p=1.0, sample_count=SAMPLES, verbose=False
            )
            self.lines.forecast_close[0] = found["close"].iloc[-1]

    return Naive


def run(panel: dict[str, Any], make: Callable[[Any], Any] | None, **mode: bool) -> None:
    """A strategy that only has the indicators that `make` makes."""
    import backtrader as bt

    class Quiet(bt.Strategy):
        def __init__(self) -> None:
            self.made = [make(data) for data in self.datas] if make is not None else []

    cerebro = bt.Cerebro(stdstats=False)
    for name, bars in panel.items():
        cerebro.adddata(bt.feeds.PandasData(dataname=bars), name=name)
    cerebro.addstrategy(Quiet)
    cerebro.run(**mode)


@contextmanager
def model_calls() -> Iterator[list[dict[str, float]]]:
    """CPU seconds and windows of each call of the model within."""
    calls: list[dict[str, float]] = []
    honest = KronosPredictor.forecast

    def forecast(self: KronosPredictor, windows: Any, *rest: Any, candles: Any = "valid") -> Any:
        started = time.process_time()
        found = honest(self, windows, *rest, candles=candles)
        calls.append({"windows": len(windows), "cpu": time.process_time() - started})
        return found

    KronosPredictor.forecast = forecast  # type: ignore[method-assign]
    try:
        yield calls
    finally:
        KronosPredictor.forecast = honest  # type: ignore[method-assign]
