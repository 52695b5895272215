"""The demo model over its real socket: the protocol, the answers, and every fault."""

import asyncio
import json
import re
import runpy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from openai import AsyncOpenAI

from chat.demo import answers, chinese, english
from chat.demo.answers import ChatMessage, is_chinese, quote, reply_to, split_tokens
from chat.demo.model import FAULT_AFTER_TOKENS, MAX_LENGTH_TOKENS, MODELS, DemoModel

Messages = list[dict[str, str]]

TIMEOUT_S = 30
MAX_ROUNDS = 200
LANGUAGES = (english, chinese)
CONTINUE_PROMPT = "Continue exactly where you stopped. Repeat nothing."


@pytest_asyncio.fixture
async def base_url() -> AsyncIterator[str]:
    """Run a demo model without a delay between tokens; yield its base URL."""
    model = DemoModel(token_interval_s=0)
    yield await model.start()
    await model.stop()


@pytest_asyncio.fixture
async def client(base_url: str) -> AsyncIterator[AsyncOpenAI]:
    async with connect(base_url) as client:
        yield client


def connect(base_url: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=TIMEOUT_S)


def conversation(*texts: str) -> Messages:
    """Return messages of the user and the assistant in turn, beginning with the user."""
    return [
        {"role": ("user", "assistant")[number % 2], "content": text}
        for number, text in enumerate(texts)
    ]


async def complete(
    client: AsyncOpenAI, messages: Messages, model: str = "demo", **options: Any
) -> Any:
    untyped: Any = messages
    return await client.chat.completions.create(model=model, messages=untyped, **options)


async def ask(client: AsyncOpenAI, messages: Messages, model: str = "demo") -> str:
    """Return the full answer, not streamed."""
    completion = await complete(client, messages, model)
    answer: str = completion.choices[0].message.content
    return answer


async def stream(
    client: AsyncOpenAI, messages: Messages, model: str = "demo", **options: Any
) -> list[Any]:
    """Return every chunk of a streamed answer."""
    return [
        chunk async for chunk in await complete(client, messages, model, stream=True, **options)
    ]


def join_text(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def request_body(text: str, model: str = "demo", *, streamed: bool = True) -> dict[str, Any]:
    return {"model": model, "messages": conversation(text), "stream": streamed}


# The protocol


@pytest.mark.parametrize(
    "text", ["hello", "write some python", "你好", "用表格比较三种茶", "what is 1 + 1?"]
)
async def test_streamed_deltas_join_to_the_answer_that_is_not_streamed(
    client: AsyncOpenAI, text: str
) -> None:
    chunks = await stream(client, conversation(text))
    assert len(chunks) > 20
    assert join_text(chunks) == await ask(client, conversation(text))


async def test_a_stream_has_the_format_of_openai(base_url: str) -> None:
    async with httpx.AsyncClient() as http:
        response = await http.post(f"{base_url}/chat/completions", json=request_body("hello"))
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("data: [DONE]\n\n")
    events = response.text.removesuffix("\n\n").split("\n\n")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    assert {(chunk["id"], chunk["created"]) for chunk in chunks} == {
        (chunks[0]["id"], chunks[0]["created"])
    }
    assert {(chunk["object"], chunk["model"]) for chunk in chunks} == {
        ("chat.completion.chunk", "demo")
    }
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(list(chunk["choices"][0]["delta"]) == ["content"] for chunk in chunks[1:-1])
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * (
        len(chunks) - 1
    )
    assert chunks[-1]["choices"][0] == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": "stop",
    }


async def test_usage_is_sent_only_on_request(client: AsyncOpenAI) -> None:
    plain = await stream(client, conversation("hello"))
    assert all(chunk.usage is None and chunk.choices for chunk in plain)
    counted = await stream(client, conversation("hello"), stream_options={"include_usage": True})
    assert all(chunk.usage is None for chunk in counted[:-1])
    assert counted[-1].choices == []
    tokens = len(plain) - 2  # without the chunks of the role and of the finish reason
    assert counted[-1].usage.completion_tokens == tokens


async def test_usage_counts_the_tokens_of_the_text(client: AsyncOpenAI) -> None:
    completion = await complete(client, conversation("hello there"))
    assert completion.object == "chat.completion"
    assert completion.choices[0].finish_reason == "stop"
    usage = completion.usage
    assert usage.completion_tokens == len(split_tokens(completion.choices[0].message.content))
    assert usage.prompt_tokens == 1 + len(["hello", " there"])
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


async def test_the_models_endpoint_lists_every_model(client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == list(MODELS)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        b'{"model": "demo"}',
        b'{"model": "demo", "messages": []}',
        b'{"model": "demo", "messages": "hello"}',
        b'{"model": "demo", "messages": [{"content": "no role"}]}',
        b'{"messages": [{"role": "user", "content": "no model"}]}',
        b'{"model": "demo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 0}',
    ],
)
async def test_an_invalid_request_gets_an_error_in_the_format_of_openai(
    base_url: str, content: bytes
) -> None:
    async with httpx.AsyncClient() as http:
        response = await http.post(f"{base_url}/chat/completions", content=content)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert set(error) == {"message", "type", "param", "code"}


async def test_an_unknown_model_gets_404(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await ask(client, conversation("hello"), "gpt-9")
    assert caught.value.code == "model_not_found"


async def test_max_tokens_ends_an_answer_with_finish_reason_length(client: AsyncOpenAI) -> None:
    completion = await complete(client, conversation("hello"), max_tokens=7)
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.completion_tokens == 7


async def test_text_parts_are_read_as_one_text(base_url: str) -> None:
    parts = [{"type": "text", "text": "hel"}, {"type": "image_url"}, {"type": "text", "text": "lo"}]
    request = {"model": "demo", "messages": [{"role": "user", "content": parts}]}
    async with httpx.AsyncClient() as http:
        full = await http.post(
            f"{base_url}/chat/completions", json=request_body("hello", streamed=False)
        )
        in_parts = await http.post(f"{base_url}/chat/completions", json=request)
    assert in_parts.json()["choices"] == full.json()["choices"]


# The models that fail


@pytest.mark.parametrize("streamed", [True, False])
async def test_demo_drop_closes_the_connection_in_the_middle_of_the_answer(
    base_url: str, streamed: bool
) -> None:
    async with httpx.AsyncClient() as http:
        received = ""
        with pytest.raises(httpx.RemoteProtocolError):
            async with http.stream(
                "POST",
                f"{base_url}/chat/completions",
                json=request_body("hello", "demo-drop", streamed=streamed),
            ) as response:
                async for text in response.aiter_text():
                    received += text
    assert received.count('"content":') == (
        FAULT_AFTER_TOKENS + 1 if streamed else 0
    )  # with the empty content of the first chunk
    assert '"finish_reason":"' not in received
    assert "[DONE]" not in received


async def test_demo_stall_sends_no_more_data_until_the_client_disconnects(base_url: str) -> None:
    tasks_before = asyncio.all_tasks()
    received = 0
    async with httpx.AsyncClient(timeout=httpx.Timeout(TIMEOUT_S, read=1)) as http:
        with pytest.raises(httpx.ReadTimeout):
            async with http.stream(
                "POST", f"{base_url}/chat/completions", json=request_body("hello", "demo-stall")
            ) as response:
                async for line in response.aiter_lines():
                    received += '"content":' in line
    assert received == FAULT_AFTER_TOKENS + 1
    async with asyncio.timeout(TIMEOUT_S):
        while asyncio.all_tasks() - tasks_before:
            await asyncio.sleep(0.01)


async def test_demo_429_rejects_a_request_with_retry_after(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        await ask(client, conversation("hello"), "demo-429")
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.response.headers["retry-after"] == "1"


async def test_demo_reasoning_sends_the_reasoning_before_the_answer(client: AsyncOpenAI) -> None:
    chunks = await stream(
        client, conversation("hello"), "demo-reasoning", stream_options={"include_usage": True}
    )
    deltas = [chunk.choices[0].delta.model_dump(exclude_unset=True) for chunk in chunks[1:-2]]
    names = [name for delta in deltas for name in delta]
    reasoning = names.count("reasoning_content")
    assert reasoning > 10
    assert names == ["reasoning_content"] * reasoning + ["content"] * (len(names) - reasoning)
    assert "hello" in "".join(delta.get("reasoning_content", "") for delta in deltas)
    assert join_text(chunks) == await ask(client, conversation("hello"))
    usage = chunks[-1].usage
    assert usage.completion_tokens_details.reasoning_tokens == reasoning
    assert usage.completion_tokens == len(names)


@pytest.mark.parametrize("text", ["hello", "你好", "tell me about bread"])
@pytest.mark.parametrize("mode", ["prefill", "prompt", "prompt after every part"])
async def test_demo_length_continues_until_the_answer_is_complete(
    client: AsyncOpenAI, text: str, mode: str
) -> None:
    before = conversation("what came first", "The egg.", text)
    parts: list[str] = []
    for _ in range(MAX_ROUNDS):
        chunks = await stream(client, add_partial_answer(before, parts, mode), "demo-length")
        parts.append(join_text(chunks))
        assert len(chunks) - 2 <= MAX_LENGTH_TOKENS
        if chunks[-1].choices[0].finish_reason == "stop":
            break
        assert chunks[-1].choices[0].finish_reason == "length"
    assert len(parts) > 2
    assert "".join(parts) == await ask(client, before)


def add_partial_answer(before: Messages, parts: list[str], mode: str) -> Messages:
    """Return the conversation with a partial answer, as different clients send it."""
    if not parts:
        return before
    partial = {"role": "assistant", "content": "".join(parts)}
    if mode == "prefill":
        return [*before, partial]
    if mode == "prompt":
        return [*before, partial, {"role": "user", "content": CONTINUE_PROMPT}]
    rounds = (
        [{"role": "assistant", "content": part}, {"role": "user", "content": CONTINUE_PROMPT}]
        for part in parts
    )
    return [*before, *(message for pair in rounds for message in pair)]


@pytest.mark.parametrize("model", ["demo", "demo-drop", "demo-stall"])
async def test_a_partial_answer_is_finished_on_request(client: AsyncOpenAI, model: str) -> None:
    full = await ask(client, conversation("hello"))
    half = full[: len(full) // 2]
    assert half + await ask(client, conversation("hello", half, "请继续"), model) == full


async def test_a_partial_answer_is_finished_although_the_history_was_shortened(
    client: AsyncOpenAI,
) -> None:
    full = await ask(client, conversation("one", "…", "two", "…", "hello"))
    half = full[: len(full) // 2]
    assert half + await ask(client, conversation("hello", half, CONTINUE_PROMPT)) == full


async def test_a_new_question_after_a_partial_answer_gets_its_own_answer(
    client: AsyncOpenAI,
) -> None:
    half = (await ask(client, conversation("hello")))[:200]
    answer = await ask(client, conversation("hello", half, "compare some teas"))
    assert "Camellia sinensis" in answer


async def test_a_continuation_of_a_complete_answer_is_empty(client: AsyncOpenAI) -> None:
    full = await ask(client, conversation("hello"))
    completion = await complete(client, conversation("hello", full))
    assert completion.choices[0].message.content == ""
    assert completion.choices[0].finish_reason == "stop"


# The answers


async def test_an_answer_mentions_the_previous_question(client: AsyncOpenAI) -> None:
    first = await ask(client, conversation("Why is the sky blue?"))
    assert "Earlier you asked" not in first
    second = await ask(client, conversation("Why is the sky blue?", first, "And the sea?"))
    assert second.startswith("Earlier you asked: “Why is the sky blue?”\n")
    third = await ask(
        client, conversation("Why is the sky blue?", first, "And the sea?", second, "hello")
    )
    assert third.startswith("Earlier you asked: “And the sea?” (and one question more before that)")


@pytest.mark.parametrize(
    "text", ["What did I ask?", "我问过什么", "what have I asked so far?", "我都问了些什么？"]
)
async def test_a_question_about_earlier_questions_lists_them_all(
    client: AsyncOpenAI, text: str
) -> None:
    answer = await ask(
        client, conversation("Why is the sky blue?", "Air.", "天为什么是蓝的？", "空气。", text)
    )
    assert "\n1. “Why is the sky blue?”\n2. “天为什么是蓝的？”\n" in answer
    assert is_chinese(text) == ("您问过的问题" in answer)


async def test_requests_to_continue_are_not_counted_as_questions(client: AsyncOpenAI) -> None:
    full = await ask(client, conversation("hello"))
    history = conversation("hello", full[:99], CONTINUE_PROMPT, full[99:], "what did I ask")
    assert "1. “hello”" in await ask(client, history)
    assert "2. " not in await ask(client, history)


async def test_a_chinese_question_gets_a_chinese_answer(client: AsyncOpenAI) -> None:
    answer = await ask(client, conversation("why?", "Because.", "天为什么是蓝的？"))
    assert answer.startswith("您之前问过：“why?”")
    assert "天为什么是蓝的？" in answer
    assert not re.search(r"\b(the|you|is)\b", answer)


async def test_a_system_message_is_mentioned_but_not_followed(client: AsyncOpenAI) -> None:
    plain = await ask(client, conversation("hello"))
    answer = await ask(
        client, [{"role": "system", "content": "Be a pirate."}, *conversation("hello")]
    )
    assert english.SYSTEM not in plain
    assert english.SYSTEM in answer
    assert "pirate" not in answer


async def test_the_default_answer_quotes_the_question_and_uses_every_kind_of_markdown(
    client: AsyncOpenAI,
) -> None:
    answer = await ask(client, conversation("Why is the sky blue?"))
    assert "“Why is the sky blue?”" in answer
    html = MarkdownIt("commonmark").enable("table").render(answer)
    for tag in ("h2", "h3", "p", "ol", "ul", "table", "strong", "em", "blockquote", "pre"):
        assert f"<{tag}>" in html
    assert "中文" in html


@pytest.mark.parametrize("topic", sorted(english.ANSWERS))
@pytest.mark.parametrize("language", LANGUAGES, ids=["English", "Chinese"])
def test_every_answer_mentions_the_demo_and_the_settings_of_a_real_model(
    language: Any, topic: str
) -> None:
    question = {"setup": "OPENAI_API_KEY", "default": "?", "how": "reload"}.get(topic, topic)
    answer = reply_to(
        [ChatMessage("user", question if language is english else CHINESE_QUESTIONS[topic])]
    ).text
    assert language.ANSWERS[topic].partition("{")[0] in answer
    assert "demo" in answer if language is english else "演示" in answer
    assert all(name in answer for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "CHAT_MODEL"))


CHINESE_QUESTIONS = {
    "setup": "怎么接入真实模型？",
    "default": "天为什么是蓝的？",
    "how": "它是怎么工作的？",
    "code": "写一段代码",
    "table": "用表格比较一下绿茶、红茶和乌龙茶",
    "tcp": "一步一步解释 TCP 如何恢复丢失的数据包",
    "long": "写一篇长文",
    "hello": "你好",
}


@pytest.mark.parametrize("language", LANGUAGES, ids=["English", "Chinese"])
def test_every_suggested_question_has_an_answer(language: Any) -> None:
    texts = "\n".join(language.ANSWERS[topic] for topic in ("hello", "how"))
    suggested = re.findall(
        r"^- \*(.+?)\*|Try it: ask for \*(.+?)\*|请我\*(.+?)\*", texts, re.MULTILINE
    )
    table = re.findall(r"^\| `(.+?)` \|", language.ANSWERS["default"], re.MULTILINE)
    questions = [text for found in suggested for text in found if text] + table
    assert len(questions) == 11
    for text in questions:
        assert "\n{question}\n" in language.ANSWERS["default"]
        assert f"\n{quote(text)}\n" not in reply_to([ChatMessage("user", text)]).text, text


@pytest.mark.parametrize("topic", ["code"])
@pytest.mark.parametrize("language", LANGUAGES, ids=["English", "Chinese"])
def test_the_code_in_the_answer_runs(language: Any, topic: str, tmp_path: Path) -> None:
    found = re.search(r"```python\n(.+?)```", language.ANSWERS[topic], re.DOTALL)
    assert found
    (tmp_path / "merge.py").write_text(found[1], encoding="utf-8")
    runpy.run_path(str(tmp_path / "merge.py"))["test_merge"]()


@pytest.mark.parametrize("topic", sorted(english.ANSWERS))
@pytest.mark.parametrize("language", LANGUAGES, ids=["English", "Chinese"])
def test_answers_render_without_leftover_markdown_characters(language: Any, topic: str) -> None:
    tree = (
        MarkdownIt("commonmark")
        .enable("table")
        .parse(f"{language.ANSWERS[topic]}\n\n{language.NOTE}")
    )
    text = "".join(
        leaf.content for token in tree for leaf in token.children or () if leaf.type == "text"
    )
    assert not re.search(r"[*`_|\\#]", text)


def test_the_long_answer_is_long() -> None:
    assert (
        1_400 < len(reply_to([ChatMessage("user", "a long answer, please")]).text.split()) < 1_800
    )
    assert len(reply_to([ChatMessage("user", "写一篇长文")]).text) > 2_000


@pytest.mark.parametrize(
    ("text", "chinese"),
    [
        ("用 Python 写一个函数", True),
        ("你好 hi", True),
        ("What does 你好 mean?", False),
        ("こんにちは世界", False),
        ("?", False),
    ],
)
def test_the_language_is_that_of_most_words_of_the_question(text: str, chinese: bool) -> None:
    assert is_chinese(text) is chinese


@given(st.text())
def test_tokens_join_to_the_text(text: str) -> None:
    assert "".join(split_tokens(text)) == text
    assert all(split_tokens(text))


@pytest.mark.parametrize(
    "text",
    [
        "# *not* a _heading_ `code` [link](http://example.com) ![image](x)",
        "<script>alert(1)</script> &lt; \\*",
        "```\nfence\n```\n\n1. one\n2. two",
        "see https://example.com or www.example.com or me@example.com | a ~~b~~",
    ],
)
def test_a_quoted_question_renders_as_it_was_typed(text: str) -> None:
    assert render_text(quote(text)) == "“" + " ".join(text.split()) + "”"


@given(st.text(st.sampled_from("\\`*_[]()<>&|~#+-=.!:/@ \n\t\u202e\u200dab1中😀w")))
def test_no_question_escapes_its_quotation(text: str) -> None:
    line = render_text(quote(text))
    assert line.startswith("“")
    assert line.endswith("”")
    assert "\u202e" not in line
    assert len(line) <= answers.MAX_QUOTE_CHARS + 2


def render_text(markdown: str) -> str:
    """Render one line; fail if it contains anything but text."""
    inline = MarkdownIt("commonmark").enable(["strikethrough", "table"]).parse(f"1. {markdown}")[3]
    assert inline.type == "inline"
    assert {token.type for token in inline.children or ()} <= {"text", "text_special"}
    return "".join(token.content for token in inline.children or ())


# Starting and stopping


@pytest.mark.parametrize(("model", "token_interval_s"), [("demo-stall", 0), ("demo", 3600)])
async def test_stop_closes_open_streams_immediately(model: str, token_interval_s: float) -> None:
    demo = DemoModel(token_interval_s=token_interval_s)
    async with connect(await demo.start()) as client:
        answer = await complete(client, conversation("hello"), model, stream=True)
        assert (await anext(answer)).choices[0].delta.role == "assistant"
        async with asyncio.timeout(TIMEOUT_S):
            await demo.stop()
        with pytest.raises(openai.APIConnectionError):
            _ = [chunk async for chunk in answer]
        with pytest.raises(openai.APIConnectionError):
            await ask(client, conversation("hello"))


async def test_stop_is_harmless_when_repeated_or_before_a_start() -> None:
    demo = DemoModel()
    await demo.stop()
    await demo.start()
    await demo.stop()
    await demo.stop()


async def test_each_model_listens_on_loopback_on_its_own_port() -> None:
    one, other = DemoModel(), DemoModel()
    first, second = await one.start(), await other.start()
    assert first != second
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", first)
    await one.stop()
    await other.stop()
