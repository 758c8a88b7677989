"""Trials of a sweep: their results as files that are named by content, and their evaluation together.

    <output>/trials/<data>/<setting>.parquet

The folder is named by the hash of forecasts, prices and code, the file by that of the setting. A trial is finished
once its file is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kronos.postprocessing import Postprocessing
from kronos.utils import atomic_file, explain_write_errors, git_commit, package_version
from kronos_strategies.backtest.inputs import BacktestPrices, BacktestSettings
from kronos_strategies.backtest.search import Trial
from kronos_strategies.backtest_result import BacktestResult
from kronos_strategies.evaluation.portfolio.overfitting import OverfittingEvaluation, evaluate_overfitting
from kronos_strategies.evaluation.portfolio.returns import (
    annual_return,
    calmar,
    max_drawdown,
    sharpe,
    volatility,
)
from kronos_strategies.evaluation.portfolio.sharpe import (
    expected_max_sharpe,
    infer_sharpe,
    probabilistic_sharpe,
)
from kronos_strategies.store import ForecastSet
from kronos_strategies.store.files import find_file
from kronos_strategies.store.head_scores import HeadScores

FORMAT = 1  # of the files; another one has other names
TRIALS = "trials"  # folder of the results
DIGITS = 16  # of a hash in a name
METADATA = b"kronos_sweep"
NET = "net"
INSTEAD = "Choose another folder with --output."


@dataclass(frozen=True)
class TrialResult:
    """Outcome of one trial.

    Attributes:
        bars: series by datetime from the first trade; columns net and gross (returns), turnover, cost, positions.
        metrics: metrics by name, see `trial_metrics`.
        bars_per_year: bars per year, used to annualize metrics.
    """

    bars: pd.DataFrame
    metrics: Mapping[str, float]
    bars_per_year: int

    @classmethod
    def of(cls, result: BacktestResult) -> TrialResult:
        """The part of a backtest that is stored."""
        bars = result.returns[[NET, "gross"]].assign(
            turnover=result.turnover, cost=result.cost, positions=result.positions
        )
        return cls(bars, trial_metrics(result), result.bars_per_year)

    @classmethod
    def read(cls, path: Path) -> TrialResult | None:
        """The result that `write` saved; None if there is no file, or a damaged one."""
        try:
            table = pq.read_table(path.absolute())  # Arrow reads a relative path with a colon as a URL
            known = json.loads(table.schema.metadata[METADATA])
        except (
            OSError,
            KeyError,
            TypeError,
            ValueError,
        ):  # of pyarrow's errors, ArrowInvalid is a ValueError
            return None
        metrics = {name: np.nan if value is None else value for name, value in known["metrics"].items()}
        return cls(table.to_pandas(), metrics, known["bars_per_year"])

    def write(self, path: Path) -> None:
        """Save as one parquet file, whole or not at all."""
        finite = {name: value if np.isfinite(value) else None for name, value in self.metrics.items()}
        known = {"metrics": finite, "bars_per_year": self.bars_per_year}
        table = pa.Table.from_pandas(self.bars)
        table = table.replace_schema_metadata({**table.schema.metadata, METADATA: json.dumps(known).encode()})
        with explain_write_errors(path, INSTEAD), atomic_file(path) as draft:
            pq.write_table(table, draft, compression="zstd")


def trial_metrics(result: BacktestResult) -> dict[str, float]:
    """Metrics of a backtest, net of costs: Sharpe ratio with its 95 % interval, PSR, returns, trading."""
    net, year = result.returns[NET], result.bars_per_year
    inference = infer_sharpe(net, year)
    return {
        "sharpe": inference.sharpe,
        "sharpe_low": inference.low,
        "sharpe_high": inference.high,
        "psr": inference.psr,
        "annual_return": annual_return(net, year),
        "volatility": volatility(net, year),
        "max_drawdown": max_drawdown(net),
        "calmar": calmar(net, year),
        "turnover": float(result.turnover.mean()),
        "annual_cost": float(result.cost.mean() * year),
        "positions": float(result.positions.mean()),
        "unsolved": float(len(result.unsolved)),  # rebalances whose optimization has no result
    }


def data_sha256(
    forecast_set: ForecastSet,
    dates: pd.DatetimeIndex,
    prices: BacktestPrices,
    post: Postprocessing,
    industries: pd.Series | None = None,
    benchmark: pd.Series | None = None,
) -> str:
    """sha256 of everything but the setting that decides a result: forecasts, their postprocessing, prices, code.

    Files of forecasts are named by their content, so that no forecast is read.
    """
    known = {
        "format": FORMAT,
        "code": [package_version(), git_commit()],
        "model": forecast_set.settings.model,
        "forecasts": forecast_set.settings.settings_sha256,
        "files": _file_names(forecast_set.folder, dates),
        "postprocessing": [post.reason, post.candles, str(post.limits)],
        "industries": None if industries is None else sorted(industries.astype(str).to_dict().items()),
        "benchmark": None if benchmark is None else str(benchmark.name),
    }
    digest = hashlib.sha256(_canonical(known))
    panel, factors = prices.panel, prices.factors
    for frame in (panel.opens, panel.closes, panel.amounts, factors, benchmark):
        if frame is not None:
            digest.update(np.ascontiguousarray(frame.to_numpy(np.float64)).tobytes())
            digest.update(pd.DatetimeIndex(frame.index).asi8.tobytes())
    digest.update(_canonical([str(name) for name in panel.closes.columns]))
    return digest.hexdigest()


def place_trials(
    trials: Sequence[Trial],
    data: str,
    dates: pd.DatetimeIndex,
    heads: Mapping[int, HeadScores | None],
    output: Path,
) -> list[Path]:
    """File of the result of each trial.

    Args:
        trials: trials of a sweep.
        data: see `data_sha256`.
        dates: dates with forecasts.
        heads: scores of a return head by holding period.
        output: folder of the sweep.
    """
    folder = output / TRIALS / data[:DIGITS]
    scored = {hold: _head_sha256(dates, head) for hold, head in heads.items()}
    return [
        folder / f"{trial_sha256(trial.settings, scored.get(trial.settings.hold))[:DIGITS]}.parquet"
        for trial in trials
    ]


def trial_sha256(settings: BacktestSettings, head: str | None) -> str:
    """sha256 of a setting: all fields of its rules, execution and signals, and the return head that scores."""
    values: dict[str, Any] = asdict(settings)
    for name in ("trials", "trials_deviation"):
        del values[name]  # these describe the search
    return hashlib.sha256(_canonical([values, head])).hexdigest()


def _head_sha256(dates: pd.DatetimeIndex, head: HeadScores | None) -> str | None:
    if head is None:
        return None
    known = [head.sha256, head.horizon, _file_names(head.folder, dates)]
    return hashlib.sha256(_canonical(known)).hexdigest()


def _file_names(folder: Path, dates: pd.DatetimeIndex) -> list[str | None]:
    files = [find_file(folder, date) for date in dates]
    return [None if file is None else file.path.name for file in files]


def _canonical(values: object) -> bytes:
    """JSON in which equal numbers are equal: 0 is 0.0."""
    return json.dumps(_as_floats(values), sort_keys=True, default=str).encode()


def _as_floats(values: object) -> object:
    if isinstance(values, Mapping):
        return {str(name): _as_floats(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_as_floats(value) for value in values]
    return float(values) if isinstance(values, int | float) and not isinstance(values, bool) else values


@dataclass(frozen=True)
class SweepResult:
    """Evaluation of all trials of a sweep.

    Attributes:
        table: one row per trial, the best Sharpe ratio first and failed ones last: the values of its parameters,
            `trial_metrics`, dsr (probability that the true ratio is above the expected maximum of all trials
            without skill), and error (the reason of a failure, else empty).
        parameters: names of the columns with parameters.
        best: settings of the first row, with the number of trials and how their ratios vary.
        trials: number of trials on these data in the output folder, those of earlier sweeps included.
        overfitting: CSCV over the same trials.
        returns: bars x trials, net returns from the first trade of any trial on; 0 while a trial holds cash only.
    """

    table: pd.DataFrame
    parameters: tuple[str, ...]
    best: BacktestSettings
    trials: int
    overfitting: OverfittingEvaluation
    returns: pd.DataFrame

    @property
    def failed(self) -> int:
        """Number of settings that do not fit the data."""
        return int(self.table["error"].ne("").sum())

    def metrics(self) -> dict[str, float]:
        """Flat metrics of the sweep and of its best trial."""
        best = self.table.iloc[0]
        names = [str(name) for name in self.table if name not in (*self.parameters, "error")]
        found = {f"best_{name}": float(best[name]) for name in names}
        own = self.overfitting
        return {
            "settings": len(self.table), "failed": self.failed, "trials": self.trials, "pbo": own.pbo,
            "prob_loss": own.prob_loss, "blocks": own.blocks, "different_settings": own.settings, **found,
        }  # fmt: skip


def evaluate_trials(
    trials: Sequence[Trial], files: Sequence[Path], failed: Mapping[Path, str]
) -> SweepResult:
    """Evaluate finished trials together.

    All trials in the folder of the files count, also those of other sweeps on the same data: each of them was a
    chance to find a good result by luck.

    Args:
        trials: trials of the sweep.
        files: file of each.
        failed: reasons of those that failed, by file.

    Raises:
        ValueError: no trial has a result.
    """
    found = {
        path: TrialResult.read(path)
        for path in sorted({path for file in files for path in file.parent.glob("*.parquet")})
    }
    known = {path: result for path, result in found.items() if result is not None}
    if not any(file in known for file in files):
        raise ValueError(
            f"No setting has a result. The first one failed: {failed.get(files[0], 'it is not finished')}"
        )
    returns = (
        pd.concat({path.stem: result.bars[NET] for path, result in known.items()}, axis=1)
        .sort_index()
        .fillna(0.0)
    )
    ratios = np.array([sharpe(result.bars[NET], bars_per_year=1) for result in known.values()])
    ratios = ratios[np.isfinite(ratios)]
    deviation = float(ratios.std(ddof=1)) if len(ratios) > 1 else None
    threshold = 0.0 if deviation is None else expected_max_sharpe(len(known), deviation)
    rows = []
    for trial, file in zip(trials, files, strict=True):
        result = known.get(file)
        own = (
            {}
            if result is None
            else {**result.metrics, "dsr": probabilistic_sharpe(result.bars[NET], threshold)}
        )
        rows.append({**trial.parameters, **own, "error": failed.get(file, "")})
    table = pd.DataFrame(rows)
    order = table["sharpe"].sort_values(ascending=False, kind="stable").index
    best = replace(trials[int(order[0])].settings, trials=len(known), trials_deviation=deviation)
    return SweepResult(
        table.loc[order].reset_index(drop=True),
        tuple(trials[0].parameters),
        best,
        len(known),
        evaluate_overfitting(returns),
        returns,
    )
