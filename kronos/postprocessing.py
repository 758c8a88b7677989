"""Postprocessing of sampled paths: calibration, then price limits, then repair of invalid bars.

Forecasts are stored raw and postprocessed on reading, so that another calibration needs no new forecast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from kronos.calibration import Calibration
from kronos.forecast import Forecast, Provenance, shortest_step
from kronos.paths import Candles, PriceLimits, china_limits
from kronos.windows import Windows

AUTO, NONE = "auto", "none"
CHINA = "china"


@dataclass(frozen=True)
class PathOptions:
    """User options as text, as in configuration files and environment variables.

    Attributes:
        calibration: "auto" for that of the checkpoint if it has one that fits, "none", or the path of a file.
        candles: "valid" repairs invalid sampled bars, "raw" keeps them.
        limits: price limits: "none", "china" for those of each stock's board, or a share of the previous close,
            "0.1".

    Raises:
        ValueError: an option is invalid.
    """

    calibration: str = AUTO
    candles: Candles = "valid"
    limits: str = NONE

    def __post_init__(self) -> None:
        if not isinstance(self.calibration, str) or not self.calibration:
            raise ValueError(
                f"calibration={self.calibration!r} is unknown. Choose 'auto', 'none' or the path of a file."
            )
        if self.candles not in get_args(Candles):
            raise ValueError(f"candles={self.candles!r} is unknown. Choose one of {list(get_args(Candles))}.")
        self.price_limits()

    def price_limits(self) -> PriceLimits | Callable[[str], PriceLimits] | None:
        """The limits as values: one for all instruments, a function of the instrument, or None."""
        if self.limits in (NONE, CHINA):
            return china_limits if self.limits == CHINA else None
        try:
            return PriceLimits(float(self.limits))
        except ValueError:
            raise ValueError(
                f"limits={self.limits!r} is unknown. Choose 'none', 'china' or a share of the previous close "
                "such as '0.1'."
            ) from None

    def resolve(
        self, own: Calibration | None, known: Provenance, horizon: int, spacing: float | None = None
    ) -> Postprocessing:
        """The postprocessing of a forecast.

        Args:
            own: calibration of the checkpoint.
            known: provenance of the raw forecast.
            horizon: bars per path.
            spacing: seconds between bars; None if unknown.

        Raises:
            FileNotFoundError: no such calibration.
            ValueError: the given calibration does not fit the forecast.
        """
        limits = self.price_limits()
        if self.calibration == NONE:
            return Postprocessing(None, limits, self.candles, "none, as requested")
        if self.calibration == AUTO:
            if own is None:
                why = f"none: '{known.model}' has no calibration"
            elif (mismatch := own.mismatch(known, horizon, spacing)) is not None:
                why = f"none: the checkpoint's calibration does not fit, because {mismatch}"
            else:
                return Postprocessing(own, limits, self.candles, f"{own.id}, of the checkpoint")
            return Postprocessing(None, limits, self.candles, why)
        named = _read(self.calibration)
        named.check(known, horizon, spacing)
        return Postprocessing(named, limits, self.candles, f"{named.id}, from {self.calibration}")


@dataclass(frozen=True)
class Postprocessing:
    """Steps applied to raw paths, in this order.

    Attributes:
        calibration: calibration to apply; None for none.
        limits: price limits to clip to; None for none.
        candles: "valid" repairs invalid bars.
        reason: which calibration is used and why, as text.
    """

    calibration: Calibration | None = None
    limits: PriceLimits | Callable[[str], PriceLimits] | None = None
    candles: Candles = "valid"
    reason: str = "none"

    def __call__(self, forecast: Forecast) -> Forecast:
        """The postprocessed forecast; its provenance records the steps."""
        made = forecast.calibrated(self.calibration)
        made = made if self.limits is None else made.limited(self.limits)
        return made.repaired() if self.candles == "valid" else made

    def warnings(self, first: pd.Timestamp) -> list[str]:
        """Warnings about forecasts from date `first` on: a calibration must not use later outcomes."""
        if self.calibration is None or self.calibration.walk_forward:
            return []
        if pd.Timestamp(self.calibration.known_at) <= first:
            return []
        return [
            f"The calibration uses outcomes until {self.calibration.known_at[:10]}, after the first test "
            "dates. Fit one that ends before them, or a walk-forward one: `kronos calibrate --every 60`."
        ]


def _read(file: str) -> Calibration:
    """Cached by the file's modification time, since a live run reads at every bar."""
    path = Path(file).expanduser()
    return _read_once(path, path.stat().st_mtime_ns) if path.is_file() else Calibration.read(path)


@lru_cache(maxsize=8)
def _read_once(path: Path, modified: int) -> Calibration:
    return Calibration.read(path)


def spacing_of(windows: Windows) -> float | None:
    """Seconds of the shortest step to forecast; None if a single step leaves it unknown."""
    dates = pd.DatetimeIndex(windows.index.get_level_values("datetime")).to_numpy("datetime64[ns]")
    return shortest_step(np.asarray(dates), windows.future)
