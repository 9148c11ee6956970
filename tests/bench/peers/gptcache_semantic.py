"""GPTCache with sqlite and faiss: for each number that comes in, the median seconds of so many lookups, and hits.

The vectors are given: its embedding function looks them up by text.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np
from gptcache import Cache
from gptcache.adapter.api import get
from gptcache.manager import CacheBase, VectorBase, get_data_manager
from gptcache.processor.pre import get_prompt
from gptcache.similarity_evaluation.distance import SearchDistanceEvaluation


def main(path: str) -> None:
    """Fill, then measure on demand."""
    given = np.load(path)
    texts, asked = json.loads(str(given["texts"])), json.loads(str(given["asked"]))
    vectors = dict(zip(texts + asked, np.concatenate([given["vectors"], given["asked_vectors"]]), strict=True))
    cache = Cache()
    cache.init(
        pre_embedding_func=get_prompt,
        embedding_func=lambda text, **_: vectors[text],
        data_manager=get_data_manager(
            CacheBase("sqlite", sql_url="sqlite:///gptcache.db"),
            VectorBase("faiss", dimension=given["vectors"].shape[1], index_path="faiss.index"),
            max_size=2 * len(texts),
        ),
        similarity_evaluation=SearchDistanceEvaluation(),
    )
    cache.import_data(texts, [str(given["answer"])] * len(texts))
    say("ready")
    for line in sys.stdin:
        took, hits = [], 0
        for text in asked[: int(line)]:
            began = time.perf_counter()
            found = get(text, cache_obj=cache)
            took.append(time.perf_counter() - began)
            hits += found is not None
        say([statistics.median(took), hits / len(took)])


def say(what: object) -> None:
    """One line of JSON."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
