"""Serve the JSON API of conversations: list, create, read, export, change, delete."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

import msgspec
from sanic import Blueprint, HTTPResponse, Request
from sanic.response import empty, json

from chat.api import guard, parsing
from chat.api.state import get_state
from chat.api.trust.networks import hash_network
from chat.errors import BadRequest, Conflict, NotFound, RateLimited
from chat.export import rendering
from sessions import export_slot
from sessions.client.errors import UNAVAILABLE_ERRORS
from sessions.conversation_record import Conversation, Message, Summary
from sessions.conversation_store import MAX_TITLE_LENGTH, ConversationStore
from sessions.keys import ConversationId, MessageId, Owner
from sessions.limits import estimate_bytes
from sessions.middleware import get_session, keep_session

_MAX_PAGE = 200
"""Maximum number of conversations or messages that one request, or one read of Redis, returns."""

_MAX_READ_BYTES = 1 << 20
"""Maximum size of the messages of one read of Redis, after which other requests have a turn."""

_MAX_CONTENT_BYTES = 4 << 20
"""Size of the messages after which a response without `limit` ends, and says `earlier`."""

_DEFAULT_PAGE = 50
_MAX_DELETE_TRIES = 3
"""Number of times that a running turn is stopped in order to delete its conversation."""

_EXPORTS = {
    "markdown": ("text/markdown", "md"),
    "json": ("application/json", "json"),
    "html": ("text/html", "html"),
}
"""Content type and file extension of each format."""

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
    query, (store, owner) = parsing.parse_query(request), _open_store(request)
    limit = _parse_limit(query) or _DEFAULT_PAGE
    await _check_rate(request)
    try:
        page, next_cursor = await store.read_page(owner, limit, query.get("cursor"))
    except ValueError:
        raise BadRequest("Invalid `cursor`: expected the `next` of an earlier page.") from None
    content = {"conversations": [_conversation_json(one) for one in page], "next": next_cursor}
    return json(content, ensure_ascii=False)


@conversations.post("/")
async def create_conversation(request: Request) -> HTTPResponse:
    """Create an empty conversation, which becomes the session's current one."""
    guard.reject_navigation(request)
    fields = _parse_fields(request, parsing.parse_body(request, NewConversation))
    await _check_write(request, fields, creates=True)
    store, _ = _open_store(request)
    conversation_id = await store.create(get_session(request), **fields)
    await keep_session(request)
    return json(_conversation_json(await _find(request, conversation_id)), status=201)


@conversations.get("/<conversation:str>")
async def read_conversation(request: Request, conversation: str) -> HTTPResponse:
    """Return a conversation with its messages: all, or the last `limit`.

    With `before`, the id of a message, only earlier messages are returned. A response that would
    be too large has only the last messages.
    """
    query, (store, owner) = parsing.parse_query(request), _open_store(request)
    limit = _parse_limit(query)
    named = parsing.parse_message_id(query["before"]) if "before" in query else None
    found = await _find(request, conversation)
    start = None
    if named:
        before = await store.read_message(owner, found.id, named)
        if before is None:
            raise NotFound("There is no such message.")
        start = before.parent
        if start is None:
            return json({**_conversation_json(found), "messages": [], "earlier": False})
    messages, has_earlier = await _read_messages(
        store, owner, found.id, start=start, limit=limit, max_bytes=_MAX_CONTENT_BYTES
    )
    alternatives = await store.read_alternatives(owner, found.id, messages)
    shown = [
        {**_message_json(message), **({"alternatives": ids} if len(ids) > 1 else {})}
        for message, ids in zip(messages, alternatives, strict=True)
    ]
    content = {**_conversation_json(found), "messages": shown, "earlier": has_earlier}
    return json(content, ensure_ascii=False)


@conversations.get("/<conversation:str>/export")
async def export_conversation(request: Request, conversation: str) -> HTTPResponse:
    """Return a conversation as a file; `format` is markdown, json or html."""
    query, (store, owner) = parsing.parse_query(request), _open_store(request)
    kind = query.get("format", "markdown")
    if kind not in _EXPORTS:
        raise BadRequest(f"Invalid `format`: expected one of {', '.join(_EXPORTS)}.")
    found = await _find(request, conversation)
    await _check_rate(request)
    content_type, extension = _EXPORTS[kind]
    async with _claim_export(request, owner):
        messages, _ = await _read_messages(store, owner, found.id)
        shown = [_message_json(one) for one in messages]
        if kind == "json":
            whole = {**_conversation_json(found), "messages": shown}
            content = await asyncio.to_thread(rendering.as_json, whole)
        else:
            file_format: rendering.FileFormat = "html" if kind == "html" else "markdown"
            language = rendering.choose_language(request.headers.get("accept-language", ""))
            renderer = get_state(request).renderer
            content = await renderer.render(file_format, found.title, shown, language)
    headers = {
        "Content-Disposition": rendering.format_disposition(found.title, extension),
        "Vary": "Accept-Language",
    }
    return HTTPResponse(content, content_type=f"{content_type}; charset=utf-8", headers=headers)


@asynccontextmanager
async def _claim_export(request: Request, owner: Owner) -> AsyncIterator[None]:
    """Let the owner export nothing else meanwhile; raises RateLimited."""
    redis = get_state(request).redis
    if not (claim_id := await export_slot.claim(redis, owner)):
        raise RateLimited(
            "Another export is running. Export again when it has ended.", retry_after_s=1
        )
    try:
        yield
    finally:
        with suppress(*UNAVAILABLE_ERRORS):  # then the claim expires
            await export_slot.release(redis, owner, claim_id)


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
    found = await _find(request, conversation)
    await _check_write(request, fields, creates=False)
    store, owner = _open_store(request)
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
    return json(_conversation_json(await _find(request, conversation)))


@conversations.delete("/")
async def delete_conversations(request: Request) -> HTTPResponse:
    """Stop the running turns of all conversations, and delete the conversations."""
    guard.reject_navigation(request)
    store, owner = _open_store(request)
    for _ in range(_MAX_DELETE_TRIES):  # a conversation that changes meanwhile moves to the start
        page, cursor = await store.read_page(owner, _MAX_PAGE, None)
        if not page and not cursor:
            return empty()
        while page or cursor:
            for one in page:
                await _delete(request, one)
            page, cursor = await store.read_page(owner, _MAX_PAGE, cursor) if cursor else ([], None)
    raise Conflict("New conversations keep being created. Delete all again.")


@conversations.delete("/<conversation:str>")
async def delete_conversation(request: Request, conversation: str) -> HTTPResponse:
    """Stop a conversation's running turn, then delete the conversation."""
    guard.reject_navigation(request)
    await _delete(request, await _find(request, conversation))
    return empty()


async def _delete(request: Request, conversation: Summary) -> None:
    """Stop a conversation's running turn, then delete the conversation; raises Conflict."""
    store, owner = _open_store(request)
    for _ in range(_MAX_DELETE_TRIES):
        running = await store.delete(owner, conversation)
        if running is None:
            return
        with suppress(NotFound):  # another request deleted it
            await get_state(request).turns.stop(owner, running)
    raise Conflict("New answers keep starting in this conversation. Stop them, then delete it.")


def _open_store(request: Request) -> tuple[ConversationStore, Owner]:
    """Return the store, and the owner whose conversations the request may use."""
    return get_state(request).conversation_store, get_session(request).owner


async def _check_rate(request: Request) -> None:
    """Count a request that reads conversations against the owner's limit; raises RateLimited."""
    _reject_for(await get_state(request).conversation_rate.count_read(get_session(request).owner))


async def _check_write(request: Request, fields: dict[str, str], *, creates: bool) -> None:
    """Count a write against the limits of its owner and address; raises RateLimited."""
    state, owner = get_state(request), get_session(request).owner
    address = await hash_network(request, state.turn_limits)
    size = estimate_bytes("".join(fields.values()), creates=creates)
    _reject_for(await state.conversation_rate.count_write(owner, address, size))


def _reject_for(wait_s: int) -> None:
    if wait_s:
        message = f"Too many requests for conversations. Try again in {wait_s} s."
        raise RateLimited(message, retry_after_s=wait_s)


async def _find(request: Request, conversation: str) -> Conversation:
    """Return the owner's conversation; raises NotFound."""
    store, owner = _open_store(request)
    found = await store.read(owner, parsing.parse_conversation_id(conversation))
    if found is None:
        raise NotFound("There is no such conversation.")
    return found


async def _read_messages(
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
        count = _MAX_PAGE if limit is None else min(_MAX_PAGE, limit - len(found))
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


def _parse_limit(query: dict[str, str]) -> int | None:
    return parsing.parse_limit(query["limit"], _MAX_PAGE) if "limit" in query else None


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


def _conversation_json(conversation: Summary) -> dict[str, Any]:
    return dataclasses.asdict(conversation)


def _message_json(message: Message) -> dict[str, Any]:
    return {"id": message.id, "parent": message.parent, **message.body}
