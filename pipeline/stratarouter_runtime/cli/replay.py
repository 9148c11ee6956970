"""``replay`` answers requests of a range again; it pays for nothing unless told to."""

from __future__ import annotations

import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stratarouter_runtime.cli.common import ConfigOption, configure, plain_console, run
from stratarouter_runtime.cli.dead_letters import send_again
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import ConfigurationError
from stratarouter_runtime.json_bytes import json_bytes

if TYPE_CHECKING:
    from stratarouter_runtime.tools.ranges import Wanted
    from stratarouter_runtime.tools.replay import Plan, Report

UNANSWERED = 1
"""Exit code where some requests have no answer to repeat, or records were refused for their form."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


def replay(
    config: Path | None = ConfigOption,
    offsets: list[str] = typer.Option([], help="PARTITION:BEGIN..END of the requests topic, to before END."),
    since: str | None = typer.Option(None, "--from", help="From this time on: RFC 3339, or 30m, 6h, 7d ago."),
    until: str | None = typer.Option(None, "--to", help="To before this time, written likewise."),
    request_id: str | None = typer.Option(None, help="Only this request; alone, it is found by its response."),
    dead_letter: str | None = typer.Option(None, help="PARTITION@OFFSET: send its request again, once."),
    tenant: str | None = typer.Option(None, help="Only this tenant's."),
    route: str | None = typer.Option(None, help="Only this route's."),
    to_topic: str | None = typer.Option(None, help="Where responses go; by default the responses topic."),
    replay_id: str | None = typer.Option(
        None, help="Its name; by default made of what is asked, so that it continues."
    ),
    rate: float | None = typer.Option(None, min=0.1, help="Records a second at most."),
    bootstrap_servers: str | None = typer.Option(None, help="Kafka's bootstrap servers."),
    database_url: str | None = typer.Option(None, help="PostgreSQL's URL."),
    *,
    re_execute: bool = typer.Option(False, "--re-execute", help="Pay again: send the requests anew, under new ids."),
    only_errors: bool = typer.Option(
        False, "--only-errors", help="With --re-execute: only what was answered with an error, or not at all."
    ),
    go: bool = typer.Option(False, "--go", help="Do it. Without, say what would be done."),
    as_json: bool = typer.Option(False, "--json", help="Print the report as JSON."),
) -> None:
    """Answer requests of a range again, out of the journal and the responses topic. Started again, it continues.

    Bounds that move, as --from 20m does, are part of its name as they are written: the same command takes what has come
    since, and leaves out what it has written before.

    Exits 1 where some requests have no answer to repeat, or records of the range were refused for their form.
    """
    from stratarouter_runtime.tools.replay import Plan

    settings = configure(config, bootstrap_servers=bootstrap_servers, database_url=database_url)
    if dead_letter is not None:
        beside = (offsets or None, since, until, request_id, tenant, route, to_topic, replay_id, rate)
        if re_execute or only_errors or any(option is not None for option in beside):
            raise ConfigurationError(
                "--dead-letter is one letter's own request; it goes with --go and --json alone",
                remedy="leave the other options out, or see `dead-letters resend`",
            )
        send_again(settings, [dead_letter], go=go, as_json=as_json)
        return
    plan = Plan((), to_topic, re_execute, only_errors, tenant, route, request_id, replay_id)
    plan = run(_with_range(settings, plan, offsets, since, until))
    console = plain_console(stderr=True)
    if go and plan.asked is not None:
        # Before anything is written: it may be broken off, and the bounds have moved on then.
        console.print(f"to go on over just this range: {_continued(plan)}", markup=False, highlight=False)
    report = run(_replay(settings, plan, console, go=go, rate=rate))
    if as_json:
        said = {"spans": [asdict(span) for span in plan.spans], "continue": _continued(plan)}
        typer.echo(json_bytes(asdict(report) | said).decode())
    else:
        _print(report, plan)
    if report.unanswered or report.unread:
        raise typer.Exit(UNANSWERED)


async def _with_range(
    settings: RuntimeConfig, plan: Plan, offsets: list[str], since: str | None, until: str | None
) -> Plan:
    """``plan`` with its spans, and what was asked for where that may be others tomorrow."""
    from stratarouter_runtime.processors.find_response import find_response
    from stratarouter_runtime.tools.ranges import Wanted, parse_offsets, parse_time
    from stratarouter_runtime.tools.replay import find_spans

    wanted = [parse_offsets(text) for text in offsets]
    since_ms = None if since is None else parse_time(since, "--from")
    until_ms = None if until is None else parse_time(until, "--to")
    if not wanted and since_ms is None and until_ms is None:
        if plan.request_id is None:
            raise ConfigurationError("no range", remedy="give --offsets, --from and --to, or --request-id")
        response = await find_response(settings, plan.request_id, plan.tenant)
        if response is None or response.source is None:
            raise ConfigurationError(
                f"the responses topic knows no response to {plan.request_id!r}",
                remedy="name the range it was sent in",
            )
        at = response.source
        wanted = [Wanted(at.partition, at.offset, at.offset + 1)]
    spans = await find_spans(settings, wanted, since_ms, until_ms)
    if not spans:
        raise ConfigurationError("the requests topic holds nothing of that range")
    return replace(plan, spans=tuple(spans), asked=_asked(wanted, _bound(since, since_ms), _bound(until, until_ms)))


def _bound(text: str | None, at_ms: int | None) -> str | int | None:
    """A time as it names a replay: how long ago as it is written, as that moves; else the moment, however written."""
    ago = text is not None and text.strip()[:-1].isdecimal()
    return text.strip() if text is not None and ago else at_ms


def _asked(wanted: list[Wanted], since: str | int | None, until: str | int | None) -> tuple[object, ...] | None:
    """None where offsets name all bounds: the spans are these, today and tomorrow."""
    whole = all(one.begin is not None and one.end is not None for one in wanted)
    if wanted and whole and since is None and until is None:
        return None
    ordered = sorted(([one.partition, one.begin, one.end] for one in wanted), key=repr)
    return ordered, since, until


def _continued(plan: Plan) -> str:
    """The command that goes on with this replay over the very offsets of this run."""
    words = ["stratarouter-runtime", "replay", "--replay-id", plan.name]
    for span in plan.spans:
        words += ["--offsets", f"{span.partition}:{span.begin}..{span.end}"]
    named = {"tenant": plan.tenant, "route": plan.route, "request-id": plan.request_id, "to-topic": plan.to_topic}
    for name, value in named.items():
        words += [] if value is None else [f"--{name}", value]
    words += ["--re-execute"] if plan.re_execute else []
    words += ["--only-errors"] if plan.only_errors else []
    return shlex.join([*words, "--go"])


async def _replay(settings: RuntimeConfig, plan: Plan, console: Console, *, go: bool, rate: float | None) -> Report:
    from stratarouter_runtime.tools.replay import Replay

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        bar = progress.add_task("requests", total=sum(span.width for span in plan.spans))
        work = Replay(settings, plan, go=go, rate=rate, heard=lambda done: progress.update(bar, completed=done))
        return await work.run()


def _print(report: Report, plan: Plan) -> None:
    console = plain_console()
    ranges = " ".join(f"--offsets {span.partition}:{span.begin}..{span.end}" for span in plan.spans)
    console.print(f"replay {report.replay_id} of {ranges}", markup=False, highlight=False)
    console.print(f"  {report.read} records read: {report.requests} requests, {report.refused} refused when they came")
    if report.replays:
        console.print(f"  {report.replays} that a replay had written, left out")
    if plan.re_execute:
        to_be = "to be executed again, and paid for" if report.dry_run else "sent to be executed again, and paid for"
        console.print(f"  {report.re_executed - report.before} {to_be}")
        if report.before:
            console.print(f"  {report.before} by an earlier run of this replay, left out; --replay-id pays once more")
        if plan.only_errors:
            console.print(f"  {report.left_out} answered then, left out")
    else:
        console.print(f"  {report.from_journal} answered from the journal, {report.from_responses} as the cache did")
        console.print(f"  {report.unanswered} without an answer")
    named = (*report.without, *report.unread)
    for line in named:
        console.print(f"    {line}", markup=False)
    if named:
        console.print(
            "    refused, too large under a new id, or older than what is kept; `dead-letters list` has the refused"
        )
    if plan.asked is not None:
        console.print(f"to go on over just this range: {_continued(plan)}", markup=False, highlight=False)
    if report.dry_run:
        console.print("nothing was written; --go writes")
    else:
        console.print(f"{report.published} written, {report.before} by an earlier run")
