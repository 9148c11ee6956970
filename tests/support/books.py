"""What responses add up to: the accounts as a client could keep them, from nothing but what it was sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from stratarouter_runtime.records import Response
from stratarouter_runtime.usage_deltas import nano

Book = dict[str, Counter[str]]
"""Whole numbers by tenant and name: responses as ``paid``, nano-dollars as ``paid_nano``."""

KINDS = tuple(f"{kind}{end}" for kind in ("paid", "exact", "semantic", "coalesced") for end in ("", "_nano"))


def kind_of(response: Response) -> str:
    """What a call without the runtime became."""
    if response.error is not None:
        return "error"
    if response.cache.kind in {"exact", "semantic"}:
        return response.cache.kind
    return "coalesced" if response.saved_usd else "paid"


def add_up(responses: Iterable[Response]) -> Book:
    """What ``responses`` say was paid and saved, by tenant."""
    found: Book = {}
    for response in responses:
        sums, kind = found.setdefault(response.tenant, Counter()), kind_of(response)
        sums[kind] += 1
        if kind != "error":
            sums[f"{kind}_nano"] += nano(response.cost_usd if kind == "paid" else response.saved_usd) or 0
    return found


def only_kinds(book: Book) -> dict[str, dict[str, int]]:
    """``book`` without anything but ``KINDS``, so that two can be compared."""
    return {tenant: {name: sums[name] for name in KINDS} for tenant, sums in book.items()}
