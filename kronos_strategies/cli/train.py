"""`kronos train`: both stages of training, one after the other."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kronos_strategies.cli.common import (
    absolute_settings,
    note,
    open_market,
    qrun_command,
    show_next,
    trade_settings,
)
from kronos_strategies.cli.train_quantiles import quantiles

if TYPE_CHECKING:
    from kronos.head import ReturnHead


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
    tokenizer: str | None = None,
    revision: str | None = None,
    device: str | None = None,
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
        bars: CSV or parquet file of bars to train on instead of a Qlib market.
        lookback: traded bars that the model reads.
        every: bars between training dates.
        seeds: number of LightGBM models to average.
        store: folder or URL of a forecast store that keeps the hidden states, so that another head on them costs
            seconds.
        tokenizer: tokenizer of a model whose configuration names none.
        revision: revision of the model on the hub.
        device: cpu, cuda or mps; the fastest available when omitted.
        precision: precision of matrix products.
    """
    from pandas import Timestamp

    from kronos.predictor import KronosPredictor
    from kronos_strategies.data.qlib_bins import DAY, choose_freq, end_of
    from kronos_strategies.data.simulate import default_store
    from kronos_strategies.heads.fit import FitSettings
    from kronos_strategies.store import ForecastStore, WindowSpec

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
        from kronos_strategies.qlib.head import fit_members

        name, store_warnings = open_market(data, market, freq)
        spec = WindowSpec(universe_name({"market": market}, freq), lookback, 1, lookback)
        fitted = fit_members(
            spec, since, settings, predictor, kept, name, every, instruments=market, freq=freq
        )
    fitted.save(output)
    changed = absolute_settings(
        {"KRONOS_QLIB_DATA": data, "KRONOS_MODEL": checkpoint, "KRONOS_HEADS": output}
    )
    trade, config = trade_settings(data, market, freq) if data is not None else ({}, "kronos_csi300.yaml")
    named = {name: str(value) for name, value in changed.items() if value is not None} | trade
    _show(fitted, output, store_warnings, qrun_command(named, config))


def _show(fitted: ReturnHead, output: Path, store_warnings: list[str], command: str) -> None:
    """Print what was fitted, its validation scores, and the command to run next."""
    info = fitted.info
    table = Table(show_header=False)
    table.add_row("head", escape(str(output)))
    table.add_row("kind", info.kind)
    table.add_row("horizons", ", ".join(map(str, info.horizons)))
    table.add_row("trained until", f"{info.trained_until}, validation included")
    table.add_row("sha256", fitted.sha256[:16])
    for name, value in (info.figures or {}).items():
        table.add_row(name.replace("_", " "), f"{value:g}")
    console = Console()
    console.print(table)
    for warning in store_warnings:
        note(console, warning)
    show_next(console, command)


train = App(
    name="train",
    help_flags=[],  # --help is passed on to the stages, which own these flags
    version_flags=[],
    usage="Usage: kronos train [OPTIONS]",
    help="Train the tokenizer, then the predictor, from one settings file.\n\n"
    "For example: `kronos train --config configs/finetune_csi300.yaml --data ~/csi300 --output out/csi300`",
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
    from kronos_strategies.data.training import QlibBars

    if {"--help", "-h"} & set(tokens):
        train.help_print([])
        stages.help_print(["predictor"])
        return
    run_training(tokens, QlibBars)
