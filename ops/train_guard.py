# noqa: INP001 - a script, no module of a package
"""Fits what each difference in the words costs: the ``COST_*`` of ``cache/wording.py``.

Run it as ``python ops/train_guard.py FOLDER``, with langcache_pairs/chatgpt.csv and banking77/test.csv in the folder.
A logistic regression over the cosine and the differences, on the pairs that no rule refuses, with every cost held at
zero or above (``LEAST``). A cost is its weight over the cosine's, so that it is paid in cosine similarity.

Three sets, each with the same weight, so that the costs do not lean on one set's manner: half of the labelled pairs
(the half is the first bit of the SHA-256 of a pair's texts; the other half is for
``tests/contract/test_cache_quality.py`` alone), the project's own pairs, and every eighth banking query with its
nearest other one, the same where both have one intent; that set counts half, for two questions of one intent may need
two answers. Then each set is judged by costs fitted on the others. Needs the local-embedder extra.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stratarouter_runtime.cache.align import difference
from stratarouter_runtime.cache.evaluate import cosines, nearest_pairs
from stratarouter_runtime.cache.features import Features, features
from stratarouter_runtime.cache.guard import STRICT
from stratarouter_runtime.cache.pairs import Pair, Question, read
from stratarouter_runtime.cache.rules import refusal
from stratarouter_runtime.cache.wording import KINDS, is_lone, is_named, kind_of, opposed, unshared
from stratarouter_runtime.embedders import LocalEmbedder

Floats = NDArray[np.float64]

OWN_PAIRS = Path(__file__).parent.parent / "tests/data/cache_pairs.csv"
KIND_NAMES = tuple(name for name in KINDS if name != "same")
NAMES = (*(name.upper() for name in KIND_NAMES), "NAMED", "UNSHARED", "LONE")
EVERY = 8
"""Of the banking queries one in so many is taken: about as many pairs as the labelled set gives."""
STEPS = 20_000
RATE = 0.05
RIDGE = 1.0
"""Strength of the penalty on large weights, in pairs: it keeps rare differences from large costs."""
LEAST = {"UNSHARED": 0.2, "LONE": 0.12}
"""Costs that are held at this or above: the sets have hardly a text that shares no word with what it is near to, and by
its nearest among all the others a text of one content word is found right, by its nearest among the few that a young
cache holds it is not."""
PRECISION = 0.98
"""Where recall is told of a set that the costs were not fitted on."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The pairs of a set that no rule refuses. Arrays of shape (pairs, ...).

    ``rows``: the cosine, then what the costs of ``NAMES`` are multiplied with. ``wanted``: same pairs of the whole set.
    """

    rows: Floats
    same: Floats
    weight: float
    wanted: int


def for_training(pair: Pair) -> bool:
    """Whether ``pair`` is in the half to fit on."""
    return sha256(f"{pair.asked}\n{pair.stored}".encode()).digest()[0] & 1 == 0


def row(cosine: float, asked: Features, stored: Features) -> list[float]:
    """One row of ``Judged.rows``."""
    left = difference(asked, stored)
    kind = kind_of(asked, stored, left)
    kinds = (kind == name for name in KIND_NAMES)
    return [cosine, *kinds, is_named(asked, stored, left), unshared(left), is_lone(asked, stored)]


def judged(pairs: list[Pair], similarities: NDArray[np.float32], share: float) -> Judged:
    """What the costs have to decide of ``pairs``; ``share``: the set's weight among the sets."""
    rows, same = [], []
    for pair, cosine in zip(pairs, similarities, strict=True):
        ours, theirs = features(pair.asked), features(pair.stored)
        if cosine >= STRICT.floor and refusal(ours, theirs) is None and opposed(ours[-1], theirs[-1]) is None:
            rows.append(row(float(cosine), ours[-1], theirs[-1]))
            same.append(float(pair.same))
    return Judged(np.array(rows, np.float64), np.array(same), share / len(rows), sum(pair.same for pair in pairs))


def fit(sets: list[Judged]) -> Floats:
    """The costs, shape (names,), by gradient descent."""
    table, same = np.concatenate([one.rows for one in sets]), np.concatenate([one.same for one in sets])
    weight = np.concatenate([np.full(len(one.same), one.weight) for one in sets])
    weight *= len(same) / weight.sum()
    mean, spread = table.mean(axis=0), table.std(axis=0) + 1e-9
    scaled = (table - mean) / spread
    weights, bias = np.zeros(table.shape[1]), 0.0
    least = np.array([LEAST.get(name, 0.0) for name in NAMES]) * spread[1:] / spread[0]
    for _ in range(STEPS):
        error = (1 / (1 + np.exp(-(scaled @ weights + bias))) - same) * weight
        weights -= RATE * (scaled.T @ error + RIDGE * weights) / len(same)
        bias -= RATE * error.mean()
        weights[1:] = np.minimum(weights[1:], -least * weights[0])
    plain = weights / spread
    costs: Floats = -plain[1:] / plain[0]
    return costs


def recall(one: Judged, costs: Floats) -> float:
    """The largest recall at ``PRECISION``, at whatever demand that is."""
    score = one.rows[:, 0] - one.rows[:, 1:] @ costs
    right = np.cumsum(one.same[np.argsort(-score)])
    precise = right[right >= PRECISION * np.arange(1, len(right) + 1)]
    return float(precise[-1] / one.wanted) if len(precise) else 0.0


async def embed(texts: list[str]) -> NDArray[np.float32]:
    """Unit vectors of all-MiniLM-L6-v2, shape (texts, 384)."""
    embedder = LocalEmbedder()
    await embedder.start()
    try:
        return np.stack([row for at in range(0, len(texts), 64) for row in await embedder.embed(texts[at : at + 64])])
    finally:
        await embedder.stop()


def with_cosines(pairs: list[Pair]) -> tuple[list[Pair], NDArray[np.float32]]:
    """``pairs`` and their cosines."""
    asked = asyncio.run(embed([pair.asked for pair in pairs]))
    stored = asyncio.run(embed([pair.stored for pair in pairs]))
    return pairs, cosines(list(asked), list(stored))


def labelled(path: Path) -> list[Pair]:
    """The training half of the labelled pairs, without the asterisks that tell the label."""
    rows = [row for row in read(path) if isinstance(row, Pair)]
    unmarked = [Pair(row.asked.replace("**", ""), row.stored.replace("**", ""), row.same) for row in rows]
    return [pair for pair in unmarked if for_training(pair)]


def neighbours(path: Path) -> tuple[list[Pair], NDArray[np.float32]]:
    """Some banking queries, each with its nearest other one, and their cosines."""
    with path.open(encoding="utf-8", newline="") as file:
        questions = [Question(row["text"], row["category"]) for row in csv.DictReader(file)]
    pairs, found = nearest_pairs(questions, asyncio.run(embed([question.text for question in questions])))
    return pairs[1::EVERY], found[1::EVERY]


def report(sets: Mapping[str, Judged]) -> None:
    """Print the costs, and how costs fitted on the other sets do on each."""
    for name, cost in zip(NAMES, fit(list(sets.values())), strict=True):
        sys.stdout.write(f"COST_{name} = {cost:.2f}\n")
    for name, one in sets.items():
        others = fit([other for other in sets.values() if other is not one])
        sys.stdout.write(f"{name}: recall {recall(one, others):.3f} at precision {PRECISION}, fitted on the others\n")


def main() -> None:
    """Fit on the sets of the folder named on the command line."""
    parser = argparse.ArgumentParser(description="Fit the costs of the cache's guard.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    own = [row for row in read(OWN_PAIRS) if isinstance(row, Pair)]
    report(
        {
            "labelled": judged(*with_cosines(labelled(folder / "langcache_pairs/chatgpt.csv")), 1.0),
            "own": judged(*with_cosines(own), 1.0),
            "banking": judged(*neighbours(folder / "banking77/test.csv"), 0.5),
        }
    )


if __name__ == "__main__":
    main()
