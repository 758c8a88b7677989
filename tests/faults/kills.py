"""Work that is killed at random moments and started again, until it is complete.

    python -m tests.faults.kills FOLDER KILLS SEED TASK...

forks a process for each attempt from one that has loaded everything. Every other attempt is killed at a random
moment of its duration, the rest before a random one of its calls that open, rename or delete a file. After each
kill, what is left has to be whole; in the end, the content has to be that of an attempt that was not stopped. It
prints the number of kills of each task as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")


class Task(NamedTuple):
    """Work on a folder.

    Attributes:
        prepare: loads what the work needs, once.
        run: does or resumes it.
        check: fails unless what a killed process left is whole.
        content: hashes of the results.
    """

    prepare: Callable[[], object]
    run: Callable[[Path], object]
    check: Callable[[Path], object]
    content: Callable[[Path], dict[str, str]]


def hashes(folder: Path, *patterns: str) -> dict[str, str]:
    """sha256 of the files that match."""
    files = [path for pattern in patterns for path in folder.glob(pattern) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# A forecast store, one date per chunk, so that rounding does not depend on where it was interrupted


@cache
def _forecasts() -> tuple[Any, ...]:
    import kronos_strategies.forecasting
    from kronos.predictor import KronosPredictor
    from tests.kronos.builders import make_panel
    from tests.kronos_strategies.store.conftest import NAMES, windows_of

    kronos_strategies.forecasting.CHUNK_WINDOWS = len(NAMES)
    predictor = KronosPredictor.from_pretrained("kronos-nano", device="cpu")
    windows = windows_of(make_panel(60, *NAMES))
    predictor.forecast(windows[:4])
    return predictor, windows


def _fill(folder: Path) -> None:
    from kronos_strategies.store import ForecastStore
    from tests.kronos_strategies.store.conftest import SAMPLING, SPEC

    predictor, windows = _forecasts()
    ForecastStore(folder).fill(predictor, windows, SPEC, SAMPLING)


def _check_store(folder: Path) -> None:
    from kronos_strategies.store.maintenance import verify_store

    if folder.is_dir():
        assert verify_store(folder).problems == ()


def _store(folder: Path) -> dict[str, str]:
    from kronos_strategies.store.maintenance import collect_garbage

    collect_garbage(folder, dry_run=False)
    assert not list(folder.rglob("*.tmp")), "what killed processes left is deleted"
    return hashes(folder, "*/*/date=*/*")


# Training of a tokenizer, then of a predictor on its tokens


def _train(folder: Path) -> None:
    from kronos.training.run import run_stage
    from tests.kronos.training.builders import make_run

    os.environ["XDG_CACHE_HOME"] = str(folder.parent / "cache")
    for stage in ("tokenizer", "predictor"):
        run_stage(stage, make_run(folder.parent, output=folder, resume=True))


def _check_training(folder: Path) -> None:
    from safetensors.torch import load_file

    for path in folder.glob("*/*/model.safetensors"):
        load_file(path)
        json.loads((path.parent / "config.json").read_text())
    for path in folder.glob("run/*/state-*/progress.json"):
        json.loads(path.read_text())


def _trained(folder: Path) -> dict[str, str]:
    curves = {
        path.parent.name: pd.read_csv(path).drop(columns="seconds")
        for path in folder.glob("run/*/losses.csv")
    }
    return hashes(folder, "best/*/*.safetensors", "last/*/*.safetensors") | {
        name: frame.to_json() for name, frame in curves.items()
    }


# A return head


@cache
def _hidden() -> tuple[Any, ...]:
    from kronos_strategies.heads.fit import FitSettings
    from tests.kronos.builders import make_panel

    panel = make_panel(160, *(f"N{i}" for i in range(30)))
    dates = next(iter(panel.values())).index[20:140]
    keys = pd.MultiIndex.from_product([dates, list(panel)], names=["datetime", "instrument"])
    hidden = np.random.default_rng(0).normal(size=(len(keys), 8)).astype(np.float32)
    return panel, keys, hidden, FitSettings(dates[70], dates[-1], horizons=(1, 5))


def _fit(folder: Path) -> None:
    from kronos_strategies.heads.fit import fit_head

    panel, keys, hidden, settings = _hidden()
    fit_head(hidden, keys, panel, settings, lookback=20, markets=["test"]).save(folder)


def _check_head(folder: Path) -> None:
    from kronos.head import HEAD_INFO, ReturnHead

    if (folder / HEAD_INFO).is_file():
        assert ReturnHead.from_pretrained(folder)(_hidden()[2][:5]).shape == (5, 2)


# A report and the artifacts that it is made from


@cache
def _artifacts() -> tuple[Any, ...]:
    from kronos_strategies.report.report import build_report
    from tests.kronos_strategies.test_run_artifacts import make_artifacts

    artifacts = make_artifacts()
    return artifacts, build_report(artifacts)


def _report(folder: Path) -> None:
    from kronos_strategies.report.export import save_report

    artifacts, report = _artifacts()
    artifacts.write(folder / "artifacts")
    save_report(report, folder)


def _check_report(folder: Path) -> None:
    from kronos_strategies.run_artifacts import RunArtifacts

    for path in folder.glob("[!.]*"):
        if path.suffix == ".html":
            assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".csv":
            assert path.read_text(encoding="utf-8").endswith("\n")
    if (folder / "artifacts").exists():
        RunArtifacts.read(folder / "artifacts")


# An import that replaces an earlier one


@cache
def _imported() -> tuple[pd.DataFrame, ...]:
    from tests.kronos.builders import make_bars

    frames = [make_bars(300, seed).reset_index().assign(instrument=f"SH60000{seed}") for seed in range(6)]
    return pd.concat(frames[:3]), pd.concat(frames)


def _import(folder: Path, which: int = 1) -> None:
    from kronos_strategies.data.importer import import_bars
    from kronos_strategies.data.qlib_store import write_store
    from kronos_strategies.data.validation import listing_spans

    file = folder.parent / f"bars {os.getpid()}.csv"
    if which:
        file.write_text(_imported()[which].to_csv(index=False))
        bars = import_bars([file]).bars
    else:
        bars = _imported()[which]
    write_store(bars, folder, membership={"m": listing_spans(bars)}, source={}, overwrite=True)


def _check_import(folder: Path) -> None:
    from kronos.utils import recover_folder
    from kronos_strategies.data.qlib_store import check_intact, read_summary

    recover_folder(folder)
    if not folder.exists():
        _import(folder, 0)  # the earlier import, which the next attempt replaces
    assert check_intact(folder) > 0
    assert read_summary(folder).rows in (900, 1800)


TASKS = {
    "fill": Task(_forecasts, _fill, _check_store, _store),
    "train": Task(lambda: __import__("kronos.training.run"), _train, _check_training, _trained),
    "head": Task(_hidden, _fit, _check_head, lambda folder: hashes(folder, "[!.]*")),
    "report": Task(_artifacts, _report, _check_report, lambda folder: hashes(folder, "[!.]*", "artifacts/*")),
    "import": Task(_imported, _import, _check_import, lambda folder: hashes(folder, "**/*")),
}


def start(task: Task, folder: Path, event: int = 0, counted: Path | None = None) -> int:
    """A process that does the work; it kills itself before an event of that number, or counts them."""
    child = os.fork()
    if child:
        return child
    count = 0

    def hook(name: str, _: object) -> None:
        nonlocal count
        if name in EVENTS:
            count += 1
            if count == event:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        with (folder.parent / "output.txt").open("w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            sys.addaudithook(hook)
            task.run(folder)
            if counted is not None:
                counted.write_text(str(count))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def ended(child: int, folder: Path) -> bool:
    """Whether a process ended by itself, after waiting for it; False if it was killed."""
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise AssertionError((folder.parent / "output.txt").read_text())
    return os.WIFEXITED(status)


def survive(task: Task, folder: Path, kills: int, chance: random.Random) -> int:
    """Kill and resume; returns the number of processes that were killed."""
    task.prepare()
    whole, killed, counted = folder / "whole" / "out", folder / "killed" / "out", folder / "events.txt"
    for path in (whole, killed):
        path.parent.mkdir(parents=True)
    began = time.monotonic()
    assert ended(start(task, whole, counted=counted), whole)
    seconds, events = time.monotonic() - began, int(counted.read_text())
    expected = task.content(whole)
    assert expected
    done = 0
    for attempt in range(20 * kills):
        if done == kills:
            break
        if attempt % 2:
            child = start(task, killed)
            time.sleep(chance.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
        else:
            child = start(task, killed, event=chance.randint(1, events))
        if ended(child, killed):  # it was faster: begin again
            assert task.content(killed) == expected
            shutil.rmtree(killed)
            continue
        done += 1
        task.check(killed)
    assert ended(start(task, killed), killed)
    assert task.content(killed) == expected, "the content is that of an attempt that was not stopped"
    return done


def main() -> None:
    """Run all tasks, one after the other."""
    import torch

    torch.set_num_threads(1)
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    names = sys.argv[4:] or list(TASKS)
    found = {
        name: survive(TASKS[name], folder / name, kills, random.Random(f"{seed} {name}")) for name in names
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
