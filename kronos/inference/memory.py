"""Chunks of windows in as much memory as there is: a chunk that does not fit is run in halves."""

from __future__ import annotations

import gc
import logging
import re
from collections.abc import Callable

import numpy as np
import torch

from kronos.inference.pipeline import split_chunks

log = logging.getLogger(__name__)

# torch.OutOfMemoryError and Python's MemoryError apart, allocators raise RuntimeError with one of these texts.
_TEXTS = re.compile(
    r"not enough memory|can't allocate memory|out of memory|unable to allocate|bad_?\s?alloc|ALLOC_FAILED"
    r"|could not create a (?:memory|primitive)",  # oneDNN
    re.IGNORECASE,
)


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
