"""The weights that a forecast is computed with: where they are, of what type, and whether they changed."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from kronos.engine.device import plain_torch
from kronos.model import Kronos
from kronos.tokenizer import KronosTokenizer

_Network = TypeVar("_Network", Kronos, KronosTokenizer)


def computable(network: _Network, device: torch.device) -> _Network:
    """The network with float32 weights on a device: itself, or a copy where it has others or lies elsewhere.

    Its owner may train it in another type or on another device meanwhile, so that it is left as it is.
    """
    here = torch.empty(0, device=device).device  # "cuda" stands for one of several
    if all(weight.dtype == torch.float32 and weight.device == here for weight in network.parameters()):
        return network
    return copy.deepcopy(network).float().to(device)


def on_cpu(network: _Network) -> _Network:
    """The network itself where it lies on the CPU, else a copy there."""
    if all(weight.device.type == "cpu" for weight in network.parameters()):
        return network
    return copy.deepcopy(network).cpu()


@torch.no_grad()
@plain_torch()
def fingerprint(*networks: Kronos | KronosTokenizer) -> list[Any]:
    """What changes when a weight does, whether torch counts the change or not; quick, for every forecast.

    Raises:
        ValueError: weights have no values, or values that nothing can be computed with.
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
                    f"The weights '{name}' of {type(network).__name__} are not finite. Load others."
                )
        found += [*values, *((_changes(weight), weight.dtype, str(weight.device)) for _, weight in named)]
    return found


class WeightsDigest:
    """What networks hold, as float32 to the bit, to compare with what they hold later.

    Args:
        networks: as they are now.
    """

    def __init__(self, *networks: Kronos | KronosTokenizer) -> None:
        self._digest = _sha256(*networks)
        # The last comparison and its outcome: while nothing changes, the weights are not read again.
        self._compared = fingerprint(*networks), True

    def matches(self, *networks: Kronos | KronosTokenizer) -> bool:
        """Whether these hold the same."""
        now = fingerprint(*networks)
        if now != self._compared[0]:
            self._compared = now, _sha256(*networks) == self._digest
        return self._compared[1]


def _named_weights(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, weight in network.named_parameters():
        if weight.is_meta:
            raise ValueError(
                f"The weights '{name}' of {type(network).__name__} are on the meta device, which holds no values. "
                "Load them, e.g. by from_pretrained."
            )
        if not weight.is_floating_point():
            raise ValueError(
                f"The weights '{name}' of {type(network).__name__} are {weight.dtype}. Convert them to float32."
            )
        yield name, weight


def _changes(weight: Tensor) -> int | None:
    """How often torch saw the weight change in place; weights made in inference mode count no changes."""
    try:
        return weight._version
    except RuntimeError:  # `is_inference()` denies it once `half()` has been called
        return None


def _probe(weight: Tensor) -> Tensor:
    """As many random numbers as there are weights: a sum weighted by them tells places apart."""
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
