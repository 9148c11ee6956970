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
from urllib.parse import quote

import orjson
from pydantic import SecretStr

from stratarouter_runtime.errors import (
    ConfigurationError,
    ProviderAuthError,
    ProviderBadReplyError,
    ProviderError,
    ProviderRejectedError,
)
from stratarouter_runtime.ports import HttpCall, HttpReply, ProviderCall, ServerSentEvent
from stratarouter_runtime.providers.google_request import request_body
from stratarouter_runtime.providers.http_errors import MAX_REASON_CHARACTERS, error_of_reply, reason_of
from stratarouter_runtime.providers.openai import REQUEST_ID_HEADER
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
        self._name = name
        self._url = base if _VERSION.search(base) else f"{base}/{DEFAULT_VERSION}"
        self._key = "" if api_key is None else _sendable(api_key.get_secret_value().strip(), name)
        self._replies = _Replies(name, self._key, wall)

    def to_http(self, call: ProviderCall, *, stream: bool = False) -> HttpCall:
        """Translate. A parameter of value None counts as not given; ``stream`` asks for server-sent events.

        Raises:
            UnsupportedParameterError: the wire shape lacks a parameter or a part of a message; the message names it.
            ProviderRejectedError: a message is malformed, the model's name is none, or a value is no JSON.
        """
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream" if stream else "application/json",
            REQUEST_ID_HEADER: quote(call.request_id, safe="!#$&'()*+,/:;=?@[]"),
        }
        if self._key:
            headers["x-goog-api-key"] = self._key
        url = f"{self._url}/{self._resource(call.model)}:"
        url += "streamGenerateContent?alt=sse" if stream else "generateContent"
        try:
            body = orjson.dumps(request_body(call, self._name))
        except TypeError as exc:
            raise ProviderRejectedError(f"the call to provider {self._name!r} is no JSON: {exc}") from exc
        return HttpCall("POST", url, headers, body, call.timeout_s)

    def from_http(self, reply: HttpReply, call: ProviderCall) -> Answer:
        """Read the reply; ``model`` is the one asked for, so that prices and metric labels stay a closed set.

        Raises:
            ProviderError: what a status other than 2xx stands for.
            ProviderBadReplyError: 2xx, and the body cannot be read.
        """
        replies = self._replies
        if not 200 <= reply.status < 300:
            raise replies.error_of(reply)
        body = _json_object(reply.body)
        if body is None:
            raise replies.bad(reply.status, f"a body of {len(reply.body)} bytes which is no JSON object")
        if "error" in body:
            raise replies.bad(reply.status, f"an error: {replies.words(reply.body)}")
        read = _Read()
        if not read.add(body) or not (read.ended or read.has_text or read.calls):
            raise replies.bad(reply.status, f"a body of {len(reply.body)} bytes without candidates")
        return replies.answer(read, call, reply.status)

    def read_stream(self, call: ProviderCall) -> GoogleStream:
        """A reader for the events of ``to_http(call, stream=True)``."""
        return GoogleStream(self._replies, call)

    def _resource(self, model: str) -> str:
        """``models/<name>``; a name with its collection (``tunedModels/x``) stays.

        A request may choose the model, so a name that could lead to another path is refused.
        """
        if _MODEL.fullmatch(model) is None:
            raise ProviderRejectedError(f"provider {self._name!r} (Gemini) has no model named {model!r}")
        return model if "/" in model else f"models/{model}"


class _Replies:
    """Turns what one provider answers into answers and errors of ours."""

    def __init__(self, name: str, key: str, wall: Callable[[], float]) -> None:
        self._name = name
        self._key = key
        self._wall = wall

    def answer(self, read: _Read, call: ProviderCall, status: int = 200) -> Answer:
        finish = "content_filter" if read.blocked else FINISH_REASONS.get(read.finish, "other")
        if read.calls and finish == "stop":
            finish = "tool_calls"
        if not (read.has_text or read.calls or finish in MAY_BE_EMPTY):
            raise self.bad(status, f"a candidate without text, finishReason {read.finish!r}")
        calls = tuple(_tool_call(part, index, call.request_id) for index, part in enumerate(read.calls))
        return Answer(
            text="".join(read.texts),
            provider=self._name,
            model=call.model,
            usage=_usage(read.usage),
            finish_reason=finish,
            tool_calls=calls,
        )

    def error_of(self, reply: HttpReply) -> ProviderError:
        error = error_of_reply(reply, self._name, scrub=self.scrub, wall=self._wall)
        if reply.status == 400 and b"API_KEY_INVALID" in reply.body:
            # The vendor says 400 to a wrong key: https://ai.google.dev/gemini-api/docs/troubleshooting
            return ProviderAuthError(str(error), status=400)
        return error

    def error_in_stream(self, data: str, body: Mapping[str, Any]) -> ProviderError:
        """What an error among the events stands for. The model had begun, so it may have been paid for."""
        found = body.get("error")
        code = found.get("code") if isinstance(found, dict) else None
        status = code if type(code) is int and 400 <= code <= 599 else 500
        error = self.error_of(HttpReply(status, {}, data.encode()))
        error.maybe_paid = True
        return error

    def bad(self, status: int, what: str) -> ProviderBadReplyError:
        message = f"provider {self._name!r} answered {status} with {what}"
        return ProviderBadReplyError(message, status=status, maybe_paid=True)

    def scrub(self, text: str) -> str:
        """``text`` without our key and without anything shaped like one: servers echo keys, whole or in part."""
        if self._key:
            text = text.replace(self._key, "***")
        return _KEY_SHAPE.sub("***", text)

    def words(self, body: bytes) -> str:
        """What an error's body says, fit for a message."""
        return self.scrub(reason_of(body).text)[:MAX_REASON_CHARACTERS]


class GoogleStream:
    """Reads one streamed reply: every event is a whole reply that holds the next parts."""

    def __init__(self, replies: _Replies, call: ProviderCall) -> None:
        self._replies = replies
        self._call = call
        self._read = _Read()

    def feed(self, event: ServerSentEvent) -> str:
        """The text that this event adds, thoughts aside.

        Raises:
            ProviderError: the event is an error.
            ProviderBadReplyError: it cannot be read.
        """
        body = _json_object(event.data)
        if body is None:
            raise self._replies.bad(200, f"an event of {len(event.data)} characters which is no JSON object")
        if "error" in body:
            raise self._replies.error_in_stream(event.data, body)
        before = len(self._read.texts)
        if not self._read.add(body):
            raise self._replies.bad(200, "an event that is no reply of Gemini's")
        return "".join(self._read.texts[before:])

    def answer(self) -> Answer:
        """The whole answer. Raises ProviderBadReplyError where no event said that it was the end."""
        if not self._read.ended:
            raise self._replies.bad(200, "a stream that broke off before its end")
        return self._replies.answer(self._read, self._call)


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


def _sendable(key: str, provider: str) -> str:
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError(f"the API key of provider {provider!r} holds characters that no header takes")
    return key


def _json_object(data: bytes | str) -> dict[str, Any] | None:
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return body if isinstance(body, dict) else None


def _tool_call(part: Mapping[str, Any], index: int, request_id: str) -> dict[str, Any]:
    """The call in OpenAI's form.

    Models that give a call no id get one from the request's, so that a result can name it. The thought signature, which
    Gemini 3 wants back with the call, travels where Google's own OpenAI-compatible endpoint has it.
    """
    function = part["functionCall"]
    made_up = hashlib.sha256(f"{request_id}/{index}".encode()).hexdigest()[:24]
    arguments = orjson.dumps(function.get("args") or {}).decode()
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
    used, thoughts = _count(found, "promptTokenCount"), _count(found, "thoughtsTokenCount")
    made = _count(found, "candidatesTokenCount") + thoughts
    return Usage(used, made, min(_count(found, "cachedContentTokenCount"), used), thoughts)


def _count(holder: object, name: str) -> int:
    value = holder.get(name) if isinstance(holder, dict) else None
    return value if type(value) is int and value >= 0 else 0
