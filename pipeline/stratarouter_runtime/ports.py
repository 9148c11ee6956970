"""What the engine needs from the outside world, as protocols. Edges implement them; the engine knows no edge."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, runtime_checkable

from stratarouter_runtime.port_values import (
    Begin,
    Begun,
    BudgetWindow,
    CacheEntry,
    CacheHit,
    CacheMiss,
    CacheQuery,
    Checkpoint,
    Finish,
    HttpCall,
    HttpReply,
    JournalKey,
    ProviderCall,
    Recorded,
    ServerSentEvent,
    Spent,
)
from stratarouter_runtime.records import Answer, Vector
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

    async def spoken_for(self, keys: Sequence[JournalKey]) -> list[bool]:
        """Whether each has a result, or another worker that lives is at it: to ask for it pays for nothing."""

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
        """One unit vector a text. Raises EmbedderError, with the others' vectors where only some texts have none."""


# --- providers -------------------------------------------------------------------------------------------------


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
