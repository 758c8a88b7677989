"""`kronos forecast`: fill a store with the forecasts of a market."""

from __future__ import annotations

import sys
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from kronos_strategies.cli.show import TRACKING, Tracking, note, show_next
from kronos_strategies.cli.workflow import absolute_settings, qrun_command, trade_settings
from kronos_strategies.progress import progress_bar

if TYPE_CHECKING:
    from kronos_strategies.store import Filled

# What configs/kronos_csi300.yaml does without being told.
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


def forecast(
    store: Path,
    /,
    *,
    start: datetime,
    end: datetime,
    market: str = "csi300",
    data: Annotated[Path | None, Parameter(env_var="KRONOS_QLIB_DATA")] = None,
    model: str = "kronos-nano",
    tokenizer: str | None = None,
    revision: str | None = None,
    samples: int = 10,
    T: Annotated[float | None, Parameter(name="--T")] = None,
    top_p: float | None = None,
    top_k: int | None = None,
    seed: int = 0,
    lookback: int = 90,
    horizon: int = 10,
    device: str | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    context_overflow: Literal["recompute", "rolling"] = "recompute",
    compile: bool = False,
    float16: bool = False,
    score: Literal["auto", "head", "paths"] = "auto",
    heads: str | None = None,
    tracking: Tracking = TRACKING,
) -> None:
    """Forecast every member of a market on every date, into a store of parquet files.

    What the store has is not computed again, so that a stopped run goes on where it was, longer data cost the new
    dates only, and several processes may fill one store.

    For example: `kronos forecast ~/forecasts --start 2022-01-04 --end 2023-12-29 --samples 20`

    Args:
        store: the folder of forecasts, made if it is not there.
        start: first date of a forecast; earlier bars are context.
        end: last date of a forecast.
        market: whose members of each date to forecast.
        data: Qlib data folder; the simulated market without one.
        model: bundled name, folder or hub id.
        tokenizer: of a model that does not know its own.
        revision: of the model on the hub.
        samples: paths a window; 0 samples nothing and computes the return head alone.
        T: temperature; 0 takes the most likely token. T, top_p and top_k are as suits the checkpoint when omitted.
        top_p: nucleus that is sampled from.
        top_k: keep the k most likely tokens; 0 is off.
        seed: of the draws.
        lookback: traded bars that the model reads.
        horizon: days to forecast.
        device: cpu, cuda or mps; the fastest there is without one.
        precision: of matrix products; bfloat16 is faster where the processor has it, and draws other paths.
        context_overflow: when lookback and horizon exceed the model's context, recompute at each step, or roll.
        compile: compile the networks first, for long runs on an accelerator.
        float16: store paths as halves, in three fifths of the space.
        score: whether the outputs of the checkpoint's return head are stored too; auto stores them where it has one
            for daily bars and this lookback.
        heads: names or folders of other heads to store the outputs of, with commas.
        tracking: MLflow store that keeps a record of the run, by which `kronos compare` finds it again.
    """
    from pandas import Timestamp

    from kronos.predictor import KronosPredictor
    from kronos_strategies.data.default import default_store
    from kronos_strategies.heads.choice import ScoreUse, choose_score
    from kronos_strategies.heads.readers import head_names, load_readers
    from kronos_strategies.qlib.market import member_windows
    from kronos_strategies.qlib.registry import forecast_run
    from kronos_strategies.qlib.source import (
        check_lookback,
        check_market,
        check_span,
        last_tradable,
        use_source,
    )
    from kronos_strategies.store import ForecastStore, WindowSpec

    forecasts = ForecastStore(store, "float16" if float16 else "float32")
    predictor = KronosPredictor.from_pretrained(
        model,
        tokenizer,
        revision,
        device,
        precision=precision,
        context_overflow=context_overflow,
        compile=compile,
    )
    load = partial(KronosPredictor.from_pretrained, device=device, precision=precision, compile=compile)
    readers = load_readers(predictor, head_names(heads), load)
    use = ScoreUse(hold=None, lookback=lookback)
    choice = choose_score(score, [reader.head for reader in readers], use)
    if samples == 0 and not choice.heads:
        raise ValueError(
            f"--samples 0 leaves nothing to compute: {choice.why}. Sample paths, or name --heads."
        )
    sampling = predictor.sampling.with_overrides(samples or 1, T, top_p, top_k, seed)
    bars = data or default_store()
    notices = use_source(bars, tracking)
    check_market(market)
    check_span("The span", Timestamp(start), Timestamp(end), "Give another --start and --end.")
    tradable = last_tradable(Timestamp(end))
    spec = WindowSpec(market, lookback, horizon, min_bars=lookback)
    windows = member_windows(spec, Timestamp(start), Timestamp(end))
    check_lookback(lookback, predictor.max_context)
    filled = None
    try:
        with progress_bar("read", "windows") as progress:
            for reader in readers if choice.heads else ():
                forecasts.head_outputs(reader.predictor, reader.head, windows, spec, progress)
        if samples:
            with (
                forecast_run(predictor.provenance(sampling, windows.digest()), spec, bars) as record,
                progress_bar("forecast", "windows") as progress,
            ):
                filled = record(forecasts.fill(predictor, windows, spec, sampling, progress))
    except KeyboardInterrupt:
        Console(stderr=True).print(
            "Stopped. Run the same command again: it goes on with what is not done yet."
        )
        sys.exit(130)
    settings = {
        "KRONOS_QLIB_DATA": data,
        "KRONOS_STORE": store,
        "KRONOS_STORE_DTYPE": forecasts.dtype,
        "KRONOS_MODEL": model,
        "KRONOS_TOKENIZER": tokenizer,
        "KRONOS_REVISION": revision,
        "KRONOS_DEVICE": device,
        "KRONOS_PRECISION": precision,
        "KRONOS_CONTEXT_OVERFLOW": context_overflow,
        "KRONOS_SAMPLES": samples,
        "KRONOS_T": T,
        "KRONOS_TOP_P": top_p,
        "KRONOS_TOP_K": top_k,
        "KRONOS_SEED": seed,
        "KRONOS_SCORE": score,
        "KRONOS_HEADS": heads,
        "KRONOS_MARKET": market,
        "KRONOS_LOOKBACK": lookback,
        "KRONOS_HORIZON": horizon,
        "KRONOS_HOLD": max(1, min(5, horizon - 1)),  # a trade enters a day after its signal
        "KRONOS_TEST_START": f"{start:%Y-%m-%d}",
        "KRONOS_TEST_END": f"{tradable:%Y-%m-%d}",
    }
    trade, config = trade_settings(bars, market) if data else ({}, "kronos_csi300.yaml")
    changed = {k: str(v) for k, v in absolute_settings(settings).items() if v is not None}
    changed = {k: v for k, v in changed.items() if v != DEFAULTS.get(k)} | trade
    command = qrun_command(changed, config) if horizon > 1 and tradable >= Timestamp(start) else None
    notices = [*notices, *choice.warnings]
    if tradable < Timestamp(end):
        notices.append(
            f"Signals of the last bar trade on one that {bars} does not know of: a backtest ends by "
            f"{tradable:%Y-%m-%d}."
        )
    if filled is None:
        _show_head(store, len(windows), choice.described, notices, command)
    else:
        _show(filled, choice.described, notices, command)


def _show_head(store: Path, windows: int, score: str, notices: list[str], command: str | None) -> None:
    """Print what was computed without sampling, and the command to run next."""
    table = Table(show_header=False)
    table.add_row("store", escape(str(store)))
    table.add_row("score", escape(score))
    table.add_row("windows", f"{windows:,}")
    console = Console()
    console.print(table)
    for remark in notices:
        note(console, remark)
    if command is not None:
        show_next(console, command)


def _show(filled: Filled, score: str, notices: list[str], command: str | None) -> None:
    """Print what became of each date, how fast, and the command to run next."""
    found, dates = filled.found, list(filled.digests)
    table = Table(show_header=False)
    table.add_row("forecasts", escape(str(filled.stored.folder)))
    table.add_row("dates", f"{len(dates):,}, {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}")
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
    table.add_row("on disk", decimal(filled.stored.size))
    table.add_row("score", escape(score))
    console = Console()
    console.print(table)
    for remark in notices:
        note(console, remark)
    if command is not None:
        show_next(console, command)
