"""The ledger against a model of a partition: gaps, commits that fail, crashes, records that the broker deletes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from stratarouter_runtime.state.offsets import OffsetLedger, OffsetMap, decode, encode, worst_case_chars

LIMIT = 4096
LIMITS = (40, 48, 256)
"""Characters; small, so that few records fill a map."""
POLL = 500
"""Records that a poll may bring."""

gaps = st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 400), st.integers(0, 40_000))
"""Offsets that are never delivered before a record: transaction markers, aborted or compacted records."""


def _log(start: int, before: list[int]) -> list[int]:
    """The offsets of records with ``before[n]`` missing ones ahead of the n-th."""
    offsets, position = [], start
    for missing in before:
        offsets.append(position + missing)
        position += missing + 1
    return offsets


def _text(ledger: OffsetLedger) -> tuple[int, str]:
    snapshot = ledger.snapshot()
    return snapshot.watermark, encode(snapshot)


@given(start=st.integers(0, 10**6), before=st.lists(gaps, min_size=1, max_size=80), data=st.data())
def test_a_restart_takes_again_what_was_unfinished_and_nothing_else(
    start: int, before: list[int], data: st.DataObject
) -> None:
    log = _log(start, before)
    ledger = OffsetLedger(OffsetMap(start, start), max_chars=LIMIT)
    for offset in log:
        assert ledger.take(offset)
    finished = data.draw(st.sets(st.sampled_from(log)))
    ledger.finish(finished)
    resumed = OffsetLedger(decode(*_text(ledger)), max_chars=LIMIT)
    assert [o for o in log if o >= resumed.watermark and resumed.take(o)] == [o for o in log if o not in finished]
    resumed.finish(set(log) - finished)
    assert resumed.snapshot() == OffsetMap(log[-1] + 1, log[-1] + 1)


@given(before=st.lists(gaps, min_size=1, max_size=80), held=st.lists(gaps, max_size=20), limit=st.sampled_from(LIMITS))
def test_where_all_are_certain_to_find_room_each_finds_it(before: list[int], held: list[int], limit: int) -> None:
    log = _log(0, held + before)
    ledger = OffsetLedger(OffsetMap(0, 0), max_chars=limit)
    for offset in log[: len(held)]:
        ledger.take(offset)
    certain = ledger.has_room_until(log[-1], len(before))
    for offset in log[len(held) :]:
        ledger.pass_to(offset)
        assert ledger.has_room(1) or not certain
        ledger.take(offset)


@given(before=st.lists(gaps, min_size=1, max_size=40), data=st.data())
def test_what_was_deleted_up_to_the_end_is_awaited_no_more_after_a_restart(
    before: list[int], data: st.DataObject
) -> None:
    # Retention took all that the map awaited, and nothing new came: the lag must go to 0, and the room must come back.
    log = _log(0, before)
    ledger = OffsetLedger(OffsetMap(0, 0), max_chars=LIMIT)
    for offset in log:
        ledger.take(offset)
    ledger.finish(data.draw(st.sets(st.sampled_from(log), min_size=1)))
    committed = decode(*_text(ledger))
    resumed = OffsetLedger(committed, max_chars=LIMIT)
    for position in sorted(data.draw(st.sets(st.sampled_from(log)))):
        resumed.pass_to(min(position, committed.end))
    resumed.pass_to(committed.end)
    assert (resumed.watermark, resumed.unfinished, resumed.to_read_again) == (committed.end, 0, 0)


@given(before=st.lists(gaps, min_size=1, max_size=60), data=st.data())
def test_a_commit_taken_back_leaves_what_was_there_before_it(before: list[int], data: st.DataObject) -> None:
    log = _log(0, before)
    tried, plain = (OffsetLedger(OffsetMap(0, 0), max_chars=LIMIT) for _ in range(2))
    first, failed = data.draw(st.sets(st.sampled_from(log))), data.draw(st.sets(st.sampled_from(log)))
    for ledger in (tried, plain):
        for offset in log:
            ledger.take(offset)
        ledger.finish(first)
    tried.finish(failed - first)
    tried.reopen(failed - first)
    for offset in log:
        assert tried.snapshot().is_finished(offset) == plain.snapshot().is_finished(offset)
    assert (tried.watermark, tried.unfinished) == (plain.watermark, plain.unfinished)


@settings(max_examples=60, deadline=None)
@given(
    limit=st.sampled_from((*LIMITS, LIMIT)),
    pattern=st.lists(gaps, min_size=1, max_size=12),
    every=st.integers(1, 4),
)
def test_whatever_the_gaps_a_map_with_room_for_each_record_never_outgrows_its_limit(
    limit: int, pattern: list[int], every: int
) -> None:
    ledger = OffsetLedger(OffsetMap(0, 0), max_chars=limit)
    offset = last = 0
    for number in range(3000):
        offset += pattern[number % len(pattern)] + 1
        ledger.pass_to(offset)
        if not ledger.has_room(1):
            break
        assert ledger.take(offset)
        last = offset
        if number % (every + 1):
            ledger.finish([offset])
        if number % 50 == 0:
            assert len(_text(ledger)[1]) <= limit
    # Whatever finishes last brings all before it into the map.
    ledger.finish([last])
    assert len(_text(ledger)[1]) <= limit
    assert number >= 1


@settings(max_examples=60, deadline=None)
@given(limit=st.sampled_from((256, LIMIT)), slow=st.integers(1, 20), step=st.integers(1, 8))
def test_a_lane_held_back_by_its_map_has_room_to_read_again_after_a_restart(limit: int, slow: int, step: int) -> None:
    # A lane asks for a whole poll. What it holds again after a restart was in the map already and makes it no longer;
    # a lane that had no room for it would read nothing for ever.
    ledger = OffsetLedger(OffsetMap(0, 0), max_chars=limit)
    for offset in range(slow):
        ledger.take(offset)
    offset = slow
    while ledger.has_room(POLL) and offset < 5000:
        for _ in range(POLL):
            ledger.pass_to(offset)
            if not ledger.has_room(1):
                break
            ledger.take(offset)
            ledger.finish([offset])
            offset += step
    resumed = OffsetLedger(decode(*_text(ledger)), max_chars=limit)
    assert resumed.has_room(POLL)


@given(unfinished=st.integers(1, 5), span=st.integers(1, 10**9))
def test_few_unfinished_records_leave_room_however_far_the_others_have_gone(unfinished: int, span: int) -> None:
    assert worst_case_chars(unfinished + POLL, span) <= LIMIT


class Partition(RuleBasedStateMachine):
    """A lane's life on one partition, with the lane's own order of steps; the broker is the model."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[int] = []
        self.deleted: set[int] = set()
        self.end = 0
        self.position = 0
        self.committed = (0, "")
        self.published: Counter[int] = Counter()
        self.in_flight: list[int] = []
        self.ready: list[int] = []

    @initialize(limit=st.sampled_from(LIMITS), start=st.integers(0, 1000))
    def begin(self, limit: int, start: int) -> None:
        self.limit = limit
        self.end = self.position = start
        self.committed = (start, "")
        self._open()

    def _open(self) -> None:
        self.ledger = OffsetLedger(decode(*self.committed), max_chars=self.limit)
        self.in_flight, self.ready = [], []
        self.position = self.committed[0]

    # -- the broker ----------------------------------------------------------------------------------------------

    @rule(before=st.lists(gaps, min_size=1, max_size=20))
    def write(self, before: list[int]) -> None:
        self.log += _log(self.end, before)
        self.end = self.log[-1] + 1

    @rule(markers=st.integers(1, 300))
    def end_transactions(self, markers: int) -> None:
        self.end += markers

    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        if self.log:
            self._delete(data.draw(st.sets(st.sampled_from(self.log), max_size=5)))

    @rule(keep=st.integers(0, 10))
    def retain(self, keep: int) -> None:
        self._delete(set(self.log[: max(0, len(self.log) - keep)]))

    def _delete(self, offsets: set[int]) -> None:
        self.deleted |= offsets
        self.log = [offset for offset in self.log if offset not in offsets]

    # -- the lane ------------------------------------------------------------------------------------------------

    @rule(most=st.integers(1, 30))
    def poll(self, most: int) -> None:
        for offset in [o for o in self.log if o >= self.position][:most]:
            self.ledger.pass_to(offset)
            if not self.ledger.has_room(1):
                self.position = offset
                return
            if self.ledger.take(offset):
                self.in_flight.append(offset)
            self.position = offset + 1
        if not any(o >= self.position for o in self.log):
            self.position = max(self.position, self.end)
            self.ledger.pass_to(self.position)

    @rule(data=st.data())
    def work(self, data: st.DataObject) -> None:
        if self.in_flight:
            self._done(data.draw(st.lists(st.sampled_from(self.in_flight), unique=True)))

    def _done(self, offsets: list[int]) -> None:
        self.ready += offsets
        self.in_flight = [offset for offset in self.in_flight if offset not in offsets]

    @rule(landed=st.booleans(), heard=st.booleans(), data=st.data())
    def commit(self, data: st.DataObject, *, landed: bool, heard: bool) -> None:
        count = data.draw(st.integers(0, len(self.ready)))
        writing, self.ready = self.ready[:count], self.ready[count:]
        before = self.committed
        self._write(writing, landed=landed)
        if landed and heard:
            return
        # The outcome is unknown: what is committed decides.
        stored = decode(*self.committed)
        assert self.committed in (before, _text(self.ledger))
        lost = [offset for offset in writing if not stored.is_finished(offset)]
        assert lost == ([] if landed else writing)
        self.ledger.reopen(lost)
        self.ready[:0] = lost

    @rule(data=st.data(), landed=st.booleans())
    def crash(self, data: st.DataObject, *, landed: bool) -> None:
        count = data.draw(st.integers(0, len(self.ready)))
        self._write(self.ready[:count], landed=landed)
        self._open()

    def _write(self, writing: list[int], *, landed: bool) -> None:
        self.ledger.finish(writing)
        attempt = _text(self.ledger)
        assert len(attempt[1]) <= self.limit
        assert attempt[0] >= self.committed[0]
        if landed:
            self.committed = attempt
            self.published.update(writing)

    # -- what holds ----------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_published_twice(self) -> None:
        assert not self.published or max(self.published.values()) == 1

    @invariant()
    def the_committed_map_holds_what_was_published(self) -> None:
        stored = decode(*self.committed)
        assert all(stored.is_finished(offset) == (offset in self.published) for offset in self.log)

    def teardown(self) -> None:
        """Nothing fails any more: each record that is still there is published, and the lag is 0."""
        if not hasattr(self, "limit"):
            return
        for _ in range(len(self.log) + 3):
            self.poll(POLL)
            self._done(list(self.in_flight))
            self._write(self.ready, landed=True)
            self.ready = []
        assert all(self.published[offset] == 1 for offset in self.log)
        assert set(self.published) <= set(self.log) | self.deleted
        assert self.committed[0] == self.end
        assert self.ledger.unfinished == 0


TestPartition = Partition.TestCase
TestPartition.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
