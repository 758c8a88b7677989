"""All that is asked of sampled paths: calibration, loss, volatility, and a few fans to look at. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from kronos_strategies.evaluation.scorecard import Scorecard

FAN_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class DistributionStudy:
    """Of the forecasts of a run, beside a Gaussian random walk and the volatility of the last 20 days.

    Attributes:
        scorecard: intervals, coverage, CRPS, QLIKE by horizon.
        pit: long: columns horizon, bin (0..9, tenths of the probability integral transform), share of outcomes
            (.1 if calibrated).
        volatility_bins: long: columns horizon, bin (0..19, by forecast), forecast, realised: means of the root of
            variance over the horizon, in log return.
        samples: index number of paths; columns rank_ic, low, high, dates: of the score from the first k paths.
        fans: long, of a few chosen instruments and dates: columns datetime (of the forecast), instrument, step
            (negative and 0: bars seen; 1..H: forecast), timestamp, close (that was, or came; NaN if not yet),
            q05, q25, q50, q75, q95 (of sampled closes, quote currency; NaN for bars seen).
    """

    scorecard: Scorecard
    pit: pd.DataFrame
    volatility_bins: pd.DataFrame
    samples: pd.DataFrame
    fans: pd.DataFrame

    def metrics(self) -> dict[str, float]:
        """Flat figures by their names in metrics.json: coverage_80_h1, crps_h1, crps_skill_h1, qlike_h1, ..."""
        raise NotImplementedError
