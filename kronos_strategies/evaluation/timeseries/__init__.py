"""How well forecasts of a single instrument foretell it over time, where there is no cross-section to rank."""

from kronos_strategies.evaluation.timeseries.study import TimeSeriesStudy, study_time_series

__all__ = ["TimeSeriesStudy", "study_time_series"]
