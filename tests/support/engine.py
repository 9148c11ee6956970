"""Docker's command line, where an engine answers that has what a test needs."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

COMMAND_TIMEOUT_S = 120.0
IMAGE = os.environ.get("RUNTIME_IMAGE", "stratarouter-runtime")
"""The worker's, as docker-compose.yml takes it."""


def client() -> str | None:
    """The command-line client; Debian's own first, which is of the daemon's version."""
    return next((path for path in ("/usr/bin/docker", shutil.which("docker")) if path and Path(path).exists()), None)


def has(image: str) -> bool:
    """Whether the engine has ``image``; False too where no engine answers."""
    docker = client()
    if docker is None:
        return False
    try:
        done = subprocess.run([docker, "image", "inspect", image], capture_output=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def compose() -> list[str] | None:
    """The words that begin a compose command: the plugin's or the older program's."""
    docker = client()
    if docker is not None:
        done = subprocess.run([docker, "compose", "version"], capture_output=True, timeout=20, check=False)
        if done.returncode == 0:
            return [docker, "compose"]
    program = shutil.which("docker-compose")
    return None if program is None else [program]


async def run(*words: str, timeout_s: float = COMMAND_TIMEOUT_S, **environment: str) -> tuple[int, str, str]:
    """One command: its exit code, its output and what it wrote to the error stream."""
    process = await asyncio.create_subprocess_exec(
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, **environment},
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), timeout_s)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")
