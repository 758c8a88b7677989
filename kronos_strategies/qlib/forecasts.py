"""Forecasts in a store -> a contender, judged by the returns of a Qlib store."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pandas as pd

from kronos.calibration import checkpoint_calibration
from kronos.postprocessing import PathOptions
from kronos_strategies.contenders import READ, Contender, Span
from kronos_strategies.data.default import default_store
from kronos_strategies.evaluation.baselines import baseline_scores
from kronos_strategies.evaluation.comparison.version import Version
from kronos_strategies.evaluation.distribution.path_summary import summarize_forecasts
from kronos_strategies.evaluation.warnings import training_overlap_warnings
from kronos_strategies.evidence import DECAY, DISTRIBUTION, describe
from kronos_strategies.progress import tracked
from kronos_strategies.qlib.evidence import market_of
from kronos_strategies.qlib.source import use_source
from kronos_strategies.store import StoredForecasts


def contender_of_forecasts(
    folder: Path,
    name: str,
    data: Path | None,
    hold: int,
    span: Span = (None, None),
    options: PathOptions = READ,
) -> Contender:
    """Forecasts of a folder, scored for a trade that holds `hold` bars.

    Args:
        folder: of `StoredForecasts`.
        name: of the version.
        data: Qlib store of the bars that were forecast and of those that followed; the simulated market when
            omitted.
        hold: bars that a position is held.
        span: first and last date; all that there are when omitted.
        options: what is done to the paths when they are read.

    Raises:
        ValueError: the paths are too short for such a trade, or a calibration does not fit them.
    """
    stored = StoredForecasts(folder)
    spec = stored.recipe.spec
    if spec.horizon <= hold:
        raise ValueError(
            f"{folder} has forecasts of {spec.horizon} bars, too short for a trade that holds {hold}. Forecast "
            f"with --horizon {hold + 1}, or compare with --horizon {max(1, spec.horizon - 1)}."
        )
    notices = use_source(data or default_store())
    keys = cast(pd.MultiIndex, stored.frame(*span).index)
    dates = keys.get_level_values("datetime").unique()
    market = market_of(keys)
    horizons = [h for h in DISTRIBUTION if h < spec.horizon]
    forecasts = (stored.read(date) for date in tracked(dates, f"read {name}", "dates"))
    known = stored.recipe.provenance
    first = stored.read(dates[0])
    post = options.resolve(checkpoint_calibration(known.model), known, spec.horizon, first.spacing)
    paths, provenance = summarize_forecasts(forecasts, market, horizons, hold, post=post)
    score = paths.score_by_num_paths.iloc[:, -1].rename("score")
    labels = {h: market.lookup(market.forward_return(h), keys) for h in sorted({*DECAY, hold})}
    return Contender(
        version=Version(
            name, score, paths.losses(market), {**describe(provenance), "calibration": post.reason}
        ),
        labels=pd.DataFrame(labels),
        horizon=hold,
        references=baseline_scores(market, keys)[0],
        warnings=(
            *notices,
            *(
                f"'{name}': {told}"
                for told in [*training_overlap_warnings(provenance, dates[0]), *post.warnings(dates[0])]
            ),
        ),
    )
