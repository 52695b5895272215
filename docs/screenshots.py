"""Takes the README's pictures of a real server with its demo model: `make screenshots`."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, async_playwright, expect

from tests.processes import holdline

IMAGES = Path(__file__).parent / "images"
CHATS = (
    ("How does it work?",),
    ("用中文写一段 Python 代码",),
    ("Hello!", "Compare green, black and oolong tea"),
)
ARGUMENTS = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


async def take(browser: Browser, url: str, name: str, width: int, height: int, **options: Any) -> None:
    """Ask the questions in a fresh profile and keep what the window shows."""
    context = await browser.new_context(
        base_url=url, viewport={"width": width, "height": height}, locale="en-GB", **options
    )
    page = await context.new_page()
    await page.goto("/")
    for questions in CHATS:
        await page.locator("#new-chat").dispatch_event("click")
        await expect(page.locator("article.message")).to_have_count(0)
        for number, question in enumerate(questions, 1):
            await page.locator("#question").fill(question)
            await page.locator("#question").press("Enter")
            await expect(page.locator('article.message[data-role="assistant"]')).to_have_count(number)
            await expect(page.locator("[data-streaming]")).to_have_count(0, timeout=120_000)
    await page.screenshot(path=IMAGES / f"{name}.png")
    await context.close()
    print(f"docs/images/{name}.png")


async def main() -> None:
    path = next(
        found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))
    )
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    IMAGES.mkdir(exist_ok=True)
    async with holdline(RATE_LIMIT="off") as server, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS + sandbox)
        await asyncio.gather(
            take(browser, server.url, "desktop", 1280, 800),
            take(browser, server.url, "dark", 1280, 800, color_scheme="dark"),
            take(browser, server.url, "phone", 390, 844, device_scale_factor=2, is_mobile=True),
        )
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
