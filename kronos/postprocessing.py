"""From sampled paths to those that are read: calibration, then price limits, then candles. Knows no torch.

Forecasts are stored as sampled, and this is applied on reading, so that another calibration costs no new forecast.
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
    """What a user names, as text, so that files and environment variables can.

    Attributes:
        calibration: "auto" for the checkpoint's own where it has one that fits, "none", or the file of one.
        candles: "valid" repairs invalid sampled bars, "raw" keeps them.
        limits: price limits: "none", "china" for those of each share's board, or a share of the last close, "0.1".

    Raises:
        ValueError: an option is none of these.
    """

    calibration: str = AUTO
    candles: Candles = "valid"
    limits: str = NONE

    def __post_init__(self) -> None:
        if not isinstance(self.calibration, str) or not self.calibration:
            raise ValueError(
                f"calibration={self.calibration!r} is none of 'auto', 'none' and the name of a file. Choose one."
            )
        if self.candles not in get_args(Candles):
            raise ValueError(f"candles={self.candles!r} is none of {list(get_args(Candles))}. Choose one.")
        self.price_limits()

    def price_limits(self) -> PriceLimits | Callable[[str], PriceLimits] | None:
        """What `limits` stands for."""
        if self.limits in (NONE, CHINA):
            return china_limits if self.limits == CHINA else None
        try:
            return PriceLimits(float(self.limits))
        except ValueError:
            raise ValueError(
                f"limits={self.limits!r} is none of 'none', 'china' and a share of the last close such as '0.1'. "
                "Choose one."
            ) from None

    def resolve(
        self, own: Calibration | None, known: Provenance, horizon: int, spacing: float | None = None
    ) -> Postprocessing:
        """What is done to the paths of a forecast.

        Args:
            own: calibration of the checkpoint.
            known: of the forecast as sampled.
            horizon: bars of its paths.
            spacing: seconds between bars; None where they are not known.

        Raises:
            FileNotFoundError: no such calibration.
            ValueError: the calibration that was named does not fit the forecast.
        """
        limits = self.price_limits()
        if self.calibration == NONE:
            return Postprocessing(None, limits, self.candles, "none, as was asked")
        if self.calibration == AUTO:
            if own is None:
                why = f"none: '{known.model}' has none of its own"
            elif (mismatch := own.mismatch(known, horizon, spacing)) is not None:
                why = f"none: the checkpoint's own does not fit, for {mismatch}"
            else:
                return Postprocessing(own, limits, self.candles, f"{own.id}, the checkpoint's own")
            return Postprocessing(None, limits, self.candles, why)
        named = _read(self.calibration)
        named.check(known, horizon, spacing)
        return Postprocessing(named, limits, self.candles, f"{named.id} of {self.calibration}")


@dataclass(frozen=True)
class Postprocessing:
    """What is done to paths as sampled before they are read, in this order.

    Attributes:
        calibration: that moves them; None for none.
        limits: that clip their prices; None for none.
        candles: "valid" repairs their bars.
        reason: which calibration, and why, ready to print.
    """

    calibration: Calibration | None = None
    limits: PriceLimits | Callable[[str], PriceLimits] | None = None
    candles: Candles = "valid"
    reason: str = "none"

    def __call__(self, forecast: Forecast) -> Forecast:
        """The forecast as it is read; its provenance says what was done."""
        made = forecast.calibrated(self.calibration)
        made = made if self.limits is None else made.limited(self.limits)
        return made.repaired() if self.candles == "valid" else made

    def warnings(self, first: pd.Timestamp) -> list[str]:
        """What a reader must know of forecasts the first of which is dated `first`."""
        if self.calibration is None or self.calibration.walk_forward:
            return []
        if pd.Timestamp(self.calibration.known_at) <= first:
            return []
        return [
            f"The calibration knows of outcomes until {self.calibration.known_at[:10]}, after the first test "
            "dates. Fit one that ends before them, or one that walks forward: `kronos calibrate --every 60`."
        ]


def _read(file: str) -> Calibration:
    """Once for each state of the file, since a live run asks at every bar."""
    path = Path(file).expanduser()
    return _read_once(path, path.stat().st_mtime_ns) if path.is_file() else Calibration.read(path)


@lru_cache(maxsize=8)
def _read_once(path: Path, modified: int) -> Calibration:
    return Calibration.read(path)


def spacing_of(windows: Windows) -> float | None:
    """Seconds of the shortest step that windows ask for; None where one step does not tell it."""
    dates = pd.DatetimeIndex(windows.index.get_level_values("datetime")).to_numpy("datetime64[ns]")
    return shortest_step(np.asarray(dates), windows.future)
