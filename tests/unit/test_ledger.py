"""The ledger reconciles to zero or says by how much it does not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from stratarouter_runtime.cli import app
from stratarouter_runtime.cli.usage import dollars, seconds
from stratarouter_runtime.errors import ConfigurationError, JournalUnavailableError
from stratarouter_runtime.journal.usage import kind_of
from stratarouter_runtime.ledger import HITS, JOURNALED, KINDS, Sources, longest_s, reconcile

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


@pytest.mark.parametrize("retention_s", [3600.0, 86_400.0, 1_209_600.5])
def test_of_the_longest_window_every_response_has_its_result_still(retention_s: float) -> None:
    """It begins with a whole minute, and a result is there for some time before its response is counted."""
    for now in (1_800_000_000, 1_800_000_059):
        began = now - longest_s(retention_s)
        assert began - began % 60 - 600 >= now - retention_s
        assert began - 60 - 600 <= now - retention_s + 1


def test_results_kept_for_ever_and_for_no_time() -> None:
    assert longest_s(0.0) > 1e9
    assert longest_s(600.0) == 0


@pytest.mark.parametrize(
    ("retention", "window", "said"),
    [("86400", "1d", "1429m"), ("86400", "24h", "1429m"), ("86400", "1430m", "1429m"), ("600", "1m", "keep results")],
)
def test_a_window_as_long_as_results_are_kept_is_refused_with_the_longest_there_is(
    monkeypatch: pytest.MonkeyPatch, retention: str, window: str, said: str
) -> None:
    """Results of its first minutes were gone already: it told of differences that were none."""
    monkeypatch.setenv("STRATAROUTER_JOURNAL_RETENTION_S", retention)
    refused = CliRunner().invoke(app, ["ledger", "--window", window]).exception
    assert isinstance(refused, ConfigurationError)
    assert f"journal_retention_s = {retention}" in refused.message
    assert said in refused.remedy


def test_the_longest_window_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRATAROUTER_JOURNAL_RETENTION_S", "86400")
    nowhere = "postgresql://u:p@127.0.0.1:1/d"
    away = CliRunner().invoke(app, ["ledger", "--window", "1429m", "--database-url", nowhere]).exception
    assert isinstance(away, JournalUnavailableError)
