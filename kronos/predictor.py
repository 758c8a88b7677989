"""KronosPredictor: Windows -> Forecast; `predict` and `predict_batch` keep upstream's signatures."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
import pandas as pd
import torch
from typing_extensions import Self

from kronos.bars import CLOSE, FEATURES
from kronos.calibration import Calibration, checkpoint_calibration
from kronos.checkpoint import CheckpointInfo, checkpoint_info, default_sampling, resolve, resolve_tokenizer
from kronos.config import SampleConfig, as_choice
from kronos.forecast import Anchor, Forecast, Provenance, anchor_paths
from kronos.hub import HubOptions
from kronos.inference.fused import ExecutionConfig, Precision
from kronos.inference.generate import ContextOverflow
from kronos.inference.pipeline import EmbedBytes, MemoryGuard, Pipeline, WindowBytes
from kronos.inference.settings import (
    CHECKS,
    WeightsDigest,
    as_cpu,
    as_float32,
    default_budget,
    default_torch_state,
    find_device,
    weights_signature,
)
from kronos.latest import as_windows
from kronos.model import Kronos
from kronos.panels import Bars
from kronos.paths import Candles, trailing_volatility
from kronos.sampling import SOBOL, sobol_uniforms
from kronos.tokenizer import KronosTokenizer
from kronos.upstream_calls import UpstreamCalls
from kronos.windows import Windows
from kronos.zones import add_zones

_log = logging.getLogger(__name__)


class KronosPredictor(UpstreamCalls):
    """A model and its tokenizer on one device, ready to forecast.

    Each argument is also an attribute that can be changed: it is validated on assignment and takes effect with
    the next forecast. Networks may be trained, moved or converted between forecasts: each forecast uses their
    current weights, in float32 on `device`.

    A predictor can be pickled and copied. It is restored on its own device or, if that is missing, on the fastest
    one available.

    Args:
        model: Kronos, put in eval mode.
        tokenizer: the one it was trained with, put in eval mode.
        device: "cpu", "cuda", "cuda:1", "mps"; None selects the fastest available.
        max_context: maximum number of bars that the model sees.
        clip: normalized bars are clipped to ±clip.
        context_overflow: what happens when a window exceeds `max_context` within the horizon: "recompute" reads
            the last `max_context` bars again at each step, as upstream does; "rolling" drops the oldest bars from
            the caches, which is much faster but approximate: rotary positions are not reset.
        precision: dtype of matrix products, "float32" or "bfloat16", about 1.4 times as fast on processors that
            support it; residual stream, norms, attention and sampling stay in float32, but sampled paths differ.
        compile: compile the networks at the first forecast, on CUDA also record every chunk shape as a CUDA
            graph; for long runs on an accelerator. On a CPU packed products are faster. Without it CUDA still
            replays the single steps of chunks with few paths.
        memory: memory limit of a chunk of windows in bytes; None uses little on a CPU, and more than half of the
            free memory of an accelerator.
        anchor: where the paths of `forecast` start. The tokenizer quantizes the last bar, and the model continues
            from the reconstruction. "last_close" scales the prices of each path by the ratio of the true last
            close to the decoded one, so that returns are measured from the start of the path; "decoded_close"
            keeps raw paths, as upstream's `predict` always does.

    Raises:
        ValueError: model and tokenizer do not match, the device is unavailable, or an option is invalid.
        TypeError: model or tokenizer has the wrong type.
    """

    model_type: ClassVar[type[Kronos]] = Kronos  # class that `from_pretrained` creates
    tokenizer_type: ClassVar[type[KronosTokenizer]] = KronosTokenizer

    def __init__(
        self,
        model: Kronos,
        tokenizer: KronosTokenizer,
        device: str | torch.device | None = None,
        max_context: int = 512,
        clip: float = 5,
        context_overflow: ContextOverflow = "recompute",
        precision: Precision = "float32",
        compile: bool = False,
        memory: int | None = None,
        anchor: Anchor = "last_close",
    ) -> None:
        self.device, self.model, self.tokenizer = find_device(device), model, tokenizer
        self.max_context, self.clip, self.context_overflow = max_context, clip, context_overflow
        self.precision, self.compile, self.memory = precision, compile, memory
        self.anchor = anchor
        self.sampling = SampleConfig()  # default of `forecast`
        self.calibration: Calibration | None = None  # of the checkpoint; `forecast` does not apply it
        self.checkpoint_info = None  # unknown for networks that were not loaded from files
        self._guard = MemoryGuard()
        self._made: Pipeline | None = None
        self._made_of: list[Any] = []
        _check_pair(model, tokenizer)
        weights_signature(model, tokenizer)  # raises an error about unusable weights
        for network in (model, tokenizer):
            network.to(self.device).eval()

    def __setattr__(self, name: str, value: object) -> None:
        check = CHECKS.get(name)
        super().__setattr__(name, check(value) if check else value)

    def __getstate__(self) -> dict[str, Any]:
        # Weights of the pipeline are packed for this process; those of the networks can be loaded anywhere.
        networks = {"model": as_cpu(self.model), "tokenizer": as_cpu(self.tokenizer)}
        return self.__dict__ | networks | {"device": str(self.device), "_made": None, "_made_of": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        try:
            device = find_device(state["device"])
        except ValueError as error:
            device = find_device(None)
            _log.warning("%s The predictor uses '%s' instead.", error, device)
        self.__dict__.update(state | {"device": device})
        for network in (self.model, self.tokenizer):
            network.to(device)

    @classmethod
    def from_pretrained(
        cls,
        spec: str | Path = "kronos-nano",
        tokenizer: str | Path | None = None,
        revision: str | None = None,
        device: str | torch.device | None = None,
        max_context: int = 512,
        clip: float = 5,
        context_overflow: ContextOverflow = "recompute",
        precision: Precision = "float32",
        compile: bool = False,
        memory: int | None = None,
        anchor: Anchor = "last_close",
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        force_download: bool = False,
    ) -> Self:
        """Load a bundled pair, a folder with `tokenizer/` and `predictor/`, or a model with its tokenizer.

        Args:
            spec: bundled name, folder, or hub id of a model.
            tokenizer: folder or hub id; not needed for pairs and upstream's released models.
            revision: hub revision of the model.
            device, max_context, clip, context_overflow, precision, compile, memory, anchor: as in the constructor.
            cache_dir, local_files_only, token, force_download: `kronos.hub.HubOptions`, for both networks.

        Raises:
            FileNotFoundError: no such checkpoint; says how to get one.
            ValueError: the tokenizer is unknown, or the two do not match.
        """
        hub = HubOptions(cache_dir, local_files_only, token, force_download)
        tokenizer_folder = resolve(tokenizer or resolve_tokenizer(spec), "tokenizer", hub=hub)
        predictor_folder = resolve(spec, "predictor", revision, hub)
        predictor = cls(
            cls.model_type.from_pretrained(predictor_folder),
            cls.tokenizer_type.from_pretrained(tokenizer_folder),
            device,
            max_context,
            clip,
            context_overflow,
            precision,
            compile,
            memory,
            anchor,
        )
        predictor.checkpoint_info = checkpoint_info(spec, predictor_folder, tokenizer_folder)
        predictor.sampling = default_sampling(predictor_folder)
        predictor.calibration = checkpoint_calibration(spec)
        return predictor

    @default_torch_state()
    def forecast(
        self,
        windows: Windows | Bars,
        sampling: SampleConfig | None = None,
        progress: Callable[[int], None] | None = None,
        candles: Candles = "valid",
        *,
        horizon: int | None = None,
        lookback: int | None = None,
        calendar: pd.DatetimeIndex | str | None = None,
    ) -> Forecast:
        """Sample futures of every window, or of the last bar of each instrument; lookbacks may differ.

        Draws depend on the seed and each window's date only, so that any batch size, order or split of the
        windows gives the same forecast up to rounding, which depends on the number of rows of a matrix product:
        1e-4 of a close in float32 (docs/performance.md lists what is bitwise equal).

        Args:
            windows: N windows, whose `future` sets the horizon; or bars up to the time of the forecast in a form
                that `kronos.latest.as_windows` takes: a frame of one or, by index or columns, several instruments,
                or a mapping instrument -> frame.
            sampling: settings; those of the checkpoint (`self.sampling`) when omitted.
            progress: called after each chunk with its number of windows.
            candles: "valid" repairs invalid sampled bars (see `Forecast.repaired`), "raw" keeps them.
            horizon: number of bars to forecast; for bars only, which need it.
            lookback: number of bars that the model reads; for bars only. 90 when omitted, or as many as there are.
            calendar: exchange ("XSHG", "XNYS", "24/7") or trading timestamps, see `kronos.future_timestamps`; for
                bars only. The sessions are inferred from the bars when omitted.

        Returns:
            Forecast with paths (N, S, H, 6) in the bars' own units and time zone, starting at `anchor`. It is not
            calibrated: `forecast.calibrated(predictor.calibration)` applies the checkpoint's calibration, if any.

        Raises:
            TypeError: neither windows nor bars.
            ValueError: invalid bars, fewer bars than the lookback, a missing horizon, or a setting of windows that
                have it already.
        """
        windows = as_windows(windows, horizon, lookback, calendar)
        as_choice("candles", candles, get_args(Candles))
        if not len(windows):
            raise ValueError("There are no windows to forecast. Pass at least one.")
        self._check_horizon(windows)
        sampling = sampling or self.sampling
        paths = np.empty((len(windows), sampling.samples, windows.horizon, len(FEATURES)), np.float32)
        decoded_close = np.empty(len(windows), np.float32)
        need = WindowBytes(
            self.model.config, self.tokenizer.config, sampling.samples, windows.horizon, self.max_context,
            self.context_overflow,
        )  # fmt: skip
        pipeline = self._pipeline()
        budget = self.memory or default_budget(self.device)
        if self.compile:
            budget //= 2  # a replayed chunk is padded to at most twice its rows

        def sample(rows: np.ndarray) -> None:
            chunk = windows[rows]
            dates = pd.DatetimeIndex(chunk.index.get_level_values("datetime"))
            uniforms = torch.from_numpy(sobol_uniforms(sampling.seed, dates, sampling.samples, chunk.horizon))
            paths[rows], decoded_close[rows] = pipeline.sample_shared(chunk, sampling, uniforms)

        self._guard.run(windows.lengths, need, budget, sample, progress)
        if self.anchor == "last_close":
            anchor_paths(paths, decoded_close, windows.last_bar[:, CLOSE])
        provenance = self.provenance(sampling, windows.digest())
        volatility = trailing_volatility(windows.bars[:, CLOSE], windows.end_positions, windows.lengths)
        index, timestamps = add_zones(windows.index, windows.future, windows.zones)
        made = Forecast(paths, index, timestamps, windows.last_bar, provenance, decoded_close, volatility)
        return made.repaired() if candles == "valid" else made

    @default_torch_state()
    def embed(self, windows: Windows, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """The model's last hidden state at the last bar of every window: one forward pass, no sampling.

        Bars are scaled, clipped and tokenized as in `forecast`, and the model sees the last `max_context` tokens.
        A row depends on its own window only, and is known at the close of the window's last bar.

        Args:
            windows: N windows of any lookbacks; their `future` is not used.
            progress: called after each chunk with its number of windows.

        Returns:
            (N, d_model) float32, after the final norm.

        Raises:
            ValueError: there are no windows.
        """
        if not len(windows):
            raise ValueError("There are no windows to embed. Pass at least one.")
        hidden = np.empty((len(windows), self.model.config.d_model), np.float32)
        need = EmbedBytes(self.model.config, self.tokenizer.config, self.max_context)
        pipeline, budget = self._pipeline(), self.memory or default_budget(self.device)

        def embed(rows: np.ndarray) -> None:
            hidden[rows] = pipeline.embed(windows[rows])

        self._guard.run(windows.lengths, need, budget, embed, progress)
        return hidden

    def provenance(self, sampling: SampleConfig, data_sha256: str) -> Provenance:
        """The provenance of a forecast with these settings and this data."""
        known = self.checkpoint_info
        return Provenance(
            model=known.name if known else type(self.model).__name__,
            revision=known.revision if known else None,
            weights_sha256=known.sha256 if known else None,
            trained_until=known.trained_until if known else None,
            sampling=sampling,
            draws=SOBOL,
            max_context=self.max_context,
            clip=self.clip,
            context_overflow=self.context_overflow,
            precision=self.precision,
            anchor=self.anchor,
            data_sha256=data_sha256,
        )

    @property
    def checkpoint_info(self) -> CheckpointInfo | None:
        """The checkpoint of the networks; None if their weights are not those of a known file."""
        checkpoint_info, digest = self._checkpoint_info
        return checkpoint_info if digest and digest.matches(self.model, self.tokenizer) else None

    @checkpoint_info.setter
    def checkpoint_info(self, checkpoint_info: CheckpointInfo | None) -> None:
        """Set the checkpoint of the networks with their current weights."""
        self._checkpoint_info = (
            checkpoint_info,
            WeightsDigest(self.model, self.tokenizer) if checkpoint_info else None,
        )

    def _check_horizon(self, windows: Windows) -> None:
        # The decoder sees the last `max_context` bars of window and path; a rolling window must keep its whole
        # path.
        longest = self.max_context - (self.context_overflow == "rolling")
        if windows.horizon > longest:
            raise ValueError(
                f"A horizon of {windows.horizon} bars does not fit max_context={self.max_context}. Shorten it."
            )

    def _pipeline(self) -> Pipeline:
        """The pipeline for the current settings and weights, which may have changed since the last forecast."""
        _check_pair(self.model, self.tokenizer)
        form = ExecutionConfig(self.precision, self.compile)
        settings = self.device, self.max_context, self.clip, self.context_overflow, form
        made_of = [settings, *weights_signature(self.model, self.tokenizer)]
        if self._made is None or self._made_of != made_of:
            model, tokenizer = as_float32(self.model, self.device), as_float32(self.tokenizer, self.device)
            self._made = Pipeline(
                model, tokenizer, self.device, self.max_context, self.clip, self.context_overflow, form
            )
            self._made_of = made_of
        return self._made


def _check_pair(model: Kronos, tokenizer: KronosTokenizer) -> None:
    reads = (model.config.s1_bits, model.config.s2_bits)
    writes = (tokenizer.config.s1_bits, tokenizer.config.s2_bits)
    if reads != writes:
        raise ValueError(
            f"The model reads tokens of {reads} bits but the tokenizer writes {writes}. "
            "Load the tokenizer that the model was trained with."
        )
