"""Windows -> forecasts, date by date: never more than one chunk of dates' paths in memory.

Random numbers depend on the seed and the forecast date only, so chunking does not change forecasts, apart from
floating-point rounding in batches of another size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from kronos.bars import FEATURES
from kronos.config import SampleConfig
from kronos.forecast import Forecast
from kronos.windows import Windows
from kronos_strategies.forecasters.protocol import Forecaster
from kronos_strategies.progress import ProgressReport, no_progress, offset_progress

# Windows per chunk: more take more memory without higher throughput.
CHUNK_WINDOWS, CHUNK_BYTES = 1024, 64 * 2**20


class WindowsByDate:
    """Windows by forecast date.

    Args:
        windows: any order; a (datetime, instrument) at most once.

    Attributes:
        windows: windows in order of (datetime, instrument).
        dates: forecast dates, ascending.
        rows: number of windows per date.

    Raises:
        ValueError: no window, or one twice.
    """

    def __init__(self, windows: Windows) -> None:
        if not len(windows):
            raise ValueError("There are no windows to forecast. Pass at least 1.")
        if windows.index.has_duplicates:
            twice = windows.index[windows.index.duplicated()][0]
            raise ValueError(f"The windows contain {twice} twice. Keep one of them.")
        self.windows = windows.sorted()
        dates = pd.DatetimeIndex(self.windows.index.get_level_values("datetime"))
        self.dates = dates.unique()
        starts = np.searchsorted(dates, self.dates)
        self.rows = np.diff(np.append(starts, len(dates)))
        self._slices = dict(zip(self.dates, map(slice, starts, starts + self.rows), strict=True))
        self._digests: dict[pd.Timestamp, str] = {}

    def __getitem__(self, date: pd.Timestamp) -> Windows:
        """The windows of one date."""
        return self.windows[self._slices[date]]

    def digest(self, date: pd.Timestamp) -> str:
        """sha256 of the windows of one date, independent of other dates."""
        if date not in self._digests:
            self._digests[date] = self[date].digest()
        return self._digests[date]

    def count(self, dates: Sequence[pd.Timestamp]) -> int:
        """Number of windows of these dates."""
        return int(self.rows[self.dates.get_indexer(pd.DatetimeIndex(list(dates)))].sum())

    def select(self, dates: Sequence[pd.Timestamp]) -> Windows:
        """The windows of several dates, in that order."""
        spans = (self._slices[date] for date in dates)
        return self.windows[np.concatenate([np.arange(span.start, span.stop) for span in spans])]


def iter_forecasts(
    forecaster: Forecaster,
    windows: Windows,
    sampling: SampleConfig,
    progress: ProgressReport = no_progress,
) -> Iterator[Forecast]:
    """Forecasts of one date each as sampled, in order of dates, computed chunk by chunk as they are asked for.

    `kronos.postprocessing` calibrates and repairs them on reading. They are dated by the local clock, as windows
    are.

    Args:
        forecaster: the predictor.
        windows: what to forecast, any number of dates.
        sampling: settings.
        progress: called as progress(windows done, windows in all).
    """
    dated = WindowsByDate(windows)
    limit, done = batch_windows(sampling, windows.horizon), 0
    chunk: list[pd.Timestamp] = []
    for date, following in zip(dated.dates, [*dated.dates[1:], None], strict=True):
        chunk.append(date)
        if following is None or dated.count([*chunk, following]) > limit:
            yield from forecast_batch(
                forecaster, dated, chunk, sampling, offset_progress(progress, done, len(windows))
            )
            done += dated.count(chunk)
            chunk = []


def batch_windows(sampling: SampleConfig, horizon: int) -> int:
    """How many windows to forecast together; a date with more of them is a chunk of its own."""
    size = sampling.samples * horizon * len(FEATURES) * np.dtype(np.float32).itemsize
    return max(1, min(CHUNK_WINDOWS, CHUNK_BYTES // size))


def forecast_batch(
    forecaster: Forecaster,
    dated: WindowsByDate,
    dates: Sequence[pd.Timestamp],
    sampling: SampleConfig,
    progress: Callable[[int], None],
) -> Iterator[Forecast]:
    """Forecast several dates in one call and hand them out one by one, as sampled; each owns its paths.

    Args:
        forecaster: the predictor.
        dated: holds the dates' windows.
        dates: ascending.
        sampling: settings.
        progress: called with the number of the chunk's windows that are done.
    """
    done = 0

    def advance(windows: int) -> None:
        nonlocal done
        done += windows
        progress(done)

    whole = forecaster.forecast(dated.select(dates), sampling, advance, candles="raw").without_zones()
    start = 0
    for date in dates:
        own = dated[date]
        rows = slice(start, start + len(own))
        start = rows.stop
        # Indexed rows are copies: a view would keep the whole chunk alive.
        part = whole[np.arange(rows.start, rows.stop)]
        yield replace(part, provenance=replace(whole.provenance, data_sha256=dated.digest(date)))
