"""Records that make a step raise what nobody foresaw: dead letters after bounded tries, beside lanes that live on."""

from __future__ import annotations

import pytest

from faults.conftest import Bench
from stratarouter_runtime import wire
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.records import DeadLetter
from stratarouter_runtime.version import modules
from support.crashing import PROGRAM, planned
from support.fleet import Watch, produce, request

pytestmark = pytest.mark.stack

MARKER = "hemlock"
TRIES = 3
"""``poison_tries`` as it is by default."""
GOOD, BAD = 60, 3


def _good(prefix: str, count: int) -> list[bytes | None]:
    return [request(f"{prefix}{n}", f"question {n} of {prefix}", tenant=f"t{n % 20}") for n in range(count)]


def _bad(count: int) -> list[bytes]:
    # In the id as well: a response holds no query.
    return [request(f"{MARKER}{n}", f"a cup of {MARKER} number {n}", tenant=f"t{n}") for n in range(count)]


def _carried(letter: DeadLetter) -> bytes:
    """The request of ``letter``, as its client wrote it.

    ``execute`` knows a request as ``enrich`` understood it, and its dead letter carries that: the same id, route,
    tenant and words, with every default spelled out. It is written short again here, to be compared.
    """
    assert letter.value is not None
    if letter.processor == "enrich":
        return letter.value
    known = wire.decode_request(letter.value, headers=(), limits=wire.Limits.of(RuntimeConfig()), source=None)
    [message] = known.messages
    decision = known.decision
    assert (decision.route_id, decision.confidence) == ("support", 0.9)
    return request(known.request_id, str(message["content"]), tenant=known.context.tenant)


@pytest.mark.row(40)
@pytest.mark.parametrize(
    ("step", "tries", "paid"),
    [
        ("enrich", TRIES, 0),
        ("enrich_publish", TRIES, 0),
        pytest.param(
            *("execute", TRIES, 0),
            marks=pytest.mark.skipif(
                modules() == "compiled", reason="compiled callers pass by what is put in its place"
            ),
        ),
        # Writing the answer down gives the same bytes each time; it is tried once, and its call was paid for.
        ("execute_publish", 1, BAD),
    ],
)
async def test_poison_is_a_dead_letter_after_bounded_tries_and_the_lanes_live(
    bench: Bench, step: str, tries: int, paid: int
) -> None:
    worker = await bench.worker(program=PROGRAM, **planned(f"raise_in:{step}:{MARKER}"))
    bad, good = _bad(BAD), _good("first", GOOD)
    records = [*good[: GOOD // 2], *bad, *good[GOOD // 2 :]]
    async with Watch(bench.config) as watch:
        await produce(bench.config, records)
        await watch.until(GOOD + BAD, timeout_s=30)
        await produce(bench.config, _good("second", GOOD))
        seen = await watch.until(2 * GOOD + BAD, timeout_s=30)
        await watch.settle(1)
    assert set(seen.by_id) == {f"{wave}{n}" for wave in ("first", "second") for n in range(GOOD)}
    assert set(seen.by_id.values()) == {1}
    assert [letter.code for letter in seen.dead_letters] == ["poison"] * BAD
    assert all(MARKER in letter.reason for letter in seen.dead_letters)
    assert sorted(_carried(letter) for letter in seen.dead_letters) == sorted(bad)
    assert worker.log.read_text().count(f"raises in {step}") == tries * BAD
    assert len(bench.simulator.paid_calls) == 2 * GOOD + paid
    await worker.wait_ready(timeout_s=10)
