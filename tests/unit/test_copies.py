"""Copies of answers are kept within their bytes, for their time, and only where nothing changed on their way."""

from __future__ import annotations

from stratarouter_runtime.cache.copies import MAX_LATEST, OVERHEAD_BYTES, PER_BYTE, Copies
from stratarouter_runtime.cache.values import Found
from stratarouter_runtime.records import Answer
from stratarouter_runtime.state.cache_control import UNKNOWN, Origin

ONE = OVERHEAD_BYTES + PER_BYTE * 100
"""What a copy of a value of 100 bytes takes."""


def found(name: str) -> Found:
    return Found(name, Answer(name, "openai", "m"), UNKNOWN)


def put(copies: Copies, name: str, *, until: float = 10.0, since: int | None = None, size: int = 100) -> None:
    since = copies.changes if since is None else since
    copies.put(("s", name), name.encode(), found(name), size, until, since=since)


def kept(copies: Copies, *names: str, now: float = 0.0) -> list[str]:
    return [one.entry_id for name in names if (one := copies.get(("s", name), now)) is not None]


def test_a_copy_is_there_until_its_time_is_over() -> None:
    copies = Copies(10 * ONE)
    put(copies, "a", until=5.0)
    assert kept(copies, "a", "b", now=4.9) == ["a"]
    assert kept(copies, "a", now=5.0) == []
    assert (len(copies), copies.bytes) == (0, 0)


def test_the_least_recently_used_goes_where_room_is_short() -> None:
    copies = Copies(3 * ONE)
    for name in "abc":
        put(copies, name)
    assert kept(copies, "a") == ["a"]
    put(copies, "d")
    assert kept(copies, "a", "b", "c", "d") == ["a", "c", "d"]
    assert copies.bytes == 3 * ONE
    put(copies, "huge", size=3 * ONE)
    assert kept(copies, "a", "c", "d", "huge") == ["a", "c", "d"]
    put(copies, "a", size=50)
    assert copies.bytes == 3 * ONE - PER_BYTE * 50


def test_what_changed_is_dropped_and_what_was_on_its_way_meanwhile_is_not_kept() -> None:
    copies = Copies(10 * ONE)
    put(copies, "a")
    asked = copies.changes
    copies.changed(b"a")
    assert kept(copies, "a") == []
    put(copies, "a", since=asked)
    put(copies, "b", since=asked)
    assert kept(copies, "a", "b") == ["b"]
    put(copies, "a")
    assert kept(copies, "a") == ["a"]


def test_what_was_invalidated_is_taken_out_and_the_rest_stays() -> None:
    copies = Copies(10 * ONE)
    put(copies, "a")
    old = Found("b", Answer("b", "openai", "m"), Origin(3, ()))
    copies.put(("s", "b"), b"b", old, 100, 10.0, since=copies.changes)
    copies.drop(lambda origin: origin.begun == 3)
    assert kept(copies, "a", "b") == ["a"]
    assert copies.bytes == ONE


def test_nothing_outlives_the_loss_of_the_one_who_tells() -> None:
    copies = Copies(10 * ONE)
    put(copies, "a")
    asked = copies.changes
    copies.clear()
    put(copies, "b", since=asked)
    assert kept(copies, "a", "b") == []
    assert copies.bytes == 0
    put(copies, "b")
    assert kept(copies, "b") == ["b"]


def test_what_was_asked_for_before_more_changes_than_are_known_by_name_is_not_kept() -> None:
    copies = Copies(10 * ONE)
    asked = copies.changes
    for number in range(MAX_LATEST):
        copies.changed(b"%d" % number)
    put(copies, "a", since=asked)
    assert kept(copies, "a") == ["a"]
    copies.changed(b"one more")
    put(copies, "b", since=asked)
    assert kept(copies, "a", "b") == ["a"]
