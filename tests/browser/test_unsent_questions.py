"""A question belongs to the conversation it was typed in, and is kept until its turn has begun."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Browser, Locator, Page, Route, async_playwright, expect

from tests.browser.chat_page import answers, ask_and_answer, bodies, questions
from tests.browser.conftest import ARGUMENTS, find_chromium
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, Server, private_folder

TITLES = "#conversations .conversation-title"
STREAM = re.compile("/api/chat_stream/")
UNSENT = "This question has not been sent."


class Gate:
    """Holds the requests for some URLs back until it is opened."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.held = 0

    async def pass_through(self, route: Route) -> None:
        self.held += 1
        await self.is_open.wait()
        await route.continue_()


async def submit(page: Page, question: str) -> None:
    await page.locator("#question").fill(question)
    await page.locator("#question").press("Enter")


def failure(page: Page) -> Locator:
    return answers(page).last.locator(".failure-text")


def list_unsent(page: Page) -> Awaitable[list[str]]:
    return page.evaluate("() => Object.keys(localStorage).filter((name) => /unsent/.test(name))")


def list_held_locks(page: Page) -> Awaitable[list[str]]:
    return page.evaluate(
        "() => navigator.locks.query().then(({ held }) => held.map(({ name }) => name))"
    )


async def begin_two(page: Page, upstream: ScriptedUpstream, question: str) -> tuple[str, str]:
    """Have two conversations, and a third one open; return the ids of the first and second."""
    ids = []
    for name in ("A", "B"):
        await ask_and_answer(page, upstream, f"{name} {question}", f"answer {name}")
        ids.append(page.url.partition("#")[2])
        await page.locator("#new-chat").click()
    return ids[0], ids[1]


async def begin_two_and_open_the_first(
    page: Page, upstream: ScriptedUpstream, question: str
) -> tuple[str, str]:
    a, b = await begin_two(page, upstream, question)
    await page.locator(f"a[href='#{a}']").click()
    await expect(bodies(page)).to_have_text([f"A {question}", "answer A"])
    return a, b


@pytest.mark.parametrize("destination", ["stay", "other", "new"])
async def test_a_question_is_asked_in_the_conversation_in_which_it_was_typed(
    page: Page, upstream: ScriptedUpstream, question: str, destination: str
) -> None:
    a, b = await begin_two(page, upstream, question)
    gate = Gate()
    await page.route(re.compile(f"/api/conversations/{a}"), gate.pass_through)
    await page.locator(f"a[href='#{a}']").click()
    await submit(page, f"for A {question}")
    await expect(bodies(page)).to_have_text([f"for A {question}", ""])
    if destination == "other":
        await page.locator(f"a[href='#{b}']").click()
        await expect(bodies(page)).to_have_text([f"B {question}", "answer B"])
    elif destination == "new":
        await page.locator("#new-chat").click()
        await expect(page.locator("#welcome")).to_be_visible()
    gate.is_open.set()
    exchange = await upstream.exchange(f"for A {question}")
    sent = [message["content"] for message in exchange.messages]
    assert sent == [f"A {question}", "answer A", f"for A {question}"]
    await exchange.answer("reply")
    if destination == "other":
        await expect(bodies(page)).to_have_text([f"B {question}", "answer B"])
    await page.locator(f"a[href='#{a}']").click()
    await expect(bodies(page)).to_have_text(
        [f"A {question}", "answer A", f"for A {question}", "reply"]
    )
    await expect(page.locator(TITLES)).to_have_count(2)
    assert await list_unsent(page) == []


@pytest.mark.parametrize("fault", ["network", "500", "503", "html"])
async def test_a_question_fails_with_the_load_of_its_conversation_and_keeps_its_text(
    page: Page, upstream: ScriptedUpstream, question: str, fault: str
) -> None:
    await ask_and_answer(page, upstream, f"A {question}", "answer A")
    a = page.url.partition("#")[2]
    await page.locator("#new-chat").click()
    gate = Gate()

    async def fail(route: Route) -> None:
        await gate.is_open.wait()
        if fault == "network":
            await route.abort()
        elif fault == "html":
            await route.fulfill(status=200, content_type="text/html", body="<h1>Sign in</h1>")
        else:
            body = '{"error": {"type": "internal", "message": "The history is broken."}}'
            await route.fulfill(status=int(fault), content_type="application/json", body=body)

    await page.route(re.compile(f"/api/conversations/{a}"), fail)
    await page.locator(f"a[href='#{a}']").click()
    await submit(page, f"for A {question}")
    gate.is_open.set()
    await expect(answers(page).locator(".failure")).to_be_visible()
    await expect(bodies(page).first).to_have_text(f"for A {question}")
    assert page.url.endswith(f"#{a}")
    assert upstream.find_requests(f"for A {question}") == []
    await page.unroute_all()
    await page.locator(".remedy:visible").click()
    if fault == "html":  # the page was loaded again
        await expect(failure(page)).to_have_text(UNSENT)
        await page.locator(".remedy:visible").click()
    exchange = await upstream.exchange(f"for A {question}")
    assert len(exchange.messages) == 3
    await exchange.answer("reply")
    await expect(bodies(page)).to_have_text(
        [f"A {question}", "answer A", f"for A {question}", "reply"]
    )


async def test_a_question_that_fails_after_the_user_has_left_is_shown_in_its_conversation(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    a, b = await begin_two_and_open_the_first(page, upstream, question)
    gate = Gate()

    async def fail(route: Route) -> None:
        await gate.is_open.wait()
        body = error("storage_full")
        await route.fulfill(status=507, content_type="application/json", body=body)

    await page.route(STREAM, fail)
    await submit(page, f"for A {question}")
    await page.locator(f"a[href='#{b}']").click()
    await expect(bodies(page)).to_have_text([f"B {question}", "answer B"])
    gate.is_open.set()
    await expect(page.locator("#status")).to_contain_text("storage is full")
    await expect(bodies(page)).to_have_text([f"B {question}", "answer B"])
    await page.locator(f"a[href='#{a}']").click()
    await expect(bodies(page)).to_have_text([f"A {question}", "answer A", f"for A {question}", ""])
    await expect(failure(page)).to_have_text(UNSENT)


@pytest.mark.parametrize("place", ["new", "known"])
async def test_questions_typed_at_once_are_asked_in_their_order_in_one_conversation(
    page: Page, upstream: ScriptedUpstream, question: str, place: str
) -> None:
    before = []
    if place == "known":
        await ask_and_answer(page, upstream, f"0 {question}", "zero")
        before = [f"0 {question}", "zero"]
    gate = Gate()
    await page.route(STREAM, gate.pass_through)
    texts = [f"{number} {question}" for number in range(1, 5)]
    await page.evaluate(
        """(texts) => {
            const field = document.querySelector("#question");
            for (const text of texts) {
                field.value = text;
                field.form.requestSubmit();
            }
        }""",
        texts,
    )
    await expect(questions(page).locator(".message-body")).to_have_text([*before[:1], *texts])
    gate.is_open.set()
    exchange = await upstream.exchange(texts[-1])
    # Questions without an answer reach the model as one message.
    asked = [one["content"] for one in exchange.messages if one["role"] == "user"]
    assert "\n\n".join(asked).split("\n\n") == [*before[:1], *texts]
    await exchange.answer("the end")
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    await page.reload()
    await expect(questions(page).locator(".message-body")).to_have_text([*before[:1], *texts])
    await expect(page.locator(TITLES)).to_have_count(1)
    assert await list_unsent(page) == []


async def go_offline(page: Page) -> None:
    await page.context.set_offline(True)


def reject(status: int, body: str, **headers: str) -> Callable[[Page], Awaitable[None]]:
    async def install(page: Page) -> None:
        kind = "application/json" if body.startswith("{") else "text/html"
        await page.route(
            STREAM,
            lambda route: route.fulfill(
                status=status, headers={"Content-Type": kind, **headers}, body=body
            ),
        )

    return install


def error(kind: str) -> str:
    return f'{{"error": {{"type": "{kind}", "message": "Not now."}}}}'


OBSTACLES = {
    "offline": go_offline,
    "limit": reject(429, error("rate_limited")),
    "long limit": reject(429, error("rate_limited"), **{"Retry-After": "3600"}),
    "storage": reject(507, error("storage_full")),
    "failure": reject(500, error("internal")),
    "gateway": reject(502, "<h1>Bad gateway</h1>"),
    "sign-in": reject(401, "<h1>Sign in</h1>"),
    "nothing": reject(204, ""),
}


@pytest.mark.parametrize("place", ["new", "known"])
@pytest.mark.parametrize("obstacle", OBSTACLES)
async def test_a_question_that_is_not_sent_is_offered_by_the_next_page(
    page: Page, upstream: ScriptedUpstream, question: str, obstacle: str, place: str
) -> None:
    before = []
    if place == "known":
        await ask_and_answer(page, upstream, f"0 {question}", "zero")
        before = [f"0 {question}", "zero"]
    await OBSTACLES[obstacle](page)
    await submit(page, question)
    if obstacle == "offline":
        await expect(page.locator("#status")).to_contain_text("Reconnecting")
    else:
        await expect(answers(page).last.locator(".failure")).to_be_visible()
    tab = await page.context.new_page()
    await page.close()
    await tab.context.set_offline(False)
    await tab.goto("/")  # without the conversation's address, as after a sign-in
    await expect(bodies(tab)).to_have_text([*before, question, ""])
    await expect(failure(tab)).to_have_text(UNSENT)
    assert upstream.find_requests(question)[len(before) // 2 :] == []
    await tab.locator(".remedy:visible").click()
    await (await upstream.exchange(question, 1 + len(before) // 2)).answer("reply")
    await expect(bodies(tab)).to_have_text([*before, question, "reply"])
    await expect(tab.locator(TITLES)).to_have_count(1)
    assert await list_unsent(tab) == []


async def test_a_question_that_began_before_the_page_knew_is_followed_and_asked_once(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await page.evaluate("() => { EventSource.prototype.addEventListener = () => {}; }")
    await submit(page, question)
    exchange = await upstream.exchange(question)
    await page.reload()
    await expect(page.locator("[data-streaming]")).to_have_count(1)
    await exchange.answer("reply")
    await expect(bodies(page)).to_have_text([question, "reply"])
    await expect(page.locator(TITLES)).to_have_count(1)
    assert len(upstream.find_requests(question)) == 1
    assert await list_unsent(page) == []


async def test_two_questions_of_a_new_chat_begin_one_conversation_after_a_reload(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    texts = [f"1 {question}", f"2 {question}"]
    await OBSTACLES["storage"](page)
    for number, text in enumerate(texts, 1):
        await submit(page, text)
        await expect(page.locator(".failure:visible")).to_have_count(number)
    await page.unroute_all()
    await page.reload()
    await expect(bodies(page)).to_have_text([texts[0], "", texts[1], ""])
    for number, text in enumerate(texts, 1):
        await page.locator(".remedy:visible").first.click()
        await (await upstream.exchange(text)).answer(f"answer {number}")
        await expect(bodies(page).last).to_have_text(f"answer {number}")
        await page.reload()
    await expect(bodies(page)).to_have_text([texts[0], "answer 1", texts[1], "answer 2"])
    await expect(page.locator(TITLES)).to_have_count(1)
    assert await list_unsent(page) == []


async def test_a_question_that_begins_after_the_user_has_left_keeps_no_connection(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    a, b = await begin_two_and_open_the_first(page, upstream, question)
    gate = Gate()
    await page.route(STREAM, gate.pass_through)
    texts = [f"1 {question}", f"2 {question}"]
    for text in texts:
        await submit(page, text)
    await page.locator(f"a[href='#{b}']").click()
    await expect(bodies(page)).to_have_text([f"B {question}", "answer B"])
    gate.is_open.set()
    exchange = await upstream.exchange(texts[1])
    async with asyncio.timeout(PATIENCE_S):
        while any("stream" in name for name in await list_held_locks(page)):  # its slot
            await asyncio.sleep(0.02)
    await exchange.send_text("running")
    await page.locator(f"a[href='#{a}']").click()
    await expect(bodies(page).last).to_have_text("running")
    await exchange.finish()


async def test_only_one_tab_offers_a_question(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await ask_and_answer(page, upstream, f"0 {question}", "zero")
    await OBSTACLES["storage"](page)
    await submit(page, question)
    await expect(failure(page)).to_contain_text("storage is full")
    tab = await page.context.new_page()
    await tab.goto(page.url)
    await expect(bodies(tab)).to_have_text([f"0 {question}", "zero"])
    await expect(tab.locator(".failure:visible")).to_have_count(0)
    await page.close()
    await tab.reload()
    await expect(bodies(tab)).to_have_text([f"0 {question}", "zero", question, ""])
    await tab.locator(".remedy:visible").click()
    await (await upstream.exchange(question, 2)).answer("reply")
    await expect(bodies(tab)).to_have_text([f"0 {question}", "zero", question, "reply"])


@pytest.mark.parametrize("when", ["asked", "reloaded"])
async def test_a_question_whose_session_is_gone_is_offered_in_a_new_chat(
    page: Page, upstream: ScriptedUpstream, question: str, when: str
) -> None:
    await ask_and_answer(page, upstream, f"0 {question}", "zero")
    await page.context.clear_cookies()
    await submit(page, question)
    await expect(answers(page).last.locator(".failure")).to_contain_text("session has expired")
    if when == "reloaded":
        await page.reload()
        await expect(bodies(page)).to_have_text([question, ""])
        await expect(answers(page).locator(".failure")).to_contain_text("session has expired")
    await expect(page.get_by_text("Try again")).to_have_count(0)
    await page.get_by_text("Ask in a new chat").click()
    await expect(page.locator("#question")).to_have_value(question)
    assert "#" not in page.url
    await page.locator("#question").press("Enter")
    await (await upstream.exchange(question, 2)).answer("reply")
    await expect(bodies(page)).to_have_text([question, "reply"])
    assert await list_unsent(page) == []


async def test_an_unsent_question_is_edited_or_discarded(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await ask_and_answer(page, upstream, f"0 {question}", "zero")
    await OBSTACLES["storage"](page)
    for number, text in enumerate(("one", "two"), 1):
        await submit(page, f"{text} {question}")
        await expect(page.locator(".failure:visible")).to_have_count(number)
    await page.unroute_all()
    await page.reload()
    unsent = [f"one {question}", "", f"two {question}", ""]
    await expect(bodies(page)).to_have_text([f"0 {question}", "zero", *unsent])
    first = questions(page).nth(1)
    await first.hover()
    await first.get_by_role("button", name="Discard").click()
    await expect(bodies(page)).to_have_text([f"0 {question}", "zero", f"two {question}", ""])
    await page.locator("#question").press("ArrowUp")
    field = page.get_by_role("textbox", name="Edit your question")
    await field.fill(f"three {question}")
    await field.press("Control+Enter")
    exchange = await upstream.exchange(f"three {question}")
    assert len(exchange.messages) == 3
    await exchange.answer("done")
    await expect(bodies(page)).to_have_text([f"0 {question}", "zero", f"three {question}", "done"])
    assert await list_unsent(page) == []


async def test_a_deletion_that_fails_keeps_an_unsent_question(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await ask_and_answer(page, upstream, f"0 {question}", "zero")
    await OBSTACLES["storage"](page)
    await submit(page, question)
    await expect(failure(page)).to_contain_text("storage is full")
    await page.route(
        re.compile("/api/conversations/."),
        lambda route: route.abort() if route.request.method == "DELETE" else route.continue_(),
    )
    for kept in (1, 0):
        await page.locator("#conversations .delete").focus()
        await page.keyboard.press("Enter")
        await page.locator("#delete-dialog .danger-button").click()
        await expect(page.locator("#welcome")).to_be_visible()
        if kept:
            await expect(page.locator("#status")).to_contain_text("cannot be reached")
        else:
            await expect(page.locator(TITLES)).to_have_count(0)
        assert len(await list_unsent(page)) == kept
        await page.unroute_all()


async def test_a_question_that_is_being_answered_stays_in_its_field(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await submit(page, question)
    exchange = await upstream.exchange(question)
    await submit(page, question)
    await expect(page.locator("#question")).to_have_value(question)
    await expect(bodies(page)).to_have_text([question, ""])
    await exchange.answer("one")
    await expect(bodies(page)).to_have_text([question, "one"])
    await page.locator("#question").press("Enter")
    await (await upstream.exchange(question, 2)).answer("two")
    await expect(bodies(page)).to_have_text([question, "one", question, "two"])


async def test_stop_ends_an_answer_that_begins_while_the_server_does_not_know_it_yet(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    gate = Gate()
    await page.route(STREAM, gate.pass_through)
    stops = []

    async def stop(route: Route) -> None:
        stops.append(route)
        if len(stops) == 1:
            gate.is_open.set()
            await (await upstream.exchange(question)).send_text("some text")
            await expect(answers(page).locator(".message-body")).to_have_text("some text")
            body = error("not_found")
            await route.fulfill(status=404, content_type="application/json", body=body)
        else:
            await route.continue_()

    await page.route(re.compile("/stop$"), stop)
    await submit(page, question)
    await page.locator("#stop").click()
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    await expect(bodies(page)).to_have_text([question, "some text"])
    assert len(stops) == 2


async def test_only_the_latest_questions_are_kept(page: Page) -> None:
    found = await page.evaluate(
        """async () => {
            const { UnsentQuestions } = await import("/js/state/unsent_questions.js");
            const unsent = new UnsentQuestions();
            const list = async () => (await unsent.list()).map(({ turn }) => turn);
            const add = (turn, message) => unsent.add({ turn, place: "p", message });
            let now = 0;
            Date.now = () => now++;
            for (let n = 0; n < 30; n += 1) add(`short ${n}`, "words");
            localStorage.setItem("holdline.unsent / broken", "{");
            localStorage.setItem("holdline.unsent / foreign", '{"turn": 5}');
            const short = await list();
            for (let n = 0; n < 5; n += 1) add(`long ${n}`, "x".repeat(300_000));
            return [short, await list()];
        }"""
    )
    latest = [f"short {n}" for n in range(10, 30)]
    assert found == [latest, [f"long {n}" for n in (2, 3, 4)]]


async def test_signing_out_removes_unsent_questions(page: Page, question: str) -> None:
    await OBSTACLES["storage"](page)
    await submit(page, question)
    await expect(failure(page)).to_contain_text("storage is full")
    assert len(await list_unsent(page)) == 1
    await page.locator("#sign-out").click()
    await page.locator("#sign-out-dialog .danger-button").click()
    await expect(page.locator("#welcome")).to_be_visible()
    await expect(page.locator("article.message")).to_have_count(0)
    assert await list_unsent(page) == []


@pytest.mark.parametrize("place", ["new", "known"])
async def test_a_limited_question_waits_as_long_as_the_server_says_and_is_asked_once(
    page: Page, upstream: ScriptedUpstream, question: str, place: str
) -> None:
    if place == "known":
        await ask_and_answer(page, upstream, f"0 {question}", "zero")
    seconds = ["2", "2"]  # for the EventSource, and for the fetch that finds out why it failed

    async def limit(route: Route) -> None:
        if seconds:
            headers = {"Content-Type": "application/json", "Retry-After": seconds.pop()}
            await route.fulfill(status=429, headers=headers, body=error("rate_limited"))
        else:
            await route.continue_()

    await page.route(STREAM, limit)
    await submit(page, f"1 {question}")
    await expect(answers(page).last.locator(".wait")).to_contain_text("Asking again in")
    await (await upstream.exchange(f"1 {question}")).answer("one")
    await expect(bodies(page).last).to_have_text("one")
    assert len(upstream.find_requests(f"1 {question}")) == 1


async def test_a_question_that_waits_is_stopped_and_kept(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await reject(429, error("rate_limited"), **{"Retry-After": "29"})(page)
    await submit(page, question)
    await expect(answers(page).locator(".wait")).to_contain_text("Asking again in")
    await page.locator("#stop").click()
    await expect(failure(page)).to_have_text(UNSENT)
    await expect(bodies(page)).to_have_text([question, ""])
    await page.unroute_all()
    await page.locator(".remedy:visible").click()
    await (await upstream.exchange(question)).answer("one")
    await expect(bodies(page)).to_have_text([question, "one"])


async def test_a_rejected_first_question_leaves_no_conversation(page: Page, question: str) -> None:
    await expect(page.locator("#model option")).not_to_have_count(0)
    await page.evaluate(
        "() => document.querySelector('#model').append(new Option('gone', 'gone', true, true))"
    )
    await submit(page, question)
    await expect(answers(page).locator(".failure")).to_contain_text("model")
    await page.reload()
    await expect(bodies(page)).to_have_text([question, ""])
    await expect(page.locator(TITLES)).to_have_count(0)


REFUSALS = {
    "refused": "Object.defineProperty(window, NAME, {"
    " get() { throw new DOMException('no', 'SecurityError'); } })",
    "missing": "Object.defineProperty(window, NAME, {value: null})",
    "full": "Storage.prototype.setItem = () => {"
    " throw new DOMException('no', 'QuotaExceededError'); }",
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_the_page_works_without_storage(
    browser: Browser, server: Server, upstream: ScriptedUpstream, question: str, refusal: str
) -> None:
    context = await browser.new_context(base_url=server.url)
    for name in ("localStorage", "sessionStorage"):
        await context.add_init_script(REFUSALS[refusal].replace("NAME", f"'{name}'"))
    page = await context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    await page.goto("/")
    await OBSTACLES["storage"](page)
    await submit(page, question)
    await expect(failure(page)).to_contain_text("storage is full")
    await page.locator("#new-chat").click()
    await expect(bodies(page)).to_have_text([question, ""])
    await page.unroute_all()
    await page.locator(".remedy:visible").click()
    await (await upstream.exchange(question)).answer("one")
    await expect(bodies(page)).to_have_text([question, "one"])
    assert errors == []
    await context.close()


async def test_a_browser_that_refuses_cookies_shows_what_the_page_needs(server: Server) -> None:
    blocked = {"profile": {"default_content_setting_values": {"cookies": 2}}}
    async with private_folder() as home, async_playwright() as playwright:
        (home / "Default").mkdir()
        (home / "Default" / "Preferences").write_text(json.dumps(blocked))
        context = await playwright.chromium.launch_persistent_context(
            home, executable_path=find_chromium(), args=[*ARGUMENTS, "--headless=new"]
        )
        page = await context.new_page()
        await page.add_init_script(  # as in Firefox, which then refuses it too
            "window.BroadcastChannel = class { constructor() {"
            " throw new DOMException('no', 'SecurityError'); } }"
        )
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        await page.goto(server.url)
        await expect(page.locator("#status")).to_contain_text("needs cookies")
        await expect(page.locator("#question")).to_be_disabled()
        assert errors == []
        await context.close()
