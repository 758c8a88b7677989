"""Does one tokenizer serve all markets? Linear probes trained on one market and tested on later dates of another.

    python backtests/transfer_across_markets.py --data ~/bars
    python backtests/transfer_across_markets.py --data ~/bars --markets my_markets.yaml --windows 1000

Probes read the volatility and the direction of the next bars from three inputs: hidden states of the checkpoint,
plain bar features without units, and both. Each is trained on each market and on all of them together, and tested
on each; every training label is known before the first test date of any market. Hidden states are kept in --store,
so that an interrupted run resumes. In --output: transfer.md, transfer.json.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import cyclopts
import numpy as np
import pandas as pd
import yaml

from kronos.predictor import KronosPredictor
from kronos.utils import run_command
from kronos_strategies.evaluation.significance import MeanTest
from kronos_strategies.heads.probes import (
    TARGETS,
    ProbeSample,
    ProbeScore,
    probe_labels,
    relative_bar_features,
    sample_windows,
    transfer,
)
from kronos_strategies.heads.sources import read_panel
from kronos_strategies.progress import progress_bar
from kronos_strategies.store import ForecastStore, WindowSpec

HIDDEN, BARS, BOTH = "hidden states", "bar features", "both"
MARKETS = Path(__file__).with_suffix(".yaml")
Part = Mapping[str, Any]  # file, start, end; instruments, exclude, every

app = cyclopts.App(help=__doc__, version_flags=[])


@app.default
def transfer_across_markets(
    *,
    data: Path,
    markets: Path = MARKETS,
    model: str = "kronos-nano",
    windows: int = 3000,
    horizon: int = 5,
    lookback: int = 90,
    device: str | None = None,
    store: Path = Path("out/transfer/store"),
    output: Path = Path("out/transfer"),
) -> None:
    """Embed, fit, score, write.

    Args:
        data: folder of the files of bars.
        markets: YAML file of the markets, see transfer_across_markets.yaml.
        model: checkpoint.
        windows: windows of each market, about as many to train and to test.
        horizon: bars whose volatility and direction are predicted.
        lookback: bars per window.
        device: cpu, cuda or mps.
        store: folder of hidden states.
        output: folder of the results.
    """
    predictor = KronosPredictor.from_pretrained(model, device=device)
    hidden = ForecastStore(store)
    samples: dict[str, dict[str, ProbeSample]] = {"train": {}, "test": {}}
    for market, parts in yaml.safe_load(markets.read_text(encoding="utf-8")).items():
        for kind, part in parts.items():
            samples[kind][market] = read_sample(
                f"{market} {kind}", part, data, predictor, hidden, (windows, horizon, lookback)
            )
    scores = list(transfer(samples["train"], samples["test"], reference=BARS))
    write(output, scores, f"{model}, {horizon} bars ahead, windows of {lookback} bars")


def read_sample(
    name: str,
    part: Part,
    data: Path,
    predictor: KronosPredictor,
    store: ForecastStore,
    sizes: tuple[int, int, int],
) -> ProbeSample:
    """Windows of one market and span of dates, with all three inputs and the labels known by its end."""
    count, horizon, lookback = sizes
    start, end = (
        pd.Timestamp(part["start"]),
        pd.Timestamp(part["end"]) + pd.Timedelta("1D") - pd.Timedelta("1us"),
    )
    every = part.get("every", horizon)
    panel = {
        instrument: bars
        for instrument, bars in read_panel(data / part["file"], end, part.get("instruments", ())).items()
        if not any(fnmatchcase(instrument, each) for each in part.get("exclude", ()))
    }
    windows = sample_windows(panel, lookback, (start, end), every, count)
    index, spec = windows.index, WindowSpec(name, lookback, 1, lookback)
    with progress_bar(f"embed {name}", "windows") as progress:
        states = store.embeddings(predictor, windows, spec, progress)
    plain = relative_bar_features(panel, index, lookback).to_numpy()
    inputs = {HIDDEN: states, BARS: plain, BOTH: np.hstack([states, plain])}
    labels = probe_labels(panel, index, horizon, lookback, end)
    print(f"{name}: {len(windows):,} windows, {index.unique('instrument').size} instruments, "
          f"{index.unique('datetime').size} dates from {start:%Y-%m-%d} to {end:%Y-%m-%d}")  # fmt: skip
    return ProbeSample(inputs, labels, horizon, every)


def write(folder: Path, scores: list[ProbeScore], title: str) -> None:
    """A table of each target and input, training markets by test markets, and all scores as JSON."""
    blocks = [f"{title}. Skill in % of the loss of a constant, ± half of a 95 % interval over dates."]
    for target in TARGETS:
        own = [score for score in scores if score.target == target]
        for name in (HIDDEN, BARS):
            shown = {(s.trained_on, s.tested_on): s.skill for s in own if s.inputs == name}
            blocks.append(markdown(f"{target}, {name}", shown))
        for name in (HIDDEN, BOTH):
            less = {(s.trained_on, s.tested_on): s.difference for s in own if s.inputs == name}
            blocks.append(markdown(f"{target}, {name} less {BARS}", less))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "transfer.md").write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    found = json.dumps({"title": title, "scores": [asdict(score) for score in scores]}, indent=1)
    (folder / "transfer.json").write_text(found + "\n", encoding="utf-8")
    print("\n\n".join(blocks))


def markdown(title: str, tests: Mapping[tuple[str, str], MeanTest | None]) -> str:
    """Rows: market of training; columns: market of the test; bold where the interval excludes zero."""
    rows, columns = dict.fromkeys(key[0] for key in tests), dict.fromkeys(key[1] for key in tests)
    lines = [f"| {title}: trained on | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        cells = [cell(tests[row, column]) for column in columns]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(test: MeanTest | None) -> str:
    """Mean ± half of the interval, in %."""
    if test is None or test.mean != test.mean:
        return "–"
    text = f"{test.mean * 100:+.1f} ± {(test.high - test.mean) * 100:.1f}"
    return f"**{text}**" if test.low > 0 or test.high < 0 else text


if __name__ == "__main__":
    run_command(app)
