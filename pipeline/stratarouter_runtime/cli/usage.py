"""``usage`` prints the accounts; ``ledger`` holds them against the journal."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape
from rich.table import Table

from stratarouter_runtime.cli.common import ConfigOption, among, configure, run, wide_console
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import ConfigurationError
from stratarouter_runtime.json_bytes import json_bytes

if TYPE_CHECKING:
    from stratarouter_runtime.ledger import LedgerLine

UNITS_S = {"m": 60, "h": 3600, "d": 86_400}
LENGTHS = ("minute", "hour", "day")
GROUPS = ("tenant", "route", "model")
NANO = 1_000_000_000
MINUTE_S = 60
SHOWN = ("requests", "errors", "paid", "exact", "semantic", "coalesced", "replayed", "input_tokens", "output_tokens")
SAVED = ("exact_nano", "semantic_nano", "coalesced_nano", "replayed_nano")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(usage)
    app.command()(ledger)


def usage(
    config: Path | None = ConfigOption,
    by: str = typer.Option(
        "tenant,route,model", help="What to sum by, by comma: tenant, route, model.", autocompletion=among(*GROUPS)
    ),
    window: str = typer.Option("day", help="minute, hour or day (UTC).", autocompletion=among(*LENGTHS)),
    since: str = typer.Option("1d", help="How far back: 30m, 6h, 7d."),
    database_url: str | None = typer.Option(None, help="PostgreSQL's URL."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON; money in nano-dollars (1e-9 US dollars)."),
) -> None:
    """Print requests, hits, tokens, and money paid and saved, by window."""
    groups = [name.strip() for name in by.split(",") if name.strip()]
    if window not in LENGTHS or not set(groups) <= set(GROUPS):
        raise ConfigurationError(
            f"--window {window!r} --by {by!r}", remedy=f"windows: {', '.join(LENGTHS)}; by: {', '.join(GROUPS)}"
        )
    settings = configure(config, database_url=database_url)
    found = run(_report(settings, window, time.time() - seconds(since, "--since"), groups))
    if as_json:
        typer.echo(json_bytes(found).decode())
        return
    columns = ["window", *(name for name in GROUPS if name in groups)]
    table = Table(*columns, *SHOWN, "paid USD", "saved USD")
    for row in found["windows"]:
        numbers = [str(row[name]) for name in SHOWN]
        saved = sum(row[name] for name in SAVED)
        names = [escape(row[name]) or "-" for name in columns[1:]]
        table.add_row(_time(row["start"]), *names, *numbers, dollars(row["paid_nano"]), dollars(saved))
    console = wide_console()
    console.print(table)
    for error in found["errors"]:
        said = f"errors: {error['tenant']} {error['route']} {error['code']}: {error['responses']}"
        console.print(said, markup=False)


async def _report(settings: RuntimeConfig, window: str, since_s: float, groups: list[str]) -> dict[str, Any]:
    from stratarouter_runtime.journal.usage import WINDOWS_S, UsageAccounts

    length = WINDOWS_S[window]
    # The window that ``since`` falls into is shown whole.
    span = (length, int(since_s) - int(since_s) % length, int(time.time()) + length)
    accounts = UsageAccounts(settings.database_url)
    await accounts.start()
    try:
        windows, errors = await accounts.report(*span, groups), await accounts.errors(*span)
    finally:
        await accounts.stop()
    return {"window_s": length, "windows": windows, "errors": errors}


def ledger(
    config: Path | None = ConfigOption,
    window: str = typer.Option("1d", help="How far back: 30m, 6h, 7d; to whole minutes."),
    settle: float = typer.Option(60.0, min=0.0, help="Results younger than so many seconds need not be counted yet."),
    database_url: str | None = typer.Option(None, help="PostgreSQL's URL."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON; money in nano-dollars (1e-9 US dollars)."),
) -> None:
    """For each tenant: calls without the runtime = paid + late + exact + semantic + coalesced + replayed, held against
    the journal. Exits 1 where the sources differ by a single response or nano-dollar.
    """
    from stratarouter_runtime.ledger import reconcile

    settings = configure(config, database_url=database_url)
    length = seconds(window, "--window")
    _check_kept(settings, window, length)
    lines = reconcile(run(_sources(settings, length, settle)))
    if as_json:
        typer.echo(json_bytes([_as_dict(line) for line in lines]).decode())
    else:
        _print(lines)
    if any(line.differences for line in lines):
        raise typer.Exit(1)


def _check_kept(settings: RuntimeConfig, window: str, length_s: int) -> None:
    """Refuse a window whose first results may be gone: they would be told as differences."""
    from stratarouter_runtime.ledger import COUNTED_WITHIN_S, longest_s

    longest_m = longest_s(settings.journal_retention_s) // MINUTE_S
    if length_s > longest_m * MINUTE_S:
        shorter = f"ask for --window {longest_m}m at most: a result is recorded up to {COUNTED_WITHIN_S} s before"
        raise ConfigurationError(
            f"results are not kept for as long as --window {window} reaches back "
            f"(journal_retention_s = {settings.journal_retention_s})",
            remedy=f"{shorter} its response is counted" if longest_m else "keep results longer",
        )


async def _sources(settings: RuntimeConfig, length_s: int, settle_s: float) -> Any:
    from stratarouter_runtime.journal.usage import UsageAccounts

    now = int(time.time())
    since = now - length_s - (now - length_s) % MINUTE_S
    accounts = UsageAccounts(settings.database_url)
    await accounts.start()
    try:
        return await accounts.ledger(since, now + 2 * MINUTE_S, int(now - settle_s))
    finally:
        await accounts.stop()


def _as_dict(line: LedgerLine) -> dict[str, Any]:
    return {
        "tenant": line.tenant,
        "calls_without": line.calls_without,
        "nano_usd_without": line.nano_without,
        "calls": line.calls,
        "nano_usd": line.nano_usd,
        "in_process": {"calls": line.in_process, "nano_usd": line.in_process_nano},
        "unpriced": line.unpriced,
        "reconciled": not line.differences,
        "differences": line.differences,
    }


def _print(lines: list[LedgerLine]) -> None:
    from stratarouter_runtime.ledger import KINDS

    table = Table("tenant", "without", *KINDS, "reconciled")
    for line in lines:
        # Each cell: how many, and how many US dollars.
        table.add_row(
            escape(line.tenant),
            f"{line.calls_without}\n{dollars(line.nano_without)}",
            *(f"{line.calls[kind]}\n{dollars(line.nano_usd[kind])}" for kind in KINDS),
            "no" if line.differences else "yes",
        )
    console = wide_console()
    console.print(table)
    for line in lines:
        if line.unpriced:
            said = f"{line.unpriced} answers have no known price and are in no sum of money"
            console.print(f"{line.tenant}: {said}", markup=False)
        if line.in_process:
            cost = dollars(line.in_process_nano)
            console.print(f"{line.tenant}: beside these, {line.in_process} calls in-process, {cost} USD", markup=False)
        for difference in line.differences:
            console.print(f"{line.tenant}: {difference}", style="red", markup=False, highlight=False)


def seconds(text: str, option: str) -> int:
    """``30m``, ``6h`` or ``7d`` in seconds. Raises ConfigurationError."""
    match = re.fullmatch(r"([1-9][0-9]{0,5})([mhd])", text.strip())
    if match is None:
        raise ConfigurationError(f"{option} {text!r} is no duration", remedy="write 30m, 6h or 7d")
    return int(match[1]) * UNITS_S[match[2]]


def dollars(nano_usd: int) -> str:
    """Nano-dollars as US dollars, exactly, to at least the cent."""
    exact = Decimal(nano_usd).scaleb(-9).normalize()
    return f"{exact:f}" if -exact.as_tuple().exponent > 2 else f"{exact:.2f}"  # type: ignore[operator]


def _time(epoch_s: int) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%d %H:%M")
