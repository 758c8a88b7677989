"""Calibration of sampled paths to realized outcomes: applies fitted parameters, and fits nothing.

Path s has the log returns c_s[h] = log(close_s[h] / last close) at step h. With m[h] and d[h] their mean and
standard deviation over paths, and v the window's trailing volatility per bar, a calibrated path is

    c'_s[h] = location[h] m[h] + exp(spread[h]) (v sqrt(h) / d[h]) ** trailing[h] (c_s[h] - m[h])

so that all four prices of step h of path s are multiplied by exp(c'_s[h] - c_s[h]): valid bars stay valid, and
everything derived from paths (signals, bands, drawdowns) is calibrated consistently. Volume and amount stay as
sampled. Bands are also widened around the median by conformal factors. `kronos_strategies.calibration` fits them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kronos.config import PRETRAINED
from kronos.paths import POOL, group_names, log_ratio
from kronos.utils import explain_write_errors, write_atomic

if TYPE_CHECKING:
    from kronos.forecast import Provenance

FORMAT = 1
CALIBRATION = "calibration.json"  # in the predictor's folder


@dataclass(frozen=True)
class PathAdjustment:
    """Parameters that adjust the paths of a group of windows; each (H,), by step.

    Attributes:
        location: factor on the paths' mean log return, in [0, 1].
        spread: log factor on the paths' deviations from their mean.
        trailing: weight of trailing volatility in the spread, in [0, 1]: 0 keeps the standard deviation of the
            paths, 1 replaces it by the trailing one.
    """

    location: tuple[float, ...]
    spread: tuple[float, ...]
    trailing: tuple[float, ...]


@dataclass(frozen=True)
class CalibrationFit:
    """Parameters fitted to the outcomes that were known on one date.

    Attributes:
        known_at: ISO date by whose close every outcome in the fit was known.
        first: ISO date of the first forecast in the fit.
        dates: number of forecast dates in the fit.
        windows: number of forecasts in the fit.
        groups: parameters by group name (see `group_names`); POOL is the group of all windows.
        terciles: the two terciles of trailing volatility; empty without volatility groups.
        fewer_paths: number of paths k -> (H,) factors on `location` for forecasts with only k paths, whose mean is
            noisier: the regression of the mean of all paths on that of the first k.
        bands: level of a central band -> (H,) factors on its half-widths around the median.
    """

    known_at: str
    first: str
    dates: int
    windows: int
    groups: Mapping[str, PathAdjustment]
    terciles: tuple[float, ...]
    fewer_paths: Mapping[int, tuple[float, ...]]
    bands: Mapping[float, tuple[float, ...]]

    def location_factor(self, samples: int) -> np.ndarray:
        """(H,) factors for the largest count in `fewer_paths` that is at most `samples`; 1 without counts."""
        reached = [count for count in self.fewer_paths if count <= samples]
        counts = reached or list(self.fewer_paths)
        return (
            np.array(self.fewer_paths[max(counts) if reached else min(counts)]) if counts else np.array(1.0)
        )

    def shift(self, returns: np.ndarray, trailing: np.ndarray, keys: pd.MultiIndex) -> np.ndarray:
        """Shift of the log prices of each path at each step; arguments as in `Calibration.shift`."""
        samples, horizon = returns.shape[1:]
        fewer = np.broadcast_to(self.location_factor(samples), len(self.groups[POOL].location))[:horizon]
        ratio, names, shift = (
            log_ratio(returns, trailing),
            group_names(keys, trailing, self.terciles, self.groups),
            np.empty(returns.shape),
        )
        for name in np.unique(names):
            rows, moves = names == name, self.groups[str(name)]
            location, spread, weight = (
                np.array(each)[:horizon] for each in (moves.location, moves.spread, moves.trailing)
            )
            factor = np.exp(spread + weight * ratio[rows])[:, None]  # (n, 1, H)
            center = returns[rows].mean(axis=1, dtype=np.float64)[:, None]
            shift[rows] = (location * fewer - 1) * center + (factor - 1) * (returns[rows] - center)
        return shift

    def band_factor(self, level: float) -> np.ndarray:
        """(H,) factors interpolated between fitted levels; outside them, those of the nearest level."""
        levels = sorted(self.bands)
        if not levels:
            return np.ones(len(self.groups[POOL].location))
        table = np.array([self.bands[each] for each in levels])  # (levels, H)
        return np.array([np.interp(level, levels, column) for column in table.T])


@dataclass(frozen=True)
class Calibration:
    """Fitted parameters, and what they were fitted to; applied by `Forecast.calibrated`.

    Attributes:
        model: name of the checkpoint.
        weights_sha256: sha256 of both networks; paths of other weights are refused.
        T, top_p, top_k: sampling settings; paths with others are refused.
        samples: number of paths of the forecasts in the fit.
        anchor: where these paths start; see `Provenance`.
        horizon: H, number of bars; longer paths are refused.
        spacing: seconds between bars, the shortest forecast step; paths whose step differs by more than a factor of
            four are refused. 0 if unknown.
        market: universe of the windows.
        lookback: bars per window.
        embargo: description of the excluded dates.
        fits: fits in ascending order of `known_at`.
        walk_forward: a forecast uses the last fit known on its date, and stays raw before the first; otherwise
            there is one fit, for all dates.
        table: rows of a comparison before and after calibration, on dates outside the fit that was applied.
    """

    model: str
    weights_sha256: str
    T: float
    top_p: float
    top_k: int
    samples: int
    anchor: str
    horizon: int
    spacing: float
    market: str
    lookback: int
    embargo: str
    fits: tuple[CalibrationFit, ...]
    walk_forward: bool = False
    table: tuple[Mapping[str, Any], ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not self.fits:
            raise ValueError("A calibration needs at least one fit. Create one with `kronos calibrate`.")
        for fit in self.fits:
            rows = [
                *(
                    row
                    for moves in fit.groups.values()
                    for row in (moves.location, moves.spread, moves.trailing)
                ),
                *fit.bands.values(),
                *fit.fewer_paths.values(),
            ]
            if POOL not in fit.groups or any(len(row) != self.horizon for row in rows):
                raise ValueError(
                    f"The calibration of '{self.model}' does not have {self.horizon} numbers per parameter. Fit it "
                    "again with `kronos calibrate`."
                )
            if not all(np.isfinite(row).all() for row in rows):
                raise ValueError(
                    f"The calibration of '{self.model}' has missing or infinite numbers. Fit it again "
                    "with `kronos calibrate`."
                )

    @cached_property
    def id(self) -> str:
        """12 hexadecimal digits of the hash of everything that determines the calibrated paths."""
        values = {name: value for name, value in self.as_dict().items() if name != "table"}
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def known_at(self) -> str:
        """ISO date of the last fit."""
        return self.fits[-1].known_at

    def mismatch(self, known: Provenance, horizon: int, spacing: float | None = None) -> str | None:
        """Reason why it cannot be applied to these forecasts, as a clause; None if it can.

        Args:
            known: provenance of the forecasts.
            horizon: bars per path.
            spacing: seconds between bars; None if unknown.
        """
        s = known.sampling
        if known.weights_sha256 != self.weights_sha256:
            return (
                f"it was fitted to paths of '{self.model}' with weights {self.weights_sha256[:12]}, and these are "
                f"of '{known.model}' with weights {(known.weights_sha256 or 'unknown')[:12]}"
            )
        if (s.T, s.top_p, s.top_k) != (self.T, self.top_p, self.top_k):
            return (
                f"it was fitted to paths of T={self.T:g}, top_p={self.top_p:g}, top_k={self.top_k}, and these are "
                f"of T={s.T:g}, top_p={s.top_p:g}, top_k={s.top_k}"
            )
        if known.anchor != self.anchor:
            first, other = (anchor.replace("_", " ") for anchor in (self.anchor, known.anchor))
            return f"it was fitted to paths from the {first}, and these start at the {other}"
        if horizon > self.horizon:
            return f"it was fitted to {self.horizon} bars, and these paths have {horizon}"
        if spacing is not None and self.spacing and not self.spacing / 4 <= spacing <= self.spacing * 4:
            return (
                f"it was fitted to bars {pd.Timedelta(seconds=self.spacing)} apart, and these are "
                f"{pd.Timedelta(seconds=spacing)} apart"
            )
        return None

    def check(self, known: Provenance, horizon: int, spacing: float | None = None) -> None:
        """Require that it can be applied to these forecasts; arguments as in `mismatch`.

        Raises:
            ValueError: it was fitted to different forecasts; says how they differ.
        """
        if (why := self.mismatch(known, horizon, spacing)) is not None:
            raise ValueError(
                f"The calibration of {self.market} does not fit these forecasts: {why}. Fit another with "
                "`kronos calibrate`, or choose calibration='none'."
            )

    def shift(self, returns: np.ndarray, trailing: np.ndarray | None, keys: pd.MultiIndex) -> np.ndarray:
        """Shift of the log prices of each path at each step.

        Args:
            returns: (N, S, H) log returns from the last close.
            trailing: (N,) volatility per bar, see `trailing_volatility`; None or NaN keeps the paths' own
                deviation.
            keys: (N,) MultiIndex (datetime, instrument) of the windows.

        Returns:
            (N, S, H) float64, to add to log prices; 0 before the first fit.
        """
        trailing = np.full(len(returns), np.nan) if trailing is None else np.asarray(trailing, float)
        shift = np.zeros(returns.shape)
        for number, rows in self._rows(keys):
            shift[rows] = self.fits[number].shift(returns[rows], trailing[rows], keys[rows])
        return shift

    def band_factors(self, level: float, keys: pd.MultiIndex, horizon: int) -> np.ndarray:
        """(N, H) factors on the half-widths of a central band around the median; 1 before the first fit."""
        factors = np.ones((len(keys), horizon))
        for number, rows in self._rows(keys):
            factors[rows] = self.fits[number].band_factor(level)[:horizon]
        return factors

    def _rows(self, keys: pd.MultiIndex) -> list[tuple[int, np.ndarray]]:
        """Position of each fit in use, and the rows of the windows that use it."""
        if not self.walk_forward:
            return [(0, np.arange(len(keys)))]
        known = pd.DatetimeIndex([fit.known_at for fit in self.fits])
        last = known.searchsorted(pd.DatetimeIndex(keys.get_level_values("datetime")), side="right") - 1
        return [(int(number), np.flatnonzero(last == number)) for number in np.unique(last[last >= 0])]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"format": FORMAT, **_plain(asdict(self))}

    def write(self, path: str | Path) -> Path:
        """Write it as JSON; creates its folder.

        Raises:
            OSError: the file cannot be written.
        """
        path = Path(path).expanduser()
        with explain_write_errors(path, "Choose another file."):
            path.parent.mkdir(parents=True, exist_ok=True)
            return write_atomic(path, json.dumps(self.as_dict(), indent=1, allow_nan=False) + "\n")

    @classmethod
    def read(cls, path: str | Path) -> Calibration:
        """Read a file written by `write`.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a calibration, or written by another version.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no calibration {path}. Choose 'auto', 'none', or a file written by `kronos calibrate`."
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.pop("format") != FORMAT:
                raise ValueError("another version of kronos wrote it")
            fits = tuple(_read_fit(each) for each in values.pop("fits"))
            return cls(**values | {"fits": fits, "table": tuple(values["table"])})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is not a calibration ({error}). Create one with `kronos calibrate`."
            ) from None


def checkpoint_calibration(model: str | Path) -> Calibration | None:
    """The calibration in a checkpoint's folder, `calibration.json`; None without one.

    Args:
        model: bundled name or folder; hub checkpoints have none.

    Raises:
        ValueError: the file is not a calibration.
    """
    bundled, named = PRETRAINED / str(model), Path(model).expanduser()
    folders = (bundled / "predictor", named / "predictor", named)
    file = next((folder / CALIBRATION for folder in folders if (folder / CALIBRATION).is_file()), None)
    return None if file is None else Calibration.read(file)


def _read_fit(values: dict[str, Any]) -> CalibrationFit:
    groups = {
        name: PathAdjustment(**{key: tuple(row) for key, row in moves.items()})
        for name, moves in values["groups"].items()
    }
    return CalibrationFit(
        **values
        | {
            "groups": groups,
            "terciles": tuple(values["terciles"]),
            "fewer_paths": {int(count): tuple(row) for count, row in values["fewer_paths"].items()},
            "bands": {float(level): tuple(row) for level, row in values["bands"].items()},
        }
    )


def _plain(value: Any) -> Any:
    """Tuples as lists, keys as text."""
    if isinstance(value, Mapping):
        return {
            f"{key:g}" if isinstance(key, float) else str(key): _plain(each) for key, each in value.items()
        }
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value
