"""What each vendor's refusal becomes: its shape, its codes, its time to wait; as a reply and within a stream."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratarouter_runtime.errors import (
    ProviderAuthError,
    ProviderError,
    ProviderQuotaError,
    ProviderRateLimitedError,
    ProviderRejectedError,
    ProviderUnavailableError,
)
from stratarouter_runtime.port_values import HttpReply
from stratarouter_runtime.providers.http_errors import error_of_event, error_of_reply, reason_of

GOOGLE_TYPE = "type.googleapis.com/google.rpc."


def error_of(status, body, headers=None):
    return error_of_reply(HttpReply(status, headers or {}, orjson.dumps(body)), "p")


def anthropic(kind, message="the reason", **more):
    return {"type": "error", "error": {"type": kind, "message": message, **more}, "request_id": "req_1"}


def google(code, status, *details, message="the reason"):
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


def retry_info(delay):
    return {"@type": GOOGLE_TYPE + "RetryInfo", "retryDelay": delay}


def quota_failure(quota_id):
    return {"@type": GOOGLE_TYPE + "QuotaFailure", "violations": [{"quotaId": quota_id, "quotaValue": "250"}]}


def error_info(reason):
    return {"@type": GOOGLE_TYPE + "ErrorInfo", "reason": reason, "domain": "googleapis.com"}


LIMIT_SET = "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."


def code(name):
    return {"error_code": name}


PER_MINUTE = quota_failure("GenerateRequestsPerMinutePerProjectPerModel-FreeTier")
PER_DAY = quota_failure("GenerateRequestsPerDayPerProjectPerModel-FreeTier")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (529, anthropic("overloaded_error"), ProviderUnavailableError),
        (500, anthropic("api_error"), ProviderUnavailableError),
        (429, anthropic("rate_limit_error"), ProviderRateLimitedError),
        (402, anthropic("billing_error"), ProviderQuotaError),
        (403, anthropic("billing_error"), ProviderQuotaError),
        (403, anthropic("permission_error"), ProviderAuthError),
        (413, anthropic("request_too_large"), ProviderRejectedError),
        (400, anthropic("invalid_request_error"), ProviderRejectedError),
        (400, anthropic("invalid_request_error", "Your credit balance is too low to use this."), ProviderQuotaError),
        (400, anthropic("invalid_request_error", LIMIT_SET), ProviderQuotaError),
        (429, anthropic("rate_limit_error", details=code("enforced_spend_limit_reached")), ProviderQuotaError),
        (429, anthropic("rate_limit_error", details=code("contract_spend_limit_reached")), ProviderQuotaError),
        (429, anthropic("rate_limit_error", details=code("ramp_limit_exceeded")), ProviderRateLimitedError),
        (429, google(429, "RESOURCE_EXHAUSTED"), ProviderRateLimitedError),
        (429, google(429, "RESOURCE_EXHAUSTED", PER_MINUTE, retry_info("3s")), ProviderRateLimitedError),
        (429, google(429, "RESOURCE_EXHAUSTED", PER_DAY, retry_info("3s")), ProviderQuotaError),
        (503, google(503, "UNAVAILABLE"), ProviderUnavailableError),
        (400, google(400, "INVALID_ARGUMENT", error_info("API_KEY_INVALID")), ProviderAuthError),
        (400, google(400, "INVALID_ARGUMENT"), ProviderRejectedError),
        (429, {"error": {"message": "no", "type": "insufficient_quota", "code": "429"}}, ProviderQuotaError),
        (429, {"error": {"message": "no", "type": "tokens", "code": "rate_limit_exceeded"}}, ProviderRateLimitedError),
    ],
)
def test_refusal_of_every_vendor_becomes_its_error(status, body, kind):
    assert type(error_of(status, body)) is kind


def test_googles_delay_is_waited_for_and_a_header_overrules_it():
    body = google(429, "RESOURCE_EXHAUSTED", PER_MINUTE, retry_info("3.5s"))
    assert error_of(429, body).retry_after_s == 3.5
    assert error_of(429, body, {"retry-after": "9"}).retry_after_s == 9.0
    assert error_of(429, google(429, "RESOURCE_EXHAUSTED", retry_info("soon"))).retry_after_s is None


def test_wait_for_a_daily_quota_is_not_believed():
    error = error_of(429, google(429, "RESOURCE_EXHAUSTED", PER_DAY, retry_info("3s")))
    assert (error.retryable, error.retry_after_s) == (False, None)


def test_error_within_a_list_is_read():
    error = error_of(429, [google(429, "RESOURCE_EXHAUSTED", retry_info("3s"))])
    assert "the reason" in str(error)
    assert error.retry_after_s == 3.0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 600) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["error", "message", "code", "type", "status", "details", "violations", "retryDelay", "reason"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(JSON, st.sampled_from([400, 403, 429, 500]))
def test_no_body_is_too_strange_for_an_error(body, status):
    assert isinstance(error_of(status, body), ProviderError)
    assert isinstance(error_of_event(orjson.dumps(body), "p"), ProviderError)


@pytest.mark.parametrize("empty", [None, {}, ""])
def test_error_that_is_empty_hides_nothing_of_what_stands_beside_it(empty):
    error = error_of(429, {"error": empty, "message": "the reason", "code": "insufficient_quota"})
    assert type(error) is ProviderQuotaError
    assert str(error).endswith(": the reason")
    assert str(error_of(503, {"error": empty})).endswith(": no reason given")


@pytest.mark.parametrize("body", [b"", b"<html>no</html>", b"\xff"])
def test_body_that_is_no_json_is_its_own_reason(body):
    assert reason_of(body).text == body.decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ({"error": {"code": "rate_limit_exceeded", "message": "m"}}, ProviderRateLimitedError, 429),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "m"}, ProviderRateLimitedError, 429),
        ({"error": {"code": "insufficient_quota", "message": "m"}}, ProviderQuotaError, 429),
        ({"error": {"code": "server_error", "message": "m"}}, ProviderUnavailableError, 500),
        ({"error": {"code": 502, "message": "m"}}, ProviderUnavailableError, 502),
        ({"error": {"code": "503", "message": "m"}}, ProviderUnavailableError, 503),
        ({"error": {"code": "invalid_prompt", "message": "m"}}, ProviderRejectedError, 400),
        ({"error": {"code": "image_too_large", "message": "m"}}, ProviderRejectedError, 400),
        ({"error": {"code": 7, "message": "m"}}, ProviderUnavailableError, 500),
        ({"error": "m"}, ProviderUnavailableError, 500),
        (anthropic("overloaded_error", "m"), ProviderUnavailableError, 529),
        (google(429, "RESOURCE_EXHAUSTED", message="m"), ProviderRateLimitedError, 429),
    ],
)
def test_error_within_a_stream_becomes_the_same_and_may_have_been_paid(body, kind, status):
    error = error_of_event(orjson.dumps(body), "p")
    assert (type(error), error.status, error.maybe_paid) == (kind, status, True)
    assert "'p'" in str(error)
    assert str(error).endswith(": m")


def test_words_within_a_stream_are_scrubbed():
    body = orjson.dumps({"error": {"message": "bad key canary"}})
    assert "canary" not in str(error_of_event(body, "p", scrub=lambda text: text.replace("canary", "***")))
