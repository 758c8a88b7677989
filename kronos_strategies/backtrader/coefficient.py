"""InformationCoefficient: how well a line ranked the returns that followed, as an analyzer.

It reads bar by bar what the strategy could read and computes when the run stops, when the returns are known. That
takes the extra `evaluation`, which a run without analyzers does not need.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

import backtrader as bt
import pandas as pd

from kronos.config import as_integer
from kronos_strategies.backtrader.scores import ScoreTape
from kronos_strategies.backtrader.shown import Clock, Shown, name_feeds

PRICES = ("open", "close")


class InformationCoefficient(bt.Analyzer):
    """How well a line ranks the returns that follow, at each rebalance.

    A line's value at the close of bar t is held against price(t + 1 + hold) / price(t + 1) - 1, bars counted on the
    union of the ranked feeds' bars: what a position earns that is decided at t, trades on the next bar and is held
    until the next rebalance. NaN unless the feed traded on both bars.

        cerebro.addanalyzer(InformationCoefficient, signal="score")
        strategy.analyzers.informationcoefficient.get_analysis()

    Params:
        signal: line of each feed, or of an indicator on it, such as `KronosIndicator`.
        every: strategy bars between rebalances, from the first bar with a value on; 0 takes the strategy's own
            parameter `every`, else the indicator's, else 1.
        hold: bars that the return spans; 0 for `every`.
        price: that is traded at, "open" or "close".
        min_names: a date with fewer pairs is undefined.

    Raises:
        ValueError: no feed has the line, or a parameter is out of range.
        MissingExtra: scipy or statsmodels is missing.
    """

    params = (("signal", "score"), ("every", 0), ("hold", 0), ("price", "open"), ("min_names", 10))

    def start(self) -> None:
        """Find the lines; before a long run, not after it, comes what would stop it."""
        from kronos_strategies.evaluation import significance  # noqa: F401

        check_params(self)
        self._feeds = name_feeds(self.strategy.datas)
        self._scores = ScoreTape(self.strategy, self._feeds, self.p.signal, self.p.every)
        self._clock = Clock(self.strategy, self._feeds)

    def next(self) -> None:
        """Read the current bar."""
        self._clock.see()
        self._scores.see()

    def stop(self) -> None:
        """Compute; let go of the engine, so that an optimisation can hand the analysis on."""
        from kronos_strategies.evaluation.price_panel import PricePanel
        from kronos_strategies.evaluation.signal.ic import icir, information_coefficients
        from kronos_strategies.evaluation.significance import label_overlap, mean_test

        shown, tape = Shown(self._feeds), self._scores
        hold = self.p.hold or tape.every
        panel = shown.panel(list(tape.sources))
        scores = tape.frame(shown, shown.dates(self._clock))["score"].dropna()
        scores = scores[scores.index.isin(panel.index)]
        market = PricePanel.from_bars(panel)
        label = market.lookup(market.forward_return(hold, self.p.price), cast(pd.MultiIndex, scores.index))
        found = information_coefficients(scores, label, self.p.min_names) if len(scores) else _nothing()
        overlap = label_overlap(hold, tape.every)
        self.rets = {
            "signal": self.p.signal,
            "label": label_of(self.p.price, hold),
            "every": tape.every,
            "hold": hold,
            "ic": _by_time(found["ic"]),
            "rank_ic": _by_time(found["rank_ic"]),
            "ic_test": asdict(mean_test(found["ic"], overlap)),
            "rank_ic_test": asdict(mean_test(found["rank_ic"], overlap)),
            "icir": float(icir(found["ic"])),
            "rank_icir": float(icir(found["rank_ic"])),
        }
        del self._feeds, self._scores, self._clock

    def get_analysis(self) -> dict[str, Any]:
        """What was found.

        Returns:
            signal, label, every and hold; ic and rank_ic: value by datetime of each rebalance, NaN where undefined;
            ic_test and rank_ic_test: the fields of `significance.MeanTest`, whose interval and t allow for labels
            that overlap and which counts undefined dates; icir and rank_icir: mean / deviation, not annualised.
        """
        return dict(self.rets)


def label_of(price: str, hold: int) -> str:
    """The return that a score of bar t is held against."""
    return f"{price}(t+{1 + hold}) / {price}(t+1) - 1"


def check_params(analyzer: bt.Analyzer) -> None:
    """Demand of either analyzer a price that there is, a hold, and a run that keeps its bars.

    Raises:
        ValueError: names the parameter.
    """
    p, strategy = analyzer.p, analyzer.strategy
    if p.price not in PRICES:
        raise ValueError(
            f"price={p.price!r} is none that a bar trades at. Choose one of {', '.join(PRICES)}."
        )
    for name in (
        "every",
        "hold",
        "min_names",
        *(("trials", "bars_per_year") if hasattr(p, "trials") else ()),
    ):
        as_integer(name, getattr(p, name))
    if p.hold < 0:
        raise ValueError(f"hold={p.hold} counts bars. Give 1 or more, or 0 to hold until the next rebalance.")
    if strategy.cerebro._exactbars > 0:
        raise ValueError(
            f"{type(analyzer).__name__} reads all bars when the run stops, and exactbars=1 keeps too few. "
            "Run with exactbars=-1 or -2, which save memory too."
        )


def _by_time(series: pd.Series) -> dict[Any, float]:
    times = pd.DatetimeIndex(series.index).to_pydatetime()
    return dict(zip(times, series.tolist(), strict=True))


def _nothing() -> pd.DataFrame:
    return pd.DataFrame({"ic": [], "rank_ic": []}, index=pd.DatetimeIndex([]), dtype=float)
