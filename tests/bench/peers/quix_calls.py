"""Quix Streams calling the provider in ``apply``: one record after the other."""

from __future__ import annotations

import sys

import orjson
import requests
from quixstreams import Application

SERVERS, SOURCE, SINK, GROUP, BASE_URL = sys.argv[1:6]

session = requests.Session()


def answer(value: bytes) -> bytes:
    """The response to one request."""
    request = orjson.loads(value)
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": request["query"]}]}
    reply = session.post(f"{BASE_URL}/chat/completions", json=body, timeout=30)
    reply.raise_for_status()
    text = reply.json()["choices"][0]["message"]["content"]
    return orjson.dumps({"request_id": request["request_id"], "status": "ok", "text": text})


if __name__ == "__main__":
    app = Application(
        broker_address=SERVERS,
        consumer_group=GROUP,
        auto_offset_reset="earliest",
        commit_interval=0.5,
        loglevel="WARNING",
    )
    rows = app.dataframe(app.topic(SOURCE, value_deserializer="bytes"))
    rows.apply(answer).to_topic(app.topic(SINK, value_serializer="bytes"))
    app.run()
