"""A return head on dates it never saw, compared with sampled paths and baselines, paired by date.

    python backtests/score_head.py --data ~/csi300 --store ~/forecasts --start 2020-06-01 --end 2023-12-29
    python backtests/score_head.py --data ~/csi300 --store ~/forecasts --start 2020-06-01 --end 2023-12-29 \
        --samples 20 --paths-every 2

For each horizon: the RankIC of each score with its interval, the same neutralized for volatility, size, beta and
20-day reversal, and the difference of each score of the model from each baseline. Stored results are
reused, so that an interrupted run resumes. In --output: head_scores.md, head_scores.json, scores.parquet.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated

import cyclopts
import pandas as pd
from rich.console import Console
from rich.table import Table

from kronos.predictor import KronosPredictor
from kronos.utils import run_command
from kronos.windows import Windows
from kronos_strategies.evaluation.baselines import baseline_scores
from kronos_strategies.evaluation.distribution.scores import HorizonEvaluation
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.evaluation.signal.neutralization import Exposure, neutralized_rank_ic, price_exposures
from kronos_strategies.evaluation.significance import MeanTest
from kronos_strategies.heads.fit import centered_ranks
from kronos_strategies.heads.selection import ScoreUse, choose_score, head_names, load_readers
from kronos_strategies.progress import progress_bar
from kronos_strategies.qlib.artifacts import read_price_panel
from kronos_strategies.qlib.data_access import init_qlib, member_windows
from kronos_strategies.qlib.fit import every_date
from kronos_strategies.signal import tradable_returns
from kronos_strategies.store import ForecastStore, WindowSpec

LOOKBACK = 90
HORIZONS = (1, 5, 10)
STYLES = {  # exposures that a score is neutralized for, together
    "volatility": ("volatility",),
    "volatility, size, beta": ("volatility", "size", "beta"),
    "these and reversal": ("volatility", "size", "beta", "reversal"),
}
PATHS = "mean of the paths"
Scores = dict[str, dict[int, pd.Series]]  # name -> horizon -> by (datetime, instrument)
Blocks = dict[str, dict[str, pd.DataFrame]]  # which dates -> title -> table of text

app = cyclopts.App(help=__doc__, version_flags=[])


@app.default
def score_head(
    *,
    data: Annotated[Path, cyclopts.Parameter(env_var="KRONOS_QLIB_DATA")],
    store: Path,
    start: datetime,
    end: datetime,
    model: str = "kronos-nano",
    heads: str = "",
    market: str = "csi300",
    every: int = 5,
    samples: int = 0,
    paths_every: int = 2,
    device: str | None = None,
    output: Path = Path("out/score_head"),
) -> None:
    """Score, compare, write.

    Args:
        data: Qlib data directory.
        store: folder of forecasts and outputs of heads.
        start: first date that is scored.
        end: last date that is scored.
        model: checkpoint.
        heads: names of one head or several to average; the checkpoint's own when empty.
        market: universe to rank.
        every: score every k-th date.
        samples: paths per window; 0 leaves paths out.
        paths_every: sample paths on every k-th of the scored dates.
        device: cpu, cuda or mps.
        output: folder of all results.
    """
    init_qlib(data)
    predictor = KronosPredictor.from_pretrained(model, device=device)
    spec = WindowSpec(market, LOOKBACK, max(HORIZONS) + 1, LOOKBACK)
    windows = member_windows(spec, pd.Timestamp(start), pd.Timestamp(end), every=every)
    forecasts = ForecastStore(store)
    scores, warnings = head_scores(predictor, heads, windows, spec, forecasts)
    panel = read_price_panel(windows.index)
    blocks = {"": tables(scores, windows.index, panel)}
    if samples:
        some = every_date(windows, paths_every)
        scores |= path_scores(predictor, some, spec, forecasts, samples, scores)
        blocks["on the dates of the paths"] = tables(scores, some.index, panel)
    span = pd.DatetimeIndex(windows.index.get_level_values("datetime"))
    frequency = "every date" if every == 1 else f"one date in {every}"
    title = (
        f"{model} on {market}, {span.min():%Y-%m-%d} to {span.max():%Y-%m-%d}, {frequency}: "
        f"{span.nunique():,} dates, {len(windows):,} windows."
    )
    write(output, title, warnings, blocks, scores)
    show(title, warnings, blocks)


def head_scores(
    predictor: KronosPredictor, heads: str, windows: Windows, spec: WindowSpec, store: ForecastStore
) -> tuple[Scores, list[str]]:
    """The output of each horizon and the mean of the ranks of 5 and 10 bars, and what to know of the head."""
    readers = load_readers(predictor, head_names(heads), KronosPredictor.from_pretrained)
    use = ScoreUse(hold=None, lookback=spec.lookback, market=spec.universe)
    found = [reader.head for reader in readers]
    choice = choose_score("head", found, use)
    with progress_bar("read", "windows") as progress:
        outputs = [
            store.head_outputs(reader.predictor, reader.head, windows, spec, progress) for reader in readers
        ]
    own = {}
    for horizon in HORIZONS:
        chosen = choose_score("head", found, ScoreUse(horizon, spec.lookback))
        own[horizon] = chosen.combine(outputs, windows.index)
    sturdy = choice.combine(outputs, windows.index)
    scores = {"head, output of that horizon": own, "head, mean of ranks": dict.fromkeys(HORIZONS, sturdy)}
    first = pd.Timestamp(windows.index.get_level_values("datetime").min())
    return scores, [f"Score: {choice.described}.", *choice.warnings, *choice.training_overlap_warnings(first)]


def path_scores(
    predictor: KronosPredictor,
    windows: Windows,
    spec: WindowSpec,
    store: ForecastStore,
    samples: int,
    scores: Scores,
) -> Scores:
    """The mean return of the paths as sampled, and its ranks averaged with those of the head."""
    with progress_bar("forecast", "windows") as progress:
        sampling = predictor.sampling.with_overrides(samples, None, None, None, 0)
        filled = store.fill(predictor, windows, spec, sampling, progress)
    parts: dict[int, list[pd.Series]] = {horizon: [] for horizon in HORIZONS}
    for forecast in filled:
        for horizon, part in parts.items():
            part.append(pd.Series(tradable_returns(forecast, horizon).mean(axis=1), forecast.index))
    paths = {horizon: pd.concat(part).sort_index() for horizon, part in parts.items()}
    both = {
        horizon: centered_ranks(path)
        + centered_ranks(scores["head, mean of ranks"][horizon].reindex(path.index))
        for horizon, path in paths.items()
    }
    return {PATHS: paths, "head and paths, mean of ranks": both}


def tables(scores: Scores, index: pd.MultiIndex, prices: PricePanel) -> dict[str, pd.DataFrame]:
    """RankIC of every score, and the differences of the model's scores from the others, as text by title."""
    wide = price_exposures(prices.closes, prices.amounts)
    styles = {name: prices.lookup(values, index) for name, values in wide.items()}
    baselines = dict(baseline_scores(prices, index)[0].items())
    levels, differences = [], []
    for horizon in HORIZONS:
        rows = HorizonEvaluation(pd.DataFrame(index=index), prices, horizon)
        label = rows.lookup(prices.forward_return(horizon))
        own = {name: each[horizon].reindex(index) for name, each in scores.items()}
        for name, score in (own | baselines).items():
            test = rows.test(rows.rank_ic(score, label))
            t = "–" if test.t != test.t else f"{test.t:+.1f}"
            row = {"bars": str(horizon), "score": name, "RankIC": interval(test), "t": t}
            for style, taken in STYLES.items():
                left = neutralized(rows, score, label, [styles[each] for each in taken])
                row[f"beyond {style}"] = interval(left)
            levels.append(row | {"dates": str(test.dates)})
        others = baselines | ({PATHS: own[PATHS]} if PATHS in own else {})
        for name, score in own.items():
            row = {"bars": str(horizon), "score": name}
            for other, values in others.items():
                row[other] = "" if other == name else interval(rows.rank_ic_difference(score, values, label))
            differences.append(row)
    return {"RankIC": pd.DataFrame(levels), "RankIC less that of": pd.DataFrame(differences)}


def neutralized(
    rows: HorizonEvaluation, score: pd.Series, label: pd.Series, styles: list[pd.Series]
) -> MeanTest:
    """RankIC of the part of a score that the styles, taken together, do not explain."""
    exposures = [Exposure.from_column(style, rows.panel) for style in styles]
    by_date = neutralized_rank_ic(rows.to_wide(score), rows.to_wide(label), exposures)
    return rows.test(pd.Series(by_date, rows.dates))


def interval(test: MeanTest) -> str:
    """Mean ± half of the 95 % interval; bold where it excludes zero."""
    if test.mean != test.mean:
        return "–"
    text = f"{test.mean:+.4f} ± {test.high - test.mean:.4f}"
    return f"**{text}**" if test.low > 0 or test.high < 0 else text


def markdown(title: str, table: pd.DataFrame) -> str:
    """A GitHub table; the first two columns are text, the others are aligned right."""
    rule = ["---" if i < 2 else "---:" for i in range(table.shape[1])]
    lines = ["| " + " | ".join(line) + " |" for line in (table.columns, rule, *table.to_numpy())]
    return "\n".join([f"**{title}**", "", *lines])


def write(folder: Path, title: str, warnings: list[str], blocks: Blocks, scores: Scores) -> None:
    """All three files."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [title, *warnings]
    for name, block in blocks.items():
        parts += [f"### {name}"] * bool(name) + [markdown(*item) for item in block.items()]
    parts.append(
        "± half of a 95 % interval by EWC (fewer than 50 non-overlapping labels: non-overlapping dates)."
    )
    (folder / "head_scores.md").write_text("\n\n".join(parts) + "\n")
    plain = {
        name: {title: table.to_dict("records") for title, table in block.items()}
        for name, block in blocks.items()
    }
    (folder / "head_scores.json").write_text(json.dumps({"title": title, "blocks": plain}, indent=1) + "\n")
    columns = {
        f"{name}, {horizon} bars": score for name, each in scores.items() for horizon, score in each.items()
    }
    pd.DataFrame(columns).to_parquet(folder / "scores.parquet")


def show(title: str, warnings: list[str], blocks: Blocks) -> None:
    """Print everything."""
    console = Console(width=max(Console().width, 160))  # for a file or pipe, as wide as the tables
    for text in (title, *warnings):
        console.print(text, highlight=False, soft_wrap=True, markup=False)
    for name, block in blocks.items():
        for heading, table in block.items():
            view = Table(
                *table.columns, title=f"{heading}{f', {name}' if name else ''}", title_justify="left"
            )
            for row in table.to_numpy():
                view.add_row(*(cell.replace("**", "") for cell in row))
            console.print(view)


if __name__ == "__main__":
    run_command(app)
