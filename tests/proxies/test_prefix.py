"""The web UI under a path prefix, behind real proxies."""

from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.browser.chat_page import answers, ask, ask_and_answer
from tests.fake_upstream import ScriptedUpstream
from tests.processes import holdline
from tests.proxies.configurations import SHIPPED
from tests.proxies.conftest import find_port, require
from tests.proxies.fronts import start_front

LOCATION = ("location / {", "location /chat/ {")


@pytest.mark.parametrize(
    ("name", "edit"), [*((name, None) for name in SHIPPED), ("nginx", LOCATION)]
)
async def test_the_web_ui_works_under_a_prefix_behind_each_proxy(
    name: str,
    edit: tuple[str, str] | None,
    certificate: Path,
    redis_url: str,
    browser: Browser,
    upstream: ScriptedUpstream,
    question: str,
) -> None:
    require(name)
    settings = {"OPENAI_BASE_URL": upstream.base_url, "CHAT_MODEL": "m", "BASE_PATH": "/chat"}
    async with (
        holdline(REDIS_URL=redis_url, **settings) as server,
        start_front(name, certificate, find_port(server), edit=edit) as front,
    ):
        context = await browser.new_context(ignore_https_errors=True)
        page = await context.new_page()
        failed: list[str] = []
        page.on(
            "response",
            lambda response: failed.append(response.url) if response.status >= 400 else None,
        )
        await page.goto(f"{front.url}/chat/")
        await ask_and_answer(page, upstream, question, "the answer")
        exchange = await ask(page, upstream, f"{question} again")
        await exchange.send_text("a partial answer")
        await expect(answers(page).last).to_contain_text("a partial answer")
        await page.reload()
        await expect(answers(page).last).to_contain_text("a partial answer")
        await page.locator("#stop").click()
        await exchange.closed.wait()
        (cookie,) = await context.cookies()
        assert cookie["name"].startswith("__Host-holdline-")
        assert cookie["path"] == "/"
        assert failed == []
        await context.close()
