"""Breakdown of a RankIC by year, group, horizon, lag and exposure, and its comparison with baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.signal.metrics import (
    MIN_INSTRUMENTS,
    assign_quantiles,
    icir,
    information_coefficients_wide,
)
from kronos_strategies.evaluation.signal.neutralization import Exposure, neutralized_rank_ic
from kronos_strategies.evaluation.significance import MeanTest, label_overlap, mean_test

TERCILES = ("low", "middle", "high")
NONE, ALL = "none", "all"  # rows of the neutralization table that do not name an exposure


def rank_ic_by_year(by_date: pd.DataFrame, overlap: int) -> pd.DataFrame:
    """Columns ic, rank_ic by datetime -> index year; columns rank_ic, low, high, ic, dates."""
    years = pd.DatetimeIndex(by_date.index).year
    rows = {}
    for year in sorted(set(years)):
        part = by_date[years == year]
        test = mean_test(part["rank_ic"], overlap)
        rows[year] = _interval(test) | {"ic": float(part["ic"].mean()), "dates": test.dates}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("year")


def rank_ic_by_group(
    score: np.ndarray,
    label: np.ndarray,
    exposures: Mapping[str, Exposure],
    overlap: int,
    min_instruments: int = MIN_INSTRUMENTS,
) -> pd.DataFrame:
    """RankIC within each group of instruments.

    A numeric exposure is divided into terciles by date (`assign_quantiles`) over the instruments with score,
    label and exposure.

    Returns:
        Columns exposure, group, rank_ic, low, high, instruments (mean over the dates on which the group has any),
        dates (on which it has enough).
    """
    both = np.isfinite(score) & np.isfinite(label)
    rows = []
    for name, exposure in exposures.items():
        for group, members in _groups(exposure, both):
            seen = members.any(axis=0)  # a group has few instruments: skip the columns of the others
            inside = np.where(members, score, np.nan)[:, seen]
            test = mean_test(
                information_coefficients_wide(inside, label[:, seen], min_instruments)[1], overlap
            )
            counts = members.sum(axis=1)
            size = float(counts[counts > 0].mean()) if counts.any() else 0.0
            row = {"exposure": name, "group": group, **_interval(test), "instruments": size}
            rows.append(row | {"dates": test.dates})
    return pd.DataFrame(rows, columns=["exposure", "group", "rank_ic", "low", "high", "instruments", "dates"])


def rank_ic_decay(by_score: Mapping[str, Mapping[int, np.ndarray]], bars_between: int) -> pd.DataFrame:
    """RankIC by horizon of the label.

    All horizons of a score are evaluated on the dates on which the longest is defined, so that a difference is
    never due to different dates. A horizon that is longer than the data has a row of NaN and does not restrict
    the others.

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


def rank_ic_by_lag(
    score: np.ndarray,
    label: np.ndarray,
    lags: Sequence[int],
    overlap: int,
    min_instruments: int = MIN_INSTRUMENTS,
) -> pd.DataFrame:
    """RankIC of the score `lag` dates earlier: index lag; columns rank_ic, low, high, dates.

    All lags are evaluated on the dates on which all of them are defined; a lag that is longer than the data has a
    row of NaN and does not restrict the others.
    """
    by_lag = {}
    for lag in lags:
        shifted = np.full_like(score, np.nan)
        shifted[lag:] = score[: max(len(score) - lag, 0)]
        by_lag[lag] = information_coefficients_wide(shifted, label, min_instruments)[1]
    kept = _common([by_lag[lag] for lag in _anywhere(by_lag)])
    tests = {lag: mean_test(np.where(kept, values, np.nan), overlap) for lag, values in by_lag.items()}
    rows = [[*_interval(test).values(), test.dates] for test in tests.values()]
    return pd.DataFrame(rows, index=pd.Index(tests, name="lag"), columns=["rank_ic", "low", "high", "dates"])


def neutralization_table(
    score: np.ndarray,
    label: np.ndarray,
    exposures: Mapping[str, Exposure],
    overlap: int,
    min_instruments: int = MIN_INSTRUMENTS,
) -> pd.DataFrame:
    """RankIC neutralized against each exposure and against all at once (`neutralized_rank_ic`).

    All rows, including "none", are over the instruments that have a score, a label and every exposure: rows
    differ by the neutralization only. An exposure without any value restricts nothing; its own row is NaN.

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
        test = mean_test(neutralized_rank_ic(score, label, away, min_instruments), overlap)
        rows[name] = {**_interval(test), "t": test.t, "p": test.p, "dates": test.dates}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("exposure")


def _groups(exposure: Exposure, both: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Names of the groups, and (dates, instruments) bool of their members."""
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
    """(dates,) bool: where all series are defined."""
    return np.logical_and.reduce([np.isfinite(values) for values in series]) if series else False


def compare_with_baselines(
    by_date: Mapping[str, pd.DataFrame],
    by_score: Mapping[str, np.ndarray],
    label: np.ndarray,
    overlap: int,
    min_instruments: int = MIN_INSTRUMENTS,
) -> pd.DataFrame:
    """Metrics of each score, and the difference of the first score's RankIC from each of the others.

    A difference is paired by date over the instruments that have both scores, so that it is never due to different
    instruments.

    Args:
        by_date: name of a score -> columns ic, rank_ic by datetime, the evaluated score first.
        by_score: (dates, instruments), of the same names.
        label: (dates, instruments).
        overlap: successive dates that one label spans.
        min_instruments: a date with fewer instruments is undefined.

    Returns:
        `SignalEvaluation.table`.
    """
    (evaluated, score), rows = next(iter(by_score.items())), {}
    for name, other in by_score.items():
        ic, rank_ic = by_date[name]["ic"], by_date[name]["rank_ic"]
        test = mean_test(rank_ic, overlap)
        paired = rank_ic * np.nan if name == evaluated else _difference(score, other, label, min_instruments)
        difference = mean_test(paired, overlap)
        rows[name] = {
            "ic": float(ic.mean()),
            "icir": icir(ic),
            "rank_ic": test.mean,
            "rank_ic_low": test.low,
            "rank_ic_high": test.high,
            "rank_icir": icir(rank_ic),
            "rank_ic_t": test.t,
            "rank_ic_p": test.p,
            "positive": float((rank_ic.dropna() > 0).mean()),
            "rank_ic_difference": difference.mean,
            "rank_ic_difference_low": difference.low,
            "rank_ic_difference_high": difference.high,
            "rank_ic_difference_p": difference.p,
            "dates": test.dates,
            "undefined": test.undefined,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("score")


def _difference(score: np.ndarray, other: np.ndarray, label: np.ndarray, min_instruments: int) -> np.ndarray:
    """(dates,) RankIC of the score minus that of the other, over the instruments that have both."""
    both = np.isfinite(score) & np.isfinite(other)
    kept = (np.where(both, each, np.nan) for each in (score, other))
    first, second = (information_coefficients_wide(each, label, min_instruments)[1] for each in kept)
    return first - second
