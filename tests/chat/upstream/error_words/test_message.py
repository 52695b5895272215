"""The words of an upstream are found in every shape of error body."""

import json
import re
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chat.upstream.error_words import (
    find_context_limit,
    find_message,
    find_wait_s,
    is_web_page,
    rejects_unknown_field,
    reports_loading,
    sanitise,
)
from tests.conftest import KEY

NOTHING: list[Any] = [
    b"", "", None, {}, [], 5, True, "null", "{}", "[[]]", "{'a': None}", "…!", "502",
    {"error": None}, {"error": {"code": 500}}, {"message": ""},
]  # fmt: skip
SHAPES: list[tuple[Any, str]] = [
    # OpenAI, vLLM, llama-server, LM Studio
    ({"error": {"message": "No.", "type": "t", "param": None, "code": None}}, "No."),
    ({"message": "No.", "type": "t", "code": 400}, "No."),
    ({"object": "error", "message": "No. None", "type": "BadRequestError"}, "No."),
    # Ollama, TGI, Spring, NestJS, OAuth
    ({"error": "model 'm' not found"}, "model 'm' not found"),
    ({"error": "Request failed during generation", "error_type": "generation"}, "Request failed"),
    ({"status": 500, "error": "Internal Server Error", "message": "No GPU", "path": "/"}, "No GPU"),
    ({"statusCode": 400, "message": ["a is empty", "b is empty"], "error": "Bad Request"}, "a is "),
    ({"error": "invalid_client", "error_description": "Unknown client"}, "Unknown client"),
    ({"error": True, "message": "Try again"}, "Try again"),
    # FastAPI
    ({"detail": "Model m does not support streaming"}, "Model m does not support streaming"),
    ({"detail": {"error": {"message": "No."}}}, "No."),
    (
        {
            "detail": [
                {"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"},
                {"loc": ["body", "messages", 0], "msg": "Field required", "input": {"role": "x"}},
            ]
        },
        "stream_options: Extra inputs are not permitted; messages.0: Field required",
    ),
    # Mistral, vLLM
    ({"message": {"detail": [{"loc": ["body", "x"], "msg": "Not permitted"}]}}, "x: Not permitted"),
    (
        {"message": "[{'type': 't', 'loc': ('body', 'x'), 'msg': 'Not it', 'input': {'a': 1}}]"},
        "x: Not it",
    ),
    # RFC 9457, JSON:API, Rails, Cloudflare
    ({"type": "about:blank", "title": "Bad Request", "detail": "No field"}, "No field"),
    ({"type": "about:blank", "title": "Bad Request", "status": 400}, "Bad Request"),
    ({"errors": [{"title": "Bad", "detail": "No field"}]}, "No field"),
    ({"errors": ["First.", "Second."]}, "First.; Second."),
    ({"errors": {"model": ["is unknown", "is old"]}}, "model: is unknown; is old"),
    ({"success": False, "errors": [{"message": "No route"}], "messages": []}, "No route"),
    # OpenRouter
    (
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {"raw": '{"error":{"message":"Too many images"}}'},
            }
        },
        "Too many images",
    ),
    ({"error": {"message": "Bad", "metadata": {"reasons": ["violence"]}}}, "Bad (violence)"),
    # Gemini, AWS, Apigee, MiniMax, Baidu, FastChat
    ([{"error": {"code": 400, "message": "Bad", "details": [{"@type": "t"}]}}], "Bad"),
    ({"__type": "ValidationException", "Message": "Bad input"}, "Bad input"),
    ({"fault": {"faultstring": "Invalid ApiKey"}}, "Invalid ApiKey"),
    ({"base_resp": {"status_code": 1004, "status_msg": "login fail"}}, "login fail"),
    ({"error_code": 336003, "error_msg": "messages不能为空"}, "messages不能为空"),
    ({"text": "**NETWORK ERROR**", "error_code": 50001}, "**NETWORK ERROR**"),
    ({"choices": [{"error": {"message": "Upstream died"}}]}, "Upstream died"),
    # LiteLLM and other gateways, which quote another body
    (
        {
            "error": {
                "message": "litellm.BadRequestError: OpenAIException - Error code: 400 - "
                "{'error': {'message': \"It's bad\", 'type': 'x', 'param': None}}"
            }
        },
        "It's bad",
    ),
    ({"error": "b'{\"error\": {\"message\": \"quoted twice\"}}'"}, "quoted twice"),
    ('{"error": "{\\"error\\": \\"{\\\\\\"message\\\\\\": \\\\\\"deep\\\\\\"}\\"}"}', "deep"),
    ("The tool is {'type': 'object', 'a': None} here", "The tool is … here"),
    ("tool_choice must be one of ['auto', 'none']", "tool_choice must be one of auto, none"),
    ("Invalid value ('x') in messages[0]['role']", "Invalid value ('x') in messages[0]['role']"),
    # text, streams, pages
    ("  upstream\n connect\terror ", "upstream connect error"),
    ('"quoted"', "quoted"),
    ('data: {"error": {"message": "in a stream"}}\n\ndata: [DONE]\n\n', "in a stream"),
    ("event: error\ndata: the GPU is on fire\n\n", "the GPU is on fire"),
    ('{"error": "first line"}\n{"error": "second line"}\n', "first line"),
    ("Server sent b'no slots'", "Server sent no slots"),
    ("[ERROR] no slots", "[ERROR] no slots"),
    ("<html><head><title>502 Bad&nbsp;Gateway</title></head></html>", "502 Bad Gateway"),
    ("<!DOCTYPE html><body><h1>Not  here</h1>x</body>", "Not here"),
    ("<html><script>var a;</script><body><p>Plain text</p></body></html>", "Plain text"),
    ("<?xml version='1.0'?><Error><Message>Access Denied</Message></Error>", "Access Denied"),
    ({"error": {"message": "<b>No</b> &lt;i&gt;way&lt;/i&gt; <br/>5 < 6"}}, "No way 5 < 6"),
    ("<400> InternalError.Algo.InvalidParameter: bad", "InternalError.Algo.InvalidParameter: bad"),
    (
        "1 error\nx\n  Not permitted [type=t, input_value={'a': True}, input_type=dict]\n",
        "1 error x Not permitted",
    ),
    ("Traceback (most recent call last):\n  File \"a\"\nValueError: no model\n", "ValueError: no"),
    # bytes
    (b'\xef\xbb\xbf{"error": "after a BOM"}', "after a BOM"),
    ('{"error": "wide"}'.encode("utf-16"), "wide"),
    (b'{"error": "not \xff UTF-8"}', "not \ufffd UTF-8"),
    (b'{"error": "half \\ud83d of it"}', "half ? of it"),
    (b'{"error": "a\\u0000b\\u202ec"}', "a bc"),
    (b'{"error": {"message": "cut off", "ty', "cut off"),
    # no words
    *[(body, "") for body in NOTHING],
    ({"choices": [{"message": {"role": "assistant", "content": "Hello"}}]}, ""),
    ({"model": "m", "message": {"role": "assistant", "content": ""}, "done": True}, ""),
    ({"input": {"message": "the question"}, "messages": [{"content": "the question"}]}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("body", "words"), SHAPES, ids=range(len(SHAPES)))
@pytest.mark.parametrize("encode", [lambda body: body, json.dumps])
def test_the_words_are_found_in_a_body_of_any_shape(body: Any, words: str, encode: Any) -> None:
    found = find_message(body if isinstance(body, (str, bytes)) else encode(body))
    assert found.startswith(words)
    assert bool(found) is bool(words)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 65_536,
        b'{"error":' * 20_000,
        b'[{"error":' * 20_000,
        b"{'a':" * 20_000,
        b"<" * 65_536,
        b"<script" * 10_000,
        b"<html><title" * 6_000,
        b"<html><script" * 6_000,
        b'{"message":"' + b"a" * 1_000_000 + b'"}',
        b'{"message":"' + b"sk-" * 100_000 + b'"}',
        b"a@" * 40_000,
        b"a." * 40_000,
        b"1:" * 40_000,
        b"key=" * 20_000,
        b'"message": "\\' * 6_000,
        b"context length " * 6_000,
        b"context length prompt tokens " * 3000,
        b"model is " * 8000,
        b"requested 1" * 8000,
        b"try again in " + b"1m" * 30_000,
        json.dumps({"errors": [{"errors": [{"detail": {}}] * 300}] * 50}).encode(),
        json.dumps({"error": ["{" * 100] * 1000}).encode(),
    ],
    ids=range(22),
)
def test_a_hostile_body_is_read_in_bounded_time(body: bytes) -> None:
    start = time.process_time()
    words = sanitise(find_message(body), KEY)
    assert len(words) <= 300
    find_context_limit(body)
    rejects_unknown_field(body)
    reports_loading(body)
    find_wait_s({}, body)
    assert time.process_time() - start < 20  # on any machine; quadratic work takes minutes


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([KEY, f"Bearer {KEY}", "<b>", "</b", "{'a': 1}", "None", '{"message": "x"}']),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["error", "message", "detail", "msg", "loc", "raw", "metadata", "text"])
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON)
@example({"error": f"<<b>script>{KEY}</script"})
@example({"error": f"sk-<i>{KEY[3:]}"})
def test_any_body_gives_one_short_line_without_markup_and_key(body: object) -> None:
    for form in (body, json.dumps(body), str(body)):
        words = sanitise(find_message(form), KEY)
        assert len(words) <= 300
        assert len(words.splitlines()) <= 1
        assert words.isprintable() or not re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", words)
        assert KEY not in words
        assert not re.search(r"</?[A-Za-z!][^<>]*>", words)
        assert "{'" not in words
        assert words == sanitise(words, KEY)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"\n <!DOCTYPE html><html>", True),
        ("\ufeff<HTML lang=en>", True),
        (b"<?xml version='1.0'?><Error/>", True),
        (b'{"error": "<html>"}', False),
        (b"data: <html>", False),
        (b"", False),
        ("<think>hm</think>", False),
    ],
)
def test_a_web_page_is_recognised_by_its_first_characters(
    body: bytes | str, expected: bool
) -> None:
    assert is_web_page(body) is expected
