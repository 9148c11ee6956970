"""Anthropic's messages as the simulated provider speaks them, whole and streamed.

A conversation of plain text has the same digest, and so the same answer, as in the form of chat completions.
"""

from __future__ import annotations

from typing import Any

from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.testing.simulator_endpoints import (
    Ask,
    Completion,
    Endpoint,
    Refusal,
    RefusedAskError,
    Reply,
    answer_text,
    count_tokens,
    digest_of,
    in_pieces,
    json_text,
    last_user_text,
    read_limit,
    read_model,
    reply_within,
    sse_event,
    text_of,
    value_for,
)

PATH = "/v1/messages"
BODY_FIELDS = frozenset({
    "max_tokens", "messages", "metadata", "model", "output_config", "service_tier", "stop_sequences", "stream",
    "system", "temperature", "thinking", "tool_choice", "tools", "top_k", "top_p",
})  # fmt: skip
"""Like the vendor, the server refuses others by name."""
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
BLOCKS = frozenset({"text", "image", "tool_use", "tool_result", "thinking", "redacted_thinking"})

Json = dict[str, Any]


def read_messages(body: Json) -> Ask:
    """Read a call. Raises RefusedAskError."""
    model = read_model(body)
    unknown = sorted(body.keys() - BODY_FIELDS)
    if unknown:
        raise RefusedAskError(f"{unknown[0]}: Extra inputs are not permitted")
    if read_limit(body, "max_tokens") is None:
        raise RefusedAskError("max_tokens: Field required")
    stream = body.get("stream") or False
    if not isinstance(stream, bool):
        raise RefusedAskError("stream: Input should be a valid boolean")
    for index, tool in enumerate(body.get("tools") or ()):
        known = isinstance(tool, dict) and isinstance(tool.get("name"), str)
        if not known or not isinstance(tool.get("input_schema"), dict):
            raise RefusedAskError(f"tools.{index}: name and input_schema are required")
    output = _object(body, "output_config")
    if _object(output, "format") and not isinstance(output["format"].get("schema"), dict):
        raise RefusedAskError("output_config.format.schema: Field required")
    _object(body, "tool_choice")
    messages = _messages(body.get("system"), body.get("messages"))
    prompt = "\n".join(text_of(m.get("content")) for m in messages)
    return Ask(model, prompt, digest_of(messages), {**body, "messages": messages}, stream)


def _object(holder: Json, name: str) -> Json:
    """What stands under ``name``, an empty object for nothing. Raises RefusedAskError for anything but an object."""
    found = holder.get(name)
    if found is not None and not isinstance(found, dict):
        raise RefusedAskError(f"{name}: Input should be an object")
    return found or {}


def _messages(system: Any, given: Any) -> list[Json]:
    """The conversation in the form of chat completions, plain text as a string. Raises RefusedAskError."""
    if not isinstance(given, list) or not given:
        raise RefusedAskError("messages: at least one message is required")
    messages: list[Json] = [] if system is None else [{"role": "system", "content": _content(system, "system")}]
    for index, message in enumerate(given):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in {"user", "assistant"}:
            raise RefusedAskError(f"messages.{index}.role: Input should be 'user' or 'assistant'")
        messages.append({"role": role, "content": _content(message.get("content"), f"messages.{index}")})
    if messages[0 if system is None else 1]["role"] != "user":
        raise RefusedAskError("messages: the first message must use the user role")
    return messages


def _content(content: Any, where: str) -> Any:
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    if not blocks or not all(isinstance(block, dict) and block.get("type") in BLOCKS for block in blocks):
        raise RefusedAskError(f"{where}.content: a string or a list of known blocks is required")
    if len(blocks) == 1 and blocks[0]["type"] == "text":
        return blocks[0].get("text")
    return blocks


def complete_messages(ask: Ask, output_tokens: int) -> Completion:
    """Answer a call.

    ``max_tokens`` cuts the text; a ``tool_choice`` that demands a tool gets one call of it; an ``output_config`` with a
    schema gets an object by it.
    """
    said = _said(ask, output_tokens)
    message = _message(ask, said) | {"content": [_block(ask, said)], "stop_reason": _stop_reason(said)}
    return Completion(json_bytes(message), count_tokens(ask.prompt), said.tokens)


def stream_messages(ask: Ask, output_tokens: int) -> list[bytes]:
    """The same answer as events."""
    said = _said(ask, output_tokens)
    block = _block(ask, said)
    if said.tool is None:
        begun: Json = {"type": "text", "text": ""}
        deltas: list[Json] = [{"type": "text_delta", "text": piece} for piece in in_pieces(said.text)]
    else:
        begun = block | {"input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": p} for p in in_pieces(json_text(block["input"]))]
    start = _message(ask, said)
    start["usage"] = start["usage"] | {"output_tokens": 1}
    events: list[Json] = [
        {"type": "message_start", "message": start | {"content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": begun},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": _stop_reason(said), "stop_sequence": None},
            "usage": {"output_tokens": said.tokens},
        },
        {"type": "message_stop"},
    ]
    return [sse_event(event, event["type"]) for event in events]


def _said(ask: Ask, output_tokens: int) -> Reply:
    asked = last_user_text(ask.body["messages"])
    tool = _demanded_tool(ask.body)
    if tool is not None:
        return Reply("", (tool["name"], value_for(tool["input_schema"], asked)))
    text = answer_text(ask.model, ask.digest, asked, output_tokens)
    wanted = (ask.body.get("output_config") or {}).get("format") or {}
    if wanted.get("type") == "json_schema":
        text = json_text(value_for(wanted["schema"], text))
    return reply_within(text, read_limit(ask.body, "max_tokens"))


def _demanded_tool(body: Json) -> Json | None:
    tools, choice = body.get("tools") or [], body.get("tool_choice") or {}
    if choice.get("type") == "tool":
        return next((tool for tool in tools if tool["name"] == choice.get("name")), None)
    return tools[0] if choice.get("type") == "any" and tools else None


def _block(ask: Ask, said: Reply) -> Json:
    if said.tool is None:
        return {"type": "text", "text": said.text}
    name, arguments = said.tool
    return {"type": "tool_use", "id": f"toolu_{ask.digest[:24]}", "name": name, "input": arguments}


def _stop_reason(said: Reply) -> str:
    if said.tool is not None:
        return "tool_use"
    return "max_tokens" if said.cut else "end_turn"


def _message(ask: Ask, said: Reply) -> Json:
    return {
        "id": f"msg_{ask.digest[:24]}",
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": count_tokens(ask.prompt),
            "output_tokens": said.tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        },
    }


def anthropic_error(refusal: Refusal) -> bytes:
    """An error in Anthropic's shape."""
    kind = ERROR_TYPES.get(refusal.status, "api_error")
    return json_bytes({"type": "error", "error": {"type": kind, "message": refusal.message}})


MESSAGES = Endpoint(
    read_messages, complete_messages, anthropic_error, b'{"type": "message", "content": "none"}', stream_messages
)
