"""A browser whose tabs are hidden as a user's are: only the one in front is visible.

Playwright's own contexts emulate the focus, so that each of their pages is always visible.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import BrowserContext, Request, async_playwright

from tests.processes import PATIENCE_S, private_folder


class OpenRequests:
    """The requests of all tabs that have not ended, such as event streams."""

    def __init__(self, context: BrowserContext) -> None:
        self._open: list[Request] = []
        context.on("request", lambda request: self._open.append(request))
        context.on("requestfinished", self._remove)
        context.on("requestfailed", self._remove)

    async def settle(self, path: str, count: int) -> None:
        """Return when this many requests for a path are open; raise TimeoutError otherwise."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.find(path)) != count:
                await asyncio.sleep(0.02)

    def find(self, path: str) -> list[str]:
        """Return the URLs of the open requests that contain `path`."""
        return [
            request.url
            for request in self._open
            if path in request.url and not request.frame.page.is_closed()
        ]

    def _remove(self, request: Request) -> None:
        if request in self._open:
            self._open.remove(request)


@asynccontextmanager
async def tabbed_browser(path: str, *arguments: str) -> AsyncIterator[BrowserContext]:
    """Run a Chromium with its own profile, and yield its window."""
    async with private_folder() as home:
        process = await asyncio.create_subprocess_exec(
            path, "--headless=new", "--remote-debugging-port=0", f"--user-data-dir={home}",
            *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stderr
            async with asyncio.timeout(PATIENCE_S):
                while not (found := re.search(rb"ws://([^/\s]+)", await process.stderr.readline())):
                    assert process.returncode is None, "Chromium did not start"
            async with async_playwright() as playwright:
                address = f"http://{found[1].decode()}"
                browser = await playwright.chromium.connect_over_cdp(address, no_defaults=True)
                yield browser.contexts[0]
                await browser.close()
        finally:
            if process.returncode is None:
                process.terminate()
            await process.communicate()
