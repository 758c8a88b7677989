"""Summary of sampled paths: what an evaluation keeps of each forecast, and the data of a few fan charts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from kronos.bars import CLOSE
from kronos.forecast import Forecast, Provenance
from kronos.paths import PRICE_FLOOR, Violations
from kronos.postprocessing import Postprocessing
from kronos_strategies.evaluation.distribution.metrics import (
    covered,
    crps_ensemble,
    crps_fair,
    min_samples_for_coverage,
    pit,
    qlike,
    sampled_variance,
)
from kronos_strategies.evaluation.panel import CLOSE_TO_CLOSE, PricePanel
from kronos_strategies.signal import positive_prices, tradable_returns

FAN_LEVELS = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
FAN_INSTRUMENTS, FAN_DATES = 6, 6  # to choose among in the report
FAN_HISTORY = 40  # bars shown before a forecast


class FanChartData:
    """Collects the forecasts of the most traded instruments on dates spread over the run.

    The instruments are chosen on the first date. The dates are chosen by doubling: whenever 2 * FAN_DATES of them
    have been collected, every other one is dropped and the spacing doubles, so that neither the number of dates nor
    anything later has to be known.

    Args:
        prices: bars that the forecasts were made from, and those that follow.
    """

    def __init__(self, prices: PricePanel) -> None:
        self._prices = prices
        self._instruments: pd.Index | None = None
        self._kept: list[_Quantiles] = []
        self._last: _Quantiles | None = None
        self._spacing, self._count = 1, 0

    def update(self, forecast: Forecast) -> None:
        """Add the forecasts of one date, later than those before."""
        instruments = forecast.index.get_level_values("instrument")
        if self._instruments is None:
            amounts = self._prices.amounts.loc[: forecast.index[0][0]].iloc[-20:].mean()
            ranked = amounts.reindex(instruments).sort_values(ascending=False, kind="stable")
            self._instruments = ranked.index[:FAN_INSTRUMENTS]
        quantiles = _Quantiles.of_rows(forecast, np.flatnonzero(instruments.isin(self._instruments)))
        if self._count % self._spacing == 0:
            self._kept.append(quantiles)
            if len(self._kept) == 2 * FAN_DATES:
                self._kept, self._spacing = self._kept[::2], 2 * self._spacing
        self._count, self._last = self._count + 1, quantiles

    def frame(self) -> pd.DataFrame:
        """Long: datetime (of the forecast), instrument, step, timestamp, close, q05, q25, q50, q75, q95.

        Step 0 is the last bar before the forecast, negative steps are earlier bars; quantiles are NaN there.
        `close` is the adjusted historical or realized close, NaN where there was no trade or the data end
        earlier. The last date is always included.
        """
        columns = ["datetime", "instrument", "step", "timestamp", "close", *FAN_LEVELS]
        found = [*self._kept, *([self._last] if self._last is not None else [])]
        charts = [chart for quantiles in found for chart in quantiles.charts(self._prices.closes)]
        if not charts:
            return pd.DataFrame(columns=columns)
        keys = ["datetime", "instrument", "step"]
        return pd.concat(charts)[columns].drop_duplicates(keys).sort_values(keys, ignore_index=True)


@dataclass(frozen=True)
class _Quantiles:
    """Quantiles of sampled closes of a few windows of one date: (levels, n, H), and their timestamps, (n, H)."""

    index: pd.MultiIndex
    quantiles: np.ndarray
    timestamps: np.ndarray

    @classmethod
    def of_rows(cls, forecast: Forecast, rows: np.ndarray) -> _Quantiles:
        """Only the quantiles that are drawn, so that the paths can be freed."""
        some = forecast[rows]
        outer, inner, middle = some.band(0.9), some.band(0.5), np.median(some.path("close"), axis=1)
        quantiles = np.stack([outer[..., 0], inner[..., 0], middle, inner[..., 1], outer[..., 1]])
        return cls(some.index, quantiles, some.timestamps)

    def charts(self, closes: pd.DataFrame) -> Iterator[pd.DataFrame]:
        """One frame per window."""
        for i, (date, name) in enumerate(self.index):
            history = closes.loc[:date, name].dropna().iloc[-FAN_HISTORY:]
            ahead = pd.DatetimeIndex(self.timestamps[i])
            before = np.full((len(FAN_LEVELS), len(history)), np.nan)
            yield pd.DataFrame(
                {
                    "datetime": date,
                    "instrument": name,
                    "step": np.arange(1 - len(history), len(ahead) + 1),
                    "timestamp": history.index.append(ahead),
                    "close": np.concatenate([history, closes[name].reindex(ahead)]),
                    **dict(zip(FAN_LEVELS, np.hstack([before, self.quantiles[:, i]]), strict=True)),
                }
            )


AS_SAMPLED = Postprocessing()
LEVELS = (0.8, 0.9)  # of central bands
SUMMARY = "path_summary"  # its file; the other files are named like their fields


@dataclass(frozen=True)
class PathSummary:
    """Summary of all forecasts of a run.

    Attributes:
        summary: indexed (datetime, instrument), columns (horizon, name) as of `summarize_paths`.
        score_by_num_paths: same index, columns = numbers of paths k: the score from the first k paths.
        fan_charts: see `FanChartData`.
        uncalibrated: as `summary`, of the paths before calibration; None without a calibration.
        checks: column value, of the paths as sampled: the shares of `Violations`, and the mean absolute log gap
            from the last close to the first open, sampled and realized; None where it was not computed.
    """

    summary: pd.DataFrame
    score_by_num_paths: pd.DataFrame
    fan_charts: pd.DataFrame
    uncalibrated: pd.DataFrame | None = None
    checks: pd.DataFrame | None = None

    @classmethod
    def exists(cls, folder: Path) -> bool:
        """Whether `write` has saved one in this folder."""
        return (folder / f"{SUMMARY}.parquet").is_file()

    @classmethod
    def read(cls, folder: Path) -> PathSummary:
        """Read what `write` saved."""
        files = {f.name: folder / f"{_file_of(f.name)}.parquet" for f in fields(cls)}
        frames = {name: pd.read_parquet(file) for name, file in files.items() if file.is_file()}
        for name in {"summary", "uncalibrated"} & set(frames):
            pairs = (column.split(" ", 1) for column in frames[name].columns)
            frames[name].columns = pd.MultiIndex.from_tuples([(int(h), each) for h, each in pairs])
        scores = frames["score_by_num_paths"].rename(columns=int)
        return cls(**frames | {"score_by_num_paths": scores})

    def write(self, folder: Path) -> None:
        """Save as parquet files."""
        frames = {f.name: frame for f in fields(self) if (frame := getattr(self, f.name)) is not None}
        for name in {"summary", "uncalibrated"} & set(frames):
            pairs = frames[name].columns.to_flat_index()
            frames[name] = frames[name].set_axis([f"{h} {each}" for h, each in pairs], axis=1)
        frames["score_by_num_paths"] = self.score_by_num_paths.rename(columns=str)
        for name, frame in frames.items():
            frame.to_parquet(folder / f"{_file_of(name)}.parquet", compression="zstd")

    def losses(self, prices: PricePanel) -> pd.DataFrame:
        """Losses of single rows, lower is better: crps_h5 (fair, in log return) and qlike_h5 by horizon.

        Args:
            prices: bars that the paths are evaluated on.
        """
        index, columns = cast(pd.MultiIndex, self.summary.index), {}
        for horizon in self.summary.columns.get_level_values(0).unique():
            realized = prices.lookup(prices.variance(int(horizon))[CLOSE_TO_CLOSE], index).to_numpy()
            predicted = self.summary[horizon, "variance"].to_numpy(float)
            columns[f"crps_h{horizon}"] = self.summary[horizon, "crps"].to_numpy(float)
            columns[f"qlike_h{horizon}"] = qlike(realized, predicted)
        return pd.DataFrame(columns, index=index)


def _file_of(field: str) -> str:
    return SUMMARY if field == "summary" else field


def summarize_forecasts(
    forecasts: Iterable[Forecast],
    prices: PricePanel,
    horizons: Sequence[int],
    hold: int,
    price: str = "close",
    levels: Sequence[float] = LEVELS,
    post: Callable[[Forecast], Forecast] = AS_SAMPLED,
) -> tuple[PathSummary, Provenance]:
    """Summarize forecasts date by date; only one date's paths are in memory at a time.

    Args:
        forecasts: one per date, ascending, as sampled.
        prices: bars that the forecasts were made from, and those that follow.
        horizons: bars to score the distribution at, each shorter than the forecasts.
        hold, price: holding period and price of the score, see `kronos_strategies.signal.tradable_returns`.
        levels: levels of central bands.
        post: postprocessing of the paths before they are read, e.g. a `Postprocessing`.

    Returns:
        The summary, and the provenance of the first forecast after postprocessing.

    Raises:
        ValueError: no forecast, or forecasts of instruments or dates that `prices` does not have.
    """
    log_returns = {horizon: prices.log_return(horizon) for horizon in sorted(set(horizons))}
    summaries, scores, uncalibrated = [], [], []
    fan_charts, checks = FanChartData(prices), _Checks(prices)
    provenance = None
    for raw in forecasts:
        forecast = post(raw)
        checks.update(raw)
        realized = {horizon: prices.lookup(wide, forecast.index) for horizon, wide in log_returns.items()}
        summaries.append(summarize_paths(forecast, realized, levels))
        if forecast.calibration is not None:
            uncalibrated.append(summarize_paths(raw, realized, levels))
        scores.append(scores_by_num_paths(forecast, hold, price))
        fan_charts.update(forecast)
        provenance = provenance or forecast.provenance
    if provenance is None:
        raise ValueError("There are no forecasts to summarize. Pass those of at least one date.")
    kept = PathSummary(pd.concat(summaries).sort_index(), pd.concat(scores).sort_index(), fan_charts.frame())
    before = pd.concat(uncalibrated).sort_index() if uncalibrated else None
    return replace(kept, uncalibrated=before, checks=checks.frame()), provenance


class _Checks:
    """Counts invalid sampled bars, and measures the gap to the first open, over successive forecasts."""

    def __init__(self, prices: PricePanel) -> None:
        self._gaps = (prices.opens.shift(-1) / prices.closes).apply(np.log).abs()
        self._prices, self._violations = prices, Violations()
        self._sums, self._count = np.zeros(2), 0

    def update(self, raw: Forecast) -> None:
        """Add the forecasts of one date, as sampled."""
        self._violations += raw.violations()
        last = raw.last_bar[:, CLOSE].astype(float)
        realized = self._prices.lookup(self._gaps, raw.index).to_numpy(float)
        first = np.maximum(raw.path("open")[:, :, 0], PRICE_FLOOR * last[:, None])
        sampled = np.abs(np.log(first / last[:, None])).mean(axis=1)
        known = np.isfinite(realized) & np.isfinite(sampled)
        self._sums += sampled[known].sum(), realized[known].sum()
        self._count += int(known.sum())

    def frame(self) -> pd.DataFrame:
        """Column value, indexed by check."""
        means = self._sums / self._count if self._count else np.full(2, np.nan)
        found = {**self._violations.shares(), "gap_sampled": means[0], "gap_realized": means[1]}
        return pd.DataFrame({"value": pd.Series(found, dtype=float)}).rename_axis("check")


def scores_by_num_paths(forecast: Forecast, hold: int, price: str = "close") -> pd.DataFrame:
    """Scores from the first 1, 2, 4, ... paths and from all paths: columns = numbers of paths."""
    returns = tradable_returns(forecast, hold, price)
    counts = [2**i for i in range(int(np.log2(forecast.samples)) + 1)]
    counts = sorted({*counts, forecast.samples})
    sums = returns.cumsum(axis=1)
    return pd.DataFrame({k: sums[:, k - 1] / k for k in counts}, index=forecast.index)


def summarize_paths(
    forecast: Forecast, realized: Mapping[int, pd.Series], levels: Sequence[float]
) -> pd.DataFrame:
    """Everything that scoring needs of a forecast, so that its paths can be freed.

    Args:
        forecast: at least max(h) + 1 bars long, since a score trades one bar after its date.
        realized: horizon h -> realized log return close(t) -> close(t+h), indexed by the forecast's keys; NaN where
            it is not known.
        levels: levels of central bands; those that need more samples than there are give no column.

    Returns:
        Frame indexed (datetime, instrument); columns (h, name), float64. Known at the close of t:
        score: mean over paths of path[t+1+h] / path[t+1] - 1.
        variance: mean over paths of their own sums of squared log returns over h bars.
        Known at t + h, of the log return over h bars:
        crps, crps_ensemble, pit, and covered_80 etc. for each level; bands include the factors of a calibration.

    Raises:
        ValueError: the paths are too short.
    """
    if forecast.horizon < max(realized) + 1:
        raise ValueError(
            f"Paths of {forecast.horizon} bars cannot be scored at {max(realized)}: a signal trades one bar later. "
            f"Forecast {max(realized) + 1} bars."
        )
    last = forecast.last_bar[:, CLOSE].astype(float)
    closes = positive_prices(forecast)  # (N, S, H)
    columns: dict[tuple[int, str], np.ndarray] = {}
    reached = [level for level in levels if forecast.samples >= min_samples_for_coverage(level)]
    widened = {level: forecast.band_factors(level) for level in reached}
    for horizon, outcome in realized.items():
        factors = {level: each[:, horizon - 1] for level, each in widened.items()}
        returns = np.log(closes[:, :, horizon - 1] / last[:, None])  # (N, S)
        columns |= {
            (horizon, "score"): tradable_returns(forecast, horizon).mean(axis=1),
            (horizon, "variance"): sampled_variance(closes, last, horizon),
            **{(horizon, name): v for name, v in _losses(returns, outcome.to_numpy(float), factors).items()},
        }
    return pd.DataFrame(columns, index=forecast.index)


def coverage_column(level: float) -> str:
    """Name of the column of a central band, e.g. covered_80."""
    return f"covered_{100 * level:g}"


def _losses(
    returns: np.ndarray, outcomes: np.ndarray, factors: Mapping[float, np.ndarray]
) -> dict[str, np.ndarray]:
    bands = {
        coverage_column(level): covered(returns, outcomes, level, each) for level, each in factors.items()
    }
    return {
        "crps": crps_fair(returns, outcomes),
        "crps_ensemble": crps_ensemble(returns, outcomes),
        "pit": pit(returns, outcomes),
        **bands,
    }
