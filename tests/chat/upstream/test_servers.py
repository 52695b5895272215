"""What is known of model servers: the fields that each kind gets, and the window that it states."""

from typing import Any

import pytest

from chat.upstream.request import ChatMessage, build_body
from chat.upstream.servers import UNKNOWN, Prefill, read_models, recognise

FIELDS = {"continue_final_message": True, "add_generation_prompt": False}
QUESTION: ChatMessage = {"role": "user", "content": "q"}
PARTIAL: ChatMessage = {"role": "assistant", "content": "half"}


@pytest.mark.parametrize(
    ("url", "owner", "name", "prefill", "limit"),
    [
        ("http://127.0.0.1:8080/v1", "llamacpp", "llama-server", Prefill.FIELDS, "max_tokens"),
        ("http://gpu:8000/v1", "vllm", "vllm", Prefill.FIELDS, "max_completion_tokens"),
        ("http://gpu:30000/v1", "sglang", "sglang", Prefill.FIELDS, "max_completion_tokens"),
        ("http://127.0.0.1:11434/v1", None, "ollama", Prefill.PLAIN, "max_tokens"),
        ("http://gpu:80/v1", "library", "ollama", Prefill.PLAIN, "max_tokens"),
        ("https://api.mistral.ai/v1", "mistralai", "mistral", Prefill.PREFIX, "max_tokens"),
        ("https://api.deepseek.com/beta", None, "deepseek", Prefill.PREFIX, "max_tokens"),
        ("https://api.deepseek.com/v1", "deepseek", "deepseek", Prefill.NONE, "max_tokens"),
        ("http://127.0.0.1:8000/v1", "me", "llama-cpp-python", Prefill.NONE, "max_tokens"),
        ("https://api.openai.com/v1", "vllm", "unknown", Prefill.NONE, "max_completion_tokens"),
        ("https://openrouter.ai/api/v1", "vllm", "unknown", Prefill.NONE, "max_completion_tokens"),
        ("http://gateway/v1", ["vllm"], "unknown", Prefill.NONE, "max_completion_tokens"),
        ("http://gateway/v1", "someone", "unknown", Prefill.NONE, "max_completion_tokens"),
    ],
)
def test_a_server_is_recognised_by_its_host_or_the_owner_of_its_model(
    url: str, owner: Any, name: str, prefill: Prefill, limit: str
) -> None:
    kind = recognise(url, owner)
    assert (kind.name, kind.prefill, kind.limit_field) == (name, prefill, limit)


@pytest.mark.parametrize(
    ("url", "owner", "fields", "last"),
    [
        ("http://gpu/v1", "vllm", FIELDS, PARTIAL),
        ("http://127.0.0.1:11434/v1", None, {}, PARTIAL),
        ("https://api.mistral.ai/v1", None, {}, {**PARTIAL, "prefix": True}),
        ("https://api.deepseek.com/beta", None, {}, {**PARTIAL, "prefix": True}),
        ("http://forced/v1", None, FIELDS, PARTIAL),
    ],
)
def test_a_prefilled_request_has_the_fields_that_its_server_knows(
    url: str, owner: Any, fields: dict[str, Any], last: ChatMessage
) -> None:
    body = build_body([QUESTION, PARTIAL], "m", recognise(url, owner), {}, prefill=True)
    assert body == {"model": "m", "stream": True, "messages": [QUESTION, last], **fields}
    plain = build_body([QUESTION], "m", UNKNOWN, {}, prefill=False)
    assert plain == {"model": "m", "stream": True, "messages": [QUESTION]}


@pytest.mark.parametrize(
    ("model", "window"),
    [
        ({"meta": {"n_ctx": 8192, "n_ctx_train": 131072}}, 8192),
        ({"max_model_len": 4096}, 4096),
        ({"context_window": 131072}, 131072),
        ({"max_context_length": 32768}, 32768),
        ({"context_length": 1048576, "top_provider": {"context_length": 262000}}, 262000),
        ({"max_model_len": 0}, None),
        ({"max_model_len": -1}, None),
        ({"max_model_len": True}, None),
        ({"max_model_len": "4096"}, None),
        ({"max_model_len": 10**12}, None),
        ({"meta": []}, None),
        ({}, None),
    ],
)
def test_the_window_is_read_where_a_server_states_it(
    model: dict[str, Any], window: int | None
) -> None:
    assert read_models({"data": [{"id": "m", **model}]})["m"].window == window


def test_a_list_of_models_is_bounded_and_keeps_only_what_is_used() -> None:
    models = [{"id": str(number), "owned_by": ["x"] * 9} for number in range(20_000)]
    found = read_models({"data": models})
    assert len(found) == 10_000
    assert {one.owned_by for one in found.values()} == {None}


@pytest.mark.parametrize("body", [None, [], {}, {"data": {}}, {"data": [None, 1, {"id": 2}]}, "x"])
def test_a_list_of_models_of_any_other_shape_is_empty(body: Any) -> None:
    assert read_models(body) == {}
