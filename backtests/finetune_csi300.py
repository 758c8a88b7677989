"""Does a few minutes of fine-tuning help? kronos-nano before and after, on an unseen year.

    python backtests/finetune_csi300.py csi300_2020_2023.parquet

imports the bars, trains both stages with configs/finetune_csi300.yaml on 2020 to 2022, evaluates both versions on
2023 and compares their RankIC, CRPS and QLIKE date by date: compare.html, compare.json.
"""

from pathlib import Path

import cyclopts

from kronos_strategies.cli import run_kronos

CONFIG = Path(__file__).parents[1] / "configs" / "finetune_csi300.yaml"


def finetune_csi300(
    bars: Path,
    *,
    model: str = "kronos-nano",
    start: str = "2023-01-03",
    end: str = "2023-12-13",
    every: int = 1,
    samples: int = 32,
    output: Path = Path("out/finetune_csi300"),
) -> None:
    """Fine-tune, evaluate before and after, compare.

    Args:
        bars: tidy daily bars of the members, 2020 to 2023.
        model: checkpoint to start from.
        start: first forecast date.
        end: last forecast date; 11 days of bars must follow.
        every: forecast every k-th date.
        samples: paths per forecast.
        output: folder of the results.
    """
    store, tuned = output / "store", output / "model"
    if not store.exists():
        run_kronos("data", "import", bars, "--to", store)
    # Completed stages are skipped, an interrupted one resumes.
    flags = ["--config", CONFIG, "--data", store, "--pretrained", model, "--output", tuned, "--resume"]
    run_kronos("train", *flags)
    versions = {"before": model, "after": tuned / "best"}
    for name, checkpoint in versions.items():
        dates = ["--start", start, "--end", end, "--every", every]
        paths = ["--samples", samples, "--output", output / name]
        run_kronos("evaluate", checkpoint, "--data", bars, *dates, *paths)
    files = ["--html", output / "compare.html", "--json", output / "compare.json"]
    run_kronos("compare", *(f"{name}={output / name}" for name in versions), *files)


if __name__ == "__main__":
    cyclopts.run(finetune_csi300)
