"""OpenAI's completions, for servers that take several prompts in one call (vLLM and others). Pure.

One user message is the prompt, a system prompt stands above it; a conversation of several turns needs the model's own
template, which the server applies for chat completions and not here, so it is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pydantic import SecretStr

from stratarouter_runtime.errors import UnsupportedParameterError
from stratarouter_runtime.port_values import HttpCall, HttpReply, ProviderCall, ServerSentEvent
from stratarouter_runtime.providers.openai import FINISH_REASONS, OpenAIServer, usage_of
from stratarouter_runtime.providers.openai_request import LIMIT_NAMES, SYSTEM_ROLES, CallCheck
from stratarouter_runtime.providers.server import Json
from stratarouter_runtime.records import Answer, Usage

PASSED_ON = frozenset({
    "frequency_penalty", "logit_bias", "presence_penalty", "seed", "stop", "temperature", "top_p", "user",
})  # fmt: skip
TEXT_ALONE = frozenset({"text"})
PARTS: Mapping[str, frozenset[str]] = dict.fromkeys((*SYSTEM_ROLES, "user"), TEXT_ALONE)
PATH = "/completions"
SUPPORT: Mapping[str, str] = {
    "system prompt": "yes, above the user's words, an empty line between them",
    "multi-turn messages": "error",
    "temperature": "yes",
    "top_p": "yes",
    "max_tokens": "yes",
    "stop": "yes",
    "seed": "yes",
    "frequency_penalty, presence_penalty": "yes",
    "JSON mode": "error",
    "JSON schema": "error",
    "tools": "error",
    "tool_choice": "error",
    "parallel_tool_calls": "error",
    "images by URL": "error",
    "images in base64": "error",
    "reasoning_effort": "error",
    "streaming": "yes",
    "several prompts in one call": "yes, usage is shared out by the length of the texts",
    "cached tokens in usage": "no",
    "reasoning tokens in usage": "no",
}


class OpenAICompletionsAdapter:
    """Translates for one server that speaks OpenAI's completions.

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
        """Translate one call. Raises UnsupportedParameterError naming what the wire shape lacks."""
        body = {"model": call.model, "prompt": self._prompt(call), **self._params(call)}
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return self._server.post(PATH, body, call, stream=stream)

    def from_http(self, reply: HttpReply, call: ProviderCall) -> Answer:
        """Read the reply to one call. Raises a ProviderError."""
        return self.from_http_many(reply, [call])[0]

    def check(self, call: ProviderCall) -> None:
        """Raises what ``to_http`` would: so that one bad prompt is told before it joins others."""
        self._prompt(call)
        self._params(call)

    def to_http_many(self, calls: Sequence[ProviderCall]) -> HttpCall:
        """One call for several prompts, which share model and parameters; the first gives it its request id, the most
        patient its time.
        """
        body = {
            "model": calls[0].model,
            "prompt": [self._prompt(call) for call in calls],
            **self._params(calls[0]),
        }
        longest = max(call.timeout_s for call in calls)
        return self._server.post(PATH, body, replace(calls[0], timeout_s=longest), stream=False)

    def from_http_many(self, reply: HttpReply, calls: Sequence[ProviderCall]) -> list[Answer]:
        """An answer for each of ``calls``, in their order.

        The server counts tokens for all of them together; each gets its share by the length of its texts, and the
        shares add up to what was counted. Raises a ProviderError; ProviderBadReplyError where an answer is missing.
        """
        body = self._server.json_object(reply)
        choices = body.get("choices")
        by_index: dict[int, Json] = {}
        for place, choice in enumerate(choices if isinstance(choices, list) else []):
            if isinstance(choice, dict):
                index = choice.get("index")
                by_index[index if type(index) is int else place] = choice
        if set(by_index) != set(range(len(calls))):
            raise self._server.bad(f"{len(by_index)} choices for {len(calls)} prompts", reply.status)
        read = [self._read(by_index[index]) for index in range(len(calls))]
        usage = usage_of(body.get("usage"))
        used = _shares(usage.input_tokens, [len(self._prompt(call)) for call in calls])
        made = _shares(usage.output_tokens, [len(text) for text, _ in read])
        return [
            Answer(text, self._server.name, call.model, Usage(tokens_in, tokens_out), finish_reason=finish)
            for call, (text, finish), tokens_in, tokens_out in zip(calls, read, used, made, strict=True)
        ]

    def read_stream(self, call: ProviderCall) -> CompletionStream:
        """A reader for the events of ``to_http(call, stream=True)``."""
        return CompletionStream(self._server, call)

    def _read(self, choice: Json) -> tuple[str, str]:
        text, finish = choice.get("text"), _finish_reason(choice.get("finish_reason"))
        if not isinstance(text, str):
            raise self._server.bad("a choice without text")
        return text, finish

    def _prompt(self, call: ProviderCall) -> str:
        turns = [message for message in call.messages if message.get("role") not in SYSTEM_ROLES]
        if len(turns) > 1 or any(message.get("role") == "assistant" for message in turns):
            raise UnsupportedParameterError(
                f"provider of kind 'openai-completions' takes one user message, not {len(turns)} turns",
                remedy='use kind = "openai" for conversations',
            )
        given = {name: value for name, value in call.params.items() if name in PASSED_ON}
        self._check.check(ProviderCall(call.model, call.messages, given, call.request_id, call.timeout_s))
        return "\n\n".join(_text(message["content"]) for message in call.messages)

    def _params(self, call: ProviderCall) -> Json:
        given = {name: value for name, value in call.params.items() if value is not None}
        unknown = sorted(set(given) - PASSED_ON - set(LIMIT_NAMES))
        if unknown:
            raise self._check.lacks(f"parameter {', '.join(map(repr, unknown))}")
        limit = self._check.limit(given)
        return given if limit is None else {**given, "max_tokens": limit}


class CompletionStream:
    """Reads one streamed completion."""

    def __init__(self, server: OpenAIServer, call: ProviderCall) -> None:
        self._server = server
        self._call = call
        self._texts: list[str] = []
        self._finish: object = None
        self._usage: object = None
        self._ended = False

    def feed(self, event: ServerSentEvent) -> str:
        """The text that this event adds. Raises a ProviderError for an error within the stream."""
        if event.data.strip() == "[DONE]":
            self._ended = True
            return ""
        body = self._server.event_object(event)
        if event.event == "error" or body.get("error") or body.get("object") == "error":
            raise self._server.error_of_event(body)
        self._usage = body.get("usage") or self._usage
        # Some servers count in an event that leaves the choices out, or says null.
        choices = [] if body.get("choices") is None else body["choices"]
        if not isinstance(choices, list) or (choices and not isinstance(choices[0], dict)):
            raise self._server.bad("an event whose choices are none")
        if not choices:
            return ""
        self._finish = choices[0].get("finish_reason") or self._finish
        self._ended = self._ended or bool(self._finish)
        text = choices[0].get("text")
        if not isinstance(text, str):
            return ""
        self._texts.append(text)
        return text

    def answer(self) -> Answer:
        """The whole answer. Raises ProviderBadReplyError where no event said that it was the end."""
        if not self._ended:
            raise self._server.bad("a stream that broke off before its end")
        finish = _finish_reason(self._finish)
        text = "".join(self._texts)
        usage = usage_of(self._usage)
        counted = Usage(usage.input_tokens, usage.output_tokens)
        return Answer(text, self._server.name, self._call.model, counted, finish_reason=finish)


def _finish_reason(found: object) -> str:
    return FINISH_REASONS.get(found, "other") if isinstance(found, str) else "other"


def _text(content: object) -> str:
    if isinstance(content, list):
        return "".join(str(part["text"]) for part in content)
    return str(content)


def _shares(total: int, weights: Sequence[int]) -> list[int]:
    """``total`` shared out by ``weights`` in whole numbers that add up to it; the largest remainders get the rest."""
    whole = sum(weights) or len(weights)
    exact = [total * (weight if sum(weights) else 1) / whole for weight in weights]
    shares = [int(part) for part in exact]
    by_remainder = sorted(range(len(weights)), key=lambda place: shares[place] - exact[place])
    for place in by_remainder[: total - sum(shares)]:
        shares[place] += 1
    return shares
