"""Server-sent events out of bytes cut anywhere. Pure.

The format is that of https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation.
"""

from __future__ import annotations

import re

from stratarouter_runtime.errors import ProviderBadReplyError
from stratarouter_runtime.port_values import ServerSentEvent

MAX_EVENT_BYTES = 8 * 1024 * 1024
"""Of one line, and of one event's data. The largest event of any vendor ends a stream of OpenAI's responses: it repeats
the answer, the instructions and the tools, each below 1 MB."""

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventParser:
    """Takes a stream's bytes, gives its events. What follows the last blank line is no event, as the standard says.

    Args:
        max_bytes: of one line, and of one event's data.
    """

    def __init__(self, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._unfinished: list[bytes] = []
        self._unfinished_bytes = 0
        self._after_return = False
        self._is_first_line = True
        self._name: str | None = None
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that ``chunk`` ends. Raises ProviderBadReplyError where a line or an event is too large."""
        if not chunk:
            return []
        ends_with_return = chunk.endswith(b"\r")
        if self._after_return:
            # The line ended with the last chunk's carriage return; its line feed comes only now.
            chunk = chunk.removeprefix(b"\n")
        self._after_return = ends_with_return
        *ended, rest = _LINE_END.split(chunk)
        events = [event for piece in ended if (event := self._end_line(piece)) is not None]
        self._keep(rest)
        return events

    def _keep(self, piece: bytes) -> None:
        self._unfinished_bytes += len(piece)
        if self._unfinished_bytes > self._max_bytes:
            raise self._too_large("a line")
        if piece:
            self._unfinished.append(piece)

    def _end_line(self, piece: bytes) -> ServerSentEvent | None:
        self._keep(piece)
        line = b"".join(self._unfinished)
        self._unfinished, self._unfinished_bytes = [], 0
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            return self._end_event()
        self._take(line)
        return None

    def _take(self, line: bytes) -> None:
        """A comment, which has no field name, falls through, as do ``id`` and ``retry``: nothing here reconnects."""
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data_bytes += len(value) + 1
            if self._data_bytes > self._max_bytes:
                raise self._too_large("an event")
            self._data.append(value)
        elif name == b"event":
            self._name = value.decode("utf-8", "replace")

    def _end_event(self) -> ServerSentEvent | None:
        data, name = self._data, self._name
        self._data, self._data_bytes, self._name = [], 0, None
        if not data:
            return None
        return ServerSentEvent(b"\n".join(data).decode("utf-8", "replace"), name or None)

    def _too_large(self, what: str) -> ProviderBadReplyError:
        return ProviderBadReplyError(f"{what} of the stream is larger than {self._max_bytes} bytes", maybe_paid=True)
