"""Under load, with workers and the usage process killed in the middle, the accounts agree with the journal exactly."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, cast

import asyncpg
import httpx
import orjson
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from stratarouter_runtime import topics
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import BrokerError
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.journal.usage import UsageAccounts
from stratarouter_runtime.processors import kafka_client, usage_consumer, usage_process, usage_supervisor
from stratarouter_runtime.processors.tail import Tail
from stratarouter_runtime.processors.usage import UsageProcessor
from stratarouter_runtime.processors.usage_supervisor import UsageSupervisor
from stratarouter_runtime.records import Attempt, CacheVerdict, Coordinates, ErrorInfo, Response, Usage
from stratarouter_runtime.telemetry.metrics import Metrics
from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings
from stratarouter_runtime.tools.status import look
from stratarouter_runtime.usage_deltas import SUMS, Delta, DeltaWriter, UsageRecord, decode_usage, encode, line_of
from support.books import add_up, only_kinds
from support.cluster import committed
from support.fleet import Seen, Watch, WorkerProcess, produce, request, write_routes

pytestmark = pytest.mark.stack

DAY_S = 86_400


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """A provider that answers after 50 ms."""
    async with Simulator(SimulatorSettings(latency_ms=50)) as running:
        yield running


@pytest.fixture
async def ready_config(config: RuntimeConfig) -> RuntimeConfig:
    """Topics and tables are there."""
    await topics.apply(config, partitions=4)
    await migrate(config.database_url)
    return config


def _worker(
    config: RuntimeConfig, simulator: Simulator, folder: Path, number: int, processors: str = "enrich,execute"
) -> WorkerProcess:
    routes = write_routes(folder / "routes.toml", simulator.base_url)
    return WorkerProcess(config, routes, folder / f"worker-{number}.log", processors=processors)


def _load(count: int) -> list[bytes]:
    """Requests of three tenants; every third repeats the words of an earlier one."""
    return [
        request(
            f"r{n}",
            f"question {n - 2 if n % 3 == 2 else n} about order {7 * (n - 2 if n % 3 == 2 else n)}",
            tenant=f"t{n // 3 % 3}",
            route=("support", "billing")[n // 3 % 2],
        )
        for n in range(count)
    ]


async def _counted(config: RuntimeConfig, requests: int, timeout_s: float = 120.0) -> dict[str, Counter[str]]:
    """The day's windows by tenant, once they hold ``requests`` or the time is up."""
    accounts = UsageAccounts(config.database_url)
    await accounts.start()
    try:
        deadline = time.monotonic() + timeout_s
        while True:
            rows = await accounts.report(DAY_S, 0, 2**40, ["tenant"])
            sums: dict[str, Counter[str]] = {}
            for row in rows:
                numbers = {name: value for name, value in row.items() if name not in {"start", "tenant"}}
                sums.setdefault(row["tenant"], Counter()).update(numbers)
            if sum(tenant["requests"] for tenant in sums.values()) >= requests or time.monotonic() > deadline:
                return sums
            await asyncio.sleep(0.2)
    finally:
        await accounts.stop()


def _same(windows: dict[str, Counter[str]], seen: Seen) -> None:
    assert only_kinds(windows) == only_kinds(add_up(seen.responses))


async def _until_committed(config: RuntimeConfig, markers: int = 1, timeout_s: float = 60.0) -> None:
    """Until the group has committed all but the last markers of transactions: the lag that operators and autoscalers
    see. A lane that is fenced or stopped leaves one more of them.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        lanes = [lane for lane in (await look(config)).lanes if lane.processor == "usage"]
        if all(lane.lag <= markers for lane in lanes):
            return
        assert time.monotonic() < deadline, lanes
        await asyncio.sleep(0.5)


async def _published(config: RuntimeConfig, wanted: int, timeout_s: float = 60.0) -> dict[bytes, UsageRecord]:
    """The latest record of each key on the usage topic, once its days hold ``wanted`` requests."""
    latest: dict[bytes, UsageRecord] = {}
    deadline = time.monotonic() + timeout_s
    async with Tail(config, config.topic(config.usage_topic), from_beginning=True) as tail:
        while time.monotonic() < deadline:
            latest |= {record.key or b"": decode_usage(record.value) for record in await tail.poll(0.2)}
            days = [record for record in latest.values() if record.window_s == DAY_S]
            if sum(record.sums["requests"] for record in days) >= wanted:
                break
    return latest


async def _command(config: RuntimeConfig, *arguments: str) -> tuple[int, Any]:
    """The command line's exit code and its JSON."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stratarouter_runtime.cli", *arguments, "--json"),
        env={**os.environ, "DATABASE_URL": config.database_url},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, orjson.loads(out)


async def _agree(config: RuntimeConfig, seen: Seen) -> None:
    """The ledger reconciles, says what the responses say, and notices a nano-dollar that is missing."""
    code, lines = await _command(config, "ledger", "--window", "1h", "--settle", "0")
    assert (code, [line["differences"] for line in lines]) == (0, [[] for _ in lines])
    expected = add_up(seen.responses)
    assert {line["tenant"]: line["calls_without"] for line in lines} == dict(
        Counter(response.tenant for response in seen.responses)
    )
    for line in lines:
        sums = expected[line["tenant"]]
        assert line["nano_usd_without"] == sum(value for name, value in sums.items() if name.endswith("_nano"))
    code, report = await _command(config, "usage", "--by", "tenant", "--window", "day")
    assert code == 0
    assert sum(row["requests"] for row in report["windows"]) == len(seen.responses)
    await _execute(config, "UPDATE usage_windows SET paid_nano = paid_nano - 1 WHERE window_s = 60 AND paid > 0")
    code, lines = await _command(config, "ledger", "--window", "1h", "--settle", "0")
    assert code == 1
    assert any("paid_nano" in said for line in lines for said in line["differences"])


async def _execute(config: RuntimeConfig, statement: str) -> None:
    connection = await asyncpg.connect(config.database_url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _until_idle(worker: WorkerProcess, timeout_s: float = 60.0) -> None:
    """Until the usage process is behind by nothing: markers of transactions at the end must not look like lag."""
    deadline, said = time.monotonic() + timeout_s, ""
    async with httpx.AsyncClient(timeout=5.0) as client:
        while time.monotonic() < deadline:
            said = (await client.get(f"http://127.0.0.1:{worker.port}/readyz")).text
            if "0 records behind" in said:
                return
            await asyncio.sleep(0.2)
    raise AssertionError(said)


async def test_windows_journal_and_responses_agree_although_workers_and_the_usage_process_are_killed(
    ready_config: RuntimeConfig, simulator: Simulator, tmp_path: Path
) -> None:
    """A small one; ``make accounts`` does it over 100,000 requests, with broker and database killed too."""
    config, count, patience_s = ready_config, 1500, 90.0
    workers = [_worker(config, simulator, tmp_path, number) for number in range(2)]
    usage = _worker(config, simulator, tmp_path, 9, "usage")
    await asyncio.gather(*(worker.start() for worker in (*workers, usage)))
    async with Watch(config) as watch:
        producing = asyncio.create_task(produce(config, _load(count), rate_per_s=200))
        await watch.until(count // 4, timeout_s=patience_s)
        workers[0].kill()
        usage.kill()
        workers[0] = _worker(config, simulator, tmp_path, 2)
        usage = _worker(config, simulator, tmp_path, 10, "usage")
        await asyncio.gather(workers[0].start(ready=False), usage.start(ready=False))
        await watch.until(count // 2, timeout_s=patience_s)
        await usage.wait_ready()
        usage.kill_children()
        workers[1].kill()
        workers[1] = _worker(config, simulator, tmp_path, 3)
        await workers[1].start(ready=False)
        await producing
        await watch.until(count, timeout_s=patience_s)
        seen = await watch.settle(1)
    assert sum(seen.by_id.values()) == len(seen.by_id) == count
    windows = await _counted(config, count, patience_s)
    await _until_committed(config, markers=20)
    latest = await _published(config, count, patience_s)
    assert [await worker.stop() for worker in (*workers, usage)] == [0, 0, 0]
    _same(windows, seen)
    await _agree(config, seen)
    days = [record for record in latest.values() if record.window_s == DAY_S]
    assert sum(record.sums["requests"] for record in days) == count
    assert sum(record.sums["paid_nano"] for record in days) == sum(sums["paid_nano"] for sums in windows.values())


@pytest.mark.parametrize("killed", [False, True])
async def test_at_least_once_counts_a_repeated_response_once(
    ready_config: RuntimeConfig, simulator: Simulator, tmp_path: Path, killed: bool
) -> None:
    config, count = ready_config, 400
    workers = [_worker(config, simulator, tmp_path, number, "enrich,execute,usage") for number in range(2)]
    for worker in workers:
        worker.extra = {"STRATAROUTER_PROCESSING_GUARANTEE": "at_least_once"}
    await workers[0].start()
    async with Watch(config) as watch:
        producing = asyncio.create_task(produce(config, _load(count), rate_per_s=200))
        await watch.until(count // 2, timeout_s=60)
        if killed:
            workers[0].kill()
            await workers[1].start(ready=False)
        await producing
        deadline = time.monotonic() + 120
        while len(watch.seen.by_id) < count and time.monotonic() < deadline:
            await watch.poll()
        seen = await watch.settle(1)
    assert len(seen.by_id) == count
    windows = await _counted(config, count)
    assert await workers[killed].stop() == 0
    assert sum(sums["requests"] for sums in windows.values()) == count
    code, lines = await _command(config, "ledger", "--window", "1h", "--settle", "0")
    assert (code, [line["differences"] for line in lines]) == (0, [[] for _ in lines])
    assert sum(line["calls_without"] for line in lines) == count


async def test_a_payment_takes_the_place_of_what_the_same_request_was_counted_as(ready_config: RuntimeConfig) -> None:
    """A crash without transactions: one reading of a request finds the answer of another, or comes too late for it.
    In every order, and in batches cut anywhere, some of them read again.
    """
    accounts = UsageAccounts(ready_config.database_url)
    await accounts.start()
    try:
        for n, order in enumerate(permutations(["hit", "late", "failed", "paid"])):
            for cut in range(4):
                tenant = f"t{n}-{cut}"
                deltas = _readings(tenant, order)
                for batch in (deltas[:cut], deltas[cut:], deltas[1:3]):
                    await accounts.count(batch)
                rows = [row for row in await accounts.report(60, 0, 2**40, ["tenant"]) if row["tenant"] == tenant]
                sums = sum((Counter({name: row[name] for name in SUMS}) for row in rows), Counter())
                paid = {
                    "requests": 1,
                    "ok": 1,
                    "paid": 1,
                    "input_tokens": 10,
                    "output_tokens": 5,
                    "paid_nano": 5 * 10**8,
                }
                assert sums == paid, (order, cut)
                assert [row["start"] for row in rows if row["paid"]] == [60 * (order.index("paid") + 1)]
        assert await accounts.errors(60, 0, 2**40) == []
    finally:
        await accounts.stop()


def _readings(tenant: str, order: tuple[str, ...]) -> list[Delta]:
    """One request, answered once a minute in these ways."""
    more: dict[str, Any] = {
        "tenant": tenant,
        "route_id": "support",
        "source": Coordinates(tenant, 3, 77, 5),
    }
    answer = more | {"text": "a", "provider": "openai", "model": "m", "usage": Usage(10, 5)}
    late = ErrorInfo("deadline_exceeded", "late")
    attempts = (Attempt("p", "m", "ok", 1),)
    lines = {
        "hit": line_of(Response("r", "ok", cache=CacheVerdict("exact"), saved_usd=0.5, **answer), "enrich"),
        "late": line_of(Response("r", "error", error=late, **more), "enrich"),
        "failed": line_of(Response("r", "error", error=late, **more), "execute"),
        "paid": line_of(Response("r", "ok", cost_usd=0.5, attempts=attempts, **answer), "execute"),
    }
    writer = DeltaWriter("usage-deltas", "g.executions-0", 1, singly=True)
    return [delta for n, name in enumerate(order) for delta in writer.sum_up([(n, lines[name])], 60_000 * (n + 1))]


async def test_a_request_that_failed_and_is_paid_for_when_sent_again_is_paid_in_the_accounts(
    ready_config: RuntimeConfig,
) -> None:
    answer: dict[str, Any] = {"tenant": "t", "text": "a", "provider": "openai", "model": "m", "usage": Usage(10, 5)}
    failed = Response("r", "error", error=ErrorInfo("deadline_exceeded", "late"), tenant="t")
    paid = Response("r", "ok", cost_usd=0.5, attempts=(Attempt("p", "m", "ok", 1.0),), **answer)
    writer = DeltaWriter("usage-deltas", "g.executions-0", 1, singly=False)
    accounts = UsageAccounts(ready_config.database_url)
    await accounts.start()
    try:
        for offset, response in enumerate((failed, paid, paid)):
            await accounts.count(writer.sum_up([(offset, line_of(response, "execute"))], 60_000 + offset))
        rows = await accounts.report(60, 0, 2**40, [])
    finally:
        await accounts.stop()
    sums = sum((Counter({name: row[name] for name in SUMS}) for row in rows), Counter())
    assert {name: sums[name] for name in ("requests", "errors", "paid", "replayed", "paid_nano", "replayed_nano")} == {
        "requests": 3,
        "errors": 1,
        "paid": 1,
        "replayed": 1,
        "paid_nano": 500_000_000,
        "replayed_nano": 500_000_000,
    }


async def test_a_request_id_answered_twice_is_paid_once_in_the_ledger(
    ready_config: RuntimeConfig, simulator: Simulator, tmp_path: Path
) -> None:
    config = ready_config
    worker = _worker(config, simulator, tmp_path, 0, "enrich,execute,usage")
    await worker.start()
    async with Watch(config) as watch:
        same = request("again", "what is the limit of 3 cards?", cache={"mode": "bypass"})
        await produce(config, [same])
        await watch.until(1, timeout_s=60)
        await produce(config, [same, same])
        await watch.until(3, timeout_s=60)
    await _counted(config, 3)
    code, [line] = await _command(config, "ledger", "--window", "1h", "--settle", "0")
    assert await worker.stop() == 0
    assert len(simulator.paid_calls) == 1
    assert (code, line["calls"]["paid"], line["calls"]["replayed"]) == (0, 1, 2)


async def test_responses_go_on_while_the_usage_process_is_dead(
    ready_config: RuntimeConfig, simulator: Simulator, tmp_path: Path
) -> None:
    config = ready_config
    worker = _worker(config, simulator, tmp_path, 0, "enrich,execute,usage")
    await worker.start()
    worker.kill_children()
    async with Watch(config) as watch:
        await produce(config, [request(f"r{n}", f"thing {n} costs {n}") for n in range(20)])
        seen = await watch.until(20, timeout_s=60)
        assert len(seen.by_id) == 20
    windows = await _counted(config, 20)
    await _until_idle(worker)
    assert await worker.stop() == 0
    assert sum(sums["requests"] for sums in windows.values()) == 20


async def test_the_usage_process_ends_with_its_worker_whichever_pipe_tells_it_first(
    ready_config: RuntimeConfig,
) -> None:
    """A worker's SIGKILL met its usage process while that wrote: its loop ended, its consumer's thread stayed in the
    group, and half of the deltas were counted by nobody from then on.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", usage_process.MODULE), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(usage_process.as_line(ready_config))
    async with asyncio.timeout(120):
        assert b"counted" in await process.stdout.readline()
    process.stdout._transport.close()  # type: ignore[attr-defined]  # the reader's end alone
    try:
        assert await asyncio.wait_for(process.wait(), 30) == 1
    finally:
        if process.returncode is None:
            process.kill()


async def test_what_a_lane_has_aborted_does_not_hold_the_commits_of_usage_back(
    ready_config: RuntimeConfig, simulator: Simulator, tmp_path: Path
) -> None:
    """Faust took the offsets of aborted deltas for ones to come and never committed again: 4,000 behind, by what
    operators see, while all was counted.
    """
    config = ready_config
    topic = config.topic(config.usage_deltas_topic)
    worker = _worker(config, simulator, tmp_path, 0, "usage")
    await worker.start()
    sums = {"requests": 1, "ok": 1, "exact": 1, "exact_nano": 5}
    producer = kafka_client.producer(config, transactional_id=f"{config.group_id}-deltas")
    await producer.start()
    try:
        for number, kept in enumerate((True, False, False, True)):
            delta = Delta(
                f"d{number}", "lane", 1, number, number, int(time.time() * 1000), "acme", "support", "m", sums, {}, ()
            )
            await producer.begin_transaction()
            await producer.send_and_wait(topic, encode(delta), partition=0)
            await (producer.commit_transaction() if kept else producer.abort_transaction())
            if number == 0:
                await _until_committed(config)
        await _until_committed(config)
    finally:
        await producer.stop()
    assert await worker.stop() == 0
    assert (await _counted(config, 2))["acme"]["exact_nano"] == 10


async def test_a_budget_that_is_spent_raises_its_alerts_once_each(
    ready_config: RuntimeConfig, simulator: Simulator, tmp_path: Path
) -> None:
    config = ready_config
    worker = _worker(config, simulator, tmp_path, 0, "enrich,execute,usage")
    with worker.routes.open("a") as routes:
        routes.write('\n[budgets.small]\nwindow = "1d"\ntokens = 100\n')
    await worker.start()
    async with Watch(config) as watch:
        await produce(config, [request(f"r{n}", f"thing {n} costs {n}") for n in range(60)], rate_per_s=100)
        await watch.until(60, timeout_s=60)
    alerts: list[UsageRecord] = []
    deadline = time.monotonic() + 60
    async with Tail(config, config.topic(config.usage_topic), from_beginning=True) as tail:
        while len(alerts) < 2 and time.monotonic() < deadline:
            read = [decode_usage(record.value) for record in await tail.poll(0.2)]
            alerts += [record for record in read if record.type == "alert"]
    assert await worker.stop() == 0
    assert [(alert.budget, alert.tenant, alert.percent) for alert in alerts] == [
        ("small", "acme", 80),
        ("small", "acme", 100),
    ]


@pytest.mark.parametrize("processors", ["enrich,execute", "usage"])
async def test_a_worker_whose_deltas_have_no_topic_says_so_instead_of_waiting_in_its_first_commit_or_for_deltas(
    ready_config: RuntimeConfig, simulator: Simulator, tmp_path: Path, processors: str
) -> None:
    worker = _worker(ready_config, simulator, tmp_path, 0, processors)
    worker.extra = {"STRATAROUTER_USAGE_DELTAS_TOPIC": "absent", "STRATAROUTER_START_TIMEOUT_S": "1"}
    await worker.start(ready=False)
    assert worker.process is not None
    assert await asyncio.wait_for(worker.process.wait(), 60) == 3
    assert "topic t" in worker.log.read_text()
    assert "topics apply" in worker.log.read_text()


async def test_a_usage_process_without_its_topic_is_not_ready_until_the_topic_is_there(
    ready_config: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was assigned nothing, was behind by nothing, and said that it was ready."""
    monkeypatch.setattr(usage_supervisor, "JOINING_S", 20.0)
    config = ready_config.model_copy(update={"usage_deltas_topic": "deltas-to-come"})
    topic = config.topic(config.usage_deltas_topic)
    usage = UsageSupervisor(config, Metrics())
    await usage.start()
    try:
        assert await _said(usage, f"topic {topic} does not exist") == (False, f"topic {topic} does not exist")
        await topics.apply(config, partitions=4)
        assert await _said(usage, "0 records behind", timeout_s=180) == (True, "0 records behind")
    finally:
        await usage.stop()


async def test_of_two_usage_processes_both_are_ready(ready_config: RuntimeConfig) -> None:
    """Only the group's leader knew the topic by what it was asked for: the other one was unready and was started anew
    every 90 s, with a rebalance each time.
    """
    both = [UsageSupervisor(ready_config, Metrics()) for _ in range(2)]
    try:
        for usage in both:
            await usage.start()
        for usage in both:
            assert await _said(usage, "0 records behind", timeout_s=120) == (True, "0 records behind")
    finally:
        for usage in both:
            await usage.stop()


async def test_deltas_that_no_fetch_has_brought_are_told_as_behind(
    ready_config: RuntimeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A join that wedges fetches nothing, so no end is known: it was behind by nothing, and was left alone."""
    config = ready_config
    accounts = UsageAccounts(config.database_url)
    await accounts.start()
    processor = UsageProcessor(config, accounts, (), tmp_path)
    await processor.start()
    try:
        async with asyncio.timeout(60):
            while processor.joining is not None or await processor.lag():
                await asyncio.sleep(0.1)
        monkeypatch.setattr(processor.app.consumer, "highwater", _unknown)
        assert await processor.lag() == 0
        monkeypatch.setattr(processor.app.consumer, "position", _at_the_beginning)
        await _write_deltas(config, 3)
        async with asyncio.timeout(20):
            while await processor.lag() != 3:
                await asyncio.sleep(0.1)
    finally:
        await processor.stop()
        await accounts.stop()


async def test_a_delta_that_faust_loses_on_its_way_is_not_committed_over_and_is_counted_anew(
    ready_config: RuntimeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fetch that a rebalance broke off had moved the position: what it brought was passed over by the next commit,
    and 153 responses of 20,000 were in no account.
    """
    config = ready_config
    monkeypatch.setattr(usage_consumer, "PASSED_OVER_S", 0.5)
    accounts = UsageAccounts(config.database_url)
    await accounts.start()
    losing = UsageProcessor(config, accounts, (), tmp_path / "losing")
    deliver = losing.app.consumer.callback

    async def lose_one(message: Any) -> None:
        if message.offset != 2:
            await deliver(message)

    losing.app.consumer.callback = lose_one
    try:
        await losing.start()
        await _write_deltas(config, 6, partition=1)
        async with asyncio.timeout(60):
            while losing.counted < 5:
                losing.check()
                await asyncio.sleep(0.05)
        async with asyncio.timeout(10):
            while losing._consumer.passed_over() is None:
                await asyncio.sleep(0.05)
        with pytest.raises(BrokerError, match="usage-deltas-1@2 was read and not counted"):
            losing.check()
        assert await losing.lag() == 1
    finally:
        await losing.stop()
    assert (await committed(config, "usage"))[TopicPartition(losing._topic, 1)].offset == 2
    anew = UsageProcessor(config, accounts, (), tmp_path / "anew")
    try:
        await anew.start()
        assert sum((await _counted(config, 6))["acme"].values()) > 0
        anew.check()
    finally:
        await anew.stop()
        await accounts.stop()


async def test_what_a_rebalance_throws_away_is_read_again_where_nothing_is_committed_yet(
    ready_config: RuntimeConfig, tmp_path: Path
) -> None:
    """Faust seeks back to what is committed, and stayed where it was in a partition without: its first deltas were
    never counted, those behind them were, and nothing was behind.
    """
    accounts = UsageAccounts(ready_config.database_url)
    await accounts.start()
    processor = UsageProcessor(ready_config, accounts, (), tmp_path)
    await processor.start()
    consumer = processor.app.consumer
    try:
        async with asyncio.timeout(60):
            while processor.joining is not None or await processor.lag():
                await asyncio.sleep(0.1)
            # 1. As in a rebalance: nothing is taken over, and a fetch under way brings what is there.
            consumer.stop_flow()
            await consumer.wait_for_stopped_flow()
            await _write_deltas(ready_config, 20)
            brought = 0
            while brought < 20:
                brought += await consumer._thread.call_thread(_fetched, consumer._thread._consumer)
            # 2. Its end.
            await consumer.perform_seek()
            consumer.resume_flow()
            while processor.counted < 20:
                await asyncio.sleep(0.1)
    finally:
        await processor.stop()
        await accounts.stop()


async def _fetched(client: AIOKafkaConsumer) -> int:
    """How many records a fetch brings, which are nobody's then."""
    return sum(len(records) for records in (await client._fetcher.fetched_records((), timeout=1.0)).values())


def _unknown(place: object) -> None:
    del place


async def _at_the_beginning(place: object) -> int:
    del place
    return 0


async def _write_deltas(config: RuntimeConfig, count: int, partition: int | None = None) -> None:
    producer = kafka_client.producer(config)
    await producer.start()
    try:
        for number in range(count):
            stamp = int(time.time() * 1000)
            sums = {"requests": 1, "ok": 1, "exact": 1}
            delta = Delta(f"d{number}", "lane", 1, number, number, stamp, "acme", "support", "m", sums, {}, ())
            await producer.send_and_wait(config.topic(config.usage_deltas_topic), encode(delta), partition=partition)
    finally:
        await producer.stop()


async def _said(usage: UsageSupervisor, wanted: str, timeout_s: float = 60.0) -> tuple[bool, str]:
    """What the supervisor says of its process, as soon as it is ``wanted`` or the time is up."""
    deadline = time.monotonic() + timeout_s
    while usage.ready()[1] != wanted and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    return usage.ready()


async def test_a_database_that_drops_its_connections_makes_the_accounts_late_and_not_wrong(
    ready_config: RuntimeConfig, simulator: Simulator, tmp_path: Path
) -> None:
    config, count = ready_config, 300
    worker = _worker(config, simulator, tmp_path, 0, "enrich,execute,usage")
    await worker.start()
    async with Watch(config) as watch:
        producing = asyncio.create_task(produce(config, _load(count), rate_per_s=100))
        for share in (4, 2):
            await watch.until(count // share, timeout_s=60)
            await _execute(
                config,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
        await producing
        await watch.until(count, timeout_s=60)
        seen = await watch.settle(0.5)
    assert sum(seen.by_id.values()) == len(seen.by_id) == count
    windows = await _counted(config, count)
    await _until_idle(worker)
    assert await worker.stop() == 0
    _same(windows, seen)


class Listening:
    """Accounts that count where they ``may``, and hold what they are given else."""

    def __init__(self, *, may: bool) -> None:
        self.may = may
        self.given: list[str] = []

    async def count(self, deltas: Sequence[Delta]) -> list[Any]:
        self.given += [delta.id for delta in deltas]
        await asyncio.sleep(0 if self.may else DAY_S)
        return []

    async def have(self, count: int) -> list[str]:
        """What was given, once there are ``count``."""
        async with asyncio.timeout(60):
            while len(self.given) < count:
                await asyncio.sleep(0.05)
        return sorted(self.given)


@pytest.mark.parametrize("crashed", [False, True])
async def test_a_stop_in_the_middle_of_a_count_ends_it_and_passes_nothing_over(
    ready_config: RuntimeConfig, tmp_path: Path, crashed: bool
) -> None:
    """A stop waited for as long as the database was away, until it was killed, with its place in the group kept. Where
    something of Faust's had crashed before, it did not wait, and committed what was being counted.
    """
    config = ready_config.model_copy(update={"journal_retention_s": 0})
    producer = kafka_client.producer(config)
    await producer.start()
    try:
        for number in range(300):
            delta = Delta(f"d{number:03}", "lane", 1, number, number, 1, "acme", "support", "m", {}, {}, ())
            await producer.send(config.topic(config.usage_deltas_topic), encode(delta), partition=number % 4)
    finally:
        await producer.stop()
    wanted = [f"d{number:03}" for number in range(300)]
    for may in (False, True):
        accounts = Listening(may=may)
        processor = UsageProcessor(config, cast("UsageAccounts", accounts), (), tmp_path / str(may))
        await processor.start()
        try:
            given = await accounts.have(len(wanted) if may else 1)
            if crashed and not may:
                await processor.app.crash(RuntimeError("anything"))
        finally:
            await asyncio.wait_for(processor.stop(), 10)
    assert given == wanted
