"""Windows -> forecasts -> statistics of their paths, each computed once: one model and one cache per process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from kronos.bars import stamps
from kronos.config import SampleConfig
from kronos.forecast import Forecast, Provenance, step_seconds
from kronos.panels import KEYS
from kronos.paths import Candles
from kronos.postprocessing import PathOptions, Postprocessing
from kronos.windows import MIN_BARS, Windows
from kronos_strategies.backtrader.lines import FINAL_CLOSES, SCORE, path_statistics
from kronos_strategies.backtrader.optimization import limit_threads_after_fork
from kronos_strategies.forecasters.registry import load_forecaster
from kronos_strategies.forecasting import iter_forecasts
from kronos_strategies.heads.selection import (
    HeadReader,
    ScoreChoice,
    ScoreUse,
    choose_score,
    head_names,
    load_readers,
)
from kronos_strategies.path_signals import PathSignalSettings
from kronos_strategies.progress import ProgressReport, no_progress, offset_progress
from kronos_strategies.signal import DEFAULT_LEVELS
from kronos_strategies.store import ForecastStore, WindowSpec

if TYPE_CHECKING:
    from kronos_strategies.forecasters.protocol import Forecaster

CACHE_SIZE = 200_000  # windows; about 80 MB at 20 samples each


@dataclass(frozen=True)
class ForecastSettings:
    """All settings of a forecast except its bars; each is a parameter of `KronosIndicator`, which documents it.

    Empty text stands for the default of device, store, tokenizer, revision, calendar, calibration and limits, and
    hold=0 for `every`, so that values from the command line can be passed as they are.

    Raises:
        ValueError: a setting is out of range.
    """

    model: str = "kronos-nano"
    lookback: int = 90
    horizon: int = 5
    samples: int = 20
    every: int = 5
    T: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int = 0
    device: str | None = None
    store: str | None = None
    tokenizer: str | None = None
    revision: str | None = None
    calibration: str = "auto"
    candles: Candles = "valid"
    limits: str = "none"
    hold: int = 0
    score: str = "auto"
    heads: str = ""
    calendar: str | None = None
    tail: float = DEFAULT_LEVELS.tail
    take_profit: float = DEFAULT_LEVELS.take_profit
    stop_loss: float = DEFAULT_LEVELS.stop_loss
    drawdown: float = DEFAULT_LEVELS.drawdown

    def __post_init__(self) -> None:
        if not isinstance(self.model, str):
            raise ValueError(
                f"model is a {type(self.model).__name__}. Pass the name of a bundled model, a folder, a hub id or "
                "another forecaster such as 'baseline:garch'."
            )
        for name, least in (("lookback", MIN_BARS), ("horizon", 1), ("every", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
                raise ValueError(
                    f"{name}={value!r} is not a valid number of bars. Pass an integer of at least {least}."
                )
            self._set(name, int(value))
        for name in ("device", "store", "tokenizer", "revision", "calendar"):
            self._set(name, getattr(self, name) or None)
        self._set("calibration", str(self.calibration or "auto"))
        self._set("limits", str(self.limits or "none"))
        self._set("hold", self.hold or self.every)
        self.options  # noqa: B018 (raises for invalid options)
        self.levels  # noqa: B018

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def options(self) -> PathOptions:
        """Postprocessing of the paths, by name."""
        return PathOptions(self.calibration, self.candles, self.limits)

    @property
    def levels(self) -> PathSignalSettings:
        """Levels that some signals refer to."""
        return PathSignalSettings(self.tail, self.take_profit, self.stop_loss, self.drawdown)

    def postprocessing(self, spacing: float | None = None, known: Provenance | None = None) -> Postprocessing:
        """Postprocessing of the paths of windows with `spacing` seconds between bars, None if unknown.

        `known` is the provenance of the forecasts; finding it compares all weights with those of the checkpoint.

        Raises:
            FileNotFoundError: the calibration does not exist.
            ValueError: the named calibration does not fit the forecast.
        """
        predictor = self.predictor()
        known = known or predictor.provenance(self.sampling(), "")
        return self.options.resolve(predictor.calibration, known, self.horizon, spacing)

    def predictor(self) -> Forecaster:
        """The model, loaded once per process."""
        limit_threads_after_fork()  # first: even the provenance reads the weights
        return _load(self.model, self.tokenizer, self.revision, self.device)

    def sampling(self) -> SampleConfig:
        """Settings of the sampling, those of the checkpoint where they are None here."""
        return self.predictor().sampling.with_overrides(
            self.samples or 1, self.T, self.top_p, self.top_k, self.seed
        )

    def score_choice(self, daily: bool = True) -> ScoreChoice:
        """Source of the scores of daily bars, or of bars of another length.

        Raises:
            ValueError: a return head is required and missing, or there is neither a head nor a path.
        """
        frequency = "1day" if daily else "another length"
        use = ScoreUse(self.hold, self.lookback, price=None, frequency=frequency)
        choice = choose_score(self.score, [reader.head for reader in self._readers()], use)
        if self.samples == 0 and not choice.heads:
            raise ValueError(
                f"samples=0 samples no path, and no return head can give the score: {choice.why}. Set samples=1 or "
                "more, or require the head with score='head'."
            )
        return choice

    def path_statistics(
        self,
        windows: Windows,
        instruments: tuple[str, ...],
        progress: ProgressReport = no_progress,
        daily: np.ndarray | None = None,
        bars: int = 1,
    ) -> np.ndarray:
        """Statistics of the forecasts of windows; only those missing from cache and store are computed.

        Args:
            windows: N windows, sorted by (datetime, instrument).
            instruments: all instruments that are ever forecast together; they label the store.
            progress: called as progress(windows done, N).
            daily: (N,) bool, windows of daily bars, which a return head may score; all when omitted.
            bars: last bars whose closes are returned.

        Returns:
            (N, FINAL_CLOSES + bars * S), see `lines.path_statistics`; all but the score are NaN where nothing is
            sampled.
        """
        spec = WindowSpec(",".join(instruments), self.lookback, self.horizon, self.lookback)
        found = np.full((len(windows), FINAL_CLOSES), np.nan)
        if self.samples:
            found = self._sample(windows, spec, progress, bars)
        choice = self.score_choice()
        scored = np.ones(len(windows), bool) if daily is None or self.score == "head" else daily
        if not self.samples and not scored.all():
            self.score_choice(daily=False)  # raises, since these bars would have no score
        if choice.heads and scored.any():
            outputs = [self._head_outputs(reader, windows[scored], spec) for reader in self._readers()]
            found[scored, SCORE] = choice.average(outputs)
        return found

    def band_factors(self, windows: Windows, level: float) -> np.ndarray:
        """(N,) multipliers of the band's half-widths at the horizon, see `Forecast.band_factors`."""
        factors = np.ones(len(windows))
        known = self.predictor().provenance(self.sampling(), "")
        for rows, post in self._by_spacing(windows.index, windows.future, known):
            if post.calibration is not None:
                keys = windows.index[rows]
                factors[rows] = post.calibration.band_factors(level, keys, self.horizon)[:, -1]
        return factors

    def _sample(self, windows: Windows, spec: WindowSpec, progress: ProgressReport, bars: int) -> np.ndarray:
        predictor, sampling = self.predictor(), self.sampling()
        if self.store is not None:
            filled = ForecastStore(self.store).fill(predictor, windows, spec, sampling, progress)
            return np.concatenate([self._statistics_of(forecast, bars) for forecast in filled])

        def compute(missing: Windows, report: Callable[[int], None]) -> np.ndarray:
            parts = iter_forecasts(predictor, missing, sampling, lambda done, _: report(done))
            return np.concatenate([self._statistics_of(forecast, bars) for forecast in parts])

        provenance = predictor.provenance(sampling, "")
        post = self.postprocessing(known=provenance)
        calibration = None if post.calibration is None else post.calibration.id
        inputs = provenance, calibration, post.limits, post.candles, self.levels, bars
        key = inputs if provenance.weights_sha256 else None
        by_instrument = post.calibration is not None or post.limits is not None
        return _cached(key, windows, compute, progress, by_instrument)

    def _head_outputs(self, reader: HeadReader, windows: Windows, spec: WindowSpec) -> np.ndarray:
        """(N, K) outputs of a return head."""
        predictor, head = reader
        if self.store is not None:
            return ForecastStore(self.store).head_outputs(predictor, head, windows, spec)
        known = predictor.provenance(self.sampling(), "")
        inputs = known.weights_sha256, known.max_context, known.precision, head.sha256, head.info.horizons
        key = inputs if known.weights_sha256 else None
        return _cached(key, windows, lambda missing, _: head(predictor.embed(missing)), no_progress)

    def _readers(self) -> list[HeadReader]:
        limit_threads_after_fork()
        return _load_heads(self.model, self.tokenizer, self.revision, self.device, head_names(self.heads))

    def _statistics_of(self, forecast: Forecast, bars: int) -> np.ndarray:
        """(N, FINAL_CLOSES + S) statistics of a forecast as sampled, after its postprocessing."""
        parts = [
            (rows, path_statistics(post(forecast[rows]), self.levels, bars))
            for rows, post in self._by_spacing(forecast.index, forecast.timestamps, forecast.provenance)
        ]
        found = np.empty((len(forecast), parts[0][1].shape[1]))
        for rows, part in parts:
            found[rows] = part
        return found

    def _by_spacing(
        self, keys: pd.MultiIndex, future: np.ndarray, known: Provenance
    ) -> Iterator[tuple[np.ndarray, Postprocessing]]:
        """Rows of windows with the same seconds between bars, and the postprocessing of their paths.

        It depends on each window alone, because different modes of the engine forecast different windows together.
        """
        dates = pd.DatetimeIndex(keys.get_level_values("datetime")).to_numpy("datetime64[ns]")
        spacings, group = np.unique(step_seconds(dates, future), return_inverse=True)
        for number, spacing in enumerate(spacings):
            yield group == number, self.postprocessing(None if np.isnan(spacing) else float(spacing), known)


_CACHE: dict[Hashable, dict[bytes, np.ndarray]] = {}


def _cached(
    key: Hashable | None,
    windows: Windows,
    compute: Callable[[Windows, Callable[[int], None]], np.ndarray],
    progress: ProgressReport,
    by_instrument: bool = False,
) -> np.ndarray:
    """One row per window, from the cache or else from `compute`.

    Args:
        key: everything that rows depend on besides their windows; None disables the cache, for networks without a
            checksum, which may have been changed in place.
        windows: N windows.
        compute: computes the rows of some windows.
        progress: called as progress(windows done, N).
        by_instrument: see `_window_hashes`.
    """
    cache = {} if key is None else _CACHE.setdefault(key, {})
    hashes = _window_hashes(windows, by_instrument)
    missing = np.array([each not in cache for each in hashes])
    known = int((~missing).sum())
    progress(known, len(windows))
    if missing.any():
        report = offset_progress(progress, known, len(windows))
        new = [each for each, absent in zip(hashes, missing, strict=True) if absent]
        cache.update(zip(new, compute(windows[missing], report), strict=True))
    found = np.array([cache[each] for each in hashes])
    for oldest in list(cache)[: max(0, len(cache) - CACHE_SIZE)]:
        del cache[oldest]
    return found


def _window_hashes(windows: Windows, by_instrument: bool) -> list[bytes]:
    """Hashes of everything that a window's forecast depends on: bars, calendar fields, date, future timestamps.

    Args:
        windows: N windows.
        by_instrument: whether it depends on the instrument's name too, as with calibrations and price limits.
    """
    instruments = windows.index.get_level_values("instrument").astype(str)
    names = instruments if by_instrument else [""] * len(windows)
    dates = pd.DatetimeIndex(windows.index.get_level_values("datetime")).as_unit("ns").asi8
    found = []
    for end, length, future, date, name in zip(
        windows.end_positions.tolist(), windows.lengths.tolist(), windows.future, dates, names, strict=True
    ):
        bars = slice(end + 1 - length, end + 1)
        digest = hashlib.sha256(windows.bars[bars].tobytes())
        for array in (windows.bar_stamps[bars], future, date):
            digest.update(array.tobytes())
        digest.update(name.encode())
        found.append(digest.digest())
    return found


@lru_cache(maxsize=4)
def _load(model: str, tokenizer: str | None, revision: str | None, device: str | None) -> Forecaster:
    return load_forecaster(model, tokenizer, revision, device)


@lru_cache(maxsize=4)
def _load_heads(
    model: str, tokenizer: str | None, revision: str | None, device: str | None, heads: tuple[str, ...]
) -> list[HeadReader]:
    predictor = _load(model, tokenizer, revision, device)
    return load_readers(predictor, heads, lambda other: _load(other, None, None, device))


class AssetWindows(NamedTuple):
    """Windows of one asset, and what they are cut from."""

    instrument: str
    values: np.ndarray  # (M, 6) float32
    times: np.ndarray  # (M,) datetime64[ns]
    end_positions: np.ndarray  # (N,) int64, last bar of each window
    future: np.ndarray  # (N, H) datetime64[ns]
    is_daily: bool


def join_windows(parts: Sequence[AssetWindows], lookback: int) -> Windows:
    """The windows of some assets, in their order."""
    times = np.concatenate([part.times for part in parts])
    starts = np.cumsum([0, *(len(part.times) for part in parts[:-1])])
    ends = np.concatenate([part.end_positions + start for part, start in zip(parts, starts, strict=True)])
    instruments = np.repeat([part.instrument for part in parts], [len(part.end_positions) for part in parts])
    return Windows(
        bars=np.concatenate([part.values for part in parts]),
        bar_stamps=stamps(pd.DatetimeIndex(times)),
        end_positions=ends,
        lengths=np.full(len(ends), lookback, np.int64),
        future=np.concatenate([part.future for part in parts]),
        index=pd.MultiIndex.from_arrays([pd.DatetimeIndex(times[ends]), instruments], names=KEYS),
    )
