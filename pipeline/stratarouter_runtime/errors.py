"""Every error the runtime raises, split by what the caller must do.

::

    RuntimeSystemError
    |-- ConfigurationError                 fix the configuration, start again
    |   |-- RouteTableError                route_table
    |   |-- TopicContractError             topic_contract
    |   `-- SchemaVersionError             schema_version
    |-- InvalidRecordError                 fix the input: the record becomes a dead letter
    |   |-- UndecodableRecordError         undecodable
    |   |-- RecordTooLargeError            record_too_large
    |   |-- SchemaViolationError           schema_violation
    |   |-- InvalidEmbeddingError          invalid_embedding
    |   |-- UnknownRouteError              unknown_route
    |   |-- ReplyTopicNotAllowedError      reply_topic_not_allowed
    |   |-- IdempotencyConflictError       idempotency_conflict
    |   `-- PoisonRecordError              poison
    |-- ExecutionError                     the request is answered with an error response
    |   |-- DeadlineExceededError          deadline_exceeded
    |   |-- AmbiguousCallError             ambiguous
    |   |-- LowConfidenceError             low_confidence
    |   |-- ResponseTooLargeError          response_too_large
    |   |-- ShuttingDownError              shutting_down         (slow down)
    |   |-- BudgetExhaustedError           budget_exhausted      (slow down)
    |   |-- UnpricedTargetError            unpriced_target
    |   `-- ProviderError
    |       |-- ProviderUnavailableError   provider_unavailable  (5xx, 408, 409, 529)
    |       |-- ProviderRateLimitedError   provider_rate_limited (429)
    |       |-- ProviderConnectionError    provider_connection   (nothing was sent)
    |       |-- ProviderInterruptedError   provider_interrupted  (sent, no whole reply)
    |       |-- ProviderRejectedError      provider_rejected     (400, 404, 413, 422)
    |       |-- ProviderAuthError          provider_auth         (401, 403)
    |       |-- ProviderQuotaError         provider_quota        (quota spent)
    |       |-- ProviderBadReplyError      provider_bad_reply    (200, unreadable)
    |       |-- UnsupportedParameterError  unsupported_parameter
    |       `-- UnknownProviderError       unknown_provider      (not in this worker's route table)
    `-- InfrastructureError                wait: the runtime retries by itself
        |-- BrokerError                    broker
        |   |-- LaneFencedError            lane_fenced
        |   |-- OutputRefusedError         output_refused
        |   |-- OffsetMetadataError        offset_metadata
        |   |-- UnreadableBatchError       unreadable_batch
        |   `-- OffsetRegressionError      offset_regression
        |-- JournalUnavailableError        journal_unavailable
        |-- CacheUnavailableError          cache_unavailable
        `-- EmbedderError                  embedder

``code`` is stable: it stands in dead letters, error responses, logs and metric labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar


class RuntimeSystemError(Exception):
    """The root of everything this package raises on purpose."""

    code: ClassVar[str] = "runtime"
    retryable: ClassVar[bool] = False
    default_remedy: ClassVar[str] = ""

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        """Build from ``message`` (what was wrong, where) and ``remedy`` (what to change)."""
        super().__init__(message)
        self.remedy = self.default_remedy if remedy is None else remedy

    @property
    def message(self) -> str:
        """What was wrong, without the remedy."""
        return str(self.args[0])


class ConfigurationError(RuntimeSystemError):
    """A setting is wrong; the process must not start with it."""

    code = "configuration"


class RouteTableError(ConfigurationError):
    """The route table is wrong; the message names the file, the key and the rule."""

    code = "route_table"


class TopicContractError(ConfigurationError):
    """A topic is missing or differs from ``topics.toml``."""

    code = "topic_contract"
    default_remedy = "run `stratarouter-runtime topics apply`"


class SchemaVersionError(ConfigurationError):
    """The journal's schema is older or newer than this version needs."""

    code = "schema_version"
    default_remedy = "run `stratarouter-runtime migrate` with this version"


class InvalidRecordError(RuntimeSystemError):
    """A record cannot be executed as it is; its bytes go to the dead letters."""

    code = "invalid_record"


class UndecodableRecordError(InvalidRecordError):
    """The record's value is empty, not UTF-8, not JSON, or nested too deeply."""

    code = "undecodable"
    default_remedy = "produce one UTF-8 JSON object as the record's value"


class RecordTooLargeError(InvalidRecordError):
    """The record's value is larger than ``max_request_bytes``, or its headers are more than are taken."""

    code = "record_too_large"
    default_remedy = "send less, or raise max_request_bytes and the topic's max.message.bytes"


class SchemaViolationError(InvalidRecordError):
    """A field is missing, of the wrong type or out of its range; the message names its path."""

    code = "schema_violation"
    default_remedy = "correct the field named in the reason; schemas/request.v1.json is the contract"


class InvalidEmbeddingError(InvalidRecordError):
    """The embedding holds NaN or infinity, is all zeros, or has the wrong dimension."""

    code = "invalid_embedding"
    default_remedy = "send a finite, non-zero vector of the configured dimension, or leave it out"


class UnknownRouteError(InvalidRecordError):
    """The decision's route is in no route table and names no provider and model of its own."""

    code = "unknown_route"
    default_remedy = "add the route to the route table, or name decision.provider and decision.model"


class ReplyTopicNotAllowedError(InvalidRecordError):
    """The record names a reply topic outside the operator's allowed prefix."""

    code = "reply_topic_not_allowed"
    default_remedy = "use a topic that begins with reply_topic_prefix"


class IdempotencyConflictError(InvalidRecordError):
    """The request id was used before with another payload; the first answer stands."""

    code = "idempotency_conflict"
    default_remedy = "use a new request_id for a new payload"


class PoisonRecordError(InvalidRecordError):
    """A step raised an unexpected exception for this record, as often as it is tried."""

    code = "poison"
    default_remedy = "report the exception named in the reason; resend the record once it is fixed"


class ExecutionError(RuntimeSystemError):
    """The request was valid but has no answer; it gets an error response."""

    code = "execution"


class DeadlineExceededError(ExecutionError):
    """The request's deadline or ``execution_timeout`` passed before an answer was there."""

    code = "deadline_exceeded"
    default_remedy = "send it again with a later deadline, or raise execution_timeout"


class AmbiguousCallError(ExecutionError):
    """A call was started by a worker that died; ``on_ambiguous = "fail"`` forbids paying again."""

    code = "ambiguous"
    default_remedy = "check the provider's log, then resend with a new request_id"


class LowConfidenceError(ExecutionError):
    """The decision's confidence is below the route's minimum."""

    code = "low_confidence"
    default_remedy = "route again, or lower the route's min_confidence"


class ResponseTooLargeError(ExecutionError):
    """The answer is larger than the responses topic takes; the result stays in the journal."""

    code = "response_too_large"
    default_remedy = "ask for fewer tokens, or raise max_response_bytes and the topic's max.message.bytes"


class ShuttingDownError(ExecutionError):
    """The process is draining and takes no new request."""

    code = "shutting_down"
    retryable = True
    default_remedy = "send it to another worker"


class BudgetExhaustedError(ExecutionError):
    """The tenant's budget for this window is spent; no call was made."""

    code = "budget_exhausted"
    default_remedy = "wait for the budget's next window, or raise it in the route table"


class UnpricedTargetError(ExecutionError):
    """A budget in money covers the request, and a target's price is unknown; no call was made."""

    code = "unpriced_target"
    default_remedy = "give the model's price under [prices] in the route table, or the budget in tokens"


class ProviderError(ExecutionError):
    """A call to a provider failed.

    Attributes:
        status: HTTP status, or None where there was no reply.
        retry_after_s: seconds the provider asked to wait, or None.
        maybe_paid: whether the provider may have generated (and charged) an answer.
    """

    code = "provider"

    def __init__(
        self,
        message: str,
        *,
        remedy: str | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
        maybe_paid: bool = False,
    ) -> None:
        """Build from what the provider answered."""
        super().__init__(message, remedy=remedy)
        self.status = status
        self.retry_after_s = retry_after_s
        self.maybe_paid = maybe_paid


class ProviderUnavailableError(ProviderError):
    """408, 409, 5xx or 529: the provider could not answer now."""

    code = "provider_unavailable"
    retryable = True
    default_remedy = "the runtime retries; if it lasts, look at the provider's status"


class ProviderRateLimitedError(ProviderError):
    """429: too many requests or tokens a minute."""

    code = "provider_rate_limited"
    retryable = True
    default_remedy = "the runtime waits and retries; if it lasts, ask for higher limits or spread the load"


class ProviderConnectionError(ProviderError):
    """No connection: nothing was sent, nothing was paid."""

    code = "provider_connection"
    retryable = True
    default_remedy = "check the provider's base URL and the network"


class ProviderInterruptedError(ProviderError):
    """The request was sent and no whole reply came back; the provider may have charged for it."""

    code = "provider_interrupted"
    retryable = True
    default_remedy = "raise execution_timeout if the provider is slow"


class ProviderRejectedError(ProviderError):
    """400, 404, 413, 422: the provider will not take this request."""

    code = "provider_rejected"
    default_remedy = "correct the request or the target; the provider's reason is in the message"


class ProviderAuthError(ProviderError):
    """401 or 403: the key is wrong or lacks a right."""

    code = "provider_auth"
    default_remedy = "check the provider's API key and its rights"


class ProviderQuotaError(ProviderError):
    """The account's quota is spent; waiting does not help."""

    code = "provider_quota"
    default_remedy = "raise the provider account's quota, or add a fallback target"


class ProviderBadReplyError(ProviderError):
    """200 with a body that cannot be read; it was paid for, so the same target is not asked again."""

    code = "provider_bad_reply"
    default_remedy = "check that the base URL speaks the configured wire shape"


class UnsupportedParameterError(ProviderError):
    """The request names a parameter that the provider's wire shape lacks."""

    code = "unsupported_parameter"
    default_remedy = "leave the parameter out, or choose a provider that has it"


class UnknownProviderError(ProviderError):
    """The route was resolved by another table than this worker's, which names no such provider. Nothing was sent."""

    code = "unknown_provider"
    default_remedy = (
        "give every worker the same route table (SIGHUP takes a changed one up), then "
        "`stratarouter-runtime replay --re-execute --only-errors`"
    )


class InfrastructureError(RuntimeSystemError):
    """Something the runtime stands on is away; it waits and tries again."""

    code = "infrastructure"
    retryable = True


class BrokerError(InfrastructureError):
    """Kafka could not do what was asked."""

    code = "broker"
    default_remedy = "check the broker; the worker resumes by itself"


class LaneFencedError(BrokerError):
    """Another worker took over this partition; this lane publishes nothing more."""

    code = "lane_fenced"


class OutputRefusedError(BrokerError):
    """The broker will never take one of these outputs: it is too large for its topic, or the topic is closed to us or
    gone.

    ``topics``: the ones that are gone; empty: which of the outputs it was is not known. ``too_large``: a smaller one
    may be taken.
    """

    code = "output_refused"
    retryable = False
    default_remedy = (
        "raise the topic's max.message.bytes, or grant this user the right to it (`stratarouter-runtime topics acls`)"
    )

    def __init__(
        self,
        message: str,
        *,
        remedy: str | None = None,
        topics: frozenset[str] = frozenset(),
        too_large: bool = False,
    ) -> None:
        """Build from ``message``, the topics that are gone, and whether it is the size."""
        super().__init__(message, remedy=remedy)
        self.topics = topics
        self.too_large = too_large


class OffsetMetadataError(BrokerError):
    """The group's committed metadata was written by something else, or is corrupt."""

    code = "offset_metadata"
    retryable = False
    default_remedy = (
        "stop the group, then reset this partition's offset with kafka-consumer-groups --reset-offsets; "
        "answers already paid for are republished from the journal"
    )


class UnreadableBatchError(BrokerError):
    """Records of the input topic cannot be unpacked: the codec is not installed, or the batch is damaged."""

    code = "unreadable_batch"
    retryable = False
    default_remedy = (
        "stop the group and move this partition's offset past the batch with kafka-consumer-groups --reset-offsets; "
        "the records skipped get no answer"
    )


class OffsetRegressionError(BrokerError):
    """A partition's offsets went back: its topic was made anew, or its end was cut off."""

    code = "offset_regression"
    default_remedy = "none needed: the partition is opened again from where its records begin"


class JournalUnavailableError(InfrastructureError):
    """The journal could not be read or written; no call is started without it."""

    code = "journal_unavailable"
    default_remedy = "check PostgreSQL (DATABASE_URL); the worker resumes by itself"


class CacheUnavailableError(InfrastructureError):
    """The cache's server is away; lookups are bypassed."""

    code = "cache_unavailable"
    default_remedy = "check Redis (REDIS_URL); requests go on without the cache"


class EmbedderError(InfrastructureError):
    """The embedder failed; the request goes on without a vector."""

    code = "embedder"
    default_remedy = "check the embedder's configuration"

    def __init__(self, message: str, *, remedy: str | None = None, vectors: Sequence[Any] = ()) -> None:
        """``vectors``: where only some texts have none, what all of them have, in their order: a vector or None."""
        super().__init__(message, remedy=remedy)
        self.vectors = vectors


REFUSALS = {kind.code: kind for kind in InvalidRecordError.__subclasses__()}
"""By the codes that dead letters carry."""


def in_general(code: str) -> tuple[str, str]:
    """What an error of ``code`` means, and its remedy, for who may not see what a message quotes."""
    kind = next((kind for kind in _with_descendants(RuntimeSystemError) if kind.code == code), None)
    return ("a code of another version", "") if kind is None else (kind.__doc__ or "", kind.default_remedy)


def _with_descendants(kind: type[RuntimeSystemError]) -> Iterator[type[RuntimeSystemError]]:
    """``kind`` and all below it; a class before those that inherit its code."""
    yield kind
    for below in kind.__subclasses__():
        yield from _with_descendants(below)
