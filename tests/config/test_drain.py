"""A stopping server: it finishes its answers, serves known turns, and hands over the rest."""

import asyncio
import os
import signal
from pathlib import Path

import httpx
import pytest
from httpx_sse import ServerSentEvent

from tests.config.test_supervisor import find_children, model_settings, wait_for_exit
from tests.fake_upstream import Exchange, ScriptedUpstream
from tests.own_redis import own_redis
from tests.processes import PATIENCE_S, Server, find_worker, holdline, private_folder, start
from tests.streams import STREAM, ask, asking, names_of, read, text_of

LONG = {"DRAIN_S": "600"}
"""A test that waited for the end of this drain would fail: it is longer than PATIENCE_S."""

NO_KEEP_ALIVE = httpx.Limits(max_keepalive_connections=0)


async def read_notice(server: Server) -> str:
    """Return the line that a stopping server prints about its answers."""
    assert server.process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        async for line in server.process.stdout:
            if line.startswith(b"Finishing "):
                return line.decode().rstrip("\n")
    return ""


async def wait_until_draining(client: httpx.AsyncClient) -> httpx.Response:
    """Return the response of /readyz once it is 503."""
    async with asyncio.timeout(PATIENCE_S):
        while (ready := await client.get("/readyz")).status_code != 503:
            await asyncio.sleep(0.01)
    return ready


class Asked:
    """A question with a partial answer, and the viewer that reads it."""

    def __init__(self, reading: asyncio.Task[list[ServerSentEvent]], exchange: Exchange) -> None:
        self.reading = reading
        self.exchange = exchange


async def begin(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, **query: str
) -> Asked:
    """Ask a question, and send a part of its answer."""
    reading = asyncio.create_task(read(client, None, message=question, **query))
    exchange = await upstream.exchange(question)
    await exchange.send_text(f"part of {question} ")
    return Asked(reading, exchange)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_a_stopping_server_finishes_twenty_answers_and_requests_none_twice(
    upstream: ScriptedUpstream, question: str, loop: str, tmp_path: Path
) -> None:
    if loop == "asyncio":
        (tmp_path / "uvloop.py").write_text("raise ImportError\n")
    questions = [f"<{number}> {question}" for number in range(20)]
    settings = model_settings(upstream) | LONG | {"WORKERS": "2", "PYTHONPATH": str(tmp_path)}
    async with (
        holdline(**settings) as server,
        httpx.AsyncClient(base_url=server.url, limits=NO_KEEP_ALIVE, timeout=60) as client,
    ):
        asked = []
        for one in questions:
            conversation = (await client.post("/api/conversations/", json={})).json()["id"]
            asked.append(await begin(client, upstream, one, conversation=conversation))
        workers = find_children(server.process.pid, "python")
        stopping = asyncio.create_task(server.stop())
        notice = await read_notice(server)
        assert notice == "Finishing 20 answers, up to 600 s. Ctrl-C again to stop now."
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            for worker in workers:
                os.kill(worker, number)
        await wait_until_draining(client)
        for turn in asked:
            await turn.exchange.answer("and the rest")
        for turn, text in zip(asked, questions, strict=True):
            events = await turn.reading
            assert names_of(events) == ["turn", "message", "usage", "end"]
            assert events[-1].data == text_of(events) == f"part of {text} and the rest"
            assert len(upstream.find_requests(text)) == 1
        assert await stopping == 0
        await wait_for_exit(*workers)
        log = server.read_log()
        assert "died" not in log
        assert "Traceback" not in log


async def test_a_draining_server_serves_known_turns_and_begins_none(
    upstream: ScriptedUpstream, question: str
) -> None:
    turn = "turn-" + question[-32:]
    part = f"part of {question} "
    async with (
        holdline(**model_settings(upstream) | LONG) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        done = await ask(client, upstream, question + "!", "stored")
        asked = await begin(client, upstream, question, turn=turn)
        stopping = asyncio.create_task(server.stop())
        assert await read_notice(server) == (
            "Finishing 1 answer, up to 600 s. Ctrl-C again to stop now."
        )
        # A connection that was opened before the drain is used again, and then closed.
        responses = [await wait_until_draining(client), await client.get("/healthz")]
        assert [one.status_code for one in responses] == [503, 200]
        assert responses[0].json()["status"] == "stopping"

        new = {"message": question + "?"}
        for refused in (
            await client.get(STREAM, params=new),
            await client.get(STREAM, params=new | {"turn": "another-" + turn}),
            await client.post(STREAM, json=new),
        ):
            responses.append(refused)
            assert (refused.status_code, refused.text) == (200, "retry: 500\n")
            assert refused.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert upstream.find_requests(question + "?") == []

        conflict = await client.get(STREAM, params=new | {"turn": turn})
        missing = await client.get(STREAM, params={"turn": "unknown-" + turn})
        listed = await client.get("/api/conversations/")
        assert [one.status_code for one in (conflict, missing, listed)] == [409, 404, 200]
        responses += [conflict, missing, listed, await client.get("/"), await client.get("/none")]

        finished = {"Last-Event-ID": done[1].id}
        assert (await read(client, finished, message=question + "!"))[-1].data == "stored"
        for headers, query in (
            ({}, {"turn": turn}),
            ({}, {"turn": turn, "message": question}),
            ({"Last-Event-ID": f"{turn}.0"}, {"message": question}),
        ):
            async with asking(client, headers, **query) as source:
                events = source.aiter_sse()
                assert [(await anext(events)).event, (await anext(events)).data] == ["turn", part]
                responses.append(source.response)
        stopped = await client.post(f"/api/turns/{turn}/stop")
        assert stopped.status_code == 204
        assert {one.headers["connection"] for one in [*responses, stopped]} == {"close"}
        assert (await asked.reading)[-1].data == part
        assert await stopping == 0
        assert len(upstream.find_requests(question)) == 1


async def test_a_server_without_running_answers_stops_at_once(
    upstream: ScriptedUpstream, question: str
) -> None:
    """It closes idle connections and disconnects the viewers of another server's turn."""
    async with (
        own_redis() as redis,
        holdline(**model_settings(upstream) | {"REDIS_URL": redis.url}) as other,
        holdline(**model_settings(upstream) | LONG | {"REDIS_URL": redis.url}) as server,
        httpx.AsyncClient(base_url=other.url, timeout=60) as client,
    ):
        asked = await begin(client, upstream, question, turn="turn-" + question[-32:])
        async with asking(client, turn="turn-" + question[-32:]):
            client.base_url = httpx.URL(server.url)
            assert (await client.get("/healthz")).headers["connection"] == "keep-alive"
            viewing = asyncio.create_task(read(client, turn="turn-" + question[-32:]))
            async with asking(client, turn="turn-" + question[-32:]) as source:
                events = source.aiter_sse()
                assert (await anext(events)).event == "turn"
                assert await server.stop() == 0
                assert "end" not in [event.event async for event in events]
            assert "end" not in [event.event for event in await viewing]
            assert await read_notice(server) == ""
        await asked.exchange.answer("and the rest")
        assert (await asked.reading)[-1].event == "end"
        assert len(upstream.find_requests(question)) == 1


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT,) * 2])
async def test_a_second_signal_hands_the_answers_over_at_once(
    upstream: ScriptedUpstream, question: str, numbers: tuple[int, int]
) -> None:
    async with private_folder() as home:
        server = await start(home, **model_settings(upstream) | LONG)
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            asked = await begin(client, upstream, question)
            server.process.send_signal(numbers[0])
            await read_notice(server)
            assert await server.stop(numbers[1]) == 0
            received = await asked.reading
            assert names_of(received) == ["turn", "message"]
            server = await start(home, **model_settings(upstream))
            client.base_url = httpx.URL(server.url)
            reading = asyncio.create_task(read(client, {"Last-Event-ID": received[-1].id}))
            await (await upstream.continued(f"part of {question} ")).answer("and the rest")
            assert (await reading)[-1].data == f"part of {question} and the rest"
        await server.stop()


async def test_answers_that_exceed_the_drain_timeout_are_handed_over(
    upstream: ScriptedUpstream, question: str
) -> None:
    async with (
        own_redis() as redis,
        holdline(**model_settings(upstream), REDIS_URL=redis.url, DRAIN_S="0.2") as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        asked = await begin(client, upstream, question)
        async with holdline(**model_settings(upstream), REDIS_URL=redis.url) as other:
            assert await server.stop() == 0
            received = await asked.reading
            assert "end" not in names_of(received)
            await (await upstream.continued(f"part of {question} ")).answer("and the rest")
            client.base_url = httpx.URL(other.url)
            rest = await read(client, {"Last-Event-ID": received[-1].id})
            assert rest[-1].data == f"part of {question} and the rest"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_to_every_process_drains_as_a_signal_to_the_supervisor_does(
    upstream: ScriptedUpstream, question: str, number: int
) -> None:
    async with (
        holdline(**model_settings(upstream) | LONG | {"WORKERS": "2"}) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        asked = await begin(client, upstream, question)
        for pid in (server.process.pid, *find_children(server.process.pid, "python")):
            os.kill(pid, number)
        assert "Finishing 1 answer," in await read_notice(server)
        await asked.exchange.answer("and the rest")
        assert (await asked.reading)[-1].data == f"part of {question} and the rest"
        async with asyncio.timeout(PATIENCE_S):
            assert await server.process.wait() == 0
        assert len(upstream.find_requests(question)) == 1
        assert "died" not in server.read_log()


async def test_a_worker_that_is_killed_while_it_drains_is_reported_and_not_replaced(
    upstream: ScriptedUpstream, question: str
) -> None:
    settings = model_settings(upstream) | {"LEASE_S": "0.5"}
    async with (
        own_redis() as redis,
        holdline(**settings | LONG | {"WORKERS": "2", "REDIS_URL": redis.url}) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        asked = await begin(client, upstream, question)
        stopping = asyncio.create_task(server.stop())
        await read_notice(server)
        killed = find_worker(asked.exchange.connection)
        os.kill(killed, signal.SIGKILL)
        with pytest.raises(httpx.HTTPError):
            await asked.reading
        assert await stopping == 0
        assert f"worker {killed} died (signal 9) while it drained" in server.read_log()
        assert "replac" not in server.read_log()
        async with holdline(**settings, REDIS_URL=redis.url) as other:
            await (await upstream.continued(f"part of {question} ")).answer("and the rest")
            client.base_url = httpx.URL(other.url)
            (conversation,) = (await client.get("/api/conversations/")).json()["conversations"]
            path = f"/api/conversations/{conversation['id']}"
            async with asyncio.timeout(PATIENCE_S):
                while (found := (await client.get(path)).json())["running"]:
                    await asyncio.sleep(0.02)
            assert found["messages"][1]["content"] == f"part of {question} and the rest"


async def test_a_worker_that_receives_sigterm_alone_drains_and_is_replaced(
    upstream: ScriptedUpstream, question: str
) -> None:
    async with (
        holdline(**model_settings(upstream) | LONG) as server,
        httpx.AsyncClient(base_url=server.url, limits=NO_KEEP_ALIVE, timeout=60) as client,
    ):
        asked = await begin(client, upstream, question)
        worker = find_worker(asked.exchange.connection)
        for _ in range(3):
            os.kill(worker, signal.SIGTERM)
            await wait_until_draining(client)
        conversation = (await client.post("/api/conversations/", json={})).json()["id"]

        async def ask_until_answered() -> str:
            query = {"message": question + "?", "conversation": conversation}
            while (stream := (await client.get(STREAM, params=query)).text) == "retry: 500\n":
                await asyncio.sleep(0.01)
            return stream

        asking_again = asyncio.create_task(ask_until_answered())
        await (await upstream.exchange(question + "?")).answer("by the replacement")
        assert "\ndata: by the replacement\n" in await asking_again
        await asked.exchange.answer("and the rest")
        assert (await asked.reading)[-1].data == f"part of {question} and the rest"
        await wait_for_exit(worker)
        async with asyncio.timeout(PATIENCE_S):
            while f"worker {worker} has stopped" not in server.read_log():
                await asyncio.sleep(0.02)
        assert f"worker {worker} drains; worker" in server.read_log()
        assert "died" not in server.read_log()
        for one in (question, question + "?"):
            assert len(upstream.find_requests(one)) == 1


async def test_a_drain_ends_although_redis_does_not_reply(
    upstream: ScriptedUpstream, question: str
) -> None:
    async with (
        own_redis() as redis,
        holdline(**model_settings(upstream) | LONG | {"REDIS_URL": redis.url}) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        asked = await begin(client, upstream, question)
        server.process.send_signal(signal.SIGTERM)
        await read_notice(server)
        redis.freeze()
        assert await server.stop() == 0
        assert "killing" not in server.read_log()
        with pytest.raises(httpx.HTTPError):
            await asked.reading
