"""Anthropic's messages: our call -> HTTP, HTTP -> answer or typed error. Pure.

Refusals, their kinds and their times to wait are read in ``http_errors``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.port_values import HttpCall, HttpReply, ProviderCall, ServerSentEvent
from stratarouter_runtime.providers.anthropic_request import request_body
from stratarouter_runtime.providers.server import Json, ProviderServer, count, json_object
from stratarouter_runtime.records import Answer, Usage

DEFAULT_BASE_URL = "https://api.anthropic.com"
VERSION = "2023-06-01"
"""Of the wire shape, in the header ``anthropic-version``. The next one, 2026-10-21, has no temperature and no top_p for
any model, older ones included (``anthropic`` 2.12.0 sends that version, and its types lack both).
"""
FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""What the vendor says -> our words; anything else is ``other``."""
MAY_BE_EMPTY = frozenset({"length", "content_filter", "stop"})
"""Ends that explain an answer without text; a turn may also end with nothing more to say."""
THOUGHTS = frozenset({"thinking", "redacted_thinking"})
"""Blocks that are no part of the answer. Many models think by default, and thoughts before a call of a tool have to
come back with its result: https://platform.claude.com/docs/en/build-with-claude/thinking-tool-workflows."""
PIECES = {
    "text_delta": "text",
    "input_json_delta": "partial_json",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
}
"""Kinds of deltas -> the field that holds what they add."""
SUPPORT: Mapping[str, str] = {
    "system prompt": "yes, before the first turn; a later one is an error",
    "multi-turn messages": "yes",
    "temperature": "yes, the newest models refuse it",
    "top_p": "yes, the newest models refuse it",
    "max_tokens": "yes, 4,096 where none is given",
    "stop": "yes",
    "seed": "error",
    "frequency_penalty, presence_penalty": "error",
    "JSON mode": "error",
    "JSON schema": "yes, always kept to; strict or not is the same",
    "tools": "yes",
    "tool_choice": "yes",
    "parallel_tool_calls": "yes",
    "images by URL": "yes, https only; 'detail' is an error",
    "images in base64": "yes, JPEG, PNG, GIF and WebP",
    "reasoning_effort": "yes, low to max",
    "streaming": "yes",
    "several prompts in one call": "no",
    "cached tokens in usage": "yes",
    "reasoning tokens in usage": "yes",
}
"""What the wire shape carries, by the names of ``features.FEATURES``."""

_VERSION_PATH = re.compile(r"/v1$")
_KEY_SHAPE = re.compile(r"\bsk-ant-[A-Za-z0-9_*\-]{4,}")


class AnthropicAdapter:
    """Translates for the messages API.

    Args:
        name: the provider's name in the route table.
        base_url: such as ``https://api.anthropic.com``, with or without ``/v1`` at its end.
        api_key: sent as ``x-api-key``; None for servers that want none.
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
        self._server = ProviderServer(name, api_key, _KEY_SHAPE, wall=wall)
        base = _VERSION_PATH.sub("", base_url.rstrip("/"))
        self._url, self._models_url = f"{base}/v1/messages", f"{base}/v1/models"
        self._headers = {"anthropic-version": VERSION}
        if self._server.key:
            self._headers["x-api-key"] = self._server.key

    def models(self) -> HttpCall:
        """The request for the list of models."""
        return self._server.get(self._models_url, self._headers)

    def to_http(self, call: ProviderCall, *, stream: bool = False) -> HttpCall:
        """Translate. A parameter of value None counts as not given; ``stream`` asks for server-sent events.

        Raises:
            UnsupportedParameterError: the wire shape lacks a parameter or a part of a message; the message names it.
            ProviderRejectedError: a message is malformed, or a value is no JSON.
        """
        body = request_body(call, self._server.name, stream=stream)
        return self._server.request(self._url, body, call, self._headers, stream=stream)

    def from_http(self, reply: HttpReply, call: ProviderCall) -> Answer:
        """Read the reply; ``model`` is the one asked for, so that prices and metric labels stay a closed set.

        Raises:
            ProviderError: what a status other than 2xx stands for.
            ProviderBadReplyError: 2xx, and the body cannot be read.
        """
        message = self._server.json_object(reply)
        read = _Read()
        blocks = message.get("content")
        if not isinstance(blocks, list):
            said = f": {self._server.words(message)}" if "error" in message else ""
            raise self._server.bad(f"a body of {len(reply.body)} bytes without content{said}", reply.status)
        for index, block in enumerate(blocks):
            if read.begin(index, block) is None:
                raise self._server.bad("a block of content that cannot be read", reply.status)
        read.end(message.get("stop_reason"))
        read.count(message.get("usage"))
        return _answer(self._server, call, read, reply.status)

    def read_stream(self, call: ProviderCall) -> AnthropicStream:
        """A reader for the events of ``to_http(call, stream=True)``."""
        return AnthropicStream(self._server, call)


class AnthropicStream:
    """Reads one streamed reply: blocks begin, grow by deltas, and the message says how it ended."""

    def __init__(self, server: ProviderServer, call: ProviderCall) -> None:
        self._server = server
        self._call = call
        self._read = _Read()

    def feed(self, event: ServerSentEvent) -> str:
        """The text that this event adds, thoughts and tool calls aside.

        Raises:
            ProviderError: the event is an error.
            ProviderBadReplyError: it cannot be read.
        """
        body = self._server.event_object(event)
        match body.get("type"):
            case "error":
                raise self._server.error_of_event(body)
            case "message_start":
                self._read.count(_object(body.get("message")).get("usage"))
            case "content_block_start":
                return self._known(self._read.begin(body.get("index"), body.get("content_block")))
            case "content_block_delta":
                return self._known(self._read.grow(body.get("index"), _object(body.get("delta"))))
            case "message_delta":
                self._read.end(_object(body.get("delta")).get("stop_reason"))
                self._read.count(body.get("usage"))
            case "message_stop":
                self._read.stopped = True
        # Pings, and kinds that the vendor may add: its versioning policy asks clients to pass over them.
        return ""

    def answer(self) -> Answer:
        """The whole answer. Raises ProviderBadReplyError where no event said that it was the end."""
        if not self._read.stopped or not self._read.finish:
            raise self._server.bad("a stream that broke off before its end")
        return _answer(self._server, self._call, self._read)

    def _known(self, piece: str | None) -> str:
        if piece is None:
            raise self._server.bad("an event whose block cannot be read")
        return piece


@dataclass(slots=True)
class _Block:
    """One block of content. ``text`` is a tool use's input as JSON text; ``thought`` a block of thinking as it came."""

    kind: str
    text: str = ""
    id: str = ""
    name: str = ""
    thought: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Read:
    """What was read so far of a message that comes whole or in events."""

    blocks: dict[int, _Block] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict)
    finish: str = ""
    stopped: bool = False

    def begin(self, index: object, found: object) -> str | None:
        """Enter a block; returns the text that it begins with, None for one that cannot be read."""
        if type(index) is not int or not isinstance(found, dict) or not isinstance(found.get("type"), str):
            return None
        block = _Block(found["type"], id=str(found.get("id") or ""), name=str(found.get("name") or ""))
        if block.kind == "text":
            if not isinstance(found.get("text"), str):
                return None
            block.text = found["text"]
        elif block.kind in THOUGHTS:
            block.thought = dict(found)
        elif found.get("input"):
            block.text = json_bytes(found["input"]).decode()
        self.blocks[index] = block
        return block.text if block.kind == "text" else ""

    def grow(self, index: object, delta: Mapping[str, Any]) -> str | None:
        """Add to a block; returns the text that came, None for a piece of no block. New kinds are passed over."""
        block = self.blocks.get(index) if type(index) is int else None
        kind = str(delta.get("type"))
        if block is None:
            return None
        if kind not in PIECES:
            return ""
        piece = delta.get(PIECES[kind])
        if not isinstance(piece, str):
            return None
        if block.kind in THOUGHTS:
            so_far = block.thought.get(PIECES[kind]) or ""
            block.thought[PIECES[kind]] = piece if kind == "signature_delta" else so_far + piece
            return ""
        block.text += piece
        return piece if block.kind == "text" else ""

    def end(self, reason: object) -> None:
        """Note why the message ended."""
        if isinstance(reason, str):
            self.finish = reason

    def count(self, usage: object) -> None:
        """Take tokens up; a later count stands for the whole message."""
        self.usage |= {name: value for name, value in _object(usage).items() if value is not None}


def _answer(server: ProviderServer, call: ProviderCall, read: _Read, status: int = 200) -> Answer:
    finish = FINISH_REASONS.get(read.finish, "other")
    calls = tuple(_tool_calls(server, read, status, may_be_cut=finish == "length"))
    text = "".join(block.text for block in read.blocks.values() if block.kind == "text")
    if not (text or calls or finish in MAY_BE_EMPTY):
        raise server.bad(f"a message without text, stop_reason {read.finish!r}", status)
    return Answer(
        text=text,
        provider=server.name,
        model=call.model,
        usage=_usage(read.usage),
        finish_reason=finish,
        tool_calls=calls,
    )


def _tool_calls(server: ProviderServer, read: _Read, status: int, *, may_be_cut: bool) -> Iterator[Json]:
    """The calls in OpenAI's form, each with the thoughts before it, which the vendor wants back with it."""
    thoughts: list[Json] = []
    for block in read.blocks.values():
        if block.kind in THOUGHTS:
            thoughts.append(block.thought)
        if block.kind != "tool_use":
            continue
        arguments = block.text or "{}"
        if not block.id or not block.name or not (may_be_cut or json_object(arguments) is not None):
            raise server.bad("a tool use without id, name or an object as its input", status)
        function = {"name": block.name, "arguments": arguments}
        call: Json = {"id": block.id, "type": "function", "function": function}
        yield {**call, "extra_content": {"anthropic": {"thinking": thoughts}}} if thoughts else call
        thoughts = []


def _object(found: object) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _usage(found: Mapping[str, Any]) -> Usage:
    """Tokens in our form: the vendor counts cached input beside the rest, we within it."""
    cached = count(found, "cache_read_input_tokens")
    used = count(found, "input_tokens") + cached + count(found, "cache_creation_input_tokens")
    made = count(found, "output_tokens")
    thought = count(_object(found.get("output_tokens_details")), "thinking_tokens")
    return Usage(used, made, cached, min(thought, made))
