"""Reads a call in our form, OpenAI's chat form, for vendors whose wire shape is another. Pure.

What the form asks for and a vendor's shape lacks is an error that names it; so is what is no such form.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

import orjson

from stratarouter_runtime.errors import ProviderRejectedError, UnsupportedParameterError
from stratarouter_runtime.ports import ProviderCall
from stratarouter_runtime.providers.openai_request import SYSTEM_ROLES
from stratarouter_runtime.providers.server import Json

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,([A-Za-z0-9+/_-]+={0,2})")
_MESSAGE_FIELDS = {
    "system": {"content"},
    "developer": {"content"},
    "user": {"content"},
    "assistant": {"content", "tool_calls", "refusal"},
    "tool": {"content", "tool_call_id"},
}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant made. ``item`` is all that was said of it."""

    id: str
    name: str
    arguments: Json
    item: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """``mode``: none, auto, required; or "tool", and then ``name`` is that of the tool."""

    mode: str
    name: str | None = None


class ChatForm(ABC):
    """One call, taken to pieces for a vendor's writer, which says how each piece looks on its wire.

    Args:
        call: what is asked; a parameter of value None counts as not given.
        provider: its name in the route table, for the messages of errors.
    """

    VENDOR: ClassVar[str]
    ASSISTANT: ClassVar[str]
    """The role of the model's turns."""
    BLOCKS: ClassVar[str]
    """The field of a turn that holds its blocks."""

    def __init__(self, call: ProviderCall, provider: str) -> None:
        self._call = call
        self._provider = provider
        self._given = {name: value for name, value in call.params.items() if value is not None}

    # --- how a piece looks -------------------------------------------------------------------------------------

    @abstractmethod
    def _text(self, text: str) -> Json: ...

    @abstractmethod
    def _linked_image(self, url: str) -> Json: ...

    @abstractmethod
    def _inline_image(self, kind: str, data: str) -> Json:
        """``data`` in base64."""

    @abstractmethod
    def _said_and_called(self, said: list[Json], calls: Sequence[ToolCall]) -> list[Json]:
        """The blocks of a turn of the model's."""

    @abstractmethod
    def _tool_result(self, call: ToolCall, message: Mapping[str, Any]) -> Json:
        """What a tool answered to ``call``."""

    # --- messages ----------------------------------------------------------------------------------------------

    def _turns(self) -> tuple[list[Json], list[Json]]:
        """The blocks of the system's messages, then the turns. There is at least one turn.

        Neighbours of one role are one turn: results of parallel calls must be.
        """
        messages = list(self._call.messages)
        start = next(
            (i for i, message in enumerate(messages) if message.get("role") not in SYSTEM_ROLES), len(messages)
        )
        turns = [
            {"role": role, self.BLOCKS: [block for _, blocks in group for block in blocks]}
            for role, group in groupby(self._said(messages[start:]), key=lambda turn: turn[0])
        ]
        if not turns:
            raise self._malformed("there is no message besides the system's")
        return [block for message in messages[:start] for block in self._texts(message)], turns

    def _said(self, messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[Json]]]:
        calls: dict[str, ToolCall] = {}
        for message in messages:
            role = message.get("role")
            if role in SYSTEM_ROLES:
                raise self._lacks("a system message after the conversation has begun")
            if role == "user":
                self._check_fields(message, role)
                yield "user", self._blocks(message)
            elif role == "assistant":
                self._check_fields(message, role)
                yield self.ASSISTANT, self._assistant_blocks(message, calls)
            elif role == "tool":
                self._check_fields(message, role)
                yield "user", [self._answer_of_tool(message, calls)]
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
            return [self._text(content)]
        if not isinstance(content, list) or not content:
            raise self._malformed(f"the content of a message of role {message['role']!r} is neither text nor parts")
        return [self._block(part) for part in content]

    def _texts(self, message: Mapping[str, Any]) -> list[Json]:
        self._check_fields(message, message["role"])
        blocks = self._blocks(message)
        content = message["content"]
        if not isinstance(content, str) and any(part["type"] != "text" for part in content):
            raise self._lacks(f"an image in a message of role {message['role']!r}")
        return blocks

    def _block(self, part: object) -> Json:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(part, dict) and kind == "text" and isinstance(part.get("text"), str):
            return self._text(part["text"])
        if isinstance(part, dict) and kind == "image_url":
            return self._image(part.get("image_url"))
        if kind in {"text", None}:
            raise self._malformed("a part of a message has no type or no text")
        raise self._lacks(f"message parts of type {kind!r}")

    def _image(self, image: object) -> Json:
        url = image.get("url") if isinstance(image, dict) else None
        if not isinstance(image, dict) or not isinstance(url, str):
            raise self._malformed("an image_url part has no url")
        if image.get("detail") not in (None, "auto"):
            raise self._lacks(f"'detail' of an image (here {image['detail']!r})")
        if url.startswith("https://"):
            return self._linked_image(url)
        if not url.startswith("data:"):
            raise self._lacks("images by URLs other than https:// and data:")
        found = _DATA_URL.fullmatch(url)
        if found is None:
            raise self._malformed("the data URL of an image is not data:<type>;base64,<data>")
        return self._inline_image(found[1], found[2])

    def _assistant_blocks(self, message: Mapping[str, Any], known: dict[str, ToolCall]) -> list[Json]:
        """What the model said and called; enters the calls by their ids into ``known``."""
        items = message.get("tool_calls") or []
        said = message.get("content") or message.get("refusal")
        blocks = self._texts({"role": "assistant", "content": said}) if said or not items else []
        calls = [self._tool_call(item) for item in items]
        known.update({call.id: call for call in calls})
        return self._said_and_called(blocks, calls)

    def _tool_call(self, item: object) -> ToolCall:
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
        return ToolCall(item["id"], function["name"], arguments, item)

    def _answer_of_tool(self, message: Mapping[str, Any], calls: Mapping[str, ToolCall]) -> Json:
        call_id = message.get("tool_call_id")
        if not isinstance(call_id, str) or call_id not in calls:
            raise self._malformed(f"a tool message answers the call {call_id!r}, which no earlier message makes")
        return self._tool_result(calls[call_id], message)

    # --- parameters --------------------------------------------------------------------------------------------

    def _check_parameters(self, known: AbstractSet[str]) -> None:
        unknown = sorted(self._given.keys() - known)
        if unknown:
            raise self._lacks(f"parameter {', '.join(map(repr, unknown))}")

    def _stop(self) -> Any:
        stop = self._given.get("stop")
        if not isinstance(stop, str | list | None):
            raise self._malformed("'stop' is neither a text nor a list of texts")
        return [stop] if isinstance(stop, str) else stop

    def _format(self) -> tuple[str | None, Json]:
        """The type of 'response_format', and the schema where it is "json_schema"."""
        wanted = self._given.get("response_format", {"type": "text"})
        kind = wanted.get("type") if isinstance(wanted, dict) else None
        if kind != "json_schema":
            return kind, {}
        described = wanted.get("json_schema")
        if not isinstance(described, dict) or not isinstance(described.get("schema"), dict):
            raise self._malformed("'response_format' has no json_schema.schema")
        # The name labels the schema in OpenAI's form; a schema that is given is always kept to, strict or not.
        unknown = sorted(described.keys() - {"name", "schema", "strict"})
        if unknown:
            raise self._lacks(f"{', '.join(map(repr, unknown))} in 'response_format'")
        return kind, described["schema"]

    def _functions(self) -> list[Json]:
        """What 'tools' declares: each with its name, and perhaps a description, parameters, and strict."""
        tools = self._given.get("tools", [])
        if not isinstance(tools, list):
            raise self._malformed("'tools' is no list")
        return [self._function(tool) for tool in tools]

    def _function(self, tool: object) -> Json:
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(tool, dict) and tool.get("type") != "function":
            raise self._lacks(f"tools of type {tool.get('type')!r}")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise self._malformed("a tool has no function with a name")
        unknown = sorted(function.keys() - {"name", "description", "parameters", "strict"})
        if unknown:
            raise self._lacks(f"{', '.join(map(repr, unknown))} in the tool {function['name']!r}")
        if not isinstance(function.get("parameters", {}), dict | None):
            raise self._malformed(f"the parameters of the tool {function['name']!r} are no JSON schema")
        return {name: value for name, value in function.items() if value is not None}

    def _choice(self, functions: Sequence[Json]) -> ToolChoice | None:
        """What 'tool_choice' says; None where nothing."""
        choice = self._given.get("tool_choice")
        if choice is None:
            return None
        if not functions and choice not in ("none", "auto"):
            raise self._malformed("'tool_choice' demands a tool, and 'tools' has none")
        if choice in ("none", "auto", "required"):
            return ToolChoice(choice)
        function = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
        name = function.get("name") if isinstance(function, dict) else None
        if name is None:
            raise self._lacks(f"'tool_choice' of {choice!r}")
        if name not in [each["name"] for each in functions]:
            raise self._malformed(f"'tool_choice' demands the tool {name!r}, which 'tools' does not have")
        return ToolChoice("tool", name)

    # --- errors ------------------------------------------------------------------------------------------------

    def _lacks(self, what: str) -> UnsupportedParameterError:
        return UnsupportedParameterError(f"provider {self._provider!r} ({self.VENDOR}) has no {what}")

    def _malformed(self, what: str) -> ProviderRejectedError:
        return ProviderRejectedError(f"the call to provider {self._provider!r} is malformed: {what}")
