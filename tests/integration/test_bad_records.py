"""A bad record of each kind becomes one dead letter with its bytes, and stops nothing."""

from __future__ import annotations

import base64
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewTopic

from stratarouter_runtime import topics, wire
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import InvalidRecordError, RuntimeSystemError
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings
from support.fleet import Watch, WorkerProcess, produce, request, write_routes

pytestmark = [pytest.mark.stack, pytest.mark.row(31)]


def _embedded(vector: object) -> bytes:
    return request("e", "with a vector", embedding=vector)


def _floats(*values: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


BAD: list[tuple[str, bytes | None, str]] = [
    ("null", None, "undecodable"),
    ("empty", b"", "undecodable"),
    ("not JSON", b"hello", "undecodable"),
    ("truncated", b'{"query": "x"', "undecodable"),
    ("not UTF-8", b'{"query": "\xff\xfe"}', "undecodable"),
    ("an array", b"[1, 2]", "schema_violation"),
    ("no decision", b'{"query": "x"}', "schema_violation"),
    ("wrong type", request("w", "x", params=3), "schema_violation"),
    ("deeply nested", b'{"query":' + b"[" * 5000 + b"]" * 5000 + b"}", "undecodable"),
    ("2 MB", request("big", "x" * 2_000_000), "record_too_large"),
    ("10 MB", request("huge", "x" * 10_000_000), "record_too_large"),
    ("NaN", _embedded(_floats(float("nan"), 1.0)), "invalid_embedding"),
    ("infinity", _embedded(_floats(float("inf"), 1.0)), "invalid_embedding"),
    ("zero vector", _embedded([0.0, 0.0]), "invalid_embedding"),
    ("wrong dimension", _embedded([0.1, 0.2, 0.3]), "invalid_embedding"),
    ("unknown route", request("u", "x", route="nowhere"), "unknown_route"),
    ("reply topic", request("t", "x", reply_to="secrets"), "reply_topic_not_allowed"),
    ("missing reply topic", request("m", "x", reply_to="PREFIXresponses.nobody"), "reply_topic_not_allowed"),
    ("NUL in the id", request("a\x00b", "x"), "schema_violation"),
    ("NUL in the tenant", request("n", "x", tenant="a\x00b"), "schema_violation"),
]


REPLY_TOPICS = ("responses.team-a",)


async def _create(config: RuntimeConfig, *names: str) -> None:
    admin = kafka_client.admin(config)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1) for name in names])
    finally:
        await admin.close()


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorSettings(latency_ms=10)) as running:
        yield running


async def test_a_bad_record_of_each_kind_is_one_dead_letter_and_stops_nothing(
    config: RuntimeConfig, simulator: Simulator, tmp_path: Path
) -> None:
    await topics.apply(config, partitions=2)
    await migrate(config.database_url)
    routes = write_routes(tmp_path / "routes.toml", simulator.base_url)
    extra = {"STRATAROUTER_EMBEDDING_DIMENSION": "2"}
    worker = WorkerProcess(config, routes, tmp_path / "worker.log", extra)
    await worker.start()
    values: list[bytes | None] = []
    bad_ones = [(bad and bad.replace(b"PREFIX", config.topic_prefix.encode()), code) for _, bad, code in BAD]
    for number, (bad, _) in enumerate(bad_ones):
        values += [request(f"good-{number}", f"a good question {number}"), bad]
    async with Watch(config) as watch:
        await produce(config, values)
        await watch.until(len(values), timeout_s=60)
        seen = await watch.settle(1)
    assert await worker.stop() == 0
    assert seen.by_id == {f"good-{number}": 1 for number in range(len(BAD))}
    found = sorted((letter.code, letter.value or b"") for letter in seen.dead_letters)
    assert found == sorted((code, bad or b"") for bad, code in bad_ones)
    for letter in seen.dead_letters:
        assert letter.reason
        assert letter.remedy
        assert letter.source.topic == config.topic(config.requests_topic)


async def test_what_grows_too_large_as_it_is_written_again_or_refused_stops_nothing(
    config: RuntimeConfig, simulator: Simulator, tmp_path: Path
) -> None:
    """Within ``max_request_bytes`` as they came: the numbers of one are longer as an execution (5 MB become 20), and
    the dead letter of the other would name a key of the client's twice.
    """
    await topics.apply(config, partitions=1)
    await migrate(config.database_url)
    routes = write_routes(tmp_path / "routes.toml", simulator.base_url)
    extra = {"STRATAROUTER_MAX_REQUEST_BYTES": str(12 * 2**20)}
    worker = WorkerProcess(config, routes, tmp_path / "worker.log", extra)
    await worker.start()
    start = b'{"request_id":"%s","query":"x","decision":{"route_id":"support","scores":{'
    numbers = start % b"grows" + b'}},"context":{"x":[' + b"1e15," * 1_050_000 + b"1]}}"
    key = start % b"long" + b'"' + b"n" * 9_500_000 + b'":"high"}}}'
    async with Watch(config) as watch:
        await produce(config, [numbers, key, request("after", "and now")])
        await watch.until(3, timeout_s=60)
        seen = await watch.settle(1)
    assert await worker.stop() == 0
    assert seen.by_id == {"after": 1}
    found = sorted((letter.request_id, letter.code, letter.value) for letter in seen.dead_letters)
    assert found == [("grows", "record_too_large", numbers), ("long", "schema_violation", key)]


async def test_every_example_under_schemas_behaves_as_named(
    config: RuntimeConfig, simulator: Simulator, tmp_path: Path
) -> None:
    folder = Path(__file__).parents[2] / "schemas" / "examples" / "request"
    valid = [path.read_bytes() for path in sorted((folder / "valid").glob("*.json"))]
    invalid = [orjson.loads(path.read_bytes()) for path in sorted((folder / "invalid").glob("*.json"))]
    assert len(valid) >= 8
    assert len(invalid) >= 15
    # The examples name reply topics without a prefix.
    config = config.model_copy(update={"topic_prefix": ""})
    await topics.apply(config, partitions=2)
    await _create(config, *REPLY_TOPICS)
    await migrate(config.database_url)
    routes = tmp_path / "routes.toml"
    target = '{ provider = "openai", model = "gpt-4o-mini" }'
    routes.write_text(
        f'[providers.openai]\nkind = "simulator"\nbase_url = "{simulator.base_url}"\n[default]\ntargets = [{target}]\n'
    )
    worker = WorkerProcess(config, routes, tmp_path / "worker.log")
    await worker.start()
    records = [orjson.dumps(item["record"]) for item in invalid]
    async with Watch(config, *REPLY_TOPICS) as watch:
        await produce(config, [*valid, *records])
        await watch.until(len(valid) + len(records), timeout_s=60)
        seen = await watch.settle(1)
    assert await worker.stop() == 0
    expected = sorted((item["expect"], orjson.dumps(item["record"])) for item in invalid)
    assert sorted((letter.code, letter.value or b"") for letter in seen.dead_letters) == expected
    assert len(seen.responses) == len(valid)


def test_every_dead_letter_code_has_a_remedy() -> None:
    kinds: list[type[RuntimeSystemError]] = list(InvalidRecordError.__subclasses__())
    assert len(kinds) >= 8
    assert all(kind.default_remedy for kind in kinds)
    assert len({kind.code for kind in kinds}) == len(kinds)


async def test_a_record_that_no_letter_can_carry_is_a_letter_that_says_where_it_is(
    config: RuntimeConfig, simulator: Simulator, tmp_path: Path
) -> None:
    """A broker measures what is compressed; unpacked, a record may be many times larger than any topic takes."""
    await topics.apply(config, partitions=1)
    await migrate(config.database_url)
    worker = WorkerProcess(config, write_routes(tmp_path / "routes.toml", simulator.base_url), tmp_path / "worker.log")
    await worker.start()
    topic = config.topic(config.requests_topic)
    many = [("h", b"1")] * 1_000_000
    async with (
        Watch(config) as watch,
        AIOKafkaProducer(
            bootstrap_servers=config.bootstrap_servers, compression_type="gzip", max_request_size=2**28
        ) as producer,
    ):
        await producer.send_and_wait(topic, request("huge", "x" * 40_000_000))
        await producer.send_and_wait(topic, request("headed", "many headers"), headers=many)
        await producer.send_and_wait(topic, b"not json", headers=many)
        await producer.send_and_wait(topic, request("good", "a good question"))
        await watch.until(4, timeout_s=60)
    assert await worker.stop() == 0
    assert watch.seen.by_id == {"good": 1}
    huge, headed, broken = sorted(watch.seen.dead_letters, key=lambda letter: letter.source.offset)
    assert [letter.code for letter in (huge, headed, broken)] == ["record_too_large", "record_too_large", "undecodable"]
    assert huge.value is None
    assert headed.request_id == "headed"
    assert headed.value == request("headed", "many headers")
    assert broken.value == b"not json"
    assert len(headed.headers) == len(broken.headers) == wire.MAX_HEADERS
