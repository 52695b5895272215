"""Use the page in a real browser as a user does."""

import json
import re
import signal

import pytest
from playwright.async_api import Browser, Page, expect

from chat.demo.essays import CHINESE, ENGLISH
from tests.browser.chat_page import answers, ask
from tests.fake_upstream import ScriptedUpstream
from tests.processes import ROOT, private_folder, start

CASES = json.loads((ROOT / "tests" / "cjk_emphasis.json").read_text())


async def test_two_answers_stream_and_remain_after_a_reload(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    exchange = await ask(page, upstream, question)
    answer = answers(page).last
    await exchange.send_text("First ")
    await expect(answer.locator(".message-body")).to_have_text("First")
    await expect(page.locator("[data-streaming]")).to_have_count(1)
    await exchange.send_text("**then** ")
    await expect(answer.locator("strong")).to_have_text("then")
    await exchange.answer("the end.")
    await expect(answer.locator(".message-body")).to_have_text("First then the end.")
    await expect(page.locator("[data-streaming]")).to_have_count(0)

    second = f"{question} again"
    exchange = await ask(page, upstream, second)
    assert len(exchange.messages) == 3
    await exchange.answer("| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\nprint('你好')\n```\n")
    await expect(answers(page).last.locator("td")).to_have_text(["1", "2"])
    await expect(answers(page).last.locator("pre code")).to_contain_text("print('你好')")
    await expect(page.locator("[data-streaming]")).to_have_count(0)

    await page.reload()
    await expect(page.locator("article.message")).to_have_count(4)
    await expect(page.locator('article.message[data-role="user"] .message-body')).to_have_text(
        [question, second]
    )
    await expect(answers(page).first.locator(".message-body")).to_have_text("First then the end.")
    await expect(answers(page).last.locator("td")).to_have_text(["1", "2"])
    await expect(page.locator("#conversations li")).to_have_count(1)


async def test_a_reload_during_an_answer_resumes_it(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    exchange = await ask(page, upstream, question)
    await exchange.send_text("before ")
    await expect(answers(page).locator(".message-body")).to_have_text("before")
    await expect(page).to_have_url(re.compile("#."))
    await page.reload()
    await expect(answers(page).locator(".message-body")).to_have_text("before")
    await exchange.answer("after")
    await expect(answers(page).locator(".message-body")).to_have_text("before after")
    assert len(upstream.find_requests(question)) == 1


SHAPES = {
    "essay": ENGLISH[:6000],
    "chinese": CHINESE[:4000],
    "lists": """1. one

   more of it
2. two
   - a
   - b

3. three

- [ ] open
- [x] done

and a paragraph
of two lines""",
    "tables": """| a | b |
|:--|--:|
| 1 | **2** |
| 3 | `4` |

After the table

Title
=====

> quoted
> - list

***
end""",
    "code": """before

```python
def f():

    return 1
```

    indented

~~~
not [a]: link
~~~
end""",
    "definitions": """see [one][1] and [two]

words

> [two]: https://example.org/2

[1]: https://example.org/1 'title'
""",
}


LOOK = """(body) => [...body.querySelectorAll("*:not(.text-chunk)")].map((element) => {
  const attributes = [...element.attributes].map(({ name, value }) => `${name}=${value}`);
  return [element.localName, ...attributes.sort(), element.textContent.trim()];
})"""
"""Returns the elements of a body, their attributes and their texts."""


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_streamed_answer_looks_the_same_after_a_reload(
    page: Page, upstream: ScriptedUpstream, question: str, shape: str
) -> None:
    text = SHAPES[shape]
    exchange = await ask(page, upstream, question)
    await exchange.answer(*(text[at : at + 7] for at in range(0, len(text), 7)))
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    body = answers(page).last.locator(".message-body")
    await expect(body).not_to_be_empty()
    streamed = await body.evaluate(LOOK)
    await page.reload()
    await expect(body).not_to_be_empty()
    assert await body.evaluate(LOOK) == streamed


async def test_shift_enter_adds_a_line_and_an_input_method_does_not_submit(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    field = page.locator("#question")
    await field.fill(question)
    await field.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    await field.dispatch_event("keydown", {"key": "Enter", "keyCode": 229})
    await field.press("Shift+Enter")
    await field.press_sequentially("second line")
    assert await field.input_value() == f"{question}\nsecond line"
    assert upstream.find_requests(question) == []
    await field.press("Enter")
    exchange = await upstream.exchange(f"{question}\nsecond line")
    await exchange.answer("both lines")
    await expect(answers(page).locator(".message-body")).to_have_text("both lines")


async def test_hostile_markdown_is_shown_without_effect(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    exchange = await ask(page, upstream, question)
    await exchange.answer(
        "<script>window.attacked = 1</script>\n\n",
        "<img src=x onerror='window.attacked = 1'>\n\n",
        "[click](javascript:window.attacked=1) ![pixel](https://other.example/p.png)\n\n",
        "<iframe src=https://other.example></iframe>",
        " <b onclick='window.attacked = 1'>bold</b>\n\nend",
    )
    body = answers(page).locator(".message-body")
    await expect(body).to_contain_text("end")
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    await expect(body).to_contain_text("<script>window.attacked = 1</script>")
    await expect(body.locator("img, script, iframe, [onclick], [onerror]")).to_have_count(0)
    await expect(body.locator('a[href^="javascript:"]')).to_have_count(0)
    assert await page.evaluate("() => window.attacked") is None


@pytest.mark.parametrize(("markdown", "expected"), CASES)
async def test_emphasis_next_to_chinese_punctuation_is_rendered(
    page: Page, markdown: str, expected: str
) -> None:
    shown = await page.evaluate(
        """async (text) => {
            const { renderMarkdown } = await import("/js/markdown/render.js");
            const box = document.createElement("div");
            box.append(renderMarkdown(text));
            return box.innerHTML.trim();
        }""",
        markdown,
    )
    assert shown == f"<p>{expected}</p>"


async def test_a_failed_question_is_retried_without_a_duplicate(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    exchange = await ask(page, upstream, question)
    exchange.reply(401, {"error": {"message": "no"}})
    await expect(page.locator(".failure")).to_contain_text("OPENAI_API_KEY")
    await page.locator(".remedy").click()
    await (await upstream.exchange(question, 2)).answer("now it works")
    await expect(answers(page).last.locator(".message-body")).to_have_text("now it works")
    await expect(page.locator('article.message[data-role="user"]')).to_have_count(1)
    await page.reload()
    await expect(page.locator("article.message")).to_have_count(2)


async def test_a_stopped_answer_keeps_its_text(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    exchange = await ask(page, upstream, question)
    await exchange.send_text("half of it")
    await expect(answers(page).locator(".message-body")).to_have_text("half of it")
    await page.locator("#stop").click()
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    await exchange.closed.wait()
    await page.reload()
    await expect(answers(page).locator(".message-body")).to_have_text("half of it")


async def test_a_new_chat_adds_a_conversation_to_the_list(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await (await ask(page, upstream, question)).answer("one")
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    await page.locator("#new-chat").click()
    await expect(page.locator("article.message")).to_have_count(0)
    await (await ask(page, upstream, f"{question} two")).answer("two")
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    await expect(page.locator("#conversations li")).to_have_count(2)
    await expect(page.locator('#conversations [aria-current="page"]')).to_contain_text("two")
    await page.locator("#conversations li").last.locator("a").click()
    await expect(answers(page).locator(".message-body")).to_have_text("one")


async def test_a_conversation_is_renamed_and_deleted(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await (await ask(page, upstream, question)).answer("one")
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    item = page.locator("#conversations li")
    await item.hover()
    await item.get_by_role("button", name="Rename").click()
    await page.get_by_role("textbox", name="Title").fill("A new title")
    await page.get_by_role("textbox", name="Title").press("Enter")
    await expect(page.locator("#title")).to_have_text("A new title")
    await item.hover()
    await item.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog", name="Delete this conversation?")
    await expect(dialog).to_contain_text("A new title")
    await dialog.get_by_role("button", name="Delete").click()
    await expect(item).to_have_count(0)
    await expect(page.locator("article.message")).to_have_count(0)


async def test_a_question_too_long_for_a_url_is_sent_by_post(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    exchange = await ask(page, upstream, "长问题" * 3000 + question)
    await exchange.answer("read it all")
    await expect(answers(page).locator(".message-body")).to_have_text("read it all")
    assert len(upstream.find_requests(question)) == 1


async def test_a_phone_shows_the_list_as_a_drawer_without_overflow(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await page.set_viewport_size({"width": 390, "height": 844})
    await (await ask(page, upstream, question)).answer(
        "x" * 500 + "\n\n| a | b |\n|-|-|\n" + "| 1 | 2 |\n" * 3
    )
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    assert await page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    await expect(page.locator("#question")).to_be_in_viewport()
    await expect(page.locator("#conversations li")).not_to_be_in_viewport()


async def test_an_answer_is_complete_after_a_network_outage(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    exchange = await ask(page, upstream, question)
    await exchange.send_text("seen ")
    await expect(answers(page).locator(".message-body")).to_have_text("seen")
    await page.context.set_offline(True)
    await expect(page.locator("#status")).to_have_text("Connection lost. Reconnecting…")
    await exchange.send_text("during the outage ")
    await page.context.set_offline(False)
    await expect(page.locator("#status")).to_be_empty()
    await exchange.answer("and after")
    await expect(answers(page).locator(".message-body")).to_have_text(
        "seen during the outage and after"
    )
    assert len(upstream.find_requests(question)) == 1


async def test_an_answer_continues_after_the_server_is_killed(
    browser: Browser, upstream: ScriptedUpstream, question: str
) -> None:
    settings = {"OPENAI_BASE_URL": upstream.base_url, "CHAT_MODEL": "m"}
    async with private_folder() as home:
        server = await start(home, **settings)
        context = await browser.new_context(base_url=server.url)
        page = await context.new_page()
        await page.goto("/")
        exchange = await ask(page, upstream, question)
        partial = f"seen of {question} "
        await exchange.send_text(partial)
        await expect(answers(page).locator(".message-body")).to_have_text(partial.strip())
        await server.stop(signal.SIGKILL)
        server = await start(home, **settings, PORT=server.url.rpartition(":")[2])
        await (await upstream.continued(partial)).answer("to the end")
        await expect(answers(page).locator(".message-body")).to_have_text(f"{partial}to the end")
        await expect(page.get_by_text("continued once")).to_be_visible()
        await context.close()
        await server.stop()
