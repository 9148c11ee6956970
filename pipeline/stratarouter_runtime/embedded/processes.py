"""Starts, watches and ends server processes; knows no server by name. Bound to no event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from stratarouter_runtime.embedded.errors import EmbeddedStackError, ended_early

POLL_S = 0.02
"""How often a process is asked whether it ended: well below a start's duration, and cheap."""

SPAWN_TIMEOUT_S = 30.0
"""A fork and exec take milliseconds; longer means that the machine is out of something."""

KILL_TIMEOUT_S = 10.0
"""SIGKILL frees the memory of a JVM in well under a second; a process in uninterruptible I/O takes longer."""

LEFTOVER_GRACE_S = 5.0
"""What a server of a killed stack gets to end by itself, its death signal being under way."""

SIGKILL = 9
"""By number: the name is missing on Windows."""

TAIL_BYTES = 4096

LOG_LIMIT_BYTES = 16 * 1024 * 1024
"""A log beyond this is put aside at the next start, one generation kept: nothing else bounds it."""

LAUNCHER = Path(__file__).with_name("launch.py")
_KEPT_VARIABLES = ("PATH", "HOME", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class Account:
    """An unprivileged user that a server runs as."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run: absolute path first, output appended to ``log``."""

    argv: tuple[str, ...]
    cwd: Path
    log: Path
    environment: Mapping[str, str]
    account: Account | None = None
    death_signal: int = SIGKILL
    """Sent (on Linux) when the process that runs the stack ends in whatever way."""


def server_environment(**extra: str) -> dict[str, str]:
    """A small environment: API keys are none of a server's business, and PGPORT or JAVA_TOOL_OPTIONS would bend it."""
    return {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ} | extra


def launch_argv(command: Command, parent: int, platform: str = sys.platform) -> list[str]:
    """The words to run for ``command``: through the launcher on Linux, as they are elsewhere."""
    if platform != "linux":
        return list(command.argv)
    account = command.account or Account(-1, -1)
    words = (parent, command.death_signal, account.uid, account.gid)
    return [sys.executable, "-I", "-S", str(LAUNCHER), *(str(word) for word in words), *command.argv]


def _popen(command: Command) -> subprocess.Popen[bytes]:
    drop = command.account if sys.platform not in ("linux", "win32") else None
    with command.log.open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - every word is ours
            launch_argv(command, os.getpid()),
            cwd=command.cwd,
            env=dict(command.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # The terminal's Ctrl-C must reach the stack, which then stops its servers in order.
            start_new_session=True,
            user=drop.uid if drop else None,
            group=drop.gid if drop else None,
            extra_groups=[] if drop else None,
        )


class _Spawner:
    """One thread that forks every server and lives as long as the process.

    The kernel's death signal follows the *thread* that forked: a server forked from a worker thread
    would be killed when that thread ends.
    """

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._jobs: queue.Queue[tuple[Command, Future[subprocess.Popen[bytes]]]] = queue.Queue(maxsize=64)
        threading.Thread(target=self._run, name="embedded-spawner", daemon=True).start()

    def spawn(self, command: Command) -> subprocess.Popen[bytes]:
        """Fork and exec ``command``."""
        job: Future[subprocess.Popen[bytes]] = Future()
        self._jobs.put((command, job), timeout=SPAWN_TIMEOUT_S)
        return job.result(timeout=SPAWN_TIMEOUT_S)

    def _run(self) -> None:
        while True:
            command, job = self._jobs.get()
            try:
                job.set_result(_popen(command))
            except Exception as exc:  # noqa: BLE001 - handed to the caller, who waits for it
                job.set_exception(exc)


_spawner: _Spawner | None = None
_spawner_guard = threading.Lock()


def spawn(command: Command) -> subprocess.Popen[bytes]:
    """Start ``command`` from the thread that lives as long as this process.

    Raises:
        EmbeddedStackError: the program cannot be run.
    """
    global _spawner  # noqa: PLW0603 - one thread a process is the point
    with _spawner_guard:
        # A forked child has the object but not the thread.
        if _spawner is None or _spawner.owner != os.getpid():
            _spawner = _Spawner()
        spawner = _spawner
    try:
        return spawner.spawn(command)
    except OSError as exc:
        raise EmbeddedStackError(f"cannot run {command.argv[0]}: {exc}") from exc


async def wait_exit(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Whether ``process`` ended within ``timeout_s`` seconds."""
    deadline = time.monotonic() + timeout_s
    while process.poll() is None:
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(POLL_S)
    return True


def birth_of(pid: int) -> str | None:
    """When process ``pid`` began, in the system's own words: tells it from a later one with the same number.

    Returns:
        None where no such process lives (a zombie counts as dead).
    """
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else fields[19]
    if sys.platform == "win32":
        return None
    words = ("/bin/ps", "-o", "lstart=", "-p", str(pid))
    return subprocess.run(words, capture_output=True, text=True, timeout=5, check=False).stdout.strip() or None  # noqa: S603


@dataclass(slots=True)
class Server:
    """One server's process, its log, and the record that lets a later stack find it."""

    name: str
    log: Path
    record: Path
    """A file with the pid and its birth."""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int | None:
        """The living process, or None."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def spawn(self, command: Command) -> None:
        """Start ``command`` as this server."""
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        self.process = spawn(command)
        self.record.write_text(f"{self.process.pid} {birth_of(self.process.pid)}")

    def check_alive(self) -> None:
        """Raise ServerStartError with the end of the log if the process has ended."""
        code = None if self.process is None else self.process.poll()
        if code is not None:
            raise ended_early(self.name, code, self.log, self.tail())

    def tail(self, lines: int = 12) -> str:
        """The last lines of the log."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])

    async def stop(self, stop_signal: int, grace_s: float) -> bool:
        """Ask with ``stop_signal``, wait ``grace_s`` seconds, then kill.

        Returns:
            Whether it ended for having been asked; False too where nothing ran.
        """
        if self.process is None:
            return False
        ran = self.process.poll() is None
        if ran:
            self.process.send_signal(stop_signal)
        if await wait_exit(self.process, grace_s):
            self._forget()
            return ran
        self.kill()
        return False

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=KILL_TIMEOUT_S)
            self._forget()

    def _forget(self) -> None:
        self.process = None
        self.record.unlink(missing_ok=True)

    async def end_leftover(self) -> None:
        """End this server's process of an earlier stack that was killed, if it still lives."""
        pid, birth = read_record(self.record)
        deadline = time.monotonic() + LEFTOVER_GRACE_S
        while pid is not None and birth_of(pid) == birth:
            if time.monotonic() >= deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, SIGKILL)
                deadline = time.monotonic() + KILL_TIMEOUT_S
            await asyncio.sleep(POLL_S)
        self.record.unlink(missing_ok=True)


def read_record(record: Path) -> tuple[int | None, str]:
    """The pid and birth in ``record``; no pid where the file is missing or was cut short."""
    text = record.read_text() if record.exists() else ""
    pid, _, birth = text.partition(" ")
    return (int(pid), birth) if pid.isdecimal() and birth not in ("", "None") else (None, "")
