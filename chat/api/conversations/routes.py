"""Serve the JSON API of conversations: list, create, read, change, delete."""

from contextlib import suppress
from typing import Annotated, Any

import msgspec
from sanic import Blueprint, HTTPResponse, Request
from sanic.response import empty, json

from chat.api import guard, parsing
from chat.api.conversations.access import check_rate, check_write, find, open_store
from chat.api.conversations.messages import (
    MAX_PAGE,
    conversation_json,
    message_json,
    read_messages,
)
from chat.api.http.body import send_body
from chat.api.state import get_state
from chat.errors import BadRequest, Conflict, NotFound
from sessions.conversation_record import Conversation, Summary
from sessions.conversation_store import MAX_TITLE_LENGTH
from sessions.keys import MessageId
from sessions.middleware import get_session, keep_session

_MAX_CONTENT_BYTES = 4 << 20
"""Size of the messages after which a response without `limit` ends, and says `earlier`."""

_DEFAULT_PAGE = 50
_MAX_DELETE_TRIES = 3
"""Number of times that a running turn is stopped in order to delete its conversation."""

conversations = Blueprint("conversations", url_prefix="/api/conversations")

Title = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TITLE_LENGTH)]


class NewConversation(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a POST: the fields of a conversation that its owner may set."""

    title: Title | None = None
    pinned: bool | None = None
    model: str | None = None
    system: str | None = None


class ConversationChange(NewConversation):
    """Body of a PATCH: also `branch`, the id of any message on the branch to show."""

    branch: str | None = None


@conversations.get("/")
async def list_conversations(request: Request) -> HTTPResponse:
    """Return a page of the owner's conversations, newest first."""
    query, (store, owner) = parsing.parse_query(request), open_store(request)
    limit = _parse_limit(query) or _DEFAULT_PAGE
    await check_rate(request)
    try:
        page, next_cursor = await store.read_page(owner, limit, query.get("cursor"))
    except ValueError:
        raise BadRequest("Invalid `cursor`: expected the `next` of an earlier page.") from None
    content = {"conversations": [conversation_json(one) for one in page], "next": next_cursor}
    return json(content, ensure_ascii=False)


@conversations.post("/")
async def create_conversation(request: Request) -> HTTPResponse:
    """Create an empty conversation, which becomes the session's current one."""
    guard.reject_navigation(request)
    fields = _parse_fields(request, parsing.parse_body(request, NewConversation))
    await check_write(request, fields, creates=True)
    store, _ = open_store(request)
    conversation_id = await store.create(get_session(request), **fields)
    await keep_session(request)
    return json(conversation_json(await find(request, conversation_id)), status=201)


@conversations.get("/<conversation:str>")
async def read_conversation(request: Request, conversation: str) -> HTTPResponse | None:
    """Return a conversation with its messages: all, or the last `limit`.

    With `before`, the id of a message, only earlier messages are returned. A response that would
    be too large has only the last messages.
    """
    query, (_, owner) = parsing.parse_query(request), open_store(request)
    limit = _parse_limit(query)
    before = parsing.parse_message_id(query["before"]) if "before" in query else None
    found = await find(request, conversation)
    async with get_state(request).large_bodies.of(owner):
        return await send_body(
            request,
            msgspec.json.encode(await _read_content(request, found, limit, before)),
            "application/json",
        )


async def _read_content(
    request: Request, conversation: Conversation, limit: int | None, before: MessageId | None
) -> dict[str, Any]:
    """Return a conversation with its messages; raises NotFound if `before` is unknown."""
    store, owner = open_store(request)
    start = None
    if before:
        message = await store.read_message(owner, conversation.id, before)
        if message is None:
            raise NotFound("There is no such message.")
        start = message.parent
        if start is None:
            return {**conversation_json(conversation), "messages": [], "earlier": False}
    messages, has_earlier = await read_messages(
        store, owner, conversation.id, start=start, limit=limit, max_bytes=_MAX_CONTENT_BYTES
    )
    alternatives = await store.read_alternatives(owner, conversation.id, messages)
    shown = [
        {**message_json(one), **({"alternatives": ids} if len(ids) > 1 else {})}
        for one, ids in zip(messages, alternatives, strict=True)
    ]
    return {**conversation_json(conversation), "messages": shown, "earlier": has_earlier}


@conversations.patch("/<conversation:str>")
async def change_conversation(request: Request, conversation: str) -> HTTPResponse:
    """Rename or pin a conversation, set its model or system prompt, or show another branch."""
    guard.reject_navigation(request)
    body = parsing.parse_body(request, ConversationChange)
    fields = _parse_fields(request, body)
    if not fields and body.branch is None:
        raise BadRequest(
            "The body changes nothing: send `title`, `pinned`, `model`, `system` or `branch`."
        )
    branch = None if body.branch is None else parsing.parse_message_id(body.branch)
    found = await find(request, conversation)
    await check_write(request, fields, creates=False)
    store, owner = open_store(request)
    if branch is not None:
        selected = await store.select(owner, found.id, branch)
        if selected is None:
            raise NotFound("There is no such message.")
        if not selected:
            raise Conflict(
                "An answer is being generated in this conversation. Stop it, or wait for its end."
            )
    if fields:
        await store.change(owner, found.id, **fields)
    return json(conversation_json(await find(request, conversation)))


@conversations.delete("/")
async def delete_conversations(request: Request) -> HTTPResponse:
    """Stop the running turns of all conversations, and delete the conversations."""
    guard.reject_navigation(request)
    store, owner = open_store(request)
    for _ in range(_MAX_DELETE_TRIES):  # a conversation that changes meanwhile moves to the start
        page, cursor = await store.read_page(owner, MAX_PAGE, None)
        if not page and not cursor:
            return empty()
        while page or cursor:
            for one in page:
                await _delete(request, one)
            page, cursor = await store.read_page(owner, MAX_PAGE, cursor) if cursor else ([], None)
    raise Conflict("New conversations keep being created. Delete all again.")


@conversations.delete("/<conversation:str>")
async def delete_conversation(request: Request, conversation: str) -> HTTPResponse:
    """Stop a conversation's running turn, then delete the conversation."""
    guard.reject_navigation(request)
    await _delete(request, await find(request, conversation))
    return empty()


async def _delete(request: Request, conversation: Summary) -> None:
    """Stop a conversation's running turn, then delete the conversation; raises Conflict."""
    store, owner = open_store(request)
    for _ in range(_MAX_DELETE_TRIES):
        running = await store.delete(owner, conversation)
        if running is None:
            return
        with suppress(NotFound):  # another request deleted it
            await get_state(request).turns.stop(owner, running)
    raise Conflict("New answers keep starting in this conversation. Stop them, then delete it.")


def _parse_limit(query: dict[str, str]) -> int | None:
    return parsing.parse_limit(query["limit"], MAX_PAGE) if "limit" in query else None


def _parse_fields(request: Request, body: NewConversation) -> dict[str, str]:
    """Return the fields to store; raises BadRequest for a blank title or an unknown model."""
    parsing.parse_model(request, body.model)
    system_max = get_state(request).system_max
    if body.system and len(body.system) > system_max:
        raise BadRequest(f"`system` is too long: at most {system_max} characters.")
    fields = {
        "title": body.title and body.title.strip(),
        "model": body.model,
        "system": body.system,
    }
    if body.title is not None and not fields["title"]:
        raise BadRequest("`title` must not be blank.")
    if body.pinned is not None:
        fields["pinned"] = str(int(body.pinned))
    return {name: value for name, value in fields.items() if value is not None}
