"""The branch that the page shows is the one on which the server asks the next question."""

from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.chat_page import STREAM, answers, ask_and_answer, bodies, questions
from tests.fake_upstream import ScriptedUpstream

UNSENT = "This question has not been sent."
OBSTACLES = {
    "failure": (500, "internal", {}),
    "storage": (507, "storage_full", {}),
    "limit": (429, "rate_limited", {}),
    "stopped wait": (429, "rate_limited", {"Retry-After": "29"}),
}
# Each obstacle, and each place of the edited question: the first, a middle and the last one.
CASES = [
    ("failure", 0), ("failure", 1), ("failure", 2),
    ("storage", 1), ("limit", 2), ("stopped wait", 0),
]  # fmt: skip


async def reject(page: Page, status: int, kind: str, headers: dict[str, str]) -> None:
    body = f'{{"error": {{"type": "{kind}", "message": "Not now."}}}}'
    headers = {"Content-Type": "application/json", **headers}
    await page.route(STREAM, lambda route: route.fulfill(status=status, headers=headers, body=body))


async def begin(page: Page, upstream: ScriptedUpstream, name: str) -> list[str]:
    """Ask three questions in a new conversation; return the texts of its messages."""
    await page.locator("#new-chat").click()
    for number in range(3):
        await ask_and_answer(page, upstream, f"{number} {name}", f"answer {number}")
    return [text for number in range(3) for text in (f"{number} {name}", f"answer {number}")]


async def submit(page: Page, question: str) -> None:
    await page.locator("#question").fill(question)
    await page.locator("#question").press("Enter")


async def edit(page: Page, question: Locator, text: str) -> None:
    await question.hover()
    await question.get_by_role("button", name="Edit question").click()
    field = page.get_by_role("textbox", name="Edit your question")
    await field.fill(text)
    await field.press("Control+Enter")


async def click(article: Locator, button: str) -> None:
    await article.hover()
    await article.get_by_role("button", name=button).click()


async def try_again(page: Page, question: str) -> None:
    """Send an unsent question again: the answer after it offers that."""
    shown = await questions(page).locator(".message-body").all_inner_texts()
    await answers(page).nth(shown.index(question)).locator(".remedy").click()


async def answer(page: Page, upstream: ScriptedUpstream, question: str, text: str) -> list[str]:
    """Answer the only request for a question; return the texts that it contained."""
    exchange = await upstream.exchange(question)
    await exchange.answer(text)
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    assert len(upstream.find_requests(question)) == 1
    return [message["content"] for message in exchange.messages]


async def expect_shown(page: Page, branch: list[str], *unsent: str) -> None:
    """Expect these messages, before and after a reload, and then each unsent question."""
    texts = [*branch, *(text for question in unsent for text in (question, ""))]
    await expect(bodies(page)).to_have_text(texts)
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    await page.reload()
    await expect(bodies(page)).to_have_text(texts)
    await expect(page.locator(".failure-text", has_text=UNSENT)).to_have_count(len(unsent))


@pytest.mark.parametrize(("obstacle", "number"), CASES)
async def test_the_next_question_is_asked_on_the_branch_shown_after_an_edit_failed(
    page: Page, upstream: ScriptedUpstream, question: str, obstacle: str, number: int
) -> None:
    await page.set_viewport_size({"width": 1280, "height": 400})
    branch = await begin(page, upstream, question)
    edited, later = f"edited {question}", f"later {question}"

    async def fail(text: str) -> None:
        await reject(page, *OBSTACLES[obstacle])
        await edit(page, questions(page).nth(number), text)
        if obstacle == "stopped wait":
            await expect(answers(page).last.locator(".wait")).to_contain_text("Asking again in")
            await page.locator("#stop").click()
        await expect(bodies(page)).to_have_text([*branch, text, ""])
        await expect(answers(page).last.locator(".failure")).to_be_in_viewport()
        await page.unroute_all()

    await fail(f"discarded {question}")
    await click(questions(page).last, "Discard question")
    await expect_shown(page, branch)

    await fail(f"discarded {question}")
    await page.reload()
    await expect(bodies(page)).to_have_text([*branch, f"discarded {question}", ""])
    await click(questions(page).last, "Discard question")
    await expect_shown(page, branch)

    await fail(edited)
    await submit(page, later)
    assert await answer(page, upstream, later, "reply") == [*branch, later]
    await expect(bodies(page)).to_have_text([*branch, edited, "", later, "reply"])
    await page.reload()
    await expect_shown(page, [*branch, later, "reply"], edited)
    await try_again(page, edited)
    before = branch[: 2 * number]
    assert await answer(page, upstream, edited, "another") == [*before, edited]
    await expect_shown(page, [*before, edited, "another"])
    await click(questions(page).nth(number), "Previous version")
    await expect_shown(page, [*branch, later, "reply"])


async def begin_late(page: Page) -> None:
    await page.unroute_all()


async def fail_late(page: Page) -> None:
    await page.unroute_all()
    await reject(page, 500, "internal", {})


async def stop(page: Page) -> None:
    for left in (1, 0):
        await page.locator("#stop").click()
        await expect(page.locator("[data-streaming]")).to_have_count(left)
    await page.unroute_all()


async def reload(page: Page) -> None:
    await page.unroute_all()
    await page.reload()


ENDINGS: dict[str, Callable[[Page], Awaitable[None]]] = {
    "begins": begin_late,
    "fails": fail_late,
    "is stopped": stop,
    "is reloaded": reload,
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_question_typed_after_an_edit_that_waits_is_sent_only_if_the_edit_begins(
    page: Page, upstream: ScriptedUpstream, question: str, ending: str
) -> None:
    branch = await begin(page, upstream, question)
    edited, later = f"edited {question}", f"later {question}"
    await reject(page, 429, "rate_limited", {"Retry-After": "2"})
    await edit(page, questions(page).nth(1), edited)
    await expect(answers(page).last.locator(".wait")).to_contain_text("Asking again in")
    await submit(page, later)
    await expect(bodies(page)).to_have_text([*branch[:2], edited, "", later, ""])
    await ENDINGS[ending](page)
    if ending != "begins":
        await expect(page.locator(".failure:visible")).to_have_count(2)
        await expect(bodies(page)).to_have_text([*branch, edited, "", later, ""])
        await page.unroute_all()
        assert upstream.find_requests(edited) == upstream.find_requests(later) == []
        await expect_shown(page, branch, edited, later)
        await try_again(page, edited)
        assert await answer(page, upstream, edited, "another") == [*branch[:2], edited]
        await expect_shown(page, [*branch[:2], edited, "another"], later)
        await try_again(page, later)
        assert await answer(page, upstream, later, "reply") == [
            *branch[:2], edited, "another", later,
        ]  # fmt: skip
    else:
        exchange = await upstream.exchange(later)
        await exchange.answer("reply")
        asked = [one["content"] for one in exchange.messages]
        assert asked[:2] == branch[:2]
        assert edited in asked[2]
    await expect(bodies(page).last).to_have_text("reply")


async def test_a_question_typed_after_a_regeneration_that_fails_is_not_sent(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    branch = await begin(page, upstream, question)
    await reject(page, 429, "rate_limited", {"Retry-After": "2"})
    await click(answers(page).first, "Regenerate")
    await expect(answers(page).last.locator(".wait")).to_contain_text("Asking again in")
    await submit(page, f"later {question}")
    await expect(bodies(page)).to_have_text([branch[0], "", f"later {question}", ""])
    await fail_late(page)
    await expect(answers(page).last.locator(".failure-text")).to_have_text(UNSENT)
    assert upstream.find_requests(f"later {question}") == []
    await expect_shown(page, branch, f"later {question}")


async def test_an_unsent_question_stays_when_another_branch_is_begun(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    branch = await begin(page, upstream, question)
    await reject(page, 507, "storage_full", {})
    await submit(page, f"kept {question}")
    await expect(page.locator(".failure:visible")).to_have_count(1)
    await page.unroute_all()
    await edit(page, questions(page).nth(1), f"edited {question}")
    sent = await answer(page, upstream, f"edited {question}", "another")
    assert sent == [*branch[:2], f"edited {question}"]
    await expect_shown(page, [*sent, "another"], f"kept {question}")
    await click(answers(page).first, "Regenerate")
    await (await upstream.exchange(f"0 {question}", 2)).answer("again")
    await expect_shown(page, [branch[0], "again"], f"kept {question}")


async def test_an_unsent_edit_is_sent_on_its_own_branch_if_another_one_is_shown(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    branch = await begin(page, upstream, question)
    await reject(page, 507, "storage_full", {})
    await edit(page, questions(page).last, f"last {question}")
    await expect(bodies(page)).to_have_text([*branch, f"last {question}", ""])
    await page.unroute_all()
    await edit(page, questions(page).first, f"first {question}")
    sent = await answer(page, upstream, f"first {question}", "another")
    await expect(bodies(page)).to_have_text([*sent, "another", f"last {question}", ""])
    await try_again(page, f"last {question}")
    exchange = await upstream.exchange(f"last {question}")
    asked = [message["content"] for message in exchange.messages]
    assert asked == [*branch[:4], f"last {question}"]
    await expect(bodies(page)).to_have_text([*asked, ""])
    await exchange.answer("reply")
    await expect_shown(page, [*asked, "reply"])
