"""Text that is not UTF-8, empty fields and foreign Last-Event-IDs: a first question is answered."""

import asyncio
import json
import re
import tracemalloc
import uuid
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sanic import Request

from chat.api.parsing import decode_json, decode_text
from chat.errors import BadRequest
from tests.fake_upstream import ScriptedUpstream
from tests.streams import STREAM, ask, asking, read

JSON = {"Content-Type": "application/json"}

QUERIES = {
    "half an emoji": (b"%ED%A0%BDb", "\ufffdb"),
    "its second half": (b"%ed%b8%80", "\ufffd"),
    "two second halves": (b"%ED%B8%80%ED%B8%80", "\ufffd\ufffd"),
    "a truncated emoji": (b"%F0%9F%98", "\ufffd"),
    "Latin-1": (b"caf%E9+b", "caf\ufffd b"),
    "UTF-8 as it is": ("你好 😀".replace(" ", "+").encode(), "你好 😀"),
    "half an emoji as it is": (b"\xed\xa0\xbdb", "\ufffdb"),
    "a truncated emoji as it is": (b"\xf0\x9f\x98", "\ufffd"),
    "a byte order mark": (b"%EF%BB%BFb", "\ufeffb"),
    "both forms": ("你".encode() + b"%E5%A5%BD", "你好"),
}
"""The bytes in the query, and the text that goes upstream."""

BODIES = {
    "half an emoji": (rb'{"message": "?\ud83d"}', "\ufffd"),
    "half an emoji and more": (rb'{"message": "?\uD83Db"}', "\ufffdb"),
    "its second half": (rb'{"message": "?\ude00"}', "\ufffd"),
    "the halves exchanged": (rb'{"message": "?\ude00\ud83d"}', "\ufffd\ufffd"),
    "a whole emoji and half of one": (rb'{"message": "?\ud83d\ude00\ud83d"}', "😀\ufffd"),
    "an escaped backslash": (rb'{"message": "?\\ud83d"}', "\\ud83d"),
    "half an emoji in another field": (rb'{"message": "?b", "x": ["\ud83d"]}', "b"),
    "half an emoji in UTF-8": (b'{"message": "?\xed\xa0\xbdb"}', "\ufffdb"),
    "a truncated emoji": (b'{"message": "?\xf0\x9f\x98"}', "\ufffd"),
    "Latin-1": (b'{"message": "?caf\xe9"}', "caf\ufffd"),
    "a byte order mark": (b'\xef\xbb\xbf{"message": "?b"}', "b"),
    "a byte order mark and half an emoji": (b'\xef\xbb\xbf{"message": "?\\ud83d"}', "\ufffd"),
}
"""The body, whose `?` stands for the beginning of the question, and the text that goes upstream."""


async def send_raw(client: httpx.AsyncClient, target: bytes) -> bytes:
    """Send a GET with any bytes in its target; return the whole response."""
    host = f"{client.base_url.host}:{client.base_url.port}"
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    writer.write(b"GET %b HTTP/1.1\r\nHost: %b\r\n" % (target, host.encode()))
    writer.write(b"User-Agent: raw\r\nConnection: close\r\n\r\n")
    received = await reader.read()
    writer.close()
    return received


@pytest.mark.parametrize(("text", "expected"), QUERIES.values(), ids=QUERIES)
async def test_a_query_is_decoded_as_a_browser_decodes_it(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    question: str,
    text: bytes,
    expected: str,
) -> None:
    target = f"{STREAM}?message={quote(question)}".encode() + text
    sending = asyncio.create_task(send_raw(client, target))
    await (await upstream.exchange(question + expected)).answer("a")
    assert (await sending).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(("body", "expected"), BODIES.values(), ids=BODIES)
async def test_a_body_is_decoded_as_a_browser_decodes_it(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    question: str,
    body: bytes,
    expected: str,
) -> None:
    content = body.replace(b"?", question.encode())
    sending = asyncio.create_task(client.post(STREAM, content=content, headers=JSON))
    await (await upstream.exchange(question + expected)).answer("a")
    assert (await sending).status_code == 200


REQUEST = cast(Request, SimpleNamespace(headers={"content-type": "application/json"}))

ESCAPES = {
    rb"\ud83d": "\ufffd",
    rb"\ud83d\ude00": "😀",
    rb"\uD83D\uDE00\uDE00": "😀\ufffd",
    rb"\ud83d\ud83d\ude00": "\ufffd😀",
    rb"\\ud83d\ude00": "\\ud83d\ufffd",
    rb"\\\ud83d\ude00": "\\😀",
    rb"\\\\ud83d": "\\\\ud83d",
    rb"\"\ud83d\n": '"\ufffd\n',
    rb"\ud83d\\ude00": "\ufffd\\ude00",
    rb"\ud83d\u0041": "\ufffdA",
    rb"\ud83dude00": "\ufffdude00",
}
"""A text in a JSON body, and the same as it is read."""


@pytest.mark.parametrize(("escaped", "expected"), ESCAPES.items())
def test_an_escape_of_half_a_pair_is_replaced_alone(escaped: bytes, expected: str) -> None:
    for suffix in (b"", rb"\ud83d"):  # with the second, every body is malformed
        body = b'["%b", {"%b": "%b"}]' % (escaped, escaped, suffix)
        assert decode_json(REQUEST, body) == [expected, {expected: "\ufffd" if suffix else ""}]


@pytest.mark.parametrize(
    "text",
    [
        rb"\ud8",
        rb"\udc0",
        rb"\ud83d\ud",
        rb"\ud83d\udcxx",
        rb"\udcxx\ud83d",
        b"\0\\ud83d",
        b"\\ud83d\x01",
    ],
)
def test_what_is_no_json_stays_so(text: bytes) -> None:
    with pytest.raises(BadRequest, match="not valid JSON"):
        decode_json(REQUEST, b'["' + text + b'"]')


PIECES = [
    rb"\ud83d",
    rb"\uDE00",
    rb"\\",
    rb"\"",
    rb"\n",
    rb"\u0041",
    b"u",
    b"ud83d",
    b"x",
    b"\xed\xa0\xbd",
    b"\xff",
]


@given(st.lists(st.sampled_from(PIECES)))
def test_a_malformed_body_is_read_as_the_standard_library_reads_it(pieces: list[bytes]) -> None:
    body = b'["' + b"".join(pieces) + b'"]'
    (expected,) = json.loads(decode_text(body))
    assert decode_json(REQUEST, body) == [re.sub("[\ud800-\udfff]", "\ufffd", expected)]


@pytest.mark.parametrize(
    "text", [rb"\ud83d", rb"\ud83d\ude00\ud83d", rb"\\", b"\xff", b"\xed\xa0\xbd", b"1,"]
)
def test_a_malformed_body_takes_memory_in_proportion_to_its_length(text: bytes) -> None:
    body = b'["' + text * ((1 << 20) // len(text)) + rb'", "\ud83d"]'
    tracemalloc.start()
    decode_json(REQUEST, body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * len(body)


@given(st.text(st.characters(exclude_categories=[])))
def test_a_query_and_a_body_give_the_same_text(text: str) -> None:
    in_browser = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert decode_text(in_browser.encode()) == in_browser
    for is_ascii in (True, False):
        body = json.dumps([text], ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
        # As bytes, a pair of halves is two errors; as escapes, it is one character.
        expected = in_browser if is_ascii else decode_text(text.encode("utf-8", "surrogatepass"))
        assert decode_json(REQUEST, body) == [expected]


async def test_other_texts_of_a_user_are_decoded_in_the_same_way(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    made = await client.post(
        "/api/conversations/", content=rb'{"title": "t\ud83d", "system": "s\ud83d"}', headers=JSON
    )
    path = f"/api/conversations/{made.json()['id']}"
    assert made.json()["title"] == "t\ufffd"
    changed = await client.patch(path, content=b'{"title": "t\xed\xa0\xbd!"}', headers=JSON)
    assert changed.json()["title"] == "t\ufffd!"
    message = rb'{"messages": [{"role": "user", "content": "?\ud83d"}]}'
    completing = asyncio.create_task(
        client.post(
            "/v1/chat/completions",
            content=message.replace(b"?", question.encode()),
            headers=JSON,
        )
    )
    await (await upstream.exchange(question + "\ufffd")).answer("a")
    assert (await completing).status_code == 200


EMPTY: dict[str, dict[str, str]] = {
    "turn": {"turn": ""},
    "every other field": dict.fromkeys(
        ("input", "prompt", "conversation", "turn", "model", "regenerate", "last_event_id"), ""
    ),
}


@pytest.mark.parametrize("fields", EMPTY.values(), ids=EMPTY)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_empty_field_counts_as_absent(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    question: str,
    method: str,
    fields: dict[str, str],
) -> None:
    fields = {"message": question, **fields}
    if method == "GET":
        fields |= dict.fromkeys(("lastEventId", "continue", "format", "end"), "")
    options: Any = {"params": fields} if method == "GET" else {"json": fields}
    sending = asyncio.create_task(client.request(method, STREAM, **options))
    await (await upstream.exchange(question)).answer("a")
    assert (await sending).text.startswith("retry: 1000\nevent: turn\n")


async def test_an_empty_message_is_no_question(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    events = await ask(client, upstream, question, "a")
    begun = json.loads(events[0].data)
    for empty in ({"message": ""}, dict.fromkeys(("message", "prompt", "input"), "")):
        assert (await client.get(STREAM, params=empty)).status_code == 400
        assert (await read(client, None, turn=begun["turn"], **empty))[-1].data == "a"
    again = asyncio.create_task(
        read(client, message="", parent="", regenerate=begun["answer"], turn="")
    )
    await (await upstream.exchange(question, 2)).answer("b")
    assert (await again)[-1].data == "b"
    beginning = await ask(client, upstream, f"b {question}", "c", parent="")
    conversation = json.loads(beginning[0].data)["conversation"]
    assert conversation == begun["conversation"]
    shown = (await client.get(f"/api/conversations/{conversation}")).json()["messages"]
    assert [one["content"] for one in shown] == [f"b {question}", "c"]


FOREIGN = ["0", "1700000000000-0", "x" * 9000, "turn.-1", "0123456789abcdef.1e9", "{}", "é", ".5"]
"""Ids that other event streams may send; none is the id of a frame."""


@pytest.mark.parametrize("turn", ["", "turn"])
@pytest.mark.parametrize("place", ["header", "query", "body"])
async def test_a_first_question_with_a_foreign_last_event_id_is_answered_once(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    question: str,
    place: str,
    turn: str,
) -> None:
    other = await ask(client, upstream, f"other {question}", "other")
    # The id of another turn's frame means a reconnect, unless the question has its own turn.
    for number, foreign in enumerate([*FOREIGN, other[1].id] if turn else FOREIGN):
        one = f"{number} {question}"
        fields = {"message": one, "turn": turn and f"{turn}-{uuid.uuid4().hex}"}
        if place == "header":
            headers = {b"Last-Event-ID": foreign.encode()}
            sending = client.get(STREAM, params=fields, headers=headers)
        elif place == "query":
            sending = client.get(STREAM, params={**fields, "last_event_id": foreign})
        else:
            sending = client.post(STREAM, json={**fields, "last_event_id": foreign})
        response = asyncio.create_task(sending)
        await (await upstream.exchange(one)).answer("a")
        assert (await response).text.startswith("retry: 1000\nevent: turn\n")
        assert len(upstream.find_requests(one)) == 1


async def test_a_viewer_of_a_known_turn_with_a_foreign_last_event_id_begins_again(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    turn = f"turn-{uuid.uuid4().hex}"
    await ask(client, upstream, question, "a", turn=turn)
    for headers in ({"Last-Event-ID": "0"}, {"Last-Event-ID": f"{turn}x.5"}):
        for query in ({"turn": turn}, {"turn": turn, "message": question}):
            assert (await read(client, headers, **query))[0].event == "restart"
    assert len(upstream.find_requests(question)) == 1


async def test_a_rejected_get_that_is_repeated_by_post_is_answered_once(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    """A page cannot know whether a proxy rejected the GET before or after the server had it."""
    turn, text = f"turn-{uuid.uuid4().hex}", f"😀\r\n {question} \ud83d"
    shown = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    async with asking(client, message=shown, turn=turn):
        pass
    body = json.dumps({"message": text, "turn": turn})
    repeated = asyncio.create_task(client.post(STREAM, content=body, headers=JSON))
    sent = shown.replace("\r\n", "\n")
    await (await upstream.exchange(sent)).answer("a")
    assert (await repeated).status_code == 200
    assert len(upstream.find_requests(sent)) == 1
