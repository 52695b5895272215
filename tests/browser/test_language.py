"""The page's texts, and the failures it shows, in the user's language."""

import json
from typing import Any

from playwright.async_api import Page, expect

from tests.browser.chat_page import STREAM, answers, ask, ask_in_a_new_chat, replace_response
from tests.fake_upstream import ScriptedUpstream

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
        "Cut off by the model service’s content filter",
        "回答被模型服务的内容过滤器截断",
    ),
    "refusal": ("The model declined to answer", "模型拒绝回答"),
    "interrupted": (
        "The model could not continue this answer",
        "回答已中断：模型未能继续写完",
    ),
    "tool_calls": (
        "Ended with a tool call, which is not supported",
        "回答以工具调用结束；暂不支持工具调用",
    ),
}
"""The stored finish reason of an answer, and the notice under it in English and in Chinese."""


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
    await show_wait(chinese_page, queued, "正在排队等待模型，当前排在第 3 位。")


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
