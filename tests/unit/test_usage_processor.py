"""What surrounds the counting: alerts, and when the usage process is started anew."""

from __future__ import annotations

import orjson
import pytest
from pydantic import SecretStr

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.journal.usage import Spending
from stratarouter_runtime.processors.usage import due_alerts
from stratarouter_runtime.processors.usage_process import as_line
from stratarouter_runtime.processors.usage_supervisor import SILENT_S, STALLED_S, Progress
from stratarouter_runtime.route_file import Budget

MONEY = Budget("money", usd=10.0)
TOKENS = Budget("tokens", tokens=1000)


def _spent(budget: str, *, usd: float = 0.0, tokens: int = 0) -> Spending:
    return Spending(budget, "acme", 0, 86_400, round(usd * 1e9), tokens)


@pytest.mark.parametrize(
    ("spent", "percents"),
    [
        (_spent("money", usd=7.99, tokens=10**9), []),
        (_spent("money", usd=8.0), [80]),
        (_spent("money", usd=9.999999999), [80]),
        (_spent("money", usd=10.0), [80, 100]),
        (_spent("tokens", usd=99.0, tokens=799), []),
        (_spent("tokens", tokens=1000), [80, 100]),
        (_spent("unknown", usd=99.0), []),
    ],
)
def test_an_alert_is_due_from_80_and_from_100_percent(spent: Spending, percents: list[int]) -> None:
    assert [percent for _, percent in due_alerts([spent], [MONEY, TOKENS], set())] == percents


def test_an_alert_is_raised_once_in_a_window() -> None:
    spent = _spent("money", usd=20.0)
    assert due_alerts([spent], [MONEY], {("money", "acme", 0, 80), ("money", "acme", 0, 100)}) == []
    assert len(due_alerts([spent], [MONEY], {("money", "acme", 86_400, 80)})) == 2


def _line(**more: object) -> bytes:
    return orjson.dumps({"counted": 5, "lag": 3, "alerts": 0, "waiting": None} | more)


def test_a_process_that_is_behind_and_gets_on_is_left_alone() -> None:
    progress = Progress(0.0, 0.0)
    for second in range(int(STALLED_S) * 3):
        progress.hear(_line(counted=second), float(second))
        assert progress.problem(float(second)) is None


def test_a_process_that_is_behind_and_stands_still_is_ended() -> None:
    progress = Progress(0.0, 0.0)
    progress.hear(_line(), 1.0)
    progress.hear(_line(), STALLED_S)
    assert progress.problem(STALLED_S) is None
    progress.hear(_line(), STALLED_S + 2)
    assert "no progress" in (progress.problem(STALLED_S + 2) or "")


@pytest.mark.parametrize("more", [{"lag": 0}, {"waiting": "the database is away"}])
def test_a_process_that_has_nothing_to_do_or_waits_for_a_server_is_left_alone(more: dict[str, object]) -> None:
    progress = Progress(0.0, 0.0)
    for second in (1.0, STALLED_S, 2 * STALLED_S):
        progress.hear(_line(**more), second)
    assert progress.problem(2 * STALLED_S) is None


def test_a_silent_process_is_ended() -> None:
    progress = Progress(0.0, 0.0)
    progress.hear(_line(lag=0), 1.0)
    assert progress.problem(SILENT_S) is None
    assert "no word" in (progress.problem(SILENT_S + 2) or "")


def test_the_process_gets_every_setting_with_its_secrets() -> None:
    config = RuntimeConfig(
        group_id="g", security_protocol="SASL_PLAINTEXT", sasl_username="u", sasl_password=SecretStr("s3cret")
    )
    there = RuntimeConfig(**orjson.loads(as_line(config)))
    assert there == config
    assert there.sasl_password is not None
    assert there.sasl_password.get_secret_value() == "s3cret"
