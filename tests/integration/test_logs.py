"""What a worker writes into its log at its most talkative: JSON, an event each, and no word of what was asked, answered
or kept secret, on every path a record can take.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import orjson
import pytest
from aiohttp import web

from stratarouter_runtime import topics
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.telemetry.logs import REDACTED, redact
from stratarouter_runtime.testing.simulator import Simulator
from support.fleet import Watch, WorkerProcess, produce, request, write_routes

pytestmark = pytest.mark.stack

POISON = "xyzzy-plugh-4711"
KEY = "key-of-mine-0815"


@asynccontextmanager
async def _echoing_provider() -> AsyncIterator[str]:
    """A provider that repeats what it was asked, in refusals, in nonsense, and in answers."""
    calls = count()

    async def complete(call: web.Request) -> web.Response:
        asked = (await call.json())["messages"][-1]["content"]
        wrong = {"error": {"message": f"cannot answer {asked!r} with {call.headers['authorization']}"}}
        replies = (
            web.json_response(wrong, status=400),
            web.json_response(wrong, status=500),
            web.Response(text=f"{{nonsense about {asked}"),
            web.json_response({"choices": asked}),
            web.Response(text=f"<html>{asked}</html>", status=502, content_type="text/html"),
        )
        number = next(calls)
        if number < len(replies):
            return replies[number]
        message = {"role": "assistant", "content": f"You asked: {asked}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
        return web.json_response({"id": "1", "model": "gpt-4o-mini", "choices": [choice], "usage": usage})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("level", ["debug", "info"])
async def test_no_path_writes_a_text_or_a_secret_into_the_log(
    config: RuntimeConfig, tmp_path: Path, level: str
) -> None:
    await topics.apply(config, partitions=2)
    await migrate(config.database_url)
    async with _echoing_provider() as base_url, Watch(config) as watch:
        routes = tmp_path / "routes.toml"
        routes.write_text(
            f"""
[providers.openai]
base_url = "{base_url}"
api_key_env = "A_KEY_OF_MINE"

[routes.support]
targets = [{{ provider = "openai", model = "gpt-4o-mini" }}]
"""
        )
        log = tmp_path / "worker.log"
        extra = {"STRATAROUTER_LOG_LEVEL": level, "A_KEY_OF_MINE": KEY, "STRATAROUTER_MAX_REQUEST_BYTES": "4096"}
        worker = WorkerProcess(config, routes, log, extra=extra)
        await worker.start()
        values: list[bytes | None] = [
            *(request(f"r{n}", f"{POISON} question {n}") for n in range(6)),
            request("again", f"{POISON} question 5"),
            request("nowhere", POISON, route="nowhere"),
            request("late", POISON, deadline="2020-01-01T00:00:00Z"),
            request("vector", POISON, embedding=[0.0, 0.0]),
            request("large", POISON * 1000),
            request("typo", POISON, promt=POISON),
            b'{"query": "' + POISON.encode(),
            f'["{POISON}"]'.encode(),
            None,
        ]
        await produce(config, values)
        seen = await watch.until(len(values), 90)
        assert len(seen.responses) + len(seen.dead_letters) == len(values)
        assert any(POISON in (response.text or "") for response in seen.responses), "the provider echoes"
        assert await worker.stop() == 0
    lines = log.read_text().splitlines()
    told = [orjson.loads(line) for line in lines]
    # Whatever came to a bad end is found by its id: the error responses and the dead letters that had one.
    failed = {response.request_id for response in seen.responses if response.error is not None}
    assert failed == {said["request_id"] for said in told if said["event"] == "error response"}
    letters = [said for said in told if said["event"] == "dead letter"]
    assert len(letters) == len(seen.dead_letters)
    assert {"nowhere", "vector"} <= {said.get("request_id") for said in letters}
    for line, said in zip(lines, told, strict=True):
        assert {"time", "level", "logger", "event"} <= said.keys(), line
        assert POISON not in line
        assert KEY not in line


async def test_texts_are_logged_where_that_is_asked_for_and_keys_never(config: RuntimeConfig, tmp_path: Path) -> None:
    await topics.apply(config, partitions=1)
    await migrate(config.database_url)
    async with Simulator() as simulator, Watch(config) as watch:
        worker = WorkerProcess(
            config,
            write_routes(tmp_path / "routes.toml", simulator.base_url),
            tmp_path / "worker.log",
            extra={"STRATAROUTER_LOG_TEXTS": "true"},
        )
        await worker.start()
        asked = f"What does {POISON} mean with sk-canary-0123456789?"
        for request_id in ("paid", "hit"):
            await produce(config, [request(request_id, asked)])
            await watch.until(1 if request_id == "paid" else 2, 60)
        assert await worker.stop() == 0
    told = [orjson.loads(line) for line in worker.log.read_text().splitlines()]
    texts = {said["request_id"]: said for said in told if said["event"] == "texts"}
    assert set(texts) == {"paid", "hit"}
    for response in watch.seen.responses:
        said = texts[response.request_id]
        assert said["messages"] == [{"role": "user", "content": f"What does {POISON} mean with {REDACTED}?"}]
        assert said["text"] == redact(response.text or "")
