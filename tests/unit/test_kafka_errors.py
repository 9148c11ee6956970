"""What aiokafka's errors are here: a read that is not allowed is no output that the broker refuses."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    InvalidTimestampError,
    InvalidTopicError,
    KafkaConnectionError,
    MessageSizeTooLargeError,
    ProducerFenced,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnsupportedForMessageFormatError,
)

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import BrokerError, LaneFencedError, OutputRefusedError
from stratarouter_runtime.processors.kafka_client import RIGHTS_REMEDY, mapped, mapped_write
from stratarouter_runtime.processors.publisher import TransactionalPublisher
from stratarouter_runtime.records import Outbound


@pytest.mark.parametrize(
    ("kind", "too_large"),
    [
        (MessageSizeTooLargeError, True),
        (RecordListTooLargeError, True),
        (TopicAuthorizationFailedError, False),
        (InvalidTopicError, False),
    ],
)
def test_what_the_broker_will_never_take_is_an_output_refused(kind: type[Exception], too_large: bool) -> None:
    error = mapped_write(kind("responses"), "committing requests-0 at 7")
    assert type(error) is OutputRefusedError
    assert error.too_large is too_large
    assert (kind.__name__ in error.message, "committing requests-0 at 7" in error.message) == (True, True)


@pytest.mark.parametrize("kind", [InvalidTimestampError, UnsupportedForMessageFormatError])
@pytest.mark.parametrize(("chosen", "expected"), [(True, OutputRefusedError), (False, BrokerError)])
def test_what_a_topic_s_own_settings_refuse_is_final_for_the_topics_that_clients_choose(
    kind: type[Exception], chosen: bool, expected: type[BrokerError]
) -> None:
    """Our own are corrected, and everything waits for that."""
    assert type(mapped_write(kind("responses.mine"), "committing requests-0 at 7", chosen=chosen)) is expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (("responses",), BrokerError),
        (("responses.mine",), OutputRefusedError),
        (("x", "responses"), OutputRefusedError),
    ],
)
async def test_a_commit_knows_the_topics_that_clients_chose(
    written: tuple[str, ...], expected: type[BrokerError], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def names(*_: object) -> frozenset[str]:
        return frozenset({"requests", *written})

    async def write() -> None:
        raise InvalidTimestampError

    monkeypatch.setattr("stratarouter_runtime.processors.publisher.topics.names", names)
    publisher = TransactionalPublisher(RuntimeConfig(), "g", TopicPartition("requests", 0))
    with pytest.raises(BrokerError, match=r"committing .* at 7") as caught:
        await publisher._commit(write(), [Outbound(topic, b"k", b"v") for topic in written], 7)
    assert type(caught.value) is expected


@pytest.mark.parametrize("kind", [TopicAuthorizationFailedError, GroupAuthorizationFailedError])
def test_a_read_that_is_not_allowed_says_which_right_is_missing(kind: type[Exception]) -> None:
    error = mapped(kind("requests"), "reading requests")
    assert (type(error), error.remedy, error.retryable) == (BrokerError, RIGHTS_REMEDY, True)


@pytest.mark.parametrize("mapping", [mapped, mapped_write])
def test_fenced_is_fenced_and_the_rest_is_the_broker(mapping: object) -> None:
    assert callable(mapping)
    assert type(mapping(ProducerFenced(), "committing")) is LaneFencedError
    away = mapping(KafkaConnectionError("away"), "committing")
    assert (type(away), away.remedy) == (BrokerError, BrokerError.default_remedy)
