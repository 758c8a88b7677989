"""The industries of instruments, from a file."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kronos.io.files import read_table


def read_industries(file: Path) -> pd.Series:
    """The industry of each instrument, from columns instrument and industry of a CSV or parquet file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it lacks a column, or has an instrument twice.
    """
    table = read_table(file.expanduser(), ("instrument", "industry"), ()).dropna()
    twice = table["instrument"].duplicated()
    if twice.any():
        name = table["instrument"][twice].iloc[0]
        raise ValueError(f"{file} gives {name} an industry twice. Keep one row of each instrument.")
    return table.set_index("instrument")["industry"].astype(str)
