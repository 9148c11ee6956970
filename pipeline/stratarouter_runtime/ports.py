"""What the engine needs from the outside world, as protocols. Edges implement them; the engine knows no edge."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from stratarouter_runtime.plain import dataclass
from stratarouter_runtime.records import Answer, Attempt, ErrorInfo, Request, Vector
from stratarouter_runtime.state.cache_control import UNKNOWN, Origin
from stratarouter_runtime.state.error_bound import Observation
from stratarouter_runtime.state.limiter import RateHint


class Clock(Protocol):
    """Time as the engine sees it."""

    def monotonic(self) -> float:
        """Seconds that never jump."""

    def wall_ms(self) -> int:
        """Epoch milliseconds, for deadlines that clients wrote."""

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds`` (>= 0)."""


# --- journal ---------------------------------------------------------------------------------------------------

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


class Journal(Protocol):
    """The durable memory of what was started and what came of it. One call is one round trip for all its rows."""

    async def start(self) -> None:
        """Connect, check the schema's version and register this worker. Raises SchemaVersionError."""

    async def stop(self) -> None:
        """Deregister this worker and disconnect. Idempotent."""

    async def begin(self, items: Sequence[Begin]) -> list[Begun]:
        """Claim and mark ``started`` durably, in one round trip. Raises JournalUnavailableError."""

    async def finish(self, items: Sequence[Finish]) -> list[Recorded]:
        """Record results; returns what stands for each (another's, if it was first). Same errors as begin."""

    async def record_new(self, items: Sequence[tuple[Begin, Finish]]) -> None:
        """Record rows begun and finished at once, whose keys nobody else can know; one that is there already stands.

        Same errors as begin.
        """

    async def lookup(self, keys: Sequence[JournalKey]) -> list[Recorded | None]:
        """Read finished results; None where there is none yet."""

    async def abandoned(self, keys: Sequence[JournalKey]) -> list[bool]:
        """Whether each was started by another worker that is dead now: of such a call nobody knows what came of it."""

    async def spent(self, windows: Sequence[BudgetWindow]) -> list[Spent]:
        """What was spent in each window, by all workers, as of now."""

    async def heartbeat(self) -> None:
        """Say that this worker lives."""

    async def save_checkpoints(self, items: Sequence[Checkpoint]) -> None:
        """Upsert checkpoints, never backwards in offset."""

    async def load_checkpoint(self, group: str, topic: str, partition: int) -> Checkpoint | None:
        """Read one checkpoint."""

    async def drop_checkpoint(self, group: str, topic: str, partition: int) -> None:
        """Forget one checkpoint: its topic is no more."""

    async def purge(self, older_than_s: float) -> int:
        """Delete results older than that, in seconds; returns how many rows are gone."""


# --- cache -----------------------------------------------------------------------------------------------------


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


class Cache(Protocol):
    """Answers already paid for. A failing backend is a bypass, never an error and never a wrong answer."""

    @property
    def shared(self) -> bool:
        """Whether other processes have the same entries; one that is not shared never waits."""

    async def start(self) -> None:
        """Connect; a backend that is away is retried in the background."""

    async def stop(self) -> None:
        """Disconnect. Idempotent."""

    def lookup_now(self, queries: Sequence[CacheQuery]) -> list[CacheHit | CacheMiss] | None:
        """Look up without waiting, or None where the backend needs a round trip."""

    async def lookup(self, queries: Sequence[CacheQuery]) -> list[CacheHit | CacheMiss]:
        """Look up many at once, in one round trip."""

    async def store(self, entries: Sequence[CacheEntry]) -> None:
        """Keep answers; failures are counted, not raised."""

    async def claim(self, place: tuple[str, str]) -> bool:
        """Whether this process may fill the entry at ``place`` (scope and content hash); False while another one is at
        it. A backend that nobody shares, and one that is away, says yes.
        """

    async def release(self, place: tuple[str, str]) -> None:
        """The fill is over; the next one may."""


class Guard(Protocol):
    """Judges whether two texts ask the same, where embeddings blur."""

    def differs(self, asked: str, stored: str, similarity: float = 0.90) -> str | None:
        """The reason why an answer to ``stored`` must not serve ``asked``, or None where it may."""


class Comparer(Protocol):
    """Judges whether a kept answer would have done in a fresh one's place."""

    async def same(self, question: str, kept: Answer, fresh: Answer) -> bool | None:
        """Whether both answer ``question`` (the conversation as text) alike; None where that cannot be told.

        May raise whatever it likes: that counts as None.
        """


class Evidence(Protocol):
    """Brings comparisons to the state of every process that shares a cache."""

    async def start(self, learn: Callable[[Observation], None]) -> None:
        """Call ``learn`` with what is known and whatever comes, in the background where that takes a round trip."""

    async def stop(self) -> None:
        """End it. Idempotent."""

    async def note(self, seen: Observation) -> None:
        """Tell everybody, this process among them; a failure is counted, not raised."""


# --- embedder --------------------------------------------------------------------------------------------------


class Embedder(Protocol):
    """Turns texts into unit vectors."""

    @property
    def dimension(self) -> int:
        """Length of the vectors."""

    async def start(self) -> None:
        """Load the model or check the server."""

    async def stop(self) -> None:
        """Release it. Idempotent."""

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """One unit vector a text. Raises EmbedderError."""


# --- providers -------------------------------------------------------------------------------------------------


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


class HttpStream(Protocol):
    """A reply whose head has come and whose body is read as it comes. The call's deadline bounds every read.

    Raises ProviderInterruptedError where the body breaks off, ProviderBadReplyError where it outgrows its bounds.
    """

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """With lower-case names."""

    def events(self) -> AsyncIterator[ServerSentEvent]:
        """The body as server-sent events, to be read once. Read to its end, the connection is used again."""

    async def body(self) -> bytes:
        """The whole body, in place of ``events``: of an error, or of a server that does not stream."""


class Transport(Protocol):
    """The one HTTP path under all providers. Follows no redirect.

    Raises ProviderConnectionError where nothing was sent, ProviderInterruptedError where the request was sent
    and no whole reply came (timeout, reset, truncation).
    """

    async def start(self) -> None:
        """Open the pool."""

    async def stop(self) -> None:
        """Close it. Idempotent."""

    async def send(self, call: HttpCall) -> HttpReply:
        """Send one call and read its whole reply."""

    def stream(self, call: HttpCall) -> AbstractAsyncContextManager[HttpStream]:
        """Send one call and read its reply as it comes. Leaving before its end closes the connection."""


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


class AnswerStream(Protocol):
    """Reads one streamed reply. Pure: fed with its events in order."""

    def feed(self, event: ServerSentEvent) -> str:
        """The text that this event adds ("" for none). Raises a ProviderError for an error within the stream."""

    def answer(self) -> Answer:
        """The whole answer (cost_usd unset). Raises ProviderBadReplyError where the stream broke off before its end."""


class ProviderAdapter(Protocol):
    """A pure translator between our form and one provider's wire shape."""

    def to_http(self, call: ProviderCall, *, stream: bool = False) -> HttpCall:
        """Translate; ``stream`` asks for server-sent events. Raises UnsupportedParameterError naming the parameter."""

    def from_http(self, reply: HttpReply, call: ProviderCall) -> Answer:
        """Read the reply (cost_usd unset). Raises a ProviderError."""

    def read_stream(self, call: ProviderCall) -> AnswerStream:
        """A reader for the reply to ``to_http(call, stream=True)``, once its status is 2xx."""

    def models(self) -> HttpCall:
        """Ask which models there are, which costs nothing and needs the key."""


@runtime_checkable
class ManyPrompts(ProviderAdapter, Protocol):
    """An adapter whose server takes several prompts in one call."""

    def check(self, call: ProviderCall) -> None:
        """Raises what ``to_http`` would, so that a prompt that cannot be sent is told before it joins others."""

    def to_http_many(self, calls: Sequence[ProviderCall]) -> HttpCall:
        """Translate calls that share model and parameters. Raises UnsupportedParameterError."""

    def from_http_many(self, reply: HttpReply, calls: Sequence[ProviderCall]) -> list[Answer]:
        """An answer for each of ``calls`` in their order (cost_usd unset). Raises a ProviderError."""


class Providers(Protocol):
    """Every configured provider, by name."""

    def keys(self, provider: str) -> int:
        """How many keys the provider has; 1 where it wants none, 0 for a name nobody configured."""

    async def call(
        self,
        provider: str,
        call: ProviderCall,
        *,
        key: int = 0,
        on_text: Callable[[str], None] | None = None,
        on_rates: Callable[[RateHint], None] | None = None,
    ) -> Answer:
        """Make one call with the ``key``th key, priced. Raises a ProviderError.

        ``on_text`` asks for a streamed reply and gets its text in pieces; ``on_rates`` gets what the reply's headers
        say of rate limits, whatever its status.
        """

    def takes_many(self, provider: str) -> bool:
        """Whether the provider takes several prompts in one call."""

    def check(self, provider: str, call: ProviderCall) -> None:
        """Raises what a call of a provider that takes many would be refused for before it is sent."""

    async def call_many(
        self,
        provider: str,
        calls: Sequence[ProviderCall],
        *,
        key: int = 0,
        on_rates: Callable[[RateHint], None] | None = None,
    ) -> list[Answer]:
        """One call for all of ``calls``, which share model and parameters; priced. Raises a ProviderError for all."""


class Publisher(Protocol):
    """Publishes bytes outside a transaction."""

    def send(self, topic: str, key: bytes | None, value: bytes) -> Awaitable[Any]:
        """Publish one record."""
