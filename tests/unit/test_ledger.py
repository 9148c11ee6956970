"""The ledger reconciles to zero or says by how much it does not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratarouter_runtime.cli.usage import dollars, seconds
from stratarouter_runtime.errors import ConfigurationError
from stratarouter_runtime.journal.usage import kind_of
from stratarouter_runtime.ledger import HITS, JOURNALED, KINDS, Sources, reconcile

numbers = st.fixed_dictionaries(
    {f"{kind}{end}": st.integers(0, 10**15) for kind in KINDS if kind != "late" for end in ("", "_nano")}
)


def _sources(windows: dict[str, int], **more: Any) -> Sources:
    hits = {name: value for name, value in windows.items() if name.split("_")[0] in HITS}
    journal = {name: value for name, value in windows.items() if name.split("_")[0] in JOURNALED}
    return Sources({"acme": windows}, {"acme": hits}, {"acme": journal | more})


@given(numbers)
def test_sources_that_agree_reconcile_and_add_up_to_the_last_nano_dollar(windows: dict[str, int]) -> None:
    [line] = reconcile(_sources(windows))
    assert line.differences == ()
    assert line.nano_without == sum(value for name, value in windows.items() if name.endswith("_nano"))
    assert line.calls_without == sum(value for name, value in windows.items() if not name.endswith("_nano"))


@given(numbers, st.sampled_from([f"{kind}{end}" for kind in (*HITS, *JOURNALED) for end in ("", "_nano")]))
def test_one_more_in_one_source_is_a_difference_that_names_it(windows: dict[str, int], name: str) -> None:
    sources = _sources(windows)
    [line] = reconcile(Sources({"acme": windows | {name: windows[name] + 1}}, sources.hits, sources.journal))
    [said] = line.differences
    assert said.startswith(f"{name}: {windows[name] + 1} in the windows, {windows[name]} in ")


@pytest.mark.parametrize("name", ["uncounted", "gone"])
def test_a_result_without_its_response_and_a_response_without_its_result_are_differences(name: str) -> None:
    [line] = reconcile(_sources({"paid": 3, "paid_nano": 30}, **{name: 1}))
    assert [said.split(":")[0] for said in line.differences] == [name]


def test_a_late_answer_is_a_call_that_was_paid_for() -> None:
    [line] = reconcile(_sources({"paid": 3, "paid_nano": 30}, late=1, late_nano=7))
    assert (line.differences, line.calls_without, line.nano_without) == ((), 4, 37)


@pytest.mark.parametrize(
    ("kind", "answer", "follows", "said"),
    [
        ("paid", b"{}", False, "paid"),
        ("paid", b"{}", True, "coalesced"),
        ("coalesced", b"{}", True, "coalesced"),
        ("paid", None, False, "gone"),
        ("error", None, False, None),
        ("error", b"{}", True, None),
        ("error", b"{}", False, "late"),
    ],
)
def test_the_journal_says_what_became_of_a_counted_response(
    kind: str, answer: bytes | None, follows: bool, said: str | None
) -> None:
    assert kind_of({"kind": kind, "answer": answer, "follows": follows}) == said


def test_a_tenant_that_only_the_journal_knows_has_its_line() -> None:
    [line] = reconcile(Sources({}, {}, {"other": {"uncounted": 2, "uncounted_nano": 9}}))
    assert line.tenant == "other"
    assert line.differences


@pytest.mark.parametrize(
    ("nano_usd", "text"), [(0, "0.00"), (1, "0.000000001"), (1_500_000_000, "1.50"), (10**12, "1000.00")]
)
def test_money_is_written_exactly_and_to_the_cent_at_least(nano_usd: int, text: str) -> None:
    assert dollars(nano_usd) == text


@pytest.mark.parametrize(("text", "value"), [("30m", 1800), ("6h", 21_600), ("7d", 604_800)])
def test_a_duration_is_a_number_and_a_unit(text: str, value: int) -> None:
    assert seconds(text, "--window") == value


@pytest.mark.parametrize("text", ["", "d", "0d", "1w", "-1d", "1.5h"])
def test_what_is_no_duration_is_refused_with_what_one_is(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no duration"):
        seconds(text, "--window")
