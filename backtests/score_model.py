"""Evaluate a checkpoint on unseen bars, under one or several sampling settings.

    python backtests/score_model.py kronos-nano --data csi300_2020_2023.parquet --start 2022-01-04 --end 2023-12-15
    python backtests/score_model.py out/nano --data BARS.parquet --start 2020-06-01 --temperature 0.6 1.0

`kronos evaluate` writes the report of each setting into its own folder below --output. If there are several,
`kronos compare` compares the others with the first: compare.html, compare.json.
"""

import itertools
from pathlib import Path
from typing import Annotated

import cyclopts

from kronos_strategies.cli import run_kronos

Several = cyclopts.Parameter(negative=(), consume_multiple=True)

app = cyclopts.App(help=__doc__, version_flags=[])


@app.default
def score_model(
    checkpoint: str,
    /,
    *,
    data: Annotated[tuple[Path, ...], Several],
    start: str,
    end: str | None = None,
    every: int = 1,
    hold: int = 5,
    samples: int = 32,
    temperature: Annotated[tuple[float, ...], cyclopts.Parameter(negative=(), consume_multiple=True)] = (),
    top_p: Annotated[tuple[float, ...], Several] = (),
    seed: int = 0,
    lookback: int = 90,
    calibration: str = "auto",
    device: str | None = None,
    output: Path = Path("out/scores"),
) -> None:
    """Evaluate each setting, then compare them.

    Args:
        checkpoint: bundled name, folder or hub id.
        data: CSV or parquet files, folders of such files, or a Qlib data directory.
        start: first forecast date.
        end: last forecast date.
        every: forecast every k-th date.
        hold: holding period of the score, in bars.
        samples: paths per forecast.
        temperature: temperatures to try; the checkpoint's own when omitted.
        top_p: nucleus probabilities to try; the checkpoint's own when omitted.
        seed: seed of the sampled paths.
        lookback: bars that the model reads.
        calibration: auto, none, or a file of `kronos calibrate`.
        device: cpu, cuda or mps.
        output: folder of the reports.
    """
    options = {"end": end, "device": device}
    common = [
        "--data", *data, "--start", start, "--every", every, "--hold", hold, "--samples", samples,
        "--seed", seed, "--lookback", lookback, "--calibration", calibration,
        *itertools.chain(*((f"--{name}", value) for name, value in options.items() if value is not None)),
    ]  # fmt: skip
    folders = {}
    for degree, nucleus in itertools.product(temperature or (None,), top_p or (None,)):
        chosen = {"temperature": degree, "top-p": nucleus}
        flags = [(f"--{name}", value) for name, value in chosen.items() if value is not None]
        name = "-".join(f"{flag.removeprefix('--')}-{value:g}" for flag, value in flags) or "own-settings"
        folders[name] = output / name
        run_kronos("evaluate", checkpoint, *common, *itertools.chain(*flags), "--output", folders[name])
    if len(folders) > 1:
        files = ["--html", output / "compare.html", "--json", output / "compare.json"]
        run_kronos("compare", *(f"{name}={folder}" for name, folder in folders.items()), *files)


if __name__ == "__main__":
    app()
