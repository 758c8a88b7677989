"""Windows -> outlooks, each computed once: one model a process, and a memory or a folder of its forecasts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kronos.config import SampleConfig
from kronos.forecast import Forecast, step_seconds
from kronos.paths import Candles
from kronos.postprocessing import PathOptions, Postprocessing
from kronos.windows import MIN_BARS, Windows
from kronos_strategies.backtrader.optimise import one_thread_after_fork
from kronos_strategies.backtrader.outlook import ENDS, SCORE, outlooks
from kronos_strategies.heads.choice import ScoreChoice, ScoreUse, choose_score
from kronos_strategies.heads.readers import HeadReader, load_readers
from kronos_strategies.progress import ProgressReport, part_of, silent
from kronos_strategies.store import ForecastStore, WindowSpec
from kronos_strategies.stream import stream

if TYPE_CHECKING:
    from kronos.predictor import KronosPredictor

REMEMBERED = 200_000  # windows; of 20 samples each they take some 80 MB


@dataclass(frozen=True)
class ForecastSettings:
    """What is forecast and how, but for the bars.

    Attributes:
        model: bundled name, folder or hub id.
        lookback: bars of a window.
        horizon: bars to forecast.
        samples, T, top_p, top_k, seed: see `SampleConfig`; T, top_p and top_k of None are those that suit the
            checkpoint.
        device: "cpu", "cuda", "mps"; None takes the fastest there is.
        store: folder of a `ForecastStore`; None remembers within the process.
        tokenizer: of a model that does not know its own.
        revision: of the model on the hub.
        calibration, candles, limits: of the paths when they are read, see `PathOptions`.
        hold: bars that a position is held, which chooses the output of a return head.
        score: "auto", "head" or "paths", see `kronos_strategies.heads.choice.choose_score`.
        heads: names or folders of heads to average; the checkpoint's own when empty.
    """

    model: str
    lookback: int
    horizon: int
    samples: int
    T: float | None
    top_p: float | None
    top_k: int | None
    seed: int
    device: str | None
    store: str | None
    tokenizer: str | None
    revision: str | None
    calibration: str = "auto"
    candles: Candles = "valid"
    limits: str = "none"
    hold: int = 5
    score: str = "auto"
    heads: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.model, str):
            raise ValueError(
                f"model is a {type(self.model).__name__}. Pass the name of a bundled model, a folder or a hub id."
            )
        for name, least in (("lookback", MIN_BARS), ("horizon", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
                raise ValueError(f"{name}={value!r} is no number of bars. Pass a whole one, {least} or more.")
            object.__setattr__(self, name, int(value))
        self.options  # noqa: B018 (refuses what is none)

    @property
    def options(self) -> PathOptions:
        """What is done to the paths, as named."""
        return PathOptions(self.calibration, self.candles, self.limits)

    def postprocessing(self, spacing: float | None = None) -> Postprocessing:
        """What is done to the paths of windows whose bars are `spacing` seconds apart; None where it is not known.

        Raises:
            FileNotFoundError: no such calibration.
            ValueError: the calibration that was named does not fit.
        """
        predictor = self.predictor()
        known = predictor.provenance(self.sampling(), "")
        return self.options.resolve(predictor.calibration, known, self.horizon, spacing)

    def predictor(self) -> KronosPredictor:
        """The model, loaded once a process."""
        one_thread_after_fork()  # before it is asked for anything: even its provenance looks at weights
        return _load(self.model, self.tokenizer, self.revision, self.device)

    def sampling(self) -> SampleConfig:
        """Of the paths."""
        return self.predictor().sampling.with_overrides(
            self.samples or 1, self.T, self.top_p, self.top_k, self.seed
        )

    def choice(self, daily: bool = True) -> ScoreChoice:
        """Where the scores of daily bars, or of others, come from.

        Raises:
            ValueError: no head where one is asked for, or neither a head nor a path.
        """
        frequency = "1day" if daily else "another length"
        use = ScoreUse(self.hold, self.lookback, price=None, frequency=frequency)
        choice = choose_score(self.score, [reader.head for reader in self._readers()], use)
        if self.samples == 0 and not choice.heads:
            raise ValueError(
                f"samples=0 samples no path, and the score cannot come from a head: {choice.why}. Ask for "
                "samples=1 or more, or for the head anyway with score='head'."
            )
        return choice

    def outlooks(
        self,
        windows: Windows,
        names: tuple[str, ...],
        progress: ProgressReport = silent,
        daily: np.ndarray | None = None,
    ) -> np.ndarray:
        """Forecast what neither the memory nor the store has.

        Args:
            windows: N of them, in order of (datetime, instrument).
            names: of all instruments that are ever forecast together; they label the store.
            progress: called as progress(windows done, N).
            daily: (N,) bool, windows of daily bars, which a head may score; all when omitted.

        Returns:
            (N, 5 + S), see `kronos_strategies.backtrader.outlook.outlooks`; only the score is not NaN where nothing
            is sampled.
        """
        spec = WindowSpec(",".join(names), self.lookback, self.horizon, self.lookback)
        found = np.full((len(windows), ENDS), np.nan)
        if self.samples:
            found = self._sampled(windows, spec, progress)
        choice = self.choice()
        scored = np.ones(len(windows), bool) if daily is None or self.score == "head" else daily
        if not self.samples and not scored.all():
            self.choice(daily=False)  # says why these bars have no score at all
        if choice.heads and scored.any():
            outputs = [self._read(reader, windows[scored], spec) for reader in self._readers()]
            found[scored, SCORE] = choice.average(outputs)
        return found

    def _sampled(self, windows: Windows, spec: WindowSpec, progress: ProgressReport) -> np.ndarray:
        predictor, sampling = self.predictor(), self.sampling()
        if self.store is not None:
            filled = ForecastStore(self.store).fill(predictor, windows, spec, sampling, progress)
            return np.concatenate([self._outlooks(forecast) for forecast in filled])

        def compute(missing: Windows, report: Callable[[int], None]) -> np.ndarray:
            parts = stream(predictor, missing, sampling, lambda done, _: report(done))
            return np.concatenate([self._outlooks(forecast) for forecast in parts])

        post = self.postprocessing()
        calibration = None if post.calibration is None else post.calibration.id
        known = predictor.provenance(sampling, "")
        key = (known, calibration, post.limits, post.candles) if known.weights_sha256 else None
        named = post.calibration is not None or post.limits is not None
        return _remembered(key, windows, compute, progress, named)

    def _read(self, reader: HeadReader, windows: Windows, spec: WindowSpec) -> np.ndarray:
        """(N, K) outputs of a head."""
        predictor, head = reader
        if self.store is not None:
            return ForecastStore(self.store).head_outputs(predictor, head, windows, spec)
        known = predictor.provenance(self.sampling(), "")
        reads = known.weights_sha256, known.max_context, known.precision, head.sha256, head.info.horizons
        key = reads if known.weights_sha256 else None
        return _remembered(key, windows, lambda missing, _: head(predictor.embed(missing)), silent)

    def _readers(self) -> list[HeadReader]:
        one_thread_after_fork()
        return _load_heads(self.model, self.tokenizer, self.revision, self.device, self.heads)

    def band_factors(self, windows: Windows, level: float) -> np.ndarray:
        """(N,) factors of a band at the horizon, see `Forecast.band_factors`."""
        factors = np.ones(len(windows))
        for rows, post in self._alike(windows.index, windows.future):
            if post.calibration is not None:
                keys = windows.index[rows]
                factors[rows] = post.calibration.band_factors(level, keys, self.horizon)[:, -1]
        return factors

    def _outlooks(self, forecast: Forecast) -> np.ndarray:
        """Of a forecast as sampled, once it is calibrated, limited and repaired."""
        parts = [
            (rows, outlooks(post(forecast[rows])))
            for rows, post in self._alike(forecast.index, forecast.timestamps)
        ]
        found = np.empty((len(forecast), parts[0][1].shape[1]))
        for rows, part in parts:
            found[rows] = part
        return found

    def _alike(self, keys: pd.MultiIndex, future: np.ndarray) -> Iterator[tuple[np.ndarray, Postprocessing]]:
        """Rows of windows whose bars are as far apart, and what is done to their paths.

        It depends on each window alone: which windows are forecast together differs between modes of the engine.
        """
        dates = pd.DatetimeIndex(keys.get_level_values("datetime")).to_numpy("datetime64[ns]")
        spacings, group = np.unique(step_seconds(dates, future), return_inverse=True)
        for number, spacing in enumerate(spacings):
            yield group == number, self.postprocessing(None if np.isnan(spacing) else float(spacing))


_MEMORY: dict[Hashable, dict[bytes, np.ndarray]] = {}


def _remembered(
    key: Hashable | None,
    windows: Windows,
    compute: Callable[[Windows, Callable[[int], None]], np.ndarray],
    progress: ProgressReport,
    named: bool = False,
) -> np.ndarray:
    """A row for each window: those in the memory of `key`, the others from `compute`.

    Args:
        key: all that rows depend on besides their windows; None where nothing tells weights apart, as of networks
            that may have been changed in place, so that nothing can be remembered.
        windows: N of them.
        compute: rows of some windows.
        progress: called as progress(windows done, N).
        named: as in `_digests`.
    """
    memory = {} if key is None else _MEMORY.setdefault(key, {})
    digests = _digests(windows, named)
    missing = np.array([digest not in memory for digest in digests])
    known = int((~missing).sum())
    progress(known, len(windows))
    if missing.any():
        report = part_of(progress, known, len(windows))
        new = [digest for digest, due in zip(digests, missing, strict=True) if due]
        memory.update(zip(new, compute(windows[missing], report), strict=True))
    found = np.array([memory[digest] for digest in digests])
    for digest in list(memory)[: max(0, len(memory) - REMEMBERED)]:  # the oldest first
        del memory[digest]
    return found


def _digests(windows: Windows, named: bool) -> list[bytes]:
    """Of all that a window's forecast depends on: bars, calendar fields, date and times ahead.

    Args:
        windows: to tell apart.
        named: whether it depends on the instrument's name too, as calibrations and price limits may.
    """
    names = windows.index.get_level_values("instrument").astype(str) if named else [""] * len(windows)
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
def _load(model: str, tokenizer: str | None, revision: str | None, device: str | None) -> KronosPredictor:
    from kronos.predictor import KronosPredictor  # torch, which a run on stored forecasts does without

    return KronosPredictor.from_pretrained(model, tokenizer, revision, device)


@lru_cache(maxsize=4)
def _load_heads(
    model: str, tokenizer: str | None, revision: str | None, device: str | None, heads: tuple[str, ...]
) -> list[HeadReader]:
    predictor = _load(model, tokenizer, revision, device)
    return load_readers(predictor, heads, lambda other: _load(other, None, None, device))
