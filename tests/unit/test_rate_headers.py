"""Rate headers of every vendor in one form, and nothing learnt from nonsense."""

import time
from datetime import UTC, datetime
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratarouter_runtime.providers.rate_headers import epoch_s, rate_headers, span_s
from stratarouter_runtime.state.limiter import RateHint, RateWindow

NOW = 1_800_000_000.0
NOTHING = RateWindow()


def hint(headers):
    return rate_headers(headers, lambda: NOW)


def openai(limit="60", remaining="59", reset="1s"):
    """Only the limit on requests."""
    return {
        "x-ratelimit-limit-requests": limit,
        "x-ratelimit-remaining-requests": remaining,
        "x-ratelimit-reset-requests": reset,
    }


def at(seconds):
    return datetime.fromtimestamp(NOW + seconds, UTC).isoformat().replace("+00:00", "Z")


def anthropic(kind, limit="100", remaining="99", reset=None):
    given = {"limit": limit, "remaining": remaining, "reset": at(30) if reset is None else reset}
    return {f"anthropic-ratelimit-{kind}-{what}": value for what, value in given.items()}


def test_openais_headers_are_read():
    tokens = {
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    assert hint(openai() | tokens) == RateHint(RateWindow(60, 59, 1.0), RateWindow(150_000, 149_984, 360.0))


def test_anthropics_headers_are_read():
    headers = anthropic("requests") | anthropic("tokens", "80000", "79000", at(2.5))
    assert hint(headers) == RateHint(RateWindow(100, 99, 30.0), RateWindow(80_000, 79_000, 2.5))


def test_tightest_kind_of_tokens_counts_where_the_vendor_does_not_pick_it():
    headers = anthropic("input-tokens", "1000", "900") | anthropic("output-tokens", "200", "7")
    assert hint(headers) == RateHint(NOTHING, RateWindow(200, 7, 30.0))
    headers = anthropic("input-tokens", "1000", "900") | anthropic("output-tokens", "", "")
    assert hint(headers) == RateHint(NOTHING, RateWindow(1000, 900, 30.0))


def test_skewed_clock_does_no_harm_where_the_reply_is_dated():
    headers = anthropic("requests", reset=at(100)) | {"date": formatdate(NOW + 70, usegmt=True)}
    assert hint(headers) == RateHint(RateWindow(100, 99, 30.0), NOTHING)


@pytest.mark.parametrize(("hours", "name"), [(2, "+02:00"), (-7, "-07:00")])
def test_time_of_reset_is_read_in_the_zone_it_names(hours, name):
    there = datetime.fromtimestamp(NOW + 30 + hours * 3600, UTC).isoformat().replace("+00:00", name)
    assert hint(anthropic("requests", reset=there)).requests.reset_s == 30.0


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
@pytest.mark.parametrize("said", ["GMT", "-0000", "+0000", ""])
def test_a_date_without_a_zone_is_in_utc_wherever_this_process_runs(zone, said, monkeypatch):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert epoch_s(f"Wed, 21 Oct 2015 07:28:00 {said}") == 1445412480.0
    finally:
        monkeypatch.undo()
        time.tzset()


def test_time_of_reset_that_has_passed_is_now():
    assert hint(anthropic("requests", reset=at(-5))).requests.reset_s == 0.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("6m0s", 360), ("120ms", 0.12), ("1h2m3.5s", 3723.5), ("7.66s", 7.66), ("2m59.56s", 179.56),
     ("500us", 5e-4), ("500µs", 5e-4), ("1d", 86_400), ("0", 0), ("12", 12), ("1.5", 1.5), (" 2s ", 2),
     ("", None), ("-1", None), ("-1s", None), ("soon", None), ("1s later", None), ("s", None), ("1x", None),
     ("1e9", None), ("nan", None), ("inf", None), ("\u0661s", None), ("2026-01-01T00:00:00Z", None)],
)  # fmt: skip
def test_span_of_time_is_read_in_every_form(text, seconds):
    assert span_s(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("headers", "window"),
    [
        # What Azure sends for the responses API.
        (openai("-1", "-1", "0"), None),
        (openai("0", "0", "0"), None),
        (openai("-1", "0", "1s"), None),
        (openai("many", "5", "1s"), None),
        (openai("", "0", "1s"), None),
        (openai("", "", "1s"), None),
        ({}, None),
        ({"x-ratelimit-remaining": "3"}, None),
        (openai("9" * 14, "1", "1s"), None),
        (openai("9" * 400, "1", "1s"), None),
        (openai("60", "0", "30s"), RateWindow(60, 0, 30.0)),
        (openai("60", "-1", "30s"), RateWindow(60, None, 30.0)),
        (openai("60", "5", "-1"), RateWindow(60, 5, None)),
        (openai("60", "5", "when the moon is full"), RateWindow(60, 5, None)),
        (openai("60", "5", "1800000000"), RateWindow(60, 5, None)),
        (openai("60.0", "5.0", "1s"), RateWindow(60, 5, 1.0)),
        (openai("", "5", "1s"), RateWindow(None, 5, 1.0)),
        (anthropic("requests", reset="tomorrow"), RateWindow(100, 99, None)),
        (anthropic("requests", reset="2099-01-01T00:00:00Z"), RateWindow(100, 99, None)),
        (anthropic("requests", "0", "0"), None),
    ],
)
def test_only_what_makes_sense_is_taken(headers, window):
    assert hint(headers) == (None if window is None else RateHint(window, NOTHING))


VALUES = st.one_of(st.text(max_size=20), st.from_regex(r"-?[0-9.]{0,20}(ms|s|m|h)?", fullmatch=True), st.just(at(5)))


@given(VALUES, VALUES, VALUES)
def test_no_header_is_an_error_and_no_hint_is_impossible(limit, remaining, reset):
    for headers in (openai(limit, remaining, reset), anthropic("requests", limit, remaining, reset)):
        found = hint(headers)
        if found is not None:
            window = found.requests
            assert window.says_something
            assert window.limit is None or window.limit >= 1
            assert window.remaining is None or window.remaining >= 0
            assert window.reset_s is None or 0 <= window.reset_s <= 86_400
