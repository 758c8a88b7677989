"""Monte Carlo noise of a signal by sample count and sampling method, on a real market.

    python backtests/sampling_noise.py csi300.parquet --since 2022-01-04 --until 2023-12-20

Each sampling variant scores the same windows with several seeds and sample counts. Columns of the table:
fidelity, the rank correlation of a score with that of `--reference` samples; worth, how many separate plain
samples are as faithful; noise, how much a date's RankIC moves from seed to seed; and the same of the
difference between two model versions, with the same draws for both or with draws of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated
from zlib import crc32

import cyclopts
import numpy as np
import pandas as pd
import torch
from draws import SEPARATE, VARIANTS, WINNER, Variant, order_of
from rich.console import Console
from rich.progress import track
from rich.table import Table

from kronos.bars import CLOSE, FEATURES, adjust_bars
from kronos.config import SampleConfig
from kronos.forecast import Forecast, anchor_paths
from kronos.inference.fused import ExecutionConfig
from kronos.inference.pipeline import Pipeline
from kronos.predictor import KronosPredictor
from kronos.sampling import SobolSampler
from kronos.utils import csv_text
from kronos.windows import Windows
from kronos_strategies.data.importer import import_bars
from kronos_strategies.signal import signals

ROWS = 4096  # paths at a time


def forecast(
    predictor: KronosPredictor, windows: Windows, sampling: SampleConfig, variant: Variant, seeds: int = 1
) -> Forecast:
    """Forecast one date: `sampling.samples` paths of each seed, one seed after another."""
    p, drawn = predictor, replace(sampling, samples=seeds * sampling.samples)
    pipeline = Pipeline(
        p.model,
        p.tokenizer,
        p.device,
        p.max_context,
        p.clip,
        p.context_overflow,
        ExecutionConfig(p.precision, p.compile),
    )
    order = order_of(p.tokenizer, variant)
    uniforms = _uniforms(windows, sampling, variant, seeds).to(p.device)
    parts, decoded, rows = [], [], max(1, ROWS // drawn.samples)
    for start in range(0, len(windows), rows):
        part = slice(start, start + rows)
        sampled = pipeline.sample_with(windows[part], drawn, SobolSampler(uniforms[part], order))
        parts.append(sampled.paths)
        decoded.append(sampled.decoded_close)
    paths, decoded_close = np.concatenate(parts), np.concatenate(decoded)
    anchor_paths(paths, decoded_close, windows.last_bar[:, CLOSE])
    provenance = p.provenance(drawn, windows.digest())
    return Forecast(paths, windows.index, windows.future, windows.last_bar, provenance, decoded_close)


def _uniforms(windows: Windows, sampling: SampleConfig, variant: Variant, seeds: int) -> torch.Tensor:
    """(N, seeds * S, H, 2)."""
    date = windows.index.get_level_values("datetime")[0].value
    names = windows.index.get_level_values("instrument")
    keys = [()] if variant.shared else [(crc32(name.encode()),) for name in names]
    rows = []
    for key in keys:
        streams = [np.random.default_rng([sampling.seed + i, date, *key]) for i in range(seeds)]
        sets = [variant.uniforms(stream, sampling.samples, 2 * windows.horizon) for stream in streams]
        rows.append(np.concatenate(sets).reshape(-1, windows.horizon, 2))
    return torch.from_numpy(np.stack(rows)).float().expand(len(windows), -1, -1, -1)


@dataclass(frozen=True)
class Study:
    """Settings of the study.

    Attributes:
        model: bundled name, folder or hub id.
        against: the other version; a copy of the first with slightly perturbed weights when omitted.
        since: first date to choose from.
        until: last date to choose from.
        dates: number of forecast dates, evenly spaced.
        instruments: number of instruments, evenly spaced; 0 for all.
        lookback: bars that the model reads.
        samples: sample counts to compare.
        seeds: number of seeds per variant.
        reference: sample count of the reference score, taken as free of noise.
        T: temperature.
        top_p: nucleus probability.
        draws: sampling variants, each compared with separate plain samples.
    """

    model: str = "kronos-nano"
    against: str | None = None
    since: str = "2022-01-04"
    until: str = "2023-12-20"
    dates: int = 8
    instruments: int = 0
    lookback: int = 90
    samples: tuple[int, ...] = (1, 2, 4, 8, 10, 16, 32, 64)
    seeds: int = 4
    reference: int = 512
    T: float = 0.6
    top_p: float = 0.9
    draws: tuple[str, ...] = tuple(VARIANTS)

    def run(self, bars: Path) -> pd.DataFrame:
        """One row for each date, variant and sample count."""
        market = _market(bars, self.instruments)
        closes = pd.DataFrame({name: frame["close"] for name, frame in market.items()}).sort_index()
        labels = (closes.shift(-2) / closes.shift(-1) - 1).loc[self.since : self.until]
        versions = [KronosPredictor.from_pretrained(self.model)]
        versions.append(KronosPredictor.from_pretrained(self.against) if self.against else _moved(self.model))
        rows = []
        for at in track(np.linspace(0, len(labels) - 1, self.dates).astype(int), "dates"):
            day = labels.index[at]
            windows = Windows.rolling(market, self.lookback, 2, closes.index, start=day, end=day)
            rows += self._of_date(versions, windows, labels)
        return pd.DataFrame(rows)

    def _of_date(
        self, versions: list[KronosPredictor], windows: Windows, labels: pd.DataFrame
    ) -> list[dict[str, object]]:
        date, names = windows.index[0][0], windows.index.get_level_values("instrument")
        here = labels.reindex(columns=names)
        sampling = SampleConfig(self.reference, T=self.T, top_p=self.top_p, seed=10**6)
        reference = signals(forecast(versions[0], windows, sampling, VARIANTS[WINNER]))
        rows = []
        for title in dict.fromkeys([SEPARATE, *self.draws]):
            first, second = (self._signals(version, windows, VARIANTS[title]) for version in versions)
            for count in self.samples:
                found = measures(first[count], second[count], reference, here.loc[date], here.dropna())
                rows.append({"date": date, "variant": title, "samples": count, **found})
        return rows

    def _signals(
        self, predictor: KronosPredictor, windows: Windows, variant: Variant
    ) -> dict[int, list[pd.DataFrame]]:
        """Sample count -> signals of each seed."""
        found = {}
        for drawn in [max(self.samples)] if variant.nested else self.samples:
            sampling = SampleConfig(drawn, T=self.T, top_p=self.top_p)
            whole = forecast(predictor, windows, sampling, variant, self.seeds)
            for count in self.samples if variant.nested else [drawn]:
                paths = [part[:, :count] for part in np.split(whole.paths, self.seeds, axis=1)]
                found[count] = [signals(replace(whole, paths=part)) for part in paths]
        return found


def measures(
    first: list[pd.DataFrame],
    second: list[pd.DataFrame],
    reference: pd.DataFrame,
    label: pd.Series,
    labels: pd.DataFrame,
) -> dict[str, float]:
    """Compare the signals of two versions, a frame per seed; `labels` of many dates give the direction of noise."""
    scores = np.array([signal["score"] for signal in first])
    here, other = (rank_correlation(np.array([s["score"] for s in many]), labels) for many in (first, second))
    known = label.notna().to_numpy()
    found = {
        "fidelity": rank_correlation(scores, reference[["score"]].T).mean(),
        "noise": spread(here),
        "noise of difference": spread(here - other),
        "own draws": spread(here - np.roll(other, 1, axis=0)),
        "rank_ic": rank_correlation(scores[:, known], label[known].to_frame().T).mean(),
    }
    for column in ("score", "volatility", "q05", "q95"):
        errors = [signal[column] - reference[column] for signal in first]
        found[f"rmse_{column}"] = float(np.sqrt(np.mean(np.square(errors))))
    return found


def rank_correlation(a: np.ndarray, b: pd.DataFrame) -> np.ndarray:
    """(n, instruments) and (m, instruments) -> (n, m), Spearman's."""
    ranks = [pd.DataFrame(x).rank(axis=1).to_numpy() for x in (a, b)]
    return np.corrcoef(*ranks)[: len(a), len(a) :]


def spread(coefficients: np.ndarray) -> float:
    """(seeds, labels) -> standard deviation over seeds, root mean square over labels."""
    return float(np.sqrt(coefficients.var(axis=0, ddof=1).mean()))


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """Over dates: spreads and errors by root mean square, the rest by mean; and what the samples are worth."""
    groups = rows.drop(columns="date").groupby(["variant", "samples"], sort=False)
    table, squared = groups.mean(), np.sqrt(groups.agg(lambda x: np.mean(np.square(x))))
    for column in table.columns.drop(["fidelity", "rank_ic"]):
        table[column] = squared[column]
    # Independent errors shrink as 1 / samples, and 1 / fidelity^2 - 1 is their size relative to the signal's.
    error = 1 / table["fidelity"] ** 2 - 1
    counts = table.index.get_level_values("samples")
    table.insert(1, "worth", (error * counts).loc[SEPARATE].mean() / error)
    return table


def show(table: pd.DataFrame) -> None:
    """Print one table per sample count."""
    titles = ["fidelity", "worth", "noise", "noise of difference", "own draws"]
    view = Table("samples", "draws", *titles)
    for count, block in table[titles].groupby(level="samples"):
        for (variant, _), row in block.iterrows():
            view.add_row(
                str(count),
                str(variant),
                *(f"{v:.0f}" if k == "worth" else f"{v:.3f}" for k, v in row.items()),
            )
        view.add_section()
    Console().print(view)


def _market(file: Path, instruments: int) -> dict[str, pd.DataFrame]:
    """Adjusted bars by instrument."""
    tidy = import_bars([file]).bars.set_index("datetime")
    every = sorted(tidy["instrument"].unique())
    kept = (
        [every[i] for i in np.linspace(0, len(every) - 1, instruments).astype(int)] if instruments else every
    )
    columns = [column for column in (*FEATURES, "factor") if column in tidy]
    return {name: adjust_bars(tidy.loc[tidy["instrument"] == name, columns]) for name in kept}


def _moved(model: str, by: float = 0.03) -> KronosPredictor:
    """The model with weights off by a small share of their spread, as those of another training run."""
    predictor, generator = KronosPredictor.from_pretrained(model), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in predictor.model.parameters():
            if weight.ndim > 1:
                noise = torch.randn(weight.shape, generator=generator).to(weight.device)
                weight.add_(noise * weight.std() * by)
    return predictor


def sampling_noise(
    bars: Path,
    *,
    study: Annotated[Study, cyclopts.Parameter("*")] = Study(),
    output: Path = Path("out/sampling_noise.csv"),
) -> None:
    """Print the table of the draws' noise, and write its rows date by date.

    Args:
        bars: tidy daily bars of a market, CSV or parquet, raw with a factor or adjusted.
        study: settings of the comparison.
        output: CSV.
    """
    rows = study.run(bars)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(csv_text(rows), encoding="utf-8")
    show(summarize(rows))


if __name__ == "__main__":
    cyclopts.run(sampling_noise)
