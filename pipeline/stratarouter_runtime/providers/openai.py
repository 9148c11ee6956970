"""OpenAI chat completions, for any server that speaks them: our call -> HTTP, HTTP -> answer or typed error. Pure."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import orjson
from pydantic import SecretStr

from stratarouter_runtime.errors import (
    ConfigurationError,
    ProviderBadReplyError,
    ProviderRejectedError,
    UnsupportedParameterError,
)
from stratarouter_runtime.ports import HttpCall, HttpReply, ProviderCall
from stratarouter_runtime.providers.http_errors import MAX_REASON_CHARACTERS, error_of_reply, reason_of
from stratarouter_runtime.records import Answer, Usage

REQUEST_ID_HEADER = "x-stratarouter-request-id"
"""Carries the request id, percent-encoded; servers that do not know it ignore it."""
PASSED_ON = frozenset({
    "frequency_penalty", "logit_bias", "parallel_tool_calls", "prediction", "presence_penalty", "prompt_cache_key",
    "reasoning_effort", "response_format", "safety_identifier", "seed", "stop", "temperature", "tool_choice", "tools",
    "top_p", "user", "verbosity",
})  # fmt: skip
"""Parameters that mean the same on both sides. Left out on purpose: ``stream`` and ``n`` (one whole answer is what a
request gets), ``logprobs`` and audio (an Answer has no place for them), ``service_tier`` (it changes the price)."""
LIMIT_NAMES = ("max_tokens", "max_completion_tokens")
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

_KEY_SHAPE = re.compile(r"\b(?:sk|pk|rk)-[A-Za-z0-9_*\-]{4,}")


class OpenAIAdapter:
    """Translates for one OpenAI-compatible server.

    Args:
        name: the provider's name in the route table.
        base_url: up to and with the version, such as ``https://api.openai.com/v1``.
        api_key: sent as a bearer token; None for servers that want none.
            Raises ConfigurationError where no header can carry it.
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
        self._name = name
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._key = "" if api_key is None else _sendable(api_key.get_secret_value().strip(), name)
        self._limit_name = limit_name or _usual_limit_name(base_url)
        self._wall = wall

    def to_http(self, call: ProviderCall) -> HttpCall:
        """Translate. A parameter of value None counts as not given.

        Raises:
            UnsupportedParameterError: a parameter is unknown; the message names it.
            ProviderRejectedError: a value cannot be written as JSON.
        """
        headers = {
            "content-type": "application/json",
            "accept": "application/json",
            REQUEST_ID_HEADER: quote(call.request_id, safe="!#$&'()*+,/:;=?@[]"),
        }
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        try:
            body = orjson.dumps({"model": call.model, "messages": call.messages, **self._params(call.params)})
        except TypeError as exc:
            raise ProviderRejectedError(f"the call to provider {self._name!r} is no JSON: {exc}") from exc
        return HttpCall("POST", self._url, headers, body, call.timeout_s)

    def from_http(self, reply: HttpReply, call: ProviderCall) -> Answer:
        """Read the reply; ``model`` is the one asked for, so that prices and metric labels stay a closed set.

        Raises:
            ProviderError: what a status other than 2xx stands for.
            ProviderBadReplyError: 2xx, and the body cannot be read.
        """
        if not 200 <= reply.status < 300:
            raise error_of_reply(reply, self._name, scrub=self._scrub, wall=self._wall)
        body = self._json_object(reply)
        message, finish = self._choice(reply, body)
        tool_calls = _tool_calls(message)
        text = self._text(reply, message, finish, has_tools=bool(tool_calls))
        if message.get("refusal") and not message.get("content"):
            finish = "content_filter"
        return Answer(
            text=text,
            provider=self._name,
            model=call.model,
            usage=_usage(body.get("usage")),
            finish_reason="tool_calls" if tool_calls and finish == "stop" else finish,
            tool_calls=tool_calls,
        )

    def _params(self, params: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in params.items() if value is not None}
        unknown = sorted(given.keys() - PASSED_ON - set(LIMIT_NAMES))
        if unknown:
            raise UnsupportedParameterError(f"provider {self._name!r} has no parameter {', '.join(map(repr, unknown))}")
        limits = [given.pop(name) for name in LIMIT_NAMES if name in given]
        if len(limits) == 2 and limits[0] != limits[1]:
            raise UnsupportedParameterError("'max_tokens' and 'max_completion_tokens' are one limit; they differ")
        return {**given, self._limit_name: limits[0]} if limits else given

    def _json_object(self, reply: HttpReply) -> dict[str, Any]:
        try:
            body = orjson.loads(reply.body)
        except orjson.JSONDecodeError as exc:
            raise self._bad(reply, "which is no JSON") from exc
        if not isinstance(body, dict):
            raise self._bad(reply, "which is no JSON object")
        return body

    def _choice(self, reply: HttpReply, body: dict[str, Any]) -> tuple[dict[str, Any], str]:
        choices = body.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            said = self._scrub(reason_of(reply.body).text)[:MAX_REASON_CHARACTERS] if "error" in body else ""
            raise self._bad(reply, f"without choices{': ' + said if said else ''}")
        message = choices[0].get("message")
        if not isinstance(message, dict):
            raise self._bad(reply, "without choices[0].message")
        finish = choices[0].get("finish_reason")
        return message, FINISH_REASONS.get(finish, "other") if isinstance(finish, str) else "other"

    def _text(self, reply: HttpReply, message: dict[str, Any], finish: str, *, has_tools: bool) -> str:
        content = message.get("content")
        if isinstance(content, list):
            content = "".join(part["text"] for part in content if _is_text_part(part))
        if isinstance(content, str) and content:
            return content
        refusal = message.get("refusal")
        if isinstance(refusal, str) and refusal:
            return refusal
        if content == "" or (content is None and (has_tools or finish in MAY_BE_EMPTY)):
            return ""
        raise self._bad(reply, "without text in choices[0].message.content")

    def _bad(self, reply: HttpReply, what: str) -> ProviderBadReplyError:
        message = f"provider {self._name!r} answered {reply.status} with a body of {len(reply.body)} bytes {what}"
        return ProviderBadReplyError(message, status=reply.status, maybe_paid=True)

    def _scrub(self, text: str) -> str:
        """``text`` without our key and without anything shaped like one: servers echo keys, whole or in part."""
        if self._key:
            text = text.replace(self._key, "***")
        return _KEY_SHAPE.sub("***", text)


def _sendable(key: str, provider: str) -> str:
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError(f"the API key of provider {provider!r} holds characters that no header takes")
    return key


def _usual_limit_name(base_url: str) -> str:
    host = urlsplit(base_url).hostname or ""
    own = host == "api.openai.com" or host.endswith((".api.openai.com", ".openai.azure.com"))
    return "max_completion_tokens" if own else "max_tokens"


def _is_text_part(part: object) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str)


def _tool_calls(message: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    found = message.get("tool_calls")
    return tuple(item for item in found if isinstance(item, dict)) if isinstance(found, list) else ()


def _usage(found: object) -> Usage:
    """Tokens in our form; zeros where the server counts none or nonsense (such an answer has no known price)."""
    if not isinstance(found, dict):
        return Usage()
    used, made = _count(found, "prompt_tokens"), _count(found, "completion_tokens")
    cached = _count(found.get("prompt_tokens_details"), "cached_tokens")
    reasoning = _count(found.get("completion_tokens_details"), "reasoning_tokens")
    return Usage(used, made, min(cached, used), min(reasoning, made))


def _count(holder: object, name: str) -> int:
    value = holder.get(name) if isinstance(holder, dict) else None
    return value if type(value) is int and value >= 0 else 0
