"""Takes a call in our form, OpenAI's chat form, to pieces for vendors whose wire shape is another. Pure.

It is checked as every call is (``openai_request.CallCheck``). What is well-formed and a vendor's shape lacks is an
error that names it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

import orjson

from stratarouter_runtime.errors import UnsupportedParameterError
from stratarouter_runtime.port_values import ProviderCall
from stratarouter_runtime.providers.openai_request import DATA_URL, SYSTEM_ROLES, CallCheck
from stratarouter_runtime.providers.server import Json

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

    def carried_for(self, vendor: str) -> Mapping[str, Any]:
        """What an answer carried beside the call for ``vendor`` alone (``extra_content``)."""
        extra = self.item.get("extra_content")
        found = extra.get(vendor) if isinstance(extra, dict) else None
        return found if isinstance(found, dict) else {}


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
    PARTS: ClassVar[Mapping[str, frozenset[str]]] = {
        "system": frozenset({"text"}),
        "developer": frozenset({"text"}),
        "user": frozenset({"text", "image_url"}),
        "assistant": frozenset({"text"}),
        "tool": frozenset({"text"}),
    }
    """Kinds of parts that the wire shape takes in a message, by its role."""

    def __init__(self, call: ProviderCall, provider: str) -> None:
        self._call = call
        self._provider = provider
        check = CallCheck(provider, self.PARTS)
        self._malformed = check.malformed
        self._given = check.check(call)

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
        start = next((i for i, message in enumerate(messages) if message["role"] not in SYSTEM_ROLES), len(messages))
        turns = [
            {"role": role, self.BLOCKS: [block for _, blocks in group for block in blocks]}
            for role, group in groupby(self._said(messages[start:]), key=lambda turn: turn[0])
        ]
        if not turns:
            raise self._malformed("there is no message besides the system's")
        system = [block for message in messages[:start] for block in self._checked_blocks(message)]
        return system, turns

    def _said(self, messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[Json]]]:
        calls: dict[str, ToolCall] = {}
        for message in messages:
            role = message["role"]
            if role in SYSTEM_ROLES:
                raise self._lacks("a system message after the conversation has begun")
            if role == "user":
                yield "user", self._checked_blocks(message)
            elif role == "assistant":
                self._check_fields(message)
                yield self.ASSISTANT, self._assistant_blocks(message, calls)
            else:
                self._check_fields(message)
                yield "user", [self._answer_of_tool(message, calls)]

    def _check_fields(self, message: Mapping[str, Any]) -> None:
        role = message["role"]
        given = {name for name, value in message.items() if value is not None and value != []}
        unknown = sorted(given - _MESSAGE_FIELDS[role] - {"role"})
        if unknown:
            raise self._lacks(f"{', '.join(map(repr, unknown))} in a message of role {role!r}")

    def _checked_blocks(self, message: Mapping[str, Any]) -> list[Json]:
        self._check_fields(message)
        return self._blocks(message["content"])

    def _blocks(self, content: str | Sequence[Mapping[str, Any]]) -> list[Json]:
        return [self._text(content)] if isinstance(content, str) else [self._block(part) for part in content]

    def _block(self, part: Mapping[str, Any]) -> Json:
        return self._text(part["text"]) if part["type"] == "text" else self._image(part["image_url"])

    def _image(self, image: Mapping[str, Any]) -> Json:
        url = image["url"]
        if image.get("detail") not in (None, "auto"):
            raise self._lacks(f"'detail' of an image (here {image['detail']!r})")
        if url.startswith("https://"):
            return self._linked_image(url)
        found = DATA_URL.fullmatch(url)
        if found is None:
            raise self._lacks("images by URLs other than https:// and data:")
        return self._inline_image(found[1], found[2])

    def _assistant_blocks(self, message: Mapping[str, Any], known: dict[str, ToolCall]) -> list[Json]:
        """What the model said and called; enters the calls by their ids into ``known``."""
        items = message.get("tool_calls") or []
        said = message.get("content") or message.get("refusal")
        if not said and not items:
            raise self._malformed("a message of role 'assistant' neither says nor calls anything")
        calls = [self._tool_call(item) for item in items]
        known.update({call.id: call for call in calls})
        return self._said_and_called(self._blocks(said) if said else [], calls)

    def _tool_call(self, item: Mapping[str, Any]) -> ToolCall:
        function = item["function"]
        try:
            arguments = orjson.loads(function["arguments"] or "{}")
        except orjson.JSONDecodeError as exc:
            raise self._malformed(f"the arguments of the call {item['id']!r} are no JSON text") from exc
        if not isinstance(arguments, dict):
            raise self._malformed(f"the arguments of the call {item['id']!r} are no JSON object")
        return ToolCall(item["id"], function["name"], arguments, item)

    def _answer_of_tool(self, message: Mapping[str, Any], calls: Mapping[str, ToolCall]) -> Json:
        call_id = message["tool_call_id"]
        if call_id not in calls:
            raise self._malformed(f"a tool message answers the call {call_id!r}, which no earlier message makes")
        return self._tool_result(calls[call_id], message)

    # --- parameters --------------------------------------------------------------------------------------------

    def _check_parameters(self, known: AbstractSet[str]) -> None:
        unknown = sorted(self._given.keys() - known)
        if unknown:
            raise self._lacks(f"parameter {', '.join(map(repr, unknown))}")

    def _stop(self) -> list[str] | None:
        stop: str | list[str] | None = self._given.get("stop")
        return [stop] if isinstance(stop, str) else stop

    def _format(self) -> tuple[str, Json]:
        """The type of 'response_format', and the schema where it is "json_schema"."""
        wanted = self._given.get("response_format", {"type": "text"})
        kind: str = wanted["type"]
        if kind != "json_schema":
            return kind, {}
        described = wanted["json_schema"]
        # The name labels the schema in OpenAI's form; a schema that is given is always kept to, strict or not.
        unknown = sorted(described.keys() - {"name", "schema", "strict"})
        if unknown:
            raise self._lacks(f"{', '.join(map(repr, unknown))} in 'response_format'")
        return kind, described["schema"]

    def _functions(self) -> list[Json]:
        """What 'tools' declares: each with its name, and perhaps a description, parameters, and strict."""
        return [self._function(tool["function"]) for tool in self._given.get("tools", [])]

    def _function(self, function: Mapping[str, Any]) -> Json:
        unknown = sorted(function.keys() - {"name", "description", "parameters", "strict"})
        if unknown:
            raise self._lacks(f"{', '.join(map(repr, unknown))} in the tool {function['name']!r}")
        return {name: value for name, value in function.items() if value is not None}

    def _choice(self) -> ToolChoice | None:
        """What 'tool_choice' says; None where nothing."""
        choice = self._given.get("tool_choice")
        if choice is None or isinstance(choice, str):
            return None if choice is None else ToolChoice(choice)
        return ToolChoice("tool", choice["function"]["name"])

    # --- errors ------------------------------------------------------------------------------------------------

    def _lacks(self, what: str) -> UnsupportedParameterError:
        return UnsupportedParameterError(f"provider {self._provider!r} ({self.VENDOR}) has no {what}")
