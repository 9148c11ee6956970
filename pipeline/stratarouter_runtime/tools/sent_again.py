"""Which requests that have no answer of their own were answered when they were sent again under the same id."""

from __future__ import annotations

from collections.abc import Mapping

from stratarouter_runtime import wire
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import InvalidRecordError
from stratarouter_runtime.plain import dataclass
from stratarouter_runtime.port_values import JournalKey
from stratarouter_runtime.processors.kafka_client import Record
from stratarouter_runtime.processors.publish import coordinates
from stratarouter_runtime.records import Coordinates, Response
from stratarouter_runtime.tools import dead_letters
from stratarouter_runtime.tools.ranges import BATCH, RangeReader, Span
from stratarouter_runtime.tools.replay_progress import rounds

Place = tuple[str, int, int]
"""Topic, partition, offset."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A request whose result is not in the journal: its words, and when it was written."""

    key: JournalKey
    payload_hash: str
    timestamp_ms: int


def place(at: Coordinates) -> Place:
    """Where a record stands."""
    return at.topic, at.partition, at.offset


class SentAgain:
    """Finds them by good answers to later records of their ids: to a mended dead letter, or to the same words.

    An id that stands for other words by then, and was not mended, is another request.
    """

    def __init__(self, config: RuntimeConfig, missing: Mapping[Place, Missing]) -> None:
        self._config = config
        self._topic = config.topic(config.requests_topic)
        self._limits = wire.Limits.of(config)
        self._missing = missing
        self._places: dict[JournalKey, list[Place]] = {}
        for at, one in missing.items():
            self._places.setdefault(one.key, []).append(at)
        self._answered: dict[Place, JournalKey] = {}

    def note(self, response: Response) -> None:
        """A good answer on the responses topic: is it one to look at?"""
        source, key = response.source, JournalKey(response.tenant, response.request_id)
        if source is not None and source.topic == self._topic and key in self._places:
            self._answered[place(source)] = key

    async def found(self) -> list[Place]:
        """The missing ones that are answered so. Raises BrokerError."""
        answered: list[Place] = []
        left = {one.key for one in self._missing.values()}
        places = [at for at, key in self._answered.items() if key in left]
        if not places:
            return answered
        async with RangeReader(self._config, self._topic) as reader:
            held = {span.partition: span for span in await reader.spans()}
            # What the broker gives at once anyway is read on: each round is a request of its own, and megabytes.
            spans = [
                Span(partition, offset, min(offset + BATCH, held[partition].end))
                for _, partition, offset in places
                if partition in held and held[partition].begin <= offset
            ]
            for some in rounds(spans):
                async for records in reader.read(some):
                    for record in records:
                        answered += self._answered_by(record)
        return answered

    def _answered_by(self, record: Record) -> list[Place]:
        key = self._answered.get(place(coordinates(record)))
        if key is None:
            return []
        is_mended = any(name == dead_letters.HEADER for name, _ in record.headers)
        try:
            request = wire.decode_request(record.value, headers=record.headers, limits=self._limits)
        except InvalidRecordError:
            return []
        payload_hash = wire.payload_hash(request)
        return [
            at
            for at in self._places[key]
            if (one := self._missing.get(at)) is not None
            and one.timestamp_ms <= record.timestamp
            and (is_mended or one.payload_hash == payload_hash)
        ]
