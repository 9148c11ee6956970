"""What holds for every command: JSON for programs, exit codes that are documented, names that the shell completes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.table import Table
from typer.testing import CliRunner

from stratarouter_runtime import errors
from stratarouter_runtime.cli import EXIT_CODES, MEANINGS, app, main
from stratarouter_runtime.cli import replay as replay_command
from stratarouter_runtime.cli.common import wide_console
from stratarouter_runtime.embedded.errors import (
    DataDirInUseError,
    DataDirMismatchError,
    EmbeddedExtraMissingError,
    EmbeddedStackError,
    JarDownloadError,
    ServerStartError,
)
from stratarouter_runtime.tools.ranges import Span, parse_time
from stratarouter_runtime.tools.replay import Plan, Report

README = Path(__file__).parents[2] / "README.md"
LINES_ANYWAY = {"worker", "tail"}
"""What they print is JSON lines and nothing else."""


def _commands(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, one in tree.commands.items():
        if hasattr(one, "commands"):
            yield from _commands(one, f"{path}{name} ")
        else:
            yield f"{path}{name}", one


def test_every_command_speaks_json() -> None:
    commands = dict(_commands(typer.main.get_command(app)))
    silent = {name for name, one in commands.items() if not any("--json" in option.opts for option in one.params)}
    assert len(commands) >= 25
    assert silent == LINES_ANYWAY


def test_every_command_says_what_it_does() -> None:
    for name, one in _commands(typer.main.get_command(app)):
        assert one.help, name
        for option in one.params:
            assert option.help, (name, option.name)


def test_the_exit_codes_are_those_of_the_readme() -> None:
    said = " ".join(README.read_text(encoding="utf-8").split())
    for code, meaning in MEANINGS.items():
        assert f"{code} {meaning}" in said.replace("0 done (Ctrl-C and SIGTERM drain first)", "0 done"), code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.RouteTableError("x"), 2),
        (errors.BrokerError("x"), 3),
        (errors.JournalUnavailableError("x"), 3),
        (errors.ProviderError("x"), 4),
        (errors.UnknownRouteError("x"), 5),
        (errors.RuntimeSystemError("x"), 1),
    ],
)
def test_an_error_of_ours_is_a_message_and_an_exit_code(
    error: errors.RuntimeSystemError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("stratarouter_runtime.cli.app", fail)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == code
    assert code in MEANINGS
    assert f"({error.code})" in capsys.readouterr().err
    assert all(known in MEANINGS for _, known in EXIT_CODES)


@pytest.mark.parametrize(
    "said",
    ["--from '[/foo]' is no time", "the route table /etc/[prod]/routes.toml", "[bold]", "no user:id:5, user:x:2"],
)
def test_what_an_error_says_is_shown_as_it_is(
    said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise errors.ConfigurationError(said, remedy=f"not {said}")

    monkeypatch.setattr("stratarouter_runtime.cli.app", fail)
    with pytest.raises(SystemExit) as caught:
        main()
    shown = capsys.readouterr().err
    assert caught.value.code == 2
    assert f"error (configuration) {said}\n" in shown
    assert f"remedy not {said}\n" in shown


def test_ids_with_colons_are_shown_and_can_be_copied(capsys: pytest.CaptureFixture[str]) -> None:
    """``user:id:5`` was shown with a picture in its middle, also in the command that goes on with a replay."""
    named = "user:id:5"
    report = Report("name", dry_run=True, without=[f"requests-0@1 {named}"])
    replay_command._print(report, Plan((Span(0, 0, 3),), request_id=named, asked=(None, None)))
    table = Table("request", title=named)
    table.add_row(named)
    wide_console().print(table)
    assert capsys.readouterr().out.count(named) == 4


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EmbeddedExtraMissingError, 2),
        (DataDirInUseError, 2),
        (DataDirMismatchError, 2),
        (JarDownloadError, 3),
        (ServerStartError, 1),
    ],
)
def test_what_the_embedded_stack_lacks_has_its_exit_code(
    error: type[EmbeddedStackError], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error("x")

    monkeypatch.setattr("stratarouter_runtime.cli.app", fail)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == code
    assert str(error.default_remedy or "") in " ".join(capsys.readouterr().err.split())


KEY = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("topics acls --principal bob", "write User:bob"),
        ("topics acls --principal User:", "has no type before its name"),
        ("cache correct right --key not-a-key --reason x", "'not-a-key' is no key of the cache"),
        ("cache invalidate --key not-a-key --reason x", "'not-a-key' is no key of the cache"),
        (f"cache mark-wrong --key {KEY} --answered-by r-1 --reason x", "--answered-by 'r-1' is no key"),
        (f"cache correct right --key {KEY} --request-id r-1 --reason x", "--key and --request-id both say"),
        ("cache invalidate --tag a --reason x --wait 127.0.0.1:9090", "is no HTTP address; nothing was written"),
        ("replay --dead-letter 0@0 --tenant acme", "--dead-letter is one letter's own request"),
        ("replay --dead-letter 0@0 --offsets 0:1..2", "--dead-letter is one letter's own request"),
        ("replay --dead-letter 0@0 --re-execute", "--dead-letter is one letter's own request"),
        ("dead-letters resend 0@0 --value /no/such/file", "--value /no/such/file cannot be read: No such file"),
        ("cache invalidate --tag a --reason x --wait http://", "is no HTTP address; nothing was written"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_written(words: str, expected: str) -> None:
    done = CliRunner().invoke(app, [*words.split(), "--bootstrap-servers", "127.0.0.1:1"])
    assert isinstance(done.exception, errors.InvalidRecordError | errors.ConfigurationError), done.exception
    assert expected in f"{done.exception.message} {done.exception.remedy}"
    assert done.stdout == ""


def test_a_port_that_is_none_is_refused() -> None:
    """It was taken modulo 65536: the simulator listened at 34463."""
    done = CliRunner().invoke(app, ["simulator", "--port", "99999"])
    assert done.exit_code == 2
    assert "less than or equal to 65535" in " ".join(done.stderr.split())


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    report = tmp_path / "no" / "report.json"
    done = CliRunner().invoke(app, ["demo", "--data-dir", str(tmp_path / "data"), "--report", str(report)])
    assert isinstance(done.exception, errors.ConfigurationError), done.exception
    assert f"--report {report} cannot be written" in done.exception.message
    assert not (tmp_path / "data").exists()


def test_a_data_directory_that_is_a_file_is_said(tmp_path: Path) -> None:
    taken = tmp_path / "data"
    taken.touch()
    done = CliRunner().invoke(app, ["up", "--data-dir", str(taken)])
    assert isinstance(done.exception, DataDirMismatchError), done.exception
    assert f"data_dir {taken} cannot be used" in done.exception.message


@pytest.mark.parametrize("text", ["999999d", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00Z"])
def test_a_time_before_all_records_is_their_beginning(text: str) -> None:
    """Kafka takes a negative time for a command: -1 is the end."""
    assert parse_time(text, "--from") == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("what", ["what-if"]),
        ("dead-letters re", ["resend"]),
        ("tail usage", ["usage-deltas", "usage"]),
        ("usage --by tenant,ro", ["tenant,route"]),
        ("worker --processors enrich,", ["enrich,execute", "enrich,usage"]),
        ("dead-letters list --code unknown", ["unknown_route"]),
        ("what-if --set cache_s", ["cache_similarity_threshold="]),
    ],
)
def test_the_shell_completes_commands_options_and_names(words: str, expected: list[str]) -> None:
    typed = f"stratarouter-runtime {words}"
    done = subprocess.run(
        [Path(sys.executable).with_name("stratarouter-runtime")],
        env={
            **os.environ,
            "_STRATAROUTER_RUNTIME_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(len(typed.split(" ")) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert sorted(done.stdout.split()) == sorted(expected)


def test_a_threshold_that_no_request_may_have_is_refused_and_not_replaced() -> None:
    options = ["cache", "explain", "asked", "stored", "--no-topic", "--threshold", "0"]
    result = CliRunner().invoke(app, options)
    assert isinstance(result.exception, errors.SchemaViolationError)
    assert "--threshold" in result.exception.message
