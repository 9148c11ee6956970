"""redisvl's semantic cache: for each number that comes in, the median seconds of so many lookups, and hits."""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np
from redisvl.extensions.cache.llm import SemanticCache
from redisvl.utils.vectorize import CustomTextVectorizer


def main(path: str, url: str, threshold: str) -> None:
    """Fill, then measure on demand. The vectors are given with every call."""
    given = np.load(path)
    texts = json.loads(str(given["texts"]))
    vectors, asked_vectors = given["vectors"].tolist(), given["asked_vectors"].tolist()
    answer = str(given["answer"])
    cache = SemanticCache(
        name="bench",
        redis_url=url,
        distance_threshold=float(threshold),
        vectorizer=CustomTextVectorizer(embed=lambda *_args, **_kwargs: vectors[0]),
        overwrite=True,
    )
    for text, vector in zip(texts, vectors, strict=True):
        cache.store(prompt=text, response=answer, vector=vector)
    say("ready")
    for line in sys.stdin:
        took, hits = [], 0
        for vector in asked_vectors[: int(line)]:
            began = time.perf_counter()
            found = cache.check(vector=vector)
            took.append(time.perf_counter() - began)
            hits += bool(found)
        say([statistics.median(took), hits / len(took)])
    cache.delete()


def say(what: object) -> None:
    """One line of JSON."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:4])
