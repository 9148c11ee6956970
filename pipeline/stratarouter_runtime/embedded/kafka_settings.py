"""What a broker of ours is told: pure functions from ports and paths to settings."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stratarouter_runtime.embedded.errors import EmbeddedStackError

SMALL_MACHINE = {
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
    "group.coordinator.threads": "1",
    "share.coordinator.threads": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "1",
    # Without these the cleaner takes 128 MB of a 256 MB heap and every partition maps 2 x 10 MB of index.
    "log.cleaner.dedupe.buffer.size": "4194304",
    "log.index.size.max.bytes": "1048576",
    "log.segment.bytes": "67108864",
}
"""The stock settings are made for a server of its own."""

QUICK = {
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    # A broker that comes back after kill -9 waits for its old session to end: 9 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
}

OWNED = frozenset(
    {
        "process.roles",
        "node.id",
        "broker.id",
        "listeners",
        "advertised.listeners",
        "controller.listener.names",
        "controller.quorum.voters",
        "controller.quorum.bootstrap.servers",
        "inter.broker.listener.name",
        "listener.security.protocol.map",
        "log.dir",
        "log.dirs",
        "metadata.log.dir",
    }
)
"""What makes the cluster ours; ``broker_settings`` may not change it."""


@dataclass(frozen=True, slots=True)
class Node:
    """One broker and controller: its number (from 1) and its two ports on 127.0.0.1."""

    number: int
    port: int
    controller_port: int


def node_settings(node: Node, nodes: Sequence[Node], extra: Mapping[str, str]) -> dict[str, str]:
    """The settings of ``node`` in the cluster of ``nodes``; ``extra`` wins over ours.

    Paths are relative to the node's own folder: Kafka splits ``log.dirs`` at commas and reads the file as Latin-1.
    """
    client = f"PLAINTEXT://127.0.0.1:{node.port}"
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.number),
        "listeners": f"{client},CONTROLLER://127.0.0.1:{node.controller_port}",
        "advertised.listeners": client,
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.quorum.voters": ",".join(f"{n.number}@127.0.0.1:{n.controller_port}" for n in nodes),
        "log.dirs": "data",
        **replication(len(nodes)),
        **SMALL_MACHINE,
        **QUICK,
        **extra,
    }


def replication(brokers: int) -> dict[str, str]:
    """Copies of everything: all of up to 3 brokers hold one, and one of three may be away."""
    copies = str(min(brokers, 3))
    in_sync = "2" if brokers >= 3 else "1"
    return {
        "default.replication.factor": copies,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "share.coordinator.state.topic.replication.factor": copies,
        "min.insync.replicas": in_sync,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.min.isr": in_sync,
    }


def check_extra(extra: Mapping[str, str]) -> None:
    """Refuse settings that would break the cluster or the file.

    Raises:
        EmbeddedStackError: names the key.
    """
    for key, value in extra.items():
        if key in OWNED:
            raise EmbeddedStackError(f"broker_settings may not set {key!r}", remedy="leave it out: the stack sets it")
        if not re.fullmatch(r"[A-Za-z0-9._-]+", key) or "\n" in value or "\r" in value:
            raise EmbeddedStackError(f"broker_settings has a malformed entry {key!r}", remedy="one key, one line")


def as_properties(settings: Mapping[str, str]) -> str:
    """``settings`` as a Java properties file: backslashes doubled, what is not ASCII escaped."""
    return "".join(f"{key}={_escaped(value)}\n" for key, value in settings.items())


def _escaped(value: str) -> str:
    utf16 = value.replace("\\", "\\\\").encode("utf-16-be")
    units = (int.from_bytes(utf16[i : i + 2]) for i in range(0, len(utf16), 2))
    return "".join(chr(unit) if unit < 128 else f"\\u{unit:04x}" for unit in units)


def new_id() -> str:
    """A random id as Kafka writes them: a UUID in 22 characters of URL-safe base64, not beginning with a dash."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def meta_properties(cluster_id: str, number: int) -> str:
    """What ``kafka-storage format`` would write for node ``number``, without starting a JVM for it."""
    return f"version=1\ncluster.id={cluster_id}\nnode.id={number}\ndirectory.id={new_id()}\n"
