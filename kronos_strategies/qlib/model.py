"""Kronos as a Qlib model: forecasts every member of a market and scores it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from qlib.log import get_module_logger
from qlib.model.base import Model

from kronos.calibration import Calibration
from kronos.forecast import Anchor, Provenance
from kronos.inference.fused import Precision
from kronos.inference.generate import ContextOverflow
from kronos.paths import Candles
from kronos.postprocessing import AUTO, NONE, PathOptions, Postprocessing, spacing_of
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from kronos_strategies.data.qlib_bins import bar_frequency
from kronos_strategies.distributed import worker_pool
from kronos_strategies.forecasters.protocol import forecast_notes
from kronos_strategies.heads.fit import KINDS
from kronos_strategies.heads.selection import (
    Score,
    ScoreChoice,
    ScoreUse,
    check_score,
    choose_score,
    head_names,
)
from kronos_strategies.path_signals import PathSignalSettings
from kronos_strategies.progress import progress_bar
from kronos_strategies.qlib.checks import check_lookback
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.finetune import check_finetune, finetune_on
from kronos_strategies.qlib.fit import CalibrationSettings, fit_calibration_on, fit_head_on, market_name
from kronos_strategies.qlib.loading import LazyForecaster
from kronos_strategies.qlib.scored import Origin, Scored
from kronos_strategies.signal import signals
from kronos_strategies.store import FillResult, WindowSpec

logger = get_module_logger(__name__)

Prediction = Literal["score", "signals"]
PREDICTIONS = ("score", "signals")


class KronosModel(LazyForecaster, Model):
    """Scores each (datetime, instrument) by a return head or by its expected tradable return, chunk by chunk.

    Args:
        checkpoint: bundled name, folder or hub id; or another forecaster, such as "baseline:garch", see
            `kronos_strategies.forecasters.load_forecaster`, which has no return head of its own.
        tokenizer: tokenizer of a model whose configuration names none.
        revision: revision of the model on the hub.
        device: "cpu", "cuda", "mps"; the fastest available if empty or None.
        samples, T, top_p, top_k, seed: see `SampleConfig`; T, top_p and top_k of None are those of the
            checkpoint. With 0 samples nothing is sampled: the head's score is the only column.
        max_context, context_overflow, precision, compile, anchor: see `KronosPredictor`.
        store: folder or URL of a `ForecastStore` that saves and reuses forecasts; a temporary one if empty or None,
            so that the report of a run reads the forecasts behind its scores.
        store_dtype: type of the paths in the store, "float32" or "float16".
        calibration, candles, limits: postprocessing of the paths on reading, see `PathOptions`; the store keeps
            them as sampled.
        score: "head", "paths", or "auto": the head if there is one and it was trained for this use, see
            `kronos_strategies.heads.selection.choose_score`.
        heads: names or folders of heads to average, a sequence or comma-separated text; that of the checkpoint
            when empty.
        finetune: fields of `kronos.training.config.TrainingConfig` by name, e.g. {"max_steps": 200}, to have `fit`
            fine-tune the predictor on the segments train and valid of the dataset; None to keep its weights.
        fit_head: "ridge" or "lightgbm" to have `fit` fit a head on the checkpoint, fine-tuned or not, from the
            segments train and valid; None to fit none.
        fit_every: days between the training dates of that head.
        fit_seeds: number of LightGBM models to average.
        fit_calibration: fields of `CalibrationSettings` by name, e.g. {"every": 5}, to have `fit` calibrate paths
            to the outcomes of the segment valid; None to fit no calibration.
        workers, ray, gpus_per_worker: processes or Ray actors that compute what the store lacks, see
            `kronos_strategies.distributed.worker_pool`.
        levels: fields of `kronos_strategies.path_signals.PathSignalSettings` by name, e.g. {"tail": 0.05}.

    Attributes:
        choice: source of the scores of the last `predict`.
        tuned: the checkpoint that `fit` has fine-tuned; among the artifacts of the Qlib run, if there is one.
        fitted: the head that `fit` has fitted.
        calibrated: the calibration that `fit` has fitted.
        prediction: what `predict` returns: "score", as Qlib's own models return,
            or "signals", the score and the other columns of `kronos_strategies.signal.SIGNALS`, for a
            strategy that reads them.
        levels: levels that some signals refer to.
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
        context_overflow: ContextOverflow = "recompute",
        precision: Precision = "float32",
        compile: bool = False,
        anchor: Anchor = "last_close",
        store: str | None = None,
        store_dtype: str = "float32",
        calibration: str = "auto",
        candles: Candles = "valid",
        limits: str = "none",
        score: Score = "auto",
        heads: Sequence[str] | str | None = None,
        finetune: Mapping[str, Any] | None = None,
        fit_head: str | None = None,
        fit_every: int = 5,
        fit_seeds: int = 3,
        fit_calibration: Mapping[str, Any] | None = None,
        prediction: Prediction = "score",
        workers: int = 1,
        ray: str | None = None,
        gpus_per_worker: float = 0.0,
        levels: Mapping[str, float] | None = None,
    ) -> None:
        check_score(score)
        self.levels = PathSignalSettings(**dict(levels or {}))
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction='{prediction}' is unknown. Choose one of {list(PREDICTIONS)}.")
        if fit_head and fit_head not in KINDS:
            raise ValueError(f"fit_head='{fit_head}' is unknown. Choose one of {list(KINDS)}, or None.")
        if samples == 0 and score == "paths":
            raise ValueError("score='paths' needs paths, but samples=0. Set samples=1 or more.")
        worker_pool(workers, ray, gpus_per_worker)  # a wrong value fails before forecasting
        self.workers, self.ray, self.gpus_per_worker = workers, ray or None, gpus_per_worker
        self.score, self.heads, self.samples, self.prediction = score, head_names(heads), samples, prediction
        self.fit_head, self.fit_every, self.fit_seeds = fit_head or None, fit_every, fit_seeds
        self.finetune = None if finetune is None else check_finetune(finetune)
        self.fit_calibration = (
            None
            if fit_calibration is None
            else CalibrationSettings.of(fit_calibration, samples, str(calibration))
        )
        self.choice: ScoreChoice | None = None
        self.checkpoint = checkpoint
        self.tokenizer = tokenizer or None
        self.revision = revision or None
        self.device = device or None
        self.max_context = max_context
        self.context_overflow, self.precision = context_overflow, precision
        self.compile, self.anchor = compile, anchor
        self.store = store or None
        self.store_dtype = store_dtype
        if calibration not in (AUTO, NONE):
            Calibration.read(calibration)  # a wrong value fails before forecasting
        self.options = PathOptions(str(calibration), candles, str(limits))
        self.provenance: Provenance | None = None
        self.postprocessing = Postprocessing()  # of the last forecasts
        # Loaded here, so that a wrong name fails before any data is read.
        # With samples=0, provenance has the settings that would be sampled with.
        self.sampling = self._loaded()[0].sampling.with_overrides(samples or 1, T, top_p, top_k, seed)
        self._scored: Scored | None = None
        self._readers()

    def fit(self, dataset: KronosDataset, reweighter: object = None) -> None:
        """Fine-tune, then fit a head, then a calibration, each if its setting asks for it.

        Nothing uses a bar after the segment valid. What is fitted also goes into the folder of a fine-tuned
        checkpoint.

        Raises:
            TypeError: another kind of dataset.
            ValueError: no segment train or valid, or too few bars, instruments or dates in one.
            MissingExtra: a package for training is not installed.
        """
        if self.finetune is None and self.fit_head is None and self.fit_calibration is None:
            return
        self._check(dataset)
        self.tuned = self.fitted = self.calibrated = None
        self.release()
        if self.finetune is not None:
            predictor, with_head = self._networks("finetune trains networks"), self.fit_head is None
            self.tuned = finetune_on(
                dataset, predictor, self.finetune, self.tokenizer, self.revision, head=with_head
            )
            self.release()
        if self.fit_head is not None:
            predictor, store = self._networks("fit_head fits a head on hidden states"), self._loaded()[1]
            self.fitted = fit_head_on(
                dataset, predictor, store, kind=self.fit_head, every=self.fit_every, seeds=self.fit_seeds
            )
            self._heads = None
            logger.info("Fitted a %s head: %s", self.fit_head, self.fitted.info.figures)
        if self.fit_calibration is not None:
            forecaster, store = self._loaded()
            self.calibrated = fit_calibration_on(
                dataset, forecaster, store, self.sampling, self.fit_calibration, self._pool()
            )
        if self.tuned is not None:
            self.tuned.add(self.fitted, self.calibrated)

    def predict(self, dataset: KronosDataset, segment: str | slice = "test") -> pd.Series | pd.DataFrame:
        """Score the segment, by its name or as a slice of dates, see `signals`.

        Returns:
            The score by (datetime, instrument), or the whole frame of `signals` with prediction="signals".

        Raises:
            TypeError: another kind of dataset, which has neither traded bars nor future timestamps.
        """
        found = self.signals(dataset, segment)
        return found if self.prediction == "signals" else found["score"]

    def signals(self, dataset: KronosDataset, segment: str | slice = "test") -> pd.DataFrame:
        """All signals of the segment; a row dated t uses bars up to t and the calendar only.

        Returns:
            Frame indexed (datetime, instrument), columns of `kronos_strategies.signal.SIGNALS`; only the score
            where nothing is sampled.

        Raises:
            TypeError: another kind of dataset, which has neither traded bars nor future timestamps.
            ValueError: nothing is sampled and no head fits.
        """
        self._check(dataset)
        check_lookback(dataset.spec.lookback, self._loaded()[0].max_context)
        windows, choice = dataset.windows(segment), self.choose(dataset)
        score = self._head_score(choice, windows, dataset.spec) if choice.heads else None
        if self.samples == 0:
            if score is None:
                raise ValueError(
                    f"samples=0 samples no paths, and the score cannot come from a head: {choice.why}. Set "
                    "samples=10, or score='head' to use the head anyway."
                )
            self.provenance = self._loaded()[0].provenance(self.sampling, windows.digest())
            found, sampled = score.to_frame(), None
        else:
            sampled = self.forecasts(windows, dataset.spec)
            read = map(self.postprocessing, sampled)
            found = pd.concat(
                [signals(each, dataset.hold, dataset.deal_price, score, self.levels) for each in read]
            )
        assert self.provenance is not None
        origin = Origin(found.index[0][0], self.provenance, choice, self.postprocessing)
        self._scored = Scored(dataset, dataset.span(segment), found, sampled, (origin,))
        return found

    def scored(self, dataset: KronosDataset, segment: str | slice = "test") -> Scored:
        """Signals and forecasts of the segment: those of the last call of `signals` if it was for the same one."""
        last: Scored | None = getattr(self, "_scored", None)
        if last is None or last.dataset is not dataset or last.span != dataset.span(segment):
            self.signals(dataset, segment)
            last = self._scored
        assert last is not None
        return last

    @property
    def sampled(self) -> FillResult | None:
        """Forecasts of the last call of `signals`, as sampled; None without a call or without paths."""
        last: Scored | None = getattr(self, "_scored", None)
        found = None if last is None else last.forecasts
        return found if isinstance(found, FillResult) else None

    def choose(self, dataset: KronosDataset) -> ScoreChoice:
        """Choose the source of the scores of a dataset, and log it.

        Raises:
            ValueError: a head is required and none fits, or `fit` has not been called.
        """
        if self.fit_head and self.fitted is None:
            raise ValueError(
                f"fit_head='{self.fit_head}' needs a head that is not fitted yet. Call fit first."
            )
        frequency, market = bar_frequency(dataset.freq), market_name(dataset)
        use = ScoreUse(dataset.hold, dataset.spec.lookback, dataset.deal_price, frequency, market)
        self.choice = choose_score(self.score, [reader.head for reader in self._readers()], use)
        logger.info("Scores come from %s", self.choice.described)
        for warning in self.choice.warnings:
            logger.warning(warning)
        return self.choice

    def forecasts(self, windows: Windows, spec: WindowSpec) -> FillResult:
        """Forecasts of the windows date by date, from the store where it has them; under a progress bar.

        They are as sampled; apply `self.postprocessing`, which this call sets, on reading.
        """
        predictor, store = self._loaded()
        self.provenance = predictor.provenance(self.sampling, windows.digest())
        self.postprocessing = self.options.resolve(
            self.calibrated or predictor.calibration, self.provenance, spec.horizon, spacing_of(windows)
        )
        logger.info("calibration: %s", self.postprocessing.reason)
        logger.info(
            "'%s' forecasts %d bars from %d windows, %d samples each, on %s",
            self.provenance.model,
            spec.horizon,
            len(windows),
            self.sampling.samples,
            predictor.device,
        )
        with progress_bar("forecast", "windows") as progress:
            filled = store.fill(predictor, windows, spec, self.sampling, progress, self._pool())
        logger.info(
            "%d of %d dates were computed, the others were in %s",
            filled.computed,
            len(filled),
            filled.forecast_set.folder,
        )
        for note in forecast_notes(predictor):
            logger.warning(note)
        return filled

    def embeddings(self, windows: Windows, spec: WindowSpec) -> np.ndarray:
        """(N, d_model) hidden states of the windows, from the store where it has them; under a progress bar.

        Raises:
            ValueError: the forecaster has no hidden states.
        """
        predictor, store = self._loaded()
        if not isinstance(predictor, KronosPredictor):
            raise ValueError(
                f"'{self.checkpoint}' has no hidden states, so no feature 'embedding'. Name a Kronos checkpoint, "
                "or take 'paths' alone."
            )
        self.provenance = predictor.provenance(self.sampling, windows.digest())
        with progress_bar("embed", "windows") as progress:
            return store.embeddings(predictor, windows, spec, progress, self._pool())

    def _check(self, dataset: object) -> None:
        if not isinstance(dataset, KronosDataset):
            raise TypeError(
                f"KronosModel reads windows of bars, which a {type(dataset).__name__} does not have. Use the class "
                "KronosDataset of kronos_strategies.qlib.dataset."
            )

    def _head_score(self, choice: ScoreChoice, windows: Windows, spec: WindowSpec) -> pd.Series:
        store = self._loaded()[1]
        with progress_bar("read", "windows") as progress:
            outputs = [
                store.head_outputs(reader.predictor, reader.head, windows, spec, progress, self._pool())
                for reader in self._readers()
            ]
        return choice.combine(outputs, windows.index)
