"""Does a few minutes of fine-tuning help? kronos-nano before and after, on a year that neither has seen.

    python backtests/finetune_csi300.py csi300_2020_2023.parquet

imports the bars, trains both stages by configs/finetune_csi300.yaml on 2020 to 2022, scores both versions on 2023
and holds their RankIC, volatility and distribution against each other date by date.
"""

import subprocess
import sys
from pathlib import Path

import cyclopts
import pandas as pd
from rich.console import Console
from rich.table import Table

from kronos_strategies.evaluation.significance import mean_test

HERE, SCRIPTS = Path(__file__).parent, Path(sys.executable).parent
CONFIG = HERE.parent / "configs" / "finetune_csi300.yaml"
# What is compared, and whether more of it is better.
MEASURES = {
    ("ranking", "rank_ic"): "RankIC of the score",
    ("ranking", "neutral"): "... beyond 20-day volatility",
    ("volatility by closes", "rank_ic"): "RankIC of the volatility",
    ("volatility by closes", "qlike"): "QLIKE of the volatility (less is better)",
    ("distribution", "crps"): "CRPS (less is better)",
}


def finetune_csi300(
    bars: Path,
    *,
    model: str = "kronos-nano",
    since: str = "2023-01-03",
    until: str = "2023-12-13",
    every: int = 1,
    samples: int = 32,
    output: Path = Path("out/finetune_csi300"),
) -> None:
    """Fine-tune, score before and after, compare.

    Args:
        bars: tidy daily bars of the members, 2020 to 2023.
        model: to start from.
        since: first forecast date.
        until: last forecast date; 11 days of bars must follow.
        every: forecast every k-th date.
        samples: paths a window.
        output: folder of the result.
    """
    store, tuned = output / "store", output / "model"
    if not store.exists():
        run([SCRIPTS / "kronos", "data", "import", bars, "--to", store])
    # What is finished is not trained again, what was stopped goes on.
    flags = ["--config", CONFIG, "--data", store, "--pretrained", model, "--output", tuned, "--resume"]
    run([SCRIPTS / "kronos", "train", *flags])
    for name, checkpoint in {"before": model, "after": tuned / "best"}.items():
        span = ["--since", since, "--until", until, "--every", every, "--samples", samples]
        run([sys.executable, HERE / "score_model.py", checkpoint, bars, *span, "--output", output / name])
    before, after = (series(output / name) for name in ("before", "after"))
    console = Console(width=max(Console().width, 112))  # a file or a pipe is as wide as the table
    console.print(compare(before, after, every))


def series(folder: Path) -> pd.DataFrame:
    """The model's own per-date figures: dates x (horizon, of, measure)."""
    long = pd.read_csv(folder / "by_date.csv", parse_dates=["datetime"])
    own = long[long["name"] == "model"]
    return own.pivot_table(
        index="datetime", columns=["horizon", "of", "measure"], values="value", dropna=False
    )


def compare(before: pd.DataFrame, after: pd.DataFrame, every: int) -> Table:
    """A row a horizon and measure: both means, and the paired difference with its interval."""
    table = Table("bars", "measure", "before", "after", "difference", "95 %", "p", title_justify="left")
    table.title = f"after fine-tuning less before, {len(before)} dates"
    for horizon in before.columns.levels[0]:
        for key, label in MEASURES.items():
            old, new = before[(horizon, *key)], after[(horizon, *key)]
            test = mean_test(new - old, overlap=-(-horizon // every))
            cells = old.mean(), new.mean(), test.mean
            shown = [f"{value:+.4f}" for value in cells]
            table.add_row(
                str(horizon), label, *shown, f"{test.low:+.4f} to {test.high:+.4f}", f"{test.p:.3f}"
            )
    return table


def run(command: list[object]) -> None:
    """One command, which says itself what is wrong."""
    done = subprocess.run(list(map(str, command)), check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    cyclopts.run(finetune_csi300)
