"""Sessions, conversations and messages in Redis.

A conversation's messages are a tree in one hash, each entry behind the id of its parent; they are added
and never changed. Beside them stands what follows each message, so that alternatives are found. The branch
that is shown ends in the conversation's `head`.
"""

import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sessions import cookie, keys
from sessions.client.connection import Client
from sessions.client.scripts import (
    Call,
    call,
    call_in_order,
    execute,
)
from sessions.keys import ConversationId, MessageId, Owner, SessionDigest, TurnId

TITLE_MAX = 120
"""Longest title, in characters."""

_FIELDS = ("title", "created", "updated", "running", "pinned", "model", "system")


@dataclass(frozen=True, slots=True)
class Session:
    """Who is asking: one browser, and the owner whose data it may see."""

    digest: SessionDigest
    owner: Owner
    is_new: bool = field(default=False, compare=False)
    """Whether it was made just now, so that nobody else can know it yet."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is known of a conversation but for its messages; times are in ms since the epoch."""

    id: ConversationId
    title: str
    created: int
    updated: int
    running: TurnId | None
    pinned: bool
    model: str
    system: str | None


class Message(NamedTuple):
    """One entry of a history; `body` holds role, content, created and what else was recorded."""

    id: MessageId
    parent: MessageId | None
    body: dict[str, Any]


class Store:
    """Reads and writes what one owner's browser may see."""

    def __init__(self, redis: Client, idle_s: int, ttl_s: int) -> None:
        self._redis = redis
        self._idle_s = idle_s
        self.ttl_s = ttl_s

    async def find_session(self, cookie_value: str | None) -> Session | None:
        """The session that a cookie names, kept alive by this look; None if it is unknown or too old."""
        digest = cookie.digest(cookie_value)
        if digest is None:
            return None
        record = await call(self._redis, "GETEX", [keys.session(digest)], ["EX", self._idle_s])
        if record is None:
            return None
        fields = json.loads(record)
        if fields["created"] + self.ttl_s < time.time():
            await self._redis.delete(keys.session(digest))
            return None
        return Session(digest, Owner(fields["owner"]))

    async def new_session(self) -> tuple[str, Session]:
        """Make a session that owns itself; returns the cookie's id, which is stored nowhere, and itself."""
        session_id = cookie.new_id()
        digest = cookie.digest(session_id)
        assert digest is not None
        session = Session(digest, Owner(secrets.token_urlsafe(16)), is_new=True)
        record = json.dumps({"owner": session.owner, "created": int(time.time())})
        await self._redis.set(keys.session(digest), record, ex=self._idle_s)
        return session_id, session

    async def current(self, session: Session) -> tuple[ConversationId, bool]:
        """The conversation that a question without one belongs to, and whether there is none yet: then its id
        is chosen now."""
        if session.is_new:
            return ConversationId(new_id()), True
        key = keys.current(session.owner, session.digest)
        chosen: Call = ("SET", [key], [new_id(), "NX", "EX", self.ttl_s])
        is_new, found = await call_in_order(self._redis, [chosen, ("GET", [key], [])])
        return ConversationId(found.decode()), bool(is_new)

    async def create(self, session: Session, **fields: str) -> ConversationId:
        """Make an empty conversation and make it the session's current one; returns its id."""
        conversation_id = ConversationId(new_id())
        owner = session.owner
        names = [
            keys.conversation(owner, conversation_id),
            keys.conversations(owner),
            keys.current(owner, session.digest),
        ]
        flat = [text for pair in fields.items() for text in pair]
        await call(self._redis, "create", names, [conversation_id, self.ttl_s, *flat])
        return conversation_id

    async def read(self, owner: Owner, conversation_id: ConversationId) -> Conversation | None:
        """One conversation, or None."""
        key = keys.conversation(owner, conversation_id)
        return _conversation(conversation_id, await call(self._redis, "HMGET", [key], _FIELDS))

    async def page(
        self, owner: Owner, limit: int, cursor: str | None
    ) -> tuple[list[Conversation], str | None]:
        """A page of conversations, newest first, and the next one's cursor; ValueError for a bad cursor."""
        top, last = _parse_cursor(cursor) if cursor else ("+inf", "")
        # Conversations changed in the same millisecond share a score: look a few past the page for those.
        rows = await self._redis.zrevrangebyscore(
            keys.conversations(owner), top, "-inf", start=0, num=limit + 17, withscores=True
        )
        ids = [(member.decode(), int(score)) for member, score in rows]
        if cursor:
            ids = [(member, score) for member, score in ids if score < int(top) or member < last]
        page = ids[:limit]
        pipeline = self._redis.pipeline(transaction=False)
        for member, _ in page:
            pipeline.hmget(keys.conversation(owner, ConversationId(member)), _FIELDS)
        found = zip(page, await execute(pipeline), strict=True)
        more = f"{page[-1][1]}.{page[-1][0]}" if len(ids) > limit else None
        read = [_conversation(ConversationId(member), values) for (member, _), values in found]
        return [conversation for conversation in read if conversation], more

    async def branch(
        self,
        owner: Owner,
        conversation_id: ConversationId,
        *,
        start: MessageId | None = None,
        max_bytes: int = 1 << 40,
        max_count: int = 1000,
    ) -> list[Message]:
        """Messages from `start` (or the branch's end) backwards, newest first, within bytes and count."""
        names = [keys.conversation(owner, conversation_id), keys.messages(owner, conversation_id)]
        return _branch(
            await call(self._redis, "branch", names, [start or "", max_bytes, max_count])
        )

    async def context(
        self,
        owner: Owner,
        conversation_id: ConversationId,
        start: MessageId,
        max_bytes: int,
        max_count: int,
    ) -> tuple[str | None, list[Message]]:
        """The conversation's own system prompt, where it has one, and the branch that ends in `start`."""
        names = [keys.conversation(owner, conversation_id), keys.messages(owner, conversation_id)]
        calls: list[Call] = [
            ("HGET", names[:1], ["system"]),
            ("branch", names, [start, max_bytes, max_count]),
        ]
        system, flat = await call_in_order(self._redis, calls)
        return None if system is None else system.decode(), _branch(flat)

    async def message(
        self, owner: Owner, conversation_id: ConversationId, message_id: str
    ) -> Message | None:
        """One message, or None."""
        if not keys.is_id(message_id):
            return None
        entry = await self._redis.hget(keys.messages(owner, conversation_id), message_id)
        return _message(message_id, entry) if entry else None

    async def alternatives(
        self, owner: Owner, conversation_id: ConversationId, messages: list[Message]
    ) -> list[list[MessageId]]:
        """For each message the ids of all that follow the same parent, itself included, in the order made."""
        if not messages:
            return []
        parents = [f">{message.parent or ''}" for message in messages]
        found = await self._redis.hmget(keys.messages(owner, conversation_id), parents)
        return [[MessageId(one) for one in (ids or b"").decode().split()] for ids in found]

    async def select(
        self, owner: Owner, conversation_id: ConversationId, message_id: str
    ) -> bool | None:
        """Show the branch through a message; False while an answer is being made, None if it is unknown."""
        if not keys.is_id(message_id):
            return None
        names = [keys.conversation(owner, conversation_id), keys.messages(owner, conversation_id)]
        return {1: True, 0: None, -1: False}[await call(self._redis, "select", names, [message_id])]

    async def change(self, owner: Owner, conversation_id: ConversationId, **fields: str) -> bool:
        """Set fields of a conversation; False if there is none."""
        flat = [text for pair in fields.items() for text in pair]
        return bool(
            await call(self._redis, "change", [keys.conversation(owner, conversation_id)], flat)
        )

    async def delete(self, owner: Owner, conversation_id: ConversationId) -> bool:
        """Delete a conversation, its messages, its turns and their logs; False if there is none."""
        members = await self._redis.smembers(keys.turns(owner, conversation_id))
        turn_ids = [TurnId(member.decode()) for member in members]
        pipeline = self._redis.pipeline(transaction=True)
        # As plain commands, for a Cluster's pipeline has no `unlink` of many keys.
        pipeline.execute_command("UNLINK", keys.conversation(owner, conversation_id))
        pipeline.execute_command("ZREM", keys.conversations(owner), conversation_id)
        pipeline.execute_command(
            "UNLINK",
            keys.messages(owner, conversation_id),
            keys.turns(owner, conversation_id),
            *(
                name(owner, turn_id)
                for turn_id in turn_ids
                for name in (keys.turn, keys.records, keys.legacy_log)
            ),
        )
        return bool((await execute(pipeline))[0])

    async def ping(self) -> None:
        """Return when Redis has answered; raises what is in AWAY when it does not."""
        await self._redis.ping()


def new_id() -> str:
    """An id for a conversation or message: 96 random bits as 16 characters of base64url."""
    return secrets.token_urlsafe(12)


def title_of(question: str) -> str:
    """A conversation's first title: the beginning of its first question, on one line."""
    line = " ".join(question.split())
    return line if len(line) <= 60 else line[:59].rstrip() + "…"


def _branch(flat: list[bytes]) -> list[Message]:
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return [_message(message_id.decode(), entry) for message_id, entry in pairs]


def _message(message_id: str, entry: bytes) -> Message:
    parent, _, body = entry.partition(b"\n")
    return Message(MessageId(message_id), MessageId(parent.decode()) or None, json.loads(body))


def _conversation(
    conversation_id: ConversationId, values: list[bytes | None]
) -> Conversation | None:
    """From the values of _FIELDS; None where there is no such conversation."""
    text = {
        name: value.decode()
        for name, value in zip(_FIELDS, values, strict=True)
        if value is not None
    }
    if "created" not in text:
        return None
    return Conversation(
        id=conversation_id,
        title=text.get("title", ""),
        created=int(text["created"]),
        updated=int(text["updated"]),
        running=TurnId(text["running"]) if "running" in text else None,
        pinned=text.get("pinned") == "1",
        model=text.get("model", ""),
        system=text.get("system"),
    )


def _parse_cursor(cursor: str) -> tuple[str, str]:
    score, dot, member = cursor.partition(".")
    if not dot or not score.isascii() or not score.isdigit():
        raise ValueError("not a cursor of this list")
    return score, member
