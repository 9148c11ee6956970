"""PostgreSQL and Redis that speak TLS as ``localhost``: servers of their own in containers, or a front before the
stack's, whose embedded servers were built without it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from redis.asyncio import Redis

from stratarouter_runtime.config import RuntimeConfig
from support.containers import NAME, TRY_S, ContainerPart, images, owned, remove_leftovers, use_loopback
from support.fleet import free_port
from support.tls import Authority, tls_front

HOST = "localhost"


@dataclass(frozen=True, slots=True)
class Encrypted:
    """The addresses as they are without TLS, at the ports that speak it; certificates are for ``localhost`` alone."""

    database_url: str
    redis_url: str

    def database(self, authority: Authority, host: str = HOST) -> str:
        """PostgreSQL's address for a client that trusts ``authority`` and wants the name to hold."""
        trust = f"sslmode=verify-full&sslrootcert={authority.cert}"
        return f"{self.database_url.replace(f'@{HOST}:', f'@{host}:')}?{trust}"

    def redis(self, authority: Authority, host: str = HOST) -> str:
        """Redis's, likewise."""
        url = self.redis_url.replace("redis://", "rediss://").replace(f"{HOST}:", f"{host}:")
        return f"{url}?ssl_ca_certs={authority.cert}"


@asynccontextmanager
async def fronts(config: RuntimeConfig, authority: Authority) -> AsyncIterator[Encrypted]:
    """Before the servers of ``config``."""
    assert config.redis_url is not None
    database, redis = urlsplit(config.database_url), urlsplit(config.redis_url)
    assert database.port is not None
    assert redis.port is not None
    postgres_pem, redis_pem = (authority.issue(HOST, name=name) for name in ("postgres", "redis"))
    async with (
        tls_front(database.port, postgres_pem, postgres=True) as first,
        tls_front(redis.port, redis_pem) as second,
    ):
        login = f":{redis.password}@" if redis.password else ""
        yield Encrypted(
            f"postgresql://{database.username}:{database.password}@{HOST}:{first}{database.path}",
            f"redis://{login}{HOST}:{second}/0",
        )


@contextmanager
def servers(authority: Authority) -> Iterator[Encrypted]:
    """Containers of docker-compose.yml's images that speak TLS themselves; Redis nothing else."""
    use_loopback()
    remove_leftovers()
    password, ports = secrets.token_hex(12), {name: free_port() for name in ("postgres", "redis")}
    found = Encrypted(
        f"postgresql://{NAME}:{password}@{HOST}:{ports['postgres']}/{NAME}",
        f"redis://:{password}@{HOST}:{ports['redis']}/0",
    )

    async def postgres_answers() -> None:
        connection = await asyncpg.connect(found.database(authority), timeout=TRY_S)
        await connection.close(timeout=TRY_S)

    async def redis_answers() -> None:
        async with Redis.from_url(found.redis(authority), socket_timeout=TRY_S, socket_connect_timeout=TRY_S) as client:
            await client.ping()

    parts = (
        ContainerPart("PostgreSQL", _postgres(authority, ports["postgres"], password), postgres_answers),
        ContainerPart("Redis", _redis(authority, ports["redis"], password), redis_answers),
    )

    async def start() -> None:
        await asyncio.gather(*(part.start() for part in parts))

    try:
        # In a thread: a test's own loop may be running here.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, start()).result()
        yield found
    finally:
        for part in parts:
            part.remove()


def _secured(authority: Authority, image: str, name: str, port: int, inside: int, **more: Any) -> Any:
    from testcontainers.core.container import DockerContainer  # it reads its settings when imported

    certificate = authority.issue(HOST, name=name)
    for path, mode in ((certificate.parent, 0o755), (certificate, 0o644), (authority.cert, 0o644)):
        path.chmod(mode)  # the container's user has to reach it
    container = DockerContainer(image).with_volume_mapping(certificate.parent, "/tls", "ro")
    return owned(container, inside, port, **more)


def _postgres(authority: Authority, port: int, password: str) -> Any:
    # The server wants its key to be its own and nobody else's to read.
    own = 'install -o postgres -m 600 /tls/postgres.pem /tmp/server.pem && exec docker-entrypoint.sh "$@"'
    settings = ("ssl=on", "ssl_cert_file=/tmp/server.pem", "ssl_key_file=/tmp/server.pem")
    return (
        _secured(authority, images()["postgres"], "postgres", port, 5432, entrypoint=["bash", "-c", own, "--"])
        .with_env("POSTGRES_USER", NAME)
        .with_env("POSTGRES_DB", NAME)
        .with_env("POSTGRES_PASSWORD", password)
        .with_command(["postgres", *(word for setting in settings for word in ("-c", setting))])
    )


def _redis(authority: Authority, port: int, password: str) -> Any:
    options = {
        "port": "0", "tls-port": "6379", "tls-cert-file": "/tls/redis.pem", "tls-key-file": "/tls/redis.pem",
        "tls-ca-cert-file": "/tls/ca.pem", "tls-auth-clients": "no", "requirepass": password,
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return _secured(authority, images()["redis"], "redis", port, 6379).with_command(["redis-server", *words])
