"""Every failure of an upstream has a type, and a message with the upstream's own words."""

import asyncio
import json
import logging
import socket
import ssl
from itertools import pairwise
from typing import Any

import aiohttp
import httpx2
import openai
import pytest

from chat.errors import (
    ContextExceeded,
    UpstreamEnded,
    UpstreamError,
    UpstreamFailed,
    UpstreamRejected,
)
from chat.upstream.failures import Failures
from tests.conftest import KEY

REQUEST = httpx2.Request("POST", "http://model.internal:8000/v1/chat/completions")
BAD_GATEWAY = "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
CHECK_URL = "Check OPENAI_BASE_URL (which usually ends in /v1)."
EMPTY_AT_LIMIT = (
    "The model reached its token limit before it wrote anything. Ask a shorter question, or raise "
    "MAX_OUTPUT_TOKENS on the server."
)
NOT_FOUND = "<!DOCTYPE html><title>404 Not Found</title>"
CONTEXT = "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens."


@pytest.fixture
def failures() -> Failures:
    return Failures("model.internal:8000", KEY)


def respond(status: int, body: Any, headers: dict[str, str] | None = None) -> openai.APIStatusError:
    """Return the exception of the openai package for a response."""
    content = body if isinstance(body, bytes) else body.encode()
    response = httpx2.Response(status, content=content, headers=headers, request=REQUEST)
    return openai.APIStatusError("x", response=response, body=None)


def error(message: str, **more: Any) -> str:
    return json.dumps({"error": {"message": message, **more}})


STATUSES: list[tuple[int, str, type[UpstreamError], str, list[str]]] = [
    (400, error("Bad role"), UpstreamRejected, "refused", ["(400): Bad role"]),
    (400, '{"detail": "No streaming"}', UpstreamRejected, "refused", ["(400): No streaming"]),
    (400, "", UpstreamRejected, "refused", ["rejected the question (400)."]),
    (400, error(CONTEXT), ContextExceeded, "context_length", ["CONTEXT_TOKENS", "8192", "9000"]),
    (401, error("Invalid API key"), UpstreamRejected, "authentication", ["OPENAI_API_KEY"]),
    (401, error("Key expired"), UpstreamRejected, "authentication", ["_API_KEY", "Key expired"]),
    (402, error("Insufficient Balance"), UpstreamRejected, "refused", ["Insufficient Balance"]),
    (403, error("Flagged"), UpstreamRejected, "refused", ["denied the request (403): Flagged"]),
    (403, "<html><title>Blocked</title>", UpstreamRejected, "refused", ["(403): Blocked"]),
    (404, error("No model m"), UpstreamRejected, "not_found", ["CHAT_MODEL", "“m”", "No model m"]),
    (404, NOT_FOUND, UpstreamRejected, "not_found", ["a web page (“404 Not Found”)", "BASE_URL"]),
    (405, NOT_FOUND, UpstreamRejected, "not_found", ["a web page", "OPENAI_BASE_URL"]),
    (405, '{"detail": "Not allowed"}', UpstreamRejected, "not_found", ["Not allowed", "BASE_URL"]),
    (407, "<html><title>Sign in</title>", UpstreamRejected, "proxy", ["HTTPS_PROXY", "Sign in"]),
    (408, "", UpstreamFailed, "upstream", ["(408)"]),
    (409, error("Busy"), UpstreamFailed, "upstream", ["(409): Busy"]),
    (413, error("20 MB"), UpstreamRejected, "refused", ["too large", "(413): 20 MB"]),
    (413, error(CONTEXT), ContextExceeded, "context_length", ["CONTEXT_TOKENS"]),
    (422, error("Bad field"), UpstreamRejected, "refused", ["(422): Bad field"]),
    (425, "", UpstreamFailed, "upstream", ["(425)"]),
    (429, error("Slow down"), UpstreamFailed, "rate_limited", ["busy", "quota", "Slow down"]),
    (429, "", UpstreamFailed, "rate_limited", ["quota is used up."]),
    (451, "", UpstreamRejected, "refused", ["(451)"]),
    (500, error("CUDA out of memory"), UpstreamFailed, "upstream", ["(500): CUDA out of memory"]),
    (500, "", UpstreamFailed, "upstream", ["(500). Try again in a moment."]),
    (500, error(CONTEXT), ContextExceeded, "context_length", ["CONTEXT_TOKENS"]),
    (502, BAD_GATEWAY, UpstreamFailed, "upstream", ["A proxy", "(502): 502 Bad Gateway"]),
    (503, error("Loading model"), UpstreamFailed, "loading", ["still loading the model"]),
    (503, error("No slots"), UpstreamFailed, "upstream", ["(503): No slots"]),
    (521, BAD_GATEWAY, UpstreamFailed, "upstream", ["proxy", "(521)"]),
    (529, error("Overloaded"), UpstreamFailed, "upstream", ["(529): Overloaded"]),
    (302, "", UpstreamRejected, "not_found", ["OPENAI_BASE_URL"]),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "category", "kind", "parts"), STATUSES)
def test_a_status_gives_a_type_and_the_upstreams_words(
    failures: Failures,
    status: int,
    body: str,
    category: type[UpstreamError],
    kind: str,
    parts: list[str],
) -> None:
    failure = failures.from_openai(respond(status, body), "m")
    assert (type(failure), failure.kind) == (category, kind)
    for part in parts:
        assert part in failure.message
    assert ("OPENAI_API_KEY" in failure.message) is (status == 401)
    assert "<" not in failure.message
    assert not failure.message.endswith(("..", ":"))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 407, 413, 429, 500, 502, 503])
def test_no_status_shows_or_logs_a_key_an_address_or_the_question(
    failures: Failures, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    secrets = (KEY, "sk-other-key", "10.0.0.7", "proxy.corp", "hunter2", "the secret question")
    words = f"{KEY} sk-other-key at 10.0.0.7:80 by http://u:hunter2@proxy.corp:3128"
    body = {"error": {"message": words, "input": "the secret question"}}
    with caplog.at_level(logging.DEBUG):
        failure = failures.from_openai(respond(status, json.dumps(body)), "m")
    for secret in secrets:
        assert secret not in failure.message
        assert secret not in caplog.text
    assert str(status) in caplog.text


def test_a_context_limit_carries_the_servers_numbers(failures: Failures) -> None:
    body = error("exceeds the available context size", n_ctx=8192, n_prompt_tokens=9000)
    failure = failures.from_openai(respond(400, body), "m")
    assert isinstance(failure, ContextExceeded)
    assert (failure.window, failure.requested) == (8192, 9000)
    assert "9000 tokens, but its context window has 8192 tokens" in failure.message
    assert "CONTEXT_TOKENS on the server to less than 8192" in failure.message
    assert "exceeds the available context size" in failure.message
    unknown = failures.from_openai(respond(400, error("Prompt is too long")), "m")
    assert isinstance(unknown, ContextExceeded)
    assert (unknown.window, unknown.requested) == (None, None)
    assert "CONTEXT_TOKENS" in unknown.message


@pytest.mark.parametrize(
    ("status", "headers", "message", "wait_s"),
    [
        (429, {"Retry-After": "15"}, "x", 15),
        (503, {"Retry-After": "2"}, "Loading model", 2),
        (503, {"Retry-After": "2"}, "x", 2),
        (429, {"Retry-After-Ms": "250"}, "x", 0.25),
        (429, {}, "Please try again in 1m30s", 90),
        (429, {"Retry-After": "never"}, "x", None),
        (429, {}, "x", None),
        (500, {"Retry-After": "15"}, "x", None),
    ],
)
def test_the_time_to_wait_is_an_attribute_of_the_failure(
    failures: Failures, status: int, headers: dict[str, str], message: str, wait_s: float | None
) -> None:
    failure = failures.from_openai(respond(status, error(message), headers), "m")
    assert failure.retry_after_s == wait_s


def test_a_response_that_was_not_read_is_described_by_its_status(failures: Failures) -> None:
    async def stream() -> Any:
        yield b""

    response = httpx2.Response(500, content=stream(), request=REQUEST)
    failure = failures.from_openai(openai.APIStatusError("x", response=response, body=None), "m")
    assert failure.message == "The model provider failed (500). Try again in a moment."


def test_an_unknown_error_of_the_package_is_a_failure(failures: Failures) -> None:
    failure = failures.from_openai(openai.OpenAIError("x"), "m")
    assert (failure.kind, failure.message) == ("upstream", "The model provider failed.")


def chain(*errors: BaseException) -> BaseException:
    """Return the first exception, caused by the second, and so on."""
    for later, earlier in pairwise(errors):
        later.__cause__ = earlier
    return errors[0]


class ClientProxyConnectionError(Exception):
    """Stands for aiohttp's exception, whose arguments are internal, like those of the next one."""


class ClientHttpProxyError(Exception):
    status = 407


def untrusted() -> ssl.SSLCertVerificationError:
    cause = ssl.SSLCertVerificationError(1, "certificate verify failed")
    cause.verify_message = "self-signed certificate"
    return cause


CONNECTIONS: list[tuple[list[BaseException], str, str]] = [
    ([httpx2.ConnectError("x"), untrusted()], "certificate", "SSL_CERT_FILE"),
    ([openai.APIConnectionError(request=REQUEST), httpx2.ConnectError("x"), untrusted()],
     "certificate", "not trusted: self-signed certificate."),
    ([httpx2.ProxyError("x")], "unreachable", "HTTPS_PROXY"),
    ([httpx2.ProxyError("x"), ClientHttpProxyError()], "proxy", "HTTPS_PROXY"),
    ([httpx2.ConnectTimeout("x"), ClientProxyConnectionError("10.0.0.7")],
     "unreachable", "HTTP_PROXY"),
    ([httpx2.ConnectError("x"), socket.gaierror(-2, "x")], "unreachable", "host name is unknown"),
    ([httpx2.ConnectError("x"), ConnectionRefusedError(111, "x")], "unreachable", "refuses"),
    ([httpx2.ConnectError("x"), ConnectionResetError()], "unreachable", "OPENAI_BASE_URL"),
    ([httpx2.ConnectError("x"), ssl.SSLError(1, "wrong version")], "unreachable", "TLS"),
    ([httpx2.ConnectTimeout("x"), TimeoutError(), asyncio.CancelledError()],
     "unreachable", "did not accept a connection in time"),
    ([openai.APITimeoutError(REQUEST), httpx2.ConnectTimeout("x")], "unreachable", "BASE_URL"),
    ([httpx2.UnsupportedProtocol("x")], "unreachable", "http://"),
    ([httpx2.ReadTimeout("x"), TimeoutError(), asyncio.CancelledError()], "timeout", "too long"),
    ([TimeoutError()], "timeout", "too long"),
    ([openai.APITimeoutError(REQUEST), httpx2.ReadTimeout("x")], "timeout", "too long"),
    ([httpx2.ConnectTimeout("x"), aiohttp.ServerDisconnectedError()], "connection_lost", "lost"),
    ([httpx2.ReadError("x"), ConnectionResetError()], "connection_lost", "lost"),
    ([httpx2.ReadError("x"), ssl.SSLError(1, "bad record")], "connection_lost", "lost"),
    ([httpx2.RemoteProtocolError("x")], "connection_lost", "lost"),
]  # fmt: skip


@pytest.mark.parametrize(("errors", "kind", "part"), CONNECTIONS)
def test_a_failed_connection_is_described_by_its_causes(
    failures: Failures,
    caplog: pytest.LogCaptureFixture,
    errors: list[BaseException],
    kind: str,
    part: str,
) -> None:
    failure = failures.from_transport(chain(*errors))
    assert failure.kind == kind
    assert part in failure.message
    assert "10.0.0.7" not in failure.message
    assert isinstance(failure, UpstreamRejected) is (kind in ("certificate", "proxy"))
    assert "CancelledError" not in caplog.text


def test_a_certificate_is_found_in_the_context_of_an_exception(failures: Failures) -> None:
    error = httpx2.ConnectError("x")
    error.__context__ = untrusted()
    assert failures.from_transport(error).kind == "certificate"


@pytest.mark.parametrize(
    ("body", "category", "kind", "part"),
    [
        ("the GPU is on fire", UpstreamFailed, "upstream", "failed: the GPU is on fire"),
        ({"message": "on fire", "code": 500}, UpstreamFailed, "upstream", "on fire"),
        ([{"error": {"message": "on fire"}}], UpstreamFailed, "upstream", "on fire"),
        ({"text": "**NETWORK ERROR**", "error_code": 50001}, UpstreamFailed, "upstream", "NETWORK"),
        ('{"error":"Request failed","error_type":"generation"}', UpstreamFailed, "upstream", "Req"),
        ({"code": 502, "message": "Upstream died"}, UpstreamFailed, "upstream", "Upstream died"),
        ({"message": CONTEXT, "code": 400}, ContextExceeded, "context_length", "CONTEXT_TOKENS"),
        ({"error": CONTEXT}, ContextExceeded, "context_length", "8192"),
        ({"message": "Bad role", "code": 400}, UpstreamRejected, "refused", "(400): Bad role"),
        ({"message": "Slow down", "code": "429"}, UpstreamFailed, "rate_limited", "Slow down"),
        ({"message": "Flagged", "code": 403}, UpstreamRejected, "refused", "(403): Flagged"),
        ({"message": "Loading model"}, UpstreamFailed, "loading", "loading"),
        ({"code": 404, "message": "gone"}, UpstreamFailed, "upstream", "failed: gone"),
        (True, UpstreamFailed, "upstream", "The model provider failed."),
        (5, UpstreamFailed, "upstream", "The model provider failed."),
    ],
)
def test_an_error_inside_a_response_of_any_shape_is_described(
    failures: Failures, body: object, category: type[UpstreamError], kind: str, part: str
) -> None:
    failure = failures.from_stream(body)
    assert (type(failure), failure.kind) == (category, kind)
    assert part in failure.message


def test_a_response_without_an_answer_is_described_by_its_end(failures: Failures) -> None:
    described: list[tuple[UpstreamError, type[UpstreamError], str, str]] = [
        (failures.web_page(b"<title>Hi</title>"), UpstreamRejected, "invalid_response",
         f"The model provider sent a web page (“Hi”) instead of an API's response. {CHECK_URL}"),
        (failures.web_page("<html>"), UpstreamRejected, "invalid_response",
         f"The model provider sent a web page instead of an API's response. {CHECK_URL}"),
        (failures.invalid_response(), UpstreamRejected, "invalid_response",
         "The model provider sent an invalid response."),
        (failures.no_answer(), UpstreamEnded, "no_answer", "The model provider sent no answer."),
        (failures.no_answer({"msg": "later"}), UpstreamEnded, "no_answer",
         "The model provider sent no answer: later"),
        (failures.interrupted({"message": "X died"}, "error"), UpstreamEnded, "upstream",
         "The model provider ended the answer early (error): X died"),
        (failures.interrupted(), UpstreamEnded, "upstream",
         "The model provider ended the answer early."),
        (failures.tool_call(), UpstreamRejected, "tool_call",
         "The model answered with a tool call instead of text."),
        (failures.withheld(), UpstreamRejected, "withheld",
         "The answer was withheld by the model provider's content filter."),
        (failures.withheld("SAFETY"), UpstreamRejected, "withheld",
         "The answer was withheld by the model provider's content filter (SAFETY)."),
        (failures.withheld("I cannot help with that."), UpstreamRejected, "withheld",
         "The model declined to answer: I cannot help with that."),
        (failures.empty_at_limit(), UpstreamRejected, "length",
         EMPTY_AT_LIMIT),
    ]  # fmt: skip
    for failure, category, kind, message in described:
        assert (type(failure), failure.kind, failure.message) == (category, kind, message)
