"""What is kept of a run's forecasts once their paths are let go: a row a window, and a few fans. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from kronos.bars import CLOSE
from kronos.forecast import Forecast, Provenance
from kronos.paths import PRICE_FLOOR, Violations
from kronos.postprocessing import Postprocessing
from kronos_strategies.evaluation.distribution.fans import Fans
from kronos_strategies.evaluation.distribution.volatility import qlike
from kronos_strategies.evaluation.scorecard import LEVELS, Market, summarise_paths
from kronos_strategies.evaluation.scorecard.market import CLOSES
from kronos_strategies.signals import tradable_returns

AS_READ = Postprocessing()


@dataclass(frozen=True)
class PathBook:
    """Of all forecasts of a run.

    Attributes:
        said: indexed (datetime, instrument), columns (horizon, name) of `summarise_paths`.
        by_samples: of the same index, columns = numbers of paths k: the score of the first k of them.
        fans: see `Fans`.
        sampled: as `said`, of the paths before a calibration moved them; None where none did.
        checks: column value, of the paths as sampled: the shares of `Violations`, and the mean absolute log gap
            from the last close to the first open, sampled and realized; None where it was not kept.
    """

    said: pd.DataFrame
    by_samples: pd.DataFrame
    fans: pd.DataFrame
    sampled: pd.DataFrame | None = None
    checks: pd.DataFrame | None = None

    @classmethod
    def read(cls, folder: Path) -> PathBook:
        """What `write` has kept."""
        files = {f.name: folder / f"{f.name}.parquet" for f in fields(cls)}
        frames = {name: pd.read_parquet(file) for name, file in files.items() if file.is_file()}
        for name in {"said", "sampled"} & set(frames):
            pairs = (column.split(" ", 1) for column in frames[name].columns)
            frames[name].columns = pd.MultiIndex.from_tuples([(int(h), each) for h, each in pairs])
        return cls(**frames | {"by_samples": frames["by_samples"].rename(columns=int)})

    def write(self, folder: Path) -> None:
        """Keep it as parquet files."""
        frames = {f.name: frame for f in fields(self) if (frame := getattr(self, f.name)) is not None}
        for name in {"said", "sampled"} & set(frames):
            pairs = frames[name].columns.to_flat_index()
            frames[name] = frames[name].set_axis([f"{h} {each}" for h, each in pairs], axis=1)
        frames["by_samples"] = self.by_samples.rename(columns=str)
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
    post: Postprocessing = AS_READ,
) -> tuple[PathBook, Provenance]:
    """Read forecasts date by date; never more than one date's paths are held.

    Args:
        forecasts: of one date each, ascending, as sampled.
        market: of the bars that they were made of, and what came after.
        horizons: bars to score the distribution at, each below that of the forecasts.
        hold, price: of the score, see `kronos_strategies.signals.tradable_returns`.
        levels: of central bands.
        post: what is done to the paths before they are read.

    Returns:
        What is kept, and the provenance of the first forecast as it is read.

    Raises:
        ValueError: no forecast, or of another market.
    """
    moved = {horizon: market.moved(horizon) for horizon in sorted(set(horizons))}
    said, scores, fans, sampled, checks = [], [], Fans(market), [], _Checks(market)
    provenance = None
    for raw in forecasts:
        forecast = post(raw)
        checks.see(raw)
        came = {horizon: market.at(wide, forecast.index) for horizon, wide in moved.items()}
        said.append(summarise_paths(forecast, came, levels))
        if forecast.calibration is not None:
            sampled.append(summarise_paths(raw, came, levels))
        scores.append(scores_by_samples(forecast, hold, price))
        fans.see(forecast)
        provenance = provenance or forecast.provenance
    if provenance is None:
        raise ValueError("There are no forecasts to keep. Pass at least one date's.")
    kept = PathBook(pd.concat(said).sort_index(), pd.concat(scores).sort_index(), fans.frame())
    before = pd.concat(sampled).sort_index() if sampled else None
    return replace(kept, sampled=before, checks=checks.frame()), provenance


class _Checks:
    """Counts invalid sampled bars, and measures the gap to the first open, one forecast after the other."""

    def __init__(self, market: Market) -> None:
        self._gaps = (market.opens.shift(-1) / market.closes).apply(np.log).abs()
        self._market, self._violations = market, Violations()
        self._sums, self._count = np.zeros(2), 0

    def see(self, raw: Forecast) -> None:
        """Look at the forecasts of one date as sampled."""
        self._violations += raw.violations()
        last = raw.last_bar[:, CLOSE].astype(float)
        came = self._market.at(self._gaps, raw.index).to_numpy(float)
        first = np.maximum(raw.path("open")[:, :, 0], PRICE_FLOOR * last[:, None])
        sampled = np.abs(np.log(first / last[:, None])).mean(axis=1)
        known = np.isfinite(came) & np.isfinite(sampled)
        self._sums += sampled[known].sum(), came[known].sum()
        self._count += int(known.sum())

    def frame(self) -> pd.DataFrame:
        """Column value."""
        means = self._sums / self._count if self._count else np.full(2, np.nan)
        found = {**self._violations.shares(), "gap_sampled": means[0], "gap_realized": means[1]}
        return pd.DataFrame({"value": pd.Series(found, dtype=float)}).rename_axis("check")


def scores_by_samples(forecast: Forecast, hold: int, price: str = "close") -> pd.DataFrame:
    """The score that the first 1, 2, 4, ... paths give, and all: columns = numbers of paths."""
    earned = tradable_returns(forecast, hold, price)
    counts = [2**i for i in range(int(np.log2(forecast.samples)) + 1)]
    counts = sorted({*counts, forecast.samples})
    sums = earned.cumsum(axis=1)
    return pd.DataFrame({k: sums[:, k - 1] / k for k in counts}, index=forecast.index)
