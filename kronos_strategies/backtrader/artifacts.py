"""Record of a finished Backtrader run -> the artifacts that its report is built from, and its warnings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from kronos.calibration import checkpoint_calibration
from kronos.forecast import Forecast, Provenance
from kronos.postprocessing import PathOptions, Postprocessing
from kronos.utils import git_commit, package_version
from kronos_strategies.backtest_result import BacktestResult
from kronos_strategies.backtrader.lines import FINAL_CLOSES, LINES, indicator_lines, path_statistics
from kronos_strategies.backtrader.run_record import RunRecord
from kronos_strategies.evaluation.baselines import MODEL, baseline_scores
from kronos_strategies.evaluation.distribution.path_summary import PathSummary, summarize_forecasts
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.evaluation.signal.metrics import MIN_INSTRUMENTS
from kronos_strategies.evaluation.signal.neutralization import price_exposures
from kronos_strategies.evaluation.warnings import training_overlap_warnings
from kronos_strategies.run_artifacts import (
    DECAY_HORIZONS,
    SCORING_HORIZONS,
    RunArtifacts,
    RunMetadata,
    provenance_table,
)
from kronos_strategies.store import ForecastSet, ForecastStore, WindowSpec

FEW_DATES = 100
SURVIVORSHIP_BARS = 120  # if no feed has ended after as many, the feeds were probably chosen later
ENDED_BARS = 20  # bars of the market without one of its own after which a feed has ended
MAX_LISTED = 5  # feeds in one sentence


def collect_artifacts(run: RunRecord) -> RunArtifacts:
    """All data of a run's report.

    Raises:
        ValueError: the run has no score.
    """
    keys, prices, result = run.index, PricePanel.from_bars(run.panel), run.result
    if not len(keys):
        raise ValueError(
            f"No feed had a value of {run.signal!r} at any bar of the run. Run on more bars than its lookback."
        )
    instruments = keys.get_level_values("instrument").nunique()
    baselines, baseline_warnings = baseline_scores(prices, keys, run.daily)
    horizons = sorted({*DECAY_HORIZONS, run.hold})
    labels = pd.DataFrame({h: prices.lookup(prices.forward_return(h, run.price), keys) for h in horizons})
    paths, provenance = _path_summary(run, prices)
    exposures = price_exposures(prices.closes, prices.amounts)
    sampled = run.settings is None or run.settings.samples > 0
    known = {} if provenance is None else provenance_table(provenance, sampled)
    code = f"kronos-strategies {package_version()}, commit {git_commit() or 'unknown'}"
    return RunArtifacts(
        metadata=RunMetadata(
            title=run.title,
            hold=run.hold,
            bars_between=run.every,
            trials=run.trials,
            settings={**run.description, **known, "code": code},
            sample_counts=_sample_counts(run, keys, labels[run.hold]),
            warnings=(
                *([run.notice] if run.notice else []),
                *run.warnings,
                *run_warnings(run, keys, provenance, result),
                *_calibration_warnings(run, keys),
                *baseline_warnings,
            ),
            bars_per_year=run.bars_per_year,
            min_instruments=run.min_instruments,
            score_is_return=_score_is_return(run),
        ),
        scores=pd.DataFrame({_score_name(run): run.scores["score"].reindex(keys)}).join(baselines),
        labels=labels,
        exposures=pd.DataFrame({name: prices.lookup(wide, keys) for name, wide in exposures.items()}),
        market=prices,
        paths=paths,
        provenance=provenance,
        result=result,
        outlooks=_path_summaries(run) if instruments < run.min_instruments else None,
        trades=run.trades,
    )


def run_warnings(
    run: RunRecord, keys: pd.MultiIndex, provenance: Provenance | None, result: BacktestResult
) -> Iterator[str]:
    """Warnings about the metrics of a run, most important first.

    Args:
        run: its record.
        keys: (datetime, instrument) that have a score.
        provenance: provenance of the forecasts; None where it is unknown.
        result: result of the account.
    """
    dates, names = (keys.get_level_values(level).unique() for level in ("datetime", "instrument"))
    yield from _model_warnings(run, provenance, dates.min())
    if run.settings is not None and run.signal == "score":
        choice = run.settings.score_choice(run.daily)
        yield from (*choice.warnings, *choice.training_overlap_warnings(dates.min()))
    if len(names) < run.min_instruments:
        feeds, each = ("feed is", "it") if len(names) == 1 else ("feeds are", "each")
        yield (
            f"Only {len(names)} {feeds} ranked: a correlation across fewer than {run.min_instruments} instruments "
            f"is not meaningful, so {each} is evaluated over time."
        )
    elif len(names) < MIN_INSTRUMENTS:
        yield (
            f"Only {len(names)} feeds are ranked: the coefficient of one date is noisy, and their mean needs many "
            "dates."
        )
    if len(dates) < FEW_DATES:
        yield f"There are only {len(dates)} rebalances: intervals are wide."
    yield from _selection_warnings(run)
    yield from _portfolio_warnings(run, result, len(names))


def _model_warnings(run: RunRecord, provenance: Provenance | None, first: pd.Timestamp) -> Iterator[str]:
    if provenance is not None:
        yield from training_overlap_warnings(provenance, first)
    elif len(run.forecast_index):
        yield (
            "The feeds have stored forecasts, and the model that made them is unknown: it may have been trained on "
            "the test dates. Name their folder: KronosTearSheet(forecasts=...)."
        )


def _selection_warnings(run: RunRecord) -> Iterator[str]:
    """Feeds that ended early; or that none did, although instruments chosen at the start of the run would."""
    dates = run.panel.index.get_level_values("datetime")
    last = dates.to_series(index=run.panel.index).groupby("instrument").max()
    calendar = dates.unique().sort_values()
    ended = last.index[last < calendar[-min(ENDED_BARS, len(calendar))]]
    if len(ended):
        more = f" and {len(ended) - MAX_LISTED} more" if len(ended) > MAX_LISTED else ""
        yield (
            f"{', '.join(map(str, ended[:MAX_LISTED]))}{more} had no more bars long before the end of the run. "
            "Positions in such a feed count at its last close until the strategy sells them, which overstates "
            "performance if the company failed."
        )
    elif len(last) > 1 and len(run.performance) >= SURVIVORSHIP_BARS:
        yield (
            f"None of the {len(last)} feeds ended early over {len(run.performance):,} bars. If they were chosen "
            "today, instruments that failed since are missing (survivorship bias), which overstates long "
            "portfolios."
        )


def _portfolio_warnings(run: RunRecord, result: BacktestResult, instruments: int) -> Iterator[str]:
    if not (result.turnover > 0).any():
        yield "The strategy never traded."
        return
    if not (result.cost > 0).any():
        yield "The broker charged no commission: performance before and after costs is the same."
    usual = int(result.positions.median())
    if usual > instruments / 2 and instruments > 1:
        yield f"The portfolio usually holds {usual} of {instruments} feeds, so selection has little effect."
    net = result.returns["net"]
    if (net <= -1).any() or not np.isfinite(net).all():
        yield "The account lost all of its value or more: returns after that are meaningless."


def _calibration_warnings(run: RunRecord, keys: pd.MultiIndex) -> list[str]:
    """Warnings about a calibration that was fitted on data after the first forecasts."""
    if run.settings is None:
        return []
    return run.settings.postprocessing().warnings(keys.get_level_values("datetime").min())


def _uses_forecasts(run: RunRecord) -> bool:
    return bool(run.settings or run.forecasts or len(run.forecast_index))


def _scores_come_from_head(run: RunRecord) -> bool:
    return run.settings is not None and bool(run.settings.score_choice(run.daily).heads)


def _score_is_return(run: RunRecord) -> bool:
    """Whether the score is the expected return of sampled paths, in contrast to the rank of a return head."""
    if run.signal == "score":
        return _uses_forecasts(run) and not _scores_come_from_head(run)
    return _uses_forecasts(run) and run.signal == "expected_return"


def _score_name(run: RunRecord) -> str:
    if not _uses_forecasts(run):
        return run.signal
    return MODEL if run.signal == "score" else f"{MODEL} {run.signal}"


def _path_summaries(run: RunRecord) -> pd.DataFrame | None:
    """Bands and final closes of the forecasts, from the run itself or from their folder."""
    if "horizon" in run.path_summaries:
        return run.path_summaries
    if not run.forecasts or not len(run.path_summaries):
        return None
    stored = ForecastSet(Path(run.forecasts))
    post = _postprocessing(run, stored, stored.dates)
    closes = [
        pd.DataFrame(path_statistics(post(forecast))[:, FINAL_CLOSES:], forecast.index) for forecast in stored
    ]
    known = {"level": run.level, "horizon": stored.settings.spec.horizon}
    return run.path_summaries.assign(**known).join(pd.concat(closes).astype(np.float32))


def _sample_counts(run: RunRecord, keys: pd.MultiIndex, label: pd.Series) -> dict[str, int]:
    traded, scored = run.scores.index.isin(run.panel.index), run.scores.index.isin(keys)
    return {
        "rows of feeds at rebalances": len(run.scores),
        "no bar, or one without a price": int((~traded).sum()),
        "no forecast (too few bars)": int((traded & ~scored).sum()),
        "forecast, but no return to compare with": int(label.isna().sum()),
        "compared": int(label.notna().sum()),
    }


def _path_summary(run: RunRecord, prices: PricePanel) -> tuple[PathSummary | None, Provenance | None]:
    """Summary of the stored forecasts, None without any; and their provenance, None where it is unknown."""
    stored = _stored_forecasts(run)
    made = run.forecast_index[run.forecast_index.isin(run.panel.index)]
    if stored is None:
        if run.settings is None:
            return None, None
        return None, run.settings.predictor().provenance(run.settings.sampling(), "")
    provenance, horizon = stored.settings.provenance, stored.settings.spec.horizon
    dates = stored.dates.intersection(pd.DatetimeIndex(made.get_level_values("datetime")).unique())
    if horizon < 2 or not len(dates):
        return None, provenance
    horizons = [h for h in SCORING_HORIZONS if h < horizon]
    if horizon - 1 > 1.5 * horizons[-1]:
        horizons.append(horizon - 1)  # the last one that paths reach: a signal trades a bar later
    by_num_paths: list[pd.DataFrame] = []
    post = _postprocessing(run, stored, dates)
    forecasts = _read_forecasts(stored, dates, made, run, post, by_num_paths)
    hold = min(run.hold, horizon - 1)
    paths, provenance = summarize_forecasts(forecasts, prices, horizons, hold, run.price, post=post)
    if by_num_paths:
        paths = replace(paths, score_by_num_paths=pd.concat(by_num_paths).sort_index())
    return paths, provenance


def _stored_forecasts(run: RunRecord) -> ForecastSet | None:
    """The stored forecasts of the run; None without a store."""
    if run.forecasts:
        return ForecastSet(run.forecasts)
    settings = run.settings
    if settings is None or settings.store is None or settings.samples == 0:
        return None
    provenance = settings.predictor().provenance(settings.sampling(), "")
    spec = WindowSpec(run.universe, settings.lookback, settings.horizon, settings.lookback)
    return ForecastStore(settings.store).open(provenance, spec)


def _postprocessing(run: RunRecord, stored: ForecastSet, dates: pd.DatetimeIndex) -> Postprocessing:
    """Postprocessing of the paths that the run read."""
    options = PathOptions() if run.settings is None else run.settings.options
    provenance, first = stored.settings.provenance, stored.read(dates[0])
    return options.resolve(checkpoint_calibration(provenance.model), provenance, first.horizon, first.spacing)


def _read_forecasts(
    stored: ForecastSet,
    dates: pd.DatetimeIndex,
    made: pd.MultiIndex,
    run: RunRecord,
    post: Postprocessing,
    by_num_paths: list[pd.DataFrame],
) -> Iterator[Forecast]:
    """The run's own forecasts as sampled, by date; appends the signal of their first k paths to `by_num_paths`."""
    from_head = run.signal == "score" and _scores_come_from_head(run)
    for date in dates:
        whole = stored.read(date)
        own = np.asarray(whole.index.isin(made))
        if not own.any():
            continue
        forecast = whole[own]
        if run.signal in LINES and not from_head:
            by_num_paths.append(_signal_by_num_paths(post(forecast), LINES.index(run.signal), run.level))
        yield forecast


def _signal_by_num_paths(forecast: Forecast, column: int, level: float) -> pd.DataFrame:
    """One of LINES from the first 1, 2, 4, ... paths, and from all; columns = numbers of paths."""
    counts = sorted({*(2**i for i in range(forecast.samples.bit_length())), forecast.samples})
    return pd.DataFrame(
        {
            k: indicator_lines(path_statistics(replace(forecast, paths=forecast.paths[:, :k])), level)[
                :, column
            ]
            for k in counts
            if k <= forecast.samples
        },
        index=forecast.index,
    )
