"""Single series with timestamps beside them, the form of upstream's calls, as Windows. Knows no torch."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from kronos.bars import check_bars, check_timestamps
from kronos.jumps import warn_of_jumps
from kronos.windows import Windows

Timestamps = pd.Series | pd.DatetimeIndex


def series_windows(
    frames: Sequence[pd.DataFrame],
    x_timestamps: Sequence[Timestamps],
    y_timestamps: Sequence[Timestamps],
    pred_len: int,
) -> Windows:
    """One window a series, all of its bars; the series' number is its instrument."""
    if pred_len < 1:
        raise ValueError(f"pred_len={pred_len} asks for no bar. Ask for at least 1.")
    counts = (len(frames), len(x_timestamps), len(y_timestamps))
    if not counts[0] or len(set(counts)) > 1:
        raise ValueError(
            f"{counts[0]} frames, {counts[1]} x_timestamps and {counts[2]} y_timestamps do not pair up. "
            "Pass one of each a series, and at least one series."
        )
    rows = zip(frames, x_timestamps, y_timestamps, strict=True)
    return Windows.stack([_series(f"series {i}", *row, pred_len) for i, row in enumerate(rows)])


def _series(name: str, frame: pd.DataFrame, x: Timestamps, y: Timestamps, pred_len: int) -> Windows:
    bars = check_bars(frame, name)
    past, future = _timestamps(x, f"x_timestamp of {name}"), _timestamps(y, f"y_timestamp of {name}")
    for label, index, wanted in (("x", past, len(bars)), ("y", future, pred_len)):
        if len(index) != wanted:
            raise ValueError(
                f"{label}_timestamp of {name} has {len(index)} entries but {wanted} are needed: one "
                f"{'a bar' if label == 'x' else 'a step of pred_len'}."
            )
    if future[0] <= past[-1]:
        raise ValueError(
            f"y_timestamp of {name} starts at {future[0]}, before its last bar {past[-1]}. Shift it."
        )
    bars = bars.set_axis(past)
    warn_of_jumps(bars, name)
    return Windows.single(name, bars, future)


def _timestamps(values: Timestamps, name: str) -> pd.DatetimeIndex:
    try:
        if pd.api.types.is_numeric_dtype(pd.Index(values)):
            raise TypeError("they are numbers")
        index = pd.DatetimeIndex(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} holds no timestamps ({error}). Use pd.to_datetime first.") from None
    check_timestamps(index, name)
    return index
