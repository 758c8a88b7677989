"""Evaluation of a score: RankIC, decay, breakdowns, quantile returns, neutralization and baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.panel import PanelIndex
from kronos_strategies.evaluation.signal.breakdown import (
    ALL,
    NONE,
    compare_with_baselines,
    neutralization_table,
    rank_ic_by_group,
    rank_ic_by_lag,
    rank_ic_by_year,
    rank_ic_decay,
)
from kronos_strategies.evaluation.signal.metrics import (
    MIN_INSTRUMENTS,
    QuantileEvaluation,
    assign_quantiles,
    evaluate_quantiles,
    information_coefficients_wide,
    num_quantiles,
)
from kronos_strategies.evaluation.signal.neutralization import Exposure
from kronos_strategies.evaluation.significance import MeanTest, label_overlap, mean_test, newey_west


@dataclass(frozen=True)
class SignalEvaluation:
    """Evaluation of one score, compared with baselines, over rows indexed (datetime, instrument).

    Attributes:
        name: name of the evaluated score.
        hold: bars that the headline label spans, starting one bar after the date.
        overlap: successive dates that it spans (`significance.mean_test`).
        by_date: name of a score -> frame by datetime, columns ic, rank_ic; NaN where undefined. The evaluated score
            first.
        rank_ic: RankIC of the evaluated score.
        rank_ic_newey_west: the same series by Newey-West, for reference only.
        ic: IC of the evaluated score.
        table: one row per score, the evaluated score first; columns ic, icir, rank_ic, rank_ic_low, rank_ic_high,
            rank_icir, rank_ic_t, rank_ic_p, positive (share of defined dates with RankIC > 0), rank_ic_difference,
            rank_ic_difference_low, rank_ic_difference_high, rank_ic_difference_p (RankIC of the evaluated score
            minus that of the row, paired by date over the instruments that have both; NaN in its own row), dates,
            undefined.
        decay: long, one row per (score, horizon): columns score, horizon (bars), rank_ic, low, high, t, p, dates.
            The score stays, the label grows; every horizon on the dates on which the longest is defined.
        lags: index lag (0, 1, ... dates that the score is late), columns rank_ic, low, high, dates; every lag on
            the dates on which all are defined.
        by_year: index year; columns rank_ic, low, high, ic, dates.
        by_group: long: columns exposure, group ("low", "middle", "high", or an industry), rank_ic, low, high,
            instruments (mean per date), dates. Terciles of each numeric exposure, by date.
        neutral: index "none", each exposure, "all"; columns rank_ic, low, high, t, p, dates: RankIC neutralized
            against the exposure (`neutralized_rank_ic`), each row over the instruments that have every exposure. No
            "all" without exposures.
        quantiles: returns by quantile of the score.
        turnover: by datetime, the share of the top quantile that was not in it on the previous date.
        autocorrelation: by datetime, the rank correlation of the score with that of the previous date.
    """

    name: str
    hold: int
    overlap: int
    by_date: dict[str, pd.DataFrame]
    rank_ic: MeanTest
    rank_ic_newey_west: MeanTest
    ic: MeanTest
    table: pd.DataFrame
    decay: pd.DataFrame
    lags: pd.DataFrame
    by_year: pd.DataFrame
    by_group: pd.DataFrame
    neutral: pd.DataFrame
    quantiles: QuantileEvaluation
    turnover: pd.Series
    autocorrelation: pd.Series

    def metrics(self) -> dict[str, float]:
        """Flat metrics of the evaluated score by their names in metrics.json.

        rank_ic and spread (top minus bottom quantile) with _low, _high (95 %) and _t; icir and rank_icir are not
        annualized; top_turnover and rank_autocorrelation are means over dates; rank_ic_neutral is neutralized
        against all exposures, rank_ic_neutral_<name> against one. Undefined dates are counted and excluded from
        all metrics; an undefined metric is NaN.
        """
        spread, own = self.quantiles.top_minus_bottom, self.table.loc[self.name].to_dict()
        figures = {
            "ic": self.ic.mean,
            "icir": own["icir"],
            "rank_ic": self.rank_ic.mean,
            "rank_ic_low": self.rank_ic.low,
            "rank_ic_high": self.rank_ic.high,
            "rank_icir": own["rank_icir"],
            "rank_ic_t": self.rank_ic.t,
            "rank_ic_p": self.rank_ic.p,
            "rank_ic_t_newey_west": self.rank_ic_newey_west.t,
            "rank_ic_positive": own["positive"],
            "spread": spread.mean,
            "spread_low": spread.low,
            "spread_high": spread.high,
            "spread_t": spread.t,
            "monotonicity": self.quantiles.monotonicity,
            "top_hit_rate": self.quantiles.top_hit_rate,
            "top_turnover": float(self.turnover.mean()),
            "rank_autocorrelation": float(self.autocorrelation.mean()),
        }
        for name, value in self.neutral["rank_ic"].drop(NONE).items():
            key = "rank_ic_neutral" if name == ALL else f"rank_ic_neutral_{name}".replace(" ", "_")
            figures[key] = value
        counts = {"dates": self.rank_ic.dates, "undefined_dates": self.rank_ic.undefined}
        return {name: float(value) for name, value in figures.items()} | counts


def evaluate_signal(
    scores: pd.DataFrame,
    labels: pd.DataFrame,
    hold: int,
    exposures: pd.DataFrame,
    bars_between: int = 1,
    lags: Sequence[int] = (0, 1, 2, 3, 4, 5),
    min_instruments: int = MIN_INSTRUMENTS,
) -> SignalEvaluation:
    """Evaluate the first column of `scores`.

    NaN and infinite values are missing. A date on which a metric is not defined, because there are too few
    instruments or the score is constant, is excluded and counted, never taken as zero.

    Args:
        scores: indexed (datetime, instrument), one column per score, known at the close of the date; the first is
            evaluated, the others are baselines. Their dates are the dates of the evaluation.
        labels: same index, columns = horizons in bars: the simple forward return over so many bars, NaN where it is
            not known.
        hold: horizon of the headline label.
        exposures: same index, known at the same close; numeric, or strings for groups such as industries. May have
            no column.
        bars_between: bars between successive dates.
        lags: delays of the score in dates, for `lags`.
        min_instruments: a date with fewer instruments has no coefficient.

    Raises:
        ValueError: no label of that horizon, indices that differ, keys or columns that occur twice, an exposure
            called "none" or "all", a negative lag, or no row with both a score and a headline label.
    """
    _check(scores, labels, hold, exposures, bars_between, lags)
    panel = PanelIndex.from_index(cast(pd.MultiIndex, scores.index), "scores")
    by_score = {str(name): _wide(column, panel) for name, column in scores.items()}
    by_horizon = {horizon: _wide(labels[horizon], panel) for horizon in map(int, labels.columns)}
    styles = {str(each): Exposure.from_column(column, panel) for each, column in exposures.items()}
    name, score = next(iter(by_score.items()))
    label, overlap = by_horizon[hold], label_overlap(hold, bars_between)
    if not (np.isfinite(score) & np.isfinite(label)).any():
        raise ValueError(
            f"No row has both a score '{name}' and a label of {hold} bars. Score dates that are followed by "
            f"{1 + hold} more bars."
        )
    found = {
        name: {
            h: information_coefficients_wide(each, returns, min_instruments)
            for h, returns in by_horizon.items()
        }
        for name, each in by_score.items()
    }
    by_date = {
        name: pd.DataFrame(each[hold].T, panel.dates, ["ic", "rank_ic"]) for name, each in found.items()
    }
    count = num_quantiles(score, label)
    return SignalEvaluation(
        name=name,
        hold=hold,
        overlap=overlap,
        by_date=by_date,
        rank_ic=mean_test(by_date[name]["rank_ic"], overlap),
        rank_ic_newey_west=newey_west(by_date[name]["rank_ic"], overlap),
        ic=mean_test(by_date[name]["ic"], overlap),
        table=compare_with_baselines(by_date, by_score, label, overlap, min_instruments),
        decay=rank_ic_decay(
            {name: {h: of[1] for h, of in each.items()} for name, each in found.items()}, bars_between
        ),
        lags=rank_ic_by_lag(score, label, lags, overlap, min_instruments),
        by_year=rank_ic_by_year(by_date[name], overlap),
        by_group=rank_ic_by_group(score, label, styles, overlap, min_instruments),
        neutral=neutralization_table(score, label, styles, overlap, min_instruments),
        quantiles=evaluate_quantiles(score, label, panel.dates, overlap, count),
        turnover=pd.Series(top_turnover(score, count), panel.dates, name="turnover"),
        autocorrelation=pd.Series(
            rank_autocorrelation(score, min_instruments), panel.dates, name="autocorrelation"
        ),
    )


def top_turnover(score: np.ndarray, count: int) -> np.ndarray:
    """Share of the top quantile that was not in it on the previous date.

    Args:
        score: (dates, instruments), dates ascending; all scored instruments count, whether or not a return follows.
        count: number of quantiles (`assign_quantiles`).

    Returns:
        (dates,); NaN on the first date, and where either date has no top quantile.
    """
    top = assign_quantiles(score, count) == count
    sizes = top.sum(axis=1)
    new = (top[1:] & ~top[:-1]).sum(axis=1)
    known = (sizes[1:] > 0) & (sizes[:-1] > 0)
    return np.append(np.nan, np.where(known, new / np.maximum(sizes[1:], 1), np.nan))[: len(score)]


def rank_autocorrelation(score: np.ndarray, min_instruments: int = MIN_INSTRUMENTS) -> np.ndarray:
    """(dates, instruments), dates ascending -> (dates,) Spearman correlation with the score of the previous date.

    Over the instruments scored on both dates; NaN on the first date, and where a RankIC would be undefined.
    """
    return np.append(np.nan, information_coefficients_wide(score[1:], score[:-1], min_instruments)[1])[
        : len(score)
    ]


def _wide(column: pd.Series, panel: PanelIndex) -> np.ndarray:
    return panel.to_wide(column.to_numpy(dtype=float, na_value=np.nan))


def _check(
    scores: pd.DataFrame,
    labels: pd.DataFrame,
    hold: int,
    exposures: pd.DataFrame,
    bars_between: int,
    lags: Sequence[int],
) -> None:
    for what, frame in (("scores", scores), ("labels", labels), ("exposures", exposures)):
        if not frame.columns.is_unique:
            twice = frame.columns[frame.columns.duplicated()][0]
            raise ValueError(f"The {what} have the column {twice!r} twice. Give each its own name.")
        if not frame.index.equals(scores.index):
            raise ValueError(
                f"The index of the {what} differs from that of the scores ({len(frame)} rows and "
                f"{len(scores)}). Align them first: {what}.reindex(scores.index)."
            )
    if not len(scores.columns):
        raise ValueError("The scores have no column. Pass the score to evaluate first, then the baselines.")
    if hold not in labels.columns:
        raise ValueError(
            f"The labels span {list(labels.columns)} bars, none of them {hold}. Add a column {hold} or change "
            "`hold`."
        )
    if reserved := {NONE, ALL} & set(exposures.columns):
        raise ValueError(f"'{min(reserved)}' is a reserved name and cannot be an exposure. Rename it.")
    if bars_between < 1:
        raise ValueError(f"bars_between must be at least 1 bar, got {bars_between}.")
    if min(lags, default=0) < 0:
        raise ValueError(
            f"A lag of {min(lags)} dates would use a score before it is known. Pass lags of 0 or more."
        )
