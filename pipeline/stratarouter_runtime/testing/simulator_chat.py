"""OpenAI's chat completions as the simulated provider speaks them, whole and streamed."""

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

LIMIT_NAMES = ("max_tokens", "max_completion_tokens")


def read_chat(body: dict[str, Any]) -> Ask:
    """Read a chat completion call. Raises RefusedAskError."""
    model, messages = read_model(body), body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RefusedAskError("'messages' must be a non-empty array")
    if not all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages):
        raise RefusedAskError("every message must be an object with a role")
    stream = body.get("stream") or False
    if not isinstance(stream, bool):
        raise RefusedAskError("'stream' must be a boolean")
    if body.get("stream_options") and not stream:
        raise RefusedAskError("'stream_options' is only for streams")
    if body.get("n", 1) != 1:
        raise RefusedAskError("this server gives one choice")
    read_limit(body, *LIMIT_NAMES)
    prompt = "\n".join(text_of(m.get("content")) for m in messages)
    return Ask(model, prompt, digest_of(messages), body, stream)


def complete_chat(ask: Ask, output_tokens: int) -> Completion:
    """Answer a chat completion call.

    ``max_tokens`` or ``max_completion_tokens`` cuts the text; a ``tool_choice`` that demands a tool gets one call of
    it; a ``response_format`` of JSON gets an object, by its schema where it has one.
    """
    said = _said(ask, output_tokens)
    message: dict[str, Any] = {"role": "assistant", "content": said.text or None, "refusal": None}
    if said.tool is not None:
        message["tool_calls"] = [_tool_call(ask, said.tool)]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(said)}
    usage = _usage(ask, said)
    reply = {**_envelope(ask, "chat.completion"), "choices": [choice], "usage": usage}
    return Completion(json_bytes(reply), usage["prompt_tokens"], usage["completion_tokens"])


def stream_chat(ask: Ask, output_tokens: int) -> list[bytes]:
    """The same answer as chunks; usage comes last where ``stream_options.include_usage`` asks for it."""
    said = _said(ask, output_tokens)
    with_usage = bool((ask.body.get("stream_options") or {}).get("include_usage"))
    envelope = _envelope(ask, "chat.completion.chunk") | ({"usage": None} if with_usage else {})

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return sse_event({**envelope, "choices": [choice]})

    chunks = [chunk({"role": "assistant", "content": "" if said.tool is None else None})]
    chunks += [chunk({"content": piece}) for piece in in_pieces(said.text)]
    if said.tool is not None:
        call = _tool_call(ask, said.tool)
        arguments = call["function"]["arguments"]
        opening = {"index": 0, **call, "function": {**call["function"], "arguments": ""}}
        chunks.append(chunk({"tool_calls": [opening]}))
        chunks += [
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}) for piece in in_pieces(arguments)
        ]
    chunks.append(chunk({}, _finish_reason(said)))
    if with_usage:
        chunks.append(sse_event({**envelope, "choices": [], "usage": _usage(ask, said)}))
    return [*chunks, sse_event(b"[DONE]")]


def _said(ask: Ask, output_tokens: int) -> Reply:
    asked = last_user_text(ask.body["messages"])
    tool = _demanded_tool(ask.body)
    if tool is not None:
        return Reply("", (tool["name"], value_for(tool.get("parameters"), asked)))
    text = answer_text(ask.model, ask.digest, asked, output_tokens)
    wanted = ask.body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        text = json_text(value_for(wanted["json_schema"].get("schema"), text))
    elif wanted.get("type") == "json_object":
        text = json_text({"answer": text})
    return reply_within(text, read_limit(ask.body, *LIMIT_NAMES))


def _demanded_tool(body: dict[str, Any]) -> dict[str, Any] | None:
    """The function that ``tool_choice`` demands: the named one, or the first for ``required``."""
    functions = [tool["function"] for tool in body.get("tools") or () if tool.get("type") == "function"]
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        name = choice.get("function", {}).get("name")
        return next((each for each in functions if each["name"] == name), None)
    return functions[0] if choice == "required" and functions else None


def _tool_call(ask: Ask, tool: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    function = {"name": tool[0], "arguments": json_text(tool[1])}
    return {"id": f"call_{ask.digest[:24]}", "type": "function", "function": function}


def _finish_reason(said: Reply) -> str:
    return "tool_calls" if said.tool is not None else "length" if said.cut else "stop"


def _envelope(ask: Ask, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{ask.digest[:24]}", "object": kind, "created": CREATED, "model": ask.model}


def _usage(ask: Ask, said: Reply) -> dict[str, Any]:
    used, made = count_tokens(ask.prompt), said.tokens
    return {
        "prompt_tokens": used,
        "completion_tokens": made,
        "total_tokens": used + made,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


CHAT = Endpoint(
    read_chat, complete_chat, openai_error, b'{"object": "chat.completion", "choices": "none"}', stream_chat
)
