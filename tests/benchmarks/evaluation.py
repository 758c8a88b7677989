"""How fast coefficients are compared with Qlib's `calc_ic`: IC and RankIC of the same long series, interleaved."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.signal.metrics import information_coefficients
from tests.benchmarks.measure import Record, Save, timed

SUPPORTED = find_spec("qlib") is not None
SHAPES = ((2500, 300), (2500, 5000))  # dates x names: ten years of an index, and of a market
MISSING = 0.02  # of the labels, as of suspended names


def compare(dates: int, names: int, repeats: int, save: Save) -> None:
    """Qlib and ours interleaved; `save` gets the record when it is whole.

    Raises:
        RuntimeError: the two disagree by more than rounding.
    """
    from qlib.contrib.eva.alpha import calc_ic

    series = draw(dates, names)
    part = tuple(each.iloc[: 20 * names] for each in series)
    ours, theirs = information_coefficients(*part), calc_ic(*part)  # both are warm then
    apart = max(float((ours[name] - each).abs().max()) for name, each in zip(ours, theirs, strict=True))
    if not apart < 1e-12:
        raise RuntimeError(f"Coefficients differ from Qlib's by {apart}, so their times are not comparable.")
    ways = {"qlib": lambda: calc_ic(*series), "ours": lambda: information_coefficients(*series)}
    record: Record = {"dates": dates, "names": names, "runs": {way: [] for way in ways}}
    for _ in range(repeats):
        for way, call in ways.items():
            record["runs"][way].append(timed(call))
    save(record)


def draw(dates: int, names: int) -> tuple[pd.Series, pd.Series]:
    """A score of some skill and its label, a row each (date, name)."""
    random = np.random.default_rng(0)
    days = pd.bdate_range("2010-01-04", periods=dates)
    index = pd.MultiIndex.from_product(
        [days, [f"S{i:05}" for i in range(names)]], names=["datetime", "instrument"]
    )
    score = random.standard_normal(len(index))
    label = 0.05 * score + random.standard_normal(len(index))
    label[random.random(len(index)) < MISSING] = np.nan
    return pd.Series(score, index), pd.Series(label, index)
