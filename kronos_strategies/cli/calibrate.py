"""`kronos calibrate`: fit a calibration to stored forecasts and their realized outcomes."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kronos_strategies.cli.common import (
    absolute_settings,
    note,
    qrun_command,
    show_next,
    trade_settings,
)
from kronos_strategies.progress import progress_bar, track

if TYPE_CHECKING:
    from kronos.calibration import Calibration


def calibrate(
    store: str,
    /,
    *,
    until: datetime,
    output: Path,
    every: int | None = None,
    groups: list[Literal["exchange", "volatility"]] | None = None,
    hold_back: datetime | None = None,
    data: Annotated[Path | None, Parameter(env_var="KRONOS_QLIB_DATA")] = None,
) -> None:
    """Fit a calibration: shift and scale paths to realized outcomes, and widen bands by conformal factors.

    The last dates are held out first, to show how such a fit does on dates that it has not seen.

    For example: `kronos calibrate ~/forecasts --until 2021-12-31 --output calibration.json`

    Args:
        store: folder or URL of a forecast store of `kronos store fill`, with one model and one set of settings.
        until: last date, or date and time, at which an outcome may be known; later outcomes are not used.
        output: JSON file to write.
        every: forecast dates between fits, each of which uses what was known on its date, so that a backtest can
            use the file on every date after the first fit; one fit for all dates when omitted.
        groups: fit exchanges, terciles of volatility or both separately, shrunk to the pooled fit.
        hold_back: first date of the held-out part; the last 30 % of the dates when omitted.
        data: Qlib data directory of the bars that were forecast; the simulated market when omitted.
    """
    from pandas import MultiIndex, Timestamp

    from kronos_strategies.calibration import calibrate as fit
    from kronos_strategies.calibration import collect
    from kronos_strategies.data.qlib_bins import end_of, forecast_freq, split_universe
    from kronos_strategies.data.simulate import default_store
    from kronos_strategies.qlib.artifacts import read_price_panel
    from kronos_strategies.qlib.data_access import init_qlib
    from kronos_strategies.store import ForecastSet

    forecast_set, last = ForecastSet.find(store), Timestamp(until)
    spec, bars = forecast_set.settings.spec, data or default_store()
    freq = forecast_freq(bars, spec.universe, forecast_set.dates)
    last = end_of(last, freq)
    store_warnings = init_qlib(bars, freq=freq)
    dates = forecast_set.dates[forecast_set.dates <= last]
    if not len(dates):
        raise ValueError(f"{forecast_set.folder} has no forecast until {last:%Y-%m-%d}. Set a later --until.")
    keys = forecast_set.frame(end=last).index
    assert isinstance(keys, MultiIndex)
    market = read_price_panel(keys, freq)
    forecasts = (forecast_set.read(date) for date in track(dates, "read", "dates"))
    past = collect(forecasts, market, dates=len(dates))
    universe = split_universe(spec.universe)[0]
    with progress_bar("fit", "fits") as progress:
        first = None if hold_back is None else Timestamp(hold_back)
        wanted = tuple(groups or ())
        made = fit(past, market, universe, spec.lookback, last, every, wanted, first, progress)
    _show(made, made.write(output), store_warnings, data, freq)


def _show(made: Calibration, file: Path, store_warnings: list[str], data: Path | None, freq: str) -> None:
    """Print the fit, scores before and after, and the command to run next."""
    console, last = Console(), made.fits[-1]
    table = Table(show_header=False)
    table.add_row("calibration", f"{file} ({made.id})")
    table.add_row("model", escape(f"{made.model}, weights {made.weights_sha256[:12]}"))
    table.add_row("sampling", f"{made.samples} paths, T={made.T:g}, top_p={made.top_p:g}, top_k={made.top_k}")
    table.add_row("fits", f"{len(made.fits)}, the last known at {last.known_at[:10]}")
    table.add_row("of", f"{last.windows:,} windows on {last.dates:,} dates from {last.first[:10]}")
    table.add_row("groups", escape(", ".join(name for name in last.groups if name) or "none"))
    console.print(table)
    if made.table:
        _show_table(console, made)
    else:
        note(console, "Too few dates for a held-out part: the effect of the calibration is unknown.")
    for warning in store_warnings:
        note(console, warning)
    trade, config = trade_settings(data, made.market, freq) if data else ({}, "kronos_csi300.yaml")
    known = {"KRONOS_QLIB_DATA": data, "KRONOS_MODEL": made.model, "KRONOS_SAMPLES": made.samples, **trade}
    settings = absolute_settings({**known, "KRONOS_LOOKBACK": made.lookback, "KRONOS_CALIBRATION": file})
    show_next(console, qrun_command({k: str(v) for k, v in settings.items() if v is not None}, config))


def _show_table(console: Console, made: Calibration) -> None:
    """Print before and after."""
    first = made.table[0]
    levels = [name for name in first if name.startswith("coverage_")]
    table = Table(
        title=f"Held back: {first['dates']} dates, {first['first']} to {first['last']}",
        caption=(
            "Skill: CRPS against the Gaussian random walk, fair and ensemble; the truth for paths that are drawn "
            "evenly lies between. That walk has the volatility of 20 days; the shrunk one draws it to the average, "
            "with the shape that returns had. PIT deviation of a calibrated forecast: .289 to .30."
        ),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("bars", justify="right")
    table.add_column("forecast", overflow="fold")
    covered = [f"in {name.removeprefix('coverage_')} %" for name in levels]
    for head in ("CRPS %", "skill, %", *covered, "PIT dev."):
        table.add_column(head, justify="right", no_wrap=True)
    before = None
    for row in made.table:
        table.add_row(
            str(row["horizon"]) if row["horizon"] != before else "",
            str(row["forecast"]),
            f"{100 * row['crps']:.3f}",
            _skill(row["skill"], row["ensemble_skill"]),
            *(f"{100 * row[name]:.1f}" if name in row else "–" for name in levels),
            f"{row['pit_deviation']:.3f}",
        )
        before = row["horizon"]
    console.print(table)


def _skill(fair: float, ensemble: float) -> str:
    """Both estimates, one where they agree, none for the reference."""
    if fair == ensemble:
        return "–" if abs(fair) < 1e-9 else f"{100 * fair:+.1f}"
    return f"{100 * fair:+.1f} / {100 * ensemble:+.1f}"
