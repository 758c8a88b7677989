"""What rules read of a Qlib market besides signals: closes up to the date, and the sampled paths of a forecast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd
from qlib.data import D
from qlib.model.base import Model

from kronos.calibration import checkpoint_calibration
from kronos.postprocessing import PathOptions, Postprocessing
from kronos_strategies.portfolio import MarketInputs, PortfolioRules, SampledPaths, UnsolvedError, past_bars
from kronos_strategies.qlib.model import KronosModel
from kronos_strategies.qlib.tradability import Span
from kronos_strategies.signal import sampled_paths
from kronos_strategies.store import ForecastSet


class StoredPaths(NamedTuple):
    """Forecasts to read paths from, date by date.

    Attributes:
        forecast_set: forecasts as sampled.
        digests: expected digests of the windows by date; None for any date and any windows.
        postprocessing: postprocessing of the paths.
    """

    forecast_set: ForecastSet
    digests: Mapping[pd.Timestamp, str] | None
    postprocessing: Postprocessing

    def read(self, start: pd.Timestamp, end: pd.Timestamp) -> SampledPaths | None:
        """Paths of the last forecast from `start` to `end`; None if there is none."""
        dates = self.forecast_set.dates if self.digests is None else pd.DatetimeIndex(list(self.digests))
        known = dates[(dates >= start) & (dates <= end)]
        if not len(known):
            return None
        digest = None if self.digests is None else self.digests[known[-1]]
        return sampled_paths(self.postprocessing(self.forecast_set.read(known[-1], digest)))


def open_paths(source: KronosModel | str) -> StoredPaths:
    """Paths of a model that has forecast in this process, or of a forecast store.

    Args:
        source: the model, whose paths are those behind its signals; or folder or URL of a store with one forecast
            set, or of one set, read with the calibration of its checkpoint where it fits.

    Raises:
        FileNotFoundError: there are no forecasts.
        ValueError: the model has sampled nothing or is of another class, or there are several sets.
    """
    if isinstance(source, Model) and not isinstance(source, KronosModel):
        raise ValueError(
            f"The rules need sampled paths, which a {type(source).__name__} does not pass on. Use rules without "
            "paths, or a KronosModel."
        )
    if not isinstance(source, KronosModel):
        forecast_set = ForecastSet.find(source)
        provenance, first = forecast_set.settings.provenance, forecast_set.read(forecast_set.dates[0])
        own = checkpoint_calibration(provenance.model)
        return StoredPaths(
            forecast_set, None, PathOptions().resolve(own, provenance, first.horizon, first.spacing)
        )
    if source.sampled is None:
        raise ValueError(
            "The model has sampled no paths in this process, which the rules need. Set samples to 10 and call "
            "predict first, or pass the folder of a forecast store."
        )
    return StoredPaths(source.sampled.forecast_set, source.sampled.digests, source.postprocessing)


def past_closes(instruments: pd.Index, date: pd.Timestamp, bars: int, freq: str) -> pd.DataFrame:
    """Adjusted closes of `bars` bars before that of a date, and its own: dates x instruments, NaN without a bar."""
    calendar = D.calendar(end_time=date, freq=freq)[-bars - 1 :]
    frame = D.features(sorted(instruments), ["$close"], calendar[0], calendar[-1], freq=freq)
    return frame["$close"].unstack("instrument").reindex(pd.DatetimeIndex(calendar))


def market_inputs(
    rules: PortfolioRules, paths: StoredPaths | None, instruments: pd.Index, span: Span, freq: str
) -> MarketInputs:
    """What rules need of the market at the close of a bar.

    Args:
        rules: rules of the portfolio.
        paths: sampled paths; None if the rules need none.
        instruments: instruments with a signal.
        span: start and end of the bar.
        freq: Qlib's name of the bar frequency.

    Raises:
        UnsolvedError: the rules need paths, and there is no forecast of the bar.
    """
    bars, (start, end) = past_bars(rules), span
    if not bars:
        return MarketInputs()
    found = None if paths is None else paths.read(start, end)
    if rules.uses_scenarios and found is None:
        raise UnsolvedError(f"there is no forecast of {start}")
    return MarketInputs(closes=past_closes(instruments, end, bars, freq), paths=found)
