"""Calibration: moves sampled paths to where outcomes fell. Knows no torch, and fits nothing.

A path s of closes is c_s[h] = log(close_s[h] / last close) at step h. With m[h] and d[h] the mean and deviation
over paths, and v the window's trailing volatility per bar, a calibrated path is

    c'_s[h] = location[h] m[h] + exp(spread[h]) (v sqrt(h) / d[h]) ** trailing[h] (c_s[h] - m[h])

so that all four prices of step h of path s are multiplied by exp(c'_s[h] - c_s[h]): candles stay candles, and
whatever is read from paths (signals, bands, drawdowns) is calibrated alike. Volume and amount stay as sampled.
Bands around the median are widened by conformal factors besides. `kronos_strategies.calibration` fits all of these.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from kronos.forecast import Provenance

FORMAT = 1
PRETRAINED = Path(__file__).parent / "pretrained"
CALIBRATION = "calibration.json"  # beside a predictor's weights: the checkpoint's own
POOL = ""  # the group of all windows
VOLATILITY_BARS = 20  # returns that trailing volatility is measured on
MAX_RATIO = 4.0  # of trailing volatility to sampled deviation: what lies beyond counts as that much
_EXCHANGE = re.compile(r"^([A-Z]{2})\d{4,}$|^\d{4,}\.([A-Z]{2})$")  # SH600000 or 600000.SH


@dataclass(frozen=True)
class Moves:
    """How the paths of a group of windows are moved; each (H,), by step.

    Attributes:
        location: factor of the paths' mean log return, in [0, 1].
        spread: log factor of the paths' deviations from their mean.
        trailing: weight of trailing volatility in the spread, in [0, 1]: 0 keeps the sampled deviation, 1 takes the
            trailing one in its place.
    """

    location: tuple[float, ...]
    spread: tuple[float, ...]
    trailing: tuple[float, ...]


@dataclass(frozen=True)
class CalibrationFit:
    """What was learned from outcomes that were known on one date.

    Attributes:
        known_at: ISO date; every outcome behind the fit was known at its close.
        first: ISO date of the first forecast behind it.
        dates: forecast dates behind it.
        windows: forecasts behind it.
        groups: by name of the group (see `group_names`); that of all windows is POOL.
        terciles: the two trailing volatilities between which groups of volatility lie; empty without such groups.
        fewer_paths: number of paths k -> (H,) factors of `location` where a forecast has k paths only, whose mean
            is noisier: the regression of the mean of all paths on that of the first k.
        bands: level of a central band -> (H,) factors of its half-widths around the median.
    """

    known_at: str
    first: str
    dates: int
    windows: int
    groups: Mapping[str, Moves]
    terciles: tuple[float, ...]
    fewer_paths: Mapping[int, tuple[float, ...]]
    bands: Mapping[float, tuple[float, ...]]

    def location_factor(self, samples: int) -> np.ndarray:
        """(H,) of the largest count of `fewer_paths` that `samples` paths reach; 1 where they reach all."""
        reached = [count for count in self.fewer_paths if count <= samples]
        counts = reached or list(self.fewer_paths)
        return (
            np.array(self.fewer_paths[max(counts) if reached else min(counts)]) if counts else np.array(1.0)
        )

    def shift(self, returns: np.ndarray, trailing: np.ndarray, keys: pd.MultiIndex) -> np.ndarray:
        """By what the log prices of each path move at each step; arguments as of `Calibration.shift`."""
        samples, horizon = returns.shape[1:]
        fewer = np.broadcast_to(self.location_factor(samples), len(self.groups[POOL].location))[:horizon]
        ratio, names, shift = (
            log_ratio(returns, trailing),
            group_names(keys, trailing, self),
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
        """(H,) interpolated between the levels that were fitted; beyond them that of the nearest."""
        levels = sorted(self.bands)
        if not levels:
            return np.ones(len(self.groups[POOL].location))
        table = np.array([self.bands[each] for each in levels])  # (levels, H)
        return np.array([np.interp(level, levels, column) for column in table.T])


@dataclass(frozen=True)
class Calibration:
    """Fitted moves, and what they were fitted to; applied by `Forecast.calibrated`.

    Attributes:
        model: name of the checkpoint.
        weights_sha256: of both of its networks; paths of other weights are refused.
        T, top_p, top_k: of the sampling; paths sampled otherwise are refused.
        samples: paths of the forecasts that it was fitted to.
        anchor: where these start; see `Provenance`.
        horizon: H, bars; longer paths are refused.
        spacing: seconds between bars, the shortest step that was forecast; paths of bars over four times as far
            apart, or as near, are refused. 0 where it is not known.
        market: what the windows were of.
        lookback: bars of a window.
        embargo: what was left out, in words.
        fits: by `known_at`, ascending.
        walk_forward: a forecast is moved by the last fit that was known on its date, and stays as sampled before
            the first; otherwise there is one fit, for all dates.
        table: rows of a comparison before and after, on dates held back from the fit that made them.
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
            raise ValueError("A calibration without a fit moves nothing. Fit one with `kronos calibrate`.")
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
                    f"The calibration of '{self.model}' has no {self.horizon} numbers for each step. Fit it again "
                    "with `kronos calibrate`."
                )
            if not all(np.isfinite(row).all() for row in rows):
                raise ValueError(
                    f"The calibration of '{self.model}' has numbers that are missing or infinite. Fit it again "
                    "with `kronos calibrate`."
                )

    @cached_property
    def id(self) -> str:
        """12 hexadecimal digits of all that decides how paths are moved."""
        values = {name: value for name, value in self.as_dict().items() if name != "table"}
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def known_at(self) -> str:
        """ISO date on which the last fit was known."""
        return self.fits[-1].known_at

    def misfit(self, known: Provenance, horizon: int, spacing: float | None = None) -> str | None:
        """Why it cannot be applied to such forecasts, as a clause; None where it can.

        Args:
            known: of the forecasts.
            horizon: bars of their paths.
            spacing: seconds between bars; None where they are not known.
        """
        s = known.sampling
        if known.weights_sha256 != self.weights_sha256:
            return (
                f"it was fitted to paths of '{self.model}' with weights {self.weights_sha256[:12]}, and these are "
                f"of '{known.model}' with weights {(known.weights_sha256 or 'of no file')[:12]}"
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
        """Demand that it can be applied to such forecasts; arguments as of `misfit`.

        Raises:
            ValueError: it was fitted to others; says how they differ.
        """
        if (why := self.misfit(known, horizon, spacing)) is not None:
            raise ValueError(
                f"The calibration of {self.market} does not fit these forecasts: {why}. Fit another with "
                "`kronos calibrate`, or choose calibration='none'."
            )

    def shift(self, returns: np.ndarray, trailing: np.ndarray | None, keys: pd.MultiIndex) -> np.ndarray:
        """By what the log prices of each path move at each step.

        Args:
            returns: (N, S, H) log returns of closes since the last one.
            trailing: (N,) volatility per bar, see `trailing_volatility`; None or NaN keeps the sampled deviation.
            keys: (N,) (datetime, instrument) of the windows.

        Returns:
            (N, S, H) float64, to add to log prices; 0 where no fit was known yet.
        """
        trailing = np.full(len(returns), np.nan) if trailing is None else np.asarray(trailing, float)
        shift = np.zeros(returns.shape)
        for number, rows in self._rows(keys):
            shift[rows] = self.fits[number].shift(returns[rows], trailing[rows], keys[rows])
        return shift

    def band_factors(self, level: float, keys: pd.MultiIndex, horizon: int) -> np.ndarray:
        """(N, H) factors of the half-widths of a central band around the median; 1 where no fit was known yet."""
        factors = np.ones((len(keys), horizon))
        for number, rows in self._rows(keys):
            factors[rows] = self.fits[number].band_factor(level)[:horizon]
        return factors

    def _rows(self, keys: pd.MultiIndex) -> list[tuple[int, np.ndarray]]:
        """Number of each fit that any window is moved by, and these windows' rows."""
        if not self.walk_forward:
            return [(0, np.arange(len(keys)))]
        known = pd.DatetimeIndex([fit.known_at for fit in self.fits])
        last = known.searchsorted(pd.DatetimeIndex(keys.get_level_values("datetime")), side="right") - 1
        return [(int(number), np.flatnonzero(last == number)) for number in np.unique(last[last >= 0])]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"format": FORMAT, **_plain(asdict(self))}

    def write(self, path: str | Path) -> Path:
        """Write it as JSON; its folder is made."""
        path = Path(path).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: str | Path) -> Calibration:
        """What `write` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a calibration, or one of another version.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no calibration {path}. Choose 'auto', 'none', or a file that `kronos calibrate` wrote."
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.pop("format") != FORMAT:
                raise ValueError("it is of another version of kronos")
            fits = tuple(_read_fit(each) for each in values.pop("fits"))
            return cls(**values | {"fits": fits, "table": tuple(values["table"])})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is not a calibration ({error}). Write one with `kronos calibrate`."
            ) from None


def own_calibration(model: str | Path) -> Calibration | None:
    """The calibration that lies beside a model's weights, `calibration.json`; None where there is none.

    Args:
        model: bundled name or folder; what comes from the hub brings none along.

    Raises:
        ValueError: the file holds anything else.
    """
    bundled, named = PRETRAINED / str(model), Path(model).expanduser()
    folders = (bundled / "predictor", named / "predictor", named)
    file = next((folder / CALIBRATION for folder in folders if (folder / CALIBRATION).is_file()), None)
    return None if file is None else Calibration.read(file)


def trailing_volatility(closes: np.ndarray, ends: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Deviation of the last VOLATILITY_BARS log returns of each window, per bar; known at its last close.

    Args:
        closes: (M,) of the tape that the windows are cut from.
        ends: (N,) where the last bar of each is.
        lengths: (N,) bars of each.

    Returns:
        (N,) float32; NaN of a window of fewer than 3 bars, or with a close among these that is not positive.
    """
    back = np.arange(VOLATILITY_BARS, -1, -1)
    within = back < lengths[:, None]  # (N, VOLATILITY_BARS + 1)
    seen = closes[np.where(within, ends[:, None] - back, ends[:, None])].astype(np.float64)
    steps = np.diff(np.log(np.where(seen > 0, seen, np.nan)), axis=1)
    steps = np.where(within[:, :-1], steps, 0.0)  # a bar before the window counts for nothing
    count = within[:, :-1].sum(axis=1)
    mean = steps.sum(axis=1) / np.maximum(count, 1)
    squares = np.where(within[:, :-1], (steps - mean[:, None]) ** 2, 0.0).sum(axis=1)
    return np.where(count > 1, np.sqrt(squares / np.maximum(count - 1, 1)), np.nan).astype(np.float32)


def log_ratio(returns: np.ndarray, trailing: np.ndarray) -> np.ndarray:
    """(N, H) log of trailing volatility over the sampled deviation, capped; 0 where one of them is unknown.

    Args:
        returns: (N, S, H) log returns of closes since the last one.
        trailing: (N,) volatility per bar.
    """
    deviation = returns.std(axis=1, dtype=np.float64)
    expected = trailing[:, None] * np.sqrt(np.arange(1, returns.shape[2] + 1))
    known = (deviation > 0) & (expected > 0)
    ratio = np.log(np.divide(expected, deviation, out=np.ones_like(deviation), where=known))
    return ratio.clip(-np.log(MAX_RATIO), np.log(MAX_RATIO))


def group_names(keys: pd.MultiIndex, trailing: np.ndarray, fit: CalibrationFit) -> np.ndarray:
    """(N,) names of the windows' groups in a fit, such as "SH", "SH high volatility"; POOL where it knows no such.

    Args:
        keys: (datetime, instrument).
        trailing: (N,) volatility per bar.
        fit: that has the groups.
    """
    codes, unique = pd.factorize(keys.get_level_values("instrument").astype(str))
    exchanges = np.array([exchange_of(name) for name in unique], dtype=object)[codes]
    sizes = volatility_names(trailing, fit.terciles)
    found = np.full(len(keys), POOL, dtype=object)
    for candidate in (sizes, exchanges, _joined(exchanges, sizes)):  # the narrowest that there is comes last
        found = np.where(np.isin(candidate.astype(str), list(fit.groups)), candidate, found)
    return found.astype(str)


def exchange_of(instrument: str) -> str:
    """SH of SH600000 and of 600000.SH; empty where a name tells no exchange."""
    found = _EXCHANGE.search(instrument)
    return (found[1] or found[2]) if found else ""


def volatility_names(trailing: np.ndarray, terciles: tuple[float, ...]) -> np.ndarray:
    """(N,) "low volatility", "middle volatility" or "high volatility"; empty without terciles, or where unknown."""
    if not terciles:
        return np.full(len(trailing), "", dtype=object)
    names = np.array(["low volatility", "middle volatility", "high volatility"], dtype=object)
    found = names[np.searchsorted(terciles, np.nan_to_num(trailing))]
    return np.where(np.isfinite(trailing), found, "")


def band_ends(
    returns: np.ndarray, level: float, factor: np.ndarray | float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the central band of sampled log returns, quantiles at Weibull positions.

    Args:
        returns: (N, S, ...), sampled along axis 1.
        level: share of the paths within.
        factor: of the distance of either end from the median.

    Returns:
        (N, ...) low and high.
    """
    tails = [(1 - level) / 2, 0.5, (1 + level) / 2]
    low, middle, high = np.quantile(returns, tails, axis=1, method="weibull")
    return middle - factor * (middle - low), middle + factor * (high - middle)


def price_band(closes: np.ndarray, level: float, factor: np.ndarray) -> np.ndarray:
    """Ends of the central band of sampled closes: quantiles at Weibull positions, widened in log prices.

    Args:
        closes: (N, S, ...) positive, sampled along axis 1.
        level: share of the paths within.
        factor: (N, ...) of the log distance of either end from the median; 1 leaves the quantiles.

    Returns:
        (2, N, ...) low and high.
    """
    plain = np.quantile(closes, [(1 - level) / 2, (1 + level) / 2], axis=1, method="weibull")
    if (factor == 1).all():
        return plain
    return np.where(factor == 1, plain, np.exp(band_ends(np.log(closes), level, factor)))


def _joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.array([f"{a} {b}".strip() for a, b in zip(first, second, strict=True)], dtype=object)


def _read_fit(values: dict[str, Any]) -> CalibrationFit:
    groups = {
        name: Moves(**{key: tuple(row) for key, row in moves.items()})
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
