"""Reads a bounded range of a topic: by offsets, by time, or both. Without a group; committed records only."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from aiokafka import TopicPartition

from stratarouter_runtime import validation
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import BrokerError, ConfigurationError, InvalidRecordError
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.closing import closed
from stratarouter_runtime.processors.kafka_client import CLIENT_ERRORS, Record, mapped

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
IDLE_TIMEOUT_S = 60.0
"""Without a record for so long the broker is not going to give the rest."""
POLL_MS = 500
BATCH = 500
"""Records handed out at once."""

_OFFSETS = re.compile(r"(\d{1,9})(?::(\d{0,18})\.\.(\d{0,18}))?")
_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Offsets of one partition, from ``begin`` to before ``end``."""

    partition: int
    begin: int
    end: int

    @property
    def width(self) -> int:
        """Offsets in it; records may be fewer."""
        return max(0, self.end - self.begin)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of one partition is asked for; None: from its first, to its last."""

    partition: int
    begin: int | None = None
    end: int | None = None


def parse_offsets(text: str) -> Wanted:
    """``3``, ``3:100..200`` (to before 200), ``3:100..`` or ``3:..200``. Raises ConfigurationError."""
    match = _OFFSETS.fullmatch(text.strip())
    if match is None:
        raise ConfigurationError(
            f"--offsets {text!r} is no range", remedy="write PARTITION:BEGIN..END, as 3:100..200 (to before 200)"
        )
    begin, end = (int(bound) if bound else None for bound in match.group(2, 3))
    if begin is not None and end is not None and begin >= end:
        raise ConfigurationError(f"--offsets {text!r} is empty", remedy="the end is not part of the range")
    return Wanted(int(match[1]), begin, end)


def parse_time(text: str, option: str) -> int:
    """Epoch milliseconds of an RFC 3339 time, or of so long ago (``90s``, ``30m``, ``6h``, ``7d``).

    Raises ConfigurationError.
    """
    ago = _AGO.fullmatch(text.strip())
    if ago is not None:
        return max(0, int((time.time() - int(ago[1]) * _UNITS_S[ago[2]]) * 1000))
    try:
        # Kafka reads times before its own as commands: -1 is the end, -2 the beginning.
        return max(0, validation.time_ms(text.strip(), option))
    except InvalidRecordError as exc:
        raise ConfigurationError(
            f"{option} {text!r} is no time", remedy="write 2026-01-31T12:00:00Z, or how long ago: 90s, 30m, 6h, 7d"
        ) from exc


class RangeReader:
    """An async context manager over one topic."""

    def __init__(self, config: RuntimeConfig, topic: str) -> None:
        self.topic = topic
        self._consumer = kafka_client.consumer(config, topic, group=None, fetch_max_wait_ms=100)

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._consumer.start()
                self._consumer.pause(*kafka_client.places_of(self._consumer, self.topic))
        except CLIENT_ERRORS as exc:
            await closed(self._consumer.stop(), STOP_TIMEOUT_S)
            raise mapped(exc, f"reading {self.topic}") from exc
        except BaseException:
            await closed(self._consumer.stop(), STOP_TIMEOUT_S)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await closed(self._consumer.stop(), STOP_TIMEOUT_S)

    async def spans(
        self, wanted: Sequence[Wanted] = (), since_ms: int | None = None, until_ms: int | None = None
    ) -> list[Span]:
        """What the topic holds of ``wanted`` (empty: of every partition) between two times; empty spans are left out.

        Raises ConfigurationError where a partition is not there or an offset is not held any more or not yet.
        """
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                places = {place.partition: place for place in kafka_client.places_of(self._consumer, self.topic)}
                first = await self._consumer.beginning_offsets(list(places.values()))
                end = await self._consumer.end_offsets(list(places.values()))
                begin_at = await self._at(places.values(), since_ms, first, end)
                end_at = await self._at(places.values(), until_ms, end, end)
        except CLIENT_ERRORS as exc:
            raise mapped(exc, f"asking for the offsets of {self.topic}") from exc
        found = []
        for one in wanted or [Wanted(partition) for partition in sorted(places)]:
            place = places.get(one.partition)
            if place is None:
                raise ConfigurationError(
                    f"{self.topic} has no partition {one.partition}", remedy=f"it has 0 to {max(places)}"
                )
            self._check(one, first[place], end[place])
            begin = max(begin_at[place], one.begin if one.begin is not None else first[place])
            until = min(end_at[place], one.end if one.end is not None else end[place])
            if begin < until:
                found.append(Span(one.partition, begin, until))
        return found

    async def read(self, spans: Sequence[Span], *, chunk: int = BATCH) -> AsyncIterator[list[Record]]:
        """The records of ``spans``, in lists of one partition in its order, at most ``chunk`` long.

        Raises BrokerError, also where nothing more comes for IDLE_TIMEOUT_S.
        """
        left = {TopicPartition(self.topic, span.partition): span for span in spans}
        heard = time.monotonic()
        try:
            for place, span in left.items():
                self._consumer.seek(place, span.begin)
            self._consumer.resume(*left)
            while left:
                polled = await self._consumer.getmany(*left, timeout_ms=POLL_MS, max_records=chunk)
                for place, records in polled.items():
                    heard = time.monotonic()
                    inside = [record for record in records if record.offset < left[place].end]
                    if inside:
                        yield inside
                for place in [place for place, span in left.items() if await self._is_over(place, span)]:
                    self._consumer.pause(place)
                    del left[place]
                if time.monotonic() - heard > IDLE_TIMEOUT_S:
                    raise BrokerError(f"{self.topic} gave no record for {IDLE_TIMEOUT_S:.0f} s; left: {list(left)}")
        except CLIENT_ERRORS as exc:
            raise mapped(exc, f"reading {self.topic}") from exc

    async def _is_over(self, place: TopicPartition, span: Span) -> bool:
        position: int = await self._consumer.position(place)
        return position >= span.end

    async def _at(
        self,
        places: Iterable[TopicPartition],
        time_ms: int | None,
        otherwise: dict[TopicPartition, int],
        end: dict[TopicPartition, int],
    ) -> dict[TopicPartition, int]:
        """The first offset at or after ``time_ms``, by partition; ``otherwise`` where no time is given."""
        if time_ms is None:
            return otherwise
        found = await self._consumer.offsets_for_times(dict.fromkeys(places, time_ms))
        return {place: end[place] if at is None else at.offset for place, at in found.items()}

    def _check(self, one: Wanted, first: int, end: int) -> None:
        for offset in (one.begin, one.end):
            if offset is not None and not first <= offset <= end:
                raise ConfigurationError(
                    f"{self.topic}-{one.partition} does not hold offset {offset}", remedy=f"it holds {first}..{end}"
                )
