"""Parameter optimization: `cerebro.optstrategy` with a model, in one process or in several."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from typing import Any

import backtrader as bt

logger = logging.getLogger(__name__)


def run_optimization(cerebro: bt.Cerebro, maxcpus: int = 1) -> list[Any]:
    """Run the combinations added with `cerebro.optstrategy`; one process is usually fastest.

    One process loads one model and forecasts each window once, even if other parameters of a strategy vary.
    Several processes each load the model and forecast for themselves, unless the indicators have a `store`, in
    which each forecast is computed once. Processes are started by spawn, so that PyTorch keeps its threads:
    strategies must be importable, and a script must run under `if __name__ == "__main__":`.

    `cerebro.run(maxcpus=2)` forks on Linux instead; forecasts then use one thread per process.

    Args:
        cerebro: a Cerebro with at least one `optstrategy`.
        maxcpus: number of processes.

    Returns:
        The return value of `cerebro.run()`: a list of results for each combination.

    Raises:
        ValueError: maxcpus is below 1, or other processes cannot import a strategy.
    """
    if maxcpus < 1:
        raise ValueError(f"maxcpus={maxcpus} is below 1. Pass 1, or the number of cores.")
    if maxcpus == 1:
        return list(cerebro.run(maxcpus=1))
    _check_importable(cerebro)
    usual = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)  # Backtrader uses the default start method
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
                    f"{strategy.__name__} is defined in an interactive session, from which other processes cannot "
                    "import it. Move it to a file, or pass maxcpus=1."
                )


def limit_threads_after_fork() -> None:
    """In a forked process, let PyTorch compute with one thread.

    Its other threads exist only in the parent process, and PyTorch would wait for them forever.
    """
    if not _FORKED:
        return
    import torch

    if (threads := torch.get_num_threads()) > 1:
        torch.set_num_threads(1)
        logger.warning(
            "This process was forked from one in which PyTorch used %d threads, which do not exist here: forecasts "
            "use 1 thread. run_optimization(cerebro, maxcpus) starts processes that can use all.",
            threads,
        )


_FORKED = False


def _mark_forked() -> None:
    global _FORKED
    _FORKED = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_forked)
