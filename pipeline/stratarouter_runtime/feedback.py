"""What callers can say of answers they got or that are kept: wrong, corrected, invalid."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from typing import Any, Protocol

from stratarouter_runtime.errors import SchemaViolationError, ShuttingDownError
from stratarouter_runtime.plain import dataclass
from stratarouter_runtime.records import BatchVerdict, CacheAction, CacheCommand, CacheVerdict, Response

ANSWER_PLACES = (
    "pass the result itself; ids are sought among the last 10,000 answers and, over Kafka, the responses topic"
)

_KEY = re.compile(r"[0-9a-f]{32}")
"""As ``cache.key`` of a response is: a digest of 128 bits."""

MAX_RECENT = 10_000
"""Responses remembered, by what feedback needs of them: about 10 MB."""


@dataclass(frozen=True, slots=True)
class Gist:
    """What feedback needs of a response."""

    request_id: str
    cache: CacheVerdict
    batch: BatchVerdict
    route_id: str
    tenant: str


class Recent:
    """The last responses by tenant and request id, without their answers, so that one can be called wrong by its id."""

    def __init__(self, limit: int = MAX_RECENT) -> None:
        self._kept: OrderedDict[tuple[str, str], Gist] = OrderedDict()
        self._limit = limit

    def add(self, response: Response) -> None:
        """Remember ``response``; the oldest goes for want of room."""
        request_id, tenant = response.request_id, response.tenant
        self._kept.pop((tenant, request_id), None)
        self._kept[tenant, request_id] = Gist(request_id, response.cache, response.batch, response.route_id, tenant)
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)

    def get(self, request_id: str, tenant: str | None = None) -> Gist | None:
        """The last response to ``request_id``, if it is remembered.

        Raises SchemaViolationError where ``tenant`` is None and several have one of that id.
        """
        if tenant is not None:
            return self._kept.get((tenant, request_id))
        found = [gist for gist in self._kept.values() if gist.request_id == request_id]
        if len(found) > 1:
            tenants = ", ".join(sorted(repr(gist.tenant) for gist in found))
            raise SchemaViolationError(
                f"{request_id!r} is a request of several tenants: {tenants}", remedy="pass tenant="
            )
        return found[0] if found else None


def checked_key(key: str, name: str) -> str:
    """``key``, which a caller has given as ``name``.

    Raises SchemaViolationError for what no answer can be kept under: it would be done, and change nothing.
    """
    if not _KEY.fullmatch(key):
        raise SchemaViolationError(
            f"{name} {key!r} is no key of the cache: 32 digits, 0 to f",
            remedy="take it from cache.key of a response, or from `stratarouter-runtime cache find`",
        )
    return key


def command(action: CacheAction, by: str, reason: str, **fields: str | int | bool | None) -> CacheCommand:
    """A command of now. ``fields`` are ``CacheCommand``'s."""
    return CacheCommand(action, by, reason, time.time_ns() // 1_000_000, **fields)  # type: ignore[arg-type]


def wrong_answer(response: Response | Gist, by: str, reason: str) -> CacheCommand:
    """That the answer in ``response`` was wrong for its question. Raises SchemaViolationError where it has no key."""
    key, entry = served_from(response)
    return command(
        "mark_wrong",
        by,
        reason,
        key=key,
        answered_by=entry,
        request_id=response.request_id,
        tenant=response.tenant,
        route_id=response.route_id or None,
    )


def served_from(response: Response | Gist) -> tuple[str, str | None]:
    """The key of the question, and of the entry that answered it where that is another question's.

    Raises SchemaViolationError.
    """
    cache, batch = response.cache, response.batch
    if cache.key is None:
        raise SchemaViolationError(
            f"the response to {response.request_id!r} names no cache key",
            remedy="only an executed request has one; was it refused, or answered by an older version?",
        )
    source = batch.leader_key if batch.role == "follower" else None
    if cache.kind in {"exact", "semantic"}:
        source = cache.entry_id
    return cache.key, None if source == cache.key else source


class Answered(Protocol):
    """What an execution came to."""

    @property
    def record(self) -> Response:
        """The response as it stands on the responses topic."""


class Commander(Protocol):
    """One way to have commands carried out."""

    async def command(self, command: CacheCommand) -> None:
        """Invalidate, correct or mark kept answers. Raises SchemaViolationError, InfrastructureError."""

    async def response_to(self, request_id: str, tenant: str | None = None) -> Response | None:
        """The response to an earlier request (of ``tenant``, where given), where this way can tell."""


class Feedback:
    """What the bridge takes back from its callers."""

    def __init__(self) -> None:
        self._recent = Recent()

    async def _started(self) -> Commander:
        """Where commands go. Given by the bridge."""
        raise ShuttingDownError("not started")

    def _remember(self, response: Response) -> None:
        self._recent.add(response)

    async def mark_wrong(
        self, answer: Answered | str, *, reason: str, by: str = "bridge", tenant: str | None = None
    ) -> None:
        """Say that an answer was wrong for its question: it is not served again, and where it was kept for another
        question, that pair never answers one another from now on. Over Kafka for all workers and for good.

        Args:
            answer: a result, or a request id: of this bridge's last ones or, over Kafka, of the responses topic.
            reason: why; it stands in the audit.
            by: who says so.
            tenant: whose request id, where several tenants have the same. A result says it itself.

        Raises:
            SchemaViolationError: the answer cannot be told or names no entry; or several tenants have the id.
            ConfigurationError: the bridge could not be started, or belongs to another event loop.
            InfrastructureError: the broker is away; or, where nobody follows the topic, Redis is, and the answer may be
                served from it until this is said again.
        """
        # First: what is remembered belongs to the event loop of the bridge too.
        commander = await self._started()
        if isinstance(answer, str):
            response: Response | Gist | None = self._recent.get(answer, tenant)
            if response is None:
                response = await commander.response_to(answer, tenant)
        else:
            response = answer.record
        if response is None:
            raise SchemaViolationError(f"no response to {answer!r} is known here", remedy=ANSWER_PLACES)
        await commander.command(wrong_answer(response, by, reason))

    async def correct(
        self, answer: Answered | str, text: str, *, reason: str, by: str = "bridge", ttl: int | None = None
    ) -> None:
        """Serve ``text`` in place of a kept answer, for ``ttl`` seconds (by default ``cache_ttl``).

        ``answer`` is a result, or the key of a question (``result.cache.key``). Errors as ``mark_wrong``'s.
        """
        commander = await self._started()
        fields: dict[str, Any]
        if isinstance(answer, str):
            fields = {"key": checked_key(answer, "answer")}
        else:
            record = answer.record
            fields = {"key": served_from(record)[0], "tenant": record.tenant, "route_id": record.route_id or None}
        await commander.command(command("correct", by, reason, text=text, ttl=ttl, **fields))

    async def invalidate(
        self,
        *,
        reason: str,
        by: str = "bridge",
        key: str | None = None,
        request_id: str | None = None,
        tag: str | None = None,
        route_id: str | None = None,
        tenant: str | None = None,
        everything: bool = False,
    ) -> None:
        """Serve no kept answer any more that is named: by one of key, request id (with its tenant), tag, route, tenant,
        or everything. Errors as ``mark_wrong``'s.
        """
        commander = await self._started()
        if key is not None:
            checked_key(key, "key")
        named = {"key": key, "request_id": request_id, "tag": tag, "route_id": route_id, "tenant": tenant}
        await commander.command(command("invalidate", by, reason, everything=everything, **named))
