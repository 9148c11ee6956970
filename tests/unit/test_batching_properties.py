"""For any arrivals, failures, withdrawals and crashes: one response each, from a leader that may answer, paid once."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stratarouter_runtime.errors import ProviderRejectedError, ProviderUnavailableError, ShuttingDownError
from stratarouter_runtime.journal.memory import MemoryStore
from stratarouter_runtime.port_values import ProviderCall
from stratarouter_runtime.records import Answer, Execution, Response, Usage
from unit.engine_bench import Bench, EqualGuard, Provider, execution, vector

THRESHOLD = 0.95
TEXTS = {
    "where is order 1": vector(1.0, 0.0, 0.0),
    "my order 1, where is it": vector(0.99, 0.1, 0.0),
    "where is order 2": vector(0.999, 0.0, 0.01),
    "cancel order 1": vector(0.0, 1.0, 0.0),
}
SCOPES = ("acme", "globex")
STEPS_S = 0.0005


class Moody(Provider):
    """Answers with the id of the request that was paid for. ``hold`` keeps calls; ``trouble`` is the next calls'."""

    def __init__(self) -> None:
        super().__init__()
        self.trouble: list[Exception] = []
        self.paid: Counter[str] = Counter()

    async def call(
        self, provider: str, call: ProviderCall, *, on_text: Callable[[str], None] | None = None, **_: Any
    ) -> Answer:
        del on_text
        if self.trouble:
            raise self.trouble.pop()
        # Paid from here on, whether or not anybody hears the answer.
        self.paid[call.request_id] += 1
        await self.gate.wait()
        return Answer(call.request_id, provider, call.model, Usage(1, 1), cost_usd=0.01)


@dataclass
class World:
    """What was asked, what was answered, and how it is to be taken up after a crash."""

    asked: dict[str, Execution] = field(default_factory=dict)
    answers: dict[str, list[Response]] = field(default_factory=dict)
    waiting: dict[str, asyncio.Task[Response]] = field(default_factory=dict)
    gave_up: set[str] = field(default_factory=set)
    deferred: bool = False

    def happen(self, event: tuple[Any, ...], bench: Bench, provider: Moody) -> None:
        """Anything but a crash."""
        match event:
            case ("arrive", text, scope):
                name = f"request {len(self.asked)}"
                self.asked[name] = execution(
                    name, text, embedding=TEXTS[text], scope=scope, threshold=THRESHOLD, targets=(("sim", "m"),)
                )
                self.waiting[name] = bench.engine.submit(self.asked[name], deferred=self.deferred)
            case ("let through",):
                provider.gate.set()
            case ("hold",):
                provider.gate.clear()
            case ("trouble", trouble):
                provider.trouble.append(trouble)
            case ("give up", number) if f"request {number}" in self.waiting:
                # The one who asked goes away; the task is his alone.
                self.waiting.pop(f"request {number}").cancel()
                self.gave_up.add(f"request {number}")

    def take_up(self, bench: Bench) -> None:
        """What was asked and not answered is delivered again."""
        left = [name for name in self.asked if name not in self.answers and name not in self.gave_up]
        self.waiting = {name: bench.engine.submit(self.asked[name], check_journal=True) for name in left}

    def collect(self) -> None:
        """Take the answers of what has ended; a request that a crash broke off stays to be asked again."""
        for name, task in list(self.waiting.items()):
            if task.done():
                del self.waiting[name]
                if not task.cancelled() and not isinstance(task.exception(), ShuttingDownError):
                    self.answers.setdefault(name, []).append(task.result())


TROUBLE = [ProviderUnavailableError("down", status=503), ProviderRejectedError("no", status=400)]
ARRIVE = st.tuples(st.just("arrive"), st.sampled_from(sorted(TEXTS)), st.sampled_from(SCOPES))
EVENTS = st.lists(
    st.one_of(
        ARRIVE,
        ARRIVE,
        st.tuples(st.just("let through")),
        st.tuples(st.just("hold")),
        st.tuples(st.just("trouble"), st.sampled_from(TROUBLE)),
        st.tuples(st.just("give up"), st.integers(0, 20)),
        st.tuples(st.just("crash")),
    ),
    min_size=1,
    max_size=25,
)


async def _live(events: list[tuple[Any, ...]]) -> None:
    # Where nobody can ask again (and so nobody crashes here), the journal comes after the answer.
    world = World(deferred=("crash",) not in events)
    provider, store, ambiguous = Moody(), MemoryStore(), 0
    bench = await _bench(provider, store).__aenter__()
    for event in events:
        if event[0] == "crash":
            ambiguous += await _crash(bench)
            world.collect()
            bench = await _bench(provider, store).__aenter__()
            world.take_up(bench)
        else:
            world.happen(event, bench, provider)
        await asyncio.sleep(STEPS_S)
        world.collect()
    provider.gate.set()
    async with asyncio.timeout(30):
        await asyncio.gather(*world.waiting.values(), return_exceptions=True)
    world.collect()
    ambiguous += await _crash(bench)
    _judge(world, provider, ambiguous)


def _bench(provider: Moody, store: MemoryStore) -> Bench:
    """A worker of its own: after a crash another one goes on."""
    return Bench(provider, store=store, owner=str(uuid.uuid4()), max_retries=0)


async def _crash(bench: Bench) -> int:
    """Break everything off where it stands; how many calls were taken over from a broken-off one so far."""
    await bench.__aexit__()
    return int(bench.metrics.registry.get_sample_value("stratarouter_ambiguous_calls_total") or 0)


def _judge(world: World, provider: Moody, ambiguous: int) -> None:
    for name, asked in world.asked.items():
        if name in world.gave_up:
            continue
        [answer] = world.answers[name]
        if answer.status == "error":
            assert answer.error is not None
            assert answer.error.code in {"provider_rejected", "provider_unavailable"}
            continue
        assert answer.text is not None
        led = world.asked[answer.text]
        assert led.scope == asked.scope
        own, other = asked.request.messages[-1]["content"], led.request.messages[-1]["content"]
        assert float(np.dot(TEXTS[own], TEXTS[other])) >= THRESHOLD - 1e-6
        assert EqualGuard().differs(own, other) is None
        if answer.batch.role == "follower":
            assert answer.batch.leader_id is not None
            assert (answer.cost_usd, answer.saved_usd) == (0.0, 0.01)
    # Each call beyond a request's first is one that a crash had left without a result, and was counted.
    assert sum(count - 1 for count in provider.paid.values()) <= ambiguous


@given(EVENTS)
@settings(max_examples=150, deadline=None)
def test_any_life_gives_one_right_answer_each_and_pays_once(events: list[tuple[Any, ...]]) -> None:
    asyncio.run(_live(events))


async def test_a_crash_after_the_leader_was_recorded_pays_no_more_for_its_group() -> None:
    provider, store = Moody(), MemoryStore()
    provider.gate.clear()
    asked = [
        execution(f"request {number}", text, embedding=TEXTS[text], threshold=THRESHOLD)
        for number, text in enumerate(("where is order 1", "my order 1, where is it", "where is order 1"))
    ]
    async with _bench(provider, store) as bench:
        tasks = [bench.engine.submit(one) for one in asked]
        await asyncio.sleep(0.05)
        assert sum(provider.paid.values()) == 1
        provider.gate.set()
        await tasks[0]
        # What the followers were told is lost with the process; their rows and the leader's result are not.
    async with _bench(provider, store) as bench:
        again = [bench.engine.submit(one, check_journal=True) for one in asked]
        responses = await asyncio.gather(*again)
    assert [response.text for response in responses] == ["request 0"] * 3
    assert all(response.from_journal for response in responses)
    assert [response.cost_usd for response in responses] == [0.01, 0.0, 0.0]
    assert sum(provider.paid.values()) == 1
