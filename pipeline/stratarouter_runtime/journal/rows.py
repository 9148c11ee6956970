"""What a journal row may hold, and how a result looks as bytes. Knows no database client.

A row that the database cannot take would fail every row written with it, and again at every retry; so it is refused
before it gets there.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import orjson

from stratarouter_runtime.errors import SchemaViolationError
from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.plain import field_names
from stratarouter_runtime.port_values import Begin, Finish, JournalKey, Recorded
from stratarouter_runtime.records import Answer, Attempt, ErrorInfo, Usage
from stratarouter_runtime.wire_results import attempt_object, usage_object

T = TypeVar("T")

MAX_ID_CHARS = 512
"""Length of a tenant, request id, route id or source, in characters."""

MAX_KEY_BYTES = 2500
"""Tenant and request id together, in UTF-8: PostgreSQL refuses index entries over 2,704 bytes."""

MAX_PORTION_CHARS = 4_000_000
"""Of answers in one statement: 0.2 s of PostgreSQL, where a hundred million take 5 s, half of a statement's timeout."""


def check_begin(item: Begin) -> None:
    """Raise SchemaViolationError where ``item`` cannot be stored."""
    if _is_plain("".join((*item.key, item.payload_hash, item.route_id, item.source or "", *(item.leader or ())))):
        return
    check_key(item.key)
    if item.leader is not None:
        check_key(item.leader)
    _check_text("payload_hash", item.payload_hash)
    _check_text("decision.route_id", item.route_id)
    _check_text("source", item.source or "")


def check_finish(item: Finish) -> None:
    """Raise SchemaViolationError where ``item`` cannot be stored."""
    check_key(item.key)


def check_key(key: JournalKey) -> None:
    """Raise SchemaViolationError where ``key`` is too long, or holds U+0000 or half a surrogate pair."""
    if _is_plain("".join(key)):
        return
    size = _check_text("context.tenant", key.tenant) + _check_text("request_id", key.request_id)
    if size > MAX_KEY_BYTES:
        raise SchemaViolationError(
            f"context.tenant and request_id are {size} bytes together, the limit is {MAX_KEY_BYTES}"
        )


def _is_plain(texts: str) -> bool:
    """Whether ``texts``, one after the other, need no look at each: nearly every row there is."""
    return len(texts) <= MAX_ID_CHARS and texts.isascii() and "\x00" not in texts


def _check_text(field: str, text: str) -> int:
    """The size of ``text`` in bytes."""
    if len(text) > MAX_ID_CHARS:
        raise SchemaViolationError(f"{field} has {len(text)} characters, the limit is {MAX_ID_CHARS}")
    if "\x00" in text:
        raise SchemaViolationError(f"{field} holds the character U+0000, which PostgreSQL's text cannot")
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise SchemaViolationError(f"{field} holds half a surrogate pair, which is no valid text") from None


def state_of(item: Finish) -> str | None:
    """The state that ``item`` leaves its row in, or None where it brings no result."""
    if item.answer is not None:
        return "succeeded"
    return None if item.error is None else "failed"


def portions(items: Sequence[T], weigh: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """``items`` in order, in pieces of at most ``MAX_PORTION_CHARS`` by ``weigh``, or a single one that has more."""
    start = held = 0
    for at, item in enumerate(items):
        weight = weigh(item)
        if held + weight > MAX_PORTION_CHARS and at > start:
            yield items[start:at]
            start, held = at, 0
        held += weight
    if start < len(items):
        yield items[start:] if start else items


def size(item: Finish) -> int:
    """Roughly how many characters ``item``'s answer has."""
    answer = item.answer
    if answer is None:
        return 0
    return len(answer.text) + (len(str(answer.tool_calls)) if answer.tool_calls else 0)


def recorded_by(item: Finish) -> Recorded:
    """What stands once ``item`` is written. An answer wins over an error."""
    return Recorded(item.answer, None if item.answer is not None else item.error, item.attempts)


def pack(value: Answer | ErrorInfo | tuple[Attempt, ...] | None) -> bytes | None:
    """JSON as bytes; None for nothing."""
    if value is None or value == ():
        return None
    fields = _plain(value)
    try:
        return json_bytes(fields)
    except TypeError:
        # Half a surrogate pair or an integer over 64 bits: rare, but such an answer was paid for as well.
        return json.dumps(fields, default=dataclasses.asdict).encode()


def _plain(value: Answer | ErrorInfo | tuple[Attempt, ...]) -> object:
    """``value`` as dictionaries, field by field; an error, which is rare, as it is."""
    if isinstance(value, Answer):
        return {
            "text": value.text,
            "provider": value.provider,
            "model": value.model,
            "usage": usage_object(value.usage),
            "finish_reason": value.finish_reason,
            "cost_usd": value.cost_usd,
            "tool_calls": value.tool_calls,
        }
    return [attempt_object(one) for one in value] if isinstance(value, tuple) else value


def unpack(
    answer: bytes | None, error: bytes | None, attempts: bytes | None, leader: JournalKey | None = None
) -> Recorded:
    """Read what ``pack`` wrote; fields that a newer version added are left out."""
    return Recorded(
        answer=None if answer is None else _answer(load(answer)),
        error=None if error is None else ErrorInfo(**_known(ErrorInfo, load(error))),
        attempts=() if attempts is None else tuple(Attempt(**_known(Attempt, each)) for each in load(attempts)),
        leader=leader,
    )


def load(data: bytes) -> Any:
    """What ``pack`` wrote, as plain objects."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data)


def _answer(data: dict[str, Any]) -> Answer:
    fields = _known(Answer, data)
    fields["usage"] = Usage(**_known(Usage, fields.get("usage", {})))
    fields["tool_calls"] = tuple(fields.get("tool_calls", ()))
    return Answer(**fields)


def _known(kind: type, data: dict[str, Any]) -> dict[str, Any]:
    return {name: data[name] for name in field_names(kind) if name in data}
