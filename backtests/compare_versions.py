"""Two checkpoints of kronos-nano at two sampling settings: does any of them rank significantly better?

    python backtests/compare_versions.py
    python backtests/compare_versions.py --data ~/csi300 --start 2023-07-03 --end 2023-11-30

The second checkpoint is --other, or kronos-nano fine-tuned for some hundred steps on the bars before --start. Each
of the four is forecast into one store and recorded; `kronos compare` then compares three of them with the first.
Results go to --output: compare.html, compare.json.
"""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import cyclopts

from kronos_strategies.cli import run_kronos
from kronos_strategies.qlib.tracking import recorded_runs

CONFIG = Path(__file__).parents[1] / "configs" / "finetune_csi300.yaml"
A_DAY, HALF_YEAR = timedelta(days=1), timedelta(days=182)
SETTINGS = {"": ("1", "1"), " narrowed": ("0.6", "0.9")}  # T and top_p

app = cyclopts.App(help=__doc__, version_flags=[])


@app.default
def compare_versions(
    *,
    data: Annotated[Path | None, cyclopts.Parameter(env_var="KRONOS_QLIB_DATA")] = None,
    market: str = "csi300",
    model: str = "kronos-nano",
    other: str | None = None,
    steps: int = 300,
    start: datetime = datetime(2023, 1, 3),
    end: datetime = datetime(2023, 6, 30),
    samples: int = 16,
    hold: int = 5,
    gate: str = "rank_ic>=-0.005",
    output: Path = Path("out/compare_versions"),
) -> None:
    """Train, forecast, compare.

    Args:
        data: Qlib data directory; the simulated market when omitted.
        market: universe to forecast.
        model: the first checkpoint.
        other: the second checkpoint; the first one, fine-tuned, when omitted.
        steps: steps of each stage of that fine-tuning.
        start: first forecast date; training uses earlier bars only.
        end: last forecast date.
        samples: paths per window.
        hold: days that a position is held.
        gate: gate that every version must pass.
        output: folder of all results.
    """
    output.mkdir(parents=True, exist_ok=True)
    tracking = f"sqlite:///{output.resolve() / 'mlflow.db'}"
    other = other or str(
        tuned(model, ["--data", data] if data else [], start, steps, output / f"tuned-{steps}")
    )
    bars = ["--data", data] if data else []
    span = ["--start", f"{start:%Y-%m-%d}", "--end", f"{end:%Y-%m-%d}", "--market", market]
    versions = {}
    for checkpoint, name in ((model, "first"), (other, "second")):
        for setting, (temperature, top_p) in SETTINGS.items():
            paths = [
                "--samples",
                samples,
                "--horizon",
                hold + 1,
                "--temperature",
                temperature,
                "--top-p",
                top_p,
            ]
            run_kronos(
                "store",
                "fill",
                output / "forecasts",
                "--model",
                checkpoint,
                *span,
                *paths,
                *bars,
                "--tracking",
                tracking,
            )
            versions[f"{name}{setting}"] = recorded_runs(tracking)[0].info.run_id
    files = ["--html", output / "compare.html", "--json", output / "compare.json"]
    named = [f"{name}={run}" for name, run in versions.items()]
    run_kronos(
        "compare", *named, *bars, "--label-horizon", hold, "--gate", gate, *files, "--tracking", tracking
    )


def tuned(model: str, bars: list[object], before: datetime, steps: int, folder: Path) -> Path:
    """`model`, trained a little further on the bars before a date; what is finished is not trained again."""
    spans = [
        "--train-until",
        f"{before - HALF_YEAR:%Y-%m-%d}",
        "--validate-until",
        f"{before - A_DAY:%Y-%m-%d}",
    ]
    settings = [
        "--config",
        CONFIG,
        "--pretrained",
        model,
        "--max-steps",
        steps,
        "--output",
        folder,
        "--resume",
    ]
    run_kronos("train", *settings, *spans, *bars)
    return folder / "best"


if __name__ == "__main__":
    app()
