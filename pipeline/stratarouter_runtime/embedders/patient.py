"""A server for embeddings that answers nobody is waited for briefly, and then left alone for a while."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from stratarouter_runtime.errors import EmbedderError
from stratarouter_runtime.ports import Clock, Embedder
from stratarouter_runtime.records import Vector

PATIENCE_S = 2.0
"""For one text, without an answer to anybody. Who queues behind many sees these answered, and waits on."""
MORE_S = 1 / 8
"""For each further text in a call: a small server takes seconds for 64 long ones, which may have the 10 s of ever."""
PAUSE_S = 10.0
"""Nobody waits for it meanwhile; then one does, and so on until it answers. That one's call goes on without it, for as
long as the embedder lets it: a server that loads its model for the first call would begin anew with each."""


class PatientEmbedder:
    """In front of another embedder, which it starts and stops.

    Args:
        embedder: does the work.
        clock: tells the time.
        patience_s: how long a call for one text waits while nobody is answered.
        pause_s: how long nobody is kept waiting after that.
    """

    def __init__(
        self, embedder: Embedder, *, clock: Clock, patience_s: float = PATIENCE_S, pause_s: float = PAUSE_S
    ) -> None:
        self._embedder = embedder
        self._clock = clock
        self._patience_s = patience_s
        self._pause_s = pause_s
        self._answered_at = -math.inf
        self._asked_again_at: float | None = None
        # Of the silence there was, what callers sat through who had less time themselves: as long as no answer came.
        self._silent_s = 0.0
        self._counted_to = -math.inf
        self._going_on: set[asyncio.Task[list[Vector]]] = set()
        """Calls that nobody waits for any more."""

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self._embedder.dimension

    async def start(self) -> None:
        """Start the embedder."""
        await self._embedder.start()

    async def stop(self) -> None:
        """Break off what goes on and stop the embedder. Idempotent."""
        for call in self._going_on:
            call.cancel()
        await asyncio.gather(*self._going_on, return_exceptions=True)
        await self._embedder.stop()

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """One unit vector a text. Raises EmbedderError, at once while the embedder is left alone."""
        began = self._clock.monotonic()
        patience_s = self._patience_s + MORE_S * max(0, len(texts) - 1)
        tries = self._asked_again_at is not None
        if self._asked_again_at is not None:
            if began < self._asked_again_at:
                left_s = self._asked_again_at - began
                raise EmbedderError(f"the embedder answers nobody; it is asked again in {left_s:.1f} s")
            # This one tries it; the others do not wait for what comes of it.
            self._asked_again_at = began + patience_s
        call = asyncio.create_task(self._embedder.embed(texts), name="embed")
        try:
            await self._ended(call, began, patience_s)
            silent = not call.done()
        finally:
            if call.done():
                self._answered()
                # Who was given up meanwhile does not ask what came of it.
                _ = call.cancelled() or call.exception()
            else:
                self._given_up(began, patience_s)
                await self._leave(call, goes_on=tries and not self._going_on)
        if silent:
            raise EmbedderError(f"the embedder has answered nobody for {patience_s:g} s")
        return call.result()

    async def _leave(self, call: asyncio.Task[list[Vector]], *, goes_on: bool) -> None:
        """Nobody waits for ``call`` any more."""
        self._going_on.add(call)
        call.add_done_callback(self._ended_alone)
        if not goes_on:
            call.cancel()
            await asyncio.wait([call])

    def _ended_alone(self, call: asyncio.Task[list[Vector]]) -> None:
        self._going_on.discard(call)
        # An error may be that it took too long, which is no answer.
        if not call.cancelled() and call.exception() is None:
            self._answered()

    async def _ended(self, call: asyncio.Task[list[Vector]], began: float, patience_s: float) -> None:
        """Wait until ``call`` has ended, or nobody was answered for as long as there is patience."""
        while not call.done():
            left_s = max(began, self._answered_at) + patience_s - self._clock.monotonic()
            if left_s <= 0:
                return
            await asyncio.wait([call], timeout=left_s)

    def _answered(self) -> None:
        # A refusal is an answer too: who gives one keeps nobody waiting.
        self._answered_at, self._silent_s, self._asked_again_at = self._clock.monotonic(), 0.0, None

    def _given_up(self, began: float, patience_s: float) -> None:
        now = self._clock.monotonic()
        since = max(began, self._answered_at)
        # Callers beside each other sat through the same silence.
        self._silent_s += max(0.0, now - max(since, self._counted_to))
        self._counted_to = now
        if now - since >= patience_s or self._silent_s >= patience_s:
            self._silent_s, self._asked_again_at = 0.0, now + self._pause_s
