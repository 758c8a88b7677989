"""A return head fitted on a file of bars: all names of the file are one market."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kronos.bars import PRICES, repair_bars
from kronos.head import ReturnHead
from kronos.training.config import Source
from kronos.training.sources import FileReader
from kronos.windows import Windows
from kronos_strategies.heads.fit import FitSettings, fit_head
from kronos_strategies.progress import progress_bar
from kronos_strategies.store import ForecastStore, WindowSpec
from kronos_strategies.stream import Embedder


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
        start: first date to learn from.
        settings: of the fit.
        predictor: frozen.
        store: of the hidden states.
        lookback: bars of a window.
        every: dates from one to learn from to the next.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable, or too few names or dates.
    """
    panel = read_panel(file, settings.valid_until)
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
        checkpoint=known.model,
        weights_sha256=known.weights_sha256,
        name=f"{settings.kind} head on {known.model}",
    )


def read_panel(file: Path, until: pd.Timestamp) -> dict[str, pd.DataFrame]:
    """Adjusted traded bars by instrument, none after `until`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable, or it has no bar by then.
    """
    panel = {}
    for name, bars in FileReader(Source(file)).series():
        bars = bars[bars.index <= until]
        traded = bars[list(PRICES)].notna().all(axis=1)
        if "volume" in bars and bars["volume"].notna().any():
            traded &= ~bars["volume"].eq(0)
        if traded.any():
            panel[name] = repair_bars(bars[traded])
    if not panel:
        raise ValueError(f"{file} has no bar until {until:%Y-%m-%d}. Choose later dates.")
    return panel
