"""`kronos train`: both stages of training one after the other, a return head, or quantile models."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kronos_strategies.cli import common
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
    from kronos.head import ReturnHead
    from kronos_strategies.forecasters.lightgbm_quantiles import LightGBMQuantiles


def head(
    checkpoint: str,
    /,
    *,
    output: Path,
    train_until: datetime,
    valid_until: datetime,
    start: datetime | None = None,
    kind: Literal["ridge", "lightgbm"] = "ridge",
    horizons: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = (1, 5, 10),
    data: Annotated[Path | None, Parameter(env_var="KRONOS_QLIB_DATA")] = None,
    market: str = "csi300",
    frequency: str | None = None,
    bars: Path | None = None,
    lookback: int = 90,
    every: int = 5,
    seeds: int = 3,
    store: str | None = None,
    tokenizer: common.Tokenizer = None,
    revision: common.Revision = None,
    device: common.Device = None,
    precision: Literal["float32", "bfloat16"] = "float32",
) -> None:
    """Fit a return head on the hidden states of a frozen checkpoint.

    It learns the cross-sectional rank of returns from the next close on, neutralized for volatility. No training
    label extends past the last training date; validation begins the longest horizon plus one bar later, and
    selects the ridge penalty, or when LightGBM stops.

    For example: `kronos train head NeoQuasar/Kronos-small --train-until 2021-12-31 --valid-until 2022-06-30
    --output out/head`

    Args:
        checkpoint: bundled name, folder or hub id of the model.
        output: folder of the head: head.json, and head.safetensors or LightGBM's text models.
        train_until: last date that a training label may use.
        valid_until: last date that a validation label may use.
        start: first training date; the first with enough bars when omitted.
        kind: ridge regression, or LightGBM averaged over seeds.
        horizons: bars that a position is held from the next close on, one output each.
        data: Qlib data directory; the simulated market when omitted.
        market: universe whose members of each date are trained on.
        frequency: bar frequency of the data directory, such as day, 60min or 5min; the one of its import
            when omitted.
        bars: CSV or parquet file of bars to train on instead of a Qlib data directory.
        lookback: traded bars that the model reads.
        every: bars between training dates.
        seeds: number of LightGBM models to average.
        store: folder or URL of a forecast store that keeps the hidden states, so that another head on them costs
            seconds.
        precision: precision of matrix products.
    """
    from pandas import Timestamp

    from kronos.predictor import KronosPredictor
    from kronos_strategies.data.qlib_bins import DAY, choose_freq, end_of
    from kronos_strategies.data.simulate import default_store
    from kronos_strategies.heads.fit import FitSettings
    from kronos_strategies.store import ForecastStore, WindowSpec

    if bars is not None and frequency is not None:
        raise ValueError(
            "--frequency chooses among the bars of --data; those of --bars have their own. Leave it out."
        )
    freq = DAY if bars is not None else choose_freq(data or default_store(), frequency)
    trained, validated = (end_of(Timestamp(date), freq) for date in (train_until, valid_until))
    settings = FitSettings(trained, validated, kind, horizons, seeds)
    predictor = KronosPredictor.from_pretrained(checkpoint, tokenizer, revision, device, precision=precision)
    kept = ForecastStore.temporary() if store is None else ForecastStore(store)
    since = Timestamp(start or "1900-01-01")
    store_warnings: list[str] = []
    if bars is not None:
        from kronos_strategies.heads.sources import fit_file

        fitted = fit_file(bars, since, settings, predictor, kept, lookback, every)
    else:
        from kronos_strategies.qlib.data_access import universe_name
        from kronos_strategies.qlib.fit import fit_members

        name, store_warnings = open_market(data, market, freq)
        spec = WindowSpec(universe_name({"market": market}, freq), lookback, 1, lookback)
        fitted = fit_members(
            spec, since, settings, predictor, kept, name, every, instruments=market, freq=freq
        )
    fitted.save(output)
    named = {"KRONOS_MODEL": checkpoint, "KRONOS_HEADS": output}
    _show(_facts_of_head(fitted, output), store_warnings, _next_run(data, market, named, freq))


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
        bars: CSV or parquet file of bars to train on instead of a Qlib data directory.
        lookback: traded bars that a training window needs; features read the last 61.
        every: days between training dates.
        rounds: maximum number of trees of a model.
    """  # fmt: skip
    from pandas import Timestamp

    from kronos_strategies.data.qlib_bins import DAY
    from kronos_strategies.data.simulate import default_store
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
    named = {"KRONOS_MODEL": f"{KIND}:{output.expanduser().absolute()}"}
    _show(_facts_of_quantiles(fitted, output), store_warnings, _next_run(data, market, named, DAY))


def _facts_of_head(fitted: ReturnHead, output: Path) -> dict[str, str]:
    """What was fitted, and its validation scores."""
    info = fitted.info
    return {
        "head": str(output),
        "kind": info.kind,
        "horizons": ", ".join(map(str, info.horizons)),
        "trained until": f"{info.trained_until}, validation included",
        "sha256": fitted.sha256[:16],
        **{name.replace("_", " "): f"{value:g}" for name, value in (info.figures or {}).items()},
    }


def _facts_of_quantiles(fitted: LightGBMQuantiles, output: Path) -> dict[str, str]:
    """What was fitted, and its validation losses."""
    info = fitted.info
    losses = {
        f"pinball loss, step {step}": f"{loss['model']:.4f}, that of constant quantiles {loss['constant']:.4f}"
        for step, loss in (info.pinball or {}).items()
    }
    return {
        "quantile models": str(output),
        "steps": ", ".join(map(str, info.steps)),
        "levels": ", ".join(f"{level:g}" for level in info.levels),
        "trained until": f"{info.trained_until}, validation included",
        "sha256": str(fitted.weights_sha256)[:16],
        **losses,
    }


def _next_run(data: Path | None, market: str, named: Mapping[str, object], freq: str) -> str:
    """The run of a workflow file on the data, with the settings that name what was fitted."""
    changed = absolute_settings({"KRONOS_QLIB_DATA": data, **named})
    trade, config = trade_settings(data, market, freq) if data is not None else ({}, "kronos_csi300.yaml")
    settings = {name: str(value) for name, value in changed.items() if value is not None}
    return qrun_command(settings | trade, config)


def _show(facts: Mapping[str, str], store_warnings: list[str], command: str) -> None:
    """Print what was fitted, and the command to run next."""
    table, console = Table(show_header=False), Console()
    for name, value in facts.items():
        table.add_row(name, escape(value))
    console.print(table)
    for warning in store_warnings:
        note(console, warning)
    show_next(console, command)


train = App(
    name="train",
    help_flags=[],  # --help is passed on to the stages, which own these flags
    version_flags=[],
    usage="Usage: kronos train [tokenizer | predictor | evaluate] [OPTIONS]",
    help="Train the tokenizer, then the predictor, from one settings file.\n\n"
    "`kronos train tokenizer` and `kronos train predictor` train one stage with the same flags; "
    "`kronos train evaluate` computes losses on later dates (`kronos train evaluate --help`).\n\n"
    "For example: `kronos train --config configs/finetune_csi300.yaml --data ~/csi300 --output out/csi300`\n\n"
    "Below are the flags of both stages, as `python -m kronos.training` has them. The file of --config may set "
    "each of them, --output included.",
)
train.command(head, help_flags=["--help", "-h"])
train.command(quantiles, help_flags=["--help", "-h"])


@train.default
def both(*tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)]) -> None:
    """Run both stages, or the one that the first token names, with the flags of `python -m kronos.training`.

    Args:
        tokens: flags of both stages; or `tokenizer`, `predictor` or `evaluate` with its flags.
    """
    from kronos.training.__main__ import app as stages
    from kronos.training.__main__ import train as run_training
    from kronos.training.config import STAGES
    from kronos_strategies.data.training import QlibBars

    if {"--help", "-h"} & set(tokens):
        named = tokens[0] if tokens[0] in (*STAGES, "evaluate") else None
        if named is None:
            train.help_print([])
        stages.help_print([named or "predictor"])
        return
    run_training(tokens, QlibBars)
