"""Programs that do the same job with other libraries, and the environment these are installed in.

The environment is made once, in the user's cache directory: peers are no dependencies of the product, of its tests or
of its development.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

PACKAGES = (
    "aiohttp==3.14.5",
    "aiokafka==0.14.0",
    "faust-streaming==0.15.3",
    "litellm==1.106.2",
    "numpy==2.4.2",
    "orjson==3.13.0",
    "quixstreams==3.28.1",
    "requests==2.34.2",
    "uvloop==0.23.0",
)
INSTALL_TIMEOUT_S = 900.0
STAMP = "installed"


def home() -> Path:
    """``$BENCH_CACHE``, or a directory of the user's cache."""
    given = os.environ.get("BENCH_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "stratarouter-runtime" / "bench"


async def python() -> str:
    """The interpreter of the peers' environment, made if it is not there or holds other versions.

    Raises RuntimeError with what pip said where the packages cannot be installed.
    """
    place = home() / "peers"
    interpreter, stamp = place / "bin" / "python", place / STAMP
    wanted = "\n".join(PACKAGES)
    if not stamp.exists() or stamp.read_text() != wanted:
        place.parent.mkdir(parents=True, exist_ok=True)
        await _run(sys.executable, "-m", "venv", str(place))
        await _run(str(interpreter), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *PACKAGES)
        stamp.write_text(wanted)
    return str(interpreter)


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(INSTALL_TIMEOUT_S):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"the peers' environment cannot be made: {said.decode()[-2000:]}")
