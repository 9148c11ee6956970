"""What the semantic cache is worth, on public data, with the packaged embedder and one setting for all sets.

The floors are a little under what was measured, so that a small change of a library does not fail the run. The held-out
half of the labelled pairs is the one that ``ops/train_guard.py`` does not read.
"""

from __future__ import annotations

import csv
import json
import random
import re
import sys
from collections.abc import Sequence
from hashlib import sha256
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stratarouter_runtime.cache.evaluate import Score, evaluate
from stratarouter_runtime.cache.guard import LENIENT, STRICT, RuleGuard, Setting
from stratarouter_runtime.cache.memory import MemoryCache
from stratarouter_runtime.cache.normalise import content_key
from stratarouter_runtime.cache.pairs import Pair, read
from stratarouter_runtime.cache.statements import contradiction
from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.embedders import LocalEmbedder, local_available
from stratarouter_runtime.engine.compare import AnswerComparer
from stratarouter_runtime.port_values import CacheEntry, CacheHit, CacheQuery
from stratarouter_runtime.ports import Guard
from stratarouter_runtime.records import Answer

Matrix = NDArray[np.float32]

pytestmark = pytest.mark.skipif(not local_available(), reason="needs the local-embedder extra")

STREAM = 13_000
ZIPF = 0.9
BARE_THRESHOLDS = (0.70, 0.76, 0.80, 0.82, 0.84, 0.86, 0.88, 0.90, 0.95)


async def embed(texts: Sequence[str]) -> Matrix:
    embedder = LocalEmbedder(timeout_s=240)
    await embedder.start()
    try:
        return np.stack([row for at in range(0, len(texts), 64) for row in await embedder.embed(texts[at : at + 64])])
    finally:
        await embedder.stop()


async def pairs_and_cosines(pairs: list[Pair]) -> tuple[list[Pair], Matrix]:
    asked, stored = await embed([p.asked for p in pairs]), await embed([p.stored for p in pairs])
    return pairs, (asked * stored).sum(axis=1)


def show(line: str) -> None:
    """A measured figure, seen with ``pytest -s``."""
    sys.stdout.write(f"\n{line}")


def say(name: str, score: Score) -> None:
    show(f"{name}: precision {score.precision}, recall {score.recall} ({score.right} right, {score.wrong} wrong)")


async def test_answers_that_contradict_each_other_are_told_from_those_in_other_words() -> None:
    with (Path(__file__).parent.parent / "data/answer_pairs.csv").open(newline="") as file:
        pairs = [
            (Answer(kept, "p", "m"), Answer(fresh, "p", "m"), same == "true") for same, kept, fresh in csv.reader(file)
        ]
    embedder = LocalEmbedder()
    await embedder.start()
    try:
        judged = [(same, await AnswerComparer(embedder, contradiction).same("", *two)) for *two, same in pairs[1:]]
        bare = [(same, await AnswerComparer(embedder).same("", *two)) for *two, same in pairs[1:]]
    finally:
        await embedder.stop()
    for name, found in (("with sentences", judged), ("by vectors and figures alone", bare)):
        right, wrong = found.count((True, True)), found.count((False, True))
        show(f"answers that say the same {name}: {right} of 40 found, and {wrong} of 40 contradictions taken for it")
    assert judged.count((False, True)) == 0
    assert judged.count((True, True)) >= 18


async def test_labelled_pairs_held_out_from_the_fit(bench_data: Path) -> None:
    rows = [row for row in read(bench_data / "langcache_pairs/chatgpt.csv") if isinstance(row, Pair)]
    # The asterisks tell the label: they stand in one class more than in the other.
    unmarked = [Pair(row.asked.replace("**", ""), row.stored.replace("**", ""), row.same) for row in rows]
    held = [p for p in unmarked if sha256(f"{p.asked}\n{p.stored}".encode()).digest()[0] & 1]
    pairs, cosine = await pairs_and_cosines(held)
    strict, lenient = (evaluate(pairs, cosine, setting) for setting in (STRICT, LENIENT))
    say("cosine alone, best F1", strict.plain)
    say("strict", strict.guarded)
    say("lenient", lenient.guarded)
    assert strict.guarded.precision is not None
    assert strict.guarded.recall is not None
    assert lenient.guarded.precision is not None
    assert lenient.guarded.recall is not None
    assert strict.guarded.precision >= 0.98
    assert strict.guarded.recall >= 0.75
    assert lenient.guarded.precision >= 0.95
    assert lenient.guarded.recall >= 0.80


OWN_PAIRS = Path(__file__).parent.parent / "data/cache_pairs.csv"


async def test_own_pairs_are_told_apart_in_every_category_and_better_than_by_cosine() -> None:
    """Pairs written for this project, by what tells them apart or makes them one.

    The later batches ("search", "dev", "support" foremost) were written without the guard in mind, and are harder than
    the first: every second question to a support desk that asks the same is still too far from the other for `strict`.
    """
    with OWN_PAIRS.open(encoding="utf-8", newline="") as file:
        categories = [row["category"] for row in csv.DictReader(file)]
    pairs, cosine = await pairs_and_cosines([row for row in read(OWN_PAIRS) if isinstance(row, Pair)])
    report = evaluate(pairs, cosine, STRICT)
    say("own pairs, cosine alone, best F1", report.plain)
    say("own pairs, strict", report.guarded)
    lenient = evaluate(pairs, cosine, LENIENT).guarded
    say("own pairs, lenient", lenient)
    for category in dict.fromkeys(categories):
        chosen = np.array([name == category for name in categories])
        members = [pair for pair, is_chosen in zip(pairs, chosen, strict=True) if is_chosen]
        guarded = evaluate(members, cosine[chosen], STRICT).guarded
        different = sum(not pair.same for pair in members)
        show(f"  {category}: {guarded.right} of {len(members) - different} same, {guarded.wrong} of {different} other")
        assert guarded.wrong <= max(2, 0.04 * different), category
        assert guarded.missed <= 0.5 * (len(members) - different), category
    assert report.guarded.precision is not None
    assert report.guarded.recall is not None
    assert lenient.precision is not None
    assert lenient.recall is not None
    assert report.guarded.precision >= 0.975
    assert report.guarded.recall >= 0.82
    assert lenient.precision >= 0.97
    assert lenient.recall >= 0.87
    # Cosine at its best threshold on these very pairs serves every second wrong one.
    assert report.plain.wrong > 20 * report.guarded.wrong


@pytest.fixture(scope="module")
def problems(bench_data: Path) -> list[tuple[str, str]]:
    """GSM8K's questions, each with its paraphrase."""
    asked = [json.loads(line)["question"] for line in (bench_data / "gsm8k/test.jsonl").read_text("utf-8").splitlines()]
    told = [json.loads(line)["text"] for line in (bench_data / "gsm8k/rephrase.jsonl").read_text("utf-8").splitlines()]
    return list(zip(asked, [_question(text) for text in told], strict=True))


def _question(text: str) -> str:
    return text.removeprefix("Question: ").partition("\nAnswer:")[0].strip()


@pytest.mark.parametrize("one_in", [4, pytest.param(1, marks=pytest.mark.slow)])
async def test_word_problems_told_in_other_words_are_found(problems: list[tuple[str, str]], one_in: int) -> None:
    """All of them take a minute and a half of a core; any one in four is found as often, within 2 in a hundred."""
    pairs, cosine = await pairs_and_cosines([Pair(told, text, same=True) for text, told in problems[::one_in]])
    found = evaluate(pairs, cosine, STRICT).guarded
    say("GSM8K paraphrases", found)
    assert found.recall is not None
    assert found.recall >= 0.90


def test_a_word_problem_with_one_number_changed_is_never_served(problems: list[tuple[str, str]]) -> None:
    draw = random.Random(11)
    changed = [(text, _changed(text, draw)) for text, _ in problems if WHOLE.search(text)]
    changed += [(text, _changed(told, draw)) for text, told in problems if WHOLE.search(told)]
    assert len(changed) > 2_400
    guard = RuleGuard()
    assert [pair for pair in changed if guard.differs(pair[1], pair[0], 1.0) is None] == []


# Whole numbers only: "$.1" with a nought behind it is the same price.
WHOLE = re.compile(r"(?<![\d.,:/])\d+(?![\d:/]|[.,]\d)")


def _changed(text: str, draw: random.Random) -> str:
    match = draw.choice(list(WHOLE.finditer(text)))
    return f"{text[: match.start()]}{int(match[0]) + draw.randint(1, 9)}{text[match.end() :]}"


def test_a_word_problem_with_two_numbers_swapped_is_hardly_ever_served(problems: list[tuple[str, str]]) -> None:
    draw, guard = random.Random(5), RuleGuard()
    swapped = [(text, other) for text, _ in problems if (other := _swapped(text, draw)) is not None]
    served = sum(guard.differs(other, text, 1.0) is None for text, other in swapped)
    show(f"GSM8K, two numbers swapped: {served} of {len(swapped)} served")
    assert len(swapped) > 1_000
    assert served <= 0.01 * len(swapped)


def _swapped(text: str, draw: random.Random) -> str | None:
    numbers = list(re.finditer(r"\d+(?:\.\d+)?", text))
    choices = [(a, b) for at, a in enumerate(numbers) for b in numbers[at + 1 :] if float(a[0]) != float(b[0])]
    if not choices:
        return None
    a, b = draw.choice(choices)
    return f"{text[: a.start()]}{b[0]}{text[a.end() : b.start()]}{a[0]}{text[b.end() :]}"


class NoGuard:
    """Serves whatever is near enough."""

    def differs(self, asked: str, stored: str, similarity: float = 1.0) -> str | None:  # noqa: ARG002 - the port's
        return None


async def _stream(
    queries: list[tuple[str, str]],
    vectors: Matrix,
    order: Sequence[int],
    guard: Guard,
    threshold: float,
    *,
    votes: bool = True,
) -> tuple[int, int, int]:
    """Exact hits, semantic hits and wrong ones of them: those whose answer was given to another intent.

    ``votes`` False: each answer is unlike all others, as free text is, so that neighbours say nothing.
    """

    def mark(at: int) -> str:
        return "" if votes else f"#{at}"

    cache = MemoryCache(clock=SystemClock(), guard=guard)
    exact = semantic = wrong = 0
    for at in order:
        text, intent = queries[at]
        key = content_key("s", [{"role": "user", "content": text}])
        found = cache.lookup_now([CacheQuery("s", key, text, vectors[at], threshold)])[0]
        if isinstance(found, CacheHit):
            exact, semantic = exact + (found.kind == "exact"), semantic + (found.kind == "semantic")
            wrong += found.answer.text.partition("#")[0] != intent
        answer = found.answer if isinstance(found, CacheHit) else Answer(f"{intent}{mark(at)}", "p", "m")
        if not isinstance(found, CacheHit) or found.kind == "semantic":
            # A paraphrase that was served leaves an alias, as the engine does, and with it its wrong answer.
            vector = None if isinstance(found, CacheHit) else vectors[at]
            await cache.store([CacheEntry(key, "s", key, text, answer, vector)])
    return exact, semantic, wrong


async def test_a_stream_of_customer_queries_saves_with_few_wrong_hits(bench_data: Path) -> None:
    """A hit is wrong where its answer was given to another intent.

    One intent holds many questions, so this counts too few: two questions of one intent may need two answers. It also
    counts too many: the labels part questions that read the same ("How do I top up my card?" stands under three).
    """
    with (bench_data / "banking77/test.csv").open(encoding="utf-8", newline="") as file:
        queries = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    vectors = await embed([text for text, _ in queries])
    draw = random.Random(3)
    draw.shuffle(ranks := list(range(len(queries))))
    weights = list(accumulate(1 / (rank + 1) ** ZIPF for rank in range(len(queries))))
    order = draw.choices(ranks, cum_weights=weights, k=STREAM)
    curve: dict[tuple[str, float], tuple[int, int, int]] = {}
    settings = {"strict": STRICT, "lenient": LENIENT}
    for name, threshold in [("none", t) for t in BARE_THRESHOLDS] + [(n, s.floor) for n, s in settings.items()]:
        guard: Guard = NoGuard() if name == "none" else RuleGuard(settings[name])
        for votes in (False,) if name == "none" else (False, True):
            found = await _stream(queries, vectors, order, guard, threshold, votes=votes)
            called = f"{name}, votes" if votes else name
            exact, semantic, wrong = curve[called, threshold] = found
            show(
                f"guard {called:14} threshold {threshold:.2f}: saved {(exact + semantic) / STREAM:.4f} "
                f"(exact {exact / STREAM:.4f}), wrong {wrong} = {wrong / STREAM:.4%} of all"
            )
    bare = sorted((sum(curve["none", at][:2]), curve["none", at][2]) for at in BARE_THRESHOLDS)
    for name in settings:
        exact, semantic, wrong = curve[f"{name}, votes", settings[name].floor]
        # Cosine alone at the threshold that saves as much, which nobody knows beforehand.
        as_much = float(np.interp(exact + semantic, [hits for hits, _ in bare], [missed for _, missed in bare]))
        show(f"{name}: {wrong} wrong, cosine that saves as much: {as_much:.0f}")
        assert semantic > 0
        assert (exact + semantic) / STREAM >= 0.88
        assert wrong <= 0.8 * as_much


def test_the_guard_costs_at_most_a_tenth_of_a_millisecond_a_candidate(bench_data: Path) -> None:
    pairs = [row for row in read(bench_data / "langcache_pairs/chatgpt.csv") if isinstance(row, Pair)]
    cosine = np.full(len(pairs), 0.9, dtype=np.float32)
    # The best of several: other processes of the machine only ever add time.
    best = min(evaluate(pairs, cosine, setting).guard_us for setting in _settings())
    show(f"guard: {best:.0f} us a candidate")
    assert best <= 100


def _settings() -> list[Setting]:
    return [STRICT, LENIENT] * 3
