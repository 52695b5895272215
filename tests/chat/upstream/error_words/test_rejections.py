"""The reason of a rejection is recognised in the wordings of real servers."""

import json
from pathlib import Path
from typing import Any

import pytest

from chat.upstream.error_words import (
    ContextLimit,
    find_context_limit,
    names_field,
    rejects_unknown_field,
    reports_loading,
)

DATA = Path(__file__).parent


def read_rows(name: str) -> list[str]:
    """Return the lines of a table, without its comments."""
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def read_number(text: str) -> int | None:
    return None if text == "-" else int(text)


CONTEXT_LIMITS = [row.split(" | ") for row in read_rows("context_limits.txt")]
OTHER_REASONS = read_rows("other_reasons.txt")
SHAPES: list[Any] = [
    None,
    {"error": {"message": "{}"}},
    {"detail": "{}"},
    {"error": {"message": "Provider returned error", "metadata": {"raw": "{}"}}},
]


@pytest.mark.parametrize(("window", "requested", "words"), CONTEXT_LIMITS)
@pytest.mark.parametrize("shape", SHAPES, ids=range(len(SHAPES)))
def test_a_context_limit_is_recognised_with_its_numbers(
    window: str, requested: str, words: str, shape: Any
) -> None:
    body = json.dumps(shape).replace("{}", json.dumps(words)[1:-1]) if shape else words
    limit = ContextLimit(read_number(window), read_number(requested))
    assert find_context_limit(body) == limit
    assert find_context_limit(body.encode()) == limit


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        (
            {
                "error": {
                    "code": 400,
                    "message": "the request exceeds the available context size",
                    "type": "exceed_context_size_error",
                    "n_prompt_tokens": 14429,
                    "n_ctx": 8192,
                }
            },
            ContextLimit(8192, 14_429),
        ),
        (
            {"error": {"type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 8}},
            ContextLimit(None, None),
        ),
        ({"error": {"message": "No.", "code": "context_length_exceeded"}}, ContextLimit()),
        ({"code": "model_context_window_exceeded", "message": "x"}, ContextLimit()),
        (
            {"error": {"message": "litellm.ContextWindowExceededError: x", "code": "400"}},
            ContextLimit(),
        ),
    ],
)  # fmt: skip
def test_a_context_limit_is_recognised_by_codes_and_numbers_in_fields(
    body: dict[str, Any], limit: ContextLimit
) -> None:
    assert find_context_limit(body) == find_context_limit(json.dumps(body)) == limit


@pytest.mark.parametrize("words", OTHER_REASONS)
def test_other_reasons_are_not_a_context_limit(words: str) -> None:
    assert find_context_limit({"error": {"message": words, "code": "rate_limit_exceeded"}}) is None


def test_the_question_inside_a_rejection_is_not_read() -> None:
    error: dict[str, Any] = {"loc": ["body", "messages", 0], "msg": "Bad role"}
    error["input"] = {"content": "maximum context length is 10 tokens, stream_options exceeded"}
    assert find_context_limit({"detail": [error]}) is None
    assert not rejects_unknown_field({"detail": [error]})


UNKNOWN_FIELDS: list[Any] = [
    {"error": {"message": "Unrecognized request argument supplied: stream_options"}},
    {"error": {"message": "Unknown parameter: 'stream_options'.", "code": "unknown_parameter"}},
    {"error": {"message": "Unsupported parameter", "param": "stream_options"}},
    {"detail": [{"type": "extra_forbidden", "loc": ["body", "x"], "msg": "Extra inputs are not"}]},
    {"message": {"detail": [{"loc": ["body", "stream_options"], "msg": "not permitted"}]}},
    {"error": {"message": 'Invalid JSON payload received. Unknown name "streamOptions": Cannot'}},
    {"error": {"message": "Additional properties are not allowed ('x' was unexpected)"}},
    {"message": "create() got an unexpected keyword argument 'x'"},
    {"message": "extraneous key [include_usage] is not permitted"},
    {"error": "json: unknown field \"x\""},
    {"error": "extra fields not permitted"},
    {"error": "'continue_final_message' is not supported by this model"},
    {"error": "The parameter x is not supported"},
    {"error": "不支持的参数：x"},
    "stream_options is not available",
]  # fmt: skip


@pytest.mark.parametrize("body", UNKNOWN_FIELDS)
def test_an_unknown_field_is_recognised(body: Any) -> None:
    assert rejects_unknown_field(body)


@pytest.mark.parametrize(
    "words",
    [
        *OTHER_REASONS[:7],
        "Model m does not support streaming",
        "Input was flagged by moderation",
        "Country, region, or territory not supported",
        "Incorrect API key provided",
        "The model 'm' does not exist",
        "",
    ],
)
def test_other_reasons_are_not_an_unknown_field(words: str) -> None:
    assert not rejects_unknown_field({"error": {"message": words, "code": "bad_request"}})


def test_a_named_field_differs_from_one_with_a_longer_name() -> None:
    body = {"error": {"message": "Unknown", "param": "max_completion_tokens"}}
    assert names_field(body, "max_completion_tokens")
    assert not names_field(body, "max_tokens")
    assert not names_field(b"", "max_tokens")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("Loading model", True),
        ("Model meta-llama/Llama-3.1 is currently loading", True),
        ("Model is loading, please wait", True),
        ("llama runner: loading the model", True),
        ("模型正在加载中", True),
        ("Failed to load model 'm'", False),
        ("error loading model: no such file", False),
        ("The model is overloaded", False),
        ("Model is unloaded.", False),
        ("", False),
    ],
)
def test_a_model_that_is_loading_is_recognised(words: str, expected: bool) -> None:
    assert reports_loading({"error": {"message": words, "code": 503}}) is expected
