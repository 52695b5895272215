"""The web UI under a path prefix, which a proxy keeps (BASE_PATH) or removes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, expect

from tests.browser.chat_page import answers, ask, ask_and_answer
from tests.browser.http_proxy import http_proxy
from tests.conftest import KEY
from tests.fake_upstream import ScriptedUpstream
from tests.processes import Server, holdline


@asynccontextmanager
async def serve_under_prefix(
    keeps: bool, redis_url: str, upstream: ScriptedUpstream, server: Server
) -> AsyncIterator[str]:
    """Yield the URL of a server's web UI behind the prefix `/chat`, without a final `/`."""
    if keeps:
        async with holdline(
            REDIS_URL=redis_url, OPENAI_BASE_URL=upstream.base_url, OPENAI_API_KEY=KEY,
            CHAT_MODEL="m", BASE_PATH="/chat",
        ) as prefixed, http_proxy(prefixed) as proxy:  # fmt: skip
            yield f"http://127.0.0.1:{proxy.port}/chat"
    else:
        async with http_proxy(server, removed="/chat") as proxy:
            yield f"http://127.0.0.1:{proxy.port}/chat/"


@pytest.mark.parametrize("keeps", [True, False])
async def test_the_web_ui_works_under_a_prefix_that_the_proxy_keeps_or_removes(
    browser: Browser,
    redis_url: str,
    upstream: ScriptedUpstream,
    server: Server,
    question: str,
    keeps: bool,
) -> None:
    async with serve_under_prefix(keeps, redis_url, upstream, server) as url:
        context = await browser.new_context()
        page = await context.new_page()
        requested: list[str] = []
        failed: list[str] = []
        page.on("request", lambda request: requested.append(request.url))
        page.on(
            "response",
            lambda response: failed.append(response.url) if response.status >= 400 else None,
        )
        await page.goto(url)
        await ask_and_answer(page, upstream, question, "the answer")
        exchange = await ask(page, upstream, f"{question} again")
        await exchange.send_text("a partial answer")
        await expect(answers(page).last).to_contain_text("a partial answer")
        await page.reload()
        await expect(answers(page).last).to_contain_text("a partial answer")
        await page.locator("#stop").click()
        await exchange.closed.wait()
        (cookie,) = await context.cookies()
        assert cookie["path"] == "/"
        await page.goto(f"{url.rstrip('/')}/docs#report_alive")
        command = page.locator("#report_alive pre")
        await expect(command).to_have_text(f"curl '{url.rstrip('/')}/healthz'")
        assert failed == []
        assert all(f"{address}/".startswith(f"{url.rstrip('/')}/") for address in requested)
        await context.close()
