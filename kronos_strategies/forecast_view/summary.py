"""Forecast -> the table of `kronos forecast`, the predicted bars by step, and the score on bars held back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd

from kronos.bars import CLOSE
from kronos.forecast import Forecast
from kronos.utils import csv_text, explain_write_errors, write_atomic
from kronos.zones import one_zone
from kronos_strategies.evaluation.distribution.metrics import (
    crps_ensemble,
    crps_normal,
    min_samples_for_coverage,
)
from kronos_strategies.signal import positive_prices, summary

LEVELS = (0.9, 0.8, 0.5)  # of the band whose coverage is counted: the widest that the paths can form
NORMAL_ENDS = {0.9: 1.6448536269514722, 0.8: 1.2815515655446004, 0.5: 0.6744897501960817}
MAX_JUMP = 10.0  # times the volatility per bar, at the first step; an open after a night reaches a few
SUFFIXES = (".csv", ".parquet", ".json")


def forecast_table(forecast: Forecast, score: np.ndarray | None = None) -> pd.DataFrame:
    """One row per window, the highest score first.

    Args:
        forecast: N windows.
        score: (N,) in place of the expected return; that of a return head.

    Returns:
        Frame indexed (datetime, instrument). Columns, with H the horizon:
        timestamp: time of the last forecast bar, in the zone of the instrument.
        close: the last close.
        score: the score given, else the expected return.
        expected_return, volatility, prob_up: see `kronos_strategies.signal.summary`.
        q05, q50, q95: quantiles of the close at H; the outer ones are the ends of `Forecast.band(0.9)`.
        max_drawdown: mean over paths of the largest fall from a previous high of the path, at most 0; closes only,
            the last close included.

    Raises:
        ValueError: a last close is not positive, so that no return exists.
    """
    known, band = summary(forecast), forecast.band(0.9)[:, -1]
    table = pd.DataFrame({"timestamp": one_zone(forecast.timestamps[:, -1])}, index=forecast.index)
    table["close"] = forecast.last_bar[:, CLOSE].astype(np.float64)
    table["score"] = known["expected_return"] if score is None else score
    table = table.join(known[["expected_return", "volatility", "prob_up"]])
    median = np.median(forecast.path("close")[..., -1], axis=1)
    table["q05"], table["q50"], table["q95"] = band[:, 0], median, band[:, 1]
    table["max_drawdown"] = _drawdowns(forecast).mean(axis=1)
    return table.sort_values("score", ascending=False, kind="stable")


def _drawdowns(forecast: Forecast) -> np.ndarray:
    """(N, S) largest fall of each path from a previous high, at most 0."""
    closes = positive_prices(forecast)
    start = forecast.last_bar[:, CLOSE].astype(np.float64)[:, None, None]
    walks = np.concatenate([np.broadcast_to(start, (*closes.shape[:2], 1)), closes], axis=2)
    falls: np.ndarray = (walks / np.maximum.accumulate(walks, axis=2) - 1).min(axis=2)
    return falls


def forecast_steps(forecast: Forecast, held_back: Mapping[str, pd.DataFrame] | None = None) -> pd.DataFrame:
    """The mean path with quantiles of the close: index (datetime, instrument, step).

    Columns are those of `Forecast.frame`, then q05, q50 and q95 of the close, then `realized`: the close of the
    same step among the bars held back, NaN where there is none.
    """
    frame, band = forecast.frame(), forecast.band(0.9)
    median = np.median(forecast.path("close"), axis=1)
    frame["q05"], frame["q50"], frame["q95"] = band[..., 0].ravel(), median.ravel(), band[..., 1].ravel()
    return frame.assign(realized=realized_closes(forecast, held_back or {}).ravel())


def realized_closes(forecast: Forecast, held_back: Mapping[str, pd.DataFrame]) -> np.ndarray:
    """(N, H) closes of the bars that follow each window, counted in bars; NaN where there are none."""
    found = np.full(forecast.timestamps.shape, np.nan)
    for row, (_, name) in enumerate(forecast.index):
        if name in held_back:
            closes = held_back[name]["close"].to_numpy(float)[: forecast.horizon]
            found[row, : len(closes)] = closes
    return found


def jump_warnings(forecast: Forecast) -> list[str]:
    """A sentence where median paths start with a jump that the bars before do not explain.

    A checkpoint does so on windows unlike those of its training, such as much longer ones.
    """
    if forecast.trailing_volatility is None:
        return []
    first = np.abs(np.median(forecast.log_returns()[..., 0], axis=1))
    ratio = np.divide(
        first, forecast.trailing_volatility, out=np.zeros_like(first), where=forecast.trailing_volatility > 0
    )
    far = np.flatnonzero(ratio > MAX_JUMP)
    if not len(far):
        return []
    worst = far[np.argmax(ratio[far])]
    others = f" and {len(far) - 1} more" if len(far) > 1 else ""
    return [
        f"The median path of {forecast.index[worst][1]}{others} jumps at the first bar by {first[worst]:.1%}, "
        f"{ratio[worst]:.0f} times the volatility of the last 20 bars: the model is not used to such windows. Try "
        "another --lookback or --model."
    ]


@dataclass(frozen=True)
class HeldBackScore:
    """A forecast against persistence and historical volatility, on all steps whose bars were held back.

    Errors are those of log returns from the last close. Steps of one path overlap, so that one date gives no
    significance.

    Attributes:
        windows: number of windows with bars held back.
        steps: number of (window, step) pairs.
        mae: mean absolute error of the median path.
        mae_persistence: the same of the last close.
        crps: mean CRPS of the paths, by the estimator that is never optimistic.
        crps_historical: the same of a normal distribution without drift with the volatility of the last 20 bars.
        level: nominal coverage of the band; None with too few paths.
        coverage: share of closes within the band.
        coverage_historical: the same of the normal distribution.
    """

    windows: int
    steps: int
    mae: float
    mae_persistence: float
    crps: float
    crps_historical: float
    level: float | None
    coverage: float
    coverage_historical: float

    def __str__(self) -> str:
        bars = f"{self.steps:,} bar{'s' * (self.steps != 1)}"
        of = f" of {self.windows:,} instruments" if self.windows > 1 else ""
        parts = [
            f"MAE {self.mae:.2%}, persistence {self.mae_persistence:.2%}",
            f"CRPS {self.crps:.2%}, historical volatility {self.crps_historical:.2%}",
        ]
        if self.level is not None:
            parts.append(
                f"{self.level:.0%} band covers {self.coverage:.0%}, historical volatility "
                f"{self.coverage_historical:.0%}"
            )
        return f"{bars}{of} held back: {'; '.join(parts)}."


def score_held_back(forecast: Forecast, held_back: Mapping[str, pd.DataFrame]) -> HeldBackScore | None:
    """Score a forecast on the bars that follow; None where none follow, or without a positive volatility.

    Args:
        forecast: N windows, one per instrument, with `trailing_volatility`.
        held_back: instrument -> bars after its window.
    """
    closes, volatility = realized_closes(forecast, held_back), forecast.trailing_volatility
    if volatility is None:
        return None
    deviation = volatility[:, None] * np.sqrt(np.arange(1, forecast.horizon + 1))
    there = np.isfinite(closes) & (closes > 0) & (deviation > 0)
    if not there.any():
        return None
    realized = np.log(closes[there] / np.broadcast_to(forecast.last_bar[:, CLOSE, None], closes.shape)[there])
    paths = forecast.log_returns().swapaxes(1, 2)[there]  # (pairs, S)
    spread = deviation[there]
    possible = [level for level in LEVELS if forecast.samples >= min_samples_for_coverage(level)]
    level, covered, covered_historical = None, np.nan, np.nan
    if possible:
        level = possible[0]
        ends = forecast.band(level)[there]
        covered = float(((ends[:, 0] <= closes[there]) & (closes[there] <= ends[:, 1])).mean())
        covered_historical = float((np.abs(realized) <= NORMAL_ENDS[level] * spread).mean())
    return HeldBackScore(
        windows=int(there.any(axis=1).sum()),
        steps=int(there.sum()),
        mae=float(np.abs(np.median(paths, axis=1) - realized).mean()),
        mae_persistence=float(np.abs(realized).mean()),
        crps=float(crps_ensemble(paths, realized).mean()),
        crps_historical=float(crps_normal(np.zeros_like(realized), spread, realized).mean()),
        level=level,
        coverage=covered,
        coverage_historical=covered_historical,
    )


def write_table(frame: pd.DataFrame, path: Path) -> Path:
    """Write a table of forecasts as CSV, parquet or JSON (a list of rows), by the suffix of its name.

    Times of several zones keep theirs in CSV and JSON; in parquet they are in UTC.

    Text in a CSV file is safe to open in a spreadsheet: what it would run as a formula gets an apostrophe.

    Raises:
        ValueError: another suffix.
        OSError: the file cannot be written.
    """
    check_suffix(path, SUFFIXES)
    path, rows = path.expanduser(), frame.reset_index()
    times = [name for name in ("datetime", "timestamp") if name in rows]
    if path.suffix == ".parquet":
        for name in times:
            if rows[name].dtype == object:  # a column of a parquet file has one zone
                rows[name] = pd.to_datetime(rows[name], utc=True)
        buffer = BytesIO()
        rows.to_parquet(buffer, index=False)
        content: str | bytes = buffer.getvalue()
    elif path.suffix == ".json":
        rows = rows.assign(**{name: [time.isoformat() for time in rows[name]] for name in times})
        content = rows.to_json(orient="records", date_format="iso", date_unit="s", indent=1) + "\n"
    else:
        content = csv_text(rows)
    with explain_write_errors(path, "Choose another file."):
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_atomic(path, content)


def check_suffix(path: Path, known: tuple[str, ...]) -> None:
    """Require a file name with a known suffix.

    Raises:
        ValueError: another suffix.
    """
    if path.suffix not in known:
        raise ValueError(f"{path} ends in '{path.suffix}'. Choose one of {', '.join(known)}.")
