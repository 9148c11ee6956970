"""Turns what a router returned into a Decision: Core's results by their attributes, so that Core need not be there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stratarouter_runtime import validation as check
from stratarouter_runtime.errors import SchemaViolationError
from stratarouter_runtime.records import Decision
from stratarouter_runtime.wire import decision_from

ROUNDING = 1e-6
"""How far a float32 confidence may lie outside 0 to 1 and still be rounding."""
ACCEPTED = "Core's RouteResult or RouteChoice, its raw dict, a Decision, a dict with route_id, or a route id"

_RESULT_FIELDS = ("route_id", "confidence", "scores", "alternatives", "provider", "model")
_CHOICE_FIELDS = ("name", "score", "threshold")


def to_decision(found: object) -> Decision:
    """A Decision from Core's ``RouteResult``, ``RouteChoice`` or raw dict, a dict of our form, or a route id.

    Raises SchemaViolationError where no route matched, a value is wrong, or ``found`` is something else.
    """
    if isinstance(found, str):
        return decision_from(_unwrapped(found), "decision")
    if isinstance(found, Mapping):
        return _from_mapping(found)
    if hasattr(found, "route_id"):
        fields = {name: getattr(found, name, None) for name in _RESULT_FIELDS}
        return decision_from(_plain(fields), "decision")
    if all(hasattr(found, name) for name in _CHOICE_FIELDS):
        return _from_choice({name: getattr(found, name) for name in _CHOICE_FIELDS}, matched=bool(found))
    raise SchemaViolationError(f"decision is {check.shown(found)}, a {type(found).__name__}", remedy=f"pass {ACCEPTED}")


def _from_mapping(found: Mapping[Any, Any]) -> Decision:
    if "route_id" not in found and "name" in found and "score" in found:
        score, threshold = (_unwrapped(found.get(name)) for name in ("score", "threshold"))
        known = isinstance(score, float | int) and isinstance(threshold, float | int)
        return _from_choice(found, matched=found["name"] is not None and (not known or score >= threshold))
    return decision_from(_plain(found), "decision")


def _from_choice(choice: Mapping[Any, Any], *, matched: bool) -> Decision:
    if not matched or choice["name"] is None:
        raise SchemaViolationError(
            f"decision.name = {check.shown(choice['name'])}: no route matched "
            f"(score {check.shown(choice['score'])}, threshold {check.shown(choice.get('threshold'))})",
            remedy="route again, or choose a route yourself and pass its id",
        )
    score = check.number(_unwrapped(choice["score"]), "decision.score")
    # A cosine may be negative; as a confidence that is none at all.
    return decision_from({"route_id": _unwrapped(choice["name"]), "confidence": min(1.0, max(0.0, score))}, "decision")


def _plain(found: Mapping[Any, Any]) -> dict[str, Any]:
    """``found`` with numpy's scalars, tuples and rounding turned into what JSON would hold."""
    plain: dict[str, Any] = {str(name): _unwrapped(value) for name, value in found.items()}
    if isinstance(plain.get("scores"), Mapping):
        plain["scores"] = {str(name): _unwrapped(value) for name, value in plain["scores"].items()}
    if isinstance(plain.get("alternatives"), tuple):
        plain["alternatives"] = list(plain["alternatives"])
    confidence = plain.get("confidence")
    if isinstance(confidence, float) and -ROUNDING <= confidence <= 1 + ROUNDING:
        plain["confidence"] = min(1.0, max(0.0, confidence))
    return plain


def _unwrapped(value: Any) -> Any:
    if isinstance(value, str):
        return str.__str__(value)  # an enumeration's is more than text
    item = getattr(value, "item", None)  # numpy scalars and one-element arrays
    return item() if callable(item) and getattr(value, "size", None) == 1 else value
