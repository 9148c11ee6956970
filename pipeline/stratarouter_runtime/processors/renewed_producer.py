"""Writes single records, with another producer after a send that failed.

aiokafka counts a batch into the sequence of its partition when it takes it up, and does not take that back where the
batch fails: it was too large for the topic, a right was missing, the partition had no leader. From then on the broker
refuses all that this producer sends there, as out of sequence.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer
from aiokafka.errors import OutOfOrderSequenceNumber
from aiokafka.structs import RecordMetadata

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import ShuttingDownError
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.closing import closed
from stratarouter_runtime.processors.kafka_client import CLIENT_ERRORS, mapped_write
from stratarouter_runtime.shared_task import SharedTask
from stratarouter_runtime.telemetry.logs import event

log = logging.getLogger("stratarouter.renewed_producer")

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 30.0
"""With the wait for a connection. So long, too, a producer that is given up waits for what is under way on it."""


@dataclass(eq=False, slots=True)
class Line:
    """A producer, and how many sends are under way on it."""

    producer: AIOKafkaProducer
    sends: int = 0
    may_close: asyncio.Event = field(default_factory=asyncio.Event)


class RenewedProducer:
    """Connects with ``start``, or with the first send."""

    def __init__(self, config: RuntimeConfig) -> None:
        self._config = config
        self._line: Line | None = None
        self._connecting = SharedTask(self._connect, "connecting a producer")
        self._given_up: dict[asyncio.Task[None], Line] = {}
        self._stopped = False

    async def start(self) -> None:
        """Connect. Raises what aiokafka raises; ShuttingDownError after ``stop``."""
        await self._connected()

    async def send(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> RecordMetadata:
        """Write one record durably; where it stands. Raises BrokerError, and ShuttingDownError after ``stop``."""
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                try:
                    return await self._send_once(topic, value, key, partition, headers)
                except OutOfOrderSequenceNumber:
                    # Refused for a record that failed before it, and so written nowhere.
                    return await self._send_once(topic, value, key, partition, headers)
        except CLIENT_ERRORS as exc:
            raise mapped_write(exc, f"writing to {topic}") from exc

    async def stop(self) -> None:
        """Disconnect. Idempotent."""
        self._stopped = True
        await self._connecting.end()
        if self._line is not None:
            self._give_up(self._line)
        for line in self._given_up.values():
            line.may_close.set()
        await asyncio.gather(*self._given_up)

    async def _send_once(
        self, topic: str, value: bytes, key: bytes, partition: int | None, headers: Sequence[tuple[str, bytes]]
    ) -> RecordMetadata:
        line = await self._connected()
        line.sends += 1
        try:
            # aiokafka takes nothing but a list of headers.
            return await line.producer.send_and_wait(topic, value, key=key, partition=partition, headers=list(headers))
        except CLIENT_ERRORS as exc:
            # A caller that gives up, or the timeout, is no failure: the record is on its way, and its number with it.
            if line is self._line:
                event(log, logging.WARNING, "producer given up", topic=topic, cause=repr(exc))
                self._give_up(line)
            raise
        finally:
            line.sends -= 1
            if not line.sends and line is not self._line:
                line.may_close.set()

    async def _connected(self) -> Line:
        # Again where the line was given up before its turn came.
        while self._line is None:
            if self._stopped:
                raise ShuttingDownError("the producer is closed")
            await self._connecting.result()
        return self._line

    async def _connect(self) -> None:
        producer = kafka_client.producer(self._config)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await producer.start()
        except BaseException:
            await closed(producer.stop(), STOP_TIMEOUT_S)
            raise
        self._line = Line(producer)

    def _give_up(self, line: Line) -> None:
        """Send nothing more on ``line``; what is under way on it, to other partitions say, comes to its end first."""
        self._line = None
        task = asyncio.create_task(_close(line), name="close a producer")
        self._given_up[task] = line
        task.add_done_callback(self._given_up.pop)


async def _close(line: Line) -> None:
    await line.may_close.wait()
    await closed(line.producer.stop(), STOP_TIMEOUT_S)
