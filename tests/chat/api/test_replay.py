"""Resuming after a connection that was dropped at any byte of a stream."""

import asyncio
import json

import httpx
from httpx_sse import EventSource

from tests.fake_upstream import ScriptedUpstream
from tests.processes import holdline
from tests.streams import STREAM, asking, names_of, read


def decode(stream: bytes) -> list[tuple[str, str, str]]:
    """Return the name, data and id of each event, as an independent client reads them."""
    response = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=stream)
    return [(event.event, event.data, event.id) for event in EventSource(response).iter_sse()]


async def test_a_connection_dropped_at_any_byte_resumes_after_the_last_frame(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    async with (
        holdline(REDIS_URL=redis_url, OPENAI_BASE_URL=upstream.base_url, CHAT_MODEL="m") as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        reading = asyncio.create_task(read(client, message=question))
        exchange = await upstream.exchange(question)
        await exchange.chunk({"reasoning_content": "先想一想\n\nthen "})
        texts = ("答案：\n\n", f"id: {question}\n", "🙂 data: ")
        await exchange.send_text(*texts)
        exchange.drop()
        await (await upstream.continued("".join(texts))).answer("\n\n:", "ü ", "fin\n")
        events = await reading
        turn = json.loads(events[0].data)["turn"]
        assert names_of(events) == [
            "turn", "reasoning", "message", "continued", "message", "usage", "end",
        ]  # fmt: skip
        full = (await client.get(STREAM, params={"turn": turn})).content
        assert decode(full) == [(event.event, event.data, event.id) for event in events]

        async def reconnect(cut: int, limit: asyncio.Semaphore) -> None:
            received = full[: full[:cut].rfind(b"\n\n") + 2] if b"\n\n" in full[:cut] else b""
            seen = decode(received)
            async with limit:
                headers = {"Last-Event-ID": seen[-1][2]} if seen else {}
                response = await client.get(STREAM, params={"turn": turn}, headers=headers)
            assert response.status_code == (204 if received == full else 200)
            assert received + response.content == full
            assert seen + decode(response.content) == decode(full)

        limit = asyncio.Semaphore(20)
        await asyncio.gather(*(reconnect(cut, limit) for cut in range(len(full) + 1)))


async def test_viewers_resume_anywhere_in_a_long_running_answer_on_any_worker(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    """A worker keeps only the end of a long log in memory; the rest is read from Redis."""
    settings = {"REDIS_URL": redis_url, "OPENAI_BASE_URL": upstream.base_url, "CHAT_MODEL": "m"}
    words = [f"{number} 号 {question}\n" for number in range(100)]
    async with (
        holdline(**settings) as generating,
        holdline(**settings) as other,
        httpx.AsyncClient(base_url=generating.url, timeout=60) as client,
        asking(client, message=question) as source,
    ):
        events = source.aiter_sse()
        shown = [await anext(events)]
        turn = json.loads(shown[0].data)["turn"]
        exchange = await upstream.exchange(question)
        for word in words:  # one at a time, so that each has its own frame
            await exchange.send_text(word)
            shown.append(await anext(events))
        valid = [event.id for event in shown[:-1:11]]
        invalid = [f"{turn}.{int(name.rpartition('.')[2]) - 1}" for name in valid]
        reading = asyncio.Barrier(2 * len(valid + invalid) + 1)

        async def reconnect(browser: httpx.AsyncClient, last: str) -> list[str]:
            async with asking(browser, {"Last-Event-ID": last}, turn=turn) as source:
                events = source.aiter_sse()
                first = await anext(events)
                await reading.wait()
                return [repr(event) for event in [first, *[event async for event in events]]]

        async with httpx.AsyncClient(
            base_url=other.url, cookies=client.cookies, timeout=60
        ) as elsewhere:
            viewers = [
                (last, asyncio.create_task(reconnect(browser, last)))
                for browser in (client, elsewhere)
                for last in valid + invalid
            ]
            await reading.wait()
            await exchange.answer("end")
            shown += [event async for event in events]
            ids = [event.id for event in shown]
            full = [repr(event) for event in shown]
            for last, viewer in viewers:
                found = await viewer
                if last in invalid:
                    assert "restart" in found.pop(0)
                assert found == full[ids.index(last) + 1 if last in valid else 0 :]
