from __future__ import annotations

import asyncio
import threading

import pytest

from kronos_strategies.serve.jobs import KEPT, BusyError, Event, Job, JobRunner

from .conftest import LIMIT, ended, wait_for


def events_of(job: Job, after: int = 0) -> list[Event | None]:
    """All events of a job, until its end."""

    async def follow() -> list[Event | None]:
        return [event async for _, event in job.follow(after)]

    return asyncio.run(asyncio.wait_for(follow(), LIMIT))


def test_a_follower_gets_every_event_whenever_it_comes(runner: JobRunner) -> None:
    go = threading.Event()

    def work(job: Job) -> None:
        job.progress(1, 2)
        assert go.wait(LIMIT)
        job.progress(2, 2)

    job = runner.start(work)
    threading.Timer(0.05, go.set).start()
    during = events_of(job)
    assert during == events_of(job)
    assert [event.name for event in during if event] == ["progress", "progress", "done"]
    assert events_of(job, after=2) == during[2:]


def test_one_job_runs_at_a_time(runner: JobRunner) -> None:
    go = threading.Event()
    job = runner.start(lambda job: go.wait(LIMIT) and None)
    with pytest.raises(BusyError, match="Another forecast is running"):
        runner.start(lambda job: None)
    go.set()
    ended(runner, job.id)
    assert ended(runner, runner.start(lambda job: None).id) is not job


def test_a_canceled_job_ends_at_its_next_step(runner: JobRunner) -> None:
    steps = []

    def work(job: Job) -> None:
        for step in range(10**9):
            job.progress(step, 10**9)
            steps.append(step)
            assert canceled.wait(LIMIT)

    canceled = threading.Event()
    job = runner.start(work)
    wait_for(lambda: steps)
    job.cancel()
    canceled.set()
    ended(runner, job.id)
    assert steps == [0]
    assert [event.name for event in events_of(job) if event] == ["progress", "canceled"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("The bars are bad. Fix them."), "The bars are bad. Fix them."),
        (KeyError("secret"), "The forecast failed by an internal error, which the terminal shows."),
    ],
)
def test_an_error_is_one_sentence_and_the_next_job_can_start(
    error: Exception, message: str, runner: JobRunner
) -> None:
    def work(job: Job) -> None:
        raise error

    job = ended(runner, runner.start(work).id)
    assert events_of(job) == [Event("failed", {"message": message})]
    ended(runner, runner.start(lambda job: None).id)


def test_only_the_last_jobs_are_kept(runner: JobRunner) -> None:
    keys = [ended(runner, runner.start(lambda job: None).id).id for _ in range(KEPT + 2)]
    assert [runner.get(key) is not None for key in keys] == [False] * 2 + [True] * KEPT
    assert len(set(keys)) == len(keys)


def test_closing_ends_the_followers_while_the_work_still_runs(runner: JobRunner) -> None:
    go = threading.Event()
    job = runner.start(lambda job: go.wait(LIMIT) and None)
    threading.Timer(0.05, runner.close).start()
    assert events_of(job) == []
    go.set()
    ended(runner, job.id)
