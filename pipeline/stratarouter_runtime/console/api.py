"""What the console's pages ask for. Every answer is bounded in rows and in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import orjson

from stratarouter_runtime import wire
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import ConfigurationError, InfrastructureError, RuntimeSystemError, in_general
from stratarouter_runtime.feedback import checked_key
from stratarouter_runtime.journal.reader import NEWEST, STATES, JournalReader, Place
from stratarouter_runtime.journal.usage import WINDOWS_S, UsageAccounts
from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.ledger import longest_s, reconcile
from stratarouter_runtime.processors.cache_control import ControlWriter
from stratarouter_runtime.processors.find_response import find_answer
from stratarouter_runtime.records import CacheCommand
from stratarouter_runtime.tools import cache_look, status
from stratarouter_runtime.tools import dead_letters as letters
from stratarouter_runtime.tools.hits import Hits, find_hits
from stratarouter_runtime.tools.ranges import parse_time
from stratarouter_runtime.usage_deltas import SUMS

FRESH_S = 1.5
"""A look at the lanes is shared by all who ask within this time."""
FIND_RESPONSE_S = 10.0
MAX_LETTERS = 200
MAX_WINDOWS = 400
MAX_GROUPS = 200
SETTLE_S = 60
"""Results younger than this need not be counted in the ledger yet."""
MINUTE_S = 60
MAX_LEDGER_S = 7 * 86_400
HIT = "hit"
SECRET_ANSWER = ("text", "tool_calls")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request's parameters: of its query, and of its body. ``texts``: its sender may see what was asked."""

    query: Mapping[str, str]
    body: Mapping[str, Any] = field(default_factory=dict)
    texts: bool = False

    def text(self, name: str) -> str | None:
        """A parameter of the query; None where it is not there or empty. Raises ConfigurationError for a NUL in it."""
        return _without_nul(name, self.query.get(name)) or None

    def required(self, name: str) -> str:
        """A parameter that must be there. Raises ConfigurationError."""
        found = self.body.get(name) if self.body else self.query.get(name)
        if not isinstance(found, str) or not found:
            raise ConfigurationError(f"{name} is missing", remedy=f"send {name} as text")
        _without_nul(name, found)
        return found

    def number(self, name: str, usual: int, most: int) -> int:
        """A number of the query, at least 1 and at most ``most``. Raises ConfigurationError."""
        text = self.query.get(name) or str(usual)
        if not text.isascii() or not text.isdigit():
            raise ConfigurationError(f"{name} = {text!r} is no number", remedy=f"send 1 to {most}")
        digits = text.lstrip("0")
        return most if len(digits) > len(str(most)) else max(1, min(int(digits or "0"), most))


def _without_nul(name: str, found: str | None) -> str | None:
    """``found``. Nothing that is searched for holds a NUL, and PostgreSQL refuses one as if it were away."""
    if found is not None and "\x00" in found:
        raise ConfigurationError(f"{name} holds a NUL character", remedy=f"send {name} without it")
    return found


class Sources:
    """Where the pages' data comes from, opened when it is first asked for."""

    def __init__(self, config: RuntimeConfig, live: Callable[[], dict[str, Any]] | None) -> None:
        self.config = config
        self.live = live
        self._reader: JournalReader | None = None
        self._accounts: UsageAccounts | None = None
        self._opening = asyncio.Lock()
        self._looking = asyncio.Lock()
        self._seen: tuple[float, dict[str, Any]] | None = None

    async def stop(self) -> None:
        """Close it. Idempotent."""
        reader, self._reader = self._reader, None
        accounts, self._accounts = self._accounts, None
        for opened in (reader, accounts):
            if opened is not None:
                await opened.stop()

    async def reader(self) -> JournalReader:
        """The journal. Raises ConfigurationError where it is in memory, JournalUnavailableError."""
        if self.config.state_backend != "postgresql":
            raise ConfigurationError(
                "the journal is in each worker's memory", remedy='set state_backend = "postgresql" to look into it'
            )
        async with self._opening:
            if self._reader is None:
                reader = JournalReader(self.config.database_url)
                await reader.start()
                self._reader = reader
        return self._reader

    async def accounts(self) -> UsageAccounts:
        """What was paid and saved. Raises JournalUnavailableError."""
        async with self._opening:
            if self._accounts is None:
                accounts = UsageAccounts(self.config.database_url)
                await accounts.start()
                self._accounts = accounts
        return self._accounts

    async def look(self) -> dict[str, Any]:
        """The lanes as they were at most FRESH_S ago. Raises BrokerError."""
        async with self._looking:
            if self._seen is None or time.monotonic() - self._seen[0] > FRESH_S:
                found = await status.look(self.config)
                said = asdict(found) | {"lag": found.lag, "at": time.time()}
                self._seen = (time.monotonic(), said | {"counts": await self._counts()})
            return self._seen[1]

    async def _counts(self) -> dict[str, int] | None:
        """Responses counted today (UTC) by kind, None where nobody knows: rates are made of them, as offsets count the
        markers of transactions too.
        """
        if self.config.state_backend != "postgresql":
            return None
        length = WINDOWS_S["day"]
        today = int(time.time()) // length * length
        try:
            rows = await (await self.accounts()).report(length, today, today + 1, [])
        except RuntimeSystemError:
            return None  # the look says what is wrong with the journal
        return rows[0] if rows else dict.fromkeys(SUMS, 0)


# -- pipeline --------------------------------------------------------------------------------------------------------


async def pipeline(sources: Sources, asked: Asked) -> dict[str, Any]:
    """Lanes, workers, and what this process knows of itself; ``broker`` says why there are no lanes."""
    del asked
    live = None if sources.live is None else sources.live()
    try:
        return await sources.look() | {"live": live, "broker": "ok"}
    except InfrastructureError as exc:
        return {
            "live": live,
            "broker": exc.message,
            "at": time.time(),
            "lanes": [],
            "lag": {},
            "workers": None,
            "counts": None,
        }


# -- requests --------------------------------------------------------------------------------------------------------


async def search(sources: Sources, asked: Asked) -> dict[str, Any]:
    """Rows of the journal, the newest first; ``next`` pages on. State ``hit``: the last answers out of the cache."""
    state = asked.text("state")
    if state == HIT:
        return await _hits(sources, asked)
    if state is not None and state not in STATES:
        raise ConfigurationError(f"state {state!r} is none of {', '.join((*STATES, HIT))}")
    before = _place(asked.text("before"))
    reader = await sources.reader()
    limit = asked.number("limit", 50, 200)
    rows = await reader.search(
        tenant=asked.text("tenant"),
        route=asked.text("route"),
        state=state,
        prefix=asked.text("id"),
        before=before,
        limit=limit,
    )
    last = rows[-1] if len(rows) == limit else {}
    following = None
    if last.get("finished_at") is not None:
        following = json_bytes([last["finished_at"].isoformat(), last["tenant"], last["request_id"]]).decode()
    return {"rows": rows, "next": following}


def _place(before: str | None) -> Place:
    """Where a page ended, as ``next`` says it; a time alone: what was finished before. Raises ConfigurationError."""
    if before is None:
        return NEWEST
    try:
        at, tenant, request_id = orjson.loads(before) if before.startswith("[") else (before, "", "")
        found = datetime.fromisoformat(at), str(tenant), str(request_id)
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(f"before = {before!r} is no time, and no place where a page ended") from exc
    _without_nul("before", found[1] + found[2])
    return found


async def _hits(sources: Sources, asked: Asked) -> dict[str, Any]:
    wish = Hits(asked.text("id") or "", asked.text("tenant"), asked.text("route"))
    rows, searched = await find_hits(sources.config, wish, asked.number("limit", 50, 200))
    return {"rows": rows, "searched": searched, "next": None}


async def execution(sources: Sources, asked: Asked) -> dict[str, Any]:
    """One request's story: the journal's row and the response, without what was asked and answered. An error may quote
    that, and who may not see it is told what its code means.
    """
    found = await _story(sources, asked)
    journal, response = found["journal"] or {}, found["response"] or {}
    for part in (response, journal.get("answer") or {}):
        for name in SECRET_ANSWER:
            part.pop(name, None)
    for error in (response.get("error"), journal.get("error")):
        if error is not None and not asked.texts:
            error["message"], error["remedy"] = in_general(error["code"])
    return found


async def execution_text(sources: Sources, asked: Asked) -> dict[str, Any]:
    """What was answered."""
    found = await _story(sources, asked)
    source = found["response"] or (found["journal"] or {}).get("answer") or {}
    return {name: source.get(name) for name in SECRET_ANSWER}


async def _story(sources: Sources, asked: Asked) -> dict[str, Any]:
    request_id, tenant = asked.required("id"), asked.text("tenant")
    row, problems = None, []
    followers: list[dict[str, Any]] = []
    try:
        reader = await sources.reader()
        tenants = [tenant] if tenant is not None else await reader.tenants_of(request_id)
        if tenants:
            row = await reader.row(tenants[0], request_id)
        if row is not None:
            followers = await reader.followers(row["tenant"], request_id)
    except (InfrastructureError, ConfigurationError) as exc:
        problems.append(exc.message)
    response = trace_id = None
    try:
        whose = tenant or (None if row is None else row["tenant"])
        found = await find_answer(sources.config, request_id, whose, timeout_s=FIND_RESPONSE_S)
        if found is not None:
            response = _plain(found[0])
            # version-trace-parent-flags, as W3C has it
            trace_id = None if found[1] is None else found[1].split("-")[1]
    except InfrastructureError as exc:
        problems.append(exc.message)
    if row is None and response is None and not problems:
        raise ConfigurationError(
            f"nobody knows a request {request_id!r}", remedy="it may be older than what journal and topics keep"
        )
    return {
        "journal": row,
        "response": response,
        "trace_id": trace_id,
        "followers": followers,
        "problems": problems,
    }


def _plain(response: Any) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(wire.encode_response(response))
    return found


# -- dead letters ----------------------------------------------------------------------------------------------------


async def dead_letters(sources: Sources, asked: Asked) -> dict[str, Any]:
    """The newest letters of the last hours, without the records in them. Reasons show parts of these: they are for who
    may see texts, and others are told what the code means.
    """
    wish = letters.Wish(code=asked.text("code"), request_id=asked.text("id"))
    since_ms = int((time.time() - asked.number("hours", 24, 24 * 31) * 3600) * 1000)
    limit = asked.number("limit", 50, MAX_LETTERS)
    listing = await letters.DeadLetters(sources.config).find(wish, since_ms=since_ms, limit=limit)
    shown = [found.summary() if asked.texts else found.outline() for found in reversed(listing.letters)]
    return {"letters": shown, "matched": listing.matched}


async def dead_letter_record(sources: Sources, asked: Asked) -> dict[str, Any]:
    """One letter with its record."""
    return (await _one_letter(sources, asked)).whole()


async def resend(sources: Sources, asked: Asked) -> dict[str, Any]:
    """Send one letter's request again, with the fields in ``set``."""
    changes = asked.body.get("set", {})
    if not isinstance(changes, dict):
        raise ConfigurationError("set is no object", remedy='send {"set": {"decision.route_id": "billing"}}')
    found = await _one_letter(sources, asked)
    mended = [(tuple(str(path).split(".")), value) for path, value in changes.items()]
    [outcome] = await letters.DeadLetters(sources.config).resend(
        [found], changes=mended, force=asked.body.get("force") is True
    )
    return {"state": outcome.state, "reason": outcome.reason}


async def _one_letter(sources: Sources, asked: Asked) -> letters.Found:
    address = asked.required("letter")
    listing = await letters.DeadLetters(sources.config).find(
        letters.Wish(), wanted=[letters.parse_address(address)], limit=1
    )
    if not listing.letters:
        raise ConfigurationError(f"there is no dead letter at {address}")
    return listing.letters[0]


# -- cache -----------------------------------------------------------------------------------------------------------


async def cache(sources: Sources, asked: Asked) -> dict[str, Any]:
    """How much is kept, by tenant and route; in memory only workers know."""
    del asked
    config = sources.config
    settings = {
        "backend": config.cache_backend,
        "enabled": config.cache_enabled,
        "threshold": config.cache_similarity_threshold,
        "guard": config.cache_guard,
        "ttl_s": config.cache_ttl,
    }
    kept = await cache_look.count(config) if config.cache_enabled and config.cache_backend == "redis" else None
    return {"settings": settings, "kept": kept, "live": None if sources.live is None else sources.live().get("cache")}


async def cache_find(sources: Sources, asked: Asked) -> dict[str, Any]:
    """Entries in Redis whose question holds the words."""
    words, tenant = (asked.text("words") or "").casefold(), asked.text("tenant")

    def fits(kept: Any) -> bool:
        return words in kept.text.casefold() and tenant in {None, *cache_look.values(kept, "tenant")}

    found = await cache_look.search(sources.config, fits, asked.number("limit", 20, 100))
    return {"entries": [cache_look.shown(kept, answers=False) for kept in found]}


async def cache_explain(sources: Sources, asked: Asked) -> dict[str, Any]:
    """What would happen to a question, were another one's answer kept."""
    route, tenant = str(asked.body.get("route") or "default"), str(asked.body.get("tenant") or "default")
    both = [
        cache_look.question(sources.config, asked.required(name), route, tenant, None) for name in ("asked", "stored")
    ]
    return await cache_look.judge(sources.config, *both)


async def cache_invalidate(sources: Sources, asked: Asked) -> dict[str, Any]:
    """Take one entry, a tag, a route, a tenant or everything back, on every worker."""
    names = ("key", "tag", "route_id", "tenant", "request_id")
    named = {name: asked.required(name) for name in names if asked.body.get(name)}
    if "key" in named:
        checked_key(named["key"], "key")
    command = CacheCommand(
        "invalidate",
        by=str(asked.body.get("by") or "console"),
        reason=asked.required("reason"),
        at_ms=int(time.time() * 1000),
        everything=asked.body.get("everything") is True,
        **named,  # type: ignore[arg-type]  # the names are those of text fields
    )
    writer = ControlWriter(sources.config)
    try:
        return {"offset": await writer.send(command)}
    finally:
        await writer.stop()


# -- money -----------------------------------------------------------------------------------------------------------


async def money(sources: Sources, asked: Asked) -> dict[str, Any]:
    """What was paid and saved by window, and over all of them by ``by`` (tenant, route, model): the ``MAX_GROUPS`` that
    paid the most, ``more`` where there are others.
    """
    window = asked.text("window") or "hour"
    if window not in WINDOWS_S:
        raise ConfigurationError(f"window {window!r} is none of {', '.join(WINDOWS_S)}")
    by = [name for name in (asked.text("by") or "").split(",") if name in {"tenant", "route", "model"}]
    length = WINDOWS_S[window]
    since_s = parse_time(asked.text("since") or "1d", "since") // 1000
    since_s = max(since_s - since_s % length, int(time.time()) - MAX_WINDOWS * length)
    accounts = await sources.accounts()
    until_s = int(time.time()) + length
    windows = await accounts.report(length, since_s, until_s, [])
    groups = await accounts.largest(length, since_s, until_s, by, MAX_GROUPS + 1) if by else []
    return {
        "window_s": length,
        "since": since_s,
        "until": until_s,
        "windows": windows,
        "groups": groups[:MAX_GROUPS],
        "more": len(groups) > MAX_GROUPS,
    }


async def ledger(sources: Sources, asked: Asked) -> list[dict[str, Any]]:
    """Each tenant's account held against the journal, over the last day or so, as far as results are kept."""
    now = int(time.time())
    longest = min(MAX_LEDGER_S, longest_s(sources.config.journal_retention_s))
    since_s = max(parse_time(asked.text("since") or "1d", "since") // 1000, now - longest)
    accounts = await sources.accounts()
    found = await accounts.ledger(since_s - since_s % MINUTE_S, now + 2 * MINUTE_S, now - SETTLE_S)
    return [
        {
            "tenant": line.tenant,
            "calls": line.calls,
            "nano_usd": line.nano_usd,
            "calls_without": line.calls_without,
            "nano_without": line.nano_without,
            "differences": line.differences,
        }
        for line in reconcile(found)
    ]
