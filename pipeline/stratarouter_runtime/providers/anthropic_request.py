"""What Anthropic's messages are asked, from our form: system, turns of blocks, tools, output settings. Pure.

The wire shape is that of https://docs.anthropic.com/en/api/messages. What it lacks is an error, never left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import orjson

from stratarouter_runtime.errors import ProviderRejectedError, UnsupportedParameterError
from stratarouter_runtime.ports import ProviderCall

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
TOOL_CHOICES = {"none": "none", "auto": "auto", "required": "any"}

_TOOL_ID = re.compile(r"[a-zA-Z0-9_-]+")
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,([A-Za-z0-9+/_-]+={0,2})")
_MESSAGE_FIELDS = {
    "system": {"content"},
    "developer": {"content"},
    "user": {"content"},
    "assistant": {"content", "tool_calls", "refusal"},
    "tool": {"content", "tool_call_id"},
}

Json = dict[str, Any]


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


class _Writer:
    """Writes one body; holds what its errors name."""

    def __init__(self, call: ProviderCall, provider: str) -> None:
        self._call = call
        self._provider = provider
        self._given = {name: value for name, value in call.params.items() if value is not None}

    def body(self) -> Json:
        unknown = sorted(self._given.keys() - PASSED_ON.keys() - TRANSLATED)
        if unknown:
            raise self._lacks(f"parameter {', '.join(map(repr, unknown))}")
        turns = list(self._call.messages)
        start = next((i for i, m in enumerate(turns) if m.get("role") not in {"system", "developer"}), len(turns))
        body: Json = {"model": self._call.model, "max_tokens": self._limit(), "messages": self._turns(turns[start:])}
        if not body["messages"]:
            raise self._malformed("there is no message besides the system's")
        if start:
            body["system"] = [block for message in turns[:start] for block in self._texts(message)]
        body |= {field: self._given[name] for name, field in PASSED_ON.items() if name in self._given}
        return body | self._stop() | self._output() | self._tools() | self._user()

    # --- messages ----------------------------------------------------------------------------------------------

    def _turns(self, messages: Sequence[Mapping[str, Any]]) -> list[Json]:
        """Turns of ``user`` and ``assistant``. Neighbours of one role are one: results of parallel calls must be."""
        return [
            {"role": role, "content": [block for _, blocks in group for block in blocks]}
            for role, group in groupby(self._said(messages), key=lambda turn: turn[0])
        ]

    def _said(self, messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[Json]]]:
        called: set[str] = set()
        for message in messages:
            role = message.get("role")
            if role in {"system", "developer"}:
                raise self._lacks("a system message after the conversation has begun")
            if role == "user":
                self._check_fields(message, role)
                yield "user", self._blocks(message)
            elif role == "assistant":
                self._check_fields(message, role)
                yield "assistant", self._assistant_blocks(message, called)
            elif role == "tool":
                self._check_fields(message, role)
                yield "user", [self._tool_result(message, called)]
            else:
                raise self._malformed(f"a message has the role {role!r}")

    def _check_fields(self, message: Mapping[str, Any], role: str) -> None:
        given = {name for name, value in message.items() if value is not None and value != []}
        unknown = sorted(given - _MESSAGE_FIELDS[role] - {"role"})
        if unknown:
            raise self._lacks(f"{', '.join(map(repr, unknown))} in a message of role {role!r}")

    def _blocks(self, message: Mapping[str, Any]) -> list[Json]:
        content = message.get("content")
        if isinstance(content, str):
            return [{"type": "text", "text": content}]
        if not isinstance(content, list) or not content:
            raise self._malformed(f"the content of a message of role {message['role']!r} is neither text nor parts")
        return [self._block(part) for part in content]

    def _texts(self, message: Mapping[str, Any]) -> list[Json]:
        self._check_fields(message, message["role"])
        blocks = self._blocks(message)
        if not all(block["type"] == "text" for block in blocks):
            raise self._lacks(f"an image in a message of role {message['role']!r}")
        return blocks

    def _block(self, part: object) -> Json:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(part, dict) and kind == "text" and isinstance(part.get("text"), str):
            return {"type": "text", "text": part["text"]}
        if isinstance(part, dict) and kind == "image_url":
            return {"type": "image", "source": self._image(part.get("image_url"))}
        if kind in {"text", None}:
            raise self._malformed("a part of a message has no type or no text")
        raise self._lacks(f"message parts of type {kind!r}")

    def _image(self, image: object) -> Json:
        url = image.get("url") if isinstance(image, dict) else None
        if not isinstance(image, dict) or not isinstance(url, str):
            raise self._malformed("an image_url part has no url")
        if image.get("detail") not in (None, "auto"):
            raise self._lacks(f"'detail' of an image (here {image['detail']!r})")
        if not url.startswith("data:"):
            if not url.startswith("https://"):
                raise self._lacks("images by URLs other than https:// and data:")
            return {"type": "url", "url": url}
        found = _DATA_URL.fullmatch(url)
        if found is None:
            raise self._malformed("the data URL of an image is not data:<type>;base64,<data>")
        if found[1] not in IMAGE_TYPES:
            raise self._lacks(f"images of type {found[1]!r}")
        return {"type": "base64", "media_type": found[1], "data": found[2]}

    def _assistant_blocks(self, message: Mapping[str, Any], called: set[str]) -> list[Json]:
        """What the model said and called; enters the calls' ids into ``called``."""
        calls = message.get("tool_calls") or []
        said = message.get("content") or message.get("refusal")
        blocks = self._texts({"role": "assistant", "content": said}) if said or not calls else []
        uses = [self._tool_use(item) for item in calls]
        called.update(item["id"] for item in calls)
        thoughts = [_thoughts_of(item) for item in calls]
        if calls:
            # Thoughts come before words: a turn that begins with anything else is refused where thinking is on.
            blocks = thoughts[0] + blocks + uses[:1]
        return blocks + [block for at in range(1, len(uses)) for block in (*thoughts[at], uses[at])]

    def _tool_use(self, item: object) -> Json:
        function = item.get("function") if isinstance(item, dict) else None
        if isinstance(item, dict) and item.get("type", "function") != "function":
            raise self._lacks(f"tool calls of type {item['type']!r}")
        if not isinstance(item, dict) or not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise self._malformed("a tool call names no function")
        if not isinstance(item.get("id"), str) or not item["id"]:
            raise self._malformed(f"the call of tool {function['name']!r} has no id")
        try:
            arguments = orjson.loads(function.get("arguments") or "{}")
        except (orjson.JSONDecodeError, TypeError) as exc:
            raise self._malformed(f"the arguments of the call {item['id']!r} are no JSON text") from exc
        if not isinstance(arguments, dict):
            raise self._malformed(f"the arguments of the call {item['id']!r} are no JSON object")
        return {"type": "tool_use", "id": _tool_id(item["id"]), "name": function["name"], "input": arguments}

    def _tool_result(self, message: Mapping[str, Any], called: set[str]) -> Json:
        call_id = message.get("tool_call_id")
        if not isinstance(call_id, str) or call_id not in called:
            raise self._malformed(f"a tool message answers the call {call_id!r}, which no earlier message makes")
        return {"type": "tool_result", "tool_use_id": _tool_id(call_id), "content": self._blocks(message)}

    # --- parameters --------------------------------------------------------------------------------------------

    def _limit(self) -> Any:
        limits = [self._given[name] for name in ("max_tokens", "max_completion_tokens") if name in self._given]
        if len(limits) == 2 and limits[0] != limits[1]:
            raise UnsupportedParameterError("'max_tokens' and 'max_completion_tokens' are one limit; they differ")
        return limits[0] if limits else DEFAULT_MAX_TOKENS

    def _stop(self) -> Json:
        stop = self._given.get("stop")
        if stop is None:
            return {}
        if not isinstance(stop, str | list):
            raise self._malformed("'stop' is neither a text nor a list of texts")
        return {"stop_sequences": [stop] if isinstance(stop, str) else stop}

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
        wanted = self._given.get("response_format", {"type": "text"})
        kind = wanted.get("type") if isinstance(wanted, dict) else None
        if kind == "json_schema":
            settings["format"] = {"type": "json_schema", "schema": self._schema(wanted)}
        elif kind != "text":
            raise self._lacks(f"'response_format' of type {kind!r}")
        return {"output_config": settings} if settings else {}

    def _schema(self, wanted: Mapping[str, Any]) -> Json:
        described = wanted.get("json_schema")
        if not isinstance(described, dict) or not isinstance(described.get("schema"), dict):
            raise self._malformed("'response_format' has no json_schema.schema")
        # The name labels the schema in OpenAI's form; a schema that is given is always kept to, strict or not.
        unknown = sorted(described.keys() - {"name", "schema", "strict"})
        if unknown:
            raise self._lacks(f"{', '.join(map(repr, unknown))} in 'response_format'")
        schema: Json = described["schema"]
        return schema

    def _tools(self) -> Json:
        tools = self._given.get("tools", [])
        if not isinstance(tools, list):
            raise self._malformed("'tools' is no list")
        declared = [self._tool(tool) for tool in tools]
        choice = self._given.get("tool_choice")
        if not declared:
            if choice not in (None, "none", "auto"):
                raise self._malformed("'tool_choice' demands a tool, and 'tools' has none")
            return {}
        chosen = self._choice("auto" if choice is None else choice, {tool["name"] for tool in declared})
        if self._given.get("parallel_tool_calls") is False and chosen["type"] != "none":
            chosen["disable_parallel_tool_use"] = True
        return {"tools": declared} | ({"tool_choice": chosen} if chosen != {"type": "auto"} else {})

    def _tool(self, tool: object) -> Json:
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(tool, dict) and tool.get("type") != "function":
            raise self._lacks(f"tools of type {tool.get('type')!r}")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise self._malformed("a tool has no function with a name")
        unknown = sorted(function.keys() - {"name", "description", "parameters", "strict"})
        if unknown:
            raise self._lacks(f"{', '.join(map(repr, unknown))} in the tool {function['name']!r}")
        declared = {
            name: function[name] for name in ("name", "description", "strict") if function.get(name) is not None
        }
        if not isinstance(function.get("parameters", {}), dict | None):
            raise self._malformed(f"the parameters of the tool {function['name']!r} are no JSON schema")
        declared["input_schema"] = function.get("parameters") or {"type": "object", "properties": {}}
        return declared

    def _choice(self, choice: object, names: set[str]) -> Json:
        if isinstance(choice, str) and choice in TOOL_CHOICES:
            return {"type": TOOL_CHOICES[choice]}
        function = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
        name = function.get("name") if isinstance(function, dict) else None
        if name is None:
            raise self._lacks(f"'tool_choice' of {choice!r}")
        if name not in names:
            raise self._malformed(f"'tool_choice' demands the tool {name!r}, which 'tools' does not have")
        return {"type": "tool", "name": name}

    # --- errors ------------------------------------------------------------------------------------------------

    def _lacks(self, what: str) -> UnsupportedParameterError:
        return UnsupportedParameterError(f"provider {self._provider!r} (Anthropic) has no {what}")

    def _malformed(self, what: str) -> ProviderRejectedError:
        return ProviderRejectedError(f"the call to provider {self._provider!r} is malformed: {what}")


def _tool_id(given: str) -> str:
    """An id that the vendor takes. Other vendors' have dots and colons, which it answers with a 400
    (https://github.com/HKUDS/nanobot/pull/4356); the same id always becomes the same one.
    """
    return given if _TOOL_ID.fullmatch(given) else f"toolu_{hashlib.sha256(given.encode()).hexdigest()[:24]}"


def _thoughts_of(item: Mapping[str, Any]) -> list[Json]:
    """The blocks of thinking that came before a call, as our answer carried them."""
    ours = (item.get("extra_content") or {}).get("anthropic")
    found = ours.get("thinking") if isinstance(ours, dict) else None
    return [block for block in found if isinstance(block, dict)] if isinstance(found, list) else []
