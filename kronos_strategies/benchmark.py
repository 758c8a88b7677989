"""The tasks of the Kronos paper for any forecasters, on the same windows of any bars, with paired tests.

windows -> forecasts in a store (resumable) -> metrics by date -> `Comparison` -> the usual page, and JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields

import numpy as np
import pandas as pd

from kronos.bars import CLOSE, FEATURES
from kronos.config import SampleConfig
from kronos.forecast import Forecast, Provenance
from kronos.paths import trailing_volatility
from kronos.windows import Windows
from kronos_strategies.checkpoint_evaluation import EvaluationData, EvaluationSettings, forecast_rows
from kronos_strategies.evaluation.comparison.comparison import Comparison
from kronos_strategies.evaluation.comparison.metrics import means_by_year, paired_table
from kronos_strategies.evaluation.paper_tasks import (
    MIN_BARS,
    Sequences,
    absolute_error_by_date,
    discrimination,
    learned_rank_ics,
    predicted_volatility,
    price_coefficients,
    r2_by_date,
    realized_volatility,
    shortage_of_windows,
)
from kronos_strategies.evaluation.signal.metrics import information_coefficients
from kronos_strategies.evaluation.significance import label_overlap
from kronos_strategies.evaluation.warnings import training_overlap_warnings
from kronos_strategies.forecasters.protocol import Forecaster, forecast_notes
from kronos_strategies.forecasting import WindowsByDate
from kronos_strategies.progress import ProgressReport, no_progress, offset_progress
from kronos_strategies.run_artifacts import provenance_table
from kronos_strategies.store import ForecastStore, WindowSpec

REAL = "real bars"  # what the models of the last two metrics learn from, to compare with
# Minutes from bar to bar -> lookback and horizon of the paper.
PAPER_SPANS = {5: (480, 96), 15: (160, 32), 60: (80, 12), 240: (90, 18), 1440: (40, 12)}


@dataclass(frozen=True)
class TaskSampling:
    """Sampling settings by task; the defaults are the paper's. Forecasters other than Kronos have no temperature.

    Attributes:
        returns: metrics of price and return forecasts.
        volatility: metrics of volatility forecasts.
        generation: metrics of generated bars, of which the first path is used.
    """

    returns: SampleConfig = field(default_factory=lambda: SampleConfig(10, 0.6, 0.9))
    volatility: SampleConfig = field(default_factory=lambda: SampleConfig(1, 0.9, 0.9))
    generation: SampleConfig = field(default_factory=lambda: SampleConfig(1, 1.0, 0.95))


@dataclass(frozen=True)
class BenchmarkSettings:
    """Windows of a benchmark.

    Attributes:
        start: first forecast date.
        end: last forecast date; the last bar when None.
        every: forecast every k-th date.
        lookback: bars that forecasters with a limited context read, as Kronos; the paper's for bars of this
            frequency when None.
        horizon: bars to forecast; likewise.
        instruments: number of instruments, evenly spaced in alphabetical order; all when None.
        long_lookback: most bars that the other forecasters read, such as GARCH, which needs a long history.
        seed: seed of halves of instruments and of the models that judge realism.
    """

    start: pd.Timestamp
    end: pd.Timestamp | None = None
    every: int = 1
    lookback: int | None = None
    horizon: int | None = None
    instruments: int | None = None
    long_lookback: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"every": 1, "lookback": 2, "horizon": MIN_BARS, "instruments": 1, "long_lookback": 2}
        for name, low in least.items():
            if (value := getattr(self, name)) is not None and value < low:
                raise ValueError(f"{name}={value} is too small. Pass at least {low}.")

    def spans(self, calendar: pd.DatetimeIndex) -> tuple[int, int]:
        """Lookback and horizon for bars of this calendar.

        Raises:
            ValueError: one of them is None, and the paper has none for bars of this frequency.
        """
        if self.lookback is not None and self.horizon is not None:
            return self.lookback, self.horizon
        minutes = round(pd.Series(calendar).diff().median() / pd.Timedelta(minutes=1))
        if minutes not in PAPER_SPANS:
            raise ValueError(
                f"The paper has no lookback and horizon for bars of {minutes} minutes, only for "
                f"{list(PAPER_SPANS)}. Pass both."
            )
        lookback, horizon = PAPER_SPANS[minutes]
        return self.lookback or lookback, self.horizon or horizon


@dataclass(frozen=True)
class Outcomes:
    """Windows whose forecast bars all exist, and these bars.

    Attributes:
        windows: N windows, in order of (datetime, instrument).
        long: the same windows with up to `long_lookback` bars.
        real: the (N, H) bars that follow them.
        left_out: number of windows without all of these bars.
    """

    windows: Windows
    long: Windows
    real: Sequences
    left_out: int


@dataclass(frozen=True)
class Predictions:
    """Predictions of a forecaster for N windows, one row each.

    Attributes:
        closes: (N, H) mean over paths.
        volatility: (N,) over all H bars, see `predicted_volatility`.
        generated: one path each.
    """

    closes: np.ndarray
    volatility: np.ndarray
    generated: Sequences


def find_outcomes(data: EvaluationData, settings: BenchmarkSettings) -> Outcomes:
    """The windows to forecast.

    A window is left out where one of its H next timestamps of the calendar has no bar, as in a suspension, or where
    its closes do not move.

    Raises:
        ValueError: no window remains.
    """
    lookback, horizon = settings.spans(data.calendar)
    limits = EvaluationSettings(settings.start, settings.end, settings.every, lookback=lookback)
    _, rows = forecast_rows(data, limits)
    names = rows.get_level_values("instrument").unique().sort_values()
    if settings.instruments is not None and settings.instruments < len(names):
        chosen = np.linspace(0, len(names) - 1, settings.instruments).round().astype(int)
        rows = rows[rows.get_level_values("instrument").isin(names[chosen])]
    windows = Windows.rolling(data.bars, lookback, horizon, data.calendar, index=rows)
    bars, complete = _following(data.bars, windows)
    spread = trailing_volatility(windows.bars[:, CLOSE], windows.end_positions, windows.lengths)
    kept = complete & np.isfinite(spread) & (spread > 0)
    if not kept.any():
        raise ValueError(
            f"No window of {data.name} is followed by {horizon} bars. Choose an earlier end, or a shorter horizon."
        )
    windows, real = windows[kept], Sequences(bars[kept], windows.last_bar[kept, CLOSE], spread[kept])
    most = max(lookback, settings.long_lookback)
    long = Windows.rolling(data.bars, most, horizon, data.calendar, index=windows.index, min_bars=lookback)
    return Outcomes(windows, long, real, int((~kept).sum()))


def _following(bars: pd.DataFrame, windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """(N, H, 6) bars at the windows' future timestamps, and (N,) whether all of them exist."""
    found = np.full((*windows.future.shape, len(FEATURES)), np.nan)
    known = bars.reindex(columns=list(FEATURES)).fillna({"volume": 0.0, "amount": 0.0})
    names = windows.index.get_level_values("instrument")
    for name, own in known.groupby(level="instrument", observed=True):
        rows = np.flatnonzero(names == name)
        own = own.droplevel("instrument")
        at = own.index.get_indexer(pd.DatetimeIndex(windows.future[rows].ravel()))
        values = np.where((at >= 0)[:, None], own.to_numpy()[at], np.nan)
        found[rows] = values.reshape(len(rows), windows.horizon, len(FEATURES))
    complete = np.asarray(np.isfinite(found).all(axis=(1, 2)))
    return found.astype(np.float32), complete  # rounded as paths are, so that rounding tells nothing apart


def benchmark(
    models: Mapping[str, Forecaster],
    data: EvaluationData,
    settings: BenchmarkSettings,
    store: ForecastStore,
    sampling: TaskSampling | None = None,
    reference: str | None = None,
    progress: ProgressReport = no_progress,
) -> Comparison:
    """Forecast all windows with every model, and compare the models on all tasks.

    Paths are as sampled, without a calibration, as in the paper. What the store holds is not forecast again.

    Args:
        models: forecasters by name; two or more.
        data: bars to forecast.
        settings: dates, instruments, lookback and horizon.
        store: where forecasts are kept.
        sampling: sampling settings by task; the paper's when omitted.
        reference: name of the model that the others are compared with; the first one when omitted.
        progress: called as progress(forecasts done, forecasts in total).

    Returns:
        Comparison by the metrics of `metrics_by_date`, for the report. In the two metrics of trained models, the
        additional version REAL has learned from real bars.

    Raises:
        ValueError: fewer than two models, an unknown reference, or no windows.
    """
    names = tuple(models)
    reference = names[0] if reference is None and names else reference
    if len(names) < 2 or reference not in names:
        raise ValueError(
            f"The models are {list(names)} and the reference is '{reference}'. Name two or more models, and one of "
            "them as the reference."
        )
    outcomes, sampling = find_outcomes(data, settings), sampling or TaskSampling()
    made, provenance = dict[str, Predictions](), dict[str, Provenance]()
    total = len(models) * len(fields(TaskSampling)) * len(outcomes.windows)
    for place, (name, forecaster) in enumerate(models.items()):
        step = offset_progress(progress, place * total // len(models), total)
        made[name] = _predict(forecaster, outcomes, data.name, store, sampling, step)
        provenance[name] = forecaster.provenance(sampling.returns, "")
    by_date = metrics_by_date(made, outcomes, settings.seed)
    horizon = outcomes.windows.horizon
    overlap = label_overlap(horizon, settings.every)
    first = outcomes.windows.index.get_level_values("datetime")[0]
    warnings = [text for each in provenance.values() for text in training_overlap_warnings(each, first)]
    warnings += [note for forecaster in models.values() for note in forecast_notes(forecaster)]
    if shortage := shortage_of_windows(outcomes.windows.index, outcomes.windows.future[:, -1], settings.seed):
        warnings.append(f"Realism is not measured: {shortage}")
    return Comparison(
        reference=reference,
        versions=names,
        label_horizon=horizon,
        overlap=overlap,
        table=paired_table(by_date, reference, overlap, settings.seed),
        by_date=by_date,
        by_year=means_by_year(by_date, reference),
        decay=pd.DataFrame(columns=["version", "horizon", "rank_ic", "low", "high", "dates"]),
        baselines=pd.DataFrame(columns=["version", "metric", "mean", "low", "high", "dates"]),
        sample_counts={
            "windows": len(outcomes.windows) + outcomes.left_out,
            "without all of the following bars": outcomes.left_out,
            "compared": len(outcomes.windows),
        },
        warnings=tuple(dict.fromkeys(warnings)),
        provenance={name: provenance_table(each) for name, each in provenance.items()},
    )


def metrics_by_date(
    made: Mapping[str, Predictions], outcomes: Outcomes, seed: int = 0
) -> dict[str, pd.DataFrame]:
    """Metric -> dates x models; NaN where undefined. Too few windows to fit models to leave the last three out.

    rank_ic, ic: of returns close(t) to close(t + H), across the instruments of a date. price_rank_ic, price_ic: of
    closes, along each path (`price_coefficients`). volatility_mae, volatility_r2: of realized volatility.
    discrimination: accuracy of a classifier of generated and real bars, minus one half. tstr_rank_ic,
    tstr_volatility_rank_ic: of return and volatility as forecast by a model that has learned from generated bars
    (`learned_rank_ics`), where REAL has learned from real ones.
    """
    index, real, ends = outcomes.windows.index, outcomes.real, outcomes.windows.future[:, -1]
    parts = {name: _metrics(each, outcomes) for name, each in made.items()}
    if not shortage_of_windows(index, ends, seed):
        for name, each in made.items():
            parts[name]["discrimination"] = discrimination(real, each.generated, index, ends, seed)
            parts[name] |= learned_rank_ics(each.generated, real, index, ends, seed)
        parts[REAL] = learned_rank_ics(real, real, index, ends, seed)
    dates = pd.DatetimeIndex(index.get_level_values("datetime").unique(), name="datetime").sort_values()
    metrics = list(parts[next(iter(made))])
    return {
        metric: pd.DataFrame({name: part[metric] for name, part in parts.items() if metric in part})
        .reindex(dates)
        .dropna(how="all")
        for metric in metrics
    }


def discriminative_scores(comparison: Comparison) -> dict[str, float]:
    """TimeGAN's discriminative score by model, |mean accuracy - 0.5|: 0 is best, 0.5 worst; empty if unmeasured."""
    by_date = comparison.by_date.get("discrimination", pd.DataFrame())
    return {str(name): abs(float(of.mean())) for name, of in by_date.items()}


def _metrics(made: Predictions, outcomes: Outcomes) -> dict[str, pd.Series]:
    index, real = outcomes.windows.index, outcomes.real
    closes, last = real.bars[..., CLOSE], real.last_close
    predicted, moved = (pd.Series(each[:, -1] / last - 1, index) for each in (made.closes, closes))
    across = information_coefficients(predicted, moved)
    along = pd.DataFrame(price_coefficients(made.closes, closes).T, index, ["ic", "rank_ic"])
    along = along.groupby(level="datetime").mean()
    volatility = pd.Series(made.volatility, index)
    realized = pd.Series(realized_volatility(np.log(closes / last[:, None])), index)
    return {
        "rank_ic": across["rank_ic"],
        "ic": across["ic"],
        "price_rank_ic": along["rank_ic"],
        "price_ic": along["ic"],
        "volatility_mae": absolute_error_by_date(volatility, realized),
        "volatility_r2": r2_by_date(volatility, realized),
    }


def _predict(
    forecaster: Forecaster, outcomes: Outcomes, universe: str, store: ForecastStore, sampling: TaskSampling,
    progress: Callable[[int], None],
) -> Predictions:  # fmt: skip
    """Forecasts of all tasks, computed where the store does not hold them, and what is kept of their paths."""
    real = outcomes.real
    windows = outcomes.long if forecaster.max_context is None else outcomes.windows
    spec = WindowSpec(universe, windows.width, windows.horizon, outcomes.windows.width)
    size, horizon = len(windows), windows.horizon
    closes, volatility = np.empty((size, horizon)), np.empty(size)
    bars = np.empty((size, horizon, len(FEATURES)))
    for rows, forecast in _stored(forecaster, windows, spec, store, sampling.returns, progress, 0):
        closes[rows] = forecast.path("close").mean(axis=1, dtype=float)
    for rows, forecast in _stored(forecaster, windows, spec, store, sampling.volatility, progress, 1):
        volatility[rows] = predicted_volatility(forecast.log_returns())
    for rows, forecast in _stored(forecaster, windows, spec, store, sampling.generation, progress, 2):
        bars[rows] = forecast.repaired().paths[:, 0]
    return Predictions(closes, volatility, Sequences(bars, real.last_close, real.volatility))


def _stored(
    forecaster: Forecaster, windows: Windows, spec: WindowSpec, store: ForecastStore, sampling: SampleConfig,
    progress: Callable[[int], None], task: int,
) -> Iterator[tuple[slice, Forecast]]:  # fmt: skip
    """Rows and forecast of each date, in order; `task` is the number of tasks that are done."""
    store.fill(
        forecaster, windows, spec, sampling,
        lambda done, due: progress((task + 1) * len(windows) - due + done),
    )  # fmt: skip
    forecasts = store.open(forecaster.provenance(sampling, ""), spec)
    dated, start = WindowsByDate(windows), 0
    for date, count in zip(dated.dates, dated.rows, strict=True):
        yield slice(start, start + int(count)), forecasts.read(date, dated.digest(date))
        start += int(count)
