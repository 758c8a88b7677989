"""Safe reading of pickles: only tables, settings and their types are loaded, and no code runs."""

from __future__ import annotations

import pickle
from datetime import date, time, timedelta, timezone, tzinfo
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.extensions import ExtensionArray, ExtensionDtype

_TYPES = (
    pd.DataFrame, pd.Series, pd.Index, ExtensionArray, ExtensionDtype, pd.DateOffset, pd.offsets.BaseOffset,
    pd.Timestamp, pd.Timedelta, pd.Period, np.generic, np.dtype, date, time, timedelta, tzinfo, timezone,
)  # fmt: skip
_EXACTLY = (np.ndarray, slice, bytearray)  # subclasses of ndarray may open files
_MANAGERS = "pandas.core.internals.managers"
_MAKERS = {
    ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"),
    ("pandas._libs.internals", "_unpickle_block"),
    ("pandas._libs.tslibs.nattype", "_nat_unpickle"),
    ("pandas._libs.tslibs.timedeltas", "_timedelta_unpickle"),
    ("pandas._libs.tslibs.timestamps", "_unpickle_timestamp"),
    ("pandas.core.indexes.base", "_new_Index"),
    ("pandas.core.indexes.datetimes", "_new_DatetimeIndex"),
    ("pandas.core.indexes.period", "_new_PeriodIndex"),
    ("pandas.core.internals.blocks", "new_block"),
    (_MANAGERS, "BlockManager"),
    (_MANAGERS, "SingleBlockManager"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("pyarrow.lib", "_restore_array"),  # for the strings of pandas 3
    ("pyarrow.lib", "py_buffer"),
    ("pyarrow.lib", "type_for_alias"),
    ("pyarrow.lib", "chunked_array"),
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
}
_ROOTS = ("pandas", "numpy", "datetime", "builtins", "__builtin__")


class _TableUnpickler(pickle.Unpickler):
    """Finds the types of tables only."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _MAKERS:
            return super().find_class(module, name)
        if module.partition(".")[0] in _ROOTS and "." not in name:
            found = getattr(import_module(module.replace("__builtin__", "builtins")), name, None)
            if isinstance(found, type) and (found in _EXACTLY or issubclass(found, _TYPES)):
                return found
        raise pickle.UnpicklingError(f"it contains {module}.{name}, which is not a type of a table")


class Foreign:
    """Placeholder of an object of any other type, which is not imported, created or run."""

    def __new__(cls, *given: object, **named: object) -> Foreign:
        """Create a placeholder and ignore the object's arguments."""
        return object.__new__(cls)

    def __init__(self, *given: object, **named: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        """Drop an item."""

    def extend(self, items: object) -> None:
        """Drop items."""

    def add(self, item: object) -> None:
        """Drop an item."""


class _SettingsUnpickler(_TableUnpickler):
    """Finds the types of tables, and `Foreign` in the place of all others."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except (pickle.UnpicklingError, ImportError):
            return Foreign


def read_settings_pickle(file: Path) -> Any:
    """What a pickle of settings holds, with `Foreign` for all that is not data.

    Qlib keeps a workflow file with the model and the dataset in the place of `<MODEL>` and `<DATASET>`.

    Raises:
        ValueError: it is not a pickle.
    """
    return _load(file, _SettingsUnpickler)


def read_table_pickle(file: Path) -> Any:
    """What a pickle holds: tables, arrays, numbers, text, and lists and dicts of those.

    Raises:
        ValueError: it holds anything else, or is not a pickle that this version of pandas reads.
    """
    return _load(file, _TableUnpickler)


def _load(file: Path, unpickler: type[_TableUnpickler]) -> Any:
    try:
        with file.open("rb") as stream:
            return unpickler(stream).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, TypeError, KeyError) as error:
        raise ValueError(
            f"{file} cannot be read as a table of pandas and numpy: {error}. Write it as parquet with "
            "DataFrame.to_parquet, or name the run by its id in your own store of runs."
        ) from error
