"""The job of a cache hit as a Faust agent: decode the request and its vector, look the answer up, send it."""

from __future__ import annotations

import base64
import hashlib
import sys

import faust
import numpy as np
import orjson

SERVERS, SOURCE, SINK, GROUP = sys.argv[1:5]

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
answers: dict[str, dict[str, object]] = {}


@app.agent(requests)
async def answer(stream: faust.StreamT[bytes]) -> None:
    """One response for each request."""
    async for value in stream:
        request = orjson.loads(value)
        vector = np.frombuffer(base64.b64decode(request["embedding"]), "<f4")
        if vector.size == 0:
            raise ValueError("a vector has no numbers")
        key = hashlib.blake2b(request["query"].encode(), digest_size=16).hexdigest()
        found = answers.setdefault(key, {"text": "an answer of some words", "model": "gpt-4o-mini"})
        response = {"request_id": request["request_id"], "status": "ok", "cache": {"kind": "exact"}, **found}
        await responses.send(key=request["request_id"].encode(), value=orjson.dumps(response))


if __name__ == "__main__":
    app.worker_init()
    sys.argv = [sys.argv[0], "worker", "--loglevel", "warn", "--without-web"]
    app.main()
