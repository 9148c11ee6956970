"""A request as its caller gave it, on its way to one validation for every way in."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from stratarouter_runtime.decisions import to_decision
from stratarouter_runtime.errors import DeadlineExceededError, SchemaViolationError
from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.plain import dataclass
from stratarouter_runtime.records import Decision
from stratarouter_runtime.validation import rfc3339, shown

MAX_WORDS_CHARS = 1_000
"""Of a question and its context. Longer questions hardly come again in the same words."""
_PLAIN = ("query", "request_id", "decision", "context")
"""The fields of a request that says nothing out of the ordinary."""
ID_REMEDY = "pass request_id= as a string of 1 to 256 characters, or leave it out for a new one"
CONTEXT_REMEDY = "pass context= as a mapping, as {'tenant': 'acme', 'user_id': 'u1'}, or leave it out"
VECTOR_REMEDY = "pass embedding= as an array or a list of numbers, shape (dimension,), or leave it out"
QUERY_PLACES = "pass query= or messages=, or put 'query' or 'messages' into context or the decision"


class Words(NamedTuple):
    """A question in plain words; ``mode`` is the cache's, "" where nothing is said of it."""

    route_id: str
    query: str
    tenant: str
    mode: str


@dataclass(frozen=True, slots=True)
class Draft:
    """One request, not validated yet.

    Attributes:
        request_id: the caller's, or a new one.
        made_up: whether the id is new, so that nobody can ask for it again.
        fields: everything else, as the record has it.
        vector: the query's vector, shape (dimension,), where the caller gave an array.
    """

    request_id: str
    made_up: bool
    fields: dict[str, Any]
    vector: NDArray[np.float32] | None

    @classmethod
    def of(cls, decision: object, context: Mapping[str, Any] | None, request_id: object, given: dict[str, Any]) -> Self:
        """From the arguments of ``execute``. Raises SchemaViolationError, and DecisionError for a decision that is
        none.
        """
        around = {} if context is None else _around(context, given)
        decision = _text(decision) if isinstance(decision, str) else _without_words(decision, given)
        if given["query"] is None and given["messages"] is None:
            raise SchemaViolationError("the request has neither a query nor messages", remedy=QUERY_PLACES)
        fields = {name: value for name, value in given.items() if value is not None}
        vector = None
        # Text is taken to be the record's own form of a vector already.
        if not isinstance(fields.get("embedding", ""), str):
            vector = _vector(fields.pop("embedding"))
        if request_id is not None and not isinstance(request_id, str):
            raise SchemaViolationError(f"request_id = {shown(request_id)}: must be a string", remedy=ID_REMEDY)
        known = _text(request_id) if request_id else _new_id()
        fields["request_id"] = known
        fields["decision"] = decision if type(decision) is str else _decision(to_decision(decision))
        fields["context"] = around
        return cls(known, not request_id, fields, vector)

    @property
    def words(self) -> Words | None:
        """What two requests share that differ in their id, vector and context alone.

        None for a request that says more, or in another form.
        """
        fields, query, decision = self.fields, self.fields.get("query"), self.fields["decision"]
        mode: object = ""
        if "cache" in fields:
            cache = fields["cache"]
            mode = (cache.get("mode") or None) if type(cache) is dict and len(cache) == 1 else None
        if len(fields) != len(_PLAIN) + ("cache" in fields) or type(query) is not str or type(decision) is not str:
            return None
        room = MAX_WORDS_CHARS - len(query)
        for name, value in fields["context"].items():
            # Half a surrogate pair is not printable: it cannot be written as JSON, which is then said. Nor can a name
            # that is no text.
            if type(name) is not str or type(value) is not str or not value.isprintable():
                return None
            room -= len(value)
        if room < 0 or type(mode) is not str:
            return None
        return Words(decision, query, fields["context"].get("tenant", ""), mode)

    def record(self, deadline_ms: int | None = None) -> bytes:
        """The whole request as a record's value; nothing is done for it after ``deadline_ms`` (epoch milliseconds).

        Raises SchemaViolationError.
        """
        more: dict[str, Any] = {}
        if deadline_ms is not None:
            more["deadline"] = rfc3339(deadline_ms)
        if self.vector is not None:
            more["embedding"] = base64.b64encode(self.vector.tobytes()).decode()
        return _json(self.fields | more)

    def late(self, bound_s: float) -> DeadlineExceededError:
        """The error for a caller that waited ``bound_s`` seconds."""
        return DeadlineExceededError(f"no answer to {self.request_id!r} within {bound_s} s")

    def body(self) -> bytes:
        """As ``record``, without the vector, which need not be written to be read in the same process."""
        return _json(self.fields)


def _around(context: Mapping[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What is left of ``context`` when the arguments of ``execute`` that stand in it have gone into ``given``."""
    if type(context) is not dict and not isinstance(context, Mapping):
        raise SchemaViolationError(f"context = {shown(context)}: must be a mapping", remedy=CONTEXT_REMEDY)
    around = dict(context)
    for name in ("query", "messages", "embedding"):
        found = around.pop(name, None)
        if given[name] is None:
            given[name] = found
    for ours, theirs in (("user", "user_id"), ("session", "session_id")):
        if theirs in around:
            around.setdefault(ours, around.pop(theirs))
    return around


def _without_words(decision: object, given: dict[str, Any]) -> object:
    """``decision`` without what it says of the question itself, which fills in what nobody else said."""
    said = {
        name: decision.get(name) if isinstance(decision, Mapping) else getattr(decision, name, None)
        for name in ("query", "messages", "embedding")
    }
    if given["query"] is None and given["messages"] is None:
        given["query"], given["messages"] = said["query"], said["messages"]
    if given["embedding"] is None:
        given["embedding"] = said["embedding"]
    if not isinstance(decision, Mapping):
        return decision
    return {name: value for name, value in decision.items() if name not in said}


def _text(text: str) -> str:
    """``text`` as plain text, as a numpy array's or an enumeration's is not."""
    return text if type(text) is str else str.__str__(text)


def _new_id() -> str:
    """A random UUID (version 4), at a quarter of the price of ``str(uuid.uuid4())``."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def _json(fields: dict[str, Any]) -> bytes:
    try:
        return json_bytes(fields)
    except TypeError as exc:
        raise SchemaViolationError(f"the request cannot be written as JSON: {exc}") from exc


def _decision(decision: Decision) -> dict[str, Any] | str:
    """As the record has it: an object, or the route's id where nothing else was decided."""
    fields = {
        "route_id": decision.route_id,
        "confidence": decision.confidence,
        "scores": decision.scores or None,
        "provider": decision.provider,
        "model": decision.model,
    }
    said = {name: value for name, value in fields.items() if value is not None}
    return said if len(said) > 1 else decision.route_id


def _vector(embedding: object) -> NDArray[np.float32]:
    """Any array, flat, as little-endian float32; a copy, because the caller could still change it."""
    try:
        return np.array(embedding, dtype="<f4").ravel()
    except (TypeError, ValueError, OverflowError) as exc:
        raise SchemaViolationError(f"embedding is not a vector of numbers: {exc}", remedy=VECTOR_REMEDY) from exc
