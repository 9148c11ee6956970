"""Records of the cache-control topic as bytes and back, as ``schemas/cache-control.v1.json`` describes them.

They come from operators and from their tools, so an unknown field is refused: it is a typo, and the answer that it was
to take away would stay.
"""

from __future__ import annotations

from typing import Any, cast

from stratarouter_runtime import validation as check
from stratarouter_runtime.errors import SchemaViolationError
from stratarouter_runtime.plain import field_names
from stratarouter_runtime.records import CacheAction, CacheCommand
from stratarouter_runtime.wire_results import dumps

CONTROL_ACTIONS = frozenset(("invalidate", "correct", "mark_wrong"))
SELECTORS = ("key", "request_id", "tag", "route_id", "tenant", "everything")
"""What an invalidation can name: one of them, and with a request id its tenant."""
CONTROL_FIELDS = frozenset(
    (*SELECTORS, "action", "by", "reason", "at", "answered_by", "text", "ttl", "asked", "stored")
)
MAX_CONTROL_BYTES = 4 * 1024 * 1024
"""A corrected answer and two questions; what the topic takes."""
MAX_DEPTH = 8
REMEDY = "correct the field named in the reason; schemas/cache-control.v1.json is the contract"


def encode_command(command: CacheCommand) -> bytes:
    """A command as its record's value. Raises SchemaViolationError for what the workers would refuse."""
    fields = {name: getattr(command, name) for name in field_names(type(command)) if name != "at_ms"}
    present = {name: value for name, value in fields.items() if value is not None and value is not False}
    raw = dumps(present | {"at": check.rfc3339(command.at_ms)})
    # What is wrong is told to whoever asks for it, not to each worker's log.
    decode_command(raw)
    return raw


def decode_command(value: bytes | None) -> CacheCommand:
    """A command from its record. Raises the subclasses of InvalidRecordError."""
    try:
        return _decoded(value)
    except SchemaViolationError as exc:
        # The checks are those of requests, whose contract they name.
        if exc.remedy == SchemaViolationError.default_remedy:
            exc.remedy = REMEDY
        raise


def _decoded(value: bytes | None) -> CacheCommand:
    found = check.json_object(value, MAX_CONTROL_BYTES, MAX_DEPTH)
    check.refuse_unknown(found, CONTROL_FIELDS, "$")
    get = found.get
    command = CacheCommand(
        action=cast("CacheAction", check.one_of(get("action"), "$.action", CONTROL_ACTIONS)),
        by=check.identifier(get("by"), "$.by"),
        reason=check.visible_text(get("reason"), "$.reason"),
        at_ms=check.time_ms(get("at"), "$.at"),
        key=check.optional(get("key"), "$.key", check.identifier),
        request_id=check.optional(get("request_id"), "$.request_id", check.identifier),
        tag=check.optional(get("tag"), "$.tag", check.identifier),
        route_id=check.optional(get("route_id"), "$.route_id", check.identifier),
        tenant=check.optional(get("tenant"), "$.tenant", check.identifier),
        everything=check.or_else(False, get("everything"), "$.everything", check.flag),
        answered_by=check.optional(get("answered_by"), "$.answered_by", check.identifier),
        text=check.optional(get("text"), "$.text", check.visible_text),
        ttl=check.optional(get("ttl"), "$.ttl", check.seconds_to_live),
        asked=check.optional(get("asked"), "$.asked", check.string),
        stored=check.optional(get("stored"), "$.stored", check.string),
    )
    _check_together(command, found)
    return command


def _check_together(command: CacheCommand, found: dict[str, Any]) -> None:
    if command.action == "invalidate":
        named = [name for name in SELECTORS if found.get(name)]
        if len(named) != 1 and named != ["request_id", "tenant"]:
            said = ", ".join(named) or "none"
            raise SchemaViolationError(f"$ names {said} of {', '.join(SELECTORS)}; an invalidation names one of them")
    elif command.key is None and (command.action == "correct" or command.request_id is None):
        raise check.missing("$.key")
    if command.action == "correct" and command.text is None:
        raise check.missing("$.text")
