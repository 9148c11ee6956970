"""OpenAI chat completions, for any server that speaks them: our call -> HTTP, HTTP -> answer or typed error. Pure."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.port_values import HttpCall, HttpReply, ProviderCall, ServerSentEvent
from stratarouter_runtime.providers.openai_request import LIMIT_NAMES, CallCheck
from stratarouter_runtime.providers.server import Json, ProviderServer, count
from stratarouter_runtime.records import Answer, Usage

PASSED_ON = frozenset({
    "frequency_penalty", "logit_bias", "parallel_tool_calls", "prediction", "presence_penalty", "prompt_cache_key",
    "reasoning_effort", "response_format", "safety_identifier", "seed", "stop", "temperature", "tool_choice", "tools",
    "top_p", "user", "verbosity",
})  # fmt: skip
"""Parameters that mean the same on both sides. Left out on purpose: ``stream`` and ``n`` (one whole answer is what a
request gets), ``logprobs`` and audio (an Answer has no place for them), ``service_tier`` (it changes the price)."""
KNOWN = PASSED_ON.union(LIMIT_NAMES)
FINISH_REASONS = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
"""What servers say -> our words; anything else is ``other``."""
MAY_BE_EMPTY = frozenset({"length", "content_filter"})
"""Ends that explain an answer without text: a reasoning model spent its limit on thinking, or a filter took it."""
AZURE_HOSTS = (".openai.azure.com", ".services.ai.azure.com")
"""Ends of the names of Azure's hosts. With a key they want the header ``api-key``; a bearer token is Entra's:
https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle."""
SUPPORT: Mapping[str, str] = {
    "system prompt": "yes",
    "multi-turn messages": "yes",
    "temperature": "yes",
    "top_p": "yes",
    "max_tokens": "yes",
    "stop": "yes",
    "seed": "yes",
    "frequency_penalty, presence_penalty": "yes",
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
"""What the wire shape carries, by the names of ``features.FEATURES``. A compatible server may refuse some of it."""

_KEY_SHAPE = re.compile(r"\b(?:(?:sk|pk|rk|xai)-|gsk_)[A-Za-z0-9_*\-]{4,}")


class OpenAIServer(ProviderServer):
    """One server that speaks OpenAI's wire shapes.

    Args:
        name: the provider's name in the route table.
        base_url: up to and with the version, such as ``https://api.openai.com/v1``. A query stays at the end.
        api_key: sent as a bearer token, to Azure's hosts as ``api-key``; None for servers that want none.
            Raises ConfigurationError where no header can carry it.
        wall: epoch seconds, for dates in ``retry-after``.
    """

    def __init__(
        self, name: str, base_url: str, api_key: SecretStr | None = None, *, wall: Callable[[], float] = time.time
    ) -> None:
        super().__init__(name, api_key, _KEY_SHAPE, wall=wall)
        self._base = urlsplit(base_url)
        host = self._base.hostname or ""
        self.is_openais = _is_openais_host(host)
        """Whether OpenAI's own models answer here, at OpenAI or at Azure."""
        self._auth: dict[str, str] = {}
        if self.key:
            self._auth = (
                {"api-key": self.key} if host.endswith(AZURE_HOSTS) else {"authorization": f"Bearer {self.key}"}
            )
        self._urls: dict[str, str] = {}

    def post(self, path: str, body: Json, call: ProviderCall, *, stream: bool) -> HttpCall:
        """The request that carries ``body`` for ``call``. Raises ProviderRejectedError where it is no JSON."""
        return self.request(self._url(path), body, call, self._auth, stream=stream)

    def models(self) -> HttpCall:
        """The request for the list of models."""
        return self.get(self._url("/models"), self._auth)

    def _url(self, path: str) -> str:
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = urlunsplit(self._base._replace(path=self._base.path.rstrip("/") + path))
        return url


class OpenAIAdapter:
    """Translates for one OpenAI-compatible server.

    Args:
        name: the provider's name in the route table.
        base_url: as ``OpenAIServer`` takes it.
        api_key: likewise.
        limit_name: how this server calls the limit on output tokens. By default ``max_completion_tokens`` on
            OpenAI's own hosts, whose reasoning models refuse the older name, and ``max_tokens`` elsewhere.
        wall: epoch seconds, for dates in ``retry-after``.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        api_key: SecretStr | None = None,
        *,
        limit_name: str | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._server = OpenAIServer(name, base_url, api_key, wall=wall)
        self._limit_name = limit_name or ("max_completion_tokens" if self._server.is_openais else "max_tokens")
        self._check = CallCheck(name)

    def models(self) -> HttpCall:
        """The request for the list of models."""
        return self._server.models()

    def to_http(self, call: ProviderCall, *, stream: bool = False) -> HttpCall:
        """Translate. A parameter of value None counts as not given; ``stream`` asks for server-sent events.

        Raises:
            UnsupportedParameterError: the wire shape lacks a parameter or a part of a message; the message names it.
            ProviderRejectedError: something is malformed or cannot be written as JSON.
        """
        body = {"model": call.model, "messages": call.messages, **self._params(call)}
        if self._server.is_openais:
            body["messages"] = [_without_extras(message) for message in call.messages]
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return self._server.post("/chat/completions", body, call, stream=stream)

    def from_http(self, reply: HttpReply, call: ProviderCall) -> Answer:
        """Read the reply; ``model`` is the one asked for, so that prices and metric labels stay a closed set.

        Raises:
            ProviderError: what a status other than 2xx stands for.
            ProviderBadReplyError: 2xx, and the body cannot be read.
        """
        body = self._server.json_object(reply)
        choice = _first_choice(body)
        if choice is None:
            said = f": {self._server.words(body)}" if "error" in body else ""
            raise self._server.bad(f"a body of {len(reply.body)} bytes without choices{said}", reply.status)
        message = choice.get("message")
        if not isinstance(message, dict):
            raise self._server.bad(f"a body of {len(reply.body)} bytes without choices[0].message", reply.status)
        return _answer(self._server, call, message, choice.get("finish_reason"), body.get("usage"))

    def read_stream(self, call: ProviderCall) -> ChatStream:
        """A reader for the events of ``to_http(call, stream=True)``."""
        return ChatStream(self._server, call)

    def _params(self, call: ProviderCall) -> Json:
        unknown = [name for name, value in call.params.items() if value is not None and name not in KNOWN]
        if unknown:
            raise self._check.lacks(f"parameter {', '.join(map(repr, sorted(unknown)))}")
        given = self._check.check(call)
        limit = self._check.limit(given)
        return given if limit is None else {**given, self._limit_name: limit}


class ChatStream:
    """Reads one streamed chat completion."""

    def __init__(self, server: OpenAIServer, call: ProviderCall) -> None:
        self._server = server
        self._call = call
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._tools: list[Json] = []
        self._slots: dict[int, int] = {}
        self._finish: object = None
        self._usage: object = None
        self._ended = False

    def feed(self, event: ServerSentEvent) -> str:
        """The text that this event adds.

        Raises:
            ProviderError: the event is an error.
            ProviderBadReplyError: it cannot be read.
        """
        if event.data.strip() == "[DONE]":
            self._ended = True
            return ""
        body = self._server.event_object(event)
        if event.event == "error" or body.get("error") or body.get("object") == "error":
            raise self._server.error_of_event(body)
        # Most servers count in an event of its own without choices, some (llama.cpp) in the last one with a choice.
        self._usage = body.get("usage") or self._usage
        choice = _first_choice(body)
        if choice is None:
            if body.get("choices"):
                raise self._server.bad("an event whose choices are none")
            return ""
        self._finish = choice.get("finish_reason") or self._finish
        self._ended = self._ended or bool(self._finish)
        delta = choice.get("delta")
        return self._add(delta) if isinstance(delta, dict) else ""

    def answer(self) -> Answer:
        """The whole answer. Raises ProviderBadReplyError where no event said that it was the end."""
        if not self._ended:
            raise self._server.bad("a stream that broke off before its end")
        message: Json = {"content": "".join(self._texts) if self._texts else None, "tool_calls": self._tools}
        message["refusal"] = "".join(self._refusals)
        return _answer(self._server, self._call, message, self._finish, self._usage)

    def _add(self, delta: Json) -> str:
        for item in _list(delta.get("tool_calls")):
            self._add_tool(item)
        text, refusal = _joined(delta.get("content")), delta.get("refusal")
        if text is not None:
            self._texts.append(text)
        if isinstance(refusal, str):
            self._refusals.append(refusal)
            # A refusal stands as the answer's text only where there is no other.
            return text or (refusal if not any(self._texts) else "")
        return text or ""

    def _add_tool(self, item: object) -> None:
        """Add a piece of a tool call to the call it belongs to, by its index.

        Some servers leave the index out or say 0 for every call: there a new id with a name begins the next one.
        """
        function = item.get("function") if isinstance(item, dict) else None
        if not isinstance(item, dict) or not isinstance(function, dict):
            raise self._server.bad("a piece of a tool call without a function")
        index = item.get("index")
        at = self._slots.get(index) if type(index) is int else len(self._tools) - 1 if self._tools else None
        name, arguments = function.get("name"), _arguments(function.get("arguments"))
        if at is None or (name and item.get("id") not in (None, "", self._tools[at].get("id"))):
            at = len(self._tools)
            self._tools.append({"function": {"name": "", "arguments": ""}})
        if type(index) is int:
            self._slots[index] = at
        tool = self._tools[at]
        for key, value in item.items():
            if key not in ("index", "function") and value is not None:
                tool.setdefault(key, value)
        tool["function"]["name"] = tool["function"]["name"] or name or ""
        tool["function"]["arguments"] += arguments


def _is_openais_host(host: str) -> bool:
    return host == "api.openai.com" or host.endswith((".api.openai.com", *AZURE_HOSTS))


def _without_extras(message: Json) -> Json:
    """``message`` without what other vendors' models put on their tool calls: OpenAI answers 400 to fields that it does
    not know, and their signatures mean nothing to its models.
    """
    calls = message.get("tool_calls")
    if not calls:
        return message
    return {**message, "tool_calls": [{k: v for k, v in each.items() if k != "extra_content"} for each in calls]}


def _first_choice(body: Json) -> Json | None:
    choices = body.get("choices")
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None


def _answer(server: OpenAIServer, call: ProviderCall, message: Json, finish: object, usage: object) -> Answer:
    ours = FINISH_REASONS.get(finish, "other") if isinstance(finish, str) else "other"
    tool_calls = _tool_calls(server, call, message)
    text, refusal = _joined(message.get("content")), message.get("refusal")
    if not text and isinstance(refusal, str) and refusal:
        text, ours = refusal, "content_filter"
    elif text is None and not (tool_calls or ours in MAY_BE_EMPTY):
        raise server.bad("no text in the message's content")
    return Answer(
        text=text or "",
        provider=server.name,
        model=call.model,
        usage=usage_of(usage),
        finish_reason="tool_calls" if tool_calls and ours == "stop" else ours,
        tool_calls=tool_calls,
    )


def _list(found: object) -> list[Any]:
    return found if isinstance(found, list) else []


def _joined(content: object) -> str | None:
    """The text of a content, a string or a list of parts; None for neither."""
    if isinstance(content, list):
        return "".join(p["text"] for p in content if isinstance(p, dict) and isinstance(p.get("text"), str))
    return content if isinstance(content, str) else None


def _tool_calls(server: OpenAIServer, call: ProviderCall, message: Json) -> tuple[Json, ...]:
    """The calls of tools; one that a server gave no id gets one from the request's, so that a result can name it."""
    read = []
    for index, item in enumerate(_list(message.get("tool_calls"))):
        function = item.get("function") if isinstance(item, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise server.bad("a tool call without a function's name")
        made_up = hashlib.sha256(f"{call.request_id}/{index}".encode()).hexdigest()[:24]
        called = {**function, "arguments": _arguments(function.get("arguments"))}
        read.append({**item, "id": item.get("id") or f"call_{made_up}", "type": "function", "function": called})
    return tuple(read)


def _arguments(found: object) -> str:
    """A JSON text: some servers give the object itself, or nothing."""
    return found if isinstance(found, str) else "" if found is None else json_bytes(found).decode()


def usage_of(found: object) -> Usage:
    """What a server counted. OpenAI counts reasoning within the completion's tokens, xAI and others beside them; the
    total tells which: https://docs.x.ai/docs/key-information/consumption-and-rate-limits.
    """
    used, made = count(found, "prompt_tokens"), count(found, "completion_tokens")
    details: Json = found if isinstance(found, dict) else {}
    cached = count(details.get("prompt_tokens_details"), "cached_tokens")
    reasoning = count(details.get("completion_tokens_details"), "reasoning_tokens")
    if reasoning and count(found, "total_tokens") >= used + made + reasoning:
        made += reasoning
    return Usage(used, made, min(cached, used), min(reasoning, made))
