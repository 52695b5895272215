"""The JSON API of conversations: list, make, read, export, change, delete."""

import asyncio
import dataclasses
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from sanic import Blueprint, HTTPResponse, Request
from sanic.response import empty, json

from chat.api import guard, parsing
from chat.errors import BadRequest, Conflict, NotFound
from chat.export import rendering
from sessions.conversation_store import TITLE_MAX, Conversation, ConversationStore, Message
from sessions.keys import ConversationId, MessageId

_PAGE = 200
_MAX_DELETE_TRIES = 3
"""Number of times that a running turn is stopped in order to delete its conversation."""

_EXPORTS = {
    "markdown": ("text/markdown", "md"),
    "json": ("application/json", "json"),
    "html": ("text/html", "html"),
}

conversations = Blueprint("conversations", url_prefix="/api/conversations")

Title = Annotated[str, msgspec.Meta(min_length=1, max_length=TITLE_MAX)]


class ConversationBody(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of a conversation that its owner may set."""

    title: Title | None = None
    pinned: bool | None = None
    model: str | None = None
    system: str | None = None


class ChangeBody(ConversationBody):
    """What may be changed besides: the branch shown, by any message on it."""

    branch: str | None = None


@conversations.get("/")
async def list_conversations(request: Request) -> HTTPResponse:
    """The session's conversations, newest first, a page at a time."""
    query = parsing.query(request)
    try:
        limit = parsing.count(query["limit"], _PAGE) if "limit" in query else 50
        found, following = await _store(request).page(_owner(request), limit, query.get("cursor"))
    except ValueError as error:
        raise BadRequest(f"The cursor is {error}.") from None
    return json({"conversations": [_listed(one) for one in found], "next": following})


@conversations.post("/")
async def create_conversation(request: Request) -> HTTPResponse:
    """Make an empty conversation, which becomes the session's current one."""
    guard.check(request)
    fields = _fields(request, parsing.body(request, ConversationBody))
    conversation_id = await _store(request).create(request.ctx.session, **fields)
    return json(_listed(await _conversation(request, conversation_id)), status=201)


@conversations.get("/<conversation:str>")
async def read_conversation(request: Request, conversation: str) -> HTTPResponse:
    """One conversation with its messages: all, or the last `limit`, or those before the message `before`."""
    query, store, owner = parsing.query(request), _store(request), _owner(request)
    found = await _conversation(request, conversation)
    limit = parsing.count(query["limit"], _PAGE) if "limit" in query else None
    start = None
    if "before" in query:
        before = await store.message(owner, found.id, query["before"])
        if before is None:
            raise NotFound("There is no such message.")
        start = before.parent
        if start is None:
            return json({**_listed(found), "messages": [], "earlier": False})
    messages, earlier = await _messages(store, owner, found.id, start, limit)
    alternatives = await store.alternatives(owner, found.id, messages)
    shown = [
        {**_plain(message), **({"alternatives": ids} if len(ids) > 1 else {})}
        for message, ids in zip(messages, alternatives, strict=True)
    ]
    return json({**_listed(found), "messages": shown, "earlier": earlier}, ensure_ascii=False)


@conversations.get("/<conversation:str>/export")
async def export_conversation(request: Request, conversation: str) -> HTTPResponse:
    """A conversation as a file: `format` is markdown, json or html."""
    kind = parsing.query(request).get("format", "markdown")
    if kind not in _EXPORTS:
        raise BadRequest(f"The format is one of {', '.join(_EXPORTS)}.")
    found = await _conversation(request, conversation)
    messages, _ = await _messages(_store(request), _owner(request), found.id, None, None)
    content_type, extension = _EXPORTS[kind]
    # Rendering takes some 3 ms a kilobyte, which other people's answers should not wait for.
    content = await asyncio.to_thread(
        _export, kind, _listed(found), [_plain(one) for one in messages]
    )
    headers = {"Content-Disposition": rendering.file_name(found.title, extension)}
    return HTTPResponse(content, content_type=f"{content_type}; charset=utf-8", headers=headers)


def _export(kind: str, conversation: dict[str, Any], messages: list[dict[str, Any]]) -> str:
    if kind == "json":
        return rendering.as_json({**conversation, "messages": messages})
    render = rendering.as_html if kind == "html" else rendering.as_markdown
    return render(conversation["title"], messages)


@conversations.patch("/<conversation:str>")
async def change_conversation(request: Request, conversation: str) -> HTTPResponse:
    """Rename or pin a conversation, set its model or system prompt, or show another branch."""
    guard.check(request)
    body = parsing.body(request, ChangeBody)
    fields = _fields(request, body)
    if not fields and body.branch is None:
        raise BadRequest("Nothing to change: give title, pinned, model, system or branch.")
    found = await _conversation(request, conversation)
    if body.branch is not None:
        selected = await _store(request).select(_owner(request), found.id, body.branch)
        if selected is None:
            raise NotFound("There is no such message.")
        if not selected:
            raise Conflict(
                "An answer is being made in this conversation. Stop it, or wait for its end."
            )
    if fields:
        await _store(request).change(_owner(request), found.id, **fields)
    return json(_listed(await _conversation(request, conversation)))


@conversations.delete("/<conversation:str>")
async def delete_conversation(request: Request, conversation: str) -> HTTPResponse:
    """Stop a conversation's running turn and delete all of it."""
    guard.check(request)
    found, owner = await _conversation(request, conversation), _owner(request)
    for _ in range(_MAX_DELETE_TRIES):
        running = await _store(request).delete(owner, found)
        if running is None:
            return empty()
        with suppress(NotFound):  # it was deleted in the meantime
            await request.app.ctx.turns.stop(owner, running)
    raise Conflict("New answers begin in this conversation. Stop them, then delete it.")


async def _conversation(request: Request, conversation: str) -> Conversation:
    found = await _store(request).read(_owner(request), parsing.conversation_id(conversation))
    if found is None:
        raise NotFound("There is no such conversation.")
    return found


async def _messages(
    store: ConversationStore,
    owner: Any,
    conversation_id: ConversationId,
    start: MessageId | None,
    limit: int | None,
) -> tuple[list[Message], bool]:
    """Messages in order of time, and whether earlier ones exist; read by pages, not to hold up Redis."""
    found: list[Message] = []
    while True:
        count = _PAGE if limit is None else limit - len(found)
        page = await store.branch(owner, conversation_id, start=start, max_count=count + 1)
        found += page[:count]
        if len(page) <= count:
            return found[::-1], False
        if len(found) == limit:
            return found[::-1], True
        start = page[count].id


def _listed(conversation: Conversation) -> dict[str, Any]:
    return dataclasses.asdict(conversation)


def _plain(message: Message) -> dict[str, Any]:
    return {"id": message.id, "parent": message.parent, **message.body}


def _fields(request: Request, body: ConversationBody) -> dict[str, str]:
    parsing.known_model(request, body.model)
    fields = {
        "title": body.title and body.title.strip(),
        "model": body.model,
        "system": body.system,
    }
    if body.title is not None and not fields["title"]:
        raise BadRequest("The title is empty.")
    if body.pinned is not None:
        fields["pinned"] = str(int(body.pinned))
    return {name: value for name, value in fields.items() if value is not None}


def _store(request: Request) -> ConversationStore:
    store: ConversationStore = request.app.ctx.conversation_store
    return store


def _owner(request: Request) -> Any:
    return request.ctx.session.owner
