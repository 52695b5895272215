"""The demo model, asked over its real socket: the protocol, the answers, and each way of failing."""

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
from chat.demo.answers import (
    Said,
    is_chinese,
    quote,
    reply_to,
    tokens,
)
from chat.demo.model import (
    BREAK_AFTER,
    LENGTH_MAX,
    MODELS,
    DemoModel,
)

Messages = list[dict[str, str]]

BOUND_S = 30  # only so that a failure ends
MOST_ROUNDS = 200
LANGUAGES = (english, chinese)
GO_ON = "Continue exactly where you stopped. Repeat nothing."


@pytest_asyncio.fixture
async def base_url() -> AsyncIterator[str]:
    """A demo model that does not dawdle."""
    model = DemoModel(pace_s=0)
    yield await model.start()
    await model.stop()


@pytest_asyncio.fixture
async def client(base_url: str) -> AsyncIterator[AsyncOpenAI]:
    async with connect(base_url) as client:
        yield client


def connect(base_url: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=BOUND_S)


def question(*texts: str) -> Messages:
    """A conversation so far: questions and answers in turn, the last a question."""
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
    """The whole answer, not streamed."""
    completion = await complete(client, messages, model)
    answer: str = completion.choices[0].message.content
    return answer


async def stream(
    client: AsyncOpenAI, messages: Messages, model: str = "demo", **options: Any
) -> list[Any]:
    """Every chunk of a streamed answer."""
    return [
        chunk async for chunk in await complete(client, messages, model, stream=True, **options)
    ]


def joined(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def body(text: str, model: str = "demo", *, streamed: bool = True) -> dict[str, Any]:
    return {"model": model, "messages": question(text), "stream": streamed}


# The protocol


@pytest.mark.parametrize(
    "text", ["hello", "write some python", "你好", "用表格比较三种茶", "what is 1 + 1?"]
)
async def test_the_streamed_pieces_join_to_the_answer_that_is_not_streamed(
    client: AsyncOpenAI, text: str
) -> None:
    chunks = await stream(client, question(text))
    assert len(chunks) > 20
    assert joined(chunks) == await ask(client, question(text))


async def test_a_stream_has_the_shape_of_openais(base_url: str) -> None:
    async with httpx.AsyncClient() as browser:
        response = await browser.post(f"{base_url}/chat/completions", json=body("hello"))
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


async def test_usage_comes_only_when_asked_for(client: AsyncOpenAI) -> None:
    plain = await stream(client, question("hello"))
    assert all(chunk.usage is None and chunk.choices for chunk in plain)
    counted = await stream(client, question("hello"), stream_options={"include_usage": True})
    assert all(chunk.usage is None for chunk in counted[:-1])
    assert counted[-1].choices == []
    assert (
        counted[-1].usage.completion_tokens == len(plain) - 2
    )  # neither the role nor the finish is a token


async def test_the_tokens_counted_are_the_pieces_of_the_text(client: AsyncOpenAI) -> None:
    completion = await complete(client, question("hello there"))
    assert completion.object == "chat.completion"
    assert completion.choices[0].finish_reason == "stop"
    usage = completion.usage
    assert usage.completion_tokens == len(tokens(completion.choices[0].message.content))
    assert usage.prompt_tokens == 1 + len(["hello", " there"])
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


async def test_the_models_are_listed(client: AsyncOpenAI) -> None:
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
async def test_a_request_that_makes_no_sense_gets_openais_error(
    base_url: str, content: bytes
) -> None:
    async with httpx.AsyncClient() as browser:
        response = await browser.post(f"{base_url}/chat/completions", content=content)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert set(error) == {"message", "type", "param", "code"}


async def test_an_unknown_model_is_not_found(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        await ask(client, question("hello"), "gpt-9")
    assert refused.value.code == "model_not_found"


async def test_max_tokens_ends_an_answer_with_length(client: AsyncOpenAI) -> None:
    completion = await complete(client, question("hello"), max_tokens=7)
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.completion_tokens == 7


async def test_content_in_parts_is_read_as_one_text(base_url: str) -> None:
    parts = [{"type": "text", "text": "hel"}, {"type": "image_url"}, {"type": "text", "text": "lo"}]
    asked = {"model": "demo", "messages": [{"role": "user", "content": parts}]}
    async with httpx.AsyncClient() as browser:
        whole = await browser.post(
            f"{base_url}/chat/completions", json=body("hello", streamed=False)
        )
        in_parts = await browser.post(f"{base_url}/chat/completions", json=asked)
    assert in_parts.json()["choices"] == whole.json()["choices"]


# The misbehaving models


@pytest.mark.parametrize("streamed", [True, False])
async def test_demo_drop_cuts_the_connection_in_mid_answer(base_url: str, streamed: bool) -> None:
    async with httpx.AsyncClient() as browser:
        received = ""
        with pytest.raises(httpx.RemoteProtocolError):
            async with browser.stream(
                "POST",
                f"{base_url}/chat/completions",
                json=body("hello", "demo-drop", streamed=streamed),
            ) as response:
                async for text in response.aiter_text():
                    received += text
    assert received.count('"content":') == (
        BREAK_AFTER + 1 if streamed else 0
    )  # and the empty one of the role
    assert '"finish_reason":"' not in received
    assert "[DONE]" not in received


async def test_demo_stall_falls_silent_until_the_client_goes(base_url: str) -> None:
    at_rest = asyncio.all_tasks()
    received = 0
    async with httpx.AsyncClient(timeout=httpx.Timeout(BOUND_S, read=1)) as browser:
        with pytest.raises(httpx.ReadTimeout):
            async with browser.stream(
                "POST", f"{base_url}/chat/completions", json=body("hello", "demo-stall")
            ) as response:
                async for line in response.aiter_lines():
                    received += '"content":' in line
    assert received == BREAK_AFTER + 1
    async with asyncio.timeout(BOUND_S):
        while asyncio.all_tasks() - at_rest:
            await asyncio.sleep(0.01)


async def test_demo_429_refuses_and_says_when_to_come_back(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as refused:
        await ask(client, question("hello"), "demo-429")
    assert refused.value.code == "rate_limit_exceeded"
    assert refused.value.response.headers["retry-after"] == "1"


async def test_demo_reasoning_thinks_before_it_speaks(client: AsyncOpenAI) -> None:
    chunks = await stream(
        client, question("hello"), "demo-reasoning", stream_options={"include_usage": True}
    )
    deltas = [chunk.choices[0].delta.model_dump(exclude_unset=True) for chunk in chunks[1:-2]]
    names = [name for delta in deltas for name in delta]
    thoughts = names.count("reasoning_content")
    assert thoughts > 10
    assert names == ["reasoning_content"] * thoughts + ["content"] * (len(names) - thoughts)
    assert "hello" in "".join(delta.get("reasoning_content", "") for delta in deltas)
    assert joined(chunks) == await ask(client, question("hello"))
    usage = chunks[-1].usage
    assert usage.completion_tokens_details.reasoning_tokens == thoughts
    assert usage.completion_tokens == len(names)


@pytest.mark.parametrize("text", ["hello", "你好", "tell me about bread"])
@pytest.mark.parametrize("way", ["prefill", "prompt", "prompt after every part"])
async def test_demo_length_goes_on_until_the_answer_is_whole(
    client: AsyncOpenAI, text: str, way: str
) -> None:
    before = question("what came first", "The egg.", text)
    parts: list[str] = []
    for _ in range(MOST_ROUNDS):
        chunks = await stream(client, asked_to_go_on(before, parts, way), "demo-length")
        parts.append(joined(chunks))
        assert len(chunks) - 2 <= LENGTH_MAX
        if chunks[-1].choices[0].finish_reason == "stop":
            break
        assert chunks[-1].choices[0].finish_reason == "length"
    assert len(parts) > 2
    assert "".join(parts) == await ask(client, before)


def asked_to_go_on(before: Messages, parts: list[str], way: str) -> Messages:
    """The conversation with what has been said, as different clients send it."""
    if not parts:
        return before
    said = {"role": "assistant", "content": "".join(parts)}
    if way == "prefill":
        return [*before, said]
    if way == "prompt":
        return [*before, said, {"role": "user", "content": GO_ON}]
    rounds = (
        [{"role": "assistant", "content": part}, {"role": "user", "content": GO_ON}]
        for part in parts
    )
    return [*before, *(message for pair in rounds for message in pair)]


@pytest.mark.parametrize("model", ["demo", "demo-drop", "demo-stall"])
async def test_a_broken_answer_is_finished_on_request(client: AsyncOpenAI, model: str) -> None:
    whole = await ask(client, question("hello"))
    half = whole[: len(whole) // 2]
    assert half + await ask(client, question("hello", half, "请继续"), model) == whole


async def test_a_history_shortened_on_the_way_does_not_hinder_going_on(client: AsyncOpenAI) -> None:
    whole = await ask(client, question("one", "…", "two", "…", "hello"))
    half = whole[: len(whole) // 2]
    assert half + await ask(client, question("hello", half, GO_ON)) == whole


async def test_a_new_question_after_a_cut_answer_gets_its_own_answer(client: AsyncOpenAI) -> None:
    half = (await ask(client, question("hello")))[:200]
    answer = await ask(client, question("hello", half, "compare some teas"))
    assert "Camellia sinensis" in answer


async def test_an_answer_that_is_complete_goes_on_with_nothing(client: AsyncOpenAI) -> None:
    whole = await ask(client, question("hello"))
    completion = await complete(client, question("hello", whole))
    assert completion.choices[0].message.content == ""
    assert completion.choices[0].finish_reason == "stop"


# The answers


async def test_the_second_answer_names_the_first_question(client: AsyncOpenAI) -> None:
    first = await ask(client, question("Why is the sky blue?"))
    assert "Earlier you asked" not in first
    second = await ask(client, question("Why is the sky blue?", first, "And the sea?"))
    assert second.startswith("Earlier you asked: “Why is the sky blue?”\n")
    third = await ask(
        client, question("Why is the sky blue?", first, "And the sea?", second, "hello")
    )
    assert third.startswith("Earlier you asked: “And the sea?” (and one question more before that)")


@pytest.mark.parametrize(
    "text", ["What did I ask?", "我问过什么", "what have I asked so far?", "我都问了些什么？"]
)
async def test_asked_what_was_asked_it_lists_every_question(client: AsyncOpenAI, text: str) -> None:
    answer = await ask(
        client, question("Why is the sky blue?", "Air.", "天为什么是蓝的？", "空气。", text)
    )
    assert "\n1. “Why is the sky blue?”\n2. “天为什么是蓝的？”\n" in answer
    assert is_chinese(text) == ("您问过的问题" in answer)


async def test_requests_to_go_on_are_not_questions(client: AsyncOpenAI) -> None:
    whole = await ask(client, question("hello"))
    history = question("hello", whole[:99], GO_ON, whole[99:], "what did I ask")
    assert "1. “hello”" in await ask(client, history)
    assert "2. " not in await ask(client, history)


async def test_a_chinese_question_gets_a_chinese_answer(client: AsyncOpenAI) -> None:
    answer = await ask(client, question("why?", "Because.", "天为什么是蓝的？"))
    assert answer.startswith("您之前问过：“why?”")
    assert "天为什么是蓝的？" in answer
    assert not re.search(r"\b(the|you|is)\b", answer)


async def test_a_system_message_is_mentioned_and_no_more(client: AsyncOpenAI) -> None:
    plain = await ask(client, question("hello"))
    told = await ask(client, [{"role": "system", "content": "Be a pirate."}, *question("hello")])
    assert english.SYSTEM not in plain
    assert english.SYSTEM in told
    assert "pirate" not in told


async def test_an_answer_restates_the_question_and_shows_what_the_page_renders(
    client: AsyncOpenAI,
) -> None:
    answer = await ask(client, question("Why is the sky blue?"))
    assert "“Why is the sky blue?”" in answer
    html = MarkdownIt("commonmark").enable("table").render(answer)
    for tag in ("h2", "h3", "p", "ol", "ul", "table", "strong", "em", "blockquote", "pre"):
        assert f"<{tag}>" in html
    assert "中文" in html


@pytest.mark.parametrize("topic", sorted(english.ANSWERS))
@pytest.mark.parametrize("language", LANGUAGES, ids=["English", "Chinese"])
def test_every_answer_says_that_it_is_a_demo_and_how_to_set_a_real_model(
    language: Any, topic: str
) -> None:
    asked = {"setup": "OPENAI_API_KEY", "default": "?", "how": "reload"}.get(topic, topic)
    answer = reply_to(
        [Said("user", asked if language is english else CHINESE_QUESTIONS[topic])]
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
def test_everything_that_an_answer_suggests_has_an_answer(language: Any) -> None:
    answers = "\n".join(language.ANSWERS[topic] for topic in ("hello", "how"))
    suggested = re.findall(
        r"^- \*(.+?)\*|Try it: ask for \*(.+?)\*|请我\*(.+?)\*", answers, re.MULTILINE
    )
    table = re.findall(r"^\| `(.+?)` \|", language.ANSWERS["default"], re.MULTILINE)
    asked = [text for found in suggested for text in found if text] + table
    assert len(asked) == 11
    for text in asked:
        assert "\n{question}\n" in language.ANSWERS["default"]
        assert f"\n{quote(text)}\n" not in reply_to([Said("user", text)]).text, text


@pytest.mark.parametrize("topic", ["code"])
@pytest.mark.parametrize("language", LANGUAGES, ids=["English", "Chinese"])
def test_the_code_in_the_answer_runs(language: Any, topic: str, tmp_path: Path) -> None:
    found = re.search(r"```python\n(.+?)```", language.ANSWERS[topic], re.DOTALL)
    assert found
    (tmp_path / "merge.py").write_text(found[1], encoding="utf-8")
    runpy.run_path(str(tmp_path / "merge.py"))["test_merge"]()


@pytest.mark.parametrize("topic", sorted(english.ANSWERS))
@pytest.mark.parametrize("language", LANGUAGES, ids=["English", "Chinese"])
def test_no_mark_of_markdown_is_left_over_in_an_answer(language: Any, topic: str) -> None:
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
    assert 1_400 < len(reply_to([Said("user", "a long answer, please")]).text.split()) < 1_800
    assert len(reply_to([Said("user", "写一篇长文")]).text) > 2_000


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
def test_the_language_is_that_of_most_of_the_question(text: str, chinese: bool) -> None:
    assert is_chinese(text) is chinese


@given(st.text())
def test_tokens_join_to_the_text(text: str) -> None:
    assert "".join(tokens(text)) == text
    assert all(tokens(text))


@pytest.mark.parametrize(
    "text",
    [
        "# *not* a _heading_ `code` [link](http://example.com) ![image](x)",
        "<script>alert(1)</script> &lt; \\*",
        "```\nfence\n```\n\n1. one\n2. two",
        "see https://example.com or www.example.com or me@example.com | a ~~b~~",
    ],
)
def test_a_quoted_question_shows_as_it_was_typed(text: str) -> None:
    assert shown(quote(text)) == "“" + " ".join(text.split()) + "”"


@given(st.text(st.sampled_from("\\`*_[]()<>&|~#+-=.!:/@ \n\t\u202e\u200dab1中😀w")))
def test_no_question_gets_out_of_its_quotation(text: str) -> None:
    line = shown(quote(text))
    assert line.startswith("“")
    assert line.endswith("”")
    assert "\u202e" not in line
    assert len(line) <= answers.QUOTE_MAX + 2


def shown(markdown: str) -> str:
    """What a page shows of one line; fails if anything in it is more than text."""
    inline = MarkdownIt("commonmark").enable(["strikethrough", "table"]).parse(f"1. {markdown}")[3]
    assert inline.type == "inline"
    assert {token.type for token in inline.children or ()} <= {"text", "text_special"}
    return "".join(token.content for token in inline.children or ())


# Starting and stopping


@pytest.mark.parametrize(("model", "pace_s"), [("demo-stall", 0), ("demo", 3600)])
async def test_stopping_ends_an_open_stream_at_once(model: str, pace_s: float) -> None:
    demo = DemoModel(pace_s=pace_s)
    async with connect(await demo.start()) as client:
        answer = await complete(client, question("hello"), model, stream=True)
        assert (await anext(answer)).choices[0].delta.role == "assistant"
        async with asyncio.timeout(BOUND_S):
            await demo.stop()
        with pytest.raises(openai.APIConnectionError):
            _ = [chunk async for chunk in answer]
        with pytest.raises(openai.APIConnectionError):
            await ask(client, question("hello"))


async def test_stopping_twice_or_before_the_start_does_no_harm() -> None:
    demo = DemoModel()
    await demo.stop()
    await demo.start()
    await demo.stop()
    await demo.stop()


async def test_it_listens_on_loopback_only_and_on_a_port_of_its_own() -> None:
    one, other = DemoModel(), DemoModel()
    first, second = await one.start(), await other.start()
    assert first != second
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", first)
    await one.stop()
    await other.stop()
