"""The atomic steps of a turn in Redis: begin, commit, renew, take over, finish."""

import contextlib
import logging
from collections.abc import Sequence
from typing import Any

from sessions import keys
from sessions.client.connection import Client, find_node, is_cluster
from sessions.client.errors import UNAVAILABLE_ERRORS, WritesUnavailable, classify_reply
from sessions.client.scripts import Argument, Call, call, call_all, call_in_order, raise_errors
from sessions.keys import ConversationId, MessageId, Owner, TurnId
from sessions.limits import StorageLimitReached, StorageLimits
from sessions.turns.running_index import build_registrations, build_unregistration, sweep
from sessions.turns.turn_record import (
    RECORD_FIELDS,
    BeginResult,
    LogRead,
    NewTurn,
    State,
    TakeOver,
    TurnRecord,
    TurnRef,
    parse_record,
)

logger = logging.getLogger("holdline.turn_store")

LogAppend = tuple[TurnRef, int, int, bytes]
"""Bytes to append to a turn's log: the turn, the fence, the offset, the bytes."""


class TurnStore:
    """Runs the scripts of a turn; their headers state the results and why a repeat is harmless.

    Every method raises UNAVAILABLE_ERRORS.
    """

    def __init__(
        self,
        redis: Client,
        *,
        lease_s: float,
        ttl_s: int,
        log_keep_s: int = 3600,
        limits: StorageLimits | None = None,
    ) -> None:
        self._redis = redis
        self.lease_s = lease_s
        self._lease_ms = int(lease_s * 1000)
        self._ttl_s = ttl_s
        self._log_keep_s = log_keep_s
        self._limits = limits or StorageLimits(redis)

    async def check(self, question: NewTurn) -> BeginResult:
        """Return the result of `begin` without beginning the turn; "free" if it may begin.

        The texts, which may be long, are not sent. Raises StorageLimitReached.
        """
        return _parse_begin(await call(self._redis, *self._build_begin(question, is_check=True)))

    async def begin(self, question: NewTurn) -> BeginResult:
        """Register a turn, then store its question and begin it, if nothing prevents it.

        Raises StorageLimitReached.
        """
        ref = question.ref
        # Registered first: a turn that is not in the index would be lost with its worker.
        calls = [
            *build_registrations([ref], self._lease_ms),
            self._build_begin(question, is_check=False),
        ]
        *_, reply = await call_in_order(self._redis, calls)
        if reply[0] != b"begun":
            await self.withdraw(ref)  # rejected questions must not fill the index
        return _parse_begin(reply)

    def _build_begin(self, question: NewTurn, *, is_check: bool) -> Call:
        if question.ref.conversation == keys.NO_CONVERSATION:
            return self._build_begin_without_conversation(question, is_check)
        return self._build_begin_in_conversation(question, is_check)

    def _build_begin_in_conversation(self, question: NewTurn, is_check: bool) -> Call:
        ref = question.ref
        names = [
            *_list_conversation_keys(ref), keys.turns(ref.owner, ref.conversation),
            keys.current(ref.owner, question.session), keys.request(ref.owner, ref.turn),
            keys.events(ref.owner), *ref.usage_keys,
        ]  # fmt: skip
        arguments: list[Argument] = [
            ref.turn, ref.conversation, 2 if question.is_first else int(question.may_create),
            question.digest,
            question.question_id, "" if is_check else question.message, question.title,
            question.model,
            *question.first_record, question.attempt, self._lease_ms, self._ttl_s,
            question.answer_id, question.max_continuations,
            "." if question.parent is None else question.parent, keys.turn_prefix(ref.owner),
            int(is_check), "" if is_check else question.request or "", keys.REQUEST_TTL_S,
            *self._limits.build_arguments(ref.owner),
            len(question.message.encode()), len((question.request or "").encode()),
            ref.address or "",
        ]  # fmt: skip
        return "begin", names, arguments

    def _build_begin_without_conversation(self, question: NewTurn, is_check: bool) -> Call:
        ref = question.ref
        names = [
            ref.turn_key, ref.log_key, keys.request(ref.owner, ref.turn), *ref.usage_keys,
            keys.conversations(ref.owner),
        ]  # fmt: skip
        before, after = question.first_record
        arguments: list[Argument] = [
            ref.turn, ref.conversation, question.digest, question.question_id, question.answer_id,
            question.model, before + question.question_id.encode() + after, question.attempt,
            self._lease_ms, question.max_continuations,
            "" if is_check else question.request or "", keys.REQUEST_TTL_S, int(is_check),
            *self._limits.build_arguments(ref.owner), self._ttl_s,
            len((question.request or "").encode()), ref.address or "",
        ]  # fmt: skip
        return "begin_without_conversation", names, arguments

    async def read_request(self, ref: TurnRef) -> bytes | None:
        """Return the stored request of a turn of /v1 as JSON; None if it was not kept."""
        found: bytes | None = await call(
            self._redis, "GET", [keys.request(ref.owner, ref.turn)], []
        )
        return found

    async def find(self, owner: Owner, turn_id: TurnId) -> TurnRecord | None:
        """Return the record of an owner's turn, or None; drop a turn whose record is unreadable."""
        values = await call(self._redis, "HMGET", [keys.turn(owner, turn_id)], RECORD_FIELDS)
        try:
            return parse_record(owner, turn_id, values)
        except ValueError as error:
            logger.warning("turn %s is unreadable (%s); dropped", turn_id, error)
            await self.drop(TurnRef(owner, ConversationId(""), turn_id))
            return None

    async def read(self, ref: TurnRef, offset: int, max_bytes: int) -> LogRead:
        """Return at most `max_bytes` of a turn's log from `offset`, its length and the state."""
        found = await call(self._redis, "read", [ref.turn_key, ref.log_key], [offset, max_bytes])
        return LogRead(found[0] and found[0].decode(), *found[1:])

    async def read_range(self, ref: TurnRef, begin: int, end: int) -> bytes:
        """Return the log's bytes between two offsets; fewer where the log ends before."""
        return (await self.read(ref, begin, end - begin)).data

    def node(self, ref: TurnRef) -> str:
        """Return the name of the node that holds a turn, or ""."""
        return find_node(self._redis, ref.turn_key)

    async def commit(self, appends: list[LogAppend]) -> list[Any]:
        """Append bytes to logs, in one call on a single Redis; return a reply for each.

        An error that concerns one turn is returned as its reply.
        """
        calls: list[Call] = []
        names: list[str] = []
        arguments: list[Argument] = []
        has_nodes = is_cluster(self._redis)
        for ref, fence, offset, data in appends:
            names += (ref.turn_key, ref.log_key)
            arguments += (fence, offset, data)
            if has_nodes:
                calls.append(("commit", names, arguments))
                names, arguments = [], []
        return await self._call_for_turns(calls or [("commit", names, arguments)])

    async def renew(self, leases: list[tuple[TurnRef, int]]) -> list[Any]:
        """Renew the leases of turns, given with their fences, and register them as running.

        All of it takes one exchange with each node. Replies and errors are those of `commit`.
        """
        groups = [[lease] for lease in leases] if is_cluster(self._redis) else [leases]
        calls: list[Call] = [
            (
                "renew",
                [ref.turn_key for ref, _ in group],
                [self._lease_ms, *(fence for _, fence in group)],
            )
            for group in groups
        ]
        registrations = build_registrations([ref for ref, _ in leases], self._lease_ms)
        return await self._call_for_turns(calls, registrations)

    async def _call_for_turns(self, calls: list[Call], others: Sequence[Call] = ()) -> list[Any]:
        """Run calls that reply for each of their turns, and other calls; return those replies."""
        replies = await call_all(self._redis, [*calls, *others])
        raise_errors(replies[len(calls) :])
        found: list[Any] = []
        for reply in replies[: len(calls)]:
            if isinstance(reply, UNAVAILABLE_ERRORS):
                raise reply
            if not isinstance(reply, list):  # Redis rejected the call, not one of its turns
                raise WritesUnavailable(str(reply)) from reply
            found += reply
        for number, reply in enumerate(found):
            if type(reply) is not int:
                found[number] = reply = classify_reply(reply)
                if isinstance(reply, UNAVAILABLE_ERRORS):
                    raise reply
        return found

    async def take_over(self, ref: TurnRef, attempt: str) -> TakeOver:
        """Take over a turn whose lease has expired; raises ValueError for a malformed record.

        A lease that ends later than any can is shortened to `lease_s`; its worker may renew it.
        """
        arguments: list[Argument] = [attempt, self._lease_ms, *RECORD_FIELDS]
        fence, *values = await call(self._redis, "take_over", [ref.turn_key], arguments)
        return TakeOver(fence, parse_record(ref.owner, ref.turn, values) if values else None)

    async def finish(
        self, ref: TurnRef, fence: int, offset: int, records: bytes, state: State, answer: str
    ) -> bool:
        """Append the last records, store the answer (JSON, "" for none) and end the turn.

        Return False if another worker holds the turn. True also covers a turn that ended and was
        deleted before this call was repeated.
        """
        has_no_conversation = ref.conversation == keys.NO_CONVERSATION
        arguments: list[Argument] = [
            fence, offset, records, state, ref.turn, ref.conversation, answer,
            self._log_keep_s, self._log_keep_s if has_no_conversation else self._ttl_s,
        ]  # fmt: skip
        names = [
            *_list_conversation_keys(ref), keys.request(ref.owner, ref.turn),
            keys.events(ref.owner), *ref.usage_keys,
        ]  # fmt: skip
        result = await call(self._redis, "finish", names, arguments)
        if result not in (1, 2):
            return False
        with contextlib.suppress(*UNAVAILABLE_ERRORS):  # then the next poll for takeovers does it
            await self.unregister(ref)
        return True

    async def release(self, ref: TurnRef, fence: int) -> None:
        """Release a turn's lease, so that any worker may take the turn over immediately."""
        calls: list[Call] = [("release", [ref.turn_key], [fence]), *build_registrations([ref], 0)]
        await call_in_order(self._redis, calls)

    async def unregister(self, ref: TurnRef) -> None:
        """Remove a turn from the index of running turns."""
        await call(self._redis, *build_unregistration(ref))

    async def withdraw(self, ref: TurnRef) -> None:
        """Unregister a turn that a request does not begin, unless another request has begun it."""
        record = await self.find(ref.owner, ref.turn)
        if not (record and record.state == "running" and record.ref == ref):
            await self.unregister(ref)

    async def expired_leases(self) -> list[TurnRef]:
        """Return running turns whose lease has expired; see `sweep`."""
        return await sweep(self._redis)

    async def postpone(self, ref: TurnRef) -> None:
        """Let a turn whose lease holds be found again after a lease's time, behind all others."""
        await call_in_order(self._redis, build_registrations([ref], self._lease_ms))

    async def drop(self, ref: TurnRef) -> None:
        """Drop a turn whose record or log cannot be read; its conversation takes new questions.

        Its log stays for a day, for the operator.
        """
        owner, turn = ref.owner, ref.turn
        names = [
            ref.turn_key, keys.request(owner, turn), keys.records(owner, turn),
            keys.legacy_log(owner, turn),
        ]  # fmt: skip
        conversation_prefix = keys.conversation(owner, ConversationId(""))
        arguments: list[Argument] = [
            turn,
            ref.conversation,
            conversation_prefix,
            keys.REQUEST_TTL_S,
        ]
        await call(self._redis, "drop", names, arguments)
        await self.unregister(ref)

    async def request_stop(self, ref: TurnRef) -> bool:
        """Request that the worker of a turn stops it; return False if the turn does not run."""
        if await call(self._redis, "stop", [ref.turn_key], []) != 1:
            return False
        await call(self._redis, "PUBLISH", [keys.stops()], [ref.turn_key])
        return True


def _list_conversation_keys(ref: TurnRef) -> list[str]:
    """Return the first five KEYS of begin.lua and of finish.lua."""
    return [
        ref.turn_key, ref.log_key, keys.conversation(ref.owner, ref.conversation),
        keys.messages(ref.owner, ref.conversation), keys.conversations(ref.owner),
    ]  # fmt: skip


def _parse_begin(reply: list[Any]) -> BeginResult:
    outcome = reply[0].decode()
    if outcome == "full":
        raise StorageLimitReached(reply[1].decode())
    if outcome == "begun":
        return BeginResult(outcome, question_id=MessageId(reply[1].decode()))
    if outcome == "moved":
        return BeginResult(outcome, conversation=ConversationId(reply[1].decode()))
    return BeginResult(outcome, turn=TurnId(reply[1].decode()) if len(reply) > 1 else None)
