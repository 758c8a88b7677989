"""What forecasters other than Kronos share: chunks, the date's random numbers, provenance."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, get_args

import numpy as np
import pandas as pd

from kronos.bars import CLOSE, FEATURES
from kronos.calibration import Calibration
from kronos.config import SampleConfig, as_choice
from kronos.forecast import Forecast, Provenance, positive_close
from kronos.paths import Candles, trailing_volatility
from kronos.sampling import SOBOL, sobol_uniforms
from kronos.windows import Windows
from kronos.zones import add_zones

CHUNK_PATHS = 2**14  # paths sampled at once: some 100 MiB of intermediate arrays


class PathForecaster(ABC):
    """A forecaster whose paths are a function of windows and of uniform random numbers; see `Forecaster`.

    A subclass implements `sample` and sets what identifies it.

    Args:
        name: name that loads it again, with each setting that is not a default.
        weights_sha256: hash of everything that its forecasts depend on besides windows and sampling settings, see
            `settings_sha256` for models without files.
        revision: hub revision or version of the model; None if unknown.
        trained_until: last date of its training data (ISO), or `kronos.forecast.UNTRAINED`; None if unknown.
        device: name of the device.
    """

    max_context: int | None = None
    calibration: Calibration | None = None
    chunk_paths: ClassVar[int] = CHUNK_PATHS
    device: Any

    def __init__(
        self,
        name: str,
        weights_sha256: str,
        revision: str | None = None,
        trained_until: str | None = None,
        device: str | None = None,
    ) -> None:
        self.name, self.weights_sha256, self.revision, self.trained_until = (
            name,
            weights_sha256,
            revision,
            trained_until,
        )
        self.device = device or "cpu"
        self.sampling = SampleConfig(T=1.0, top_p=1.0)

    @abstractmethod
    def sample(self, windows: Windows, uniforms: np.ndarray) -> np.ndarray:
        """(N, S, H, 6) paths of N windows from (N, S, H, 2) uniforms in [0, 1), shared by the windows of a date.

        Row i may depend on window i and its uniforms only.
        """

    def chunk_windows(self, samples: int) -> int:
        """How many windows are sampled at once."""
        return max(1, self.chunk_paths // samples)

    def forecast(
        self,
        windows: Windows,
        sampling: SampleConfig | None = None,
        progress: Callable[[int], None] | None = None,
        candles: Candles = "valid",
    ) -> Forecast:
        """Sample futures of every window, see `Forecaster.forecast`.

        Of the sampling settings, the number of paths and the seed have an effect.

        Raises:
            ValueError: no windows, or a last close that is not positive, so that it has no return.
        """
        as_choice("candles", candles, get_args(Candles))
        if not len(windows):
            raise ValueError("There are no windows to forecast. Pass at least one.")
        positive_close(windows.last_bar[:, CLOSE], windows.index)
        sampling = sampling or self.sampling
        dates = pd.DatetimeIndex(windows.index.get_level_values("datetime"))
        paths = np.empty((len(windows), sampling.samples, windows.horizon, len(FEATURES)), np.float32)
        size = self.chunk_windows(sampling.samples)
        for start in range(0, len(windows), size):
            rows = slice(start, start + size)
            uniforms = sobol_uniforms(sampling.seed, dates[rows], sampling.samples, windows.horizon)
            paths[rows] = self.sample(windows[rows], uniforms)
            if progress is not None:
                progress(len(dates[rows]))
        index, timestamps = add_zones(windows.index, windows.future, windows.zones)
        made = Forecast(
            paths=paths,
            index=index,
            timestamps=timestamps,
            last_bar=windows.last_bar,
            provenance=self.provenance(sampling, windows.digest()),
            trailing_volatility=trailing_volatility(
                windows.bars[:, CLOSE], windows.end_positions, windows.lengths
            ),
        )
        return made.repaired() if candles == "valid" else made

    def provenance(self, sampling: SampleConfig, data_sha256: str) -> Provenance:
        """Provenance of a forecast; temperature and filters of tokens have no effect and are always the same."""
        return Provenance(
            model=self.name,
            revision=self.revision,
            weights_sha256=self.weights_sha256,
            trained_until=self.trained_until,
            sampling=replace(sampling, T=1.0, top_p=1.0, top_k=0),
            draws=SOBOL,
            max_context=None,
            clip=None,
            context_overflow=None,
            precision=None,
            anchor="last_close",
            data_sha256=data_sha256,
        )

    def notes(self) -> list[str]:
        """Sentences about the forecasts of this process so far that a reader must see, such as approximations."""
        return []


def settings_sha256(**parts: object) -> str:
    """sha256 of the parts that identify a model without files: its name, settings and version."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
