"""An embedder that hangs costs likeness, not requests, nor each of them its wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from stratarouter_runtime.bridge import CoreRuntimeBridge
from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.embedders import HashingEmbedder
from stratarouter_runtime.embedders.patient import PatientEmbedder
from stratarouter_runtime.engine.embed import with_vectors
from stratarouter_runtime.errors import EmbedderError
from stratarouter_runtime.records import Vector
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.testing.simulator import Simulator
from unit.engine_bench import execution

LIMIT_S = 30.0
"""A hang fails the test here; nothing waits this long."""


class Hanging(HashingEmbedder):
    """Answers "quick" at once, refuses "bad", and hangs for the rest while ``hangs``."""

    def __init__(self) -> None:
        super().__init__(8)
        self.hangs = True
        self.asked: list[str] = []
        self.broken_off = 0

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        self.asked += texts
        if texts == ["bad"]:
            raise EmbedderError("no")
        if self.hangs and texts != ["quick"]:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.broken_off += 1
        return await super().embed(texts)


class Loading(Hanging):
    """Answers once a call was let to last until ``has_loaded``."""

    def __init__(self) -> None:
        super().__init__()
        self.has_loaded = asyncio.Event()
        self.fails = False

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        if not self.hangs:
            return await super().embed(texts)
        self.asked += texts
        try:
            await self.has_loaded.wait()
        except asyncio.CancelledError:
            self.broken_off += 1
            raise
        if self.fails:
            raise EmbedderError("it took too long")
        self.hangs = False
        return await HashingEmbedder.embed(self, texts)


class Ahead(SystemClock):
    """Real time, and what a test adds to it."""

    def __init__(self) -> None:
        self.by = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.by


def _patient(embedder: Hanging, clock: SystemClock | None = None, patience_s: float = 0.02) -> PatientEmbedder:
    return PatientEmbedder(embedder, clock=clock or SystemClock(), patience_s=patience_s, pause_s=600.0)


async def test_one_that_hangs_is_left_alone_until_it_answers_again() -> None:
    hanging, clock = Hanging(), Ahead()
    patient = _patient(hanging, clock)
    for expected in ("nobody for", "asked again in", "asked again in"):
        with pytest.raises(EmbedderError, match=expected):
            await patient.embed(["one"])
    assert (hanging.asked, hanging.broken_off) == (["one"], 1)
    clock.by += 600.0
    probe = asyncio.create_task(patient.embed(["probe"]))
    await asyncio.sleep(0)
    with pytest.raises(EmbedderError, match="asked again in"):
        await patient.embed(["beside it"])
    with pytest.raises(EmbedderError, match="nobody for"):
        await probe
    clock.by += 600.0
    hanging.hangs = False
    for text in ("two", "three"):
        assert len(await patient.embed([text])) == 1
    assert hanging.asked == ["one", "probe", "two", "three"]


async def test_a_server_that_loads_its_model_for_the_first_call_is_let_finish() -> None:
    """One that takes 5 s to load, and begins anew where its caller leaves, was broken off after 2 s each time."""
    loading, clock = Loading(), Ahead()
    patient = _patient(loading, clock)
    for text in ("one", "two", "three"):
        with pytest.raises(EmbedderError, match="nobody for"):
            await patient.embed([text])
        clock.by += 600.0
    assert loading.broken_off == 2, "the first, and the third beside the second"
    with pytest.raises(EmbedderError, match="nobody for"):
        await patient.embed(["four"])
    loading.has_loaded.set()
    async with asyncio.timeout(LIMIT_S):
        while loading.hangs:
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(await patient.embed(["five"])) == 1, "before it is asked again"


async def _given_up_twice(loading: Loading) -> PatientEmbedder:
    """The second call goes on by itself."""
    clock = Ahead()
    patient = _patient(loading, clock)
    for text in ("one", "two"):
        clock.by += 600.0
        with pytest.raises(EmbedderError, match="nobody for"):
            await patient.embed([text])
    return patient


async def test_a_try_that_ends_in_an_error_is_no_answer() -> None:
    loading = Loading()
    patient = await _given_up_twice(loading)
    loading.fails = True
    loading.has_loaded.set()
    await asyncio.sleep(0.01)
    with pytest.raises(EmbedderError, match="asked again in"):
        await patient.embed(["three"])


async def test_stopping_breaks_off_what_goes_on() -> None:
    loading = Loading()
    patient = await _given_up_twice(loading)
    assert loading.broken_off == 1
    await patient.stop()
    assert loading.broken_off == 2


async def test_who_queues_behind_others_waits_as_long_as_these_are_answered() -> None:
    hanging, clock = Hanging(), Ahead()
    patient = _patient(hanging, clock, patience_s=0.2)
    queued = asyncio.create_task(patient.embed(["queued"]))
    async with asyncio.timeout(LIMIT_S):
        for _ in range(10):
            await asyncio.sleep(0)
            clock.by += 0.15
            await patient.embed(["quick"])
        assert not queued.done()
        with pytest.raises(EmbedderError, match="nobody for"):
            await queued


async def test_callers_with_less_time_each_find_out_together() -> None:
    hanging, clock = Hanging(), Ahead()
    patient = _patient(hanging, clock, patience_s=60.0)
    for number in range(4):
        call = asyncio.create_task(patient.embed([f"{number}"]))
        await asyncio.sleep(0)
        clock.by += 21.0
        call.cancel()
        await asyncio.wait([call])
    assert hanging.asked == ["0", "1", "2"], "after 60 s nobody is kept waiting"


async def test_callers_beside_each_other_count_the_same_silence_once() -> None:
    hanging, clock = Hanging(), Ahead()
    patient = _patient(hanging, clock, patience_s=60.0)
    calls = [asyncio.create_task(patient.embed([f"{number}"])) for number in range(4)]
    await asyncio.sleep(0)
    clock.by += 21.0
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert len(await patient.embed(["quick"])) == 1


async def test_a_longer_list_has_more_time() -> None:
    hanging, clock = Hanging(), Ahead()
    patient = _patient(hanging, clock, patience_s=60.0)
    call = asyncio.create_task(patient.embed(["some"] * 81))
    await asyncio.sleep(0)
    clock.by += 65.0
    call.cancel()
    await asyncio.wait([call])
    assert len(await patient.embed(["quick"])) == 1, "70 s are there for 81 texts"


async def test_refusals_are_answers() -> None:
    hanging = Hanging()
    patient = _patient(hanging)
    for _ in range(3):
        with pytest.raises(EmbedderError, match="no"):
            await patient.embed(["bad"])
    assert len(hanging.asked) == 3


@pytest.mark.parametrize("left_s", [0.04, 0.0, -1.0])
async def test_a_vector_takes_a_share_of_the_time_that_is_left(left_s: float) -> None:
    hanging = Hanging()
    async with asyncio.timeout(LIMIT_S):
        [filled] = await with_vectors(hanging, [execution("r", "hello")], left_s)
    assert (filled.request.embedding, hanging.asked) == (None, ["hello"])
    [filled] = await with_vectors(hanging, [execution("r", "quick")])
    assert filled.request.embedding is not None


async def test_requests_are_answered_while_their_embedder_hangs() -> None:
    held: list[asyncio.StreamWriter] = []

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server, Simulator() as simulator:
        port = server.sockets[0].getsockname()[1]
        table = {
            "providers": {"sim": {"kind": "simulator", "base_url": simulator.base_url}},
            "default": {"targets": [{"provider": "sim", "model": "m"}]},
        }
        config = RuntimeConfig(
            state_backend="memory",
            cache_backend="memory",
            embedder="openai",
            embedder_model="m",
            embedder_base_url=f"http://127.0.0.1:{port}/v1",
            embedding_dimension=2,
        )
        async with CoreRuntimeBridge(config, RouteTable.from_dict(table)) as bridge:
            for number in range(3):
                response = await bridge.execute("support", query=f"hello {number}", timeout_s=4.0)
                assert response.record.status == "ok"
        assert held
        for writer in held:
            writer.close()
