"""One job at a time in a thread of its own: events to follow, and cancellation between its steps."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, NamedTuple

from kronos.utils import USER_ERRORS

_log = logging.getLogger(__name__)

KEPT = 3  # jobs whose results stay in memory
HEARTBEAT = 15.0  # seconds between signs of life, by which a closed connection is noticed


class Canceled(Exception):
    """Raised within a job that is canceled."""


class BusyError(Exception):
    """Another job is running."""


class Event(NamedTuple):
    """What a job reports: its name and values that JSON can hold. None for a sign of life."""

    name: str
    values: dict[str, Any]


class Job:
    """Work in progress or done.

    Attributes:
        id: unguessable name.
        result: set by the work itself.
    """

    ENDS = ("done", "failed", "canceled")  # names of the last event

    def __init__(self) -> None:
        self.id = secrets.token_urlsafe(12)
        self.result: Any = None
        self._events: list[Event] = []
        self._canceled = threading.Event()
        self._followers: set[Callable[[], object]] = set()
        self._closed = False
        self._lock = threading.RLock()  # `close` may interrupt a thread that holds it

    @property
    def ended(self) -> bool:
        """Whether the last event has been reported."""
        return bool(self._events) and self._events[-1].name in self.ENDS

    def report(self, name: str, **values: Any) -> None:
        """Add an event."""
        with self._lock:
            self._events.append(Event(name, values))
        self._wake()

    def progress(self, done: int, total: int) -> None:
        """Report progress, and end a canceled job; the work calls it between its steps.

        Raises:
            Canceled: the job is canceled.
        """
        if self._canceled.is_set():
            raise Canceled
        self.report("progress", done=done, total=total)

    def cancel(self) -> None:
        """Ask the work to end at its next step."""
        self._canceled.set()

    def close(self) -> None:
        """Cancel, and let its followers go at once."""
        self.cancel()
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            followers = list(self._followers)
        for wake in followers:
            with suppress(RuntimeError):  # its loop is closed
                wake()

    async def follow(self, after: int = 0) -> AsyncIterator[tuple[int, Event | None]]:
        """Events from number `after` on with their numbers, as they come; None in place of a sign of life."""
        changed, loop = asyncio.Event(), asyncio.get_running_loop()

        def wake() -> None:
            loop.call_soon_threadsafe(changed.set)

        with self._lock:
            self._followers.add(wake)
        try:
            while True:
                changed.clear()
                for event in self._events[after:]:
                    yield after, event
                    after += 1
                if (self.ended or self._closed) and after >= len(self._events):
                    return
                try:
                    await asyncio.wait_for(changed.wait(), HEARTBEAT)
                except asyncio.TimeoutError:
                    yield after, None
        finally:
            with self._lock:
                self._followers.discard(wake)


class JobRunner:
    """Starts jobs, one at a time, and keeps the last ones."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self, work: Callable[[Job], None]) -> Job:
        """Run `work(job)` in a thread.

        Raises:
            BusyError: the last job has not ended.
        """
        with self._lock:
            if self._jobs and not next(reversed(self._jobs.values())).ended:
                raise BusyError("Another forecast is running. Wait for its end, or cancel it.")
            job = Job()
            self._jobs[job.id] = job
            while len(self._jobs) > KEPT:
                self._jobs.popitem(last=False)
            self._thread = threading.Thread(target=_run, args=(work, job), name=f"job-{job.id}", daemon=True)
            self._thread.start()
        return job

    def get(self, key: str) -> Job | None:
        """A job by its id; None if it is unknown or no longer kept."""
        return self._jobs.get(key)

    def close(self) -> None:
        """Cancel what runs, and let all followers go."""
        for job in list(self._jobs.values()):
            job.close()

    def wait(self, seconds: float) -> bool:
        """Wait for the work of the last job; whether it has ended."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()


def _run(work: Callable[[Job], None], job: Job) -> None:
    try:
        work(job)
        job.report("done")
    except Canceled:
        job.report("canceled")
    except USER_ERRORS as error:
        job.report("failed", message=str(error))
    except Exception:
        _log.exception("A forecast failed.")
        job.report("failed", message="The forecast failed by an internal error, which the terminal shows.")
