"""What is kept of a run's forecasts once their paths are let go: a row a window, and a few fans. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from kronos.forecast import Forecast, Provenance
from kronos_strategies.evaluation.distribution.fans import Fans
from kronos_strategies.evaluation.distribution.volatility import qlike
from kronos_strategies.evaluation.scorecard import LEVELS, Market, summarise_paths
from kronos_strategies.evaluation.scorecard.market import CLOSES
from kronos_strategies.signals import tradable_returns


@dataclass(frozen=True)
class PathBook:
    """Of all forecasts of a run.

    Attributes:
        said: indexed (datetime, instrument), columns (horizon, name) of `summarise_paths`.
        by_samples: of the same index, columns = numbers of paths k: the score of the first k of them.
        fans: see `Fans`.
    """

    said: pd.DataFrame
    by_samples: pd.DataFrame
    fans: pd.DataFrame

    @classmethod
    def read(cls, folder: Path) -> PathBook:
        """What `write` has kept."""
        said, by_samples, fans = (pd.read_parquet(folder / f"{f.name}.parquet") for f in fields(cls))
        said.columns = pd.MultiIndex.from_tuples(
            [(int(h), name) for h, name in (column.split(" ", 1) for column in said.columns)]
        )
        return cls(said, by_samples.rename(columns=int), fans)

    def write(self, folder: Path) -> None:
        """Keep it as three parquet files."""
        horizons, names = (self.said.columns.get_level_values(level) for level in (0, 1))
        flat = self.said.set_axis([f"{h} {name}" for h, name in zip(horizons, names, strict=True)], axis=1)
        frames = {"said": flat, "by_samples": self.by_samples.rename(columns=str), "fans": self.fans}
        for name, frame in frames.items():
            frame.to_parquet(folder / f"{name}.parquet", compression="zstd")

    def losses(self, market: Market) -> pd.DataFrame:
        """Figures of single rows of which less is better: crps_h5 (fair, in log return) and qlike_h5 by horizon.

        Args:
            market: that the paths are scored on.
        """
        keys, columns = cast(pd.MultiIndex, self.said.index), {}
        for horizon in self.said.columns.get_level_values(0).unique():
            came = market.at(market.variance(int(horizon))[CLOSES], keys)
            columns[f"crps_h{horizon}"] = self.said[horizon, "crps"].to_numpy(float)
            columns[f"qlike_h{horizon}"] = qlike(
                came.to_numpy(), self.said[horizon, "variance"].to_numpy(float)
            )
        return pd.DataFrame(columns, index=keys)


def keep_paths(
    forecasts: Iterable[Forecast],
    market: Market,
    horizons: Sequence[int],
    hold: int,
    price: str = "close",
    levels: Sequence[float] = LEVELS,
) -> tuple[PathBook, Provenance]:
    """Read forecasts date by date; never more than one date's paths are held.

    Args:
        forecasts: of one date each, ascending.
        market: of the bars that they were made of, and what came after.
        horizons: bars to score the distribution at, each below that of the forecasts.
        hold, price: of the score, see `kronos_strategies.signals.tradable_returns`.
        levels: of central bands.

    Returns:
        What is kept, and the provenance of the first forecast.

    Raises:
        ValueError: no forecast, or of another market.
    """
    moved = {horizon: market.moved(horizon) for horizon in sorted(set(horizons))}
    said, scores, fans = [], [], Fans(market)
    provenance = None
    for forecast in forecasts:
        came = {horizon: market.at(wide, forecast.keys) for horizon, wide in moved.items()}
        said.append(summarise_paths(forecast, came, levels))
        scores.append(scores_by_samples(forecast, hold, price))
        fans.see(forecast)
        provenance = provenance or forecast.provenance
    if provenance is None:
        raise ValueError("There are no forecasts to keep. Pass at least one date's.")
    kept = PathBook(pd.concat(said).sort_index(), pd.concat(scores).sort_index(), fans.frame())
    return kept, provenance


def scores_by_samples(forecast: Forecast, hold: int, price: str = "close") -> pd.DataFrame:
    """The score that the first 1, 2, 4, ... paths give, and all: columns = numbers of paths."""
    earned = tradable_returns(forecast, hold, price)
    counts = [2**i for i in range(int(np.log2(forecast.samples)) + 1)]
    counts = sorted({*counts, forecast.samples})
    sums = earned.cumsum(axis=1)
    return pd.DataFrame({k: sums[:, k - 1] / k for k in counts}, index=forecast.keys)
