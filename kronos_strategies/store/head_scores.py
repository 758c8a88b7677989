"""Stored scores of a return head, read without the head or torch."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from kronos.panels import KEYS
from kronos_strategies.store.files import find_file
from kronos_strategies.store.settings import WindowSpec
from kronos_strategies.store.window_outputs import DESCRIPTION


class HeadScores:
    """Stored outputs of a return head at one horizon, read without the head.

    Args:
        folder: folder of the outputs.
        horizon: bars that the ranks refer to.

    Raises:
        ValueError: the head does not forecast that horizon.
    """

    def __init__(self, folder: Path, horizon: int) -> None:
        described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        self.folder, self.horizon = folder, horizon
        self.name, self.sha256 = str(described["head"]), str(described["head_sha256"])
        self.horizons = tuple(int(each) for each in described["settings"]["horizons"])
        if horizon not in self.horizons:
            raise ValueError(
                f"The head {self.name} in {folder} forecasts {list(self.horizons)} bars, not {horizon}. Use one of "
                "these, or score by the paths."
            )

    @property
    def described(self) -> str:
        """What produces the score, for a report."""
        return f"return head {self.name} (sha256 {self.sha256[:16]}), {self.horizon} bars, stored"

    def warnings(self, hold: int, price: str) -> list[str]:
        """Sentences that a reader of the scores must see."""
        if price == "close":
            return []
        return [f"The return head ranks returns from close to close, but trades happen at the {price}."]

    def read(self, index: pd.MultiIndex) -> pd.Series:
        """(N,) scores of windows of one date; NaN for windows without one.

        Raises:
            ValueError: the date is not stored.
            CorruptFileError: its file is damaged.
        """
        date = pd.Timestamp(index.get_level_values(KEYS[0])[0])
        file = find_file(self.folder, date)
        if file is None:
            raise ValueError(
                f"{self.folder} has no scores of {date}. Add them with `kronos store fill`, or score by the paths."
            )
        table = pq.read_table(BytesIO(file.read()), columns=[*KEYS, f"rank_{self.horizon}"])
        keys = pd.MultiIndex.from_arrays([table[name].to_pandas() for name in KEYS], names=list(KEYS))
        scores = pd.Series(table[f"rank_{self.horizon}"].to_numpy().astype(np.float64), keys, name="score")
        return scores.reindex(index)


def find_head_scores(
    model: Path, spec: WindowSpec, horizon: int, name: str | None = None
) -> HeadScores | None:
    """The stored scores of a return head for windows as specified; None if there are none at that horizon.

    Args:
        model: folder of the model in a store.
        spec: specification of the windows; their horizon does not matter.
        horizon: bars that the ranks refer to.
        name: name of the head; needed if several fit.

    Raises:
        ValueError: several heads fit, or the named one does not.
    """
    found = []
    for file in sorted(model.glob(f"heads/*/{DESCRIPTION}")):
        described = json.loads(file.read_text(encoding="utf-8"))
        known = described["settings"]
        fits = (known["universe"], known["lookback"]) == (spec.universe, spec.lookback)
        if fits and horizon in known["horizons"] and name in (None, described["head"]):
            found.append(HeadScores(file.parent, horizon))
    if len(found) > 1:
        names = sorted(f"{head.name} ({head.folder.name})" for head in found)
        raise ValueError(
            f"Several return heads have scores in {model}: {', '.join(names)}. Name one with --head."
        )
    if name is not None and not found:
        raise ValueError(
            f"{model} has no scores of the head '{name}' at {horizon} bars. Check name and --hold."
        )
    return found[0] if found else None
