"""Fit a calibration to past forecasts and their outcomes; `kronos.calibration` applies it.

past.py forecasts and outcomes, each with the date on which it was known; moves.py location and spread by minimum
CRPS; bands.py conformal factors; fit.py both for one date, by group, and again every so many dates; table.py before
and after.
"""

from kronos_strategies.calibration.fit import calibrate, fit_calibration
from kronos_strategies.calibration.past_forecasts import PastForecasts, before_and_after, collect

__all__ = ["PastForecasts", "before_and_after", "calibrate", "collect", "fit_calibration"]
