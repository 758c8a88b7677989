"""Device, memory budget, weights and options of a predictor: selected, converted and checked."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from typing import Any, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor, nn

from kronos.config import SampleConfig, as_choice, as_integer, as_number
from kronos.forecast import Anchor
from kronos.inference.fused import Precision
from kronos.inference.generate import ContextOverflow
from kronos.model import Kronos
from kronos.tokenizer import KronosTokenizer
from kronos.windows import MIN_BARS

CPU_BUDGET = 96 * 2**20  # bytes; throughput is flat beyond some hundred paths


def find_device(name: str | torch.device | None) -> torch.device:
    """The device of that name; None selects the fastest available.

    Raises:
        ValueError: torch cannot use it here.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if device.type == "meta":
            raise RuntimeError("it stores no values")
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"device '{name}' is not available here ({reason}). Pass 'cpu', 'cuda', 'mps' or None."
        ) from None
    return device


def default_budget(device: torch.device) -> int:
    """Memory limit of a chunk in bytes: a share of an accelerator's free memory, little on a CPU."""
    if device.type == "cuda":
        # Memory that torch has reserved but does not use counts as free, so that chunks stay the same size.
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(0.6 * (torch.cuda.mem_get_info(device)[0] + idle))
    if device.type == "mps":
        return int(0.4 * torch.mps.recommended_max_memory())
    return CPU_BUDGET


@contextmanager
def default_torch_state() -> Iterator[None]:
    """Context manager and decorator that restores torch's own autocast, default dtype and default device.

    Inference chooses dtypes and devices explicitly; the caller's defaults would interfere.
    """
    default = torch.get_default_dtype()
    with ExitStack() as stack:
        for kind in ("cpu", "cuda", "mps"):
            stack.enter_context(torch.autocast(kind, enabled=False))
        # Only if necessary: the context slows every operator, and the default dtype is shared by all threads.
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if default != torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, default)
        yield


_Network = TypeVar("_Network", Kronos, KronosTokenizer)


def as_float32(network: _Network, device: torch.device) -> _Network:
    """The network with float32 weights on a device: itself, or a copy if its dtype or device differ.

    The original is not changed, since its owner may train it with another dtype or on another device.
    """
    here = torch.empty(0, device=device).device  # "cuda" has an index
    if all(weight.dtype == torch.float32 and weight.device == here for weight in network.parameters()):
        return network
    return copy.deepcopy(network).float().to(device)


def as_cpu(network: _Network) -> _Network:
    """The network itself if it is on the CPU, else a copy there."""
    if all(weight.device.type == "cpu" for weight in network.parameters()):
        return network
    return copy.deepcopy(network).cpu()


@torch.no_grad()
@default_torch_state()
def weights_signature(*networks: Kronos | KronosTokenizer) -> list[Any]:
    """Values that change when any weight changes, also without torch's knowledge; fast enough for every forecast.

    Raises:
        ValueError: weights are on the meta device, not floating point, or not finite.
    """
    found: list[Any] = [network.config for network in networks]
    for network in networks:
        named = list(_named_weights(network))
        sums = [torch.dot(weight.data.flatten().float(), _probe(weight)) for _, weight in named]
        together = len({x.device for x in sums}) == 1
        values = torch.stack(sums).tolist() if together else [x.item() for x in sums]
        for (name, _), value in zip(named, values, strict=True):
            if not math.isfinite(value):
                raise ValueError(
                    f"The weights '{name}' of {type(network).__name__} are not finite. Load other weights."
                )
        found += [*values, *((_changes(weight), weight.dtype, str(weight.device)) for _, weight in named)]
    return found


class WeightsDigest:
    """Digest of networks' current weights as float32, to compare with later ones.

    Args:
        networks: the networks.
    """

    def __init__(self, *networks: Kronos | KronosTokenizer) -> None:
        self._digest = _sha256(*networks)
        # The last comparison and its result: unchanged weights are not hashed again.
        self._compared = weights_signature(*networks), True

    def matches(self, *networks: Kronos | KronosTokenizer) -> bool:
        """Whether these networks have the same weights."""
        now = weights_signature(*networks)
        if now != self._compared[0]:
            self._compared = now, _sha256(*networks) == self._digest
        return self._compared[1]


def _named_weights(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, weight in network.named_parameters():
        if weight.is_meta:
            raise ValueError(
                f"The weights '{name}' of {type(network).__name__} are on the meta device, which stores no values. "
                "Load them, e.g. by from_pretrained."
            )
        if not weight.is_floating_point():
            raise ValueError(
                f"The weights '{name}' of {type(network).__name__} are {weight.dtype}. Convert them to float32."
            )
        yield name, weight


def _changes(weight: Tensor) -> int | None:
    """Torch's count of in-place changes of the weight; None for weights created in inference mode."""
    try:
        return weight._version
    except RuntimeError:  # `is_inference()` is False after `half()`
        return None


def _probe(weight: Tensor) -> Tensor:
    """One random number per weight, so that a weighted sum depends on positions."""
    count = weight.numel()
    return _random(1 << max(0, count - 1).bit_length(), weight.device)[:count]


@lru_cache(maxsize=64)
def _random(count: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, generator=generator, dtype=torch.float32, device="cpu").to(device)


def _sha256(*networks: Kronos | KronosTokenizer) -> str:
    digest = hashlib.sha256()
    for network in networks:
        digest.update(repr(network.config).encode())
        for name, weight in _named_weights(network):
            digest.update(f"{name} {tuple(weight.shape)}".encode())
            digest.update(weight.data.cpu().float().numpy().tobytes())
    return digest.hexdigest()


def _max_context(value: Any) -> int:
    bars = as_integer("max_context", value)
    if bars < MIN_BARS:
        raise ValueError(f"max_context={bars} is too small for a window. Pass at least {MIN_BARS}.")
    return bars


def _clip(value: Any) -> float:
    clip = as_number("clip", value)
    if not clip > 0:
        raise ValueError(f"clip={clip} is not positive. Pass a positive number, e.g. 5.")
    return clip


def _memory(value: Any) -> int | None:
    if value is None:
        return None
    size = as_integer("memory", value)
    if size < 1:
        raise ValueError(f"memory={size} is not a positive number of bytes. Pass more, or None.")
    return size


def _compile(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"compile={value!r} is neither True nor False. Pass one of them.")
    return bool(value)


def _instance(name: str, kind: type, example: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError(f"{name} is a {type(value).__name__}, not a {kind.__name__}. Pass {example}.")
        return value

    return check


CHECKS: dict[str, Callable[[Any], Any]] = {
    "model": _instance("model", Kronos, "one, e.g. Kronos.from_pretrained('kronos-nano')"),
    "tokenizer": _instance("tokenizer", KronosTokenizer, "the one that the model was trained with"),
    "device": find_device,
    "max_context": _max_context,
    "clip": _clip,
    "context_overflow": partial(as_choice, "context_overflow", choices=get_args(ContextOverflow)),
    "precision": partial(as_choice, "precision", choices=get_args(Precision)),
    "anchor": partial(as_choice, "anchor", choices=get_args(Anchor)),
    "compile": _compile,
    "memory": _memory,
    "sampling": _instance("sampling", SampleConfig, "one, e.g. SampleConfig(samples=10, T=0.6)"),
}
"""Check of each option by name: returns the value to keep, or raises an error that says what to pass."""
