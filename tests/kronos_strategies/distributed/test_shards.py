"""Shards and the workers that compute them, with workers whose messages are given."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import pytest

from kronos_strategies.distributed.shards import (
    DEATHS,
    Event,
    Outcome,
    Shard,
    WorkerError,
    plan_shards,
    run_shards,
)
from kronos_strategies.forecasting import WindowsByDate

DATES = tuple(pd.bdate_range("2024-01-01", periods=6))


def test_shards_are_consecutive_dates_up_to_a_limit_and_a_large_date_is_alone():
    a, b, c, d, e, f = DATES
    assert plan_shards(DATES, [3, 3, 3, 9, 1, 1], 6) == [(a, b), (c,), (d,), (e, f)]
    assert plan_shards([], [], 6) == []


def test_shards_of_all_dates_are_the_chunks_of_one_process(predictor, windows):
    from kronos_strategies.forecasting import iter_forecasts
    from tests.kronos_strategies.store.conftest import SAMPLING, Spy

    spy, dated = Spy(predictor), WindowsByDate(windows)
    list(iter_forecasts(spy, windows, SAMPLING))
    chunks = [tuple(keys.get_level_values("datetime").unique()) for keys in spy.asked]
    assert plan_shards(list(dated.dates), dated.rows.tolist(), 8) == chunks


class Scripted:
    """Workers that answer each shard with the next line of a script: an outcome, or the reason of a death."""

    described, device = "scripted", None

    def __init__(self, count: int, script: list[Outcome | str]) -> None:
        self.count, self.script = count, script
        self.news: list[Event] = [Event(worker, "ready") for worker in range(count)]
        self.given: list[Shard] = []
        self.stopped = False

    @contextmanager
    def start(self, task: Any, shards: int) -> Iterator[Scripted]:
        try:
            yield self
        finally:
            self.stopped = True

    def submit(self, worker: Hashable, shard: Shard) -> None:
        self.given.append(shard)
        answer = self.script.pop(0) if self.script else Outcome(len(shard.dates), len(shard.windows), False)
        if isinstance(answer, Outcome):
            half = len(shard.windows) // 2
            self.news += [Event(worker, "progress", half), Event(worker, "done", outcome=answer)]
        else:
            self.news += [Event(worker, "progress", 1), Event(worker, "died", reason=answer)]
            self.news += [Event(f"{worker}'", "ready")]

    def wait(self) -> list[Event]:
        return [self.news.pop(0)] if self.news else []


def run(pool: Scripted, windows: Any) -> tuple[Outcome, list[int]]:
    dated, reports = WindowsByDate(windows), []
    shards = plan_shards(list(dated.dates), dated.rows.tolist(), 8)
    done = run_shards(pool, None, shards, dated, lambda now, total: reports.append(now))
    return done, reports


def test_every_shard_is_computed_once_and_carries_only_its_own_bars(windows):
    pool = Scripted(3, [])
    done, reports = run(pool, windows)
    assert done == Outcome(15, 60, False)
    assert [date for shard in pool.given for date in shard.dates] == list(WindowsByDate(windows).dates)
    assert max(len(shard.windows.bars) for shard in pool.given) == 4 * 21 < len(windows.bars)
    assert reports[-1] == 60
    assert reports == sorted(reports)
    assert pool.stopped


def test_the_shard_of_a_dead_worker_is_handed_out_again(windows):
    pool = Scripted(2, [Outcome(2, 8, False), "it was ended by SIGKILL"])
    done, reports = run(pool, windows)
    assert done == Outcome(15, 60, False)
    assert [shard.dates for shard in pool.given].count(pool.given[1].dates) == 2
    assert reports[-1] == 60


def test_a_shard_that_ends_every_worker_ends_the_run_with_one_sentence(windows):
    pool = Scripted(1, ["it was ended by SIGKILL"] * 10)
    says = rf"^{DEATHS} workers ended while they computed the dates .*SIGKILL. If memory ran out, use fewer"
    with pytest.raises(WorkerError, match=says):
        run(pool, windows)
    assert len(pool.given) == DEATHS
    assert pool.stopped


def test_workers_that_end_before_they_are_ready_end_the_run(windows):
    pool = Scripted(1, [])
    pool.news = [Event(number, "died", reason="it ended with exit code 1") for number in range(10)]
    with pytest.raises(WorkerError, match=rf"^{DEATHS} workers ended while they started, .*exit code 1"):
        run(pool, windows)


def test_dates_of_another_run_are_looked_at_again(windows):
    pool = Scripted(1, [Outcome(0, 0, True), Outcome(1, 4, True)])
    done, _ = run(pool, windows)
    dates = [shard.dates for shard in pool.given]
    assert dates[:2] == dates[-2:]
    assert len(dates) == 8 + 2
    assert done.dates == 15 + 1  # what workers say, summed
