"""How sure a Sharpe ratio is: its bootstrap interval, PSR and DSR. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SharpeStudy:
    """Of one stream of returns.

    Attributes:
        sharpe: annualised.
        low: of the 95 % interval by stationary bootstrap.
        high: of it.
        block: mean length of the bootstrap's blocks, bars.
        psr: probability that the true ratio is above 0 (Bailey & Lopez de Prado 2012).
        dsr: the same above what the best of `trials` without skill would show (2014); PSR for one trial.
        trials: settings tried.
    """

    sharpe: float
    low: float
    high: float
    block: float
    psr: float
    dsr: float
    trials: int
