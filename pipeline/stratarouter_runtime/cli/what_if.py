"""``what-if`` shows what a range of requests would have come to under other settings."""

from __future__ import annotations

from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from stratarouter_runtime.cli.common import ConfigOption, configure, run, wide_console
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import ConfigurationError
from stratarouter_runtime.json_bytes import json_bytes

if TYPE_CHECKING:
    from stratarouter_runtime.tools.what_if import Report
    from stratarouter_runtime.tools.what_if_model import Kind, Sums

COLUMNS = ("was", "modelled", "what if")
KINDS: tuple[Kind, ...] = ("exact", "semantic", "coalesced", "replayed", "paid", "refused")
SHOWN_CHARS = 100
BELOW: dict[str, Any] = {"fontsize": "small", "loc": "upper center", "bbox_to_anchor": (0.5, -0.08), "ncols": 3}
"""A legend that covers no bar."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("what-if")(what_if)


def _settings(incomplete: str) -> list[str]:
    from stratarouter_runtime.tools.what_if import SETTINGS

    return [f"{name}=" for name in SETTINGS if name.startswith(incomplete)]


def what_if(
    config: Path | None = ConfigOption,
    changes: list[str] = typer.Option(
        [], "--set", help="NAME=VALUE: cache_ttl=60, routes.billing.targets=openai/m.", autocompletion=_settings
    ),
    since: str = typer.Option("1d", "--from", help="From this time on: RFC 3339, or 30m, 6h, 7d ago."),
    until: str | None = typer.Option(None, "--to", help="To before this time, written likewise."),
    warm: str | None = typer.Option(None, help="Fill the caches with requests from this time on first."),
    routes_file: Path | None = typer.Option(None, help="The route table (TOML) as it is."),
    bootstrap_servers: str | None = typer.Option(None, help="Kafka's bootstrap servers."),
    png: Path | None = typer.Option(None, help="Draw it into this image (needs matplotlib)."),
    *,
    embed: bool = typer.Option(False, "--embed", help="Embed requests without a vector (the configured embedder)."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Show hits, calls and money of a range as they were, and as they would have been. Pays for nothing."""
    from stratarouter_runtime.tools.dead_letters import parse_change
    from stratarouter_runtime.tools.what_if import with_settings

    if png is not None and find_spec("matplotlib") is None:
        raise ConfigurationError("--png needs matplotlib, which is not installed", remedy="pip install matplotlib")
    settings = configure(config, bootstrap_servers=bootstrap_servers, routes_file=routes_file)
    wanted = {".".join(names): value for names, value in map(parse_change, changes)}
    if not wanted:
        raise ConfigurationError("nothing to change", remedy="give --set NAME=VALUE")
    changed = with_settings(settings, wanted)
    report = run(_compare(settings, changed, (warm, since, until), embed=embed))
    if png is not None:
        _draw(report, wanted, png)
    if as_json:
        typer.echo(json_bytes(_as_dict(report) | {"set": wanted}, default=str).decode())
    else:
        _print(report, wanted)


async def _compare(
    settings: RuntimeConfig, changed: Any, times: tuple[str | None, str, str | None], *, embed: bool
) -> Report:
    from stratarouter_runtime.embedders import create_embedder
    from stratarouter_runtime.tools.ranges import parse_time
    from stratarouter_runtime.tools.replay import find_spans
    from stratarouter_runtime.tools.what_if import compare

    warm, since, until = times
    since_ms = parse_time(since, "--from")
    until_ms = None if until is None else parse_time(until, "--to")
    before = [] if warm is None else await find_spans(settings, [], parse_time(warm, "--warm"), since_ms)
    spans = await find_spans(settings, [], since_ms, until_ms)
    if not spans:
        raise ConfigurationError("the requests topic holds nothing of that range")
    embedder = create_embedder(settings) if embed else None
    if embed and embedder is None:
        raise ConfigurationError("--embed needs an embedder", remedy='set embedder = "local" or "openai"')
    console = Console(stderr=True, emoji=False)
    columns = TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        bar = progress.add_task("reading")
        if embedder is not None:
            await embedder.start()
        try:
            return await compare(
                settings,
                changed,
                spans,
                warm=before,
                embedder=embedder,
                heard=lambda what, done: progress.update(bar, description=f"{what}: {done}"),
            )
        finally:
            if embedder is not None:
                await embedder.stop()


def _sums(sums: Sums) -> dict[str, Any]:
    return {
        "requests": sums.requests,
        **{kind: sums.kinds[kind] for kind in KINDS},
        "paid_usd": round(sum(sums.paid_usd.values()), 9),
        "saved_usd": round(sums.saved_usd, 9),
        "unpriced": sums.unpriced,
        "calls_by_model": dict(sums.calls),
        "paid_usd_by_model": {name: round(usd, 9) for name, usd in sums.paid_usd.items()},
    }


def _as_dict(report: Report) -> dict[str, Any]:
    return {
        "was": _sums(report.was),
        "modelled": _sums(report.modelled),
        "what_if": _sums(report.what_if),
        "new_pairs": report.new_pairs,
        "risks": [asdict(risk.pair) | {"times": risk.times} for risk in report.risks],
        "unknown": report.unknown,
        "without_vector": report.without_vector,
        "refused": report.refused,
    }


def _print(report: Report, changes: dict[str, Any]) -> None:
    said = _as_dict(report)
    worlds = [said["was"], said["modelled"], said["what_if"]]
    table = Table("", *COLUMNS, title=escape(", ".join(f"{name} = {value}" for name, value in changes.items())))
    for name in ("requests", *KINDS, "unpriced"):
        table.add_row(name, *(str(world[name]) for world in worlds))
    for name in ("paid_usd", "saved_usd"):
        table.add_row(name, *(f"{world[name]:.6f}" for world in worlds))
    for model in sorted({model for world in worlds for model in world["calls_by_model"]}):
        cells = (
            f"{world['calls_by_model'].get(model, 0)} calls, {world['paid_usd_by_model'].get(model, 0.0):.6f}"
            for world in worlds
        )
        table.add_row(escape(model), *cells)
    console = wide_console()
    console.print(table)
    if report.unknown:
        console.print(f"{report.unknown} requests have no known response: they are in no sum of what was")
    if report.without_vector:
        console.print(f"{report.without_vector} requests have no vector: judged by their words alone (--embed)")
    console.print(f"{report.new_pairs} pairs of questions would newly share an answer; judge these:")
    for risk in report.risks:
        asked, answered = (text[:SHOWN_CHARS] for text in (risk.pair.asked, risk.pair.answered))
        console.print(f"  {risk.times} x {risk.pair.similarity:.3f}  {asked!r} <- {answered!r}", markup=False)


def _draw(report: Report, changes: dict[str, Any], path: Path) -> None:
    figure = import_module("matplotlib.figure").Figure(figsize=(9, 4), layout="constrained")
    said = _as_dict(report)
    worlds = [said["was"], said["modelled"], said["what_if"]]
    kinds, money = figure.subplots(1, 2)
    bottom = [0.0] * len(worlds)
    for kind in KINDS:
        heights = [world[kind] for world in worlds]
        kinds.bar(COLUMNS, heights, bottom=bottom, label=kind)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    kinds.set_ylabel("requests")
    kinds.legend(**BELOW)
    bottom = [0.0] * len(worlds)
    for model in sorted({model for world in worlds for model in world["paid_usd_by_model"]}):
        heights = [world["paid_usd_by_model"].get(model, 0.0) for world in worlds]
        money.bar(COLUMNS, heights, bottom=bottom, label=model)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    money.set_ylabel("US dollars paid")
    money.legend(**BELOW)
    figure.suptitle(", ".join(f"{name} = {value}" for name, value in changes.items()), fontsize="medium")
    try:
        figure.savefig(path, dpi=120)
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be written: {exc}", remedy="give a writable path to a .png") from exc
