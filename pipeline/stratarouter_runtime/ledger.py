"""The ledger: what calls would have been made without the runtime, and whether two sources agree on it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

KINDS = ("paid", "late", "exact", "semantic", "coalesced", "replayed")
"""What a call without the runtime became. ``late``: paid for, but its result came after its deadline's error.
``replayed``: a request id that was answered before, answered again from the journal."""
JOURNALED = ("paid", "coalesced")
HITS = ("exact", "semantic")

COUNTED_WITHIN_S = 600
"""A response is counted at most so long after its result was recorded, unless its lane or the broker was away."""
MINUTE_S = 60
EVER_S = 2**40

Sums = Mapping[str, Mapping[str, int]]
"""Whole numbers by tenant and name: responses as ``paid``, nano-dollars as ``paid_nano``."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What the ledger compares.

    Attributes:
        windows: the accounts' windows, as they are reported and published.
        hits: the deltas' own words about hits, one by one: no journal knows these.
        journal: the journal's results of the same requests, and what nobody has counted.
    """

    windows: Sums
    hits: Sums
    journal: Sums


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One tenant. ``calls`` and ``nano_usd`` by the names in ``KINDS``; ``in_process`` calls are beside the topics, and
    in neither. ``differences`` says in words where the sources disagree; empty: reconciled to zero.
    """

    tenant: str
    calls: dict[str, int]
    nano_usd: dict[str, int]
    in_process: int
    in_process_nano: int
    unpriced: int
    differences: tuple[str, ...]

    @property
    def calls_without(self) -> int:
        """Calls that would have been made without the runtime."""
        return sum(self.calls.values())

    @property
    def nano_without(self) -> int:
        """What they would have cost, in nano-dollars."""
        return sum(self.nano_usd.values())


def longest_s(retention_s: float) -> int:
    """How far back the journal holds the result of every response that was counted, where results are kept for
    ``retention_s`` (0: for ever). A ledger begins with a whole minute.
    """
    if retention_s <= 0:
        return EVER_S
    return max(0, int(retention_s) - MINUTE_S - COUNTED_WITHIN_S)


def reconcile(sources: Sources) -> list[LedgerLine]:
    """A line for each tenant that any of the sources knows, in the order of their names."""
    tenants = sorted({*sources.windows, *sources.hits, *sources.journal})
    return [
        _line(tenant, *(source.get(tenant, {}) for source in (sources.windows, sources.hits, sources.journal)))
        for tenant in tenants
    ]


def _line(tenant: str, windows: Mapping[str, int], hits: Mapping[str, int], journal: Mapping[str, int]) -> LedgerLine:
    # Late calls are in the journal alone: their response was an error, which cost nobody anything to say.
    calls = {kind: (journal if kind == "late" else windows).get(kind, 0) for kind in KINDS}
    money = {kind: (journal if kind == "late" else windows).get(f"{kind}_nano", 0) for kind in KINDS}
    return LedgerLine(
        tenant=tenant,
        calls=calls,
        nano_usd=money,
        in_process=journal.get("in_process", 0),
        in_process_nano=journal.get("in_process_nano", 0),
        unpriced=windows.get("unpriced", 0),
        differences=(
            *_differences(windows, journal, JOURNALED, "the journal"),
            *_differences(windows, hits, HITS, "the deltas"),
            *_uncovered(journal),
        ),
    )


def _differences(ours: Mapping[str, int], theirs: Mapping[str, int], kinds: tuple[str, ...], whose: str) -> list[str]:
    return [
        f"{name}: {ours.get(name, 0)} in the windows, {theirs.get(name, 0)} in {whose}"
        for kind in kinds
        for name in (kind, f"{kind}_nano")
        if ours.get(name, 0) != theirs.get(name, 0)
    ]


def _uncovered(journal: Mapping[str, int]) -> list[str]:
    found = []
    if journal.get("uncounted"):
        found.append(
            f"uncounted: {journal['uncounted']} results of {journal.get('uncounted_nano', 0)} nano-dollars in the "
            "journal that no response was counted for; is the usage processor behind, or usage_enabled off somewhere?"
        )
    if journal.get("gone"):
        found.append(f"gone: {journal['gone']} responses counted whose result the journal does not hold")
    return found
