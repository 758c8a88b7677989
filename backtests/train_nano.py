"""Train kronos-nano as it ships: tokenizer, predictor, then its losses on dates it never saw.

    python backtests/train_nano.py DATA --output out/nano

DATA is a folder with sp500_2013_2018.parquet, nifty50_2000_2020.parquet, csi300_2005_2019.parquet and
csi300_2020_2023.parquet: tidy daily bars. Takes about an hour on two cores.
"""

import subprocess
import sys
from pathlib import Path

import cyclopts

TRAINING = ("sp500_2013_2018", "nifty50_2000_2020", "csi300_2005_2019")
HELD_OUT = "csi300_2020_2023"


def train_nano(data: Path, *, output: Path = Path("out/nano")) -> None:
    """Train both stages and print the held-out losses.

    Args:
        data: folder with the four files.
        output: where to write tokenizer/ and predictor/.
    """
    files = [flag for name in TRAINING for flag in ("--data", data / f"{name}.parquet")]
    split = ["--train-until", "2018-12-31", "--validate-until", "2019-12-31"]
    pace = ["--learning-rate", "2e-3"]
    stage(
        [
            "tokenizer",
            *files,
            *split,
            *pace,
            "--steps",
            "3000",
            "--validate-every",
            "250",
            "--output",
            output / "tokenizer",
        ]
    )
    dropout = [flag for part in ("ffn", "resid", "token") for flag in (f"--{part}-dropout-p", "0.1")]
    stage(
        ["predictor", *files, *split, *pace, *dropout, "--weight-decay", "0.1", "--steps", "2400",
         "--validate-every", "200", "--tokenizer", output / "tokenizer", "--output", output / "predictor"]
    )  # fmt: skip
    train = [flag for name in TRAINING for flag in ("--train", data / f"{name}.parquet")]
    stage(
        ["evaluate", output, *train, "--train-until", "2018-12-31", "--data", data / f"{HELD_OUT}.parquet",
         "--since", "2020-06-01", "--until", "2023-12-31"]
    )  # fmt: skip


def stage(arguments: list[object]) -> None:
    """One command of `python -m kronos.training`."""
    done = subprocess.run([sys.executable, "-m", "kronos.training", *map(str, arguments)], check=False)
    if done.returncode:
        sys.exit(done.returncode)  # it has said why


if __name__ == "__main__":
    cyclopts.run(train_nano)
