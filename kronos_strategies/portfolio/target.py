"""target_weights: signals of one date, current weights and rules -> weights from the next bar on.

The instruments are ranked and selected here, and sized and constrained by `weighting`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kronos.utils import did_you_mean
from kronos_strategies.portfolio.market import (
    NO_INPUTS,
    MarketInputs,
    check_history,
    check_inputs,
    correlation_matrix,
    industry_codes,
    joint_paths,
    traded_amounts,
)
from kronos_strategies.portfolio.rules import PortfolioRules
from kronos_strategies.portfolio.weighting import (
    Sizing,
    apply_no_trade_band,
    cap_industries,
    limit_participation,
    limit_turnover,
    size,
)

TIE_BREAK = ("expected_return", "volatility")


@dataclass(frozen=True)
class CrossSection:
    """One date over n instruments, in ascending order of their names.

    Attributes:
        columns: (n,) float64 signals by name.
        held: (n,) current weights.
        trades: (n,) bool, instruments that can be traded.
        industries: (n,) number of the industry, -1 for none; None if unknown.
        amounts: (n,) traded amount per bar / equity, 0 if unknown; None if unknown for all.
        correlations: (n, n); None if unknown.
        scenarios: (n, S, B) joint scenarios, cumulative simple returns; NaN for an instrument without paths, which
            is never bought. None where the rules need none.
    """

    columns: Mapping[str, np.ndarray]
    held: np.ndarray
    trades: np.ndarray
    industries: np.ndarray | None = None
    amounts: np.ndarray | None = None
    correlations: np.ndarray | None = None
    scenarios: np.ndarray | None = None


def target_weights(
    signals: pd.DataFrame,
    previous: pd.Series,
    rules: PortfolioRules,
    tradable: pd.Index | None = None,
    market: MarketInputs = NO_INPUTS,
) -> pd.Series:
    """Compute the weights to hold from the next bar on.

    Ties in `rules.rank_by` are broken by expected_return / volatility where the signals have both, then by
    instrument, so that the order of rows never matters.

    Args:
        signals: signals of one date, indexed by instrument; the column `rules.rank_by`, and `rules.columns`. An
            instrument whose value there is not finite (or whose volatility is not positive) is never bought, and is
            sold if held. On a date without any finite value of `rank_by` nothing is traded.
        previous: weights held now, by instrument.
        rules: rules of selection and weighting.
        tradable: instruments that can be traded, all when omitted. Any other, such as a suspended or limit-locked
            one, keeps its previous weight, takes a slot of its side, and reduces what is left for the others.
        market: what else the rules need of the market.

    Returns:
        (held,) weights by instrument, sorted, without zeros: missing instruments are sold. The absolute weights add
        up to at most 1 - cash_buffer, or to what cannot be sold if that is more, because it does not trade or is
        limited by turnover or participation.

    Raises:
        ValueError: a column or what a rule needs of the market is missing, an instrument occurs twice, or a
            previous weight is not finite.
        UnsolvedError: an optimization over scenarios has no result. Keep the previous weights.
        MissingExtra: it needs a package that is not installed.
    """
    _check_signals(signals, previous, rules)
    check_inputs(rules, market.industries is not None, market.amounts is not None)
    check_history(
        rules, market.closes is not None or market.correlations is not None, market.paths is not None
    )
    names = signals.index.union(previous.index[previous.ne(0)]).sort_values().rename("instrument")
    trades = np.full(len(names), tradable is None)
    if tradable is not None:
        at = names.get_indexer(tradable)  # much faster than isin on strings
        trades[at[at >= 0]] = True
    section = CrossSection(
        columns=_columns(signals.reindex(names), rules),
        held=previous.reindex(names, fill_value=0.0).to_numpy(np.float64),
        trades=trades,
        industries=industry_codes(market.industries, names),
        amounts=traded_amounts(market.amounts, names),
        correlations=correlation_matrix(market, names, rules),
        scenarios=joint_paths(market, names, rules),
    )
    weights = cross_section_weights(section, rules)
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
    _check_signals(signals, pd.Series(dtype=np.float64), rules)
    table = signals.sort_index()
    trades = np.ones(len(table), bool)
    ranks = pd.Series(rank_instruments(_columns(table, rules), rules, trades) + 1.0, table.index, name="rank")
    return ranks.where(ranks <= len(table)).rename_axis("instrument")


def cross_section_weights(section: CrossSection, rules: PortfolioRules) -> np.ndarray:
    """(n,) weights of `target_weights`, from arrays.

    Raises:
        UnsolvedError: as for `target_weights`.
    """
    held = section.held
    if not np.isfinite(section.columns[rules.rank_by]).any():
        return held
    frozen = ~section.trades & (held != 0)
    able = section.trades
    if section.scenarios is not None:
        able = able & np.isfinite(section.scenarios[:, -1, -1])
    ranks = rank_instruments(section.columns, rules, able)
    chosen = choose(ranks, held, frozen, rules)
    sizing = Sizing(
        section.columns,
        ranks,
        chosen,
        held,
        frozen,
        section.correlations,
        section.scenarios,
        section.industries,
    )
    weights = np.where(frozen, held, size(sizing, rules))
    if section.industries is not None and rules.max_industry_weight < 1:
        weights = cap_industries(weights, frozen, section.industries, rules.max_industry_weight)
    weights = apply_no_trade_band(weights, held, frozen, rules)
    if section.amounts is not None and rules.max_participation:
        largest = rules.max_participation * section.amounts
        weights = limit_participation(weights, held, largest, rules.cash_buffer)
    if rules.max_turnover:
        weights = limit_turnover(weights, held, rules.max_turnover)
    return weights


def _columns(table: pd.DataFrame, rules: PortfolioRules) -> dict[str, np.ndarray]:
    """(n,) of each signal that the rules read."""
    wanted = dict.fromkeys((rules.rank_by, *rules.columns, *TIE_BREAK))
    return {name: table[name].to_numpy(np.float64) for name in wanted if name in table}


def check_columns(signals: pd.DataFrame, rules: PortfolioRules) -> None:
    """Refuse signals without a column that the rules read.

    Raises:
        ValueError: one is missing.
    """
    if missing := [name for name in (rules.rank_by, *rules.columns) if name not in signals.columns]:
        question = did_you_mean(missing[0], signals.columns)
        raise ValueError(
            f"The signals have no column '{missing[0]}', which the rules use; they have {list(signals.columns)}. "
            f"{question or 'Set rank_by to one of these, or weight equally.'}"
        )


def _check_signals(signals: pd.DataFrame, previous: pd.Series, rules: PortfolioRules) -> None:
    check_columns(signals, rules)
    for what, index in (("signals", signals.index), ("previous weights", previous.index)):
        if not index.is_unique:
            raise ValueError(
                f"The {what} have {index[index.duplicated()][0]!r} twice. Keep one row per instrument."
            )
    if not np.isfinite(previous.to_numpy(np.float64)).all():
        name = previous.index[~np.isfinite(previous.to_numpy(np.float64))][0]
        raise ValueError(f"The previous weight of {name!r} is {previous[name]}. Value it at its last price.")


def rank_instruments(
    columns: Mapping[str, np.ndarray], rules: PortfolioRules, trades: np.ndarray
) -> np.ndarray:
    """(n,) rank, 0 for the best; n for instruments that cannot be bought.

    Ties are broken by expected_return / volatility where the signals have both, then by the order of instruments.

    Args:
        columns: (n,) signals by name.
        rules: rules.
        trades: (n,) bool, instruments that can be traded.
    """
    score = columns[rules.rank_by]
    able = trades & np.isfinite(score)
    for name in rules.columns:
        able &= np.isfinite(columns[name])
        if name != "risk_adjusted":
            able &= columns[name] > 0
    ratio = np.zeros(len(score))
    if {"expected_return", "volatility"} <= set(columns):
        with np.errstate(all="ignore"):
            ratio = np.nan_to_num(columns["expected_return"] / columns["volatility"], nan=-np.inf)
    best_first = np.lexsort((-ratio, -np.where(able, score, 0.0), ~able))  # stable
    ranks = np.full(len(score), len(score))
    ranks[best_first[: able.sum()]] = np.arange(able.sum())
    return ranks


def choose(ranks: np.ndarray, held: np.ndarray, frozen: np.ndarray, rules: PortfolioRules) -> np.ndarray:
    """(n,) 1 for a long position, -1 for a short one, 0 for the others, including frozen ones.

    Args:
        ranks: (n,) as `rank_instruments` returns.
        held: (n,) current weights.
        frozen: (n,) bool, positions that cannot be traded; each takes a slot of its side.
        rules: rules.
    """
    able = ranks < len(ranks)
    count = int(able.sum())
    most = count if rules.side == "long" else count // 2  # so that no instrument is both best and worst
    positions = rules.positions(count)
    slots = [min(max(positions - int((frozen & (sign * held > 0)).sum()), 0), most) for sign in (1, -1)]
    long, best = _choose_side(ranks, able, held > 0, slots[0], rules)
    if rules.side == "long":
        return long.astype(int)
    from_worst = np.where(able, count - 1 - ranks, len(ranks))
    short, worst = _choose_side(from_worst, able, held < 0, slots[1], rules)
    return (long & ~worst).astype(int) - (short & ~best).astype(int)


def _choose_side(
    ranks: np.ndarray, able: np.ndarray, held: np.ndarray, slots: int, rules: PortfolioRules
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) bool, the instruments of a side, and those of them that are among its best `slots`."""
    best, own = able & (ranks < slots), able & held
    stays = own & (ranks < slots + rules.rank_buffer)
    if rules.n_drop:
        leaving = np.flatnonzero(own & ~stays)
        leaving = leaving[np.argsort(-ranks[leaving])][: rules.n_drop]
        stays = own.copy()
        stays[leaving] = False
        entering = np.flatnonzero(best & ~own)
        # A side that holds too many, because a sale did not trade, shrinks: fewer enter than leave.
        free = max(len(leaving) + slots - int(own.sum()), 0)
        best = best & own
        best[entering[np.argsort(ranks[entering])][:free]] = True
    return best | stays, best
