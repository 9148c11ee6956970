"""Gemini's generateContent as the simulated provider speaks it, whole and streamed.

A conversation of texts has the same digest, and so the same answer, as in OpenAI's form: ``expected_answer`` holds.
"""

from __future__ import annotations

import re
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
    reply_within,
    sse_event,
    text_of,
    value_for,
)

STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""Names of the vendor's errors by HTTP status: https://ai.google.dev/gemini-api/docs/troubleshooting."""
BODY_FIELDS = frozenset({"contents", "systemInstruction", "generationConfig", "tools", "toolConfig", "safetySettings"})
SETTINGS = frozenset({
    "temperature", "topP", "topK", "maxOutputTokens", "stopSequences", "seed", "frequencyPenalty", "presencePenalty",
    "candidateCount", "responseMimeType", "responseSchema", "responseJsonSchema", "thinkingConfig",
})  # fmt: skip
FREE_FORM = frozenset(
    {"parametersJsonSchema", "parameters", "responseJsonSchema", "responseSchema", "args", "response"}
)
"""Fields whose values are the caller's own JSON."""
NAMED_BY_URL = frozenset({"model", "alt", "key"})
"""What the path and the query say beside the body."""


def read_generate(body: dict[str, Any]) -> Ask:
    """Read a call for a whole reply. Like the vendor, refuses fields that it does not know. Raises RefusedAskError."""
    body = camel_case(body)
    _refuse_unknown(body, BODY_FIELDS | NAMED_BY_URL, "")
    if "key" in body:
        raise RefusedAskError("send the key as x-goog-api-key: one in the URL ends in logs")
    settings = body.get("generationConfig") or {}
    _refuse_unknown(settings, SETTINGS, " at 'generation_config'")
    if settings.get("candidateCount", 1) != 1:
        raise RefusedAskError("this server gives one candidate")
    read_limit(settings, "maxOutputTokens")
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents:
        raise RefusedAskError("contents is not specified")
    messages = _messages(body.get("systemInstruction"), contents)
    prompt = "\n".join(text_of(m["content"]) for m in messages)
    return Ask(body["model"], prompt, digest_of(messages), {**body, "messages": messages})


def read_stream(body: dict[str, Any]) -> Ask:
    """Read a call for a stream of events. Raises RefusedAskError."""
    if body.get("alt") != "sse":
        raise RefusedAskError("this server streams server-sent events only: ask for alt=sse")
    ask = read_generate(body)
    return Ask(ask.model, ask.prompt, ask.digest, ask.body, stream=True)


def complete_generate(ask: Ask, output_tokens: int) -> Completion:
    """Answer a call.

    ``maxOutputTokens`` cuts the text; calling mode ANY gets one call of the first function that it allows; a response
    type of JSON gets an object, by its schema where it has one.
    """
    said = _said(ask, output_tokens)
    parts = [{"text": said.text}] if said.tool is None else [_call_part(ask, said.tool)]
    usage = _usage(ask, said)
    reply = _body(ask, parts, said.cut, usage)
    return Completion(json_bytes(reply), usage["promptTokenCount"], usage["candidatesTokenCount"])


def stream_generate(ask: Ask, output_tokens: int) -> list[bytes]:
    """The same answer as events, each a reply with the next part; the last one ends it and has the usage."""
    said = _said(ask, output_tokens)
    pieces = in_pieces(said.text) if said.tool is None else []
    parts = [{"text": piece} for piece in pieces] if said.tool is None else [_call_part(ask, said.tool)]
    usage = _usage(ask, said)
    return [*(sse_event(_body(ask, [part])) for part in parts), sse_event(_body(ask, [{"text": ""}], said.cut, usage))]


def google_error(refusal: Refusal) -> bytes:
    """An error in Google's shape. A time to wait stands in its details."""
    status = STATUSES.get(refusal.status, "UNKNOWN")
    error: dict[str, Any] = {"code": refusal.status, "message": refusal.message, "status": status}
    if refusal.retry_after_s is not None:
        delay = f"{refusal.retry_after_s:g}s"
        error["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]
    return json_bytes({"error": error})


def camel_case(value: Any) -> Any:
    """``value`` with its fields' names as ``likeThis``, the caller's own JSON left alone.

    Protocol buffers take names ``like_this`` as well, and the vendor's client sends some of them.
    """
    if isinstance(value, list):
        return [camel_case(each) for each in value]
    if not isinstance(value, dict):
        return value
    named = {re.sub(r"_([a-z])", lambda found: found[1].upper(), name): each for name, each in value.items()}
    return {name: each if name in FREE_FORM else camel_case(each) for name, each in named.items()}


def _refuse_unknown(given: dict[str, Any], known: frozenset[str], where: str) -> None:
    unknown = sorted(given.keys() - known)
    if unknown:
        raise RefusedAskError(f'Invalid JSON payload received. Unknown name "{unknown[0]}"{where}: Cannot find field.')


def _messages(system: Any, contents: list[Any]) -> list[dict[str, Any]]:
    """The conversation in OpenAI's form as far as it is text; a turn with other parts keeps them as they are."""
    turns = [{"role": "user", **each} if isinstance(each, dict) else {} for each in contents]
    if not all(isinstance(turn.get("parts"), list) and turn["parts"] for turn in turns):
        raise RefusedAskError("every content must be an object with parts")
    roles = {"user": "user", "model": "assistant"}
    if not all(turn["role"] in roles for turn in turns):
        raise RefusedAskError("Please use a valid role: user, model.")
    said = [{"role": roles[turn["role"]], "content": _content(turn["parts"])} for turn in turns]
    return [{"role": "system", "content": _content(system["parts"])}, *said] if system else said


def _content(parts: list[dict[str, Any]]) -> Any:
    only_text = len(parts) == 1 and set(parts[0]) == {"text"}
    return parts[0]["text"] if only_text else parts


def _said(ask: Ask, output_tokens: int) -> Reply:
    asked = last_user_text(ask.body["messages"])
    function = _demanded_function(ask.body)
    if function is not None:
        schema = function.get("parametersJsonSchema", function.get("parameters"))
        return Reply("", (function["name"], value_for(schema, asked) if schema else {}))
    text = answer_text(ask.model, ask.digest, asked, output_tokens)
    settings = ask.body.get("generationConfig") or {}
    if settings.get("responseMimeType") == "application/json":
        schema = settings.get("responseJsonSchema", settings.get("responseSchema"))
        text = json_text(value_for(schema, text) if schema else {"answer": text})
    return reply_within(text, read_limit(settings, "maxOutputTokens"))


def _demanded_function(body: dict[str, Any]) -> dict[str, Any] | None:
    config = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
    if config.get("mode") != "ANY":
        return None
    functions = [each for tool in body.get("tools") or () for each in tool.get("functionDeclarations", ())]
    allowed = config.get("allowedFunctionNames") or [each["name"] for each in functions]
    return next((each for each in functions if each["name"] in allowed), None)


def _call_part(ask: Ask, tool: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    call = {"id": f"call_{ask.digest[:8]}", "name": tool[0], "args": tool[1]}
    return {"functionCall": call, "thoughtSignature": ask.digest}


def _body(
    ask: Ask, parts: list[dict[str, Any]], cut: bool | None = None, usage: dict[str, Any] | None = None
) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if cut is not None:
        candidate["finishReason"] = "MAX_TOKENS" if cut else "STOP"
    counted = {} if usage is None else {"usageMetadata": usage}
    return {"candidates": [candidate], **counted, "modelVersion": ask.model, "responseId": ask.digest[:24]}


def _usage(ask: Ask, said: Reply) -> dict[str, Any]:
    used, made = count_tokens(ask.prompt), said.tokens
    return {"promptTokenCount": used, "candidatesTokenCount": made, "totalTokenCount": used + made}


_WRONG_SHAPE = b'{"candidates": "none"}'
_GENERATE = Endpoint(read_generate, complete_generate, google_error, _WRONG_SHAPE)
_STREAM = Endpoint(read_stream, complete_generate, google_error, _WRONG_SHAPE, stream_generate)
GOOGLE: dict[str, Endpoint] = {
    f"/{version}/models/{{model}}:{method}": endpoint
    for version in ("v1beta", "v1")
    for method, endpoint in (("generateContent", _GENERATE), ("streamGenerateContent", _STREAM))
}
"""Paths and what they lead to: the vendor's newest client says ``v1``, older ones and most others ``v1beta``."""
