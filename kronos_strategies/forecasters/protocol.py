"""What a forecaster is, and a model whose hidden states can be read without sampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from kronos.calibration import Calibration
from kronos.config import SampleConfig
from kronos.forecast import Forecast, Provenance
from kronos.paths import Candles
from kronos.windows import Windows


class Forecaster(Protocol):
    """What forecasts windows: `kronos.predictor.KronosPredictor`, and the models of `load_forecaster`.

    A forecast of a window is a function of the window, the sampling settings and the random numbers of its date,
    which all windows of the date share (`kronos.sampling.sobol_uniforms`): it does not depend on the other windows
    of a call, so that neither chunks nor workers change it. A forecaster can be pickled.

    Attributes:
        sampling: settings of a forecast that names none.
        device: device of the computation; can be set by its name.
    """

    sampling: SampleConfig
    device: Any

    @property
    def max_context(self) -> int | None:
        """Longest lookback that the model reads, in bars; None without a limit."""
        ...

    @property
    def calibration(self) -> Calibration | None:
        """Calibration that ships with the model; None without one. `forecast` does not apply it."""
        ...

    def forecast(
        self,
        windows: Windows,
        sampling: SampleConfig | None = None,
        progress: Callable[[int], None] | None = None,
        candles: Candles = "valid",
    ) -> Forecast:
        """Sample futures of every window.

        Args:
            windows: N windows, whose `future` sets the horizon.
            sampling: settings; `self.sampling` when omitted.
            progress: called after each chunk with its number of windows.
            candles: "valid" repairs invalid sampled bars, "raw" keeps them.

        Returns:
            Forecast with paths (N, S, H, 6) in the bars' own units and time zone, known at the close of each
            window's last bar.
        """
        ...

    def provenance(self, sampling: SampleConfig, data_sha256: str) -> Provenance:
        """Provenance of a forecast with these settings and data; it names the stored forecasts.

        `model` is the name that loads the forecaster again, with every setting that is not a default.
        `weights_sha256` identifies everything else that its forecasts depend on: files, versions and settings.
        """
        ...


class Embedder(Protocol):
    """What reads windows without sampling: `kronos.predictor.KronosPredictor`."""

    sampling: SampleConfig
    device: Any

    def embed(self, windows: Windows, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """(N, d_model) hidden states of the windows' last bars."""
        ...

    def provenance(self, sampling: SampleConfig, data_sha256: str) -> Provenance:
        """Provenance of a forecast with these settings and data."""
        ...


def forecast_notes(forecaster: object) -> list[str]:
    """Sentences about a forecaster's forecasts in this process that a reader must see; Kronos has none."""
    notes = getattr(forecaster, "notes", None)
    return list(notes()) if callable(notes) else []
