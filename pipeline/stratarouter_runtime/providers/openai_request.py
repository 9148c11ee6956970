"""Checks a call in our form, which is OpenAI's, so that what is malformed is told here and not by a server's 400. Pure.

What is well-formed goes on as it is: how it is said differs from wire shape to wire shape.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from stratarouter_runtime.errors import ProviderRejectedError, UnsupportedParameterError
from stratarouter_runtime.port_values import ProviderCall
from stratarouter_runtime.providers.server import Json

LIMIT_NAMES = ("max_tokens", "max_completion_tokens")
SYSTEM_ROLES = frozenset({"system", "developer"})
CHAT_PARTS: Mapping[str, frozenset[str]] = {
    "system": frozenset({"text"}),
    "developer": frozenset({"text"}),
    "user": frozenset({"text", "image_url", "input_audio", "file"}),
    "assistant": frozenset({"text", "refusal"}),
    "tool": frozenset({"text"}),
}
"""Kinds of parts that chat completions take in a message, by its role:
https://platform.openai.com/docs/api-reference/chat/create."""

DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,([A-Za-z0-9+/]+={0,2})")
"""Of an image: its type, and its bytes in base64."""


class CallCheck:
    """Checks one call; holds what its errors name.

    Args:
        provider: its name in the route table.
        parts: kinds of parts that the wire shape takes, by role.
    """

    def __init__(self, provider: str, parts: Mapping[str, frozenset[str]] = CHAT_PARTS) -> None:
        self._provider = provider
        self._parts = parts

    def check(self, call: ProviderCall) -> Json:
        """The parameters that are given (None counts as not given), once messages and parameters are well-formed.

        Raises:
            UnsupportedParameterError: a kind of part, tool, choice or format that the wire shape lacks.
            ProviderRejectedError: something malformed; the message says where.
        """
        if not call.messages:
            raise self.malformed("there are no messages")
        messages: Sequence[object] = call.messages  # as they came from outside, whatever their type says
        for index, message in enumerate(messages):
            self._message(message, f"messages[{index}]")
        given = {name: value for name, value in call.params.items() if value is not None}
        if given:
            self._tools(given)
            self._response_format(given.get("response_format"))
            if not isinstance(given.get("stop"), str | list | None):
                raise self.malformed("'stop' is neither a text nor a list of texts")
        return given

    def lacks(self, what: str) -> UnsupportedParameterError:
        """The error of a call that asks for ``what``."""
        return UnsupportedParameterError(f"provider {self._provider!r} has no {what}")

    def malformed(self, what: str) -> ProviderRejectedError:
        """The error of a call that is wrong in itself."""
        return ProviderRejectedError(f"the call to provider {self._provider!r} is malformed: {what}")

    # --- messages ----------------------------------------------------------------------------------------------

    def _message(self, message: object, where: str) -> None:
        role = message.get("role") if isinstance(message, dict) else None
        if not isinstance(message, dict) or not isinstance(role, str) or role not in self._parts:
            raise self.malformed(f"{where} has the role {role!r}, none of {', '.join(self._parts)}")
        content, calls = message.get("content"), message.get("tool_calls")
        if calls is not None:
            self._tool_calls(role, calls, where)
        if role == "tool" and not _is_name(message.get("tool_call_id")):
            raise self.malformed(f"{where} has no tool_call_id to say which call it answers")
        if isinstance(content, list) and content:
            for index, part in enumerate(content):
                self._part(role, part, f"{where}.content[{index}]")
        elif content is None and role == "assistant" and (calls or message.get("refusal")):
            return
        elif not isinstance(content, str):
            raise self.malformed(f"{where}.content is neither a text nor a list of parts")

    def _part(self, role: str, part: object, where: str) -> None:
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(part, dict) or not isinstance(kind, str):
            raise self.malformed(f"{where} is no object with a type")
        if kind not in self._parts[role]:
            raise self.lacks(f"part of type {kind!r} in a message of role {role!r} ({where})")
        if kind in {"text", "refusal"} and not isinstance(part.get(kind), str):
            raise self.malformed(f"{where} has no {kind}")
        if kind == "image_url":
            self._image(part.get("image_url"), where)

    def _image(self, image: object, where: str) -> None:
        url = image.get("url") if isinstance(image, dict) else None
        if not isinstance(url, str):
            raise self.malformed(f"{where} has no image_url.url")
        if url.startswith("data:"):
            if DATA_URL.fullmatch(url) is None:
                raise self.malformed(f"{where}: the data URL of an image is not data:<type>;base64,<data>")
        elif not url.startswith(("https://", "http://")):
            raise self.lacks(f"image by a URL other than https://, http:// and data: ({where})")

    def _tool_calls(self, role: str, calls: object, where: str) -> None:
        if role != "assistant":
            raise self.malformed(f"{where} has tool_calls, and its role is {role!r}")
        if not isinstance(calls, list):
            raise self.malformed(f"{where}.tool_calls is no list")
        for index, item in enumerate(calls):
            at = f"{where}.tool_calls[{index}]"
            function = item.get("function") if isinstance(item, dict) else None
            if isinstance(item, dict) and item.get("type", "function") != "function":
                raise self.lacks(f"tool call of type {item['type']!r} ({at})")
            if not isinstance(item, dict) or not isinstance(function, dict) or not _is_name(function.get("name")):
                raise self.malformed(f"{at} names no function")
            if not _is_name(item.get("id")):
                raise self.malformed(f"{at} has no id")
            if not isinstance(function.get("arguments"), str):
                raise self.malformed(f"{at}.function.arguments is no JSON text")

    # --- parameters --------------------------------------------------------------------------------------------

    def limit(self, given: Json) -> int | None:
        """The limit on output tokens, taken out of ``given``. Raises UnsupportedParameterError where two differ."""
        limit: int | None = token_limit(given)
        for name in LIMIT_NAMES:
            given.pop(name, None)
        return limit

    def _tools(self, given: Json) -> None:
        tools = given.get("tools", [])
        if not isinstance(tools, list):
            raise self.malformed("'tools' is no list")
        names = {self._tool_name(tool, f"tools[{index}]") for index, tool in enumerate(tools)}
        choice = given.get("tool_choice")
        if choice in (None, "none", "auto") or (choice == "required" and names):
            return
        if choice == "required":
            raise self.malformed("'tool_choice' demands a tool, and 'tools' has none")
        function = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
        name = function.get("name") if isinstance(function, dict) else None
        if not _is_name(name):
            raise self.lacks(f"'tool_choice' of {choice!r}")
        if name not in names:
            raise self.malformed(f"'tool_choice' demands the tool {name!r}, which 'tools' does not have")

    def _tool_name(self, tool: object, where: str) -> str:
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(tool, dict) and tool.get("type") != "function":
            raise self.lacks(f"tool of type {tool.get('type')!r} ({where})")
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str) or not name:
            raise self.malformed(f"{where} has no function with a name")
        if not isinstance(function.get("parameters", {}), dict | None):
            raise self.malformed(f"{where}.function.parameters is no JSON schema")
        return name

    def _response_format(self, wanted: object) -> None:
        if wanted is None:
            return
        kind = wanted.get("type") if isinstance(wanted, dict) else None
        if not isinstance(wanted, dict) or kind not in ("text", "json_object", "json_schema"):
            raise self.lacks(f"'response_format' of type {kind!r}")
        described = wanted.get("json_schema")
        if kind == "json_schema" and not (
            isinstance(described, dict)
            and _is_name(described.get("name"))
            and isinstance(described.get("schema"), dict)
        ):
            raise self.malformed("'response_format' needs json_schema.name and json_schema.schema")


def token_limit(given: Json) -> Any:
    """The most tokens of an answer; None where nothing is said of it. Raises UnsupportedParameterError: two differ."""
    limits = [given[name] for name in LIMIT_NAMES if name in given]
    if len(limits) == 2 and limits[0] != limits[1]:
        raise UnsupportedParameterError("'max_tokens' and 'max_completion_tokens' are one limit; they differ")
    return limits[0] if limits else None


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)
