"""Forecasts on disk: resumable, shared between processes, read by any parquet engine.

settings.py names folders and writes their manifests. files.py handles the file of a date, its checksum and lock;
parquet.py its columns. forecast_set.py reads and fills a folder of forecasts, window_outputs.py one of head outputs
or hidden states. store.py is the store with all its folders.
"""

from kronos_strategies.store.files import CorruptFileError
from kronos_strategies.store.forecast_set import FillResult, ForecastSet, StoreStatus
from kronos_strategies.store.settings import WindowSpec
from kronos_strategies.store.store import ForecastStore

__all__ = ["CorruptFileError", "FillResult", "ForecastSet", "ForecastStore", "StoreStatus", "WindowSpec"]
