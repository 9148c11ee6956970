"""Reads dead letters, and sends them again, mended where they were wrong.

A letter that was sent again is marked in the committed offset of a group of its own (the set of finished offsets in
the metadata, as lanes keep it), in the transaction that sends it: so it is sent once, whatever dies in between, and
refused the second time.
"""

from __future__ import annotations

import heapq
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from aiokafka import TopicPartition

from stratarouter_runtime import wire
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import (
    ConfigurationError,
    InvalidRecordError,
    SchemaViolationError,
    UndecodableRecordError,
    in_general,
)
from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.processors.kafka_client import Record
from stratarouter_runtime.processors.publisher import KafkaPublisher, TransactionalPublisher
from stratarouter_runtime.records import DeadLetter, Outbound
from stratarouter_runtime.state.offsets import OffsetMap, encode
from stratarouter_runtime.tools.ranges import RangeReader, Span, Wanted

HEADER = "stratarouter-resent-from"
"""On a request that was sent again: where its dead letter stands."""
MAX_METADATA_CHARS = 4_000
"""Below the broker's usual limit (4,096) on what is committed beside an offset."""
MAX_SENT = 100
"""Letters in one transaction."""

_ADDRESS = re.compile(r"(\d{1,9})@(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Found:
    """One dead letter and where it stands. ``resent``: it was sent again already."""

    partition: int
    offset: int
    timestamp_ms: int
    letter: DeadLetter
    resent: bool

    @property
    def address(self) -> str:
        """As the command line takes it."""
        return f"{self.partition}@{self.offset}"

    def summary(self) -> dict[str, Any]:
        """The letter without the record in it, as JSON."""
        letter = self.letter
        return {
            "letter": self.address,
            "at": self.timestamp_ms / 1000,
            "code": letter.code,
            "reason": letter.reason,
            "remedy": letter.remedy,
            "request_id": letter.request_id,
            "processor": letter.processor,
            "source": f"{letter.source.topic}-{letter.source.partition}@{letter.source.offset}",
            "resent": self.resent,
        }

    def outline(self) -> dict[str, Any]:
        """The letter without a word of the record in it but its id: a reason shows what the record says, so what its
        code means stands in its place, and nothing is cut out of what the client could have written.
        """
        reason, remedy = in_general(self.letter.code)
        return self.summary() | {"reason": reason, "remedy": remedy}

    def whole(self) -> dict[str, Any]:
        """With the record; bytes that are no UTF-8 as escapes."""
        letter = self.letter
        return self.summary() | {
            "key": None if letter.key is None else letter.key.decode(errors="backslashreplace"),
            "headers": {name: (content or b"").decode(errors="backslashreplace") for name, content in letter.headers},
            "value": None if letter.value is None else letter.value.decode(errors="backslashreplace"),
        }


@dataclass(frozen=True, slots=True)
class Listing:
    """The newest letters that were asked for, oldest first; ``matched`` counts those beyond the limit too."""

    letters: tuple[Found, ...]
    matched: int
    unreadable: int


@dataclass(frozen=True, slots=True)
class Wish:
    """Which letters: None stands for any."""

    code: str | None = None
    processor: str | None = None
    request_id: str | None = None
    resent: bool | None = None

    def takes(self, found: Found) -> bool:
        """Whether ``found`` is one of them."""
        letter = found.letter
        return (
            self.code in {None, letter.code}
            and self.processor in {None, letter.processor}
            and self.request_id in {None, letter.request_id}
            and self.resent in {None, found.resent}
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one letter: ``sent``, ``before`` (sent again earlier), or ``refused`` and why."""

    found: Found
    state: str
    reason: str = ""


def parse_address(text: str) -> Wanted:
    """``PARTITION@OFFSET`` of the dead-letter topic. Raises ConfigurationError."""
    match = _ADDRESS.fullmatch(text.strip())
    if match is None:
        raise ConfigurationError(f"{text!r} is no dead letter's address", remedy="write PARTITION@OFFSET")
    return Wanted(int(match[1]), int(match[2]), int(match[2]) + 1)


def parse_change(text: str) -> tuple[tuple[str, ...], Any]:
    """``decision.route_id=billing``: the path and the value, as JSON where it is JSON. Raises ConfigurationError."""
    path, equals, value = text.partition("=")
    names = tuple(path.strip().split("."))
    if not equals or not all(names):
        raise ConfigurationError(f"--set {text!r} names no field", remedy="write PATH=VALUE, as context.tenant=acme")
    try:
        return names, orjson.loads(value)
    except orjson.JSONDecodeError:
        return names, value


class DeadLetters:
    """The dead-letter topic of one configuration."""

    def __init__(self, config: RuntimeConfig) -> None:
        self._config = config
        self._topic = config.topic(config.dead_letter_topic)
        self._group = f"{config.group_id}.dead-letters"
        self._limits = wire.Limits.of(config)

    async def find(
        self,
        wish: Wish,
        *,
        wanted: Sequence[Wanted] = (),
        since_ms: int | None = None,
        until_ms: int | None = None,
        limit: int = 50,
    ) -> Listing:
        """The newest ``limit`` letters of a range. Raises ConfigurationError, BrokerError."""
        # By time: what is read last is what came from the slowest partition.
        newest: list[tuple[tuple[int, int, int], Found]] = []
        matched = unreadable = 0
        async with RangeReader(self._config, self._topic) as reader:
            spans = await reader.spans(wanted, since_ms, until_ms)
            resent = {span.partition: await self._resent(span.partition) for span in spans}
            async for records in reader.read(_joined(spans)):
                for record in records:
                    found = _found(record, resent[record.partition])
                    unreadable += found is None
                    if found is not None and _is_asked(found, spans) and wish.takes(found):
                        matched += 1
                        heapq.heappush(newest, (_by_time(found), found))
                        if len(newest) > limit:
                            heapq.heappop(newest)
        return Listing(tuple(found for _, found in sorted(newest)), matched, unreadable)

    async def resend(
        self,
        letters: Sequence[Found],
        *,
        changes: Sequence[tuple[tuple[str, ...], Any]] = (),
        value: bytes | None = None,
        force: bool = False,
        go: bool = True,
    ) -> list[Outcome]:
        """Send the requests inside ``letters`` to the requests topic, changed by ``changes`` or as ``value``.

        What would be refused again is not sent. ``force`` sends what was sent before once more; without ``go`` nothing
        is sent. Raises BrokerError: run it again then.
        """
        outcomes = []
        for partition in sorted({found.partition for found in letters}):
            mine = [found for found in letters if found.partition == partition]
            for start in range(0, len(mine), MAX_SENT):
                outcomes += await self._resend_some(mine[start : start + MAX_SENT], changes, value, force=force, go=go)
        return outcomes

    async def _resend_some(
        self,
        letters: Sequence[Found],
        changes: Sequence[tuple[tuple[str, ...], Any]],
        value: bytes | None,
        *,
        force: bool,
        go: bool,
    ) -> list[Outcome]:
        place = TopicPartition(self._topic, letters[0].partition)
        writer = TransactionalPublisher(self._config, self._group, place)
        try:
            # Opened first: nobody else marks letters of this partition from here on.
            state = await writer.open() if go else await self._resent(place.partition)
            outcomes, outbounds = [], []
            for found in letters:
                if state.is_finished(found.offset) and not force:
                    outcomes.append(Outcome(found, "before", "it was sent again already; --force sends it once more"))
                    continue
                try:
                    outbounds.append(self._request(found, changes, value))
                except InvalidRecordError as exc:
                    outcomes.append(Outcome(found, "refused", f"({exc.code}) {exc.message}"))
                    continue
                outcomes.append(Outcome(found, "sent"))
            if go and outbounds:
                sent = {outcome.found.offset for outcome in outcomes if outcome.state == "sent"}
                marked = mark(state, await self._first(place.partition), sent)
                await writer.publish(outbounds, marked.watermark, _metadata(marked, self._topic))
        finally:
            await writer.close()
        return outcomes

    def _request(self, found: Found, changes: Sequence[tuple[tuple[str, ...], Any]], value: bytes | None) -> Outbound:
        """The request to send. Raises InvalidRecordError where it would be refused again."""
        letter = found.letter
        mended = changed(letter.value if value is None else value, changes)
        if mended is None:
            raise UndecodableRecordError("the record has no value", remedy="give --value FILE")
        asked = wire.decode_request(mended, headers=letter.headers, limits=self._limits, source=letter.source)
        if asked.deadline_ms is not None and asked.deadline_ms <= time.time() * 1000:
            # It was for those who waited then; who sends it again wants it executed.
            mended = changed(mended, [(("deadline",), None)]) or mended
        headers = [(name, content or b"") for name, content in letter.headers if name != HEADER]
        mark = (HEADER, f"{self._topic}-{found.partition}@{found.offset}".encode())
        topic = self._config.topic(self._config.requests_topic)
        return Outbound(topic, letter.key, mended, (*headers, mark))

    async def _resent(self, partition: int) -> OffsetMap:
        return await KafkaPublisher(self._config, self._group, TopicPartition(self._topic, partition)).read_committed()

    async def _first(self, partition: int) -> int:
        async with RangeReader(self._config, self._topic) as reader:
            spans = await reader.spans([Wanted(partition)])
            return spans[0].begin if spans else 0


def mark(state: OffsetMap, first: int, sent: set[int]) -> OffsetMap:
    """``state`` with ``sent`` finished too; what lies below ``first`` is gone from the topic."""
    begin = max(first, state.watermark)
    end = max(begin, state.end, max(sent) + 1)
    unfinished = frozenset(
        offset for offset in range(begin, end) if offset not in sent and not state.is_finished(offset)
    )
    return OffsetMap(min(unfinished, default=end), end, unfinished)


def changed(value: bytes | None, changes: Sequence[tuple[tuple[str, ...], Any]]) -> bytes | None:
    """``value`` with its fields set. A decision that is a route id alone is an object with it from then on, and what is
    null is an empty one. Raises SchemaViolationError where it has no fields.
    """
    if not changes:
        return value
    try:
        found = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise SchemaViolationError("the record is no JSON object: no field can be set", remedy="give --value FILE")
    for names, content in changes:
        inner = found
        for name in names[:-1]:
            within = inner.get(name)
            if within is None:
                within = {}
            elif inner is found and name == "decision" and isinstance(within, str):
                within = {"route_id": within}
            if not isinstance(within, dict):
                raise SchemaViolationError(f"{'.'.join(names)} cannot be set: {name!r} is no object")
            inner[name] = within
            inner = within
        inner[names[-1]] = content
    return json_bytes(found)


def _metadata(state: OffsetMap, topic: str) -> str:
    text = encode(state)
    if len(text) > MAX_METADATA_CHARS:
        raise ConfigurationError(
            f"the marks of what was sent again no longer fit beside the offset of {topic}",
            remedy="send older letters of the partition first, or after their retention has passed",
        )
    return text


def _joined(spans: Sequence[Span]) -> list[Span]:
    """One span for each partition, over all that are asked of it."""
    wide: dict[int, Span] = {}
    for span in spans:
        known = wide.get(span.partition, span)
        wide[span.partition] = Span(span.partition, min(known.begin, span.begin), max(known.end, span.end))
    return list(wide.values())


def _is_asked(found: Found, spans: Sequence[Span]) -> bool:
    return any(span.partition == found.partition and span.begin <= found.offset < span.end for span in spans)


def _found(record: Record, resent: OffsetMap) -> Found | None:
    try:
        letter = wire.decode_dead_letter(record.value)
    except InvalidRecordError:
        return None  # counted by the caller: a foreign record on the topic
    return Found(record.partition, record.offset, record.timestamp, letter, resent.is_finished(record.offset))


def _by_time(found: Found) -> tuple[int, int, int]:
    return found.timestamp_ms, found.partition, found.offset
