# noqa: INP001 - a script, no module of a package
"""Fits what each difference in the words costs: the ``COST_*`` of ``cache/guard.py``.

Run it as ``python ops/train_guard.py FOLDER``, with langcache_pairs/chatgpt.csv and banking77/test.csv in the folder.
A logistic regression over the cosine and the differences, on the pairs that no rule refuses, with every cost held at
zero or above. A cost is its weight over the cosine's, so that it is paid in cosine similarity.

Two sets, so that the costs do not lean on one set's manner: half of the labelled pairs (the half is the first bit of
the SHA-256 of a pair's texts; the other half is for ``tests/contract/test_cache_quality.py`` alone), and every eighth
banking query with its nearest other one, the same where both have one intent. Needs the local-embedder extra.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stratarouter_runtime.cache.align import difference
from stratarouter_runtime.cache.evaluate import cosines, nearest_pairs
from stratarouter_runtime.cache.features import Features, features
from stratarouter_runtime.cache.guard import is_named, kind_of, refusal
from stratarouter_runtime.cache.pairs import Pair, Question, read
from stratarouter_runtime.embedders import LocalEmbedder

NAMES = ("UNSHARED", "INSERTION", "SUBSTITUTION", "NAMED")
EVERY = 8
"""Of the banking queries one in so many is taken: about as many pairs as the other set gives."""
STEPS = 20_000
RATE = 0.05
RIDGE = 1.0
"""Strength of the penalty on large weights, in pairs: it keeps rare differences from large costs."""


def for_training(pair: Pair) -> bool:
    """Whether ``pair`` is in the half to fit on."""
    return sha256(f"{pair.asked}\n{pair.stored}".encode()).digest()[0] & 1 == 0


def row(asked: Features, stored: Features) -> list[float]:
    """What ``wording_cost`` multiplies its costs with, in the order of ``NAMES``."""
    left = difference(asked, stored)
    kind = kind_of(asked, stored, left)
    swap, insertion = kind == "guard:substitution", kind == "guard:insertion"
    return [1 - left.shared, insertion, swap, is_named(asked, stored, left)]


def fit(cosine: NDArray[np.float64], rows: NDArray[np.float64], same: NDArray[np.float64]) -> NDArray[np.float64]:
    """The costs, shape (differences,), of pairs with ``cosine`` and ``same`` of shape (pairs,), by gradient descent."""
    table = np.column_stack([cosine, rows])
    mean, spread = table.mean(axis=0), table.std(axis=0)
    scaled = (table - mean) / spread
    weights, bias = np.zeros(table.shape[1]), 0.0
    for _ in range(STEPS):
        error = 1 / (1 + np.exp(-(scaled @ weights + bias))) - same
        weights -= RATE * (scaled.T @ error + RIDGE * weights) / len(same)
        bias -= RATE * error.mean()
        weights[1:] = np.minimum(weights[1:], 0.0)
    plain = weights / spread
    costs: NDArray[np.float64] = -plain[1:] / plain[0]
    return costs


async def embed(texts: list[str]) -> NDArray[np.float32]:
    """Unit vectors of all-MiniLM-L6-v2, shape (texts, 384)."""
    embedder = LocalEmbedder()
    await embedder.start()
    try:
        return np.stack([row for at in range(0, len(texts), 64) for row in await embedder.embed(texts[at : at + 64])])
    finally:
        await embedder.stop()


def labelled(path: Path) -> tuple[list[Pair], NDArray[np.float32]]:
    """The training half of the labelled pairs, without the asterisks that tell the label, and its cosines."""
    rows = [row for row in read(path) if isinstance(row, Pair)]
    unmarked = [Pair(row.asked.replace("**", ""), row.stored.replace("**", ""), row.same) for row in rows]
    pairs = [pair for pair in unmarked if for_training(pair)]
    asked = asyncio.run(embed([pair.asked for pair in pairs]))
    stored = asyncio.run(embed([pair.stored for pair in pairs]))
    return pairs, cosines(list(asked), list(stored))


def neighbours(path: Path) -> tuple[list[Pair], NDArray[np.float32]]:
    """Some banking queries, each with its nearest other one, and their cosines."""
    with path.open(encoding="utf-8", newline="") as file:
        questions = [Question(row["text"], row["category"]) for row in csv.DictReader(file)]
    pairs, found = nearest_pairs(questions, asyncio.run(embed([question.text for question in questions])))
    return pairs[1::EVERY], found[1::EVERY]


def main() -> None:
    """Print the costs."""
    parser = argparse.ArgumentParser(description="Fit the costs of the cache's guard.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    sets = [labelled(folder / "langcache_pairs/chatgpt.csv"), neighbours(folder / "banking77/test.csv")]
    pairs = [pair for members, _ in sets for pair in members]
    cosine = np.concatenate([found for _, found in sets]).astype(np.float64)
    turns = [(features(pair.asked), features(pair.stored)) for pair in pairs]
    judged = np.array([refusal(*both) is None for both in turns])
    rows = np.array([row(ours[-1], theirs[-1]) for ours, theirs in turns], dtype=np.float64)
    same = np.array([pair.same for pair in pairs], dtype=np.float64)
    sys.stdout.write(f"{len(pairs)} pairs, of which {judged.sum()} no rule refuses\n")
    for name, cost in zip(NAMES, fit(cosine[judged], rows[judged], same[judged]), strict=True):
        sys.stdout.write(f"COST_{name} = {cost:.2f}\n")


if __name__ == "__main__":
    main()
