"""Recording: what a run leaves behind, from which all that is known of it is computed. Knows no engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd

from kronos_strategies.backtrader.book import book_result
from kronos_strategies.backtrader.forecasts import ForecastSettings
from kronos_strategies.result import BacktestResult


@dataclass(frozen=True)
class Recording:
    """All that evidence is gathered from; knows no engine, so that an optimisation can hand it on.

    Attributes:
        panel: traded bars of the ranked feeds by (datetime, instrument).
        scores: by (datetime, instrument), column score: of each feed that had begun and not ended, at each
            rebalance; NaN where it had none.
        made: (datetime, instrument) of each forecast behind the scores.
        outlooks: what these said, see `evaluate_time_series`; columns level and horizon only where they are known.
        trades: see `TradeEvaluation`.
        book, weights: see `BookTape.frame`.
        benchmark: closes of a feed to hold the book against; None without one.
        settings: of the forecasts; None where no KronosIndicator made them.
        together: names of the feeds that were forecast together, which label their store; "" without settings.
        level: of their bands.
        line: that was ranked by.
        every: bars between rebalances.
        hold: bars that the label spans.
        price: that the label trades at.
        daily: whether dates are days.
        bars_per_year: that annualise the book.
        title, trials, notice, forecasts, min_names: see `KronosTearSheet`.
        described: what ran, by label.
        remarks: sentences on how it ran, that a reader must see.
    """

    panel: pd.DataFrame
    scores: pd.DataFrame
    made: pd.MultiIndex
    outlooks: pd.DataFrame
    trades: pd.DataFrame
    book: pd.DataFrame
    weights: pd.Series
    benchmark: pd.Series | None
    settings: ForecastSettings | None
    together: str
    level: float
    line: str
    every: int
    hold: int
    price: str
    daily: bool
    bars_per_year: int
    title: str
    trials: int
    notice: str
    forecasts: str
    min_names: int
    described: dict[str, str]
    remarks: tuple[str, ...]

    @property
    def result(self) -> BacktestResult:
        """Of the account."""
        closes = self.panel["close"].unstack("instrument")
        return book_result(self.book, self.weights, closes, self.benchmark, self.bars_per_year)

    @property
    def keys(self) -> pd.MultiIndex:
        """(datetime, instrument) that have a score and a bar."""
        scored = cast(pd.MultiIndex, self.scores.index[np.isfinite(self.scores["score"])])
        return scored[scored.isin(self.panel.index)]
