"""A finished Backtrader run -> its evidence, in this project's own types."""

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
from kronos_strategies.backtrader.cautions import warnings_of
from kronos_strategies.backtrader.outlook import ENDS, LINES, lines, outlooks
from kronos_strategies.backtrader.recording import Recording
from kronos_strategies.evaluation.baselines import MODEL, baseline_scores
from kronos_strategies.evaluation.distribution.path_summary import PathSummary, summarize_forecasts
from kronos_strategies.evaluation.price_panel import PricePanel
from kronos_strategies.evaluation.signal.exposures import price_exposures
from kronos_strategies.evidence import DECAY, DISTRIBUTION, About, Evidence, describe
from kronos_strategies.store import ForecastStore, StoredForecasts, WindowSpec


def evidence_of(run: Recording) -> Evidence:
    """Everything that the report of a run is computed from.

    Raises:
        ValueError: the run had no score to judge.
    """
    keys, market, result = run.keys, PricePanel.from_bars(run.panel), run.result
    if not len(keys):
        raise ValueError(
            f"No feed had a value of {run.line!r} at any bar of the run. Feed more bars than its lookback."
        )
    names = keys.get_level_values("instrument").nunique()
    baselines, scarce = baseline_scores(market, keys, run.daily)
    own = MODEL if run.line == "score" else f"{MODEL} {run.line}"
    own = own if run.settings or run.forecasts or len(run.made) else run.line
    horizons = sorted({*DECAY, run.hold})
    labels = pd.DataFrame({h: market.lookup(market.forward_return(h, run.price), keys) for h in horizons})
    paths, provenance = _forecasts(run, market)
    exposures = price_exposures(market.closes, market.amounts)
    sampled = run.settings is None or run.settings.samples > 0
    known = {} if provenance is None else describe(provenance, sampled)
    code = f"kronos-strategies {package_version()}, commit {git_commit() or 'unknown'}"
    return Evidence(
        about=About(
            title=run.title,
            hold=run.hold,
            bars_between=run.every,
            trials=run.trials,
            described={**run.described, **known, "code": code},
            ledger=_ledger(run, keys, labels[run.hold]),
            warnings=(
                *([run.notice] if run.notice else []),
                *run.remarks,
                *warnings_of(run, keys, provenance, result),
                *_calibration_warnings(run, keys),
                *scarce,
            ),
            bars_per_year=run.bars_per_year,
            min_names=run.min_names,
        ),
        scores=pd.DataFrame({own: run.scores["score"].reindex(keys)}).join(baselines),
        labels=labels,
        exposures=pd.DataFrame({name: market.lookup(wide, keys) for name, wide in exposures.items()}),
        market=market,
        paths=paths,
        provenance=provenance,
        result=result,
        outlooks=_outlooks(run) if names < run.min_names else None,
        trades=run.trades,
    )


def _outlooks(run: Recording) -> pd.DataFrame | None:
    """What the forecasts said, from the run itself or from the folder that they came from."""
    if "horizon" in run.outlooks:
        return run.outlooks
    if not run.forecasts or not len(run.outlooks):
        return None
    stored = StoredForecasts(Path(run.forecasts))
    post = _postprocessing(run, stored, stored.dates)
    parts = [pd.DataFrame(outlooks(post(forecast))[:, ENDS:], forecast.index) for forecast in stored]
    known = {"level": run.level, "horizon": stored.recipe.spec.horizon}
    return run.outlooks.assign(**known).join(pd.concat(parts).astype(np.float32))


def _ledger(run: Recording, keys: pd.MultiIndex, label: pd.Series) -> dict[str, int]:
    traded, scored = run.scores.index.isin(run.panel.index), run.scores.index.isin(keys)
    return {
        "rows of feeds at rebalances": len(run.scores),
        "no bar, or one without a price": int((~traded).sum()),
        "no forecast (too few bars)": int((traded & ~scored).sum()),
        "forecast, but no return to compare with": int(label.isna().sum()),
        "compared": int(label.notna().sum()),
    }


def _forecasts(run: Recording, market: PricePanel) -> tuple[PathSummary | None, Provenance | None]:
    """What is kept of the forecasts, where they are still to be had; and what made them, where that is known."""
    stored = _stored(run)
    made = run.made[run.made.isin(run.panel.index)]
    if stored is None:
        if run.settings is None:
            return None, None
        return None, run.settings.predictor().provenance(run.settings.sampling(), "")
    provenance, horizon = stored.recipe.provenance, stored.recipe.spec.horizon
    dates = stored.dates.intersection(pd.DatetimeIndex(made.get_level_values("datetime")).unique())
    if horizon < 2 or not len(dates):
        return None, provenance
    horizons = [h for h in DISTRIBUTION if h < horizon]
    if horizon - 1 > 1.5 * horizons[-1]:
        horizons.append(horizon - 1)  # as far as the paths reach: a signal trades a bar later
    said: list[pd.DataFrame] = []
    post = _postprocessing(run, stored, dates)
    forecasts = _read(stored, dates, made, run, post, said)
    hold = min(run.hold, horizon - 1)
    paths, provenance = summarize_forecasts(forecasts, market, horizons, hold, run.price, post=post)
    return replace(paths, score_by_num_paths=pd.concat(said).sort_index()) if said else paths, provenance


def _stored(run: Recording) -> StoredForecasts | None:
    """The folder that the run's forecasts are in."""
    if run.forecasts:
        return StoredForecasts(Path(run.forecasts))
    settings = run.settings
    if settings is None or settings.store is None or settings.samples == 0:
        return None
    known = settings.predictor().provenance(settings.sampling(), "")
    spec = WindowSpec(run.together, settings.lookback, settings.horizon, settings.lookback)
    return ForecastStore(settings.store).open(known, spec)


def _calibration_warnings(run: Recording, keys: pd.MultiIndex) -> list[str]:
    """Of a calibration that knows what comes after the first forecasts."""
    if run.settings is None:
        return []
    return run.settings.postprocessing().warnings(keys.get_level_values("datetime").min())


def _postprocessing(run: Recording, stored: StoredForecasts, dates: pd.DatetimeIndex) -> Postprocessing:
    """What was done to the paths that the run read."""
    options = PathOptions() if run.settings is None else run.settings.options
    known, first = stored.recipe.provenance, stored.read(dates[0])
    return options.resolve(checkpoint_calibration(known.model), known, first.horizon, first.spacing)


def _read(
    stored: StoredForecasts,
    dates: pd.DatetimeIndex,
    made: pd.MultiIndex,
    run: Recording,
    post: Postprocessing,
    said: list[pd.DataFrame],
) -> Iterator[Forecast]:
    """The run's own forecasts as sampled, by date; what the line says of the first k paths is put in `said`."""
    by_head = run.line == "score" and run.settings is not None and run.settings.choice(run.daily).heads
    for date in dates:
        whole = stored.read(date)
        own = np.asarray(whole.index.isin(made))
        if not own.any():
            continue
        forecast = whole[own]
        if run.line in LINES and not by_head:
            said.append(_by_samples(post(forecast), LINES.index(run.line), run.level))
        yield forecast


def _by_samples(forecast: Forecast, column: int, level: float) -> pd.DataFrame:
    """What a line says from the first 1, 2, 4, ... paths, and from all: columns = numbers of paths."""
    counts = sorted({*(2**i for i in range(forecast.samples.bit_length())), forecast.samples})
    return pd.DataFrame(
        {
            k: lines(outlooks(replace(forecast, paths=forecast.paths[:, :k])), level)[:, column]
            for k in counts
            if k <= forecast.samples
        },
        index=forecast.index,
    )
