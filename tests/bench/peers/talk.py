"""A peer that stays alive between its rounds: a word on its standard input, a line of JSON back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from bench.peers import SCRIPTS, PeerError

READY_TIMEOUT_S = 300.0
"""Some fill 10,000 entries one by one before they are ready."""
ROUND_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Searches of 10,000 vectors gain little from more, and on a busy machine lose tens of milliseconds."""


class Talk:
    """One process, asked for one round after the other."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    async def answer(self, timeout_s: float = ROUND_TIMEOUT_S) -> Any:
        """The next line it says. Raises PeerError where it dies or keeps silent."""
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), timeout_s)
        except TimeoutError as exc:
            raise PeerError(f"said nothing for {timeout_s:g} s; {self._last_words()}") from exc
        if not line:
            raise PeerError(f"ended; {self._last_words()}")
        return orjson.loads(line)

    async def ask(self, question: str) -> Any:
        """Its answer to ``question``."""
        assert self._process.stdin is not None
        self._process.stdin.write(question.encode() + b"\n")
        return await self.answer()

    def _last_words(self) -> str:
        return f"its last words: {self._log.read_text(errors='replace')[-600:]}"


@asynccontextmanager
async def talk(python: str, script: str, *options: str, folder: Path) -> AsyncIterator[Talk]:
    """A script of this folder, once it has said that it is ready. Raises PeerError."""
    log = folder / f"{script}.log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(python, str(SCRIPTS / script), *options),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=file,
            cwd=folder,
            env=os.environ | ONE_THREAD,
        )
    try:
        talking = Talk(process, log)
        await talking.answer(READY_TIMEOUT_S)
        yield talking
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
