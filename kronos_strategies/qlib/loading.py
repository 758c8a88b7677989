"""What a KronosModel loads on first use: its forecaster, heads and forecast store."""

from __future__ import annotations

from kronos.calibration import Calibration
from kronos.config import SampleConfig
from kronos.forecast import Anchor, Provenance
from kronos.head import ReturnHead
from kronos.inference.fused import Precision
from kronos.inference.generate import ContextOverflow
from kronos.predictor import KronosPredictor
from kronos_strategies.distributed import WorkerPool, worker_pool
from kronos_strategies.forecasters.protocol import Forecaster
from kronos_strategies.forecasters.registry import load_forecaster
from kronos_strategies.heads.selection import HeadReader, load_readers
from kronos_strategies.qlib.finetune import FineTuned
from kronos_strategies.store import ForecastStore


class LazyForecaster:
    """Forecaster, heads and store by their settings, see `KronosModel`.

    Qlib pickles models without attributes that start with an underscore: a restored one loads its networks again.
    """

    checkpoint: str
    tokenizer: str | None
    revision: str | None
    device: str | None
    max_context: int
    context_overflow: ContextOverflow
    precision: Precision
    compile: bool
    anchor: Anchor
    heads: tuple[str, ...]
    store: str | None
    store_dtype: str
    workers: int
    ray: str | None
    gpus_per_worker: float
    sampling: SampleConfig
    tuned: FineTuned | None = None
    fitted: ReturnHead | None = None
    calibrated: Calibration | None = None
    _predictor: Forecaster | None = None
    _forecasts: ForecastStore | None = None
    _heads: list[HeadReader] | None = None

    def current_provenance(self) -> Provenance:
        """The provenance of forecasts with the current weights; its hash of the data is empty."""
        return self._loaded()[0].provenance(self.sampling, "")

    def restore(self, other: LazyForecaster) -> None:
        """Take over what another model has fitted.

        Raises:
            FileNotFoundError: its fine-tuned checkpoint was deleted or moved.
        """
        if other.tuned is not None:
            other.tuned.path()
        self.tuned, self.fitted, self.calibrated = other.tuned, other.fitted, other.calibrated
        self.release()

    def _networks(self, use: str) -> KronosPredictor:
        """The forecaster, where only a Kronos checkpoint will do.

        Raises:
            ValueError: it is another kind.
        """
        found = self._loaded()[0]
        if isinstance(found, KronosPredictor):
            return found
        raise ValueError(
            f"{use}, and '{self.checkpoint}' has none. Remove the setting, or set checkpoint to a Kronos "
            "checkpoint."
        )

    def release(self) -> None:
        """Free the networks, which are loaded again when they are needed."""
        self._predictor, self._heads = None, None

    def _open(self) -> ForecastStore:
        dtype = self.store_dtype
        return ForecastStore.temporary(dtype) if self.store is None else ForecastStore(self.store, dtype)

    def _pool(self) -> WorkerPool | None:
        return worker_pool(self.workers, self.ray, self.gpus_per_worker)

    def _readers(self) -> list[HeadReader]:
        if self._heads is None:
            self._heads = load_readers(self._loaded()[0], self.heads, self._load, self.fitted)
        assert self._heads is not None
        return self._heads

    def _loaded(self) -> tuple[Forecaster, ForecastStore]:
        if self._predictor is None:
            self._predictor = self._load()
        if self._forecasts is None:
            self._forecasts = self._open()
        predictor, store = self._predictor, self._forecasts
        assert predictor is not None
        assert store is not None
        return predictor, store

    def _load(self, other: str | None = None) -> Forecaster:
        tuned = None if self.tuned is None else str(self.tuned.path())
        own = other is None and tuned is None
        return load_forecaster(
            other or tuned or self.checkpoint,
            self.tokenizer if own else None,
            self.revision if own else None,
            self.device,
            max_context=self.max_context,
            context_overflow=self.context_overflow,
            precision=self.precision,
            compile=self.compile,
            anchor=self.anchor,
        )
