"""Optimisations: `cerebro.optstrategy` with a model inside, in one process or several."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from typing import Any

import backtrader as bt

log = logging.getLogger(__name__)


def run_optimisation(cerebro: bt.Cerebro, maxcpus: int = 1) -> list[Any]:
    """Run what `cerebro.optstrategy` has prepared; one process is usually the fastest way.

    One process loads one model and forecasts each window once, whatever else of a strategy is varied. Several
    processes each load and forecast for themselves, unless the indicators name a `store`, in which every forecast
    is computed by one of them. They are started afresh (spawn), so that torch keeps its threads: strategies must
    be importable, and a script must keep its work under `if __name__ == "__main__":`.

    `cerebro.run(maxcpus=2)` forks on Linux instead; there forecasts are computed with one thread a process.

    Args:
        cerebro: with at least one `optstrategy`.
        maxcpus: processes.

    Returns:
        What `cerebro.run()` returns: a list of results for each combination.

    Raises:
        ValueError: not a number of processes, or strategies that no other process can import.
    """
    if maxcpus < 1:
        raise ValueError(f"maxcpus={maxcpus} starts no process. Pass 1, or as many as there are cores.")
    if maxcpus == 1:
        return list(cerebro.run(maxcpus=1))
    _check_importable(cerebro)
    usual = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)  # Backtrader takes the default one
    try:
        return list(cerebro.run(maxcpus=maxcpus))
    finally:
        multiprocessing.set_start_method(usual, force=True)


def _check_importable(cerebro: bt.Cerebro) -> None:
    if getattr(sys.modules["__main__"], "__file__", None) is not None:
        return
    for choices in cerebro.strats:
        for strategy, _, _ in choices:
            if strategy.__module__ == "__main__":
                raise ValueError(
                    f"{strategy.__name__} is defined in a session that other processes cannot import. "
                    "Move it to a file, or pass maxcpus=1."
                )


def one_thread_after_fork() -> None:
    """In a forked process, let torch compute with one thread.

    Its other threads stayed behind in the process that was forked, and torch would wait for them for ever.
    """
    if not _FORKED:
        return
    import torch

    if (threads := torch.get_num_threads()) > 1:
        torch.set_num_threads(1)
        log.warning(
            "This process was forked, and torch would wait for ever for the %d threads that stayed behind: it "
            "computes with 1. run_optimisation(cerebro, maxcpus) starts processes that keep theirs.",
            threads,
        )


_FORKED = False


def _note_the_fork() -> None:
    global _FORKED
    _FORKED = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_the_fork)
