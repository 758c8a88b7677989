"""A score beside naive ones on the same rows. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.signal.ic import MIN_NAMES, coefficients_of_grid, icir
from kronos_strategies.evaluation.significance import mean_test


def beside_naive(
    by_date: Mapping[str, pd.DataFrame],
    by_score: Mapping[str, np.ndarray],
    label: np.ndarray,
    overlap: int,
    min_names: int = MIN_NAMES,
) -> pd.DataFrame:
    """Each score's own figures, and the first one's lead over each of the others.

    A lead is a difference of RankIC by date over names that have both scores: of two figures over different names
    the difference would be one of names as well.

    Args:
        by_date: name of a score -> columns ic, rank_ic by datetime, the first score first.
        by_score: of the same names, (dates, names).
        label: (dates, names).
        overlap: successive dates that one label spans.
        min_names: a date with fewer is undefined.

    Returns:
        `SignalStudy.table`.
    """
    (own, score), rows = next(iter(by_score.items())), {}
    for name, naive in by_score.items():
        coefficients = by_date[name]
        rank_ic = coefficients["rank_ic"]
        test = mean_test(rank_ic, overlap)
        lead = mean_test(_lead(score, naive, label, min_names) if name != own else rank_ic * np.nan, overlap)
        rows[name] = {
            "ic": float(coefficients["ic"].mean()),
            "icir": icir(coefficients["ic"]),
            "rank_ic": test.mean,
            "rank_ic_low": test.low,
            "rank_ic_high": test.high,
            "rank_icir": icir(rank_ic),
            "rank_ic_t": test.t,
            "rank_ic_p": test.p,
            "positive": float((rank_ic.dropna() > 0).mean()),
            "lead": lead.mean,
            "lead_low": lead.low,
            "lead_high": lead.high,
            "lead_p": lead.p,
            "dates": test.dates,
            "undefined": test.undefined,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("score")


def _lead(own: np.ndarray, naive: np.ndarray, label: np.ndarray, min_names: int) -> np.ndarray:
    """(dates,) RankIC of own less that of naive, over names that have both."""
    both = np.isfinite(own) & np.isfinite(naive)
    kept = (np.where(both, each, np.nan) for each in (own, naive))
    mine, theirs = (coefficients_of_grid(each, label, min_names)[1] for each in kept)
    return mine - theirs
