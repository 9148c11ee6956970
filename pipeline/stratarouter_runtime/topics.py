"""The topics: reads their contract (``topics.toml``), compares a broker with it, and makes the broker agree.

Nothing is ever removed: no topic, no partition, and no setting that an operator made beside the contract's.
"""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code

from stratarouter_runtime import contracts
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import TopicContractError
from stratarouter_runtime.processors.admin_client import connected

ADMIN_TIMEOUT_S = 60.0
"""For the whole of ``apply`` or ``check``; a broker that takes longer is taken to be away."""
POLL_S = 0.05
"""Between two looks at whether the brokers know a new topic."""
OWN_SETTING = 1
"""Kafka's ``DYNAMIC_TOPIC_CONFIG``: the value was set on the topic itself (DescribeConfigs, config_source)."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of the contract. ``setting`` is the RuntimeConfig field that names it; ``name`` its default.

    ``ordered``: the order over the whole topic counts, so its number of partitions is not for an operator to choose.
    """

    name: str
    setting: str
    partitions: int
    key: str
    retention_ms: int
    cleanup: str
    max_message_bytes: int
    schema: str
    written_by: tuple[str, ...]
    read_by: tuple[str, ...]
    ordered: bool = False

    def settings(self) -> dict[str, str]:
        """The topic's settings as Kafka names and writes them."""
        return {
            "cleanup.policy": self.cleanup,
            "max.message.bytes": str(self.max_message_bytes),
            "retention.ms": str(self.retention_ms),
        }

    def full_name(self, config: RuntimeConfig) -> str:
        """The topic's name on the broker."""
        return config.topic(getattr(config, self.setting))


@dataclass(frozen=True, slots=True)
class Existing:
    """A topic as the broker has it. ``own`` are the settings made on the topic itself."""

    partitions: int
    settings: Mapping[str, str]
    own: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the broker departs from the contract. ``what``: ``topic``, ``partitions`` or a setting of Kafka's."""

    topic: str
    what: str
    declared: str
    found: str | None

    @property
    def can_be_made(self) -> bool:
        """Whether the broker can be made to agree: partitions can be added, not taken away."""
        return self.what != "partitions" or int(self.found or 0) < int(self.declared)

    @property
    def is_choice(self) -> bool:
        """Whether it is an operator's own decision: fewer partitions than the contract proposes."""
        return self.what == "partitions" and self.can_be_made

    def __str__(self) -> str:
        if self.what == "topic":
            return f"topic {self.topic} is missing"
        return f"topic {self.topic}: {self.what} is {self.found}, declared is {self.declared}"


@dataclass(frozen=True, slots=True)
class Change:
    """What ``apply`` did, or would do, about one difference."""

    difference: Difference

    def __str__(self) -> str:
        one = self.difference
        if one.what == "topic":
            return f"create topic {one.topic} with {one.declared} partitions"
        if one.what == "partitions" and not one.can_be_made:
            return f"leave topic {one.topic} with {one.found} partitions; delete it to have it made with {one.declared}"
        verb = "raise" if one.what == "partitions" else "set"
        return f"{verb} {one.what} of topic {one.topic} from {one.found} to {one.declared}"


def load() -> tuple[Topic, ...]:
    """The contract. Raises TopicContractError where the file is wrong."""
    path = contracts.topics_file()
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return tuple(
            Topic(**(item | {name: tuple(item[name]) for name in ("written_by", "read_by")})) for item in data["topics"]
        )
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as exc:
        raise TopicContractError(f"{path} is wrong: {exc!r}", remedy="install the package again") from exc


def compare(
    declared: Mapping[str, Topic], existing: Mapping[str, Existing], partitions: int | None = None
) -> list[Difference]:
    """Where ``existing`` departs from ``declared`` (both by full name).

    ``partitions`` stands in for every topic's own number, but for those that are ``ordered``; having more than declared
    is no difference.
    """
    differences = []
    for name, topic in declared.items():
        wanted = topic.partitions if partitions is None or topic.ordered else partitions
        found = existing.get(name)
        if found is None:
            differences.append(Difference(name, "topic", str(wanted), None))
            continue
        if found.partitions < wanted or (topic.ordered and found.partitions != wanted):
            differences.append(Difference(name, "partitions", str(wanted), str(found.partitions)))
        differences += [
            Difference(name, setting, value, found.settings.get(setting))
            for setting, value in topic.settings().items()
            if found.settings.get(setting) != value
        ]
    return differences


async def check(config: RuntimeConfig, *, partitions: int | None = None) -> list[Difference]:
    """Compare the broker with the contract; ``partitions`` as for ``apply``. Raises BrokerError."""
    declared = _declared(config)
    async with connected(config, "checking the topics", ADMIN_TIMEOUT_S) as client:
        return compare(declared, await _existing(client, declared), partitions)


async def apply(config: RuntimeConfig, *, partitions: int | None = None, dry_run: bool = False) -> list[Change]:
    """Make the broker agree with the contract, and return what was (with ``dry_run``: would be) changed.

    ``partitions`` stands in for every topic's own number. Raises BrokerError.
    """
    declared = _declared(config)
    async with connected(config, "applying the topics", ADMIN_TIMEOUT_S) as client:
        existing = await _existing(client, declared)
        differences = compare(declared, existing, partitions)
        if not dry_run:
            await _create(client, declared, differences, config.replication_factor)
            await _add_partitions(client, differences)
            await _alter(client, existing, differences)
            await _until_known(client, differences)
        return [Change(difference) for difference in differences]


async def names(
    config: RuntimeConfig, doing: str = "listing the topics", timeout_s: float = ADMIN_TIMEOUT_S
) -> frozenset[str]:
    """The broker's topics as of now. ``doing`` says in an error what for. Raises BrokerError."""
    async with connected(config, doing, timeout_s) as client:
        return frozenset(await client.list_topics())


def _declared(config: RuntimeConfig) -> dict[str, Topic]:
    return {topic.full_name(config): topic for topic in load()}


async def _existing(client: AIOKafkaAdminClient, names: Mapping[str, Topic]) -> dict[str, Existing]:
    # All topics are listed: asking for one by name would make the broker create it where it may.
    present = set(await client.list_topics()) & names.keys()
    if not present:
        return {}
    counts = {item["topic"]: len(item["partitions"]) for item in await client.describe_topics(sorted(present))}
    replies = await client.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(present)]
    )
    found = {}
    for code, message, _, name, entries in (resource for reply in replies for resource in reply.resources):
        _raise_for(code, f"describing topic {name}", message)
        found[name] = Existing(
            partitions=counts[name],
            settings={entry[0]: entry[1] for entry in entries},
            own={entry[0]: entry[1] for entry in entries if entry[3] == OWN_SETTING},
        )
    return found


async def _create(
    client: AIOKafkaAdminClient, declared: Mapping[str, Topic], differences: Sequence[Difference], replication: int
) -> None:
    new = [
        _new_topic(one.topic, int(one.declared), replication, declared[one.topic].settings())
        for one in differences
        if one.what == "topic"
    ]
    if new:
        reply = await client.create_topics(new)
        for name, code, *message in reply.topic_errors:
            # Another worker may create it at the same moment: it has the same contract.
            if code != TopicAlreadyExistsError.errno:
                _raise_for(code, f"creating topic {name}", *message)


def _new_topic(name: str, partitions: int, replication: int, settings: Mapping[str, str]) -> NewTopic:
    topic = NewTopic(name, partitions, max(replication, 1), topic_configs=settings)
    # Set afterwards because the constructor refuses -1, which the broker takes for its own default.
    topic.replication_factor = replication
    return topic


async def _add_partitions(client: AIOKafkaAdminClient, differences: Sequence[Difference]) -> None:
    more = {
        one.topic: NewPartitions(int(one.declared))
        for one in differences
        if one.what == "partitions" and one.can_be_made
    }
    if more:
        await client.create_partitions(more)


async def _alter(
    client: AIOKafkaAdminClient, existing: Mapping[str, Existing], differences: Sequence[Difference]
) -> None:
    wrong: dict[str, dict[str, str]] = {}
    for one in differences:
        if one.what not in ("topic", "partitions"):
            # The request replaces all of a topic's settings: what is set there already goes along.
            wrong.setdefault(one.topic, dict(existing[one.topic].own))[one.what] = one.declared
    if not wrong:
        return
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, settings) for name, settings in wrong.items()]
    for reply in await client.alter_configs(resources):
        for code, message, _, name in reply.resources:
            _raise_for(code, f"altering topic {name}", message)


async def _until_known(client: AIOKafkaAdminClient, differences: Sequence[Difference]) -> None:
    """Wait until the brokers report what was created; ``connected`` bounds the wait."""
    wanted = {one.topic: int(one.declared) for one in differences if one.what in ("topic", "partitions")}
    while wanted:
        known: dict[str, int] = {}
        listed = sorted(set(await client.list_topics()) & wanted.keys())
        if listed:
            known = _led_partitions(await client.describe_topics(listed))
        wanted = {name: count for name, count in wanted.items() if known.get(name, 0) < count}
        if wanted:
            await asyncio.sleep(POLL_S)


def _led_partitions(described: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many partitions of each topic have a leader: only those take records."""
    return {item["topic"]: sum(part["leader"] >= 0 for part in item["partitions"]) for item in described}


def _raise_for(code: int, doing: str, message: str | None = None) -> None:
    if code:
        raise for_code(code)(f"{doing}: {message or 'refused'}")
