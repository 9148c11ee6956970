"""The cache-control topic: reads all of it into this process's ``CacheControl``, and writes commands to it.

Each process reads the topic by itself, without a group, from its beginning: what was said while it was down is known
before it serves from the cache. There is one partition, so all apply the same records in the same order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import UnknownTopicOrPartitionError

from stratarouter_runtime.cache.controlled import ControlledCache
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import BrokerError, CacheUnavailableError, InvalidRecordError, TopicContractError
from stratarouter_runtime.ports import Clock
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.closing import closed
from stratarouter_runtime.processors.control_resolve import Resolver
from stratarouter_runtime.processors.kafka_client import CLIENT_ERRORS, Record, mapped
from stratarouter_runtime.processors.renewed_producer import RenewedProducer
from stratarouter_runtime.records import CacheCommand
from stratarouter_runtime.state.cache_control import CacheControl, labels_of
from stratarouter_runtime.telemetry.logs import event
from stratarouter_runtime.telemetry.metrics import Metrics
from stratarouter_runtime.wire_control import decode_command, encode_command

log = logging.getLogger("stratarouter.cache_control")

START_TIMEOUT_S = 30.0
REPLAY_TIMEOUT_S = 120.0
"""For reading the whole topic at the start: a million records take about 20 s."""
STOP_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 30.0
POLL_MS = 500
PROBE_S = 5.0
"""How often it is asked whether more was written than was read: a consumer that is cut off reads nothing and says so
to nobody."""
RETRY_S = 1.0
APPLY_POLL_S = 0.02
"""Between two looks at whether a command of this process's own has come back to it."""


class ControlReader:
    """Follows the topic. One task, owned and joined by ``start`` and ``stop``.

    Args:
        config: names the topic and the broker.
        control: what is said is applied to it.
        cache: what is invalidated is taken out of it.
        clock: monotonic seconds.
        metrics: counts what was applied.
        resolver: looks up marks by request id alone; None leaves that to others.
    """

    def __init__(
        self,
        config: RuntimeConfig,
        *,
        control: CacheControl,
        cache: ControlledCache,
        clock: Clock,
        metrics: Metrics,
        resolver: Resolver | None = None,
    ) -> None:
        self._resolver = resolver
        self._config = config
        self._control = control
        self._cache = cache
        self._clock = clock
        self._metrics = metrics
        self._place = TopicPartition(config.topic(config.cache_control_topic), 0)
        self._consumer: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None
        self._probed_at = float("-inf")
        self._must_empty = False

    async def start(self) -> None:
        """Apply all that was said up to now, then follow.

        Raises BrokerError, and TopicContractError for a topic of several partitions.
        """
        self._control.followed = True
        self._consumer = consumer = kafka_client.consumer(self._config, group=None)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await consumer.start()
                self._check_there(await consumer.topics())
            async with asyncio.timeout(REPLAY_TIMEOUT_S):
                await self._replay(consumer)
        except UnknownTopicOrPartitionError as exc:
            await self.stop()
            raise self._missing() from exc
        except CLIENT_ERRORS as exc:
            await self.stop()
            raise mapped(exc, f"reading {self._place.topic}") from exc
        except BaseException:
            await self.stop()
            raise
        self._task = asyncio.create_task(self._follow(consumer), name="cache control")

    async def stop(self) -> None:
        """End the task and disconnect. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._resolver is not None:
            await self._resolver.stop()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await closed(consumer.stop(), STOP_TIMEOUT_S)

    def _check_there(self, present: set[str]) -> None:
        if self._place.topic not in present:
            raise self._missing()

    def _check_partitions(self, consumer: AIOKafkaConsumer) -> None:
        topic = self._place.topic
        partitions = consumer.partitions_for_topic(topic)
        if not partitions:
            raise self._missing()
        if len(partitions) > 1:
            raise TopicContractError(
                f"topic {topic!r} has {len(partitions)} partitions, and its records must have one order",
                remedy="delete it and make it anew with one partition (topics apply)",
            )

    def _missing(self) -> BrokerError:
        return BrokerError(f"topic {self._place.topic!r} does not exist", remedy="stratarouter-runtime topics apply")

    async def _replay(self, consumer: AIOKafkaConsumer) -> None:
        began = self._clock.monotonic()
        # Asked before anything is fetched: an answer waits behind a fetch that waits for records.
        first = int((await consumer.beginning_offsets([self._place]))[self._place])
        end = await self._end(consumer)
        self._check_partitions(consumer)
        self._control.forget_before(first)
        consumer.assign([self._place])
        consumer.seek(self._place, first)
        count = 0
        while await consumer.position(self._place) < end:
            count += self._take(await self._poll(consumer), replayed=True)
        # What was written meanwhile is taken by ``_follow``; whoever saw this end knows as much as we do.
        self._control.advance(end - 1)
        await self._settle()
        self._control.heard(began)
        event(log, logging.INFO, "cache control replayed", records=count, position=self._control.position)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            try:
                await self._follow_on(consumer)
            except CLIENT_ERRORS as exc:
                event(log, logging.WARNING, "cache control out of reach", cause=repr(exc))
            except Exception:
                # The outermost loop. Silent from here on would mean: nothing is served from the cache.
                log.exception("cache control failed")
            else:
                continue
            await asyncio.sleep(RETRY_S)
            # A record that was taken and not applied must come again: to miss one would be to serve what it takes away.
            consumer.seek(self._place, self._control.position + 1)

    async def _follow_on(self, consumer: AIOKafkaConsumer) -> None:
        records = await self._poll(consumer)
        if records and records[0].offset <= self._control.position:
            self._begin_anew()
        if self._must_empty:
            await self._empty()
        if self._take(records, replayed=False):
            await self._settle()
        await self._probe(consumer)

    async def _poll(self, consumer: AIOKafkaConsumer) -> list[Record]:
        polled = await consumer.getmany(timeout_ms=POLL_MS)
        return [record for records in polled.values() for record in records]

    async def _probe(self, consumer: AIOKafkaConsumer) -> None:
        """Every PROBE_S: hear that there is nothing to hear."""
        asked_at = self._clock.monotonic()
        if asked_at - self._probed_at < PROBE_S:
            return
        end = await self._end(consumer)
        position = await consumer.position(self._place)
        if position >= end:
            # The end may stand behind markers of transactions, which no reader sees.
            self._control.advance(end - 1)
            self._control.heard(asked_at)
            self._probed_at = asked_at

    async def _end(self, consumer: AIOKafkaConsumer) -> int:
        async with asyncio.timeout(START_TIMEOUT_S):
            return int((await consumer.end_offsets([self._place]))[self._place])

    def _begin_anew(self) -> None:
        """Offsets begin again: another topic of the same name. No position in the cache means anything any more."""
        event(log, logging.WARNING, "cache control topic was made anew", position=self._control.position)
        self._control.restart()
        self._control.followed = True
        self._must_empty = True

    async def _empty(self) -> None:
        """Again after the next poll, where the cache is away: what is said meanwhile is to hold all the same."""
        with contextlib.suppress(CacheUnavailableError):
            await self._cache.drop_everything()
            self._must_empty = False

    def _take(self, records: list[Record], *, replayed: bool) -> int:
        for record in records:
            self._apply(record, replayed=replayed)
        if records:
            self._metrics.cache_control_position.set(self._control.position)
        return len(records)

    def _apply(self, record: Record, *, replayed: bool) -> None:
        place = f"{record.topic}-{record.partition}@{record.offset}"
        try:
            command = decode_command(record.value)
        except InvalidRecordError as exc:
            self._control.advance(record.offset)
            self._metrics.cache_control_total.labels("invalid").inc()
            event(log, logging.ERROR, "cache control record refused", source=place, code=exc.code, cause=exc.message)
            return
        self._control.apply(command, record.offset, record.timestamp, self._config.cache_ttl)
        self._metrics.cache_control_total.labels(command.action).inc()
        if self._resolver is not None:
            self._resolver.note(command, record.timestamp, self._clock.wall_ms())
        audit(command, place, level=logging.DEBUG if replayed else logging.INFO)

    async def _settle(self) -> None:
        if self._resolver is not None:
            self._resolver.begin()
        gone = await self._cache.drop_stale()
        self._metrics.cache_stale_total.labels("backend").inc(gone)


def audit(command: CacheCommand, source: str, *, level: int = logging.INFO) -> None:
    """Say who did what to the cache, when and why. Neither questions nor answers are said."""
    named = ["everything"] if command.everything else [one.replace("\x1f", ":") for one in labels_of(command)]
    event(
        log,
        level,
        "cache control applied",
        action=command.action,
        named=named,
        by=command.by,
        reason=command.reason,
        asked_at_ms=command.at_ms,
        source=source,
    )


class ControlWriter:
    """Writes commands to the topic. Connects with the first."""

    def __init__(self, config: RuntimeConfig) -> None:
        self._config = config
        self._producer = RenewedProducer(config)

    async def send(self, command: CacheCommand) -> int:
        """Write one command durably; returns its offset. Raises SchemaViolationError or BrokerError."""
        value = encode_command(command)
        topic = self._config.topic(self._config.cache_control_topic)
        named = labels_of(command)[:1] or ("everything",)
        sent = await self._producer.send(topic, value, key=named[0].replace("\x1f", ":").encode(), partition=0)
        return int(sent.offset)

    async def stop(self) -> None:
        """Disconnect. Idempotent."""
        await self._producer.stop()


class ControlDesk:
    """Where one process's own commands go: to the topic where it is followed, else to this process alone."""

    def __init__(
        self, config: RuntimeConfig, control: CacheControl, cache: ControlledCache, *, writer: ControlWriter
    ) -> None:
        self._config = config
        self._control = control
        self._cache = cache
        self._writer = writer

    async def execute(self, command: CacheCommand) -> None:
        """Carry ``command`` out; once this returns it holds in this process.

        Raises SchemaViolationError, BrokerError, and CacheUnavailableError where some of what it takes out may be left
        and nobody follows the topic.
        """
        if self._control.followed:
            offset = await self._writer.send(command)
            await self._applied(offset)
            return
        # Checked as a record would be.
        decode_command(encode_command(command))
        now_ms = time.time_ns() // 1_000_000
        self._control.apply(command, self._control.position + 1, now_ms, self._config.cache_ttl)
        audit(command, "this process")
        await self._cache.drop_covered(command)

    async def _applied(self, offset: int) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                while self._control.position < offset:  # noqa: ASYNC110 - the state is pure: it wakes nobody
                    await asyncio.sleep(APPLY_POLL_S)
        except TimeoutError as exc:
            raise BrokerError(
                f"the command is written (offset {offset}) but did not come back within {SEND_TIMEOUT_S} s",
                remedy="it is applied as soon as the topic can be read",
            ) from exc
