"""OpenAI's responses endpoint: our call -> HTTP, HTTP or a stream of events -> answer or typed error. Pure.

The wire shape is that of https://platform.openai.com/docs/api-reference/responses. Nothing is stored at the vendor
(``store`` is false): a request carries its whole conversation, as everywhere in this runtime.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import SecretStr

from stratarouter_runtime.port_values import HttpCall, HttpReply, ProviderCall, ServerSentEvent
from stratarouter_runtime.providers.openai import MAY_BE_EMPTY, OpenAIServer
from stratarouter_runtime.providers.openai_request import LIMIT_NAMES, SYSTEM_ROLES, CallCheck
from stratarouter_runtime.providers.server import Json, count
from stratarouter_runtime.records import Answer, Usage

PASSED_ON = frozenset({"parallel_tool_calls", "prompt_cache_key", "safety_identifier", "temperature", "top_p", "user"})
"""Parameters that mean the same on both sides."""
TRANSLATED = frozenset({"reasoning_effort", "response_format", "tool_choice", "tools", "verbosity", *LIMIT_NAMES})
"""Parameters that are said in another way."""
PARTS: Mapping[str, frozenset[str]] = {
    "system": frozenset({"text"}),
    "developer": frozenset({"text"}),
    "user": frozenset({"text", "image_url"}),
    "assistant": frozenset({"text"}),
    "tool": frozenset({"text", "image_url"}),
}
"""Kinds of parts taken in a message, by its role."""
MESSAGE_FIELDS: Mapping[str, frozenset[str]] = {
    "system": frozenset({"content"}),
    "developer": frozenset({"content"}),
    "user": frozenset({"content"}),
    "assistant": frozenset({"content", "tool_calls", "refusal"}),
    "tool": frozenset({"content", "tool_call_id"}),
}
"""Fields of a message besides its role; the endpoint has no names of participants."""
INCOMPLETE = {"max_output_tokens": "length", "content_filter": "content_filter"}
"""Why an answer is not whole -> our words; anything else is ``other``."""
SUPPORT: Mapping[str, str] = {
    "system prompt": "yes",
    "multi-turn messages": "yes",
    "temperature": "yes",
    "top_p": "yes",
    "max_tokens": "yes",
    "stop": "error",
    "seed": "error",
    "frequency_penalty, presence_penalty": "error",
    "JSON mode": "yes",
    "JSON schema": "yes",
    "tools": "yes",
    "tool_choice": "yes",
    "parallel_tool_calls": "yes",
    "images by URL": "yes",
    "images in base64": "yes",
    "reasoning_effort": "yes",
    "streaming": "yes",
    "several prompts in one call": "no",
    "cached tokens in usage": "yes",
    "reasoning tokens in usage": "yes",
}
"""What the wire shape carries, by the names of ``features.FEATURES``."""


class OpenAIResponsesAdapter:
    """Translates for one server that speaks the responses shape.

    Args:
        name: the provider's name in the route table.
        base_url: as ``OpenAIServer`` takes it.
        api_key: likewise.
        wall: epoch seconds, for dates in ``retry-after``.
    """

    def __init__(
        self, name: str, base_url: str, api_key: SecretStr | None = None, *, wall: Callable[[], float] = time.time
    ) -> None:
        self._server = OpenAIServer(name, base_url, api_key, wall=wall)
        self._check = CallCheck(name, PARTS)

    def models(self) -> HttpCall:
        """The request for the list of models."""
        return self._server.models()

    def to_http(self, call: ProviderCall, *, stream: bool = False) -> HttpCall:
        """Translate. A parameter of value None counts as not given; ``stream`` asks for server-sent events.

        Raises:
            UnsupportedParameterError: the wire shape lacks a parameter or a part of a message; the message names it.
            ProviderRejectedError: something is malformed or cannot be written as JSON.
        """
        asked = {name for name, value in call.params.items() if value is not None}
        unknown = sorted(asked - PASSED_ON - TRANSLATED)
        if unknown:
            raise self._check.lacks(f"parameter {', '.join(map(repr, unknown))}")
        given = self._check.check(call)
        body: Json = {"model": call.model, "store": False, **self._conversation(call.messages)}
        limit = self._check.limit(given)
        if limit is not None:
            body["max_output_tokens"] = limit
        body |= {name: value for name, value in given.items() if name in PASSED_ON} | _translated(given)
        if stream:
            body["stream"] = True
        return self._server.post("/responses", body, call, stream=stream)

    def from_http(self, reply: HttpReply, call: ProviderCall) -> Answer:
        """Read the reply; ``model`` is the one asked for, so that prices and metric labels stay a closed set.

        Raises:
            ProviderError: what a status other than 2xx, or a response that failed, stands for.
            ProviderBadReplyError: 2xx, and the body cannot be read.
        """
        return _answer(self._server, call, self._server.json_object(reply))

    def read_stream(self, call: ProviderCall) -> ResponseStream:
        """A reader for the events of ``to_http(call, stream=True)``."""
        return ResponseStream(self._server, call)

    def _conversation(self, messages: Sequence[Mapping[str, Any]]) -> Json:
        """``instructions`` hold the first message where it is the system's; the rest are items, in their order."""
        for index, message in enumerate(messages):
            fields = {name for name, value in message.items() if value is not None and value != []}
            unknown = sorted(fields - MESSAGE_FIELDS[message["role"]] - {"role"})
            if unknown:
                raise self._check.lacks(f"{', '.join(map(repr, unknown))} of messages[{index}]")
        rest = list(messages)
        body: Json = {}
        if rest[0]["role"] in SYSTEM_ROLES and len(rest) > 1:
            body["instructions"] = _text(rest.pop(0)["content"])
        return {**body, "input": [item for message in rest for item in _items(message)]}


class ResponseStream:
    """Reads one streamed response: pieces of text, then an event that holds the whole response."""

    def __init__(self, server: OpenAIServer, call: ProviderCall) -> None:
        self._server = server
        self._call = call
        self._has_text = False
        self._final: Json | None = None

    def feed(self, event: ServerSentEvent) -> str:
        """The text that this event adds.

        Raises:
            ProviderError: the event is an error, or the response failed.
            ProviderBadReplyError: it cannot be read.
        """
        if event.data.strip() == "[DONE]":
            # Not OpenAI's own, but some servers that speak both shapes end both in the same way.
            return ""
        body = self._server.event_object(event)
        kind, delta = body.get("type", event.event), body.get("delta")
        if kind == "error" or (kind is None and "error" in body):
            raise self._server.error_of_event(body)
        if kind in ("response.completed", "response.incomplete", "response.failed"):
            self._final = _response(self._server, body.get("response"))
        elif kind == "response.output_text.delta" and isinstance(delta, str):
            self._has_text = self._has_text or bool(delta)
            return delta
        elif kind == "response.refusal.delta" and isinstance(delta, str) and not self._has_text:
            # A refusal stands as the answer's text only where there is no other.
            return delta
        return ""

    def answer(self) -> Answer:
        """The whole answer. Raises ProviderBadReplyError where no event said that it was the end."""
        if self._final is None:
            raise self._server.bad("a stream that broke off before its end")
        return _answer(self._server, self._call, self._final)


# --- what is asked ---------------------------------------------------------------------------------------------


def _items(message: Mapping[str, Any]) -> Iterator[Json]:
    role, content = message["role"], message.get("content")
    if role == "tool":
        output = content if isinstance(content, str) else _parts(content)
        yield {"type": "function_call_output", "call_id": message["tool_call_id"], "output": output}
        return
    if role != "assistant":
        yield {"role": role, "content": content if isinstance(content, str) else _parts(content)}
        return
    # As one text: the endpoint takes parts of what the assistant said only with the ids it gave them.
    said = _text(content) or message.get("refusal") or ""
    calls = message.get("tool_calls") or []
    if said or not calls:
        yield {"role": role, "content": said}
    for each in calls:
        function = each["function"]
        yield {
            "type": "function_call",
            "call_id": each["id"],
            "name": function["name"],
            "arguments": function["arguments"],
        }


def _text(content: object) -> str:
    return "".join(part["text"] for part in content) if isinstance(content, list) else str(content or "")


def _parts(content: Any) -> list[Json]:
    return [
        {"type": "input_text", "text": part["text"]} if part["type"] == "text" else _image(part["image_url"])
        for part in content
    ]


def _image(image: Mapping[str, Any]) -> Json:
    return {"type": "input_image", "image_url": image["url"], "detail": image.get("detail") or "auto"}


def _translated(given: Json) -> Json:
    body: Json = {}
    text: Json = {}
    if "reasoning_effort" in given:
        body["reasoning"] = {"effort": given["reasoning_effort"]}
    if "response_format" in given:
        text["format"] = _format(given["response_format"])
    if "verbosity" in given:
        text["verbosity"] = given["verbosity"]
    if text:
        body["text"] = text
    if "tools" in given:
        body["tools"] = [_tool(tool["function"]) for tool in given["tools"]]
    if "tool_choice" in given:
        choice = given["tool_choice"]
        body["tool_choice"] = (
            choice if isinstance(choice, str) else {"type": "function", "name": choice["function"]["name"]}
        )
    return body


def _format(wanted: Json) -> Json:
    """``strict`` is said in any case, here and for tools: the two endpoints differ in what they take for granted."""
    if wanted["type"] != "json_schema":
        return {"type": wanted["type"]}
    described = wanted["json_schema"]
    return {**described, "type": "json_schema", "strict": bool(described.get("strict"))}


def _tool(function: Json) -> Json:
    # A function without parameters takes none; the endpoint wants that in words.
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    return {**function, "type": "function", "parameters": parameters, "strict": bool(function.get("strict"))}


# --- what is answered ------------------------------------------------------------------------------------------


def _response(server: OpenAIServer, found: object) -> Json:
    """The response, once it is none that failed. Raises the ProviderError that a failure stands for."""
    if not isinstance(found, dict):
        raise server.bad("no response")
    if found.get("status") == "failed":
        raise server.error_of_event({"error": found.get("error") or {}})
    if not isinstance(found.get("output"), list):
        said = f": {server.words(found)}" if found.get("error") else ""
        raise server.bad(f"a response without output{said}")
    if found.get("status") not in ("completed", "incomplete"):
        raise server.bad(f"a response of status {found.get('status')!r}")
    return found


def _answer(server: OpenAIServer, call: ProviderCall, body: Json) -> Answer:
    response = _response(server, body)
    items = [item for item in response["output"] if isinstance(item, dict)]
    parts = [part for item in items if item.get("type") == "message" for part in _list(item.get("content"))]
    texts, refusals = _all_of(parts, "output_text", "text"), _all_of(parts, "refusal", "refusal")
    tool_calls = tuple(_tool_call(server, item) for item in items if item.get("type") == "function_call")
    finish = "tool_calls" if tool_calls else "stop"
    if response["status"] == "incomplete":
        details = response.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        finish = INCOMPLETE.get(reason, "other") if isinstance(reason, str) else "other"
    if refusals and not any(texts):
        texts, finish = refusals, "content_filter"
    if not (texts or tool_calls or finish in MAY_BE_EMPTY):
        raise server.bad("a response without text")
    usage = _usage(response.get("usage"))
    return Answer("".join(texts), server.name, call.model, usage, finish_reason=finish, tool_calls=tool_calls)


def _list(found: object) -> list[Any]:
    return found if isinstance(found, list) else []


def _all_of(parts: list[Any], kind: str, name: str) -> list[str]:
    of_kind = [part.get(name) for part in parts if isinstance(part, dict) and part.get("type") == kind]
    return [text for text in of_kind if isinstance(text, str)]


def _tool_call(server: OpenAIServer, item: Json) -> Json:
    call_id, name, arguments = (item.get(key) for key in ("call_id", "name", "arguments"))
    if not (isinstance(call_id, str) and isinstance(name, str) and isinstance(arguments, str)):
        raise server.bad("a function call without call_id, name or arguments")
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _usage(found: object) -> Usage:
    used, made = count(found, "input_tokens"), count(found, "output_tokens")
    details: Json = found if isinstance(found, dict) else {}
    cached = count(details.get("input_tokens_details"), "cached_tokens")
    reasoning = count(details.get("output_tokens_details"), "reasoning_tokens")
    return Usage(used, made, min(cached, used), min(reasoning, made))
