"""Answers that go on in the page by themselves, whatever happens to lines, tabs, computers and workers."""

import os
import signal

import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser.line import line_to
from tests.browser.reading import answers, ask, ask_and_hear, bodies
from tests.fake_upstream import ScriptedUpstream
from tests.processes import Server, holdline, serving

# Under Playwright no page is ever frozen, for it emulates the focus: the browser's own event is given here.
THAW = "() => document.dispatchEvent(new Event('resume'))"


@pytest.mark.parametrize("how", ["slept", "thawed", "silent"])
async def test_an_answer_goes_on_though_its_line_died_without_a_word(
    browser: Browser, server: Server, upstream: ScriptedUpstream, question: str, how: str
) -> None:
    async with line_to(server) as line:
        context = await browser.new_context(base_url=line.url)
        page = await context.new_page()
        await page.clock.install()
        await page.goto("/")
        exchange = await ask(page, upstream, question)
        await exchange.say("before ")
        await expect(answers(page).locator(".message-body")).to_have_text("before")
        line.go_dead()
        await exchange.say("unheard ")
        if how == "thawed":
            await page.evaluate(THAW)
        elif how == "slept":
            await page.clock.fast_forward(
                "20"
            )  # no timer runs meanwhile, as in a computer that sleeps
        else:
            await page.clock.run_for("31")  # all timers run: nothing but the silence can be noticed
        await expect(answers(page).locator(".message-body")).to_have_text("before unheard")
        await exchange.answer("and after")
        await expect(answers(page).locator(".message-body")).to_have_text(
            "before unheard and after"
        )
        assert len(upstream.asked(question)) == 1
        await context.close()


async def test_an_answer_grows_in_every_tab_and_browser_of_its_session(
    page: Page, browser: Browser, upstream: ScriptedUpstream, question: str
) -> None:
    exchange = await ask(page, upstream, question)
    await exchange.say("one ")
    await expect(answers(page).locator(".message-body")).to_have_text("one")
    tab = await page.context.new_page()
    elsewhere = await browser.new_context(storage_state=await page.context.storage_state())
    pages = [page, tab, await elsewhere.new_page()]
    for other in pages[1:]:
        await other.goto(page.url)
    for said, shown in (("two ", "one two"), ("three", "one two three")):
        await exchange.say(said)
        for each in pages:
            await expect(answers(each).locator(".message-body")).to_have_text(shown)
    await exchange.answer(".")
    for each in pages:
        await expect(bodies(each)).to_have_text([question, "one two three."])
        await expect(each.locator("[data-streaming]")).to_have_count(0)
    assert len(upstream.asked(question)) == 1
    await elsewhere.close()


async def test_an_idle_tab_that_is_looked_at_again_shows_what_was_asked_in_another(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await ask_and_hear(page, upstream, question, "first")
    idle = await page.context.new_page()
    await idle.goto(page.url)
    await expect(bodies(idle)).to_have_text([question, "first"])
    await idle.locator("#question").press("ArrowUp")
    await idle.locator(".question-editor textarea").fill("half a thought")
    exchange = await ask(page, upstream, f"later {question}")
    await exchange.say("grow")
    await idle.evaluate("() => window.dispatchEvent(new Event('focus'))")
    await expect(bodies(idle)).to_have_text([question, "first", f"later {question}", "grow"])
    await expect(idle.locator("#conversations .running-dot")).to_be_visible()
    await exchange.answer("n")
    await expect(answers(idle).last.locator(".message-body")).to_have_text("grown")
    await expect(idle.locator(".question-editor textarea")).to_have_value("half a thought")
    await expect(
        idle.locator(".question-editor").get_by_role("button", name="Send")
    ).to_be_enabled()
    await idle.close()


async def test_a_worker_is_killed_in_mid_answer_and_the_page_goes_on(
    browser: Browser, upstream: ScriptedUpstream, question: str
) -> None:
    settings = {
        "WORKERS": "2",
        "LEASE_S": "0.5",
        "OPENAI_BASE_URL": upstream.base_url,
        "CHAT_MODEL": "m",
    }
    async with holdline(**settings) as server:
        context = await browser.new_context(base_url=server.url)
        page = await context.new_page()
        await page.goto("/")
        exchange = await ask(page, upstream, question)
        said = f"seen of {question} "
        await exchange.say(said)
        await expect(answers(page).locator(".message-body")).to_have_text(said.strip())
        os.kill(serving(exchange.line), signal.SIGKILL)
        await (await upstream.continued(said)).answer("and on to the end")
        await expect(answers(page).locator(".message-body")).to_have_text(
            f"{said}and on to the end"
        )
        await expect(
            page.get_by_role("img", name="was interrupted with its server")
        ).to_be_visible()
        await context.close()


async def test_a_seam_is_shown_at_its_block_with_its_reason(
    browser: Browser, upstream: ScriptedUpstream, question: str
) -> None:
    spare = f'[{{"base_url": "{upstream.base_url}", "model": "spare"}}]'
    async with holdline(
        OPENAI_BASE_URL=upstream.base_url, CHAT_MODEL="m", UPSTREAMS=spare
    ) as server:
        context = await browser.new_context(base_url=server.url)
        page = await context.new_page()
        await page.goto("/")
        exchange = await ask(page, upstream, question)
        first = f"{'🦭' * 80} {question}\n\n- one\n- two bro"
        await exchange.say(first)
        await exchange.finish("length")
        exchange = await upstream.continued(first)
        second = "ken\n\n[a]: https://elsewhere.example\n\n"
        await exchange.say(second)
        await expect(answers(page).locator("li")).to_have_text(["one", "two broken"])
        exchange.drop()
        exchange = await upstream.continued(first + second)
        assert exchange.body["model"] == "spare"
        await exchange.answer("A [link][a].\n\nThe end.")
        for _ in range(2):
            seams = answers(page).locator(".seam")
            await expect(seams).to_have_count(2)
            assert [(await seam.inner_text()).split() for seam in await seams.all()] == [
                ["one", "two", "broken"],
                ["A", "link."],
            ]
            await expect(
                page.get_by_role("img", name="reached the model’s length limit")
            ).to_be_visible()
            await expect(page.get_by_role("img", name="and spare went on")).to_be_visible()
            await expect(page.get_by_text("continued 2 times")).to_be_visible()
            await page.reload()
        await context.close()


async def test_a_seam_anywhere_marks_one_block_and_changes_nothing_else(page: Page) -> None:
    found = await page.evaluate(
        """async (text) => {
            const { renderMarkdown } = await import("/js/markdown/render.js");
            const html = (seams, mark) => {
                const box = document.createElement("div");
                box.append(renderMarkdown(text, seams, mark));
                return box.innerHTML;
            };
            const points = [...text];
            const faults = [];
            const marked = [];
            for (let at = 0; at <= points.length; at += 1) {
                const shown = html([{ at }], (block) => (marked.push(block.textContent.trim()), block));
                if (shown !== html()) faults.push(at);
            }
            return { faults, length: points.length, count: marked.length, marked: [...new Set(marked)] };
        }""",
        "🦭 para\twith\ttabs\n===\n\n[a]: https://e.example\n\n- x\n\ty\n\n\n- z [a]\n\n```js\nfoo\n\n```\n"
        "after\r\n\r\n| a | b |\n|-|-|\n| 1 | 2 |\n\n\tcode\n\n> quote\nlazy\n\n***\n\nend\n\n\n",
    )
    assert found["faults"] == []
    assert found["count"] == found["length"] + 1
    first_words = [block.split()[0] if block else "" for block in found["marked"]]
    assert first_words == ["🦭", "x", "js", "after", "a", "code", "quote", "", "end"]
