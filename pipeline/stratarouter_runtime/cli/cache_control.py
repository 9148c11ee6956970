"""``cache invalidate``, ``correct`` and ``mark-wrong``: commands for every worker, by the cache-control topic."""

from __future__ import annotations

import getpass
import time
from collections.abc import Sequence
from pathlib import Path

import typer

from stratarouter_runtime.cli.common import ConfigOption, configure, plain_console, run
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import BrokerError, InvalidRecordError
from stratarouter_runtime.feedback import checked_key, command, served_from, wrong_answer
from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.records import CacheCommand, Response

WORKER_POLL_S = 0.2
POSITION = "stratarouter_cache_control_position"
LOOK_TIMEOUT_S = 5.0
"""For one look at a worker's metrics."""

BootstrapOption = typer.Option(None, help="Kafka's bootstrap servers.")
ReasonOption = typer.Option(..., help="Why; it stands in the audit.")
ByOption = typer.Option(None, help="Who asks for it; by default the user of this shell.")
WaitOption = typer.Option(
    None, "--wait", help="A worker's HTTP address (http://127.0.0.1:9090) to wait for; may be given several times."
)
TimeoutOption = typer.Option(60.0, min=0.0, help="Seconds to wait for the workers, those that are down too.")
JsonOption = typer.Option(False, "--json", help="Print the result as JSON.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(invalidate)
    app.command()(correct)
    app.command(name="mark-wrong")(mark_wrong)


def invalidate(
    config: Path | None = ConfigOption,
    key: str | None = typer.Option(None, help="An entry's key: cache.key of a response."),
    request_id: str | None = typer.Option(None, help="The request whose answer is kept (with --tenant)."),
    tag: str | None = typer.Option(None, help="What answers were tagged with."),
    route: str | None = typer.Option(None, help="A route id."),
    tenant: str | None = typer.Option(None, help="A tenant."),
    everything: bool = typer.Option(False, "--everything", help="All answers of all tenants."),
    reason: str = ReasonOption,
    by: str | None = ByOption,
    bootstrap_servers: str | None = BootstrapOption,
    wait: list[str] | None = WaitOption,
    timeout_s: float = TimeoutOption,
    as_json: bool = JsonOption,
) -> None:
    """Serve no kept answer any more that is named: by one of key, request id, tag, route, tenant, everything."""
    _check_keys(key=key)
    named = {"key": key, "request_id": request_id, "tag": tag, "route_id": route, "tenant": tenant}
    wanted = command("invalidate", _who(by), reason, everything=everything, **named)
    _carry_out(configure(config, bootstrap_servers=bootstrap_servers), wanted, wait or [], timeout_s, as_json=as_json)


def correct(
    text: str = typer.Argument(help="The right answer."),
    config: Path | None = ConfigOption,
    key: str | None = typer.Option(None, help="The key of the question: cache.key of its response."),
    request_id: str | None = typer.Option(None, help="A request that asked it; its response is looked up."),
    tenant: str | None = typer.Option(None, help="Whose request it was."),
    ttl: int | None = typer.Option(None, min=1, help="Seconds to serve it for; by default cache_ttl."),
    reason: str = ReasonOption,
    by: str | None = ByOption,
    bootstrap_servers: str | None = BootstrapOption,
    wait: list[str] | None = WaitOption,
    timeout_s: float = TimeoutOption,
    as_json: bool = JsonOption,
) -> None:
    """Serve a text in place of the answer that is kept."""
    settings = configure(config, bootstrap_servers=bootstrap_servers)
    if key is not None and request_id is not None:
        raise InvalidRecordError("--key and --request-id both say which answer", remedy="give one of them")
    _check_keys(key=key)
    route_id = None
    if key is None:
        response = _response(settings, request_id, tenant)
        key, tenant, route_id = served_from(response)[0], response.tenant, response.route_id or None
    wanted = command("correct", _who(by), reason, key=key, tenant=tenant, route_id=route_id, text=text, ttl=ttl)
    _carry_out(settings, wanted, wait or [], timeout_s, as_json=as_json)


def mark_wrong(
    config: Path | None = ConfigOption,
    request_id: str | None = typer.Option(
        None, help="The request that was answered wrongly; its response is looked up."
    ),
    tenant: str | None = typer.Option(None, help="Whose request it was."),
    key: str | None = typer.Option(None, help="The key of the question: cache.key of its response."),
    answered_by: str | None = typer.Option(None, help="The key of the entry that answered, where it is another one."),
    reason: str = ReasonOption,
    by: str | None = ByOption,
    bootstrap_servers: str | None = BootstrapOption,
    wait: list[str] | None = WaitOption,
    timeout_s: float = TimeoutOption,
    as_json: bool = JsonOption,
) -> None:
    """Say that an answer was wrong: it goes, and the question is never answered from that entry again."""
    settings = configure(config, bootstrap_servers=bootstrap_servers)
    _check_keys(key=key, answered_by=answered_by)
    if key is None:
        wanted = wrong_answer(_response(settings, request_id, tenant), _who(by), reason)
    else:
        wanted = command(
            "mark_wrong", _who(by), reason, key=key, answered_by=answered_by, request_id=request_id, tenant=tenant
        )
    _carry_out(settings, wanted, wait or [], timeout_s, as_json=as_json)


def _check_keys(**keys: str | None) -> None:
    """Raises InvalidRecordError for what no answer can be kept under."""
    for name, key in keys.items():
        if key is not None:
            checked_key(key, f"--{name.replace('_', '-')}")


def _who(by: str | None) -> str:
    if by is not None:
        return by
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "operator"


def _response(settings: RuntimeConfig, request_id: str | None, tenant: str | None) -> Response:
    from stratarouter_runtime.processors.find_response import find_response

    if request_id is None:
        raise InvalidRecordError("neither --key nor --request-id says which answer", remedy="give one of them")
    response = run(find_response(settings, request_id, tenant))
    if response is None:
        topic = settings.topic(settings.responses_topic)
        raise InvalidRecordError(
            f"no response to {request_id!r} stands on topic {topic}", remedy="give --key (cache.key of its response)"
        )
    return response


def _carry_out(
    settings: RuntimeConfig, wanted: CacheCommand, workers: list[str], timeout_s: float, *, as_json: bool
) -> None:
    for worker in workers:
        _check_address(worker)
    offset = run(_send(settings, wanted))
    console = plain_console()
    if not as_json:
        topic = settings.topic(settings.cache_control_topic)
        console.print(f"{wanted.action}: written to {topic} at offset {offset}", markup=False, highlight=False)
    late = run(_wait_for(workers, offset, timeout_s))
    applied = [worker for worker in workers if worker not in late]
    if as_json:
        typer.echo(json_bytes({"offset": offset, "applied_by": applied, "command": wanted}))
    elif applied:
        console.print(f"applied by {', '.join(applied)}", markup=False, highlight=False)
    if late:
        why = "; ".join(f"{worker} {said}" for worker, said in late.items())
        raise BrokerError(
            f"offset {offset} is written, and not applied everywhere within {timeout_s:g} s: {why}",
            remedy="a worker applies it as soon as it reaches the topic, and before it serves; look at its log",
        )


def _check_address(worker: str) -> None:
    """Raises InvalidRecordError: before anything is written, as nobody could be waited for then."""
    import httpx

    try:
        url = httpx.URL(worker)
        known = url.scheme in {"http", "https"} and bool(url.host)
    except httpx.InvalidURL:
        known = False
    if not known:
        raise InvalidRecordError(
            f"--wait {worker!r} is no HTTP address; nothing was written", remedy="write http://HOST:PORT"
        )


async def _send(settings: RuntimeConfig, wanted: CacheCommand) -> int:
    from stratarouter_runtime.processors.cache_control import ControlWriter

    writer = ControlWriter(settings)
    try:
        return await writer.send(wanted)
    finally:
        await writer.stop()


async def _wait_for(workers: Sequence[str], offset: int, timeout_s: float) -> dict[str, str]:
    """Until ``workers`` have applied ``offset``; those that had not within ``timeout_s`` seconds, and why."""
    import asyncio

    deadline = time.monotonic() + timeout_s
    found = await asyncio.gather(*(_is_late(worker, offset, deadline) for worker in workers))
    return {worker: said for worker, said in zip(workers, found, strict=True) if said is not None}


async def _is_late(worker: str, offset: int, deadline: float) -> str | None:
    """None as soon as ``worker`` has applied ``offset``; past ``deadline``, why it has not. It may be starting."""
    import asyncio

    while True:
        try:
            position = (await samples(worker)).get(POSITION, -1.0)
        except BrokerError as exc:
            said = f"gives no metrics ({exc.__cause__!r})"
        else:
            if position >= offset:
                return None
            said = f"is at {position:g}"
        if time.monotonic() >= deadline:
            return said
        await asyncio.sleep(min(WORKER_POLL_S, max(0.0, deadline - time.monotonic())))


async def samples(worker: str) -> dict[str, float]:
    """What a worker's ``/metrics`` says, by name and labels. Raises BrokerError where it is away."""
    import httpx
    from prometheus_client.parser import text_string_to_metric_families

    try:
        async with httpx.AsyncClient(timeout=LOOK_TIMEOUT_S) as client:
            reply = await client.get(f"{worker.rstrip('/')}/metrics")
            reply.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise BrokerError(
            f"{worker} gives no metrics: {exc!r}", remedy="give a worker's address (http_host, prometheus_port)"
        ) from exc
    found = {}
    for family in text_string_to_metric_families(reply.text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = float(sample.value)
    return found
