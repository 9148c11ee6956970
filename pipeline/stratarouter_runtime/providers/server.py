"""A provider's server: its name and key, requests to it, what its refusals and broken replies become. Pure."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import orjson
from pydantic import SecretStr

from stratarouter_runtime.errors import (
    ConfigurationError,
    ProviderBadReplyError,
    ProviderError,
    ProviderRejectedError,
)
from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.port_values import HttpCall, HttpReply, ProviderCall, ServerSentEvent
from stratarouter_runtime.providers.http_errors import (
    MAX_REASON_CHARACTERS,
    error_of_event,
    error_of_reply,
    reason_of,
)

REQUEST_ID_HEADER = "x-stratarouter-request-id"
"""Carries the request id, percent-encoded; servers that do not know it ignore it."""

MAX_TOKENS = 2**31 - 1
"""A count above it is nonsense, like a server's -1 in 64 bits."""

_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]+")

Json = dict[str, Any]


class ProviderServer:
    """What the adapters of all vendors share.

    Args:
        name: the provider's name in the route table.
        api_key: None for servers that want none. Raises ConfigurationError where no header can carry it.
        key_shape: what the vendor's keys look like.
        wall: epoch seconds, for dates in ``retry-after``.
    """

    def __init__(
        self,
        name: str,
        api_key: SecretStr | None,
        key_shape: re.Pattern[str],
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.key = "" if api_key is None else api_key.get_secret_value().strip()
        if not (self.key.isascii() and self.key.isprintable()):
            raise ConfigurationError(f"the API key of provider {name!r} holds characters that no header takes")
        self._key_shape = key_shape
        self._wall = wall

    def get(self, url: str, headers: Mapping[str, str]) -> HttpCall:
        """A request that asks for something, and pays nothing."""
        return HttpCall("GET", url, {"accept": "application/json", **headers}, b"")

    def request(
        self, url: str, body: Json, call: ProviderCall, headers: Mapping[str, str], *, stream: bool
    ) -> HttpCall:
        """The request that carries ``body`` for ``call``, with ``headers`` besides those of every call.

        Raises:
            ProviderRejectedError: the body is no JSON.
        """
        ours = {
            "content-type": "application/json",
            "accept": "text/event-stream" if stream else "application/json",
            REQUEST_ID_HEADER: _quoted(call.request_id),
            **headers,
        }
        try:
            data = json_bytes(body)
        except TypeError as exc:
            raise ProviderRejectedError(f"the call to provider {self.name!r} is no JSON: {exc}") from exc
        return HttpCall("POST", url, ours, data, call.timeout_s)

    def json_object(self, reply: HttpReply) -> Json:
        """The body of a good reply. Raises what another status stands for, and ProviderBadReplyError."""
        if not 200 <= reply.status < 300:
            raise self.error_of(reply)
        body = json_object(reply.body)
        if body is None:
            raise self.bad(f"a body of {len(reply.body)} bytes which is no JSON object", reply.status)
        return body

    def event_object(self, event: ServerSentEvent) -> Json:
        """The data of an event. Raises ProviderBadReplyError."""
        body = json_object(event.data)
        if body is None:
            raise self.bad(f"an event of {len(event.data)} characters which is no JSON object")
        return body

    def bad(self, what: str, status: int = 200) -> ProviderBadReplyError:
        """The error of a reply that was paid for and cannot be read."""
        message = f"provider {self.name!r} answered {status} with {what}"
        return ProviderBadReplyError(message, status=status, maybe_paid=True)

    def error_of(self, reply: HttpReply) -> ProviderError:
        """What a reply of a status other than 2xx stands for."""
        return error_of_reply(reply, self.name, scrub=self._scrub, wall=self._wall)

    def error_of_event(self, body: Json) -> ProviderError:
        """What an error within a stream stands for."""
        return error_of_event(json_bytes(body), self.name, scrub=self._scrub)

    def words(self, body: Json) -> str:
        """What an error's body says, fit for a message."""
        return self._scrub(reason_of(json_bytes(body)).text)[:MAX_REASON_CHARACTERS]

    def _scrub(self, text: str) -> str:
        """``text`` without our key and without anything shaped like one: servers echo keys, whole or in part."""
        if self.key:
            text = text.replace(self.key, "***")
        return self._key_shape.sub("***", text)


def json_object(data: bytes | str) -> Json | None:
    """The object in ``data``; None where it holds none."""
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return body if isinstance(body, dict) else None


def count(holder: object, name: str) -> int:
    """The number of tokens under ``name``; 0 where there is none or nonsense (such an answer has no known price)."""
    value = holder.get(name) if isinstance(holder, dict) else None
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else 0


def _quoted(request_id: str) -> str:
    """Percent-encoded where it has to be; ids made of letters, digits and hyphens, as nearly all are, are not."""
    return request_id if _PLAIN_ID.fullmatch(request_id) else quote(request_id, safe="!#$&'()*+,/:;=?@[]")
