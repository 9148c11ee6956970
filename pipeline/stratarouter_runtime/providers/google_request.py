"""What Gemini's generateContent is asked, from our form: contents, generation settings, tools. Pure.

The wire shape is that of https://ai.google.dev/api/generate-content. What it lacks is an error, never left out.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from stratarouter_runtime.port_values import ProviderCall
from stratarouter_runtime.providers.chat_form import ChatForm, ToolCall
from stratarouter_runtime.providers.openai_request import token_limit
from stratarouter_runtime.providers.server import Json

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

TOOL_MODES = {"none": "NONE", "auto": "AUTO", "required": "ANY", "tool": "ANY"}

_BUDGET_MODEL = re.compile(r"(?:^|/)gemini-2\.5\b")
_OLDER_MODEL = re.compile(r"(?:^|/)gemini-(?:1|2)\b")


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


class _Writer(ChatForm):
    VENDOR = "Gemini"
    ASSISTANT = "model"
    BLOCKS = "parts"

    def body(self) -> Json:
        self._check_parameters(SETTINGS.keys() | TRANSLATED)
        system, turns = self._turns()
        body: Json = {"contents": turns}
        if system:
            body["systemInstruction"] = {"parts": system}
        return body | self._tools() | self._settings()

    # --- messages ----------------------------------------------------------------------------------------------

    def _text(self, text: str) -> Json:
        return {"text": text}

    def _linked_image(self, url: str) -> Json:
        # The vendor fetches it: https://ai.google.dev/gemini-api/docs/file-input-methods (external URLs).
        kind = mimetypes.guess_type(urlsplit(url).path)[0]
        return {"fileData": {"fileUri": url} | ({"mimeType": kind} if kind else {})}

    def _inline_image(self, kind: str, data: str) -> Json:
        return {"inlineData": {"mimeType": kind, "data": data}}

    def _said_and_called(self, said: list[Json], calls: Sequence[ToolCall]) -> list[Json]:
        called = [_called(call) for call in calls]
        if called and not any("thoughtSignature" in part for part in called) and self._wants_signatures():
            called[0]["thoughtSignature"] = FOREIGN_SIGNATURE
        return said + called

    def _wants_signatures(self) -> bool:
        return _OLDER_MODEL.search(self._call.model) is None

    def _tool_result(self, call: ToolCall, message: Mapping[str, Any]) -> Json:
        output = "".join(part["text"] for part in self._blocks(message["content"]))
        # "output" is the key for what a function returned; any other object would be taken for one as a whole.
        return {"functionResponse": {"id": call.id, "name": call.name, "response": {"output": output}}}

    # --- parameters --------------------------------------------------------------------------------------------

    def _settings(self) -> Json:
        token_limit(self._given)  # both of its names have one field
        settings = {field: self._given[name] for name, field in SETTINGS.items() if name in self._given}
        stop = self._stop()
        if stop is not None:
            settings["stopSequences"] = stop
        settings |= self._response_format() | self._thinking()
        return {"generationConfig": settings} if settings else {}

    def _response_format(self) -> Json:
        kind, schema = self._format()
        if kind == "text":
            return {}
        if kind == "json_object":
            return {"responseMimeType": "application/json"}
        return {"responseMimeType": "application/json", "responseJsonSchema": schema}

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
        functions = self._functions()
        if self._given.get("parallel_tool_calls") is False:
            raise self._lacks("'parallel_tool_calls' of False")
        choice = self._choice()
        if not functions:
            return {}
        config: Json = {"mode": TOOL_MODES["auto" if choice is None else choice.mode]}
        if choice is not None and choice.name is not None:
            config["allowedFunctionNames"] = [choice.name]
        # The mode that keeps calls to their schema while the model may still answer in words.
        is_strict = any(function.get("strict") for function in functions)
        if is_strict and config["mode"] == "AUTO":
            config = {"mode": "VALIDATED"}
        body: Json = {"tools": [{"functionDeclarations": [_declared(function) for function in functions]}]}
        if choice is not None or is_strict:
            body["toolConfig"] = {"functionCallingConfig": config}
        return body


def _called(call: ToolCall) -> Json:
    part: Json = {"functionCall": {"id": call.id, "name": call.name, "args": call.arguments}}
    signature = _signature_of(call)
    return part if signature is None else {**part, "thoughtSignature": signature}


def _declared(function: Json) -> Json:
    fields = {"name": "name", "description": "description", "parameters": "parametersJsonSchema"}
    return {field: function[name] for name, field in fields.items() if name in function}


def _signature_of(call: ToolCall) -> str | None:
    """The thought signature of a tool call, where Google's own OpenAI-compatible endpoint puts it, too."""
    signature = call.carried_for("google").get("thought_signature")
    return signature if isinstance(signature, str) and signature else None
