"""Which versions may be the best: the model confidence set (Hansen, Lunde & Nason 2011). Torch-free."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from kronos.utils import MissingExtra

try:
    from arch.bootstrap import MCS
except ImportError as error:
    raise MissingExtra(
        "Model confidence sets need arch: pip install 'kronos-strategies[evaluation]'"
    ) from error

SIZE = 0.1
REPETITIONS = 1000
MIN_BLOCKS = 10


def confidence_p(losses: pd.DataFrame, overlap: int, seed: int) -> pd.Series:
    """The smallest size of test at which each version leaves the set; it is in the 90 % set with more than .1.

    Range statistic, 1,000 stationary bootstraps of blocks of 2 * overlap dates on average, or of T^(1/3) where
    that is more. Versions that are equal on every date share one p: their difference has no variance.

    The set is too eager on short series. In simulations of versions without a true difference, one or more of them
    left the set, which should happen in 10 %, in 12 % (four of them, 1,000 dates, labels of 1 date), 19 % (two, 500
    dates, 10), 23 % (four, 250 dates, 5) and 37 % (four, 100 dates, 5); blocks twice as long were no better. Read
    it beside Holm's p, which keeps its size.

    Args:
        losses: dates x versions, less is better; a date that one of them lacks is left out.
        overlap: successive dates that one label spans.
        seed: of the bootstrap.

    Returns:
        By version; NaN with fewer than MIN_BLOCKS blocks of dates.
    """
    defined = losses.to_numpy()[np.isfinite(losses).all(axis=1)]  # (T, versions)
    block = block_length(len(defined), overlap)
    if len(defined) < MIN_BLOCKS * block:
        return pd.Series(np.nan, index=losses.columns)
    first = _first_equal(defined)
    apart = sorted(set(first))
    if len(apart) == 1:
        return pd.Series(1.0, index=losses.columns)
    test = MCS(defined[:, apart], SIZE, REPETITIONS, block, "R", "stationary", seed=seed)
    with np.errstate(divide="ignore", invalid="ignore"):  # a constant difference: infinite t, and so p is 0
        test.compute()
    found = test.pvalues["Pvalue"]  # by place in `apart`
    return pd.Series([float(found[apart.index(i)]) for i in first], index=losses.columns)


def block_length(dates: int, overlap: int) -> int:
    """Mean length of a block: twice the label's, or dates^(1/3) where that is more."""
    return max(2 * overlap, math.ceil(dates ** (1 / 3)))


def _first_equal(values: np.ndarray) -> list[int]:
    """Of each column, the first one that it equals but for rounding."""
    size = 1e-12 * np.abs(values).max()
    return [int(np.argmax(np.abs(values - column[:, None]).max(axis=0) <= size)) for column in values.T]
