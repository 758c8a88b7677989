"""Signals and current weights -> target weights: one pure function for both engines.

A weight is a fraction of equity, negative for a short position; what is missing to 1 is cash.
`kronos_strategies.qlib.strategy` and `kronos_strategies.backtrader.strategy` use the same function.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np
import pandas as pd

from kronos.config import as_number

BARS_PER_YEAR = 252  # for daily bars
Side = Literal["long", "long_short"]
Weighting = Literal["equal", "inverse_volatility", "volatility_target"]


@dataclass(frozen=True)
class PortfolioRules:
    """How a ranking becomes a portfolio; every field is a plain string or number, so that YAML can set it.

    Attributes:
        rank_by: column of the signals to rank by, highest first.
        topk: number of positions per side; unfilled positions stay in cash.
        rank_buffer: an instrument enters among the best `topk` and leaves once it is no longer among the best
            `topk + rank_buffer`, so a side holds topk to topk + rank_buffer instruments.
        side: "long" buys the best, gross = net = 1 - cash_buffer. "long_short" also sells the worst short by the
            same rules: gross 1 - cash_buffer, half of it on each side, net 0 when both sides fill their slots.
        weighting: "equal"; "inverse_volatility", in proportion to 1 / sampled volatility; "volatility_target", the
            same with its gross exposure lowered, never raised, to meet the target volatility.
        target_volatility: portfolio volatility per year; used by "volatility_target" only.
        correlation: correlation that "volatility_target" assumes between any two instruments; sampled paths, which
            are independent across instruments, do not estimate it. Measured on 60-bar windows: .20 to .33
            for daily shares (median of CSI 300, Nifty 50, S&P 500), .64 for hourly crypto.
        bars_per_year: bars per year, used to annualize volatility.
        max_weight: largest absolute weight of an instrument; the excess stays in cash.
        cash_buffer: share of equity that is never invested, for costs and for prices that open higher.
        no_trade_band: an existing position is rebalanced only if its weight changes by at least this much; entries
            and exits always trade.
    """

    rank_by: str = "score"
    topk: int = 50
    rank_buffer: int = 0
    side: Side = "long"
    weighting: Weighting = "equal"
    target_volatility: float = 0.15
    correlation: float = 0.3
    bars_per_year: int = BARS_PER_YEAR
    max_weight: float = 1.0
    cash_buffer: float = 0.02
    no_trade_band: float = 0.005

    def __post_init__(self) -> None:
        _choice("side", self.side, get_args(Side))
        _choice("weighting", self.weighting, get_args(Weighting))
        for field in fields(self):
            if field.type in ("int", "float"):
                object.__setattr__(self, field.name, as_number(field.name, getattr(self, field.name)))
        for name, value in (("topk", self.topk), ("rank_buffer", self.rank_buffer)):
            if not float(value).is_integer():
                raise ValueError(f"{name}={value} is not a number of instruments. Pass a whole number.")
        _within("topk", self.topk, self.topk >= 1, "at least 1")
        _within("rank_buffer", self.rank_buffer, self.rank_buffer >= 0, "at least 0")
        _within("target_volatility", self.target_volatility, self.target_volatility > 0, "above 0, e.g. 0.15")
        _within("correlation", self.correlation, 0 <= self.correlation <= 1, "in [0, 1]")
        _within("bars_per_year", self.bars_per_year, self.bars_per_year > 0, "above 0, 252 for daily bars")
        _within("max_weight", self.max_weight, 0 < self.max_weight <= 1, "in (0, 1]")
        _within("cash_buffer", self.cash_buffer, 0 <= self.cash_buffer < 1, "in [0, 1)")
        _within("no_trade_band", self.no_trade_band, self.no_trade_band >= 0, "at least 0")

    @property
    def reads_volatility(self) -> bool:
        """Whether weights depend on volatility, so that an instrument without one cannot be bought."""
        return self.weighting != "equal"


def target_weights(
    signals: pd.DataFrame,
    previous: pd.Series,
    rules: PortfolioRules,
    tradable: pd.Index | None = None,
) -> pd.Series:
    """Compute the weights to hold from the next bar on.

    Ties in `rules.rank_by` are broken by expected_return / volatility where the signals have both, then by
    instrument, so that the order of rows never matters.

    Args:
        signals: signals of one date, indexed by instrument; the column `rules.rank_by`, and `volatility` per bar
            unless weights are equal. An instrument whose value there is not finite (or whose volatility is not
            positive) is never bought, and is sold if held. On a date without any finite value nothing is traded.
        previous: weights held now, by instrument.
        rules: rules of selection and weighting.
        tradable: instruments that can be traded, all when omitted. Any other keeps its previous weight,
            takes a slot of its side, and reduces what is left for the others.

    Returns:
        (held,) weights by instrument, sorted, without zeros: missing instruments are sold. The absolute weights add
        up to at most 1 - cash_buffer, or to the weight that cannot be traded if that is more. If weights kept by
        the no-trade band leave too little cash, those furthest above their target are traded until it suffices.

    Raises:
        ValueError: a column is missing, an instrument occurs twice, or a previous weight is not finite.
    """
    _check(signals, previous, rules)
    if not np.isfinite(signals[rules.rank_by].to_numpy(np.float64)).any():
        return previous[previous.ne(0)].sort_index().rename("weight").rename_axis("instrument")
    names = signals.index.union(previous.index[previous.ne(0)]).sort_values().rename("instrument")
    table = signals.reindex(names)
    held = previous.reindex(names, fill_value=0.0).to_numpy(np.float64)
    trades = np.full(len(names), tradable is None)
    if tradable is not None:
        at = names.get_indexer(tradable)  # much faster than isin on strings
        trades[at[at >= 0]] = True
    frozen = ~trades & (held != 0)
    volatility = table["volatility"].to_numpy(np.float64) if rules.reads_volatility else np.ones(len(names))

    chosen = _choose(_ranks(table, rules, trades), held, frozen, rules)
    target = np.where(frozen, held, _size(chosen, volatility, held, frozen, rules))
    weights = _apply_no_trade_band(target, held, frozen, rules)
    return pd.Series(weights, names, name="weight")[weights != 0]


def rank_signals(signals: pd.DataFrame, rules: PortfolioRules) -> pd.Series:
    """Rank the instruments of one date as `target_weights` does before it leaves out what cannot be traded.

    Args:
        signals: as for `target_weights`.
        rules: rules of selection and weighting.

    Returns:
        (n,) float64 ranks by instrument, sorted by instrument, 1 for the best; NaN for an instrument that is never
        bought.

    Raises:
        ValueError: a column is missing, or an instrument occurs twice.
    """
    _check(signals, pd.Series(dtype=np.float64), rules)
    table = signals.sort_index()
    ranks = pd.Series(_ranks(table, rules, np.ones(len(table), bool)) + 1.0, table.index, name="rank")
    return ranks.where(ranks <= len(table)).rename_axis("instrument")


def _ranks(table: pd.DataFrame, rules: PortfolioRules, trades: np.ndarray) -> np.ndarray:
    """(n,) 0 for the best; n for those that cannot be bought."""
    score = table[rules.rank_by].to_numpy(np.float64)
    able = trades & np.isfinite(score)
    if rules.reads_volatility:
        volatility = table["volatility"].to_numpy(np.float64)
        able &= np.isfinite(volatility) & (volatility > 0)
    ratio = np.zeros(len(table))
    if {"expected_return", "volatility"} <= set(table.columns):
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = (table["expected_return"] / table["volatility"]).to_numpy(np.float64)
    ratio = np.nan_to_num(ratio, nan=-np.inf)
    best_first = np.lexsort(
        (-ratio, -np.where(able, score, 0.0), ~able)
    )  # stable: instruments are already sorted
    ranks = np.full(len(table), len(table))
    ranks[best_first[: able.sum()]] = np.arange(able.sum())
    return ranks


def _choose(ranks: np.ndarray, held: np.ndarray, frozen: np.ndarray, rules: PortfolioRules) -> np.ndarray:
    """(n,) 1 for a long position, -1 for a short one, 0 for the others, including frozen ones."""
    able = ranks < len(ranks)
    count = int(able.sum())
    most = count if rules.side == "long" else count // 2  # so that no instrument is both best and worst
    long_slots, short_slots = (
        min(max(rules.topk - int((frozen & (sign * held > 0)).sum()), 0), most) for sign in (1, -1)
    )
    best = ranks < long_slots
    stays = able & (held > 0) & (ranks < long_slots + rules.rank_buffer)
    if rules.side == "long":
        return (best | stays).astype(int)
    from_worst = count - 1 - ranks
    worst = able & (from_worst < short_slots)
    stays_short = able & (held < 0) & (from_worst < short_slots + rules.rank_buffer)
    return ((best | stays) & ~worst).astype(int) - ((worst | stays_short) & ~best).astype(int)


def _size(
    chosen: np.ndarray, volatility: np.ndarray, held: np.ndarray, frozen: np.ndarray, rules: PortfolioRules
) -> np.ndarray:
    """(n,) weights of the chosen, within what the frozen leave."""
    whole = 1 - rules.cash_buffer
    sides = (1,) if rules.side == "long" else (1, -1)
    budgets = {
        side: max(whole / len(sides) - float(np.abs(held[frozen & (side * held > 0)]).sum()), 0.0)
        for side in sides
    }
    room = max(whole - float(np.abs(held[frozen]).sum()), 0.0)
    fit = min(1.0, room / max(sum(budgets.values()), 1e-300))
    weights = np.zeros(len(chosen))
    for side, budget in budgets.items():
        on = chosen == side
        slots = max(rules.topk - int((frozen & (side * held > 0)).sum()), int(on.sum()))
        share = volatility[on].min(initial=np.inf) / volatility[on]
        weights[on] = side * budget * fit * share / share.sum() * (on.sum() / max(slots, 1))
    weights = np.clip(weights, -rules.max_weight, rules.max_weight)
    if rules.weighting == "volatility_target" and weights.any():
        weights *= min(1.0, rules.target_volatility / _volatility(weights, volatility, rules))
    return weights


def _volatility(weights: np.ndarray, volatility: np.ndarray, rules: PortfolioRules) -> float:
    """Forecast volatility per year of a portfolio with one common correlation; frozen positions are left out.

    With c the assumed correlation and x = weight * volatility per bar, the variance of a bar is
    c * sum(x)**2 + (1 - c) * sum(x**2). Bars are taken as uncorrelated in time.
    """
    risk = weights[weights != 0] * volatility[weights != 0]
    variance = rules.correlation * risk.sum() ** 2 + (1 - rules.correlation) * np.square(risk).sum()
    # A long-short portfolio whose sides cancel under correlation 1 has no volatility to lower.
    return max(float(np.sqrt(variance * rules.bars_per_year)), 1e-300)


def _apply_no_trade_band(
    target: np.ndarray, held: np.ndarray, frozen: np.ndarray, rules: PortfolioRules
) -> np.ndarray:
    """(n,) targets, or the current weight where the change is within the band and cash suffices."""
    kept = ~frozen & (held * target > 0) & (np.abs(target - held) < rules.no_trade_band)
    weights = np.where(kept, held, target)
    excess = np.abs(weights).sum() - (1 - rules.cash_buffer)
    above = np.where(kept, np.abs(held) - np.abs(target), 0.0)
    if excess > 1e-12 and (above > 0).any():
        order = np.argsort(-above, kind="stable")
        order = order[above[order] > 0]
        enough = int(np.searchsorted(np.cumsum(above[order]), excess)) + 1
        weights[order[:enough]] = target[order[:enough]]
    return weights


def _check(signals: pd.DataFrame, previous: pd.Series, rules: PortfolioRules) -> None:
    wanted = [rules.rank_by, *(["volatility"] if rules.reads_volatility else [])]
    missing = [name for name in wanted if name not in signals.columns]
    if missing:
        raise ValueError(
            f"The signals have no column {missing[0]!r}, which the rules use; they have {list(signals.columns)}. "
            "Set `rank_by` to one of these, or weight equally."
        )
    for what, index in (("signals", signals.index), ("previous weights", previous.index)):
        if not index.is_unique:
            raise ValueError(
                f"The {what} have {index[index.duplicated()][0]!r} twice. Keep one row per instrument."
            )
    if not np.isfinite(previous.to_numpy(np.float64)).all():
        name = previous.index[~np.isfinite(previous.to_numpy(np.float64))][0]
        raise ValueError(f"The previous weight of {name!r} is {previous[name]}. Value it at its last price.")


def _choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name}={value!r} is unknown. Choose one of {', '.join(known)}.")


def _within(name: str, value: float, holds: bool, span: str) -> None:
    if not holds:
        raise ValueError(f"{name}={value} is out of range. Pass a number {span}.")
