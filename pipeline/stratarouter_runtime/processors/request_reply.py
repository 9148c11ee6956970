"""Request and reply over Kafka: produce a request, await the response (or dead letter) with its id."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from stratarouter_runtime import wire
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.drafts import Draft
from stratarouter_runtime.errors import InvalidRecordError, ShuttingDownError
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.cache_control import ControlWriter
from stratarouter_runtime.processors.find_response import find_response
from stratarouter_runtime.processors.kafka_client import CLIENT_ERRORS, Record, mapped
from stratarouter_runtime.records import CacheCommand, DeadLetter, Response
from stratarouter_runtime.telemetry.logs import event

log = logging.getLogger("stratarouter.request_reply")

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 30.0


class KafkaCarrier:
    """Sends requests to the requests topic and follows the responses and dead letters from its start on."""

    def __init__(self, config: RuntimeConfig) -> None:
        self._config = config
        self._waiting: dict[str, list[asyncio.Future[Response]]] = {}
        self._producer: AIOKafkaProducer | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._reader: asyncio.Task[None] | None = None
        self._writer = ControlWriter(config)

    async def start(self) -> None:
        """Connect, and stand at the end of the answers before the first request goes out."""
        topics = [self._config.topic(t) for t in (self._config.responses_topic, self._config.dead_letter_topic)]
        self._producer = kafka_client.producer(self._config)
        self._consumer = kafka_client.consumer(self._config, *topics, group=None, fetch_max_wait_ms=100)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._producer.start()
                await self._consumer.start()
                await self._stand_at_end(self._consumer, topics)
        except CLIENT_ERRORS as exc:
            await self.stop(0.0)
            raise mapped(exc, "connecting the bridge") from exc
        except BaseException:
            await self.stop(0.0)
            raise
        self._reader = asyncio.create_task(self._read_loop(self._consumer), name="bridge reader")

    async def stop(self, grace_s: float) -> None:
        """Wait for answers that are due, then disconnect."""
        waiting = [f for futures in self._waiting.values() for f in futures]
        if waiting:
            await asyncio.wait(waiting, timeout=grace_s)
        for future in waiting:
            if not future.done():
                future.set_exception(ShuttingDownError("the bridge was closed before the answer came"))
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        await self._writer.stop()
        for client in (self._producer, self._consumer):
            if client is not None:
                try:
                    async with asyncio.timeout(STOP_TIMEOUT_S):
                        await client.stop()
                except CLIENT_ERRORS as exc:
                    event(log, logging.INFO, "client closed with an error", cause=repr(exc))

    async def carry(
        self,
        draft: Draft,
        bound_s: float,
        on_text: Callable[[str], None] | None = None,  # noqa: ARG002 - a response is one record
    ) -> Response:
        """Produce and wait."""
        try:
            async with asyncio.timeout(bound_s):
                return await self._request(draft)
        except TimeoutError as exc:
            raise draft.late(bound_s) from exc

    async def _request(self, draft: Draft) -> Response:
        if self._producer is None:
            raise ShuttingDownError("the bridge is not started")
        value, request_id = draft.record(), draft.request_id
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(request_id, []).append(answer)
        try:
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    topic = self._config.topic(self._config.requests_topic)
                    await self._producer.send_and_wait(topic, value, key=request_id.encode())
            except CLIENT_ERRORS as exc:
                raise mapped(exc, "producing a request") from exc
            return await answer
        finally:
            self._forget(request_id, answer)

    async def command(self, command: CacheCommand) -> None:
        """Write to the cache-control topic; every worker applies it within moments."""
        await self._writer.send(command)

    async def response_to(self, request_id: str) -> Response | None:
        """The last response on the responses topic."""
        return await find_response(self._config, request_id)

    def _forget(self, request_id: str, answer: asyncio.Future[Response]) -> None:
        waiting = self._waiting.get(request_id, [])
        if answer in waiting:
            waiting.remove(answer)
        if not waiting:
            self._waiting.pop(request_id, None)

    async def _stand_at_end(self, consumer: AIOKafkaConsumer, topics: list[str]) -> None:
        places = kafka_client.places_of(consumer, *topics)
        await consumer.seek_to_end(*places)
        for place in places:
            await consumer.position(place)

    async def _read_loop(self, consumer: AIOKafkaConsumer) -> None:
        dead_letters = self._config.topic(self._config.dead_letter_topic)
        while True:
            try:
                polled = await consumer.getmany(timeout_ms=200)
            except CLIENT_ERRORS as exc:
                event(log, logging.WARNING, "reading answers failed", cause=repr(exc))
                await asyncio.sleep(0.5)
                continue
            for place, records in polled.items():
                for record in records:
                    self._read(record, is_dead_letter=place.topic == dead_letters)

    def _read(self, record: Record, *, is_dead_letter: bool) -> None:
        try:
            if is_dead_letter:
                self._refuse(wire.decode_dead_letter(record.value))
            elif (record.key or b"").decode(errors="replace") in self._waiting:
                self._answer(wire.decode_response(record.value))
        except InvalidRecordError as exc:
            event(
                log, logging.WARNING, "foreign record skipped", topic=record.topic, offset=record.offset, cause=str(exc)
            )

    def _answer(self, response: Response) -> None:
        for future in self._waiting.pop(response.request_id, []):
            if not future.done():
                future.set_result(response)

    def _refuse(self, letter: DeadLetter) -> None:
        # Where the id itself could not be read, the key we sent the record under tells whose it was.
        request_id = letter.request_id or (letter.key or b"").decode(errors="replace")
        for future in self._waiting.pop(request_id, []):
            if not future.done():
                refused = InvalidRecordError(letter.reason, remedy=letter.remedy)
                refused.code = letter.code  # type: ignore[misc]  # the worker's code, whichever of the classes it was
                future.set_exception(refused)
