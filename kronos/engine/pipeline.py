"""One chunk of windows through tokenizer, engine and back: bars -> tokens -> sampled tokens -> bars."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from kronos.config import SampleConfig
from kronos.engine.fused import Form, FusedKronos, FusedTokenizer
from kronos.engine.generate import Window, decode, generate
from kronos.engine.past import Prompt
from kronos.engine.replay import Replay
from kronos.engine.steps import StepRecorder
from kronos.model import Kronos
from kronos.quantizer import Tokens
from kronos.sampling import Draws, SharedDraws, price_order
from kronos.scale import Scale
from kronos.tokenizer import KronosTokenizer
from kronos.windows import Windows


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
    def shared(self, windows: Windows, sampling: SampleConfig, uniforms: Tensor) -> np.ndarray:
        """Paths (N, S, H, 6) in the bars' own units, drawn by (N, S, H, 2) uniforms."""
        even, order, scale = _even(windows), self.order, windows.scale()

        def run(bars: Tensor, lengths: Tensor, stamps: Tensor, future: Tensor, uniforms: Tensor) -> Tensor:
            prompt = Prompt(self.tokenizer.encode(bars), lengths, stamps, future, even)
            return self._continue(prompt, sampling, SharedDraws(uniforms, order), None)

        inputs = (*self._inputs(windows, scale), uniforms.to(self.device))
        bars = run(*inputs) if self.replay is None else self.replay(run, (sampling, even), *inputs)
        return scale.invert(bars.cpu().numpy())

    @torch.inference_mode()
    def drawn(
        self, windows: Windows, sampling: SampleConfig, draws: Draws, on_step: Callable[[], None] | None
    ) -> np.ndarray:
        """Paths (N, S, H, 6) in the bars' own units, by any draws; `on_step` is called after each bar."""
        scale = windows.scale()
        bars, lengths, stamps, future = self._inputs(windows, scale)
        prompt = Prompt(self.tokenizer.encode(bars), lengths, stamps, future, _even(windows))
        paths = self._continue(prompt, sampling, draws, on_step)
        return scale.invert(paths.cpu().numpy())

    def _continue(
        self, prompt: Prompt, sampling: SampleConfig, draws: Draws, on_step: Callable[[], None] | None
    ) -> Tensor:
        options = self.max_context, self.window, on_step, self.recorder
        tokens = generate(self.model, prompt, sampling, draws, *options)
        return decode(self.tokenizer, prompt, tokens, self.max_context)

    def _inputs(self, windows: Windows, scale: Scale) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalised bars (N, L, 6), lengths (N,), stamps (N, L, 5) and future stamps (N, H, 5)."""
        normalised = scale.apply(windows.values, self.clip)
        arrays = (normalised, windows.lengths, windows.stamps, windows.future_stamps)
        bars, lengths, stamps, future = (torch.from_numpy(array).to(self.device) for array in arrays)
        return bars, lengths, stamps, future


def _even(windows: Windows) -> bool:
    return bool((windows.lengths == windows.width).all())
