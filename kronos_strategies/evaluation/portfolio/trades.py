"""Evaluation of trades: round trips from the order that opens a position to the order that closes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

COLUMNS = (
    "instrument",
    "side",
    "opened",
    "closed",
    "bars",
    "size",
    "entry",
    "exit",
    "profit",
    "cost",
    "return",
)


@dataclass(frozen=True)
class TradeEvaluation:
    """Evaluation of the closed trades of a run; profits are net of costs.

    Attributes:
        trades: one row per trade in the order in which they opened; columns instrument, side ("long" or "short"),
            opened and closed (datetime of the bar; closed is NaT while it is open), bars held, size (largest number
            bought or sold short), entry and exit (mean prices), profit (money, net), cost (money), return (profit /
            value at entry).
        table: rows "all", "long", "short"; columns trades, hit_rate (share with a profit), profit_factor (profits /
            losses), mean_return, mean_win, mean_loss, best, worst (returns), bars (mean), median_bars, profit.
        open: number of trades that were not closed.
    """

    trades: pd.DataFrame
    table: pd.DataFrame
    open: int

    def metrics(self) -> dict[str, float]:
        """Flat metrics by their names in metrics.json."""
        row = self.table.to_dict("index")["all"]
        names = {
            "trades": "trades",
            "trade_hit_rate": "hit_rate",
            "trade_profit_factor": "profit_factor",
            "trade_return": "mean_return",
            "trade_bars": "bars",
        }
        return {name: float(row[column]) for name, column in names.items()} | {"trades_open": self.open}


def evaluate_trades(trades: pd.DataFrame) -> TradeEvaluation:
    """Evaluate trades as `TradeEvaluation.trades` has them."""
    closed = trades[trades["closed"].notna()]
    sides = {"all": closed, **{side: closed[closed["side"] == side] for side in ("long", "short")}}
    table = pd.DataFrame.from_dict({name: _metrics(own) for name, own in sides.items()}, orient="index")
    return TradeEvaluation(trades.reset_index(drop=True), table, int(trades["closed"].isna().sum()))


def _metrics(trades: pd.DataFrame) -> dict[str, float]:
    profit, returns = trades["profit"].astype(float), trades["return"].astype(float)
    won, lost = profit > 0, profit < 0
    losses = float(-profit[lost].sum())
    return {
        "trades": len(trades),
        "hit_rate": float(won.mean()) if len(trades) else np.nan,
        "profit_factor": float(profit[won].sum()) / losses if losses > 0 else np.nan,
        "mean_return": float(returns.mean()),
        "mean_win": float(returns[won].mean()),
        "mean_loss": float(returns[lost].mean()),
        "best": float(returns.max()),
        "worst": float(returns.min()),
        "bars": float(trades["bars"].mean()),
        "median_bars": float(trades["bars"].median()),
        "profit": float(profit.sum()),
    }
