"""Breakdown of a RankIC by year, group, horizon, lag and exposure, and its comparison with baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.signal.exposures import Exposure
from kronos_strategies.evaluation.signal.ic import MIN_INSTRUMENTS, icir, information_coefficients_wide
from kronos_strategies.evaluation.signal.neutralization import neutralized_rank_ic
from kronos_strategies.evaluation.signal.quantiles import assign_quantiles
from kronos_strategies.evaluation.significance import MeanTest, label_overlap, mean_test

TERCILES = ("low", "middle", "high")
NONE, ALL = "none", "all"  # rows of the neutral table that are no exposure's


def by_year(coefficients: pd.DataFrame, overlap: int) -> pd.DataFrame:
    """Columns ic, rank_ic by datetime -> index year; columns rank_ic, low, high, ic, dates."""
    years = pd.DatetimeIndex(coefficients.index).year
    rows = {}
    for year in sorted(set(years)):
        part = coefficients[years == year]
        test = mean_test(part["rank_ic"], overlap)
        rows[year] = _interval(test) | {"ic": float(part["ic"].mean()), "dates": test.dates}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("year")


def by_group(
    score: np.ndarray,
    label: np.ndarray,
    exposures: Mapping[str, Exposure],
    overlap: int,
    min_names: int = MIN_INSTRUMENTS,
) -> pd.DataFrame:
    """RankIC among the names of each group, ranked within it.

    A numeric exposure is cut into terciles by date (`assign_quantiles`) over names with score, label and exposure.

    Returns:
        Columns exposure, group, rank_ic, low, high, names (mean over the dates on which the group has any), dates
        (on which it has enough).
    """
    both = np.isfinite(score) & np.isfinite(label)
    rows = []
    for name, exposure in exposures.items():
        for group, members in _groups(exposure, both):
            seen = members.any(axis=0)  # an industry has few of the names: leave the others' columns out
            inside = np.where(members, score, np.nan)[:, seen]
            test = mean_test(information_coefficients_wide(inside, label[:, seen], min_names)[1], overlap)
            counts = members.sum(axis=1)
            names = float(counts[counts > 0].mean()) if counts.any() else 0.0
            row = {"exposure": name, "group": group, **_interval(test), "names": names, "dates": test.dates}
            rows.append(row)
    return pd.DataFrame(rows, columns=["exposure", "group", "rank_ic", "low", "high", "names", "dates"])


def decay(by_score: Mapping[str, Mapping[int, np.ndarray]], bars_between: int) -> pd.DataFrame:
    """RankIC as the label grows.

    Every horizon of a score is on the dates that the longest leaves defined, so that a difference is never one of
    dates. A horizon defined nowhere, longer than the data, has a row of NaN and does not shorten the others.

    Args:
        by_score: name of a score -> horizon in bars -> (dates,) RankIC.
        bars_between: bars between successive dates.

    Returns:
        Columns score, horizon, rank_ic, low, high, t, p, dates.
    """
    rows = []
    for name, by_horizon in by_score.items():
        kept = _common([by_horizon[max(of)]] if (of := _anywhere(by_horizon)) else [])
        for horizon, values in sorted(by_horizon.items()):
            test = mean_test(np.where(kept, values, np.nan), label_overlap(horizon, bars_between))
            row = {"score": name, "horizon": horizon, **_interval(test)}
            rows.append(row | {"t": test.t, "p": test.p, "dates": test.dates})
    return pd.DataFrame(rows, columns=["score", "horizon", "rank_ic", "low", "high", "t", "p", "dates"])


def late(
    score: np.ndarray, label: np.ndarray, lags: Sequence[int], overlap: int, min_names: int = MIN_INSTRUMENTS
) -> pd.DataFrame:
    """RankIC of the score of `lag` dates before: index lag; columns rank_ic, low, high, dates.

    All lags are on the dates that all of them leave defined; one that is defined nowhere, longer than the data,
    has a row of NaN and does not shorten the others.
    """
    by_lag = {}
    for lag in lags:
        shifted = np.full_like(score, np.nan)
        shifted[lag:] = score[: max(len(score) - lag, 0)]
        by_lag[lag] = information_coefficients_wide(shifted, label, min_names)[1]
    kept = _common([by_lag[lag] for lag in _anywhere(by_lag)])
    tests = {lag: mean_test(np.where(kept, values, np.nan), overlap) for lag, values in by_lag.items()}
    rows = [[*_interval(test).values(), test.dates] for test in tests.values()]
    return pd.DataFrame(rows, index=pd.Index(tests, name="lag"), columns=["rank_ic", "low", "high", "dates"])


def beyond(
    score: np.ndarray,
    label: np.ndarray,
    exposures: Mapping[str, Exposure],
    overlap: int,
    min_names: int = MIN_INSTRUMENTS,
) -> pd.DataFrame:
    """RankIC of what the score ranks beyond each exposure and beyond all at once (`neutralized_rank_ic`).

    All rows are over the names that have a score, a label and every exposure, "none" too: rows differ by what was
    taken away and nothing else. An exposure without any value restricts nobody; its own row is NaN.

    Returns:
        Index "none", each exposure, "all" (unless there are none); columns rank_ic, low, high, t, p, dates.
    """
    known = {name: each for name, each in exposures.items() if np.isfinite(each.values).any()}
    sample = np.logical_and.reduce(
        [np.isfinite(v) for v in (score, label, *(e.values for e in known.values()))]
    )
    score = np.where(sample, score, np.nan)
    taken = {NONE: [], **{name: [each] for name, each in exposures.items()}}
    if exposures:
        taken[ALL] = list((known or exposures).values())
    rows = {}
    for name, away in taken.items():
        test = mean_test(neutralized_rank_ic(score, label, away, min_names), overlap)
        rows[name] = {**_interval(test), "t": test.t, "p": test.p, "dates": test.dates}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("exposure")


def _groups(exposure: Exposure, both: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Names of groups and (dates, names) bool of who is in them."""
    if exposure.groups:
        for code, group in enumerate(exposure.groups):
            yield group, both & (exposure.values == code)
        return
    terciles = assign_quantiles(np.where(both, exposure.values, np.nan), len(TERCILES))
    for number, group in enumerate(TERCILES, start=1):
        yield group, terciles == number


def _interval(test: MeanTest) -> dict[str, float]:
    return {"rank_ic": test.mean, "low": test.low, "high": test.high}


def _anywhere(series: Mapping[int, np.ndarray]) -> list[int]:
    return [key for key, values in series.items() if np.isfinite(values).any()]


def _common(series: Sequence[np.ndarray]) -> np.ndarray | bool:
    """(dates,) on which all are defined."""
    return np.logical_and.reduce([np.isfinite(values) for values in series]) if series else False


def compare_with_baselines(
    by_date: Mapping[str, pd.DataFrame],
    by_score: Mapping[str, np.ndarray],
    label: np.ndarray,
    overlap: int,
    min_names: int = MIN_INSTRUMENTS,
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
        `SignalEvaluation.table`.
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
    mine, theirs = (information_coefficients_wide(each, label, min_names)[1] for each in kept)
    return mine - theirs
