"""Decisions of the embedded stack that need no server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
from pathlib import Path

import pytest

from stratarouter_runtime.embedded import DataDirInUseError, DataDirMismatchError, EmbeddedStack, EmbeddedStackError
from stratarouter_runtime.embedded.data_dir import FIRST_PORT, LAST_PORT, DataDir, choose_port
from stratarouter_runtime.embedded.kafka_settings import Node, as_properties, new_id, node_settings
from stratarouter_runtime.embedded.postgres import remove_stale_lock
from stratarouter_runtime.embedded.processes import (
    POLL_S,
    Account,
    Command,
    Server,
    birth_of,
    launch_argv,
    read_record,
    server_environment,
)
from stratarouter_runtime.embedded.unprivileged import may_enter, name_for

NODES = [Node(number, 20_000 + number, 21_000 + number) for number in (1, 2, 3)]


def python(tmp_path: Path, code: str) -> Command:
    return Command((sys.executable, "-c", code), tmp_path, tmp_path / "log", server_environment())


def test_caller_settings_win_over_ours() -> None:
    assert node_settings(NODES[0], NODES[:1], {"num.io.threads": "9"})["num.io.threads"] == "9"


def test_three_brokers_hold_three_copies_and_need_two() -> None:
    settings = node_settings(NODES[1], NODES, {})
    assert settings["default.replication.factor"] == settings["transaction.state.log.replication.factor"] == "3"
    assert settings["min.insync.replicas"] == settings["transaction.state.log.min.isr"] == "2"
    assert settings["controller.quorum.voters"].count("@127.0.0.1:") == 3


@pytest.mark.parametrize("key", ["node.id", "listeners", "log.dirs", "bad key"])
def test_setting_that_would_break_the_cluster_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(EmbeddedStackError, match="broker_settings"):
        EmbeddedStack(tmp_path, broker_settings={key: "1"})


def test_properties_survive_javas_reader() -> None:
    assert as_properties({"a": "C:\\x", "b": "é"}) == "a=C:\\\\x\nb=\\u00e9\n"


def test_ids_have_kafkas_shape() -> None:
    ids = {new_id() for _ in range(200)}
    assert len(ids) == 200
    assert all(len(text) == 22 and text[0] != "-" for text in ids)


def test_ports_are_below_the_range_for_clients() -> None:
    port = choose_port([])
    assert FIRST_PORT <= port <= LAST_PORT


def test_ports_are_remembered_while_they_are_free(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path)
    first = data_dir.ports(["a", "b"])
    assert data_dir.ports(["a", "b"]) == first
    with socket.socket() as other:
        other.bind(("127.0.0.1", first["a"]))
        other.listen()
        moved = data_dir.ports(["a", "b"])
    assert moved["a"] != first["a"]
    assert moved["b"] == first["b"]


def test_one_living_stack_a_directory(tmp_path: Path) -> None:
    first = DataDir(tmp_path)
    first.acquire()
    with pytest.raises(DataDirInUseError, match=f"in use by a running stack \\(process {os.getpid()}\\)"):
        DataDir(tmp_path).acquire()
    first.release()
    second = DataDir(tmp_path)
    second.acquire()
    second.release()


def test_password_is_made_once_for_the_owner_alone(tmp_path: Path) -> None:
    password = DataDir(tmp_path).password("p")
    assert DataDir(tmp_path).password("p") == password
    assert len(password) >= 32
    assert stat.S_IMODE((tmp_path / "p").stat().st_mode) == 0o600


def test_broken_json_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text("{")
    with pytest.raises(DataDirMismatchError, match=r"ports\.json is not JSON.*delete that file"):
        DataDir(tmp_path).ports(["a"])


async def test_data_of_a_cluster_of_another_size_are_refused(tmp_path: Path) -> None:
    DataDir(tmp_path).save("kafka.json", {"cluster_id": "x", "brokers": 3})
    stack = EmbeddedStack(tmp_path, postgres=False)
    with pytest.raises(DataDirMismatchError, match="holds a Kafka cluster of 3 and kafka_brokers is 1"):
        await stack.start()
    assert stack.pids == ()


def test_part_left_out_says_which_option_brings_it(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedStackError, match="redis=True"):
        _ = EmbeddedStack(tmp_path).redis


def test_server_of_a_stack_never_started_says_so(tmp_path: Path) -> None:
    stack = EmbeddedStack(tmp_path, redis=True)
    for part in (stack.kafka, stack.postgres, stack.redis):
        with pytest.raises(EmbeddedStackError, match="start the stack first"):
            asyncio.run(part.start())


def test_unknown_broker_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedStackError, match="no broker 4"):
        EmbeddedStack(tmp_path, kafka_brokers=3).kafka.kill(4)


def test_launcher_is_told_parent_signal_and_account(tmp_path: Path) -> None:
    command = Command(("/bin/server",), tmp_path, tmp_path / "log", {}, Account(65534, 65533), signal.SIGINT)
    assert launch_argv(command, 77, "linux")[-5:] == ["77", "2", "65534", "65533", "/bin/server"]
    assert launch_argv(command, 77, "darwin") == ["/bin/server"]


def test_server_sees_no_api_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Xmx1m")
    assert {"OPENAI_API_KEY", "JAVA_TOOL_OPTIONS"}.isdisjoint(server_environment())


@pytest.mark.parametrize(
    ("mode", "owner", "group", "expected"),
    [(0o700, 0, 0, False), (0o755, 0, 0, True), (0o070, 9, 0, False), (0o110, 0, 9, True), (0o701, 0, 9, False)],
)
def test_folder_is_entered_by_the_bits_that_apply(mode: int, owner: int, group: int, expected: bool) -> None:
    assert may_enter(mode, owner, group, Account(9, 9)) is expected


def test_unreachable_folder_is_named_by_the_working_directory_or_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    tmp_path.chmod(0o700)
    stranger = Account(65534, 65534)
    assert name_for(tmp_path / "data", stranger, "linux") == "/proc/self/cwd"
    assert name_for(tmp_path / "data", None, "linux") == str(tmp_path / "data")
    with pytest.raises(EmbeddedStackError, match="every user may enter"):
        name_for(tmp_path / "data", stranger, "darwin")


async def test_process_that_ignores_the_stop_signal_is_killed(tmp_path: Path) -> None:
    code = "import signal, threading; signal.signal(15, 1); print('up', flush=True); threading.Event().wait()"
    server = Server("stubborn", tmp_path / "log", tmp_path / "pid")
    server.spawn(python(tmp_path, code))
    pid = server.pid
    assert pid is not None
    async with asyncio.timeout(10):
        while not server.tail():
            await asyncio.sleep(POLL_S)
    await server.stop(signal.SIGTERM, 0.3)
    assert birth_of(pid) is None
    assert server.pid is None
    assert not server.record.exists()


async def test_leftover_of_a_killed_stack_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stratarouter_runtime.embedded.processes.LEFTOVER_GRACE_S", 0.0)
    earlier = Server("left", tmp_path / "log", tmp_path / "pid")
    earlier.spawn(python(tmp_path, "import threading; threading.Event().wait()"))
    await Server("left", tmp_path / "log", tmp_path / "pid").end_leftover()
    assert earlier.process is not None
    assert earlier.process.wait(timeout=5) == -signal.SIGKILL
    assert not (tmp_path / "pid").exists()


async def test_stale_record_of_another_process_kills_nobody(tmp_path: Path) -> None:
    record = tmp_path / "pid"
    record.write_text(f"{os.getpid()} 1")
    await Server("left", tmp_path / "log", record).end_leftover()
    assert birth_of(os.getpid()) is not None
    assert not record.exists()


@pytest.mark.parametrize("text", ["", "12", "12 ", "12 None", "x 5"])
def test_record_cut_short_names_no_process(tmp_path: Path, text: str) -> None:
    (tmp_path / "pid").write_text(text)
    assert read_record(tmp_path / "pid")[0] is None


def test_lock_file_whose_pid_is_another_programs_is_removed(tmp_path: Path) -> None:
    lock = tmp_path / "postmaster.pid"
    lock.write_text(f"{os.getpid()}\n/data\n")
    remove_stale_lock(lock)
    assert not lock.exists()
