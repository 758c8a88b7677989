"""Bars of many instruments as one flat array, and training windows as slices of it, picked by index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kronos.bars import PRICES, adjust_bars, stamps
from kronos.scale import Scale
from kronos.training.clean import RULES, clean_segments

ZEROED = 0.05  # share of training windows whose volume and amount are hidden (Kronos, appendix on training)


@dataclass(frozen=True)
class BarTape:
    """Cleaned segments end to end.

    Attributes:
        values: (M, 6) float32 FEATURES in the bars' own units.
        stamps: (M, 5) int64 calendar fields.
        dates: (M,) datetime64[ns] of each bar.
        bounds: (segments + 1,) first row of each segment, then M.
    """

    values: np.ndarray
    stamps: np.ndarray
    dates: np.ndarray
    bounds: np.ndarray

    @classmethod
    def from_files(cls, files: Sequence[Path], frequency: str, min_bars: int) -> BarTape:
        """Read tidy parquet or CSV bars, adjust them by `factor` or `factor_est`, clean and concatenate."""
        segments = []
        for file in files:
            for _, bars in _adjusted(_read(file)).groupby("instrument", sort=True):
                segments += clean_segments(bars.set_index("datetime"), RULES[frequency], min_bars)
        if not segments:
            raise ValueError(
                f"No stretch of {min_bars} clean bars in {[str(f) for f in files]}. Give longer series."
            )
        index = segments[0].index.append([s.index for s in segments[1:]])
        return cls(
            values=np.concatenate([s.to_numpy(np.float32) for s in segments]),
            stamps=stamps(pd.DatetimeIndex(index)),
            dates=index.to_numpy("datetime64[ns]"),
            bounds=np.cumsum([0] + [len(s) for s in segments]),
        )

    def starts(self, length: int, since: str | None, until: str | None) -> np.ndarray:
        """First rows of all windows of `length` bars within one segment that end in [since, until]."""
        first = [np.arange(a, b - length + 1) for a, b in zip(self.bounds[:-1], self.bounds[1:], strict=True)]
        starts = np.concatenate(first)
        last = self.dates[starts + length - 1]
        keep = np.ones(len(starts), bool)
        if since is not None:
            keep &= last >= np.datetime64(since)
        if until is not None:
            keep &= last < np.datetime64(until) + np.timedelta64(1, "D")
        return starts[keep]


@dataclass(frozen=True)
class TrainingWindows:
    """Windows of `lookback` + `horizon` bars, scaled by their lookback alone."""

    tape: BarTape
    starts: np.ndarray
    lookback: int
    horizon: int
    clip: float = 5.0

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Windows by index -> (B, T, 6) float32 normalised bars and (B, T, 5) int64 stamps."""
        rows = self.starts[indices, None] + np.arange(self.lookback + self.horizon)
        values = self.tape.values[rows]
        # Statistics of the lookback only: over the whole window they would tell the model its own future.
        scale = Scale.fit(values[:, : self.lookback])
        return scale.apply(values, self.clip), self.tape.stamps[rows]

    def batches(
        self, size: int, steps: int, seed: int, first: int = 0
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Steps `first`..`steps` of a shuffled pass that repeats, without volume in ZEROED of the windows.

        What step i holds depends on the seed and on i only, never on a worker or an earlier step.
        """
        per_epoch = len(self) // size
        if per_epoch == 0:
            raise ValueError(
                f"{len(self)} windows do not fill one batch of {size}. Give more bars or a smaller batch."
            )
        order = None
        for step in range(first, steps):
            epoch, i = divmod(step, per_epoch)
            if order is None or i == 0:
                order = np.random.default_rng([seed, epoch]).permutation(len(self))
            x, s = self.batch(order[i * size : (i + 1) * size])
            hidden = np.random.default_rng([seed, epoch, i]).random(size) < ZEROED
            x[hidden, :, 4:] = 0.0
            yield x, s


def _read(file: Path) -> pd.DataFrame:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is no file. Check the path.")
    frame = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
    if missing := [name for name in ("instrument", "datetime", *PRICES) if name not in frame.columns]:
        raise ValueError(f"{file} lacks the columns {missing}; it has {list(frame.columns)}. Rename yours.")
    return frame.assign(datetime=pd.to_datetime(frame["datetime"]))


def _adjusted(frame: pd.DataFrame) -> pd.DataFrame:
    for name in ("factor", "factor_est"):
        if name in frame:
            return adjust_bars(frame, name)
    return frame
