"""Serve a conversation as a file."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sanic import Blueprint, HTTPResponse, Request

from chat.api import parsing
from chat.api.conversations.access import check_rate, find, open_store
from chat.api.conversations.messages import conversation_json, message_json, read_messages
from chat.api.http.body import send_body
from chat.api.state import get_state
from chat.api.trust.networks import find_network
from chat.api.trust.proxies import client_address
from chat.errors import BadRequest, RateLimited
from chat.export import rendering
from sessions import export_slot
from sessions.client.errors import UNAVAILABLE_ERRORS
from sessions.conversation_record import Conversation
from sessions.keys import Owner

_EXPORTS = {
    "markdown": ("text/markdown", "md"),
    "json": ("application/json", "json"),
    "html": ("text/html", "html"),
}
"""Content type and file extension of each format."""

exports = Blueprint("exports", url_prefix="/api/conversations")


@exports.get("/<conversation:str>/export")
async def export_conversation(request: Request, conversation: str) -> HTTPResponse | None:
    """Return a conversation as a file; `format` is markdown, json or html."""
    query, (_, owner) = parsing.parse_query(request), open_store(request)
    kind = query.get("format", "markdown")
    if kind not in _EXPORTS:
        raise BadRequest(f"Invalid `format`: expected one of {', '.join(_EXPORTS)}.")
    found = await find(request, conversation)
    await check_rate(request)
    content_type, extension = _EXPORTS[kind]
    headers = {
        "Content-Disposition": rendering.format_disposition(found.title, extension),
        "Vary": "Accept-Language",
    }
    async with _claim_export(request, owner), get_state(request).large_bodies.of(owner):
        return await send_body(
            request,
            (await _render(request, found, kind)).encode(),
            f"{content_type}; charset=utf-8",
            headers,
        )


async def _render(request: Request, conversation: Conversation, kind: str) -> str:
    """Return the file; `kind` is a key of `_EXPORTS`."""
    store, owner = open_store(request)
    messages, _ = await read_messages(store, owner, conversation.id)
    shown = [message_json(one) for one in messages]
    if kind == "json":
        whole = {**conversation_json(conversation), "messages": shown}
        return await asyncio.to_thread(rendering.as_json, whole)
    file_format: rendering.FileFormat = "html" if kind == "html" else "markdown"
    language = rendering.choose_language(request.headers.get("accept-language", ""))
    state, address = get_state(request), client_address(request)
    async with state.rendering.of(find_network(address) if address else ""):
        return await state.renderer.render(file_format, conversation.title, shown, language)


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
