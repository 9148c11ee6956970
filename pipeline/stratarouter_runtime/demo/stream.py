"""The demonstration's records: read from the package, produced at a steady rate, collected and counted."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from importlib import resources
from typing import Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from stratarouter_runtime import wire
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.demo.processes import Fleet
from stratarouter_runtime.demo.tally import Tally
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.tail import Tail

RATE_PER_S = 60.0
"""Requests produced each second: a stream rather than a heap, so that the kill falls among calls in flight."""
OVERSIZE_BYTES = 2 * 1024 * 1024
TIMEOUT_S = 120.0
SETTLE_S = 2.0
"""How long the topics are watched on after the last response is in, for duplicates."""


def read_records() -> Iterator[bytes]:
    """The bundled records' values, in order."""
    source = resources.files("stratarouter_runtime").joinpath("demo_data/queries.jsonl")
    for line in source.read_bytes().splitlines():
        item: dict[str, Any] = orjson.loads(line)
        if item.get("generate") == "oversize":
            yield b'{"query": "' + b"x" * OVERSIZE_BYTES + b'"}'
        elif "raw_base64" in item:
            yield base64.b64decode(item["raw_base64"])
        else:
            yield str(item["raw"]).encode()


async def stream(config: RuntimeConfig, records: list[bytes], fleet: Fleet, console: Console) -> tuple[Tally, float]:
    """Produce, kill a worker half way, count what comes out; the tally and the seconds it took."""
    tally = Tally()
    began = time.monotonic()
    bar = Progress(
        TextColumn("   {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
    async with (
        Tail(config, config.topic(config.responses_topic), from_beginning=True) as responses,
        Tail(config, config.topic(config.dead_letter_topic), from_beginning=True) as dead,
        contextlib.AsyncExitStack() as ends,
    ):
        with bar:
            shown = bar.add_task("answered", total=len(records))
            keyed = [(str(number).encode(), value) for number, value in enumerate(records)]
            producing = await ends.enter_async_context(produced(config, keyed, RATE_PER_S))
            deadline = began + TIMEOUT_S
            while tally.settled < len(records) and time.monotonic() < deadline:
                await _collect(responses, dead, tally)
                bar.update(shown, completed=tally.settled)
                if not tally.killed and tally.settled >= len(records) // 2:
                    tally.killed = True
                    bar.console.print(f"   [red]SIGKILL[/] to worker {fleet.kill_one()}, half way", highlight=False)
            await producing
            took_s = time.monotonic() - began
        settle = time.monotonic() + SETTLE_S
        while time.monotonic() < settle:
            await _collect(responses, dead, tally)
    return tally, took_s


@contextlib.asynccontextmanager
async def produced(
    config: RuntimeConfig, records: Sequence[tuple[bytes, bytes]], rate_per_s: float
) -> AsyncIterator[asyncio.Task[None]]:
    """The task that puts keys and values onto the requests topic; it ends with the context, also where interrupted."""
    producing = asyncio.create_task(_produce(config, records, rate_per_s))
    try:
        yield producing
    finally:
        producing.cancel()
        await asyncio.gather(producing, return_exceptions=True)


async def _produce(config: RuntimeConfig, records: Sequence[tuple[bytes, bytes]], rate_per_s: float) -> None:
    producer = kafka_client.producer(config)
    await producer.start()
    try:
        topic = config.topic(config.requests_topic)
        began, sent = time.monotonic(), []
        for number, (key, value) in enumerate(records):
            await asyncio.sleep(max(0.0, began + number / rate_per_s - time.monotonic()))
            sent.append(await producer.send(topic, value, key=key))
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def _collect(responses: Tail, dead: Tail, tally: Tally) -> None:
    for record in await responses.poll(0.1):
        response = wire.decode_response(record.value)
        asked_ms = response.source.timestamp_ms if response.source else record.timestamp
        tally.add(response, float(record.timestamp - asked_ms))
    for record in await dead.poll(0.01):
        letter = wire.decode_dead_letter(record.value)
        tally.dead_letters[letter.code] += 1
        tally.dead_sources[f"{letter.source.partition}@{letter.source.offset}"] += 1
