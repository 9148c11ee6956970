"""The accounts' arithmetic: whatever is repeated, split or put together, each response counts once."""

from __future__ import annotations

from collections import Counter
from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratarouter_runtime.journal.usage import WINDOWS_S, fold, window_keys
from stratarouter_runtime.records import (
    Attempt,
    BatchVerdict,
    CacheVerdict,
    Coordinates,
    ErrorInfo,
    Response,
    Usage,
    UsageLine,
)
from stratarouter_runtime.usage_deltas import MAX_RECEIPTS, SUMS, DeltaWriter, decode, encode, line_of, nano

ATTEMPT = (Attempt("openai", "m", "ok", 1.0),)
AT_MS = 1_893_456_000_123


def _answer(**more: object) -> Response:
    fields = {"text": "a", "provider": "openai", "model": "m", "usage": Usage(10, 5), "route_id": "support"}
    return Response("r1", "ok", **(fields | more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("response", "kind", "nano_usd"),
    [
        (_answer(cost_usd=0.000042, saved_usd=0.0, attempts=ATTEMPT), "paid", 42_000),
        (_answer(cost_usd=None, saved_usd=0.0, attempts=ATTEMPT), "paid", None),
        (_answer(cost_usd=0.0, saved_usd=0.5, cache=CacheVerdict("exact")), "exact", 500_000_000),
        (_answer(cost_usd=0.0, saved_usd=0.5, cache=CacheVerdict("semantic")), "semantic", 500_000_000),
        (_answer(cost_usd=0.0, saved_usd=0.1, batch=BatchVerdict("follower", "r0")), "coalesced", 100_000_000),
        (_answer(cost_usd=0.0, saved_usd=0.1, from_journal=True), "coalesced", 100_000_000),
        (_answer(cost_usd=0.1, saved_usd=0.0, from_journal=True, attempts=ATTEMPT), "paid", 100_000_000),
        (Response("r1", "error", error=ErrorInfo("deadline_exceeded", "late"), cost_usd=0.0), "error", None),
    ],
)
def test_each_ending_of_a_request_has_its_place_in_the_accounts(
    response: Response, kind: str, nano_usd: int | None
) -> None:
    line = line_of(response, "execute")
    assert (line.kind, line.nano_usd, line.request_id) == (kind, nano_usd, "r1")
    assert line_of(response, "enrich").request_id is None


@given(st.integers(0, 10**15))
def test_money_in_whole_nano_dollars_comes_back_from_a_float_as_it_was(whole: int) -> None:
    assert nano(whole / 1_000_000_000) == whole


@given(st.floats(0, 1e6))
def test_money_is_rounded_by_its_shortest_decimal_form_as_everybody_reads_it(usd: float) -> None:
    assert nano(usd) == int((Decimal(repr(usd)) * 10**9).to_integral_value(ROUND_HALF_UP))


@pytest.mark.parametrize(("usd", "whole"), [(0.0000000005, 1), (0.0000000015, 2), (0.0000000025, 3)])
def test_half_a_nano_dollar_goes_away_from_zero(usd: float, whole: int) -> None:
    assert nano(usd) == whole


lines = st.lists(
    st.builds(
        UsageLine,
        tenant=st.sampled_from(["a", "b"]),
        route=st.sampled_from(["x", "y"]),
        model=st.sampled_from(["", "m"]),
        kind=st.sampled_from(["paid", "exact", "semantic", "coalesced", "error"]),
        request_id=st.none() | st.sampled_from([f"r{n}" for n in range(8)]),
        nano_usd=st.none() | st.integers(0, 10**12),
        input_tokens=st.integers(0, 1000),
        output_tokens=st.integers(0, 1000),
        code=st.none(),
        source=st.none(),
    ),
    max_size=30,
)


def _writer(*, singly: bool) -> DeltaWriter:
    return DeltaWriter("usage-deltas", "g.executions-0", 1, singly=singly)


def _identities(found: list[UsageLine]) -> set[tuple[str, str]]:
    return {(line.tenant, line.request_id) for line in found if line.request_id is not None}


@given(lines, st.booleans())
def test_every_response_is_in_each_window_once_however_commits_are_cut(found: list[UsageLine], singly: bool) -> None:
    numbered = list(enumerate(found))
    whole = _writer(singly=singly).sum_up(numbered, AT_MS)
    cut = [delta for item in numbered for delta in _writer(singly=singly).sum_up([item], AT_MS)]
    for deltas in (whole, cut):
        windows = fold(deltas, _identities(found))
        assert {key[0] for key in windows} == (set(WINDOWS_S.values()) if found else set())
        for length in WINDOWS_S.values():
            total = sum((sums for key, sums in windows.items() if key[0] == length), Counter())
            assert total["requests"] == len(found)
            answers = sum(total[kind] for kind in ("paid", "exact", "semantic", "coalesced", "replayed"))
            assert answers == sum(line.kind != "error" for line in found)


@given(lines)
def test_a_request_ids_money_counts_once(found: list[UsageLine]) -> None:
    paid = [(n, line) for n, line in enumerate(found) if line.kind == "paid" and line.request_id is not None]
    windows = fold(_writer(singly=False).sum_up(paid, AT_MS), _identities(found))
    total = sum((sums for key, sums in windows.items() if key[0] == 60), Counter())
    assert total["paid"] == len({(line.tenant, line.request_id) for _, line in paid})
    assert total["paid"] + total["replayed"] == len(paid)


@given(lines)
def test_a_delta_comes_back_from_its_record_as_it_was(found: list[UsageLine]) -> None:
    for delta in _writer(singly=False).sum_up(list(enumerate(found)), AT_MS):
        assert decode(encode(delta)) == delta
        assert set(delta.sums) <= set(SUMS)


def test_windows_start_at_multiples_of_their_length_and_hold_their_time() -> None:
    [delta] = _writer(singly=False).sum_up([(0, line_of(_answer(), "execute"))], AT_MS)
    for length, start, *_ in window_keys(delta):
        assert start % length == 0
        assert start <= AT_MS // 1000 < start + length


def test_no_two_deltas_share_an_id_and_none_grows_without_a_bound() -> None:
    line = line_of(_answer(cost_usd=0.1, saved_usd=0.0, attempts=ATTEMPT), "execute")
    deltas = _writer(singly=False).sum_up([(n, line) for n in range(MAX_RECEIPTS * 2 + 1)], AT_MS)
    assert len({delta.id for delta in deltas}) == len(deltas) == 3
    assert max(len(delta.receipts) for delta in deltas) == MAX_RECEIPTS


def test_a_delta_says_from_which_offset_to_which_and_adds_each_response_to_its_own_sums() -> None:
    paid = UsageLine("acme", "x", "m", "paid", None, 100, 10, 5)
    hit = UsageLine("acme", "x", "m", "exact", "r0", 40, 10, 5)
    free = UsageLine("acme", "x", "m", "semantic", None, None, 3, 4)
    lost = UsageLine("acme", "x", "m", "error", None, None, code="timeout")
    [delta] = _writer(singly=False).sum_up([(7, paid), (5, hit), (9, paid), (6, free), (8, lost)], AT_MS)
    assert (delta.first_offset, delta.last_offset, delta.errors) == (5, 9, {"timeout": 1})
    answers = {"requests": 5, "ok": 4, "errors": 1, "paid": 2, "exact": 1, "semantic": 1, "unpriced": 1}
    money = {"paid_nano": 200, "exact_nano": 40, "input_tokens": 20, "output_tokens": 10, "saved_tokens": 22}
    assert delta.sums == answers | money


def test_a_request_id_paid_again_is_replayed_and_one_that_fails_again_is_an_error() -> None:
    paid = UsageLine("acme", "x", "m", "paid", "r1", 100, 10, 5)
    lost = UsageLine("acme", "x", "m", "error", "r2", None, code="timeout")
    deltas = _writer(singly=False).sum_up(list(enumerate([paid, paid, lost, lost])), AT_MS)
    total = fold(deltas, {("acme", "r1")})[window_keys(deltas[0])[0]]
    assert (total["paid"], total["paid_nano"], total["replayed"], total["replayed_nano"]) == (1, 100, 1, 100)
    assert (total["requests"], total["ok"], total["errors"]) == (4, 2, 2)


def test_without_transactions_a_repeated_response_has_the_id_of_its_first() -> None:
    line = line_of(_answer(source=Coordinates("requests", 3, 77, 5)), "execute")
    first, again = (_writer(singly=True).sum_up([(offset, line)], AT_MS + offset) for offset in (41, 42))
    assert first[0].id == again[0].id
