"""Take the README's screenshots of a real server with its demo model: `make screenshots`."""

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, async_playwright, expect

from tests.processes import holdline

IMAGES = Path(__file__).parent / "images"
MAX_IMAGE_BYTES = 400_000
"""The README loads every screenshot."""

CODE = "Write a Python function that merges overlapping intervals, with tests"
TABLE = "用表格比较一下绿茶、红茶和乌龙茶"
ARGUMENTS = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


async def take(browser: Browser, url: str, name: str, questions: list[str], **options: Any) -> None:
    """Ask each question in a new conversation, and take a screenshot of the last."""
    context = await browser.new_context(base_url=url, locale="en-GB", **options)
    page = await context.new_page()
    await page.goto("/")
    for question in questions:
        await page.locator("#new-chat").dispatch_event("click")
        await expect(page.locator("article.message")).to_have_count(0)
        await page.locator("textarea#question").fill(question)
        await page.locator("textarea#question").press("Enter")
        answer = page.locator('article.message[data-role="assistant"]')
        await expect(answer.locator(".message-body")).not_to_be_empty()
        await expect(page.locator("[data-streaming]")).to_have_count(0, timeout=120_000)
        await expect(answer.locator(".failure")).to_be_hidden()
    question_shown = page.locator('article.message[data-role="user"]')
    await question_shown.evaluate(
        "(question) => { question.scrollIntoView(); scroller.scrollBy(0, -16); }"
    )
    await page.locator("textarea#question").blur()
    image = IMAGES / f"{name}.png"
    await page.screenshot(path=image, animations="disabled")
    await context.close()
    size = image.stat().st_size
    print(f"docs/images/{image.name}: {size:,} bytes")
    if size > MAX_IMAGE_BYTES:
        raise SystemExit(f"{image.name} is larger than {MAX_IMAGE_BYTES:,} bytes")


async def main() -> None:
    """Take all screenshots concurrently, each in its own browser context."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        sys.exit("no Chromium on the PATH: run make screenshots as root, which installs it")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    desk, phone = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
    IMAGES.mkdir(exist_ok=True)
    async with holdline() as server, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS + sandbox)
        await asyncio.gather(
            take(browser, server.url, "desktop", [TABLE, CODE], viewport=desk),
            take(browser, server.url, "dark", [CODE, TABLE], viewport=desk, color_scheme="dark"),
            take(
                browser, server.url, "phone", [CODE, TABLE],
                viewport=phone, device_scale_factor=2, is_mobile=True, has_touch=True,
            ),
        )  # fmt: skip
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
