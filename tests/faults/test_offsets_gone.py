"""A checkpoint is believed only for the topic it was written for, whoever wrote it last."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from faults.conftest import Bench
from support.cluster import make_anew, until_caught_up
from support.fleet import Watch, produce, request

pytestmark = pytest.mark.stack

QUICK_CHECKPOINTS = {"STRATAROUTER_CHECKPOINT_INTERVAL": "0.5"}


def _requests(count: int, name: str) -> list[bytes | None]:
    return [request(f"{name}{n}", f"question {n} of {name} order {n * 3}", tenant=f"t{n % 40}") for n in range(count)]


async def _checkpoints_written_anew(bench: Bench) -> None:
    """Until each of the eight lanes has a checkpoint that was written after this call."""
    connection = await asyncpg.connect(bench.config.database_url)
    try:
        now = await connection.fetchval("SELECT clock_timestamp()")
        deadline = time.monotonic() + 60
        while await connection.fetchval("SELECT count(*) FROM checkpoints WHERE updated_at > $1", now) < 8:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
    finally:
        await connection.close()


@pytest.mark.row(20)
async def test_an_idle_worker_s_checkpoint_is_not_taken_for_a_later_topic_s(bench: Bench) -> None:
    # A worker that had read nothing wrote its checkpoint over one that named a witness: the new topic, grown as long as
    # the old one, was then read from the old one's end, and what came before was never answered.
    config = bench.config
    names = (config.topic(config.requests_topic), config.topic(config.executions_topic))
    async with Watch(config) as watch:
        worker = await bench.worker(**QUICK_CHECKPOINTS)
        await produce(config, _requests(100, "old"))
        await watch.until(100, timeout_s=60)
        for processor, name in zip(("enrich", "execute"), names, strict=True):
            await until_caught_up(config, processor, name)
        await _checkpoints_written_anew(bench)
        assert await worker.stop() == 0
        idle = await bench.worker(**QUICK_CHECKPOINTS)
        await _checkpoints_written_anew(bench)
        assert await idle.stop() == 0
        await make_anew(config, *names)
        await produce(config, _requests(300, "new"))
        await bench.worker(**QUICK_CHECKPOINTS)
        await watch.until(400, timeout_s=60)
        await watch.settle(2)
    bench.check(watch, 400)
    assert len(bench.simulator.paid_calls) == 400
