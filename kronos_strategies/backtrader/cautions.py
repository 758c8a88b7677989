"""What a reader must be told before believing the figures of a Backtrader run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from kronos.forecast import Provenance
from kronos_strategies.backtrader.recording import Recording
from kronos_strategies.evaluation.signal.ic import MIN_INSTRUMENTS
from kronos_strategies.evaluation.warnings import training_overlap_warnings
from kronos_strategies.result import BacktestResult

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
    elif len(names) < MIN_INSTRUMENTS:
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
        yield from training_overlap_warnings(provenance, first)


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
