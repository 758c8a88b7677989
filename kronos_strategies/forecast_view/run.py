"""Bars -> forecast, table, score on the bars held back, and what a reader must know of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kronos.calibration import Calibration
from kronos.config import SampleConfig
from kronos.forecast import Forecast
from kronos.latest import LOOKBACK, latest_windows
from kronos.postprocessing import PathOptions
from kronos.windows import Windows
from kronos_strategies.evaluation.distribution.forecast_chart import ForecastChart, forecast_chart
from kronos_strategies.evaluation.distribution.metrics import min_samples_for_coverage
from kronos_strategies.evaluation.warnings import training_overlap_warnings
from kronos_strategies.forecast_view.inputs import ForecastBars
from kronos_strategies.forecast_view.summary import (
    HeldBackScore,
    forecast_table,
    jump_warnings,
    score_held_back,
)
from kronos_strategies.forecasters.protocol import Forecaster, forecast_notes
from kronos_strategies.heads.selection import HeadReader, ScoreChoice, ScoreUse, choose_score
from kronos_strategies.progress import ProgressReport, no_progress

BAND = 0.9  # of the table


@dataclass(frozen=True)
class BarsForecast:
    """The results that `kronos forecast` prints, writes and draws.

    Attributes:
        bars: what was forecast.
        forecast: one window per instrument, postprocessed.
        table: see `forecast_table`.
        held_back: score on the bars held back; None where there are none.
        calibration: which calibration is applied and why.
        score: what ranks the table and why.
        warnings: sentences that a reader must not miss.
    """

    bars: ForecastBars
    forecast: Forecast
    table: pd.DataFrame
    held_back: HeldBackScore | None
    calibration: str
    score: str
    warnings: tuple[str, ...]

    @property
    def settings(self) -> list[str]:
        """How the forecast was made, a line each."""
        known, sampling = self.forecast.provenance, self.forecast.provenance.sampling
        paths = f"{known.model}, {sampling.samples} paths"
        if known.precision is not None:  # of tokens, which other forecasters do not have
            paths += f", T={sampling.T:g}, top_p={sampling.top_p:g}"
        score = [f"score: {self.score}"] if len(self.table) > 1 else []
        return [f"model: {paths}", f"calibration: {self.calibration}", *score]

    def chart(self, name: str) -> ForecastChart:
        """The chart of an instrument.

        Raises:
            ValueError: the forecast does not have it.
        """
        parts = [bars[name] for bars in (self.bars.known, self.bars.held_back) if name in bars]
        return forecast_chart(self.forecast, {name: pd.concat(parts)} if parts else None, name)

    def charts(self, limit: int) -> list[ForecastChart]:
        """Charts of the first instruments of the table."""
        names = [str(name) for name in self.table.index.get_level_values("instrument")[:limit]]
        return [self.chart(name) for name in names]


def forecast_bars(
    forecaster: Forecaster,
    bars: ForecastBars,
    horizon: int,
    lookback: int | None,
    sampling: SampleConfig,
    calendar: str | None = None,
    options: PathOptions | None = None,
    own_calibration: Calibration | None = None,
    readers: list[HeadReader] | None = None,
    score: str = "auto",
    progress: ProgressReport = no_progress,
) -> BarsForecast:
    """Forecast the bars that follow the last known bar of each instrument.

    Args:
        forecaster: the predictor.
        bars: bars of the instruments.
        horizon: number of bars to forecast.
        lookback: number of bars that the model reads; `LOOKBACK` or as many as there are when omitted.
        sampling: settings of the paths.
        calendar: exchange whose sessions have the timestamps to forecast, see `kronos.future_timestamps`; those of
            the bars, or inferred from them, when omitted.
        options: postprocessing of the paths.
        own_calibration: that of the checkpoint.
        readers: return heads of the checkpoint, whose outputs may rank the table.
        score: "auto", "head" or "paths".
        progress: called as progress(windows done, windows in total).

    Raises:
        ValueError: invalid bars, an unknown score, or a calibration that does not fit.
    """
    windows = latest_windows(bars.known, horizon, lookback, bars.calendar if calendar is None else calendar)
    use = ScoreUse(hold=None, lookback=lookback or LOOKBACK, price=None, frequency=bars.frequency or "other")
    choice = choose_score(score, [reader.head for reader in readers or ()], use)
    raw = forecaster.forecast(windows, sampling, _counted(progress, len(windows)), candles="raw")
    post = (options or PathOptions()).resolve(own_calibration, raw.provenance, horizon, raw.spacing)
    made = post(raw)
    first = pd.DatetimeIndex(windows.index.get_level_values("datetime")).min()
    held_back = score_held_back(made, bars.held_back)
    warnings = [*bars.warnings, *post.warnings(first), *choice.warnings]
    if held_back is not None:
        warnings += [*training_overlap_warnings(made.provenance, first)]
        warnings += choice.training_overlap_warnings(first)
    warnings += [*jump_warnings(made), *forecast_notes(forecaster)]
    if made.samples < (needed := min_samples_for_coverage(BAND)):
        warnings.append(f"{made.samples} paths are too few for 5 % and 95 %, which need {needed}.")
    return BarsForecast(
        bars=bars,
        forecast=made,
        table=forecast_table(made, _head_scores(choice, readers or [], windows)),
        held_back=held_back,
        calibration=post.reason,
        score=choice.described,
        warnings=tuple(warnings),
    )


def _head_scores(choice: ScoreChoice, readers: list[HeadReader], windows: Windows) -> np.ndarray | None:
    """(N,) mean output of the heads; None where paths make the score."""
    if not choice.heads:
        return None
    outputs = [reader.head(reader.predictor.embed(windows)) for reader in readers]
    return choice.average(outputs)


def _counted(progress: ProgressReport, total: int) -> Callable[[int], None]:
    """A progress that adds up the windows of each chunk."""
    done = 0

    def advance(windows: int) -> None:
        nonlocal done
        done += windows
        progress(done, total)

    return advance
