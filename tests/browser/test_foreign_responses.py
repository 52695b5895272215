"""The page recognises responses that are not Holdline's, and loses neither question nor answer."""

import asyncio
from itertools import product

import pytest
from aiohttp import web
from playwright.async_api import Browser, Page, expect

from tests.browser.chat_page import answers, ask_and_answer, bodies
from tests.browser.http_proxy import HttpProxy, Override, http_proxy
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, Server

SIGNED_OUT = "You are signed out. Reload to continue."

BODIES = {
    "html": ("text/html; charset=utf-8", "<h1>Sign in</h1>"),
    "text": ("text/plain", "Sign in"),
    "nothing": ("", ""),
    "json": ("application/json", '{"message": "Sign in"}'),
    "json string": ("application/json", '{"error": "login_required"}'),
    "json list": ("application/json", '["sign in"]'),
    "json null": ("application/json", "null"),
    "broken json": ("application/json", '{"error": {"type": "rate_'),
    "html as json": ("application/json", "<h1>Sign in</h1>"),
    "partial error": ("application/json", '{"error": {"message": "Sign in"}}'),
}
STATUSES: dict[int, str] = {
    **dict.fromkeys((200, 201, 203, 401, 403, 419, 440, 511), "sign_in_expired"),
    **dict.fromkeys((400, 404, 405, 406, 413, 414, 429, 431, 451, 500, 501, 502, 503, 504), "http"),
}


async def test_a_foreign_response_of_any_status_type_and_shape_is_recognised(page: Page) -> None:
    cases = [
        (status, content_type, body)
        for status, (content_type, body) in product(STATUSES, BODIES.values())
    ]
    found = await page.evaluate(
        """async (cases) => {
            const { checkStream, readJson } = await import("/js/net/response.js");
            const describe = async (check, [status, type, body]) => {
                const headers = type ? { "Content-Type": type } : {};
                const response = new Response(body, { status, headers });
                const error = await check(response).then(() => null, (error) => error);
                return error && [error.type, error.isForeign, error.status];
            };
            const readList = (response) => readJson(response, ({ list }) => Array.isArray(list));
            const results = [];
            for (const one of cases) {
                results.push([await describe(readList, one), await describe(checkStream, one)]);
            }
            return results;
        }""",
        cases,
    )
    for (status, *rest), results in zip(cases, found, strict=True):
        assert results == [[STATUSES[status], True, status]] * 2, rest


async def test_holdlines_own_responses_are_not_foreign(page: Page) -> None:
    statuses = [400, 403, 404, 409, 413, 421, 429, 500, 503, 507]
    found = await page.evaluate(
        """async (statuses) => {
            const { checkStream, readJson } = await import("/js/net/response.js");
            const body = JSON.stringify({ error: { type: "name", message: "words" } });
            const headers = { "Content-Type": "application/json", "Retry-After": "7" };
            const results = [];
            for (const status of statuses) {
                for (const check of [checkStream, (response) => readJson(response, () => true)]) {
                    const error = await check(new Response(body, { status, headers })).catch(
                        (error) => error,
                    );
                    results.push([error.type, error.message, error.isForeign, error.retryAfterS]);
                }
            }
            const stream = { "Content-Type": "Text/Event-Stream; charset=utf-8" };
            await checkStream(new Response(": comment\\n\\n", { headers: stream }));
            await checkStream(new Response(null, { status: 204 }));
            results.push(await readJson(new Response(null, { status: 204 }), () => false));
            results.push(await readJson(new Response('\\ufeff{"list": []}'), ({ list }) => list));
            return results;
        }""",
        statuses,
    )
    assert found == [["name", "words", False, 7]] * 2 * len(statuses) + [None, {"list": []}]


def redirect_away(request: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": "http://login.test/?next=/"})


def redirect_home(request: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": "/oauth2/sign_in"})


def answer(status: int, name: str) -> Override:
    content_type, body = BODIES[name]

    def respond(request: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers={"Content-Type": content_type})

    return respond


SIGN_INS: dict[str, Override] = {
    "redirect to another origin": redirect_away,
    "redirect on this origin": redirect_home,
    "a page instead of the answer": answer(200, "html"),
    "401 with a page": answer(401, "html"),
    "401 with JSON": answer(401, "json string"),
    "403 with a page": answer(403, "html"),
}


@pytest.mark.parametrize("sign_in", SIGN_INS)
async def test_an_expired_sign_in_is_named_and_keeps_questions_and_answers(
    browser: Browser, server: Server, upstream: ScriptedUpstream, question: str, sign_in: str
) -> None:
    async with http_proxy(server) as proxy:
        context = await browser.new_context(base_url=f"http://127.0.0.1:{proxy.port}")
        page = await context.new_page()
        await page.goto("/")
        async with asyncio.timeout(PATIENCE_S):
            while not (await proxy.forwarded.get()).path.startswith("/api/events/"):
                pass
        expire(proxy, SIGN_INS[sign_in])
        proxy.disconnect()
        await expect(page.locator("#status")).to_have_text(SIGNED_OUT)  # by the event channel
        await submit(page, f"first {question}")
        await expect(answers(page).locator(".failure")).to_contain_text(SIGNED_OUT)
        proxy.override = None
        await page.reload()
        await expect(bodies(page)).to_have_text([f"first {question}", ""])
        await page.locator(".remedy:visible").click()
        exchange = await upstream.exchange(f"first {question}")
        await exchange.send_text("part ")
        await expect(bodies(page).last).to_have_text("part")

        expire(proxy, SIGN_INS[sign_in])
        proxy.disconnect()
        await expect(page.locator("#status")).to_have_text(SIGNED_OUT)
        proxy.override = None  # the user has signed in, in another tab
        await exchange.answer("and whole")
        await expect(bodies(page).last).to_have_text("part and whole")
        await expect(page.locator("#status")).to_be_empty()
        await context.close()


def reject_urls(status: int, name: str) -> Override:
    """Return what rejects the URLs of questions, and lets them pass in a body."""
    respond = answer(status, name)
    return lambda request: respond(request) if "message=" in request.query_string else None


URL_REJECTIONS: dict[str, Override] = {
    "414": reject_urls(414, "html"),
    "a firewall's 403": reject_urls(403, "html"),
    "a firewall's 406": reject_urls(406, "json"),
    "a query too long for IIS": reject_urls(404, "html"),
    "cookies too large for nginx": reject_urls(400, "html"),
    "a page that says blocked": reject_urls(200, "html"),
}


@pytest.mark.parametrize("rejection", URL_REJECTIONS)
async def test_a_question_whose_url_is_rejected_is_sent_once_by_post(
    browser: Browser, server: Server, upstream: ScriptedUpstream, question: str, rejection: str
) -> None:
    async with http_proxy(server) as proxy:
        proxy.override = URL_REJECTIONS[rejection]
        context = await browser.new_context(base_url=f"http://127.0.0.1:{proxy.port}")
        page = await context.new_page()
        await page.goto("/")
        await ask_and_answer(page, upstream, question, "the answer")
        assert len(upstream.find_requests(question)) == 1
        await context.close()


async def test_a_question_that_other_applications_cookies_make_too_large_is_sent_by_post(
    page: Page, server: Server, upstream: ScriptedUpstream, question: str
) -> None:
    await page.context.add_cookies(
        [{"name": f"other{n}", "value": "x" * 3300, "url": server.url} for n in range(3)]
    )
    await ask_and_answer(page, upstream, "长" * 680 + question, "the answer")
    assert len(upstream.find_requests(question)) == 1


async def test_a_question_that_a_firewall_rejects_is_no_expired_sign_in(
    browser: Browser, server: Server, question: str
) -> None:
    async with http_proxy(server) as proxy:
        respond = answer(403, "html")
        proxy.override = lambda request: respond(request) if "chat_stream" in request.path else None
        context = await browser.new_context(base_url=f"http://127.0.0.1:{proxy.port}")
        page = await context.new_page()
        await page.goto("/")
        await submit(page, question)
        await expect(answers(page).locator(".failure")).to_contain_text("firewall")
        await expect(bodies(page)).to_have_text([question, ""])
        await context.close()


def expire(proxy: HttpProxy, respond: Override) -> None:
    proxy.override = lambda request: respond(request) if "/api/" in request.path else None


async def submit(page: Page, question: str) -> None:
    await page.locator("#question").fill(question)
    await page.locator("#question").press("Enter")
