"""The stack's directory: one living stack at a time, ports that stay, passwords that only the owner reads."""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from stratarouter_runtime.embedded.errors import DataDirInUseError, DataDirMismatchError, EmbeddedStackError

FIRST_PORT, LAST_PORT = 20_000, 31_999
"""Below the range that systems take client ports from (Linux 32768, others 49152).

Inside it, a client that reconnects to a stopped server can be given the server's own port
and end up connected to itself.
"""

PORT_ATTEMPTS = 200


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:``port`` now."""
    with socket.socket() as probe:
        if sys.platform != "win32":
            # As the servers do: a port in TIME_WAIT can be listened on.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True


def choose_port(taken: Iterable[int]) -> int:
    """A free port that is not in ``taken``.

    Raises:
        EmbeddedStackError: none was found in PORT_ATTEMPTS draws.
    """
    avoided = set(taken)
    for _ in range(PORT_ATTEMPTS):
        port = random.randint(FIRST_PORT, LAST_PORT)  # noqa: S311 - not a secret
        if port not in avoided and is_free(port):
            return port
    raise EmbeddedStackError(f"no free port on 127.0.0.1 between {FIRST_PORT} and {LAST_PORT}", remedy="free some")


class DataDir:
    """A stack's directory; ``acquire`` before use."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.logs = self.path / "logs"
        self.run = self.path / "run"
        self._lock: BinaryIO | None = None

    def acquire(self) -> None:
        """Take the directory for this stack, making it where it is missing.

        The kernel frees the lock when its holder ends in whatever way, so a killed stack leaves nothing stale.

        Raises:
            DataDirInUseError: another stack holds it.
            DataDirMismatchError: it is no directory that this user can write to.
        """
        try:
            for folder in (self.path, self.logs, self.run):
                folder.mkdir(parents=True, exist_ok=True)
            lock = (self.path / "stack.lock").open("a+b")
        except OSError as exc:
            raise DataDirMismatchError(
                f"data_dir {self.path} cannot be used: {exc}", remedy="name a directory that this user can write to"
            ) from exc
        if not _try_lock(lock):
            holder = _holder(lock)
            lock.close()
            raise DataDirInUseError(f"data_dir {self.path} is in use by a running stack ({holder})")
        lock.truncate(0)
        lock.write(b"#process %d" % os.getpid())
        lock.flush()
        self._lock = lock

    def release(self) -> None:
        """Let the next stack have the directory."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def ports(self, names: Iterable[str]) -> dict[str, int]:
        """One port a name: the remembered one where it is still free, a new one otherwise; remembers them all."""
        remembered = self.load("ports.json")
        chosen: dict[str, int] = {}
        for name in names:
            port = remembered.get(name)
            taken = {*chosen.values(), *(value for key, value in remembered.items() if key != name)}
            chosen[name] = port if isinstance(port, int) and is_free(port) else choose_port(taken)
        self.save("ports.json", remembered | chosen)
        return chosen

    def load(self, name: str) -> dict[str, Any]:
        """The JSON object in file ``name``; empty where there is none.

        Raises:
            DataDirMismatchError: the file holds something else.
        """
        file = self.path / name
        try:
            content = json.loads(file.read_bytes()) if file.exists() else {}
        except ValueError as exc:
            raise DataDirMismatchError(f"{file} is not JSON: {exc}", remedy="delete that file") from exc
        if not isinstance(content, dict):
            raise DataDirMismatchError(f"{file} holds no JSON object", remedy="delete that file")
        return content

    def save(self, name: str, content: dict[str, Any]) -> None:
        """Write ``content`` to file ``name``, whole or not at all."""
        write_atomically(self.path / name, json.dumps(content, indent=1), mode=0o644)

    def password(self, name: str) -> str:
        """The random password in file ``name``, made on first use and readable by the owner alone."""
        file = self.path / name
        if not file.exists():
            write_atomically(file, secrets.token_urlsafe(24), mode=0o600)
        return file.read_text()


def write_atomically(path: Path, text: str, *, mode: int) -> None:
    """Write ``text`` to ``path`` with permission bits ``mode``: a reader sees the old file or the new one."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _try_lock(file: BinaryIO) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415 - exists on Windows only

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415 - exists elsewhere only

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _holder(lock: BinaryIO) -> str:
    try:
        # Past the first byte, which Windows locks against reading too.
        lock.seek(1)
        return lock.read(64).decode(errors="replace") or "process unknown"
    except OSError:
        return "process unknown"
