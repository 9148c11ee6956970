"""A local HTTP server that behaves like the providers it knows the wire shapes of, on good days and bad ones.

It keeps its own log of paid calls, which is what the tests of "paid for once" count. A call is paid for once its
completion is generated (a stream: before its first piece): whether the reply then arrives, breaks off or is read by
nobody does not matter. As its own process: ``python -m stratarouter_runtime.testing.simulator --help``.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import math
import os
import random
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, Self, get_args
from urllib.parse import unquote

import orjson

from stratarouter_runtime import collector
from stratarouter_runtime.errors import ConfigurationError
from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.plain import dataclass
from stratarouter_runtime.testing.simulator_endpoints import (
    Ask,
    Completion,
    Endpoint,
    Refusal,
    RefusedAskError,
    count_tokens,
    models_reply,
    sse_event,
)
from stratarouter_runtime.testing.simulator_faults import FaultBook, FaultRule
from stratarouter_runtime.testing.simulator_http import Connection, Headers, SimulatedRequest
from stratarouter_runtime.testing.simulator_limits import RateLimits
from stratarouter_runtime.testing.simulator_log import CallLog, CallRecord
from stratarouter_runtime.testing.simulator_routes import find_endpoint

__all__ = ["CallRecord", "FaultRule", "Simulator", "SimulatorSettings"]

REQUEST_ID_HEADERS = ("x-stratarouter-request-id", "x-request-id", "x-client-request-id")
NORMAL_P99 = 2.3263478740408408
"""The 99th percentile of the standard normal distribution."""
BACKLOG = 4096
"""Connections that may wait to be accepted: a burst of a thousand clients must not be refused."""
STOP_TIMEOUT_S = 5.0

OnOverload = Literal["queue", "reject"]


@dataclass(frozen=True, slots=True)
class SimulatorSettings:
    """How the simulated provider behaves.

    Attributes:
        latency_ms: time from a call to its reply: fixed, or the median where ``latency_p99_ms`` is set. Of a stream,
            half of it is the time to the first piece, the rest is spread evenly over the other pieces.
        latency_p99_ms: the 99th percentile of a log-normal latency.
        max_concurrency: calls generated at once; None for no limit.
        on_overload: calls beyond it wait (``queue``) or get 429 (``reject``).
        max_queue: calls that may wait; beyond it 429.
        output_tokens: tokens of an answer, about.
        rate_limit_rpm: calls a minute; beyond it 429. Where a limit is set, ``x-ratelimit-*`` headers tell of it.
        rate_limit_tpm: tokens a minute, of the messages and of an answer of ``output_tokens``; likewise.
        faults: the first rule that meets a call decides its trouble.
        seed: of latency and of the rules' probabilities.
        log_path: file of paid calls, appended to; None for none.
        models: what ``/v1/models`` lists; any other model is served as well.
    """

    latency_ms: float = 0.0
    latency_p99_ms: float | None = None
    max_concurrency: int | None = None
    on_overload: OnOverload = "queue"
    max_queue: int = 10_000
    output_tokens: int = 32
    rate_limit_rpm: int | None = None
    rate_limit_tpm: int | None = None
    faults: Sequence[FaultRule] = ()
    seed: int = 0
    log_path: Path | None = None
    models: tuple[str, ...] = ("gpt-4o-mini", "gpt-4o", "text-embedding-3-small")

    def __post_init__(self) -> None:
        if self.latency_ms < 0:
            raise ConfigurationError(f"latency_ms = {self.latency_ms} is negative")
        if self.latency_p99_ms is not None and not 0 < self.latency_ms <= self.latency_p99_ms:
            raise ConfigurationError(f"latency_p99_ms = {self.latency_p99_ms} needs 0 < latency_ms <= latency_p99_ms")
        if self.max_concurrency is not None and self.max_concurrency < 1:
            raise ConfigurationError(f"max_concurrency = {self.max_concurrency} is below 1")
        for name in ("rate_limit_rpm", "rate_limit_tpm"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise ConfigurationError(f"{name} = {limit} is below 1")
        if self.on_overload not in get_args(OnOverload):
            raise ConfigurationError(f"on_overload = {self.on_overload!r} is neither 'queue' nor 'reject'")

    def draw_latency_s(self, chance: random.Random) -> float:
        """Seconds one call takes."""
        if self.latency_p99_ms is None:
            return self.latency_ms / 1000
        sigma = math.log(self.latency_p99_ms / self.latency_ms) / NORMAL_P99
        return chance.lognormvariate(math.log(self.latency_ms), sigma) / 1000


@dataclass(frozen=True, slots=True)
class _Job:
    """A call that was admitted."""

    request: SimulatedRequest
    connection: Connection
    endpoint: Endpoint
    ask: Ask
    fault: FaultRule | None
    headers: Headers = ()

    @property
    def effect(self) -> str:
        """What becomes of its reply."""
        return "ok" if self.fault is None else self.fault.effect


class Simulator:
    """The server; use it as an async context manager, on 127.0.0.1, or ``start`` and ``stop`` it."""

    def __init__(self, settings: SimulatorSettings | None = None) -> None:
        self.settings = settings or SimulatorSettings()
        self.log = CallLog(self.settings.log_path)
        self.base_url = ""
        self.active = 0
        self._chance = random.Random(self.settings.seed)  # noqa: S311 - repeatable, not secret
        self._faults = FaultBook(self.settings.faults)
        self._connections: set[Connection] = set()
        self._waiting: deque[_Job] = deque(maxlen=self.settings.max_queue)
        self._timers: set[asyncio.TimerHandle] = set()
        self._limits = RateLimits(self.settings.rate_limit_rpm, self.settings.rate_limit_tpm, time.monotonic())
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> str:
        """Listen on ``port`` (0: a free one) and return the base URL, as ``http://127.0.0.1:port/v1``.

        A ``host`` other than the loopback address lets other machines in; it asks nobody for a key.

        Raises ConfigurationError where it cannot listen there, or its log cannot be written.
        """
        try:
            self.log.open()
            self._server = await asyncio.get_running_loop().create_server(
                lambda: Connection(self._serve, self._connections), host, port, backlog=BACKLOG
            )
        except OSError as exc:
            self.log.close()
            raise ConfigurationError(
                f"the simulated provider cannot start on {host}:{port}: {exc}",
                remedy="name a free port (0 takes one), an address of this machine, a log in a folder that is there",
            ) from exc
        address, bound = self._server.sockets[0].getsockname()[:2]
        self.base_url = f"http://{_reachable(address)}:{bound}/v1"
        return self.base_url

    async def stop(self) -> None:
        """Break every connection and stop listening; calls not generated yet are not paid. Idempotent."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._waiting.clear()
        self.active = 0
        if self._server is not None:
            self._server.close()
            for connection in list(self._connections):
                connection.abort()
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._server.wait_closed()
            self._server = None
        self.log.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    @property
    def calls(self) -> list[CallRecord]:
        """Every call kept, in the order they were decided."""
        return list(self.log.calls)

    @property
    def paid_calls(self) -> list[CallRecord]:
        """The calls that cost money."""
        return [call for call in self.log.calls if call.paid]

    @property
    def paid_by_request_id(self) -> Counter[str | None]:
        """How often each request id was paid for."""
        return Counter(call.request_id for call in self.log.calls if call.paid)

    def set_faults(self, rules: Sequence[FaultRule]) -> None:
        """Replace the rules from the next call on; their counts begin anew."""
        self._faults = FaultBook(rules)

    def _serve(self, request: SimulatedRequest, connection: Connection) -> None:
        found = find_endpoint(request.method, request.path, request.query)
        if found is None:
            connection.reply(*self._answer_aside(request))
            return
        endpoint, named = found
        try:
            ask = _read(endpoint, request, named)
        except RefusedAskError as exc:
            self._record(request, None, status=400, effect="refused")
            connection.reply(400, endpoint.error(Refusal(400, "invalid_request_error", str(exc))))
            return
        wait_s = self._limits.take(count_tokens(ask.prompt) + self.settings.output_tokens, time.monotonic())
        if wait_s > 0:
            self._refuse_for(_Job(request, connection, endpoint, ask, None, self._limits.headers()), wait_s * 1000)
            return
        fault = self._faults.pick(ask.model, ask.prompt, self._chance)
        job = _Job(request, connection, endpoint, ask, fault, self._limits.headers())
        if fault is not None and fault.effect == "status":
            told_s = None if fault.retry_after is None else fault.retry_after_s
            refusal = Refusal(fault.status, fault.error_code(), f"simulated {fault.status}", told_s)
            self._refuse(job, refusal, fault.headers(time.time()))
        else:
            self._admit(job)

    def _answer_aside(self, request: SimulatedRequest) -> tuple[int, bytes]:
        """Everything that is no call: the list of models and the simulator's own pages."""
        if request.method == "GET":
            if request.path == "/v1/models":
                return 200, models_reply(self.settings.models)
            if request.path == "/sim/calls":
                return 200, json_bytes(self.log.summary())
            if request.path == "/sim/calls.jsonl":
                return 200, self.log.lines()
        return 404, b'{"error": {"message": "no such page", "type": "not_found", "code": "not_found"}}'

    def _admit(self, job: _Job) -> None:
        limit = self.settings.max_concurrency
        if limit is None or self.active < limit:
            self.active += 1
            self._try(job, self._begin)
        elif self.settings.on_overload == "queue" and len(self._waiting) < self.settings.max_queue:
            self._waiting.append(job)
        else:
            self._refuse_for(job, max(1.0, self.settings.latency_ms))

    def _refuse_for(self, job: _Job, wait_ms: float) -> None:
        whole_ms = math.ceil(wait_ms)
        refusal = Refusal(429, "rate_limit_exceeded", "simulated 429", whole_ms / 1000)
        self._refuse(job, refusal, (("retry-after-ms", str(whole_ms)),))

    def _refuse(self, job: _Job, refusal: Refusal, headers: Headers = ()) -> None:
        self._record(job.request, job.ask, status=refusal.status, effect="refused")
        job.connection.reply(refusal.status, job.endpoint.error(refusal), job.headers + headers)

    def _try(self, job: _Job, step: Callable[[_Job], None]) -> None:
        """Take ``step``; a call that turns out to be malformed after all is refused."""
        try:
            step(job)
        except Exception as exc:  # noqa: BLE001 - whatever it is, its client waits and it holds a place
            self._refuse(job, Refusal(400, "invalid_request_error", f"the call cannot be answered: {exc!r}"))
            self._release()

    def _begin(self, job: _Job) -> None:
        delay_s = self.settings.draw_latency_s(self._chance)
        if job.fault is not None:
            delay_s += job.fault.slow_ms / 1000
        if job.ask.stream and job.endpoint.stream is not None:
            pieces = _pieces(job, job.endpoint.stream(job.ask, self.settings.output_tokens))
            gap_s = delay_s / 2 / max(1, len(pieces) - 1)
            begin = partial(self._begin_stream, pieces=pieces, gap_s=gap_s)
            self._later(delay_s / 2, partial(self._try, job, begin))
        else:
            self._later(delay_s, partial(self._try, job, self._finish))

    def _later(self, delay_s: float, step: Callable[[], None]) -> None:
        """Take ``step`` in ``delay_s`` seconds unless the server is stopped before; at once for no delay."""
        if delay_s <= 0:
            step()
            return

        def due() -> None:
            self._timers.discard(timer)
            step()

        timer = asyncio.get_running_loop().call_later(delay_s, due)
        self._timers.add(timer)

    def _finish(self, job: _Job) -> None:
        completion = self._charge(job)
        _reply(job, job.effect, completion.body)
        self._release()

    def _charge(self, job: _Job) -> Completion:
        """Generate the answer. The money is spent, and on record, before anybody can read it."""
        completion = job.endpoint.complete(job.ask, self.settings.output_tokens)
        tokens = (completion.input_tokens, completion.output_tokens)
        gone = not job.connection.is_open
        self._record(job.request, job.ask, status=200, effect=job.effect, tokens=tokens, gone=gone)
        return completion

    def _begin_stream(self, job: _Job, pieces: list[bytes], gap_s: float) -> None:
        self._charge(job)
        job.connection.begin_stream(200, job.headers)
        self._send_pieces(job, pieces, 0, gap_s)

    def _send_pieces(self, job: _Job, pieces: list[bytes], start: int, gap_s: float) -> None:
        for index in range(start, len(pieces)):
            job.connection.send_piece(pieces[index])
            is_last = index == len(pieces) - 1
            if gap_s > 0 and not is_last and job.connection.is_open:
                self._later(gap_s, partial(self._send_pieces, job, pieces, index + 1, gap_s))
                return
        _end_stream(job)
        self._release()

    def _release(self) -> None:
        self.active -= 1
        self._begin_waiting()

    def _begin_waiting(self) -> None:
        limit = self.settings.max_concurrency
        while self._waiting and (limit is None or self.active < limit):
            job = self._waiting.popleft()
            if job.connection.is_open:
                # Its slot is taken now, its work begins in the next iteration: a queue must not become recursion.
                self.active += 1
                asyncio.get_running_loop().call_soon(self._try, job, self._begin)
                return
            self._record(job.request, job.ask, status=499, effect="refused", gone=True)

    def _record(
        self,
        request: SimulatedRequest,
        ask: Ask | None,
        *,
        status: int,
        effect: str,
        tokens: tuple[int, int] | None = None,
        gone: bool = False,
    ) -> None:
        used, made = tokens or (0, 0)
        self.log.add(
            CallRecord(
                number=self.log.total + 1,
                time_ms=time.time_ns() // 1_000_000,
                model="" if ask is None else ask.model,
                path=request.path,
                request_id=_request_id(request),
                messages_sha256="" if ask is None else ask.digest,
                status=status,
                paid=tokens is not None,
                effect=effect,
                input_tokens=used,
                output_tokens=made,
                client_gone=gone,
            )
        )


def _reachable(address: str) -> str:
    """Where a client of this machine reaches who listens on ``address``, as a URL has it."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if found.is_unspecified:
        return "127.0.0.1" if found.version == 4 else "[::1]"
    return address if found.version == 4 else f"[{address}]"


def _read(endpoint: Endpoint, request: SimulatedRequest, named: dict[str, str]) -> Ask:
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError as exc:
        raise RefusedAskError(f"the body is not JSON: {exc}") from exc
    if not isinstance(body, dict):
        raise RefusedAskError("the body is no JSON object")
    return endpoint.read(body | named if named else body)


def _request_id(request: SimulatedRequest) -> str | None:
    for name in REQUEST_ID_HEADERS:
        found = request.headers.get(name)
        if found is not None:
            return unquote(found)
    return None


def _reply(job: _Job, effect: str, body: bytes) -> None:
    if effect in ("ok", "slow"):
        job.connection.reply(200, body, job.headers)
    elif effect == "invalid_json":
        job.connection.reply(200, body[: len(body) // 2], job.headers)
    elif effect == "wrong_shape":
        job.connection.reply(200, job.endpoint.wrong_shape, job.headers)
    elif effect == "truncate":
        job.connection.truncate(200, body)
    elif effect == "reset":
        job.connection.reset(200, body)
    # A hang says nothing: the connection stays busy until the client leaves.


def _pieces(job: _Job, whole: list[bytes]) -> list[bytes]:
    """What of the stream ``whole`` is sent: of one that breaks, the first half."""
    half = max(1, len(whole) // 2)
    if job.effect == "wrong_shape":
        return [sse_event(job.endpoint.wrong_shape)]
    if job.effect == "invalid_json":
        broken = whole[half - 1]
        return [*whole[: half - 1], broken[: len(broken) // 2] + b"\n\n"]
    return whole if job.effect in ("ok", "slow") else whole[:half]


def _end_stream(job: _Job) -> None:
    if job.effect in ("truncate", "reset"):
        job.connection.break_off(reset=job.effect == "reset")
    elif job.effect != "hang":
        job.connection.end_stream()
    # A hang falls silent: the stream stays open until the client leaves.


def _parse_arguments(arguments: Sequence[str] | None) -> tuple[int, SimulatorSettings]:
    parser = argparse.ArgumentParser(prog="simulator", description="A local provider of models, simulated.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--latency-p99-ms", type=float)
    parser.add_argument("--max-concurrency", type=int)
    parser.add_argument("--on-overload", choices=get_args(OnOverload), default="queue")
    parser.add_argument("--output-tokens", type=int, default=32)
    parser.add_argument("--rate-limit-rpm", type=int, help="calls a minute")
    parser.add_argument("--rate-limit-tpm", type=int, help="tokens a minute")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log-path", type=Path, help="append paid calls to this file")
    parser.add_argument("--fault", action="append", default=[], metavar="JSON", help="a fault rule; repeatable")
    given = parser.parse_args(arguments)
    try:
        faults = tuple(FaultRule.from_mapping(orjson.loads(text)) for text in given.fault)
        settings = SimulatorSettings(
            latency_ms=given.latency_ms,
            latency_p99_ms=given.latency_p99_ms,
            max_concurrency=given.max_concurrency,
            on_overload=given.on_overload,
            output_tokens=given.output_tokens,
            rate_limit_rpm=given.rate_limit_rpm,
            rate_limit_tpm=given.rate_limit_tpm,
            faults=faults,
            seed=given.seed,
            log_path=given.log_path,
        )
    except (ConfigurationError, orjson.JSONDecodeError) as exc:
        parser.error(str(exc))
    return given.port, settings


async def _serve_until_told(port: int, settings: SimulatorSettings) -> None:
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    simulator = Simulator(settings)
    base_url = await simulator.start(port)
    collector.settle()
    sys.stdout.write(json_bytes({"base_url": base_url, "pid": os.getpid()}).decode() + "\n")
    sys.stdout.flush()
    await told.wait()
    await simulator.stop()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as a process: prints one JSON line when ready, ends on SIGTERM or SIGINT."""
    port, settings = _parse_arguments(arguments)
    if sys.platform == "win32":
        asyncio.run(_serve_until_told(port, settings))
        return
    import uvloop  # noqa: PLC0415 - absent on Windows

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_until_told(port, settings))


if __name__ == "__main__":
    main()
