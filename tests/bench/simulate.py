"""``make simulate``: the cluster model, checked against a measured run on this machine, then asked for a rate.

How long calls take follows the answers' lengths in ``$BENCH_DATA/azure_llm_trace``. What a record costs is measured
first; then a backlog with other latencies and less room is both measured and simulated, and must agree within 15 %.
There it is room that bounds the rate: the check says nothing of the costs, which are measured and not simulated.
Broker and database share the worker's cores here; a cluster where they do not takes fewer workers.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import math
import os
import random
import statistics
import sys
import tempfile
from pathlib import Path

import orjson
from rich.console import Console

from bench.cluster import WorkerModel, finish_times, plan
from bench.kafka_hits import QUERIES, requests
from bench.kafka_misses import misses
from bench.parts import database, simulator
from bench.result import machine, percentile
from bench.stream import Start, rate, started
from stratarouter_runtime.embedded import EmbeddedStack, StackAddresses

TRACE = Path(os.environ.get("BENCH_DATA", "../shared/data")) / "azure_llm_trace" / "AzureLLMInferenceTrace_conv.csv"
FIRST_TOKEN_S, TOKEN_S = 0.3, 0.012
"""Assumed of a provider, as the trace tells sizes only: the first token, and each further one (about 80 a second)."""
ROUNDS = 3
HITS, MISSES, CHECKED = 20_000, 6000, 6000
WARM = 40
CHECK_IN_FLIGHT = 1000
SHARE = 0.95
"""Of the answers, for the check's rate. The last one waits for the longest of 6,000 calls, which by chance takes 13 to
25 s: by itself it made one simulated run differ from another by half."""
MAX_IN_FLIGHT = 5000
WITHIN = 0.15
BUSY = 0.7
"""Of its processor, a worker is given so much at most: the rest is for rebalances and rushes."""
ONE_WORKER_S = 20.0


def main() -> int:
    """Check the model, then plan; exit code 1 where the model is off by more than 15 %."""
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--rate", type=float, default=1_000_000.0, help="requests/s to plan for")
    parser.add_argument("--hits", type=float, default=0.7, help="share of requests that the cache answers")
    parser.add_argument("--report", type=Path, default=Path("bench-results/simulation.json"))
    given = parser.parse_args()
    console = Console(width=120)
    if not TRACE.exists():
        console.print(f"{TRACE} is not there: set BENCH_DATA to the folder that holds azure_llm_trace")
        return 2
    report = asyncio.run(_measure())
    report |= _planned(report, given.rate, given.hits)
    given.report.parent.mkdir(parents=True, exist_ok=True)
    given.report.write_bytes(orjson.dumps({"machine": machine(), **report}, option=orjson.OPT_INDENT_2))
    for name, value in report.items():
        console.print(
            f"{name:42} {value:,.4g}" if isinstance(value, float) else f"{name:42} {value:,}", highlight=False
        )
    return 0 if abs(report["error"]) <= WITHIN else 1


def calls_s() -> list[float]:
    """How long each call of the trace takes, in seconds."""
    with TRACE.open(newline="") as file:
        return [FIRST_TOKEN_S + TOKEN_S * int(row["GeneratedTokens"]) for row in csv.DictReader(file)]


def _shape() -> tuple[float, float]:
    """Median and 99th percentile of the trace's calls, in seconds: the simulated provider is log-normal."""
    found = calls_s()
    return percentile(found, 0.5), percentile(found, 0.99)


def _draw(count: int, seed: int) -> list[float]:
    median, p99 = _shape()
    chance, sigma = random.Random(seed), math.log(p99 / median) / statistics.NormalDist().inv_cdf(0.99)
    return [chance.lognormvariate(math.log(median), sigma) for _ in range(count)]


async def _measure() -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="simulate-") as folder:
        async with EmbeddedStack(Path(folder)) as stack:
            addresses = await stack.start()
            async with database(addresses) as url:
                return await _checked(addresses, url)


async def _checked(addresses: StackAddresses, url: str) -> dict[str, float]:
    """What a record costs, and the same backlog measured and simulated, alternating."""
    median, p99 = _shape()
    shape = ("--latency-ms", str(median * 1000), "--latency-p99-ms", str(p99 * 1000))
    hit: list[float] = []
    miss: list[float] = []
    measured: list[float] = []
    async with simulator("--latency-ms", "30") as quick, simulator(*shape) as slow:
        costing, checking = (
            _worker(addresses, url, quick, MAX_IN_FLIGHT),
            _worker(addresses, url, slow, CHECK_IN_FLIGHT),
        )
        for _ in range(ROUNDS):
            hit.append(1 / await rate(costing, requests(QUERIES), requests(HITS)))
            miss.append(1 / await rate(costing, misses(WARM), misses(MISSES)))
            measured.append(await rate(checking, misses(WARM), misses(CHECKED), share=SHARE))
    model = WorkerModel(statistics.median(hit), statistics.median(miss), CHECK_IN_FLIGHT)
    counted = math.ceil(CHECKED * SHARE)
    simulated = counted / sorted(finish_times(model, [0.0] * CHECKED, _draw(CHECKED, seed=1)))[counted - 1]
    found = statistics.median(measured)
    return {
        "hit_s": model.hit_s,
        "miss_s": model.miss_s,
        "measured_per_s": found,
        "simulated_per_s": simulated,
        "error": simulated / found - 1,
    }


def _worker(addresses: StackAddresses, url: str, base_url: str, in_flight: int) -> Start:
    room = {"max_in_flight": in_flight, "lane_max_in_flight": in_flight, "provider_concurrency": 10_000}
    return started(addresses, url, base_url, **room)


def _planned(costs: dict[str, float], rate_per_s: float, hit_share: float) -> dict[str, float]:
    """The plan, and one of its workers under its share of the load, as it comes by chance."""
    worker = WorkerModel(costs["hit_s"], costs["miss_s"], MAX_IN_FLIGHT)
    lengths = calls_s()
    found = plan(worker, rate_per_s, hit_share, statistics.fmean(lengths), BUSY)
    chance, arrivals, share = random.Random(2), [0.0], rate_per_s / found.workers
    while arrivals[-1] < ONE_WORKER_S:
        arrivals.append(arrivals[-1] + chance.expovariate(share))
    calls = [-1.0 if chance.random() < hit_share else chance.choice(lengths) for _ in arrivals]
    # The second half, when as many calls are in flight as will be.
    settled = [end for end in finish_times(worker, arrivals, calls) if ONE_WORKER_S / 2 <= end < ONE_WORKER_S]
    return {
        "rate_per_s": rate_per_s,
        "hit_share": hit_share,
        "workers": found.workers,
        "partitions": found.partitions,
        "connections_to_providers": found.calls_in_flight,
        "connections_per_worker": found.calls_in_flight_per_worker,
        "busy": found.busy,
        "one_worker_takes_per_s": share,
        "one_worker_answers_per_s": len(settled) / (ONE_WORKER_S / 2),
    }


if __name__ == "__main__":
    if sys.platform != "win32":
        import uvloop

        uvloop.install()
    sys.exit(main())
