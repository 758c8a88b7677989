"""`kronos forecast`: a table and a picture of the next bars, from files or from a Qlib data directory."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kronos_strategies.cli.common import note, show_next
from kronos_strategies.progress import progress_bar

if TYPE_CHECKING:
    from kronos_strategies.forecast_view.run import BarsForecast

WIDTH = 100  # at least, so that tables are complete in a pipe or a file
MAX_ROWS = 40  # instruments that are printed; files hold all


def forecast(
    bars: list[Path],
    /,
    *,
    horizon: int = 10,
    lookback: int | None = None,
    samples: int = 32,
    as_of: str | None = None,
    instrument: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    model: str = "kronos-nano",
    tokenizer: str | None = None,
    revision: str | None = None,
    calibration: Annotated[str, Parameter(env_var="KRONOS_CALIBRATION")] = "auto",
    score: Literal["auto", "head", "paths"] = "auto",
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    seed: int = 0,
    calendar: str | None = None,
    columns: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    timezone: str | None = None,
    pad_codes: int | None = None,
    device: str | None = None,
    output: Path | None = None,
    steps: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Forecast the next bars of one or many instruments: a table, files, and a picture.

    For example: `kronos forecast bars.csv --horizon 24 --plot out.html`

    To see what a forecast of a past date was worth: `kronos forecast bars.csv --as-of 2024-08-26 --plot out.png`

    Forecasts of a whole market over many dates: `kronos store fill`

    Args:
        bars: CSV or parquet files, folders of such files or glob patterns, one symbol per file or tidy; or a Qlib
            data directory with --instrument.
        horizon: number of bars to forecast.
        lookback: number of bars that the model reads; 90 when omitted, or fewer where an instrument has fewer.
        samples: paths per instrument; 19 or more give a 90 % band.
        as_of: last date, time, or time with UTC offset that the forecast may use; later bars are held back, drawn
            and scored. The last bar of each instrument when omitted.
        instrument: only these instruments, also patterns such as SH*.
        model: bundled name, folder or hub id of a checkpoint; or another forecaster, such as baseline:garch.
        tokenizer: tokenizer of a model that does not know its own.
        revision: revision of the model on the hub.
        calibration: auto for the checkpoint's own calibration where it fits, none, or a file of `kronos calibrate`.
        score: what ranks the table: head for the return head of the checkpoint, paths for the expected return, auto
            for the head where it fits the bars and the lookback.
        temperature: 0 takes the most likely token; temperature, top_p and top_k are the checkpoint's when omitted.
        top_p: nucleus probability of the sampled tokens.
        top_k: number of most likely tokens to sample from; 0 for all.
        seed: seed of the sampled paths.
        calendar: exchange whose sessions have the timestamps to forecast, such as XSHG, XNYS or 24/7; inferred from
            the bars when omitted, a Qlib data directory has its own.
        columns: what the files call a column, where nothing else tells: close=Last volume=Turnover.
        timezone: zone of the exchange, to which timestamps with a UTC offset and epochs are converted.
        pad_codes: digits that codes such as 1 are filled up to with zeros; 1 keeps them as they are.
        device: cpu, cuda or mps; the fastest available when omitted.
        output: file of the table: .csv, .parquet or .json.
        steps: file of the predicted bars, one row per instrument and step: .csv, .parquet or .json.
        plot: file of the picture: .html, .png, .svg or .pdf.
    """
    from kronos.io.columns import parse_columns
    from kronos.io.rows import ReadOptions
    from kronos.postprocessing import PathOptions
    from kronos_strategies.forecast_view.inputs import read_forecast_bars
    from kronos_strategies.forecast_view.run import forecast_bars
    from kronos_strategies.forecasters import load_forecaster
    from kronos_strategies.heads.selection import load_readers

    _check_files(output, steps, plot)
    options = PathOptions(calibration)
    reading = ReadOptions(parse_columns(columns), timezone, pad_codes)
    data = read_forecast_bars(bars, instrument, reading, as_of, lookback)
    load = partial(load_forecaster, device=device)
    predictor = load(model, tokenizer, revision)
    sampling = predictor.sampling.with_overrides(samples, temperature, top_p, top_k, seed)
    readers = load_readers(predictor, (), load) if score != "paths" else []
    with progress_bar("forecast", "instruments") as progress:
        made = forecast_bars(
            predictor, data, horizon, lookback, sampling, calendar, options, predictor.calibration, readers,
            score, progress,
        )  # fmt: skip
    console = Console(width=max(WIDTH, Console().width))
    _show(console, made)
    for path in _write(made, output, steps, plot, console):
        console.print(escape(str(path)), soft_wrap=True, highlight=False)
    if made.held_back is None:
        show_next(console, _again(bars, instrument, model, lookback, made))
    else:
        note(console, "One date says little: `kronos evaluate` scores many dates, with intervals.")


def _check_files(output: Path | None, steps: Path | None, plot: Path | None) -> None:
    """Refuse unknown kinds of files before anything is computed."""
    from kronos_strategies.forecast_view.page import SUFFIXES as PICTURES
    from kronos_strategies.forecast_view.summary import SUFFIXES, check_suffix

    for path, known in ((output, SUFFIXES), (steps, SUFFIXES), (plot, PICTURES)):
        if path is not None:
            check_suffix(path, known)


def _show(console: Console, made: BarsForecast) -> None:
    """Print how files were read, the table, the score on the bars held back, and warnings."""
    from kronos.forecast_text import time_text
    from kronos_strategies.forecast_view.page import HEADS, format_cell, table_heads

    for line in made.bars.notes:
        console.print(escape(line), soft_wrap=True, highlight=False)
    table = Table(
        title=_title(made), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    several_dates = len(set(made.table.index.get_level_values("datetime"))) > 1
    heads = table_heads(made.table)
    table.add_column("instrument", no_wrap=True)
    if several_dates:
        table.add_column("as of", no_wrap=True)
    for name in heads:
        table.add_column(HEADS[name], justify="right", no_wrap=True)
    shown = made.table.head(MAX_ROWS)
    for (date, instrument), values in zip(shown.index, shown[heads].to_numpy(float), strict=True):
        cells = [format_cell(name, value) for name, value in zip(heads, values, strict=True)]
        when = [time_text(date)] if several_dates else []
        table.add_row(escape(str(instrument)), *when, *cells)
    console.print(table)
    if len(made.table) > MAX_ROWS:
        console.print(f"{len(made.table) - MAX_ROWS:,} more instruments: write all with --output.")
    for line in made.settings:
        console.print(escape(line), soft_wrap=True, highlight=False)
    if made.held_back is not None:
        console.print(str(made.held_back), soft_wrap=True, highlight=False)
    for warning in made.warnings:
        note(console, warning)


def _title(made: BarsForecast) -> str:
    """Caption of the table."""
    from kronos.forecast_text import time_text

    dates = made.table.index.get_level_values("datetime")
    last = made.table["timestamp"].max()
    after = time_text(dates.max()) if len(set(dates)) == 1 else "each last bar"
    bars = f"{made.forecast.horizon} bar{'s' * (made.forecast.horizon != 1)}"
    return f"{bars} after {after}, until {time_text(last)}"


def _write(
    made: BarsForecast, output: Path | None, steps: Path | None, plot: Path | None, console: Console
) -> list[Path]:
    """Write the files that are asked for."""
    from kronos_strategies.forecast_view.page import MAX_CHARTS, PageText, write_charts
    from kronos_strategies.forecast_view.summary import forecast_steps, write_table

    written = []
    if output is not None:
        written.append(write_table(made.table, output))
    if steps is not None:
        written.append(write_table(forecast_steps(made.forecast, made.bars.held_back), steps))
    if plot is not None:
        if len(made.table) > MAX_CHARTS:
            note(
                console,
                f"The picture shows the first {MAX_CHARTS} instruments. Name others with --instrument.",
            )
        score = () if made.held_back is None else (str(made.held_back),)
        page = PageText((*score, *made.settings), made.warnings, made.table)
        written.append(write_charts(made.charts(MAX_CHARTS), plot, page))
    return written


def _again(
    bars: list[Path], instrument: tuple[str, ...], model: str, lookback: int | None, made: BarsForecast
) -> str:
    """The command that forecasts an earlier date, whose outcome is known."""
    from pandas import DatetimeIndex

    horizon, known = made.forecast.horizon, made.bars.known
    index = DatetimeIndex(next(iter(known.values())).index)
    date = index[max(0, len(index) - 1 - horizon)]
    when = f"{date:%Y-%m-%d}" if (index == index.normalize()).all() else f"{date:%Y-%m-%d %H:%M}"
    words = ["kronos", "forecast", *map(str, bars)]
    words += ["--instrument", *instrument] if instrument else []
    words += ["--model", model] if model != "kronos-nano" else []
    words += [] if lookback is None else ["--lookback", str(lookback)]
    words += ["--horizon", str(horizon), "--as-of", when]
    return shlex.join([*words, "--plot", "out.html"])
