"""One turn on one worker: every phase with every event, and the policy after a failed request."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio
from redis.exceptions import TimeoutError as RedisTimeoutError

from chat.errors import RateLimited, Unavailable, UpstreamError, UpstreamFailed, UpstreamRejected
from chat.log.batch import Writer
from chat.log.batches import Batches
from chat.log.follower import Follower
from chat.log.logs import Logs
from chat.turns.answer import Answer
from chat.turns.context.budget import Budgets
from chat.turns.context.prompt import Prompt
from chat.turns.continuation.policy import INTERRUPTED, TRUNCATED, Step, decide
from chat.turns.generation import Generator
from chat.turns.question import Question, QuestionBuilder
from chat.turns.registry import Turns
from chat.turns.takeover import Takeover
from chat.turns.turn import Phase, Turn
from chat.turns.upstream_choice import ContinueMode
from chat.upstream.client import Upstream
from chat.upstream.response.completion import Timeouts
from sessions import keys
from sessions.client.connection import Client
from sessions.client.notifications import Notifications
from sessions.conversation_store import ConversationStore
from sessions.keys import ConversationId, Owner, SessionDigest, TurnId
from sessions.limits import Rate
from sessions.model_facts import ModelFacts
from sessions.session_store import Session
from sessions.turns.turn_limits import TurnLimiter, TurnLimits
from sessions.turns.turn_record import TurnRecord, TurnRef
from sessions.turns.turn_store import TurnStore
from tests.fake_upstream import Exchange, ScriptedUpstream
from tests.processes import PATIENCE_S
from tests.questions import question_at, read_log


@pytest.fixture(scope="module")
def redis_url(lone_redis_url: str) -> str:
    return lone_redis_url


@dataclass
class Worker:
    """The parts of a worker that turns need, on a real Redis and a fake upstream."""

    store: TurnStore
    turns: Turns
    takeover: Takeover
    follower: Follower
    notifications: Notifications
    logs: Logs


@pytest_asyncio.fixture
async def worker(
    redis: Client, turns: TurnStore, writers: Batches, upstream: ScriptedUpstream
) -> AsyncIterator[Worker]:
    timeouts = Timeouts(PATIENCE_S, PATIENCE_S)
    requested = Upstream(name="u", base_url=upstream.base_url, api_key=None, timeouts=timeouts)
    store = ConversationStore(redis, ttl_s=1000)
    notifications = Notifications(redis)
    follower = Follower(notifications, turns)
    logs = Logs(turns, follower)
    prompt = Prompt(store, Budgets(1000, None), system_prompt="")
    mode = ContinueMode("prompt", ModelFacts(redis))
    generator = Generator(prompt, mode, [requested], max_s=PATIENCE_S)
    questions = QuestionBuilder(store, ("m",), 4)
    limiter = TurnLimiter(redis, TurnLimits(), lease_s=PATIENCE_S)
    registry = Turns(turns, store, logs, writers, generator, questions, limiter)
    following = asyncio.create_task(follower.run(registry.stop_local))
    await asyncio.sleep(0)
    yield Worker(
        turns, registry, Takeover(turns, registry, follower), follower, notifications, logs
    )
    await registry.close()
    following.cancel()
    await asyncio.wait([following])
    await requested.close()


def new_ref() -> TurnRef:
    owner, turn = Owner(secrets.token_urlsafe(8)), TurnId(secrets.token_hex(8))
    return TurnRef(owner, ConversationId("conversation"), turn)


async def begin(store: TurnStore) -> TurnRecord:
    """Begin a turn in Redis, as the question "q"."""
    ref = new_ref()
    await store.begin(question_at(ref))
    record = await store.find(ref.owner, ref.turn)
    assert record
    return record


# Phases and events


@dataclass
class Running:
    """A turn in a phase, with the means to disturb it."""

    worker: Worker
    turn: Turn
    writer: Writer
    exchange: Exchange | None
    finish_may_go: asyncio.Event


Event = Callable[[Running], Awaitable[None]]


async def stop(running: Running) -> None:
    running.turn.stop()


async def drain(running: Running) -> None:
    running.turn.hand_over()


async def lose_fence(running: Running) -> None:
    running.writer.log.detach()
    running.writer.on_fenced()


async def fail_upstream(running: Running) -> None:
    if running.exchange:
        running.exchange.drop()


async def lose_redis(running: Running) -> None:
    """Make one commit and one finish fail, as when Redis restarts."""
    store = running.worker.store
    for name in ("commit", "finish"):
        original = getattr(store, name)

        async def fail_once(
            *arguments: object, name: str = name, original: object = original
        ) -> object:
            setattr(store, name, original)
            raise RedisTimeoutError("gone")

        setattr(store, name, fail_once)
    if running.exchange and running.turn.phase is Phase.RUNNING:
        await running.exchange.answer("more")


async def drain_without_redis(running: Running) -> None:
    async def fail(ref: TurnRef, fence: int) -> None:
        raise RedisTimeoutError("gone")

    running.worker.store.release = fail  # type: ignore[method-assign]
    running.turn.hand_over()


async def cancel(running: Running) -> None:
    await running.turn.abandon()


EXPECTED = {
    # event: phase at the end and state in Redis, if the event meets BEGUN, RUNNING, FINISHING
    "stop": ((Phase.FINISHED, "stopped"), (Phase.FINISHED, "stopped"), (Phase.FINISHED, "done")),
    "drain": (
        (Phase.HANDED_OVER, "running"),
        (Phase.HANDED_OVER, "running"),
        (Phase.FINISHED, "done"),
    ),
    "drain_without_redis": (
        (Phase.HANDED_OVER, "running"),
        (Phase.HANDED_OVER, "running"),
        (Phase.FINISHED, "done"),
    ),
    "lose_fence": ((Phase.FENCED, "running"),) * 3,
    "fail_upstream": (None, (Phase.FINISHED, "failed"), (Phase.FINISHED, "done")),
    "lose_redis": (None, (Phase.FINISHED, "done"), (Phase.FINISHED, "done")),
    "cancel": ((Phase.HANDED_OVER, "running"),) * 3,
}
EVENTS: dict[str, Event] = {name: globals()[name] for name in EXPECTED}
CASES = [
    (phase, event, outcome)
    for event, outcomes in EXPECTED.items()
    for phase, outcome in zip((Phase.BEGUN, Phase.RUNNING, Phase.FINISHING), outcomes, strict=True)
    if outcome
]


@pytest.mark.parametrize(
    ("phase", "event", "expected"), CASES, ids=[f"{p.value}-{e}" for p, e, _ in CASES]
)
async def test_every_event_in_every_phase_leads_to_one_end(
    worker: Worker,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    phase: Phase,
    event: str,
    expected: tuple[Phase, str],
) -> None:
    record = await begin(worker.store)
    # No continuation: an upstream error is the end.
    record = TurnRecord(record.ref, "running", "d1", "m", record.question_id, record.answer_id, 0)
    running = await reach(worker, record, upstream, phase, monkeypatch)
    await EVENTS[event](running)
    running.finish_may_go.set()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.wait([running.turn.task])
    found = await worker.store.find(record.ref.owner, record.ref.turn)
    assert found
    assert (running.turn.phase, found.state) == expected
    assert not worker.turns.has(record.ref)
    for repeat in (running.turn.stop, running.turn.hand_over):
        repeat()
        assert running.turn.phase is expected[0], "a turn that is over stays so"
    if expected[0] is Phase.HANDED_OVER and event == "drain":
        assert (await worker.store.take_over(record.ref, "another")).fence == 2, (
            "the lease is released"
        )


async def reach(
    worker: Worker,
    record: TurnRecord,
    upstream: ScriptedUpstream,
    phase: Phase,
    monkeypatch: pytest.MonkeyPatch,
) -> Running:
    """Start a turn and return when it is in `phase`."""
    number = len(upstream.find_requests("q")) + 1
    finish, finishing, may_go = worker.store.finish, asyncio.Event(), asyncio.Event()

    async def finish_later(*arguments: object) -> bool:
        finishing.set()
        await may_go.wait()
        return await finish(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(worker.store, "finish", finish_later)
    worker.turns.start(record, b"<user-1>", fence=1)
    turn = worker.turns._turns[record.ref.turn_key]
    running = Running(worker, turn, turn._writer, None, may_go)
    if phase is Phase.BEGUN:
        return running
    running.exchange = await upstream.exchange("q", number)
    await running.exchange.send_text("some text")
    log = turn._writer.log
    while log.committed == len(b"<user-1>"):
        await log.wait_for_commit()
    if phase is Phase.FINISHING:
        await running.exchange.finish()
        await finishing.wait()
        monkeypatch.setattr(worker.store, "finish", finish)
    assert turn.phase is phase
    return running


# Policy


REFUSAL, BREAK = UpstreamRejected("refused", "no"), UpstreamFailed("timeout", "no data")


@pytest.mark.parametrize(
    ("error", "has_output", "continuations", "untried", "has_others", "step"),
    [
        (BREAK, False, 0, 0, False, Step.GIVE_UP),
        (BREAK, False, 0, 1, True, Step.FAIL_OVER),
        (REFUSAL, False, 0, 1, True, Step.FAIL_OVER),
        (REFUSAL, False, 0, 0, True, Step.GIVE_UP),
        (BREAK, True, 0, 0, False, Step.CONTINUE),
        (BREAK, True, 4, 0, False, Step.GIVE_UP),
        (REFUSAL, True, 0, 0, False, Step.GIVE_UP),
        (REFUSAL, True, 0, 0, True, Step.CONTINUE),
        (TRUNCATED, True, 3, 0, False, Step.CONTINUE),
        (TRUNCATED, True, 4, 0, False, Step.GIVE_UP),
        (INTERRUPTED, False, 0, 0, False, Step.CONTINUE),
        (INTERRUPTED, False, 4, 0, False, Step.GIVE_UP),
        (INTERRUPTED, True, 4, 1, True, Step.GIVE_UP),
    ],
)
def test_the_step_after_a_failed_request_is_continue_fail_over_or_give_up(
    error: UpstreamError,
    has_output: bool,
    continuations: int,
    untried: int,
    has_others: bool,
    step: Step,
) -> None:
    found = decide(
        error,
        has_output=has_output,
        continuations=continuations,
        max_continuations=4,
        untried=untried,
        has_others=has_others,
    )
    assert found is step


# Logs


async def test_a_worker_subscribes_to_no_log_that_it_writes(
    worker: Worker, upstream: ScriptedUpstream
) -> None:
    record = await begin(worker.store)
    channel = record.ref.log_key
    async with worker.logs.open(record) as followed:
        assert channel in worker.notifications._channels
        await worker.store.release(record.ref, 1)
        number = len(upstream.find_requests("q")) + 1
        await worker.takeover.take_over(record.ref)
        exchange = await upstream.exchange("q", number)
        await exchange.send_text("taken over")
        async with worker.logs.open(record) as written:
            assert written is followed, "a worker has one log of a turn"
            while b"taken over" not in written.data or written.committed < written.end:
                await written.wait_for_commit()
            assert channel not in worker.notifications._channels
            await exchange.finish()
            while written.is_open:
                await written.wait_for_commit()
    assert channel not in worker.notifications._channels


async def test_a_turn_handed_over_during_a_stop_request_is_stopped_by_its_next_worker(
    redis: Client, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await begin(worker.store)
    ref, store = record.ref, worker.store
    await store.release(ref, 1)
    release, find = store.release, store.find
    releasing, found, may_release = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def release_later(ref: TurnRef, fence: int) -> None:
        releasing.set()
        await may_release.wait()
        await release(ref, fence)

    async def note_find(owner: Owner, turn: TurnId) -> TurnRecord | None:
        record = await find(owner, turn)
        found.set()
        return record

    await worker.takeover.take_over(ref)
    monkeypatch.setattr(store, "release", release_later)
    monkeypatch.setattr(store, "find", note_find)
    draining = asyncio.create_task(worker.turns.drain())
    await releasing.wait()
    stopping = asyncio.create_task(worker.turns.stop(ref.owner, ref.turn))
    await found.wait()
    await asyncio.sleep(0)
    may_release.set()
    await draining
    async with asyncio.timeout(PATIENCE_S):
        while await redis.hget(ref.turn_key, "stop") != b"1":
            await asyncio.sleep(0.01)
    with pytest.raises(Unavailable):  # this worker will not be there when the turn ends
        await stopping
    assert (await store.take_over(ref, "another")).fence == 3
    assert await store.renew([(ref, 3)]) == [2]


@pytest.mark.parametrize("is_taken", [False, True])
async def test_a_question_whose_lease_expires_while_it_stops_an_answer_is_counted_again(
    redis: Client, worker: Worker, question: str, monkeypatch: pytest.MonkeyPatch, is_taken: bool
) -> None:
    turns, store, finish = worker.turns, worker.store, worker.store.finish
    turns._limiter = limiter = TurnLimiter(
        redis, TurnLimits(session_rate=Rate(2, 3600), session_turns=1), lease_s=0
    )
    session = Session(SessionDigest(secrets.token_hex(8)), Owner(secrets.token_urlsafe(8)))
    other = replace(new_ref(), owner=session.owner)

    async def finish_late(*arguments: Any) -> bool:
        is_finished = await finish(*arguments)
        await store.expired_leases()  # which removes the question from the index
        assert await limiter.admit(other, is_counted=True) is None
        if not is_taken:
            await store.unregister(other)
        return is_finished

    first = await turns.begin(session, Question(f"first {question}", None, None, None))
    monkeypatch.setattr(store, "finish", finish_late)
    asking = turns.begin(session, Question(question, first.ref.conversation, None, None))
    if is_taken:
        with pytest.raises(RateLimited):
            await asking
    else:
        member = (await asking).ref.member.encode()
        assert await redis.smembers(keys.session_turns(session.owner)) == {member}
    assert await redis.get(keys.session_rate(session.owner)) == b"2"
    await store.unregister(other)


async def test_an_unexpected_exception_in_one_turn_ends_no_other(
    worker: Worker, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, whole = await begin(worker.store), await begin(worker.store)
    number = len(upstream.find_requests("q")) + 1
    worker.turns.start(broken, b"<user-1>", fence=1)
    worker.turns.start(whole, b"<user-1>", fence=1)
    exchanges = [await upstream.exchange("q", number + n) for n in range(2)]
    turn = worker.turns._turns[broken.ref.turn_key]
    monkeypatch.setattr(turn._writer, "advance", lambda: 1 / 0)
    for exchange in exchanges:
        await exchange.send_text("text")
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.wait([turn.task])
        while not any(exchange.closed.is_set() for exchange in exchanges):
            await asyncio.sleep(0.01)
        for exchange in exchanges:
            if not exchange.closed.is_set():
                await exchange.finish()
        while worker.turns.has(whole.ref):
            await asyncio.sleep(0.01)
    states = [await worker.store.find(one.ref.owner, one.ref.turn) for one in (broken, whole)]
    assert [found.state for found in states if found] == ["failed", "done"]


async def test_a_turn_whose_answer_cannot_be_stored_fails_and_is_not_requested_again(
    worker: Worker, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await begin(worker.store)
    number = len(upstream.find_requests("q")) + 1
    worker.turns.start(record, b"<user-1>", fence=1)
    turn = worker.turns._turns[record.ref.turn_key]
    exchange = await upstream.exchange("q", number)
    monkeypatch.setattr(Answer, "message_json", lambda *_: 1 / 0)
    await exchange.answer("text")
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.wait([turn.task])
    found = await worker.store.find(record.ref.owner, record.ref.turn)
    assert found
    assert found.state == "failed"
    log, is_finished = await read_log(worker.store, record.ref)
    assert is_finished
    assert b'\0f{"type": "internal"' in log


async def test_a_malformed_turn_is_taken_over_once_and_ends_no_other(
    redis: Client, worker: Worker
) -> None:
    malformed, whole = await begin(worker.store), await begin(worker.store)
    await redis.hdel(malformed.ref.turn_key, "model")
    for record in (malformed, whole):
        await worker.store.release(record.ref, 1)
    for record in (malformed, whole):
        await worker.takeover.take_over(record.ref)
    assert worker.turns.has(whole.ref)
    assert not worker.turns.has(malformed.ref)
    assert malformed.ref not in await worker.store.expired_leases()


async def test_a_turn_that_cannot_be_started_here_is_left_to_other_workers(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await begin(worker.store)
    await worker.store.release(record.ref, 1)

    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("the worker is stopping")

    monkeypatch.setattr(worker.turns, "start", fail)
    with pytest.raises(RuntimeError):
        await worker.takeover.take_over(record.ref)
    found = await worker.store.find(record.ref.owner, record.ref.turn)
    assert found
    assert found.state == "running"


@pytest.mark.parametrize("payload", ["not JSON", '"seam', "\x00"])
async def test_a_malformed_seam_is_left_out_when_its_turn_is_taken_over(
    redis: Client, worker: Worker, payload: str
) -> None:
    malformed = await begin(worker.store)
    await redis.append(malformed.ref.log_key, f"\0c{payload}".encode())
    await worker.store.release(malformed.ref, 1)
    await worker.takeover.take_over(malformed.ref)
    assert worker.turns.has(malformed.ref)


async def test_reasoning_that_is_interrupted_again_and_again_is_requested_a_bounded_number_of_times(
    worker: Worker, upstream: ScriptedUpstream
) -> None:
    record = await begin(worker.store)
    number = len(upstream.find_requests("q")) + 1
    worker.turns.start(record, b"<user-1>", fence=1)
    for attempt in range(1 + record.max_continuations):
        exchange = await upstream.exchange("q", number + attempt)
        await exchange.chunk({"reasoning_content": "hm "})
        log = worker.turns._turns[record.ref.turn_key]._writer.log
        async with asyncio.timeout(PATIENCE_S):
            while bytes(log.data).count(b"\0rhm") <= attempt or log.committed < log.end:
                await log.wait_for_commit()
        exchange.drop()
    async with asyncio.timeout(PATIENCE_S):
        while worker.turns.has(record.ref):
            await asyncio.sleep(0.01)
    assert len(upstream.find_requests("q")) == number + record.max_continuations
