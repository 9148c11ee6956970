"""Ten thousand questions with their vectors, and other wordings of some: what caches are filled with and asked.

The words are those of ``$BENCH_DATA`` where it is there, filled up with made ones; the vectors the local embedder's.
They take a minute to make, so they are kept beside the peers' environments.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from bench.peers import PeerError, home
from stratarouter_runtime.embedders import LocalEmbedder, local_available

DATA = Path(os.environ.get("BENCH_DATA", "../shared/data"))
COUNT = 10_000
ASKED = 300
EMBED_TIMEOUT_S = 120.0
EMBEDDED = 32
"""Texts in one call of the embedder: more make it slow, as the longest sets the size of all."""
ANSWER = "the answer " * 30
PLACES = ("Lisbon", "Oslo", "Quito", "Hanoi", "Lagos", "Turin", "Perth", "Delhi")
THINGS = ("invoice", "order", "refund", "parcel", "ticket", "account", "voucher", "booking")


@dataclass(frozen=True, slots=True)
class Questions:
    """``texts`` with ``vectors`` fill a cache; ``asked`` with ``asked_vectors`` are other wordings of some of them."""

    path: Path
    texts: list[str]
    vectors: NDArray[np.float32]
    asked: list[str]
    asked_vectors: NDArray[np.float32]


async def questions() -> Questions:
    """The same each time. Raises PeerError where the local embedder is not installed."""
    if not local_available():
        raise PeerError("the local embedder is not installed")
    texts = list(dict.fromkeys([*_public(), *made(COUNT)]))[:COUNT]
    asked = [f"Hello! {text}" for text in texts[:: COUNT // ASKED]][:ASKED]
    name = hashlib.sha256(orjson.dumps([texts, asked])).hexdigest()[:16]
    path = home() / f"questions-{name}.npz"
    if not path.exists():
        vectors = await _embedded([*texts, *asked])
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            path,
            texts=orjson.dumps(texts).decode(),
            vectors=vectors[: len(texts)],
            asked=orjson.dumps(asked).decode(),
            asked_vectors=vectors[len(texts) :],
            answer=ANSWER,
        )
    with np.load(path) as kept:
        return Questions(path, texts, kept["vectors"], asked, kept["asked_vectors"])


def made(count: int) -> Iterator[str]:
    """Questions that differ by a number, a thing and a place."""
    for number in range(count):
        thing, place = THINGS[number % 8], PLACES[number // 8 % 8]
        yield f"How do I get the {thing} number {number} that was sent to {place} changed, please?"


def _public() -> Iterator[str]:
    if (DATA / "banking77").exists():
        with (DATA / "banking77" / "test.csv").open(newline="") as file:
            yield from (row["text"].strip() for row in csv.DictReader(file))


async def _embedded(texts: list[str]) -> NDArray[np.float32]:
    embedder = LocalEmbedder(timeout_s=EMBED_TIMEOUT_S)
    await embedder.start()
    try:
        parts = [await embedder.embed(texts[start : start + EMBEDDED]) for start in range(0, len(texts), EMBEDDED)]
    finally:
        await embedder.stop()
    return np.concatenate([np.asarray(part, dtype=np.float32) for part in parts])
