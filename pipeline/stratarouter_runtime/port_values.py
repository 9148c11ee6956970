"""What passes the ports, as plain data: what the engine asks a journal, a cache or a provider, and what they reply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal, NamedTuple

from stratarouter_runtime.plain import dataclass
from stratarouter_runtime.records import Answer, Attempt, ErrorInfo, Request, Vector
from stratarouter_runtime.state.cache_control import UNKNOWN, Origin

BeginState = Literal["granted", "recorded", "busy", "conflict", "ambiguous"]


class JournalKey(NamedTuple):
    """A request's identity in the journal: tenant and request id.

    A tuple, because every row is hashed and sorted by it several times on its way.
    """

    tenant: str
    request_id: str

    @classmethod
    def of(cls, request: Request) -> JournalKey:
        """A request's."""
        return cls(request.context.tenant, request.request_id)


@dataclass(frozen=True, slots=True)
class Begin:
    """Ask to start (or, with ``leader``, to follow) the execution of ``key``.

    ``leader`` links a follower to the row whose result will be its own. ``retry_ambiguous`` takes over a row
    that a dead owner left ``started``.
    """

    key: JournalKey
    payload_hash: str
    route_id: str
    leader: JournalKey | None = None
    retry_ambiguous: bool = True
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """A finished execution: an answer or an error, and how it was come by."""

    answer: Answer | None
    error: ErrorInfo | None
    attempts: tuple[Attempt, ...] = ()
    leader: JournalKey | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """The journal's reply to ``Begin``.

    granted: durable; this worker may call. ``took_over`` says that an ambiguous row was taken from a dead owner.
    recorded: finished before; ``recorded`` is set, no call is to be made.
    busy: started by ``owner``, which is alive; wait for its result.
    conflict: the request id was used with another payload.
    ambiguous: started by a dead owner, and ``retry_ambiguous`` was False; nothing was changed.
    """

    state: BeginState
    recorded: Recorded | None = None
    owner: str | None = None
    took_over: bool = False


@dataclass(frozen=True, slots=True)
class BudgetWindow:
    """One window of one budget of one tenant. ``start`` in epoch seconds, a multiple of ``length_s``."""

    budget: str
    tenant: str
    start: int
    length_s: int


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent: money in thousand-millionths of a US dollar, tokens in and out together."""

    nano_usd: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Finish:
    """A result to record: the first writer wins. ``charges`` are counted if and only if this one is it."""

    key: JournalKey
    answer: Answer | None
    error: ErrorInfo | None
    attempts: tuple[Attempt, ...] = ()
    charges: tuple[tuple[BudgetWindow, Spent], ...] = ()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Progress of one input partition: the watermark offset and the map of finished offsets beyond it.

    ``witness`` is a record of the partition that was read: its offset and a digest of it. Where it is not there any
    more as it was, the topic is another one of the same name.
    """

    group: str
    topic: str
    partition: int
    offset: int
    metadata: str
    witness: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class CacheQuery:
    """One lookup: exact by ``content_hash``, then semantic by ``vector`` within ``scope``.

    ``text`` is the normalised conversation, for the guard; ``threshold`` a cosine similarity. ``vetoed`` are
    the content hashes of entries whose answers were marked wrong for this question.
    """

    scope: str
    content_hash: str
    text: str
    vector: Vector | None = None
    threshold: float = 0.95
    vetoed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """An answer kept for reuse. ``ttl`` in seconds from storing; ``origin`` says what invalidates it.

    ``likeness``: of these words and those that the answer was given to; below 1 for an alias.
    """

    entry_id: str
    scope: str
    content_hash: str
    text: str
    answer: Answer
    vector: Vector | None = None
    ttl: int = 3600
    tenant: str = "default"
    route_id: str = ""
    tags: tuple[str, ...] = ()
    origin: Origin = UNKNOWN
    likeness: float = 1.0


@dataclass(frozen=True, slots=True)
class CacheHit:
    """A stored answer that fits: how it matched and from which entry. ``reason``: ``corrected`` for a corrected one.

    ``likeness``: of the question asked and the one that the answer was given to. Of an exact hit it is below 1 where
    the entry is an alias.
    """

    kind: Literal["exact", "semantic"]
    similarity: float
    entry_id: str
    answer: Answer
    origin: Origin = UNKNOWN
    reason: str | None = None
    likeness: float = 1.0


@dataclass(frozen=True, slots=True)
class CacheMiss:
    """Nothing fits. ``reason`` names the nearest refusal (``guard:number``, ``below_threshold``), or None.

    ``bypassed`` is set where the backend could not be asked.
    """

    reason: str | None = None
    similarity: float | None = None
    entry_id: str | None = None
    bypassed: bool = False


@dataclass(frozen=True, slots=True)
class HttpCall:
    """An HTTP request to a provider. ``timeout_s`` bounds the whole call; ``headers`` may hold a key: never log it."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A whole reply. ``headers`` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ProviderCall:
    """What is asked of a provider, in one form for all of them."""

    model: str
    messages: tuple[dict[str, Any], ...]
    params: Mapping[str, Any]
    request_id: str
    timeout_s: float


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event of a streamed reply: its name, where it has one, and its data without the line ends between lines."""

    data: str
    event: str | None = None
