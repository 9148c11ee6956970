"""Every configured provider by name: its adapter for each key, one transport under all, a price for every answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from stratarouter_runtime.errors import ProviderRejectedError, UnknownProviderError
from stratarouter_runtime.port_values import HttpReply, ProviderCall
from stratarouter_runtime.ports import ManyPrompts, ProviderAdapter, Transport
from stratarouter_runtime.providers.pricing import Pricer
from stratarouter_runtime.providers.rate_headers import rate_headers
from stratarouter_runtime.records import Answer, Usage
from stratarouter_runtime.state.limiter import RateHint

Adapters = Mapping[str, Sequence[ProviderAdapter]]
"""By provider, one for each of its keys."""
EVENT_STREAM = "text/event-stream"


class ProviderSet:
    """The ``Providers`` port.

    Args:
        adapters: called once at ``start``, because only a process that calls providers needs their keys.
        transport: started and stopped with this.
        pricer: prices the answers.
    """

    def __init__(self, adapters: Callable[[], Adapters], transport: Transport, pricer: Pricer) -> None:
        self._make_adapters = adapters
        self._adapters: dict[str, Sequence[ProviderAdapter]] = {}
        self._takes_many: frozenset[str] = frozenset()
        self._transport = transport
        self._pricer = pricer
        self._loading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the keys, open the transport, have prices read meanwhile: an answer that comes before them waits.

        Raises ConfigurationError where a key is missing.
        """
        self._take_up(self._make_adapters())
        if self._loading is None:
            self._loading = asyncio.create_task(asyncio.to_thread(self._pricer.load), name="read prices")
        await self._transport.start()

    async def stop(self) -> None:
        """Close the transport. Idempotent."""
        await self._transport.stop()
        loading, self._loading = self._loading, None
        if loading is not None:
            await loading

    def update(self, adapters: Adapters, pricer: Pricer) -> None:
        """Take a changed configuration up. Names that it lacks stay: records resolved before may still name them."""
        self._take_up(self._adapters | dict(adapters))
        self._pricer = pricer

    def _take_up(self, adapters: Adapters) -> None:
        self._adapters = dict(adapters)
        # Asked on every call; looking at the adapter's methods anew would cost more than all the rest of the choice.
        self._takes_many = frozenset(
            name for name, keys in self._adapters.items() if keys and isinstance(keys[0], ManyPrompts)
        )

    def cost_usd(self, provider: str, model: str, usage: Usage) -> float | None:
        """The price of ``usage`` there, in US dollars; None where it is not known."""
        return self._pricer.cost_usd(provider, model, usage)

    def is_priced(self, provider: str, model: str) -> bool:
        """Whether an answer of ``model`` will have a price."""
        return self._pricer.knows(provider, model)

    def keys(self, provider: str) -> int:
        """How many keys the provider has; 0 for a name nobody configured."""
        return len(self._adapters.get(provider, ()))

    async def call(
        self,
        provider: str,
        call: ProviderCall,
        *,
        key: int = 0,
        on_text: Callable[[str], None] | None = None,
        on_rates: Callable[[RateHint], None] | None = None,
    ) -> Answer:
        """Make one call, priced. Raises a ProviderError; UnknownProviderError for a name nobody configured."""
        adapters = self._adapters.get(provider)
        if not adapters:
            raise UnknownProviderError(f"no provider is named {provider!r}")
        adapter = adapters[key % len(adapters)]
        if on_text is None:
            reply = await self._transport.send(adapter.to_http(call))
            _tell(on_rates, reply.headers)
            answer = adapter.from_http(reply, call)
        else:
            answer = await self._stream(adapter, call, on_text, on_rates)
        return answer.priced(self._pricer.cost_usd(provider, call.model, answer.usage))

    def takes_many(self, provider: str) -> bool:
        """Whether the provider takes several prompts in one call."""
        return provider in self._takes_many

    def check(self, provider: str, call: ProviderCall) -> None:
        """Raises what a call of ``provider``, which takes many, would be refused for before it is sent."""
        self._many(provider, 0).check(call)

    async def call_many(
        self,
        provider: str,
        calls: Sequence[ProviderCall],
        *,
        key: int = 0,
        on_rates: Callable[[RateHint], None] | None = None,
    ) -> list[Answer]:
        """One HTTP call for ``calls``, which share model and parameters; an answer for each, priced, in their order.

        Raises a ProviderError, for all of them.
        """
        adapter = self._many(provider, key)
        reply = await self._transport.send(adapter.to_http_many(calls))
        _tell(on_rates, reply.headers)
        answers = adapter.from_http_many(reply, calls)
        return [
            answer.priced(self._pricer.cost_usd(provider, call.model, answer.usage))
            for call, answer in zip(calls, answers, strict=True)
        ]

    def _many(self, provider: str, key: int) -> ManyPrompts:
        adapters = self._adapters.get(provider, ())
        adapter = adapters[key % len(adapters)] if adapters else None
        if not isinstance(adapter, ManyPrompts):
            raise ProviderRejectedError(f"no provider named {provider!r} takes several prompts in one call")
        return adapter

    async def _stream(
        self,
        adapter: ProviderAdapter,
        call: ProviderCall,
        on_text: Callable[[str], None],
        on_rates: Callable[[RateHint], None] | None,
    ) -> Answer:
        async with self._transport.stream(adapter.to_http(call, stream=True)) as reply:
            _tell(on_rates, reply.headers)
            streams = reply.headers.get("content-type", "").startswith(EVENT_STREAM)
            if not (200 <= reply.status < 300 and streams):
                # An error, or a server that answers as a whole although it was asked for a stream.
                answer = adapter.from_http(HttpReply(reply.status, reply.headers, await reply.body()), call)
                on_text(answer.text)
                return answer
            reader = adapter.read_stream(call)
            async for event in reply.events():
                text = reader.feed(event)
                if text:
                    on_text(text)
            return reader.answer()


def _tell(on_rates: Callable[[RateHint], None] | None, headers: Mapping[str, str]) -> None:
    hint = None if on_rates is None else rate_headers(headers)
    if on_rates is not None and hint is not None:
        on_rates(hint)
