"""The one progress bar of all that takes long: how much is done, how fast, how much longer."""

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
    """What reports a part's own count as that of the whole, of which `before` were done when the part began."""
    return lambda done: whole(before + done, total)


@contextmanager
def progress_bar(what: str, unit: str) -> Iterator[ProgressReport]:
    """A bar on stderr, moved by the function that it yields; nothing where stderr is no terminal.

    Args:
        what: is being done.
        unit: of the counts, in the plural; the speed is shown in it.
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
    """What has a length and can be gone through."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[T_co]: ...


def track(items: Countable[T_co], what: str, unit: str) -> Iterator[T_co]:
    """The items, under a `progress_bar` that moves when the next one is asked for."""
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
