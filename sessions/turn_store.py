"""The atomic steps of a turn in Redis: begin, commit, renew, take over, finish."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sessions import keys
from sessions.client.connection import Client, is_cluster, node_of
from sessions.client.errors import UNAVAILABLE_ERRORS, classify_reply
from sessions.client.scripts import (
    Argument,
    Call,
    call,
    call_all,
    call_in_order,
    execute,
)
from sessions.keys import ConversationId, MessageId, Owner, SessionDigest, TurnId

logger = logging.getLogger("holdline.turn_store")

State = Literal["running", "done", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class TurnRef:
    """Where a turn lives: its owner, its conversation, its id."""

    owner: Owner
    conversation: ConversationId
    turn: TurnId
    is_legacy: bool = False
    """Whether version 0.1 began the turn: its log holds the bytes of the event stream."""

    @property
    def turn_key(self) -> str:
        return keys.turn(self.owner, self.turn)

    @property
    def log_key(self) -> str:
        name = keys.legacy_log if self.is_legacy else keys.records
        return name(self.owner, self.turn)


Part = tuple[TurnRef, int, int, bytes]
"""What is to be appended to a turn's log: where, by which fence, at which offset, the frames."""


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """What Redis knows of a turn."""

    ref: TurnRef
    state: State
    digest: str
    model: str
    question_id: MessageId
    answer_id: MessageId
    max_continuations: int = 0
    """How often this answer may be continued."""
    length: int = 0
    """Length of an ended turn's log in bytes."""


@dataclass(frozen=True, slots=True)
class NewTurn:
    """A turn to begin: the user's message, and the first frame around that message's id.

    `message` is the question as JSON, or "" to regenerate the answer to the stored message
    `question_id`. `parent` is the message that the question follows, "" for the first one, None for
    the end of the current branch.
    """

    ref: TurnRef
    session: SessionDigest
    may_create: bool
    digest: str
    question_id: MessageId
    answer_id: MessageId
    message: str
    parent: str | None
    title: str
    model: str
    max_continuations: int
    first_record: tuple[bytes, bytes]
    attempt: str


@dataclass(frozen=True, slots=True)
class BeginResult:
    """What `begin` found: `outcome` says which of the other fields holds."""

    outcome: Literal["begun", "known", "conflict", "unknown", "attach", "busy", "limited"]
    question_id: MessageId | None = None
    turn: TurnId | None = None
    retry_after_s: int = 0


class TurnStore:
    """Runs the scripts of a turn; what they do, and why they may run twice, stands in their heads."""

    def __init__(self, redis: Client, *, lease_s: float, ttl_s: int, rate: tuple[int, int]) -> None:
        self._redis = redis
        self.lease_s = lease_s
        self._lease_ms = int(lease_s * 1000)
        self._ttl_s = ttl_s
        self._rate = rate

    async def begin(self, question: NewTurn) -> BeginResult:
        """Write the question and begin its turn, or say why not; list it among those that run."""
        ref = question.ref
        names = [
            ref.turn_key,
            ref.log_key,
            keys.conversation(ref.owner, ref.conversation),
            keys.messages(ref.owner, ref.conversation),
            keys.conversations(ref.owner),
            keys.turns(ref.owner, ref.conversation),
            keys.current(ref.owner, question.session),
            keys.rate(ref.owner),
        ]
        limit, window_s = self._rate
        arguments: list[Argument] = [
            ref.turn, ref.conversation, int(question.may_create), question.digest, question.question_id,
            question.message, question.title, question.model, *question.first_record, question.attempt,
            self._lease_ms, self._ttl_s, limit, window_s, question.answer_id, question.max_continuations,
            "." if question.parent is None else question.parent,
        ]  # fmt: skip
        # First the list: a turn that is not on it would be gone with its worker.
        calls = [self._registration([ref], self._lease_end()), ("begin", names, arguments)]
        _, reply = await call_in_order(self._redis, calls)
        outcome = reply[0].decode()
        if outcome == "begun":
            return BeginResult("begun", question_id=MessageId(reply[1].decode()))
        if outcome in ("attach", "busy"):
            return BeginResult(outcome, turn=TurnId(reply[1].decode()))
        return BeginResult(outcome, retry_after_s=max(1, reply[1]) if outcome == "limited" else 0)

    async def find(self, owner: Owner, turn_id: TurnId) -> TurnRecord | None:
        """What is known of an owner's turn, or None."""
        fields = await self._redis.hgetall(keys.turn(owner, turn_id))
        if not fields:
            return None
        text = {name.decode(): value.decode() for name, value in fields.items()}
        ref = TurnRef(owner, ConversationId(text["conversation"]), turn_id)
        return TurnRecord(
            ref=ref,
            state=text["state"],
            digest=text["digest"],
            model=text["model"],
            question_id=MessageId(text["user"]),
            answer_id=MessageId(text["answer"]),
            max_continuations=int(text["continues"]),
            length=int(text.get("length", 0)),
        )

    async def read_log(self, ref: TurnRef, offset: int = 0) -> tuple[bytes, bool]:
        """The log's bytes from `offset` on, and whether the turn has ended."""
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hget(ref.turn_key, "state")
        pipeline.getrange(ref.log_key, offset, -1)
        state, log = await execute(pipeline)
        return log, state != b"running"

    async def read_range(self, ref: TurnRef, begin: int, end: int) -> bytes:
        """The log's bytes between two offsets, as far as they are there."""
        found: bytes = await call(self._redis, "GETRANGE", [ref.log_key], [begin, end - 1])
        return found

    def node(self, ref: TurnRef) -> str:
        """The name of the node that holds a turn, or ""."""
        return node_of(self._redis, ref.turn_key)

    async def commit(self, parts: list[Part]) -> list[Any]:
        """Append parts to logs, in one call where one Redis has them all; a reply for each.

        Raises what is in AWAY, gives any other error as its part's reply.
        """
        return await self._run_for_each(
            "commit",
            [],
            [
                ((ref.turn_key, ref.log_key), (fence, offset, frames))
                for ref, fence, offset, frames in parts
            ],
        )

    async def renew(self, held: list[tuple[TurnRef, int]]) -> list[Any]:
        """Hold turns, given with their fences, for another lease; replies and raises as `commit` does."""
        turns = [((ref.turn_key,), (fence,)) for ref, fence in held]
        return await self._run_for_each("renew", [self._lease_ms], turns)

    async def _run_for_each(
        self,
        script: str,
        shared: list[Argument],
        turns: Sequence[tuple[Sequence[str], Sequence[Argument]]],
    ) -> list[Any]:
        """Run a script that takes any number of turns, each with its keys and its arguments."""
        groups = [[turn] for turn in turns] if is_cluster(self._redis) else [turns]
        calls: list[Call] = [
            (
                script,
                [name for names, _ in group for name in names],
                [*shared, *(argument for _, arguments in group for argument in arguments)],
            )
            for group in groups
        ]
        replies: list[Any] = []
        for group, reply in zip(groups, await call_all(self._redis, calls), strict=True):
            replies += reply if isinstance(reply, list) else [reply] * len(group)
        replies = [classify_reply(reply) for reply in replies]
        for reply in replies:
            if isinstance(reply, UNAVAILABLE_ERRORS):
                raise reply
        return replies

    async def take_over(self, ref: TurnRef, attempt: str) -> int:
        """The new fence of a turn whose lease ran out; 0 while it is held, -1 when it does not run."""
        return int(await call(self._redis, "take_over", [ref.turn_key], [attempt, self._lease_ms]))

    async def finish(
        self, ref: TurnRef, fence: int, offset: int, frames: bytes, state: State, answer: str
    ) -> bool:
        """Append the last frames, keep the answer (JSON, "" for none), end the turn; False when refused."""
        names = [
            ref.turn_key,
            ref.log_key,
            keys.conversation(ref.owner, ref.conversation),
            keys.messages(ref.owner, ref.conversation),
            keys.conversations(ref.owner),
        ]
        arguments: list[Argument] = [
            fence, offset, frames, state, ref.turn, ref.conversation, answer, keys.LOG_S, self._ttl_s,
        ]  # fmt: skip
        calls: list[Call] = [
            ("finish", names, arguments),
            ("ZREM", [keys.running()], [_encode_ref(ref)]),
        ]
        done, _ = await call_in_order(self._redis, calls)
        return bool(done == 1)

    async def release(self, ref: TurnRef, fence: int) -> None:
        """Let go of a turn, so that any worker may take it over at once."""
        await call(self._redis, "release", [ref.turn_key], [fence])
        await self.register([ref], until_ms=0)

    async def register(self, refs: list[TurnRef], until_ms: int | None = None) -> None:
        """List turns among those that run, for as long as a lease lasts (or until `until_ms`)."""
        if not refs:  # the last of them ended while their leases were being renewed
            return
        until_ms = self._lease_end() if until_ms is None else until_ms
        await call(self._redis, *self._registration(refs, until_ms))

    def _lease_end(self) -> int:
        return time.time_ns() // 1_000_000 + self._lease_ms

    @staticmethod
    def _registration(refs: list[TurnRef], until_ms: int) -> Call:
        return (
            "ZADD",
            [keys.running()],
            [one for ref in refs for one in (until_ms, _encode_ref(ref))],
        )

    async def unregister(self, ref: TurnRef) -> None:
        """Take a turn off the list."""
        await self._redis.zrem(keys.running(), _encode_ref(ref))

    async def expired_leases(self) -> list[TurnRef]:
        """Turns of the list whose lease has run out, some 100 at a time."""
        now_ms = time.time_ns() // 1_000_000
        found = await self._redis.zrangebyscore(keys.running(), "-inf", now_ms, start=0, num=100)
        refs = []
        for member in found:
            if ref := _decode_ref(member):
                refs.append(ref)
            else:  # it would be found again at every look, here and on every other worker
                logger.warning("removed a malformed member of %s: %r", keys.running(), member[:200])
                await self._redis.zrem(keys.running(), member)
        return refs

    async def request_stop(self, ref: TurnRef) -> bool:
        """Ask the worker that runs a turn, wherever it is, to stop it; False if it does not run."""
        if await call(self._redis, "stop", [ref.turn_key], []) != 1:
            return False
        await self._redis.publish(keys.stops(), ref.turn_key)
        return True


def _encode_ref(ref: TurnRef) -> str:
    return f"{ref.owner} {ref.conversation} {ref.turn}"


def _decode_ref(member: bytes) -> TurnRef | None:
    """Return the turn that a member of the running turns names; None for a malformed one."""
    parts = member.decode("ascii", "replace").split(" ")
    if len(parts) != 3 or not all(map(keys.is_id, parts)):
        return None
    owner, conversation, turn = parts
    return TurnRef(Owner(owner), ConversationId(conversation), TurnId(turn))
