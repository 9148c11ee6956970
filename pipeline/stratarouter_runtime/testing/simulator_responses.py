"""OpenAI's responses as the simulated provider speaks them, whole and streamed.

A conversation has the same digest, and so the same answer, as in the form of chat completions: ``expected_answer``
holds (``instructions`` stand for a first message of role ``system``).
"""

from __future__ import annotations

from typing import Any

from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.testing.simulator_endpoints import (
    CREATED,
    Ask,
    Completion,
    Endpoint,
    RefusedAskError,
    Reply,
    answer_text,
    count_tokens,
    digest_of,
    in_pieces,
    json_text,
    last_user_text,
    openai_error,
    read_limit,
    read_model,
    reply_within,
    sse_event,
    text_of,
    value_for,
)

PATH = "/v1/responses"
BODY_FIELDS = frozenset({
    "include", "input", "instructions", "max_output_tokens", "metadata", "model", "parallel_tool_calls",
    "prompt_cache_key", "reasoning", "safety_identifier", "store", "stream", "stream_options", "temperature", "text",
    "tool_choice", "tools", "top_p", "truncation", "user",
})  # fmt: skip
"""Parameters that need nothing kept between calls; like the vendor, others are refused by name."""
MIN_OUTPUT_TOKENS = 16
"""The vendor refuses a smaller limit."""
ROLES = frozenset({"user", "assistant", "system", "developer"})

Json = dict[str, Any]


def read_responses(body: Json) -> Ask:
    """Read a call. Raises RefusedAskError."""
    model = read_model(body)
    unknown = sorted(body.keys() - BODY_FIELDS)
    if unknown:
        raise RefusedAskError(f"Unknown parameter: '{unknown[0]}'.")
    limit = read_limit(body, "max_output_tokens")
    if limit is not None and limit < MIN_OUTPUT_TOKENS:
        raise RefusedAskError(f"Invalid 'max_output_tokens': expected a value >= {MIN_OUTPUT_TOKENS}, got {limit}")
    stream = body.get("stream") or False
    if not isinstance(stream, bool):
        raise RefusedAskError("'stream' must be a boolean")
    for index, tool in enumerate(body.get("tools") or ()):
        if tool.get("type") == "function" and not isinstance(tool.get("name"), str):
            raise RefusedAskError(f"Missing required parameter: 'tools[{index}].name'.")
    wanted = (body.get("text") or {}).get("format") or {}
    if wanted.get("type") == "json_schema" and not (wanted.get("name") and wanted.get("schema")):
        raise RefusedAskError("Missing required parameter: 'text.format.name' or 'text.format.schema'.")
    messages = _messages(body.get("instructions"), body.get("input"))
    prompt = "\n".join(text_of(m.get("content")) for m in messages)
    return Ask(model, prompt, digest_of(messages), {**body, "messages": messages}, stream)


def complete_responses(ask: Ask, output_tokens: int) -> Completion:
    """Answer a call.

    ``max_output_tokens`` cuts the text; a ``tool_choice`` that demands a tool gets one call of it; a ``text.format`` of
    JSON gets an object, by its schema where it has one.
    """
    said = _said(ask, output_tokens)
    reply = _response(ask, _item(ask, said), "incomplete" if said.cut else "completed", said)
    return Completion(json_bytes(reply), reply["usage"]["input_tokens"], reply["usage"]["output_tokens"])


def stream_responses(ask: Ask, output_tokens: int) -> list[bytes]:
    """The same answer as events; the last one holds the whole response."""
    said = _said(ask, output_tokens)
    item = _item(ask, said)
    end = "incomplete" if said.cut else "completed"
    events: list[Json] = [
        {"type": "response.created", "response": _response(ask, None, "in_progress")},
        {"type": "response.in_progress", "response": _response(ask, None, "in_progress")},
        *(_text_events(item, said.text) if said.tool is None else _call_events(item)),
        {"type": f"response.{end}", "response": _response(ask, item, end, said)},
    ]
    return [sse_event({**event, "sequence_number": n}, event["type"]) for n, event in enumerate(events)]


def _text_events(item: Json, text: str) -> list[Json]:
    at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    part = item["content"][0]
    return [
        {"type": "response.output_item.added", "output_index": 0, "item": _begun(item) | {"content": []}},
        {"type": "response.content_part.added", **at, "part": part | {"text": ""}},
        *({"type": "response.output_text.delta", **at, "delta": each, "logprobs": []} for each in in_pieces(text)),
        {"type": "response.output_text.done", **at, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **at, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
    ]


def _call_events(item: Json) -> list[Json]:
    at = {"item_id": item["id"], "output_index": 0}
    arguments = item["arguments"]
    return [
        {"type": "response.output_item.added", "output_index": 0, "item": _begun(item) | {"arguments": ""}},
        *({"type": "response.function_call_arguments.delta", **at, "delta": each} for each in in_pieces(arguments)),
        {"type": "response.function_call_arguments.done", **at, "name": item["name"], "arguments": arguments},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
    ]


def _begun(item: Json) -> Json:
    return item | {"status": "in_progress"}


def _messages(instructions: Any, given: Any) -> list[Json]:
    """The conversation in the form of chat completions. Raises RefusedAskError."""
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise RefusedAskError("'input' must be a string or a non-empty array of objects")
    messages: list[Json] = [] if instructions is None else [{"role": "system", "content": instructions}]
    for index, item in enumerate(items):
        kind = item.get("type", "message")
        if kind == "message" and item.get("role") in ROLES:
            messages.append({"role": item["role"], "content": _content(item.get("content"), f"input[{index}]")})
        elif kind == "function_call":
            _add_call(messages, item)
        elif kind == "function_call_output":
            output = _content(item.get("output"), f"input[{index}]")
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": output})
        elif kind != "reasoning":
            raise RefusedAskError(f"Invalid value: 'input[{index}]' is no item that this server takes")
    return messages


def _add_call(messages: list[Json], item: Json) -> None:
    function = {"name": item.get("name"), "arguments": item.get("arguments")}
    if not all(isinstance(value, str) for value in (item.get("call_id"), *function.values())):
        raise RefusedAskError("a function_call needs call_id, name and arguments")
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    call = {"id": item["call_id"], "type": "function", "function": function}
    messages[-1].setdefault("tool_calls", []).append(call)


def _content(content: Any, where: str) -> Any:
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise RefusedAskError(f"Invalid type for '{where}': a string or an array of parts is wanted")
    return [_part(part, where) for part in content]


def _part(part: Any, where: str) -> Json:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("input_text", "output_text") and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        return {"type": "image_url", "image_url": {"url": part["image_url"], "detail": part.get("detail", "auto")}}
    raise RefusedAskError(f"Invalid value in '{where}': a part of type {kind!r} is not taken")


def _said(ask: Ask, output_tokens: int) -> Reply:
    asked = last_user_text(ask.body["messages"])
    tool = _demanded_tool(ask.body)
    if tool is not None:
        return Reply("", (tool["name"], value_for(tool.get("parameters"), asked)))
    text = answer_text(ask.model, ask.digest, asked, output_tokens)
    wanted = (ask.body.get("text") or {}).get("format") or {}
    if wanted.get("type") == "json_schema":
        text = json_text(value_for(wanted["schema"], text))
    elif wanted.get("type") == "json_object":
        text = json_text({"answer": text})
    return reply_within(text, read_limit(ask.body, "max_output_tokens"))


def _demanded_tool(body: Json) -> Json | None:
    functions = [tool for tool in body.get("tools") or () if tool.get("type") == "function"]
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        return next((each for each in functions if each["name"] == choice.get("name")), None)
    return functions[0] if choice == "required" and functions else None


def _item(ask: Ask, said: Reply) -> Json:
    status = "incomplete" if said.cut else "completed"
    if said.tool is None:
        part = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}
        message = {"type": "message", "id": f"msg_{ask.digest[:24]}", "role": "assistant", "content": [part]}
        return message | {"status": status}
    name, arguments = said.tool
    call = {"type": "function_call", "id": f"fc_{ask.digest[:24]}", "call_id": f"call_{ask.digest[:24]}"}
    return call | {"name": name, "arguments": json_text(arguments), "status": status}


def _response(ask: Ask, item: Json | None, status: str, said: Reply | None = None) -> Json:
    """The response as it stands: begun (no item), or done with ``item``."""
    body = ask.body
    return {
        "id": f"resp_{ask.digest[:24]}",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": ask.model,
        "output": [] if item is None else [item],
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "store": body.get("store", True),
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools") or [],
        "top_p": body.get("top_p", 1.0),
        "usage": None if said is None else _usage(ask, said),
    }


def _usage(ask: Ask, said: Reply) -> Json:
    used, made = count_tokens(ask.prompt), said.tokens
    return {
        "input_tokens": used,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": used + made,
    }


RESPONSES = Endpoint(
    read_responses, complete_responses, openai_error, b'{"object": "response", "output": "none"}', stream_responses
)
