"""`kronos benchmark`: the tasks of the Kronos paper, for any forecasters on the same bars."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from kronos_strategies.cli import common

if TYPE_CHECKING:
    from kronos_strategies.evaluation.comparison.comparison import Comparison

# Names of the columns in the terminal.
COLUMNS = {
    "price_ic": "price\nIC", "price_rank_ic": "price\nRankIC", "ic": "return\nIC", "rank_ic": "return\nRankIC",
    "volatility_mae": "vol.\nMAE", "volatility_r2": "vol.\nR²", "discrimination": "discrim-\nination",
    "tstr_rank_ic": "TSTR\nRankIC", "tstr_volatility_rank_ic": "TSTR vol.\nRankIC",
}  # fmt: skip


def benchmark(
    *,
    data: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)],
    models: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    start: datetime,
    end: datetime | None = None,
    market: str = "all",
    every: int = 1,
    instruments: int | None = None,
    lookback: int | None = None,
    horizon: int | None = None,
    long_lookback: int = 300,
    samples: int = 10,
    temperature: float = 0.6,
    top_p: float = 0.9,
    volatility_samples: int = 1,
    volatility_temperature: float = 0.9,
    volatility_top_p: float = 0.9,
    generation_temperature: float = 1.0,
    generation_top_p: float = 0.95,
    seed: int = 0,
    reference: str | None = None,
    store: Annotated[Path | None, Parameter(env_var="KRONOS_STORE")] = None,
    device: common.Device = None,
    output: Path = Path("benchmark"),
) -> None:
    """Benchmark forecasters on the tasks of the Kronos paper: prices, returns, volatility and realism.

    Lookback, horizon and sampling are the paper's unless set. All differences from the reference have intervals and
    paired tests. Run the same command again to resume: what the forecast store holds is not computed again.

    For example: `kronos benchmark --data ~/csi300 --models kronos-nano baseline:garch --start 2022-01-04`

    Args:
        data: CSV or parquet files, folders of such files, or a Qlib data directory.
        models: two or more forecasters: Kronos checkpoints by name, folder or hub id, or others, such as
            baseline:garch; kronos-nano and all baselines when omitted.
        start: first forecast date; earlier bars serve as context.
        end: last forecast date; the last bar when omitted.
        market: universe of a Qlib data directory.
        every: forecast every k-th date.
        instruments: number of instruments, evenly spaced in alphabetical order; all when omitted.
        lookback: bars that Kronos reads; the paper's for bars of this frequency when omitted.
        horizon: bars to forecast; the paper's when omitted.
        long_lookback: most bars that models without a limited context read, such as baseline:garch.
        samples: paths of price and return forecasts.
        temperature: temperature of price and return forecasts; temperatures and top-p affect Kronos only.
        top_p: nucleus probability of price and return forecasts.
        volatility_samples: paths of volatility forecasts.
        volatility_temperature: temperature of volatility forecasts.
        volatility_top_p: nucleus probability of volatility forecasts.
        generation_temperature: temperature of generated bars.
        generation_top_p: nucleus probability of generated bars.
        seed: seed of paths, and of the models that judge realism.
        reference: model that the others are compared with; the first one when omitted.
        store: forecast store; the folder forecasts in the output when omitted.
        output: folder of report.html, scoreboard.json and CSVs.
    """
    from pandas import Timestamp

    from kronos.config import SampleConfig
    from kronos_strategies.benchmark import BenchmarkSettings, TaskSampling
    from kronos_strategies.benchmark import benchmark as run_benchmark
    from kronos_strategies.checkpoint_evaluation import read_evaluation_data
    from kronos_strategies.forecasters import load_forecaster
    from kronos_strategies.forecasters.registry import BASELINES, parse_name
    from kronos_strategies.progress import progress_bar
    from kronos_strategies.store.store import ForecastStore

    chosen = models or ("kronos-nano", *(f"baseline:{name}" for name in BASELINES))
    labels = [name if parse_name(name) else Path(name).name for name in chosen]
    if twice := [name for name in labels if labels.count(name) > 1]:
        raise ValueError(
            f"Two models are called '{twice[0]}'. Give the folders of checkpoints different names."
        )
    last = None if end is None else Timestamp(end)
    settings = BenchmarkSettings(
        Timestamp(start), last, every, lookback, horizon, instruments, long_lookback, seed
    )
    sampling = TaskSampling(
        SampleConfig(samples, temperature, top_p, seed=seed),
        SampleConfig(volatility_samples, volatility_temperature, volatility_top_p, seed=seed),
        SampleConfig(1, generation_temperature, generation_top_p, seed=seed),
    )
    bars = read_evaluation_data(data, market)
    loaded = {label: load_forecaster(name, device=device) for label, name in zip(labels, chosen, strict=True)}
    with progress_bar("benchmark", "forecasts") as progress:
        forecasts = ForecastStore(store or output / "forecasts")
        comparison = run_benchmark(loaded, bars, settings, forecasts, sampling, reference, progress)
    _save(comparison, f"Scoreboard on {bars.name}", output)


def _save(comparison: Comparison, title: str, folder: Path) -> None:
    """Write the page, the JSON file and the CSVs, and print the means."""
    import json

    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from kronos.utils import explain_write_errors, write_atomic
    from kronos_strategies.benchmark import discriminative_scores
    from kronos_strategies.report.export import save_report
    from kronos_strategies.report.formatting import decimals_4
    from kronos_strategies.report.report import Report

    report = Report(title, comparison.sample_counts, {}, comparison.warnings, versions=comparison)
    page = save_report(report, folder)[0]
    found = {**comparison.as_dict(), "discriminative_score": discriminative_scores(comparison)}
    with explain_write_errors(folder, "Choose another folder."):
        file = write_atomic(folder / "scoreboard.json", json.dumps(found, indent=2, allow_nan=False) + "\n")
    console = Console(width=max(120, Console().width))
    shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for head in ("", *COLUMNS.values()):
        shown.add_column(head, justify="right" if head else "left", no_wrap=True)
    means = comparison.table.pivot(index="version", columns="metric", values="mean").reindex(
        columns=[*COLUMNS]
    )
    for name in (*comparison.versions, *means.index.difference(list(comparison.versions))):
        shown.add_row(escape(str(name)), *(decimals_4(means.loc[name, metric]) for metric in COLUMNS))
    console.print(shown)
    for warning in comparison.warnings:
        common.note(console, warning)
    for path in (page, file):
        console.print("Wrote", escape(str(path)), soft_wrap=True, highlight=False)
