"""Progress bar of long tasks: share done, speed, time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

T_co = TypeVar("T_co", covariant=True)

ProgressReport = Callable[[int, int], None]  # called as report(done, total)


def no_progress(done: int, total: int) -> None:
    """Report nothing."""


def offset_progress(whole: ProgressReport, before: int, total: int) -> Callable[[int], None]:
    """Progress callback of a part that starts after `before` items of the whole."""
    return lambda done: whole(before + done, total)


@contextmanager
def progress_bar(what: str, unit: str) -> Iterator[ProgressReport]:
    """Show a progress bar on stderr if that is a terminal, and yield the function that advances it.

    Args:
        what: description of the task.
        unit: plural name of what is counted; the speed is shown in it.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Speed(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class Countable(Protocol[T_co]):
    """A sized iterable."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[T_co]: ...


def track(items: Countable[T_co], what: str, unit: str) -> Iterator[T_co]:
    """Iterate over items with a progress bar."""
    with progress_bar(what, unit) as progress:
        for done, item in enumerate(items):
            progress(done, len(items))
            yield item


class _Speed(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} {self.unit}/s")
