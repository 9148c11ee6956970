"""Which offsets of one partition are finished, and how that set travels in a committed offset's metadata.

The ledger commits the low watermark (the smallest unfinished offset) and, in the metadata, the *unfinished* offsets
between the watermark and the highest finished one. Offsets that never reach us (compaction, transaction markers)
are simply not unfinished, so gaps hold nothing up.

Metadata, as text: ``srt1`` alone for an empty map, else ``srt1.<form><base64>`` where the bytes are a CRC-32 of the
rest and the watermark (4 bytes), the varint length of the covered span, and the unfinished offsets as a bitmap
(form ``b``) or as varint deltas (form ``d``), whichever is shorter.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from stratarouter_runtime.errors import OffsetMetadataError, OffsetRegressionError

VERSION_TAG = "srt1"
_MARK = "srt"
_CRC_BYTES = 4
_VARINT_MAX_BYTES = 10
_FIXED_CHARS = 32
"""Upper bound in characters for the tag, form, CRC, span varint and base64 padding."""


@dataclass(frozen=True, slots=True)
class OffsetMap:
    """A committed state: everything below ``watermark`` is finished, and below ``end`` all but ``unfinished``."""

    watermark: int
    end: int
    unfinished: frozenset[int] = frozenset()

    def is_finished(self, offset: int) -> bool:
        """Whether the record at ``offset`` was finished when this map was committed."""
        return offset < self.watermark or (offset < self.end and offset not in self.unfinished)


def encode(state: OffsetMap) -> str:
    """The metadata text for ``state``; the shorter of the two forms."""
    if not state.unfinished:
        return VERSION_TAG if state.end == state.watermark else _pack(state, "d", b"")
    deltas = _deltas(state)
    if _bitmap_bytes(state.end - state.watermark) < len(deltas):
        return _pack(state, "b", _bitmap(state))
    return _pack(state, "d", deltas)


def decode(watermark: int, metadata: str) -> OffsetMap:
    """Read metadata committed with offset ``watermark``.

    Empty metadata means no map (a tool reset the offset). Raises OffsetMetadataError for anything that is not ours,
    newer than ours, or damaged: to go on would lose or repeat records.
    """
    if metadata in {"", VERSION_TAG}:
        return OffsetMap(watermark, watermark)
    tag, _, body = metadata.partition(".")
    if tag != VERSION_TAG or not body:
        kind = "a newer version's" if tag.startswith(_MARK) and tag != VERSION_TAG else "a foreign program's"
        raise OffsetMetadataError(f"the metadata at offset {watermark} is {kind}: {metadata[:40]!r}")
    payload = _unpack(watermark, body[1:])
    span, start = _read_varint(payload, 0, watermark)
    if body[0] == "b":
        unfinished = _from_bitmap(payload[start:], watermark, span)
    elif body[0] == "d":
        unfinished = _from_deltas(payload, start, watermark)
    else:
        raise OffsetMetadataError(f"the metadata at offset {watermark} has the unknown form {body[0]!r}")
    if watermark not in unfinished and (unfinished or body[0] == "b"):
        # The checksum does not cover the form; bytes of one read as the other begin with another offset, or with none.
        raise OffsetMetadataError(f"the metadata at offset {watermark} is damaged (it is not unfinished itself)")
    if any(not watermark <= offset < watermark + span for offset in unfinished):
        raise OffsetMetadataError(f"the metadata at offset {watermark} names offsets outside its span")
    return OffsetMap(watermark, watermark + span, frozenset(unfinished))


def worst_case_chars(unfinished: int, span: int) -> int:
    """An upper bound on the length of the metadata for any ``unfinished`` offsets within ``span``, in O(1).

    A delta of d takes at most ``1 + d // 128`` varint bytes, and the deltas add up to at most the span; nor does one
    take more bytes than the span itself.
    """
    deltas = min(unfinished + span // 128, unfinished * len(_varint(span)))
    return _FIXED_CHARS + -(-min(deltas, _bitmap_bytes(span)) * 4 // 3)


def _bitmap_bytes(span: int) -> int:
    return (span + 7) // 8


def _pack(state: OffsetMap, form: str, body: bytes) -> str:
    payload = _varint(state.end - state.watermark) + body
    crc = zlib.crc32(payload, zlib.crc32(str(state.watermark).encode()))
    return f"{VERSION_TAG}.{form}{base64.b64encode(crc.to_bytes(_CRC_BYTES, 'big') + payload).decode()}"


def _unpack(watermark: int, text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise OffsetMetadataError(f"the metadata at offset {watermark} is not base64") from exc
    payload = raw[_CRC_BYTES:]
    crc = zlib.crc32(payload, zlib.crc32(str(watermark).encode()))
    if len(raw) <= _CRC_BYTES or raw[:_CRC_BYTES] != crc.to_bytes(_CRC_BYTES, "big"):
        raise OffsetMetadataError(
            f"the metadata at offset {watermark} is damaged or was committed with another offset (checksum differs)"
        )
    return payload


def _bitmap(state: OffsetMap) -> bytes:
    bits = bytearray(_bitmap_bytes(state.end - state.watermark))
    for offset in state.unfinished:
        position = offset - state.watermark
        bits[position >> 3] |= 1 << (position & 7)
    return bytes(bits)


def _from_bitmap(bits: bytes, watermark: int, span: int) -> set[int]:
    if len(bits) != _bitmap_bytes(span):
        raise OffsetMetadataError(f"the bitmap at offset {watermark} has {len(bits)} bytes for a span of {span}")
    return {
        watermark + (index << 3) + bit for index, byte in enumerate(bits) if byte for bit in range(8) if byte >> bit & 1
    }


def _deltas(state: OffsetMap) -> bytes:
    out = bytearray()
    previous = state.watermark
    for offset in sorted(state.unfinished):
        out += _varint(offset - previous)
        previous = offset
    return bytes(out)


def _from_deltas(payload: bytes, start: int, watermark: int) -> set[int]:
    unfinished: set[int] = set()
    position, offset = start, watermark
    while position < len(payload):
        delta, position = _read_varint(payload, position, watermark)
        offset += delta
        unfinished.add(offset)
    return unfinished


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(payload: bytes, position: int, watermark: int) -> tuple[int, int]:
    value = 0
    for shift in range(_VARINT_MAX_BYTES):
        if position >= len(payload):
            break
        byte = payload[position]
        position += 1
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, position
    raise OffsetMetadataError(f"the metadata at offset {watermark} ends inside a number")


class OffsetLedger:
    """The offsets of one partition between being taken and being committed.

    ``take`` each record in offset order, ``finish`` it when its output is in the transaction that is being written,
    and commit ``snapshot()`` in that transaction.
    """

    def __init__(self, committed: OffsetMap, *, max_chars: int) -> None:
        """Resume from ``committed``; never let the metadata exceed ``max_chars`` (the broker's limit)."""
        self._unfinished = set(committed.unfinished)
        self._order = deque(sorted(committed.unfinished))
        self._expected = deque(self._order)
        self._resumed_end = committed.end
        self._next = max(committed.end, committed.watermark)
        self._end = committed.end
        self._seen = committed.watermark - 1
        self._max_chars = max_chars

    @property
    def watermark(self) -> int:
        """The smallest offset that is not finished: what is committed."""
        while self._order and self._order[0] not in self._unfinished:
            self._order.popleft()
        return self._order[0] if self._order else self._next

    @property
    def unfinished(self) -> int:
        """How many offsets are taken (or expected again after a restart) and not finished."""
        return len(self._unfinished)

    @property
    def span(self) -> int:
        """How far the ledger reaches beyond its watermark, in offsets."""
        return self._next - self.watermark

    def take(self, offset: int) -> bool:
        """Note the record at ``offset``; False where it was finished before a restart and must be skipped.

        Raises OffsetRegressionError where offsets go back.
        """
        if offset <= self._seen:
            raise OffsetRegressionError(f"offset {offset} came after {self._seen}")
        self.pass_to(offset)
        self._seen = offset
        if self._expected and self._expected[0] == offset:
            self._expected.popleft()
        if offset < self._resumed_end:
            return offset in self._unfinished
        self._unfinished.add(offset)
        self._order.append(offset)
        self._next = offset + 1
        return True

    def pass_to(self, position: int) -> bool:
        """Note that every record below ``position`` was delivered: what is left out there are gaps (aborted records,
        transaction markers) or was awaited again and has been deleted. Returns whether that is news.
        """
        if position <= self._seen + 1:
            return False
        while self._expected and self._expected[0] < position:
            self._unfinished.discard(self._expected.popleft())
        self._seen = position - 1
        self._next = max(self._next, position)
        return True

    def finish(self, offsets: Iterable[int]) -> None:
        """Note that the outputs of ``offsets`` are part of the next commit."""
        for offset in offsets:
            self._unfinished.discard(offset)
            if offset >= self._end:
                self._end = offset + 1

    def reopen(self, offsets: Iterable[int]) -> None:
        """Take back ``finish``: the commit did not happen."""
        back = sorted(offsets)
        self._unfinished.update(back)
        self._order = deque(sorted(self._unfinished))

    def snapshot(self) -> OffsetMap:
        """What to commit now."""
        watermark = self.watermark
        end = max(self._end, watermark)
        return OffsetMap(watermark, end, frozenset(o for o in self._unfinished if o < end))

    def has_room(self, records: int) -> bool:
        """Whether ``records`` more can be taken with the map still certain to fit its limit.

        Gaps between offsets make the span grow faster than the count, so room is kept for as many again. Gaps may be
        longer, so each record is asked for (``has_room(1)`` after ``pass_to`` its offset) before it is taken. What the
        map held when it was committed makes it no longer: after a restart it is read again, or it would never be
        finished.
        """
        if self.to_read_again:
            return True
        return worst_case_chars(self.unfinished + records, self.span + 2 * records) <= self._max_chars

    def has_room_until(self, offset: int, records: int) -> bool:
        """Whether ``records`` more, the last of them at ``offset``, are certain to find room one by one."""
        span = max(self._next, offset + 1) - self.watermark
        return worst_case_chars(self.unfinished + records, span + 2) <= self._max_chars

    @property
    def to_read_again(self) -> int:
        """How many offsets lie between what was read since the restart and the end of the map as it was then."""
        return max(0, self._resumed_end - self._seen - 1)
