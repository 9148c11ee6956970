"""A smoke test of a running deployment: sample requests onto its topic, and each one's response waited for."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, TypeVar

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from stratarouter_runtime import wire
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.demo.stream import produced
from stratarouter_runtime.demo.tally import Tally, percentiles
from stratarouter_runtime.errors import InvalidRecordError
from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.processors.tail import Tail

T = TypeVar("T")

SETTLE_S = 2.0
"""How long the topics are watched on after the last response is in, for one too many."""
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class SmokeTest:
    """What to send.

    Attributes:
        requests: how many.
        rate_per_s: produced each second.
        route: the decision's route id, of all of them.
        tenant: whose requests they are.
        timeout_s: from the first request to the last response.
    """

    requests: int = 1000
    rate_per_s: float = 200.0
    route: str = "default"
    tenant: str = "smoke-test"
    timeout_s: float = 120.0


@dataclass(slots=True)
class _Count:
    prefix: str
    tally: Tally = field(default_factory=Tally)
    letters: Counter[str] = field(default_factory=Counter)
    refused: set[str] = field(default_factory=set)

    @property
    def settled(self) -> int:
        return len(self.tally.responses) + len(self.refused)

    async def collect(self, responses: Tail, dead: Tail) -> None:
        """What is new on both topics; other people's records pass by."""
        for record in await responses.poll(POLL_S):
            response = _ours(wire.decode_response, record.value)
            if response is not None and response.request_id.startswith(self.prefix):
                asked_ms = response.source.timestamp_ms if response.source else record.timestamp
                self.tally.add(response, float(record.timestamp - asked_ms))
        for record in await dead.poll(0.01):
            letter = _ours(wire.decode_dead_letter, record.value)
            if letter is not None and (letter.key or b"").startswith(self.prefix.encode()):
                self.letters[letter.code] += 1
                self.refused.add(str(letter.request_id or letter.key))


def _ours(decode: Callable[[bytes | None], T], value: bytes | None) -> T | None:
    """What ``value`` says; None where it is no record of the product's."""
    try:
        return decode(value)
    except InvalidRecordError:
        return None


def sample_requests(test: SmokeTest, run_id: str) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values: the demo's well-formed questions in their order, from the first again when they are through."""
    source = resources.files("stratarouter_runtime").joinpath("demo_data/queries.jsonl")
    items: list[dict[str, Any]] = [orjson.loads(line) for line in source.read_bytes().splitlines()]
    bodies = [orjson.loads(item["raw"]) for item in items if item["expect"] == "response"]
    for number, body in enumerate(itertools.islice(itertools.cycle(bodies), test.requests)):
        asked = {name: body[name] for name in ("query", "messages") if name in body}
        request_id = f"{run_id}{number}"
        record = {
            "request_id": request_id,
            "decision": {"route_id": test.route},
            "context": {"tenant": test.tenant},
            **asked,
        }
        yield request_id.encode(), json_bytes(record)


async def smoke_test(config: RuntimeConfig, test: SmokeTest, console: Console) -> dict[str, Any]:
    """Send them, wait, and count what came out: ``lost``, ``duplicates``, ``errors`` and the rest, ready for JSON."""
    count = _Count(f"smoke-{uuid.uuid4().hex[:8]}-")
    records = list(sample_requests(test, count.prefix))
    bar = Progress(TextColumn("answered"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console)
    began = time.monotonic()
    async with (
        Tail(config, config.topic(config.responses_topic), from_beginning=False) as responses,
        Tail(config, config.topic(config.dead_letter_topic), from_beginning=False) as dead,
        produced(config, records, test.rate_per_s) as producing,
    ):
        with bar:
            shown = bar.add_task("answered", total=len(records))
            while count.settled < len(records) and time.monotonic() < began + test.timeout_s:
                await count.collect(responses, dead)
                bar.update(shown, completed=count.settled)
                if producing.done():
                    producing.result()
        took_s = time.monotonic() - began
        settle = time.monotonic() + SETTLE_S
        while time.monotonic() < settle:
            await count.collect(responses, dead)
            await asyncio.sleep(0)
    return _report(count, len(records), took_s)


def _report(count: _Count, asked: int, took_s: float) -> dict[str, Any]:
    tally = count.tally
    return {
        "requests": asked,
        "responses": len(tally.responses),
        "lost": asked - count.settled,
        "duplicates": tally.duplicates,
        "dead_letters": dict(count.letters),
        "errors": dict(tally.errors),
        "hits": {"exact": tally.hits["exact"], "semantic": tally.hits["semantic"]},
        "coalesced": tally.coalesced,
        "paid_usd": round(tally.cost_usd, 6),
        "saved_usd": round(tally.saved_usd, 6),
        "latency_ms": percentiles(tally.latencies_ms),
        "seconds": round(took_s, 2),
    }


def passed(report: dict[str, Any]) -> bool:
    """Whether every request was answered, once, and without an error."""
    return not (report["lost"] or report["duplicates"] or report["dead_letters"] or report["errors"])


def print_report(report: dict[str, Any], console: Console) -> None:
    """Show the report as a table."""
    table = Table(show_header=False)
    hits, latency = report["hits"], report["latency_ms"]
    rows = {
        "requests": report["requests"],
        "responses": report["responses"],
        "lost / duplicates": f"{report['lost']} / {report['duplicates']}",
        "hits exact / semantic": f"{hits['exact']} / {hits['semantic']}",
        "coalesced": report["coalesced"],
        "paid / saved": f"${report['paid_usd']:.4f} / ${report['saved_usd']:.4f}",
        "latency p50 / p99": f"{latency['p50']:.0f} / {latency['p99']:.0f} ms",
        "seconds": report["seconds"],
        **{f"dead letters: {code}": number for code, number in report["dead_letters"].items()},
        **{f"error responses: {code}": number for code, number in report["errors"].items()},
    }
    for name, value in rows.items():
        table.add_row(name, str(value))
    console.print(table)
