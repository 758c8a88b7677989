"""Which device computes, how much of its memory a chunk may take, and what of torch's global state is kept out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

CPU_BUDGET = 96 * 2**20  # bytes; throughput is flat beyond some hundred paths, memory is not


def find_device(name: str | torch.device | None) -> torch.device:
    """The device by that name; None stands for the fastest there is.

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
            raise RuntimeError("it holds no values")
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"device '{name}' cannot be used here ({reason}). Pass 'cpu', 'cuda', 'mps' or None."
        ) from None
    return device


def default_budget(device: torch.device) -> int:
    """Bytes that a chunk may take: a part of what an accelerator has free, little on a CPU."""
    if device.type == "cuda":
        # What torch holds and does not use is free for us, so that one forecast's chunks are the next one's too.
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(0.6 * (torch.cuda.mem_get_info(device)[0] + idle))
    if device.type == "mps":
        return int(0.4 * torch.mps.recommended_max_memory())
    return CPU_BUDGET


@contextmanager
def plain_torch() -> Iterator[None]:
    """A context, and a decorator, in which autocast, default type and default device are as torch sets them first.

    Types and devices are chosen by the engine; the caller's would mix with them.
    """
    default = torch.get_default_dtype()
    with ExitStack() as stack:
        for kind in ("cpu", "cuda", "mps"):
            stack.enter_context(torch.autocast(kind, enabled=False))
        # Asked first: the context makes every operator slower, and the default type is shared by all threads.
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if default != torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, default)
        yield
