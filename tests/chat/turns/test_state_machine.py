"""Answers under any order of misfortunes that hypothesis finds: none is lost, said twice or asked in vain.

`pytest tests/test_state_machine.py --hypothesis-profile=deep` looks for longer.
"""

import asyncio
import contextlib
import os
import signal
import threading
import uuid
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.fake_upstream import Exchange, ScriptedUpstream
from tests.own_redis import OwnRedis, own_redis
from tests.processes import PATIENCE_S, Server, holdline, serving
from tests.viewer import Viewer

T = TypeVar("T")

QUICK = settings(
    max_examples=30,
    stateful_step_count=24,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
DEEP = settings(QUICK, max_examples=200, stateful_step_count=40, derandomize=False)


signals = st.sampled_from([signal.SIGKILL, signal.SIGSTOP])


class World:
    """A Redis, an upstream and a server of two workers, on a loop in a thread of its own.

    A machine's steps are plain calls; what they start goes on between them.
    """

    redis: OwnRedis
    server: Server
    upstream: ScriptedUpstream

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="world")
        self._stack = AsyncExitStack()

    def start(self) -> None:
        self._thread.start()
        self.run(self._start())

    async def _start(self) -> None:
        self.redis = await self._stack.enter_async_context(own_redis())
        self.upstream = ScriptedUpstream()
        base_url = await self.upstream.start()
        self._stack.push_async_callback(self.upstream.stop)
        self.server = await self._stack.enter_async_context(
            holdline(
                REDIS_URL=self.redis.url, WORKERS="2", LEASE_S="0.5", CONTINUE_MAX="100", RATE_LIMIT="off",
                OPENAI_BASE_URL=base_url, CHAT_MODEL="m",
            )
        )  # fmt: skip

    def stop(self) -> None:
        try:
            self.run(self._stack.aclose())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do this on the world's loop; returns or raises what it does."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(3 * PATIENCE_S)


class Answers(RuleBasedStateMachine):
    """One browser asks, and all that can go wrong does."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.viewers: list[Viewer] = []
        self.words: dict[Exchange, list[str]] = {}
        self.finished: set[Exchange] = set()
        self.question = ""
        # Preconditions rest on what was decided, and never on how soon the world does it.
        self.froze = False
        self.frozen: int | None = None
        self.redis_is_up = True
        self.disturbed = False
        self.client = httpx.AsyncClient(
            base_url=world.server.url,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            timeout=PATIENCE_S,
        )

    # What is known

    @property
    def exchanges(self) -> list[Exchange]:
        """The requests that the upstream got for this answer, in the order in which they came."""
        asked = {"role": "user", "content": self.question}
        return [
            exchange for exchange in self.world.upstream.exchanges if asked in exchange.messages
        ]

    def told(self, exchange: Exchange) -> str:
        """The answer so far, as this request told it."""
        return exchange.messages[1]["content"] if len(exchange.messages) > 1 else ""

    def made(self, exchange: Exchange) -> str:
        """The answer as this request would have it: what it told, and what was said since."""
        return self.told(exchange) + "".join(self.words.get(exchange, []))

    @property
    def open(self) -> Exchange | None:
        """The newest request, if it still waits for words."""
        for newest in self.exchanges[-1:]:
            return None if newest.closed.is_set() or newest in self.finished else newest
        return None

    # Asking and answering

    @precondition(lambda self: not self.question)
    @rule()
    def ask(self) -> None:
        self.world.run(self._ask())

    async def _ask(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            response = await self.client.post("/api/conversations/", json={})
            while response.status_code != 201:  # Redis came back a moment ago
                assert response.status_code == 503
                await asyncio.sleep(0.02)
                response = await self.client.post("/api/conversations/", json={})
            self.conversation = response.json()["id"]
            self.question = f"question {uuid.uuid4().hex}"
            self.turn = uuid.uuid4().hex
            self.disturbed = False
            self._open_tab()
            await self.viewers[0].wait_until(self.viewers[0].begun)
            while not self.exchanges:
                await asyncio.sleep(0.01)

    @precondition(lambda self: self.question)
    @rule(count=st.integers(1, 4))
    def say(self, count: int) -> None:
        self.world.run(self._say(count))

    async def _say(self, count: int) -> None:
        for _ in range(count):
            if exchange := self.open:
                word = f"<{uuid.uuid4().hex[:8]}> "
                self.words.setdefault(exchange, []).append(word)
                try:
                    await exchange.say(word)
                except ConnectionError:  # its worker is dead, and the word with it
                    return

    @precondition(lambda self: self.question)
    @rule()
    def let_the_upstream_finish(self) -> None:
        self.world.run(self._finish())

    async def _finish(self) -> None:
        if exchange := self.open:
            self.finished.add(exchange)
            try:
                await exchange.finish()
            except ConnectionError:  # its worker is dead: another one asks again
                return

    # Watching

    def _open_tab(self) -> None:
        query = {"message": self.question, "turn": self.turn, "conversation": self.conversation}
        self.viewers.append(Viewer(self.client, query))
        self.viewers[-1].connect()

    @precondition(lambda self: self.question and len(self.viewers) < 4)
    @rule()
    def open_another_tab(self) -> None:
        self.world.run(self._do(self._open_tab))

    @precondition(lambda self: self.viewers)
    @rule(number=st.integers(0, 3))
    def drop_a_line(self, number: int) -> None:
        self.world.run(self.viewers[number % len(self.viewers)].drop())

    @precondition(lambda self: self.viewers)
    @rule(number=st.integers(0, 3))
    def come_back_with_an_id(self, number: int) -> None:
        self.world.run(self._do(self.viewers[number % len(self.viewers)].connect))

    @precondition(lambda self: self.viewers)
    @rule(number=st.integers(0, 3))
    def reload(self, number: int) -> None:
        self.world.run(self._reload(self.viewers[number % len(self.viewers)]))

    async def _reload(self, viewer: Viewer) -> None:
        await viewer.drop()
        viewer.forget()
        viewer.connect()

    async def _do(self, step: Any) -> None:
        step()

    # Misfortune

    @precondition(lambda self: self.question)
    @rule(number=st.integers(0, 1))
    def kill_a_worker(self, number: int) -> None:
        self.disturbed = True
        for worker in psutil.Process(self.world.server.process.pid).children()[number : number + 1]:
            with contextlib.suppress(
                psutil.NoSuchProcess
            ):  # it was killed before, and is being replaced
                worker.kill()

    @precondition(lambda self: self.question and self.redis_is_up and not self.froze)
    @rule(number=signals)
    def take_the_worker_away(self, number: signal.Signals) -> None:
        """Kill or freeze the worker that makes the answer, until another one goes on with it."""
        self.froze = number == signal.SIGSTOP
        self.world.run(self._take_away(number))

    async def _take_away(self, number: signal.Signals) -> None:
        if exchange := self.open:
            self.disturbed = True
            count = len(self.exchanges)
            try:
                worker = serving(exchange.line)
                os.kill(worker, number)
            except (AssertionError, ProcessLookupError):
                return  # it was killed a moment ago: nobody, or nothing, is at the other end
            self.frozen = worker if self.froze else None
            async with asyncio.timeout(PATIENCE_S):
                while len(self.exchanges) == count:
                    await asyncio.sleep(0.01)

    @precondition(lambda self: self.froze)
    @rule()
    def thaw(self) -> None:
        self.froze = False
        if self.frozen:
            with contextlib.suppress(ProcessLookupError):  # it was killed in its sleep
                os.kill(self.frozen, signal.SIGCONT)
        self.frozen = None

    @precondition(lambda self: self.question and self.redis_is_up)
    @rule()
    def kill_redis(self) -> None:
        self.disturbed = True
        self.redis_is_up = False
        self.world.run(self.world.redis.kill())

    @precondition(lambda self: not self.redis_is_up)
    @rule()
    def start_redis(self) -> None:
        self.world.run(self.world.redis.start())
        self.redis_is_up = True

    # What must be so

    @invariant()
    def each_tab_shows_a_beginning_of_the_answer(self) -> None:
        self.world.run(self._check_beginnings())

    async def _check_beginnings(self) -> None:
        made = [self.made(exchange) for exchange in self.exchanges]
        for viewer in self.viewers:
            assert not viewer.text or any(text.startswith(viewer.text) for text in made)

    def all_ends_well(self) -> None:
        if not self.redis_is_up:
            self.start_redis()
        self.world.run(self._end())

    async def _end(self) -> None:
        self._open_tab()  # one that has seen nothing yet
        async with asyncio.timeout(PATIENCE_S):
            ends = [asyncio.create_task(viewer.see_it_end()) for viewer in self.viewers]
            while not all(end.done() for end in ends):
                await self._finish()
                await asyncio.sleep(0.01)
            await asyncio.gather(*ends)
            answer = self.viewers[0].text
            for viewer in self.viewers:
                await viewer.drop()
                assert (viewer.text, viewer.endings) == (answer, ["end"])
            shown = (await self.client.get(f"/api/conversations/{self.conversation}")).json()
        assert shown["running"] is None
        assert [m["content"] for m in shown["messages"]] == [self.question, answer]
        assert answer in [
            self.made(exchange) for exchange in self.finished if exchange in self.exchanges
        ]
        for exchange in self.exchanges:
            assert answer.startswith(self.told(exchange))
        admin = self.world.redis.admin
        (key,) = [key async for key in admin.scan_iter(f"holdline:*:turn:{self.turn}")]
        fence = int(await admin.hget(key, "fence") or 0)
        assert len(self.exchanges) <= fence
        assert self.disturbed or fence == 1
        self.question, self.viewers = "", []

    def teardown(self) -> None:
        self.thaw()
        try:
            if self.question:
                self.all_ends_well()
        finally:
            if not self.redis_is_up:
                self.start_redis()
            self.world.run(self._leave())

    async def _leave(self) -> None:
        for viewer in self.viewers:
            await viewer.drop()
        await self.client.aclose()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    world = World()
    world.start()
    yield world
    world.stop()


def test_an_answer_survives_any_sequence_of_faults(world: World) -> None:
    chosen = DEEP if settings.get_current_profile_name() == "deep" else QUICK

    class InThisWorld(Answers):
        def __init__(self) -> None:
            super().__init__(world)

    run_state_machine_as_test(InThisWorld, settings=chosen)
