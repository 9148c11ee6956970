"""What Anthropic's messages are asked, from our form: system, turns of blocks, tools, output settings. Pure.

The wire shape is that of https://docs.anthropic.com/en/api/messages. What it lacks is an error, never left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from stratarouter_runtime.port_values import ProviderCall
from stratarouter_runtime.providers.chat_form import ChatForm, ToolCall
from stratarouter_runtime.providers.openai_request import token_limit
from stratarouter_runtime.providers.server import Json

DEFAULT_MAX_TOKENS = 4096
"""The vendor demands a limit; this is what a call gets that names none. Every current model can write as much."""
PASSED_ON = {"temperature": "temperature", "top_p": "top_p"}
"""The vendor's newest models take neither and say so with a 400; older ones and compatible servers do."""
TRANSLATED = frozenset({
    "max_tokens", "max_completion_tokens", "stop", "tools", "tool_choice", "parallel_tool_calls", "response_format",
    "reasoning_effort", "user",
})  # fmt: skip
EFFORTS = frozenset({"low", "medium", "high", "xhigh", "max"})
IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
TOOL_CHOICES = {"none": "none", "auto": "auto", "required": "any", "tool": "tool"}

_TOOL_ID = re.compile(r"[a-zA-Z0-9_-]+")


def request_body(call: ProviderCall, provider: str, *, stream: bool) -> Json:
    """The body for ``call``.

    Args:
        call: what is asked; a parameter of value None counts as not given.
        provider: its name in the route table, for the messages of errors.
        stream: ask for server-sent events.

    Raises:
        UnsupportedParameterError: a parameter or a part of a message that the wire shape lacks; the message names it.
        ProviderRejectedError: a message or parameter that is malformed.
    """
    body = _Writer(call, provider).body()
    return {**body, "stream": True} if stream else body


class _Writer(ChatForm):
    VENDOR = "Anthropic"
    ASSISTANT = "assistant"
    BLOCKS = "content"
    PARTS: ClassVar[Mapping[str, frozenset[str]]] = {**ChatForm.PARTS, "tool": frozenset({"text", "image_url"})}

    def body(self) -> Json:
        self._check_parameters(PASSED_ON.keys() | TRANSLATED)
        system, turns = self._turns()
        limit = token_limit(self._given)
        body: Json = {
            "model": self._call.model,
            "max_tokens": DEFAULT_MAX_TOKENS if limit is None else limit,
            "messages": turns,
        }
        if system:
            body["system"] = system
        body |= {field: self._given[name] for name, field in PASSED_ON.items() if name in self._given}
        stop = self._stop()
        if stop is not None:
            body["stop_sequences"] = stop
        return body | self._output() | self._tools() | self._user()

    # --- messages ----------------------------------------------------------------------------------------------

    def _text(self, text: str) -> Json:
        return {"type": "text", "text": text}

    def _linked_image(self, url: str) -> Json:
        return {"type": "image", "source": {"type": "url", "url": url}}

    def _inline_image(self, kind: str, data: str) -> Json:
        if kind not in IMAGE_TYPES:
            raise self._lacks(f"images of type {kind!r}")
        return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}

    def _said_and_called(self, said: list[Json], calls: Sequence[ToolCall]) -> list[Json]:
        blocks = said
        for at, call in enumerate(calls):
            use = {"type": "tool_use", "id": _tool_id(call.id), "name": call.name, "input": call.arguments}
            thoughts = _thoughts_of(call)
            # Thoughts come before words: a turn that begins with anything else is refused where thinking is on.
            blocks = [*blocks, *thoughts, use] if at else [*thoughts, *blocks, use]
        return blocks

    def _tool_result(self, call: ToolCall, message: Mapping[str, Any]) -> Json:
        return {"type": "tool_result", "tool_use_id": _tool_id(call.id), "content": self._blocks(message["content"])}

    # --- parameters --------------------------------------------------------------------------------------------

    def _user(self) -> Json:
        user = self._given.get("user")
        return {} if user is None else {"metadata": {"user_id": user}}

    def _output(self) -> Json:
        settings: Json = {}
        effort = self._given.get("reasoning_effort")
        if effort is not None:
            if effort not in EFFORTS:
                raise self._lacks(f"'reasoning_effort' of {effort!r}")
            settings["effort"] = effort
        kind, schema = self._format()
        if kind == "json_schema":
            settings["format"] = {"type": "json_schema", "schema": schema}
        elif kind != "text":
            raise self._lacks(f"'response_format' of type {kind!r}")
        return {"output_config": settings} if settings else {}

    def _tools(self) -> Json:
        functions = self._functions()
        choice = self._choice()
        if not functions:
            return {}
        chosen: Json = {"type": TOOL_CHOICES["auto" if choice is None else choice.mode]}
        if choice is not None and choice.name is not None:
            chosen["name"] = choice.name
        if self._given.get("parallel_tool_calls") is False and chosen["type"] != "none":
            chosen["disable_parallel_tool_use"] = True
        declared = [_declared(function) for function in functions]
        return {"tools": declared} | ({"tool_choice": chosen} if chosen != {"type": "auto"} else {})


def _declared(function: Json) -> Json:
    declared = {name: value for name, value in function.items() if name != "parameters"}
    return declared | {"input_schema": function.get("parameters") or {"type": "object", "properties": {}}}


def _tool_id(given: str) -> str:
    """An id that the vendor takes. Other vendors' have dots and colons, which it answers with a 400
    (https://github.com/HKUDS/nanobot/pull/4356); the same id always becomes the same one.
    """
    return given if _TOOL_ID.fullmatch(given) else f"toolu_{hashlib.sha256(given.encode()).hexdigest()[:24]}"


def _thoughts_of(call: ToolCall) -> list[Json]:
    """The blocks of thinking that came before a call, as our answer carried them."""
    found = call.carried_for("anthropic").get("thinking")
    return [block for block in found if isinstance(block, dict)] if isinstance(found, list) else []
