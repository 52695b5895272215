"""Answers under any sequence of faults that hypothesis finds: no text is lost or repeated.

`pytest tests/chat/turns/test_state_machine.py --hypothesis-profile=deep` runs more examples.
"""

import asyncio
import contextlib
import os
import signal
import threading
import uuid
from collections.abc import Callable, Coroutine, Iterator
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
from tests.processes import EAGER, PATIENCE_S, Server, find_worker, holdline
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


class Harness:
    """A Redis, a fake upstream and a server of two workers, on an event loop in another thread.

    The steps of a state machine are blocking calls; tasks that they start run on between steps.
    """

    redis: OwnRedis
    server: Server
    upstream: ScriptedUpstream

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="harness")
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
                *EAGER,
                REDIS_URL=self.redis.url, WORKERS="2", LEASE_S="0.5", CONTINUE_MAX="100",
                RATE_LIMIT="off", OPENAI_BASE_URL=base_url, CHAT_MODEL="m",
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
        """Run a coroutine on the harness's loop; return its result or raise its error."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(3 * PATIENCE_S)


class Answers(RuleBasedStateMachine):
    """One browser sends questions while workers, Redis and connections fail."""

    def __init__(self, harness: Harness) -> None:
        super().__init__()
        self.harness = harness
        self.viewers: list[Viewer] = []
        self.deltas: dict[Exchange, list[str]] = {}
        self.finished: set[Exchange] = set()
        self.question = ""
        # Preconditions depend only on earlier steps, never on the time that their effects take.
        self.is_worker_frozen = False
        self.frozen_pid: int | None = None
        self.redis_is_up = True
        self.had_fault = False
        self.client = httpx.AsyncClient(
            base_url=harness.server.url,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            timeout=PATIENCE_S,
        )

    # Requests and their answers

    @property
    def exchanges(self) -> list[Exchange]:
        """The requests for this answer, in the order of their arrival."""
        message = {"role": "user", "content": self.question}
        return [
            exchange for exchange in self.harness.upstream.exchanges if message in exchange.messages
        ]

    def partial_of(self, exchange: Exchange) -> str:
        """Return the partial answer that this request contains."""
        return exchange.messages[1]["content"] if len(exchange.messages) > 1 else ""

    def answer_of(self, exchange: Exchange) -> str:
        """Return the partial answer of this request and the text sent in response."""
        return self.partial_of(exchange) + "".join(self.deltas.get(exchange, []))

    @property
    def open_exchange(self) -> Exchange | None:
        """The newest request, unless its response has ended."""
        for newest in self.exchanges[-1:]:
            return None if newest.closed.is_set() or newest in self.finished else newest
        return None

    # Questions and answers

    @precondition(lambda self: not self.question)
    @rule()
    def ask(self) -> None:
        self.harness.run(self._ask())

    async def _ask(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            response = await self.client.post("/api/conversations/", json={})
            while response.status_code != 201:  # Redis has just restarted
                assert response.status_code == 503
                await asyncio.sleep(0.02)
                response = await self.client.post("/api/conversations/", json={})
            self.conversation = response.json()["id"]
            self.question = f"question {uuid.uuid4().hex}"
            self.turn = uuid.uuid4().hex
            self.had_fault = False
            self._open_tab()
            await self.viewers[0].wait_until(self.viewers[0].begun)
            while not self.exchanges:
                await asyncio.sleep(0.01)

    @precondition(lambda self: self.question)
    @rule(count=st.integers(1, 4))
    def send_text(self, count: int) -> None:
        self.harness.run(self._send_text(count))

    async def _send_text(self, count: int) -> None:
        for _ in range(count):
            if exchange := self.open_exchange:
                delta = f"<{uuid.uuid4().hex[:8]}> "
                self.deltas.setdefault(exchange, []).append(delta)
                try:
                    await exchange.send_text(delta)
                except ConnectionError:  # its worker is dead: the text is lost
                    return

    @precondition(lambda self: self.question)
    @rule()
    def finish_answer(self) -> None:
        self.harness.run(self._finish())

    async def _finish(self) -> None:
        if exchange := self.open_exchange:
            self.finished.add(exchange)
            try:
                await exchange.finish()
            except ConnectionError:  # its worker is dead: another worker sends a request
                return

    # Viewers

    def _open_tab(self) -> None:
        query = {"message": self.question, "turn": self.turn, "conversation": self.conversation}
        self.viewers.append(Viewer(self.client, query))
        self.viewers[-1].connect()

    @precondition(lambda self: self.question and len(self.viewers) < 4)
    @rule()
    def open_another_tab(self) -> None:
        self.harness.run(self._call(self._open_tab))

    @precondition(lambda self: self.viewers)
    @rule(number=st.integers(0, 3))
    def drop_connection(self, number: int) -> None:
        self.harness.run(self.viewers[number % len(self.viewers)].drop())

    @precondition(lambda self: self.viewers)
    @rule(number=st.integers(0, 3))
    def reconnect(self, number: int) -> None:
        self.harness.run(self._call(self.viewers[number % len(self.viewers)].connect))

    @precondition(lambda self: self.viewers)
    @rule(number=st.integers(0, 3))
    def reload(self, number: int) -> None:
        self.harness.run(self._reload(self.viewers[number % len(self.viewers)]))

    async def _reload(self, viewer: Viewer) -> None:
        await viewer.drop()
        viewer.reset()
        viewer.connect()

    async def _call(self, step: Callable[[], None]) -> None:
        step()

    # Faults

    @precondition(lambda self: self.question)
    @rule(number=st.integers(0, 1))
    def kill_worker(self, number: int) -> None:
        self.had_fault = True
        workers = psutil.Process(self.harness.server.process.pid).children()
        for worker in workers[number : number + 1]:
            with contextlib.suppress(psutil.NoSuchProcess):  # an earlier step killed it
                worker.kill()

    @precondition(lambda self: self.question and self.redis_is_up and not self.is_worker_frozen)
    @rule(number=signals)
    def stop_worker(self, number: signal.Signals) -> None:
        """Kill or freeze the worker that generates the answer, and wait for the takeover."""
        self.is_worker_frozen = number == signal.SIGSTOP
        self.harness.run(self._stop_worker(number))

    async def _stop_worker(self, number: signal.Signals) -> None:
        if exchange := self.open_exchange:
            self.had_fault = True
            count = len(self.exchanges)
            try:
                worker = find_worker(exchange.connection)
                os.kill(worker, number)
            except (AssertionError, ProcessLookupError):
                return  # an earlier step killed it
            self.frozen_pid = worker if self.is_worker_frozen else None
            async with asyncio.timeout(PATIENCE_S):
                while len(self.exchanges) == count:
                    await asyncio.sleep(0.01)

    @precondition(lambda self: self.is_worker_frozen)
    @rule()
    def thaw(self) -> None:
        self.is_worker_frozen = False
        if self.frozen_pid:
            with contextlib.suppress(ProcessLookupError):  # it was killed while frozen
                os.kill(self.frozen_pid, signal.SIGCONT)
        self.frozen_pid = None

    @precondition(lambda self: self.question and self.redis_is_up)
    @rule()
    def kill_redis(self) -> None:
        self.had_fault = True
        self.redis_is_up = False
        self.harness.run(self.harness.redis.kill())

    @precondition(lambda self: not self.redis_is_up)
    @rule()
    def start_redis(self) -> None:
        self.harness.run(self.harness.redis.start())
        self.redis_is_up = True

    # Invariants

    @invariant()
    def each_tab_shows_a_prefix_of_an_answer(self) -> None:
        self.harness.run(self._check_prefixes())

    async def _check_prefixes(self) -> None:
        answers = [self.answer_of(exchange) for exchange in self.exchanges]
        for viewer in self.viewers:
            assert not viewer.text or any(text.startswith(viewer.text) for text in answers)

    def assert_consistent(self) -> None:
        """Finish the answer, and check that viewers, history, upstream and fence agree."""
        if not self.redis_is_up:
            self.start_redis()
        self.harness.run(self._finish_and_compare())

    async def _finish_and_compare(self) -> None:
        self._open_tab()  # a viewer that has received nothing
        async with asyncio.timeout(PATIENCE_S):
            readings = [asyncio.create_task(viewer.read_to_end()) for viewer in self.viewers]
            while not all(reading.done() for reading in readings):
                await self._finish()
                await asyncio.sleep(0.01)
            await asyncio.gather(*readings)
            answer = self.viewers[0].text
            for viewer in self.viewers:
                await viewer.drop()
                assert (viewer.text, viewer.endings) == (answer, ["end"])
            found = (await self.client.get(f"/api/conversations/{self.conversation}")).json()
        assert found["running"] is None
        assert [m["content"] for m in found["messages"]] == [self.question, answer]
        assert answer in [
            self.answer_of(exchange) for exchange in self.finished if exchange in self.exchanges
        ]
        for exchange in self.exchanges:
            assert answer.startswith(self.partial_of(exchange))
        admin = self.harness.redis.admin
        (key,) = [key async for key in admin.scan_iter(f"holdline:*:turn:{self.turn}")]
        fence = int(await admin.hget(key, "fence") or 0)
        assert len(self.exchanges) <= fence
        assert self.had_fault or fence == 1
        self.question, self.viewers = "", []

    def teardown(self) -> None:
        self.thaw()
        try:
            if self.question:
                self.assert_consistent()
        finally:
            if not self.redis_is_up:
                self.start_redis()
            self.harness.run(self._close())

    async def _close(self) -> None:
        for viewer in self.viewers:
            await viewer.drop()
        await self.client.aclose()


@pytest.fixture(scope="module")
def harness() -> Iterator[Harness]:
    harness = Harness()
    harness.start()
    yield harness
    harness.stop()


def test_an_answer_survives_any_sequence_of_faults(harness: Harness) -> None:
    chosen = DEEP if settings.get_current_profile_name() == "deep" else QUICK

    class AnswersOnHarness(Answers):
        def __init__(self) -> None:
            super().__init__(harness)

    run_state_machine_as_test(AnswersOnHarness, settings=chosen)
