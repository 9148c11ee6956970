"""A broker that lets its clients in over SASL_SSL only, and grants them only what they were granted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest

from stratarouter_runtime.acls import Acl
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.embedded.data_dir import DataDir
from stratarouter_runtime.embedded.kafka import KafkaCluster
from stratarouter_runtime.embedded.kafka_settings import Node
from support.fleet import free_port
from support.tls import Authority

RESOURCES = {"topic": 2, "group": 3, "transactional-id": 5}
OPERATIONS = {"Read": 3, "Write": 4, "Describe": 8, "DescribeConfigs": 10}
LITERAL, PREFIXED = 3, 4
ALLOW = 3
"""Kafka's numbers: org.apache.kafka.common.acl and .resource."""


@dataclass(frozen=True, slots=True)
class SecureKafka:
    """``plain`` is the operator's own way in, on which everything is allowed; ``secure`` the clients'."""

    plain: str
    secure: str

    async def grant(self, user: str, acls: Iterable[Acl]) -> None:
        """Allow ``user`` that much more."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.plain)
        await admin.start()
        try:
            for acl in acls:
                pattern = PREFIXED if acl.prefixed else LITERAL
                reply = await admin._send_request(
                    CreateAclsRequest(
                        RESOURCES[acl.resource],
                        acl.name,
                        pattern,
                        f"User:{user}",
                        "*",
                        OPERATIONS[acl.operation],
                        ALLOW,
                    )
                )
                assert all(code == 0 for code, _ in reply.creation_responses), reply
        finally:
            await admin.close()

    def settings(
        self, config: RuntimeConfig, authority: Authority, user: str, password: str, **changes: object
    ) -> RuntimeConfig:
        """``config`` as ``user`` reaches the broker over TLS, and ``changes``."""
        secured = {
            "bootstrap_servers": self.secure,
            "security_protocol": "SASL_SSL",
            "sasl_username": user,
            "sasl_password": password,
            "ssl_cafile": authority.cert,
        }
        return RuntimeConfig(**{**config.model_dump(exclude_none=True), **secured, **changes})


class _Cluster(KafkaCluster):
    """One broker with a second listener."""

    extra: Mapping[str, str] = {}

    def _write_node(self, node: Node, cluster_id: str) -> None:
        super()._write_node(node, cluster_id)
        path = self._home(node.number) / "server.properties"
        known = dict(line.split("=", 1) for line in path.read_text().splitlines())
        known["listeners"] += f",{self.extra['listeners']}"
        known["advertised.listeners"] += f",{self.extra['listeners']}"
        known["listener.security.protocol.map"] += ",CLIENTS:SASL_SSL"
        known |= {name: value for name, value in self.extra.items() if name != "listeners"}
        path.write_text("".join(f"{name}={value}\n" for name, value in known.items()))


@contextmanager
def secure_kafka(
    folder: Path, cache: Path, certificate: Path, host: str, users: Mapping[str, str]
) -> Iterator[SecureKafka]:
    """A broker at ``host`` (a name for loopback) with ``certificate`` (PEM) and ``users`` (name -> password)."""
    port = free_port()
    logins = " ".join(f'user_{name}="{password}"' for name, password in users.items())
    extra = {
        "listeners": f"CLIENTS://{host}:{port}",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificate),
        "listener.name.clients.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.clients.plain.sasl.jaas.config":
            f"org.apache.kafka.common.security.plain.PlainLoginModule required {logins};",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "allow.everyone.if.no.acl.found": "false",
    }  # fmt: skip
    data_dir = DataDir(folder)
    cluster = _Cluster(data_dir, 1, {}, cache, lambda _: None)
    cluster.extra = extra
    data_dir.acquire()
    try:
        asyncio.run(_start(cluster))
        yield SecureKafka(cluster.bootstrap_servers, f"{host}:{port}")
    finally:
        asyncio.run(cluster.stop())
        data_dir.release()


async def _start(cluster: KafkaCluster) -> None:
    await cluster.prepare()
    cluster.assign({name: free_port() for name in cluster.port_names})
    await cluster.start()
