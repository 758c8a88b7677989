"""Pages that this project wrote: the reports of runs in a tracking store, and pages in folders."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

SUFFIXES = (".html", ".json", ".csv")  # of files that are sent
REPORT = Path("kronos") / "report.html"  # in the artifacts of a run
HEAD = 64 * 1024  # characters of a page that show what it is
MAX_PAGES = 500  # of folders, the latest
SQLITE = "sqlite:///"
_KIND = re.compile(r'<p class="eyebrow">Kronos (report|forecast)</p>')
_TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)
_COMPARISON = 'href="#versions"'  # the only section of a comparison


@dataclass(frozen=True)
class Page:
    """A page to link to.

    Attributes:
        key: its name in addresses.
        kind: "report", "comparison" or "forecast".
        title: title of the page, or name of the run.
        source: where it is from: experiment and run, or file.
        written: local time at which it was written, ISO.
        metrics: some of its metrics by name.
        file: the page; None where it lies outside of the folders that may be read.
        root: folder whose files may be sent with it.
    """

    key: str
    kind: str
    title: str
    source: str
    written: str
    metrics: dict[str, float]
    file: Path | None
    root: Path

    def as_dict(self) -> dict[str, Any]:
        """For the page that lists it; the address is None where it cannot be opened."""
        address = None
        if self.file is not None:
            address = f"/reports/{self.key}/{self.file.relative_to(self.root).as_posix()}"
        shown = ("kind", "title", "source", "written", "metrics")
        return {**{name: getattr(self, name) for name in shown}, "address": address}


class Reports:
    """The pages of a tracking store and of folders.

    Args:
        tracking: address of an MLflow store; None for none.
        folders: folders that hold pages, at any depth.

    Raises:
        FileNotFoundError: a folder or the database of the store is not there.
    """

    def __init__(self, tracking: str | None = None, folders: Sequence[Path] = ()) -> None:
        self.folders = [folder.expanduser().resolve() for folder in folders]
        for given, folder in zip(folders, self.folders, strict=True):
            if not folder.is_dir():
                raise FileNotFoundError(f"{given} is not a folder of reports. Check the path.")
        self.tracking = tracking
        self._store = _folder_of_store(tracking)
        self._found: dict[str, Page] = {}

    def pages(self) -> tuple[list[Page], list[str]]:
        """Pages, the latest first, and sentences about what cannot be listed."""
        notes: list[str] = []
        runs = self._runs(notes) if self.tracking is not None else []
        known = {page.file for page in runs}
        files = [page for folder in self.folders for page in _pages_in(folder) if page.file not in known]
        pages = sorted([*runs, *files], key=lambda page: page.written, reverse=True)
        self._found = {page.key: page for page in pages}
        return pages, notes

    def find(self, key: str, path: str) -> Path | None:
        """A file of a page, by the address that `Page.as_dict` gives or next to it; None without one."""
        if key not in self._found:
            self.pages()
        page = self._found.get(key)
        return None if page is None or page.file is None else file_inside(page.root, path)

    def _runs(self, notes: list[str]) -> list[Page]:
        """Runs with a report, of the tracking store."""
        assert self.tracking is not None
        try:
            from kronos_strategies.qlib.experiment import absolute, local_path
            from kronos_strategies.qlib.tracking import SHORT, recorded_runs
        except ImportError:
            notes.append("Runs are listed where Qlib is installed: pip install 'kronos-strategies[qlib]'.")
            return []
        roots = [folder for folder in (self._store, *self.folders) if folder is not None]
        found = []
        for run in recorded_runs(absolute(self.tracking)):
            artifacts = local_path(str(run.info.artifact_uri))
            if artifacts is None or not (artifacts / REPORT).is_file():
                continue
            root = (artifacts / REPORT).parent.resolve()
            inside = any(root.is_relative_to(folder) for folder in roots)
            wanted = ("rank_ic", "net_return", "sharpe")
            metrics = {name: run.data.metrics[name] for name in wanted if name in run.data.metrics}
            found.append(
                Page(
                    key=run.info.run_id,
                    kind="report",
                    title=_title_of(artifacts / REPORT) if inside else str(run.info.run_name),
                    source=f"run {run.info.run_id[:SHORT]} of {run.info.run_name}",
                    written=_time(run.info.start_time / 1000),
                    metrics=metrics,
                    file=root / REPORT.name if inside else None,
                    root=root,
                )
            )
        if any(page.file is None for page in found):
            notes.append("Reports outside of the given folders are not linked: name theirs with --reports.")
        return found


def file_inside(root: Path, relative: str) -> Path | None:
    """A file of a known type in or below a folder, links resolved; None if it is elsewhere or missing."""
    with suppress(ValueError, OSError):  # a null byte, a name that is too long
        path = (root / relative).resolve()
        if path.is_relative_to(root.resolve()) and path.suffix in SUFFIXES and path.is_file():
            return path
    return None


def _folder_of_store(tracking: str | None) -> Path | None:
    """The folder of a local tracking store, which its artifacts may not leave."""
    if tracking is None:
        return None
    if tracking.startswith(SQLITE):
        file = Path(tracking.removeprefix(SQLITE)).expanduser().resolve()
        if not file.is_file():
            raise FileNotFoundError(
                f"There is no record of runs at {file}. Pass the tracking store of the runs with --tracking."
            )
        return file.parent
    return None if "://" in tracking else Path(tracking).expanduser().resolve()


def _pages_in(folder: Path) -> list[Page]:
    """Pages of this project in a folder and below."""
    dated = []
    for path in folder.rglob("*.html"):
        file = file_inside(folder, str(path.relative_to(folder)))
        if file is not None:
            dated.append((file.stat().st_mtime, file))
    found = []
    for modified, file in sorted(dated, reverse=True)[:MAX_PAGES]:
        head = _head(file)
        kind = _KIND.search(head)
        if kind is None:
            continue
        name = "comparison" if _COMPARISON in head else kind[1]
        key = hashlib.sha256(str(file).encode()).hexdigest()[:32]
        source = file.relative_to(folder).as_posix()
        found.append(Page(key, name, _title_in(head), source, _time(modified), {}, file, file.parent))
    return found


def _head(file: Path) -> str:
    with file.open(encoding="utf-8", errors="replace") as stream:
        return stream.read(HEAD)


def _title_of(file: Path) -> str:
    return _title_in(_head(file))


def _title_in(head: str) -> str:
    found = _TITLE.search(head)
    return html.unescape(found[1]).strip() if found else ""


def _time(seconds: float) -> str:
    local = datetime.fromtimestamp(seconds, timezone.utc).astimezone()
    return local.strftime("%Y-%m-%d %H:%M")
