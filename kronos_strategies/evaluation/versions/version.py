"""Version: what one model, or one setting of it, said of (datetime, instrument) rows. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd


@dataclass(frozen=True)
class Version:
    """Of a model, to be held against others.

    Attributes:
        name: short and unique among those compared.
        score: indexed (datetime, instrument), known at the close of the date.
        losses: of the same index, figures of single rows of which less is better, such as crps_h5 or qlike_h5;
            None without any.
        provenance: what made it, by label, ready to print.
    """

    name: str
    score: pd.Series
    losses: pd.DataFrame | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ComparisonInput:
    """A version, and what it brings along to be judged by.

    Attributes:
        version: of a model.
        labels: indexed (datetime, instrument), columns = horizons in bars: the returns that followed; None for
            scores alone.
        horizon: bars that its trade holds; None for scores alone.
        references: naive scores of its rows; None for scores alone.
        bars_between: bars between successive dates.
        warnings: sentences that a reader of its figures must see.
    """

    version: Version
    labels: pd.DataFrame | None = None
    horizon: int | None = None
    references: pd.DataFrame | None = None
    bars_between: int = 1
    warnings: tuple[str, ...] = ()
