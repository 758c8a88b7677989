"""Upstream's names and signatures for this package's networks: scripts only need another import.

    from kronos.compat import Kronos, KronosPredictor, KronosTokenizer, auto_regressive_inference

in place of `from model import ...` or `from model.kronos import ...`. Weights, results for a given seed and saved
files equal upstream's; docs/coming_from_upstream.md lists the differences. New code should use `kronos`: here flags
may change return types, because that is upstream's contract.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from rich.progress import Progress
from torch import Tensor

from kronos.bars import FEATURES, PRICES, STAMPS, stamps
from kronos.compat.networks import Kronos, KronosTokenizer
from kronos.config import SampleConfig, as_integer, as_number
from kronos.inference.fused import ExecutionConfig, FusedKronos, FusedTokenizer
from kronos.inference.generate import ContextOverflow, Prompt, decode, generate
from kronos.model import Kronos as PlainKronos
from kronos.predictor import KronosPredictor as PlainPredictor
from kronos.sampling import TorchSampler, probabilities
from kronos.tokenizer import KronosTokenizer as PlainTokenizer
from kronos.tokenizer import Tokens
from kronos.upstream_calls import Timestamps, parse_timestamps

__all__ = [
    "Kronos",
    "KronosPredictor",
    "KronosTokenizer",
    "auto_regressive_inference",
    "calc_time_stamps",
    "sample_from_logits",
    "top_k_top_p_filtering",
]


class KronosPredictor(PlainPredictor):
    """The predictor with upstream's attributes and `generate`; accepts networks of this module or of `kronos`."""

    model_type: ClassVar[type[PlainKronos]] = Kronos
    tokenizer_type: ClassVar[type[PlainTokenizer]] = KronosTokenizer
    price_cols: ClassVar[list[str]] = list(PRICES)
    vol_col: ClassVar[str] = "volume"
    amt_vol: ClassVar[str] = "amount"
    time_cols: ClassVar[list[str]] = list(STAMPS)

    def generate(
        self,
        x: np.ndarray,
        x_stamp: np.ndarray,
        y_stamp: np.ndarray,
        pred_len: int,
        T: float,
        top_k: int | None,
        top_p: float | None,
        sample_count: int,
        verbose: bool,
    ) -> np.ndarray:
        """Normalized (B, L, 6) bars and stamps, (B, L, 5) and (B, pred_len, 5) -> (B, pred_len, 6), normalized."""
        sampling = _sampling(sample_count, T, top_k, top_p)
        inputs = _inputs(x, x_stamp, y_stamp, pred_len, self.max_context, self.clip, self.device)
        made = self._pipeline()
        networks = made.model, made.tokenizer
        prompt, tokens = _sampled(
            *networks, *inputs, sampling, self.max_context, self.context_overflow, verbose
        )
        paths = decode(made.tokenizer, prompt, tokens, self.max_context).paths
        return paths.mean(dim=1).cpu().numpy()


@torch.inference_mode()
def auto_regressive_inference(
    tokenizer: PlainTokenizer,
    model: PlainKronos,
    x: Tensor,
    x_stamp: Tensor,
    y_stamp: Tensor,
    max_context: int,
    pred_len: int,
    clip: float = 5,
    T: float = 1.0,
    top_k: int | None = 0,
    top_p: float | None = 0.99,
    sample_count: int = 5,
    verbose: bool = False,
) -> np.ndarray:
    """The mean of `sample_count` sampled paths, preceded by the part of the past that is decoded with them.

    Random numbers come from torch's global generator, so that the same `torch.manual_seed` gives upstream's
    results.

    Args:
        tokenizer, model: networks of this module or of `kronos`, on one device.
        x: (B, L, 6) normalized bars.
        x_stamp: (B, L, 5) calendar fields of the bars, see `calc_time_stamps`.
        y_stamp: (B, pred_len, 5) calendar fields of the bars to forecast.
        max_context: maximum number of bars that model and decoder see.
        pred_len: number of bars to forecast, at most `max_context`.
        clip: bars are clipped to ±clip.
        T, top_k, top_p: temperature and filters, see `SampleConfig`.
        sample_count: number of paths to average.
        verbose: show a progress bar.

    Returns:
        (B, min(L + pred_len, max_context), 6) float32, normalized; the last `pred_len` rows are the forecast.
    """
    sampling = _sampling(sample_count, T, top_k, top_p)
    max_context = as_integer("max_context", max_context)
    device = next(model.parameters()).device
    inputs = _inputs(x, x_stamp, y_stamp, pred_len, max_context, clip, device)
    fused = FusedTokenizer(tokenizer, ExecutionConfig())
    prompt, tokens = _sampled(
        FusedKronos(model, ExecutionConfig()), fused, *inputs, sampling, max_context, "recompute", verbose
    )
    forecast = decode(fused, prompt, tokens, max_context).paths.mean(dim=1)
    kept = slice(max(0, prompt.tokens.s1.shape[1] - (max_context - tokens.s1.shape[-1])), None)
    # The decoder is causal: the reconstructed past is the same for every path.
    past = tokenizer.run_decoder(
        tokenizer.post_quant_embed(
            tokenizer.quantizer.codes(Tokens(*(half[:, kept] for half in prompt.tokens)))
        )
    )
    return torch.cat([past, forecast], dim=1).cpu().numpy()


def calc_time_stamps(x_timestamp: Timestamps) -> pd.DataFrame:
    """Calendar fields minute, hour, weekday, day and month of (T,) timestamps, as the networks read them.

    Timestamps with a time zone are read as local time. A Series keeps its index.

    Raises:
        ValueError: a value is not a timestamp.
    """
    times = parse_timestamps(x_timestamp, "x_timestamp")
    if times.hasnans:
        raise ValueError(
            f"x_timestamp has no timestamp in row {int(np.argmax(times.isna()))}. Drop that row."
        )
    index = x_timestamp.index if isinstance(x_timestamp, pd.Series) else None
    return pd.DataFrame(stamps(times).astype(np.int32), index=index, columns=list(STAMPS))


def sample_from_logits(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    sample_logits: bool = True,
) -> Tensor:
    """(B, V) logits -> (B, 1) ids, sampled by torch's global generator, or the most likely ones."""
    shares = probabilities(logits, _sampling(1, temperature, top_k, top_p))
    return torch.multinomial(shares, 1) if sample_logits else shares.argmax(dim=-1, keepdim=True)


def top_k_top_p_filtering(
    logits: Tensor,
    top_k: int | None = 0,
    top_p: float | None = 1.0,
    filter_value: float = -float("inf"),
    min_tokens_to_keep: int = 1,
) -> Tensor:
    """(B, V) logits with `filter_value` at tokens that top-k, or else the nucleus, drops; a new tensor."""
    least = as_integer("min_tokens_to_keep", min_tokens_to_keep)
    wanted = 0 if top_k is None else as_integer("top_k", top_k)
    sampling = _sampling(1, 1.0, max(wanted, least) if wanted else 0, top_p)
    kept = probabilities(logits, sampling) > 0
    best = logits.topk(min(least, logits.shape[-1]), dim=-1).indices
    return logits.masked_fill(~kept.scatter(-1, best, True), filter_value)


def _sampled(
    model: FusedKronos,
    tokenizer: FusedTokenizer,
    x: Tensor,
    x_stamp: Tensor,
    y_stamp: Tensor,
    sampling: SampleConfig,
    max_context: int,
    context_overflow: ContextOverflow,
    verbose: bool,
) -> tuple[Prompt, Tokens]:
    """Tokenize bars and sample their future: (B, S, pred_len) tokens."""
    lengths = torch.full((len(x),), x.shape[1], device=x.device)
    prompt = Prompt(tokenizer.encode(x), lengths, x_stamp, y_stamp, even=True)
    with Progress(disable=not verbose, transient=True) as bar:
        task = bar.add_task("bars", total=y_stamp.shape[1])
        draws = TorchSampler(sampling.samples)
        return prompt, generate(
            model, prompt, sampling, draws, max_context, context_overflow, on_step=lambda: bar.advance(task)
        )


def _inputs(
    x: Tensor | np.ndarray,
    x_stamp: Tensor | np.ndarray,
    y_stamp: Tensor | np.ndarray,
    pred_len: int,
    max_context: int,
    clip: float,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor]:
    """Clipped bars and integer stamps on the device; refuses arrays of wrong shapes."""
    pred_len = as_integer("pred_len", pred_len)
    if not 1 <= pred_len <= max_context:
        raise ValueError(
            f"pred_len={pred_len} does not fit max_context={max_context}. Pass 1 to {max_context}."
        )
    if not as_number("clip", clip) > 0:
        raise ValueError(f"clip={clip} is not positive. Pass a positive number, e.g. 5.")
    bars, past, future = (torch.as_tensor(array).to(device) for array in (x, x_stamp, y_stamp))
    if bars.ndim != 3 or bars.shape[-1] != len(FEATURES):
        raise ValueError(f"x is {tuple(bars.shape)}. Pass normalized bars (B, L, {len(FEATURES)}).")
    for name, given, length in (("x_stamp", past, bars.shape[1]), ("y_stamp", future, pred_len)):
        wanted = (len(bars), length, len(STAMPS))
        if given.ndim != 3 or given.shape[1] < length or given[:, :length].shape != wanted:
            raise ValueError(
                f"{name} is {tuple(given.shape)}. Pass the calendar fields {wanted} of these bars."
            )
    return bars.float().clamp(-clip, clip), past.long(), future[:, :pred_len].long()


def _sampling(samples: int, T: float, top_k: int | None, top_p: float | None) -> SampleConfig:
    """Upstream's settings; None disables a filter."""
    return SampleConfig(samples, T, 1.0 if top_p is None else top_p, 0 if top_k is None else top_k)
