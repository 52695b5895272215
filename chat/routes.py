"""HTTP in, frames out: the stream of a turn, and the JSON API of conversations."""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from sanic import Blueprint, HTTPResponse, Request
from sanic.response import empty, json

from chat import frames, guard
from chat.errors import BadRequest, NotFound, TooLarge
from chat.problems import STREAM_HEADERS, STREAM_TYPE
from chat.turns import Ask, Turns
from sessions.keys import ConversationId, MessageId, TurnId
from sessions.store import TITLE_MAX, Conversation, Session, Store

_PAGE = 200

api = Blueprint("chat", url_prefix="/api")

Title = Annotated[str, msgspec.Meta(min_length=1, max_length=TITLE_MAX)]
Body = TypeVar("Body", bound=msgspec.Struct)


class AskBody(msgspec.Struct):
    """What a POST asks; `input` and `prompt` are other clients' words for `message`."""

    message: str | None = None
    input: str | None = None
    prompt: str | None = None
    conversation: str | None = None
    turn: str | None = None
    model: str | None = None
    last_event_id: str | None = None


class ConversationBody(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of a conversation that its owner may set."""

    title: Title | None = None
    pinned: bool | None = None
    model: str | None = None
    system: str | None = None


# The stream of a turn


@api.get("/chat_stream/")
async def stream_by_get(request: Request) -> HTTPResponse | None:
    """Ask a question, or go on with a turn, as an EventSource does."""
    if request.method != "GET":  # sanic-ext would have a HEAD begin a turn
        return HTTPResponse(status=405, headers={"Allow": "GET, POST"})
    query = _query(request)
    names = ("message", "conversation", "turn", "model")
    last_event_id = query.get("last_event_id") or query.get("lastEventId")
    return await _stream(request, AskBody(**{n: query.get(n) for n in names}, last_event_id=last_event_id))


@api.post("/chat_stream/")
async def stream_by_post(request: Request) -> HTTPResponse | None:
    """The same for fetch clients, and for questions too long for a URL."""
    return await _stream(request, _body(request, AskBody))


async def _stream(request: Request, body: AskBody) -> HTTPResponse | None:
    guard.check(request)
    turns: Turns = request.app.ctx.turns
    async with AsyncExitStack() as stack:
        record, offset = await _turn(request, body)
        chunks = await turns.view(record, offset, stack)
        if chunks is None:
            return empty()
        await _send(request, chunks)
    return None


async def _turn(request: Request, body: AskBody) -> tuple[Any, int | None]:
    """The turn that a request means, and the offset from which its viewer goes on."""
    turns: Turns = request.app.ctx.turns
    session: Session = request.ctx.session
    last_event_id = request.headers.get("last-event-id") or body.last_event_id
    seen = frames.parse_id(last_event_id) if last_event_id else None
    if last_event_id and seen is None and body.turn is None:
        raise BadRequest("Last-Event-ID names no frame of ours.")
    if body.turn is not None and not frames.is_turn_id(body.turn):
        raise BadRequest("A turn's id has 16 to 64 of the characters A-Z, a-z, 0-9, _ and -.")
    if seen and body.turn in (None, seen[0]):
        # A line that comes back is never a new question, whatever else its URL says.
        return await turns.find(session.owner, TurnId(seen[0])), seen[1]
    message = next((text for text in (body.message, body.input, body.prompt) if text is not None), None)
    offset = -1 if last_event_id else None
    if message is None:
        if body.turn is None:
            raise BadRequest("There is no message: what is the question?")
        return await turns.find(session.owner, TurnId(body.turn)), offset
    return await turns.begin(session, _ask(request, body, message)), offset


def _ask(request: Request, body: AskBody, message: str) -> Ask:
    message = message.replace("\r\n", "\n").replace("\r", "\n")
    limit = request.app.ctx.settings.message_max
    if not message.strip():
        raise BadRequest("The message is empty.")
    if len(message) > limit:
        raise TooLarge(f"The message has {len(message)} characters; at most {limit} are taken.")
    return Ask(
        message=message,
        conversation=ConversationId(body.conversation) if body.conversation else None,
        turn=TurnId(body.turn) if body.turn else None,
        model=_known_model(request, body.model),
    )


async def _send(request: Request, chunks: AsyncIterator[bytes]) -> None:
    response = await request.respond(headers=STREAM_HEADERS, content_type=STREAM_TYPE)
    async for chunk in chunks:
        await response.send(chunk)
    await response.eof()


@api.post("/turns/<turn:str>/stop")
async def stop_turn(request: Request, turn: str) -> HTTPResponse:
    """Stop a turn, keeping what was made of its answer."""
    guard.check(request)
    await request.app.ctx.turns.stop(request.ctx.session.owner, TurnId(turn))
    return empty()


# Conversations


@api.get("/info")
async def info(request: Request) -> HTTPResponse:
    """What the page must know of this server."""
    ctx = request.app.ctx
    return json(
        {
            "model": ctx.models[0],
            "models": ctx.models,
            "demo": ctx.settings.demo,
            "message_max": ctx.settings.message_max,
        }
    )


@api.get("/conversations/")
async def list_conversations(request: Request) -> HTTPResponse:
    """The session's conversations, newest first, a page at a time."""
    query = _query(request)
    try:
        limit = _count(query.get("limit"), 50)
        found, following = await _store(request).page(_owner(request), limit, query.get("cursor"))
    except ValueError as error:
        raise BadRequest(f"The query is wrong: {error}.") from None
    return json({"conversations": [_listed(one) for one in found], "next": following})


@api.post("/conversations/")
async def create_conversation(request: Request) -> HTTPResponse:
    """Make an empty conversation, which becomes the session's current one."""
    guard.check(request)
    fields = _fields(request)
    conversation_id = await _store(request).create(request.ctx.session, **fields)
    return json(_listed(await _conversation(request, conversation_id)), status=201)


@api.get("/conversations/<conversation:str>")
async def read_conversation(request: Request, conversation: str) -> HTTPResponse:
    """One conversation with its messages: all, or the last `limit`, or those before the message `before`."""
    query, store, owner = _query(request), _store(request), _owner(request)
    found = await _conversation(request, conversation)
    limit = None
    try:
        if "limit" in query:
            limit = _count(query["limit"], _PAGE)
        start = None
        if "before" in query:
            start = await store.parent(owner, found.id, MessageId(query["before"]))
            if start is None:
                return json({**_listed(found), "messages": [], "earlier": False})
    except ValueError as error:
        raise BadRequest(f"The query is wrong: {error}.") from None
    except KeyError:
        raise NotFound("There is no such message.") from None
    messages, earlier = await _messages(store, owner, found.id, start, limit)
    return json({**_listed(found), "messages": messages, "earlier": earlier}, ensure_ascii=False)


@api.patch("/conversations/<conversation:str>")
async def change_conversation(request: Request, conversation: str) -> HTTPResponse:
    """Rename or pin a conversation, or set its model or system prompt."""
    guard.check(request)
    fields = _fields(request)
    if not fields:
        raise BadRequest("Nothing to change: give title, pinned, model or system.")
    if not await _store(request).change(_owner(request), ConversationId(conversation), **fields):
        raise NotFound("There is no such conversation.")
    return json(_listed(await _conversation(request, conversation)))


@api.delete("/conversations/<conversation:str>")
async def delete_conversation(request: Request, conversation: str) -> HTTPResponse:
    """Stop a conversation's running turn and delete all of it."""
    guard.check(request)
    found = await _conversation(request, conversation)
    if found.running:
        await request.app.ctx.turns.stop(_owner(request), found.running)
    await _store(request).delete(_owner(request), found.id)
    return empty()


async def _conversation(request: Request, conversation: str) -> Conversation:
    found = await _store(request).read(_owner(request), ConversationId(conversation))
    if found is None:
        raise NotFound("There is no such conversation.")
    return found


async def _messages(
    store: Store, owner: Any, conversation_id: ConversationId, start: MessageId | None, limit: int | None
) -> tuple[list[dict[str, Any]], bool]:
    """Messages in order of time, and whether earlier ones exist; read by pages, not to hold up Redis."""
    found: list[dict[str, Any]] = []
    while True:
        count = _PAGE if limit is None else limit - len(found)
        page = await store.branch(owner, conversation_id, start=start, max_count=count + 1)
        found += [{"id": message.id, **message.body} for message in page[:count]]
        if len(page) <= count:
            return found[::-1], False
        if len(found) == limit:
            return found[::-1], True
        start = page[count].id


def _listed(conversation: Conversation) -> dict[str, Any]:
    return dataclasses.asdict(conversation)


# What comes in


def _query(request: Request) -> dict[str, str]:
    """The query's first value of each name; raises BadRequest where it is not UTF-8."""
    try:
        pairs = parse_qsl(request.query_string, keep_blank_values=True, errors="strict")
    except (UnicodeDecodeError, ValueError):
        raise BadRequest("The query is not UTF-8 text.") from None
    return dict(reversed(pairs))


def _body(request: Request, kind: type[Body]) -> Body:
    """The JSON body; raises BadRequest in words of our own."""
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise BadRequest("The body must be JSON, with Content-Type: application/json.")
    try:
        return msgspec.json.decode(request.body, type=kind)
    except msgspec.ValidationError as error:
        raise BadRequest(f"The body is wrong: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadRequest("The body is not valid JSON in UTF-8.") from None


def _fields(request: Request) -> dict[str, str]:
    body = _body(request, ConversationBody)
    _known_model(request, body.model)
    fields = {"title": body.title and body.title.strip(), "model": body.model, "system": body.system}
    if body.title is not None and not fields["title"]:
        raise BadRequest("The title is empty.")
    if body.pinned is not None:
        fields["pinned"] = str(int(body.pinned))
    return {name: value for name, value in fields.items() if value is not None}


def _known_model(request: Request, model: str | None) -> str | None:
    models: tuple[str, ...] = request.app.ctx.models
    if model and model not in models:
        raise BadRequest(f"This server asks {', '.join(models)}, not that model.")
    return model or None


def _count(text: str | None, default: int) -> int:
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _PAGE:
        raise ValueError(f"limit is a number from 1 to {_PAGE}")
    return int(text)


def _store(request: Request) -> Store:
    store: Store = request.app.ctx.store
    return store


def _owner(request: Request) -> Any:
    return request.ctx.session.owner
