"""Read the messages of a conversation, and describe them in JSON."""

import dataclasses
from typing import Any

from sessions.conversation_record import Message, Summary
from sessions.conversation_store import ConversationStore
from sessions.keys import ConversationId, MessageId, Owner

MAX_PAGE = 200
"""Maximum number of conversations or messages that one request, or one read of Redis, returns."""

_MAX_READ_BYTES = 1 << 20
"""Maximum size of the messages of one read of Redis; other requests run between two reads."""


async def read_messages(
    store: ConversationStore,
    owner: Owner,
    conversation_id: ConversationId,
    *,
    start: MessageId | None = None,
    limit: int | None = None,
    max_bytes: int | None = None,
) -> tuple[list[Message], bool]:
    """Return messages, oldest first, and whether earlier ones exist.

    The messages are read in pages, because one long read would block Redis and this worker. A page
    that begins after `max_bytes` is not read.
    """
    found: list[Message] = []
    seen: set[MessageId] = set()
    size = 0
    while True:
        count = MAX_PAGE if limit is None else min(MAX_PAGE, limit - len(found))
        page = await store.read_branch(
            owner, conversation_id, start=start, max_bytes=_MAX_READ_BYTES, max_count=count
        )
        found += page
        seen.update(one.id for one in page)
        start = page[-1].parent if page else None
        if start is None or start in seen:  # parents that form a circle would never end
            return found[::-1], False
        texts = [text for message in page for text in message.body.values()]
        size += sum(len(text) for text in texts if isinstance(text, str))
        if len(found) == limit or (max_bytes is not None and size >= max_bytes):
            return found[::-1], True


def conversation_json(conversation: Summary) -> dict[str, Any]:
    return dataclasses.asdict(conversation)


def message_json(message: Message) -> dict[str, Any]:
    return {"id": message.id, "parent": message.parent, **message.body}
