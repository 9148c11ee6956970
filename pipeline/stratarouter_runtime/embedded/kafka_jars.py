"""Kafka's jars: the ones our lock names, byte for byte, fetched from Maven Central once per user."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stratarouter_runtime.embedded.data_dir import write_atomically
from stratarouter_runtime.embedded.errors import EmbeddedExtraMissingError, EmbeddedStackError, JarDownloadError
from stratarouter_runtime.embedded.processes import KILL_TIMEOUT_S, Command, spawn

KAFKA_VERSION = "4.1.1"
LOCK_FILE = Path(__file__).with_name("kafka_jars.lock")
FETCH_PROGRAM = Path(__file__).with_name("kafka_fetch.py")
STAMP_NAME = "verified.json"

DOWNLOAD_TIMEOUT_S = 300.0
"""38 MB: 5-15 s on a good line; at 1 Mbit/s just five minutes."""

PROGRESS_POLL_S = 0.1

Progress = Callable[[str], None]
Stamp = dict[str, list[object]]


@dataclass(frozen=True, slots=True)
class LockedJar:
    """One jar as the lock names it."""

    group: str
    artifact: str
    version: str
    sha256: str
    size_bytes: int

    @property
    def coordinate(self) -> str:
        """``group:artifact:version``."""
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def filename(self) -> str:
        """The jar's name in the cache."""
        return f"{self.artifact}-{self.version}.jar"


def parse_lock(text: str) -> tuple[LockedJar, ...]:
    """Read the lock: one ``group:artifact:version sha256 bytes`` a line, ``#`` begins a comment.

    Raises:
        EmbeddedStackError: a line has another shape, or two lines name the same file.
    """
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    jars = tuple(_parse_line(line) for line in lines)
    if len({jar.filename for jar in jars}) != len(jars):
        raise EmbeddedStackError("kafka_jars.lock names a file twice", remedy="reinstall stratarouter-runtime")
    return jars


def _parse_line(line: str) -> LockedJar:
    words = line.split()
    parts = words[0].split(":")
    if len(words) != 3 or len(parts) != 3 or len(words[1]) != 64 or not words[2].isdecimal():
        raise EmbeddedStackError(f"bad line in kafka_jars.lock: {line!r}", remedy="reinstall stratarouter-runtime")
    return LockedJar(parts[0], parts[1], parts[2], words[1], int(words[2]))


def user_cache_dir(environment: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """The per-user folder for things that can be fetched again, by each system's custom."""
    if platform == "win32" and "LOCALAPPDATA" in environment:
        return Path(environment["LOCALAPPDATA"]) / "stratarouter-runtime"
    if platform == "darwin":
        return Path.home() / "Library" / "Caches" / "stratarouter-runtime"
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stratarouter-runtime"


def stamp_of(jar: LockedJar, path: Path) -> list[object]:
    """What stays the same as long as nobody touches a verified file."""
    stat = path.stat()
    return [jar.sha256, stat.st_size, stat.st_mtime_ns]


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unverified(folder: Path, jars: Iterable[LockedJar]) -> list[LockedJar]:
    """The jars that are missing in ``folder`` or are not what the lock says.

    Hashes only the files whose size and time differ from those at their last verification, and notes the new ones.
    """
    known = _read_stamp(folder / STAMP_NAME)
    stamp: Stamp = {}
    bad = []
    for jar in jars:
        path = folder / jar.filename
        current = stamp_of(jar, path) if path.is_file() else None
        if current is not None and (known.get(jar.filename) == current or sha256_of(path) == jar.sha256):
            stamp[jar.filename] = current
        else:
            bad.append(jar)
    if stamp != known:
        write_atomically(folder / STAMP_NAME, json.dumps(stamp), mode=0o644)
    return bad


def _read_stamp(path: Path) -> Stamp:
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def install(jars: Iterable[LockedJar], source: Path, folder: Path) -> None:
    """Move each of ``jars`` from ``source`` into ``folder``, which is on the same file system, once its hash is right.

    Raises:
        JarDownloadError: a file is missing or has another hash; it is not installed.
    """
    for jar in jars:
        path = source / jar.filename
        found = sha256_of(path) if path.is_file() else "no file"
        if found != jar.sha256:
            raise JarDownloadError(
                f"{jar.coordinate} should have SHA-256 {jar.sha256} but what came has {found}",
                remedy="something on the way (a proxy, a mirror) changed it: fetch over another network",
            )
        path.replace(folder / jar.filename)


async def ensure_jars(cache_dir: Path, progress: Progress, timeout_s: float = DOWNLOAD_TIMEOUT_S) -> list[Path]:
    """The verified jars in ``cache_dir``, fetching those that are missing or damaged within ``timeout_s`` seconds.

    Raises:
        EmbeddedExtraMissingError: jgo is needed and not installed.
        JarDownloadError: a jar could not be had, or is not the locked one.
        EmbeddedStackError: the cache cannot be written.
    """
    jars = parse_lock(LOCK_FILE.read_text())
    folder = cache_dir / f"kafka-{KAFKA_VERSION}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        missing = await asyncio.to_thread(unverified, folder, jars)
        if missing:
            await _Download(missing, len(jars), folder, progress).run(timeout_s)
            await asyncio.to_thread(unverified, folder, jars)
    except OSError as exc:
        raise EmbeddedStackError(f"cannot use the cache {folder}: {exc}", remedy="pass a writable cache_dir") from exc
    return [folder / jar.filename for jar in jars]


@dataclass(frozen=True, slots=True)
class _Download:
    """Fetches ``missing``, out of ``total`` jars, into ``folder``."""

    missing: Sequence[LockedJar]
    total: int
    folder: Path
    progress: Progress

    async def run(self, timeout_s: float) -> None:
        """Fetch into a folder of this process's own, verify, and move each jar into place."""
        if importlib.util.find_spec("jgo") is None:
            raise EmbeddedExtraMissingError("jgo, which fetches Kafka's jars, is not installed")
        staging = Path(tempfile.mkdtemp(prefix="fetch-", dir=self.folder.parent))
        try:
            words = (sys.executable, "-P", str(FETCH_PROGRAM), str(staging), *(jar.coordinate for jar in self.missing))
            process = spawn(Command(words, staging, staging / "fetch.log", dict(os.environ)))
            try:
                await self._watch(process, staging, timeout_s)
            finally:
                process.kill()
                process.wait(timeout=KILL_TIMEOUT_S)
            await asyncio.to_thread(install, self.missing, staging / "jars", self.folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    async def _watch(self, process: subprocess.Popen[bytes], staging: Path, timeout_s: float) -> None:
        """Report the jars that have arrived until ``process`` ends well."""
        deadline = time.monotonic() + timeout_s
        here = self.total - len(self.missing)
        reported = -1
        while (code := process.poll()) is None and time.monotonic() < deadline:
            arrived = here + sum(1 for _ in (staging / "jars").glob("*.jar"))
            if arrived != reported:
                self.progress(f"downloading Kafka's jars {arrived}/{self.total}")
                reported = arrived
            await asyncio.sleep(PROGRESS_POLL_S)
        if code is None:
            raise JarDownloadError(
                f"Kafka's jars did not arrive within {timeout_s:.0f} s ({reported} of {self.total} did)"
            )
        if code != 0:
            reason = (staging / "fetch.log").read_text(errors="replace").strip().splitlines()[-1:]
            raise JarDownloadError(f"Kafka's jars could not be fetched: {''.join(reason) or f'status {code}'}")
        if reported != self.total:
            self.progress(f"downloading Kafka's jars {self.total}/{self.total}")
