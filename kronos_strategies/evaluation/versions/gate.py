"""Gates: a version must not be worse than the baseline, or somebody's CI fails. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from kronos_strategies.evaluation.versions.comparison import Comparison


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

    @classmethod
    def parse(cls, text: str) -> Gate:
        """From a metric, >= or <=, and a number.

        Raises:
            ValueError: says what a gate looks like.
        """
        raise NotImplementedError


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
        ValueError: an unknown metric, a sign that does not suit it, or too few dates for a test.
    """
    raise NotImplementedError
