"""Weights and prices, or signals, rules and prices -> BacktestResult."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

import numpy as np
import pandas as pd

from kronos_strategies.backtest.simulation import Decide, PriceArrays, simulate, to_result
from kronos_strategies.backtest.trading import TradingRules
from kronos_strategies.backtest_result import BacktestResult, bars_per_year
from kronos_strategies.evaluation.panel import PanelIndex, PricePanel
from kronos_strategies.portfolio import (
    CrossSection,
    PortfolioRules,
    SampledPaths,
    UnsolvedError,
    check_history,
    check_inputs,
    cross_section_weights,
    place_scenarios,
)
from kronos_strategies.portfolio.dependence import past_correlations
from kronos_strategies.portfolio.target import TIE_BREAK, check_columns

logger = logging.getLogger(__name__)

PathSource = Callable[[pd.Timestamp], SampledPaths]  # paths of a date, known at its close
DEFAULT_TRADING = TradingRules()
AMOUNT_BARS = 20  # in the mean traded amount that participation refers to


def run_backtest(
    weights: pd.DataFrame,
    prices: PricePanel,
    trading: TradingRules = DEFAULT_TRADING,
    factors: pd.DataFrame | None = None,
    benchmarks: pd.DataFrame | None = None,
) -> BacktestResult:
    """Trade given target weights.

    The weights of a date are decided at its close, sized at that close, and trade on the next bar. An order that
    cannot be executed there, because the instrument is suspended or at its price limit, expires. An instrument that
    has no bar on the date keeps its position, and one that closes at its limit is not bought if it is not held.

    Args:
        weights: dates x instruments, fractions of equity, negative if short; NaN counts as 0. On a bar without a
            row nothing is traded.
        prices: adjusted prices of these instruments, also on bars without a rebalance.
        trading: execution and costs.
        factors: bars x instruments, adjusted / unadjusted price; needed for lots.
        benchmarks: simple returns of benchmarks by datetime; the mean of all instruments when omitted.

    Raises:
        ValueError: a date or instrument has no prices, weights are infinite, or nothing is traded.
    """
    weights = weights.sort_index(axis=1)
    dates = pd.DatetimeIndex(weights.index)
    if not dates.is_unique:
        raise ValueError(f"The weights have {dates[dates.duplicated()][0]} twice. Keep one row per date.")
    if np.isinf(weights.to_numpy(np.float64)).any():
        raise ValueError("The weights have infinite values. Pass fractions of equity.")
    arrays = PriceArrays.of(prices, weights.columns, trading, factors)
    rows = _rows(arrays, dates, "weights")
    targets = dict(zip(rows.tolist(), np.nan_to_num(weights.to_numpy(np.float64)), strict=True))

    def decide(bar: int, held: np.ndarray, equity: float) -> np.ndarray | None:
        return targets.get(bar)

    if benchmarks is None:
        members = pd.MultiIndex.from_product([dates, weights.columns], names=["datetime", "instrument"])
        benchmarks = equal_weight_returns(prices, members).to_frame()
    return _run(arrays, trading, decide, benchmarks)


def backtest_rules(
    signals: pd.DataFrame,
    rules: PortfolioRules,
    prices: PricePanel,
    trading: TradingRules = DEFAULT_TRADING,
    every: int = 1,
    factors: pd.DataFrame | None = None,
    industries: Mapping[str, str] | None = None,
    benchmarks: pd.DataFrame | None = None,
    paths: PathSource | None = None,
) -> BacktestResult:
    """Trade rules on signals: `kronos_strategies.portfolio.target_weights` on every date that is due.

    Args:
        signals: indexed (datetime, instrument), known at the close of the date; the columns that the rules read.
        rules: rules of selection and weighting.
        prices: adjusted prices of these instruments.
        trading: execution and costs, see `run_backtest`.
        every: bars from one rebalance to the next, counted from the first date with signals.
        factors: bars x instruments, adjusted / unadjusted price; needed for lots.
        industries: industry by instrument; needed for a cap on industries.
        benchmarks: simple returns of benchmarks by datetime; the mean of the instruments with a signal when
            omitted.
        paths: function of a date of the signals -> the sampled paths of its instruments; needed for weightings over
            scenarios. A rebalance whose optimization has no result trades nothing, and is listed in `unsolved` of
            the result.

    Raises:
        ValueError: a column, a date or an instrument is missing, or nothing is traded.
        MissingExtra: the weighting needs a package that is not installed.
    """
    if every < 1:
        raise ValueError(f"every must be at least 1 bar, got {every}.")
    check_inputs(rules, industries is not None, amounts=True)
    check_history(rules, closes=True, paths=paths is not None)
    check_columns(signals, rules)
    index = cast(pd.MultiIndex, signals.index)
    panel = PanelIndex.from_index(index, "signals")
    arrays = PriceArrays.of(prices, panel.instruments, trading, factors)
    rows = _rows(arrays, panel.dates, "signals")
    names = dict.fromkeys((rules.rank_by, *rules.columns, *TIE_BREAK))
    columns = {name: panel.to_wide(signals[name].to_numpy(float)) for name in names if name in signals}
    decide = _RuleDecisions(
        arrays, rules, every, dict(zip(rows.tolist(), range(len(rows)), strict=True)), columns
    )
    if industries is not None:
        decide.industries = pd.factorize(pd.Series(panel.instruments).map(dict(industries)), sort=True)[0]
    if rules.max_participation:
        amounts = prices.amounts[panel.instruments].fillna(0.0)
        check_inputs(rules, industries is not None, amounts=bool(amounts.to_numpy().any()))
        decide.amounts = amounts.rolling(AMOUNT_BARS, min_periods=1).mean().to_numpy(np.float64)
    decide.paths, decide.members = paths, panel.mask
    if benchmarks is None:
        benchmarks = equal_weight_returns(prices, index).to_frame()
    return replace(_run(arrays, trading, decide, benchmarks), unsolved=decide.unsolved)


def equal_weight_returns(prices: PricePanel, members: pd.MultiIndex) -> pd.Series:
    """Return of each bar of all members at equal weights, without costs.

    The members of a bar are those of the last date before it, so that nothing of the bar selects them. One without
    a bar earns 0 until it trades again, and then its whole return since its last close.

    Args:
        prices: adjusted prices.
        members: (datetime, instrument) rows.
    """
    panel = PanelIndex.from_index(members, "members")
    last = prices.last_close[panel.instruments]
    moves = last.pct_change(fill_method=None).to_numpy(np.float64)
    date = panel.dates.searchsorted(pd.DatetimeIndex(last.index)) - 1  # the last one before each bar
    known = panel.mask[np.maximum(date, 0)] & (date >= 0)[:, None] & np.isfinite(moves)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, moves, 0.0).sum(axis=1) / known.sum(axis=1)
    return pd.Series(mean, last.index, name="equal weight")


class _RuleDecisions:
    """Decisions of rules, for `simulate`."""

    def __init__(
        self,
        arrays: PriceArrays,
        rules: PortfolioRules,
        every: int,
        rows: Mapping[int, int],
        columns: Mapping[str, np.ndarray],
    ) -> None:
        self.arrays, self.rules, self.every, self.rows, self.columns = arrays, rules, every, rows, columns
        self.industries: np.ndarray | None = None
        self.amounts: np.ndarray | None = None  # (T, n) in currency
        self.paths: PathSource | None = None
        self.members = np.ones(
            (len(rows), len(arrays.instruments)), bool
        )  # dates x instruments with a signal
        self.last: int | None = None  # bar of the last rebalance
        self.unsolved: dict[pd.Timestamp, str] = {}  # reason by date

    def __call__(self, bar: int, held: np.ndarray, equity: float) -> np.ndarray | None:
        row = self.rows.get(bar)
        if row is None or (self.last is not None and bar - self.last < self.every):
            return None
        if not np.isfinite(self.columns[self.rules.rank_by][row]).any():
            return None
        self.last = bar
        try:
            return cross_section_weights(self._section(bar, row, held, equity), self.rules)
        except UnsolvedError as error:
            date = self.arrays.dates[bar]
            self.unsolved[date] = str(error)
            logger.warning("%s: the weights stay, because %s", date, error)
            return None

    def _section(self, bar: int, row: int, held: np.ndarray, equity: float) -> CrossSection:
        arrays, rules = self.arrays, self.rules
        correlations = scenarios = None
        if rules.correlation_bars:
            correlations = past_correlations(
                self._closes(bar - rules.correlation_bars, bar + 1), rules.correlation
            )
        if rules.uses_scenarios:
            assert self.paths is not None
            paths, past = self.paths(arrays.dates[bar]), self._closes(bar - rules.scenario_bars, bar)
            signaled = arrays.instruments[
                self.members[row] | (held != 0)
            ]  # those that `target_weights` knows
            kept = paths.instruments.isin(signaled)
            paths = SampledPaths(paths.instruments[kept], paths.returns[kept])
            scenarios = place_scenarios(paths, past, arrays.instruments, rules)
        return CrossSection(
            columns={name: wide[row] for name, wide in self.columns.items()},
            held=held,
            trades=arrays.tradable(bar, held),
            industries=self.industries,
            amounts=None if self.amounts is None else self.amounts[bar] / equity,
            correlations=correlations,
            scenarios=scenarios,
        )

    def _closes(self, start: int, stop: int) -> np.ndarray:
        """(T, n) closes of some bars, NaN without one."""
        bars = slice(max(0, start), stop)
        return np.where(self.arrays.has_bar[bars], self.arrays.last_close[bars], np.nan)


def _rows(arrays: PriceArrays, dates: pd.DatetimeIndex, what: str) -> np.ndarray:
    """Bar of each date."""
    rows: np.ndarray = arrays.dates.get_indexer(dates)
    if (rows < 0).any():
        raise ValueError(
            f"The prices have no bar on {dates[int(np.argmax(rows < 0))]}, a date of the {what}. Pass the "
            "prices of all dates."
        )
    return rows


def _run(
    arrays: PriceArrays, trading: TradingRules, decide: Decide, benchmarks: pd.DataFrame
) -> BacktestResult:
    year = bars_per_year(arrays.dates)
    account = simulate(arrays, trading, decide, year)
    return to_result(account, arrays, trading, benchmarks, year)
