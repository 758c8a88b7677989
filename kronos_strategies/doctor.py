"""What this installation has, what is wrong with it, what to fix first; without extras or a working torch."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from kronos.hub import is_offline
from kronos.utils import DRAFT, usable_cpus

PROJECT = "kronos-strategies"
_NO_USE = {"all", "dev", "docs"}  # extras that hold others, or serve development
_LITTLE = 1 << 30  # bytes of free disk
Section = Mapping[str, Any]


@dataclass
class Diagnosis:
    """Facts by section, and what follows from them.

    Attributes:
        sections: facts of the system, packages, devices, threads, and, where asked for, data and store; ready for
            JSON.
        problems: what does not work, most important first.
        advice: what works but could be better, most important first.
    """

    sections: dict[str, Section] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    @property
    def fix_first(self) -> str | None:
        """The first problem, else the first advice."""
        return next(iter([*self.problems, *self.advice]), None)

    def as_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "healthy": self.healthy,
            "fix_first": self.fix_first,
            "problems": self.problems,
            "advice": self.advice,
            **self.sections,
        }


def diagnose(data: Path | None = None, store: Path | None = None) -> Diagnosis:
    """Inspect this installation, and a data directory and a forecast store if given.

    Args:
        data: Qlib data directory.
        store: forecast store; files are counted, not read.
    """
    found = Diagnosis()
    found.sections["system"] = _system()
    found.sections["packages"] = _packages(found)
    found.sections["devices"] = _devices(found)
    found.sections["threads"] = _threads(found)
    found.sections["checkpoints"] = _checkpoints(found)
    if data is not None:
        found.sections["data"] = _data(data.expanduser(), found)
    if store is not None:
        found.sections["store"] = _store(store.expanduser(), found)
    return found


def _system() -> Section:
    from kronos.utils import git_commit

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        PROJECT: _version(PROJECT) or "not installed",
        "commit": git_commit(),
        "cpus": usable_cpus(),
        "memory": _memory(),
    }


def _packages(found: Diagnosis) -> Section:
    """Versions by extra; missing and outdated ones are problems if nothing works without them."""
    from packaging.requirements import Requirement

    sections: dict[str, dict[str, str | None]] = {"required": {}}
    outdated: list[str] = []
    for text in metadata.requires(PROJECT) or []:
        wanted = Requirement(text)
        extra = _extra_of(wanted)
        if extra in _NO_USE or wanted.name == PROJECT or not _applies(wanted, extra):
            continue
        version, install = _version(wanted.name), f"pip install '{wanted.name}{wanted.specifier}'"
        sections.setdefault(extra or "required", {})[wanted.name] = version
        if version is None and extra is None:
            found.problems.append(f"{wanted.name} is not installed: {install}.")
        elif version is not None and not wanted.specifier.contains(version, prereleases=True):
            fix = f"{wanted.name} {version} does not fit {wanted.specifier}: {install}."
            outdated += [fix] if fix not in outdated else []
    found.problems += outdated
    if absent := [extra for extra, versions in sections.items() if None in versions.values()]:
        found.advice.append(
            f"The extras {', '.join(absent)} are not complete. If you need one: pip install "
            f"'{PROJECT}[{absent[0]}]'."
        )
    return sections


def _devices(found: Diagnosis) -> Section:
    try:
        import torch
    except Exception as error:  # a broken build raises whatever its loader raises
        found.problems.insert(0, f"torch cannot be imported ({_line(error)}). Install it again.")
        return {"torch": None}
    names = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    cuda = [f"{each.name}, {decimal(each.total_memory)}" for each in names]
    if torch.version.cuda is not None and not cuda:
        found.advice.append("This torch is a CUDA build and finds no CUDA device; forecasts run on the CPU.")
    return {
        "torch": torch.__version__,
        "cuda": cuda,
        "mps": bool(torch.backends.mps.is_available()),
        "blas": _blas(torch.__config__.show()),
        "numpy blas": _numpy_blas(),
    }


def _threads(found: Diagnosis) -> Section:
    try:
        import torch
    except Exception:
        return {}
    threads, cpus = torch.get_num_threads(), usable_cpus()
    if threads > cpus:
        found.advice.append(
            f"torch uses {threads} threads and this process may use {cpus} processors, which slows it down. Set "
            f"OMP_NUM_THREADS={cpus}."
        )
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {"torch": threads, "between operations": torch.get_num_interop_threads()} | {
        name: os.environ[name] for name in names if name in os.environ
    }


def _checkpoints(found: Diagnosis) -> Section:
    from kronos.config import PRETRAINED

    names = sorted(path.parent.parent.name for path in PRETRAINED.glob("*/predictor/model.safetensors"))
    if not names:
        found.problems.append(f"There is no bundled checkpoint in {PRETRAINED}. Install {PROJECT} again.")
    facts: dict[str, Any] = {"bundled": names, "offline": is_offline()}
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except Exception as error:
        found.problems.append(f"huggingface_hub cannot be imported ({_line(error)}). Install it again.")
        return facts
    cached = sorted(path.name[8:].replace("--", "/") for path in Path(HF_HUB_CACHE).glob("models--*"))
    _check_room(Path(HF_HUB_CACHE), found.advice)
    return facts | {"hub cache": HF_HUB_CACHE, "in the cache": cached}


def _data(folder: Path, found: Diagnosis) -> Section:
    from kronos_strategies.data.qlib_bins import read_calendar, read_market, store_freq
    from kronos_strategies.data.simulate import data_warnings

    try:
        days = read_calendar(folder)
        markets = {file.stem: file for file in sorted((folder / "instruments").glob("*.txt"))}
        counts = {name: int(read_market(folder, name)["instrument"].nunique()) for name in markets}
        first, last, freq = days[0], days[-1], store_freq(folder)
        found.advice += data_warnings(folder)
    except (OSError, ValueError, IndexError, KeyError) as error:
        found.problems.append(
            f"{folder} is not a Qlib data directory ({_line(error)}). Make one, e.g. with `kronos data import`."
        )
        return {"folder": str(folder)}
    held = sum(1 for each in (folder / "features").glob("*") if each.is_dir())
    if held < counts.get("all", 0):
        found.problems.append(
            f"{folder} has bars of {held:,} instruments and instruments/all.txt lists {counts['all']:,}. Make it "
            "again."
        )
    return {
        "folder": str(folder),
        "frequency": freq,
        "start": f"{first:%Y-%m-%d}",
        "end": f"{last:%Y-%m-%d}",
        "bars": len(days),
        "markets": counts,
    }


def _store(folder: Path, found: Diagnosis) -> Section:
    if not folder.is_dir():
        found.problems.append(
            f"There is no forecast store {folder}. Fill one with `kronos store fill {folder} ...`."
        )
        return {"folder": str(folder)}
    from kronos_strategies.store.forecast_set import ForecastSet
    from kronos_strategies.store.settings import MANIFEST

    sets, unusable = [], []
    for manifest in sorted(folder.glob(f"*/*/{MANIFEST}")):
        try:
            sets.append(ForecastSet(manifest.parent))
        except (ValueError, OSError) as error:
            unusable.append(f"{manifest.parent}: {_line(error)}")
    empty = [file for file in folder.rglob("*.parquet") if file.stat().st_size == 0]
    drafts = sum(1 for _ in folder.rglob(f".*{DRAFT}"))
    if unusable:
        found.problems.append(f"{len(unusable)} forecast sets cannot be read, the first {unusable[0]}")
    if empty:
        found.problems.append(
            f"{len(empty)} files of {folder} are empty, the first {empty[0]}. Fill the store again."
        )
    if drafts:
        found.advice.append(
            f"{drafts} unfinished files are in {folder}: of a process that writes now, or of one that was killed."
        )
    _check_room(folder, found.problems)
    dates = [date for each in sets for date in (each.dates[:1].append(each.dates[-1:]))]
    return {
        "folder": str(folder),
        "forecast sets": len(sets),
        "unusable": len(unusable),
        "dates": sum(map(len, sets)),
        "start": f"{min(dates):%Y-%m-%d}" if dates else None,
        "end": f"{max(dates):%Y-%m-%d}" if dates else None,
        "size": decimal(sum(each.size for each in sets)),
        "unfinished files": drafts,
    }


def _check_room(folder: Path, remarks: list[str]) -> None:
    """Remark on a disk that is nearly full, or a folder that cannot be written."""
    there = next((each for each in (folder, *folder.parents) if each.exists()), None)
    if there is None:
        return
    free = shutil.disk_usage(there).free
    if free < _LITTLE:
        remarks.append(f"The disk of {there} has {decimal(free)} free. Make room.")
    elif not os.access(there, os.W_OK):
        remarks.append(f"{there} cannot be written. Change its permissions, or choose another folder.")


def _extra_of(wanted: Any) -> str | None:
    """The extra that a requirement belongs to."""
    extras: Iterable[str] = metadata.metadata(PROJECT).get_all("Provides-Extra") or ()
    if wanted.marker is None or "extra" not in str(wanted.marker):
        return None
    return next((extra for extra in extras if f'extra == "{extra}"' in str(wanted.marker)), None)


def _applies(wanted: Any, extra: str | None) -> bool:
    return wanted.marker is None or bool(wanted.marker.evaluate({"extra": extra or ""}))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _memory() -> str | None:
    try:
        return decimal(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def _blas(config: str) -> str:
    """The BLAS of torch by its build configuration."""
    found = re.search(r"BLAS_INFO=(\w+)", config)
    return found[1] if found else "unknown"


def _numpy_blas() -> str:
    try:
        import numpy as np

        built: Any = np.show_config(mode="dicts")
        blas = built["Build Dependencies"]["blas"]
        return f"{blas['name']} {blas['version']}"
    except Exception:  # a detail of numpy's build, which is only shown
        return "unknown"


def _line(error: BaseException) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__).rstrip(".")
