"""OpenAI's completions as the simulated provider speaks them: one prompt or several in one call, whole and streamed."""

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
    openai_error,
    read_limit,
    read_model,
    reply_within,
    sse_event,
)

PATH = "/v1/completions"
MAX_PROMPTS = 2048


def read_completions(body: dict[str, Any]) -> Ask:
    """Read a completions call. Raises RefusedAskError."""
    model, given = read_model(body), body.get("prompt")
    prompts = [given] if isinstance(given, str) else given
    if not isinstance(prompts, list) or not 1 <= len(prompts) <= MAX_PROMPTS:
        raise RefusedAskError(f"'prompt' must be a text or an array of 1 to {MAX_PROMPTS}")
    if not all(isinstance(prompt, str) and prompt for prompt in prompts):
        raise RefusedAskError("every prompt must be a text that is not empty")
    stream = body.get("stream") or False
    if not isinstance(stream, bool):
        raise RefusedAskError("'stream' must be a boolean")
    if stream and len(prompts) > 1:
        raise RefusedAskError("this server streams one prompt at a time")
    if body.get("n", 1) != 1 or body.get("best_of", 1) != 1:
        raise RefusedAskError("this server gives one choice a prompt")
    read_limit(body, "max_tokens")
    return Ask(model, "\n".join(prompts), digest_of(prompts), {**body, "prompt": prompts}, stream)


def complete_completions(ask: Ask, output_tokens: int) -> Completion:
    """A choice for each prompt; tokens are counted for all of them together, as servers do."""
    said = [_said(ask, prompt, output_tokens) for prompt in ask.body["prompt"]]
    choices = [
        {"index": index, "text": one.text, "logprobs": None, "finish_reason": _finish(one)}
        for index, one in enumerate(said)
    ]
    usage = _usage(ask, said)
    reply = {**_envelope(ask), "choices": choices, "usage": usage}
    return Completion(json_bytes(reply), usage["prompt_tokens"], usage["completion_tokens"])


def stream_completions(ask: Ask, output_tokens: int) -> list[bytes]:
    """The same answer as chunks; usage comes last where ``stream_options.include_usage`` asks for it."""
    [prompt] = ask.body["prompt"]
    said = _said(ask, prompt, output_tokens)
    texts = [*((piece, None) for piece in in_pieces(said.text)), ("", _finish(said))]
    chunks = [
        sse_event({
            **_envelope(ask), "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish}],
        })
        for text, finish in texts
    ]  # fmt: skip
    if (ask.body.get("stream_options") or {}).get("include_usage"):
        chunks.append(sse_event({**_envelope(ask), "choices": [], "usage": _usage(ask, [said])}))
    return [*chunks, sse_event(b"[DONE]")]


def _said(ask: Ask, prompt: str, output_tokens: int) -> Reply:
    digest = digest_of([{"role": "user", "content": prompt}])
    text = answer_text(ask.model, digest, prompt, output_tokens)
    return reply_within(text, read_limit(ask.body, "max_tokens"))


def _finish(said: Reply) -> str:
    return "length" if said.cut else "stop"


def _envelope(ask: Ask) -> dict[str, Any]:
    return {"id": f"cmpl-{ask.digest[:24]}", "object": "text_completion", "created": CREATED, "model": ask.model}


def _usage(ask: Ask, said: list[Reply]) -> dict[str, int]:
    used, made = sum(count_tokens(prompt) for prompt in ask.body["prompt"]), sum(one.tokens for one in said)
    return {"prompt_tokens": used, "completion_tokens": made, "total_tokens": used + made}


COMPLETIONS = Endpoint(
    read_completions,
    complete_completions,
    openai_error,
    b'{"object": "text_completion", "choices": "none"}',
    stream_completions,
)
