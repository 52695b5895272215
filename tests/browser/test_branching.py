"""Edit questions, regenerate answers, and switch between their versions, in a real browser."""

from playwright.async_api import Page, expect

from tests.browser.chat_page import answers, ask, ask_and_answer, bodies, questions
from tests.fake_upstream import ScriptedUpstream


async def test_an_edited_question_keeps_the_old_branch(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await ask_and_answer(page, upstream, f"1 {question}", "one")
    await ask_and_answer(page, upstream, f"2 {question}", "two")
    second = questions(page).last
    await second.hover()
    await second.get_by_role("button", name="Edit question").click()
    field = page.get_by_role("textbox", name="Edit your question")
    await expect(field).to_be_focused()
    await field.fill("unwanted")
    await field.press("Escape")
    await expect(bodies(page)).to_have_text([f"1 {question}", "one", f"2 {question}", "two"])

    await page.locator("#question").press("ArrowUp")  # edits the last question
    await field.fill(f"2b {question}")
    for keys in ({"key": "Enter", "ctrlKey": True}, {"key": "Escape"}):
        await field.dispatch_event("keydown", {**keys, "isComposing": True})
    await field.press("Control+Enter")
    exchange = await upstream.exchange(f"2b {question}")
    sent = [message["content"] for message in exchange.messages]
    assert sent == [f"1 {question}", "one", f"2b {question}"]
    await exchange.send_text("two ")
    edited = page.get_by_role("group", name="Version 2 of 2")
    await expect(edited).to_have_text("2 / 2")
    await expect(edited.get_by_role("button", name="Previous version")).to_be_disabled()
    await exchange.answer("b")
    branch = [f"1 {question}", "one", f"2b {question}", "two b"]
    await expect(bodies(page)).to_have_text(branch)

    await edited.get_by_role("button", name="Previous version").click()
    await expect(bodies(page)).to_have_text([f"1 {question}", "one", f"2 {question}", "two"])
    await expect(page.get_by_role("group", name="Version 1 of 2")).to_be_visible()
    await page.keyboard.press("ArrowRight")  # the version switcher has the focus
    await expect(bodies(page)).to_have_text(branch)
    await page.reload()
    await expect(bodies(page)).to_have_text(branch)
    assert len(upstream.find_requests(question)) == 3


async def test_the_first_question_accepts_a_very_long_edit(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await ask_and_answer(page, upstream, question, "short")
    await page.locator("#question").press("ArrowUp")
    await page.locator(".question-editor textarea").fill("长问题" * 3000 + question)
    await page.locator(".question-editor").get_by_role("button", name="Send").click()
    exchange = await upstream.exchange(question, 2)
    assert len(exchange.messages) == 1
    await exchange.answer("long")
    await expect(answers(page).locator(".message-body")).to_have_text("long")
    await expect(questions(page).get_by_role("group")).to_have_text("2 / 2")


async def test_a_regeneration_resumes_after_a_reload(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await ask_and_answer(page, upstream, question, "first")
    await ask_and_answer(page, upstream, f"later {question}", "later")
    await answers(page).first.get_by_role("button", name="Regenerate").click()
    exchange = await upstream.exchange(question, 2 + 1)
    assert exchange.messages == [{"role": "user", "content": question}]
    await exchange.send_text("sec")
    await expect(bodies(page)).to_have_text([question, "sec"])
    await page.reload()
    await expect(bodies(page)).to_have_text([question, "sec"])
    await exchange.answer("ond")
    await expect(bodies(page)).to_have_text([question, "second"])
    await answers(page).get_by_role("button", name="Previous version").click()
    await expect(bodies(page)).to_have_text([question, "first", f"later {question}", "later"])
    assert len(upstream.find_requests(question)) == 3


async def test_a_failed_regeneration_shows_the_old_answer_and_the_reason(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await ask_and_answer(page, upstream, question, "first")
    await answers(page).get_by_role("button", name="Regenerate").click()
    (await upstream.exchange(question, 2)).reply(401, {"error": {"message": "no"}})
    await expect(page.locator(".failure")).to_contain_text("OPENAI_API_KEY")
    await expect(bodies(page)).to_have_text([question, "first"])
    await page.locator(".remedy").click()
    await (await upstream.exchange(question, 3)).answer("second")
    await expect(bodies(page)).to_have_text([question, "second"])
    await expect(answers(page).get_by_role("group")).to_have_text("2 / 2")
    await expect(page.locator(".failure")).to_be_hidden()


async def test_a_regeneration_stopped_without_text_shows_the_old_answer(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await ask_and_answer(page, upstream, question, "first")
    await answers(page).get_by_role("button", name="Regenerate").click()
    await upstream.exchange(question, 2)
    await page.locator("#stop").click()
    await expect(bodies(page)).to_have_text([question, "first"])
    await expect(page.locator(".failure")).to_be_hidden()
    await expect(answers(page).get_by_role("group")).to_be_hidden()


async def test_a_rejected_edit_shows_the_reason_and_can_be_retried(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await ask_and_answer(page, upstream, question, "first")
    rejection = '{"error": {"type": "rate_limited", "message": "Too many questions at once."}}'
    await page.route(
        "**/api/chat_stream/**",
        lambda route: route.fulfill(status=429, content_type="application/json", body=rejection),
    )
    await page.locator("#question").press("ArrowUp")
    await page.locator(".question-editor textarea").fill(f"edited {question}")
    await page.locator(".question-editor textarea").press("Control+Enter")
    await expect(answers(page).last.locator(".failure")).to_contain_text("Too many questions.")
    await expect(bodies(page)).to_have_text([question, "first", f"edited {question}", ""])
    await page.unroute_all()
    await answers(page).last.locator(".remedy").click()
    exchange = await upstream.exchange(f"edited {question}")
    assert len(exchange.messages) == 1
    await exchange.answer("second")
    await expect(bodies(page)).to_have_text([f"edited {question}", "second"])
    await questions(page).get_by_role("button", name="Previous version").click()
    await expect(bodies(page)).to_have_text([question, "first"])


async def test_a_question_on_another_version_extends_that_branch(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await ask_and_answer(page, upstream, question, "first")
    await answers(page).get_by_role("button", name="Regenerate").click()
    await (await upstream.exchange(question, 2)).answer("second")
    await answers(page).get_by_role("button", name="Previous version").click()
    await expect(bodies(page)).to_have_text([question, "first"])
    exchange = await ask(page, upstream, f"on {question}")
    sent = [message["content"] for message in exchange.messages]
    assert sent == [question, "first", f"on {question}"]
    await exchange.answer("from the first")
    branch = [question, "first", f"on {question}", "from the first"]
    await expect(bodies(page)).to_have_text(branch)
