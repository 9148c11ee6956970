"""A Faust agent with so many coroutines, each calling the provider for one record at a time."""

from __future__ import annotations

import sys

import aiohttp
import faust
import orjson

SERVERS, SOURCE, SINK, GROUP, BASE_URL, CONCURRENCY = sys.argv[1:7]

app = faust.App(
    GROUP,
    broker=f"kafka://{SERVERS}",
    broker_commit_interval=0.5,
    producer_linger=0.005,
    store="memory://",
    datadir=".",
    web_enabled=False,
    topic_disable_leader=True,
    consumer_auto_offset_reset="earliest",
)
requests = app.topic(SOURCE, value_type=bytes, value_serializer="raw", key_serializer="raw")
responses = app.topic(SINK, value_type=bytes, value_serializer="raw", key_serializer="raw")
sessions: list[aiohttp.ClientSession] = []


@app.agent(requests, concurrency=int(CONCURRENCY))
async def answer(stream: faust.StreamT[bytes]) -> None:
    """One response for each request."""
    if not sessions:
        sessions.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
    async for value in stream:
        request = orjson.loads(value)
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": request["query"]}]}
        async with sessions[0].post(f"{BASE_URL}/chat/completions", json=body) as reply:
            reply.raise_for_status()
            found = orjson.loads(await reply.read())
        text = found["choices"][0]["message"]["content"]
        response = {"request_id": request["request_id"], "status": "ok", "text": text}
        await responses.send(key=request["request_id"].encode(), value=orjson.dumps(response))


if __name__ == "__main__":
    app.worker_init()
    sys.argv = [sys.argv[0], "worker", "--loglevel", "warn", "--without-web"]
    app.main()
