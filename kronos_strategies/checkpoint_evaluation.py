"""Evaluation of a checkpoint on bars: forecasts of every instrument and date, as artifacts for the usual report.

There is no backtest: the report has the sections on the signal and on the predicted distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from kronos.bars import PRICES
from kronos.calibration import checkpoint_calibration
from kronos.config import SampleConfig
from kronos.forecast import Provenance
from kronos.panels import KEYS
from kronos.postprocessing import PathOptions, Postprocessing
from kronos.training.sources import Source, is_qlib_directory, open_reader
from kronos.utils import git_commit, package_version
from kronos.windows import Windows
from kronos_strategies.backtest_result import bars_per_year
from kronos_strategies.data.qlib_bins import read_market
from kronos_strategies.data.training import QlibBars
from kronos_strategies.evaluation.baselines import MODEL, baseline_scores
from kronos_strategies.evaluation.distribution.path_summary import summarize_forecasts
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.evaluation.signal.neutralization import price_exposures
from kronos_strategies.evaluation.warnings import training_overlap_warnings, universe_warnings
from kronos_strategies.forecasters.protocol import Forecaster, forecast_notes
from kronos_strategies.forecasting import iter_forecasts
from kronos_strategies.progress import ProgressReport, no_progress
from kronos_strategies.run_artifacts import (
    DECAY_HORIZONS,
    SCORING_HORIZONS,
    RunArtifacts,
    RunMetadata,
    provenance_table,
)

DEFAULT_OPTIONS = PathOptions()


@dataclass(frozen=True)
class EvaluationData:
    """Bars to evaluate a checkpoint on.

    Attributes:
        name: name of the data, for titles.
        bars: adjusted bars indexed (datetime, instrument), sorted; only bars with four prices.
        members: (datetime, instrument) rows of `bars` on which the instrument is a member of the universe.
        notes: how the files were read, one line each.
    """

    name: str
    bars: pd.DataFrame
    members: pd.MultiIndex
    notes: tuple[str, ...] = ()

    @property
    def calendar(self) -> pd.DatetimeIndex:
        """Times at which any instrument has a bar."""
        return pd.DatetimeIndex(self.bars.index.get_level_values("datetime").unique())


@dataclass(frozen=True)
class EvaluationSettings:
    """Dates, holding period and lookback of an evaluation.

    Attributes:
        start: first forecast date.
        end: last forecast date; the last bar when None. Dates without later bars have no outcome.
        every: forecast every k-th date.
        hold: holding period of the score, in bars.
        lookback: bars that the model reads.

    Raises:
        ValueError: every, hold or lookback is below 1.
    """

    start: pd.Timestamp
    end: pd.Timestamp | None = None
    every: int = 1
    hold: int = 5
    lookback: int = 90

    def __post_init__(self) -> None:
        for name in ("every", "hold", "lookback"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")

    @property
    def horizon(self) -> int:
        """Bars to forecast: one more than the longest that is scored, since a signal trades one bar later."""
        return max(self.hold, *SCORING_HORIZONS) + 1


def read_evaluation_data(paths: Sequence[Path], universe: str = "all") -> EvaluationData:
    """Read bars as training does.

    Args:
        paths: CSV or parquet files, folders of such files, or Qlib data directories.
        universe: members to evaluate, by name in a Qlib data directory; ignored for files.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: no paths, files that cannot be read, or an instrument that occurs in two of the paths.
    """
    if not paths:
        raise ValueError("There are no bars to evaluate on. Name files or a Qlib data directory with --data.")
    parts: dict[str, pd.DataFrame] = {}
    members: list[pd.MultiIndex] = []
    notes: list[str] = []
    for path in paths:
        source = Source(path, market=universe)
        reader = open_reader(source, QlibBars)
        spans = read_market(path.expanduser(), universe) if is_qlib_directory(path) else None
        for instrument, bars in reader.series():
            if instrument in parts:
                raise ValueError(f"{instrument} occurs in two of the data paths. Name each instrument once.")
            bars = bars[bars[list(PRICES)].notna().all(axis=1)]
            parts[instrument] = bars.assign(volume=bars.get("volume", 0.0))
            dates = pd.DatetimeIndex(bars.index)
            if spans is not None:
                own = spans[spans["instrument"] == instrument]
                stays = zip(own["start"], own["end"], strict=True)
                inside = [(dates >= first) & (dates < last + pd.Timedelta(days=1)) for first, last in stays]
                dates = dates[np.logical_or.reduce(inside)]
            members.append(pd.MultiIndex.from_product([dates, [instrument]], names=KEYS))
        notes += reader.notes()
    if not any(len(bars) for bars in parts.values()):
        where = ", ".join(map(str, paths))
        raise ValueError(f"There are no bars with four prices in {where}. Check the paths and columns.")
    bars = pd.concat(parts, names=["instrument", "datetime"]).swaplevel().sort_index()
    index = members[0].append(members[1:]).sort_values()
    name = ", ".join(dict.fromkeys(Source(path).label for path in paths))
    return EvaluationData(name, bars, index, tuple(notes))


def evaluate_checkpoint(
    forecaster: Forecaster,
    name: str,
    data: EvaluationData,
    settings: EvaluationSettings,
    sampling: SampleConfig,
    options: PathOptions = DEFAULT_OPTIONS,
    progress: ProgressReport = no_progress,
) -> RunArtifacts:
    """Forecast the members on every k-th date and summarize the forecasts.

    Args:
        forecaster: the predictor.
        name: name of the checkpoint, for the title.
        data: bars to evaluate on.
        settings: dates, holding period and lookback.
        sampling: settings of the sampled paths; at least 2 paths.
        options: postprocessing of the paths.
        progress: called as progress(windows done, windows in total).

    Returns:
        Artifacts of the run, for `kronos_strategies.report.report.build_report`.

    Raises:
        ValueError: no date between start and end, no instrument with enough bars, or too few paths.
    """
    if sampling.samples < 2:
        raise ValueError(
            f"An evaluation needs at least 2 paths, got {sampling.samples}. Sample more of them."
        )
    dates, members = forecast_rows(data, settings)
    windows = Windows.rolling(data.bars, settings.lookback, settings.horizon, data.calendar, index=members)
    prices = PricePanel.from_bars(data.bars)
    forecasts = iter_forecasts(forecaster, windows, sampling, progress)
    first = next(forecasts)
    known = first.provenance
    post = options.resolve(checkpoint_calibration(known.model), known, settings.horizon, first.spacing)
    horizons = sorted({*SCORING_HORIZONS, settings.hold})
    paths, provenance = summarize_forecasts(
        chain([first], forecasts), prices, horizons, settings.hold, post=post
    )
    score = paths.score_by_num_paths.iloc[:, -1]
    index = score.index
    assert isinstance(index, pd.MultiIndex)
    daily = bool((data.calendar == data.calendar.normalize()).all())
    baselines, left_out = baseline_scores(prices, index, daily)
    labels = {
        h: prices.lookup(prices.forward_return(h), index) for h in sorted({*DECAY_HORIZONS, settings.hold})
    }
    exposures = price_exposures(prices.closes, prices.amounts)
    metadata = RunMetadata(
        title=f"{name} on {data.name}",
        hold=settings.hold,
        bars_between=settings.every,
        trials=1,
        settings=_settings_table(data, settings, dates, provenance, post),
        sample_counts=_sample_counts(members, index, labels[settings.hold]),
        warnings=(
            *training_overlap_warnings(provenance, dates[0]),
            *post.warnings(dates[0]),
            *universe_warnings(members),
            *left_out,
            *forecast_notes(forecaster),
        ),
        bars_per_year=bars_per_year(data.calendar),
        score_is_return=True,
    )
    return RunArtifacts(
        metadata=metadata,
        scores=pd.DataFrame({MODEL: score}).join(baselines),
        labels=pd.DataFrame(labels),
        exposures=pd.DataFrame({each: prices.lookup(wide, index) for each, wide in exposures.items()}),
        market=prices,
        paths=paths,
        provenance=provenance,
    )


def _settings_table(
    data: EvaluationData,
    settings: EvaluationSettings,
    dates: pd.DatetimeIndex,
    provenance: Provenance,
    post: Postprocessing,
) -> dict[str, str]:
    """How the forecasts were made, label -> text."""
    every = f", every {settings.every} dates" if settings.every > 1 else ""
    return {
        "data": data.name,
        "test": f"{dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}{every}",
        "label": f"close(t+{1 + settings.hold}) / close(t+1) - 1",
        "lookback": f"{settings.lookback} bars",
        **provenance_table(provenance),
        "calibration": post.reason,
        "code": f"kronos-strategies {package_version()}, commit {git_commit() or 'unknown'}",
    }


def forecast_rows(
    data: EvaluationData, settings: EvaluationSettings
) -> tuple[pd.DatetimeIndex, pd.MultiIndex]:
    """The forecast dates, and the members' rows on them.

    Raises:
        ValueError: no date between start and end.
    """
    calendar = data.calendar
    end = calendar[-1] if settings.end is None else settings.end + pd.Timedelta(days=1) - pd.Timedelta(1)
    dates = calendar[(calendar >= settings.start) & (calendar <= end)][:: settings.every]
    if not len(dates):
        raise ValueError(
            f"{data.name} has no bars between {settings.start:%Y-%m-%d} and {end:%Y-%m-%d}, only from "
            f"{calendar[0]:%Y-%m-%d} to {calendar[-1]:%Y-%m-%d}. Choose other dates."
        )
    return dates, data.members[data.members.get_level_values("datetime").isin(dates)]


def _sample_counts(members: pd.MultiIndex, index: pd.MultiIndex, label: pd.Series) -> dict[str, int]:
    """Numbers of rows by reason, from the members' rows to the evaluated rows."""
    labeled = int(label.notna().sum())
    return {
        "member rows": len(members),
        "no forecast (too few bars)": len(members) - len(index),
        "forecast, but no return to compare with": len(index) - labeled,
        "compared": labeled,
    }
