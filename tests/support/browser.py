"""A real browser, headless, driven over its DevTools protocol: Debian's chromium, or any that is installed."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIMEOUT_S = 30.0
CONTRAST = Path(__file__).with_name("contrast.js")
KEYS = {"Enter": 13, "Escape": 27, "Tab": 9}


def find_browser() -> str | None:
    """The path of a browser of this kind, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One tab. ``problems`` are exceptions, console errors and refused loads of its pages."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._folder = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._session: str | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._http: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.problems: list[str] = []

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._end()
            raise
        return self

    async def _start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(self._path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--remote-debugging-port=0", "--no-first-run", "--disable-background-networking", "--disable-sync"),
            *("--disable-component-update", "--mute-audio", "--hide-scrollbars", "--force-color-profile=srgb"),
            *(f"--user-data-dir={self._folder.name}", "about:blank"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "HOME": self._folder.name},
        )
        async with asyncio.timeout(TIMEOUT_S):
            address = await self._address()
            self._http = aiohttp.ClientSession()
            self._socket = await self._http.ws_connect(address, max_msg_size=0)
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._drain())]
        target = await self._ask("Target.createTarget", url="about:blank")
        attached = await self._ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self._ask(f"{domain}.enable")

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None:
            await self._socket.close()
        if self._http is not None:
            await self._http.close()
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
        self._folder.cleanup()

    async def go(self, url: str) -> None:
        """Load ``url``."""
        await self._ask("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def run(self, script: str) -> Any:
        """The value of an expression, awaited."""
        said = await self._ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    async def until(self, script: str, timeout_s: float = TIMEOUT_S) -> Any:
        """The first value of an expression that is true."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            value = await self.run(script)
            if value:
                return value
            await asyncio.sleep(0.05)
        shown = await self.run("document.body.innerText")
        raise AssertionError(f"never true: {script}; the page shows: {shown}; problems: {self.problems}")

    async def faint_texts(self) -> list[str]:
        """Texts that are hard to read: their contrast is below level AA's."""
        script = await asyncio.to_thread(CONTRAST.read_text, encoding="utf-8")
        found: list[str] = await self.run(script)
        return found

    async def shows(self, text: str) -> None:
        """Until the page shows ``text``."""
        await self.until(f"document.body.innerText.includes({orjson.dumps(text).decode()})")

    async def press(self, *keys: str) -> None:
        """Press keys one after the other: characters, or names such as Enter."""
        for key in keys:
            code = KEYS.get(key)
            down: dict[str, Any] = {"type": "keyDown", "key": key}
            down |= {"text": key} if code is None else {"windowsVirtualKeyCode": code, "code": key}
            if key == "Enter":
                down["text"] = "\r"
            await self._ask("Input.dispatchKeyEvent", **down)
            await self._ask("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def fill(self, selector: str, value: str) -> None:
        """Put ``value`` into a field."""
        where, what = orjson.dumps(selector).decode(), orjson.dumps(value).decode()
        await self.run(f"document.querySelector({where}).value = {what}")

    async def click(self, selector: str) -> None:
        """Click the first element."""
        await self.run(f"document.querySelector({orjson.dumps(selector).decode()}).click()")

    async def size(self, width: int, height: int, *, scale: float = 1.0) -> None:
        """The window's size in CSS pixels."""
        await self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )

    async def scheme(self, value: str) -> None:
        """``light`` or ``dark`` as the system's wish; nothing moves, so that a picture shows no transition."""
        wishes = {"prefers-color-scheme": value, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": wish} for name, wish in wishes.items()]
        await self._ask("Emulation.setEmulatedMedia", features=features)

    async def picture(self, path: Path) -> bytes:
        """The whole page as PNG."""
        said = await self._ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        image = base64.b64decode(said["data"])
        await asyncio.to_thread(path.write_bytes, image)
        return image

    async def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._waiting[number] = asyncio.get_running_loop().create_future()
        assert self._socket is not None
        await self._socket.send_str(orjson.dumps(message).decode())
        try:
            said = await asyncio.wait_for(self._waiting[number], TIMEOUT_S)
        finally:
            del self._waiting[number]
        assert "error" not in said, (method, said["error"])
        found: dict[str, Any] = said["result"]
        return found

    async def _address(self) -> str:
        assert self._process is not None
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            match = re.search(rb"DevTools listening on (ws://\S+)", line)
            if match is not None:
                return match[1].decode()
        raise AssertionError(f"{self._path} ended with {await self._process.wait()} before it listened")

    async def _drain(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        while await self._process.stderr.readline():
            pass

    async def _read(self) -> None:
        assert self._socket is not None
        async for message in self._socket:
            said = orjson.loads(message.data)
            if "id" in said:
                future = self._waiting.get(said["id"])
                if future is not None and not future.done():
                    future.set_result(said)
            elif said.get("method") == "Runtime.exceptionThrown":
                self.problems.append(str(said["params"]["exceptionDetails"]))
            elif said.get("method") == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
                self.problems.append(f"{said['params']['entry']['text']} {said['params']['entry'].get('url', '')}")
