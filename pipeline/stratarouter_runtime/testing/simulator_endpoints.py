"""What a wire shape is to the simulated provider (``Endpoint``), what all shapes share, and OpenAI's embeddings.

Answers are a function of the call alone, so that a test can tell the right answer from another request's. Other
vendors' shapes have modules of their own; ``simulator_routes`` says which path leads to which.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.plain import dataclass

CHARACTERS_PER_TOKEN = 4
"""The usual rule of thumb for English."""
PIECE_CHARACTERS = 16
"""Of an answer's text in one piece of a stream."""
MAX_PIECES = 64
"""Pieces of one answer's text: a long answer must not become thousands of timers."""
CREATED = 1_700_000_000
"""When every answer was made (epoch seconds): answers are a function of the call."""
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
    """What a call asks for: ``digest`` is the SHA-256 of its messages, ``prompt`` their text.

    ``stream`` says that the reply is wanted as server-sent events.
    """

    model: str
    prompt: str
    digest: str
    body: dict[str, Any]
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """A generated reply and the tokens it was charged for."""

    body: bytes
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call that gets an error: HTTP status, code (such as ``rate_limit_exceeded``) and the words.

    ``retry_after_s`` is the time to wait, for the shapes that say it in the body.
    """

    status: int
    code: str
    message: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One wire shape.

    Attributes:
        read: a JSON body -> the ask; what the path held in braces stands in the body by its name. Raises
            RefusedAskError.
        complete: the ask and the usual number of output tokens -> the reply.
        error: a refusal -> an error's body.
        wrong_shape: a body (or an event's data) that is JSON and not this shape.
        stream: the ask and the usual number of output tokens -> the whole event stream in the pieces in which it is
            sent, at least one (``sse_event`` writes one). None for a shape that has no stream.
    """

    read: Callable[[dict[str, Any]], Ask]
    complete: Callable[[Ask, int], Completion]
    error: Callable[[Refusal], bytes]
    wrong_shape: bytes
    stream: Callable[[Ask, int], list[bytes]] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What the simulated model says: a text, or one call of a tool (its name and arguments). ``cut`` by the limit."""

    text: str
    tool: tuple[str, dict[str, Any]] | None = None
    cut: bool = False

    @property
    def tokens(self) -> int:
        """What it is charged as."""
        return count_tokens(self.text if self.tool is None else self.tool[0] + json_text(self.tool[1]))


def expected_answer(model: str, messages: list[dict[str, Any]], output_tokens: int = 32) -> str:
    """The text the simulator answers to ``messages`` (in OpenAI's form) when no limit on tokens cuts it."""
    return answer_text(model, digest_of(messages), last_user_text(messages), output_tokens)


def count_tokens(text: str) -> int:
    """Tokens of ``text`` as the simulator charges them: at least one."""
    return max(1, len(text) // CHARACTERS_PER_TOKEN)


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value in hexadecimal, the order of keys aside."""
    return hashlib.sha256(json_bytes(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def json_text(value: Any) -> str:
    """``value`` as JSON text without spaces."""
    return json_bytes(value).decode()


def text_of(content: Any) -> str:
    """The text of a message's content, a string or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def last_user_text(messages: list[dict[str, Any]]) -> str:
    """What the user said last."""
    for message in messages[::-1]:  # not reversed(): of dicts of Any the compiler breaks off at it
        if message.get("role") == "user":
            return text_of(message.get("content"))
    return ""


def answer_text(model: str, digest: str, asked: str, output_tokens: int) -> str:
    """The answer of about ``output_tokens`` tokens to ``asked``, the last words of messages with that digest."""
    sentence = " ".join(WORDS[int(digit, 16)] for digit in digest[:6])
    text = f"[simulated {model}] {sentence} ({digest[:12]}). You asked: {asked[:ECHO_CHARACTERS]}"
    missing = output_tokens * CHARACTERS_PER_TOKEN - len(text)
    return text if missing <= 0 else text + " " + ("lorem " * (missing // 6 + 1))[: missing - 1]


def reply_within(text: str, limit: int | None) -> Reply:
    """``text`` as the reply, cut at ``limit`` tokens."""
    whole = len(text) if limit is None else limit * CHARACTERS_PER_TOKEN
    return Reply(text[:whole], cut=whole < len(text))


def value_for(schema: Any, text: str) -> Any:
    """A value that a JSON schema of the common kinds allows, with ``text`` wherever it wants a string.

    Knows ``type``, ``enum``, ``properties``, ``required`` and ``items``; a schema of another kind gets ``text``.
    """
    rules: dict[str, Any] = schema if isinstance(schema, dict) else {}
    if rules.get("enum"):
        return rules["enum"][0]
    kind = str(rules.get("type", "")).lower()
    properties: dict[str, Any] = rules.get("properties") or {}
    if kind == "object" or properties:
        wanted: list[str] = rules.get("required") or list(properties)
        return {name: value_for(properties.get(name), text) for name in wanted}
    if kind == "array":
        return [value_for(rules.get("items"), text)]
    plain: dict[str, Any] = {"integer": len(text), "number": len(text) / 2, "boolean": True, "null": None}
    return plain.get(kind, text)


def in_pieces(text: str) -> list[str]:
    """``text`` cut for a stream: words of 16 characters, longer ones where more than 64 pieces would come of it."""
    step = max(PIECE_CHARACTERS, -(-len(text) // MAX_PIECES))
    return [text[start : start + step] for start in range(0, len(text), step)]


def sse_event(data: Any, name: str | None = None) -> bytes:
    """One server-sent event: ``data`` as JSON, or as it is where it is bytes."""
    shown = data if isinstance(data, bytes) else json_bytes(data)
    return (b"" if name is None else b"event: " + name.encode() + b"\n") + b"data: " + shown + b"\n\n"


def read_model(body: dict[str, Any]) -> str:
    """The model of a call. Raises RefusedAskError."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise RefusedAskError("you must provide a model parameter")
    return model


def read_limit(body: dict[str, Any], *names: str) -> int | None:
    """The limit on output tokens under any of ``names``; the last one wins. Raises RefusedAskError."""
    limit = None
    for name in names:
        if body.get(name) is not None:
            limit = body[name]
            if not (type(limit) is int and limit >= 1):
                raise RefusedAskError(f"'{name}' must be an integer of at least 1")
    return limit


def read_embeddings(body: dict[str, Any]) -> Ask:
    """Read an embeddings call. Raises RefusedAskError."""
    model, given = read_model(body), body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise RefusedAskError("'input' must be a non-empty string or an array of them")
    dimension = body.get("dimensions", DEFAULT_DIMENSION)
    if not isinstance(dimension, int) or not 1 <= dimension <= MAX_DIMENSION:
        raise RefusedAskError(f"'dimensions' must be within 1 to {MAX_DIMENSION}")
    return Ask(model, "\n".join(texts), digest_of(texts), {**body, "input": texts, "dimensions": dimension})


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
    return Completion(json_bytes(reply), used, 0)


def openai_error(refusal: Refusal) -> bytes:
    """An error in OpenAI's shape."""
    error = {"message": refusal.message, "type": refusal.code, "param": None, "code": refusal.code}
    return json_bytes({"error": error})


def models_reply(models: tuple[str, ...]) -> bytes:
    """The list of models in OpenAI's shape."""
    data = [{"id": m, "object": "model", "created": CREATED, "owned_by": "simulator"} for m in models]
    return json_bytes({"object": "list", "data": data})


EMBEDDINGS = Endpoint(
    read_embeddings, complete_embeddings, openai_error, b'{"object": "list", "data": {"embedding": 1}}'
)
