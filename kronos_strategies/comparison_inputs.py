"""Contenders: what an argument of `kronos compare` names, as a version and what it is judged by.

A parquet file of scores, a folder of forecasts, the folder of a report, or the id of a run on record. Knows no
torch; the Qlib adapter is asked only for runs and for the returns that followed forecasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pandas as pd

from kronos.calibration import own_calibration
from kronos.postprocessing import PathOptions
from kronos_strategies.data.simulate import default_store
from kronos_strategies.evaluation.distribution.pathbook import keep_paths
from kronos_strategies.evaluation.versions.comparison import Comparison, compare_versions
from kronos_strategies.evaluation.versions.files import read_version
from kronos_strategies.evaluation.versions.version import Contender, Version
from kronos_strategies.progress import tracked
from kronos_strategies.run_artifacts import (
    ABOUT,
    DECAY,
    DISTRIBUTION,
    EVIDENCE,
    Evidence,
    describe,
    seen_before,
)
from kronos_strategies.store import StoredForecasts
from kronos_strategies.store.settings import MANIFEST

READ = PathOptions()  # what is done to paths unless something else is named
PREDICTION = "pred.pkl"  # of any Qlib run
Span = tuple[str | None, str | None]  # first and last date; None for all that there are


def find_contender(
    argument: str, tracking: str, data: Path | None, hold: int, options: PathOptions = READ
) -> Contender:
    """What an argument names; `NAME=` before it gives the version that name.

    Args:
        argument: a parquet file, a folder, or a run's id.
        tracking: address of the MLflow store of runs.
        data: Qlib store with the returns that followed forecasts; that of the run when omitted.
        hold: bars that the score of bare forecasts holds.
        options: what is done to the paths of bare forecasts when they are read.

    Raises:
        FileNotFoundError: nothing of the kind is there.
        ValueError: it is none of these.
    """
    name, _, rest = argument.rpartition("=") if not Path(argument).exists() else ("", "", argument)
    path = Path(rest).expanduser()
    if path.suffix == ".pkl" and path.is_file():
        return _of_pickle(path, name, data)
    if path.is_file() or path.suffix == ".parquet":
        version = read_version(path)
        return Contender(Version(name or version.name, version.score, version.losses, version.provenance))
    if path.is_dir():
        return _of_folder(path, name or _called(path), data, hold, options)
    return _of_run(rest, name, tracking, data, hold, options)


def find_evidence(argument: str, tracking: str, data: Path | None = None) -> Evidence:
    """The evidence of a run: by the folder of its report or of its artifacts, by pred.pkl in it, or by its id.

    Args:
        argument: the folder, the file, or the id.
        tracking: address of the MLflow store of runs.
        data: Qlib store of the bars of a run that is not of this project's model; that on record when omitted.

    Raises:
        FileNotFoundError: it has none.
        ValueError: no such run.
    """
    path = Path(argument).expanduser()
    if path.suffix == ".pkl" and path.is_file():
        from kronos_strategies.qlib.other_models import evidence_of_folder

        return evidence_of_folder(_folder_of_prediction(path), False, data)
    if path.is_dir():
        if (kept := kept_evidence(path)) is None and (path / PREDICTION).is_file():
            from kronos_strategies.qlib.other_models import evidence_of_folder

            return evidence_of_folder(path, False, data)
        return Evidence.read(kept or path / EVIDENCE)
    from kronos_strategies.qlib.tracking import artefacts, find_run

    run = find_run(argument, tracking)
    artifacts = artefacts(run, tracking)
    folder = artifacts / "kronos" / EVIDENCE
    if not folder.is_dir() and (artifacts / PREDICTION).is_file():
        from kronos_strategies.qlib.other_models import evidence_of_folder

        return evidence_of_folder(artifacts, True, data)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"Run {run.info.run_id[:8]} ({run.info.run_name}) has no evidence among its artefacts: it holds "
            "forecasts only, or stopped before its report. `kronos compare` takes forecasts too."
        )
    return Evidence.read(folder)


def kept_evidence(folder: Path) -> Path | None:
    """Where a folder holds evidence: itself, beside a report, or among the artifacts of a run."""
    places = (folder, folder / EVIDENCE, folder / "kronos" / EVIDENCE)
    return next((place for place in places if (place / ABOUT).is_file()), None)


def of_evidence(evidence: Evidence, name: str) -> Contender:
    """A finished run."""
    own, *naive = evidence.scores.columns
    losses = evidence.paths.losses(evidence.market) if evidence.paths is not None else None
    return Contender(
        version=Version(name, evidence.scores[own], losses, evidence.about.described),
        labels=evidence.labels,
        horizon=evidence.about.hold,
        references=evidence.scores[naive],
        bars_between=evidence.about.bars_between,
        warnings=evidence.about.warnings,
    )


def _of_folder(
    folder: Path, name: str, data: Path | None, hold: int, options: PathOptions, span: Span = (None, None)
) -> Contender:
    if (folder / MANIFEST).is_file():
        return contender_of_forecasts(folder, name, data, hold, span, options)
    if kept := kept_evidence(folder):
        return of_evidence(Evidence.read(kept), name)
    if (folder / PREDICTION).is_file():
        from kronos_strategies.qlib.other_models import contender_of_plain_run

        return contender_of_plain_run(folder, name, False, data)
    inside = sorted(path.parent for path in folder.glob(f"*/*/{MANIFEST}"))
    hint = f" Did you mean {inside[0]}?" if inside else ""
    raise FileNotFoundError(
        f"{folder} holds neither forecasts (no {MANIFEST}) nor the evidence of a run (no {EVIDENCE}/{ABOUT}) nor "
        f"that of another Qlib run (no {PREDICTION}).{hint}"
    )


def _of_run(
    argument: str, name: str, tracking: str, data: Path | None, hold: int, options: PathOptions
) -> Contender:
    from kronos_strategies.qlib.tracking import (
        SHORT,
        artefacts,
        data_folder,
        find_run,
        forecast_folder,
        forecast_span,
    )

    run = find_run(argument, tracking)
    model = Path(run.data.params.get("kronos.model", run.info.run_name)).name
    given, name = name, name or f"{model}-{run.info.run_id[:SHORT]}"
    folder = forecast_folder(run)
    if folder is not None:
        return _of_folder(folder, name, data or data_folder(run), hold, options, forecast_span(run))
    artifacts = artefacts(run, tracking)
    if kept_evidence(artifacts) is None and (artifacts / PREDICTION).is_file():
        from kronos_strategies.qlib.other_models import contender_of_plain_run

        return contender_of_plain_run(artifacts, given or f"run-{run.info.run_id[:SHORT]}", True, data)
    return of_evidence(find_evidence(argument, tracking), name)


def _of_pickle(file: Path, name: str, data: Path | None) -> Contender:
    """A prediction as Qlib's SignalRecord writes it, with what else of the run lies beside it."""
    from kronos_strategies.qlib.other_models import contender_of_plain_run

    return contender_of_plain_run(_folder_of_prediction(file), name, False, data)


def _folder_of_prediction(file: Path) -> Path:
    if file.name == PREDICTION:
        return file.parent
    raise ValueError(
        f"{file} is a pickle that is not called {PREDICTION}. Name a run's {PREDICTION}, or write the scores as "
        "parquet with DataFrame.to_parquet."
    )


def _called(folder: Path) -> str:
    """A folder of forecasts by its model and settings, any other by its own name."""
    full = folder.resolve()
    return f"{full.parent.name}/{full.name}" if (full / MANIFEST).is_file() else full.name


def common_horizon(contenders: Sequence[Contender], horizon: int | None = None) -> int:
    """Bars that the label spans by which all contenders are judged.

    Args:
        contenders: that may hold for different times.
        horizon: as the user names it; that of the contenders when omitted, else 1.

    Raises:
        ValueError: the contenders hold for different times, and none is named.
    """
    known = {c.version.name: c.horizon for c in contenders if c.horizon is not None}
    if horizon is not None:
        return horizon
    if len(set(known.values())) > 1:
        raise ValueError(
            f"The versions hold positions for different times, {known} bars. Name the time to judge all of them "
            f"by, for example with --horizon {max(known.values())}."
        )
    return next(iter(known.values()), 1)


def hold_against(
    contenders: Sequence[Contender],
    labels: pd.Series | pd.DataFrame | None = None,
    horizon: int | None = None,
    baseline: str | None = None,
) -> Comparison:
    """Compare contenders, by the labels given or else by those that the first of them with any brings along.

    Args:
        contenders: two or more of different names.
        labels: see `compare_versions`.
        horizon: bars that the label spans; that of the contenders when omitted, else 1.
        baseline: name of a version; the first when omitted.

    Raises:
        ValueError: no labels at all or none of `horizon`, or contenders whose trades hold for different times.
    """
    horizon = common_horizon(contenders, horizon)
    if labels is None:
        labels = _labels_of(contenders, horizon)
    comparison = compare_versions(
        [c.version for c in contenders],
        labels,
        horizon,
        baseline,
        bars_between=max(c.bars_between for c in contenders),
        references=next((c.references for c in contenders if c.references is not None), None),
    )
    told = dict.fromkeys(warning for contender in contenders for warning in contender.warnings)
    other = [
        f"'{c.version.name}' has a holding period of {c.horizon} and is judged by returns over {horizon} bars."
        for c in contenders
        if c.horizon not in (None, horizon)
    ]
    return replace(comparison, warnings=(*told, *other, *comparison.warnings))


def _labels_of(contenders: Sequence[Contender], horizon: int) -> pd.DataFrame:
    """Those of the first contender that holds for `horizon` bars, or else of the first that has such."""
    found = [c for c in contenders if c.labels is not None]
    if not found:
        raise ValueError("Files of scores say nothing without returns. Give the file of those with --labels.")
    having = [c.labels for c in found if c.labels is not None and horizon in c.labels]
    own = [c.labels for c in found if c.horizon == horizon]
    chosen = next(iter([*own, *having]), None)
    if chosen is None:
        spans = sorted({int(h) for c in found if c.labels is not None for h in c.labels})
        raise ValueError(
            f"The runs have no returns over {horizon} bars, only over {spans}. Choose one of these with --horizon, "
            "or give a file of returns with --labels."
        )
    return chosen


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
    from kronos_strategies.qlib.artifacts import market_of
    from kronos_strategies.qlib.data_access import naive_scores, use_source

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
    post = options.resolve(own_calibration(known.model), known, spec.horizon, first.spacing)
    paths, provenance = keep_paths(forecasts, market, horizons, hold, post=post)
    score = paths.by_samples.iloc[:, -1].rename("score")
    labels = {h: market.at(market.earned(h), keys) for h in sorted({*DECAY, hold})}
    return Contender(
        version=Version(
            name, score, paths.losses(market), {**describe(provenance), "calibration": post.reason}
        ),
        labels=pd.DataFrame(labels),
        horizon=hold,
        references=pd.DataFrame(naive_scores(keys)),
        warnings=(
            *notices,
            *(f"'{name}': {told}" for told in [*seen_before(provenance, dates[0]), *post.warnings(dates[0])]),
        ),
    )
