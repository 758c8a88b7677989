"""A return head fitted on a file of bars: all instruments of the file form one market."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kronos.bars import PRICES, repair_bars
from kronos.calendar import common_frequency
from kronos.head import ReturnHead
from kronos.training.config import Source
from kronos.training.sources import FileReader
from kronos.windows import Windows
from kronos_strategies.forecasters.protocol import Embedder
from kronos_strategies.heads.fit import FitSettings, fit_head
from kronos_strategies.progress import progress_bar
from kronos_strategies.store import ForecastStore, WindowSpec


def fit_file(
    file: Path,
    start: pd.Timestamp,
    settings: FitSettings,
    predictor: Embedder,
    store: ForecastStore,
    lookback: int,
    every: int,
) -> ReturnHead:
    """Fit a head on the bars of a CSV or parquet file, see `kronos_strategies.heads.fit.fit_head`.

    Prices are adjusted by a column `factor` or `factor_est`; bars without a price or with no volume are left out.

    Args:
        file: tidy bars of many instruments.
        start: first training date.
        settings: settings of the fit.
        predictor: predictor, whose weights do not change.
        store: forecast store that keeps the hidden states.
        lookback: bars per window.
        every: use every k-th date.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable, bars of different frequencies, or too few instruments or dates.
    """
    panel = read_panel(file, settings.valid_until)
    frequency = common_frequency(((name, pd.DatetimeIndex(panel[name].index)) for name in panel), str(file))
    dates = pd.DatetimeIndex(sorted(set().union(*(bars.index for bars in panel.values()))))
    dates = dates[dates >= start][::every]
    keys = pd.MultiIndex.from_tuples(
        [(date, name) for name, bars in panel.items() for date in dates[dates.isin(bars.index)]],
        names=["datetime", "instrument"],
    )
    windows = Windows.rolling(panel, lookback, 1, "B", index=keys)
    spec = WindowSpec(file.name.partition(".")[0], lookback, 1, lookback)
    with progress_bar("embed", "windows") as progress:
        hidden = store.embeddings(predictor, windows, spec, progress)
    known = predictor.provenance(predictor.sampling, "")
    return fit_head(
        hidden,
        windows.index,
        panel,
        settings,
        lookback=lookback,
        markets=(spec.universe,),
        frequency=frequency or "1day",
        checkpoint=known.model,
        weights_sha256=known.weights_sha256,
        name=f"{settings.kind} head on {known.model}",
    )


def read_panel(file: Path, until: pd.Timestamp, instruments: Sequence[str] = ()) -> dict[str, pd.DataFrame]:
    """Adjusted traded bars by instrument, none after `until`.

    Args:
        file: CSV or parquet file of tidy bars.
        until: last time.
        instruments: only these; a pattern such as `*@1d` selects all that match.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable, or it has no bar by then.
    """
    panel = {}
    for name, bars in FileReader(Source(file, instruments=tuple(instruments))).series():
        bars = bars[bars.index <= until]
        traded = bars[list(PRICES)].notna().all(axis=1)
        if "volume" in bars and bars["volume"].notna().any():
            traded &= ~bars["volume"].eq(0)
        if traded.any():
            panel[name] = repair_bars(bars[traded])
    if not panel:
        raise ValueError(f"{file} has no bar until {until:%Y-%m-%d}. Choose later dates.")
    return panel


def bar_features(panel: Mapping[str, pd.DataFrame], keys: pd.MultiIndex) -> pd.DataFrame:
    """Features of each (datetime, instrument), from its own traded bars up to that date.

    Args:
        panel: adjusted bars by instrument, indexed by time.
        keys: (N,) rows.

    Returns:
        Frame indexed by `keys`: returns over 1 to 60 bars, volatility over 5, 20 and 60, volume relative to its
        20-bar mean, position of the close in the 20-bar range, the bar's own return and gap, and the mean range of
        20 bars.
    """
    parts = [
        _features(panel[str(name)]).assign(instrument=name)
        for name in keys.get_level_values("instrument").unique()
    ]
    table = pd.concat(parts).rename_axis("datetime").set_index("instrument", append=True)
    return table.reindex(keys)


def _features(bars: pd.DataFrame) -> pd.DataFrame:
    close, volume = bars["close"].astype(float), bars["volume"].astype(float)
    logs = pd.Series(np.log(close), close.index)
    steps, usual = logs.diff(), volume.rolling(20).mean()
    low, high = bars["low"].rolling(20).min(), bars["high"].rolling(20).max()
    columns = {f"return_{k}": logs.diff(k) for k in (1, 2, 5, 10, 20, 60)}
    columns |= {f"volatility_{k}": steps.rolling(k).std() for k in (5, 20, 60)}
    columns |= {f"volume_{k}": volume.rolling(k).mean() / usual for k in (1, 5)}
    columns["place"] = (close - low) / (high - low)
    columns["intraday"] = close / bars["open"] - 1
    columns["gap"] = bars["open"] / close.shift() - 1
    columns["range"] = (bars["high"] / bars["low"] - 1).rolling(20).mean()
    return pd.DataFrame(columns).replace([np.inf, -np.inf], np.nan)
