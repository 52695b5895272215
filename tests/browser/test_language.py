"""The page's texts, and the failures it shows, in the user's language."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.browser.chat_page import answers, ask
from tests.fake_upstream import ScriptedUpstream
from tests.processes import ROOT, Server

STREAM = "**/api/chat_stream/**"
TURN = "turn-0123456789abcdef"

FAILURES = {
    "authentication": "模型服务拒绝了服务器的密钥",
    "not_found": "模型服务没有这个模型",
    "refused": "模型服务拒绝了这个问题",
    "upstream": "模型服务出错",
    "rate_limited": "模型服务繁忙或额度已用完",
    "loading": "模型仍在加载",
    "context_length": "对话超出了模型的上下文长度",
    "timeout": "等待模型服务超时",
    "unreachable": "无法连接模型服务",
    "certificate": "模型服务的证书不受信任",
    "proxy": "无法通过代理连接模型服务",
    "connection_lost": "与模型服务的连接已断开",
    "broke_off": "与模型服务的连接已断开",
    "invalid_response": "模型服务返回了无效的响应",
    "nonsense": "模型服务返回了无效的响应",
    "no_answer": "模型服务没有返回回答",
    "tool_call": "模型返回的是工具调用",
    "withheld": "回答被模型拒绝，或被模型服务屏蔽",
    "moderated": "回答未通过内容审核",
    "moderation_unavailable": "暂时无法完成内容审核",
    "too_long": "回答超出了一轮的长度上限",
    "too_slow": "生成回答的时间超出了上限",
    "length": "模型在写出内容之前就达到了长度上限",
    "history_unavailable": "暂时无法读取历史消息",
    "store": "暂时无法读取历史消息",
    "interrupted": "服务器在回答中途中断",
    "internal": "服务器内部出错",
}
"""The type of a failed turn, or its name in earlier releases, and the text it is shown as."""

REJECTIONS = {
    "bad_request": "请求有误",
    "forbidden": "请求来源未通过验证",
    "not_found": "请求的内容不存在",
    "conflict": "与正在进行的操作冲突",
    "too_large": "问题过长",
    "rate_limited": "提问过于频繁",
    "unavailable": "服务暂时不可用",
    "moderated": "问题或系统提示词未通过内容审核",
    "moderation_unavailable": "暂时无法完成内容审核",
    "internal": "服务器内部出错",
    "unreadable": "存储的数据已损坏",
    "http": "服务器返回了错误（400）",
}
"""The type of a rejected request, and the text it is shown as."""

SEAMS = {
    "length": ("reached the model’s length limit", "达到模型的长度上限"),
    "interrupted": ("was interrupted by a server failure", "因服务器中断而停止"),
    "connection_lost": ("lost the connection to the model", "因与模型的连接断开而中断"),
    "broke_off": ("lost the connection to the model", "因与模型的连接断开而中断"),
    "timeout": ("timed out waiting for the model", "因等待模型超时而中断"),
    "rate_limited": ("was rate-limited by the model service", "因模型服务繁忙而中断"),
    "unreachable": ("could not reach the model", "因无法连接模型而中断"),
    "unknown": ("was interrupted", "中断"),
}
"""The stored reason of a seam, and the text it is shown as in English and in Chinese."""

DETAILED = {
    "certificate",
    "context_length",
    "invalid_response",
    "loading",
    "no_answer",
    "nonsense",
    "not_found",
    "proxy",
    "rate_limited",
    "refused",
    "unreachable",
    "upstream",
    "withheld",
}
"""Failed turns whose English message is shown as well."""

WAITS = {
    "rate_limited": ("The model service is busy.", "模型服务繁忙"),
    "loading": ("The model is being loaded.", "模型正在加载"),
    "unreachable": ("The model service cannot be reached.", "暂时无法连接模型服务"),
    "upstream": ("The model service has failed.", "模型服务出错"),
    "unknown": ("The model service is not available.", "模型服务暂时不可用"),
}
"""The reason of a wait, and the text it is shown as in English and in Chinese."""

NOTICES = {
    "stopped": ("Stopped", "已停止"),
    "length": ("Truncated at the model’s length limit", "已达到模型的长度上限，回答被截断"),
    "content_filter": (
        "Declined or withheld by the model service",
        "回答被模型拒绝，或被模型服务屏蔽",
    ),
    "interrupted": (
        "The model could not continue this answer",
        "回答已中断：模型未能接着续写",
    ),
    "tool_calls": (
        "Ended with a tool call, which is not supported",
        "回答以工具调用结束，暂不支持",
    ),
}
"""The stored finish reason of an answer, and the notice under it in English and in Chinese."""


@pytest_asyncio.fixture
async def chinese_page(browser: Browser, server: Server) -> AsyncIterator[Page]:
    """Open the page in a browser whose language is Chinese."""
    context = await browser.new_context(base_url=server.url, locale="zh-CN")
    page = await context.new_page()
    await page.goto("/")
    yield page
    await context.close()


async def replace_response(page: Page, url: str, **response: Any) -> None:
    """Give this response to the page's requests for `url`, and none of the earlier ones."""
    await page.unroute_all()
    await page.route(url, lambda route: route.fulfill(**response))


async def ask_in_a_new_chat(page: Page) -> None:
    await page.locator("#new-chat").click()
    await page.locator("#question").fill("问题")
    await page.locator("#question").press("Enter")


async def fail_turn(page: Page, failure: dict[str, Any]) -> None:
    """Ask a question whose stream has one frame, `failed`."""
    body = f"event: failed\nid: {TURN}.99\ndata: {json.dumps(failure)}\n\n"
    await replace_response(page, STREAM, content_type="text/event-stream", body=body)
    await ask_in_a_new_chat(page)


async def test_a_failed_turn_is_explained_in_chinese_under_its_old_and_new_type(
    chinese_page: Page,
) -> None:
    for kind, text in FAILURES.items():
        await fail_turn(chinese_page, {"type": kind, "message": f"About {kind}."})
        failure = chinese_page.locator(".failure")
        await expect(failure.locator(".failure-text")).to_contain_text(text)
        detail = f"About {kind}." if kind in DETAILED else ""
        await expect(failure.locator(".failure-detail")).to_have_text(detail)


def test_every_documented_failure_has_a_chinese_text() -> None:
    behaviour = (ROOT / "docs" / "behaviour.md").read_text()
    documented = re.findall(r"^\| `(\w+)` \| .* \| (?:yes|no) \|$", behaviour, re.MULTILINE)
    assert set(documented) <= FAILURES.keys()


async def test_a_failure_of_an_unknown_type_shows_the_english_message(chinese_page: Page) -> None:
    await fail_turn(chinese_page, {"type": "constructor", "message": "Out of paper."})
    await expect(chinese_page.locator(".failure-text")).to_have_text("发生错误。")
    await expect(chinese_page.locator(".failure-detail")).to_have_text("Out of paper.")


async def test_an_english_page_shows_the_servers_message_alone(page: Page) -> None:
    await fail_turn(page, {"type": "upstream", "message": "Out of paper."})
    await expect(page.locator(".failure-text")).to_have_text("Out of paper.")
    await expect(page.locator(".failure-detail")).to_be_empty()


async def test_a_rejected_question_is_explained_in_chinese(chinese_page: Page) -> None:
    page = chinese_page
    for kind, text in REJECTIONS.items():
        body = json.dumps({"error": {"type": kind, "message": f"About {kind}."}})
        response = {"status": 400, "content_type": "application/json", "body": body}
        await replace_response(page, STREAM, **response)
        await ask_in_a_new_chat(page)
        await expect(page.locator(".failure-text")).to_contain_text(text)


async def test_the_page_is_simplified_chinese_in_a_chinese_browser(
    chinese_page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    page = chinese_page
    await expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    await expect(page.locator("#question")).to_have_attribute("placeholder", "想问什么都可以")
    await (await ask(page, upstream, question)).answer("回答")
    await expect(page.locator(".metadata")).to_contain_text("个 token")
    await expect(answers(page)).to_have_attribute("aria-label", "助手")
    await expect(page.get_by_role("button", name="重新生成")).to_be_visible()


async def test_both_languages_have_the_same_texts(page: Page) -> None:
    keys = await page.evaluate(
        """async () => {
          const { english } = await import("/js/strings/english.js");
          const { chinese } = await import("/js/strings/chinese.js");
          return [Object.keys(english), Object.keys(chinese)];
        }"""
    )
    assert keys[0] == keys[1]


async def test_a_wait_is_explained_in_the_language_of_the_page(
    page: Page, chinese_page: Page
) -> None:
    for kind, (english, chinese) in WAITS.items():
        wait = {"why": kind, "seconds": 600}
        await show_wait(page, wait, f"{english} Asking again in 600 s…")
        await show_wait(chinese_page, wait, f"{chinese}，600 秒后重试…")
    queued = {"why": "queued", "position": 3}
    text = "Waiting for a free slot of the model server: number 3 in the queue."
    await show_wait(page, queued, text)
    await show_wait(chinese_page, queued, "正在等待模型服务器空出位置，当前排在第 3 位。")


async def show_wait(page: Page, wait: dict[str, Any], text: str) -> None:
    """Ask a question whose stream has one frame, `waiting`, and expect its text."""
    await page.clock.set_fixed_time(0)
    body = f"event: waiting\ndata: {json.dumps(wait)}\n\n"
    await replace_response(page, STREAM, content_type="text/event-stream", body=body)
    await ask_in_a_new_chat(page)
    await expect(page.locator(".wait")).to_have_text(text)


async def test_a_notice_is_in_the_language_of_the_page(page: Page, chinese_page: Page) -> None:
    for reason, notices in NOTICES.items():
        answer = {"id": "a", "parent": "q", "role": "assistant", "created": 0, "content": "Yes."}
        question = {"id": "q", "parent": None, "role": "user", "content": "问", "created": 0}
        conversation = {"id": "c", "title": "t", "running": None, "earlier": False}
        messages = [question, {**answer, "finish_reason": reason}]
        body = json.dumps({**conversation, "messages": messages})
        for shown, notice in zip((page, chinese_page), notices, strict=True):
            url = "**/api/conversations/c?*"
            await replace_response(shown, url, content_type="application/json", body=body)
            await shown.goto("about:blank")
            await shown.goto("/#c")
            await expect(answers(shown).locator(".finish-reason")).to_have_text(notice)


async def test_a_stored_seam_is_explained_under_its_old_and_new_reason(
    page: Page, chinese_page: Page
) -> None:
    seams = [{"at": 8 * number, "why": reason} for number, reason in enumerate(SEAMS)]
    seams.append({"at": 8 * len(seams), "why": "timeout", "model": "spare"})
    answer = {"id": "a", "parent": "q", "role": "assistant", "created": 0, "continued": seams}
    answer["content"] = "Block.\n\n" * len(seams)
    question = {"id": "q", "parent": None, "role": "user", "content": "问", "created": 0}
    conversation = {"id": "c", "title": "t", "running": None, "earlier": False}
    body = json.dumps({**conversation, "messages": [question, answer]})
    english = [f"At this point, the answer {text} and was continued " for text, _ in SEAMS.values()]
    chinese = [f"回答在此处{text}，" for _, text in SEAMS.values()]
    expected = {
        page: [f"{text}automatically." for text in english]
        + ["At this point, the answer timed out waiting for the model and was continued by spare."],
        chinese_page: [f"{text}随后自动续写。" for text in chinese]
        + ["回答在此处因等待模型超时而中断，改由 spare 续写。"],
    }
    for shown, sentences in expected.items():
        url = "**/api/conversations/c?*"
        await replace_response(shown, url, content_type="application/json", body=body)
        await shown.goto("/#c")
        marks = answers(shown).locator(".continuation-mark")
        await expect(marks).to_have_count(len(sentences))
        labels = [await mark.get_attribute("aria-label") for mark in await marks.all()]
        assert labels == sentences
