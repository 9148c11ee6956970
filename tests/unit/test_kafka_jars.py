"""The lock and the cache of Kafka's jars, without a network."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from stratarouter_runtime.embedded import EmbeddedStackError, JarDownloadError, kafka_jars
from stratarouter_runtime.embedded.kafka_jars import (
    KAFKA_VERSION,
    LOCK_FILE,
    LockedJar,
    ensure_jars,
    install,
    parse_lock,
    unverified,
    user_cache_dir,
)

CONTENT = b"the jar as it was published"


def jar(name: str = "thing", content: bytes = CONTENT) -> LockedJar:
    return LockedJar("org.example", name, "1.0", hashlib.sha256(content).hexdigest(), len(content))


def put(folder: Path, which: LockedJar, content: bytes = CONTENT) -> Path:
    path = folder / which.filename
    path.write_bytes(content)
    return path


def test_shipped_lock_names_one_kafka_version_and_a_logger() -> None:
    jars = parse_lock(LOCK_FILE.read_text())
    kafka = {each.version for each in jars if each.group == "org.apache.kafka"}
    assert kafka == {KAFKA_VERSION}
    assert any(each.artifact == "slf4j-simple" for each in jars)
    assert len(jars) == 36


@pytest.mark.parametrize("line", ["a:b:1 abc 3", f"a:b {'0' * 64} 3", f"a:b:1 {'0' * 64}", f"a:b:1 {'0' * 64} x"])
def test_malformed_lock_line_is_refused_by_name(line: str) -> None:
    with pytest.raises(EmbeddedStackError, match=r"bad line in kafka_jars\.lock"):
        parse_lock(line)


def test_lock_that_names_a_file_twice_is_refused() -> None:
    line = f"a:b:1 {'0' * 64} 3\n"
    with pytest.raises(EmbeddedStackError, match="twice"):
        parse_lock(line + line.replace("a:", "c:"))


def test_missing_and_damaged_jars_are_named(tmp_path: Path) -> None:
    good, damaged, missing = jar("good"), jar("damaged"), jar("missing")
    put(tmp_path, good)
    put(tmp_path, damaged, b"half of it")
    assert unverified(tmp_path, [good, damaged, missing]) == [damaged, missing]


def test_verified_jar_is_not_hashed_again_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, jar())
    assert unverified(tmp_path, [jar()]) == []
    hashed: list[Path] = []
    real = kafka_jars.sha256_of

    def counted(file: Path) -> str:
        hashed.append(file)
        return real(file)

    monkeypatch.setattr(kafka_jars, "sha256_of", counted)
    assert unverified(tmp_path, [jar()]) == []
    assert hashed == []
    path.write_bytes(b"THE jar as it was published")
    os.utime(path, ns=(1, 1))
    assert unverified(tmp_path, [jar()]) == [jar()]
    assert hashed == [path]


def test_stamp_of_an_older_lock_does_not_vouch_for_a_new_hash(tmp_path: Path) -> None:
    put(tmp_path, jar())
    assert unverified(tmp_path, [jar()]) == []
    assert unverified(tmp_path, [jar(content=b"a new build")]) == [jar(content=b"a new build")]


@pytest.mark.parametrize("stamp", ["not json", "[]"])
def test_broken_stamp_means_hashing_again(tmp_path: Path, stamp: str) -> None:
    put(tmp_path, jar())
    (tmp_path / "verified.json").write_text(stamp)
    assert unverified(tmp_path, [jar()]) == []


def test_jar_with_another_hash_is_never_installed(tmp_path: Path) -> None:
    source, folder = tmp_path / "from", tmp_path / "to"
    source.mkdir()
    folder.mkdir()
    put(source, jar(), b"something else")
    with pytest.raises(JarDownloadError, match=r"org\.example:thing:1\.0 should have SHA-256"):
        install([jar()], source, folder)
    assert list(folder.iterdir()) == []


def test_jar_with_the_right_hash_is_moved_into_place(tmp_path: Path) -> None:
    source, folder = tmp_path / "from", tmp_path / "to"
    source.mkdir()
    folder.mkdir()
    put(source, jar())
    install([jar()], source, folder)
    assert (folder / jar().filename).read_bytes() == CONTENT
    assert list(source.iterdir()) == []


async def test_full_cache_needs_no_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "lock"
    lock.write_text(f"org.example:thing:1.0 {jar().sha256} {jar().size_bytes}\n")
    monkeypatch.setattr(kafka_jars, "LOCK_FILE", lock)
    folder = tmp_path / "cache" / f"kafka-{KAFKA_VERSION}"
    folder.mkdir(parents=True)
    path = put(folder, jar())
    said: list[str] = []
    assert await ensure_jars(tmp_path / "cache", said.append) == [path]
    assert said == []


async def test_failed_fetch_says_why_and_leaves_the_cache_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "fetch.py"
    program.write_text("import sys\nsys.exit('org.example:thing:1.0: no route to host')\n")
    monkeypatch.setattr(kafka_jars, "FETCH_PROGRAM", program)
    with pytest.raises(JarDownloadError, match="no route to host"):
        await ensure_jars(tmp_path / "cache", lambda _: None)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"kafka-{KAFKA_VERSION}"]


async def test_fetch_that_hangs_is_ended_at_its_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "fetch.py"
    program.write_text("import threading\nthreading.Event().wait()\n")
    monkeypatch.setattr(kafka_jars, "FETCH_PROGRAM", program)
    with pytest.raises(JarDownloadError, match="did not arrive within 0 s"):
        await ensure_jars(tmp_path / "cache", lambda _: None, timeout_s=0.2)


def test_cache_folder_follows_each_systems_custom() -> None:
    assert user_cache_dir({"XDG_CACHE_HOME": "/c"}, "linux") == Path("/c/stratarouter-runtime")
    assert user_cache_dir({}, "linux") == Path.home() / ".cache" / "stratarouter-runtime"
    assert user_cache_dir({"LOCALAPPDATA": "/l"}, "win32") == Path("/l/stratarouter-runtime")
