"""Progress that is gone or not ours any more: a group's offsets deleted, topics deleted and made anew."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import orjson
import pytest

from faults.conftest import Bench
from support.cluster import committed, forget_groups, make_anew, until_caught_up
from support.fleet import Watch, produce, request

pytestmark = pytest.mark.stack

QUICK_CHECKPOINTS = {"STRATAROUTER_CHECKPOINT_INTERVAL": "0.5"}


def _requests(count: int, name: str = "r", words: str = "question") -> list[bytes | None]:
    return [request(f"{name}{n}", f"{words} {n} of order {n * 3}", tenant=f"t{n % 40}") for n in range(count)]


def _without_ids(count: int, words: str) -> list[bytes | None]:
    decision = {"route_id": "support", "confidence": 0.9}
    return [
        orjson.dumps({"decision": decision, "query": f"{words} {n} of order {n * 7}", "context": {"tenant": "acme"}})
        for n in range(count)
    ]


async def _checkpointed(bench: Bench) -> None:
    """Until the checkpoints say what the groups have committed."""
    deadline = time.monotonic() + 30
    while True:
        connection = await asyncpg.connect(bench.config.database_url)
        rows = await connection.fetch("SELECT grp, topic, partition, committed_offset FROM checkpoints")
        await connection.close()
        kept = {(row["grp"], row["topic"], row["partition"]): row["committed_offset"] for row in rows}
        stands = {
            (f"{bench.config.group_id}-{processor}", place.topic, place.partition): entry.offset
            for processor in ("enrich", "execute")
            for place, entry in (await committed(bench.config, processor)).items()
        }
        if stands and stands.items() <= kept.items():
            return
        assert time.monotonic() < deadline, (kept, stands)
        await asyncio.sleep(0.3)


@pytest.mark.row(19)
async def test_offsets_that_are_gone_are_restored_from_the_checkpoints(bench: Bench) -> None:
    config = bench.config
    worker = await bench.worker(**QUICK_CHECKPOINTS)
    async with Watch(config) as watch:
        await produce(config, _requests(200))
        await watch.until(200, timeout_s=30)
        for processor, name in (("enrich", config.requests_topic), ("execute", config.executions_topic)):
            await until_caught_up(config, processor, config.topic(name))
        await _checkpointed(bench)
        assert await worker.stop() == 0
        await forget_groups(config)
        assert await committed(config, "execute") == {}
        await produce(config, _requests(50, name="more"))
        second = await bench.worker(**QUICK_CHECKPOINTS)
        await watch.until(250, timeout_s=60)
        await watch.settle(3)
    bench.check(watch, 250)
    assert "restored from checkpoint" in second.log.read_text()
    assert len(bench.simulator.paid_calls) == 250


@pytest.mark.row(20)
@pytest.mark.parametrize("running", [False, True], ids=["stopped", "running"])
async def test_topics_made_anew_get_no_answers_of_the_old_ones(bench: Bench, *, running: bool) -> None:
    config = bench.config
    worker = await bench.worker(**QUICK_CHECKPOINTS)
    async with Watch(config) as watch:
        await produce(config, [*_requests(100), *_without_ids(100, "old words")])
        await watch.until(200, timeout_s=30)
        for processor, name in (("enrich", config.requests_topic), ("execute", config.executions_topic)):
            await until_caught_up(config, processor, config.topic(name))
        await _checkpointed(bench)
        if not running:
            assert await worker.stop() == 0
        await make_anew(config, config.topic(config.requests_topic), config.topic(config.executions_topic))
        if not running:
            await bench.worker(**QUICK_CHECKPOINTS)
        await produce(config, [*_requests(100, words="other words"), *_without_ids(100, "new words")])
        seen = await watch.until(400, timeout_s=120)
        await watch.settle(2)
    later = seen.responses[200:]
    assert len(later) == 100
    assert all(response.text is not None and "You asked: new words" in response.text for response in later)
    assert {letter.code for letter in seen.dead_letters} == {"idempotency_conflict"}
    assert len(seen.dead_letters) == 100
    assert len(bench.simulator.paid_calls) == 300
