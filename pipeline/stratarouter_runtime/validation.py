"""Checks on single values of a record. Each refusal names the value's JSON path, the value (shortened) and the rule."""

from __future__ import annotations

import binascii
import difflib
import math
import re
import reprlib
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import orjson
import pybase64

from stratarouter_runtime.config import MAX_EMBEDDING_DIMENSION
from stratarouter_runtime.config import MAX_TTL_S as MAX_TTL_S  # noqa: PLC0414  # for those who check by it
from stratarouter_runtime.errors import (
    InvalidEmbeddingError,
    RecordTooLargeError,
    SchemaViolationError,
    UndecodableRecordError,
)
from stratarouter_runtime.records import Vector

T = TypeVar("T")

MAX_ID_CHARS = 256
"""Length of request ids, tenants and other names, in characters; the journal's key columns take 512."""
UNIT_TOLERANCE = 1e-6
"""A float32 vector this near to length 1 is left as it is, so that passing it on never changes it."""
KEPT_VECTORS, KEPT_CHARS = 1_024, 8_192
"""Vectors in base64 that were read last, of 1,536 numbers at most: 14 MB of those, 4 MB of 384 numbers. One of 384
that is not read again saves 5 us."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_VISIBLE = re.compile(r"\S")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII)
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_NUMERIC = frozenset((int, float))
_FLOAT32 = np.dtype("<f4")

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 60
_repr.maxdict = _repr.maxlist = 3
_repr.maxlevel = 2


def shown(value: object) -> str:
    """``value`` as a message shows it: at most some 100 characters, without walking all of a large value."""
    try:
        text = _repr.repr(value)
    except ValueError:
        # Python writes none of more than 4,300 digits.
        return "an integer too long to show"
    return text if len(text) <= 120 else text[:117] + "..."


def violation(path: str, value: object, rule: str) -> SchemaViolationError:
    """The error that says ``path`` = ``value`` breaks ``rule``."""
    return SchemaViolationError(f"{path} = {shown(value)}: {rule}")


def missing(path: str) -> SchemaViolationError:
    """The error for a required field that is absent or null."""
    return SchemaViolationError(f"{path} is missing")


# --- the whole record ------------------------------------------------------------------------------------------


def json_object(value: bytes | None, max_bytes: int | None, max_depth: int) -> dict[str, Any]:
    """Parse a record's value. Raises RecordTooLargeError, UndecodableRecordError, SchemaViolationError."""
    if not value:
        raise UndecodableRecordError("the record's value is empty")
    if max_bytes is not None and len(value) > max_bytes:
        raise RecordTooLargeError(f"the record's value has {len(value)} bytes, more than {max_bytes}")
    try:
        parsed = orjson.loads(value)
    except orjson.JSONDecodeError as exc:
        raise UndecodableRecordError(f"the record's value is not JSON in UTF-8: {exc} in {shown(value)}") from exc
    if _may_be_deeper_than(value, max_depth) and deeper_than(parsed, max_depth):
        raise UndecodableRecordError(f"the record's value is nested deeper than {max_depth} levels")
    if type(parsed) is not dict:
        raise violation("$", parsed, "must be a JSON object")
    return parsed


def _may_be_deeper_than(value: bytes, levels: int) -> bool:
    """Whether ``value`` has brackets enough for that. Finding them one by one goes by memchr, counting byte by byte
    (0.5 us for 2.5 kB against 5).
    """
    left = levels
    for mark in (b"{", b"["):
        place = value.find(mark)
        while place >= 0:
            left -= 1
            if left < 0:
                return True
            place = value.find(mark, place + 1)
    return False


def deeper_than(value: object, levels: int) -> bool:
    """Whether ``value`` nests containers deeper than ``levels``. Level by level, so depth costs no stack."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(levels):
        if not level:
            return False
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, (dict, list))
        ]
    return bool(level)


def refuse_unknown(found: Mapping[str, Any], known: Collection[str], path: str) -> None:
    """Refuse a field that nobody reads: a typo must not be silent."""
    for name in found:
        if name not in known:
            # A name of megabytes is no typo of ours, and to compare it would take a second.
            near = difflib.get_close_matches(name, known, n=1) if len(name) <= MAX_ID_CHARS else []
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SchemaViolationError(f"{path}.{shown(name)[1:-1]} is an unknown field{hint}")


# --- plain values ----------------------------------------------------------------------------------------------


def optional(value: object, path: str, check: Callable[[Any, str], T]) -> T | None:
    """None for an absent or null field, else what ``check`` makes of it."""
    return None if value is None else check(value, path)


def or_else(default: T, value: object, path: str, check: Callable[[Any, str], T]) -> T:
    """``default`` for an absent or null field, else what ``check`` makes of it: nothing else counts as absent."""
    return default if value is None else check(value, path)


def identifier(value: object, path: str) -> str:
    """A name: 1 to 256 characters, none of them a control character (PostgreSQL's text takes no NUL)."""
    if value is None:
        raise missing(path)
    if type(value) is not str or not 0 < len(value) <= MAX_ID_CHARS:
        raise violation(path, value, f"must be a string of 1 to {MAX_ID_CHARS} characters")
    # printable is the fast answer for nearly every id; only what is not may hold a control character.
    if not value.isprintable() and _CONTROL.search(value):
        raise violation(path, value, "must not hold control characters")
    return value


def string(value: object, path: str) -> str:
    """Any string."""
    if type(value) is not str:
        raise violation(path, value, "must be a string")
    return value


def visible_text(value: object, path: str) -> str:
    """A string with something in it besides white space."""
    if type(value) is not str or not _VISIBLE.search(value):
        raise violation(path, value, "must be a string that is not blank")
    return value


def one_of(value: object, path: str, allowed: Collection[str]) -> str:
    """A string out of ``allowed``."""
    if type(value) is not str or value not in allowed:
        raise violation(path, value, f"must be one of {', '.join(sorted(allowed))}")
    return value


def number(value: object, path: str) -> float:
    """A finite number."""
    if type(value) is float and math.isfinite(value):
        return value
    # Compared as it is: an integer beyond the largest float cannot be made one.
    if type(value) not in _NUMERIC or not abs(value) <= sys.float_info.max:  # type: ignore[arg-type]  # just checked
        raise violation(path, value, "must be a finite number")
    return float(value)  # type: ignore[arg-type]


def fraction(value: object, path: str) -> float:
    """A number from 0 to 1."""
    checked = number(value, path)
    if not 0 <= checked <= 1:
        raise violation(path, value, "must be a number from 0 to 1")
    return checked


def similarity(value: object, path: str) -> float:
    """A number above 0, at most 1."""
    checked = number(value, path)
    if not 0 < checked <= 1:
        raise violation(path, value, "must be a number above 0, at most 1")
    return checked


def not_negative(value: object, path: str) -> float:
    """A number of at least 0."""
    checked = number(value, path)
    if checked < 0:
        raise violation(path, value, "must not be negative")
    return checked


def whole(value: object, path: str, low: int = 0, high: int = 2**63 - 1) -> int:
    """A whole number from ``low`` to ``high``; 3.0 is one, as in JSON Schema."""
    if type(value) is int and low <= value <= high:
        return value
    integral = type(value) is int or (type(value) is float and value.is_integer())
    if not integral or not low <= int(value) <= high:  # type: ignore[call-overload]
        raise violation(path, value, f"must be a whole number from {low} to {high}")
    return int(value)  # type: ignore[call-overload,no-any-return]


def seconds_to_live(value: object, path: str) -> int:
    """A time to live in whole seconds."""
    return whole(value, path, 1, MAX_TTL_S)


def flag(value: object, path: str) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise violation(path, value, "must be true or false")
    return value


def mapping(value: object, path: str) -> dict[str, Any]:
    """A JSON object; null counts as an empty one."""
    if value is None:
        return {}
    if type(value) is not dict:
        raise violation(path, value, "must be an object")
    return value


def required_mapping(value: object, path: str) -> dict[str, Any]:
    """A JSON object that must be there."""
    if value is None:
        raise missing(path)
    return mapping(value, path)


def listing(value: object, path: str) -> list[Any]:
    """A JSON array; null counts as an empty one."""
    if value is None:
        return []
    if type(value) is not list:
        raise violation(path, value, "must be an array")
    return value


def numbers(value: object, path: str) -> dict[str, float]:
    """An object whose values are finite numbers."""
    if type(value) is dict and all(type(item) is float and math.isfinite(item) for item in value.values()):
        return value
    return {name: number(item, f"{path}.{_short(name)}") for name, item in mapping(value, path).items()}


def _short(name: str) -> str:
    """A name of the client's choice, as a path shows it."""
    return name if len(name) <= MAX_ID_CHARS else shown(name)[1:-1]


def objects(value: object, path: str) -> tuple[dict[str, Any], ...]:
    """An array of objects."""
    if value is None:
        return ()
    return tuple([required_mapping(item, f"{path}[{index}]") for index, item in enumerate(listing(value, path))])


def base64_bytes(value: object, path: str) -> bytes:
    """Bytes written as base64 with padding."""
    text = string(value, path)
    try:
        return pybase64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return _base64_by_the_letter(text, path)


def _base64_by_the_letter(text: str, path: str) -> bytes:
    """As the standard library takes it, which allows a padding too many and says what is wrong; six times slower."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError) as exc:
        raise violation(path, text, f"must be base64 ({exc})") from exc


# --- values with a form of their own ---------------------------------------------------------------------------


def topic_name(value: object, path: str) -> str:
    """A name Kafka takes for a topic."""
    if type(value) is not str or not _TOPIC.fullmatch(value) or value in (".", ".."):
        raise violation(path, value, "must be a topic's name: 1 to 249 of A-Z a-z 0-9 . _ -")
    return value


def time_ms(value: object, path: str) -> int:
    """Epoch milliseconds of an RFC 3339 time, cut to whole milliseconds. The zone must be there."""
    rule = "must be an RFC 3339 time with its zone, as 2026-01-01T00:00:00Z"
    if type(value) is not str or not _RFC3339.fullmatch(value):
        raise violation(path, value, rule)
    try:
        # In UTC, whose calendar ends too: what lies beyond could be written by nobody.
        return (datetime.fromisoformat(value.upper()).astimezone(UTC) - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError) as exc:
        raise violation(path, value, f"{rule} ({exc})") from exc


def rfc3339(epoch_ms: int) -> str:
    """Epoch milliseconds as an RFC 3339 time in UTC."""
    return (_EPOCH + epoch_ms * _MILLISECOND).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def embedding(value: object, path: str, dimension: int | None) -> Vector:
    """A unit vector from an array of numbers, base64 of little-endian float32, or an array of float32.

    Raises InvalidEmbeddingError for what is no direction (NaN, infinity, all zeros) or has the wrong ``dimension``.
    """
    if type(value) is str:
        return (_decoded_once if len(value) <= KEPT_CHARS else _decoded_once.__wrapped__)(value, path, dimension)
    return _unit_of(value if isinstance(value, np.ndarray) else _number_array(value, path), path, dimension)


@lru_cache(maxsize=KEPT_VECTORS)
def _decoded_once(value: str, path: str, dimension: int | None) -> Vector:
    """From base64. Words that come again come with the same vector, which nobody writes to."""
    vector = _unit_of(_float32_bytes(value, path), path, dimension)
    vector.flags.writeable = False
    return vector


def _unit_of(raw: np.ndarray[Any, Any], path: str, dimension: int | None) -> Vector:
    if not 0 < raw.size <= MAX_EMBEDDING_DIMENSION:
        raise InvalidEmbeddingError(f"{path} has {raw.size} numbers; it must have 1 to {MAX_EMBEDDING_DIMENSION}")
    if dimension is not None and raw.size != dimension:
        raise InvalidEmbeddingError(f"{path} has {raw.size} numbers, not embedding_dimension = {dimension}")
    return _unit(raw, path)


def _float32_bytes(value: str, path: str) -> np.ndarray[Any, Any]:
    decoded = base64_bytes(value, path)
    if len(decoded) % 4:
        raise InvalidEmbeddingError(f"{path} has {len(decoded)} bytes, which is no whole number of float32")
    return np.frombuffer(decoded, dtype=_FLOAT32)


def _number_array(value: object, path: str) -> np.ndarray[Any, Any]:
    items = listing(value, path)
    if not _NUMERIC.issuperset(map(type, items)):
        wrong = next(index for index, item in enumerate(items) if type(item) not in _NUMERIC)
        raise violation(f"{path}[{wrong}]", items[wrong], "must be a number")
    try:
        return np.array(items, dtype=np.float64)
    except OverflowError as exc:
        raise InvalidEmbeddingError(f"{path} holds an integer that is too large for a float") from exc


def _unit(raw: np.ndarray[Any, Any], path: str) -> Vector:
    # Most come as unit vectors, which need no second look: the square of the length is twice as far from 1 as the
    # length is. dot() is the quickest; of squares that overflow (1e30) numpy warns once, and they are looked at below.
    if raw.dtype == _FLOAT32 and abs(float(raw.dot(raw)) - 1.0) <= UNIT_TOLERANCE:
        return raw
    # In float64 and scaled by the largest part: squares neither overflow nor vanish.
    wide = raw.astype(np.float64)
    if raw.dtype == _FLOAT32 and abs(math.sqrt(float(wide @ wide)) - 1.0) <= UNIT_TOLERANCE:
        return raw
    peak = float(np.abs(wide).max())
    if not math.isfinite(peak):
        raise InvalidEmbeddingError(f"{path} holds NaN or infinity")
    if peak == 0.0:
        raise InvalidEmbeddingError(f"{path} is all zeros, which has no direction")
    wide /= peak
    length = math.sqrt(float(wide @ wide))
    return (wide / length).astype(np.float32)


def traceparent(headers: Iterable[tuple[str, bytes | None]]) -> str | None:
    """The W3C ``traceparent`` among ``headers``; one that breaks the standard's form is dropped, as it demands."""
    for name, value in headers:
        if name == "traceparent" and value is not None and len(value) <= 512 and _TRACEPARENT.fullmatch(value):
            return value.decode("ascii", "replace")
    return None
