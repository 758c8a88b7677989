"""One chunk of windows through tokenizer, engine and back: bars -> tokens -> sampled tokens -> bars."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kronos.bars import CLOSE, FEATURES
from kronos.config import SampleConfig
from kronos.engine.fused import Form, FusedKronos, FusedTokenizer
from kronos.engine.generate import Decoded, Window, decode, generate, read_last
from kronos.engine.past import Prompt
from kronos.engine.replay import Replay
from kronos.engine.steps import StepRecorder
from kronos.model import Kronos
from kronos.quantizer import Tokens
from kronos.sampling import Draws, SharedDraws, price_order
from kronos.scale import Rule, Scale
from kronos.tokenizer import KronosTokenizer
from kronos.windows import Windows


class SampledPaths(NamedTuple):
    """What the engine makes of N windows, in the bars' own units."""

    paths: np.ndarray  # (N, S, H, 6) float32
    decoded_close: np.ndarray  # (N,) float32, each window's last close as the tokenizer reads it


class Pipeline:
    """Two networks in the form that the engine wants, on one device.

    Args:
        model, tokenizer: on `device`.
        device: of all that is computed here.
        max_context, clip, window: see `KronosPredictor`.
        form: of the networks; compiled ones also replay whole chunks (see `replay`), others replay single steps
            on CUDA (see `steps`).
    """

    def __init__(
        self,
        model: Kronos,
        tokenizer: KronosTokenizer,
        device: torch.device,
        max_context: int,
        clip: float,
        window: Window,
        form: Form,
    ) -> None:
        self.model, self.tokenizer = FusedKronos(model, form), FusedTokenizer(tokenizer, form)
        self.device, self.max_context, self.clip, self.window = device, max_context, clip, window
        self._plain_tokenizer = tokenizer
        self.replay = Replay(device) if form.compiled else None
        self.recorder = StepRecorder(device) if device.type == "cuda" and not form.compiled else None

    @cached_property
    def order(self) -> Tokens:
        """Of the ids in a CDF; upstream's draws never ask for it."""
        return price_order(self._plain_tokenizer)

    @torch.inference_mode()
    def shared(self, windows: Windows, sampling: SampleConfig, uniforms: Tensor) -> SampledPaths:
        """Paths drawn by (N, S, H, 2) uniforms."""
        even, order, scale = _even(windows), self.order, windows.scale()

        def run(bars: Tensor, lengths: Tensor, stamps: Tensor, future: Tensor, uniforms: Tensor) -> Tensor:
            prompt = Prompt(self.tokenizer.encode(bars), lengths, stamps, future, even)
            return _joined(self._continue(prompt, sampling, SharedDraws(uniforms, order), None))

        inputs = (*self._inputs(windows, scale), uniforms.to(self.device))
        bars = run(*inputs) if self.replay is None else self.replay(run, (sampling, even), *inputs)
        return _sampled(scale.invert(bars.cpu().numpy()), sampling.samples)

    @torch.inference_mode()
    def drawn(
        self,
        windows: Windows,
        sampling: SampleConfig,
        draws: Draws,
        on_step: Callable[[], None] | None = None,
        rule: Rule = "unit_free",
    ) -> SampledPaths:
        """Paths by any draws, of windows scaled by `rule`; `on_step` is called after each bar."""
        scale = windows.scale(rule)
        bars, lengths, stamps, future = self._inputs(windows, scale)
        prompt = Prompt(self.tokenizer.encode(bars), lengths, stamps, future, _even(windows))
        decoded = self._continue(prompt, sampling, draws, on_step)
        return _sampled(scale.invert(_joined(decoded).cpu().numpy()), sampling.samples)

    @torch.inference_mode()
    def embed(self, windows: Windows) -> np.ndarray:
        """(N, d) float32, the hidden state of each window's last bar."""
        normalised = windows.scale().apply(windows.values, self.clip)
        bars, lengths, stamps = (
            torch.from_numpy(array).to(self.device) for array in (normalised, windows.lengths, windows.stamps)
        )
        prompt = Prompt(self.tokenizer.encode(bars), lengths, stamps, stamps[:, :0], _even(windows))
        return read_last(self.model, prompt, self.max_context).float().cpu().numpy()

    def _continue(
        self, prompt: Prompt, sampling: SampleConfig, draws: Draws, on_step: Callable[[], None] | None
    ) -> Decoded:
        options = self.max_context, self.window, on_step, self.recorder
        tokens = generate(self.model, prompt, sampling, draws, *options)
        return decode(self.tokenizer, prompt, tokens, self.max_context)

    def _inputs(self, windows: Windows, scale: Scale) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalised bars (N, L, 6), lengths (N,), stamps (N, L, 5) and future stamps (N, H, 5)."""
        normalised = scale.apply(windows.values, self.clip)
        arrays = (normalised, windows.lengths, windows.stamps, windows.future_stamps)
        bars, lengths, stamps, future = (torch.from_numpy(array).to(self.device) for array in arrays)
        return bars, lengths, stamps, future


def _joined(decoded: Decoded) -> Tensor:
    """(N, S * H + 1, 6): the bars of all paths, then the last bar, in one tensor for one transfer."""
    return torch.cat([decoded.paths.flatten(1, 2), decoded.last[:, None]], dim=1)


def _sampled(bars: np.ndarray, samples: int) -> SampledPaths:
    """Undo `_joined`, in the bars' own units."""
    paths = bars[:, :-1].reshape(len(bars), samples, -1, len(FEATURES))
    return SampledPaths(paths, bars[:, -1, CLOSE])


def _even(windows: Windows) -> bool:
    return bool((windows.lengths == windows.width).all())
