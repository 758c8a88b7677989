"""Gates: a version must not be worse than the baseline, or somebody's CI fails. Torch-free."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from kronos_strategies.evaluation.significance import one_sided_bounds
from kronos_strategies.evaluation.versions.comparison import Comparison
from kronos_strategies.evaluation.versions.measures import GAINS
from kronos_strategies.evaluation.versions.paired import CONSTANT, paired_test

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


class UntestableError(ValueError):
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
    wanted = ">=" if gate.metric in GAINS else "<="
    if gate.sign != wanted:
        better = "more" if gate.metric in GAINS else "less"
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
        raise UntestableError(
            f"'{gate}' cannot be checked: '{version}' and '{comparison.baseline}' have {gate.metric} on "
            f"{test.dates} common dates, too few for a test of labels that span {comparison.overlap}."
        )
    passed = bound >= gate.margin if gate.sign == ">=" else bound <= gate.margin
    return GateResult(gate, version, test.mean, bound, bool(passed))
