"""What the bridge gives back: a result, an answer in pieces, or the error of a request that has no answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from stratarouter_runtime.errors import ExecutionError
from stratarouter_runtime.plain import dataclass
from stratarouter_runtime.records import BatchVerdict, CacheVerdict, Response, Usage


class RequestFailedError(ExecutionError):
    """The request was executed and has no answer. ``result`` tells all that is known.

    ``code`` is that of the error in the response.
    """

    def __init__(self, result: ExecutionResult) -> None:
        """Build from a result whose status is ``error``."""
        error = result.record.error
        assert error is not None
        super().__init__(error.message, remedy=error.remedy)
        self.code = error.code  # type: ignore[misc]  # one class for every code a response can carry
        self.retryable = error.retryable  # type: ignore[misc]
        self.result = result


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """What ``execute`` returns. ``record`` is the whole response as it stands on the responses topic."""

    record: Response

    @property
    def response(self) -> str:
        """The answer's text ('' where the answer is tool calls alone)."""
        return self.record.text or ""

    @property
    def request_id(self) -> str:
        """The request's id."""
        return self.record.request_id

    @property
    def provider(self) -> str | None:
        """Who answered."""
        return self.record.provider

    @property
    def model(self) -> str | None:
        """Which model answered."""
        return self.record.model

    @property
    def usage(self) -> Usage:
        """Tokens as the provider counted them."""
        return self.record.usage

    @property
    def cost_usd(self) -> float | None:
        """What this request cost; None where the price is unknown."""
        return self.record.cost_usd

    @property
    def cache(self) -> CacheVerdict:
        """What the cache said."""
        return self.record.cache

    @property
    def batch(self) -> BatchVerdict:
        """Whether the request led, followed or stood alone."""
        return self.record.batch

    @property
    def timings_ms(self) -> dict[str, float]:
        """Each step's duration in milliseconds."""
        return self.record.timings_ms


class ResponseStream:
    """An answer in pieces: iterate over it once; ``result`` is the whole of it, known at the end.

    A slow reader gets several pieces as one; what waits for it is at most the answer.
    """

    def __init__(self, carry: Callable[[Callable[[str], None]], Coroutine[Any, Any, ExecutionResult]]) -> None:
        self._carry = carry
        self._begun = False
        self._result: ExecutionResult | None = None

    @property
    def result(self) -> ExecutionResult:
        """The whole answer. Raises ExecutionError before the stream is exhausted."""
        if self._result is None:
            raise ExecutionError("the stream has no result yet", remedy="iterate over it to its end first")
        return self._result

    def __aiter__(self) -> AsyncIterator[str]:
        """The pieces, in order; together they are ``result.response``. Raises ExecutionError the second time."""
        if self._begun:
            raise ExecutionError(
                "the stream was iterated over before",
                remedy="keep its pieces, or read result; to ask again, and pay again, call stream again",
            )
        self._begun = True
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[str]:
        waiting: list[str] = []
        news = asyncio.Event()

        def hear(text: str) -> None:
            waiting.append(text)
            news.set()

        task = asyncio.create_task(self._carry(hear))
        task.add_done_callback(lambda _: news.set())
        heard = 0
        try:
            while waiting or not task.done():
                await news.wait()
                news.clear()
                piece = "".join(waiting)
                waiting.clear()
                heard += len(piece)
                if piece:
                    yield piece
        finally:
            # Left early: the call itself belongs to the engine and goes on.
            task.cancel()
            await asyncio.wait([task])
        self._result = task.result()
        rest = self._result.response[heard:]
        if rest:
            yield rest
