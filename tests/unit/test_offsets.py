"""The offset ledger and its text form, over random completion orders, gaps and restarts."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratarouter_runtime.errors import OffsetMetadataError
from stratarouter_runtime.state.offsets import VERSION_TAG, OffsetLedger, OffsetMap, decode, encode, worst_case_chars

LIMIT = 4096


@st.composite
def maps(draw: st.DrawFn) -> OffsetMap:
    watermark = draw(st.integers(0, 2**62))
    span = draw(st.integers(1, 30_000))
    unfinished = draw(st.frozensets(st.integers(watermark, watermark + span - 1), max_size=300))
    # A committed map's watermark is its smallest unfinished offset.
    unfinished = frozenset({watermark, *unfinished})
    return OffsetMap(watermark, watermark + span, unfinished)


@given(maps())
def test_a_map_survives_its_text_form(state: OffsetMap) -> None:
    assert decode(state.watermark, encode(state)) == state


@given(maps())
def test_the_bound_on_the_text_holds(state: OffsetMap) -> None:
    assert len(encode(state)) <= worst_case_chars(len(state.unfinished), state.end - state.watermark)


def test_dense_and_sparse_maps_take_different_forms() -> None:
    dense = OffsetMap(0, 20_001, frozenset(range(0, 20_000, 2)))
    sparse = OffsetMap(0, 500_000, frozenset(range(0, 500_000, 50_000)))
    assert encode(dense).startswith(f"{VERSION_TAG}.b")
    assert encode(sparse).startswith(f"{VERSION_TAG}.d")
    assert len(encode(dense)) < LIMIT


def test_no_metadata_means_no_map() -> None:
    assert decode(7, "") == OffsetMap(7, 7)


@pytest.mark.parametrize(
    "metadata",
    ["hello", "srt2.dAAAA", "srt1.", "srt1.dnot base64", "srt1.dAAAAAAAA", "srt1.x" + encode(OffsetMap(5, 9))[6:]],
)
def test_foreign_newer_or_damaged_metadata_is_refused(metadata: str) -> None:
    with pytest.raises(OffsetMetadataError) as caught:
        decode(5, metadata)
    assert "reset" in caught.value.remedy


def test_metadata_committed_with_another_offset_is_refused() -> None:
    text = encode(OffsetMap(10, 20, frozenset({10, 12})))
    with pytest.raises(OffsetMetadataError, match="checksum"):
        decode(11, text)


@given(maps())
def test_a_map_in_the_other_form_is_refused(state: OffsetMap) -> None:
    text = encode(state)
    other = {"b": "d", "d": "b"}[text[5]]
    with pytest.raises(OffsetMetadataError):
        decode(state.watermark, f"{text[:5]}{other}{text[6:]}")


@given(maps(), st.data())
def test_one_flipped_character_never_reads_as_another_map(state: OffsetMap, data: st.DataObject) -> None:
    text = encode(state)
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from([c for c in "ABCabc019+/=.sd" if c != text[place]]))
    damaged = text[:place] + other + text[place + 1 :]
    try:
        read = decode(state.watermark, damaged)
    except OffsetMetadataError:
        return
    assert read == state


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32), start=st.integers(0, 40), count=st.integers(1, 60), gaps=st.booleans())
def test_every_record_is_finished_once_whatever_the_order_gaps_and_restarts(
    seed: int, start: int, count: int, *, gaps: bool
) -> None:
    rng = random.Random(seed)
    log = [o for o in range(start, start + count) if not gaps or rng.random() < 0.7]
    committed, published = OffsetMap(start, start), list[int]()
    for _ in range(60):
        ledger = OffsetLedger(committed, max_chars=LIMIT)
        taken = [o for o in log if o >= committed.watermark and ledger.take(o)]
        done = rng.sample(taken, k=rng.randint(0, len(taken)))
        for offset in done:
            ledger.finish([offset])
            published.append(offset)
            if rng.random() < 0.8:
                snapshot = ledger.snapshot()
                committed = decode(snapshot.watermark, encode(snapshot))
            else:
                # The crash comes before the commit: this output was never visible.
                published.pop()
                break
    final = OffsetLedger(committed, max_chars=LIMIT)
    rest = [o for o in log if o >= committed.watermark and final.take(o)]
    final.finish(rest)
    assert sorted(published + rest) == log
    assert final.snapshot().unfinished == frozenset()


def test_the_watermark_is_the_smallest_unfinished_offset() -> None:
    ledger = OffsetLedger(OffsetMap(0, 0), max_chars=LIMIT)
    for offset in (0, 1, 5, 6):
        assert ledger.take(offset)
    ledger.finish([1, 6])
    assert ledger.snapshot() == OffsetMap(0, 7, frozenset({0, 5}))
    ledger.finish([0, 5])
    assert ledger.snapshot() == OffsetMap(7, 7)


def test_an_offset_deleted_while_awaited_holds_nothing_up() -> None:
    ledger = OffsetLedger(OffsetMap(3, 10, frozenset({3, 6, 8})), max_chars=LIMIT)
    assert not ledger.take(5)
    assert ledger.take(8)
    ledger.finish([8])
    assert ledger.snapshot() == OffsetMap(10, 10)


def test_a_commit_that_did_not_happen_is_taken_back() -> None:
    ledger = OffsetLedger(OffsetMap(0, 0), max_chars=LIMIT)
    for offset in range(4):
        ledger.take(offset)
    ledger.finish([0, 1, 2])
    ledger.reopen([1, 2])
    assert ledger.snapshot() == OffsetMap(1, 3, frozenset({1, 2}))


def test_taking_stops_before_the_map_overflows() -> None:
    ledger = OffsetLedger(OffsetMap(0, 0), max_chars=LIMIT)
    offset = 0
    while ledger.has_room(100):
        for _ in range(100):
            ledger.take(offset)
            # Every second one finishes: the worst case for a map.
            if offset % 2:
                ledger.finish([offset])
            offset += 1
    assert offset > 1000
    assert len(encode(ledger.snapshot())) <= LIMIT


def test_one_slow_record_does_not_stop_taking_for_long_runs() -> None:
    ledger = OffsetLedger(OffsetMap(0, 0), max_chars=LIMIT)
    ledger.take(0)
    for offset in range(1, 300_000):
        if not ledger.has_room(1):
            break
        ledger.take(offset)
        ledger.finish([offset])
    assert offset > 200_000
    assert len(encode(ledger.snapshot())) < 100
