"""Read the events of an owner: the changes of its conversations, in a short stream in Redis.

The scripts that begin and finish turns and that change conversations append to the stream. Each
append is also published, as `<id> <event>`, on the channel that has the stream's name.
"""

import logging
import re
from typing import NamedTuple

from sessions import keys
from sessions.client.connection import Client
from sessions.client.scripts import call
from sessions.keys import Owner

logger = logging.getLogger("holdline.event_store")

_ID = re.compile(r"([0-9]{1,15})-([0-9]{1,15})")

_FIELDS = {
    "turn": ("conversation", "turn"),
    "end": ("conversation", "turn", "state"),
    "conversation": ("conversation", "change"),
}
"""The words of an event after its type."""


class EventId(NamedTuple):
    """The id of an entry of a stream: Redis's clock in ms, and a number within that ms."""

    ms: int
    number: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.number}"


class Event(NamedTuple):
    """Something that happened to a conversation; `fields` has the values that clients receive."""

    id: EventId
    type: str
    fields: dict[str, str]


class EventRead(NamedTuple):
    """The events after an id."""

    is_complete: bool
    """Whether no event is missing; otherwise there are no `events`."""
    last_id: EventId
    events: list[Event]


class EventStore:
    """Reads the events of an owner."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis

    async def read(self, owner: Owner, after: EventId | None) -> EventRead:
        """Return the events after an id, or only the last id; raises UNAVAILABLE_ERRORS."""
        position = (after.ms, after.number) if after else ("", "")
        key = keys.events(owner)
        reply = await call(self._redis, "events", [key], position)
        last = parse_id(reply[1].decode())
        if last is None:  # later events could not follow an id that is no time
            logger.warning("dropped %s: its last id is not a time", key)
            await call(self._redis, "UNLINK", [key], [])
            reply = await call(self._redis, "events", [key], ("", ""))
            last = parse_id(reply[1].decode())
        if last is None:
            raise ValueError("the clock of Redis is not a time")
        is_complete, _, *entries = reply
        pairs = zip(entries[::2], entries[1::2], strict=True)
        found = [parse_notification(event_id + b" " + text) for event_id, text in pairs]
        return EventRead(bool(is_complete), last, [event for event in found if event])


def parse_id(text: str) -> EventId | None:
    """Return the id of an event; None if it is malformed."""
    found = _ID.fullmatch(text)
    return EventId(int(found[1]), int(found[2])) if found else None


def parse_notification(data: bytes) -> Event | None:
    """Return the event that was published; None for one that is malformed or of a later version."""
    event_id, *words = data.decode("ascii", "replace").split(" ")
    names = _FIELDS.get(words[0], ()) if words else ()
    found = parse_id(event_id)
    if not found or not names or len(words) <= len(names) or not all(map(keys.is_id, words)):
        logger.warning("ignored an event of an unknown form: %r", data[:200])
        return None
    return Event(found, words[0], dict(zip(names, words[1:], strict=False)))
