"""What a provider does wrong, end to end over Kafka: attempts and money by the provider's own log, the error's code by
the response. Each case has a provider and a route of its own, so that no case's failures are held against another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from faults.conftest import Bench
from stratarouter_runtime.records import Response
from stratarouter_runtime.testing.simulator import CallRecord, FaultRule
from support.fleet import Watch, WorkerProcess, produce, request

pytestmark = pytest.mark.stack

MODEL, SPARE_MODEL = "gpt-4o-mini", "gpt-4o"
TIMEOUT_S = 6.0
"""``execution_timeout`` of the workers here; a call that hangs takes this long."""
TRIES = 4
"""The first call and ``max_retries`` = 3 more."""
UNANSWERED = frozenset({"hang", "reset", "truncate"})
"""Effects that break a call which was paid for."""


@dataclass(frozen=True, slots=True)
class Case:
    """One request, the trouble it meets at its first target, and what is to come of it.

    Attributes:
        name: of its request, route and provider.
        rule: the trouble.
        calls: calls the provider sees, at all targets.
        paid: how many of them cost money.
        code: of the error response, None where an answer comes.
        spare: the route has a second target, at a provider in good health.
        waited_s: least and most seconds waited before the second call.
    """

    name: str
    rule: FaultRule
    calls: int
    paid: int
    code: str | None = None
    spare: bool = False
    waited_s: tuple[float, float] | None = None


def _query(name: str) -> str:
    return f"please answer case {name} now"


def _rule(case: Case) -> FaultRule:
    """The case's rule, made to meet its own calls at the first target alone."""
    return replace(case.rule, prompt=f"case {case.name} now", model=MODEL)


def _write_routes(path: Path, cases: Sequence[Case], base_url: str) -> Path:
    def provider(name: str) -> str:
        return f'[providers.{name}]\nkind = "simulator"\nbase_url = "{base_url}"\n'

    def target(name: str, model: str) -> str:
        return f'{{ provider = "{name}", model = "{model}" }}'

    lines = [provider("spare")]
    for case in cases:
        targets = [target(case.name, MODEL)] + [target("spare", SPARE_MODEL)] * case.spare
        lines += [provider(case.name), f"[routes.{case.name}]\ntargets = [{', '.join(targets)}]\n"]
    path.write_text("\n".join(lines))
    return path


async def _worker(bench: Bench, cases: Sequence[Case], **extra: str) -> WorkerProcess:
    """A worker on the routes of ``cases``, while the provider has their troubles."""
    bench.simulator.set_faults([_rule(case) for case in cases])
    bench.routes = _write_routes(bench.folder / "cases.toml", cases, bench.simulator.base_url)
    return await bench.worker(STRATAROUTER_EXECUTION_TIMEOUT=str(TIMEOUT_S), **extra)


async def _answers(bench: Bench, cases: Sequence[Case]) -> dict[str, Response]:
    """The one response to each case's request."""
    async with Watch(bench.config) as watch:
        await produce(bench.config, [request(case.name, _query(case.name), route=case.name) for case in cases])
        await watch.until(len(cases), timeout_s=60)
        seen = await watch.settle(1)
    assert seen.dead_letters == []
    assert seen.by_id == {case.name: 1 for case in cases}
    return {response.request_id: response for response in seen.responses}


def _calls(bench: Bench, name: str) -> list[CallRecord]:
    return [call for call in bench.simulator.calls if call.request_id == name]


def _departures(bench: Bench, cases: Sequence[Case], answers: dict[str, Response]) -> list[str]:
    """Where a case came out otherwise, all of them at once."""
    found = []
    for case in cases:
        calls, answer = _calls(bench, case.name), answers[case.name]
        code = None if answer.error is None else answer.error.code
        came_to = (len(calls), sum(call.paid for call in calls), code, len(answer.attempts))
        if came_to != (case.calls, case.paid, case.code, case.calls):
            wanted = (case.calls, case.paid, case.code, case.calls)
            found.append(f"{case.name}: calls, paid, code, attempts are {came_to}, not {wanted}")
        if case.waited_s is not None and len(answer.attempts) > 1:
            least, most = case.waited_s
            waited_s = answer.attempts[1].waited_ms / 1000
            if not least <= waited_s <= most:
                found.append(f"{case.name}: waited {waited_s} s, not {least} to {most}")
    return found


async def _ambiguous_counted(worker: WorkerProcess) -> float:
    """What the worker's own metric says of calls that may have been paid for without a result."""
    async with httpx.AsyncClient(timeout=10) as client:
        page = await client.get(f"http://127.0.0.1:{worker.port}/metrics")
    samples = (sample for family in text_string_to_metric_families(page.text) for sample in family.samples)
    return sum(sample.value for sample in samples if sample.name == "stratarouter_ambiguous_calls_total")


INTERRUPTED_AND_PAID_AGAIN = (
    # Nothing is left of the time for another try.
    Case("hang", FaultRule("hang"), calls=1, paid=1, code="provider_interrupted"),
    Case("reset-once", FaultRule("reset", first=1), calls=2, paid=2),
    Case("truncated-once", FaultRule("truncate", first=1), calls=2, paid=2),
    Case("reset-always", FaultRule("reset"), calls=TRIES, paid=TRIES, code="provider_interrupted"),
    Case("truncated-always", FaultRule("truncate"), calls=TRIES, paid=TRIES, code="provider_interrupted"),
    Case("reset-spare", FaultRule("reset"), calls=TRIES + 1, paid=TRIES + 1, spare=True),
)
INTERRUPTED_AND_FAILED = tuple(
    Case(name, rule, calls=1, paid=1, code="ambiguous", spare=spare)
    for name, rule, spare in (
        ("hang", FaultRule("hang"), False),
        ("reset-once", FaultRule("reset", first=1), False),
        ("truncated-once", FaultRule("truncate", first=1), False),
        # A second target would be a second payment as well.
        ("reset-spare", FaultRule("reset"), True),
    )
)


@pytest.mark.row(24, 25)
@pytest.mark.parametrize(
    ("policy", "cases"),
    [("retry", INTERRUPTED_AND_PAID_AGAIN), ("fail", INTERRUPTED_AND_FAILED)],
    ids=["retry", "fail"],
)
async def test_a_call_that_brings_no_whole_reply_follows_the_ambiguity_policy_and_is_counted(
    bench: Bench, policy: str, cases: tuple[Case, ...]
) -> None:
    worker = await _worker(bench, cases, STRATAROUTER_ON_AMBIGUOUS=policy)
    answers = await _answers(bench, cases)
    assert _departures(bench, cases, answers) == []
    unanswered = sum(call.effect in UNANSWERED for call in bench.simulator.paid_calls)
    assert await _ambiguous_counted(worker) == unanswered
    assert len(bench.simulator.paid_calls) <= len(cases) + unanswered


def _limited(name: str, form: str | None, after_s: float, waited_s: tuple[float, float]) -> Case:
    rule = FaultRule("status", status=429, retry_after=form, retry_after_s=after_s, first=1)  # type: ignore[arg-type]
    return Case(name, rule, calls=2, paid=1, waited_s=waited_s)


HUGE = FaultRule("status", status=429, retry_after="huge")
BEYOND_DEADLINE = FaultRule("status", status=429, retry_after="seconds", retry_after_s=TIMEOUT_S * 5)
RATE_LIMITED = (
    _limited("seconds", "seconds", 1.0, (1.0, 1.0)),
    _limited("milliseconds", "ms", 0.4, (0.4, 0.4)),
    # A date has whole seconds: up to one less is left of it, and what the reply took.
    _limited("date", "date", 2.0, (0.5, 2.0)),
    # Unreadable or not there: our own backoff, 0.1 s at the most before the second call.
    _limited("garbage", "garbage", 0.0, (0.0, 0.1)),
    _limited("no-header", None, 0.0, (0.0, 0.1)),
    # Longer than anybody waits: the next target, or an error at once.
    Case("huge", HUGE, calls=1, paid=0, code="provider_rate_limited"),
    Case("huge-spare", HUGE, calls=2, paid=1, spare=True),
    Case("beyond-deadline", BEYOND_DEADLINE, calls=1, paid=0, code="provider_rate_limited"),
    # Told to wait each time: as often as any other failure.
    Case("limited-always", FaultRule("status", status=429, retry_after="ms", retry_after_s=0.1), calls=TRIES, paid=0,
         code="provider_rate_limited"),
)  # fmt: skip


@pytest.mark.row(26)
async def test_a_429_is_waited_for_as_it_asks_in_every_form_and_never_beyond_a_bound(bench: Bench) -> None:
    await _worker(bench, RATE_LIMITED)
    answers = await _answers(bench, RATE_LIMITED)
    assert _departures(bench, RATE_LIMITED, answers) == []
    for name in ("huge", "beyond-deadline"):
        assert answers[name].timings_ms["execute"] < TIMEOUT_S * 1000


REFUSALS = (
    ("quota", FaultRule("status", status=429, code="insufficient_quota", retry_after="seconds"), "provider_quota"),
    ("bad-request", FaultRule("status", status=400), "provider_rejected"),
    ("no-key", FaultRule("status", status=401), "provider_auth"),
    ("forbidden", FaultRule("status", status=403), "provider_auth"),
    ("not-found", FaultRule("status", status=404), "provider_rejected"),
    ("too-large", FaultRule("status", status=413), "provider_rejected"),
)
REFUSED = (
    *(Case(name, rule, calls=1, paid=0, code=code) for name, rule, code in REFUSALS),
    *(Case(f"{name}-spare", rule, calls=2, paid=1, spare=True) for name, rule, _ in REFUSALS),
)


@pytest.mark.row(27)
async def test_a_refusal_is_not_tried_again_and_goes_to_the_next_target_where_there_is_one(bench: Bench) -> None:
    await _worker(bench, REFUSED)
    answers = await _answers(bench, REFUSED)
    assert _departures(bench, REFUSED, answers) == []
    for case in REFUSED:
        assert answers[case.name].model == (SPARE_MODEL if case.spare else None)


UNREADABLE = (
    Case("invalid-json", FaultRule("invalid_json"), calls=1, paid=1, code="provider_bad_reply"),
    Case("wrong-shape", FaultRule("wrong_shape"), calls=1, paid=1, code="provider_bad_reply"),
    Case("invalid-json-spare", FaultRule("invalid_json"), calls=2, paid=2, spare=True),
    Case("wrong-shape-spare", FaultRule("wrong_shape"), calls=2, paid=2, spare=True),
)


@pytest.mark.row(28)
async def test_an_unreadable_answer_is_paid_for_once_at_its_target(bench: Bench) -> None:
    await _worker(bench, UNREADABLE)
    answers = await _answers(bench, UNREADABLE)
    assert _departures(bench, UNREADABLE, answers) == []
    for case in UNREADABLE:
        models = [call.model for call in _calls(bench, case.name)]
        assert models == [MODEL, SPARE_MODEL][: case.calls]


PASSING = tuple(
    Case(f"passing-{status}", FaultRule("status", status=status, first=2), calls=3, paid=1)
    for status in (500, 503, 529)
)
BURST = tuple(
    Case(f"burst-{status}", FaultRule("status", status=status), calls=TRIES, paid=0) for status in (500, 503, 529)
)
BURST_REQUESTS = 40
"""To each of the providers that fail."""


@pytest.mark.row(29)
async def test_a_burst_of_server_errors_is_tried_a_bounded_number_of_times_and_passes(bench: Bench) -> None:
    await _worker(bench, [*PASSING, *BURST])
    answers = await _answers(bench, PASSING)
    assert _departures(bench, PASSING, answers) == []
    names = [(case.name, f"{case.name}-{n}") for case in BURST for n in range(BURST_REQUESTS)]
    async with Watch(bench.config) as watch:
        # Each question differs, so that none is answered with another's failure.
        await produce(bench.config, [request(own, f"{_query(case)}, number {own}", route=case) for case, own in names])
        await watch.until(len(PASSING) + len(names), timeout_s=60)
        seen = await watch.settle(1)
        refused = {response.request_id for response in seen.responses if response.status == "error"}
        assert refused == {own for _, own in names}
        assert max(len(_calls(bench, own)) for _, own in names) <= TRIES
        assert 0 < sum(call.status >= 500 for call in bench.simulator.calls) <= len(names) * TRIES + 2 * len(PASSING)
        # The provider is well again, and so is the route, within a minute.
        bench.simulator.set_faults([])
        assert await _answered_again(bench, watch, [case.name for case in BURST])
    paid = bench.simulator.paid_by_request_id
    assert set(paid.values()) == {1}
    assert not refused & set(paid)


async def _answered_again(bench: Bench, watch: Watch, routes: Sequence[str], tries: int = 60) -> bool:
    """Ask each of ``routes`` about once a second until it answers; False where one never does."""
    waiting = set(routes)
    for number in range(tries):
        sent = {f"again-{route}-{number}": route for route in waiting}
        await produce(bench.config, [request(own, f"are you well? {own}", route=route) for own, route in sent.items()])
        seen = await watch.settle(1)
        waiting -= {sent[r.request_id] for r in seen.responses if r.status == "ok" and r.request_id in sent}
        if not waiting:
            return True
    return False
