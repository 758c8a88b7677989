"""A checkpoint on bars it never saw: ranks, volatility and distribution, beside naive forecasts.

    python backtests/score_model.py kronos-nano csi300_2020_2023.parquet --since 2022-01-04 --until 2023-12-15
    python backtests/score_model.py out/nano BARS.parquet --since 2020-06-01 --every 5 --T 0.6 1.0 --top-p 0.9 1

The bars are tidy daily ones (instrument, datetime, open, high, low, close, volume[, amount, factor]) of one
market. Several values of --T or --top-p make a grid, one row each. In --output: scores.json (all figures),
scores.md (tables for a model card), by_date.csv (each series, to compare two models pairwise).
"""

import itertools
import json
from pathlib import Path
from typing import Annotated

import cyclopts
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kronos.bars import adjust_bars
from kronos.config import SampleConfig
from kronos.predictor import KronosPredictor
from kronos.utils import run_command
from kronos.windows import KEYS, Windows
from kronos_strategies.data.importer import ImportReport, import_bars
from kronos_strategies.evaluation.scorecard import Market, Scorecard, score_forecasts
from kronos_strategies.evaluation.scorecard.tables import DEFINITIONS, TextTable, grid, tables
from kronos_strategies.progress import progress_bar
from kronos_strategies.stream import stream

Several = cyclopts.Parameter(negative=(), consume_multiple=True)
Temperatures = cyclopts.Parameter("--T", negative=(), consume_multiple=True)

app = cyclopts.App(
    help="Score a checkpoint on daily bars it never saw.\n\nFor example: `python backtests/score_model.py "
    "kronos-nano csi300.parquet --since 2022-01-04 --every 5 --T 0.6 1.0 --top-p 0.9 1.0`",
    version_flags=[],
)


@app.default
def score_model(
    checkpoint: str,
    bars: Annotated[tuple[Path, ...], cyclopts.Parameter(negative=())],
    /,
    *,
    since: str,
    until: str | None = None,
    every: int = 1,
    samples: int = 32,
    T: Annotated[tuple[float, ...], Temperatures] = (),
    top_p: Annotated[tuple[float, ...], Several] = (),
    seed: int = 0,
    horizons: Annotated[tuple[int, ...], Several] = (1, 5, 10),
    lookback: int = 90,
    device: str | None = None,
    output: Path = Path("out/scores"),
) -> None:
    """Score a checkpoint on held-out daily bars.

    Args:
        checkpoint: bundled name, folder or hub id.
        bars: CSV or parquet, one market.
        since: first forecast date.
        until: last forecast date; leave max(horizons) + 1 days of bars behind it.
        every: forecast every k-th trading date.
        samples: paths a window; 19 or more reach a 90 % band.
        T: temperatures to try; the one that suits the checkpoint when omitted.
        top_p: nuclei to try; the one that suits the checkpoint when omitted.
        seed: of the draws.
        horizons: bars to score at.
        lookback: traded bars that the model reads.
        device: cpu, cuda or mps; the fastest there is without one.
        output: folder for scores.json, scores.md and by_date.csv.
    """
    predictor = KronosPredictor.from_pretrained(checkpoint, device=device)
    own = predictor.sampling
    settings = {
        f"T={t:g}, top_p={p:g}": SampleConfig(samples, t, p, own.top_k, seed)
        for t, p in itertools.product(T or (own.T,), top_p or (own.top_p,))
    }
    imported = import_bars(bars)
    panel = adjust_bars(imported.bars).set_index(list(KEYS)).sort_index()
    windows = windows_of(panel, lookback, max(horizons) + 1, since, until, every)
    market, cards = Market.of(panel), {}
    for setting, sampling in settings.items():
        with progress_bar(setting, "windows") as progress:
            cards[setting] = score_forecasts(stream(predictor, windows, sampling, progress), market, horizons)
    name = Path(checkpoint).name
    blocks = {setting: tables(card, name) for setting, card in cards.items()}
    if len(cards) > 1:
        blocks = {"": (grid(cards),), **blocks}
    write(output, name, imported.report, cards, blocks)
    show(name, cards, blocks, output)


def windows_of(
    panel: pd.DataFrame, lookback: int, horizon: int, since: str, until: str | None, every: int
) -> Windows:
    """The windows of every name on every k-th trading date; times ahead are the market's own trading days."""
    if every < 1:
        raise ValueError(f"every={every} makes no step. Pass 1 for each trading date.")
    calendar = pd.DatetimeIndex(panel.index.get_level_values("datetime").unique())
    dates = calendar[calendar >= pd.Timestamp(since)]
    dates = dates[dates <= pd.Timestamp(until)] if until else dates
    keys = panel.index[panel.index.get_level_values("datetime").isin(dates[::every])]
    return Windows.rolling(
        panel, lookback, horizon, calendar, index=pd.MultiIndex.from_tuples(keys, names=KEYS)
    )


def write(
    folder: Path,
    name: str,
    bars: ImportReport,
    cards: dict[str, Scorecard],
    blocks: dict[str, tuple[TextTable, ...]],
) -> None:
    """All three files."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {setting: card.as_dict() for setting, card in cards.items()}
    plain = {"checkpoint": name, "bars": bars.ledger(), "settings": settings}
    (folder / "scores.json").write_text(json.dumps(plain, indent=1, allow_nan=False) + "\n")
    parts = [describe(name, next(iter(cards.values())))]
    for setting, block in blocks.items():
        parts += [f"### {setting}"] * bool(setting) + [table.markdown() for table in block]
    (folder / "scores.md").write_text("\n\n".join([*parts, *DEFINITIONS]) + "\n")
    long = pd.concat([card.by_date().assign(setting=setting) for setting, card in cards.items()])
    long.to_csv(folder / "by_date.csv", index=False)


def show(
    name: str, cards: dict[str, Scorecard], blocks: dict[str, tuple[TextTable, ...]], folder: Path
) -> None:
    """Print the grid where there is one, else the tables."""
    console = Console(width=max(Console().width, 132))  # a file or a pipe is as wide as the tables
    console.print(escape(describe(name, next(iter(cards.values())))), soft_wrap=True)
    for table in next(iter(blocks.values())):
        view = Table(title=table.title, title_justify="left")
        for i, column in enumerate(table.columns):
            view.add_column(column, justify="left" if i < 2 else "right")
        for row in table.rows:
            view.add_row(*map(escape, row))
        console.print(view)
    for file in ("scores.md", "scores.json", "by_date.csv"):
        console.print(f"{folder}/{file}", soft_wrap=True, highlight=False)


def describe(name: str, card: Scorecard) -> str:
    """What was scored, in one sentence, and a warning where the model may have seen it."""
    known, seen = card.provenance, ""
    if known.trained_until is None:
        seen = " The checkpoint does not say until when it was trained: it may have seen these dates."
    elif pd.Timestamp(known.trained_until) >= card.first:
        seen = (
            f" The checkpoint was trained until {known.trained_until}, so it knows of times after the first of "
            "these dates. Its model card says which markets it saw until when."
        )
    return (
        f"{name}, {card.first:%Y-%m-%d} to {card.last:%Y-%m-%d}: {card.dates:,} dates, {card.windows:,} windows, "
        f"{known.sampling.samples} paths each, seed {known.sampling.seed}.{seen}"
    )


if __name__ == "__main__":
    run_command(app)
