"""A worker whose network, clock or loop betrays it while another one works: 0 duplicates, nothing lost.

The first worker speaks to the broker through a proxy; the second, the producer and the watcher do not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from faults.conftest import Bench
from stratarouter_runtime.config import RuntimeConfig
from support.crashing import PROGRAM, dies, planned
from support.fleet import Watch, WorkerProcess, ambiguous_calls, produce, request
from support.proxy import END_TXN, INIT_PRODUCER_ID, Action, Direction, Proxy, Trouble

pytestmark = pytest.mark.stack

TRANSACTION_TIMEOUT_S = 5.0
"""Of the workers here: how long one transaction may take before its outcome counts as unknown."""
PARTITIONS = 4
LANE_READY = '"lane ready"'
REFUSED = frozenset({47, 90})
"""INVALID_PRODUCER_EPOCH and PRODUCER_FENCED: what the broker tells an older owner (Apache Kafka protocol guide)."""


@pytest.fixture
async def proxy(config: RuntimeConfig) -> AsyncIterator[Proxy]:
    """Before the broker of the stack."""
    async with Proxy(_broker_port(config)) as running:
        yield running


def _broker_port(config: RuntimeConfig) -> int:
    return int(config.bootstrap_servers.rpartition(":")[2])


def _requests(count: int, prefix: str = "r") -> list[bytes | None]:
    """Ids begin with ``prefix``; the words are the same for every prefix."""
    return [request(f"{prefix}{n}", f"question {n} of order {n * 3}", tenant=f"t{n % 40}") for n in range(count)]


async def _behind(
    proxy: Proxy,
    bench: Bench,
    crash_at: str = "",
    armed_after: int = 0,
    transaction_timeout_s: float = TRANSACTION_TIMEOUT_S,
) -> WorkerProcess:
    """A worker that reaches the broker through ``proxy`` only."""
    via = (proxy.broker_port, proxy.port)
    return await bench.worker(
        program=PROGRAM,
        STRATAROUTER_TRANSACTION_TIMEOUT_MS=str(int(transaction_timeout_s * 1000)),
        **planned(crash_at, armed_after=armed_after, broker_via=via),
    )


async def _logged(worker: WorkerProcess, text: str, times: int = 1) -> None:
    """Wait until ``worker`` has said ``text`` so often."""
    async with asyncio.timeout(90):
        while worker.log.read_text().count(text) < times:
            await asyncio.sleep(0.05)


async def _happens(what: asyncio.Event) -> None:
    async with asyncio.timeout(60):
        await what.wait()


async def _has_every_lane(worker: WorkerProcess) -> None:
    """Wait until ``worker`` has been given all partitions: from now on, the other one is thought dead."""
    lanes = 2 * PARTITIONS
    await _logged(worker, LANE_READY, worker.log.read_text().count(LANE_READY) + lanes)


# --- row 13: the end of a transaction --------------------------------------------------------------------------


@pytest.mark.row(13)
@pytest.mark.parametrize("action", ["silence", "delay", "hold"])
async def test_an_end_of_transaction_of_unknown_outcome_repeats_and_loses_nothing(
    bench: Bench, proxy: Proxy, action: Action
) -> None:
    worker = await _behind(proxy, bench)
    late_s = TRANSACTION_TIMEOUT_S + 3
    async with Watch(bench.config) as watch:
        lost = proxy.add(Trouble(END_TXN, action, nth=3, containing=b"-execute.", delay_s=late_s))
        producing = asyncio.create_task(produce(bench.config, _requests(300), rate_per_s=60))
        watching = asyncio.create_task(watch.until(300, timeout_s=120))
        await _happens(lost.met)
        replaced = proxy.add(Trouble(INIT_PRODUCER_ID, "delay", containing=b"-execute."))
        await _happens(replaced.answered)
        lost.released.set()
        await _happens(lost.answered)
        await producing
        await watching
        await watch.settle(2)
    bench.check(watch, 300)
    assert len(bench.simulator.paid_calls) == 300
    assert "publisher replaced" in worker.log.read_text()
    # A lost or late reply is one to a transaction that was committed; a late request finds a newer epoch.
    assert (_error_code(lost) in REFUSED) is (action == "hold")


@pytest.mark.row(13)
async def test_a_connection_that_breaks_at_the_end_of_a_transaction_repeats_and_loses_nothing(
    bench: Bench, proxy: Proxy
) -> None:
    await _behind(proxy, bench)
    async with Watch(bench.config) as watch:
        lost = [proxy.add(Trouble(END_TXN, "reset", nth=nth, containing=b"-execute.")) for nth in range(3, 30, 5)]
        await produce(bench.config, _requests(300), rate_per_s=100)
        await watch.until(300, timeout_s=60)
        await watch.settle(2)
    assert lost[0].answered.is_set()
    bench.check(watch, 300)
    assert len(bench.simulator.paid_calls) == 300


def _error_code(trouble: Trouble) -> int:
    """Of an answer to EndTxn, version 0: 4 bytes of throttle time, 2 of error code."""
    return int.from_bytes(trouble.reply[4:6], "big", signed=True)


@pytest.mark.row(6, 13)
async def test_a_dead_workers_commit_that_arrives_after_the_takeover_is_refused(bench: Bench, proxy: Proxy) -> None:
    # The broker itself would abort the transaction after its timeout; nothing but the fence may end it here.
    doomed = await _behind(proxy, bench, "in_commit:50", armed_after=60, transaction_timeout_s=120)
    trouble = Trouble(END_TXN, "hold", containing=b"-execute.")
    early, last = _requests(60)[:59], _requests(60)[59:]
    async with Watch(bench.config) as watch:
        await produce(bench.config, early)
        await watch.until(59, timeout_s=60)
        # Idle lanes have committed past their gaps by then; the next end of a transaction is that of the last request.
        await watch.settle(3)
        proxy.add(trouble)
        await produce(bench.config, last)
        await dies(doomed.process)
        assert trouble.met.is_set()
        assert not trouble.answered.is_set()
        await bench.worker()
        await watch.until(60, timeout_s=60)
        trouble.released.set()
        await _happens(trouble.answered)
        await watch.settle(2)
    bench.check(watch, 60)
    assert len(bench.simulator.paid_calls) == 60
    assert _error_code(trouble) in REFUSED


# --- row 14: cut off from the broker ---------------------------------------------------------------------------


@pytest.mark.row(14)
@pytest.mark.parametrize(
    "directions",
    [("to_broker",), ("to_client",), pytest.param(("to_broker", "to_client"), marks=pytest.mark.slow)],
    ids=["to_broker", "to_client", "both"],
)
async def test_a_worker_cut_off_past_its_session_repeats_and_loses_nothing(
    bench: Bench, proxy: Proxy, directions: Sequence[Direction]
) -> None:
    cut_off = await _behind(proxy, bench)
    other = await bench.worker()
    async with Watch(bench.config) as watch:
        producing = asyncio.create_task(produce(bench.config, _requests(900), rate_per_s=60))
        await watch.until(120, timeout_s=60)
        assert proxy.replies[END_TXN] > 0, "the first worker has no lane"
        watching = asyncio.create_task(watch.until(900, timeout_s=120))
        proxy.cut(directions)
        await _has_every_lane(other)
        proxy.heal()
        await producing
        await watching
        await watch.settle(3)
        await cut_off.wait_ready()
    bench.check(watch, 900)
    assert len(bench.simulator.paid_calls) <= 900 + await ambiguous_calls(bench.config)


# --- row 8: the loop -------------------------------------------------------------------------------------------


@pytest.mark.row(8)
@pytest.mark.parametrize("seconds", [15, pytest.param(60, marks=pytest.mark.slow)])
async def test_a_worker_whose_loop_is_blocked_past_its_session_repeats_nothing(bench: Bench, seconds: int) -> None:
    blocked = await bench.worker(program=PROGRAM, **planned(f"block_loop:{seconds}@60"))
    other = await bench.worker()
    async with Watch(bench.config) as watch:
        producing = asyncio.create_task(produce(bench.config, _requests(900), rate_per_s=60))
        watching = asyncio.create_task(watch.until(900, timeout_s=120))
        await _logged(blocked, "planned fault: block_loop begins")
        await _has_every_lane(other)
        assert "block_loop has ended" not in blocked.log.read_text(), "others took over only afterwards"
        await _logged(blocked, "planned fault: block_loop has ended")
        await producing
        await watching
        await watch.settle(3)
    bench.check(watch, 900)
    paid = bench.simulator.paid_by_request_id
    assert sum(paid.values()) <= 900 + await ambiguous_calls(bench.config)
    assert max(paid.values()) <= 2


# --- row 35: the clock -----------------------------------------------------------------------------------------


@pytest.mark.row(35)
@pytest.mark.parametrize("jump_s", [3600, -3600])
async def test_an_hours_jump_of_the_wall_clock_harms_no_lease_window_or_cache(bench: Bench, jump_s: int) -> None:
    # Half an hour for answers in the cache: by the wall clock an hour later, none would be left.
    plan = planned(f"clock_jump:{jump_s}@20", on="r")
    jumped = await bench.worker(program=PROGRAM, STRATAROUTER_CACHE_TTL="1800", **plan)
    beside = await bench.worker(STRATAROUTER_CACHE_TTL="1800")
    async with Watch(bench.config) as watch:
        await produce(bench.config, _requests(200), rate_per_s=50)
        await watch.until(200, timeout_s=60)
        assert "planned fault: clock_jump by" in jumped.log.read_text()
        assert len(bench.simulator.paid_calls) == 200
        # The same words under new ids: every one of them a hit.
        await produce(bench.config, _requests(200, "again"), rate_per_s=100)
        await watch.until(400, timeout_s=60)
        await watch.settle(1)
    bench.check(watch, 400)
    assert len(bench.simulator.paid_calls) == 200
    assert await ambiguous_calls(bench.config) == 0
    for worker in (jumped, beside):
        await worker.wait_ready(timeout_s=10)
        assert await worker.stop() == 0
