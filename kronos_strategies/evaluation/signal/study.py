"""All that is asked of a score: how well, how far, when, where and beyond what it ranks. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from kronos_strategies.evaluation.significance import MeanTest
from kronos_strategies.evaluation.signal.quantiles import QuantileStudy


@dataclass(frozen=True)
class SignalStudy:
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
        lags: index lag (0, 1, ... bars that the score is late), columns rank_ic, low, high, dates.
        by_year: index year; columns rank_ic, low, high, ic, dates.
        by_group: long: columns exposure, group ("low", "middle", "high", or an industry), rank_ic, low, high,
            names (mean a date), dates. Terciles of each numeric exposure, by date.
        neutral: index "none", each exposure, "all"; columns rank_ic, low, high, t, p, dates: RankIC of what the
            score ranks beyond it.
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
    quantiles: QuantileStudy
    turnover: pd.Series
    autocorrelation: pd.Series

    def metrics(self) -> dict[str, float]:
        """Flat figures by their names in metrics.json: rank_ic, rank_ic_low, rank_ic_high, rank_icir, rank_ic_t, ..."""
        raise NotImplementedError


def study_signal(
    scores: pd.DataFrame,
    labels: pd.DataFrame,
    hold: int,
    exposures: pd.DataFrame,
    bars_between: int = 1,
    lags: Sequence[int] = (0, 1, 2, 3, 4, 5),
) -> SignalStudy:
    """Study the first column of `scores`.

    Args:
        scores: indexed (datetime, instrument), a column a score, known at the close of the date; the first is
            studied, the others are naive.
        labels: of the same index, columns = horizons in bars: the return over so many bars that follows, NaN
            where there is none.
        hold: the horizon of the headline label.
        exposures: of the same index, known at the same close; numeric, or of strings (industry) for groups.
        bars_between: bars between successive dates.
        lags: bars that the score is late, in `lags`.

    Raises:
        ValueError: no label of that horizon, keys that occur twice, or no row with both a score and a label.
    """
    raise NotImplementedError
