"""All that is asked of a score: how well, how far, when, where and beyond what it ranks. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.panel import Grid
from kronos_strategies.evaluation.signal.breakdown import (
    ALL,
    NONE,
    beyond,
    by_group,
    by_year,
    compare_with_baselines,
    decay,
    late,
)
from kronos_strategies.evaluation.signal.exposures import Exposure
from kronos_strategies.evaluation.signal.ic import (
    MIN_INSTRUMENTS,
    information_coefficients_wide,
    rank_autocorrelation,
)
from kronos_strategies.evaluation.signal.quantiles import (
    QuantileEvaluation,
    evaluate_quantiles,
    num_quantiles,
    top_turnover,
)
from kronos_strategies.evaluation.significance import MeanTest, label_overlap, mean_test, newey_west


@dataclass(frozen=True)
class SignalEvaluation:
    """Of one score (the "own" one) beside naive scores, over rows keyed (datetime, instrument).

    Attributes:
        own: name of the score that is studied.
        hold: bars that the headline label spans, from one bar after the date on.
        overlap: successive dates that it spans (`significance.mean_test`).
        by_date: name of a score -> frame by datetime, columns ic, rank_ic; NaN where undefined. Own first.
        rank_ic: of own; its newey_west is beside it, never instead.
        rank_ic_newey_west: the same series by Newey-West.
        ic: of own.
        table: a row a score, own first; columns ic, icir, rank_ic, rank_ic_low, rank_ic_high, rank_icir,
            rank_ic_t, rank_ic_p, positive (share of defined dates with RankIC > 0), lead, lead_low, lead_high,
            lead_p (own RankIC less this one's, paired by date over names that have both; NaN for own), dates,
            undefined.
        decay: long, a row a (score, horizon): columns score, horizon (bars), rank_ic, low, high, t, p, dates.
            The score stays, the label grows; every horizon on the dates that the longest leaves defined.
        lags: index lag (0, 1, ... dates that the score is late), columns rank_ic, low, high, dates; every lag on
            the dates that all leave defined.
        by_year: index year; columns rank_ic, low, high, ic, dates.
        by_group: long: columns exposure, group ("low", "middle", "high", or an industry), rank_ic, low, high,
            names (mean a date), dates. Terciles of each numeric exposure, by date.
        neutral: index "none", each exposure, "all"; columns rank_ic, low, high, t, p, dates: RankIC of what the
            score ranks beyond it (`neutralized_rank_ic`), each row over the names that have every exposure. No "all"
            without exposures.
        quantiles: returns of names bucketed by score.
        turnover: by datetime, share of the top bucket that was not in it on the date before.
        autocorrelation: by datetime, rank correlation of the score with its value on the date before.
    """

    own: str
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
        """Flat figures of own by their names in metrics.json.

        rank_ic and spread with _low, _high (95 %) and _t; icir and rank_icir are not annualised; top_turnover and
        rank_autocorrelation are means over dates; rank_ic_neutral is beyond all exposures, rank_ic_neutral_<name>
        beyond one. Undefined dates are counted and are in no figure; an undefined figure is NaN.
        """
        spread, own = self.quantiles.spread, self.table.loc[self.own].to_dict()
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
    min_names: int = MIN_INSTRUMENTS,
) -> SignalEvaluation:
    """Study the first column of `scores`.

    A value that is NaN or infinite is none. A date on which a figure cannot be had, for too few names or a constant
    score, is undefined: counted, and never a zero.

    Args:
        scores: indexed (datetime, instrument), a column a score, known at the close of the date; the first is
            studied, the others are naive. Their dates are those of the study.
        labels: of the same index, columns = horizons in bars: the simple return over so many bars that follows, NaN
            where there is none.
        hold: the horizon of the headline label.
        exposures: of the same index, known at the same close; numeric, or of strings (industry) for groups. May
            have no column.
        bars_between: bars between successive dates.
        lags: dates that the score is late, in `lags`.
        min_names: a date with fewer has no coefficient.

    Raises:
        ValueError: no label of that horizon, indices that differ, keys or columns that occur twice, an exposure
            called "none" or "all", a negative lag, or no row with both an own score and a headline label.
    """
    _check(scores, labels, hold, exposures, bars_between, lags)
    grid = Grid.of(cast(pd.MultiIndex, scores.index), "scores")
    by_score = {str(name): _wide(column, grid) for name, column in scores.items()}
    by_horizon = {horizon: _wide(labels[horizon], grid) for horizon in map(int, labels.columns)}
    styles = {str(name): Exposure.of(column, grid) for name, column in exposures.items()}
    own, score = next(iter(by_score.items()))
    label, overlap = by_horizon[hold], label_overlap(hold, bars_between)
    if not (np.isfinite(score) & np.isfinite(label)).any():
        raise ValueError(
            f"No row has both a score '{own}' and a label of {hold} bars. Score dates that {hold} bars follow."
        )
    found = {
        name: {
            h: information_coefficients_wide(each, returns, min_names) for h, returns in by_horizon.items()
        }
        for name, each in by_score.items()
    }
    by_date = {
        name: pd.DataFrame(each[hold].T, grid.dates, ["ic", "rank_ic"]) for name, each in found.items()
    }
    buckets = num_quantiles(score, label)
    return SignalEvaluation(
        own=own,
        hold=hold,
        overlap=overlap,
        by_date=by_date,
        rank_ic=mean_test(by_date[own]["rank_ic"], overlap),
        rank_ic_newey_west=newey_west(by_date[own]["rank_ic"], overlap),
        ic=mean_test(by_date[own]["ic"], overlap),
        table=compare_with_baselines(by_date, by_score, label, overlap, min_names),
        decay=decay(
            {name: {h: of[1] for h, of in each.items()} for name, each in found.items()}, bars_between
        ),
        lags=late(score, label, lags, overlap, min_names),
        by_year=by_year(by_date[own], overlap),
        by_group=by_group(score, label, styles, overlap, min_names),
        neutral=beyond(score, label, styles, overlap, min_names),
        quantiles=evaluate_quantiles(score, label, grid.dates, overlap, buckets),
        turnover=pd.Series(top_turnover(score, buckets), grid.dates, name="turnover"),
        autocorrelation=pd.Series(rank_autocorrelation(score, min_names), grid.dates, name="autocorrelation"),
    )


def _wide(column: pd.Series, grid: Grid) -> np.ndarray:
    return grid.wide(column.to_numpy(dtype=float, na_value=np.nan))


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
                f"The index of the {what} is not that of the scores, row by row ({len(frame)} rows against "
                f"{len(scores)}). Align them first: {what}.reindex(scores.index)."
            )
    if not len(scores.columns):
        raise ValueError("The scores have no column. Pass the score to study first, then the naive ones.")
    if hold not in labels.columns:
        raise ValueError(
            f"The labels span {list(labels.columns)} bars, none of them {hold}. Add a column {hold}, or hold less."
        )
    if reserved := {NONE, ALL} & set(exposures.columns):
        raise ValueError(
            f"An exposure may not be called '{min(reserved)}', which is a row of its own. Rename it."
        )
    if bars_between < 1:
        raise ValueError(
            f"bars_between={bars_between}: successive dates are a bar apart or more. Pass 1 or more."
        )
    if min(lags, default=0) < 0:
        raise ValueError(
            f"lag {min(lags)} would use a score before it is known. Pass lags of 0 or more dates."
        )
