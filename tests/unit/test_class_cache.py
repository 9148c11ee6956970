"""Java's class cache of the broker: one for each Java and each set of jars, and nothing half made is ever used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stratarouter_runtime.embedded.class_cache import KEPT, WITHOUT_CODE, ClassCache


@pytest.fixture
def java(tmp_path: Path) -> Path:
    program = tmp_path / "java"
    program.write_bytes(b"program")
    return program


def of(tmp_path: Path, java: Path, *flags: str) -> ClassCache:
    jar = tmp_path / "kafka.jar"
    if not jar.exists():
        jar.write_bytes(b"jar")
    return ClassCache(tmp_path, java, [jar], flags)


def recorded(tmp_path: Path, content: bytes = b"classes") -> Path:
    path = tmp_path / "broker.aot"
    path.write_bytes(content)
    return path


def test_what_was_recorded_is_used_from_then_on(tmp_path: Path, java: Path) -> None:
    cache = of(tmp_path, java)
    recording = recorded(tmp_path)
    assert cache.is_wanted
    assert cache.flags(None) == ()
    assert cache.flags(recording) == (*WITHOUT_CODE, f"-XX:AOTCacheOutput={recording}")
    cache.keep(recording)
    again = of(tmp_path, java)
    assert not again.is_wanted
    assert again.path.read_bytes() == b"classes"
    assert again.flags(None) == again.flags(recording) == (*WITHOUT_CODE, f"-XX:AOTCache={cache.path}")
    assert [path.name for path in tmp_path.glob("recorded-*")] == []


def test_another_java_other_jars_and_other_flags_have_caches_of_their_own(tmp_path: Path, java: Path) -> None:
    first = of(tmp_path, java).path
    assert of(tmp_path, java, "-Xmx1g").path != first
    os.utime(tmp_path / "kafka.jar", (1, 1))
    changed = of(tmp_path, java).path
    assert changed != first
    java.write_bytes(b"newer program")
    assert of(tmp_path, java).path not in (first, changed)


@pytest.mark.parametrize("left", ["nothing", "half"])
def test_a_recording_that_is_missing_or_half_made_is_not_used_and_not_tried_again(
    tmp_path: Path, java: Path, left: str
) -> None:
    cache = of(tmp_path, java)
    recording = tmp_path / "broker.aot"
    if left == "half":
        recorded(tmp_path)
        (tmp_path / "broker.aot.config").write_bytes(b"what Java works from")
    cache.keep(recording)
    assert not cache.is_wanted
    assert cache.flags(None) == ()


def test_few_caches_of_others_stay(tmp_path: Path, java: Path) -> None:
    made = []
    for number in range(KEPT + 3):
        cache = of(tmp_path, java, f"-Dnumber={number}")
        cache.keep(recorded(tmp_path))
        os.utime(cache.path, (number, number))
        made.append(cache.path)
    assert [path.exists() for path in made] == [False] * 2 + [True] * (KEPT + 1)
