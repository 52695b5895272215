"""Killed, stopped and restarted processes: delivered text survives, and turns continue."""

import asyncio
import json
import os
import signal
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from httpx_sse import ServerSentEvent

from config.background import exit_on_task_failure
from sessions.client.connection import connect
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, Server, find_worker, holdline, private_folder, start
from tests.streams import ask, asking, read, read_into, text_of, wait_for_text


async def wait_for_exit(*pids: int) -> None:
    """Return when none of these processes is alive."""
    async with asyncio.timeout(PATIENCE_S):
        while any(
            psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
            for pid in pids
        ):
            await asyncio.sleep(0.02)


def find_children(pid: int, name: str) -> list[int]:
    """Return the process ids of the children of `pid` whose name begins with `name`."""
    return [child.pid for child in psutil.Process(pid).children() if child.name().startswith(name)]


def model_settings(upstream: ScriptedUpstream) -> dict[str, str]:
    return {"OPENAI_BASE_URL": upstream.base_url, "CHAT_MODEL": "m"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_a_restart_loses_no_data_and_leaves_no_process(
    upstream: ScriptedUpstream, question: str, number: int
) -> None:
    async with private_folder() as home:
        server = await start(home, **model_settings(upstream))
        async with httpx.AsyncClient(base_url=server.url) as client:
            await ask(client, upstream, question, "stored")
            cookies = dict(client.cookies)
        processes = [child.pid for child in psutil.Process(server.process.pid).children()]
        assert len(processes) == 2  # a worker and the embedded Redis
        status = await server.stop(number)
        assert status == (-9 if number == signal.SIGKILL else 0)
        await wait_for_exit(*processes)
        server = await start(home, **model_settings(upstream))
        async with httpx.AsyncClient(base_url=server.url, cookies=cookies) as client:
            (conversation,) = (await client.get("/api/conversations/")).json()["conversations"]
            messages = (await client.get(f"/api/conversations/{conversation['id']}")).json()[
                "messages"
            ]
            assert [m["content"] for m in messages] == [question, "stored"]
            await ask(client, upstream, question + "?", "another")
            assert len((await upstream.exchange(question + "?")).messages) == 3
        await server.stop()


async def test_an_answer_continues_after_the_whole_server_is_killed(
    upstream: ScriptedUpstream, question: str
) -> None:
    async with private_folder() as home:
        server = await start(home, **model_settings(upstream))
        first = f"first delta of {question} "
        partial = first + "second delta "
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            async with asking(client, message=question) as source:
                events = source.aiter_sse()
                turn = json.loads((await anext(events)).data)
                exchange = await upstream.exchange(question)
                deltas = []
                for text in (first, "second delta "):
                    await exchange.send_text(text)
                    deltas.append(await anext(events))
                await server.stop(signal.SIGKILL)
                with pytest.raises(httpx.HTTPError):
                    await anext(events)
            server = await start(home, **model_settings(upstream))
            client.base_url = httpx.URL(server.url)
            reading = asyncio.create_task(
                read(client, {"Last-Event-ID": deltas[0].id}, message=question)
            )
            continuation = await upstream.continued(partial)
            assert continuation.messages[0]["content"] == question
            await continuation.answer("and the rest")
            rest = await reading
            answer = partial + "and the rest"
            assert text_of(rest) == "second delta and the rest"
            assert (rest[-1].event, rest[-1].data) == ("end", answer)
            assert len(upstream.find_requests(question)) == 1
            path = f"/api/conversations/{turn['conversation']}"
            messages = (await client.get(path)).json()["messages"]
            assert [m["content"] for m in messages] == [question, answer]
            assert messages[1]["continued"] == [{"at": len(partial), "why": "interrupted"}]
        await server.stop()


async def test_a_killed_worker_is_replaced_and_another_continues_its_turn(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    async with (
        holdline(
            REDIS_URL=redis_url, WORKERS="2", LEASE_S="0.5", **model_settings(upstream)
        ) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        workers = find_children(server.process.pid, "python")
        assert len(workers) == 2
        async with asking(client, message=question) as source:
            events = source.aiter_sse()
            turn = json.loads((await anext(events)).data)["turn"]
            exchange = await upstream.exchange(question)
            await exchange.send_text(f"so far of {question} ")
            assert (await anext(events)).data
            os.kill(find_worker(exchange.connection), signal.SIGKILL)
            # No viewer is connected: the sweep of the other worker, or of the new one, takes over.
            continuation = await upstream.continued(f"so far of {question} ")
            await continuation.answer("to the end")
        rest = await read(client, turn=turn)
        assert rest[-1].data == f"so far of {question} to the end"
        async with asyncio.timeout(PATIENCE_S):
            while len(find_children(server.process.pid, "python")) < 2:
                await asyncio.sleep(0.02)
        await ask(client, upstream, question + "?", "another answer")
        assert "died (signal 9); replacing it" in server.read_log()


async def test_a_frozen_worker_that_resumes_after_a_takeover_cannot_write(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    async with (
        holdline(
            REDIS_URL=redis_url, WORKERS="2", LEASE_S="0.5", **model_settings(upstream)
        ) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        turn = "t" + question[-32:]
        partial = f"so far of {question} "
        async with asking(client, message=question, turn=turn) as source:
            events = source.aiter_sse()
            await anext(events)
            exchange = await upstream.exchange(question)
            await exchange.send_text(partial)
            assert (await anext(events)).data == partial
            frozen = find_worker(exchange.connection)
            os.kill(frozen, signal.SIGSTOP)
            try:
                continuation = await upstream.continued(partial)
                await exchange.send_text("text for the frozen worker")
                await continuation.send_text("text for ")
            finally:
                os.kill(frozen, signal.SIGCONT)
        await exchange.closed.wait()  # the frozen worker has been fenced off
        await continuation.answer("the new worker")
        events_read = await read(client, turn=turn)
        assert events_read[-1].data == text_of(events_read) == f"{partial}text for the new worker"
        assert [event.event for event in events_read].count("end") == 1


async def test_viewers_on_every_worker_receive_the_whole_answer(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    async with holdline(REDIS_URL=redis_url, WORKERS="2", **model_settings(upstream)) as server:
        limits = httpx.Limits(max_keepalive_connections=0)  # each request may reach another worker
        async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=60) as client:
            await client.get("/")
            readings = [
                asyncio.create_task(read(client, message=question, turn="t" + question[-32:]))
                for _ in range(30)
            ]
            exchange = await upstream.exchange(question)
            for number in range(50):
                await exchange.send_text(f"{number} ")
            await exchange.answer("x" * 20_000)
            expected = "".join(f"{number} " for number in range(50)) + "x" * 20_000
            for events in await asyncio.gather(*readings):
                assert text_of(events) == events[-1].data == expected
            assert len(upstream.find_requests(question)) == 1


async def test_a_stop_request_reaches_the_worker_that_runs_the_turn(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    async with holdline(REDIS_URL=redis_url, WORKERS="2", **model_settings(upstream)) as server:
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=60) as client:
            for number in range(8):
                message = f"{number} {question}"
                reading = asyncio.create_task(read(client, message=message))
                exchange = await upstream.exchange(message)
                await exchange.send_text("half")
                async with asking(client, message=message) as source:
                    events = source.aiter_sse()
                    turn = json.loads((await anext(events)).data)["turn"]
                    assert (await anext(events)).data == "half"
                assert (await client.post(f"/api/turns/{turn}/stop")).status_code == 204
                await exchange.closed.wait()
                assert (await reading)[-1].data == "half"


async def test_a_stopped_server_leaves_its_turns_to_the_next_start(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    count = 20
    async with (
        holdline(REDIS_URL=redis_url, **model_settings(upstream)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        ids = [
            (await client.post("/api/conversations/", json={})).json()["id"] for _ in range(count)
        ]
        received: list[list[ServerSentEvent]] = [[] for _ in range(count)]
        readings = [
            asyncio.create_task(
                read_into(received[i], client, message=f"<{i}> {question}", conversation=ids[i])
            )
            for i in range(count)
        ]
        for i in range(count):
            await (await upstream.exchange(f"<{i}> {question}")).send_text(
                f"<{i}> part of {question} "
            )
        await wait_for_text(received)
        assert await server.stop() == 0
        await asyncio.gather(*readings)
        cookies = dict(client.cookies)
        assert {events[-1].event for events in received} <= {"turn", "message"}
        assert "Traceback" not in server.read_log()
    async with (
        holdline(REDIS_URL=redis_url, **model_settings(upstream)) as server,
        httpx.AsyncClient(base_url=server.url, cookies=cookies, timeout=60) as client,
    ):
        resumed = [asyncio.create_task(read(client, {"Last-Event-ID": e[-1].id})) for e in received]
        for i in range(count):
            await (await upstream.continued(f"<{i}> part of {question} ")).answer("and done")
        for i, rest in enumerate(await asyncio.gather(*resumed)):
            assert rest[-1].data == f"<{i}> part of {question} and done"


async def test_a_terminated_worker_hands_its_turn_over_to_another(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    async with (
        holdline(REDIS_URL=redis_url, WORKERS="2", **model_settings(upstream)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        async with asking(client, message=question) as source:
            events = source.aiter_sse()
            turn = json.loads((await anext(events)).data)["turn"]
            exchange = await upstream.exchange(question)
            await exchange.send_text(f"part of {question} ")
            await anext(events)
            os.kill(find_worker(exchange.connection), signal.SIGTERM)
            await (await upstream.continued(f"part of {question} ")).answer("and done")
        assert (await read(client, turn=turn))[-1].data == f"part of {question} and done"


async def test_a_second_server_on_the_same_data_dir_fails_to_start(
    upstream: ScriptedUpstream,
) -> None:
    async with private_folder() as home:
        server = await start(home, **model_settings(upstream))
        with pytest.raises(AssertionError, match="another Holdline"):
            await start(home, **model_settings(upstream))
        async with httpx.AsyncClient(base_url=server.url) as client:
            assert (await client.get("/readyz")).status_code == 200
        await server.stop()


async def test_a_port_in_use_is_named_in_the_error(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    async with private_folder() as home:
        server = await start(home, **model_settings(upstream))
        port = server.url.rpartition(":")[2]
        async with private_folder() as other:
            with pytest.raises(AssertionError, match=f"port {port}"):
                await start(other, **model_settings(upstream) | {"PORT": port})
        await server.stop()


async def wait_until_written(server: Server) -> None:
    """Wait until the kernel has all data of the embedded Redis.

    While an fsync takes long, Redis delays its writes (docs/durability.md, "Settings of Redis").
    """
    redis = connect("unix" + (server.home / "data/redis/redis.sock").as_uri().removeprefix("file"))
    async with aclosing(redis), asyncio.timeout(PATIENCE_S):
        while (await redis.info("persistence"))["aof_buffer_length"]:
            await asyncio.sleep(0.02)


async def test_an_embedded_redis_that_dies_is_restarted(
    upstream: ScriptedUpstream, question: str
) -> None:
    async with (
        holdline(**model_settings(upstream)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        await ask(client, upstream, question, "stored")
        await wait_until_written(server)
        (redis,) = find_children(server.process.pid, "redis")
        os.kill(redis, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_S):
            while find_children(server.process.pid, "redis") in ([redis], []):
                await asyncio.sleep(0.05)
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.05)
        (conversation,) = (await client.get("/api/conversations/")).json()["conversations"]
        assert conversation["title"] == question
        assert "embedded Redis died (signal 9); restarting it" in server.read_log()
        await ask(client, upstream, question + "?", "another answer")


async def test_a_worker_exits_when_a_background_task_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    statuses: list[int] = []
    monkeypatch.setattr(os, "_exit", statuses.append)

    async def fail() -> None:
        raise RuntimeError("failed")

    for work in (fail(), asyncio.sleep(0), asyncio.Event().wait()):
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        task.add_done_callback(exit_on_task_failure)
        asyncio.get_running_loop().call_later(0.01, task.cancel)
        await asyncio.wait([task])
        await asyncio.sleep(0)  # let the callbacks run
    assert statuses == [70]
