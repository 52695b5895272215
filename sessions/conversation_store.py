"""Conversations and their messages in Redis.

The messages of a conversation are a tree in one hash. An entry holds the id of its parent and is
never changed. A second kind of entry lists the children of a message, in order to find
alternatives.
The field `head` of a conversation names the last message of the branch that is shown.
"""

import logging
import re
import secrets

from sessions import keys
from sessions.client.connection import Client
from sessions.client.scripts import Argument, Call, call, call_all, call_in_order, raise_errors
from sessions.conversation_record import (
    CONVERSATION_FIELDS,
    SUMMARY_FIELDS,
    Conversation,
    Message,
    Summary,
    parse_children,
    parse_conversation,
    parse_message,
    parse_summary,
)
from sessions.keys import ConversationId, MessageId, Owner, TurnId
from sessions.limits import StorageLimitReached, StorageLimits
from sessions.session_store import Session

logger = logging.getLogger("holdline.conversation_store")

_CURSOR = re.compile(r"([0-9]{1,15})\.([A-Za-z0-9_-]{1,64})")

MAX_TITLE_LENGTH = 120
"""Maximum length of a title, in characters."""

MAX_UNLINKED_TURNS = 500
"""Maximum number of turns that one script call unlinks, so that Redis is not blocked for long."""


class ConversationStore:
    """Reads and writes the conversations of an owner; every method raises UNAVAILABLE_ERRORS."""

    def __init__(self, redis: Client, *, ttl_s: int, limits: StorageLimits | None = None) -> None:
        self._redis = redis
        self._ttl_s = ttl_s
        self._limits = limits or StorageLimits(redis)

    async def find_current(self, session: Session) -> tuple[ConversationId, bool]:
        """Return the session's current conversation and False, or the id of a new one and True."""
        if session.is_new:
            return ConversationId(new_id()), True
        key = keys.current(session.owner, session.digest)
        found = await call(self._redis, "GET", [key], [])
        if found is None:
            return ConversationId(new_id()), True
        current = found.decode(errors="replace")
        if keys.is_conversation_id(current):
            return ConversationId(current), False
        logger.warning("%s is malformed; dropped", key)
        await call(self._redis, "DEL", [key], [])
        return ConversationId(new_id()), True

    async def create(self, session: Session, **fields: str) -> ConversationId:
        """Create an empty conversation, make it the session's current one and return its id.

        Raises StorageLimitReached.
        """
        conversation_id = ConversationId(new_id())
        owner = session.owner
        names = [
            keys.conversation(owner, conversation_id),
            keys.conversations(owner),
            keys.current(owner, session.digest),
            keys.events(owner),
            keys.usage(owner),
            keys.expiries(owner),
        ]
        arguments: list[Argument] = [
            conversation_id, self._ttl_s, *self._limits.build_arguments(owner), *_flatten(fields),
        ]  # fmt: skip
        reply = await call(self._redis, "create", names, arguments)
        if reply != b"created":
            raise StorageLimitReached(reply.decode())
        return conversation_id

    async def read(self, owner: Owner, conversation_id: ConversationId) -> Conversation | None:
        """Return a conversation, or None."""
        key = keys.conversation(owner, conversation_id)
        return parse_conversation(
            conversation_id, await call(self._redis, "HMGET", [key], CONVERSATION_FIELDS)
        )

    async def read_page(
        self, owner: Owner, limit: int, cursor: str | None
    ) -> tuple[list[Summary], str | None]:
        """Return a page of conversations, newest first, and the next page's cursor.

        Raise ValueError for an invalid cursor.
        """
        top, last = _parse_cursor(cursor) if cursor else ("+inf", "")
        # Conversations changed in the same millisecond share a score: read a few more than `limit`.
        count = limit + 17
        flat = await call(
            self._redis,
            "ZREVRANGEBYSCORE",
            [keys.conversations(owner)],
            [top, "-inf", "WITHSCORES", "LIMIT", 0, count],
        )
        ids, malformed = _parse_members(flat)
        if malformed:
            logger.warning("removed %d malformed members of the conversations", len(malformed))
            await call(self._redis, "ZREM", [keys.conversations(owner)], malformed)
        if cursor:
            ids = [(member, score) for member, score in ids if score < int(top) or member < last]
        page = ids[:limit]
        more = f"{page[-1][1]}.{page[-1][0]}" if len(ids) > limit else None
        return await self._read_all(owner, [ConversationId(member) for member, _ in page]), more

    async def _read_all(self, owner: Owner, ids: list[ConversationId]) -> list[Summary]:
        """Return those of the conversations that exist."""
        if not ids:
            return []
        calls: list[Call] = [
            ("HMGET", [keys.conversation(owner, one)], SUMMARY_FIELDS) for one in ids
        ]
        rows = raise_errors(await call_all(self._redis, calls))
        found = [parse_summary(one, values) for one, values in zip(ids, rows, strict=True)]
        return [conversation for conversation in found if conversation]

    async def read_branch(
        self,
        owner: Owner,
        conversation_id: ConversationId,
        *,
        start: MessageId | None = None,
        max_bytes: int = 1 << 40,
        max_count: int = 1000,
    ) -> list[Message]:
        """Return messages from `start` (or the branch's end) towards the root, newest first."""
        names = [keys.conversation(owner, conversation_id), keys.messages(owner, conversation_id)]
        return _parse_branch(
            await call(self._redis, "branch", names, [start or "", max_bytes, max_count])
        )

    async def read_context(
        self,
        owner: Owner,
        conversation_id: ConversationId,
        start: MessageId,
        max_bytes: int,
        max_count: int,
    ) -> tuple[str | None, list[Message]]:
        """Return the conversation's system prompt (or None) and the branch that ends in `start`."""
        names = [keys.conversation(owner, conversation_id), keys.messages(owner, conversation_id)]
        calls: list[Call] = [
            ("HGET", names[:1], ["system"]),
            ("branch", names, [start, max_bytes, max_count]),
        ]
        system, flat = await call_in_order(self._redis, calls)
        return system and system.decode(errors="replace"), _parse_branch(flat)

    async def read_message(
        self, owner: Owner, conversation_id: ConversationId, message_id: str
    ) -> Message | None:
        """Return a message, or None."""
        if not keys.is_id(message_id):
            return None
        names = [keys.messages(owner, conversation_id)]
        entry = await call(self._redis, "HGET", names, [message_id])
        return _parse_message(message_id, entry) if entry else None

    async def read_alternatives(
        self, owner: Owner, conversation_id: ConversationId, messages: list[Message]
    ) -> list[list[MessageId]]:
        """Return, for each message, all children of its parent in the order of their creation."""
        if not messages:
            return []
        parents = [f">{message.parent or ''}" for message in messages]
        names = [keys.messages(owner, conversation_id)]
        found = await call(self._redis, "HMGET", names, parents)
        return [parse_children(ids) for ids in found]

    async def select(
        self, owner: Owner, conversation_id: ConversationId, message_id: str
    ) -> bool | None:
        """Show the branch through a message; False while a turn runs, None if it is unknown."""
        if not keys.is_id(message_id):
            return None
        names = [
            keys.conversation(owner, conversation_id),
            keys.messages(owner, conversation_id),
            keys.events(owner),
        ]
        reply = await call(self._redis, "select", names, [message_id, conversation_id])
        return {1: True, 0: None, -1: False}[reply]

    async def change(self, owner: Owner, conversation_id: ConversationId, **fields: str) -> bool:
        """Set fields of a conversation; return False if it does not exist.

        Raises StorageLimitReached.
        """
        names = [
            keys.conversation(owner, conversation_id),
            keys.events(owner),
            keys.usage(owner),
            keys.expiries(owner),
            keys.conversations(owner),
        ]
        arguments: list[Argument] = [
            conversation_id, *self._limits.build_arguments(owner), *_flatten(fields),
        ]  # fmt: skip
        reply = (await call(self._redis, "change", names, arguments)).decode()
        if reply not in ("changed", "unknown"):
            raise StorageLimitReached(reply)
        return bool(reply == "changed")

    async def delete(self, owner: Owner, conversation: Summary) -> TurnId | None:
        """Delete a conversation with its messages, turns and logs, unless one of its turns runs.

        Return the id of the running turn, or None if the conversation is deleted. Turns and logs
        are unlinked MAX_UNLINKED_TURNS at a time. After a crash in between, the rest expires.
        """
        names = [
            keys.conversation(owner, conversation.id),
            keys.messages(owner, conversation.id),
            keys.conversations(owner),
            keys.turns(owner, conversation.id),
            keys.deleted_turns(owner, conversation.id, conversation.created),
            keys.events(owner),
            keys.usage(owner),
            keys.expiries(owner),
        ]
        arguments: list[Argument] = [
            conversation.id,
            conversation.created,
            MAX_UNLINKED_TURNS,
            keys.turn_prefix(owner),
            keys.records_prefix(owner),
            keys.legacy_log_prefix(owner),
        ]
        left = 1
        while left:
            reply = await call(self._redis, "delete", names, arguments)
            if isinstance(reply, bytes):
                return TurnId(reply.decode())
            left = reply
        return None


def new_id() -> str:
    """Return an id for a conversation or message: 96 random bits as 16 characters of base64url."""
    return secrets.token_urlsafe(12)


def make_title(question: str) -> str:
    """Return a conversation's first title: the beginning of its first question, on one line."""
    line = " ".join(question.split())
    return line if len(line) <= 60 else line[:59].rstrip() + "…"


def _flatten(fields: dict[str, str]) -> list[str]:
    return [text for pair in fields.items() for text in pair]


def _parse_branch(flat: list[bytes]) -> list[Message]:
    pairs = zip(flat[::2], flat[1::2], strict=True)
    found = [_parse_message(name.decode(errors="replace"), entry) for name, entry in pairs]
    return [message for message in found if message]


def _parse_message(message_id: str, entry: bytes) -> Message | None:
    """Return a message; None, and a warning, for a malformed one."""
    try:
        return parse_message(message_id, entry)
    except (ValueError, RecursionError) as error:
        logger.warning("message %r is unreadable (%s); left out", message_id[:64], error)
        return None


def _parse_members(flat: list[bytes]) -> tuple[list[tuple[str, int]], list[bytes]]:
    """Return ids with their scores, from a reply with scores, and the malformed members."""
    ids, malformed = [], []
    for member, score in zip(flat[::2], flat[1::2], strict=True):
        name = member.decode(errors="replace")
        if keys.is_id(name) and score.isdigit():
            ids.append((name, int(score)))
        else:
            malformed.append(member)
    return ids, malformed


def _parse_cursor(cursor: str) -> tuple[str, str]:
    found = _CURSOR.fullmatch(cursor)
    if not found:
        raise ValueError("not a cursor of this list")
    return found[1], found[2]
