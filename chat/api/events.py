"""Serve the event channel: the events of an owner's conversations, as server-sent events."""

from sanic import Blueprint, HTTPResponse, Request

from chat.api import guard, parsing
from chat.api.error_handlers import EVENTS_PATH, STREAM_HEADERS, STREAM_TYPE
from chat.api.state import get_state
from chat.api.trust.networks import hash_network
from chat.errors import BadRequest
from chat.formats import event_channel, sse
from chat.log.tail_viewer import HEARTBEAT_S
from sessions.event_store import EventId, parse_id
from sessions.keys import Owner
from sessions.middleware import get_session

events = Blueprint("events")


@events.get(EVENTS_PATH)
async def stream_events(request: Request) -> HTTPResponse | None:
    """Stream the owner's events until the client disconnects or the server stops.

    Clients without a session have no events. Those of one address share the maximum of one owner.
    """
    guard.reject_navigation(request)
    if request.method != "GET":  # sanic-ext routes HEAD here, which would never end
        return HTTPResponse(status=405, headers={"Allow": "GET"})
    query = parsing.parse_query(request)
    names = query.get("names", "on")
    if names not in ("on", "off"):
        raise BadRequest("Invalid `names`: expected `on` or `off`.")
    after = _parse_last_event_id(request, query)
    owner = get_session(request).owner
    if get_session(request).is_new:
        owner = Owner(await hash_network(request, get_state(request).turn_limiter) or "unknown")
    async with get_state(request).feeds.open(owner, after) as subscriber:
        response = await request.respond(headers=STREAM_HEADERS, content_type=STREAM_TYPE)
        await response.send(event_channel.OPENING)
        while subscriber.is_open:
            frames = [
                event_channel.encode(str(one.id), one.type, one.fields, is_named=names == "on")
                for one in await subscriber.take(HEARTBEAT_S)
            ]
            if subscriber.is_open:
                await response.send(b"".join(frames) or sse.HEARTBEAT)
        await response.eof()
    return None


def _parse_last_event_id(request: Request, query: dict[str, str]) -> EventId | None:
    """Return the id of the last event that the client has, or None; raises BadRequest."""
    in_query = query.get("last_event_id") or query.get("lastEventId")
    text = request.headers.get("last-event-id") or in_query
    found = parse_id(text) if text else None
    if text and found is None:
        raise BadRequest("Invalid Last-Event-ID: expected the `id` of an event from this URL.")
    return found
