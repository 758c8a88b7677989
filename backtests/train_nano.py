"""Train the bundled kronos-nano, then evaluate it on unseen dates, for its model card.

    python backtests/train_nano.py DATA --output out/nano

DATA is a folder with csi300_2005_2019.parquet, nifty50_2000_2020.parquet, sp500_2013_2018.parquet,
us_1995_2017.parquet, fx_crypto_index_2007_2023.parquet and csi300_2020_2023.parquet: tidy bars. Each stage takes
hours on one core, or minutes with --accelerated on a GPU; --resume continues an interrupted run.
"""

import os
import subprocess
import sys
from pathlib import Path

import cyclopts

HERE, SCRIPTS = Path(__file__).parent, Path(sys.executable).parent
CONFIG = HERE.parent / "configs" / "pretrain_nano.yaml"
SHARES = ("sp500_2013_2018", "nifty50_2000_2020", "csi300_2005_2019")
HELD_OUT = "csi300_2020_2023"


def train_nano(
    data: Path,
    *,
    output: Path = Path("out/nano"),
    resume: bool = False,
    accelerated: bool = False,
    every: int = 1,
    samples: int = 32,
) -> None:
    """Train both stages, then print held-out losses and write the report on held-out bars.

    Args:
        data: folder with the six files.
        output: folder of the weights, the losses and the report.
        resume: resume an interrupted run.
        accelerated: train in bfloat16, compiled.
        every: forecast every k-th date.
        samples: paths per forecast.
    """
    flags = ["--config", CONFIG, "--output", output, *(["--resume"] if resume else [])]
    flags += ["--precision", "bfloat16", "--compile"] if accelerated else ["--accumulate", 16]
    run([SCRIPTS / "kronos", "train", *flags], KRONOS_DATA=str(data.resolve()))
    held = data / f"{HELD_OUT}.parquet"
    sources = [flag for name in SHARES for flag in ("--train", data / f"{name}.parquet")]
    span = ["--train-until", "2018-12-31", "--data", held, "--start", "2020-06-01", "--end", "2023-12-31"]
    run([sys.executable, "-m", "kronos.training", "evaluate", output / "best", *sources, *span])
    dates = ["--start", "2020-06-01", "--end", "2023-12-13", "--every", every, "--samples", samples]
    report = ["--data", held, *dates, "--output", output / "report"]
    run([SCRIPTS / "kronos", "evaluate", output / "best", *report])


def run(command: list[object], **settings: str) -> None:
    """Run one command, which reports its own errors."""
    done = subprocess.run(list(map(str, command)), env={**os.environ, **settings}, check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    cyclopts.run(train_nano)
