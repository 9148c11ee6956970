"""The cluster model agrees with what is known without it."""

from __future__ import annotations

import pytest

from bench.cluster import WorkerModel, finish_times, plan


def test_a_backlog_of_hits_takes_their_processor_time() -> None:
    worker = WorkerModel(hit_s=0.001, miss_s=0.01, max_in_flight=10)
    assert finish_times(worker, [0.0] * 100, [-1.0] * 100)[-1] == pytest.approx(0.1)


def test_room_bounds_the_rate_where_calls_are_long() -> None:
    worker = WorkerModel(hit_s=0.001, miss_s=0.0001, max_in_flight=10)
    last = finish_times(worker, [0.0] * 1000, [1.0] * 1000)[-1]
    assert 1000 / last == pytest.approx(10, rel=0.02)


def test_the_processor_bounds_the_rate_where_there_is_room() -> None:
    worker = WorkerModel(hit_s=0.001, miss_s=0.01, max_in_flight=10_000)
    last = finish_times(worker, [0.0] * 1000, [0.5] * 1000)[-1]
    assert last == pytest.approx(10, rel=0.06)


def test_every_record_is_answered_once_and_none_before_its_call_is_back() -> None:
    worker = WorkerModel(hit_s=0.001, miss_s=0.002, max_in_flight=3)
    arrivals = [0.1 * number for number in range(20)]
    answered = finish_times(worker, arrivals, [0.25] * 20)
    assert len(answered) == 20
    assert all(end >= start + 0.25 for start, end in zip(arrivals, answered, strict=True))


def test_a_plan_counts_workers_by_processor_or_by_room() -> None:
    worker = WorkerModel(hit_s=0.0001, miss_s=0.001, max_in_flight=100)
    by_processor = plan(worker, 10_000, hit_share=0.5, mean_call_s=0.001, busy=0.5)
    assert (by_processor.workers, by_processor.partitions) == (11, 16)
    by_room = plan(worker, 10_000, hit_share=0.5, mean_call_s=2.0, busy=0.5)
    assert by_room.workers == 200
    assert by_room.calls_in_flight == 10_000
