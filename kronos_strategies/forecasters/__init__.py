"""Forecasters by name: Kronos checkpoints, baselines and other models make a `Forecast` of the same windows.

`load_forecaster("baseline:garch")` loads one; `protocol` says what a forecaster is, `base` does what all but Kronos
share, and docs/forecasters.md shows how a package of yours adds one.
"""

from kronos_strategies.forecasters.registry import load_forecaster

__all__ = ["load_forecaster"]
