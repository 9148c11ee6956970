"""The stream's bytes -> its events: the rules of the standard, however the bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratarouter_runtime.errors import ProviderBadReplyError
from stratarouter_runtime.port_values import ServerSentEvent
from stratarouter_runtime.providers.sse import EventParser


def parsed(*chunks, max_bytes=10_000):
    parser = EventParser(max_bytes)
    return [event for chunk in chunks for event in parser.feed(chunk)]


def plain(*data):
    return [ServerSentEvent(each) for each in data]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", plain("a")),
        (b"data:a\n\ndata:  b\n\n", plain("a", " b")),
        (b"data: a\r\n\r\ndata: b\r\r", plain("a", "b")),
        (b"data: a\ndata: b\n\n", plain("a\nb")),
        (b"event: ping\ndata: {}\n\ndata: x\n\n", [ServerSentEvent("{}", "ping"), ServerSentEvent("x")]),
        (b": comment\n\n:\n\ndata: a\n\n", plain("a")),
        (b"\xef\xbb\xbfdata: a\n\n", plain("a")),
        (b"data\n\n", plain("")),
        (b"data:\ndata:\n\n", plain("\n")),
        (b"event: only a name\n\ndata: a\n\n", plain("a")),
        (b"event:\ndata: a\n\n", plain("a")),
        (b"id: 1\nretry: 10\nunknown: x\n\n", []),
        (b"data: a: b\n\n", plain("a: b")),
        (b"data: a\n", []),
        (b"data: a\n\ndata: cut of", plain("a")),
        (b"\n\n\n", []),
        (b"", []),
        ("data: grüße 🙂\n\n".encode(), plain("grüße 🙂")),
        (b"data: \xff\n\n", plain("\ufffd")),
        ("data: a\u2028b\x0bc\n\n".encode(), plain("a\u2028b\x0bc")),
    ],
)
def test_stream_is_read_as_the_standard_says(stream, events):
    assert parsed(stream) == events
    assert parsed(*(stream[at : at + 1] for at in range(len(stream)))) == events


def test_empty_chunk_between_return_and_line_feed_ends_no_line():
    assert parsed(b"data: a\r", b"", b"\ndata: b\r\n\r", b"", b"\n") == plain("a\nb")


LINES = st.lists(st.sampled_from(["data: a", "data:", "event: e", ": c", "", "data: ü🙂", "id: 1"]), max_size=12)


@given(LINES, st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(0, 150), max_size=8))
def test_where_the_bytes_are_cut_changes_nothing(lines, end, cuts):
    stream = "".join(line + end for line in lines).encode()
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(bounds)]
    assert parsed(*pieces) == parsed(stream) == parsed("".join(line + "\n" for line in lines).encode())


@pytest.mark.parametrize(
    "chunks",
    [
        [b"data: " + b"x" * 100],
        [b"x" * 10] * 10,
        [b":" + b"x" * 100 + b"\n"],
        [b"data: xxxxxxxxxx\n"] * 10,
        [b"data:\n"] * 100,
    ],
)
def test_line_or_event_without_end_is_given_up(chunks):
    with pytest.raises(ProviderBadReplyError, match="larger than 64 bytes") as caught:
        parsed(*chunks, max_bytes=64)
    assert caught.value.maybe_paid


def test_bound_is_of_one_event_and_not_of_the_stream():
    assert len(parsed(*[b"data: " + b"x" * 50 + b"\n\n"] * 100, max_bytes=64)) == 100
