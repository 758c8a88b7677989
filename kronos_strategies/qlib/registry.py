"""The record of every run in Qlib's recorder (MLflow): what made it, so that it can be found and compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mlflow.tracking import MlflowClient
from qlib.workflow import R
from qlib.workflow.recorder import MLflowRecorder, Recorder

from kronos.forecast import Provenance
from kronos.utils import git_commit, package_version
from kronos_strategies.qlib.plain_runs import PlainRun
from kronos_strategies.store import Filled, WindowSpec

FORECASTS = "kronos_forecasts"  # experiment of `kronos forecast`
PREFIX = "kronos."  # of our parameters and tags, beside Qlib's own
TRIAL, STORE, DATA = f"{PREFIX}trial", f"{PREFIX}forecast_store", f"{PREFIX}data"
FIRST, LAST = f"{PREFIX}first_date", f"{PREFIX}last_date"


def run_params(known: Provenance, spec: WindowSpec, trade: Mapping[str, str] | None = None) -> dict[str, str]:
    """Parameters of a run: model, settings, data, code.

    Args:
        known: of its forecasts.
        spec: of its windows.
        trade: how its scores are made and traded, by name.
    """
    s = known.sampling
    params = {
        "model": known.model,
        "revision": known.revision,
        "weights_sha256": known.weights_sha256,
        "trained_until": known.trained_until,
        "samples": s.samples,
        "T": s.T,
        "top_p": s.top_p,
        "top_k": s.top_k,
        "seed": s.seed,
        "draws": known.draws,
        "context_overflow": known.context_overflow,
        "precision": known.precision,
        "anchor": known.anchor,
        "max_context": known.max_context,
        "universe": spec.universe,
        "lookback": spec.lookback,
        "horizon": spec.horizon,
        **(trade or {}),
        "data_sha256": known.data_sha256,
        "code_commit": git_commit(),
        "version": package_version(),
    }
    return {f"{PREFIX}{name}": "-" if value is None else str(value) for name, value in params.items()}


def plain_params(run: PlainRun, trading: str) -> dict[str, str]:
    """Parameters of a run by another Qlib model: its settings, its label, how its scores are traded."""
    settings = {part: run.task.get(part) for part in ("model", "dataset")}
    text = json.dumps(settings, sort_keys=True, default=str)
    return {
        f"{PREFIX}model": run.model,
        f"{PREFIX}settings_sha256": hashlib.sha256(text.encode()).hexdigest(),
        f"{PREFIX}hold": str(run.hold or "-"),
        f"{PREFIX}deal_price": run.price,
        f"{PREFIX}trading": trading,
        f"{PREFIX}code_commit": git_commit() or "-",
        f"{PREFIX}version": package_version(),
    }


def log_run(recorder: MLflowRecorder, params: Mapping[str, str]) -> None:
    """Write parameters, and the tag that tells one trial from another."""
    recorder.log_params(**params)
    recorder.set_tags(**{TRIAL: _trial(params)})


def count_trials(recorder: MLflowRecorder, params: Mapping[str, str]) -> int:
    """How many different settings this experiment has tried, those of `params` counted.

    Runs of equal model, market and settings are one trial, however often they were started. Another seed, span or
    commit makes no trial; another checkpoint, sampling setting or trade does.
    """
    client, tried = MlflowClient(tracking_uri=recorder.uri), {_trial(params)}
    token: str | None = None
    while True:
        page = client.search_runs([recorder.experiment_id], page_token=token)
        tried |= {run.data.tags[TRIAL] for run in page if TRIAL in run.data.tags}
        token = page.token
        if not token:
            return len(tried)


@contextmanager
def forecast_run(known: Provenance, spec: WindowSpec, data: Path) -> Iterator[Callable[[Filled], Filled]]:
    """A run on record while forecasts are made; whatever stops it leaves it there as failed.

    Args:
        known: of the forecasts.
        spec: of their windows.
        data: the Qlib store.

    Yields:
        What writes down how a fill went, and hands it on.
    """
    R.start_exp(experiment_name=FORECASTS)
    recorder = R.get_recorder()
    status = Recorder.STATUS_FA

    def record(filled: Filled) -> Filled:
        done: dict[str, float] = {
            "dates": len(filled),
            "dates_computed": filled.computed,
            "windows_computed": filled.windows,
        }
        done |= {"windows_per_second": filled.windows / filled.seconds} if filled.windows else {}
        recorder.log_metrics(**done)
        dates = list(filled.digests)
        folders = {STORE: str(filled.stored.folder.resolve()), DATA: str(data.expanduser().resolve())}
        recorder.set_tags(**folders, **{FIRST: str(dates[0]), LAST: str(dates[-1])})
        return filled

    try:
        log_run(recorder, run_params(known, spec))
        yield record
        status = Recorder.STATUS_FI
    finally:
        R.end_exp(status)


def _trial(params: Mapping[str, str]) -> str:
    apart = {f"{PREFIX}{name}" for name in ("code_commit", "version", "seed", "data_sha256")}
    settings = {name: value for name, value in params.items() if name not in apart}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
