"""Single texts that come while the embedder is at work are embedded together, in one call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from stratarouter_runtime.errors import EmbedderError
from stratarouter_runtime.ports import Clock, Embedder
from stratarouter_runtime.records import Vector
from stratarouter_runtime.state.window import Windows

log = logging.getLogger("stratarouter.embedders")

STOPPED = "the embedder was stopped"

_Waiting = tuple[str, "asyncio.Future[Vector]"]


class GatheredEmbedder:
    """Gathers single texts in front of another embedder; lists go on as they are.

    The first text leaves at once; what comes while a call is under way leaves together when ``max_size`` texts are
    there, ``window_s`` seconds have passed, or the call is back. A call that fails fails for all of its texts, but for
    those whose vectors the error has.

    Args:
        embedder: does the work; started and stopped with this.
        clock: tells the time.
        window_s: the longest wait for company, in seconds.
        max_size: texts in one call.
        max_calls: calls under way at once.
    """

    def __init__(self, embedder: Embedder, *, clock: Clock, window_s: float, max_size: int, max_calls: int) -> None:
        self._embedder = embedder
        self._clock = clock
        self._windows: Windows[None, _Waiting] = Windows(window_s, max_size, max_calls)
        self._calls: set[asyncio.Task[None]] = set()
        self._timer: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self._embedder.dimension

    async def start(self) -> None:
        """Start the embedder."""
        await self._embedder.start()
        self._stopped = False

    async def stop(self) -> None:
        """Break off what is under way, fail who waits and stop the embedder. Idempotent."""
        # Before the calls, whose end makes room for the next.
        self._stopped = True
        _fail(self._windows.clear(), EmbedderError(STOPPED))
        timer, self._timer = self._timer, None
        tasks = [*self._calls, *([] if timer is None else [timer])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._embedder.stop()

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """One unit vector a text. Raises EmbedderError."""
        if len(texts) != 1:
            return await self._embedder.embed(texts)
        if self._stopped:
            raise EmbedderError(STOPPED)
        waiting: _Waiting = (texts[0], asyncio.get_running_loop().create_future())
        self._windows.add(self._clock.monotonic(), None, waiting)
        self._pump()
        try:
            return [await waiting[1]]
        finally:
            self._windows.discard(None, waiting)

    def _pump(self) -> None:
        for _, together in self._windows.take(self._clock.monotonic()):
            task = asyncio.create_task(self._embed(together), name="embed together")
            self._calls.add(task)
            task.add_done_callback(self._ended)
        due = self._windows.due_at()
        if due is not None and self._timer is None:
            self._timer = asyncio.create_task(self._at(due), name="embedding window")

    async def _at(self, due: float) -> None:
        await self._clock.sleep(max(0.0, due - self._clock.monotonic()))
        self._timer = None
        self._pump()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self._windows.ended(None)
        if not task.cancelled() and task.exception() is not None:
            log.error("embedding failed", exc_info=task.exception())
        self._pump()

    async def _embed(self, together: Sequence[_Waiting]) -> None:
        try:
            vectors = await self._embedder.embed([text for text, _ in together])
            _hand_out(together, vectors)
        except EmbedderError as exc:
            left = _hand_out(together, exc.vectors) if len(exc.vectors) == len(together) else together
            _fail(left, EmbedderError(exc.message, remedy=exc.remedy))
        except BaseException as exc:
            # Whoever waits must hear of it, whatever it is.
            _fail(together, EmbedderError(f"the embedder failed: {exc!r}"))
            raise


def _hand_out(together: Sequence[_Waiting], vectors: Sequence[Vector | None]) -> list[_Waiting]:
    """Give each its vector; who has none."""
    left = []
    for (text, future), vector in zip(together, vectors, strict=True):
        if vector is None:
            left.append((text, future))
        elif not future.done():
            future.set_result(vector)
    return left


def _fail(together: Sequence[_Waiting], exc: EmbedderError) -> None:
    for _, future in together:
        if not future.done():
            future.set_exception(exc)
