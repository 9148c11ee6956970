"""bridge.stream: token by token from a provider, with the same journal, cache and price as a whole answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from stratarouter_runtime import CoreRuntimeBridge, RuntimeConfig
from stratarouter_runtime.bridge import RequestFailedError
from stratarouter_runtime.errors import ExecutionError
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.testing.simulator import FaultRule, Simulator, SimulatorSettings

pytestmark = pytest.mark.stack

KINDS = {"openai": "/v1", "openai-responses": "/v1", "openai-completions": "/v1", "anthropic": "", "google": ""}
MODELS = {"anthropic": "claude-3-5-haiku-20241022", "google": "gemini-1.5-flash"}
LATENCY_MS = 400

Opened = Callable[..., Any]


@pytest.fixture
async def opened(config: RuntimeConfig, monkeypatch: pytest.MonkeyPatch) -> Opened:
    await migrate(config.database_url)
    monkeypatch.setenv("PROVIDER_KEY", "simulated")

    @asynccontextmanager
    async def opened(
        kind: str = "openai", *faults: FaultRule, **settings: Any
    ) -> AsyncIterator[tuple[CoreRuntimeBridge, Simulator]]:
        settings = {"latency_ms": LATENCY_MS, "output_tokens": 100, **settings}
        async with Simulator(SimulatorSettings(faults=faults, **settings)) as simulator:
            base_url = simulator.base_url.removesuffix("/v1") + KINDS[kind]
            target = {"provider": "vendor", "model": MODELS.get(kind, "gpt-4o-mini")}
            provider = {"kind": kind, "base_url": base_url, "api_key_env": "PROVIDER_KEY"}
            prices = {f"vendor/{target['model']}": {"input": 1.0, "output": 2.0}}
            table = RouteTable.from_dict(
                {"providers": {"vendor": provider}, "prices": prices, "routes": {"chat": {"targets": [target]}}}
            )
            async with CoreRuntimeBridge(config, table) as bridge:
                yield bridge, simulator

    return opened


async def _journaled(config: RuntimeConfig, request_id: str) -> str | None:
    """The state of a request's row."""
    connection = await asyncpg.connect(config.database_url)
    try:
        query = "SELECT state FROM journal WHERE request_id = $1"
        found = await connection.fetchval(query, request_id)
    finally:
        await connection.close()
    return None if found is None else str(found)


@pytest.mark.parametrize("kind", KINDS)
async def test_pieces_come_while_the_answer_is_made_and_are_journaled_priced_and_cached(
    opened: Opened, config: RuntimeConfig, kind: str
) -> None:
    async with opened(kind) as (bridge, simulator):
        began = time.monotonic()
        stream = bridge.stream("chat", query="Where is order 7?", request_id=f"stream-{kind}")
        with pytest.raises(ExecutionError, match="no result yet"):
            _ = stream.result
        pieces, first_s = [], 0.0
        async for piece in stream:
            first_s = first_s or time.monotonic() - began
            pieces.append(piece)
        whole_s = time.monotonic() - began
        result = stream.result
        # The provider's first piece comes at half of its latency: it was not kept until the last one.
        assert len(pieces) > 3
        assert whole_s - first_s > LATENCY_MS / 1000 / 4
        assert "".join(pieces) == result.response
        assert result.usage.output_tokens > 0
        expected = (result.usage.input_tokens * 1.0 + result.usage.output_tokens * 2.0) / 1e6
        assert result.cost_usd == pytest.approx(expected)
        assert await _journaled(config, f"stream-{kind}") == "succeeded"
        # The same id again: from the journal, in one piece. The same words: from the cache.
        again = bridge.stream("chat", query="Where is order 7?", request_id=f"stream-{kind}")
        assert [piece async for piece in again] == [result.response]
        cached = bridge.stream("chat", query="where is order 7")
        assert [piece async for piece in cached] == [result.response]
        assert cached.result.cache.kind == "exact"
        assert len(simulator.paid_calls) == 1


async def test_two_that_ask_alike_hear_one_call(opened: Opened) -> None:
    async def hear(bridge: CoreRuntimeBridge, after_s: float) -> list[str]:
        await asyncio.sleep(after_s)
        return [piece async for piece in bridge.stream("chat", query="What does it cost?")]

    async with opened() as (bridge, simulator):
        first, second = await asyncio.gather(hear(bridge, 0.0), hear(bridge, LATENCY_MS / 1000 * 0.75))
        assert "".join(first) == "".join(second)
        assert len(first) > 3
        assert len(second) > 1
        assert len(simulator.paid_calls) == 1


async def test_leaving_early_does_not_waste_what_is_paid_for(opened: Opened) -> None:
    async with opened() as (bridge, simulator):
        async for _ in bridge.stream("chat", query="Leave early"):
            break
        kind = ""
        async with asyncio.timeout(30):
            while kind != "exact":
                await asyncio.sleep(0.05)
                kind = (await bridge.execute("chat", query="Leave early")).cache.kind
        assert len(simulator.paid_calls) == 1


async def test_an_answer_that_breaks_off_is_an_error_and_not_another_answers_beginning(opened: Opened) -> None:
    heard: set[str] = set()

    async def hear(bridge: CoreRuntimeBridge) -> None:
        async for piece in bridge.stream("chat", query="Break off", request_id="broken"):
            heard.add(piece)

    async with opened("openai", FaultRule("truncate", first=1)) as (bridge, simulator):
        with pytest.raises(RequestFailedError) as caught:
            await hear(bridge)
        assert heard
        assert caught.value.code == "provider_interrupted"
        assert len(simulator.paid_calls) == 1
