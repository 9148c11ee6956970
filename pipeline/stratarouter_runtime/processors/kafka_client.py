"""Builds aiokafka's clients from the configuration, and maps its errors to ours."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, TypeAlias

import aiokafka.producer.sender
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    InvalidTimestampError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnsupportedForMessageFormatError,
)
from aiokafka.helpers import create_ssl_context

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import BrokerError, LaneFencedError, OutputRefusedError, TopicContractError

Record: TypeAlias = "ConsumerRecord[bytes | None, bytes | None]"
"""A record as it was read: topic, partition, offset, timestamp, key, value, headers."""

TRANSACTION_RETRY_S = 0.002
"""Pause before asking again while the last transaction's markers are written. aiokafka's own 20 ms makes up most of
a back-to-back transaction's time (median 30 ms against 8)."""
RETRY_BACKOFF_MS = 5
"""aiokafka's default of 100 ms turns a short NotEnoughReplicas into a 120 ms tail."""
FETCH_WAIT_MS = 200
"""How long a broker holds back the answer to a consumer's fetch while it finds nothing."""
MAX_PRODUCE_BYTES = 20 * 1024 * 1024
"""The largest record written: a dead letter around a request of 12 MiB in base64."""
REQUEST_TIMEOUT_MS = 15_000
METADATA_MAX_AGE_MS = 15_000
"""How late a consumer hears of new partitions, or of a topic made anew; aiokafka's default is 5 minutes."""

SETTINGS_REMEDY = "correct the settings of the topic that reply_to names, or name another"
RIGHTS_REMEDY = "grant this user the right to it (`stratarouter-runtime topics acls`)"

aiokafka.producer.sender.BACKOFF_OVERRIDE = TRANSACTION_RETRY_S


def connection(config: RuntimeConfig) -> dict[str, Any]:
    """Keyword arguments that every client shares: servers and security."""
    return {
        "bootstrap_servers": config.bootstrap_servers,
        "security_protocol": config.security_protocol,
        "ssl_context": _ssl_context(config),
        **_sasl(config),
    }


def _ssl_context(config: RuntimeConfig) -> ssl.SSLContext | None:
    if "SSL" not in config.security_protocol:
        return None
    context: ssl.SSLContext = create_ssl_context(
        cafile=_text(config.ssl_cafile), certfile=_text(config.ssl_certfile), keyfile=_text(config.ssl_keyfile)
    )
    context.check_hostname = True
    return context


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _sasl(config: RuntimeConfig) -> dict[str, Any]:
    if "SASL" not in config.security_protocol:
        return {}
    password = config.sasl_password
    return {
        "sasl_mechanism": config.sasl_mechanism,
        "sasl_plain_username": config.sasl_username,
        "sasl_plain_password": password.get_secret_value() if password is not None else None,
    }


def producer(config: RuntimeConfig, *, transactional_id: str | None = None) -> AIOKafkaProducer:
    """An idempotent producer; transactional where an id is given."""
    extra: dict[str, Any] = {}
    if transactional_id is not None:
        extra = {"transactional_id": transactional_id, "transaction_timeout_ms": config.transaction_timeout_ms}
    return AIOKafkaProducer(
        **connection(config),
        enable_idempotence=True,
        acks="all",
        linger_ms=0,
        max_batch_size=256 * 1024,
        max_request_size=MAX_PRODUCE_BYTES,
        retry_backoff_ms=RETRY_BACKOFF_MS,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        **extra,
    )


def consumer(config: RuntimeConfig, *topics: str, group: str | None, **extra: Any) -> AIOKafkaConsumer:
    """A read_committed consumer that never commits by itself."""
    settings: dict[str, Any] = {
        "group_id": group,
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "isolation_level": "read_committed",
        "session_timeout_ms": config.session_timeout_ms,
        "heartbeat_interval_ms": max(200, min(3000, config.session_timeout_ms // 5)),
        "rebalance_timeout_ms": max(config.session_timeout_ms, 10_000),
        "fetch_max_wait_ms": FETCH_WAIT_MS,
        "retry_backoff_ms": 50,
        "metadata_max_age_ms": METADATA_MAX_AGE_MS,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
    }
    return AIOKafkaConsumer(*topics, **connection(config), **(settings | extra))


def hold_back(consumer: AIOKafkaConsumer, wait_ms: int) -> None:
    """Have brokers answer this consumer's next fetches after ``wait_ms`` milliseconds where they find nothing.

    A fetch asks for what was not paused when it began, and there is one for each broker: a partition that is resumed
    meanwhile waits for its end.
    """
    consumer._fetcher._fetch_max_wait_ms = wait_ms  # noqa: SLF001 - the setting is read at each fetch, and set nowhere


def admin(config: RuntimeConfig) -> AIOKafkaAdminClient:
    """An admin client."""
    return AIOKafkaAdminClient(**connection(config), request_timeout_ms=REQUEST_TIMEOUT_MS)


def mapped(exc: BaseException, doing: str) -> BrokerError:
    """Our error for aiokafka's: fenced is final for a lane, everything else is retried with a new client."""
    if isinstance(exc, ProducerFenced):
        return LaneFencedError(f"fenced while {doing}: another worker owns this partition")
    remedy = RIGHTS_REMEDY if isinstance(exc, TopicAuthorizationFailedError | GroupAuthorizationFailedError) else None
    return BrokerError(f"{type(exc).__name__} while {doing}: {exc}", remedy=remedy)


def mapped_write(exc: BaseException, doing: str, *, chosen: bool = False) -> BrokerError:
    """As ``mapped``, of what was written: where the broker will never take it, that is said. ``chosen``: a topic of the
    client's choice is among those written to, whose settings nobody here corrects.
    """
    too_large = isinstance(exc, MessageSizeTooLargeError | RecordListTooLargeError)
    if too_large or isinstance(exc, TopicAuthorizationFailedError | InvalidTopicError):
        return OutputRefusedError(f"{type(exc).__name__} while {doing}: {exc}", too_large=too_large)
    if chosen and isinstance(exc, InvalidTimestampError | UnsupportedForMessageFormatError):
        return OutputRefusedError(f"{type(exc).__name__} while {doing}: {exc}", remedy=SETTINGS_REMEDY)
    return mapped(exc, doing)


CLIENT_ERRORS: tuple[type[BaseException], ...] = (
    KafkaError,
    TimeoutError,
    asyncio.TimeoutError,
    OSError,
    AssertionError,
    ValueError,
    RuntimeError,
)
"""What aiokafka raises: besides its own, assertions of its transaction states and errors of a closed client."""


def places_of(client: AIOKafkaConsumer, *topics: str) -> list[TopicPartition]:
    """Every partition of ``topics``, which a consumer without a group subscribed to and was started with.

    Raises TopicContractError where one does not exist.
    """
    places = []
    for topic in topics:
        partitions = client.partitions_for_topic(topic)
        if not partitions:
            raise TopicContractError(f"topic {topic!r} does not exist")
        places += [TopicPartition(topic, partition) for partition in sorted(partitions)]
    return places
