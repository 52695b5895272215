"""Drive three browser engines in the same way: Chromium, Firefox and WebKitGTK.

Playwright drives Chromium. It does not drive Debian's Firefox and MiniBrowser.
"""

import asyncio
import itertools
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import aiohttp
from playwright.async_api import Page

from tests.processes import PATIENCE_S, free_ports, private_folder


class Tab(Protocol):
    """A browser tab."""

    async def open(self, url: str) -> None:
        """Load a page; return when it is loaded."""

    async def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""


class ChromiumTab:
    """A tab of Chromium, driven by Playwright."""

    def __init__(self, page: Page) -> None:
        self._page = page

    async def open(self, url: str) -> None:
        await self._page.goto(url)

    async def evaluate(self, expression: str) -> Any:
        return await self._page.evaluate(expression)


class FirefoxTab:
    """A tab of Firefox, driven by WebDriver BiDi (W3C)."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count()
        self._context = ""

    async def start(self) -> None:
        """Find the tab that the browser has opened."""
        await self._call("session.new", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}})
        tree = await self._call("browsingContext.getTree")
        self._context = tree["contexts"][0]["context"]

    async def open(self, url: str) -> None:
        await self._call(
            "browsingContext.navigate", context=self._context, url=url, wait="complete"
        )

    async def evaluate(self, expression: str) -> Any:
        found = await self._call(
            "script.evaluate",
            expression=f"JSON.stringify({expression})",
            target={"context": self._context},
            awaitPromise=True,
        )
        assert found["type"] == "success", found
        return json.loads(found["result"].get("value", "null"))

    async def _call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while (reply := await self._socket.receive_json(timeout=PATIENCE_S)).get("id") != number:
            pass  # an event
        assert reply["type"] == "success", reply
        return reply["result"]


class WebKitTab:
    """A tab of MiniBrowser, driven by WebKitWebDriver (W3C WebDriver)."""

    def __init__(self, http: aiohttp.ClientSession, driver: str) -> None:
        self._http = http
        self._url = f"{driver}/session"

    async def start(self, browser: str) -> None:
        """Start a MiniBrowser with an empty profile."""
        options = {"binary": browser, "args": ["--automation"]}
        wanted = {"webkitgtk:browserOptions": options, "acceptInsecureCerts": True}
        capabilities = {"alwaysMatch": wanted}
        started = await self._call("POST", "", {"capabilities": capabilities})
        self._url += f"/{started['sessionId']}"

    async def open(self, url: str) -> None:
        await self._call("POST", "/url", {"url": url})

    async def evaluate(self, expression: str) -> Any:
        script = f"return JSON.stringify({expression})"
        found = await self._call("POST", "/execute/sync", {"script": script, "args": []})
        return json.loads(found or "null")

    async def close(self) -> None:
        """Quit the browser."""
        await self._call("DELETE", "")

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        async with self._http.request(method, self._url + path, json=body) as response:
            reply = (await response.json())["value"]
            assert response.ok, reply
            return reply


@asynccontextmanager
async def firefox() -> AsyncIterator[Tab]:
    """Run Firefox without a window and with an empty profile, and yield its tab."""
    async with private_folder() as home, aiohttp.ClientSession() as http:
        process = await asyncio.create_subprocess_exec(
            "firefox-esr", "--headless", "--no-remote", "--profile", str(home),
            "--remote-debugging-port", "0",
            env={"PATH": os.environ["PATH"], "HOME": str(home)},
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None
        try:
            address = await read_until(process.stderr, rb"listening on (ws://\S+)")
            draining = asyncio.create_task(process.stderr.read())  # so that Firefox never blocks
            async with http.ws_connect(f"{address}/session", max_msg_size=0) as socket:
                tab = FirefoxTab(socket)
                await tab.start()
                yield tab
            draining.cancel()
        finally:
            process.terminate()
            await process.wait()


@asynccontextmanager
async def webkit() -> AsyncIterator[Tab]:
    """Run MiniBrowser on a virtual screen, with an empty profile, and yield its tab."""
    (port,) = free_ports(1)
    timeout = aiohttp.ClientTimeout(PATIENCE_S)
    async with private_folder() as home, aiohttp.ClientSession(timeout=timeout) as http:
        screen = await asyncio.create_subprocess_exec(
            "Xvfb", "-displayfd", "1", "-screen", "0", "1280x800x24", "-nolisten", "tcp",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            display = await read_until(screen.stdout, rb"(\d+)\n")
            environment = {"PATH": os.environ["PATH"], "HOME": str(home), "DISPLAY": f":{display}"}
            driver = await asyncio.create_subprocess_exec(
                "WebKitWebDriver", f"--port={port}", env=environment
            )
            try:
                tab = WebKitTab(http, f"http://127.0.0.1:{port}")
                await wait_for_port(port)
                await tab.start(str(find_minibrowser()))
                yield tab
                await tab.close()
            finally:
                driver.terminate()
                await driver.wait()
        finally:
            screen.terminate()
            await screen.wait()


def find_minibrowser() -> Path | None:
    """Return the path of MiniBrowser, which Debian does not put on the PATH."""
    return next(Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser"), None)


async def read_until(stream: asyncio.StreamReader | None, pattern: bytes) -> str:
    """Return the first group of the first line that matches."""
    assert stream is not None
    async with asyncio.timeout(PATIENCE_S):
        async for line in stream:
            if found := re.search(pattern, line):
                return found[1].decode()
    raise AssertionError("the browser did not start")


async def wait_for_port(port: int) -> None:
    """Return when a process listens on this port."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
