"""Versions of a model compared with a reference on common rows, and CI gates on the result."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import pandas as pd

from kronos_strategies.evaluation.comparison.align import align
from kronos_strategies.evaluation.comparison.metrics import (
    HIGHER_IS_BETTER,
    baseline_means,
    means_by_year,
    metrics_by_date,
    rank_ic_decay_by_version,
)
from kronos_strategies.evaluation.comparison.paired import CONSTANT, paired_table, paired_test
from kronos_strategies.evaluation.comparison.version import Version
from kronos_strategies.evaluation.significance import label_overlap, one_sided_bounds
from kronos_strategies.evaluation.warnings import remarks, uneven


@dataclass(frozen=True)
class Comparison:
    """Of two or more versions, on rows that all of them and the label have.

    Attributes:
        baseline: name of the version that the others are held against.
        versions: names in the order given.
        horizon: bars that the label spans.
        overlap: successive dates that it spans.
        table: long, a row a (version, metric), versions in order; metrics are ic, rank_ic, spread (top less bottom
            decile's return, quintile's where there are few names), and the losses that all versions have. Columns
            version, metric, mean, low, high (95 % of the mean), dates, undefined; against the baseline, paired by
            date, NaN in its own row: difference, difference_low, difference_high, t, p, p_holm (over all versions
            of the metric), detectable (the smallest true difference found with 80 % power at 5 %); method, of the
            difference, in the baseline's row of its mean; and mcs_p, in_mcs (model confidence set of the metric at
            90 %, NaN and None where it could not be had). A difference that is the same on every date has a point
            for an interval, and no t.
        by_date: metric -> dates x versions; dates are those with a row that all have, NaN where undefined.
        by_year: long: metric, year, version, mean, difference.
        decay: long: version, horizon, rank_ic, low, high, dates; empty with a single label. Every horizon on the
            dates that the longest leaves defined for all versions.
        references: long as `table` without tests: naive scores on the same rows, columns version (its name),
            metric, mean, low, high, dates.
        ledger: rows by reason, from those that any version has to those compared.
        warnings: sentences that a reader must see.
        provenance: version -> label -> text.
    """

    baseline: str
    versions: tuple[str, ...]
    horizon: int
    overlap: int
    table: pd.DataFrame
    by_date: Mapping[str, pd.DataFrame]
    by_year: pd.DataFrame
    decay: pd.DataFrame
    references: pd.DataFrame
    ledger: Mapping[str, int]
    warnings: Sequence[str]
    provenance: Mapping[str, Mapping[str, str]]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, without the series by date; what is undefined is null.

        `metrics` is metric -> version -> the columns of `table`; by_year, decay and references are lists of rows.
        """
        metrics: dict[str, dict[str, Any]] = {metric: {} for metric in self.by_date}
        for row in _records(self.table):
            metrics[row.pop("metric")][row.pop("version")] = row
        return {
            "baseline": self.baseline,
            "horizon": self.horizon,
            "overlap": self.overlap,
            "versions": list(self.versions),
            "metrics": metrics,
            "by_year": _records(self.by_year),
            "decay": _records(self.decay),
            "references": _records(self.references),
            "ledger": dict(self.ledger),
            "warnings": list(self.warnings),
            "provenance": {version: dict(said) for version, said in self.provenance.items()},
        }


def compare_versions(
    versions: Sequence[Version],
    labels: pd.Series | pd.DataFrame,
    horizon: int,
    baseline: str | None = None,
    bars_between: int = 1,
    references: pd.DataFrame | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare versions on common dates and names.

    Differences are paired by date, so that what moves all versions alike cancels, and tested by
    `significance.mean_test`, which survives labels that overlap.

    For example:

        old, new = Version("old", old_scores), Version("new", new_scores)
        comparison = compare_versions([old, new], label, horizon=5)
        comparison.table.query("metric == 'rank_ic'")

    Args:
        versions: two or more of different names.
        labels: indexed (datetime, instrument): one series of returns over `horizon` bars, or a frame with horizons
            for columns, of which `horizon` is the headline and the others make the decay.
        horizon: bars that the label spans.
        baseline: name; the first version when omitted.
        bars_between: bars between successive dates.
        references: naive scores, a column each, shown beside but never tested.
        seed: of the bootstrap behind the model confidence set.

    Raises:
        ValueError: fewer than two versions, names that occur twice or are unknown, keys that occur twice, no
            common date or name, a version without a finite score.
    """
    names = _names(versions)
    baseline = names[0] if baseline is None else baseline
    if baseline not in names:
        raise ValueError(
            f"There is no version '{baseline}' to be the baseline. The versions are {list(names)}."
        )
    if bars_between < 1:
        raise ValueError(f"bars_between={bars_between}: successive dates are at least 1 bar apart.")
    overlap = label_overlap(horizon, bars_between)
    rows = align(versions, _by_horizon(labels, horizon), horizon, references)
    by_date = metrics_by_date(rows, horizon)
    return Comparison(
        baseline=baseline,
        versions=names,
        horizon=horizon,
        overlap=overlap,
        table=paired_table(by_date, baseline, overlap, seed),
        by_date=by_date,
        by_year=means_by_year(by_date, baseline),
        decay=rank_ic_decay_by_version(rows, bars_between),
        references=baseline_means(rows, horizon, overlap),
        ledger=rows.ledger,
        warnings=(*remarks(rows, horizon, overlap), *uneven(by_date, baseline)),
        provenance={version.name: dict(version.provenance) for version in versions},
    )


def _names(versions: Sequence[Version]) -> tuple[str, ...]:
    names = tuple(version.name for version in versions)
    if len(names) < 2:
        raise ValueError(f"{len(names)} version(s) make no comparison. Give two or more.")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"{names.count(twice[0])} versions are called '{twice[0]}'. Give each a name of its own."
        )
    return names


def _by_horizon(labels: pd.Series | pd.DataFrame, horizon: int) -> dict[int, pd.Series]:
    """Horizon -> labels."""
    if horizon < 1:
        raise ValueError(f"horizon={horizon}: a label spans at least 1 bar.")
    if isinstance(labels, pd.Series):
        return {horizon: labels}
    if wrong := [each for each in labels.columns if not isinstance(each, Integral) or each < 1]:
        raise ValueError(f"The label column {wrong[0]!r} is no horizon. Name each by its bars, 1, 2, ...")
    by_horizon = {int(str(each)): labels[each] for each in labels}
    if horizon not in by_horizon:
        raise ValueError(
            f"There is no label of {horizon} bars, only of {list(by_horizon)}. Ask for one of those."
        )
    return by_horizon


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of plain values, None where undefined."""
    plain = table.astype(object).where(table.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in plain.to_dict(orient="records")]


_FORM = re.compile(r"\s*(?P<metric>\w+)\s*(?P<sign>>=|<=)\s*(?P<margin>\S+)\s*")


@dataclass(frozen=True)
class Gate:
    """Such as rank_ic>=-0.005: the difference from the baseline must not lie below -0.005 for sure.

    Attributes:
        metric: of `Comparison.table`.
        sign: ">=" for metrics of which more is better, "<=" for losses.
        margin: that is allowed.
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
            ValueError: says what a gate looks like.
        """
        found = _FORM.fullmatch(text)
        try:
            margin = float(found["margin"]) if found else math.nan
        except ValueError:
            margin = math.nan
        if found is None or not math.isfinite(margin):
            raise ValueError(
                f"'{text}' is no gate. Write a metric, >= or <= and a number, such as 'rank_ic>=-0.005'."
            )
        return cls(found["metric"], found["sign"], margin)


class InsufficientDataError(ValueError):
    """A gate that nothing speaks for or against: too few dates, or none on which both versions rank anything."""


@dataclass(frozen=True)
class GateResult:
    """Of one gate and one version.

    Attributes:
        gate: that was asked.
        version: that was held against the baseline.
        difference: from the baseline, mean over dates.
        bound: of the 95 % one-sided confidence interval, on the side of better: a version fails if even this
            is worse than the margin.
        passed: whether it is not.
    """

    gate: Gate
    version: str
    difference: float
    bound: float
    passed: bool


def check_gate(gate: Gate, comparison: Comparison) -> tuple[GateResult, ...]:
    """Hold every version but the baseline against a gate.

    Raises:
        ValueError: an unknown metric, or a sign that does not suit it.
        UntestableError: too few dates for a test.
    """
    if gate.metric not in comparison.by_date:
        raise ValueError(
            f"'{gate}' asks for a metric that is not there. There are {list(comparison.by_date)}."
        )
    wanted = ">=" if gate.metric in HIGHER_IS_BETTER else "<="
    if gate.sign != wanted:
        better = "more" if gate.metric in HIGHER_IS_BETTER else "less"
        raise ValueError(
            f"'{gate}' has the wrong sign: of {gate.metric}, {better} is better. Write {wanted}."
        )
    others = [version for version in comparison.versions if version != comparison.baseline]
    return tuple(_check(gate, version, comparison) for version in others)


def _check(gate: Gate, version: str, comparison: Comparison) -> GateResult:
    figures = comparison.by_date[gate.metric]
    test = paired_test(figures[version], figures[comparison.baseline], comparison.overlap)
    worst, best = (test.mean, test.mean) if test.method == CONSTANT else one_sided_bounds(test)
    bound = best if gate.sign == ">=" else worst
    if not math.isfinite(bound):
        raise InsufficientDataError(
            f"'{gate}' cannot be checked: '{version}' and '{comparison.baseline}' have {gate.metric} on "
            f"{test.dates} common dates, too few for a test of labels that span {comparison.overlap}."
        )
    passed = bound >= gate.margin if gate.sign == ">=" else bound <= gate.margin
    return GateResult(gate, version, test.mean, bound, bool(passed))
