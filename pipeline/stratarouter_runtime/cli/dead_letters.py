"""``dead-letters list``, ``show`` and ``resend``: what could not be used, why, and once more when it is mended."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape
from rich.table import Table

from stratarouter_runtime.cli.common import ConfigOption, among, configure, run, wide_console
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import REFUSALS, ConfigurationError
from stratarouter_runtime.json_bytes import json_bytes

if TYPE_CHECKING:
    from stratarouter_runtime.tools.dead_letters import Listing, Outcome

app = typer.Typer(help="Look at dead letters and send them again.", no_args_is_help=True)

NOT_SENT = 1
"""Exit code where a letter was not sent again."""
RESEND_LIMIT = 10_000

CodeOption = typer.Option(None, "--code", help="Only with this error code.", autocompletion=among(*sorted(REFUSALS)))
ProcessorOption = typer.Option(
    None, "--processor", help="Only from enrich or execute.", autocompletion=among("enrich", "execute")
)
RequestOption = typer.Option(None, "--request-id", help="Only of this request.")
FromOption = typer.Option(None, "--from", help="From this time on: RFC 3339, or 30m, 6h, 7d ago.")
ToOption = typer.Option(None, "--to", help="To before this time, written likewise.")
ServersOption = typer.Option(None, help="Kafka's bootstrap servers.")
JsonOption = typer.Option(False, "--json", help="Print JSON.")


@app.command("list")
def list_letters(
    config: Path | None = ConfigOption,
    code: str | None = CodeOption,
    processor: str | None = ProcessorOption,
    request_id: str | None = RequestOption,
    since: str | None = FromOption,
    until: str | None = ToOption,
    resent: bool | None = typer.Option(None, "--resent/--not-resent", help="Only those sent again, or not."),
    limit: int = typer.Option(50, min=1, max=10_000, help="The newest so many."),
    bootstrap_servers: str | None = ServersOption,
    *,
    as_json: bool = JsonOption,
) -> None:
    """List dead letters, the newest last."""
    from stratarouter_runtime.tools.dead_letters import Wish

    settings = configure(config, bootstrap_servers=bootstrap_servers)
    listing = run(_find(settings, Wish(code, processor, request_id, resent), [], since, until, limit))
    if as_json:
        for found in listing.letters:
            typer.echo(json_bytes(found.summary()).decode())
        return
    table = Table("letter", "at (UTC)", "code", "request", "from", "reason", "sent again")
    for found in listing.letters:
        letter, at = found.letter, datetime.fromtimestamp(found.timestamp_ms / 1000, UTC)
        source = f"{letter.source.topic}-{letter.source.partition}@{letter.source.offset}"
        row = (f"{at:%Y-%m-%d %H:%M:%S}", letter.code, letter.request_id or "-", source, letter.reason)
        table.add_row(found.address, *(escape(cell) for cell in row), "yes" if found.resent else "")
    console = wide_console()
    console.print(table)
    more = f" of {listing.matched}; --limit shows more" if listing.matched > len(listing.letters) else ""
    console.print(f"{len(listing.letters)} dead letters{more}")
    if listing.unreadable:
        console.print(f"{listing.unreadable} records of the topic are no dead letters")


@app.command()
def show(
    address: str = typer.Argument(help="PARTITION@OFFSET of the dead-letter topic."),
    config: Path | None = ConfigOption,
    bootstrap_servers: str | None = ServersOption,
    *,
    as_json: bool = JsonOption,
) -> None:
    """Show one dead letter with the record in it."""
    from stratarouter_runtime.tools.dead_letters import Wish

    settings = configure(config, bootstrap_servers=bootstrap_servers)
    listing = run(_find(settings, Wish(), [address], None, None, 1))
    if not listing.letters:
        raise ConfigurationError(f"there is no dead letter at {address}", remedy="`dead-letters list` shows all")
    shown = listing.letters[0].whole()
    if as_json:
        typer.echo(json_bytes(shown).decode())
        return
    console = wide_console()
    for name, value in shown.items():
        console.print(f"[bold]{name:11}[/] {escape(value if isinstance(value, str) else json_bytes(value).decode())}")


@app.command()
def resend(
    addresses: list[str] = typer.Argument(None, help="PARTITION@OFFSET of each letter; none: those the filters name."),
    config: Path | None = ConfigOption,
    changes: list[str] = typer.Option([], "--set", help="PATH=VALUE in the request, as decision.route_id=billing."),
    value: Path | None = typer.Option(None, help="A file with the whole request to send in a letter's place."),
    code: str | None = CodeOption,
    processor: str | None = ProcessorOption,
    request_id: str | None = RequestOption,
    since: str | None = FromOption,
    until: str | None = ToOption,
    bootstrap_servers: str | None = ServersOption,
    *,
    force: bool = typer.Option(False, "--force", help="Also those that were sent again already."),
    go: bool = typer.Option(False, "--go", help="Do it. Without, say what would be sent."),
    as_json: bool = JsonOption,
) -> None:
    """Send the requests in dead letters again, mended. Each once, unless forced; exits 1 where one was not sent."""
    from stratarouter_runtime.tools.dead_letters import Wish, parse_change

    settings = configure(config, bootstrap_servers=bootstrap_servers)
    if not addresses and (code, processor, request_id, since, until) == (None,) * 5:
        raise ConfigurationError("no letters named", remedy="give addresses, or a filter such as --code")
    if value is not None and len(addresses or []) != 1:
        raise ConfigurationError("--value stands for one letter", remedy="name the letter by its address")
    content = None if value is None else _file(value)
    fields = [parse_change(text) for text in changes]
    wish = Wish(code, processor, request_id, None if addresses or force else False)
    listing = run(_find(settings, wish, addresses or [], since, until, RESEND_LIMIT))
    if listing.matched > len(listing.letters):
        raise ConfigurationError(
            f"{listing.matched} letters match, more than {RESEND_LIMIT}", remedy="narrow the filters, or the time"
        )
    _resend_found(settings, listing, fields, content, force=force, go=go, as_json=as_json)


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ConfigurationError(f"--value {path} cannot be read: {exc.strerror}", remedy="name a file") from exc


def send_again(settings: RuntimeConfig, addresses: list[str], *, go: bool, as_json: bool) -> None:
    """Send letters again as they are; what ``resend`` does with their addresses alone."""
    from stratarouter_runtime.tools.dead_letters import Wish

    listing = run(_find(settings, Wish(), addresses, None, None, RESEND_LIMIT))
    _resend_found(settings, listing, [], None, force=False, go=go, as_json=as_json)


def _resend_found(
    settings: RuntimeConfig,
    listing: Listing,
    fields: list[Any],
    content: bytes | None,
    *,
    force: bool,
    go: bool,
    as_json: bool,
) -> None:
    outcomes = run(_resend(settings, listing, fields, content, force=force, go=go))
    if as_json:
        for outcome in outcomes:
            said = {"letter": outcome.found.address, "state": outcome.state, "reason": outcome.reason}
            typer.echo(json_bytes(said | {"dry_run": not go}).decode())
    else:
        _print(outcomes, go=go)
    if any(outcome.state != "sent" for outcome in outcomes):
        raise typer.Exit(NOT_SENT)


async def _find(
    settings: RuntimeConfig, wish: Any, addresses: list[str], since: str | None, until: str | None, limit: int
) -> Listing:
    from stratarouter_runtime.tools.dead_letters import DeadLetters, parse_address
    from stratarouter_runtime.tools.ranges import parse_time

    return await DeadLetters(settings).find(
        wish,
        wanted=[parse_address(text) for text in addresses],
        since_ms=None if since is None else parse_time(since, "--from"),
        until_ms=None if until is None else parse_time(until, "--to"),
        limit=limit,
    )


async def _resend(
    settings: RuntimeConfig, listing: Listing, changes: list[Any], value: bytes | None, *, force: bool, go: bool
) -> list[Outcome]:
    from stratarouter_runtime.tools.dead_letters import DeadLetters

    return await DeadLetters(settings).resend(listing.letters, changes=changes, value=value, force=force, go=go)


def _print(outcomes: list[Outcome], *, go: bool) -> None:
    console = wide_console()
    for outcome in outcomes:
        said = outcome.state if go or outcome.state != "sent" else "would be sent"
        console.print(f"{outcome.found.address}  {said}  {escape(outcome.reason)}".rstrip())
    sent = sum(outcome.state == "sent" for outcome in outcomes)
    console.print(f"{sent} of {len(outcomes)} {'sent' if go else 'would be sent; --go sends'}")
