"""How far a replay is: exactly the offsets that its runs have gone through, in any order, through the metadata."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratarouter_runtime.errors import ConfigurationError, OffsetMetadataError
from stratarouter_runtime.tools.ranges import Span
from stratarouter_runtime.tools.replay_progress import MAX_METADATA_CHARS, Gone, rounds


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=12), st.integers(0, 60))
def test_runs_over_any_ranges_are_remembered_to_the_offset(runs: list[tuple[int, int]], first: int) -> None:
    gone, through = Gone(), set()
    for begin, width in runs:
        gone = Gone.decode(gone.joined(begin, begin + width).encode())
        through |= set(range(begin, begin + width))
        ends = [offset for interval in gone.intervals for offset in interval]
        assert ends == sorted(set(ends))
    assert {offset for offset in range(80) if gone.holds(offset)} == through
    kept = gone.since(first)
    assert all(kept.holds(offset) == (offset in through) for offset in range(first, 80))


@pytest.mark.parametrize("text", ["", "srt1", "srr2 1-2", "srr1 1", "srr1 1-2,3-4", "srr1  1-2"])
def test_what_is_no_progress_is_not_taken_for_one(text: str) -> None:
    with pytest.raises(OffsetMetadataError):
        Gone.decode(text)


def test_more_ranges_than_fit_are_refused_before_they_are_written() -> None:
    apart = [(begin, begin + 5) for begin in range(10_000_000, 10_004_000, 10)]
    assert len(Gone(tuple(apart[:150])).encode()) <= MAX_METADATA_CHARS
    with pytest.raises(ConfigurationError, match="400 ranges with gaps between, more than can be kept") as caught:
        Gone(tuple(apart)).encode()
    assert "--replay-id" in caught.value.remedy


def test_ranges_are_read_in_rounds_that_hold_each_partition_once() -> None:
    spans = [Span(0, 9, 12), Span(1, 0, 5), Span(0, 1, 3), Span(0, 2, 5), Span(0, 5, 6)]
    assert rounds(spans) == [[Span(0, 1, 6), Span(1, 0, 5)], [Span(0, 9, 12)]]
    assert rounds([]) == []
