"""Signals of a date and current holdings -> picks: ranks, target weights, and the trades of the next bar."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kronos.io.files import read_table
from kronos_strategies.portfolio import MarketInputs, PortfolioRules, rank_signals, target_weights
from kronos_strategies.portfolio.market import NO_INPUTS
from kronos_strategies.signal import SIGNALS

RANKS = ("rank", "previous_rank", "rank_change")
WEIGHTS = ("weight_before", "target_weight", "trade")
COLUMNS = (*RANKS, *SIGNALS, "close", "traded_value", "flags", *WEIGHTS)
ROUNDING = 0.01  # by which rounded weights may add up to more than 1


@dataclass(frozen=True)
class Picks:
    """Target positions after a date, and their reasons.

    Attributes:
        market: name of the universe.
        date: last bar that is used; trades happen on the next one.
        table: see `pick`.
        rules: rules of the portfolio.
        settings: how the picks were made, one line each.
        warnings: sentences that a reader must not miss.
    """

    market: str
    date: pd.Timestamp
    table: pd.DataFrame
    rules: PortfolioRules
    settings: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def summary(self) -> dict[str, tuple[int, float]]:
        """Number of instruments and fraction of equity that are bought, sold and held afterwards."""
        trades, target = self.table["trade"], self.table["target_weight"]
        parts = {"buy": trades[trades > 0], "sell": -trades[trades < 0], "hold": target[target != 0]}
        return {name: (len(part), float(part.sum())) for name, part in parts.items()}


def pick(
    signals: pd.DataFrame,
    earlier: pd.DataFrame,
    state: pd.DataFrame,
    previous: pd.Series,
    rules: PortfolioRules,
    tradable: pd.Index,
    market: MarketInputs = NO_INPUTS,
) -> pd.DataFrame:
    """Rank the members of a market and turn the ranking into trades.

    Args:
        signals: signals of the date by instrument, some or all of the columns SIGNALS.
        earlier: the same of the previous trading date; may be empty.
        state: the members and held instruments, with columns close, traded_value and flags.
        previous: weights held now, by instrument, all of them in `state`.
        rules: rules of the portfolio.
        tradable: instruments that can be traded, see `target_weights`.
        market: what else the rules need of the market.

    Returns:
        Frame with the index of `state`, best rank first, then the instruments without a rank. Columns:
        rank, previous_rank: rank by `rules.rank_by` on the date and on the previous one, 1 for the best.
        rank_change: previous_rank - rank, positive for an instrument that has moved up.
        score to q95: see `kronos_strategies.signal.signals`; NaN where there is no forecast.
        close, traded_value, flags: those of `state`.
        weight_before, target_weight, trade: fractions of equity now, to hold from the next bar on, and the
            difference.

    Raises:
        ValueError: the signals lack a column that the rules use, or the market what they need.
        UnsolvedError: an optimization over scenarios has no result.
    """
    table = state.join(signals.reindex(columns=list(SIGNALS)))
    table["rank"] = rank_signals(signals, rules)
    table["previous_rank"] = rank_signals(earlier, rules) if len(earlier) else np.nan
    table["rank_change"] = table["previous_rank"] - table["rank"]
    table = table.astype(dict.fromkeys(RANKS, "Int64"))
    weights = target_weights(signals, previous, rules, tradable, market)
    table["weight_before"] = previous.reindex(table.index, fill_value=0.0)
    table["target_weight"] = weights.reindex(table.index, fill_value=0.0)
    table["trade"] = table["target_weight"] - table["weight_before"]
    return table[list(COLUMNS)].sort_index().sort_values("rank", kind="stable")


def read_holdings(file: Path, cash: float | None = None) -> pd.Series:
    """Read a portfolio from a file.

    Args:
        file: CSV or parquet with the columns instrument and weight (fraction of equity), or instrument and value
            (money at the last close).
        cash: money that is not invested; only with values, 0 when omitted.

    Returns:
        (n,) weights by instrument.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no positions, other columns, a value that is not a number of at least 0, an instrument that
            occurs twice, or weights that add up to more than 1.
    """
    table = read_table(file.expanduser(), ("instrument",), ("weight", "value"))
    kinds = [name for name in ("weight", "value") if name in table]
    if len(kinds) != 1:
        raise ValueError(
            f"{file} must have either a column 'weight' (fraction of equity) or a column 'value' (money at the "
            f"close), but has {' and '.join(kinds) or 'none of them'}. Multiply numbers of shares by the close."
        )
    if cash is not None and (kinds[0] == "weight" or not 0 <= cash < np.inf):
        raise ValueError(
            f"cash={cash:g} cannot be used with the {kinds[0]}s of {file}. Pass an amount of at least 0 with "
            "values; weights imply it."
        )
    if table.empty:
        raise ValueError(f"{file} has no positions. Omit --holdings to start from cash.")
    held = _check_positions(table.set_index("instrument")[kinds[0]], file)
    return _to_weights(held, cash or 0.0, file) if kinds[0] == "value" else _check_total(held, file)


def _check_positions(column: pd.Series, file: Path) -> pd.Series:
    if column.index.isna().any():
        row = int(np.argmax(column.index.isna())) + 1
        raise ValueError(f"{file} has no instrument in row {row}. Name it, or remove the row.")
    held = pd.to_numeric(column, errors="coerce")
    bad = ~(np.isfinite(held) & held.ge(0))
    if bad.any():
        name = held.index[bad.to_numpy()][0]
        raise ValueError(
            f"{file} has the {column.name} {column[bad.to_numpy()].iloc[0]} of {name}. Write a number of at least "
            "0; picks are long-only."
        )
    if held.index.has_duplicates:
        raise ValueError(
            f"{file} has {held.index[held.index.duplicated()][0]} twice. Keep one row per instrument."
        )
    return held.astype(np.float64).rename("weight")


def _check_total(weights: pd.Series, file: Path) -> pd.Series:
    total = weights.sum()
    if total > 1 + ROUNDING:
        raise ValueError(
            f"The weights of {file} add up to {total:g}. Write fractions of equity, such as 0.05 for 5 %."
        )
    return weights


def _to_weights(values: pd.Series, cash: float, file: Path) -> pd.Series:
    equity = values.sum() + cash
    if equity <= 0:
        raise ValueError(
            f"The values of {file} add up to 0. Pass the money in the account with --cash, or omit --holdings."
        )
    return values / equity
