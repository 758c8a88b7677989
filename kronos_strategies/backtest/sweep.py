"""A sweep: what its trials share is read once, and they run in several processes.

Finished trials are not run again, and forecasts are read only if a trial is due.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

from kronos.postprocessing import PathOptions
from kronos.utils import USER_ERRORS, explain_write_errors
from kronos_strategies.backtest.inputs import (
    HISTORY,
    BacktestInputs,
    BacktestSettings,
    SignalSettings,
    StoredPaths,
    cut_to_dates,
    find_dates,
    find_postprocessing,
    find_scores,
    read_benchmark,
    read_prices,
    read_signals,
)
from kronos_strategies.backtest.search import SweepConfig
from kronos_strategies.backtest.stored import backtest_forecasts
from kronos_strategies.backtest.trading import TradingRules
from kronos_strategies.backtest.trials import (
    INSTEAD,
    SweepResult,
    TrialResult,
    data_sha256,
    evaluate_trials,
    place_trials,
)
from kronos_strategies.data.qlib_bins import forecast_freq
from kronos_strategies.distributed.processes import THREADS, environment_variable, threads_per_worker
from kronos_strategies.evaluation.signal.neutralization import read_industries
from kronos_strategies.portfolio import past_bars
from kronos_strategies.portfolio.target import TIE_BREAK
from kronos_strategies.progress import ProgressReport, progress_bar
from kronos_strategies.run_artifacts import RunArtifacts
from kronos_strategies.store import ForecastSet

log = logging.getLogger(__name__)

Inputs = Mapping[SignalSettings, BacktestInputs]


class Sweep:
    """Trials of a configuration on the forecasts and prices that it names.

    Args:
        config: contents of the YAML file, with a store and data.

    Raises:
        FileNotFoundError: there are no forecasts or no bars.
        ValueError: the forecasts are too short for a holding period, or something is missing.
    """

    def __init__(self, config: SweepConfig) -> None:
        if missing := [name for name in ("store", "data") if not getattr(config, name)]:
            raise ValueError(
                f"The sweep names no {missing[0]}. Write `{missing[0]}:` or pass --{missing[0]}."
            )
        data = Path(str(config.data))
        self.forecast_set = ForecastSet.find(config.store)
        self.dates = find_dates(self.forecast_set, config.start, config.end)
        horizon, holds = self.forecast_set.settings.spec.horizon, _holds(config)
        if max(holds) >= horizon:
            raise ValueError(
                f"hold={max(holds)} needs forecasts of {max(holds) + 1} bars, and {self.forecast_set.folder} has "
                f"{horizon}: a signal trades one bar later. Choose holding periods from 1 to the horizon less 1."
            )
        names = self.forecast_set.frame(self.dates[0], self.dates[-1]).index.get_level_values("instrument")
        freq = forecast_freq(data, self.forecast_set.settings.spec.universe, self.dates)
        self.prices = read_prices(data, sorted(names.unique()), freq)
        self.industries = None if config.industry is None else read_industries(config.industry)
        self.benchmark = None if config.benchmark is None else read_benchmark(data, config.benchmark, freq)
        self.heads = {hold: find_scores(self.forecast_set, config.score, config.head, hold) for hold in holds}
        self.options = PathOptions(config.calibration)
        self.post = find_postprocessing(self.forecast_set, self.dates[0], self.options)
        self.trials = config.trials(self.prices.trading)
        self.history = max(HISTORY, *(past_bars(trial.settings.rules) for trial in self.trials))
        used = cut_to_dates(self.prices, self.dates[0], self.dates[-1], self.history)
        digest = data_sha256(self.forecast_set, self.dates, used, self.post, self.industries, self.benchmark)
        self.files = place_trials(self.trials, digest, self.dates, self.heads, config.output.expanduser())

    def run(self, workers: int = 1) -> SweepResult:
        """Run the trials that are not finished, and evaluate all of them.

        Args:
            workers: number of processes.

        Raises:
            ValueError: no trial has a result, a process died, or fewer than one is asked for.
        """
        if workers < 1:
            raise ValueError(f"workers={workers} is below 1. Pass 1, or the number of cores.")
        settings = {file: trial.settings for file, trial in zip(self.files, self.trials, strict=True)}
        due = {file: own for file, own in settings.items() if TrialResult.read(file) is None}
        log.info("%d of %d settings are finished.", len(settings) - len(due), len(settings))
        failed = {}
        if due:
            wanted = {own.signals for own in due.values()}
            tables = read_signals(self.forecast_set, self.dates, wanted, self.post, self.heads)
            paths = StoredPaths(self.forecast_set, self.post)
            inputs = {
                each: BacktestInputs.of(
                    table, self.prices, self.industries, self.benchmark, paths, self.history
                )
                for each, table in tables.items()
            }
            with progress_bar("backtested", "settings") as progress:
                failed = run_trials(due, inputs, workers, progress)
        return evaluate_trials(self.trials, self.files, failed)

    def artifacts(self, settings: BacktestSettings) -> RunArtifacts:
        """Artifacts of the usual report of one setting."""
        head = self.heads[settings.hold]
        return backtest_forecasts(
            self.forecast_set,
            self.dates,
            self.prices,
            settings,
            self.options,
            head,
            self.industries,
            self.benchmark,
        )


def _holds(config: SweepConfig) -> list[int]:
    """Holding periods of all trials."""
    return sorted({trial.settings.hold for trial in config.trials(TradingRules())})


def run_trials(
    due: Mapping[Path, BacktestSettings],
    inputs: Inputs,
    workers: int,
    progress: ProgressReport,
) -> dict[Path, str]:
    """Run trials and write their results; signals are shared by all.

    Args:
        due: settings by the file of their result.
        inputs: signals and prices by the settings of the signals.
        workers: number of processes; 1 for this one.
        progress: called as progress(trials done, trials due).

    Returns:
        The reasons of the trials that failed, by file.

    Raises:
        ValueError: a process died.
    """
    for path in due:
        with explain_write_errors(path, INSTEAD):
            path.parent.mkdir(parents=True, exist_ok=True)
    failed: dict[Path, str] = {}
    trimmed = {each: _trimmed(own, due.values()) for each, own in inputs.items()}
    progress(0, len(due))
    for done, (path, error) in enumerate(_outcomes(due, trimmed, min(workers, len(due))), start=1):
        if error:
            failed[path] = error
        progress(done, len(due))
    return failed


def _trimmed(inputs: BacktestInputs, settings: Collection[BacktestSettings]) -> BacktestInputs:
    """Inputs with only the signals that any of the settings reads, since every process has a copy.

    Where a setting reads an unknown one, all are kept: it fails, and its reason lists what there is.
    """
    read = {name for each in settings for name in (each.rules.rank_by, *each.rules.columns, *TIE_BREAK)}
    if any({each.rules.rank_by, *each.rules.columns} - set(inputs.signals) for each in settings):
        return inputs
    return replace(inputs, signals=inputs.signals[[name for name in inputs.signals if name in read]])


def _outcomes(
    due: Mapping[Path, BacktestSettings], inputs: Inputs, workers: int
) -> Iterator[tuple[Path, str]]:
    """The file of each trial once it is done, and the reason if it failed; in this process for one worker."""
    if workers <= 1:
        for path, settings in due.items():
            yield path, _run_trial(inputs, path, settings)
        return
    with environment_variable(THREADS, str(threads_per_worker(workers))):  # read when a process loads numpy
        # A forked process would share locks of this process's threads.
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_process, (inputs,))
        try:
            futures = {pool.submit(_run_in_process, path, own): path for path, own in due.items()}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise ValueError(
                "A process of the sweep died, which happens when memory runs out. Run it again with fewer "
                "--workers; finished settings are not run again."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


_inputs: Inputs = {}  # of a process of the pool


def _start_process(inputs: Inputs) -> None:
    """Keep the inputs; the process ends with the one that started it, however that ends."""
    global _inputs
    _inputs = inputs
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal
    Thread(target=_end_with_starter, daemon=True).start()


def _end_with_starter() -> None:
    starter = parent_process()
    if starter is not None:
        starter.join()
        os._exit(1)


def _run_in_process(path: Path, settings: BacktestSettings) -> str:
    return _run_trial(_inputs, path, settings)


def _run_trial(inputs: Inputs, path: Path, settings: BacktestSettings) -> str:
    """Run a trial and write its result; the reason if its setting does not fit the data, else nothing."""
    try:
        result = inputs[settings.signals].run(settings)
    except USER_ERRORS as error:
        return " ".join(str(error).split()) or type(error).__name__
    TrialResult.of(result).write(path)
    return ""
