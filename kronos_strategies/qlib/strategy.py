"""KronosWeightStrategy: the rules of `kronos_strategies.portfolio` in a Qlib backtest, set in YAML or in Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import pandas as pd
from qlib.backtest import backtest
from qlib.backtest.position import Position
from qlib.contrib.strategy import WeightStrategyBase
from qlib.data import D
from qlib.log import get_module_logger
from qlib.workflow import R

from kronos_strategies.backtest import TradingRules
from kronos_strategies.backtest_result import BacktestResult
from kronos_strategies.data.qlib_bins import DAY, end_of
from kronos_strategies.portfolio import (
    MarketInputs,
    PortfolioRules,
    UnsolvedError,
    check_history,
    rules_of,
    target_weights,
)
from kronos_strategies.qlib.artifacts import backtest_result
from kronos_strategies.qlib.market_inputs import StoredPaths, market_inputs, open_paths, tradable_instruments
from kronos_strategies.qlib.model import KronosModel

UNSOLVED = "unsolved_rebalances.pkl"  # artifact of a run: reason by date
logger = get_module_logger(__name__)


class KronosWeightStrategy(WeightStrategyBase):
    """Holds the target weights of a ranking; reads all columns of a signal, such as the `<PRED>` of KronosModel.

    A signal dated t decides on weights held at the close of t, sizes them at that close, and trades at the deal
    price of t+1. What does not trade on t keeps its weight; what did not trade or closed at its limit on t is not
    bought, since Qlib would place no order for it. An order that the exchange rejects on t+1 expires.

    The whole equity is weighted: the `cash_buffer` of the rules takes the place of Qlib's `risk_degree`. Override
    `weights` for other rules. The first day of a backtest never trades, as its exchange has no
    earlier bar to size by.

    Args:
        signal: frame indexed (datetime, instrument), or what else Qlib makes a signal from.
        rules: fields of `PortfolioRules` by name; those left out keep their defaults.
        every: trading days from one rebalance to the next, counted from the first signal.
        forecasts: "<MODEL>" in a workflow file, the KronosModel of the signals, or the folder of a forecast store;
            needed for weightings over scenarios, whose paths it has.

    Attributes:
        unsolved: reason by date of the rebalances whose optimization had no result, which trade nothing; in a
            recorded run also an artifact, which the report counts.

    Raises:
        ValueError: rules out of range or without what they need, or short positions, which Qlib's account does not
            support.
    """

    def __init__(
        self,
        *,
        signal: object,
        rules: Mapping[str, str | float] | None = None,
        every: int = 1,
        forecasts: KronosModel | str | None = None,
    ) -> None:
        super().__init__(signal=signal, risk_degree=1.0)
        self.rules = rules_of(dict(rules or {}))
        if self.rules.side != "long":
            raise ValueError(
                f"side='{self.rules.side}' sells short, which Qlib's account does not support. Choose side='long', "
                "or use KronosRankStrategy of kronos_strategies.backtrader."
            )
        if every < 1:
            raise ValueError(f"every must be at least 1 day, got {every}.")
        self.every = every
        check_history(self.rules, closes=True, paths=bool(forecasts))
        self.paths: StoredPaths | None = None
        if self.rules.uses_scenarios and forecasts:
            self.paths = open_paths(forecasts)
        self.unsolved: dict[pd.Timestamp, str] = {}
        self.rebalanced: int | None = None  # day of the calendar, the last rebalance

    def weights(self, signals: pd.DataFrame, previous: pd.Series, tradable: pd.Index) -> pd.Series:
        """The weights to hold from the next day on.

        Args:
            signals: all columns of one date, by instrument.
            previous: weights held at its close, by instrument.
            tradable: instruments that can be traded.
        """
        return target_weights(signals, previous, self.rules, tradable, self.market_inputs(signals.index))

    def market_inputs(self, instruments: pd.Index) -> MarketInputs:
        """What the rules need of the market at the close of the signal's day: past closes and sampled paths."""
        span, freq = self.trade_calendar.get_step_time(shift=1), self.trade_calendar.get_freq()
        return market_inputs(self.rules, self.paths, instruments, span, freq)

    def generate_target_weight_position(
        self,
        score: pd.DataFrame | pd.Series,
        current: Position,
        trade_start_time: pd.Timestamp,
        trade_end_time: pd.Timestamp,
    ) -> dict[str, float] | None:
        """Target weights by instrument for Qlib; None on days between two rebalances."""
        day = self.trade_calendar.start_index + self.trade_calendar.get_trade_step()
        if self.rebalanced is not None and 0 < day - self.rebalanced < self.every:
            return None
        signals = score.to_frame("score") if isinstance(score, pd.Series) else score
        previous = pd.Series(current.get_stock_weight_dict(), dtype=float)
        tradable = self._tradable(signals, previous)
        if tradable.empty:
            return None
        self.rebalanced = day
        try:
            chosen = self.weights(signals, previous, tradable)
        except UnsolvedError as error:
            self._keep(self.trade_calendar.get_step_time(shift=1)[0], str(error))
            return None
        return {str(name): float(weight) for name, weight in chosen.items()}

    def _tradable(self, signals: pd.DataFrame, previous: pd.Series) -> pd.Index:
        """Instruments that traded on the day of the signal; those not held must not have closed at a limit."""
        span = self.trade_calendar.get_step_time(shift=1)
        return tradable_instruments(self.trade_exchange, signals.index, previous.index, span)

    def _keep(self, date: pd.Timestamp, reason: str) -> None:
        """Note a rebalance that keeps the weights, in the recorder if there is one."""
        self.unsolved[date] = reason
        logger.warning("%s: the weights stay, because %s", date, reason)
        if R.exp_manager.active_experiment is not None:
            R.save_objects(**{UNSOLVED: self.unsolved})


def backtest_in_qlib(
    signals: pd.DataFrame,
    rules: PortfolioRules,
    trading: TradingRules,
    every: int,
    equal: pd.Series,
    end: pd.Timestamp,
) -> BacktestResult:
    """Trade rules on signals in Qlib's engine, as `kronos_strategies.backtest.backtest_rules` does without it.

    Call `init_qlib` before. Qlib has no stamp duty or fixed cost in addition to its costs.

    Args:
        signals: indexed (datetime, instrument), known at the close of the date; the columns that the rules read.
        rules: rules of selection and weighting, long only.
        trading: execution, costs, limit, lot and cash.
        every: bars from one rebalance to the next, counted from the first date with signals.
        equal: returns by datetime of all instruments at equal weights, the benchmark.
        end: last bar of the backtest.

    Raises:
        ValueError: the rules sell short, or the costs are of a kind that Qlib does not have.
    """
    if trading.stamp_duty or trading.fixed_cost:
        raise ValueError("Qlib has no stamp duty and no fixed cost. Add them to close_cost and min_cost.")
    reports, _ = backtest(
        start_time=signals.index.get_level_values("datetime").min(),
        end_time=end,
        strategy=KronosWeightStrategy(signal=signals, rules=asdict(rules), every=every),
        executor={
            "class": "SimulatorExecutor",
            "module_path": "qlib.backtest.executor",
            "kwargs": {"time_per_step": "day", "generate_portfolio_metrics": True},
        },
        benchmark=equal,
        account=trading.cash,
        exchange_kwargs={
            "deal_price": trading.price,
            "open_cost": trading.open_cost,
            "close_cost": trading.close_cost,
            "min_cost": trading.min_cost,
            "limit_threshold": trading.limit or None,
            "trade_unit": trading.lot or None,
        },
    )
    traded, held = reports["1day"]
    return backtest_result(traded, held, equal.reindex(traded.index))


def last_tradable(end: pd.Timestamp, freq: str = DAY) -> pd.Timestamp:
    """The last time up to `end` that a backtest can end at: a bar follows; within the day, the day is whole."""
    last = pd.Timestamp(D.calendar(freq=freq)[-1])
    future = pd.DatetimeIndex(D.calendar(freq=freq, future=True))
    if end < future[-1] and (freq == DAY or not ((future > last) & (future <= end)).any()):
        return end
    return pd.Timestamp(future[-2]) if freq == DAY else end_of(last.normalize() - pd.Timedelta(days=1), freq)
