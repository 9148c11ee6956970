"""Confluent's Parallel Consumer: its jars from Maven Central, our small program compiled by this machine's JDK."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from bench.peers import SCRIPTS, STAMP, PeerError, home, run
from stratarouter_runtime.embedded.kafka_jars import FETCH_PROGRAM

JARS = (
    "io.confluent.parallelconsumer:parallel-consumer-core:0.5.3.2",
    "org.apache.kafka:kafka-clients:3.7.0",
    "org.slf4j:slf4j-api:2.0.13",
    "org.slf4j:slf4j-nop:2.0.13",
    "io.micrometer:micrometer-core:1.13.0",
    "io.micrometer:micrometer-commons:1.13.0",
    "io.micrometer:micrometer-observation:1.13.0",
    "org.hdrhistogram:HdrHistogram:2.2.1",
    "org.latencyutils:LatencyUtils:2.0.3",
    "org.xerial.snappy:snappy-java:1.1.10.5",
    "com.github.luben:zstd-jni:1.5.5-4",
    "org.lz4:lz4-java:1.8.0",
    "org.projectlombok:lombok:1.18.28",
    "pl.tlinkowski.unij:pl.tlinkowski.unij.api:0.1.3",
    "pl.tlinkowski.unij:pl.tlinkowski.unij.service.api:0.1.3",
    "pl.tlinkowski.unij:pl.tlinkowski.unij.service.collect.jdk8:0.1.3",
)
"""What its own build names for running, by version."""
SOURCE = SCRIPTS / "ParallelCalls.java"


async def parallel_consumer() -> tuple[str, ...]:
    """The command that runs it. Raises PeerError where there is no JDK, or no jars to be had."""
    compiler, runtime = shutil.which("javac"), shutil.which("java")
    if compiler is None or runtime is None:
        raise PeerError("no JDK (javac and java) on this machine")
    place = home() / "parallel-consumer"
    stamp, wanted = place / STAMP, "\n".join(JARS)
    if not stamp.exists() or stamp.read_text() != wanted:
        await _fetched(place)
        stamp.write_text(wanted)
    path = f"{place / 'jars'}/*"
    classes = Path(tempfile.mkdtemp(prefix="classes-", dir=place))
    try:
        await run(compiler, "-cp", path, "-d", str(classes), str(SOURCE))
        kept = place / "classes"
        shutil.rmtree(kept, ignore_errors=True)
        classes.rename(kept)
    finally:
        shutil.rmtree(classes, ignore_errors=True)
    return runtime, "-Xmx1g", "-cp", f"{kept}:{path}", SOURCE.stem


async def _fetched(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    await run(sys.executable, "-P", str(FETCH_PROGRAM), str(place), *JARS)
