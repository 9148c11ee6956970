"""The command line with one fault planned: ``python -m support.crashing worker ...`` in place of the real one.

``CRASH_AT`` is ``point[:value][@occurrence]``; for a point that only kills, ``point:n`` means ``point@n``.

=====================  ==============================================================================================
before_begin           SIGKILL to itself before the journal is asked for the n-th row (several rows make one statement)
after_begin            once the n-th row is durably ``started``, before anybody is told
after_call             once the provider has answered for the n-th time, before anything is done with it
before_finish          before the n-th result is sent to the journal
after_finish           once the n-th result is durable, before anybody is told
before_offsets         in the n-th transaction, its outputs sent and its offsets not
after_offsets          in the n-th transaction, all sent but its end
in_commit:MS           MS milliseconds after the n-th end of a transaction was handed to the socket
after_commit           once the n-th transaction is known to be committed, before anybody is told
block_loop:SECONDS     the event loop sleeps, once, after the n-th durable result
clock_jump:SECONDS     the wall clock jumps, once, after the n-th durable result; the monotonic one goes on
raise_in:STEP:MARKER   STEP (see ``STEPS``) raises RuntimeError for each query that contains MARKER
=====================  ==============================================================================================

``CRASH_ON`` is a prefix of request ids: other rows, calls and results are not counted. ``CRASH_IN`` is the processor
whose transactions are. ``CRASH_ARMED_AFTER`` is the number of durable results before which nothing is counted.
``BROKER_VIA`` is ``port=other``: what would connect to a broker's ``port`` connects to ``other``.
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = ("-m", "support.crashing")
"""For ``WorkerProcess.program``."""
STEPS = ("enrich", "enrich_publish", "execute", "execute_publish")
END_TXN = 26
"""Kafka's api key of EndTxn (Apache Kafka protocol guide)."""
_SPEC = re.compile(r"(?P<point>[a-z_]+)(?::(?P<value>[^@]+))?(?:@(?P<nth>\d+))?")
_WITH_VALUE = frozenset({"in_commit", "block_loop", "clock_jump", "raise_in"})
_COUNTING = frozenset({"before_finish", "after_finish", "block_loop", "clock_jump"})
"""Points that count durable results by themselves."""


def planned(
    crash_at: str = "",
    *,
    on: str = "",
    processor: str = "execute",
    armed_after: int = 0,
    broker_via: tuple[int, int] | None = None,
) -> dict[str, str]:
    """The environment of a worker with this fault, and with ``broker_via`` (real port, other port)."""
    path = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "CRASH_AT": crash_at,
        "CRASH_ON": on,
        "CRASH_IN": processor,
        "CRASH_ARMED_AFTER": str(armed_after),
        "BROKER_VIA": "" if broker_via is None else "{}={}".format(*broker_via),
    }


async def dies(process: asyncio.subprocess.Process | None, timeout_s: float = 60.0) -> None:
    """Wait until it has killed itself; fails where it ended in any other way."""
    assert process is not None
    assert await asyncio.wait_for(process.wait(), timeout_s) == -signal.SIGKILL


@dataclass
class Plan:
    """What is to happen, and how far it is. ``nth`` counts from 1."""

    point: str
    value: str
    nth: int
    on: str
    processor: str
    armed_after: int
    recorded: int = 0
    happened: int = 0
    fired: bool = False

    @classmethod
    def read(cls, environment: dict[str, str]) -> Plan | None:
        """None where nothing is planned. Raises ValueError for what cannot be understood."""
        text = environment.get("CRASH_AT", "")
        if not text:
            return None
        found = _SPEC.fullmatch(text)
        if found is None:
            raise ValueError(f"CRASH_AT={text!r} is not point[:value][@occurrence]")
        point, value, nth = found["point"], found["value"] or "", int(found["nth"] or 1)
        if point not in INSTALL:
            raise ValueError(f"CRASH_AT={text!r} names no point of {', '.join(INSTALL)}")
        if point not in _WITH_VALUE and value:
            nth = int(value)
        armed_after = int(environment.get("CRASH_ARMED_AFTER") or 0)
        return cls(
            point, value, nth, environment.get("CRASH_ON", ""), environment.get("CRASH_IN", "execute"), armed_after
        )

    def meant(self, request_ids: Sequence[str]) -> int:
        """How many of them count."""
        return sum(request_id.startswith(self.on) for request_id in request_ids)

    def meant_transaction(self, transactional_id: str | None) -> bool:
        """Lanes name theirs ``<group>-<processor>.<topic>.<partition>``."""
        return transactional_id is not None and f"-{self.processor}." in transactional_id

    def is_due(self, count: int) -> bool:
        """Count ``count`` more; True once, when the n-th is among them."""
        if self.fired or self.recorded < self.armed_after:
            return False
        self.happened += count
        self.fired = self.happened >= self.nth
        return self.fired

    def say(self, text: str) -> None:
        """To the log, past every buffer: nothing may be lost with the process."""
        os.write(2, f"planned fault: {self.point} {text}\n".encode())

    def die(self) -> None:
        """SIGKILL, at once."""
        self.say("dies now")
        os.kill(os.getpid(), signal.SIGKILL)


# --- the points ------------------------------------------------------------------------------------------------


def _wrap(owner: type, name: str, around: Callable[..., Any]) -> None:
    """Replace ``owner.name`` by ``around(original, self, *arguments)``."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        return around(original, self, *args, **kwargs)

    setattr(owner, name, wrapped)


def _ids(items: Sequence[Any]) -> list[str]:
    return [item.key.request_id for item in items]


def _at_begin(plan: Plan) -> None:
    from stratarouter_runtime.journal.postgres import PostgresJournal

    async def begin(original: Any, journal: Any, items: Sequence[Any]) -> Any:
        count = plan.meant(_ids(items))
        if plan.point == "before_begin" and count and plan.is_due(count):
            plan.die()
        begun = await original(journal, items)
        if plan.point == "after_begin" and count and plan.is_due(count):
            plan.die()
        return begun

    _wrap(PostgresJournal, "begin", begin)


def _at_call(plan: Plan) -> None:
    from stratarouter_runtime.providers import ProviderSet

    async def call(original: Any, providers: Any, provider: str, call: Any, **more: Any) -> Any:
        answer = await original(providers, provider, call, **more)
        if plan.meant([call.request_id]) and plan.is_due(1):
            plan.die()
        return answer

    _wrap(ProviderSet, "call", call)


def _at_finish(plan: Plan, act: Callable[[], object] | None = None) -> None:
    """Counts durable results for every plan; those of this point act on them."""
    from stratarouter_runtime.journal.postgres import PostgresJournal

    async def finish(original: Any, journal: Any, items: Sequence[Any]) -> Any:
        count = plan.meant(_ids(items))
        if plan.point == "before_finish" and count and plan.is_due(count):
            plan.die()
        recorded = await original(journal, items)
        plan.recorded += count
        if act is not None and count and plan.is_due(count):
            act()
        return recorded

    _wrap(PostgresJournal, "finish", finish)


def _at_transaction(plan: Plan) -> None:
    from aiokafka import AIOKafkaProducer

    def meant(producer: Any) -> bool:
        manager = producer._txn_manager
        return manager is not None and plan.meant_transaction(manager.transactional_id)

    async def send_offsets(original: Any, producer: Any, *args: Any) -> None:
        # An idle lane commits offsets alone, past gaps; what is counted here has outputs that could be lost. They are
        # under way beside this: both points are where the broker has them.
        await producer.flush()
        counts = meant(producer) and not producer._txn_manager.is_empty_transaction()
        if plan.point == "before_offsets" and counts and plan.is_due(1):
            plan.die()
        await original(producer, *args)
        if plan.point == "after_offsets" and counts and plan.is_due(1):
            plan.die()

    async def commit(original: Any, producer: Any) -> None:
        await original(producer)
        if plan.point == "after_commit" and meant(producer) and plan.is_due(1):
            plan.die()

    _wrap(AIOKafkaProducer, "send_offsets_to_transaction", send_offsets)
    _wrap(AIOKafkaProducer, "commit_transaction", commit)


def _in_commit(plan: Plan) -> None:
    from aiokafka.conn import AIOKafkaConnection

    def send(original: Any, connection: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        sent = original(connection, request, *args, **kwargs)
        if request.API_KEY == END_TXN and plan.meant_transaction(request._transactional_id) and plan.is_due(1):
            _when_written(connection._writer.transport, lambda: _later(float(plan.value) / 1000, plan.die))
        return sent

    _wrap(AIOKafkaConnection, "send", send)


def _later(delay_s: float, act: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(delay_s, act)


def _when_written(transport: asyncio.WriteTransport, act: Callable[[], None]) -> None:
    """``act`` once the kernel has every byte; uvloop writes at the end of an iteration."""

    def look() -> None:
        if transport.get_write_buffer_size() == 0:
            act()
        else:
            asyncio.get_running_loop().call_soon(look)

    asyncio.get_running_loop().call_soon(look)


def _block_loop(plan: Plan) -> None:
    def block() -> None:
        plan.say("begins")
        time.sleep(float(plan.value))
        plan.say("has ended")

    _at_finish(plan, lambda: asyncio.get_running_loop().call_soon(block))


def _clock_jump(plan: Plan) -> None:
    """Replaces ``time.time`` and ``time.time_ns`` before anybody can have taken them as default arguments.

    ``datetime.now`` reads the clock from C and stays as it is; nothing of the runtime asks it.
    """
    real, real_ns = time.time, time.time_ns
    offset_s = 0.0

    def jump() -> None:
        nonlocal offset_s
        offset_s = float(plan.value)
        plan.say(f"by {offset_s} s")

    time.time = lambda: real() + offset_s
    time.time_ns = lambda: real_ns() + int(offset_s * 1e9)
    _at_finish(plan, jump)


def _raise_in(plan: Plan) -> None:
    step, _, marker = plan.value.partition(":")
    if step not in STEPS or not marker:
        raise ValueError(f"raise_in:{plan.value} is not raise_in:<one of {', '.join(STEPS)}>:<marker>")
    _RAISING[step](functools.partial(_raise_for, plan, step, marker))


def _raise_for(plan: Plan, step: str, marker: str, query: str) -> None:
    if marker in query:
        plan.say(f"raises in {step}: {query}")
        raise RuntimeError(f"nobody foresaw {marker}")


def _raise_in_enrich(check: Callable[[str], None]) -> None:
    from stratarouter_runtime.engine.accept import Acceptor

    def accept(original: Any, acceptor: Any, request: Any, source: Any) -> Any:
        check(str(request.messages))
        return original(acceptor, request, source)

    _wrap(Acceptor, "accept", accept)


def _raise_in_enrich_publish(check: Callable[[str], None]) -> None:
    from stratarouter_runtime.processors.publish import Outputs

    def execution(original: Any, outputs: Any, execution: Any) -> Any:
        check(str(execution.request.messages))
        return original(outputs, execution)

    _wrap(Outputs, "execution", execution)


def _raise_in_execute(check: Callable[[str], None]) -> None:
    from stratarouter_runtime.engine.perform import Performer

    async def perform(original: Any, performer: Any, work: Any) -> Any:
        check(str(work.execution.request.messages))
        return await original(performer, work)

    _wrap(Performer, "perform", perform)


def _raise_in_execute_publish(check: Callable[[str], None]) -> None:
    from stratarouter_runtime.processors.publish import Outputs

    def response(original: Any, outputs: Any, response: Any, **more: Any) -> Any:
        # A response holds no query; the marker is in the request id as well.
        check(response.request_id)
        return original(outputs, response, **more)

    _wrap(Outputs, "response", response)


_RAISING: dict[str, Callable[[Callable[[str], None]], None]] = {
    "enrich": _raise_in_enrich,
    "enrich_publish": _raise_in_enrich_publish,
    "execute": _raise_in_execute,
    "execute_publish": _raise_in_execute_publish,
}

INSTALL: dict[str, Callable[[Plan], None]] = {
    "before_begin": _at_begin,
    "after_begin": _at_begin,
    "after_call": _at_call,
    "before_finish": _at_finish,
    "after_finish": lambda plan: _at_finish(plan, plan.die),
    "before_offsets": _at_transaction,
    "after_offsets": _at_transaction,
    "in_commit": _in_commit,
    "after_commit": _at_transaction,
    "block_loop": _block_loop,
    "clock_jump": _clock_jump,
    "raise_in": _raise_in,
}


# --- this process ----------------------------------------------------------------------------------------------


def _divert(via: str) -> None:
    """Send connections to one port to another; the address that the broker advertises leaves no other way."""
    from aiokafka.conn import AIOKafkaConnection

    real, other = (int(port) for port in via.split("="))

    def port(connection: Any) -> int:
        asked: int = connection._port
        return other if asked == real else asked

    AIOKafkaConnection.port = property(port)


def main() -> None:
    """Plan the fault, then be the command line."""
    environment = dict(os.environ)
    plan = Plan.read(environment)
    if plan is not None:
        INSTALL[plan.point](plan)
        if plan.point not in _COUNTING:
            _at_finish(plan)
    if environment.get("BROKER_VIA"):
        _divert(environment["BROKER_VIA"])
    from stratarouter_runtime.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
