"""Records as OpenAI's chunks: the same, however the log is cut, and the same text as the object."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.formats.chat_completion import ChunkEncoder, build_completion
from chat.log import records
from chat.log.records import Kind

TURN = "t" * 22
IDS = json.dumps({"turn": TURN, "conversation": "-", "model": "m", "created": 1})
USAGE = json.dumps({"finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 2})
EXTRA = json.dumps({"choice": {"logprobs": {"content": [{"token": "x"}]}}})

texts = st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), max_size=9)
contents = st.lists(
    st.tuples(st.sampled_from([Kind.TEXT, Kind.REASONING, Kind.REFUSAL]), texts)
    | st.just((Kind.EXTRA, EXTRA))
    | st.just((Kind.ATTEMPT, "{}")),
    max_size=8,
)


def encode_records(body: list[tuple[Kind, str]], usage: str = USAGE) -> list[bytes]:
    log = [(Kind.TURN, IDS), *body, (Kind.USAGE, usage), (Kind.END, "")]
    return [records.encode(TURN, 0, kind, payload) for kind, payload in log]


def decode(stream: bytes) -> list[dict[str, Any]]:
    events = [part.removeprefix(b"data: ") for part in stream.split(b"\n\n") if part]
    assert events.pop() == b"[DONE]"
    return [json.loads(event) for event in events]


def join(chunks: list[dict[str, Any]], name: str) -> str:
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    return "".join(delta.get(name) or "" for delta in deltas)


@given(contents, st.data())
def test_the_chunks_are_the_same_wherever_the_log_is_cut_and_if_parts_are_encoded_again(
    body: list[tuple[Kind, str]], data: st.DataObject
) -> None:
    log = encode_records(body)
    whole = b"".join(log)
    encoder = ChunkEncoder(include_usage=False, as_lines=False)
    expected = encoder.encode(TURN, 0, whole) + encoder.encode_end(TURN, len(whole), "")
    encoder = ChunkEncoder(include_usage=False, as_lines=False)
    offset, stream = 0, b""
    pending: list[bytes] = []
    for record in log:
        pending.append(record)
        if data.draw(st.booleans()):
            part = b"".join(pending)
            if data.draw(st.booleans()):
                encoder.encode(TURN, offset, part)  # it did not reach the viewer
            stream += encoder.encode(TURN, offset, part)
            offset += len(part)
            pending = []
    stream += encoder.encode(TURN, offset, b"".join(pending))
    stream += encoder.encode_end(TURN, len(whole), "")
    assert join(decode(stream), "content") == join(decode(expected), "content")
    assert len(decode(stream)) == len(decode(expected))
    completion = build_completion(whole)["choices"][0]["message"]
    for name in ("content", "refusal", "reasoning_content"):
        assert join(decode(stream), name) == (completion.get(name) or "")


@pytest.mark.parametrize(
    "extra",
    [
        {"choice": {"logprobs": "x"}},
        {"choice": {"logprobs": [1, 2]}},
        {"choice": {"logprobs": {"content": "bad", "refusal": 5}}},
        {"delta": {"annotations": 5}},
        {"chunk": {"system_fingerprint": {"x": 1}}},
        {"chunk": 5},
        {"choice": [], "delta": "x"},
        {},
    ],
)
def test_extra_fields_of_any_shape_end_neither_form(extra: dict[str, Any]) -> None:
    whole = b"".join(encode_records([(Kind.EXTRA, json.dumps(extra)), (Kind.TEXT, "text")]))
    encoder = ChunkEncoder(include_usage=False, as_lines=False)
    stream = encoder.encode(TURN, 0, whole) + encoder.encode_end(TURN, len(whole), "")
    assert join(decode(stream), "content") == "text"
    assert build_completion(whole)["choices"][0]["message"]["content"] == "text"


@pytest.mark.parametrize(
    ("kind", "reason", "expected"),
    [
        (Kind.TEXT, "stopped", "stop"),
        (Kind.TEXT, "interrupted", "length"),
        (Kind.TEXT, "refusal", "content_filter"),
        (Kind.REFUSAL, "refusal", "stop"),
    ],
)
def test_holdlines_own_finish_reasons_become_openais(
    kind: Kind, reason: str, expected: str
) -> None:
    usage = json.dumps({"finish_reason": reason})
    whole = b"".join(encode_records([(kind, "text")], usage))
    encoder = ChunkEncoder(include_usage=False, as_lines=False)
    stream = encoder.encode(TURN, 0, whole) + encoder.encode_end(TURN, len(whole), "")
    assert decode(stream)[-1]["choices"][0]["finish_reason"] == expected
    assert build_completion(whole)["choices"][0]["finish_reason"] == expected


@given(contents)
def test_a_line_holds_one_chunk_for_clients_that_split_at_any_line_end(
    body: list[tuple[Kind, str]],
) -> None:
    whole = b"".join(encode_records(body))
    encoder = ChunkEncoder(include_usage=True, as_lines=True)
    stream = encoder.encode(TURN, 0, whole) + encoder.encode_idle()
    stream += encoder.encode_end(TURN, len(whole), "")
    chunks = [json.loads(line) for line in stream.decode().splitlines()]
    assert all(chunk["id"] == f"chatcmpl-{TURN}" for chunk in chunks)
    assert chunks[-1]["usage"] == {"prompt_tokens": 1, "completion_tokens": 2}
