"""A leader, and its work on the way through the performer and the caller."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from dataclasses import field, replace
from typing import Any

from stratarouter_runtime.engine import lookup, respond
from stratarouter_runtime.engine.asking import Looked
from stratarouter_runtime.engine.coalesce import Candidate
from stratarouter_runtime.engine.respond import Story
from stratarouter_runtime.errors import DeadlineExceededError, IdempotencyConflictError, ShuttingDownError
from stratarouter_runtime.plain import dataclass
from stratarouter_runtime.port_values import JournalKey, Recorded
from stratarouter_runtime.ports import Clock
from stratarouter_runtime.records import Attempt, Execution, Response
from stratarouter_runtime.state.cache_control import BEFORE_ALL, Origin
from stratarouter_runtime.told import Told

SHARED_ERRORS = frozenset({"provider_rejected", "unsupported_parameter"})
"""Errors that the same words would meet again; followers with the same words share them."""

OnText = Callable[[str], None]
"""Hears an answer in pieces."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a request is to be executed; see ``Engine.submit``. ``due`` is the same whatever it has waited for before."""

    check_journal: bool
    deferred: bool
    on_text: OnText | None
    looked: Looked | None
    ended: asyncio.Future[None] | None
    told: Told
    due: float
    failed_leaders: int

    def tell(self, task: asyncio.Task[Response] | None = None) -> None:
        """There is a response: whoever waits for the end goes on in the event loop's next turn.

        With ``task``: it is done. Where nobody waits for it any more, its exception has been seen.
        """
        if self.ended is None:
            return
        if not self.ended.done():
            self.told.tell(self.ended)
        elif task is not None and not task.cancelled():
            task.exception()


@dataclass(frozen=True, slots=True)
class Running:
    """A request that was submitted and is not answered yet: what it is, and who has its response."""

    payload_hash: str
    task: asyncio.Task[Response]


class Spoken:
    """An answer on its way: what was said so far, and who listens. A late listener hears it from the beginning."""

    def __init__(self, listener: Callable[[str], None]) -> None:
        self._pieces: list[str] = []
        self._listeners = [listener]

    def __bool__(self) -> bool:
        """Whether anything was said: from there on nobody can be given another answer."""
        return bool(self._pieces)

    def say(self, text: str) -> None:
        """The next piece."""
        self._pieces.append(text)
        for listener in self._listeners:
            listener(text)

    def join(self, listener: Callable[[str], None]) -> None:
        """Listen too."""
        for piece in self._pieces:
            listener(piece)
        self._listeners.append(listener)


@dataclass(slots=True)
class Work:
    """One leader's work.

    Attributes:
        due: monotonic seconds after which nobody waits for the answer; moves on when a follower can wait longer.
        timeout_s: for the calls, from the moment the first may be made: waiting for a busy provider or for the journal
            counts against ``due`` alone.
        began: that moment.
        asked: the journal may hold it as started by us; from there on it is not given up.
        deferred: nobody can ever ask for this request again (its id was made up here, for a caller in this process):
            the journal is written after the answer is given.
        cuts: what ends the calls under way once nobody waits any more; told when ``due`` moves.
        spoken: where somebody listens to the answer as it comes; None asks for it as a whole.
    """

    execution: Execution
    key: JournalKey
    due: float
    timeout_s: float
    began: float = math.inf
    asked: bool = False
    spoken: Spoken | None = None
    deferred: bool = False
    cuts: set[Callable[[], None]] = field(default_factory=set)
    attempts: list[Attempt] = field(default_factory=list)
    timings_ms: dict[str, float] = field(default_factory=dict)
    from_journal: bool = False

    @property
    def deadline(self) -> float:
        """When the calls must have ended."""
        return min(self.due, self.latest)

    @property
    def latest(self) -> float:
        """When the calls must have ended however long somebody would wait."""
        return self.began + self.timeout_s

    def wait_until(self, due: float) -> None:
        """Somebody waits for the answer until then, monotonic seconds."""
        if due > self.due:
            self.due = due
            for move in self.cuts:
                move()


@dataclass(slots=True, eq=False)
class Leader:
    """A request that others may follow until its outcome is there and, where that is shared, kept."""

    candidate: Candidate
    work: Work
    outcome: asyncio.Future[Recorded]
    begun: int
    """The position of the cache-control topic when it began."""
    task: asyncio.Task[None] | None = None

    @property
    def answer_begun(self) -> int:
        """The position at which its answer was asked for. One out of the journal may be of any age."""
        return BEFORE_ALL if self.work.from_journal else self.begun

    @property
    def origin(self) -> Origin:
        """What its answer is kept under."""
        return lookup.origin(self.work.execution, self.answer_begun)

    def shares_error(self, execution: Execution, outcome: Recorded) -> bool:
        """Whether a follower's own call would only meet the same error."""
        same_words = execution.content_hash == self.candidate.content_hash
        return same_words and outcome.error is not None and outcome.error.code in SHARED_ERRORS

    def fail(self, problem: Exception) -> None:
        """There is no outcome. It may have nobody left who waits for one."""
        self.outcome.set_exception(problem)
        self.outcome.exception()


def as_exception(exc: BaseException) -> Exception:
    """A future takes no CancelledError as its exception; waiters see why the call was broken off."""
    return exc if isinstance(exc, Exception) else shutting_down()


def shutting_down() -> ShuttingDownError:
    """Why a call was broken off."""
    return ShuttingDownError("this worker is shutting down; another one executes the request")


def check_same_payload(execution: Execution, payload_hash: str) -> None:
    """Raise IdempotencyConflictError where ``payload_hash``, in flight under the same id, is of something else."""
    if payload_hash != execution.payload_hash:
        request_id = execution.request.request_id
        raise IdempotencyConflictError(f"request_id {request_id!r} is in flight with another payload")


def remaining_s(execution: Execution, clock: Clock) -> float | None:
    """Seconds until the client's own deadline, or None: then only the provider's work is bounded."""
    deadline_ms = execution.request.deadline_ms
    return None if deadline_ms is None else max(0.0, (deadline_ms - clock.wall_ms()) / 1000)


def due(execution: Execution, clock: Clock, execution_timeout_s: float) -> float:
    """When the client stops waiting, monotonic seconds. A record without a deadline waits while its provider is busy,
    and intake pauses behind it; a caller in this process is taken to wait no longer than ``execution_timeout_s``.
    """
    remaining = remaining_s(execution, clock)
    if remaining is None:
        remaining = math.inf
    if execution.source is None:
        remaining = min(remaining, execution_timeout_s)
    return clock.monotonic() + remaining


async def again(own: Leader, execution: Execution, story: Story) -> Response:
    """What comes of a request's own call, which goes on although it was late for who asked before."""
    check_same_payload(execution, own.work.execution.payload_hash)
    return respond.from_outcome(execution, await asyncio.shield(own.outcome), story)


async def same_id(running: Running, execution: Execution) -> Response:
    """The same request id, while the first is under way: one call, a response each."""
    check_same_payload(execution, running.payload_hash)
    response = await asyncio.shield(running.task)
    # As the journal would say it from here on: what a call cost was paid once.
    known = response.from_journal or bool(response.attempts)
    return replace(response, source=execution.source, from_journal=known)


async def in_time(finding: Coroutine[Any, Any, Response], execution: Execution, clock: Clock, story: Story) -> Response:
    """``finding``'s response, or one that says that it came after the request's own deadline."""
    within_s = remaining_s(execution, clock)
    if within_s is None:
        return await finding
    try:
        async with asyncio.timeout(within_s):
            return await finding
    except TimeoutError:
        late = DeadlineExceededError("no answer before the request's deadline")
        return respond.from_error(execution, respond.error_info(late), story)
