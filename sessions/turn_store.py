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
from sessions.turn_record import (
    BeginResult,
    LogRead,
    Moderation,
    NewTurn,
    State,
    TakeOver,
    TurnRecord,
    TurnRef,
)

logger = logging.getLogger("holdline.turn_store")

MAX_EXPIRED = 100
"""Maximum number of turns that `expired_leases` returns."""

_RECORD_FIELDS = (
    "state", "conversation", "digest", "model", "user", "answer", "continues", "length", "records",
    "request",
)  # fmt: skip
"""The hash fields of a TurnRecord. A turn that version 0.1 began has no `records`."""

_OPTIONAL_FIELDS = 3


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
        rate: tuple[int, int],
        limits: StorageLimits | None = None,
    ) -> None:
        self._redis = redis
        self.lease_s = lease_s
        self._lease_ms = int(lease_s * 1000)
        self._ttl_s = ttl_s
        self._rate = rate
        self._limits = limits or StorageLimits(redis)

    async def begin(self, question: NewTurn, moderation: Moderation = "off") -> BeginResult:
        """Register a turn, then store its question and begin it, if nothing prevents it.

        While the moderation is due, the question is counted against the rate limit, but not stored:
        the result is "unchecked". Raises StorageLimitReached.
        """
        ref = question.ref
        has_no_conversation = ref.conversation == keys.NO_CONVERSATION
        build = self._build_begin_without_conversation if has_no_conversation else self._build_begin
        begin = build(question, moderation)
        # Registered first: a turn that is not in the index would be lost with its worker.
        calls = [*_build_registrations([ref], self._lease_ms), begin]
        *_, reply = await call_in_order(self._redis, calls)
        outcome = reply[0].decode()
        if outcome in ("unknown", "attach", "busy", "limited", "unchecked", "full"):
            await self.unregister(ref)  # rejected questions must not fill the index
        if outcome == "full":
            raise StorageLimitReached(reply[1].decode())
        if outcome == "begun":
            return BeginResult("begun", question_id=MessageId(reply[1].decode()))
        if outcome in ("attach", "busy"):
            return BeginResult(outcome, turn=TurnId(reply[1].decode()))
        return BeginResult(outcome, retry_after_s=max(1, reply[1]) if outcome == "limited" else 0)

    def _build_begin(self, question: NewTurn, moderation: Moderation) -> Call:
        ref = question.ref
        names = [
            *_list_conversation_keys(ref), keys.turns(ref.owner, ref.conversation),
            keys.current(ref.owner, question.session), keys.rate(ref.owner),
            keys.request(ref.owner, ref.turn), keys.events(ref.owner), *ref.usage_keys,
        ]  # fmt: skip
        limit, window_s = self._rate
        arguments: list[Argument] = [
            ref.turn, ref.conversation, int(question.may_create), question.digest,
            question.question_id, question.message, question.title, question.model,
            *question.first_record, question.attempt, self._lease_ms, self._ttl_s,
            limit, window_s, question.answer_id, question.max_continuations,
            "." if question.parent is None else question.parent, keys.turn_prefix(ref.owner),
            moderation, question.request or "", keys.REQUEST_TTL_S,
            *self._limits.build_arguments(ref.owner),
        ]  # fmt: skip
        return "begin", names, arguments

    def _build_begin_without_conversation(self, question: NewTurn, moderation: Moderation) -> Call:
        ref = question.ref
        names = [
            ref.turn_key, ref.log_key, keys.request(ref.owner, ref.turn), keys.rate(ref.owner),
            *ref.usage_keys, keys.conversations(ref.owner),
        ]  # fmt: skip
        before, after = question.first_record
        arguments: list[Argument] = [
            ref.turn, ref.conversation, question.digest, question.question_id, question.answer_id,
            question.model, before + question.question_id.encode() + after, question.attempt,
            self._lease_ms, *self._rate, question.max_continuations, question.request or "",
            keys.REQUEST_TTL_S, moderation,
            *self._limits.build_arguments(ref.owner), self._ttl_s,
        ]  # fmt: skip
        return "begin_without_conversation", names, arguments

    async def read_request(self, ref: TurnRef) -> bytes | None:
        """Return the stored request of a turn of /v1 as JSON; None if it was not kept."""
        found: bytes | None = await call(
            self._redis, "GET", [keys.request(ref.owner, ref.turn)], []
        )
        return found

    async def find(self, owner: Owner, turn_id: TurnId) -> TurnRecord | None:
        """Return the record of an owner's turn, or None."""
        values = await call(self._redis, "HMGET", [keys.turn(owner, turn_id)], _RECORD_FIELDS)
        return _parse_record(owner, turn_id, values)

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
        registrations = _build_registrations([ref for ref, _ in leases], self._lease_ms)
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
        """Take over a turn whose lease has expired."""
        arguments: list[Argument] = [attempt, self._lease_ms, *_RECORD_FIELDS]
        fence, *values = await call(self._redis, "take_over", [ref.turn_key], arguments)
        return TakeOver(fence, _parse_record(ref.owner, ref.turn, values) if values else None)

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
            keys.LOG_TTL_S, keys.LOG_TTL_S if has_no_conversation else self._ttl_s,
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
        calls: list[Call] = [("release", [ref.turn_key], [fence]), *_build_registrations([ref], 0)]
        await call_in_order(self._redis, calls)

    async def unregister(self, ref: TurnRef) -> None:
        """Remove a turn from the index of running turns."""
        await call(self._redis, *_build_unregistration(ref))

    async def expired_leases(self) -> list[TurnRef]:
        """Return up to MAX_EXPIRED registered turns whose lease has expired."""
        indexes = [keys.running(), keys.legacy_running()]
        calls: list[Call] = [("expired", [index], [MAX_EXPIRED]) for index in indexes]
        expired: list[TurnRef] = []
        for index, found in zip(indexes, await call_in_order(self._redis, calls), strict=True):
            refs = {member: _decode_ref(member, index) for member in found}
            malformed = [member for member in found if refs[member] is None]
            for member in malformed:  # every poll of every worker would find it again
                logger.warning("removed a malformed member of %s: %r", index, member[:200])
            if malformed:
                await call(self._redis, "unregister", [index], malformed)
            expired += [ref for ref in refs.values() if ref]
        return expired[:MAX_EXPIRED]

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


def _get_index(ref: TurnRef) -> str:
    """Return the index of running turns that a turn belongs to."""
    return keys.legacy_running() if ref.is_legacy else keys.running()


def _build_registrations(refs: list[TurnRef], lease_ms: int) -> list[Call]:
    members: dict[str, list[Argument]] = {}
    for ref in refs:
        members.setdefault(_get_index(ref), [lease_ms]).append(_encode_ref(ref))
    return [("register", [index], arguments) for index, arguments in members.items()]


def _build_unregistration(ref: TurnRef) -> Call:
    return ("unregister", [_get_index(ref)], [_encode_ref(ref)])


def _parse_record(owner: Owner, turn_id: TurnId, values: list[bytes | None]) -> TurnRecord | None:
    """Return a record from the values of _RECORD_FIELDS; the optional ones may be missing."""
    if None in values[:-_OPTIONAL_FIELDS]:
        return None
    text: list[Any] = [(value or b"").decode() for value in values]
    state, conversation, digest, model, user, answer, continues, length, records, request = text
    return TurnRecord(
        ref=TurnRef(owner, ConversationId(conversation), turn_id, is_legacy=not records),
        state=state,
        digest=digest,
        model=model,
        question_id=MessageId(user),
        answer_id=MessageId(answer),
        max_continuations=int(continues),
        length=int(length or 0),
        has_request=bool(request),
    )


def _encode_ref(ref: TurnRef) -> str:
    return f"{ref.owner} {ref.conversation} {ref.turn}"


def _decode_ref(member: bytes, index: str) -> TurnRef | None:
    """Return the turn that a member of the running turns names; None for a malformed one."""
    parts = member.decode("ascii", "replace").split(" ")
    if len(parts) != 3 or not keys.is_owner(parts[0]) or not all(map(keys.is_id, parts[1:])):
        return None
    owner, conversation, turn = parts
    is_legacy = index == keys.legacy_running()
    return TurnRef(Owner(owner), ConversationId(conversation), TurnId(turn), is_legacy)
