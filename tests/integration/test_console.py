"""The console in a real browser, over a worker that has answered, coalesced, failed and refused."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx
import pytest

from stratarouter_runtime import topics
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.console import api
from stratarouter_runtime.console.api import MAX_GROUPS, Asked, Sources
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.testing.simulator import FaultRule, Simulator, SimulatorSettings
from stratarouter_runtime.usage_deltas import SUMS
from support.browser import Browser, find_browser
from support.fleet import Watch, WorkerProcess, produce, request, write_routes

pytestmark = [pytest.mark.stack]

TOKEN = "a token of the test"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"
WIDE, PHONE = (1280, 900), (390, 844)


@dataclass
class Served:
    """A worker whose console is asked, and what it has answered."""

    url: str
    watch: Watch
    run: str
    config: RuntimeConfig


@pytest.fixture
async def served(config: RuntimeConfig, tmp_path: Path) -> AsyncIterator[Served]:
    await topics.apply(config)
    await migrate(config.database_url)
    settings = SimulatorSettings(latency_ms=300, faults=(FaultRule("status", status=400, first=1),))
    async with Simulator(settings) as simulator, Watch(config) as watch:
        routes = write_routes(tmp_path / "routes.toml", simulator.base_url)
        worker = WorkerProcess(
            config,
            routes,
            tmp_path / "worker.log",
            processors="enrich,execute,usage",
            extra={"STRATAROUTER_CONSOLE_TOKEN": TOKEN, "STRATAROUTER_CACHE_BACKEND": "redis"},
        )
        await worker.start()
        run = config.group_id  # the Redis is shared by all tests
        trace = ("traceparent", b"00-" + TRACE.encode() + b"-00f067aa0ba902b7-01")
        await produce(config, [request("fails", f"the provider refuses this one {run}")], headers=[trace])
        await watch.until(1, 60)
        # The same words at once: one leads, the others follow; then the same again, out of the cache.
        await produce(config, [request(f"same-{n}", f"asked by three at once {run}") for n in range(3)])
        await produce(config, [request(f"own-{n}", f"question {n} {run} {HOSTILE}", tenant="globex") for n in range(4)])
        await watch.until(8, 60)
        await produce(
            config, [request("hit", f"asked by three at once {run}"), request("lost", HOSTILE, route="nowhere")]
        )
        await watch.until(10, 60)
        assert len(watch.seen.responses) == 9
        yield Served(f"http://127.0.0.1:{worker.port}", watch, run, config)
        assert await worker.stop() == 0


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A tab without any problem at its end."""
    path = find_browser()
    if path is None:
        pytest.skip("no chromium is installed (apt-get install chromium)")
    async with Browser(path) as tab:
        await tab.size(*WIDE)
        yield tab
        assert tab.problems == []


def _folder(tmp_path: Path) -> Path:
    """Where pictures go: kept where CONSOLE_PICTURES names a folder."""
    folder = Path(os.environ.get("CONSOLE_PICTURES", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


async def _pictures(browser: Browser, folder: Path, name: str) -> None:
    """In both schemes, where every text can be read, and at a phone's width, where nothing stands out of the page."""
    for scheme in ("light", "dark"):
        await browser.scheme(scheme)
        assert await browser.faint_texts() == [], (name, scheme)
        image = await browser.picture(folder / f"{name}-{scheme}.png")
        assert image.startswith(b"\x89PNG")
    await browser.size(*PHONE, scale=2.0)
    await browser.until("innerWidth === 390")
    assert await browser.run("document.documentElement.scrollWidth") <= PHONE[0]
    await browser.picture(folder / f"{name}-phone.png")
    await browser.size(*WIDE)


async def _open(browser: Browser, served: Served, page: str) -> None:
    await browser.go(f"{served.url}/#/{page}")
    await browser.until("!document.querySelector('main').innerText.includes('reading ...')")


async def test_pipeline_and_requests(served: Served, browser: Browser, tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    await _open(browser, served, "pipeline")
    await browser.until("document.querySelector('svg.pipeline') && document.body.innerText.includes('ready')")
    assert await browser.run("document.querySelectorAll('tbody tr').length") >= 20
    assert await browser.run(
        "[...document.querySelectorAll('td .pill.good')].filter((e) => e.textContent === 'running').length"
    )
    # Rates are there from the second look on: of offsets, and of responses as they are counted.
    await browser.until("/\\d\\/s in/.test(document.querySelector('svg.pipeline').textContent)")
    await browser.until("/\\d\\/s out/.test(document.querySelector('svg.pipeline').textContent)")
    await _pictures(browser, folder, "pipeline")

    await _open(browser, served, "requests")
    await browser.shows("own-3")
    await browser.shows("failed")
    await _pictures(browser, folder, "requests")
    await browser.fill("input[name=tenant]", "globex")
    await browser.click("main form button")
    await browser.until("document.body.innerText.includes('own-3') && !document.body.innerText.includes('same-0')")

    await browser.click("tbody tr.opens")
    await browser.shows("Story")
    await browser.shows("Call 1")
    await browser.shows("nothing like it was kept")
    await _pictures(browser, folder, "execution")
    # Hits are in no journal, and found in the responses.
    await _open(browser, served, "requests?state=hit&tenant=acme")
    await browser.shows("Among the last")
    assert await browser.run("[...document.querySelectorAll('tbody a.row')].some((e) => e.textContent === 'hit')")
    await _open(browser, served, "requests?id=nosuch")
    await browser.shows("open nosuch as a whole id")
    await _open(browser, served, "execution?id=hit")
    await browser.until("/exact\\s+hit at similarity 1/.test(document.body.innerText)")
    await _open(browser, served, "execution?id=fails&tenant=acme")
    await browser.shows("provider_rejected")
    await browser.shows(TRACE)
    followers = [r.request_id for r in served.watch.seen.responses if r.batch.role == "follower"]
    if followers:  # they may have met the finished call's entry instead
        await _open(browser, served, f"execution?id={followers[0]}&tenant=acme")
        await browser.shows("one call for both")
    await _open(browser, served, "execution?id=nobody")
    await browser.shows("nobody knows a request")
    browser.problems.clear()  # that was a 400, which the browser's log calls an error


async def test_dead_letters_are_sent_again_with_the_token_only(
    served: Served, browser: Browser, tmp_path: Path
) -> None:
    folder = _folder(tmp_path)
    await _open(browser, served, "dead-letters")
    await browser.shows("unknown_route")
    await _pictures(browser, folder, "dead-letters")
    await browser.click("tbody tr.opens")
    await browser.shows("needs the console's token")
    browser.problems.clear()  # the refusal
    await browser.click("#token")
    await browser.fill("dialog input", TOKEN)
    await browser.click("dialog button.primary")
    # The record's hostile text is text.
    await browser.shows(HOSTILE.split("<script>", maxsplit=1)[0])
    assert await browser.run("document.querySelectorAll('main img, main script').length") == 0
    await _pictures(browser, folder, "dead-letter")
    await browser.fill("input[name=path]", "decision.route_id")
    await browser.fill("input[name=value]", "support")
    await browser.click("main form button.primary")
    await browser.until("document.querySelector('#notice').textContent === 'sent again'")
    await served.watch.until(11, 60)
    assert served.watch.seen.by_id["lost"] == 1
    await browser.click("main form button.primary")
    await browser.until("document.querySelector('#notice').textContent.startsWith('before')")


async def test_cache_and_money(served: Served, browser: Browser, tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    await browser.go(served.url)
    await browser.run(f"sessionStorage.setItem('token', {TOKEN!r})")
    await _open(browser, served, "cache")
    await browser.shows("What would happen?")
    await browser.fill("input[name=asked]", "Turn the alarm on")
    await browser.fill("input[name=stored]", "Turn the alarm off")
    await browser.fill("input[name=route]", "support")
    await browser.click("main form button.primary")
    await browser.until("/miss\\s+because/.test(document.body.innerText)")
    await browser.shows("guard:")
    await browser.fill("input[name=words]", served.run)
    await browser.run("[...document.querySelectorAll('main form')][1].requestSubmit()")
    await browser.until("document.querySelector('td button.small') !== null")
    await browser.shows(f"asked by three at once {served.run}")
    await _pictures(browser, folder, "cache")
    await browser.fill("select[name=kind]", "tenant")
    await browser.fill("input[name=name]", "globex")
    await browser.fill("input[name=reason]", "the test takes them back")
    await browser.run("[...document.querySelectorAll('main form')][2].requestSubmit()")
    await browser.until("document.querySelector('#notice').textContent.includes('taken back by every worker')")

    await _counted(served)
    await _open(browser, served, "money")
    await browser.until("document.querySelector('svg.chart rect') !== null")
    await browser.shows("of the money not spent")
    await browser.click("main section p > button")
    await browser.shows("calls without the runtime")
    await _pictures(browser, folder, "money")


async def _counted(served: Served) -> None:
    """Until the accounts hold every response."""
    async with httpx.AsyncClient(base_url=served.url, timeout=60) as client, asyncio.timeout(90):
        while sum(row["requests"] for row in (await client.get("/api/money")).json()["windows"]) < 9:
            await asyncio.sleep(0.5)


@pytest.mark.parametrize(("tenants", "shown"), [(MAX_GROUPS, MAX_GROUPS), (MAX_GROUPS + 30, MAX_GROUPS)])
async def test_the_money_page_has_the_tenants_that_paid_the_most(
    config: RuntimeConfig, tenants: int, shown: int
) -> None:
    """It had a row for each window, tenant and model: 120,000 of them stopped the worker's loop for seconds."""
    await migrate(config.database_url)
    start = int(time.time()) // 60 * 60
    sums = ", ".join("$3::bigint" if name == "paid_nano" else "1" for name in SUMS)
    connection = await asyncpg.connect(config.database_url)
    try:
        await connection.executemany(
            f"INSERT INTO usage_windows (window_s, start, tenant, route, model, {', '.join(SUMS)}) "
            f"VALUES (60, $1, $2, 'r', 'm', {sums})",
            [(start - 60 * ago, f"t{number:03}", number) for number in range(tenants) for ago in range(3)],
        )
    finally:
        await connection.close()
    sources = Sources(config, None)
    try:
        found = await api.money(sources, Asked({"window": "minute", "since": "1h", "by": "tenant"}))
    finally:
        await sources.stop()
    assert [(row["tenant"], row["paid_nano"], row["requests"]) for row in found["groups"]] == [
        (f"t{number:03}", 3 * number, 3) for number in reversed(range(tenants - shown, tenants))
    ]
    assert found["more"] is (tenants > shown)
    assert [row["requests"] for row in found["windows"]] == [tenants] * 3


async def test_keys_themes_and_focus(served: Served, browser: Browser, tmp_path: Path) -> None:
    await _open(browser, served, "pipeline")
    await browser.press("g", "r")
    await browser.until("location.hash === '#/requests'")
    await browser.shows("own-3")
    await browser.press("j", "j", "k")
    assert await browser.run("document.activeElement === document.querySelector('tbody a.row')")
    await browser.press("Enter")
    await browser.until("location.hash.startsWith('#/execution')")
    await browser.shows("Story")
    await browser.press("/")
    await browser.until("document.activeElement.matches('input[data-search]')")
    await browser.press("x")
    assert await browser.run("document.activeElement.value") == "x"
    await browser.run("document.activeElement.blur()")
    for expected in ("dark", "light"):
        await browser.press("t")
        await browser.until(f"document.documentElement.dataset.theme === '{expected}'")
    await browser.press("?")
    await browser.until("document.querySelector('dialog').open")
    await browser.picture(_folder(tmp_path) / "keys.png")
    await browser.press("Escape")
    await browser.until("!document.querySelector('dialog').open")
    # Every control has a name, every table its headers.
    named = "e.textContent || e.title || e.labels?.length || e.getAttribute('aria-label')"
    assert await browser.run(f"[...document.querySelectorAll('button, a, input, select')].every((e) => {named})")
    assert await browser.run("[...document.querySelectorAll('th')].every((e) => e.scope === 'col')")


async def test_who_may_do_what(served: Served) -> None:
    async with httpx.AsyncClient(base_url=served.url, timeout=60) as client:
        page = await client.get("/")
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        assert "http://" not in page.text.replace("http://www.w3.org", "")
        for path in ("/api/pipeline", "/api/search", "/api/dead-letters", "/api/money", "/api/cache", "/api/ledger"):
            assert (await client.get(path)).status_code == 200, path
        letter = (await client.get("/api/dead-letters")).json()["letters"][0]["letter"]
        story = (await client.get("/api/execution", params={"id": "own-1", "tenant": "globex"})).json()
        assert "text" not in story["response"]
        assert "text" not in story["journal"]["answer"]
        guarded = [
            ("GET", "/api/execution/text?id=own-1&tenant=globex", None),
            ("GET", f"/api/dead-letters/record?letter={letter}", None),
            ("GET", "/api/cache/find?words=asked", None),
            ("POST", "/api/dead-letters/resend", {"letter": letter}),
            ("POST", "/api/cache/invalidate", {"everything": True, "reason": "test"}),
        ]
        for method, path, body in guarded:
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}):
                refused = await client.request(method, path, json=body, headers=headers)
                assert refused.status_code == 401, (path, headers)
        right = {"authorization": f"Bearer {TOKEN}"}
        assert (await client.get(guarded[0][1], headers=right)).json()["text"]
        # An error's message quotes its provider, who may quote the question.
        failed = {"id": "fails", "tenant": "acme"}
        for headers, is_quoted in (({}, False), (right, True)):
            story = (await client.get("/api/execution", params=failed, headers=headers)).json()
            for error in (story["response"]["error"], story["journal"]["error"]):
                assert error["code"] == "provider_rejected"
                assert ("answered 400" in error["message"]) is is_quoted
                assert error["message"]
        # A name that was pointed at this machine from elsewhere reads nothing.
        assert (await client.get("/api/pipeline", headers={"host": "attacker.example"})).status_code == 403
        # A reason shows the record's own words, which are texts.
        await produce(served.config, [f"{{no json, {HOSTILE}".encode()])
        await served.watch.until(11, 60)
        listed = "/api/dead-letters?code=undecodable"
        [shown] = (await client.get(listed)).json()["letters"]
        assert "no json" not in str(shown)
        assert shown["reason"]
        [shown] = (await client.get(listed, headers=right)).json()["letters"]
        assert "{no json, <img" in shown["reason"]
        for path, status in (
            ("/api/search?state=nosuch", 400),
            ("/api/search?limit=many", 400),
            (f"/api/search?limit={'9' * 5000}", 200),
            ("/api/search?before=noon", 400),
            ("/api/search?before=[]", 400),
            ("/api/search?before=[1,2,3]", 400),
            ("/api/search?before=[%222026-01-01%22,%22a%22,%22%5Cu0000%22]", 400),
            ("/api/search?id=%00", 400),
            ("/api/search?tenant=%00", 400),
            ("/api/execution?id=%00", 400),
            ("/api/money?window=year", 400),
            ("/api/execution", 400),
            ("/api/nothing", 404),
            ("/api/cache/invalidate", 405),
        ):
            assert (await client.get(path)).status_code == status, path
        wrong = await client.post("/api/cache/invalidate", content=b"[]", headers=right)
        assert (wrong.status_code, wrong.json()["error"]) == (400, "the body is no JSON object")
