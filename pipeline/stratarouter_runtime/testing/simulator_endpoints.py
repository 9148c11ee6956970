"""The wire shapes a simulated provider speaks, one ``Endpoint`` each: how to read a call and how to answer it.

Answers are a function of the call alone, so that a test can tell the right answer from another request's. Further
vendors' shapes are further rows of ``ENDPOINTS``.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

CHARACTERS_PER_TOKEN = 4
"""The usual rule of thumb for English."""
ECHO_CHARACTERS = 120
"""How much of the last user message stands in the answer."""
DEFAULT_DIMENSION = 384
MAX_DIMENSION = 4096
WORDS = ("amber", "basalt", "cedar", "delta", "ember", "fjord", "garnet", "harbor", "indigo", "juniper", "kelp",
         "lumen", "maple", "nectar", "onyx", "pebble")  # fmt: skip
"""Sixteen words: one per hexadecimal digit of the digest."""


class RefusedAskError(Exception):
    """The call is malformed: answered with 400 and this message, unpaid."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a call asks for: ``digest`` is the SHA-256 of its messages, ``prompt`` their text."""

    model: str
    prompt: str
    digest: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Completion:
    """A generated reply and the tokens it was charged for."""

    body: bytes
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One wire shape.

    Attributes:
        read: a JSON body -> the ask. Raises RefusedAskError.
        complete: the ask and the usual number of output tokens -> the reply.
        error: message and code -> an error's body.
        wrong_shape: a body that is JSON and not this shape.
    """

    read: Callable[[dict[str, Any]], Ask]
    complete: Callable[[Ask, int], Completion]
    error: Callable[[str, str], bytes]
    wrong_shape: bytes


def expected_answer(model: str, messages: list[dict[str, Any]], output_tokens: int = 32) -> str:
    """The text the simulator answers to ``messages`` when no ``max_tokens`` cuts it."""
    return _answer_text(model, _digest(messages), _last_user_text(messages), output_tokens)


def count_tokens(text: str) -> int:
    """Tokens of ``text`` as the simulator charges them: at least one."""
    return max(1, len(text) // CHARACTERS_PER_TOKEN)


def _digest(value: Any) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def _last_user_text(messages: list[dict[str, Any]]) -> str:
    return next((_text_of(m.get("content")) for m in reversed(messages) if m.get("role") == "user"), "")


def _answer_text(model: str, digest: str, asked: str, output_tokens: int) -> str:
    sentence = " ".join(WORDS[int(digit, 16)] for digit in digest[:6])
    text = f"[simulated {model}] {sentence} ({digest[:12]}). You asked: {asked[:ECHO_CHARACTERS]}"
    missing = output_tokens * CHARACTERS_PER_TOKEN - len(text)
    return text if missing <= 0 else text + " " + ("lorem " * (missing // 6 + 1))[: missing - 1]


def _read_model(body: dict[str, Any]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise RefusedAskError("you must provide a model parameter")
    return model


def read_chat(body: dict[str, Any]) -> Ask:
    """Read a chat completion call. Raises RefusedAskError."""
    model, messages = _read_model(body), body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RefusedAskError("'messages' must be a non-empty array")
    if not all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages):
        raise RefusedAskError("every message must be an object with a role")
    if body.get("stream") or body.get("n", 1) != 1:
        raise RefusedAskError("this server does not stream and gives one choice")
    for name in ("max_tokens", "max_completion_tokens"):
        if name in body and not (type(body[name]) is int and body[name] >= 1):
            raise RefusedAskError(f"'{name}' must be an integer of at least 1")
    prompt = "\n".join(_text_of(m.get("content")) for m in messages)
    return Ask(model, prompt, _digest(messages), body)


def complete_chat(ask: Ask, output_tokens: int) -> Completion:
    """Answer a chat completion call; ``max_tokens`` or ``max_completion_tokens`` cuts the text."""
    text = _answer_text(ask.model, ask.digest, _last_user_text(ask.body["messages"]), output_tokens)
    limit: int | None = ask.body.get("max_completion_tokens", ask.body.get("max_tokens"))
    whole = text
    if limit is not None:
        text = whole[: limit * CHARACTERS_PER_TOKEN]
    cut = len(text) < len(whole)
    used, made = count_tokens(ask.prompt), count_tokens(text)
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None,
        "finish_reason": "length" if cut else "stop",
    }
    reply = {
        "id": f"chatcmpl-{ask.digest[:24]}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": ask.model,
        "choices": [choice],
        "usage": {
            "prompt_tokens": used,
            "completion_tokens": made,
            "total_tokens": used + made,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }
    return Completion(orjson.dumps(reply), used, made)


def read_embeddings(body: dict[str, Any]) -> Ask:
    """Read an embeddings call. Raises RefusedAskError."""
    model, given = _read_model(body), body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise RefusedAskError("'input' must be a non-empty string or an array of them")
    dimension = body.get("dimensions", DEFAULT_DIMENSION)
    if not isinstance(dimension, int) or not 1 <= dimension <= MAX_DIMENSION:
        raise RefusedAskError(f"'dimensions' must be within 1 to {MAX_DIMENSION}")
    return Ask(model, "\n".join(texts), _digest(texts), {**body, "input": texts, "dimensions": dimension})


def embed(text: str, dimension: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A unit vector, float32[dimension], that is a function of ``text`` and says nothing of its meaning."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    vector = np.random.default_rng(seed).standard_normal(dimension, dtype=np.float32)
    return vector / np.float32(np.linalg.norm(vector))


def complete_embeddings(ask: Ask, output_tokens: int) -> Completion:
    """Answer an embeddings call, as numbers or as base64 of little-endian float32."""
    del output_tokens
    as_base64 = ask.body.get("encoding_format") == "base64"
    data = []
    for index, text in enumerate(ask.body["input"]):
        vector = embed(text, ask.body["dimensions"])
        shown: Any = base64.b64encode(vector.astype("<f4").tobytes()).decode() if as_base64 else vector.tolist()
        data.append({"object": "embedding", "index": index, "embedding": shown})
    used = count_tokens(ask.prompt)
    usage = {"prompt_tokens": used, "total_tokens": used}
    reply = {"object": "list", "model": ask.model, "data": data, "usage": usage}
    return Completion(orjson.dumps(reply), used, 0)


def openai_error(message: str, code: str) -> bytes:
    """An error in OpenAI's shape."""
    return orjson.dumps({"error": {"message": message, "type": code, "param": None, "code": code}})


def models_reply(models: tuple[str, ...]) -> bytes:
    """The list of models in OpenAI's shape."""
    data = [{"id": m, "object": "model", "created": 1_700_000_000, "owned_by": "simulator"} for m in models]
    return orjson.dumps({"object": "list", "data": data})


ENDPOINTS: dict[tuple[str, str], Endpoint] = {
    ("POST", "/v1/chat/completions"): Endpoint(
        read_chat, complete_chat, openai_error, b'{"object": "chat.completion", "choices": "none"}'
    ),
    ("POST", "/v1/embeddings"): Endpoint(
        read_embeddings, complete_embeddings, openai_error, b'{"object": "list", "data": {"embedding": 1}}'
    ),
}
