"""Kronos as a Qlib model: forecasts every member of a market and scores it."""

from __future__ import annotations

from typing import Literal

import pandas as pd
from qlib.log import get_module_logger
from qlib.model.base import Model

from kronos.engine.fused import Precision
from kronos.engine.generate import Window
from kronos.forecast import Anchor, Provenance
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from kronos_strategies.progress import progress_bar
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.source import check_lookback
from kronos_strategies.signals import signals
from kronos_strategies.store import Filled, ForecastStore, WindowSpec

logger = get_module_logger(__name__)

Prediction = Literal["score", "signals"]
PREDICTIONS = ("score", "signals")


class KronosModel(Model):
    """Scores each (datetime, instrument) of a segment by its expected tradable return.

    Paths of at most one chunk of dates are in memory.

    Args:
        checkpoint: bundled name, folder or hub id.
        tokenizer: of a model that does not know its own.
        revision: on the hub.
        device: "cpu", "cuda", "mps"; empty or None takes the fastest there is.
        samples, T, top_p, top_k, seed: see `SampleConfig`; T, top_p and top_k of None are those that suit the
            checkpoint.
        max_context, window, precision, compile, anchor: see `KronosPredictor`.
        store: folder of a `ForecastStore` to keep forecasts in and find them again; empty or None keeps them in
            a temporary one, so that a run's report reads what its scores were made of.
        store_dtype: of the paths in the store, "float32" or "float16".
        prediction: what `predict` returns: "score", as Qlib's own models and all that read their predictions have
            it, or "signals", the score and the other columns of `kronos_strategies.signals.SIGNALS`, for a
            strategy that reads them.
    """

    def __init__(
        self,
        checkpoint: str = "kronos-nano",
        tokenizer: str | None = None,
        revision: str | None = None,
        device: str | None = None,
        samples: int = 10,
        T: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        seed: int = 0,
        max_context: int = 512,
        window: Window = "exact",
        precision: Precision = "float32",
        compile: bool = False,
        anchor: Anchor = "last_close",
        store: str | None = None,
        store_dtype: str = "float32",
        prediction: Prediction = "score",
    ) -> None:
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction='{prediction}' is unknown. Choose one of {list(PREDICTIONS)}.")
        self.prediction = prediction
        self.checkpoint = checkpoint
        self.tokenizer = tokenizer or None
        self.revision = revision or None
        self.device = device or None
        self.max_context = max_context
        self.window, self.precision, self.compile, self.anchor = window, precision, compile, anchor
        self.store = store or None
        self.store_dtype = store_dtype
        self.provenance: Provenance | None = None
        # Loaded here, so that a wrong name fails before any data is read. Qlib pickles models without
        # attributes that start with an underscore: a restored one loads its networks again.
        self._predictor: KronosPredictor | None = self._load()
        self._forecasts: ForecastStore | None = self._open()
        self.sampling = self._predictor.sampling.replaced(samples, T, top_p, top_k, seed)

    def fit(self, dataset: KronosDataset, reweighter: object = None) -> None:
        """Do nothing: a checkpoint arrives trained; `python -m kronos.training` trains one."""

    def predict(self, dataset: KronosDataset, segment: str | slice = "test") -> pd.Series | pd.DataFrame:
        """Score the segment, by its name or as a slice of dates, see `signals`.

        Returns:
            The score by (datetime, instrument), or the whole frame of `signals` with prediction="signals".

        Raises:
            TypeError: another kind of dataset, which knows neither traded bars nor future timestamps.
        """
        found = self.signals(dataset, segment)
        return found if self.prediction == "signals" else found["score"]

    def signals(self, dataset: KronosDataset, segment: str | slice = "test") -> pd.DataFrame:
        """All signals of the segment; a row dated t uses bars up to t and the calendar only.

        Returns:
            Frame indexed (datetime, instrument), columns of `kronos_strategies.signals.SIGNALS`.

        Raises:
            TypeError: another kind of dataset, which knows neither traded bars nor future timestamps.
        """
        if not isinstance(dataset, KronosDataset):
            raise TypeError(
                f"KronosModel reads windows of bars, which a {type(dataset).__name__} does not have. Use the class "
                "KronosDataset of kronos_strategies.qlib.dataset."
            )
        check_lookback(dataset.spec.lookback, self.max_context)
        forecasts = self.forecasts(dataset.windows(segment), dataset.spec)
        return pd.concat([signals(forecast, dataset.hold, dataset.deal_price) for forecast in forecasts])

    def forecasts(self, windows: Windows, spec: WindowSpec) -> Filled:
        """Forecasts of the windows date by date, from the store where it has them; under a progress bar."""
        if getattr(self, "_predictor", None) is None:
            self._predictor, self._forecasts = self._load(), self._open()
        predictor, store = self._predictor, self._forecasts
        assert predictor is not None
        assert store is not None
        self.provenance = predictor.provenance(self.sampling, windows.digest())
        logger.info(
            "Kronos '%s' forecasts %d bars from %d windows, %d samples each, on %s",
            self.checkpoint,
            spec.horizon,
            len(windows),
            self.sampling.samples,
            predictor.device,
        )
        with progress_bar("forecast", "windows") as progress:
            filled = store.fill(predictor, windows, spec, self.sampling, progress)
        logger.info(
            "%d of %d dates were computed, the others were in %s",
            filled.computed,
            len(filled),
            filled.stored.folder,
        )
        return filled

    def _open(self) -> ForecastStore:
        dtype = self.store_dtype
        return ForecastStore.temporary(dtype) if self.store is None else ForecastStore(self.store, dtype)

    def _load(self) -> KronosPredictor:
        return KronosPredictor.from_pretrained(
            self.checkpoint,
            self.tokenizer,
            self.revision,
            self.device,
            self.max_context,
            window=self.window,
            precision=self.precision,
            compile=self.compile,
            anchor=self.anchor,
        )
