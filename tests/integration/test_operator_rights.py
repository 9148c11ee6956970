"""The operators' commands on a broker that grants each user what the contract says: what they need, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewTopic

from stratarouter_runtime import RuntimeConfig, topics
from stratarouter_runtime.acls import Acl, required
from stratarouter_runtime.embedded.kafka_jars import user_cache_dir
from stratarouter_runtime.errors import BrokerError
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.publisher import TransactionalPublisher
from stratarouter_runtime.processors.tail import Tail
from stratarouter_runtime.records import Outbound
from stratarouter_runtime.testing.simulator import Simulator
from support.cluster import admin
from support.fleet import Watch, WorkerProcess, command, produce, request, write_routes
from support.secure_kafka import SecureKafka, secure_kafka
from support.tls import Authority

pytestmark = [
    pytest.mark.stack,
    # The sockets of clients that were not let in, and producers that were granted no id.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("collected"),
]

PASSWORD = "canary-password-4712"
OPERATOR, OBSERVER, READER = "operator", "observer", "reader"
PARTITIONS = 2


@pytest.fixture(scope="module")
def broker(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    certificate = authority.issue("localhost", name="broker")
    users = dict.fromkeys((OPERATOR, OBSERVER, READER), PASSWORD)
    with secure_kafka(tmp_path_factory.mktemp("kafka"), user_cache_dir(), certificate, "localhost", users) as running:
        yield running


@pytest.fixture
async def plain(config: RuntimeConfig, broker: SecureKafka) -> RuntimeConfig:
    """Everything is allowed this way: that of the workers here, and of who makes the topics."""
    plain = config.model_copy(update={"bootstrap_servers": broker.plain})
    await topics.apply(plain, partitions=PARTITIONS)
    return plain


@pytest.fixture
async def operator(plain: RuntimeConfig, broker: SecureKafka, authority: Authority) -> RuntimeConfig:
    await broker.grant(OPERATOR, required(plain, ["operators"]))
    return broker.settings(plain, authority, OPERATOR, PASSWORD)


@pytest.fixture
async def observer(plain: RuntimeConfig, broker: SecureKafka, authority: Authority) -> RuntimeConfig:
    await broker.grant(OBSERVER, required(plain, ["observers"]))
    return broker.settings(plain, authority, OBSERVER, PASSWORD)


async def _run(config: RuntimeConfig, *arguments: str) -> tuple[int, str]:
    """A command as the user of ``config``: its exit code and what it said."""
    assert config.sasl_username is not None
    code, out, err = await command(
        config,
        *arguments,
        STRATAROUTER_SECURITY_PROTOCOL="SASL_SSL",
        STRATAROUTER_SASL_USERNAME=config.sasl_username,
        STRATAROUTER_SASL_PASSWORD=PASSWORD,
        STRATAROUTER_SSL_CAFILE=str(config.ssl_cafile),
    )
    assert PASSWORD not in out + err
    return code, out + err


async def _letter(config: RuntimeConfig) -> str:
    """The one dead letter's address."""
    code, said = await _run(config, "dead-letters", "list", "--json")
    assert code == 0, said
    return str(orjson.loads(said)["letter"])


async def _looks(config: RuntimeConfig) -> None:
    """What only looks: it is for operators and for observers."""
    code, said = await _run(config, "status", "--json")
    assert code == 0, said
    seen = orjson.loads(said)
    lags = {(lane["processor"], lane["partition"]): lane["lag"] for lane in seen["lanes"]}
    assert set(lags) == {(name, number) for name in ("enrich", "execute", "usage") for number in range(PARTITIONS)}
    # Committed: what a group is hidden of would look like a lag over all there is.
    assert any(lane["committed"] is not None for lane in seen["lanes"] if lane["processor"] == "enrich")
    code, said = await _run(config, "topics", "check", "--partitions", str(PARTITIONS))
    assert code == 0, said
    assert (await _run(config, "dead-letters", "show", await _letter(config)))[0] == 0
    for more in ((), ("--re-execute",)):
        code, said = await _run(config, "replay", "--request-id", "r1", *more)
        assert code == 0, said
        assert "nothing was written" in said
    code, said = await _run(config, "what-if", "--from", "1h", "--set", "cache_ttl=60", "--json")
    assert code == 0, said
    for topic in ("dead-letter", "responses", "requests", "cache-control", "usage"):
        async with Tail(config, config.topic(topic), from_beginning=True) as tail:
            await tail.poll(0.1)


async def test_an_operator_needs_no_more_than_the_contract_grants(
    plain: RuntimeConfig, operator: RuntimeConfig, observer: RuntimeConfig, tmp_path: Path
) -> None:
    await migrate(plain.database_url)
    async with Simulator() as simulator, Watch(plain) as watch:
        worker = WorkerProcess(
            plain, write_routes(tmp_path / "routes.toml", simulator.base_url), tmp_path / "worker.log"
        )
        await worker.start()
        asked = [request("r0", "what is an invoice"), request("r1", "how do I cancel")]
        await produce(plain, [*asked, request("bad", "a bad one", route="nowhere")])
        await watch.until(3, 60)
        assert [letter.code for letter in watch.seen.dead_letters] == ["unknown_route"]

        await _looks(operator)
        await _looks(observer)

        letter = await _letter(operator)
        mended = ("dead-letters", "resend", letter, "--set", "decision.route_id=support", "--go")
        code, said = await _run(operator, *mended)
        assert (code, "1 of 1 sent" in said) == (0, True), said
        await watch.until(4, 60)
        assert watch.seen.by_id["bad"] == 1
        code, said = await _run(operator, *mended)
        assert (code, "before" in said) == (1, True), said

        code, said = await _run(operator, "replay", "--request-id", "r1", "--go")
        assert (code, "1 written" in said) == (0, True), said
        code, said = await _run(operator, "replay", "--request-id", "r0", "--re-execute", "--go")
        assert (code, "1 written" in said) == (0, True), said
        await watch.until(6, 60)
        assert watch.seen.by_id["r1"] == 2
        # Another topic for responses is one of those that requests may name too.
        other = f"{plain.topic(plain.reply_topic_prefix)}.again"
        async with admin(plain) as client:
            await client.create_topics([NewTopic(other, 1, 1)])
        # Asked before, so that no journal knows it: what was written there tells that it was.
        await produce(plain, [request("r2", "what is an invoice")])
        await watch.until(7, 60)
        for asked, written in (("r0", 1), ("r2", 1), ("r2", 0)):
            code, said = await _run(operator, "replay", "--request-id", asked, "--to-topic", other, "--go")
            assert (code, f"{written} written, {1 - written} by an earlier run" in said) == (0, True), said

        code, said = await _run(operator, "cache", "mark-wrong", "--request-id", "r0", "--reason", "out of date")
        assert code == 0, said
        assert await worker.stop() == 0


async def _write(config: RuntimeConfig, topic: str) -> None:
    producer = kafka_client.producer(config)
    await producer.start()
    try:
        await producer.send_and_wait(config.topic(topic), b"{}")
    finally:
        await producer.stop()


async def test_an_operator_can_do_nothing_that_is_the_workers_or_an_administrators(
    plain: RuntimeConfig, operator: RuntimeConfig
) -> None:
    for topic in ("executions", "dead-letter", "usage-deltas", "usage"):
        with pytest.raises(Exception, match=r"(?i)authoriz"):
            await _write(operator, topic)
    for topic in ("executions", "usage-deltas"):
        with pytest.raises(BrokerError, match=r"(?i)authoriz"):
            async with Tail(operator, operator.topic(topic), from_beginning=True) as tail:
                await tail.poll(10.0)
    # A worker's transactional id would fence the worker, and its group's offsets are what it has answered.
    place = TopicPartition(plain.topic("requests"), 0)
    for group in ("enrich", "execute"):
        writer = TransactionalPublisher(operator, f"{plain.group_id}-{group}", place)
        try:
            with pytest.raises(BrokerError, match=r"(?i)authoriz"):
                await writer.open()
        finally:
            await writer.close()
    writer = TransactionalPublisher(operator, f"{plain.group_id}.dead-letters", place)
    await writer.open()
    writer._group = f"{plain.group_id}-enrich"
    try:
        with pytest.raises(BrokerError, match=r"(?i)authoriz"):
            await writer.publish([Outbound(plain.topic("requests"), None, b"{}", ())], 1, "")
    finally:
        await writer.close()
    async with admin(operator) as client:
        reply = await client.create_topics([NewTopic(f"{plain.topic_prefix}mine", 1, 1)])
        assert [code for _, code, *_ in reply.topic_errors] == [29], "TOPIC_AUTHORIZATION_FAILED"
        reply = await client.delete_topics([plain.topic("requests")])
        assert [code for _, code in reply.topic_error_codes] == [29], "TOPIC_AUTHORIZATION_FAILED"


async def test_an_observer_writes_nothing(plain: RuntimeConfig, observer: RuntimeConfig) -> None:
    for topic in topics.load():
        with pytest.raises(Exception, match=r"(?i)authoriz"):
            await _write(observer, topic.name)
    place = TopicPartition(plain.topic("requests"), 0)
    for group in (f"{plain.group_id}.dead-letters", f"{plain.group_id}.replay.x.y", f"{plain.group_id}-enrich"):
        writer = TransactionalPublisher(observer, group, place)
        try:
            with pytest.raises(BrokerError, match=r"(?i)authoriz"):
                await writer.open()
        finally:
            await writer.close()


async def test_a_right_that_is_missing_is_said(plain: RuntimeConfig, broker: SecureKafka, authority: Authority) -> None:
    await _write(plain, plain.dead_letter_topic)
    await broker.grant(READER, [Acl("topic", plain.topic(plain.dead_letter_topic), "Read")])
    reader = broker.settings(plain, authority, READER, PASSWORD)
    code, said = await _run(reader, "dead-letters", "list")
    assert code == 3, said
    assert "Traceback" not in said
    assert f"{plain.group_id}.dead-letters" in said
