"""List every known deviation of a model server: its responses, and the answer of the turn.

Each row is one kind of response, recorded from a server or written after its documentation or an
issue.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.raw_upstream import (
    DONE,
    STOP,
    USAGE,
    Answer,
    delta,
    error,
    event,
    http,
    stream,
    text,
)

CONTINUE_MAX = 2


@dataclass(frozen=True)
class Row:
    """A deviation: the responses of a server, and the text and ending of the turn.

    `ending` is the finish reason after an `end` frame, or the type of a `failed` frame.
    """

    name: str
    answers: Sequence[Answer]
    text: str
    ending: str
    requests: int = 1
    reasoning: str = ""
    message: str = ""
    usage: dict[str, int] = field(default_factory=dict)


def chunked(data: bytes, headers: str = "", end: bytes = b"0\r\n\r\n") -> bytes:
    """Return an event stream in one chunk of a chunked body."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{headers}"
    body = b"%x\r\n%b\r\n" % (len(data), data)
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + body + end


def whole(message: dict[str, Any], finish: Any = "stop", **more: Any) -> dict[str, Any]:
    """Return a complete chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return {"object": "chat.completion", "choices": [choice], **more}


HELLO = [delta("Hello "), delta("world")]
HELLO_EVENTS = b"".join(map(event, HELLO))
COMPLETE = "Hello world"


def complete(name: str, *chunks: Any, done: bool = True) -> Row:
    """Return a row whose chunks make the complete text."""
    return Row(name, [stream(*chunks, done=done)], COMPLETE, "stop")


def finish(reason: Any, ending: str, requests: int = 1) -> Row:
    """Return a row whose first response ends with a reason; the second one is complete."""
    answers = [stream(delta("Hello "), delta(finish=reason)), text("world")]
    return Row(
        f"finish reason {reason!r}",
        answers,
        COMPLETE if requests > 1 else "Hello ",
        ending,
        requests,
    )


# fmt: off
ROWS = [
    # Framing
    complete("data is null", HELLO[0], b"data: null\n\n", HELLO[1], STOP),
    complete("data is a number", HELLO[0], b"data: 7\n\n", HELLO[1], STOP),
    complete("data is empty", b"data:\n\n", HELLO[0], b"data: \n\n", HELLO[1], STOP),
    complete("comments", b": OPENROUTER PROCESSING\n\n", *HELLO, b":\n", STOP),
    complete("an unknown event", event({"type": "ping"}, "ping"), *HELLO, STOP),
    complete("words that are not JSON", b"data: keep-alive\n\n", *HELLO, STOP),
    complete("a bare DONE", *HELLO, STOP, b"data: DONE\n\n", done=False),
    complete("a quoted DONE", *HELLO, STOP, b'data: "[DONE]"\n\n', done=False),
    complete("[DONE] without a space", *HELLO, STOP, b"data:[DONE]\n\n", done=False),
    complete("no [DONE]", *HELLO, STOP, done=False),
    complete("[DONE] without a finish reason", *HELLO),
    complete("usage without a finish reason and [DONE]", *HELLO, {"choices": [], "usage": USAGE}, done=False),
    complete("a byte order mark before each event", *(b"\xef\xbb\xbf" + event(one) for one in (*HELLO, STOP))),
    complete("one line end between events", (HELLO_EVENTS + event(STOP)).replace(b"\n\n", b"\n"), b"data: [DONE]\n", done=False),
    complete("no blank line after the last event", *HELLO, event(STOP)[:-2], done=False),
    complete("CRLF", (HELLO_EVENTS + event(STOP) + DONE).replace(b"\n", b"\r\n"), done=False),
    complete("CR", (HELLO_EVENTS + event(STOP) + DONE).replace(b"\n", b"\r"), done=False),
    complete("an event of several lines", b"".join(b"data: " + line + b"\n" for line in json.dumps(HELLO[0], indent=1).encode().split(b"\n")) + b"\n", HELLO[1], STOP),
    Row("SSE labelled JSON", [http(HELLO_EVENTS + event(STOP) + DONE, content_type="application/json")], COMPLETE, "stop"),
    Row("SSE labelled NDJSON", [http(HELLO_EVENTS + event(STOP), content_type="application/x-ndjson")], COMPLETE, "stop"),
    Row("SSE without a label", [http(HELLO_EVENTS + event(STOP), content_type="")], COMPLETE, "stop"),
    Row("JSON lines", [http(b"\n".join(json.dumps(one).encode() for one in (*HELLO, STOP)))], COMPLETE, "stop"),
    Row("JSON labelled text", [http(json.dumps(whole({"content": COMPLETE})).encode(), content_type="text/plain")], COMPLETE, "stop"),
    Row("JSON labelled SSE, indented", [http(json.dumps(whole({"content": COMPLETE}), indent=2).encode())], COMPLETE, "stop"),
    Row("JSON after empty lines", [http(b"\n\n \n" + json.dumps(whole({"content": COMPLETE})).encode(), content_type="application/json")], COMPLETE, "stop"),
    Row("JSON without a finish reason", [http(json.dumps(whole({"content": COMPLETE}, finish=None)).encode())], COMPLETE, "stop"),
    Row("a body that ends after the finish reason", [chunked(HELLO_EVENTS + event(STOP), end=b"")], COMPLETE, "stop"),
    Row("both lengths", [chunked(HELLO_EVENTS + event(STOP) + DONE, "Content-Length: 9999\r\n")], COMPLETE, "stop"),
    # Fields of other types
    complete("empty deltas", {"choices": [{"delta": []}]}, *HELLO, {"choices": [{"delta": [], "finish_reason": "stop"}]}),
    complete("choices is an object", {"choices": {}}, *HELLO, STOP),
    complete("choices is null", {"choices": None}, *HELLO, STOP),
    complete("a choice is null", {"choices": [None]}, *HELLO, STOP),
    complete("no delta", {"choices": [{"index": 0, "content_filter_offsets": {}}]}, *HELLO, STOP),
    complete("usage is a string", {**HELLO[0], "usage": ""}, HELLO[1], STOP),
    complete("usage is a list", {**HELLO[0], "usage": []}, HELLO[1], STOP),
    complete("unknown fields of any type", {**HELLO[0], "id": 7, "created": "x", "model": None, "object": []}, HELLO[1], STOP),
    complete("role and tool calls of other types", delta("Hello ", role=1, tool_calls=""), HELLO[1], STOP),
    complete("an error that is empty", {**HELLO[0], "error": {}}, {**HELLO[1], "error": ""}, {**STOP, "error": None}),
    complete("garbage after the finish reason", *HELLO, STOP, b"data: {bad\n\n", event({"error": "late"}), done=False),
    complete("a finish reason in every chunk", delta("Hello ", finish="stop"), delta("world", finish="stop")),
    complete("a last chunk with the whole message", *HELLO, whole({"content": COMPLETE})),
    complete("a last chunk with a delta and the whole message", *HELLO, {"choices": [{"delta": {}, "message": {"content": COMPLETE}, "finish_reason": "stop"}]}),
    complete("messages instead of deltas", *({"choices": [{"message": {"content": piece}}]} for piece in ("Hello ", "world")), STOP),
    complete("text instead of deltas", *({"choices": [{"text": piece}]} for piece in ("Hello ", "world")), STOP),
    complete("content parts", delta([{"type": "text", "text": "Hello "}]), delta([{"text": "wor"}, "ld"]), STOP),
    complete("content as an object", delta({"type": "text", "text": "Hello "}), HELLO[1], STOP),
    Row("numbers as content", [stream(delta("Price $"), delta(5), delta(" or "), delta(0.5), STOP)], "Price $5 or 0.5", "stop"),
    Row("half a surrogate pair", [stream(b'data: {"choices":[{"delta":{"content":"a\\ud83c"}}]}\n\n', b'data: {"choices":[{"delta":{"content":"\\udf0d"}}]}\n\n', STOP)], "a🌍", "stop"),
    # Reasoning
    *(
        Row(f"reasoning in {name}", [stream(delta(**{name: value}), *HELLO, STOP)], COMPLETE, "stop", reasoning="hm")
        for name, value in {
            "reasoning": "hm",
            "reasoning_content": "hm",
            "thinking": "hm",
            "reasoning_details": [{"type": "reasoning.text", "text": "hm"}],
            "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}],
        }.items()
    ),
    *(
        Row(f"reasoning as {type(value).__name__}", [stream(delta(reasoning=value), *HELLO, STOP)], COMPLETE, "stop", reasoning="hm")
        for value in ({"text": "hm"}, {"content": "hm"}, ["hm"], [{"text": "h"}, {"text": "m"}])
    ),
    Row("reasoning twice", [stream(delta(reasoning="hm", reasoning_content="hm"), *HELLO, STOP)], COMPLETE, "stop", reasoning="hm"),
    Row("encrypted reasoning", [stream(delta(reasoning_details=[{"type": "reasoning.encrypted", "data": "secret"}]), *HELLO, STOP)], COMPLETE, "stop"),
    Row("inline reasoning", [text("<think>\nThe user ", "greets.\n</think>\n\n", COMPLETE)], COMPLETE, "stop", reasoning="\nThe user greets.\n"),
    Row("a tag in pieces", [text("<th", "ink>hm</th", "ink>", "\n", "Hello ", "world")], COMPLETE, "stop", reasoning="hm"),
    Row("a closing tag without an opening one", [http(json.dumps(whole({"content": "hm</think>\n\nHello world"})).encode())], COMPLETE, "stop", reasoning="hm"),
    Row("a tag in the text", [text("Use <think> ", "tags.")], "Use <think> tags.", "stop"),
    Row("a closing tag after an opening one within the text", [http(json.dumps(whole({"content": "Sure. <think>a</think> b"})).encode())], "Sure. <think>a</think> b", "stop"),
    Row("a thought that reaches the limit", [text("<think>Let me compute", finish="length")], "", "length", reasoning="Let me compute"),
    complete("errors that report success", {**HELLO[0], "error": {"code": 0, "message": ""}}, {**HELLO[1], "error": {"code": 200, "message": "OK"}}, STOP),
    Row("usage in every chunk of a cut answer", [stream({**delta("Hello "), "usage": USAGE}, done=False), text("world")], COMPLETE, "stop", 2),
    Row("only white space at the limit", [text(" \n", finish="length")], " \n", "length"),
    Row("an error labelled with a codec", [b"HTTP/1.1 400 X\r\nContent-Type: application/json; charset=zip\r\nContent-Length: 25\r\nConnection: close\r\n\r\n" + b'{"detail": "no such thing"'[:25]], "", "refused", message="no such thing"),
    Row("lines without end in one event", [http(b"data:\n" * 20_000 + b"\n")], "", "invalid_response"),
    # Usage
    *(
        Row(f"usage in {name}", [stream(HELLO[0], HELLO[1], chunk)], COMPLETE, "stop", usage=USAGE)
        for name, chunk in {
            "its own chunk": {"choices": [], "usage": USAGE, "finish_reason": None},
            "the last chunk": {**STOP, "usage": USAGE},
            "the choice": {"choices": [{"delta": {}, "finish_reason": "stop", "usage": USAGE}]},
            "x_groq": {**STOP, "x_groq": {"id": "r", "usage": USAGE}},
            "strings": {**STOP, "usage": {name: str(count) for name, count in USAGE.items()}},
        }.items()
    ),
    Row("a null count", [stream(*HELLO, {**STOP, "usage": {"prompt_tokens": None, "completion_tokens": 5}})], COMPLETE, "stop", usage={"completion_tokens": 5}),
    # Endings
    *(finish(reason, "stop") for reason in ("stop", "STOP", "eos", "eos_token", "end_turn", "stop_sequence", "repetition", 1, True, {"type": "stop"})),
    *(finish(reason, "stop", 2) for reason in ("length", "MAX_TOKENS", "max_tokens", "model_length", "max_output_tokens", "FinishReason.MAX_TOKENS")),
    *(finish(reason, "stop", 2) for reason in ("error", "network_error", "abort", "insufficient_system_resource")),
    *(finish(reason, "content_filter") for reason in ("content_filter", "sensitive", "SAFETY", "RECITATION")),
    finish("refusal", "refusal"),
    Row("no ending by the string null", [stream(delta("Hello ", finish="null"), delta("wor", finish=""), done=False), text("ld")], COMPLETE, "stop", 2),
    Row("interrupted without an ending", [stream(delta("Hello "), done=False), text("world")], COMPLETE, "stop", 2),
    Row("an error in the choice", [stream(delta("Hello "), {"choices": [{"delta": {"content": ""}, "finish_reason": "error", "error": {"message": "Upstream error from X"}}]}), text("world")], COMPLETE, "stop", 2),
    Row("an error in every choice", [stream(delta("Hi. "), {"choices": [{"delta": {}, "finish_reason": "error", "error": {"message": "Upstream error from X"}}]})], "Hi. " * 3, "upstream", 3, message="Upstream error from X"),
    Row("an empty stop", [stream(delta(""), STOP)], "", "stop"),
    # Failures before any text
    Row("an empty length", [stream(delta(""), delta(finish="length"))], "", "length"),
    Row("length after reasoning", [stream(delta(reasoning="hm"), delta(finish="length"))], "", "length", reasoning="hm"),
    Row("only [DONE]", [stream()], "", "no_answer"),
    Row("not a byte", [http(b"")], "", "no_answer"),
    Row("only comments", [http(b": hello\n\n")], "", "no_answer"),
    Row("only usage", [stream({"choices": [], "usage": USAGE})], "", "no_answer"),
    Row("only a message", [http(b'{"message": "The queue is full"}')], "", "no_answer", message="The queue is full"),
    Row("only a tool call", [stream(delta(tool_calls=[{"function": {"name": "search", "arguments": "{}"}}]), delta(finish="tool_calls"))], "", "tool_call", message="tool"),
    Row("a withheld answer", [stream(delta(""), delta(finish="content_filter"))], "", "withheld"),
    Row("a refusal", [stream(delta(None, refusal="I cannot "), delta(None, refusal="help with that."), STOP)], "I cannot help with that.", "refusal"),
    Row("a web page", [http(b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>", content_type="text/html")], "", "invalid_response", message="OPENAI_BASE_URL"),
    Row("a web page labelled SSE", [http(b"\n<html><title>Sign in</title>")], "", "invalid_response", message="Sign in"),
    Row("broken JSON", [http(b'data: {"choices": [\n\n')], "", "invalid_response"),
    Row("an error event", [http(event({"error": "Request failed: Server error", "error_type": "generation"}, "error"))], "", "upstream", message="Request failed: Server error"),
    Row("an error event of words", [http(event("Server overloaded", "error"))], "", "upstream", message="Server overloaded"),
    Row("FastChat's error", [stream({"text": "**NETWORK ERROR**", "error_code": 50001})], "", "upstream", message="NETWORK ERROR"),
    Row("vLLM's error", [stream({"object": "error", "message": "engine died", "code": 500})], "", "upstream", message="engine died"),
    Row("Gemini's error", [http(b'[{"error": {"code": 500, "message": "internal", "status": "INTERNAL"}}]')], "", "upstream", message="internal"),
    Row("an error labelled as an answer", [http(b'{"error": {"message": "no such engine"}}', content_type="application/json")], "", "upstream", message="no such engine"),
    Row("reasoning and nothing else", [stream(delta(reasoning="hm"))], "", "no_answer", reasoning="hm"),
    Row("a stop after reasoning", [stream(delta(reasoning="hm"), STOP)], "", "stop", reasoning="hm"),
    # Errors by their status
    Row("400 with detail", [error(400, {"detail": "Model m does not support streaming"})], "", "refused", message="Model m does not support streaming"),
    Row("401", [error(401, {"error": {"message": "bad key"}})], "", "authentication", message="OPENAI_API_KEY"),
    Row("403", [error(403, {"error": {"message": "Input was flagged by moderation"}})], "", "refused", message="Input was flagged by moderation"),
    Row("404", [error(404, {"error": {"message": "model gone"}})], "", "not_found", message="CHAT_MODEL"),
    Row("500", [error(500, {"error": {"message": "CUDA error"}})], "", "upstream", message="CUDA error"),
    Row("429, and then the answer", [error(429, {"error": {"message": "slow down"}}, Retry_After="0"), text(COMPLETE)], COMPLETE, "stop", 2),
    Row("429 twice", [error(429, {"error": {"message": "slow down"}}, Retry_After="0")], "", "rate_limited", 2, message="slow down"),
    Row("429 for long", [error(429, {"error": {"message": "come back tomorrow"}}, Retry_After="3000")], "", "rate_limited", message="come back tomorrow"),
    Row("a loading model", [error(503, {"error": {"message": "Loading model", "code": 503}}, Retry_After="0")] * 2 + [text(COMPLETE)], COMPLETE, "stop", 3),
    # Continuations
    Row("a continuation without text", [text("Hello ", finish="length"), stream(delta(finish="length"))], "Hello ", "length", 2),
    Row("a continuation of nothing but [DONE]", [text("Hello ", finish="length"), stream()], "Hello ", "length", 2),
    Row("a continuation that stops at once", [text("Hello ", finish="length"), stream(STOP)], "Hello ", "stop", 2),
    Row("a full context", [text("Hello ", finish="length"), error(400, {"error": {"message": "request (2094 tokens) exceeds the available context size (2048 tokens)", "type": "exceed_context_size_error"}})], "Hello ", "length", 2),
    Row("length without end", [text("ab ", finish="length")], "ab ab ab ", "length", 1 + CONTINUE_MAX),
    Row("an end in mid-answer without text", [stream(delta("Hello "), done=False), stream()], "Hello ", "length", 2),
    Row("a rejection of stream_options inside the response", [stream({"error": {"message": "stream_options is not supported"}}), text(COMPLETE)], COMPLETE, "stop", 2),
]
