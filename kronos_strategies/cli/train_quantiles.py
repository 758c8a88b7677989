"""`kronos train quantiles`: LightGBM quantile regression on Alpha158 features."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from kronos_strategies.cli.common import (
    absolute_settings,
    check_daily,
    note,
    open_market,
    qrun_command,
    show_next,
    trade_settings,
)

if TYPE_CHECKING:
    from kronos_strategies.forecasters.lightgbm_quantiles import LightGBMQuantiles


def quantiles(
    *,
    output: Path,
    train_until: datetime,
    valid_until: datetime,
    start: datetime | None = None,
    steps: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = (1, 2, 6, 11),
    levels: Annotated[tuple[float, ...], Parameter(consume_multiple=True)] = (
        0.05,
        0.1,
        0.25,
        0.5,
        0.75,
        0.9,
        0.95,
    ),
    data: Annotated[Path | None, Parameter(env_var="KRONOS_QLIB_DATA")] = None,
    market: str = "csi300",
    bars: Path | None = None,
    lookback: int = 90,
    every: int = 5,
    rounds: int = 300,
) -> None:
    """Fit LightGBM quantile regression on Alpha158 features: the forecaster `lightgbm-quantiles:FOLDER`.

    One model for each step and quantile level learns the log return from the last close, in units of the trailing
    volatility. No training label extends past the last training date; validation begins the longest step plus one
    bar later, stops the boosting, and shows whether the models beat constant quantiles.

    For example: `kronos train quantiles --train-until 2021-12-31 --valid-until 2022-06-30 --output out/quantiles`

    Args:
        output: folder of the models: quantiles.json and LightGBM's text models.
        train_until: last date that a training label may use.
        valid_until: last date that a validation label may use.
        start: first training date; the first with enough bars when omitted.
        steps: bars ahead, ascending; the last one is the longest horizon of a forecast.
        levels: quantile levels, ascending.
        data: Qlib data directory; the simulated market when omitted.
        market: universe whose members of each date are trained on.
        bars: CSV or parquet file of bars to train on instead of a Qlib market.
        lookback: traded bars that a training window needs; features read the last 61.
        every: days between training dates.
        rounds: maximum number of trees of a model.
    """  # fmt: skip
    from pandas import Timestamp

    from kronos_strategies.forecasters.fit_quantiles import QuantileFit, fit_quantiles
    from kronos_strategies.forecasters.lightgbm_quantiles import KIND
    from kronos_strategies.progress import progress_bar

    settings = QuantileFit(Timestamp(train_until), Timestamp(valid_until), steps, levels, rounds)
    since, store_warnings = Timestamp(start or "1900-01-01"), list[str]()
    if bars is not None:
        from kronos.windows import Windows
        from kronos_strategies.heads.sources import read_panel

        panel, name = read_panel(bars, settings.valid_until), bars.name.partition(".")[0]
        windows = Windows.rolling(panel, lookback, 1, "B", start=since, every=every)
    else:
        from kronos_strategies.data.qlib_bins import DAY
        from kronos_strategies.data.simulate import default_store
        from kronos_strategies.qlib.data_access import member_windows, traded_bars
        from kronos_strategies.store import WindowSpec

        check_daily(data or default_store(), "kronos train quantiles")
        name, store_warnings = open_market(data, market, DAY)
        spec = WindowSpec(market, lookback, 1, lookback)
        windows = member_windows(spec, since, settings.valid_until, every=every)
        instruments = windows.index.get_level_values("instrument").unique()
        panel = traded_bars(list(instruments), settings.valid_until)
    with progress_bar("fit", "models") as progress:
        fitted = fit_quantiles(
            windows, panel, settings, lookback=lookback, markets=(name,), progress=progress
        )
    fitted.save(output)
    changed = absolute_settings({"KRONOS_QLIB_DATA": data})
    trade, config = trade_settings(data, market) if data is not None else ({}, "kronos_csi300.yaml")
    named = {key: str(value) for key, value in changed.items() if value is not None}
    named |= {"KRONOS_MODEL": f"{KIND}:{output.expanduser().absolute()}"} | trade
    _show(fitted, output, store_warnings, qrun_command(named, config))


def _show(fitted: LightGBMQuantiles, output: Path, store_warnings: list[str], command: str) -> None:
    """Print what was fitted, its validation losses, and the command to run next."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    info, console = fitted.info, Console()
    table = Table(show_header=False)
    table.add_row("quantile models", escape(str(output)))
    table.add_row("steps", ", ".join(map(str, info.steps)))
    table.add_row("levels", ", ".join(f"{level:g}" for level in info.levels))
    table.add_row("trained until", f"{info.trained_until}, validation included")
    table.add_row("sha256", str(fitted.weights_sha256)[:16])
    for step, losses in (info.pinball or {}).items():
        table.add_row(
            f"pinball loss, step {step}",
            f"{losses['model']:.4f}, that of constant quantiles {losses['constant']:.4f}",
        )
    console.print(table)
    for warning in store_warnings:
        note(console, warning)
    show_next(console, command)
