"""Fetches jars with jgo into a staging folder. A process of its own, because jgo cannot be interrupted otherwise.

Run by path as ``python -P kafka_fetch.py STAGING GROUP:ARTIFACT:VERSION...``. Each jar appears whole in
``STAGING/jars``; whether it is the right one, the parent decides.
"""

from __future__ import annotations

import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CONNECTIONS = 4
"""Enough to hide the latency of 36 small requests without straining the server."""

SOCKET_TIMEOUT_S = 10
ATTEMPTS = 3


def fetch(staging: Path, coordinate: str) -> None:
    """Fetch one jar, again after a failure; the last failure is raised."""
    for attempt in range(1, ATTEMPTS + 1):
        # A folder of its own each time: jgo takes a half-written file for a good one.
        try:
            _fetch_once(staging, staging / f"{coordinate.replace(':', '_')}.{attempt}", coordinate)
        except Exception:  # jgo lets many kinds through
            if attempt == ATTEMPTS:
                raise
            time.sleep(attempt)
        else:
            return


def _fetch_once(staging: Path, repository: Path, coordinate: str) -> None:
    from jgo.maven import MavenContext  # noqa: PLC0415 - so that a missing package is reported by main

    group, artifact, version = coordinate.split(":")
    maven = MavenContext(repo_cache=repository, local_repos=[], timeout=SOCKET_TIMEOUT_S)
    jar = maven.project(group, artifact).at_version(version).artifact().resolve()
    jar.replace(staging / "jars" / jar.name)
    shutil.rmtree(repository)


def main(argv: list[str]) -> None:
    """Fetch every coordinate in ``argv[1:]`` into the folder ``argv[0]``; exit 1 with the reason on failure."""
    staging = Path(argv[0])
    (staging / "jars").mkdir()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        jobs = {coordinate: pool.submit(fetch, staging, coordinate) for coordinate in argv[1:]}
        for coordinate, job in jobs.items():
            error = job.exception()
            if error is not None:
                pool.shutdown(cancel_futures=True)
                sys.exit(f"{coordinate}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
