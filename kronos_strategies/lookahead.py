"""A check for look-ahead bias: nothing that happens after t may change a value stamped t."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from kronos.bars import PRICES

KEYS = ["datetime", "instrument"]


class LookAheadError(AssertionError):
    """A value stamped t changed when only later bars did."""


def check_causal(
    run: Callable[[pd.DataFrame], pd.DataFrame],
    bars: pd.DataFrame,
    times: Iterable[pd.Timestamp | str],
    seed: int = 0,
    rtol: float = 1e-4,
) -> None:
    """Randomize all bars after each time, run again, and check that values up to it are equal.

    What is randomized: prices, volume, amount, factor, and which instruments trade at all. The trading calendar
    is known in advance and stays: every day keeps at least one bar.

    Args:
        run: tidy bars -> values indexed (datetime, instrument), a signal or anything else stamped with a time.
        bars: tidy: instrument, datetime, open, high, low, close, volume[, amount, factor].
        times: instants t to check; at least one value must be stamped at or before each.
        seed: seed of the randomization.
        rtol: relative to each column's largest value; floats may round differently in a batch of another
            size, and nothing else may differ.

    Raises:
        LookAheadError: names the time, the column and the first row that changed.
        ValueError: nothing is stamped at or before a time, so the check would be empty.
    """
    honest = run(bars).sort_index()
    for time in map(pd.Timestamp, times):
        before = _until(honest, time)
        if before.empty:
            raise ValueError(
                f"No value is stamped at or before {time}: nothing to check. Choose a later time."
            )
        after = _until(run(randomize_future(bars, time, seed)).sort_index(), time)
        if not before.index.equals(after.index):
            first = before.index.symmetric_difference(after.index)[0]
            raise LookAheadError(f"Randomizing bars after {time} made the row {first} appear or disappear.")
        for column in before.columns:
            old, new = before[column].to_numpy(float), after[column].to_numpy(float)
            slack = rtol * np.abs(old[np.isfinite(old)]).max(initial=0.0)
            moved = ~(np.isclose(old, new, rtol=0, atol=slack) | (np.isnan(old) & np.isnan(new)))
            if moved.any():
                row = int(np.argmax(moved))
                raise LookAheadError(
                    f"Randomizing bars after {time} changed '{column}' in {int(moved.sum())} rows, the first at "
                    f"{before.index[row]}: {old[row]!r} became {new[row]!r}."
                )


def randomize_future(bars: pd.DataFrame, time: pd.Timestamp, seed: int = 0) -> pd.DataFrame:
    """Tidy bars with another future: prices, volumes and factors after `time` are random, some days are gone.

    Every day keeps at least one bar, so that the calendar stays what it was.
    """
    rng = np.random.default_rng(seed)
    bars = bars.reset_index(drop=True).copy()
    later = np.flatnonzero(bars["datetime"] > time)
    level = np.exp(rng.normal(0, 0.5, len(later)))
    for column in [c for c in (*PRICES, "volume", "amount", "factor") if c in bars.columns]:
        # Each price also moves independently, because the shape of a future bar is unknown as well.
        noise = level * np.exp(rng.normal(0, 0.05, len(later)))
        if column not in PRICES:
            noise = np.exp(rng.normal(0, 0.5, len(later)))
        bars[column] = bars[column].astype(float)
        bars.loc[later, column] = bars.loc[later, column].to_numpy() * noise
    prices = bars.loc[later, list(PRICES)]
    bars.loc[later, "high"], bars.loc[later, "low"] = prices.max(axis=1), prices.min(axis=1)
    kept = np.ones(len(bars), bool)
    kept[later] = (rng.random(len(later)) >= 0.1) | ~bars["datetime"].duplicated().to_numpy()[later]
    return bars[kept]


def _until(values: pd.DataFrame, time: pd.Timestamp) -> pd.DataFrame:
    return values[values.index.get_level_values("datetime") <= time]
