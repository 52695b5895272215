"""The browser's side: what a long answer costs the page while it streams, by the browser's own clocks.

Against it stands a page that does what pages often do: parse and show the whole answer again at every delta.

    python -m bench.page            prints a table
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

from aiohttp import web
from playwright.async_api import Browser, Page, async_playwright, expect

from bench import relays
from bench.report import Table
from chat.demo.essays import ENGLISH

DELTA = 8
"""Characters of one delta: two tokens."""

_DELTAS_PER_TICK, _TICK_S = 10, 0.01
_PATIENCE_MS = 300_000

_LIST = "- An item with **bold words**, `code` and a [link](https://example.org/), as models like to write.\n"
_ROW = "| a cell | another cell with `code` | 12,345 | and the last one |\n"
_LINE = "    value = compute(value, index)  # a line of code as any other\n"
SHAPES = {
    "essay": ("", ENGLISH + "\n\n"),
    "list": ("", _LIST),
    "table": ("| a | b | c | d |\n|---|---|---|---|\n", _ROW),
    "code": ("```python\n", _LINE),
}
"""What an answer is made of: its beginning, and what is repeated until it is long enough."""

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


def answer(shape: str, size: int) -> str:
    """An answer of a shape, of `size` characters."""
    head, part = SHAPES[shape]
    return (head + part * (size // len(part) + 1))[:size]


async def speak(request: web.Request) -> web.StreamResponse:
    """Be the model: the question says the shape and the size."""
    shape, size = (await request.json())["messages"][-1]["content"].split("-")
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    text = answer(shape, int(size))
    deltas = [text[at : at + DELTA] for at in range(0, len(text), DELTA)]
    begun = asyncio.get_running_loop().time()
    for tick, at in enumerate(range(0, len(deltas), _DELTAS_PER_TICK)):
        await response.write(b"".join(map(_event, deltas[at : at + _DELTAS_PER_TICK])))
        await asyncio.sleep(begun + tick * _TICK_S - asyncio.get_running_loop().time())
    await response.write(
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    )
    return response


def _event(delta: str) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": {"content": delta}, "finish_reason": None}]}
    return f"data: {json.dumps(chunk)}\n\n".encode()


async def show_by_holdline(page: Page, question: str) -> None:
    """Ask in Holdline's own page, and return when the answer has been shown for the last time."""
    await page.goto("/")
    await page.locator("textarea#question").fill(question)
    await page.evaluate("longTasks.length = 0; observer.takeRecords()")
    await page.locator("textarea#question").press("Enter")
    await expect(page.locator('article.message[data-role="assistant"]')).to_have_count(1)
    await expect(page.locator("[data-streaming]")).to_have_count(0, timeout=_PATIENCE_MS)
    await expect(page.locator(".message-footer").last).to_be_visible()


async def show_by_reparsing(page: Page, question: str) -> None:
    """The same in a page that begins anew at every delta."""
    await page.route(
        "**/reparsing",
        lambda route: route.fulfill(body=_REPARSING, content_type="text/html; charset=utf-8"),
    )
    await page.goto(f"/reparsing#{question}")
    await page.locator("[data-done]").wait_for(state="attached", timeout=_PATIENCE_MS)


async def measure(browser: Browser, url: str, way: str, shape: str, size: int) -> list[str]:
    """One row: what one answer cost one page."""
    context = await browser.new_context(base_url=url, viewport={"width": 1280, "height": 800})
    page = await context.new_page()
    await page.add_init_script(_OBSERVE)
    session = await context.new_cdp_session(page)
    await session.send("Performance.enable")
    await (show_by_holdline if way == "holdline" else show_by_reparsing)(page, f"{shape}-{size}")
    # The last change is laid out and painted by the second frame from now.
    await page.evaluate(
        "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )
    tasks = await page.evaluate(_LONG_TASKS)
    metrics = {
        m["name"]: m["value"] for m in (await session.send("Performance.getMetrics"))["metrics"]
    }
    await context.close()
    return [
        way,
        shape,
        f"{size // 1000} kB",
        f"{max(tasks, default=0):.0f}" if tasks else "under 50",
        str(len(tasks)),
        f"{metrics['ScriptDuration']:.2f}",
        f"{metrics['LayoutDuration'] + metrics['RecalcStyleDuration']:.2f}",
        f"{metrics['TaskDuration']:.2f}",
    ]


async def run(cases: list[tuple[str, str, int]]) -> Table:
    """Measure every case, each in a profile of its own."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        sys.exit("no Chromium on the PATH: make bench installs one as root")
    table = Table(
        "A long answer in the page",
        [
            "page",
            "shape",
            "size",
            "longest task ms",
            "tasks over 50 ms",
            "script s",
            "layout and style s",
            "all s",
        ],
        note=f"Deltas of {DELTA} characters, a thousand a second; times are the main thread's, the page's "
        "start among them, by PerformanceObserver (longtask) and Chromium's own metrics.",
    )
    application = web.Application()
    application.router.add_post("/v1/chat/completions", speak)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    arguments = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
                 "--disable-component-update", "--disable-sync"]  # fmt: skip
    arguments += ["--no-sandbox"] if os.geteuid() == 0 else []
    try:
        with relays.holdline(runner.addresses[0][1]) as relay:
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(executable_path=path, args=arguments)
                for way, shape, size in cases:
                    row = await measure(browser, f"http://127.0.0.1:{relay.port}", way, shape, size)
                    print(*row, sep="  ", file=sys.stderr, flush=True)
                    table.rows.append(row)
                await browser.close()
    finally:
        await runner.cleanup()
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
    ("holdline", "table", 50_000),
    ("holdline", "table", 200_000),
    ("holdline", "code", 50_000),
    ("holdline", "code", 200_000),
]
"""Re-parsing 200 kB would take a quarter of an hour: it is left at two sizes, which show how it grows."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, nargs="*", help="numbers of the cases, from 0")
    parser.add_argument("--append", type=Path, help="a file to add the table to")
    asked = parser.parse_args()
    table = asyncio.run(run([CASES[i] for i in asked.cases] if asked.cases else CASES))
    print(table.markdown())
    if asked.append:
        with asked.append.open("a") as results:
            results.write(f"\n{table.markdown()}")


if __name__ == "__main__":
    main()
