"""Chunks of windows within a memory budget through both networks: bars -> tokens -> sampled tokens -> bars.

A window's tokens do not depend on the others of its chunk, but the last digits of its logits do: matrix libraries
choose kernels by the number of rows. Equal chunks are bitwise equal, other chunks differ by 1e-4 of a close in
float32. A chunk that does not fit in memory is run in halves (`MemoryGuard`).
"""

from __future__ import annotations

import gc
import logging
import re
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kronos.bars import CLOSE, FEATURES
from kronos.config import DEPENDENCY_HEADS, ModelConfig, SampleConfig, TokenizerConfig
from kronos.inference.cuda_graph import CudaGraphCache, StepRecorder
from kronos.inference.fused import ExecutionConfig, FusedKronos, FusedTokenizer
from kronos.inference.generate import ContextOverflow, Decoded, Prompt, decode, generate, read_last_hidden
from kronos.model import Kronos
from kronos.sampling import Sampler, SobolSampler, token_price_order
from kronos.tokenizer import KronosTokenizer, Tokens
from kronos.windows import Rule, Scale, Windows

FLOAT = 4  # bytes
log = logging.getLogger(__name__)

# torch.OutOfMemoryError and Python's MemoryError apart, allocators raise RuntimeError with one of these texts.
_TEXTS = re.compile(
    r"not enough memory|can't allocate memory|out of memory|unable to allocate|bad_?\s?alloc|ALLOC_FAILED"
    r"|could not create a (?:memory|primitive)",  # oneDNN
    re.IGNORECASE,
)


def split_chunks(lengths: np.ndarray, bytes_of: Callable[[int], int], budget: int) -> list[np.ndarray]:
    """Split N windows into chunks of rows, sorted by length to limit padding.

    Args:
        lengths: (N,) bars per window.
        bytes_of: memory of a window of a given length, in bytes.
        budget: memory limit of a chunk in bytes; a chunk has at least one window.
    """
    order = np.argsort(lengths, kind="stable")[
        ::-1
    ]  # the longest first, so that too small a budget fails early
    parts, start = [], 0
    while start < len(order):
        rows = max(1, budget // bytes_of(int(lengths[order[start]])))
        parts.append(order[start : start + rows])
        start += rows
    return parts


class WindowBytes:
    """Estimated peak memory of forecasting one window in bytes, slightly too large."""

    def __init__(
        self,
        model: ModelConfig,
        tokenizer: TokenizerConfig,
        samples: int,
        horizon: int,
        max_context: int,
        context_overflow: str,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.samples, self.horizon, self.max_context = samples, horizon, max_context
        self.recomputes = context_overflow == "recompute"

    def __call__(self, length: int) -> int:
        """Bytes for a window of `length` bars."""
        m, t = self.model, self.tokenizer
        seen, paths = min(length, self.max_context), self.samples * self.horizon
        logits = 8 * self.samples * 2 ** max(m.s1_bits, m.s2_bits)
        caches = 2 * m.d_model * (m.n_layers + 1) * (seen + paths)
        scores = 3 * max(m.n_heads, DEPENDENCY_HEADS) * self.samples * (seen + self.horizon)
        reading = caches + max(_activations(m, seen), scores + logits)
        if self.recomputes and length + self.horizon - 1 > self.max_context:
            # In addition to the last keys and values: those of this step in parts, joined and transposed, and
            # the ids.
            positions = self.samples * self.max_context
            reading = max(reading, max(caches, positions * 2 * m.d_model) + positions * (6 * m.d_model + 32))
        decoding = 2 * t.d_model * (t.n_dec_layers - 1) * (seen + paths)
        decoding += _activations(t, max(seen, paths)) + 3 * t.n_heads * paths * (seen + self.horizon)
        return FLOAT * max(reading, decoding, _activations(t, length))


class EmbedBytes:
    """Estimated peak memory of embedding one window in bytes, slightly too large."""

    def __init__(self, model: ModelConfig, tokenizer: TokenizerConfig, max_context: int) -> None:
        self.model, self.tokenizer, self.max_context = model, tokenizer, max_context

    def __call__(self, length: int) -> int:
        """Bytes for a window of `length` bars."""
        seen = min(length, self.max_context)
        reading = _activations(self.model, seen) + 2 * self.model.d_model * seen
        return FLOAT * max(reading, _activations(self.tokenizer, length))


def _activations(config: ModelConfig | TokenizerConfig, rows: int) -> int:
    """Floats in memory at once in a block over `rows` positions."""
    return rows * (6 * config.d_model + 2 * config.ff_dim)


class SampledPaths(NamedTuple):
    """Sampled paths of N windows, in the bars' own units."""

    paths: np.ndarray  # (N, S, H, 6) float32
    decoded_close: np.ndarray  # (N,) float32, each window's last close as the tokenizer reconstructs it


class Pipeline:
    """Both networks rewritten for inference, on one device.

    Args:
        model, tokenizer: networks on `device`.
        device: device of all computations.
        max_context, clip, context_overflow: see `KronosPredictor`.
        form: how networks are executed; compiled ones also replay whole chunks, others replay single steps on CUDA
            (see `cuda_graph`).
    """

    def __init__(
        self,
        model: Kronos,
        tokenizer: KronosTokenizer,
        device: torch.device,
        max_context: int,
        clip: float,
        context_overflow: ContextOverflow,
        form: ExecutionConfig,
    ) -> None:
        self.model, self.tokenizer = FusedKronos(model, form), FusedTokenizer(tokenizer, form)
        self.device, self.max_context, self.clip, self.context_overflow = (
            device,
            max_context,
            clip,
            context_overflow,
        )
        self._tokenizer = tokenizer
        self.graphs = CudaGraphCache(device) if form.compiled else None
        self.recorder = StepRecorder(device) if device.type == "cuda" and not form.compiled else None

    @cached_property
    def order(self) -> Tokens:
        """Order of the ids in a CDF; not needed for upstream's sampler."""
        return token_price_order(self._tokenizer)

    @torch.inference_mode()
    def sample_shared(self, windows: Windows, sampling: SampleConfig, uniforms: Tensor) -> SampledPaths:
        """Paths sampled with (N, S, H, 2) uniforms, see `sobol_uniforms`."""
        even, order, scale = _even(windows), self.order, windows.scale()

        def run(bars: Tensor, lengths: Tensor, stamps: Tensor, future: Tensor, uniforms: Tensor) -> Tensor:
            prompt = Prompt(self.tokenizer.encode(bars), lengths, stamps, future, even)
            return _joined(self._continue(prompt, sampling, SobolSampler(uniforms, order), None))

        inputs = (*self._inputs(windows, scale), uniforms.to(self.device))
        bars = run(*inputs) if self.graphs is None else self.graphs(run, (sampling, even), *inputs)
        return _sampled(scale.invert(bars.cpu().numpy()), sampling.samples)

    @torch.inference_mode()
    def sample_with(
        self,
        windows: Windows,
        sampling: SampleConfig,
        draws: Sampler,
        on_step: Callable[[], None] | None = None,
        rule: Rule = "unit_free",
    ) -> SampledPaths:
        """Paths sampled with any sampler, of windows scaled by `rule`; `on_step` is called after each bar."""
        scale = windows.scale(rule)
        bars, lengths, stamps, future = self._inputs(windows, scale)
        prompt = Prompt(self.tokenizer.encode(bars), lengths, stamps, future, _even(windows))
        decoded = self._continue(prompt, sampling, draws, on_step)
        return _sampled(scale.invert(_joined(decoded).cpu().numpy()), sampling.samples)

    @torch.inference_mode()
    def embed(self, windows: Windows) -> np.ndarray:
        """(N, d) float32, the hidden state of each window's last bar."""
        normalized = windows.scale().apply(windows.values, self.clip)
        bars, lengths, stamps = (
            torch.from_numpy(array).to(self.device) for array in (normalized, windows.lengths, windows.stamps)
        )
        prompt = Prompt(self.tokenizer.encode(bars), lengths, stamps, stamps[:, :0], _even(windows))
        return read_last_hidden(self.model, prompt, self.max_context).float().cpu().numpy()

    def _continue(
        self, prompt: Prompt, sampling: SampleConfig, draws: Sampler, on_step: Callable[[], None] | None
    ) -> Decoded:
        options = self.max_context, self.context_overflow, on_step, self.recorder
        tokens = generate(self.model, prompt, sampling, draws, *options)
        return decode(self.tokenizer, prompt, tokens, self.max_context)

    def _inputs(self, windows: Windows, scale: Scale) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalized bars (N, L, 6), lengths (N,), stamps (N, L, 5) and future stamps (N, H, 5)."""
        normalized = scale.apply(windows.values, self.clip)
        arrays = (normalized, windows.lengths, windows.stamps, windows.future_stamps)
        bars, lengths, stamps, future = (torch.from_numpy(array).to(self.device) for array in arrays)
        return bars, lengths, stamps, future


def _joined(decoded: Decoded) -> Tensor:
    """(N, S * H + 1, 6): the bars of all paths, then the last bar, in one tensor for one transfer."""
    return torch.cat([decoded.paths.flatten(1, 2), decoded.last_bar[:, None]], dim=1)


def _sampled(bars: np.ndarray, samples: int) -> SampledPaths:
    """Undo `_joined`, in the bars' own units."""
    paths = bars[:, :-1].reshape(len(bars), samples, -1, len(FEATURES))
    return SampledPaths(paths, bars[:, -1, CLOSE])


def _even(windows: Windows) -> bool:
    return bool((windows.lengths == windows.width).all())


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory on the CPU or an accelerator does not suffice."""
    known = (MemoryError, getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError))
    return isinstance(error, known) or (isinstance(error, RuntimeError) and bool(_TEXTS.search(str(error))))


class MemoryGuard:
    """Runs windows chunk by chunk, and halves chunks when memory does not suffice.

    It logs the first time, and remembers for later calls how much fits.

    Attributes:
        limit: estimated bytes of the largest chunk that may fit; None until memory did not suffice.
    """

    def __init__(self) -> None:
        self.limit: int | None = None

    def run(
        self,
        lengths: np.ndarray,
        bytes_of: Callable[[int], int],
        budget: int,
        work: Callable[[np.ndarray], None],
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Call `work` with the rows of one chunk after the other, until every window has been in one.

        Args:
            lengths: (N,) bars per window.
            bytes_of: estimated memory of a window of a given length.
            budget: memory limit of a chunk in bytes.
            work: stores the results of the rows that it is given; called again with fewer rows if memory does not
                suffice.
            progress: called after each chunk with its number of windows.

        Raises:
            MemoryError: a single window does not fit.
        """
        left = split_chunks(lengths, bytes_of, min(budget, self.limit or budget))[::-1]
        while left:
            rows = left.pop()
            reason = _attempt(work, rows)
            if reason is None:
                if progress is not None:
                    progress(len(rows))
                continue
            if len(rows) == 1:
                raise MemoryError(
                    f"One window of {lengths[rows[0]]} bars does not fit in memory ({reason}). Pass fewer samples, "
                    "a shorter horizon or lookback, or use a device with more memory."
                )
            self._halve(len(rows), bytes_of(int(lengths[rows].max())))
            order = np.concatenate([rows, *left[::-1]])
            left = [order[part] for part in split_chunks(lengths[order], bytes_of, self.limit or budget)][
                ::-1
            ]

    def _halve(self, rows: int, bytes_each: int) -> None:
        first, fewer = self.limit is None, (rows + 1) // 2
        self.limit = fewer * bytes_each
        if first:
            log.warning(
                "Memory does not suffice for %d windows at once: they are computed in chunks of at most %d.",
                rows, fewer,
            )  # fmt: skip


def _attempt(work: Callable[[np.ndarray], None], rows: np.ndarray) -> str | None:
    """Do the work; the reason if memory does not suffice."""
    try:
        work(rows)
        return None
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    # Only now, because the error holds the frames, and they hold the tensors, of the failed attempt.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return reason
