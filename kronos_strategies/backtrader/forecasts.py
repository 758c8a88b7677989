"""Windows -> outlooks, each computed once: one model a process, and a memory or a folder of its forecasts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kronos.config import SampleConfig
from kronos.forecast import Provenance
from kronos.windows import MIN_BARS, Windows
from kronos_strategies.backtrader.optimise import one_thread_after_fork
from kronos_strategies.backtrader.outlook import outlooks
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

    def predictor(self) -> KronosPredictor:
        """The model, loaded once a process."""
        return _load(self.model, self.tokenizer, self.revision, self.device)

    def sampling(self) -> SampleConfig:
        """Of the paths."""
        return self.predictor().sampling.replaced(self.samples, self.T, self.top_p, self.top_k, self.seed)

    def outlooks(
        self, windows: Windows, names: tuple[str, ...], progress: ProgressReport = silent
    ) -> np.ndarray:
        """Forecast what neither the memory nor the store has.

        Args:
            windows: N of them, in order of (datetime, instrument).
            names: of all instruments that are ever forecast together; they label the store.
            progress: called as progress(windows done, N).

        Returns:
            (N, 4 + S), see `kronos_strategies.backtrader.outlook.outlooks`.
        """
        one_thread_after_fork()
        predictor, sampling = self.predictor(), self.sampling()
        if self.store is None:
            return _remembered(predictor, windows, sampling, progress)
        spec = WindowSpec(",".join(names), self.lookback, self.horizon, self.lookback)
        filled = ForecastStore(self.store).fill(predictor, windows, spec, sampling, progress)
        return np.concatenate([outlooks(forecast) for forecast in filled])


_MEMORY: dict[Provenance, dict[bytes, np.ndarray]] = {}


def _remembered(
    predictor: KronosPredictor, windows: Windows, sampling: SampleConfig, progress: ProgressReport
) -> np.ndarray:
    known_by = predictor.provenance(sampling, "")
    # Networks whose weights have no digest may have been changed in place: nothing tells their forecasts apart.
    memory = {} if known_by.weights_sha256 is None else _MEMORY.setdefault(known_by, {})
    digests = _digests(windows)
    missing = np.array([digest not in memory for digest in digests])
    known = int((~missing).sum())
    progress(known, len(windows))
    if missing.any():
        report = part_of(progress, known, len(windows))
        parts = [
            outlooks(forecast)
            for forecast in stream(predictor, windows[missing], sampling, lambda done, _: report(done))
        ]
        new = [digest for digest, due in zip(digests, missing, strict=True) if due]
        memory.update(zip(new, np.concatenate(parts), strict=True))
    found = np.array([memory[digest] for digest in digests])
    for digest in list(memory)[: max(0, len(memory) - REMEMBERED)]:  # the oldest first
        del memory[digest]
    return found


def _digests(windows: Windows) -> list[bytes]:
    """Of all that a window's forecast depends on: bars, calendar fields, date and times ahead; not of its name."""
    dates = pd.DatetimeIndex(windows.keys.get_level_values("datetime")).as_unit("ns").asi8
    found = []
    for end, length, future, date in zip(
        windows.ends.tolist(), windows.lengths.tolist(), windows.future, dates, strict=True
    ):
        bars = slice(end + 1 - length, end + 1)
        digest = hashlib.sha256(windows.tape[bars].tobytes())
        for array in (windows.tape_stamps[bars], future, date):
            digest.update(array.tobytes())
        found.append(digest.digest())
    return found


@lru_cache(maxsize=4)
def _load(model: str, tokenizer: str | None, revision: str | None, device: str | None) -> KronosPredictor:
    from kronos.predictor import KronosPredictor  # torch, which a run on stored forecasts does without

    return KronosPredictor.from_pretrained(model, tokenizer, revision, device)
