"""Forecasts on disk: resumable, shared between processes, read by any parquet engine.

settings.py names folders and writes their manifests. files.py handles the file of a date, its checksum and lock;
parquet.py its columns. forecast_set.py reads a folder of forecasts and fill.py fills it; window_outputs.py does
both for head outputs and hidden states, and head_scores.py reads head outputs without the head. store.py is the
store with all its folders.
"""

from kronos_strategies.store.files import CorruptFileError
from kronos_strategies.store.fill import FillResult
from kronos_strategies.store.forecast_set import ForecastSet, StoreStatus
from kronos_strategies.store.settings import WindowSpec
from kronos_strategies.store.store import ForecastStore

__all__ = ["CorruptFileError", "FillResult", "ForecastSet", "ForecastStore", "StoreStatus", "WindowSpec"]
