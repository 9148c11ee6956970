"""A bridge over Kafka where something is missing: a topic, or for a while the workers."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator

import pytest

from stratarouter_runtime import CoreRuntimeBridge, RuntimeConfig, topics
from stratarouter_runtime.errors import DeadlineExceededError, TopicContractError
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.processors import request_reply
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.testing.simulator import Simulator
from stratarouter_runtime.worker import Worker
from support.fleet import Watch

pytestmark = pytest.mark.stack


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as running:
        yield running


def over_kafka(config: RuntimeConfig) -> CoreRuntimeBridge:
    return CoreRuntimeBridge(config.model_copy(update={"transport": "kafka", "drain_timeout_s": 0.1}))


async def test_a_topic_that_is_missing_is_named_at_once_and_within_the_callers_bound(
    config: RuntimeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """The start took aiokafka's 15 s and hundreds of error lines; who waited 5 s was told to wait longer."""
    bridge = over_kafka(config)
    began = time.monotonic()
    with caplog.at_level(logging.ERROR):
        for doing in (bridge.start(), bridge.execute("billing", query="anybody there?", timeout_s=5)):
            with pytest.raises(TopicContractError) as caught:
                await doing
            for name in (config.requests_topic, config.responses_topic, config.dead_letter_topic):
                assert repr(config.topic(name)) in caught.value.message
            assert "topics apply" in caught.value.remedy
    assert time.monotonic() - began < 8
    assert not caplog.records
    await topics.apply(config, partitions=1)
    await bridge.start()
    await bridge.close()


async def test_workers_that_come_late_pay_only_for_what_can_still_be_asked_for(
    config: RuntimeConfig, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a bridge's caller had given up minutes before was paid for, and nobody could ask for the answer."""
    monkeypatch.setattr(request_reply, "DEADLINE_MARGIN_S", 0.0)
    await migrate(config.database_url)
    await topics.apply(config, partitions=2)
    async with Watch(config) as watch:
        async with over_kafka(config) as bridge:
            for request_id in (None, "known"):
                with pytest.raises(DeadlineExceededError):
                    await bridge.execute("billing", query=f"from {request_id}", request_id=request_id, timeout_s=0.5)
        table = {
            "providers": {"sim": {"kind": "simulator", "base_url": simulator.base_url}},
            "routes": {"billing": {"targets": [{"provider": "sim", "model": "gpt-4o-mini"}]}},
        }
        worker = Worker(config.model_copy(update={"metrics_enabled": False}), routes=RouteTable.from_dict(table))
        await worker.start()
        try:
            seen = await watch.until(2, timeout_s=30)
        finally:
            await worker.stop()
    ended = {response.request_id: response for response in seen.responses}
    assert "from known" in (ended.pop("known").text or "")
    [late] = ended.values()
    assert late.error is not None
    assert late.error.code == "deadline_exceeded"
    assert len(simulator.paid_calls) == 1
