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
