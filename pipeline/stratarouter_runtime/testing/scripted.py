"""A transport that follows a script, for unit tests: no socket, no time, every call recorded."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.port_values import HttpCall, HttpReply, ServerSentEvent
from stratarouter_runtime.providers.sse import EventParser

Step = HttpReply | Exception | Callable[[HttpCall], Awaitable[HttpReply]]
"""A reply to give, an error to raise, or a coroutine function that decides (and may wait on the test's events)."""


class ScriptExhaustedError(AssertionError):
    """More calls were made than the script has steps."""


class ScriptedStream:
    """A scripted reply; its events are those of the body."""

    def __init__(self, reply: HttpReply) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self._body = reply.body

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """The body's events."""
        for event in EventParser().feed(self._body):
            yield event

    async def body(self) -> bytes:
        """The whole body."""
        return self._body


class ScriptedTransport:
    """Answers the nth call with the nth step.

    Attributes:
        calls: every call made, in order.
        running: whether it is started and not yet stopped.
    """

    def __init__(self, steps: Iterable[Step] = ()) -> None:
        self.calls: list[HttpCall] = []
        self.running = False
        self._steps = deque(steps)

    async def start(self) -> None:
        """Note the start."""
        self.running = True

    async def stop(self) -> None:
        """Note the stop. Idempotent."""
        self.running = False

    async def send(self, call: HttpCall) -> HttpReply:
        """Take the next step. Raises ScriptExhaustedError when there is none."""
        self.calls.append(call)
        if not self._steps:
            raise ScriptExhaustedError(f"call {len(self.calls)} ({call.method} {call.url}) is beyond the script")
        step = self._steps.popleft()
        if isinstance(step, HttpReply):
            return step
        if isinstance(step, Exception):
            raise step
        return await step(call)

    @asynccontextmanager
    async def stream(self, call: HttpCall) -> AsyncIterator[ScriptedStream]:
        """Take the next step as a reply that is read as it comes."""
        yield ScriptedStream(await self.send(call))

    @property
    def steps_left(self) -> int:
        """Steps not taken yet."""
        return len(self._steps)


def chat_reply(
    text: str, *, model: str = "gpt-4o-mini", finish_reason: str = "stop", usage: Mapping[str, Any] | None = None
) -> HttpReply:
    """A chat completion in OpenAI's shape."""
    message = {"role": "assistant", "content": text}
    body = {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": dict(usage or {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}),
    }
    return HttpReply(200, {"content-type": "application/json"}, json_bytes(body))


def error_reply(
    status: int, *, code: str = "server_error", message: str = "scripted", headers: Mapping[str, str] | None = None
) -> HttpReply:
    """An error in OpenAI's shape; ``headers`` with lower-case names."""
    body = {"error": {"message": message, "type": code, "param": None, "code": code}}
    return HttpReply(status, dict(headers or {}), json_bytes(body))
