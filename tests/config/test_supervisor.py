"""Processes that die, stop and start again: what was shown is there afterwards."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from server import exit_on_task_failure
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, holdline, private_folder, serving, start
from tests.streams import ask, asking, read, text_of


async def gone(*pids: int) -> None:
    """Return when none of these processes lives."""
    async with asyncio.timeout(PATIENCE_S):
        while any(
            psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
            for pid in pids
        ):
            await asyncio.sleep(0.02)


def children(pid: int, name: str) -> list[int]:
    """The ids of a process's children whose name begins so."""
    return [child.pid for child in psutil.Process(pid).children() if child.name().startswith(name)]


def model(upstream: ScriptedUpstream) -> dict[str, str]:
    return {"OPENAI_BASE_URL": upstream.base_url, "CHAT_MODEL": "m"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_a_restart_loses_nothing(
    upstream: ScriptedUpstream, question: str, number: int
) -> None:
    async with private_folder() as home:
        server = await start(home, **model(upstream))
        async with httpx.AsyncClient(base_url=server.url) as client:
            await ask(client, upstream, question, "kept")
            cookies = dict(client.cookies)
        processes = [
            child.pid for child in psutil.Process(server.process.pid).children(recursive=True)
        ]
        assert len(processes) == 2  # a worker and the private Redis
        status = await server.stop(number)
        assert status == (-9 if number == signal.SIGKILL else 0)
        await gone(*processes)
        server = await start(home, **model(upstream))
        async with httpx.AsyncClient(base_url=server.url, cookies=cookies) as client:
            (listed,) = (await client.get("/api/conversations/")).json()["conversations"]
            messages = (await client.get(f"/api/conversations/{listed['id']}")).json()["messages"]
            assert [m["content"] for m in messages] == [question, "kept"]
            await ask(client, upstream, question + "?", "and on")
            assert len((await upstream.exchange(question + "?")).messages) == 3
        await server.stop()


async def test_an_answer_outlives_the_death_of_all_that_made_it(
    upstream: ScriptedUpstream, question: str
) -> None:
    async with private_folder() as home:
        server = await start(home, **model(upstream))
        said = f"shown of {question} "
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            async with asking(client, message=question) as source:
                events = source.aiter_sse()
                begun = json.loads((await anext(events)).data)
                exchange = await upstream.exchange(question)
                await exchange.say(said, "before the end ")
                shown = [await anext(events), await anext(events)]
                await server.stop(signal.SIGKILL)
                with pytest.raises(httpx.HTTPError):
                    await anext(events)
            server = await start(home, **model(upstream))
            client.base_url = httpx.URL(server.url)
            reading = asyncio.create_task(
                read(client, {"Last-Event-ID": shown[0].id}, message=question)
            )
            again = await upstream.continued(said + "before the end ")
            assert again.messages[0]["content"] == question
            await again.answer("and after")
            rest = await reading
            whole = said + "before the end and after"
            assert text_of(rest) == "before the end and after"
            assert (rest[-1].event, rest[-1].data) == ("end", whole)
            assert len(upstream.asked(question)) == 1
            path = f"/api/conversations/{begun['conversation']}"
            messages = (await client.get(path)).json()["messages"]
            assert [m["content"] for m in messages] == [question, whole]
            assert messages[1]["continued"] == [{"at": len(said) + 15, "why": "interrupted"}]
        await server.stop()


async def test_a_killed_worker_is_replaced_and_another_goes_on_with_its_turn(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    async with (
        holdline(REDIS_URL=redis_url, WORKERS="2", LEASE_S="0.5", **model(upstream)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        workers = children(server.process.pid, "python")
        assert len(workers) == 2
        async with asking(client, message=question) as source:
            events = source.aiter_sse()
            turn = json.loads((await anext(events)).data)["turn"]
            exchange = await upstream.exchange(question)
            await exchange.say(f"so far of {question} ")
            assert (await anext(events)).data
            os.kill(serving(exchange.line), signal.SIGKILL)
            # Nobody watches: the sweeper of the other worker, or of the new one, goes on.
            again = await upstream.continued(f"so far of {question} ")
            await again.answer("to the end")
        rest = await read(client, turn=turn)
        assert rest[-1].data == f"so far of {question} to the end"
        async with asyncio.timeout(PATIENCE_S):
            while len(children(server.process.pid, "python")) < 2:
                await asyncio.sleep(0.02)
        await ask(client, upstream, question + "?", "served on")


async def test_a_frozen_worker_that_wakes_up_can_write_nothing_more(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    async with (
        holdline(REDIS_URL=redis_url, WORKERS="2", LEASE_S="0.5", **model(upstream)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        turn = "t" + question[-32:]
        said = f"so far of {question} "
        async with asking(client, message=question, turn=turn) as source:
            events = source.aiter_sse()
            await anext(events)
            exchange = await upstream.exchange(question)
            await exchange.say(said)
            assert (await anext(events)).data == said
            frozen = serving(exchange.line)
            os.kill(frozen, signal.SIGSTOP)
            try:
                again = await upstream.continued(said)
                await exchange.say("the old worker's words")
                await again.say("the new one's ")
            finally:
                os.kill(frozen, signal.SIGCONT)
        await exchange.closed.wait()  # the old worker has found its fence fallen
        await again.answer("words")
        last = await read(client, turn=turn)
        assert last[-1].data == text_of(last) == f"{said}the new one's words"
        assert [event.event for event in last].count("end") == 1


async def test_an_answer_is_followed_from_every_worker(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    async with holdline(REDIS_URL=redis_url, WORKERS="2", **model(upstream)) as server:
        limits = httpx.Limits(max_keepalive_connections=0)  # each request may meet another worker
        async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=60) as client:
            await client.get("/")
            readings = [
                asyncio.create_task(read(client, message=question, turn="t" + question[-32:]))
                for _ in range(30)
            ]
            exchange = await upstream.exchange(question)
            for number in range(50):
                await exchange.say(f"{number} ")
            await exchange.answer("x" * 20_000)
            expected = "".join(f"{number} " for number in range(50)) + "x" * 20_000
            for events in await asyncio.gather(*readings):
                assert text_of(events) == events[-1].data == expected
            assert len(upstream.asked(question)) == 1


async def test_a_new_question_stops_the_answer_on_another_worker(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    async with holdline(REDIS_URL=redis_url, WORKERS="2", **model(upstream)) as server:
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=60) as client:
            for number in range(8):
                asked = f"{number} {question}"
                reading = asyncio.create_task(read(client, message=asked))
                exchange = await upstream.exchange(asked)
                await exchange.say("half")
                async with asking(client, message=asked) as source:
                    events = source.aiter_sse()
                    turn = json.loads((await anext(events)).data)["turn"]
                    assert (await anext(events)).data == "half"
                assert (await client.post(f"/api/turns/{turn}/stop")).status_code == 204
                await exchange.closed.wait()
                assert (await reading)[-1].data == "half"


async def test_a_stopped_server_parks_its_answers_and_the_next_goes_on(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    count = 20
    async with (
        holdline(REDIS_URL=redis_url, **model(upstream)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        ids = [
            (await client.post("/api/conversations/", json={})).json()["id"] for _ in range(count)
        ]
        readings = [
            asyncio.create_task(
                read(client, None, message=f"<{i}> {question}", conversation=ids[i])
            )
            for i in range(count)
        ]
        for i in range(count):
            await (await upstream.exchange(f"<{i}> {question}")).say(f"<{i}> begun {question} ")
        assert await server.stop() == 0
        left = await asyncio.gather(*readings)
        cookies = dict(client.cookies)
        assert {events[-1].event for events in left} <= {"turn", "message"}
        assert "Traceback" not in server.logged()
    async with (
        holdline(REDIS_URL=redis_url, **model(upstream)) as server,
        httpx.AsyncClient(base_url=server.url, cookies=cookies, timeout=60) as client,
    ):
        readings = [asyncio.create_task(read(client, {"Last-Event-ID": e[-1].id})) for e in left]
        for i in range(count):
            await (await upstream.continued(f"<{i}> begun {question} ")).answer("and done")
        for i, rest in enumerate(await asyncio.gather(*readings)):
            assert rest[-1].data == f"<{i}> begun {question} and done"


async def test_of_two_workers_one_goes_on_when_the_other_ends(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    async with (
        holdline(REDIS_URL=redis_url, WORKERS="2", **model(upstream)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        async with asking(client, message=question) as source:
            events = source.aiter_sse()
            turn = json.loads((await anext(events)).data)["turn"]
            exchange = await upstream.exchange(question)
            await exchange.say(f"begun {question} ")
            await anext(events)
            os.kill(serving(exchange.line), signal.SIGTERM)
            await (await upstream.continued(f"begun {question} ")).answer("and done")
        assert (await read(client, turn=turn))[-1].data == f"begun {question} and done"


async def test_a_second_server_on_the_same_data_is_refused(upstream: ScriptedUpstream) -> None:
    async with private_folder() as home:
        server = await start(home, **model(upstream))
        with pytest.raises(AssertionError, match="another Holdline"):
            await start(home, **model(upstream))
        async with httpx.AsyncClient(base_url=server.url) as client:
            assert (await client.get("/readyz")).status_code == 200
        await server.stop()


async def test_a_port_that_is_taken_is_named(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async with private_folder() as home:
        server = await start(home, **model(upstream))
        port = server.url.rpartition(":")[2]
        async with private_folder() as other:
            with pytest.raises(AssertionError, match=f"port {port}"):
                await start(other, **model(upstream) | {"PORT": port})
        await server.stop()


async def test_a_private_redis_that_dies_is_started_again(
    upstream: ScriptedUpstream, question: str
) -> None:
    async with (
        holdline(**model(upstream)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        await ask(client, upstream, question, "kept")
        (redis,) = children(server.process.pid, "redis")
        os.kill(redis, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_S):
            while (await client.get("/readyz")).status_code != 200 or children(
                server.process.pid, "redis"
            ) == [redis]:
                await asyncio.sleep(0.05)
        (listed,) = (await client.get("/api/conversations/")).json()["conversations"]
        assert listed["title"] == question
        await ask(client, upstream, question + "?", "on we go")


async def test_a_worker_does_not_outlive_what_it_cannot_do_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    statuses: list[int] = []
    monkeypatch.setattr(os, "_exit", statuses.append)

    async def breaks() -> None:
        raise RuntimeError("broken")

    for work in (breaks(), asyncio.sleep(0), asyncio.Event().wait()):
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        task.add_done_callback(exit_on_task_failure)
        asyncio.get_running_loop().call_later(0.01, task.cancel)
        await asyncio.wait([task])
        await asyncio.sleep(0)  # its callbacks run
    assert statuses == [70]
