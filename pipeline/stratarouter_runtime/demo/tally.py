"""What came out of the demonstration: counted by request, written as JSON and as a table."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from stratarouter_runtime.records import Response


@dataclass(slots=True)
class Tally:
    """What came out, by request."""

    responses: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)
    dead_sources: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    coalesced: int = 0
    from_journal: int = 0
    cost_usd: float = 0.0
    saved_usd: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    undisturbed_ms: list[float] = field(default_factory=list)
    killed: bool = False

    def add(self, response: Response, latency_ms: float) -> None:
        """Count one response."""
        self.responses[response.request_id] += 1
        self.hits[response.cache.kind] += 1
        self.coalesced += response.batch.role == "follower"
        self.from_journal += response.from_journal
        self.cost_usd += response.cost_usd or 0.0
        self.saved_usd += response.saved_usd or 0.0
        self.latencies_ms.append(latency_ms)
        if not self.killed:
            self.undisturbed_ms.append(latency_ms)
        if response.error is not None:
            self.errors[response.error.code] += 1

    @property
    def settled(self) -> int:
        """Requests that have come out, one way or the other."""
        return len(self.responses) + len(self.dead_sources)

    @property
    def duplicates(self) -> int:
        """Records too many."""
        extra = sum(self.responses.values()) - len(self.responses)
        return extra + sum(self.dead_sources.values()) - len(self.dead_sources)


def build_report(tally: Tally, records: list[bytes], paid: int | None, ambiguous: int) -> dict[str, Any]:
    """The counts as written to the report; ``paid`` is the provider's own, ``ambiguous`` the journal's."""
    return {
        "requests": len(records),
        "responses": len(tally.responses),
        "lost": len(records) - tally.settled,
        "duplicates": tally.duplicates,
        "dead_letters": sum(tally.dead_letters.values()),
        "dead_letters_by_code": dict(sorted(tally.dead_letters.items())),
        "provider_calls": paid,
        "ambiguous_calls": ambiguous,
        "hits": {"exact": tally.hits["exact"], "semantic": tally.hits["semantic"]},
        "coalesced": tally.coalesced,
        "from_journal": tally.from_journal,
        "errors": dict(tally.errors),
        "cost": round(tally.cost_usd, 6),
        "saved": round(tally.saved_usd, 6),
        "currency": "USD",
        "latency_ms": percentiles(tally.latencies_ms),
        "latency_before_kill_ms": percentiles(tally.undisturbed_ms),
    }


def percentiles(values: list[float]) -> dict[str, float]:
    """p50 and p99 of ``values``, both 0 where there are none."""
    ordered = sorted(values) or [0.0]
    return {"p50": round(statistics.median(ordered), 1), "p99": round(ordered[int(0.99 * (len(ordered) - 1))], 1)}


def print_report(report: dict[str, Any], console: Console, path: Path) -> None:
    """Show the report as a table."""
    table = Table(title="one request, one answer", show_header=False)
    hits, latency, before = report["hits"], report["latency_ms"], report["latency_before_kill_ms"]
    calls = "not counted (real provider)" if report["provider_calls"] is None else str(report["provider_calls"])
    rows = [
        ("requests", report["requests"]),
        ("responses", report["responses"]),
        ("lost / duplicates", f"{report['lost']} / {report['duplicates']}"),
        ("hits exact / semantic", f"{hits['exact']} / {hits['semantic']}"),
        ("coalesced", report["coalesced"]),
        ("republished from the journal", report["from_journal"]),
        ("provider calls, as it counted", calls),
        ("of unknown outcome, repeated", report["ambiguous_calls"]),
        ("paid / saved", f"${report['cost']:.4f} / ${report['saved']:.4f}"),
        ("latency p50 / p99, to the kill", f"{before['p50']:.0f} / {before['p99']:.0f} ms"),
        ("latency p50 / p99, all", f"{latency['p50']:.0f} / {latency['p99']:.0f} ms"),
        ("dead letters", report["dead_letters"]),
        *((f"  {code}", count) for code, count in report["dead_letters_by_code"].items()),
        *((f"error responses: {code}", count) for code, count in report["errors"].items()),
        ("seconds, stack included", report["seconds"]),
    ]
    for name, value in rows:
        table.add_row(name, str(value))
    console.print(table)
    console.print(f"written to {path}")
    if report["lost"] or report["duplicates"]:
        console.print("[bold red]requests were lost or answered twice[/]: see the workers' logs beside the data")
