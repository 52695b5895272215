"""Fan out the events of owners to the connections of this worker, from Redis's notifications.

The worker subscribes to one channel for each owner with a connection. Whenever Redis confirms the
subscription again, after a lost connection, the events since the last one are read.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chat.errors import Draining, RateLimited
from chat.events.subscriber import Subscriber
from config.system.sampled_log import SampledLog
from sessions import keys
from sessions.client.errors import ReplyTimeout
from sessions.client.faults import find_fault
from sessions.client.notifications import Notifications
from sessions.event_store import Event, EventId, EventRead, EventStore, parse_notification
from sessions.keys import Owner

logger = logging.getLogger("holdline.events")

MAX_SUBSCRIBERS = 32
"""Maximum number of connections of one owner on one worker; a browser holds one for its tabs."""

_CONFIRM_TIMEOUT_S = 2.0


class Feeds:
    """The events of the owners that have connections on this worker."""

    def __init__(self, notifications: Notifications, store: EventStore) -> None:
        self._notifications = notifications
        self._store = store
        self._feeds: dict[str, _Feed] = {}
        self._tasks: asyncio.TaskGroup
        self._is_closed = False
        self._log = SampledLog(logger)

    async def run(self) -> None:
        """Run the subscriptions and reads of all feeds until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            await asyncio.Event().wait()

    @asynccontextmanager
    async def open(self, owner: Owner, after: EventId | None) -> AsyncIterator[Subscriber]:
        """Yield the subscriber of a connection, which receives the events after an id.

        Without an id, or if events after it are no longer kept, the first event is a `reset`.
        Raises RateLimited, Draining, and UNAVAILABLE_ERRORS.
        """
        if self._is_closed:
            raise Draining("The server is restarting. Try again in a moment.", retry_after_s=1)
        feed = self._find_or_follow(owner)
        if len(feed.subscribers) >= MAX_SUBSCRIBERS:
            raise RateLimited("Too many event channels are open. Close some.", retry_after_s=5)
        subscriber = Subscriber()
        feed.subscribers.add(subscriber)
        try:
            async with ReplyTimeout(_CONFIRM_TIMEOUT_S):
                await feed.confirmed.wait()
            found = await self._read_while_subscribed(feed, after)
            feed.last_id = feed.last_id or found.last_id
            subscriber.start(found.last_id, _list_events(found))
            yield subscriber
        finally:
            feed.subscribers.discard(subscriber)
            if not feed.subscribers:
                self._unfollow(feed)

    def close(self) -> None:
        """End every connection, and reject new ones: the clients reconnect elsewhere."""
        self._is_closed = True
        for feed in self._feeds.values():
            feed.end()

    async def _read_while_subscribed(self, feed: "_Feed", after: EventId | None) -> EventRead:
        """Return the events after an id, read while no subscription was replaced."""
        while True:
            subscription = feed.subscription
            found = await self._store.read(feed.owner, after)
            if subscription == feed.subscription:
                return found

    def _find_or_follow(self, owner: Owner) -> "_Feed":
        channel = keys.events(owner)
        if channel not in self._feeds:
            self._feeds[channel] = _Feed(owner, channel)
            self._tasks.create_task(
                self._notifications.subscribe(channel, self._on_subscribed, self._on_message)
            )
        return self._feeds[channel]

    def _unfollow(self, feed: "_Feed") -> None:
        if self._feeds.get(feed.channel) is feed:
            del self._feeds[feed.channel]
            self._tasks.create_task(self._notifications.unsubscribe(feed.channel))

    def _on_subscribed(self, channel: str) -> None:
        feed = self._feeds.get(channel)
        if feed is None:
            return
        feed.confirmed.set()
        feed.subscription += 1
        if feed.is_reading:
            feed.read_again = True
        elif feed.last_id:
            feed.is_reading = True
            self._tasks.create_task(self._catch_up(feed))

    def _on_message(self, channel: str, data: bytes) -> None:
        feed, event = self._feeds.get(channel), parse_notification(data)
        if feed is None or event is None:
            return
        if feed.is_reading:
            feed.read_again = True
        else:
            feed.add(event)

    async def _catch_up(self, feed: "_Feed") -> None:
        """Read the events since the last one, until no notification arrives during a read."""
        try:
            feed.read_again = True
            while feed.read_again:
                feed.read_again = False
                found = await self._store.read(feed.owner, feed.last_id)
                feed.extend(found)
        except Exception as error:  # no event may end the worker
            self._log.warn(f"cannot read events ({find_fault(error)})", "the clients reconnect")
            feed.end()
        finally:
            feed.is_reading = False


class _Feed:
    """The events of one owner, as they reach this worker."""

    def __init__(self, owner: Owner, channel: str) -> None:
        self.owner = owner
        self.channel = channel
        self.subscribers: set[Subscriber] = set()
        self.confirmed = asyncio.Event()
        self.subscription = 0
        """Number of the subscription; a new one may have missed notifications before it."""
        self.last_id: EventId | None = None
        self.is_reading = False
        self.read_again = False

    def add(self, event: Event) -> None:
        self.last_id = event.id
        for subscriber in self.subscribers:
            subscriber.add(event)

    def extend(self, found: EventRead) -> None:
        """Add events that were read; without all of them the clients get a `reset`."""
        if found.is_complete:
            for event in found.events:
                self.add(event)
        else:
            for subscriber in self.subscribers:
                subscriber.start(found.last_id, _list_events(found))
        self.last_id = found.last_id

    def end(self) -> None:
        for subscriber in self.subscribers:
            subscriber.end()


def _list_events(found: EventRead) -> list[Event]:
    """Return the events that were read; only a `reset` if others are missing."""
    return found.events if found.is_complete else [Event(found.last_id, "reset", {})]
