"""Gemini's generateContent: our call -> HTTP, HTTP or a stream of events -> answer or typed error. Pure.

``google_request`` writes the body; here are the address, the key, and everything about the reply.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from stratarouter_runtime.errors import ProviderAuthError, ProviderError, ProviderRejectedError
from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.port_values import HttpCall, HttpReply, ProviderCall, ServerSentEvent
from stratarouter_runtime.providers.google_request import request_body
from stratarouter_runtime.providers.server import Json, ProviderServer, count
from stratarouter_runtime.records import Answer, Usage

DEFAULT_BASE_URL = "https://generativelanguage.googleapis.com"
DEFAULT_VERSION = "v1beta"
"""Of the API, where the base URL ends in none. ``v1`` has refused fields that are written here, such as tools and
systemInstruction (https://github.com/googleapis/js-genai/issues/1746); a base URL that ends in ``/v1`` asks for it."""
SUPPORT: Mapping[str, str] = {
    "system prompt": "yes, before the first turn; a later one is an error",
    "multi-turn messages": "yes",
    "temperature": "yes",
    "top_p": "yes",
    "max_tokens": "yes",
    "stop": "yes",
    "seed": "yes",
    "frequency_penalty, presence_penalty": "yes",
    "JSON mode": "yes",
    "JSON schema": "yes, always kept to; strict or not is the same",
    "tools": "yes",
    "tool_choice": "yes",
    "parallel_tool_calls": "yes, cannot be turned off; False is an error",
    "images by URL": "yes, https only; 'detail' is an error",
    "images in base64": "yes, 'detail' is an error",
    "reasoning_effort": "yes, as a budget for Gemini 2.5 and a level from Gemini 3 on",
    "streaming": "yes",
    "several prompts in one call": "no",
    "cached tokens in usage": "yes",
    "reasoning tokens in usage": "yes",
}
"""What the wire shape carries, by the names of ``features.FEATURES``."""
FINISH_REASONS = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
}
"""What the vendor says -> our words; anything else is ``other``."""
MAY_BE_EMPTY = frozenset({"length", "content_filter"})
"""Ends that explain an answer without text: the limit went into thinking, or a filter took it."""

_VERSION = re.compile(r"/v\d\w*$")
_MODEL = re.compile(r"(?:[a-zA-Z]+/)?[A-Za-z0-9_][A-Za-z0-9._-]*")
_KEY_SHAPE = re.compile(r"\bAIza[A-Za-z0-9_*\-]{4,}")


class GoogleAdapter:
    """Translates for the Gemini API.

    Args:
        name: the provider's name in the route table.
        base_url: such as ``https://generativelanguage.googleapis.com``, with or without the version at its end.
        api_key: sent as ``x-goog-api-key``, never in the URL; None for servers that want none.
            Raises ConfigurationError where no header can carry it.
        wall: epoch seconds, for dates in ``retry-after``.
    """

    def __init__(
        self,
        name: str,
        base_url: str = DEFAULT_BASE_URL,
        api_key: SecretStr | None = None,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        base = base_url.rstrip("/")
        self._server = ProviderServer(name, api_key, _KEY_SHAPE, wall=wall)
        self._url = base if _VERSION.search(base) else f"{base}/{DEFAULT_VERSION}"
        self._headers = {"x-goog-api-key": self._server.key} if self._server.key else {}

    def models(self) -> HttpCall:
        """The request for the list of models."""
        return self._server.get(f"{self._url}/models", self._headers)

    def to_http(self, call: ProviderCall, *, stream: bool = False) -> HttpCall:
        """Translate. A parameter of value None counts as not given; ``stream`` asks for server-sent events.

        Raises:
            UnsupportedParameterError: the wire shape lacks a parameter or a part of a message; the message names it.
            ProviderRejectedError: a message is malformed, the model's name is none, or a value is no JSON.
        """
        url = f"{self._url}/{self._resource(call.model)}:"
        url += "streamGenerateContent?alt=sse" if stream else "generateContent"
        return self._server.request(url, request_body(call, self._server.name), call, self._headers, stream=stream)

    def from_http(self, reply: HttpReply, call: ProviderCall) -> Answer:
        """Read the reply; ``model`` is the one asked for, so that prices and metric labels stay a closed set.

        Raises:
            ProviderError: what a status other than 2xx stands for.
            ProviderBadReplyError: 2xx, and the body cannot be read.
        """
        server = self._server
        if not 200 <= reply.status < 300:
            raise _error_of(server, reply)
        body = server.json_object(reply)
        if "error" in body:
            raise server.bad(f"an error: {server.words(body)}", reply.status)
        read = _Read()
        if not read.add(body) or not (read.ended or read.has_text or read.calls):
            raise server.bad(f"a body of {len(reply.body)} bytes without candidates", reply.status)
        return _answer(server, call, read, reply.status)

    def read_stream(self, call: ProviderCall) -> GoogleStream:
        """A reader for the events of ``to_http(call, stream=True)``."""
        return GoogleStream(self._server, call)

    def _resource(self, model: str) -> str:
        """``models/<name>``; a name with its collection (``tunedModels/x``) stays.

        A request may choose the model, so a name that could lead to another path is refused.
        """
        if _MODEL.fullmatch(model) is None:
            raise ProviderRejectedError(f"provider {self._server.name!r} (Gemini) has no model named {model!r}")
        return model if "/" in model else f"models/{model}"


class GoogleStream:
    """Reads one streamed reply: every event is a whole reply that holds the next parts."""

    def __init__(self, server: ProviderServer, call: ProviderCall) -> None:
        self._server = server
        self._call = call
        self._read = _Read()

    def feed(self, event: ServerSentEvent) -> str:
        """The text that this event adds, thoughts aside.

        Raises:
            ProviderError: the event is an error.
            ProviderBadReplyError: it cannot be read.
        """
        body = self._server.event_object(event)
        if "error" in body:
            raise _error_in_stream(self._server, body)
        before = len(self._read.texts)
        if not self._read.add(body):
            raise self._server.bad("an event that is no reply of Gemini's")
        return "".join(self._read.texts[before:])

    def answer(self) -> Answer:
        """The whole answer. Raises ProviderBadReplyError where no event said that it was the end."""
        if not self._read.ended:
            raise self._server.bad("a stream that broke off before its end")
        return _answer(self._server, self._call, self._read)


@dataclass(slots=True)
class _Read:
    """What was read so far of a reply that comes in one or many bodies."""

    texts: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    has_text: bool = False
    finish: str = ""
    blocked: bool = False
    usage: object = None

    @property
    def ended(self) -> bool:
        """Whether the vendor said that this was all."""
        return self.blocked or bool(self.finish)

    def add(self, body: Mapping[str, Any]) -> bool:
        """Take one body in. False for one that has the shape of no reply."""
        self.usage = body.get("usageMetadata") or self.usage
        feedback = body.get("promptFeedback")
        self.blocked = self.blocked or bool(isinstance(feedback, dict) and feedback.get("blockReason"))
        candidates = body.get("candidates")
        if candidates is None:
            return self.blocked or "usageMetadata" in body
        if not isinstance(candidates, list) or not all(isinstance(each, dict) for each in candidates[:1]):
            return False
        return not candidates or self._add_candidate(candidates[0])

    def _add_candidate(self, candidate: Mapping[str, Any]) -> bool:
        content = candidate.get("content") or {}
        parts = (content.get("parts") or []) if isinstance(content, dict) else None
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            return False
        for part in parts:
            if isinstance(part.get("text"), str) and not part.get("thought"):
                self.has_text = True
                self.texts.append(part["text"])
            elif isinstance(part.get("functionCall"), dict):
                self.calls.append(part)
        finish = candidate.get("finishReason")
        if isinstance(finish, str) and finish != "FINISH_REASON_UNSPECIFIED":
            self.finish = finish
        return True


def _answer(server: ProviderServer, call: ProviderCall, read: _Read, status: int = 200) -> Answer:
    finish = "content_filter" if read.blocked else FINISH_REASONS.get(read.finish, "other")
    if read.calls and finish == "stop":
        finish = "tool_calls"
    if not (read.has_text or read.calls or finish in MAY_BE_EMPTY):
        raise server.bad(f"a candidate without text, finishReason {read.finish!r}", status)
    calls = tuple(_tool_call(part, index, call.request_id) for index, part in enumerate(read.calls))
    return Answer(
        text="".join(read.texts),
        provider=server.name,
        model=call.model,
        usage=_usage(read.usage),
        finish_reason=finish,
        tool_calls=calls,
    )


def _error_of(server: ProviderServer, reply: HttpReply) -> ProviderError:
    error = server.error_of(reply)
    if reply.status == 400 and b"API_KEY_INVALID" in reply.body:
        # The vendor says 400 to a wrong key: https://ai.google.dev/gemini-api/docs/troubleshooting
        return ProviderAuthError(str(error), status=400)
    return error


def _error_in_stream(server: ProviderServer, body: Json) -> ProviderError:
    """What an error among the events stands for. The model had begun, so it may have been paid for."""
    found = body.get("error")
    code = found.get("code") if isinstance(found, dict) else None
    status = code if type(code) is int and 400 <= code <= 599 else 500
    error = _error_of(server, HttpReply(status, {}, json_bytes(body)))
    error.maybe_paid = True
    return error


def _tool_call(part: Mapping[str, Any], index: int, request_id: str) -> dict[str, Any]:
    """The call in OpenAI's form.

    Models that give a call no id get one from the request's, so that a result can name it. The thought signature, which
    Gemini 3 wants back with the call, travels where Google's own OpenAI-compatible endpoint has it.
    """
    function = part["functionCall"]
    made_up = hashlib.sha256(f"{request_id}/{index}".encode()).hexdigest()[:24]
    arguments = json_bytes(function.get("args") or {}).decode()
    call: dict[str, Any] = {
        "id": function.get("id") or f"call_{made_up}",
        "type": "function",
        "function": {"name": str(function.get("name", "")), "arguments": arguments},
    }
    signature = part.get("thoughtSignature")
    if isinstance(signature, str) and signature:
        call["extra_content"] = {"google": {"thought_signature": signature}}
    return call


def _usage(found: object) -> Usage:
    """Tokens in our form; zeros where the server counts none or nonsense (such an answer has no known price)."""
    used, thoughts = count(found, "promptTokenCount"), count(found, "thoughtsTokenCount")
    made = count(found, "candidatesTokenCount") + thoughts
    return Usage(used, made, min(count(found, "cachedContentTokenCount"), used), thoughts)
