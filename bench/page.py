"""Measure the browser's main thread while a long answer streams, with Chromium's own metrics.

The comparison is a page that parses and renders the complete answer again at every delta.

    python -m bench.page            prints a table
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web
from playwright.async_api import Browser, Page, async_playwright, expect

from bench import proxies
from bench.compare import log_progress
from bench.report import Table
from chat.demo.essays import ENGLISH

DELTA_LENGTH = 8
"""Characters of one delta: two tokens."""

_DELTAS_PER_TICK, _TICK_S = 10, 0.01
_TIMEOUT_MS = 300_000

_LIST = (
    "- An item with **bold words**, `code` and a [link](https://example.org/), as models like to"
    " write.\n"
)
_ROW = "| a cell | another cell with `code` | 12,345 | and the last one |\n"
_LINE = "    value = compute(value, index)  # a line of code as any other\n"
_CHROMIUM_ARGUMENTS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SHAPES = {
    "essay": ("", ENGLISH + "\n\n"),
    "list": ("", _LIST),
    "item": ("1. An item that contains all others\n", "   - item with **bold** and `code`\n"),
    "table": ("| a | b | c | d |\n|---|---|---|---|\n", _ROW),
    "code": ("```python\n", _LINE),
}
"""The beginning of each kind of answer, and the text that is repeated after it."""

_OBSERVE = """
globalThis.longTasks = [];
globalThis.observer = new PerformanceObserver((list) => longTasks.push(...list.getEntries()));
observer.observe({ type: "longtask" });
"""
_LONG_TASKS = "[...longTasks, ...observer.takeRecords()].map((entry) => entry.duration)"
_REPARSING = """<!doctype html><meta charset="utf-8"><div id="answer"></div>
<script type="module">
  import { marked } from "/vendor/marked.js";
  import DOMPurify from "/vendor/purify.js";
  const query = new URLSearchParams({ message: document.location.hash.slice(1) });
  const source = new EventSource(`/api/chat_stream/?${query}`);
  let text = "";
  source.onmessage = (event) => {
    text += event.data;
    answer.innerHTML = DOMPurify.sanitize(marked.parse(text));
  };
  source.addEventListener("end", () => {
    source.close();
    document.body.dataset.done = "";
  });
</script>"""


def build_answer(shape: str, size: int) -> str:
    """Build an answer of `size` characters."""
    beginning, repeated = SHAPES[shape]
    return (beginning + repeated * (size // len(repeated) + 1))[:size]


async def stream_answer(request: web.Request) -> web.StreamResponse:
    """Serve as the upstream: the question is the shape and the size of the answer."""
    shape, size = (await request.json())["messages"][-1]["content"].split("-")
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    text = build_answer(shape, int(size))
    deltas = [text[at : at + DELTA_LENGTH] for at in range(0, len(text), DELTA_LENGTH)]
    begun_at = asyncio.get_running_loop().time()
    for tick, at in enumerate(range(0, len(deltas), _DELTAS_PER_TICK)):
        await response.write(b"".join(map(_encode_event, deltas[at : at + _DELTAS_PER_TICK])))
        await asyncio.sleep(begun_at + tick * _TICK_S - asyncio.get_running_loop().time())
    await response.write(
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    )
    return response


def _encode_event(delta: str) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": {"content": delta}, "finish_reason": None}]}
    return f"data: {json.dumps(chunk)}\n\n".encode()


async def show_in_holdline(page: Page, question: str) -> None:
    """Submit the question in Holdline's web UI and wait for the final rendering of the answer."""
    await page.goto("/")
    await page.locator("textarea#question").fill(question)
    await page.evaluate("longTasks.length = 0; observer.takeRecords()")
    await page.locator("textarea#question").press("Enter")
    await expect(page.locator('article.message[data-role="assistant"]')).to_have_count(1)
    await expect(page.locator("[data-streaming]")).to_have_count(0, timeout=_TIMEOUT_MS)
    await expect(page.locator(".message-footer").last).to_be_visible()


async def show_by_reparsing(page: Page, question: str) -> None:
    """Submit the question in the page that renders the complete answer at every delta."""
    await page.route(
        "**/reparsing",
        lambda route: route.fulfill(body=_REPARSING, content_type="text/html; charset=utf-8"),
    )
    await page.goto(f"/reparsing#{question}")
    await page.locator("[data-done]").wait_for(state="attached", timeout=_TIMEOUT_MS)


async def measure(browser: Browser, url: str, renderer: str, shape: str, size: int) -> list[str]:
    """Return the table row of one answer in a new browser profile."""
    context = await browser.new_context(base_url=url, viewport={"width": 1280, "height": 800})
    page = await context.new_page()
    await page.add_init_script(_OBSERVE)
    session = await context.new_cdp_session(page)
    await session.send("Performance.enable")
    show = show_in_holdline if renderer == "holdline" else show_by_reparsing
    await show(page, f"{shape}-{size}")
    # By the second animation frame from now the last change has been laid out and painted.
    await page.evaluate(
        "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )
    tasks = await page.evaluate(_LONG_TASKS)
    metrics = {
        m["name"]: m["value"] for m in (await session.send("Performance.getMetrics"))["metrics"]
    }
    await context.close()
    return [
        renderer,
        shape,
        f"{size // 1000} kB",
        f"{max(tasks, default=0):.0f}" if tasks else "under 50",
        str(len(tasks)),
        f"{metrics['ScriptDuration']:.2f}",
        f"{metrics['LayoutDuration'] + metrics['RecalcStyleDuration']:.2f}",
        f"{metrics['TaskDuration']:.2f}",
    ]


def find_chromium() -> str:
    """Return the path of Chromium, or exit with the remedy."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        sys.exit("no Chromium on the PATH; `make bench` run as root installs it")
    return path


def make_table() -> Table:
    """Make the table without its rows."""
    return Table(
        "A long answer in the web UI",
        [
            "page",
            "shape",
            "size",
            "longest task, ms",
            "tasks over 50 ms",
            "script, s",
            "layout and style, s",
            "total, s",
        ],
        note=f"Deltas of {DELTA_LENGTH} characters, 1,000 per second. Times are those of the main "
        "thread, startup of the page included, from PerformanceObserver (longtask) and Chromium's "
        "metrics.",
    )


@contextlib.asynccontextmanager
async def serve_upstream() -> AsyncIterator[int]:
    """Serve `stream_answer` as the upstream; yields the port."""
    application = web.Application()
    application.router.add_post("/v1/chat/completions", stream_answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def run(cases: list[tuple[str, str, int]]) -> Table:
    """Measure every case in its own browser profile."""
    table, path = make_table(), find_chromium()
    arguments = [*_CHROMIUM_ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    async with serve_upstream() as port, async_playwright() as playwright:
        with proxies.start_holdline(port) as proxy:
            browser = await playwright.chromium.launch(executable_path=path, args=arguments)
            for renderer, shape, size in cases:
                url = f"http://127.0.0.1:{proxy.port}"
                table.rows.append(await measure(browser, url, renderer, shape, size))
                log_progress("  ".join(table.rows[-1]))
            await browser.close()
    return table


CASES = [
    ("holdline", "essay", 25_000),
    ("re-parsing", "essay", 25_000),
    ("holdline", "essay", 50_000),
    ("re-parsing", "essay", 50_000),
    ("holdline", "essay", 100_000),
    ("holdline", "essay", 200_000),
    ("holdline", "list", 50_000),
    ("holdline", "list", 200_000),
    ("holdline", "item", 50_000),
    ("holdline", "table", 50_000),
    ("holdline", "table", 200_000),
    ("holdline", "code", 50_000),
    ("holdline", "code", 200_000),
]
"""Re-parsing has two sizes only: 200 kB would take 15 minutes."""


def main() -> None:
    """Measure the selected cases and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, nargs="*", help="indexes of the cases, from 0")
    parser.add_argument("--append", type=Path, help="file to append the table to")
    options = parser.parse_args()
    table = asyncio.run(run([CASES[i] for i in options.cases] if options.cases else CASES))
    print(table.to_markdown())
    if options.append:
        with options.append.open("a") as results:
            results.write(f"\n{table.to_markdown()}")


if __name__ == "__main__":
    main()
