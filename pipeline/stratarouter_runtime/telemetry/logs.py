"""JSON logs on stderr through the standard library: one event a line.

Loggers are named ``stratarouter.<part>``. An event has a short fixed name and fields; prompts and answers are never
among them unless ``log_texts`` asks for it, which is the caller's duty. Values shaped like keys are blanked here as a
last guard. What is logged while a request is worked on carries its ``request_id`` and ``trace_id``.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TextIO

import orjson

from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.telemetry.tracing import parse_traceparent

MAX_VALUE_CHARS = 2000
"""Characters of one text value: a longer one is cut, so that a provider's error page is no flood."""
MAX_TRACE_CHARS = 20_000
"""Characters of a traceback; its end is kept, where the cause stands."""
REDACTED = "[redacted]"
EVENT_ATTRIBUTE = "fields"
EACH_ATTRIBUTE = "each"
EACH_PER_S = 20
"""Lines a second of one event that every request may cause: an outage at a thousand requests a second is one cause."""
REPEAT_S = 5.0
"""Between two lines of the same kind from a client library."""
MAX_KINDS = 256
"""Kinds remembered; beyond it they are forgotten, and each is written once more."""

SECRET = re.compile(
    r"""
    \b(?:sk|rk|pk|xai|gsk|hf|ghp|pypi)[-_][A-Za-z0-9_\-]{8,}   # keys of providers and services
    | \bAIza[0-9A-Za-z_\-]{20,}                                # Google
    | \bBearer\s+[A-Za-z0-9._~+/\-]{6,}=*                      # authorization headers
    | (?<=://)[^/\s:@]*:[^/\s@]+(?:@[^/\s@"'<>,;]+)*(?=@)    # user:password in a URL, up to its last @
    """,
    re.VERBOSE | re.IGNORECASE,
)
SECRET_NAMES = frozenset({"api_key", "apikey", "authorization", "password", "secret", "sasl_password", "x-api-key"})
"""Field names whose value is never shown, whatever it looks like."""

Json = dict[str, Any] | list[Any] | str | int | float | bool | None


class Correlated(Protocol):
    """What a line can be about."""

    @property
    def request_id(self) -> str:
        """The client's."""

    @property
    def traceparent(self) -> str | None:
        """The header as it came."""


_ABOUT: ContextVar[Correlated | None] = ContextVar("about", default=None)


def about(request: Correlated) -> None:
    """From here on the lines of this task, and of those it starts, carry ``request``'s ids."""
    _ABOUT.set(request)


def event(logger: logging.Logger, level: int, name: str, /, **fields: Any) -> None:
    """Log ``name`` with ``fields``. Costs one comparison where ``level`` is off."""
    if logger.isEnabledFor(level):
        logger.log(level, name, extra={EVENT_ATTRIBUTE: fields}, stacklevel=2)


def event_of(logger: logging.Logger, level: int, name: str, /, **fields: Any) -> None:
    """Log ``name``, which each request may cause: at most EACH_PER_S lines a second of a name, and the next one tells
    how many were left out.
    """
    if logger.isEnabledFor(level):
        logger.log(level, name, extra={EVENT_ATTRIBUTE: fields, EACH_ATTRIBUTE: True}, stacklevel=2)


def ids(request_id: str | None, traceparent: str | bytes | None) -> dict[str, str]:
    """The fields by which the lines about one request are found; what is unknown is left out."""
    parent = parse_traceparent(traceparent)
    found = {} if request_id is None else {"request_id": request_id}
    return found if parent is None else found | {"trace_id": parent.trace_id}


def redact(text: str) -> str:
    """``text`` without anything shaped like a key, a token or a password in a URL."""
    return SECRET.sub(REDACTED, text)


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: time, level, logger, event, its fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the record holds: a value that JSON lacks is shown as its repr."""
        line: dict[str, Any] = {
            "time": _rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _short(record.getMessage()),
        }
        for name, value in getattr(record, EVENT_ATTRIBUTE, {}).items():
            # A field never hides what the line says of itself.
            line[f"{name}_" if name in line else name] = _clean(name, value)
        request = _ABOUT.get()
        if request is not None:
            for name, value in ids(request.request_id, request.traceparent).items():
                line.setdefault(name, _short(value))
        if record.exc_info:
            line["exception"] = _safe(self.formatException(record.exc_info))[-MAX_TRACE_CHARS:]
        return json_bytes(line, default=_shown, option=orjson.OPT_NON_STR_KEYS).decode()


def configure_logging(level: str = "info", stream: TextIO | None = None) -> None:
    """Send every log record of the process as JSON to ``stream`` (stderr by default); replaces earlier handlers.

    Args:
        level: debug, info, warning, error or critical, for this package; others' loggers stay at warning or above.
        stream: where the lines go.

    Raises:
        ValueError: ``level`` is none of them.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"unknown log level {level!r}; choose debug, info, warning, error or critical")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(Sparing())
    # Libraries at debug log whole requests, prompts and headers included.
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger("stratarouter").setLevel(number)
    logging.captureWarnings(capture=True)


class Sparing(logging.Filter):
    """Holds floods back. Each message of a client library passes once every REPEAT_S seconds: aiokafka logs each
    connection that is refused, about a thousand a second while a broker is away. Of our own, ``event_of``'s.
    """

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[tuple[str, str], float] = {}
        self._each: dict[str, _Second] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether ``record`` is written."""
        # Monotonic: a clock set back must not silence anything.
        now = time.monotonic()
        if getattr(record, EACH_ATTRIBUTE, False):
            return self._each.setdefault(record.msg, _Second(now)).takes(record, now)
        if record.name.split(".", 1)[0] != "aiokafka":
            return True
        # The template, not the text: those are few.
        what = (record.name, str(record.msg))
        if now < self._next.get(what, 0.0):
            return False
        if len(self._next) >= MAX_KINDS:
            self._next.clear()
        self._next[what] = now + REPEAT_S
        return True


@dataclass(slots=True)
class _Second:
    """One event's lines of the second that began at ``began``."""

    began: float
    written: int = 0
    left_out: int = 0

    def takes(self, record: logging.LogRecord, now: float) -> bool:
        if now >= self.began + 1:
            self.began, self.written = now, 0
        if self.written >= EACH_PER_S:
            self.left_out += 1
            return False
        self.written += 1
        if self.left_out:
            getattr(record, EVENT_ATTRIBUTE)["left_out_before"] = self.left_out
            self.left_out = 0
        return True


def _rfc3339(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _clean(name: str, value: Any) -> Json:
    if name.lower() in SECRET_NAMES:
        return REDACTED
    if isinstance(value, dict):
        return {_short(str(key)): _clean(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(name, inner) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value if not isinstance(value, int) or abs(value) < 2**63 else str(value)
    return _shown(value)


def _shown(value: Any) -> str:
    """Any value as a bounded, redacted text; bytes by their length, since they may be a record's content."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes"
    return _short(value if isinstance(value, str) else repr(value))


def _short(text: str) -> str:
    whole = _safe(text)
    return whole if len(whole) <= MAX_VALUE_CHARS else whole[:MAX_VALUE_CHARS] + "..."


def _safe(text: str) -> str:
    """``text`` redacted, and as UTF-8 can say it: JSON has no lone surrogates, and what cannot be written is printed by
    ``logging`` itself, with everything in it. To be cut afterwards: half a key is still half a key.
    """
    return redact(text).encode(errors="backslashreplace").decode()
