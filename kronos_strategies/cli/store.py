"""`kronos store`: forecasts of a whole market over a span of dates, saved in a forecast store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from kronos_strategies.cli import common
from kronos_strategies.cli.common import (
    TRACKING,
    Tracking,
    absolute_settings,
    note,
    qrun_command,
    show_next,
    span_text,
    told_how_to_resume,
    trade_settings,
)
from kronos_strategies.cli.store_maintenance import gc, ls, verify
from kronos_strategies.progress import progress_bar

if TYPE_CHECKING:
    from kronos.config import SampleConfig
    from kronos.windows import Windows
    from kronos_strategies.distributed import WorkerPool
    from kronos_strategies.forecasters.protocol import Forecaster
    from kronos_strategies.heads.selection import HeadReader, ScoreChoice, ScoreUse
    from kronos_strategies.store import FillResult, ForecastStore, WindowSpec

# Defaults of configs/kronos_csi300.yaml.
DEFAULTS = {
    "KRONOS_STORE_DTYPE": "float32",
    "KRONOS_MODEL": "kronos-nano",
    "KRONOS_PRECISION": "float32",
    "KRONOS_CONTEXT_OVERFLOW": "recompute",
    "KRONOS_SAMPLES": "10",
    "KRONOS_SEED": "0",
    "KRONOS_MARKET": "csi300",
    "KRONOS_LOOKBACK": "90",
    "KRONOS_HORIZON": "6",
    "KRONOS_HOLD": "5",
    "KRONOS_SCORE": "auto",
    "KRONOS_TEST_START": "2023-01-03",
    "KRONOS_TEST_END": "2023-12-29",
}


store = App(
    name="store",
    help="Fill a forecast store with forecasts of a market; list, check and clean it.\n\n"
    "For example: `kronos store fill ~/forecasts --start 2022-01-04 --end 2023-12-29`",
)
for command in (gc, ls, verify):
    store.command(command)


@store.command
def fill(
    folder: str,
    /,
    *,
    start: datetime,
    end: datetime,
    every: int = 1,
    market: str = "csi300",
    frequency: str | None = None,
    data: Annotated[Path | None, Parameter(env_var="KRONOS_QLIB_DATA")] = None,
    model: str = "kronos-nano",
    tokenizer: common.Tokenizer = None,
    revision: common.Revision = None,
    samples: int = 10,
    temperature: common.Temperature = None,
    top_p: common.TopP = None,
    top_k: common.TopK = None,
    seed: common.Seed = 0,
    lookback: int = 90,
    horizon: int = 10,
    device: common.Device = None,
    precision: common.Precision = "float32",
    context_overflow: common.ContextOverflow = "recompute",
    compile: bool = False,
    float16: bool = False,
    score: Literal["auto", "head", "paths"] = "auto",
    heads: str | None = None,
    workers: int = 1,
    ray: str | None = None,
    gpus_per_worker: float = 0.0,
    tracking: Tracking = TRACKING,
) -> None:
    """Forecast every member of a market on every date, and save the paths in a forecast store.

    Existing forecasts are reused: an interrupted run resumes, and new data only add new dates. Several processes
    or machines may fill one store.

    For example: `kronos store fill ~/forecasts --start 2022-01-04 --end 2023-12-29 --samples 20`

    Args:
        folder: folder of the forecast store, created if it does not exist, or a URL such as s3://bucket/forecasts.
        start: first forecast date, with a time if bars are within the day: 2024-01-15T09:35, by the clock of the
            data directory; earlier bars are context.
        end: last forecast date; one without a time ends with the last bar of the day.
        every: bars from one forecast to the next: trading days of daily bars.
        market: universe whose members of each date are forecast.
        frequency: bar frequency of the data directory, such as day, 60min or 5min; the one of its import
            when omitted.
        data: Qlib data directory; the simulated market when omitted.
        model: bundled name, folder or hub id of a checkpoint; or another forecaster, such as baseline:garch.
        samples: paths per window; 0 samples none and computes the return head alone.
        lookback: traded bars that the model reads.
        horizon: bars to forecast.
        compile: compile the networks first, for long runs on an accelerator.
        float16: store paths in half precision, which takes three fifths of the space.
        score: whether to also store the outputs of the checkpoint's return head; auto does if it has one for bars
            of this frequency and this lookback.
        heads: comma-separated names or folders of other heads whose outputs are stored.
        workers: processes that share the dates, each with a model of its own and an equal share of the cores; with
            --ray, actors.
        ray: address of a Ray cluster whose nodes share the dates: auto for the one that this machine belongs to,
            local to start Ray here.
        gpus_per_worker: GPUs of each Ray actor, may be a fraction; 0 computes on CPUs.
        tracking: MLflow tracking store that records the run, so that `kronos compare` can find it.
    """
    from kronos_strategies.data.qlib_bins import bar_frequency, choose_freq
    from kronos_strategies.data.simulate import default_store
    from kronos_strategies.distributed import worker_pool
    from kronos_strategies.forecasters import load_forecaster
    from kronos_strategies.forecasters.protocol import forecast_notes
    from kronos_strategies.heads.selection import ScoreUse
    from kronos_strategies.qlib.data_access import init_qlib, universe_name
    from kronos_strategies.store import ForecastStore, WindowSpec

    bars = data or default_store()
    freq = choose_freq(bars, frequency)
    pool = worker_pool(workers, ray, gpus_per_worker)
    forecast_store = ForecastStore(folder, "float16" if float16 else "float32")
    load = partial(
        load_forecaster,
        device=device,
        precision=precision,
        context_overflow=context_overflow,
        compile=compile,
    )
    predictor = load(model, tokenizer, revision)
    use = ScoreUse(hold=None, lookback=lookback, frequency=bar_frequency(freq))
    readers, choice = _readers(predictor, heads, load, score, use, samples)
    sampling = predictor.sampling.with_overrides(samples or 1, temperature, top_p, top_k, seed)
    store_warnings = init_qlib(bars, tracking, freq=freq)
    spec = WindowSpec(universe_name({"market": market}, freq), lookback, horizon, min_bars=lookback)
    windows = _windows(spec, start, end, every, predictor.max_context)
    with told_how_to_resume():
        filled = _fill(
            forecast_store, predictor, readers, windows, spec, sampling if samples else None, bars, pool
        )
    settings = {
        "KRONOS_MODEL": model,
        "KRONOS_TOKENIZER": tokenizer,
        "KRONOS_REVISION": revision,
        "KRONOS_DEVICE": device,
        "KRONOS_PRECISION": precision,
        "KRONOS_CONTEXT_OVERFLOW": context_overflow,
        "KRONOS_SAMPLES": samples,
        "KRONOS_T": temperature,
        "KRONOS_TOP_P": top_p,
        "KRONOS_TOP_K": top_k,
        "KRONOS_SEED": seed,
        "KRONOS_SCORE": score,
        "KRONOS_HEADS": heads,
    }
    command, more = _next(settings, forecast_store, spec, start, end, data)
    shown = [*store_warnings, *choice.warnings, *forecast_notes(predictor), *more]
    if every > 1:
        command = None  # a backtest of the span would forecast the dates between
    _show(filled, folder, len(windows), choice.described, pool, shown, command)


def _readers(
    predictor: Forecaster,
    heads: str | None,
    load: Callable[[str], Forecaster],
    score: str,
    use: ScoreUse,
    samples: int,
) -> tuple[list[HeadReader], ScoreChoice]:
    """The return heads whose outputs are stored, and why these."""
    from kronos_strategies.heads.selection import choose_score, head_names, load_readers

    readers = load_readers(predictor, head_names(heads), load)
    choice = choose_score(score, [reader.head for reader in readers], use)
    if samples == 0 and not choice.heads:
        raise ValueError(
            f"--samples 0 leaves nothing to compute: {choice.why}. Sample paths, or set --heads."
        )
    return (readers if choice.heads else []), choice


def _windows(
    spec: WindowSpec, start: datetime, end: datetime, every: int, max_context: int | None
) -> Windows:
    """The windows of a span, after checks of market, span and lookback."""
    from pandas import Timestamp

    from kronos_strategies.data.qlib_bins import end_of, split_universe
    from kronos_strategies.qlib.checks import check_lookback, check_market, check_span
    from kronos_strategies.qlib.data_access import member_windows

    if start.tzinfo or end.tzinfo:
        raise ValueError(
            "--start and --end are times by the clock of the data directory: write them without a time zone."
        )
    market, freq = split_universe(spec.universe)
    span = Timestamp(start), end_of(Timestamp(end), freq)
    check_market(market, freq)
    check_span("The span", *span, "Set another --start and --end.", freq)
    check_lookback(spec.lookback, max_context)
    return member_windows(spec, *span, market, freq, every)


def _fill(
    forecast_store: ForecastStore,
    predictor: Forecaster,
    readers: Sequence[HeadReader],
    windows: Windows,
    spec: WindowSpec,
    sampling: SampleConfig | None,
    bars: Path,
    pool: WorkerPool | None,
) -> FillResult | None:
    """Compute what is not stored yet: outputs of return heads, and paths, as a recorded run, if any are sampled."""
    from kronos_strategies.qlib.tracking import forecast_run

    with progress_bar("read", "windows") as progress:
        for reader in readers:
            forecast_store.head_outputs(reader.predictor, reader.head, windows, spec, progress, pool)
    if sampling is None:
        return None
    with (
        forecast_run(predictor.provenance(sampling, windows.digest()), spec, bars) as record,
        progress_bar("forecast", "windows") as progress,
    ):
        return record(forecast_store.fill(predictor, windows, spec, sampling, progress, pool))


def _next(
    settings: Mapping[str, object],
    forecast_store: ForecastStore,
    spec: WindowSpec,
    start: datetime,
    end: datetime,
    data: Path | None,
) -> tuple[str | None, list[str]]:
    """The command that trades the forecasts, None where no backtest is possible; and warnings about it."""
    from pandas import Timestamp

    from kronos_strategies.data.qlib_bins import end_of, split_universe
    from kronos_strategies.data.simulate import default_store
    from kronos_strategies.qlib.strategy import last_tradable

    market, freq = split_universe(spec.universe)
    tradable = last_tradable(end_of(Timestamp(end), freq), freq)
    settings = {
        "KRONOS_QLIB_DATA": data,
        "KRONOS_STORE": forecast_store.folder,
        "KRONOS_STORE_DTYPE": forecast_store.dtype,
        **settings,
        "KRONOS_LOOKBACK": spec.lookback,
        "KRONOS_MARKET": market,
        "KRONOS_HORIZON": spec.horizon,
        "KRONOS_HOLD": max(1, min(5, spec.horizon - 1)),  # a trade enters a bar after its signal
        "KRONOS_TEST_START": f"{start:%Y-%m-%d}",
        "KRONOS_TEST_END": f"{tradable:%Y-%m-%d}",
    }
    trade, config = trade_settings(data, market, freq) if data else ({}, "kronos_csi300.yaml")
    changed = {k: str(v) for k, v in absolute_settings(settings).items() if v is not None}
    changed = {k: v for k, v in changed.items() if v != DEFAULTS.get(k)} | trade
    warnings = []
    if tradable < Timestamp(end):
        warnings = [
            f"Signals of the last bar trade on a bar that {data or default_store()} does not have: a backtest must "
            f"end by {tradable:%Y-%m-%d}."
        ]
    possible = spec.horizon > 1 and tradable >= Timestamp(start)
    return (qrun_command(changed, config) if possible else None), warnings


def _show(
    filled: FillResult | None,
    folder: str,
    windows: int,
    score: str,
    pool: WorkerPool | None,
    warnings: Sequence[str],
    command: str | None,
) -> None:
    """Print what was computed, and the command to run next."""
    table = Table(show_header=False)
    if filled is None:
        table.add_row("store", escape(folder))
        table.add_row("score", escape(score))
        table.add_row("windows", f"{windows:,}")
    else:
        _add_dates(table, filled)
        table.add_row("score", escape(score))
    if pool is not None:
        table.add_row("workers", pool.described)
    console = Console()
    console.print(table)
    for warning in warnings:
        note(console, warning)
    if command is not None:
        show_next(console, command)


def _add_dates(table: Table, filled: FillResult) -> None:
    """Add what happened to each date, and the speed."""
    found, dates = filled.found, list(filled.digests)
    table.add_row("forecasts", escape(str(filled.forecast_set.folder)))
    table.add_row("dates", f"{len(dates):,}, {' to '.join(span_text(dates))}")
    table.add_row("already there", f"{len(found.present):,}")
    table.add_row("computed", f"{filled.computed:,}")
    rows = {
        "because bars changed": len(found.changed),
        "because files were damaged": len(found.damaged),
        "by other processes": len(found.due) - filled.computed,
    }
    for label, count in rows.items():
        if count:
            table.add_row(f"  {label}", f"{count:,}")
    if filled.windows:
        speed = filled.windows / filled.seconds
        table.add_row("speed", f"{speed:,.0f} windows/s, {filled.windows:,} in {filled.seconds:,.1f} s")
    table.add_row("on disk", decimal(filled.forecast_set.size))
