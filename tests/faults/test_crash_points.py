"""A worker that kills itself at a chosen step, and another that takes over.

What was recorded and what was paid for is counted between the two, so that every test knows the exact number of calls
that is due in the end.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass

import asyncpg
import pytest
from aiokafka import TopicPartition

from faults.conftest import Bench
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.records import Response
from support.crashing import PROGRAM, dies, planned
from support.fleet import Watch, ambiguous_calls, produce, request

pytestmark = pytest.mark.stack

WARM, LATE = 40, 60
"""Requests answered before, and those among which the worker dies."""
ALL = WARM + LATE
QUIET_S = 0.5
"""No call begins so long after a process has died: its sockets are read and its statements have ended."""


def _requests(prefix: str, count: int) -> list[bytes | None]:
    return [
        request(f"{prefix}{n}", f"question {n} of the {prefix} order {n * 3}", tenant=f"t{n % 40}")
        for n in range(count)
    ]


async def _rows(config: RuntimeConfig) -> Counter[str]:
    """How many rows of the journal are in each state."""
    connection = await asyncpg.connect(config.database_url)
    try:
        found = await connection.fetch("SELECT state, count(*) AS rows FROM journal GROUP BY state")
    finally:
        await connection.close()
    return Counter({row["state"]: row["rows"] for row in found})


async def _quiet(bench: Bench) -> None:
    """Until every call that was sent is generated and paid for."""
    async with asyncio.timeout(60):
        await asyncio.sleep(QUIET_S)
        while bench.simulator.active:
            await asyncio.sleep(0.05)


@dataclass
class Left:
    """What a dead worker left behind, and what came of it.

    Attributes:
        started: rows that were started and have no result.
        recorded: results.
        paid: calls, by the provider's log; once those under way at the death had ended.
        answered: responses that it wrote and a ``read_committed`` consumer saw. By their records' time, not by when
            they were seen: a transaction whose end is under way at the death may be seen any time after.
        heirs: responses that the second worker wrote.
        paid_in_all: calls once everything is answered.
        watch: every response and dead letter.
    """

    started: int
    recorded: int
    paid: int
    answered: int
    heirs: list[Response]
    paid_in_all: int
    watch: Watch


async def _crash(bench: Bench, point: str, *, armed_after: int = 0, policy: str = "retry") -> Left:
    """Answer ``WARM`` requests, die at ``point`` among ``LATE`` more, take over with a second worker."""
    plan = planned(point, on="late", armed_after=armed_after)
    doomed = await bench.worker(program=PROGRAM, STRATAROUTER_ON_AMBIGUOUS=policy, **plan)
    async with Watch(bench.config) as watch:
        await produce(bench.config, _requests("warm", WARM))
        await watch.until(WARM, timeout_s=60)
        assert len(bench.simulator.paid_calls) == WARM
        await produce(bench.config, _requests("late", LATE))
        await dies(doomed.process)
        died_ms = time.time() * 1000
        await _quiet(bench)
        await watch.settle(QUIET_S)
        rows, paid = await _rows(bench.config), len(bench.simulator.paid_calls)
        await bench.worker(STRATAROUTER_ON_AMBIGUOUS=policy)
        await watch.until(ALL, timeout_s=90)
        await watch.settle(2)
    assert "planned fault" in doomed.log.read_text()
    recorded = rows["succeeded"] + rows["failed"]
    written = zip(watch.seen.responses, watch.seen.written_ms, strict=True)
    heirs = [response for response, written_ms in written if written_ms > died_ms]
    answered = len(watch.seen.responses) - len(heirs)
    return Left(rows["started"], recorded, paid, answered, heirs, len(bench.simulator.paid_calls), watch)


async def _records_written(config: RuntimeConfig) -> int:
    """Responses on their topic, those of aborted transactions too."""
    topic = config.topic(config.responses_topic)
    reader = kafka_client.consumer(config, topic, group=None, isolation_level="read_uncommitted")
    await reader.start()
    try:
        places: list[TopicPartition] = kafka_client.places_of(reader, topic)
        ends = await reader.end_offsets(places)
        await reader.seek_to_beginning(*places)
        count = 0
        async with asyncio.timeout(60):
            while any([await reader.position(place) < ends[place] for place in places]):
                polled = await reader.getmany(timeout_ms=100)
                count += sum(len(records) for records in polled.values())
        return count
    finally:
        await reader.stop()


# --- rows 1 to 3: around the call ------------------------------------------------------------------------------


@pytest.mark.row(1)
async def test_a_kill_before_the_journal_says_started_pays_once(bench: Bench) -> None:
    left = await _crash(bench, "before_begin")
    assert (left.started, left.recorded, left.paid) == (0, WARM, WARM)
    bench.check(left.watch, ALL)
    assert left.paid_in_all == ALL


@pytest.mark.row(2)
async def test_a_kill_between_started_and_the_call_pays_once_under_retry(bench: Bench) -> None:
    left = await _crash(bench, "after_begin")
    assert left.started > 0
    assert left.paid == WARM
    bench.check(left.watch, ALL)
    assert left.paid_in_all == ALL
    assert await ambiguous_calls(bench.config) == left.started


@pytest.mark.row(3)
@pytest.mark.parametrize("point", ["after_call", pytest.param("before_finish", marks=pytest.mark.slow)])
async def test_a_kill_between_the_answer_and_its_record_repeats_the_calls_under_way_alone(
    bench: Bench, point: str
) -> None:
    left = await _crash(bench, point)
    assert left.paid > left.recorded
    assert left.paid - left.recorded <= left.started
    bench.check(left.watch, ALL)
    assert left.paid_in_all == left.paid + ALL - left.recorded
    assert max(bench.simulator.paid_by_request_id.values()) == 2
    assert await ambiguous_calls(bench.config) == left.started


@pytest.mark.row(2, 3)
@pytest.mark.parametrize("point", ["after_call", pytest.param("after_begin", marks=pytest.mark.slow)])
async def test_a_started_call_is_answered_with_ambiguous_under_fail_and_not_repeated(bench: Bench, point: str) -> None:
    left = await _crash(bench, point, policy="fail")
    assert left.started > 0
    assert left.paid_in_all == left.paid + ALL - left.recorded - left.started
    assert max(bench.simulator.paid_by_request_id.values()) == 1
    assert set(left.watch.seen.by_id.values()) == {1}
    assert len(left.watch.seen.by_id) == ALL
    assert left.watch.seen.dead_letters == []
    errors = [response.error for response in left.watch.seen.responses if response.status != "ok"]
    assert [error.code for error in errors if error is not None] == ["ambiguous"] * left.started


# --- rows 4 to 6: around the transaction -----------------------------------------------------------------------


@pytest.mark.row(4)
async def test_a_recorded_result_is_republished_without_a_call(bench: Bench) -> None:
    left = await _crash(bench, f"after_finish:{LATE}")
    assert left.recorded == ALL
    assert left.answered < ALL
    bench.check(left.watch, ALL)
    assert [response.request_id for response in left.heirs if not response.from_journal] == []
    assert left.paid_in_all == ALL


@pytest.mark.row(5)
@pytest.mark.parametrize("point", ["before_offsets", pytest.param("after_offsets", marks=pytest.mark.slow)])
async def test_a_kill_in_a_transaction_aborts_it_and_publishes_again_without_a_call(bench: Bench, point: str) -> None:
    left = await _crash(bench, point, armed_after=LATE)
    assert left.recorded == ALL
    assert left.answered < ALL
    bench.check(left.watch, ALL)
    assert left.paid_in_all == ALL
    assert await _records_written(bench.config) > ALL, "no transaction was aborted"


@pytest.mark.row(6)
@pytest.mark.parametrize(
    "point",
    [
        "in_commit:0",
        pytest.param("in_commit:2", marks=pytest.mark.slow),
        pytest.param("in_commit:10", marks=pytest.mark.slow),
        pytest.param("after_commit", marks=pytest.mark.slow),
    ],
)
async def test_a_kill_while_the_end_of_a_transaction_is_under_way_repeats_nothing(bench: Bench, point: str) -> None:
    left = await _crash(bench, point, armed_after=LATE)
    assert left.recorded == ALL
    bench.check(left.watch, ALL)
    assert left.paid_in_all == ALL


@pytest.mark.row(5, 6)
@pytest.mark.slow
@pytest.mark.parametrize("point", ["before_offsets", "after_offsets", "in_commit:0", "after_commit"])
async def test_a_kill_in_a_transaction_of_enrich_passes_each_request_on_once(bench: Bench, point: str) -> None:
    # Each processor in a process of its own, so that no call is under way in the one that dies. Four partitions make
    # four transactions at least.
    executing = bench.new_worker()
    executing.processors = "execute"
    doomed = bench.new_worker(program=PROGRAM, **planned(f"{point}@2", processor="enrich"))
    heir = bench.new_worker()
    doomed.processors = heir.processors = "enrich"
    await asyncio.gather(executing.start(), doomed.start())
    async with Watch(bench.config) as watch:
        await produce(bench.config, _requests("late", ALL))
        await dies(doomed.process)
        await heir.start()
        await watch.until(ALL, timeout_s=90)
        await watch.settle(2)
    bench.check(watch, ALL)
    assert len(bench.simulator.paid_calls) == ALL
