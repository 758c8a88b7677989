"""Contenders: what an argument of `kronos compare` names, as a version and what it is judged by.

A parquet file of scores, a folder of forecasts, the folder of a report, or a run on record. Knows no
torch; the Qlib adapter is asked only for runs and for the returns that followed forecasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from kronos.postprocessing import PathOptions
from kronos_strategies.evaluation.comparison.comparison import Comparison, compare_versions
from kronos_strategies.evaluation.comparison.version import Version, read_version
from kronos_strategies.evidence import ABOUT, EVIDENCE, Evidence
from kronos_strategies.store.manifest import MANIFEST

READ = PathOptions()  # what is done to paths unless something else is named
PREDICTION = "pred.pkl"  # of any Qlib run
Span = tuple[str | None, str | None]  # first and last date; None for all that there are


@dataclass(frozen=True)
class Contender:
    """A version, and what it brings along to be judged by.

    Attributes:
        version: of a model.
        labels: indexed (datetime, instrument), columns = horizons in bars: the returns that followed; None for
            scores alone.
        horizon: bars that its trade holds; None for scores alone.
        references: naive scores of its rows; None for scores alone.
        bars_between: bars between successive dates.
        warnings: sentences that a reader of its figures must see.
    """

    version: Version
    labels: pd.DataFrame | None = None
    horizon: int | None = None
    references: pd.DataFrame | None = None
    bars_between: int = 1
    warnings: tuple[str, ...] = ()


def find_contender(
    argument: str, tracking: str, data: Path | None, hold: int, options: PathOptions = READ
) -> Contender:
    """What an argument names; `NAME=` before it gives the version that name.

    Args:
        argument: a parquet file, a folder, a run's id, or an experiment.
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
    """The evidence of a run: by the folder of its report or of its artifacts, or by its id.

    Args:
        argument: the folder, or the id.
        tracking: address of the MLflow store of runs.
        data: Qlib store of the bars of a run that is not of this project's model; that on record when omitted.

    Raises:
        FileNotFoundError: it has none.
        ValueError: no such run.
    """
    path = Path(argument).expanduser()
    if path.is_dir():
        if (kept := kept_evidence(path)) is None and (path / PREDICTION).is_file():
            from kronos_strategies.qlib.plain_evidence import evidence_of_folder

            return evidence_of_folder(path, False, data)
        return Evidence.read(kept or path / EVIDENCE)
    from kronos_strategies.qlib.runs import artefacts, find_run

    run = find_run(argument, tracking)
    artifacts = artefacts(run, tracking)
    folder = artifacts / "kronos" / EVIDENCE
    if not folder.is_dir() and (artifacts / PREDICTION).is_file():
        from kronos_strategies.qlib.plain_evidence import evidence_of_folder

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
        from kronos_strategies.qlib.forecasts import contender_of_forecasts

        return contender_of_forecasts(folder, name, data, hold, span, options)
    if kept := kept_evidence(folder):
        return of_evidence(Evidence.read(kept), name)
    if (folder / PREDICTION).is_file():
        from kronos_strategies.qlib.plain_evidence import contender_of_plain_run

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
    from kronos_strategies.qlib.runs import (
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
        from kronos_strategies.qlib.plain_evidence import contender_of_plain_run

        return contender_of_plain_run(artifacts, given or f"run-{run.info.run_id[:SHORT]}", True, data)
    return of_evidence(find_evidence(argument, tracking), name)


def _of_pickle(file: Path, name: str, data: Path | None) -> Contender:
    """A prediction as Qlib's SignalRecord writes it, with what else of the run lies beside it."""
    if file.name == PREDICTION:
        from kronos_strategies.qlib.plain_evidence import contender_of_plain_run

        return contender_of_plain_run(file.parent, name, False, data)
    raise ValueError(
        f"{file} is a pickle that is not called {PREDICTION}. Name a run's {PREDICTION}, or write the scores as "
        "parquet with DataFrame.to_parquet."
    )


def _called(folder: Path) -> str:
    """A folder of forecasts by its model and settings, any other by its own name."""
    full = folder.resolve()
    return f"{full.parent.name}/{full.name}" if (full / MANIFEST).is_file() else full.name


def hold_against(
    contenders: Sequence[Contender],
    labels: pd.Series | pd.DataFrame | None = None,
    horizon: int | None = None,
    baseline: str | None = None,
    every: int | None = None,
) -> Comparison:
    """Compare contenders, by the labels given or else by those that the first of them with any brings along.

    Args:
        contenders: two or more of different names.
        labels: see `compare_versions`.
        horizon: bars that the label spans; that of the contenders when omitted, else 1.
        baseline: name of a version; the first when omitted.
        every: bars between successive dates; the most that a contender knows of when omitted.

    Raises:
        ValueError: no labels at all, or contenders whose trades hold for different times.
    """
    known = {c.version.name: c.horizon for c in contenders if c.horizon is not None}
    if len(set(known.values())) > 1:
        raise ValueError(
            f"The versions hold positions for different times, {known} bars. Compare those of one, with "
            f"--horizon {max(known.values())} for bare forecasts."
        )
    held = next(iter(known.values()), None)
    horizon = (held or 1) if horizon is None else horizon
    if labels is None:
        if held is not None and horizon != held:
            raise ValueError(f"The runs hold for {held} bars, not for {horizon}. Leave out --horizon.")
        labels = next((c.labels for c in contenders if c.labels is not None), None)
    if labels is None:
        raise ValueError("Files of scores say nothing without returns. Give the file of those with --labels.")
    comparison = compare_versions(
        [c.version for c in contenders],
        labels,
        horizon,
        baseline,
        bars_between=every or max(c.bars_between for c in contenders),
        baselines=next((c.references for c in contenders if c.references is not None), None),
    )
    told = dict.fromkeys(warning for contender in contenders for warning in contender.warnings)
    return replace(comparison, warnings=(*told, *comparison.warnings))
