"""What Gemini's generateContent is asked, from our form: contents, generation settings, tools. Pure.

The wire shape is that of https://ai.google.dev/api/generate-content. What it lacks is an error, never left out.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any
from urllib.parse import urlsplit

import orjson

from stratarouter_runtime.errors import ProviderRejectedError, UnsupportedParameterError
from stratarouter_runtime.ports import ProviderCall

SETTINGS = {
    "temperature": "temperature",
    "top_p": "topP",
    "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
    "seed": "seed",
    "frequency_penalty": "frequencyPenalty",
    "presence_penalty": "presencePenalty",
}
"""Our parameters -> fields of ``generationConfig`` that mean the same."""
TRANSLATED = frozenset({"stop", "tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort"})
"""Parameters that are said in another way."""
THINKING_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
"""Tokens for thinking by effort, for Gemini 2.5, which takes no level. The vendor's own table:
https://ai.google.dev/gemini-api/docs/openai#thinking."""
THINKING_LEVELS = {level: level.upper() for level in ("minimal", "low", "medium", "high", "xhigh")}
"""For Gemini 3 and later; which of them a model takes is its own say. They cannot be told not to think."""
FOREIGN_SIGNATURE = "skip_thought_signature_validator"
"""Stands in for the thought signature of a tool call that another vendor's model made. From Gemini 3 on, the first call
of a turn without any is a 400 (https://ai.google.dev/gemini-api/docs/thought-signatures)."""

_BUDGET_MODEL = re.compile(r"(?:^|/)gemini-2\.5\b")
_OLDER_MODEL = re.compile(r"(?:^|/)gemini-(?:1|2)\b")
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,([A-Za-z0-9+/_-]+={0,2})")
_TOOL_MODES = {"none": "NONE", "auto": "AUTO", "required": "ANY"}
_MESSAGE_FIELDS = {
    "system": {"content"},
    "developer": {"content"},
    "user": {"content"},
    "assistant": {"content", "tool_calls", "refusal"},
    "tool": {"content", "tool_call_id"},
}

Json = dict[str, Any]


def request_body(call: ProviderCall, provider: str) -> Json:
    """The body for ``call``.

    Args:
        call: what is asked; a parameter of value None counts as not given.
        provider: its name in the route table, for the messages of errors.

    Raises:
        UnsupportedParameterError: a parameter or a part of a message that the wire shape lacks; the message names it.
        ProviderRejectedError: a message or parameter that is malformed.
    """
    return _Writer(call, provider).body()


class _Writer:
    """Writes one body; holds what its errors name."""

    def __init__(self, call: ProviderCall, provider: str) -> None:
        self._call = call
        self._provider = provider
        self._given = {name: value for name, value in call.params.items() if value is not None}

    def body(self) -> Json:
        unknown = sorted(self._given.keys() - SETTINGS.keys() - TRANSLATED)
        if unknown:
            raise self._lacks(f"parameter {', '.join(map(repr, unknown))}")
        turns = list(self._call.messages)
        start = next((i for i, m in enumerate(turns) if m.get("role") not in {"system", "developer"}), len(turns))
        body: Json = {"contents": self._contents(turns[start:])}
        if not body["contents"]:
            raise self._malformed("there is no message besides the system's")
        if start:
            body["systemInstruction"] = {"parts": [part for m in turns[:start] for part in self._texts(m)]}
        return body | self._tools() | self._settings()

    # --- messages ----------------------------------------------------------------------------------------------

    def _contents(self, messages: Sequence[Mapping[str, Any]]) -> list[Json]:
        """Turns of ``user`` and ``model``. Neighbours of one role are one: results of parallel calls must be."""
        said = list(self._turns(messages))
        return [
            {"role": role, "parts": [part for _, parts in group for part in parts]}
            for role, group in groupby(said, key=lambda turn: turn[0])
        ]

    def _turns(self, messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[Json]]]:
        functions: dict[str, str] = {}
        for message in messages:
            role = message.get("role")
            if role in {"system", "developer"}:
                raise self._lacks("a system message after the conversation has begun")
            if role == "user":
                self._check_fields(message, role)
                yield "user", self._parts(message)
            elif role == "assistant":
                self._check_fields(message, role)
                yield "model", self._model_parts(message, functions)
            elif role == "tool":
                self._check_fields(message, role)
                yield "user", [self._function_response(message, functions)]
            else:
                raise self._malformed(f"a message has the role {role!r}")

    def _check_fields(self, message: Mapping[str, Any], role: str) -> None:
        given = {name for name, value in message.items() if value is not None and value != []}
        unknown = sorted(given - _MESSAGE_FIELDS[role] - {"role"})
        if unknown:
            raise self._lacks(f"{', '.join(map(repr, unknown))} in a message of role {role!r}")

    def _parts(self, message: Mapping[str, Any]) -> list[Json]:
        content = message.get("content")
        if isinstance(content, str):
            return [{"text": content}]
        if not isinstance(content, list) or not content:
            raise self._malformed(f"the content of a message of role {message['role']!r} is neither text nor parts")
        return [self._part(part) for part in content]

    def _texts(self, message: Mapping[str, Any]) -> list[Json]:
        self._check_fields(message, message["role"])
        parts = self._parts(message)
        if not all("text" in part for part in parts):
            raise self._lacks(f"an image in a message of role {message['role']!r}")
        return parts

    def _part(self, part: object) -> Json:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(part, dict) and kind == "text" and isinstance(part.get("text"), str):
            return {"text": part["text"]}
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
        if url.startswith("data:"):
            found = _DATA_URL.fullmatch(url)
            if found is None:
                raise self._malformed("the data URL of an image is not data:<type>;base64,<data>")
            return {"inlineData": {"mimeType": found[1], "data": found[2]}}
        if not url.startswith("https://"):
            raise self._lacks("images by URLs other than https:// and data:")
        # The vendor fetches it: https://ai.google.dev/gemini-api/docs/file-input-methods (external URLs).
        kind = mimetypes.guess_type(urlsplit(url).path)[0]
        return {"fileData": {"fileUri": url} | ({"mimeType": kind} if kind else {})}

    def _model_parts(self, message: Mapping[str, Any], functions: dict[str, str]) -> list[Json]:
        """What the model said and called; enters the calls' ids with their functions' names into ``functions``."""
        calls = message.get("tool_calls") or []
        said = message.get("content") or message.get("refusal")
        parts = self._texts({"role": "assistant", "content": said}) if said or not calls else []
        called = [self._function_call(item) for item in calls]
        functions.update({part["functionCall"]["id"]: part["functionCall"]["name"] for part in called})
        if called and not any("thoughtSignature" in part for part in called) and self._wants_signatures():
            called[0]["thoughtSignature"] = FOREIGN_SIGNATURE
        return parts + called

    def _wants_signatures(self) -> bool:
        return _OLDER_MODEL.search(self._call.model) is None

    def _function_call(self, item: object) -> Json:
        function = item.get("function") if isinstance(item, dict) else None
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
        part: Json = {"functionCall": {"id": item["id"], "name": function["name"], "args": arguments}}
        signature = _signature_of(item)
        return part if signature is None else {**part, "thoughtSignature": signature}

    def _function_response(self, message: Mapping[str, Any], functions: Mapping[str, str]) -> Json:
        call_id = message.get("tool_call_id")
        if not isinstance(call_id, str) or call_id not in functions:
            raise self._malformed(f"a tool message answers the call {call_id!r}, which no earlier message makes")
        output = "".join(part["text"] for part in self._texts(message))
        # "output" is the key for what a function returned; any other object would be taken for one as a whole.
        response = {"id": call_id, "name": functions[call_id], "response": {"output": output}}
        return {"functionResponse": response}

    # --- parameters --------------------------------------------------------------------------------------------

    def _settings(self) -> Json:
        given = self._given
        limits = [given[name] for name in ("max_tokens", "max_completion_tokens") if name in given]
        if len(limits) == 2 and limits[0] != limits[1]:
            raise UnsupportedParameterError("'max_tokens' and 'max_completion_tokens' are one limit; they differ")
        settings = {field: given[name] for name, field in SETTINGS.items() if name in given}
        if "stop" in given:
            settings["stopSequences"] = [given["stop"]] if isinstance(given["stop"], str) else given["stop"]
        settings |= self._response_format() | self._thinking()
        return {"generationConfig": settings} if settings else {}

    def _response_format(self) -> Json:
        wanted = self._given.get("response_format", {"type": "text"})
        kind = wanted.get("type") if isinstance(wanted, dict) else None
        if kind == "text":
            return {}
        if kind == "json_object":
            return {"responseMimeType": "application/json"}
        if kind != "json_schema":
            raise self._lacks(f"'response_format' of type {kind!r}")
        described = wanted.get("json_schema")
        if not isinstance(described, dict) or not isinstance(described.get("schema"), dict):
            raise self._malformed("'response_format' has no json_schema.schema")
        # The name labels the schema in OpenAI's form; a schema that is given is always kept to, strict or not.
        unknown = sorted(described.keys() - {"name", "schema", "strict"})
        if unknown:
            raise self._lacks(f"{', '.join(map(repr, unknown))} in 'response_format'")
        return {"responseMimeType": "application/json", "responseJsonSchema": described["schema"]}

    def _thinking(self) -> Json:
        effort = self._given.get("reasoning_effort")
        if effort is None:
            return {}
        model = self._call.model
        if _BUDGET_MODEL.search(model):
            if effort in THINKING_BUDGETS:
                return {"thinkingConfig": {"thinkingBudget": THINKING_BUDGETS[effort]}}
        elif effort in THINKING_LEVELS and not _OLDER_MODEL.search(model):
            return {"thinkingConfig": {"thinkingLevel": THINKING_LEVELS[effort]}}
        raise self._lacks(f"'reasoning_effort' of {effort!r} for model {model!r}")

    def _tools(self) -> Json:
        tools = self._given.get("tools", [])
        if not isinstance(tools, list):
            raise self._malformed("'tools' is no list")
        declared = [self._declaration(tool) for tool in tools]
        if self._given.get("parallel_tool_calls") is False:
            raise self._lacks("'parallel_tool_calls' of False")
        choice = self._given.get("tool_choice")
        if not declared:
            if choice not in (None, "none", "auto"):
                raise self._malformed("'tool_choice' demands a tool, and 'tools' has none")
            return {}
        # The mode that keeps calls to their schema while the model may still answer in words.
        is_strict = any(tool["function"].get("strict") for tool in tools)
        config = self._calling_config("auto" if choice is None else choice, [each["name"] for each in declared])
        if is_strict and config["mode"] == "AUTO":
            config = {"mode": "VALIDATED"}
        body: Json = {"tools": [{"functionDeclarations": declared}]}
        if choice is not None or is_strict:
            body["toolConfig"] = {"functionCallingConfig": config}
        return body

    def _declaration(self, tool: object) -> Json:
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(tool, dict) and tool.get("type") != "function":
            raise self._lacks(f"tools of type {tool.get('type')!r}")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise self._malformed("a tool has no function with a name")
        unknown = sorted(function.keys() - {"name", "description", "parameters", "strict"})
        if unknown:
            raise self._lacks(f"{', '.join(map(repr, unknown))} in the tool {function['name']!r}")
        declared = {name: function[name] for name in ("name", "description") if function.get(name) is not None}
        if function.get("parameters") is not None:
            declared["parametersJsonSchema"] = function["parameters"]
        return declared

    def _calling_config(self, choice: object, names: list[str]) -> Json:
        if isinstance(choice, str) and choice in _TOOL_MODES:
            return {"mode": _TOOL_MODES[choice]}
        function = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
        name = function.get("name") if isinstance(function, dict) else None
        if name is None:
            raise self._lacks(f"'tool_choice' of {choice!r}")
        if name not in names:
            raise self._malformed(f"'tool_choice' demands the tool {name!r}, which 'tools' does not have")
        return {"mode": "ANY", "allowedFunctionNames": [name]}

    # --- errors ------------------------------------------------------------------------------------------------

    def _lacks(self, what: str) -> UnsupportedParameterError:
        return UnsupportedParameterError(f"provider {self._provider!r} (Gemini) has no {what}")

    def _malformed(self, what: str) -> ProviderRejectedError:
        return ProviderRejectedError(f"the call to provider {self._provider!r} is malformed: {what}")


def _signature_of(item: Mapping[str, Any]) -> str | None:
    """The thought signature of a tool call, where Google's own OpenAI-compatible endpoint puts it, too."""
    google = (item.get("extra_content") or {}).get("google")
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) and signature else None
