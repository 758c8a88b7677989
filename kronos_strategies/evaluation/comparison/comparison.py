"""Versions of a model compared with a reference on common rows, and CI gates on the result."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import pandas as pd

from kronos_strategies.evaluation.comparison.metrics import (
    CONSTANT,
    HIGHER_IS_BETTER,
    baseline_means,
    means_by_year,
    metrics_by_date,
    paired_table,
    paired_test,
    rank_ic_decay_by_version,
)
from kronos_strategies.evaluation.comparison.version import Version, align
from kronos_strategies.evaluation.significance import label_overlap, one_sided_bounds
from kronos_strategies.evaluation.warnings import comparison_warnings


@dataclass(frozen=True)
class ComparisonInput:
    """A version, and what it is compared by.

    Attributes:
        version: scores of a model.
        labels: indexed (datetime, instrument), columns = horizons in bars: forward returns; None for scores alone.
        horizon: holding period of its trade in bars; None for scores alone.
        baselines: scores of naive signals on its rows, one column each; None for scores alone.
        bars_between: bars between successive dates.
        warnings: sentences for the reader of its metrics.
    """

    version: Version
    labels: pd.DataFrame | None = None
    horizon: int | None = None
    baselines: pd.DataFrame | None = None
    bars_between: int = 1
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Comparison of two or more versions on the rows that all of them and the label have.

    Versions of a score have a label. Portfolios (`compare_results` in the module portfolios) have none, and
    their metrics are by bar.

    Attributes:
        reference: name of the version that the others are compared with.
        versions: names in the order given.
        label_horizon: bars that the label spans; None for portfolios.
        overlap: successive dates that it spans.
        table: long, one row per (version, metric), versions in order; metrics are ic, rank_ic, spread (return of
            the top minus the bottom decile, or quintile where there are few instruments), and the losses that all
            versions have. Columns version, metric, mean, low, high (95 % interval of the mean), dates, undefined;
            compared with the reference, paired by date, NaN in its own row: difference, difference_low,
            difference_high, t, p, p_holm (over all versions of the metric), detectable (the smallest true
            difference that is detected with 80 % power at 5 %); method of the difference, in the row of the
            reference that of its mean; and mcs_p, in_mcs (model confidence set of the metric at 90 %, NaN and
            None where it could not be computed). A difference that is the same on every date has a point as
            interval, and no t.
        by_date: metric -> dates x versions; dates are those with a common row, NaN where undefined.
        by_year: long: metric, year, version, mean, difference.
        decay: long: version, horizon, rank_ic, low, high, dates; empty with a single label. Every horizon on the
            dates on which the longest is defined for all versions.
        baselines: long as `table` without tests: naive signals on the same rows, columns version (its name),
            metric, mean, low, high, dates.
        sample_counts: numbers of rows by reason, from the rows of any version to the compared rows.
        warnings: sentences for the reader.
        provenance: version -> label -> text.
        bars_per_year: bars per year of portfolios, by which their metrics are annualized; None for scores.
    """

    reference: str
    versions: tuple[str, ...]
    label_horizon: int | None
    overlap: int
    table: pd.DataFrame
    by_date: Mapping[str, pd.DataFrame]
    by_year: pd.DataFrame
    decay: pd.DataFrame
    baselines: pd.DataFrame
    sample_counts: Mapping[str, int]
    warnings: Sequence[str]
    provenance: Mapping[str, Mapping[str, str]]
    bars_per_year: int | None = None

    @property
    def headline(self) -> str:
        """The metric that decides the verdict: rank_ic of scores, net_return of portfolios."""
        return "rank_ic" if self.bars_per_year is None else "net_return"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, without the series by date; what is undefined is null.

        `metrics` is metric -> version -> the columns of `table`; by_year, decay and baselines are lists of rows.
        """
        metrics: dict[str, dict[str, Any]] = {metric: {} for metric in self.by_date}
        for row in _records(self.table):
            metrics[row.pop("metric")][row.pop("version")] = row
        return {
            "reference": self.reference,
            "label_horizon": self.label_horizon,
            "overlap": self.overlap,
            "versions": list(self.versions),
            "metrics": metrics,
            "by_year": _records(self.by_year),
            "decay": _records(self.decay),
            "baselines": _records(self.baselines),
            "sample_counts": dict(self.sample_counts),
            "warnings": list(self.warnings),
            "provenance": {version: dict(entries) for version, entries in self.provenance.items()},
        }


def compare_versions(
    versions: Sequence[Version],
    labels: pd.Series | pd.DataFrame,
    label_horizon: int,
    reference: str | None = None,
    bars_between: int = 1,
    baselines: pd.DataFrame | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare versions on common dates and instruments.

    Differences are paired by date, so that common moves of all versions cancel, and tested by
    `significance.mean_test`, which is robust to overlapping labels.

    For example:

        old, new = Version("old", old_scores), Version("new", new_scores)
        comparison = compare_versions([old, new], label, label_horizon=5)
        comparison.table.query("metric == 'rank_ic'")

    Args:
        versions: two or more versions with different names.
        labels: indexed (datetime, instrument): one series of returns over `label_horizon` bars, or a frame with
            horizons as columns, of which `label_horizon` is the headline and the others give the decay.
        label_horizon: bars that the label spans.
        reference: name of the version that the others are compared with; the first version when omitted.
        bars_between: bars between successive dates.
        baselines: scores of naive signals, one column each, shown for comparison but never tested.
        seed: seed of the bootstrap of the model confidence set.

    Raises:
        ValueError: fewer than two versions, names that occur twice or are unknown, keys that occur twice, no
            common date or instrument, or a version without a finite score.
    """
    names = _names(versions)
    reference = names[0] if reference is None else reference
    if reference not in names:
        raise ValueError(
            f"The reference '{reference}' is not one of the versions, {list(names)}. Name one of them."
        )
    if bars_between < 1:
        raise ValueError(f"bars_between must be at least 1 bar, got {bars_between}.")
    overlap = label_overlap(label_horizon, bars_between)
    rows = align(versions, _by_horizon(labels, label_horizon), label_horizon, baselines)
    by_date = metrics_by_date(rows, label_horizon)
    return Comparison(
        reference=reference,
        versions=names,
        label_horizon=label_horizon,
        overlap=overlap,
        table=paired_table(by_date, reference, overlap, seed),
        by_date=by_date,
        by_year=means_by_year(by_date, reference),
        decay=rank_ic_decay_by_version(rows, bars_between),
        baselines=baseline_means(rows, label_horizon, overlap),
        sample_counts=rows.sample_counts,
        warnings=comparison_warnings(rows, by_date, reference, label_horizon, overlap),
        provenance={version.name: dict(version.provenance) for version in versions},
    )


def _names(versions: Sequence[Version]) -> tuple[str, ...]:
    names = tuple(version.name for version in versions)
    if len(names) < 2:
        raise ValueError(f"A comparison needs two or more versions, got {len(names)}.")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"{names.count(twice[0])} versions are called '{twice[0]}'. Give each a unique name."
        )
    return names


def _by_horizon(labels: pd.Series | pd.DataFrame, label_horizon: int) -> dict[int, pd.Series]:
    """Horizon -> labels."""
    if label_horizon < 1:
        raise ValueError(f"The label horizon must be at least 1 bar, got {label_horizon}.")
    if isinstance(labels, pd.Series):
        return {label_horizon: labels}
    if wrong := [each for each in labels.columns if not isinstance(each, Integral) or each < 1]:
        raise ValueError(
            f"The label column {wrong[0]!r} is not a horizon. Name each column by its number of bars, 1, 2, ..."
        )
    by_horizon = {int(str(each)): labels[each] for each in labels}
    if label_horizon not in by_horizon:
        raise ValueError(
            f"There is no label of {label_horizon} bars, only of {list(by_horizon)}. Choose one of these."
        )
    return by_horizon


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of plain values, None where undefined."""
    plain = table.astype(object).where(table.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in plain.to_dict(orient="records")]


_FORM = re.compile(r"\s*(?P<metric>\w+)\s*(?P<sign>>=|<=)\s*(?P<margin>\S+)\s*")


@dataclass(frozen=True)
class Gate:
    """A gate such as rank_ic>=-0.005: the difference from the reference must not be significantly below -0.005.

    Attributes:
        metric: a metric of `Comparison.table`.
        sign: ">=" for metrics for which higher is better, "<=" for losses.
        margin: allowed difference.
    """

    metric: str
    sign: str
    margin: float

    def __str__(self) -> str:
        return f"{self.metric}{self.sign}{self.margin:g}"

    @classmethod
    def parse(cls, text: str) -> Gate:
        """From a metric, >= or <=, and a number.

        Raises:
            ValueError: the text is not a gate.
        """
        found = _FORM.fullmatch(text)
        try:
            margin = float(found["margin"]) if found else math.nan
        except ValueError:
            margin = math.nan
        if found is None or not math.isfinite(margin):
            raise ValueError(
                f"'{text}' is not a gate. Write a metric, >= or <= and a number, such as 'rank_ic>=-0.005'."
            )
        return cls(found["metric"], found["sign"], margin)


class InsufficientDataError(ValueError):
    """A gate cannot be tested: there are too few dates on which both versions have the metric."""


@dataclass(frozen=True)
class GateResult:
    """Result of one gate for one version.

    Attributes:
        gate: the gate.
        version: name of the version that is compared with the reference.
        difference: mean difference from the reference over dates.
        bound: better end of the one-sided 95 % confidence interval: a version fails if even this is worse than the
            margin.
        passed: whether the version passes.
    """

    gate: Gate
    version: str
    difference: float
    bound: float
    passed: bool


def check_gate(gate: Gate, comparison: Comparison) -> tuple[GateResult, ...]:
    """Check a gate for every version except the reference.

    Raises:
        ValueError: an unknown metric, or the wrong sign for it.
        InsufficientDataError: too few dates for a test.
    """
    if gate.metric not in comparison.by_date:
        raise ValueError(f"'{gate}' names an unknown metric. Choose one of {list(comparison.by_date)}.")
    wanted = ">=" if gate.metric in HIGHER_IS_BETTER else "<="
    if gate.sign != wanted:
        better = "higher" if gate.metric in HIGHER_IS_BETTER else "lower"
        raise ValueError(
            f"'{gate}' has the wrong sign: for {gate.metric}, {better} is better. Write {wanted}."
        )
    others = [version for version in comparison.versions if version != comparison.reference]
    return tuple(_check(gate, version, comparison) for version in others)


def _check(gate: Gate, version: str, comparison: Comparison) -> GateResult:
    by_date = comparison.by_date[gate.metric]
    test = paired_test(by_date[version], by_date[comparison.reference], comparison.overlap)
    worst, best = (test.mean, test.mean) if test.method == CONSTANT else one_sided_bounds(test)
    bound = best if gate.sign == ">=" else worst
    if not math.isfinite(bound):
        raise InsufficientDataError(
            f"'{gate}' cannot be checked: '{version}' and '{comparison.reference}' have {gate.metric} on "
            f"{test.dates} common dates, too few to test labels that span {comparison.overlap} dates."
        )
    passed = bound >= gate.margin if gate.sign == ">=" else bound <= gate.margin
    return GateResult(gate, version, test.mean, bound, bool(passed))
