"""Fit a calibration to past forecasts and their outcomes; `kronos.calibration` applies it.

past_forecasts.py collects forecasts and outcomes with the dates on which these were known, and scores them before
and after calibration. fit.py fits location and spread of paths and conformal factors of bands, once or at regular
intervals, and by group.
"""

from kronos_strategies.calibration.fit import calibrate, fit_calibration
from kronos_strategies.calibration.past_forecasts import PastForecasts, before_and_after, collect

__all__ = ["PastForecasts", "before_and_after", "calibrate", "collect", "fit_calibration"]
