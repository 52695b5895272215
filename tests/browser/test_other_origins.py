"""Pages of other origins: what they can cause, and what an allowed one can do."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.browser.chat_page import ask_and_answer
from tests.browser.http_proxy import http_proxy
from tests.browser.other_site import other_site
from tests.conftest import KEY
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, Server, holdline
from tests.streams import STREAM

VECTORS = {
    "fetch": "fetch(url).then(read)",
    "fetch with cookies": (
        "fetch(url, { credentials: 'include' }).then(read)"
    ),
    "fetch without reading": (
        "fetch(url, { mode: 'no-cors', credentials: 'include', referrerPolicy: 'no-referrer', "
        "headers: { Accept: 'text/event-stream' } }).then(read)"
    ),
    "fetch by POST": (
        "fetch(url, { method: 'POST', mode: 'no-cors', credentials: 'include', "
        "body: JSON.stringify({ message }) }).then(read)"
    ),
    "fetch of JSON by POST": (
        "fetch(url, { method: 'POST', credentials: 'include', body: JSON.stringify({ message }), "
        "headers: { 'Content-Type': 'application/json' } }).then(read)"
    ),
    "deletion": (
        "fetch(conversation, { method: 'DELETE', credentials: 'include' })"
        ".then(read)"
    ),
    "reading": "fetch(conversation, { credentials: 'include' }).then(read)",
    "reading without CORS": (
        "fetch(conversation, { mode: 'no-cors', credentials: 'include' })"
        ".then(read)"
    ),
    "EventSource": "listen({})",
    "EventSource with cookies": "listen({ withCredentials: true })",
    "beacon": "navigator.sendBeacon(url, JSON.stringify({ message }))",
    "image": "add('img', { src: url })",
    "image without referrer": "add('img', { referrerPolicy: 'no-referrer', src: url })",
    "script": "add('script', { src: url })",
    "module": "add('script', { type: 'module', src: url })",
    "style sheet": "add('link', { rel: 'stylesheet', href: url })",
    "prefetch": "add('link', { rel: 'prefetch', href: url })",
    "preload": "add('link', { rel: 'preload', as: 'fetch', href: url })",
    "video": "add('video', { src: url })",
    "object": "add('object', { data: url })",
    "embed": "add('embed', { src: url })",
    "iframe": "add('iframe', { src: url })",
    "iframe without referrer": "add('iframe', { referrerPolicy: 'no-referrer', src: url })",
    "sandboxed iframe": "add('iframe', { sandbox: 'allow-scripts', src: url })",
    "form by GET": "submit('GET', 'text/plain')",
    "form by POST": "submit('POST', 'application/x-www-form-urlencoded')",
    "text form by POST": "submit('POST', 'text/plain')",
    "frame of the web UI": "add('iframe', { src: root })",
    "form to the web UI": "submit('POST', 'text/plain', root)",
    "navigation": "location.href = url",
    "navigation without referrer": (
        "add('a', { rel: 'noreferrer', href: url }).click()"
    ),
    "new window": "window.open(url)",
}  # fmt: skip
"""Ways in which a page can make the browser send a request; a promise gives what it can read."""

HELPERS = """
  const read = (response) => response.text();
  const listen = (options) => new Promise((resolve, reject) => {
    const source = new EventSource(url, options);
    source.onmessage = (event) => resolve(event.data);
    source.onerror = reject;
  });
  const add = (name, fields) => {
    const element = Object.assign(document.createElement(name), fields);
    document.body.append(element);
    return element;
  };
  const submit = (method, enctype, action = url) => {
    const form = add('form', { method, enctype, action });
    const input = document.createElement('input');
    Object.assign(input, { name: 'message', value: message });
    form.append(input);
    form.submit();
  };
"""


@pytest_asyncio.fixture(scope="module")
async def site() -> AsyncIterator[int]:
    async with other_site() as port:
        yield port


@pytest_asyncio.fixture(scope="module")
async def named_server(redis_url: str, upstream: ScriptedUpstream) -> AsyncIterator[Server]:
    """Yield a server with a name that is not a loopback one."""
    async with holdline(
        REDIS_URL=redis_url, OPENAI_BASE_URL=upstream.base_url, OPENAI_API_KEY=KEY, CHAT_MODEL="m",
        RATE_LIMIT="off", CONTINUE_MAX="0", ALLOWED_HOSTS="holdline.test",
    ) as started:  # fmt: skip
        yield started


@pytest_asyncio.fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    context = await browser.new_context()
    yield context
    await context.close()


@pytest.mark.parametrize(
    ("host", "other"), [("127.0.0.1", "localhost"), ("holdline.test", "other.test")]
)
async def test_a_page_of_another_site_causes_nothing(
    context: BrowserContext,
    named_server: Server,
    site: int,
    upstream: ScriptedUpstream,
    question: str,
    host: str,
    other: str,
) -> None:
    async with http_proxy(named_server) as proxy:
        address = f"http://{host}:{proxy.port}"
        page = await context.new_page()
        await page.goto(address)
        await ask_and_answer(page, upstream, question, "the first answer")
        before = await read_state(page)
        for vector, script in VECTORS.items():
            caused = uuid.uuid4().hex
            url = f"{address}{STREAM}?message={caused}"
            conversation = f"{address}/api/conversations/{page.url.partition('#')[2]}?{caused}"
            foreign = await context.new_page()
            await foreign.goto(f"http://{other}:{site}/")
            got = await foreign.evaluate(
                f"([root, url, conversation, message]) => {{ {HELPERS} const result = ({script}); "
                "return result instanceof Promise ? result.catch(() => '') : ''; }",
                [f"{address}/?{caused}", url, conversation, caused],
            )
            assert got == "", vector
            async with asyncio.timeout(PATIENCE_S):
                while caused not in (request := await proxy.forwarded.get()).path:
                    pass  # a request of the web UI
            assert ("sec-fetch-site" in request.headers) is (host == "127.0.0.1"), vector
            assert request.status == 403 or request.path.startswith("/?"), vector
            await foreign.close()
            assert upstream.find_requests(caused) == [], vector
            assert await read_state(page) == before, vector


async def test_a_page_that_rebinds_its_name_to_the_server_causes_nothing(
    context: BrowserContext, server: Server, upstream: ScriptedUpstream, question: str
) -> None:
    """The browser sends what it sends for the server's own page: the origins are the same."""
    root = f"http://rebound.test:{urlsplit(server.url).port}"
    page = await context.new_page()
    await page.goto(root)
    await expect(page.locator("body")).to_contain_text("set ALLOWED_HOSTS=rebound.test")
    script = "([url, options]) => fetch(url, options).then((found) => found.status)"
    headers = {"Content-Type": "application/json"}
    for url, options in (
        (f"{STREAM}?message={question}", {}),
        (STREAM, {"method": "POST", "body": f'{{"message":"{question}"}}', "headers": headers}),
        ("/api/conversations/", {}),
        ("/api/events/", {}),
        ("/v1/models", {}),
        ("/", {}),
    ):
        assert await page.evaluate(script, [url, options]) == 421
    assert await context.cookies() == []
    assert upstream.find_requests(question) == []


async def read_state(page: Page) -> object:
    """Return the session's cookies and conversations, as the web UI sees them."""
    listed = await page.evaluate("fetch('api/conversations/').then((found) => found.json())")
    return listed, await page.context.cookies(page.url)


@pytest.mark.parametrize("other", ["localhost", "127.0.0.1"])
async def test_a_page_of_another_origin_cannot_load_the_files_of_the_web_ui(
    context: BrowserContext, server: Server, site: int, other: str
) -> None:
    page = await context.new_page()
    await page.goto(f"http://{other}:{site}/")
    for element, path in (("img", "/favicon.svg"), ("script", "/js/app.js")):
        outcome = await page.evaluate(
            "([name, src]) => new Promise((resolve) => { const fields = { src, "
            "onload: () => resolve('loaded'), onerror: () => resolve('blocked') }; "
            "document.body.append(Object.assign(document.createElement(name), fields)); })",
            [element, server.url + path],
        )
        assert outcome == "blocked"


ALLOWED_PAGE = """
async ([root, question, credentials]) => {
  const call = async (path, method, body) => {
    const headers = body ? { "Content-Type": "application/json" } : {};
    const options = { method, credentials, headers, body: body && JSON.stringify(body) };
    const response = await fetch(root + path, options);
    const disposition = response.headers.get("Content-Disposition");
    return [response.status, await response.text(), disposition?.split(";")[1].trim()];
  };
  const url = `${root}api/chat_stream/?message=${encodeURIComponent(question)}`;
  const withCredentials = credentials === "include";
  const answer = await new Promise((resolve, reject) => {
    const source = new EventSource(url, { withCredentials });
    source.addEventListener("end", (event) => { source.close(); resolve(event.data); });
    source.addEventListener("error", reject);
  });
  const listed = JSON.parse((await call("api/conversations/", "GET"))[1]).conversations;
  const created = JSON.parse((await call("api/conversations/", "POST", { title: "new" }))[1]);
  const path = `api/conversations/${created.id}`;
  return {
    answer,
    listed: listed.map(({ title }) => title),
    title: created.title,
    changed: (await call(path, "PATCH", { title: "changed" }))[0],
    exported: (await call(`${path}/export`, "GET"))[2] ?? null,
    deleted: (await call(path, "DELETE"))[0],
    gone: JSON.parse((await call(path, "GET"))[1]).error?.type,
    stopped: (await call("api/turns/none/stop", "POST", {}))[0],
    invalid: (await call("api/chat_stream/", "POST", { message: "" }))[0],
    info: (await call("api/info", "GET"))[0],
    script: (await call("js/app.js", "GET"))[0],
    ready: (await call("readyz", "GET"))[0],
  };
}
"""


@pytest.mark.parametrize(
    ("host", "other", "samesite", "has_session"),
    [
        ("127.0.0.1", "localhost", "none", True),
        ("127.0.0.1", "localhost", "lax", False),
        ("127.0.0.1", "127.0.0.1", "lax", True),  # another origin of the same site
        ("holdline.test", "other.test", "lax", False),  # without Fetch Metadata
        ("holdline.test", "sub.holdline.test", "lax", True),
    ],
)
async def test_an_allowed_page_uses_eventsource_and_fetch_on_every_route(
    context: BrowserContext,
    redis_url: str,
    site: int,
    upstream: ScriptedUpstream,
    question: str,
    host: str,
    other: str,
    samesite: str,
    has_session: bool,
) -> None:
    async with holdline(
        REDIS_URL=redis_url, OPENAI_BASE_URL=upstream.base_url, OPENAI_API_KEY=KEY, CHAT_MODEL="m",
        CORS_ORIGINS=f"http://{other}:{site}", COOKIE_SAMESITE=samesite,
        ALLOWED_HOSTS="holdline.test",
    ) as server:  # fmt: skip
        root = f"http://{host}:{urlsplit(server.url).port}/"
        page = await context.new_page()
        await page.goto(f"http://{other}:{site}/")
        for credentials in ("include", "omit"):
            asked = f"{question} {credentials}"
            running = asyncio.create_task(page.evaluate(ALLOWED_PAGE, [root, asked, credentials]))
            await (await upstream.exchange(asked)).answer("the answer")
            result = await running
            keeps = has_session and credentials == "include"
            assert result == {
                "answer": "the answer",
                "listed": [asked] if keeps else [],
                "title": "new",
                "changed": 200 if keeps else 404,
                "exported": 'filename="changed.md"' if keeps else None,
                "deleted": 204 if keeps else 404,
                "gone": "not_found",
                "stopped": 404,
                "invalid": 400,
                "info": 200,
                "script": 200,
                "ready": 200,
            }
