"""Upstream's calls, `predict` and `predict_batch`: single series with their timestamps as separate arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch
from rich.progress import Progress

from kronos.bars import FEATURES, check_bars, check_timestamps, warn_of_jumps
from kronos.config import SampleConfig, as_integer
from kronos.inference.pipeline import Pipeline
from kronos.inference.settings import default_torch_state
from kronos.sampling import TorchSampler
from kronos.windows import Windows

Timestamps = pd.Series | pd.DatetimeIndex


class UpstreamCalls:
    """The methods of upstream's predictor, with its signatures and, for a given seed, its numbers."""

    device: torch.device

    def _pipeline(self) -> Pipeline:
        raise NotImplementedError

    def _check_horizon(self, windows: Windows) -> None:
        raise NotImplementedError

    def predict(
        self,
        df: pd.DataFrame,
        x_timestamp: Timestamps,
        y_timestamp: Timestamps,
        pred_len: int,
        T: float = 1.0,
        top_k: int = 0,
        top_p: float = 0.9,
        sample_count: int = 1,
        verbose: bool = True,
        seed: int | None = None,
    ) -> pd.DataFrame:
        """Upstream's call for one series: the mean of `sample_count` paths.

        Args:
            df: (L, ...) bars with open, high, low, close, optionally volume and amount.
            x_timestamp: (L,) timestamps of the bars.
            y_timestamp: (pred_len,) timestamps to forecast.
            pred_len: number of bars to forecast.
            T, top_k, top_p: temperature and filters, see `SampleConfig`.
            sample_count: number of paths to average.
            verbose: show a progress bar.
            seed: random seed; None uses torch's global generator, so that `torch.manual_seed(s)` before the call
                and `seed=s` both give upstream's numbers for s.

        Returns:
            (pred_len, 6) FEATURES indexed by `y_timestamp`.
        """
        return self.predict_batch(
            [df], [x_timestamp], [y_timestamp], pred_len, T, top_k, top_p, sample_count, verbose, seed
        )[0]

    @default_torch_state()
    def predict_batch(
        self,
        df_list: Sequence[pd.DataFrame],
        x_timestamp_list: Sequence[Timestamps],
        y_timestamp_list: Sequence[Timestamps],
        pred_len: int,
        T: float = 1.0,
        top_k: int = 0,
        top_p: float = 0.9,
        sample_count: int = 1,
        verbose: bool = True,
        seed: int | None = None,
    ) -> list[pd.DataFrame]:
        """Upstream's call for several series; their lookbacks may differ. Arguments as in `predict`.

        Random numbers come from one stream for the whole batch, so that the result for a series depends on the
        others; this does not hold for `forecast`.
        """
        windows = series_windows(df_list, x_timestamp_list, y_timestamp_list, pred_len)
        self._check_horizon(windows)
        sampling = SampleConfig(sample_count, T, top_p, 0 if top_k is None else top_k)
        draws = _torch_sampler(sampling.samples, seed, self.device)
        with Progress(disable=not verbose, transient=True) as bar:
            task = bar.add_task("bars", total=windows.horizon)
            sampled = self._pipeline().sample_with(
                windows, sampling, draws, lambda: bar.advance(task), rule="upstream"
            )
        return [
            pd.DataFrame(mean, columns=list(FEATURES), index=pd.DatetimeIndex(y))
            for mean, y in zip(sampled.paths.mean(axis=1), y_timestamp_list, strict=True)
        ]

    if not TYPE_CHECKING:  # a type checker would then accept any attribute

        def __getattr__(self, name: str) -> object:
            """Point from attributes of upstream's predictor to kronos.compat."""
            if name in ("generate", "price_cols", "vol_col", "amt_vol", "time_cols"):
                raise AttributeError(
                    f"KronosPredictor has no {name}. Use kronos.compat.KronosPredictor, which has it."
                )
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")


def series_windows(
    frames: Sequence[pd.DataFrame],
    x_timestamps: Sequence[Timestamps],
    y_timestamps: Sequence[Timestamps],
    pred_len: int,
) -> Windows:
    """One window per series with all of its bars; the position of the series is its instrument.

    Timestamps with a time zone are read as local time (see `kronos.bars.wall_clock`), as in upstream.
    """
    if as_integer("pred_len", pred_len) < 1:
        raise ValueError(f"pred_len={pred_len} is too short. Pass at least 1.")
    counts = (len(frames), len(x_timestamps), len(y_timestamps))
    if not counts[0] or len(set(counts)) > 1:
        raise ValueError(
            f"{counts[0]} frames, {counts[1]} x_timestamps and {counts[2]} y_timestamps do not match. "
            "Pass one of each per series, and at least one series."
        )
    rows = zip(frames, x_timestamps, y_timestamps, strict=True)
    return Windows.stack([_series(f"series {i}", *row, pred_len) for i, row in enumerate(rows)])


def _series(name: str, frame: pd.DataFrame, x: Timestamps, y: Timestamps, pred_len: int) -> Windows:
    bars = check_bars(frame, name)
    past, future = (
        parse_timestamps(times, f"{label}_timestamp of {name}") for label, times in (("x", x), ("y", y))
    )
    check_timestamps(past, f"x_timestamp of {name}")
    check_timestamps(future, f"y_timestamp of {name}")
    for label, index, wanted in (("x", past, len(bars)), ("y", future, pred_len)):
        if len(index) != wanted:
            raise ValueError(
                f"{label}_timestamp of {name} has {len(index)} entries but {wanted} are needed: one "
                f"{'per bar' if label == 'x' else 'per step of pred_len'}."
            )
    if str(past.tz) != str(future.tz):
        raise ValueError(
            f"x_timestamp of {name} is in the time zone {past.tz}, y_timestamp in {future.tz}. Convert both to "
            "one, e.g. by dt.tz_convert, or remove both."
        )
    if future[0] <= past[-1]:
        raise ValueError(
            f"y_timestamp of {name} starts at {future[0]}, before its last bar {past[-1]}. Shift it."
        )
    bars = bars.set_axis(past)
    warn_of_jumps(bars, name)
    return Windows.single(name, bars, future)


def parse_timestamps(values: Timestamps, name: str) -> pd.DatetimeIndex:
    """Timestamps in any form that pandas accepts, in their own time zone if they have one.

    Raises:
        ValueError: not timestamps, or plain numbers.
    """
    try:
        if pd.api.types.is_numeric_dtype(pd.Index(values)):
            raise TypeError("they are numbers")
        return pd.DatetimeIndex(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} does not contain timestamps ({error}). Use pd.to_datetime first.") from None


def _torch_sampler(samples: int, seed: int | None, device: torch.device) -> TorchSampler:
    """Upstream's draws, from a separate generator if a seed is given."""
    if seed is None:
        return TorchSampler(samples)
    if not -(2**63) <= (seed := as_integer("seed", seed)) < 2**64:
        raise ValueError(f"seed={seed} does not fit in 64 bits. Pass a smaller one.")
    return TorchSampler(samples, torch.Generator(device).manual_seed(seed))
