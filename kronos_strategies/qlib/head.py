"""Fit a return head on the segments train and valid of a Qlib dataset."""

from __future__ import annotations

from typing import cast

import pandas as pd

from kronos.head import ReturnHead
from kronos.predictor import KronosPredictor
from kronos.training.bar_array import HORIZONS
from kronos.windows import Windows
from kronos_strategies.data.qlib_bins import DAY, bar_frequency
from kronos_strategies.heads.fit import FitSettings, Kind, fit_head
from kronos_strategies.progress import progress_bar
from kronos_strategies.qlib.data_access import Instruments, member_windows, traded_bars
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.store import ForecastStore, WindowSpec

SIMULATED = "simulated market"


def market_name(dataset: KronosDataset) -> str:
    """Market name that a head records; simulated bars never get the name of a real market."""
    return SIMULATED if any("SIMULATED" in warning for warning in dataset.store_warnings) else dataset.market


def fit_head_on(
    dataset: KronosDataset,
    predictor: KronosPredictor,
    store: ForecastStore,
    *,
    kind: str,
    every: int,
    seeds: int,
) -> ReturnHead:
    """Fit a head on the members of the segments train and valid; hidden states are kept in the store.

    Args:
        dataset: dataset, whose hold is one of the horizons.
        predictor: predictor, whose weights do not change.
        store: forecast store that keeps the hidden states.
        kind: "ridge" or "lightgbm".
        every: bars between the dates to fit on.
        seeds: LightGBM models to average.

    Raises:
        ValueError: a segment is missing, or has too few instruments or dates.
    """
    (start, train_until), (_, valid_until) = dataset.spans_to_fit()
    settings = FitSettings(
        train_until, valid_until, cast(Kind, kind), tuple(sorted({*HORIZONS, dataset.hold})), seeds
    )
    market = market_name(dataset)
    return fit_members(
        dataset.spec,
        start,
        settings,
        predictor,
        store,
        market,
        every,
        instruments=dataset.instruments,
        freq=dataset.freq,
    )


def fit_members(
    spec: WindowSpec,
    start: pd.Timestamp,
    settings: FitSettings,
    predictor: KronosPredictor,
    store: ForecastStore,
    market: str,
    every: int,
    name: str | None = None,
    instruments: Instruments | None = None,
    freq: str = DAY,
) -> ReturnHead:
    """Fit a head on the instruments, those of the market `spec.universe` when omitted, from `start` on."""
    windows = member_windows(spec, start, settings.valid_until, instruments, freq, every)
    names = windows.index.get_level_values("instrument").unique()
    with progress_bar("embed", "windows") as progress:
        hidden = store.embeddings(predictor, windows, spec, progress)
    origin = predictor.checkpoint_info
    return fit_head(
        hidden,
        windows.index,
        traded_bars(list(names), settings.valid_until, freq),
        settings,
        lookback=spec.lookback,
        markets=(market,),
        checkpoint=origin.name if origin else None,
        weights_sha256=origin.sha256 if origin else None,
        frequency=bar_frequency(freq),
        name=name or f"{settings.kind} head on {origin.name if origin else 'a model'}",
    )


def every_date(windows: Windows, every: int) -> Windows:
    """The windows of each `every`-th date."""
    if every < 1:
        raise ValueError(f"every={every} is too small. Pass at least 1 day.")
    dates = pd.DatetimeIndex(windows.index.get_level_values("datetime"))
    return windows[dates.isin(dates.unique().sort_values()[::every])]
