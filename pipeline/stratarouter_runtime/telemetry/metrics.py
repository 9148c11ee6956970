"""Every metric, in one table: ``DEFINITIONS``. ``ops/METRICS.md`` is rendered from it.

Label values come from closed sets and anything else is counted as ``other``: a tenant, a message or a typo can never
grow the number of time series.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, get_args

from opentelemetry.metrics import Meter
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from stratarouter_runtime import errors
from stratarouter_runtime.state.breaker import BreakerState
from stratarouter_runtime.telemetry.gen_ai import GenAiMetrics

PREFIX = "stratarouter_"
OTHER = "other"
"""Stands for every value outside its closed set."""

Kind = Literal["counter", "gauge", "histogram"]
M = TypeVar("M", bound=MetricWrapperBase)

KINDS: dict[Kind, type[Counter | Gauge | Histogram]] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}

CALL_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""From a simulated provider's 10 ms to ``execution_timeout``'s default of 60 s."""
WRITE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""A commit of one record takes 8 ms and a journal write of 200 rows 5 ms; both stand in the middle."""
RECORD_BUCKETS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)
"""Up to the most records that one commit takes (``processors.finished.MAX_COMMIT_RECORDS``)."""


SIMILARITY_BUCKETS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 1.0)
"""Close where thresholds are set."""


def _error_codes() -> frozenset[str]:
    """The codes of the error tree; those of one module, so that the set depends on no import order."""
    classes = (value for value in vars(errors).values() if inspect.isclass(value))
    return frozenset(c.code for c in classes if issubclass(c, errors.RuntimeSystemError))


ERROR_CODES = _error_codes()
LANED = frozenset({"enrich", "execute"})
"""The processors whose records go through lanes; that of usage tells only how far it is behind."""
PROCESSORS = LANED | {"usage"}
PROVIDERS = frozenset({"openai", "anthropic", "google", "local", "vllm", "simulator"})
"""The usual names; ``Metrics(providers=...)`` adds those of the route table."""
GUARD_RULES = (
    "attachment",
    "category",
    "date",
    "direction",
    "entity",
    "insertion",
    "length",
    "negation",
    "number",
    "number_order",
    "operator",
    "order",
    "polarity",
    "question",
    "quote",
    "substitution",
    "symbol",
    "tense",
    "token",
    "turns",
    "unit",
    "wording",
)
"""The rules of ``cache.guard``, as it names them after ``guard:``."""
MARKED_WRONG = "guard:marked_wrong"
"""What is said of a counter-example that somebody gave."""
DISPUTED = "guard:disputed"
"""What is said of a hit that other near entries speak against."""


@dataclass(frozen=True, slots=True)
class LabelDef:
    """A label and every value it may have, besides ``other``."""

    name: str
    values: frozenset[str]


@dataclass(frozen=True, slots=True)
class MetricDef:
    """One metric. ``name`` lacks the prefix; ``unit`` is what one step of the value means."""

    name: str
    kind: Kind
    labels: tuple[LabelDef, ...]
    unit: str
    help: str
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """The name as Prometheus sees it."""
        return PREFIX + self.name


def _label(name: str, values: Iterable[str]) -> LabelDef:
    return LabelDef(name, frozenset(values))


PROCESSOR = _label("processor", PROCESSORS)
LANED_PROCESSOR = _label("processor", LANED)
PROVIDER = _label("provider", PROVIDERS)
CODE = _label("code", ERROR_CODES)
CODE_OR_OK = _label("code", ERROR_CODES | {"ok"})
STATUS = _label("status", {"ok", "error"})
VERDICT = _label("verdict", {"exact", "semantic", "miss", "bypass"})
NEAR = _label("verdict", {"semantic", "miss"})
GUARD_REASON = _label("reason", {MARKED_WRONG, DISPUTED, *(f"guard:{rule}" for rule in GUARD_RULES)})
OUTCOME = _label("outcome", {"ok", "given_up"} | ERROR_CODES)
TOKEN_KIND = _label("kind", {"input", "output", "cached", "reasoning"})
SAVED_BY = _label("by", {"exact", "semantic", "coalesced"})
BREAKER = _label("state", get_args(BreakerState))
LANE_STATE = _label("state", {"opening", "running", "fenced", "halted"})
REPLACED = _label("reason", {"transaction_failed", "fenced"})
JOURNAL_OP = _label(
    "op",
    {
        "begin",
        "finish",
        "lookup",
        "heartbeat",
        "save_checkpoints",
        "load_checkpoint",
        "drop_checkpoint",
        "purge",
        "spent",
    },
)
EVIDENCE = _label("source", {"held_back", "checked"})
JUDGEMENT = _label("verdict", {"right", "wrong", "unknown"})
INTERVAL = _label("at", {"estimate", "low", "high"})
BYPASS = _label("reason", {"unavailable", "timeout", "breaker_open", "garbage", "mode", "disabled", "control"})
CONTROL = _label("action", {"invalidate", "correct", "mark_wrong", "invalid"})
STALE = _label("at", {"lookup", "store", "join", "backend"})
HEDGE = _label("taken", {"first", "second", "neither"})
PAUSED = _label("reason", {"worker_full", "lane_full", "metadata_full"})

DEFINITIONS: tuple[MetricDef, ...] = (
    MetricDef(
        "requests_total", "counter", (LANED_PROCESSOR,), "records", "Records that a processor took from its topic."
    ),
    MetricDef("responses_total", "counter", (STATUS, CODE_OR_OK), "responses", "Responses, by outcome."),
    MetricDef("cache_lookups_total", "counter", (VERDICT,), "lookups", "What the cache said."),
    MetricDef("guard_refusals_total", "counter", (GUARD_REASON,), "candidates", "Similar entries the guard refused."),
    MetricDef(
        "cache_similarity",
        "histogram",
        (NEAR,),
        "cosine",
        "Similarity of the nearest entry, by what the lookup came to.",
        SIMILARITY_BUCKETS,
    ),
    MetricDef("coalesced_total", "counter", (), "requests", "Requests that followed a leader instead of paying."),
    MetricDef(
        "cache_fills_awaited_total", "counter", (), "requests", "Requests answered by what another process was at."
    ),
    MetricDef("provider_calls_total", "counter", (PROVIDER, OUTCOME), "calls", "Calls made, retries among them."),
    MetricDef("provider_call_seconds", "histogram", (PROVIDER,), "seconds", "How long one call took.", CALL_BUCKETS_S),
    MetricDef(
        "prompts_per_call", "histogram", (), "prompts", "Prompts in one call, where several can go.", RECORD_BUCKETS
    ),
    MetricDef("tokens_total", "counter", (TOKEN_KIND,), "tokens", "Tokens paid for, as the provider counted them."),
    MetricDef("cost_usd_total", "counter", (), "US dollars", "Money spent on calls whose price is known."),
    MetricDef("saved_usd_total", "counter", (SAVED_BY,), "US dollars", "Money that calls not made would have cost."),
    MetricDef("retries_total", "counter", (CODE,), "retries", "Calls made again, by the error before them."),
    MetricDef("ambiguous_calls_total", "counter", (), "calls", "Calls that may have been paid for without a result."),
    MetricDef("breaker_openings_total", "counter", (PROVIDER,), "openings", "Times a target's circuit breaker opened."),
    MetricDef("breakers", "gauge", (PROVIDER, BREAKER), "targets", "Targets that were called, by breaker state."),
    MetricDef(
        "rate_limit_wait_seconds",
        "histogram",
        (PROVIDER,),
        "seconds",
        "Waits for room under a rate limit.",
        CALL_BUCKETS_S,
    ),
    MetricDef("hedges_total", "counter", (HEDGE,), "calls", "Second calls beside slow ones, by whose answer won."),
    MetricDef("hedge_cost_usd_total", "counter", (), "US dollars", "About what calls cost whose answer was not taken."),
    MetricDef(
        "budget_guesses_total",
        "counter",
        (),
        "answers",
        "Paid answers whose server counted no tokens, charged to budgets by their length.",
    ),
    MetricDef("dead_letters_total", "counter", (CODE,), "records", "Records that could not become a response."),
    MetricDef(
        "lanes", "gauge", (LANED_PROCESSOR, LANE_STATE), "lanes", "Assigned partitions, by the state of their lane."
    ),
    MetricDef("in_flight", "gauge", (LANED_PROCESSOR,), "records", "Records taken and not yet answered."),
    MetricDef("lag_records", "gauge", (PROCESSOR,), "records", "Records behind the end of the assigned partitions."),
    MetricDef(
        "transaction_seconds", "histogram", (LANED_PROCESSOR,), "seconds", "How long one commit took.", WRITE_BUCKETS_S
    ),
    MetricDef("transaction_records", "histogram", (), "records", "Input records in one commit.", RECORD_BUCKETS),
    MetricDef("producer_replacements_total", "counter", (REPLACED,), "producers", "Producers given up for a new one."),
    MetricDef("journal_seconds", "histogram", (JOURNAL_OP,), "seconds", "One journal round trip.", WRITE_BUCKETS_S),
    MetricDef("journal_rows_total", "counter", (JOURNAL_OP,), "rows", "Rows that journal round trips carried."),
    MetricDef(
        "journal_failures_total", "counter", (JOURNAL_OP,), "round trips", "Journal round trips that it did not answer."
    ),
    MetricDef("cache_bypass_total", "counter", (BYPASS,), "lookups", "Lookups that were not made, by why."),
    MetricDef(
        "cache_control_total", "counter", (CONTROL,), "records", "Records of the cache-control topic that were applied."
    ),
    MetricDef(
        "cache_control_position", "gauge", (), "offset", "Last record of the cache-control topic that was applied."
    ),
    MetricDef("cache_stale_total", "counter", (STALE,), "answers", "Invalidated answers that were kept out, by where."),
    MetricDef(
        "cache_evidence_total",
        "counter",
        (EVIDENCE, JUDGEMENT),
        "answers",
        "Kept answers compared with fresh ones: of hits that were held back, and of served ones.",
    ),
    MetricDef(
        "cache_wrong_hit_rate",
        "gauge",
        (INTERVAL,),
        "share",
        "Wrong ones of the served hits by likeness that were checked last, with a 95 % interval.",
    ),
    MetricDef("cache_checked_hits", "gauge", (), "hits", "Served hits that the wrong-hit rate speaks of."),
    MetricDef(
        "cache_entries", "gauge", (), "entries", "Kept in this process; of redis what can be found by likeness here."
    ),
    MetricDef("cache_bytes", "gauge", (), "bytes", "What they take, with this process's copies of answers in Redis."),
    MetricDef("cache_evicted_total", "counter", (), "entries", "Entries that went for want of room in this process."),
    MetricDef("cache_copied_hits_total", "counter", (), "hits", "Hits in Redis that needed no round trip."),
    MetricDef("cache_shadow_cost_usd_total", "counter", (), "US dollars", "Money spent on checking served hits."),
    MetricDef("intake_paused_total", "counter", (PAUSED,), "pauses", "Times that a processor stopped taking records."),
    MetricDef("usage_restarts_total", "counter", (), "processes", "Times that the usage process was started again."),
    MetricDef("budget_alerts_total", "counter", (), "alerts", "Budgets of which 80 or 100 percent were spent."),
    MetricDef("watermark_gap", "gauge", (), "records", "Widest span between a watermark and the last offset taken."),
)


class Family(Generic[M]):
    """A labelled metric whose label values come from closed sets."""

    def __init__(self, metric: M, labels: tuple[LabelDef, ...]) -> None:
        self._metric = metric
        self._labels = labels
        self._children: dict[tuple[str, ...], M] = {}

    def show_all(self) -> None:
        """Show every value of a lone label from the start, at 0: a rate sees no step into a series that begins."""
        if len(self._labels) == 1:
            for value in self._labels[0].values:
                self.labels(value)

    def labels(self, *values: str) -> M:
        """The metric for ``values``, in the table's order; a value outside its set counts as ``other``.

        Raises ValueError where the number of values is wrong.
        """
        child = self._children.get(values)
        if child is None:
            closed = self.close(values)
            child = self._metric.labels(*closed)
            # Unknown values are not remembered: there may be as many of them as records.
            if closed == values:
                self._children[closed] = child
        return child

    def add(self, name: str, values: Iterable[str]) -> None:
        """Let the label ``name`` have ``values`` as well; what was counted as ``other`` stays there."""
        more = frozenset(values)
        self._labels = tuple(
            LabelDef(name, label.values | more) if label.name == name else label for label in self._labels
        )

    def close(self, values: tuple[str, ...]) -> tuple[str, ...]:
        """``values`` with ``other`` for each that its label does not know."""
        return tuple(
            value if value in label.values else OTHER for label, value in zip(self._labels, values, strict=True)
        )


class Metrics:
    """The metrics of one process, one attribute each.

    Args:
        registry: where they are registered; a new one by default. The client's global registry is never used, so
            two instances in one process do not meet.
        providers: names of the configured providers, which the ``provider`` label takes besides the usual ones.
    """

    requests_total: Family[Counter]
    responses_total: Family[Counter]
    cache_lookups_total: Family[Counter]
    guard_refusals_total: Family[Counter]
    cache_similarity: Family[Histogram]
    coalesced_total: Counter
    cache_fills_awaited_total: Counter
    provider_calls_total: Family[Counter]
    provider_call_seconds: Family[Histogram]
    prompts_per_call: Histogram
    tokens_total: Family[Counter]
    cost_usd_total: Counter
    saved_usd_total: Family[Counter]
    retries_total: Family[Counter]
    ambiguous_calls_total: Counter
    breaker_openings_total: Family[Counter]
    breakers: Family[Gauge]
    rate_limit_wait_seconds: Family[Histogram]
    hedges_total: Family[Counter]
    hedge_cost_usd_total: Counter
    budget_guesses_total: Counter
    dead_letters_total: Family[Counter]
    lanes: Family[Gauge]
    in_flight: Family[Gauge]
    lag_records: Family[Gauge]
    transaction_seconds: Family[Histogram]
    transaction_records: Histogram
    producer_replacements_total: Family[Counter]
    journal_seconds: Family[Histogram]
    journal_rows_total: Family[Counter]
    journal_failures_total: Family[Counter]
    cache_bypass_total: Family[Counter]
    cache_control_total: Family[Counter]
    cache_control_position: Gauge
    cache_stale_total: Family[Counter]
    cache_evidence_total: Family[Counter]
    cache_wrong_hit_rate: Family[Gauge]
    cache_checked_hits: Gauge
    cache_entries: Gauge
    cache_bytes: Gauge
    cache_evicted_total: Counter
    cache_copied_hits_total: Counter
    cache_shadow_cost_usd_total: Counter
    intake_paused_total: Family[Counter]
    usage_restarts_total: Counter
    budget_alerts_total: Counter
    watermark_gap: Gauge

    def __init__(self, registry: CollectorRegistry | None = None, *, providers: Iterable[str] = ()) -> None:
        self.registry = registry or CollectorRegistry()
        self.gen_ai: GenAiMetrics | None = None
        self._by_provider: list[tuple[MetricDef, Family[Any]]] = []
        for definition in DEFINITIONS:
            metric = _register(definition, self.registry)
            family = Family(metric, definition.labels) if definition.labels else None
            setattr(self, definition.name, metric if family is None else family)
            if family is not None and PROVIDER in definition.labels:
                self._by_provider.append((definition, family))
            if family is not None and definition.kind == "counter":
                family.show_all()
        self.add_providers(providers)

    def add_providers(self, names: Iterable[str]) -> None:
        """Give each of these a series of its own: those of a route table, as many as its operator names."""
        more = frozenset(names)
        for definition, family in self._by_provider:
            family.add(PROVIDER.name, more)
            if definition.kind == "counter":
                family.show_all()

    def export_calls(self, meter: Meter | None) -> None:
        """Measure calls for OpenTelemetry too, where there is a ``meter``."""
        self.gen_ai = None if meter is None else GenAiMetrics(meter)


def _register(definition: MetricDef, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    extra: dict[str, Any] = {"buckets": definition.buckets} if definition.buckets else {}
    names = tuple(label.name for label in definition.labels)
    return KINDS[definition.kind](definition.full_name, definition.help, names, registry=registry, **extra)


def markdown() -> str:
    """``ops/METRICS.md``, whole."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Metrics"
    yield ""
    yield "Served at `/metrics`. Rendered from `telemetry/metrics.py` by `make docs`; do not edit."
    yield f"A label value outside the sets below is counted as `{OTHER}`."
    yield "A histogram has the series `_bucket`, `_sum` and `_count`."
    yield ""
    yield "| Metric | Kind | Labels | Unit | Meaning |"
    yield "|---|---|---|---|---|"
    for d in DEFINITIONS:
        labels = ", ".join(f"`{label.name}`" for label in d.labels) or "-"
        yield f"| `{d.full_name}` | {d.kind} | {labels} | {d.unit} | {d.help} |"
    yield ""
    yield "## Label values"
    yield ""
    for d in DEFINITIONS:
        for label in d.labels:
            values = ", ".join(f"`{value}`" for value in sorted(label.values))
            extra = ", and every provider of the route table" if label is PROVIDER else ""
            yield f"- `{d.name}` `{label.name}`: {values}{extra}"
    yield ""
    yield "## Buckets"
    yield ""
    for d in DEFINITIONS:
        if d.buckets:
            yield f"- `{d.name}` ({d.unit}): {', '.join(f'{bound:g}' for bound in d.buckets)}"
