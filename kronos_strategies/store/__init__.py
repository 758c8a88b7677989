"""Forecasts on disk: resumable, shared between processes, read by any parquet engine.

recipe.py what a folder is named by; files.py a date's file, checksum and lock; table.py its columns; manifest.py
what made the files of a folder; stored.py that folder; fill.py computes the dates that are due; store.py the whole.
"""

from kronos_strategies.store.files import CorruptFileError
from kronos_strategies.store.forecast_set import FillResult, ForecastSet, StoreStatus
from kronos_strategies.store.settings import WindowSpec
from kronos_strategies.store.store import ForecastStore

__all__ = ["CorruptFileError", "FillResult", "ForecastSet", "ForecastStore", "StoreStatus", "WindowSpec"]
