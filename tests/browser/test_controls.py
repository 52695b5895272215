"""Copy, the drawer of a phone, and the focus."""

import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser.chat_page import answers, ask, ask_and_answer, questions
from tests.fake_upstream import ScriptedUpstream
from tests.processes import Server

REJECT = """() => {
  const reject = () => Promise.reject(new DOMException("denied", "NotAllowedError"));
  Object.defineProperty(navigator, "clipboard", { value: { writeText: reject } });
}"""
WITHOUT_CLIPBOARD = """() => {
  Object.defineProperty(navigator, "clipboard", { value: undefined });
  document.execCommand = () => false;
}"""


async def test_copied_code_has_no_trailing_newline(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    exchange = await ask(page, upstream, question)
    await exchange.send_text("```\n  one\n\ntwo\n")
    copy = answers(page).locator(".copy-code")
    await copy.click()
    read = "() => navigator.clipboard.readText()"
    assert await page.evaluate(read) == "  one\n\ntwo"
    await exchange.answer("three\n\n```\n\n- and\n\n  ```\n  four\n  ```\n")
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    for number, text in enumerate(["  one\n\ntwo\nthree", "four"]):
        await copy.nth(number).click()
        await expect(copy.nth(number)).to_have_accessible_name("Copied")
        assert await page.evaluate(read) == text


@pytest.mark.parametrize(
    ("locale", "message"),
    [
        ("en-US", "The browser did not allow copying. Select the text and copy it yourself."),
        ("zh-CN", "浏览器不允许复制。请选中文字后手动复制。"),
    ],
)
async def test_a_rejected_copy_is_reported(
    browser: Browser,
    server: Server,
    upstream: ScriptedUpstream,
    question: str,
    locale: str,
    message: str,
) -> None:
    context = await browser.new_context(base_url=server.url, locale=locale)
    page = await context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    for rejection in (REJECT, WITHOUT_CLIPBOARD):
        await page.goto("/")
        exchange = await ask(page, upstream, f"{question} {rejection}")
        await exchange.answer("```\ncode\n```")
        await expect(page.locator("[data-streaming]")).to_have_count(0)
        await page.evaluate(rejection)
        for button in (".copy-code", ".copy-answer"):
            await answers(page).last.locator(button).click()
            await expect(page.locator("#status")).to_have_text(message)
            await expect(page.locator("[data-copied]")).to_have_count(0)
            await page.evaluate("() => (document.querySelector('#status').textContent = '')")
        await page.goto("about:blank")
    assert errors == []
    await context.close()


async def test_the_drawer_takes_keeps_and_returns_the_focus(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await ask_and_answer(page, upstream, question, "an answer")
    await page.set_viewport_size({"width": 390, "height": 844})
    # Before this frame, matchMedia reports the new width, which closes the drawer.
    await page.evaluate("() => new Promise(requestAnimationFrame)")
    await page.locator("#open-list").press("Enter")
    await expect(page.locator("#close-list")).to_be_focused()
    within = "() => ['sidebar', 'BODY'].includes((document.activeElement.closest('#sidebar') ?? "
    within += "document.activeElement).id || document.activeElement.tagName)"
    for key in ("Tab",) * 9 + ("Shift+Tab",) * 9:
        await page.keyboard.press(key)
        assert await page.evaluate(within)
    await page.locator("#sidebar .brand").click()  # the focus is nowhere
    await page.keyboard.press("Escape")
    await expect(page.locator("#sidebar")).not_to_have_attribute("data-open", "")
    await expect(page.locator("#open-list")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.locator("#conversations .delete").focus()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Escape")  # closes the dialog alone
    await expect(page.locator("#delete-dialog")).to_be_hidden()
    await expect(page.locator("#sidebar")).to_have_attribute("data-open", "")
    await page.locator("#conversations a").click()  # of the conversation that is open
    await expect(page.locator("#sidebar")).not_to_have_attribute("data-open", "")
    await page.keyboard.press("Enter")
    await page.set_viewport_size({"width": 1280, "height": 800})
    await page.locator("#question").fill("no longer behind the drawer")


@pytest.mark.parametrize(("is_touched", "focused"), [(False, "question"), (True, "composer")])
async def test_the_focus_is_not_lost_after_stop(
    browser: Browser,
    server: Server,
    upstream: ScriptedUpstream,
    question: str,
    is_touched: bool,
    focused: str,
) -> None:
    """On a touch screen, the focus does not open a keyboard."""
    context = await browser.new_context(
        base_url=server.url, has_touch=is_touched, is_mobile=is_touched
    )
    page = await context.new_page()
    await page.goto("/")
    exchange = await ask(page, upstream, question)
    await exchange.send_text("some text")
    await expect(answers(page).locator(".message-body")).to_have_text("some text")
    await page.locator("#stop").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#stop")).to_be_hidden()
    await expect(page.locator(f"#{focused}")).to_be_focused()
    await context.close()


async def test_a_question_keeps_its_leading_spaces(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    text = f"    indented = 1\n{question}"
    await page.locator("#question").fill(f"\n \n{text}\n\n")
    await page.locator("#question").press("Enter")
    await (await upstream.exchange(text)).answer("fine")
    body = questions(page).locator(".message-body")
    await expect(body).to_have_js_property("textContent", text)
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    await page.reload()
    await expect(body).to_have_js_property("textContent", text)
    await page.locator("#question").press("ArrowUp")
    await page.locator(".question-editor textarea").fill(f"  {text}")
    await page.locator(".question-editor").get_by_role("button", name="Send").click()
    await (await upstream.exchange(f"  {text}")).answer("again")
    await expect(body).to_have_js_property("textContent", f"  {text}")


async def test_nodes_that_an_extension_adds_do_not_move_the_messages(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    """A translated question is edited in its own words."""
    await ask_and_answer(page, upstream, question, "an answer")
    await page.evaluate(
        """() => {
          const messages = document.querySelector("#messages");
          messages.prepend(document.createElement("font"));
          const added = () => document.createElement("div");
          for (const message of [...messages.children]) message.after(added());
          const question = messages.querySelector(".message-body");
          question.innerHTML = "<font><font>a translation</font></font>";
          globalThis.moved = 0;
          new MutationObserver((changes) => (moved += changes.length)).observe(
            messages, { childList: true });
        }"""
    )
    exchange = await ask(page, upstream, f"second {question}")
    await exchange.send_text("one ")
    await exchange.answer("two")
    await expect(answers(page).last.locator(".message-body")).to_have_text("one two")
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    assert await page.evaluate("() => moved") == 2  # the new question and its answer
    roles = "(all) => all.map((one) => one.dataset.role)"
    assert await page.locator("#messages article").evaluate_all(roles) == ["user", "assistant"] * 2
    await questions(page).first.hover()
    await questions(page).first.locator(".edit").click()
    await expect(page.locator(".question-editor textarea")).to_have_value(question)
