"""ForecastStore: a folder with the forecasts of all models."""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from kronos.config import SampleConfig
from kronos.forecast import Provenance
from kronos.head import ReturnHead
from kronos.windows import Windows
from kronos_strategies.distributed import WorkerPool
from kronos_strategies.forecasters.protocol import Embedder, Forecaster
from kronos_strategies.forecasting import WindowsByDate
from kronos_strategies.progress import ProgressReport, no_progress
from kronos_strategies.store.fill import FillResult, fill
from kronos_strategies.store.forecast_set import ForecastSet
from kronos_strategies.store.location import as_location, explain_remote_errors, is_remote
from kronos_strategies.store.settings import DTYPES, MANIFEST, StoreSettings, WindowSpec, create_manifest
from kronos_strategies.store.window_outputs import HeadOutputs, HiddenStates, embedding_rows, head_rows

log = logging.getLogger(__name__)


class ForecastStore:
    """Forecasts on disk, computed once and identified by model, settings and bars.

        <folder>/<model>-<sha>/<settings sha>/date=2024-01-02/<bars sha>-<file sha>.parquet
        <folder>/<model>-<sha>/heads/<head>-<sha>-<settings sha>/date=2024-01-02/...   outputs of return heads
        <folder>/<model>-<sha>/embeddings/<settings sha>/date=2024-01-02/...           hidden states

    A date is computed if it is missing, damaged, or was forecast from other bars. New data only add new
    dates; readjusted prices recompute the dates whose windows contain them. A date is one file, so it is
    recomputed for all instruments if one of them changed.

    Several processes may fill one store, and an interrupted process loses one chunk. In a local folder each date is
    locked while it is computed; an object store has no locks, so that two processes may compute the same date, and
    write the same object.

    Args:
        folder: local folder, created on the first fill, or the URL of an object store, such as
            s3://bucket/forecasts.
        dtype: type of the stored paths: "float32" is exact, "float16" takes three fifths of the space with an error
            below 1/4096 of a window's largest move.

    Raises:
        ValueError: an unknown dtype, or a file where the folder should be.
    """

    def __init__(self, folder: str | Path, dtype: str = "float32") -> None:
        self.folder = as_location(folder)
        self.dtype = dtype
        self._lifetime: object = None
        if dtype not in DTYPES:
            raise ValueError(f"dtype='{dtype}' is not a type for paths. Choose one of {list(DTYPES)}.")
        if not is_remote(self.folder) and self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder} is a file. Pass a folder for the forecasts.")

    @classmethod
    def temporary(cls, dtype: str = "float32") -> ForecastStore:
        """A store in a temporary folder, deleted once the store and its forecasts are no longer referenced."""
        folder = TemporaryDirectory(prefix="kronos-forecasts-")
        store = cls(folder.name, dtype)
        store._lifetime = folder
        return store

    def fill(
        self,
        forecaster: Forecaster,
        windows: Windows,
        spec: WindowSpec,
        sampling: SampleConfig | None = None,
        progress: ProgressReport = no_progress,
        pool: WorkerPool | None = None,
    ) -> FillResult:
        """Compute missing forecasts; afterwards every window has its forecast in the store.

        Paths of at most one chunk of dates (`kronos_strategies.forecasting`) are in memory.

        Args:
            forecaster: a `KronosPredictor` that was loaded from files.
            windows: what to forecast, any number of dates.
            spec: specification of the windows; part of the folder's name.
            sampling: settings, the forecaster's own when omitted.
            progress: called as progress(windows done, windows due).
            pool: workers that share the dates, see `kronos_strategies.distributed.worker_pool`; None for this
                process.

        Raises:
            ValueError: the networks were not loaded from files, or windows and `spec` disagree.
            OSError: the folder or URL cannot be written.
        """
        dated = WindowsByDate(windows)
        spec.check(dated)
        settings = StoreSettings(forecaster.provenance(sampling or forecaster.sampling, ""), spec, self.dtype)
        folder = self.folder / settings.folder.as_posix()
        with explain_remote_errors(self.folder):
            create_manifest(folder, settings)
        return fill(ForecastSet(folder, self._lifetime), forecaster, dated, progress, pool)

    def head_outputs(
        self,
        embedder: Embedder,
        head: ReturnHead,
        windows: Windows,
        spec: WindowSpec,
        progress: ProgressReport = no_progress,
        pool: WorkerPool | None = None,
    ) -> np.ndarray:
        """(N, K) float32 outputs of a return head; missing ones are computed, without sampling.

        Args:
            embedder: a `KronosPredictor` that was loaded from files, with the weights that the head reads.
            head: its weights' sha256 is part of the folder's name.
            windows: N windows, any number of dates; their `future` is not used.
            spec: specification of the windows.
            progress: called as progress(windows done, windows due).
            pool: workers that share the dates; None for this process.

        Raises:
            ValueError: the networks were not loaded from files.
        """
        rows = head_rows(self.folder, embedder, head, spec, self._lifetime)
        return rows.fill(windows, HeadOutputs(embedder, head), progress, pool)

    def embeddings(
        self,
        embedder: Embedder,
        windows: Windows,
        spec: WindowSpec,
        progress: ProgressReport = no_progress,
        pool: WorkerPool | None = None,
    ) -> np.ndarray:
        """(N, d_model) float32 hidden states; missing ones are computed, see `head_outputs`."""
        rows = embedding_rows(self.folder, embedder, spec, self._lifetime)
        return rows.fill(windows, HiddenStates(embedder), progress, pool)

    def open(self, provenance: Provenance, spec: WindowSpec) -> ForecastSet:
        """Forecasts made with these settings, e.g. `predictor.provenance(sampling, "")`.

        Raises:
            FileNotFoundError: there are no such forecasts.
        """
        settings = StoreSettings(provenance, spec, self.dtype)
        return ForecastSet(self.folder / settings.folder.as_posix(), self._lifetime)

    def forecast_sets(self) -> list[ForecastSet]:
        """All forecast sets by folder, without loading a model; unusable ones are logged and skipped."""
        found = []
        with explain_remote_errors(self.folder):
            manifests = sorted(self.folder.glob(f"*/*/{MANIFEST}"))
        for path in manifests:
            try:
                found.append(ForecastSet(path.parent, self._lifetime))
            except ValueError as error:
                log.warning("%s", error)
        return found
