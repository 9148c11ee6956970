"""What surrounds the counting: what is acknowledged when, alerts, and when the usage process is started anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from aiokafka.errors import IllegalStateError
from faust.types import TP
from pydantic import SecretStr

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import JournalUnavailableError
from stratarouter_runtime.journal.usage import Spending, UsageAccounts, Window, window_record
from stratarouter_runtime.processors.usage import MAX_BATCH, UsageProcessor, due_alerts
from stratarouter_runtime.processors.usage_process import as_line
from stratarouter_runtime.processors.usage_supervisor import (
    JOINING_S,
    SILENT_S,
    STALLED_S,
    Progress,
    UsageSupervisor,
)
from stratarouter_runtime.route_file import Budget
from stratarouter_runtime.telemetry.metrics import Metrics
from stratarouter_runtime.usage_deltas import Delta, encode

MONEY = Budget("money", usd=10.0)
TOKENS = Budget("tokens", tokens=1000)
NOW_S = 40_000
"""Within the first day."""


def _spent(budget: str, *, usd: float = 0.0, tokens: int = 0) -> Spending:
    return Spending(budget, "acme", 0, 86_400, round(usd * 1e9), tokens)


@pytest.mark.parametrize(
    ("spent", "percents"),
    [
        (_spent("money", usd=7.99, tokens=10**9), []),
        (_spent("money", usd=8.0), [80]),
        (_spent("money", usd=9.999999999), [80]),
        (_spent("money", usd=10.0), [80, 100]),
        (_spent("tokens", usd=99.0, tokens=799), []),
        (_spent("tokens", tokens=1000), [80, 100]),
        (_spent("unknown", usd=99.0), []),
    ],
)
def test_an_alert_is_due_from_80_and_from_100_percent(spent: Spending, percents: list[int]) -> None:
    assert [percent for _, percent in due_alerts([spent], [MONEY, TOKENS], {}, NOW_S)] == percents


@pytest.mark.parametrize("usd", [1.07, 2.14, 4.03])
def test_the_last_nano_dollar_of_a_budget_raises_the_last_alert(usd: float) -> None:
    """1.07 * 1e9 is more than 1,070,000,000 in floats: a budget spent to the end was never said to be."""
    budget, spent = Budget("money", usd=usd), _spent("money", usd=usd)
    assert [percent for _, percent in due_alerts([spent], [budget], {}, NOW_S)] == [80, 100]
    just_below = replace(spent, nano_usd=spent.nano_usd - 1)
    assert [percent for _, percent in due_alerts([just_below], [budget], {}, NOW_S)] == [80]


def test_an_alert_is_raised_once_in_a_window() -> None:
    spent = _spent("money", usd=20.0)
    raised = {("money", "acme", 0, percent): 86_400 for percent in (80, 100)}
    assert due_alerts([spent], [MONEY], raised, NOW_S) == []
    assert len(due_alerts([spent], [MONEY], {("money", "acme", 86_400, 80): 86_400}, NOW_S)) == 2


@pytest.mark.parametrize(
    ("row_s", "now_s", "percents"),
    [(60, 59, [80, 100]), (86_400, 59, [80, 100]), (86_400, 60, []), (86_400, 86_399, [])],
    ids=["its own", "its own, of a day's before", "a day's", "a day's at its end"],
)
def test_an_alert_is_of_the_budgets_present_window_alone(row_s: int, now_s: int, percents: list[int]) -> None:
    """What a day's window held was taken for the minute's after its budget had become one a minute."""
    minute, spent = replace(MONEY, window_s=60), replace(_spent("money", usd=20.0), window_s=row_s)
    due = due_alerts([spent], [minute], {}, now_s)
    assert [(alert.window_s, percent) for alert, percent in due] == [(60, percent) for percent in percents]


@pytest.mark.parametrize(("noted_s", "percents"), [(3600, [80, 100]), (86_400, [100]), (31 * 86_400, [100])])
def test_an_alert_of_a_shorter_window_holds_back_none_of_a_longer_one(noted_s: int, percents: list[int]) -> None:
    raised = {("money", "acme", 0, 80): noted_s}
    due = due_alerts([_spent("money", usd=20.0)], [MONEY], raised, NOW_S)
    assert [percent for _, percent in due] == percents


def _line(**more: object) -> bytes:
    return orjson.dumps({"counted": 5, "lag": 3, "alerts": 0, "waiting": None, "joining": None} | more)


def test_a_process_that_is_behind_and_gets_on_is_left_alone() -> None:
    progress = Progress(0.0, 0.0)
    for second in range(int(STALLED_S) * 3):
        progress.hear(_line(counted=second), float(second))
        assert progress.problem(float(second)) is None


def test_a_process_that_is_behind_and_stands_still_is_ended() -> None:
    progress = Progress(0.0, 0.0)
    progress.hear(_line(), 1.0)
    progress.hear(_line(), STALLED_S)
    assert progress.problem(STALLED_S) is None
    progress.hear(_line(), STALLED_S + 2)
    assert "no progress" in (progress.problem(STALLED_S + 2) or "")


@pytest.mark.parametrize("more", [{"lag": 0}, {"waiting": "the database is away"}])
def test_a_process_that_has_nothing_to_do_or_waits_for_a_server_is_left_alone(more: dict[str, object]) -> None:
    progress = Progress(0.0, 0.0)
    for second in (1.0, STALLED_S, 2 * STALLED_S):
        progress.hear(_line(**more), second)
    assert progress.problem(2 * STALLED_S) is None


def test_a_process_that_reads_nothing_yet_is_not_up_to_date_and_is_ended() -> None:
    """No partitions are no lag: it said for ever that it was ready and 0 records behind."""
    progress = Progress(0.0, 0.0)
    for second in (1.0, STALLED_S + 2, JOINING_S):
        progress.hear(_line(lag=0, joining="joining the group"), second)
        assert progress.problem(second) is None
    assert progress.problem(JOINING_S + 2) == "joining the group for 90 s"
    progress.hear(_line(lag=0), JOINING_S + 2)
    assert progress.problem(JOINING_S + 2) is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, (True, "3 records behind")),
        ({"joining": "topic usage-deltas does not exist"}, (False, "topic usage-deltas does not exist")),
        ({"waiting": "the database is away"}, (False, "the database is away")),
        ({"waiting": "the database is away", "joining": "joining the group"}, (False, "the database is away")),
    ],
)
def test_usage_is_ready_where_it_reads_and_counts(more: dict[str, object], said: tuple[bool, str]) -> None:
    supervisor = UsageSupervisor(RuntimeConfig(), Metrics())
    supervisor.progress = Progress(0.0, 0.0)
    supervisor.progress.hear(_line(**more), 1.0)
    assert supervisor.ready() == said


def test_a_silent_process_is_ended() -> None:
    progress = Progress(0.0, 0.0)
    progress.hear(_line(lag=0), 1.0)
    assert progress.problem(SILENT_S) is None
    assert "no word" in (progress.problem(SILENT_S + 2) or "")


@pytest.mark.parametrize(
    "line",
    [
        b"", b"x\n", b"1\n", b"null\n", b"[]\n", b"{}\n",
        _line(counted="5"), _line(lag=None), _line(alerts=1.5), _line(counted=True), _line(waiting=7),
        _line(joining=True),
    ],
)  # fmt: skip
def test_a_line_that_is_no_progress_is_said_and_changes_nothing(line: bytes) -> None:
    """A stray line of JSON ended the supervisor for good, without a word."""
    progress = Progress(0.0, 0.0)
    with pytest.raises(ValueError, match=r"is no progress|unexpected|empty"):
        progress.hear(line, 1.0)
    assert progress == Progress(0.0, 0.0)


def test_the_process_gets_every_setting_with_its_secrets() -> None:
    config = RuntimeConfig(
        group_id="g", security_protocol="SASL_PLAINTEXT", sasl_username="u", sasl_password=SecretStr("s3cret")
    )
    there = RuntimeConfig(**orjson.loads(as_line(config)))
    assert there == config
    assert there.sasl_password is not None
    assert there.sasl_password.get_secret_value() == "s3cret"


class Accounts:
    """Counts where it may."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.may_go = asyncio.Event()
        self.may_go.set()
        self.ids: list[str] = []
        self.counted: list[Window] = []
        self.left: list[list[Window]] = []

    async def prune(self, before_s: int) -> None:
        """Cannot."""
        self.begun.set()
        raise JournalUnavailableError(f"the journal failed to prune usage before {before_s}: TimeoutError")

    async def count(self, deltas: Sequence[Delta]) -> list[Any]:
        self.begun.set()
        await self.may_go.wait()
        self.ids += [delta.id for delta in deltas]
        return self.counted

    async def windows(self, keys: Sequence[Any]) -> list[Window]:
        """As another process has left them."""
        return [one for one in (self.left.pop(0) if self.left else self.counted) if one.key in keys]


@pytest.fixture
def accounts() -> Accounts:
    return Accounts()


@pytest.fixture
async def processor(accounts: Accounts, tmp_path: Path) -> AsyncIterator[UsageProcessor]:
    made = UsageProcessor(RuntimeConfig(), cast("UsageAccounts", accounts), (), tmp_path)
    yield made
    # Of a thread that never started.
    made.app.consumer._thread.thread_loop.close()


async def _read(processor: UsageProcessor, values: Sequence[bytes | None]) -> list[Any]:
    """What the agent read of ``values``, all of it counted."""
    [agent] = processor.app.agents.values()
    async with agent.test_context() as running:
        read = [await running.put(value, wait=False) for value in values]
        async with asyncio.timeout(5.0):
            while processor.counted < len(read):
                await asyncio.sleep(0.01)
    return read


def _delta(name: str) -> bytes:
    return encode(Delta(name, "lane", 1, 0, 0, 1, "acme", "support", "m", {}, {}, ()))


async def test_a_count_that_a_stop_breaks_off_is_not_acknowledged(
    processor: UsageProcessor, accounts: Accounts
) -> None:
    """Faust acknowledged the batch as the agent ended, and committed it: 200 deltas that nobody ever counted."""
    accounts.may_go.clear()
    [agent] = processor.app.agents.values()
    async with agent.test_context() as running:
        read = [await running.put(_delta(f"d{number}"), wait=False) for number in range(3)]
        await asyncio.wait_for(accounts.begun.wait(), 5.0)
    assert accounts.ids == []
    assert [one.message.acked for one in read] == [False] * 3


async def test_what_is_counted_is_acknowledged(processor: UsageProcessor, accounts: Accounts) -> None:
    names = [f"d{number}" for number in range(2 * MAX_BATCH + 50)]
    read = await _read(processor, [_delta(name) for name in names])
    assert accounts.ids == names
    assert all(one.message.acked for one in read)


async def test_what_is_no_delta_is_passed_over_and_holds_nothing_up(
    processor: UsageProcessor, accounts: Accounts
) -> None:
    """A tombstone has no value to show in the log: the agent ended over it, and its batch was lost."""
    read = await _read(processor, [_delta("before"), None, b"", b"\xff", b"{}", _delta("after")])
    assert accounts.ids == ["before", "after"]
    assert all(one.message.acked for one in read)


async def test_a_processor_that_has_joined_no_group_or_lacks_its_topic_says_so(processor: UsageProcessor) -> None:
    assert processor.joining == "joining the group"
    processor.app.rebalancing_count, processor.app.rebalancing = 1, True
    assert processor.joining == "joining the group"
    processor.app.rebalancing = False
    assert processor.joining == "topic usage-deltas does not exist"


async def test_a_partition_that_a_rebalance_takes_away_is_nothing_to_be_behind_of(
    processor: UsageProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ended over it, and nobody counted its partitions until its session in the group was over."""
    kept, lost = TP("usage-deltas", 0), TP("usage-deltas", 1)

    async def position(place: TP) -> int:
        if place == lost:
            raise IllegalStateError(f"Partition {place} is not assigned")
        return 3

    consumer = processor.app.consumer
    monkeypatch.setattr(consumer, "assignment", lambda: {kept, lost})
    monkeypatch.setattr(consumer, "highwater", lambda _: 5)
    monkeypatch.setattr(consumer, "position", position)
    assert await processor.lag() == 2


def _window(requests: int, tenant: str = "acme") -> Window:
    return Window((60, 120, tenant, "support", "m"), {"requests": requests})


async def test_a_window_that_another_process_raised_is_published_as_it_stands_last(
    processor: UsageProcessor, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes count in one window; the smaller value was published behind the larger one, and stayed."""
    published: list[list[tuple[bytes, bytes]]] = []

    async def publish(found: list[tuple[bytes, bytes]]) -> None:
        published.append(found)

    monkeypatch.setattr(processor, "_publish", publish)
    accounts.counted = [_window(7), _window(1, "globex")]
    accounts.left = [[_window(9), _window(1, "globex")], [_window(10)], [_window(10)]]
    await processor._count([_delta("d1")])
    wanted = [[_window(7), _window(1, "globex")], [_window(9)], [_window(10)]]
    assert published == [[window_record(window) for window in some] for some in wanted]


async def test_a_prune_that_fails_is_nothing_that_counting_waits_for(
    processor: UsageProcessor, accounts: Accounts
) -> None:
    """It made a worker that counts unready, and one that stands still was left alone for it."""
    pruning = asyncio.create_task(processor._prune())
    await asyncio.wait_for(accounts.begun.wait(), 5.0)
    await asyncio.sleep(0)
    assert processor.waiting is None
    pruning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pruning


async def test_counting_that_fails_says_for_what_it_waits(
    processor: UsageProcessor, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = asyncio.Event()

    async def refuse(deltas: Sequence[Delta]) -> list[Any]:
        refused.set()
        raise JournalUnavailableError("the database is away")

    monkeypatch.setattr(accounts, "count", refuse)
    [agent] = processor.app.agents.values()
    async with agent.test_context() as running:
        await running.put(_delta("d"), wait=False)
        await asyncio.wait_for(refused.wait(), 5.0)
        await asyncio.sleep(0)
        assert "the database is away" in (processor.waiting or "")
        monkeypatch.undo()
        async with asyncio.timeout(5.0):
            while processor.counted < 1:
                await asyncio.sleep(0.01)
    assert processor.waiting is None
