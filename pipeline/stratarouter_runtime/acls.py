"""What each part may do on the broker, and nothing else: Kafka's ACLs out of the topics' contract. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from stratarouter_runtime import topics
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import ConfigurationError

Resource = Literal["topic", "group", "transactional-id"]
Operation = Literal["Read", "Write", "Describe", "DescribeConfigs"]
GROUPS = frozenset({"enrich", "execute", "usage"})
"""They read as the consumer group of their name."""
TRANSACTIONS = frozenset({"enrich", "execute"})
"""They publish in transactions, one id for each partition."""
REPLIES = frozenset({"enrich", "execute", "operators"})
"""They write to other topics for responses too, within the allowed prefix: those that requests name, and
``replay --to-topic``."""
LOOKS = frozenset({"operators", "observers"})
"""They see how far every processor is (``status``), how every topic is made (``topics check``, ``doctor``), and which
dead letters were sent again."""
SENDS = frozenset({"operators"})
"""They send dead letters again and replay: transactions under groups of their own (``tools.dead_letters``,
``tools.replay``)."""


@dataclass(frozen=True, slots=True, order=True)
class Acl:
    """One permission. ``prefixed``: for every resource whose name begins with ``name``."""

    resource: Resource
    name: str
    operation: Operation
    prefixed: bool = False

    def command(self, principal: str, bootstrap_servers: str) -> str:
        """The line for Kafka's own ``kafka-acls.sh``."""
        words = ["kafka-acls.sh", "--bootstrap-server", bootstrap_servers, "--add", "--allow-principal", principal]
        words += ["--operation", self.operation, f"--{self.resource}", self.name]
        words += ["--resource-pattern-type", "prefixed"] if self.prefixed else []
        return shlex.join(words)


def check_principal(principal: str) -> None:
    """Raises ConfigurationError for one without its type: Kafka's own script would refuse it line by line."""
    kind, colon, name = principal.partition(":")
    if not (kind and colon and name):
        raise ConfigurationError(
            f"--principal {principal!r} has no type before its name", remedy=f"write User:{name or kind or 'NAME'}"
        )


def required(config: RuntimeConfig, parts: Sequence[str]) -> list[Acl]:
    """What ``parts`` (``enrich``, ``execute``, ``clients``, ... as the contract names them) need together, sorted.

    Raises ConfigurationError for a part that the contract does not know.
    """
    contract = topics.load()
    known = {part for topic in contract for part in (*topic.written_by, *topic.read_by)}
    unknown = sorted(set(parts) - known)
    if unknown:
        raise ConfigurationError(f"no topic knows {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return sorted(set(_on_topics(config, contract, parts)) | set(_beside_topics(config, parts)))


def _on_topics(config: RuntimeConfig, contract: Iterable[topics.Topic], parts: Sequence[str]) -> Iterable[Acl]:
    for topic in contract:
        name = topic.full_name(config)
        reads, writes = set(topic.read_by) & set(parts), set(topic.written_by) & set(parts)
        if reads:
            yield Acl("topic", name, "Read")
        if writes:
            yield Acl("topic", name, "Write")
        if LOOKS & set(parts):
            yield Acl("topic", name, "DescribeConfigs")
            if not reads | writes:  # either brings Describe with it
                yield Acl("topic", name, "Describe")


def _beside_topics(config: RuntimeConfig, parts: Sequence[str]) -> Iterable[Acl]:
    for part in parts:
        group = f"{config.group_id}-{part}"
        if part in GROUPS:
            yield Acl("group", group, "Read")
        if part in TRANSACTIONS:
            yield from _transactions(f"{group}.")
        if part in REPLIES:
            yield Acl("topic", config.topic(config.reply_topic_prefix), "Write", prefixed=True)
        if part in REPLIES & SENDS:  # what a replay has written there, it does not write again
            yield Acl("topic", config.topic(config.reply_topic_prefix), "Read", prefixed=True)
        if part in LOOKS:
            yield from (Acl("group", f"{config.group_id}-{name}", "Describe") for name in GROUPS)
            # Committing under a group asks for Read, which brings Describe with it.
            yield Acl("group", f"{config.group_id}.dead-letters", "Read" if part in SENDS else "Describe")
            # Each replay has a group of its own.
            yield Acl("group", f"{config.group_id}.replay.", "Read" if part in SENDS else "Describe", prefixed=True)
        if part in SENDS:
            yield from _transactions(f"{config.group_id}.dead-letters.")
            yield from _transactions(f"{config.group_id}.replay.")


def _transactions(prefix: str) -> Iterable[Acl]:
    yield Acl("transactional-id", prefix, "Write", prefixed=True)
    yield Acl("transactional-id", prefix, "Describe", prefixed=True)


def script(config: RuntimeConfig) -> str:
    """``ops/kafka/least-privilege.sh``, whole: every part of the contract as a user of its own."""
    parts = sorted({part for topic in topics.load() for part in (*topic.written_by, *topic.read_by)})
    lines = [
        "#!/bin/sh",
        "# What each part may do on the broker and nothing else, by the default names. Written by make docs; for other",
        "# names, other users or several parts in one worker: stratarouter-runtime topics acls --principal User:NAME.",
        "set -eu",
    ]
    for part in parts:
        principal = f"User:stratarouter-{part}"
        lines += ["", *(acl.command(principal, config.bootstrap_servers) for acl in required(config, [part]))]
    return "\n".join(lines) + "\n"
