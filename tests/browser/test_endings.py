"""Each way in which a turn can end has its own message, its own remedy, and one announcement."""

import json
import re
from typing import Any, NamedTuple

import pytest
from playwright.async_api import Page, expect

from chat import errors
from chat.upstream.response.endings import Ending
from tests.browser.chat_page import (
    STREAM,
    answers,
    ask,
    ask_and_answer,
    ask_in_a_new_chat,
    bodies,
    questions,
    read_announcements,
    replace_response,
    watch_announcements,
)
from tests.fake_upstream import ScriptedUpstream
from tests.processes import ROOT

TURN = "turn-0123456789abcdef"

REMEDIES = {
    "retry": ("Try again", "重试"),
    "edit": ("Edit question", "编辑问题"),
    "new chat": ("Ask in a new chat", "在新对话中提问"),
    "reload": ("Reload the page", "重新加载页面"),
}
"""The button after a failure, in English and in Chinese."""


class Row(NamedTuple):
    """The texts of a failure, and its remedy.

    Without an English text, the page shows the server's message: it says more. A Chinese page then
    shows that message as well.
    """

    english: str
    chinese: str
    remedy: str = "retry"


FAILURES = {
    "authentication": Row("", "模型服务拒绝了服务器的密钥"),
    "not_found": Row("", "模型服务没有这个模型"),
    "refused": Row("", "模型服务拒绝了这个问题", "edit"),
    "upstream": Row("", "模型服务出错"),
    "rate_limited": Row("", "模型服务繁忙或额度已用完"),
    "loading": Row("", "模型仍在加载"),
    "context_length": Row("", "对话超出了模型的上下文长度", "edit"),
    "timeout": Row("sent nothing for too long", "等待模型服务超时"),
    "unreachable": Row("", "无法连接模型服务"),
    "certificate": Row("", "模型服务的证书不受信任"),
    "proxy": Row("", "无法通过代理连接模型服务"),
    "connection_lost": Row("connection to the model service was lost", "与模型服务的连接已断开"),
    "broke_off": Row("connection to the model service was lost", "与模型服务的连接已断开"),
    "invalid_response": Row("", "模型服务返回了无效的响应"),
    "nonsense": Row("", "模型服务返回了无效的响应"),
    "no_answer": Row("", "模型服务没有返回回答"),
    "tool_call": Row("called a tool instead of answering", "模型返回的是工具调用"),
    "withheld": Row("", "模型拒绝回答，或回答被模型服务屏蔽", "edit"),
    "moderated": Row("flagged the answer", "回答未通过内容审核", "edit"),
    "moderation_unavailable": Row("answer cannot be checked", "暂时无法完成内容审核"),
    "too_long": Row("maximum length of one turn", "回答超出了单次回答的长度上限"),
    "too_slow": Row("took longer than the server allows", "生成回答的时间超出了上限"),
    "length": Row("before it wrote anything", "模型在写出内容之前就达到了长度上限", "edit"),
    "history_unavailable": Row("cannot read the conversation", "暂时无法读取历史消息"),
    "store": Row("cannot read the conversation", "暂时无法读取历史消息"),
    "interrupted": Row("server was interrupted", "服务器在回答中途中断"),
    "internal": Row("server failed during this answer", "服务器内部出错"),
    "constructor": Row("", "发生错误。"),  # of a later version
}
"""The type of a failed turn, or its name in earlier releases."""

REJECTIONS = {
    "bad_request": Row("", "请求有误", "reload"),
    "unknown_model": Row("model is no longer available", "已不再提供这个模型"),
    "unauthorised": Row("requires a key", "服务器需要密钥", "reload"),
    "forbidden": Row("", "请求来源未通过验证", "reload"),
    "not_found": Row("your session has expired", "可能已被删除，或会话已过期", "new chat"),
    "not_acceptable": Row("has no format", "无法提供此页面支持的响应格式", "reload"),
    "conflict": Row("change is still in progress", "与正在进行的操作冲突"),
    "too_large": Row("too large for the server", "问题过长，或此网站的 Cookie 过多", "edit"),
    "misdirected": Row("", "服务器不接受此页面所用的地址", "reload"),
    "rate_limited": Row("Too many questions. Try again in 42 s.", "提问过于频繁，请 42 秒后重试。"),
    "turns_exceeded": Row("Too many answers are being generated", "同时生成的回答过多"),
    "storage_full": Row("storage is full", "存储空间已满"),
    "quota_exceeded": Row("limit of size or number", "总大小或数量已达上限"),
    "conversation_full": Row("maximum number of messages", "消息数已达上限", "new chat"),
    "unavailable": Row("server is not ready", "服务暂时不可用"),
    "moderated": Row("flagged the question", "问题或系统提示词未通过内容审核", "edit"),
    "moderation_unavailable": Row("question cannot be checked", "问题未发送，请稍后重试"),
    "internal": Row("server failed unexpectedly", "服务器内部出错"),
    "unreadable": Row("conversation is damaged", "存储的数据已损坏", "new chat"),
    "http": Row("", "服务器返回了错误（400）"),
    "constructor": Row("", "发生错误。"),
}
"""The type of a rejected request. The server names the types, and the page the languages."""

STATUSES = {404: "reload", 405: "reload", 413: "edit", 500: "retry", 502: "retry"}
"""The status of a rejection that has no specific type, and the remedy."""

EMPTY = {
    ("stop", ""): Row("ended without writing an answer", "未生成任何回答就结束了"),
    ("stop", "\n\n"): Row("ended without writing an answer", "未生成任何回答就结束了"),
    ("stop", "thoughts"): Row("ended after its thoughts", "只输出了思考过程"),
    ("length", ""): Row("before it wrote anything", "写出内容之前就达到了长度上限", "edit"),
    ("length", "thoughts"): Row("before it wrote anything", "写出内容之前就达到了长度上限", "edit"),
    ("content_filter", ""): Row("withheld", "模型拒绝回答，或回答被模型服务屏蔽", "edit"),
    ("refusal", ""): Row("withheld", "模型拒绝回答，或回答被模型服务屏蔽", "edit"),
    ("tool_calls", ""): Row("called a tool", "模型返回的是工具调用"),
}
"""The upstream's finish reason and what it sent (thoughts, or white space) instead of an answer."""


async def read_texts(page: Page) -> dict[str, Any]:
    """Return the keys of the tables of both languages."""
    found: dict[str, Any] = await page.evaluate(
        """async () => {
          const { english } = await import("/js/strings/english.js");
          const { chinese } = await import("/js/strings/chinese.js");
          const list = (texts) => typeof texts !== "object" || Object.fromEntries(
            Object.entries(texts).map(([name, text]) => [name, list(text)]));
          return { english: list(english), chinese: list(chinese) };
        }"""
    )
    return found


def server_rejections() -> set[str]:
    """Return the types of the server's errors, and the one of HTTP's own errors."""
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    kinds = [kind for kind in classes if issubclass(kind, errors.HoldlineError)]
    return {"http"} | {k.type for k in kinds if not issubclass(k, errors.UpstreamError)}


def server_failures() -> set[str]:
    """Return the documented types of failed turns; test_docs.py compares them with the code."""
    behaviour = (ROOT / "docs" / "behaviour.md").read_text()
    return set(re.findall(r"^\| `(\w+)` \| .* \| (?:yes|no) \|$", behaviour, re.MULTILINE))


async def test_both_languages_have_a_text_for_every_ending_that_the_server_knows(
    page: Page,
) -> None:
    texts = await read_texts(page)
    assert texts["english"] == texts["chinese"]
    failures = texts["english"]["failures"]
    assert server_failures() <= failures["turn"].keys()
    assert server_rejections() <= failures["request"].keys()
    reasons = {ending.value for ending in Ending} - {"stop"} | {"stopped", "failed"}
    assert reasons == texts["english"]["finishReasons"].keys()


def test_every_ending_that_the_server_knows_is_tested() -> None:
    assert server_failures() <= FAILURES.keys()
    assert server_rejections() <= REJECTIONS.keys()


async def expect_ending(page: Page, row: Row, message: str = "") -> None:
    """Expect the message and the button after the last answer, and one announcement of it."""
    is_chinese = await page.locator("html").get_attribute("lang") == "zh-CN"
    box = answers(page).last.locator(".failure")
    text = row.chinese if is_chinese else row.english or message
    await expect(box.locator(".failure-text")).to_contain_text(text)
    detail = message if is_chinese and not row.english else ""
    await expect(box.locator(".failure-detail")).to_have_text(detail)
    await expect(box.get_by_role("button")).to_have_text(REMEDIES[row.remedy][is_chinese])
    shown = await box.locator(".failure-text").inner_text()
    assert await read_announcements(page) == [shown]


@pytest.mark.parametrize("language", ["english", "chinese"])
async def test_a_failed_turn_has_its_message_remedy_and_one_announcement(
    language: str, page: Page, chinese_page: Page
) -> None:
    shown = page if language == "english" else chinese_page
    await watch_announcements(shown)
    for number, (kind, row) in enumerate(FAILURES.items()):
        failure = {"type": kind, "message": f"About {kind}."}
        text = f"data: partial\nid: {TURN}.9\n\n" if number % 2 else ""
        body = f"{text}event: failed\nid: {TURN}.99\ndata: {json.dumps(failure)}\n\n"
        await replace_response(shown, STREAM, content_type="text/event-stream", body=body)
        await ask_in_a_new_chat(shown)
        await expect_ending(shown, row, failure["message"])


@pytest.mark.parametrize("language", ["english", "chinese"])
async def test_a_rejected_question_has_its_message_remedy_and_one_announcement(
    language: str, page: Page, chinese_page: Page
) -> None:
    shown = page if language == "english" else chinese_page
    await watch_announcements(shown)
    for kind, row in REJECTIONS.items():
        message = f"About {kind}."
        await reject(shown, 400, {"type": kind, "message": message})
        await ask_in_a_new_chat(shown)
        await expect_ending(shown, row, message)
    for status, remedy in STATUSES.items():
        await reject(shown, status, {"type": "http", "message": ""})
        await ask_in_a_new_chat(shown)
        is_chinese = language == "chinese"
        button = answers(shown).last.locator(".failure").get_by_role("button")
        await expect(button).to_have_text(REMEDIES[remedy][is_chinese])


async def reject(page: Page, status: int, error: dict[str, str]) -> None:
    """Reject the page's questions from now on."""
    headers = {"Content-Type": "application/json", "Retry-After": "42"}
    body = json.dumps({"error": error})
    await replace_response(page, STREAM, status=status, headers=headers, body=body)


@pytest.mark.parametrize("language", ["english", "chinese"])
async def test_an_answer_without_text_is_explained_and_announced_once(
    language: str, page: Page, chinese_page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    shown = page if language == "english" else chinese_page
    await watch_announcements(shown)
    for number, ((reason, content), row) in enumerate(EMPTY.items()):
        await shown.locator("#new-chat").click()
        exchange = await ask(shown, upstream, f"{question} {number}")
        field = "reasoning_content" if content.strip() else "content"
        await exchange.chunk({field: content})
        await exchange.finish(reason)
        await expect_empty(shown, row)
        announced = await read_announcements(shown)
        assert announced == [await answers(shown).locator(".failure-text").inner_text()]


async def expect_empty(page: Page, row: Row) -> None:
    """Expect the message and the button of an answer without text, and no other controls."""
    is_chinese = await page.locator("html").get_attribute("lang") == "zh-CN"
    text = row.chinese if is_chinese else row.english
    await expect(answers(page).locator(".failure-text")).to_contain_text(text)
    await expect(answers(page).locator("button:visible")).to_have_text(
        [REMEDIES[row.remedy][is_chinese]]
    )


async def test_an_empty_answer_is_explained_after_a_reload_and_stays_a_version(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await (await ask(page, upstream, question)).finish("stop")
    await expect_empty(page, EMPTY["stop", ""])
    await page.reload()
    await expect_empty(page, EMPTY["stop", ""])
    await answers(page).get_by_role("button", name="Try again").click()
    await (await upstream.exchange(question, 2)).answer("now it works")
    await expect(bodies(page)).to_have_text([question, "now it works"])
    await expect(answers(page).locator(".failure")).to_be_hidden()
    await answers(page).get_by_role("button", name="Previous version").click()
    await expect(answers(page).locator(".failure-text")).to_be_visible()
    await answers(page).get_by_role("button", name="Next version").click()
    await expect(bodies(page)).to_have_text([question, "now it works"])


async def test_a_regeneration_without_text_shows_the_old_answer_and_the_reason(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await ask_and_answer(page, upstream, question, "first")
    await answers(page).get_by_role("button", name="Regenerate").click()
    await (await upstream.exchange(question, 2)).finish("stop")
    await expect(bodies(page)).to_have_text([question, "first"])
    await expect(answers(page).locator(".failure-text")).to_contain_text("without writing")
    await expect(answers(page).get_by_role("group")).to_be_hidden()
    await page.reload()
    await expect(bodies(page)).to_have_text([question, "first"])
    await expect(answers(page).locator(".failure")).to_be_hidden()


@pytest.mark.parametrize("sent", ["", "reasoning_content", "content"])
async def test_a_stopped_answer_is_announced_as_stopped(
    page: Page, upstream: ScriptedUpstream, question: str, sent: str
) -> None:
    await watch_announcements(page)
    exchange = await ask(page, upstream, question)
    if sent:
        await exchange.chunk({sent: "the beginning"})
        await expect(answers(page)).to_contain_text("the beginning")
    await page.locator("#stop").click()
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    if sent == "content":
        await expect(answers(page).locator(".finish-reason")).to_have_text("Stopped")
        assert await read_announcements(page) == ["Stopped"]
    else:
        await expect(answers(page).locator(".failure")).to_contain_text("You stopped the answer")
        await expect(answers(page).get_by_text("Try again")).to_be_visible()
        assert await read_announcements(page) == ["You stopped the answer before it began."]


async def test_a_complete_answer_is_announced_once(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await watch_announcements(page)
    await ask_and_answer(page, upstream, question, "complete")
    assert await read_announcements(page) == ["The answer is complete."]


async def test_a_rejected_question_is_edited_in_its_place(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    for before in ([], [question, "first"]):
        await reject(page, 400, {"type": "moderated", "message": "No."})
        await page.locator("#question").fill(f"bad {question}")
        await page.locator("#question").press("Enter")
        await answers(page).last.get_by_text("Edit question").click()
        editor = page.locator(".question-editor textarea")
        await expect(editor).to_have_value(f"bad {question}")
        await page.unroute_all()
        asked = question if not before else f"better {question}"
        await editor.fill(asked)
        await editor.press("Control+Enter")
        answer = "second" if before else "first"
        await (await upstream.exchange(asked)).answer(answer)
        await expect(bodies(page)).to_have_text([*before, asked, answer])
    await page.reload()
    await expect(bodies(page)).to_have_text([question, "first", f"better {question}", "second"])
    await expect(questions(page).get_by_role("group")).to_have_count(0)


async def test_a_question_without_its_session_is_asked_in_a_new_chat(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await ask_and_answer(page, upstream, f"old {question}", "first")
    await page.context.clear_cookies()
    await page.locator("#question").fill(f"long and precious {question}")
    await page.locator("#question").press("Enter")
    await expect(answers(page).last.locator(".failure")).to_contain_text("session has expired")
    await page.locator("#question").fill("and a draft")
    await answers(page).last.get_by_text("Ask in a new chat").click()
    await expect(page.locator("article.message")).to_have_count(0)
    text = f"long and precious {question}\n\nand a draft"
    await expect(page.locator("#question")).to_have_value(text)
    await page.locator("#question").press("Enter")
    await (await upstream.exchange(text)).answer("second")
    await expect(bodies(page)).to_have_text([text, "second"])


async def test_try_again_sends_the_question_of_a_removed_model_to_another_one(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    info = {"model": "gone", "models": ["gone", "test-model"], "demo": False, "message_max": 32_000}
    body = json.dumps(info)
    await replace_response(page, "**/api/info", content_type="application/json", body=body)
    await page.reload()
    await expect(page.locator("#model")).to_have_value("gone")
    await page.unroute_all()
    await page.locator("#question").fill(question)
    await page.locator("#question").press("Enter")
    await expect(answers(page).locator(".failure")).to_contain_text("no longer available")
    await expect(page.locator("#model")).to_have_value("test-model")
    await answers(page).get_by_role("button", name="Try again").click()
    exchange = await upstream.exchange(question)
    assert exchange.body["model"] == "test-model"
    await exchange.answer("now it works")
    await expect(bodies(page)).to_have_text([question, "now it works"])


async def test_a_page_that_does_not_fit_the_server_is_reloaded(page: Page) -> None:
    await reject(page, 400, {"type": "bad_request", "message": "Invalid body."})
    await ask_in_a_new_chat(page)
    async with page.expect_navigation():
        await answers(page).get_by_text("Reload the page").click()


async def test_a_server_without_redis_is_named_once_until_the_answer_begins(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await ask_and_answer(page, upstream, f"{question} first", "first")
    await watch_announcements(page)
    stream = {"content_type": "text/event-stream", "body": "retry: 100\n\n"}
    async with page.expect_response("**/readyz") as ready:
        await page.route("**/readyz", lambda route: route.fulfill(status=503))
        await page.route(STREAM, lambda route: route.fulfill(**stream))
        await page.locator("#question").fill(question)
        await page.locator("#question").press("Enter")
    assert (await ready.value).status == 503
    await expect(page.locator("#status")).to_have_text("The server is not ready. Trying again…")
    for _ in range(2):
        async with page.expect_request("**/readyz"):
            pass
    assert await read_announcements(page) == [
        "Connection lost. Reconnecting…",
        "The server is not ready. Trying again…",
    ]
    await page.unroute_all()
    await (await upstream.exchange(question)).answer("second")
    await expect(answers(page).last.locator(".message-body")).to_have_text("second")
    await expect(page.locator("#status")).to_be_empty()
