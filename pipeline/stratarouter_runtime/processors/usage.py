"""usage: reads the deltas with Faust, counts them in PostgreSQL, publishes the windows and the alerts.

The windowed tables live in PostgreSQL, where one transaction tells a delta that was counted before and raises the
windows by the rest; a table of Faust's, changed and acknowledged apart, counts twice after a crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import faust
from aiokafka.errors import IllegalStateError

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import BrokerError, InfrastructureError, InvalidRecordError
from stratarouter_runtime.journal.usage import Spending, UsageAccounts, alert_record, window_record
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.usage_consumer import UsageConsumer, UsageTransport
from stratarouter_runtime.route_file import Budget
from stratarouter_runtime.telemetry.logs import event
from stratarouter_runtime.usage_deltas import Delta, decode

log = logging.getLogger("stratarouter.usage")
T = TypeVar("T")

MAX_BATCH = 200
"""Deltas counted in one transaction."""
BATCH_WITHIN_S = 0.1
"""How long a batch waits for more: the accounts are that late."""
MAX_LOOKS = 20
"""At what a batch has published. Others raise a window that often within milliseconds only while much more comes in,
which publishes it again.
"""
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.2, 5.0
"""Waits between tries while PostgreSQL or the broker is away."""
BUDGETS_EVERY_S = 5.0
"""Between two looks at the budgets."""
PRUNE_EVERY_S = 3600.0
LEAST_KEPT_S = 8 * 86_400.0
"""Ids of deltas outlive the deltas, which their topic keeps for 7 days: an older one cannot come again."""
ALERT_PERCENTS = (80, 100)
POSITION_TIMEOUT_S = 5.0


def due_alerts(
    spendings: Sequence[Spending],
    budgets: Sequence[Budget],
    raised: Mapping[tuple[str, str, int, int], int],
    now_s: int,
) -> list[tuple[Spending, int]]:
    """Which alerts to raise now, in epoch seconds: of each budget that passed 80 or 100 % of its money or its tokens in
    its present window, those not raised before in this one, or a longer one that began with it.
    """
    by_name = {budget.name: budget for budget in budgets}
    return [
        (replace(spent, window_s=budget.window_s), percent)
        for spent in spendings
        if (budget := by_name.get(spent.budget)) is not None and spent.window_start == now_s - now_s % budget.window_s
        for percent in ALERT_PERCENTS
        if _passes(spent, budget, percent)
        and raised.get((spent.budget, spent.tenant, spent.window_start, percent), 0) < budget.window_s
    ]


def _passes(spent: Spending, budget: Budget, percent: int) -> bool:
    money = budget.nano_usd is not None and spent.nano_usd * 100 >= budget.nano_usd * percent
    return money or (budget.tokens is not None and spent.tokens * 100 >= budget.tokens * percent)


def faust_app(config: RuntimeConfig, datadir: Path) -> faust.App:
    """A Faust app for the accounts: no web port, no topics of its own, reads what is committed."""
    servers = ";".join(f"kafka://{server.strip()}" for server in config.bootstrap_servers.split(","))
    session_s = config.session_timeout_ms / 1000
    app = faust.App(
        f"{config.group_id}-usage",
        broker=servers,
        broker_credentials=_credentials(config),
        broker_session_timeout=session_s,
        broker_heartbeat_interval=min(3.0, session_s / 5),
        broker_commit_interval=0.5,
        producer_linger=0.005,
        consumer_auto_offset_reset="earliest",
        processing_guarantee="at_least_once",
        datadir=str(datadir),
        web_enabled=False,
        web_bind="127.0.0.1",
        topic_disable_leader=True,
        topic_allow_declare=False,
        autodiscover=False,
    )
    app.transport = UsageTransport(app.conf.broker_consumer, app)
    return app


def _credentials(config: RuntimeConfig) -> Any:
    settings = kafka_client.connection(config)
    context = settings["ssl_context"]
    if "SASL" in config.security_protocol:
        return faust.SASLCredentials(
            mechanism=settings["sasl_mechanism"],
            username=settings["sasl_plain_username"],
            password=settings["sasl_plain_password"],
            ssl_context=context,
        )
    return None if context is None else faust.SSLCredentials(context=context)


class UsageProcessor:
    """Counts deltas until stopped. Not restartable: a Faust app is not.

    Args:
        config: the settings.
        accounts: connected.
        budgets: those of the route table, for the alerts.
        datadir: a folder of its own for Faust.
    """

    def __init__(
        self, config: RuntimeConfig, accounts: UsageAccounts, budgets: Sequence[Budget], datadir: Path
    ) -> None:
        self._config = config
        self._accounts = accounts
        self._budgets = tuple(budgets)
        self.counted = 0
        """Deltas handled since the start, those counted before among them."""
        self.alerts = 0
        self.waiting: str | None = None
        """What counting waits for, where it does."""
        self.app = faust_app(config, datadir)
        raw: dict[str, Any] = {
            "key_type": bytes,
            "value_type": bytes,
            "key_serializer": "raw",
            "value_serializer": "raw",
        }
        self._topic = config.topic(config.usage_deltas_topic)
        self._deltas = self.app.topic(self._topic, **raw)
        self._usage = self.app.topic(config.topic(config.usage_topic), **raw)
        self._agent = self.app.agent(self._deltas, name="usage")(self._read)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Join the group and begin."""
        await self.app.start()
        self._tasks = [
            asyncio.create_task(self._watch_budgets(), name="budgets"),
            asyncio.create_task(self._prune(), name="prune usage"),
        ]

    async def stop(self) -> None:
        """Leave the group. What was not acknowledged is read again, and known."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # 1. Break the count off. Faust would wait for its end, for as long as PostgreSQL is away and past any timeout:
        # its wait swallows cancellations.
        await self._agent.stop()
        # 2. Nobody goes on with what the agent held, so nothing waits for it.
        self.app.consumer.unacked.clear()
        # 3. Commit what is acknowledged.
        await self.app.stop()

    @property
    def joining(self) -> str | None:
        """Why it reads no deltas yet, where that is so; None where it does, or where others have all partitions.
        Without partitions there is nothing to be behind of, and the lag says nothing.
        """
        if not self.app.rebalancing_count or self.app.rebalancing:
            return "joining the group"
        if not self.app.consumer.topic_partitions(self._topic):
            return f"topic {self._topic} does not exist"
        return None

    @property
    def _consumer(self) -> UsageConsumer:
        return cast("UsageConsumer", self.app.consumer)

    async def lag(self) -> int:
        """Deltas and markers of transactions behind the end of the assigned partitions."""
        consumer = self._consumer
        behind = consumer.open()
        async with asyncio.timeout(POSITION_TIMEOUT_S):
            ends = {place: consumer.highwater(place) for place in consumer.assignment()}
            unread = [place for place, end in ends.items() if end is None]
            if unread:
                # No fetch has brought their ends yet, and where a join has wedged none ever will.
                ends |= await consumer.highwaters(*unread)
            for place, end in ends.items():
                # A rebalance may take the partition away meanwhile, and others are behind in it then.
                with contextlib.suppress(IllegalStateError):
                    behind += max(0, (end or 0) - (await consumer.position(place) or 0))
        return behind

    def check(self) -> None:
        """Raise BrokerError where a delta was read that nothing will ever count. Who starts anew reads it again."""
        passed_over = self._consumer.passed_over()
        if passed_over is not None:
            raise BrokerError(f"{passed_over} was read and not counted", remedy="none is needed: it is read again")

    # -- deltas ------------------------------------------------------------------------------------------------

    async def _read(self, stream: Any) -> None:
        # Not ``take``, which acknowledges a batch whatever became of it.
        batches: AsyncIterable[Sequence[Any]] = stream.noack_take(MAX_BATCH, within=BATCH_WITHIN_S)
        async for read in batches:
            # 1. Count. An exception here would begin a new agent behind the batch; so there is none but a stop.
            await self._patiently(partial(self._count, [one.value for one in read]), self._wait_for)
            # 2. Acknowledge, in the same turn of the loop.
            for one in read:
                await stream.ack(one)
            self.counted += len(read)

    async def _count(self, values: Sequence[bytes | None]) -> None:
        deltas = [delta for value in values if (delta := _decoded(value)) is not None]
        # 1. Counted, durably and once.
        windows = await self._accounts.count(deltas)
        # 2. Published as they stand, until they still stand so: another process may have raised one since, and have
        #    published it before ours was in. Who comes last says what is there.
        for _ in range(MAX_LOOKS):
            if not windows:
                break
            await self._publish([window_record(window) for window in windows])
            told = {window.key: window for window in windows}
            windows = [one for one in await self._accounts.windows(sorted(told)) if one != told[one.key]]

    async def _publish(self, found: Sequence[tuple[bytes, bytes]]) -> None:
        for sent in [await self._usage.send(key=key, value=value) for key, value in found]:
            await sent

    def _wait_for(self, cause: str | None) -> None:
        self.waiting = cause

    async def _patiently(
        self, work: Callable[[], Awaitable[T]], waits: Callable[[str | None], None] = lambda _: None
    ) -> T:
        """Until it is done: a delta is never passed over. ``waits`` hears for what, and None at the end: only what
        counting waits for excuses that it stands still.
        """
        backoff = FIRST_BACKOFF_S
        while True:
            try:
                done = await work()
            except InfrastructureError as exc:
                cause = str(exc)
            except kafka_client.CLIENT_ERRORS as exc:
                cause = repr(exc)
            except Exception as exc:
                # The agent's outermost guard: Faust would drop the batch.
                log.exception("usage not counted")
                cause = repr(exc)
            else:
                waits(None)
                return done
            waits(cause)
            event(log, logging.WARNING, "usage waits", cause=cause, wait_s=backoff)
            await asyncio.sleep(backoff)
            backoff = min(MAX_BACKOFF_S, backoff * 2)

    # -- beside ------------------------------------------------------------------------------------------------

    async def _watch_budgets(self) -> None:
        while self._budgets:
            await self._patiently(self._raise_alerts)
            await asyncio.sleep(BUDGETS_EVERY_S)

    async def _raise_alerts(self) -> None:
        spendings, raised = await self._accounts.spending(), await self._accounts.alerted()
        for spent, percent in due_alerts(spendings, self._budgets, raised, int(time.time())):
            event(
                log, logging.WARNING, "budget alert", budget=spent.budget, tenant=spent.tenant, percent=percent,
                spent_usd=spent.nano_usd / 1e9, spent_tokens=spent.tokens, window_start=spent.window_start,
            )  # fmt: skip
            # Published first: a crash in between repeats the record under the same key, and loses none.
            await self._publish([alert_record(spent, percent)])
            await self._accounts.note_alert(spent, percent)
            self.alerts += 1

    async def _prune(self) -> None:
        kept_s = max(self._config.journal_retention_s, LEAST_KEPT_S)
        while self._config.journal_retention_s > 0:
            await self._patiently(lambda: self._accounts.prune(int(time.time() - kept_s)))
            await asyncio.sleep(PRUNE_EVERY_S)


def _decoded(value: bytes | None) -> Delta | None:
    try:
        return decode(value)
    except InvalidRecordError as exc:
        # Only lanes write here; one that is not ours can be counted by nobody, and must not hold the others up.
        event(log, logging.ERROR, "delta not understood", cause=exc.message, value=repr(value)[:200])
        return None
