"""Backtest of rules on the forecasts of a store -> run artifacts of the usual report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import cast

import pandas as pd

from kronos.forecast import Forecast, Provenance
from kronos.postprocessing import PathOptions, Postprocessing
from kronos.utils import git_commit, package_version
from kronos_strategies.backtest.inputs import (
    HISTORY,
    BacktestInputs,
    BacktestPrices,
    BacktestSettings,
    StoredPaths,
    find_postprocessing,
)
from kronos_strategies.backtest.trading import TradingRules
from kronos_strategies.backtest_result import BacktestResult, bars_per_year
from kronos_strategies.evaluation.baselines import MODEL, baseline_scores
from kronos_strategies.evaluation.distribution.path_summary import PathSummary, summarize_forecasts
from kronos_strategies.evaluation.signal.neutralization import price_exposures
from kronos_strategies.evaluation.warnings import (
    crowded_portfolio_warnings,
    scenario_warnings,
    training_overlap_warnings,
    universe_warnings,
    unsolved_warnings,
)
from kronos_strategies.portfolio import PortfolioRules, past_bars
from kronos_strategies.progress import track
from kronos_strategies.run_artifacts import (
    DECAY_HORIZONS,
    SCORING_HORIZONS,
    RunArtifacts,
    RunMetadata,
    provenance_table,
)
from kronos_strategies.signal import signals
from kronos_strategies.store import ForecastSet
from kronos_strategies.store.head_scores import HeadScores


def backtest_forecasts(
    forecast_set: ForecastSet,
    dates: pd.DatetimeIndex,
    prices: BacktestPrices,
    settings: BacktestSettings,
    options: PathOptions,
    head: HeadScores | None = None,
    industries: pd.Series | None = None,
    benchmark: pd.Series | None = None,
) -> RunArtifacts:
    """Backtest rules on the forecasts of some dates, each read once.

    Args:
        forecast_set: stored forecasts.
        dates: dates to trade on, ascending; the backtest ends with the last one.
        prices: bars of the instruments that are forecast, with those that follow for the report.
        settings: rules, execution and holding period.
        options: postprocessing of the paths.
        head: scores of a return head in place of the paths' own.
        industries: industry by instrument.
        benchmark: returns of a benchmark, in addition to the equal-weight one.

    Raises:
        ValueError: the horizon is too short for the holding period, or a setting does not fit.
    """
    post = find_postprocessing(forecast_set, dates[0], options)
    frames: list[pd.DataFrame] = []

    def read() -> Iterator[Forecast]:
        for date in track(dates, "read", "dates"):
            raw = forecast_set.read(date)
            score = None if head is None else head.read(raw.index)
            frames.append(signals(post(raw), settings.hold, settings.trading.price, score, settings.levels))
            yield raw

    paths, known = _summarize(read(), forecast_set, prices, settings, post)
    table = pd.concat(frames).sort_index()
    history = max(HISTORY, past_bars(settings.rules))
    inputs = BacktestInputs.of(table, prices, industries, benchmark, StoredPaths(forecast_set, post), history)
    result = inputs.run(settings)
    return _artifacts(table, paths, known, result, prices, settings, post, head, industries)


def _summarize(
    forecasts: Iterator[Forecast],
    forecast_set: ForecastSet,
    prices: BacktestPrices,
    settings: BacktestSettings,
    post: Postprocessing,
) -> tuple[PathSummary | None, Provenance]:
    """Read all forecasts; their summary, None where a single path has no distribution."""
    known = forecast_set.settings.provenance
    horizons = [h for h in SCORING_HORIZONS if h < forecast_set.settings.spec.horizon]
    if known.sampling.samples < 2 or not horizons:
        for _ in forecasts:
            pass
        return None, known
    price = settings.trading.price
    return summarize_forecasts(forecasts, prices.panel, horizons, settings.hold, price, post=post)


def _artifacts(
    table: pd.DataFrame,
    paths: PathSummary | None,
    known: Provenance,
    result: BacktestResult,
    prices: BacktestPrices,
    settings: BacktestSettings,
    post: Postprocessing,
    head: HeadScores | None,
    industries: pd.Series | None,
) -> RunArtifacts:
    panel, index, price = prices.panel, cast(pd.MultiIndex, table.index), settings.trading.price
    daily = bool((panel.calendar == panel.calendar.normalize()).all())
    baselines, left_out = baseline_scores(panel, index, daily)
    horizons = sorted({*DECAY_HORIZONS, settings.hold})
    labels = {h: panel.lookup(panel.forward_return(h, price), index) for h in horizons}
    exposures = {
        name: panel.lookup(wide, index) for name, wide in price_exposures(panel.closes, panel.amounts).items()
    }
    if industries is not None:
        own = industries.reindex(index.get_level_values("instrument")).to_numpy()
        exposures["industry"] = pd.Series(own, index, dtype="string")
    label, dates = labels[settings.hold], pd.DatetimeIndex(index.get_level_values("datetime")).unique()
    steps = panel.calendar.get_indexer(dates)
    count = pd.Series(index.get_level_values("datetime")).value_counts().median()
    metadata = RunMetadata(
        title=f"Rules on forecasts of {Path(known.model).name}",
        hold=settings.hold,
        bars_between=max(1, int(min(steps[1:] - steps[:-1], default=1))),
        trials=settings.trials,
        trials_deviation=settings.trials_deviation,
        settings=_settings_table(settings, dates, known, post, head),
        sample_counts={
            "forecasts": len(index),
            "forecast, but no return to compare with": int(label.isna().sum()),
            "compared": int(label.notna().sum()),
        },
        warnings=(
            *training_overlap_warnings(known, dates[0]),
            *post.warnings(dates[0]),
            *scenario_warnings(settings.rules, known.sampling.samples),
            *unsolved_warnings(result.unsolved),
            *universe_warnings(index),
            *crowded_portfolio_warnings(int(result.positions.max()), count, "choose a smaller topk"),
            *(() if head is None else head.warnings(settings.hold, price)),
            *left_out,
        ),
        bars_per_year=bars_per_year(panel.calendar),
        score_is_return=head is None,
    )
    return RunArtifacts(
        metadata=metadata,
        scores=pd.DataFrame({MODEL: table["score"]}).join(baselines),
        labels=pd.DataFrame(labels),
        exposures=pd.DataFrame(exposures),
        market=panel,
        paths=paths,
        provenance=known,
        result=result,
    )


def _settings_table(
    settings: BacktestSettings,
    dates: pd.DatetimeIndex,
    known: Provenance,
    post: Postprocessing,
    head: HeadScores | None,
) -> dict[str, str]:
    """Settings of the backtest by label; of rules and execution those that differ from the defaults."""
    price = settings.trading.price
    return {
        "test": f"{dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}, {len(dates)} forecast dates",
        "score": "sampled paths" if head is None else head.described,
        "label": f"{price}(t+{1 + settings.hold}) / {price}(t+1) - 1",
        "rules": _changed(settings.rules, PortfolioRules()) or "defaults",
        "rebalanced": f"every {settings.every} bars",
        "trading": f"price={price}, {_changed(settings.trading, TradingRules())}".rstrip(", "),
        **provenance_table(known),
        "calibration": post.reason,
        "code": f"kronos-strategies {package_version()}, commit {git_commit() or 'unknown'}",
    }


def _changed(made: PortfolioRules | TradingRules, default: PortfolioRules | TradingRules) -> str:
    pairs = [(each.name, getattr(made, each.name)) for each in fields(made)]
    return ", ".join(
        f"{name}={value if isinstance(value, str) else format(value, 'g')}"
        for name, value in pairs
        if value != getattr(default, name)
    )
