"""A finished Backtrader run -> its evidence, in this project's own types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from kronos.calibration import own_calibration
from kronos.codebase import git_commit, package_version
from kronos.forecast import Forecast, Provenance
from kronos.postprocessing import PathOptions, Postprocessing
from kronos_strategies.backtrader.forecasts import ENDS, LINES, lines, outlooks
from kronos_strategies.backtrader.run_record import Recording
from kronos_strategies.evaluation.distribution.pathbook import PathBook, keep_paths
from kronos_strategies.evaluation.scorecard import Market
from kronos_strategies.evaluation.signal.exposures import price_exposures
from kronos_strategies.evaluation.signal.ic import MIN_NAMES
from kronos_strategies.evidence import DECAY, DISTRIBUTION, About, Evidence, describe, seen_before
from kronos_strategies.result import BacktestResult
from kronos_strategies.store import ForecastStore, StoredForecasts, WindowSpec

OWN = "Kronos"
MIN_COVERAGE = 0.5  # of the scored rows, for a naive signal to be compared: on those that both have
IN_BARS = {  # what naive signals are called where bars are no days
    "12-1 momentum": "momentum of 252 to 21 bars ago",
    "5-day reversal": "5-bar reversal",
    "low 20-day volatility": "low 20-bar volatility",
}


def evidence_of(run: Recording) -> Evidence:
    """Everything that the report of a run is computed from.

    Raises:
        ValueError: the run had no score to judge.
    """
    keys, market, result = run.keys, Market.of(run.panel), run.result
    if not len(keys):
        raise ValueError(
            f"No feed had a value of {run.line!r} at any bar of the run. Feed more bars than its lookback."
        )
    names = keys.get_level_values("instrument").nunique()
    naive, scarce = _naive(run, market, keys)
    own = OWN if run.line == "score" else f"{OWN} {run.line}"
    own = own if run.settings or run.forecasts or len(run.made) else run.line
    horizons = sorted({*DECAY, run.hold})
    labels = pd.DataFrame({h: market.at(market.earned(h, run.price), keys) for h in horizons})
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
                *(f"{name} is left out: it lacks bars for over half of the rows." for name in scarce),
            ),
            bars_per_year=run.bars_per_year,
            min_names=run.min_names,
        ),
        scores=pd.DataFrame({own: run.scores["score"].reindex(keys), **naive}),
        labels=labels,
        exposures=pd.DataFrame({name: market.at(wide, keys) for name, wide in exposures.items()}),
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
    parts = [pd.DataFrame(outlooks(post(forecast))[:, ENDS:], forecast.keys) for forecast in stored]
    known = {"level": run.level, "horizon": stored.recipe.spec.horizon}
    return run.outlooks.assign(**known).join(pd.concat(parts).astype(np.float32))


def _naive(run: Recording, market: Market, keys: pd.MultiIndex) -> tuple[dict[str, pd.Series], list[str]]:
    """Naive scores of the same rows, and the names of those that lack too many."""
    found = {
        name if run.daily else IN_BARS.get(name, name): market.at(wide, keys)
        for name, wide in market.naive.items()
    }
    scarce = [name for name, score in found.items() if score.notna().mean() < MIN_COVERAGE]
    return {name: score for name, score in found.items() if name not in scarce}, scarce


def _ledger(run: Recording, keys: pd.MultiIndex, label: pd.Series) -> dict[str, int]:
    traded, scored = run.scores.index.isin(run.panel.index), run.scores.index.isin(keys)
    return {
        "rows of feeds at rebalances": len(run.scores),
        "no bar, or one without a price": int((~traded).sum()),
        "no forecast (too few bars)": int((traded & ~scored).sum()),
        "forecast, but no return to compare with": int(label.isna().sum()),
        "compared": int(label.notna().sum()),
    }


def _forecasts(run: Recording, market: Market) -> tuple[PathBook | None, Provenance | None]:
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
    paths, provenance = keep_paths(forecasts, market, horizons, hold, run.price, post=post)
    return replace(paths, by_samples=pd.concat(said).sort_index()) if said else paths, provenance


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
    return options.resolve(own_calibration(known.model), known, first.horizon, first.spacing)


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
        own = np.asarray(whole.keys.isin(made))
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
        index=forecast.keys,
    )


FEW_DATES = 100
SETTLED_BARS = 120  # feeds of which none ends over so many were chosen afterwards
ENDED = 20  # bars of the market without one of its own, after which a feed is taken for ended
NAMED = 5  # feeds in one sentence


def warnings_of(
    run: Recording, keys: pd.MultiIndex, provenance: Provenance | None, result: BacktestResult
) -> Iterator[str]:
    """Sentences, most important first.

    Args:
        run: what it left.
        keys: (datetime, instrument) that have a score.
        provenance: of the forecasts; None where it is not known.
        result: of the account.
    """
    dates, names = (keys.get_level_values(level).unique() for level in ("datetime", "instrument"))
    yield from _model(run, provenance, dates.min())
    if run.settings is not None and run.line == "score":
        choice = run.settings.choice(run.daily)
        yield from (*choice.warnings, *choice.seen_before(dates.min()))
    if len(names) < run.min_names:
        yield (
            f"Only {len(names)} feed{'s are' * (len(names) != 1) or ' is'} ranked: a correlation across fewer than "
            f"{run.min_names} names says nothing, so that {'each' if len(names) > 1 else 'it'} is judged over time."
        )
    elif len(names) < MIN_NAMES:
        yield f"Only {len(names)} feeds are ranked: each coefficient says little, and their mean needs many dates."
    if len(dates) < FEW_DATES:
        yield f"{len(dates)} rebalances are few: intervals are wide."
    yield from _listings(run)
    yield from _book(run, result, len(names))


def _model(run: Recording, provenance: Provenance | None, first: pd.Timestamp) -> Iterator[str]:
    if provenance is None:
        if len(run.made):
            yield (
                "The feeds brought their forecasts along, and what made them is not known here: the model may have "
                "seen the test dates. Name their folder: KronosTearSheet(forecasts=...)."
            )
    else:
        yield from seen_before(provenance, first)


def _listings(run: Recording) -> Iterator[str]:
    """Feeds that ended early; or that none ever did, which no list of names made at the start could promise."""
    dates = run.panel.index.get_level_values("datetime")
    last = dates.to_series(index=run.panel.index).groupby("instrument").max()
    calendar = dates.unique().sort_values()
    ended = last.index[last < calendar[-min(ENDED, len(calendar))]]
    if len(ended):
        yield (
            f"{_listed(ended)} had no more bars long before the run was over. What is held of such a feed counts "
            "at its last close until the strategy sells it, which flatters a book if the name failed."
        )
    elif len(last) > 1 and len(run.book) >= SETTLED_BARS:
        yield (
            f"Not one of the {len(last)} feeds ended early over {len(run.book):,} bars. If they were chosen today, "
            "those that failed since are missing (survivorship), which flatters every long book."
        )


def _book(run: Recording, result: BacktestResult, names: int) -> Iterator[str]:
    if not (result.turnover > 0).any():
        yield "The strategy never traded."
        return
    if not (result.cost > 0).any():
        yield "The broker charged no commission: the book before and after costs is the same."
    usual = int(result.positions.median())
    if usual > names / 2 and names > 1:
        yield f"The book usually holds {usual} of {names} feeds, so there is little to choose from."
    lost = result.returns["net"] <= -1
    if lost.any() or not np.isfinite(result.returns["net"]).all():
        yield "The account lost all it had, or more: returns from there on mean nothing."


def _listed(names: pd.Index) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(map(str, names[:NAMED]))}{more}"
