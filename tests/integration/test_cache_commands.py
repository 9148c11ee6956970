"""The cache's commands as an operator types them, against a worker, a broker and a Redis."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from stratarouter_runtime import CoreRuntimeBridge, RuntimeConfig, topics
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings
from support.fleet import WorkerProcess, free_port, write_routes

pytestmark = pytest.mark.stack

DEADLINE_S = 60.0
QUERY = "Where do I find my invoice?"


@dataclass
class Place:
    """A worker process with a Redis, and the command line beside it."""

    worker: WorkerProcess
    bridge: CoreRuntimeBridge
    simulator: Simulator
    environment: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.worker.port}"

    async def type(self, *arguments: str, code: int = 0, group: tuple[str, ...] = ("cache",)) -> str:
        """Run one command; its output, or its complaint where it is to fail with ``code``."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "stratarouter_runtime.cli", *group, *arguments),
            env={**os.environ, **self.environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(DEADLINE_S):
            out, complaint = await process.communicate()
        assert process.returncode == code, (out, complaint)
        return (complaint if code else out).decode()

    async def json(self, *arguments: str) -> Any:
        return orjson.loads(await self.type(*arguments, "--json"))

    async def ask(self, **more: Any) -> tuple[str, int]:
        before = len(self.simulator.paid_calls)
        result = await self.bridge.execute(
            "support", {"tenant": "acme"}, query=QUERY, timeout_s=DEADLINE_S, cache={"tags": ["doc-7"]}, **more
        )
        return result.response, len(self.simulator.paid_calls) - before


@pytest.fixture
async def place(config: RuntimeConfig, tmp_path: Path) -> AsyncIterator[Place]:
    await topics.apply(config, partitions=2)
    await migrate(config.database_url)
    redis = Redis.from_url(config.redis_url)
    await redis.flushdb()
    shared = config.model_copy(update={"cache_backend": "redis", "transport": "kafka"})
    async with Simulator(SimulatorSettings(latency_ms=5)) as simulator:
        routes = write_routes(tmp_path / "routes.toml", simulator.base_url)
        worker = WorkerProcess(shared, routes, tmp_path / "worker.log")
        await worker.start()
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": config.bootstrap_servers,
            "REDIS_URL": config.redis_url,
            "STRATAROUTER_TOPIC_PREFIX": config.topic_prefix,
            "STRATAROUTER_ROUTES": str(routes),
        }
        async with CoreRuntimeBridge(shared) as bridge:
            yield Place(worker, bridge, simulator, environment)
        assert await worker.stop() == 0
    await redis.flushdb()
    await redis.aclose()


async def _until_found(place: Place, *arguments: str) -> list[dict[str, Any]]:
    """The answer is given before it is kept."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found: list[dict[str, Any]] = await place.json("find", *arguments)
            if found:
                return found
            await asyncio.sleep(0.1)


async def test_an_operator_finds_invalidates_corrects_and_marks(place: Place) -> None:
    _, calls = await place.ask(request_id="r1")
    assert calls == 1
    # 1. It is there, under what it can be named by.
    [entry] = await _until_found(place, "INVOICE", "--tenant", "acme", "--tag", "doc-7", "--answers")
    assert (entry["text"], entry["route_id"], entry["tags"]) == (QUERY, "support", ["doc-7"])
    assert QUERY in entry["answer"]
    assert await place.json("find", "--tenant", "globex") == []
    counted = await place.json("stats")
    assert (counted["entries"], counted["tenants"], counted["routes"]) == (1, {"acme": 1}, {"support": 1})
    assert "entries: 1" in await place.type("stats")
    # 2. Invalidated, and waited for.
    wait = ("--wait", place.url)
    said = await place.json("invalidate", "--tag", "doc-7", "--reason", "changed", "--by", "ann", *wait)
    assert (said["offset"], said["applied_by"], said["command"]["by"]) == (0, [place.url], "ann")
    text, calls = await place.ask()
    assert calls == 1
    # 3. Corrected by the id of a request.
    await place.type("correct", "Under Account.", "--request-id", "r1", "--reason", "stale", *wait)
    assert await place.ask() == ("Under Account.", 0)
    # 4. Marked wrong: the correction goes with it.
    await place.type("mark-wrong", "--request-id", "r1", "--tenant", "acme", "--reason", "no such page", *wait)
    assert await place.ask() == (text, 1)
    metrics = (await place.json("stats", "--worker", place.url))["metrics"]
    assert metrics["stratarouter_cache_control_position"] == 2
    assert metrics["stratarouter_cache_control_total{action=mark_wrong}"] == 1
    # 5. The audit, on the topic and in the worker's log.
    topic = await place.type("--from-beginning", "--limit", "3", group=("tail", "cache-control"))
    values = [orjson.loads(line)["value"] for line in topic.splitlines()]
    assert [(value["action"], value["reason"]) for value in values] == [
        ("invalidate", "changed"),
        ("correct", "stale"),
        ("mark_wrong", "no such page"),
    ]
    log = [orjson.loads(line) for line in place.worker.log.read_text().splitlines() if line.startswith("{")]
    audited = [line for line in log if line["event"] == "cache control applied"]
    assert [line["action"] for line in audited] == ["invalidate", "correct", "mark_wrong"]
    assert (audited[0]["by"], audited[0]["reason"], audited[0]["named"]) == ("ann", "changed", ["tag:doc-7"])
    assert "Under Account." not in place.worker.log.read_text()


async def test_explain_says_what_would_happen_and_why(place: Place) -> None:
    common = ("--route", "support", "--tenant", "acme")
    same = await place.json("explain", "Where is it?", "where is it", *common)
    assert (same["would"], same["same_words"]) == ("exact", True)
    other = await place.json("explain", "Where is it?", "where is it", *common, "--stored-tenant", "globex")
    assert (other["would"], other["reason"]) == ("miss", "scope")
    numbers = await place.json("explain", "Refund order 17", "Refund order 18", *common, "--threshold", "0.5")
    assert (numbers["would"], numbers["reason"], numbers["counter_example"]) == ("miss", "guard:number", False)
    pair = ("How do I get my money back?", "How can I get my money back?", *common, "--threshold", "0.7")
    like = await place.json("explain", *pair)
    assert like["would"] == "semantic"
    assert like["cosine"] >= 0.7
    strict = await place.json("explain", *pair[:-1], "0.999")
    assert (strict["would"], strict["reason"]) == ("miss", "below_threshold")
    marked = ("--key", like["asked_key"], "--answered-by", like["stored_key"])
    await place.type("mark-wrong", *marked, "--reason", "another process")
    again = await place.json("explain", *pair)
    assert (again["would"], again["reason"], again["counter_example"]) == ("miss", "guard:marked_wrong", True)
    assert "guard:marked_wrong" in await place.type("explain", *pair)


async def _metrics(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    body = b"stratarouter_cache_control_position 7\n"
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    await writer.drain()
    writer.close()


async def test_what_is_written_is_said_and_a_worker_that_starts_is_waited_for(place: Place) -> None:
    """It ended with "gives no metrics" at once, after the record was written, and nobody knew where."""
    address = f"http://127.0.0.1:{free_port()}"
    words = ("invalidate", "--tag", "doc-7", "--reason", "changed")
    said = await place.type(*words, "--wait", address, "--wait", place.url, "--timeout-s", "1", code=3)
    assert "offset 0 is written" in said
    assert f"{address} gives no metrics" in said
    assert place.url not in said
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stratarouter_runtime.cli", "cache", *words, "--wait", address, "--timeout-s", "60"),
        env={**os.environ, **place.environment},
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE_S):
        assert process.stdout is not None
        assert b"at offset 1" in await process.stdout.readline()
        async with await asyncio.start_server(_metrics, "127.0.0.1", int(address.rpartition(":")[2])):
            assert f"applied by {address}" in (await process.stdout.read()).decode()
            assert await process.wait() == 0


async def test_wrong_input_is_said(place: Place) -> None:
    assert "names none" in await place.type("invalidate", "--reason", "x", code=5)
    assert "names tag, tenant" in await place.type("invalidate", "--reason", "x", "--tag", "a", "--tenant", "b", code=5)
    assert "no response" in await place.type("mark-wrong", "--request-id", "nobody", "--reason", "x", code=5)
    assert "--request-id" in await place.type("mark-wrong", "--reason", "x", code=5)
    place.environment["STRATAROUTER_CACHE_BACKEND"] = "memory"
    assert "--worker" in await place.type("find", code=2)
    place.environment["STRATAROUTER_CACHE_BACKEND"] = "redis"
    place.environment["REDIS_URL"] = "redis://127.0.0.1:1/0"
    assert "Redis did not answer" in await place.type("stats", code=3)
