"""Files of the web UI that change, as in an upgrade or a rollback, with times of any order."""

import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect
from sanic import Sanic
from sanic_ext import Extend

from chat.api import page as pages
from chat.api.http.server import HttpServer
from chat.api.trust import proxies

NOW_S = 1_700_000_000


def install(folder: Path, version: str, time_s: int) -> None:
    """Write a page whose script fails with the module of another version."""
    files = {
        "index.html": '<p>Blank</p><script type="module" src="js/app.js"></script>',
        "js/app.js": f"import {{ {version} }} from './view.js'; {version}();",
        "js/view.js": f"export const {version} = () => (document.body.textContent = '{version}');",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        os.utime(path, (time_s, time_s))


@pytest_asyncio.fixture
async def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Serve the files of `tmp_path` as the web UI."""
    monkeypatch.setattr(pages, "FRONTEND", tmp_path)
    install(tmp_path, "first", NOW_S)
    app: Sanic[Any, Any] = Sanic("changed_files", configure_logging=False)
    Sanic.unregister_app(app)
    # Sanic can alter its own methods only once in a process.
    app.config.update(MOTD=False, GRACEFUL_SHUTDOWN_TIMEOUT=0.1, TOUCHUP=False)
    Extend(app, config={"oas": False, "cors": False})
    proxies.install(app, [])
    pages.install(app, b"{}")
    listener = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(app, 100, 100, [])
    await server.start(listener)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    await server.stop()


@pytest.mark.parametrize("age_s", [86_400, 0, -86_400], ids=["older", "same", "newer"])
async def test_a_reload_runs_the_files_of_another_version_whatever_their_times(
    browser: Browser, url: str, tmp_path: Path, age_s: int
) -> None:
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(url)
    await expect(page.locator("body")).to_have_text("first")
    install(tmp_path, "other", NOW_S - age_s)
    await page.reload()
    await expect(page.locator("body")).to_have_text("other")
    await context.close()


async def test_a_removed_file_gets_404(url: str, tmp_path: Path) -> None:
    (tmp_path / "js" / "view.js").unlink()
    async with httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/js/view.js")).status_code == 404
