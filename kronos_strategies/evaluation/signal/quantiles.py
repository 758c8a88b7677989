"""Names bucketed by score on each date: what each bucket earned. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from kronos_strategies.evaluation.significance import MeanTest

BUCKETS = 10


@dataclass(frozen=True)
class QuantileStudy:
    """Buckets of a score, 1 the lowest.

    Attributes:
        by_date: dates x buckets (columns 1..q), mean simple return over the label's span, equal weights.
        means: index bucket; columns mean, low, high (95 %), and excess: mean less that of all names.
        spread: of top less bottom, by date; a book of 200 % gross, not annualised, before costs.
        spread_by_date: its series.
        monotonicity: Spearman correlation of bucket number and mean return: 1 if every step up earns more.
        top_hit_rate: share of names of the top bucket that earned more than the date's median name.
    """

    by_date: pd.DataFrame
    means: pd.DataFrame
    spread: MeanTest
    spread_by_date: pd.Series
    monotonicity: float
    top_hit_rate: float
