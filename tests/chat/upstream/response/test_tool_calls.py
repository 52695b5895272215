"""Tool calls as servers stream them, joined to complete ones."""

from typing import Any

import pytest

from chat.errors import UpstreamError
from chat.upstream.response.tool_calls import MAX_CHARACTERS, ToolCalls


def call(name: str, arguments: str, call_id: str = "a") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        pytest.param(
            [
                [{"index": 0, **call("f", "")}],
                [{"index": 0, "function": {"arguments": '{"x"'}}],
                [{"index": 0, "function": {"arguments": ": 1}"}}],
            ],
            [call("f", '{"x": 1}')],
            id="openai",
        ),
        pytest.param(
            [
                [{"index": 0, **call("f", "{")}, {"index": 1, **call("g", "[", "b")}],
                [{"index": 1, "function": {"arguments": "]"}}],
                [{"index": 0, "function": {"arguments": "}"}}],
            ],
            [call("f", "{}"), call("g", "[]", "b")],
            id="interleaved",
        ),
        pytest.param(
            [[call("f", "{}")], [call("g", "{}", "b")]],
            [call("f", "{}"), call("g", "{}", "b")],
            id="whole calls without an index",
        ),
        pytest.param(
            [[call("f", '{"a"')], [{"id": "a", "function": {"arguments": ":1}"}}]],
            [call("f", '{"a":1}')],
            id="the id repeats instead of an index",
        ),
        pytest.param(
            [[{"index": 0, **call("f", "")}], [{"index": 0, "id": "", "type": None, "function": {
                "name": None, "arguments": "{}"}}]],
            [call("f", "{}")],
            id="later pieces have empty names",
        ),
        pytest.param(
            [[{"function": {"name": "f", "arguments": {"x": [1, "é"]}}}]],
            [{"type": "function", "function": {"name": "f", "arguments": '{"x": [1, "\\u00e9"]}'}}],
            id="arguments as an object, no id",
        ),
        pytest.param(
            [[{"index": 0, **call("f", "{}"), "extra_content": {"google": {"signature": "s"}}}]],
            [{**call("f", "{}"), "extra_content": {"google": {"signature": "s"}}}],
            id="unknown fields",
        ),
        pytest.param(
            [[{"index": 0, **call("f", '"\ud83d')}], [{"index": 0, "function": {
                "arguments": '\ude00\ud800"'}}]],
            [call("f", '"\U0001f600\ufffd"')],
            id="halves of surrogate pairs",
        ),
        pytest.param(
            [{"name": "f", "arguments": "{"}, {"arguments": "}"}],
            [{"function_call": {"name": "f", "arguments": "{}"}}],
            id="the older function call",
        ),
        pytest.param([[{"index": 0, "id": "a"}]], [], id="a call without a function"),
        pytest.param([None, "text", 7, [None, "x", []], {}], [], id="nonsense"),
        pytest.param(
            [[{"index": 0, "function": "f"}], [{"index": 0, **call("f", "{}")}]],
            [call("f", "{}")],
            id="a function that is a string",
        ),
    ],
)  # fmt: skip
def test_pieces_are_joined_to_complete_calls(
    deltas: list[Any], expected: list[dict[str, Any]]
) -> None:
    calls = ToolCalls()
    for delta in deltas:
        calls.feed(delta)
    assert calls.list_complete() == expected


@pytest.mark.parametrize(
    "pieces",
    [
        [[{"index": 0, "function": {"name": "f", "arguments": "x" * 1000}}]]
        * (MAX_CHARACTERS // 900),
        [[{"index": number, "function": {"name": "f"}}] for number in range(1000)],
        [[{"index": 0, f"field {number}": "x" * 10_000}] for number in range(110)],
        [[{"index": 0, "function": {f"field {number}": "x" * 10_000}}] for number in range(110)],
        [[{"id": f"{number}" * 10_000}] for number in range(110)],
        [{"name": f"{number}" * 10_000} for number in range(110)],
    ],
    ids=["long arguments", "many calls", "fields", "fields of a function", "ids", "names"],
)
def test_calls_have_bounds(pieces: list[Any]) -> None:
    calls = ToolCalls()
    with pytest.raises(UpstreamError) as raised:
        for piece in pieces:
            calls.feed(piece)
    assert raised.value.kind == "too_long"


def test_a_call_of_many_short_pieces_is_joined_in_linear_time() -> None:
    calls = ToolCalls()
    for _ in range(MAX_CHARACTERS - 10):
        calls.feed([{"index": 0, "function": {"arguments": "x"}}])
    (found,) = calls.list_complete()
    assert len(found["function"]["arguments"]) == MAX_CHARACTERS - 10
