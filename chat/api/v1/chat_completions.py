"""Serve `GET /v1/models` and `POST /v1/chat/completions`: views of the same turns and logs."""

import asyncio
import base64
import hashlib
import logging
import secrets

from sanic import Blueprint, HTTPResponse, Request
from sanic.response import json

from chat.api import viewer
from chat.api.error_handlers import STREAM_TYPE
from chat.api.state import get_state
from chat.api.trust.networks import hash_network
from chat.api.v1 import access, body
from chat.errors import BadRequest, HoldlineError, NotFound
from chat.formats.chat_completion import ChunkEncoder, build_completion
from chat.turns.question import Question
from chat.turns.view import View
from sessions.client.errors import UNAVAILABLE_ERRORS
from sessions.client.faults import find_fault
from sessions.keys import (
    NO_CONVERSATION,
    AddressDigest,
    ConversationId,
    Owner,
    SessionDigest,
    TurnId,
)
from sessions.session_store import Session

logger = logging.getLogger("holdline.api")

v1 = Blueprint("v1", url_prefix="/v1")

_MAX_KEY_LENGTH = 255


@v1.get("/models")
async def list_models(request: Request) -> HTTPResponse:
    """List the models of CHAT_MODEL."""
    access.identify(request)
    models = [_describe_model(name) for name in get_state(request).models]
    return json({"object": "list", "data": models})


@v1.get("/models/<name:path>")
async def read_model(request: Request, name: str) -> HTTPResponse:
    """Describe one model."""
    access.identify(request)
    if name not in get_state(request).models:
        raise NotFound("There is no such model.")
    return json(_describe_model(name))


def _describe_model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "holdline"}


@v1.post("/chat/completions", stream=True)
async def create_completion(request: Request) -> HTTPResponse | None:
    """Generate an answer to messages, as a stream of chunks or as one object."""
    owner = access.identify(request)
    key = _read_key(request)
    data = await body.receive_body(request)
    wanted = body.parse(request, data, is_kept=key is not None)
    turn = _hash_key(owner, key) if key is not None else TurnId(secrets.token_urlsafe(16))
    turns = get_state(request).turns
    # A new session has no current conversation: an exchange that names none begins one.
    session = Session(SessionDigest("v1"), owner, is_new=True)
    is_watched = not wanted.request.is_kept
    try:
        address = await hash_network(request, get_state(request).turn_limiter)
        question = _build_question(wanted, turn, address, has_key=key is not None)
        record = await turns.begin(session, question)
        async with turns.open_view(record, None) as view:
            assert view is not None  # a viewer without an offset lacks everything
            if wanted.is_streamed:
                await _stream(request, view, wanted)
                is_watched = False
                return None
            response = await viewer.send_whole(request, view, build_completion)
            is_watched = False
            return response
    finally:
        if is_watched:
            _stop_soon(request, owner, turn)


def _read_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= _MAX_KEY_LENGTH:
        raise BadRequest(f"`Idempotency-Key` must have 1 to {_MAX_KEY_LENGTH} characters.")
    return key


def _hash_key(owner: Owner, key: str) -> TurnId:
    """Return the id of the turn that a key names: 43 characters of base64url."""
    identity = f"{owner}\n{key}".encode("utf-8", "surrogateescape")
    digest = hashlib.sha256(identity).digest()
    return TurnId(base64.urlsafe_b64encode(digest).decode().rstrip("="))


def _build_question(
    wanted: body.CompletionRequest, turn: TurnId, address: AddressDigest | None, *, has_key: bool
) -> Question:
    conversation: ConversationId | None = NO_CONVERSATION
    if wanted.conversation is not None:
        conversation = ConversationId(wanted.conversation) if wanted.conversation else None
    return Question(
        message=body.find_question(wanted.request.messages),
        conversation=conversation,
        turn=turn,
        model=wanted.model,
        request=wanted.request,
        # Two requests without a key are two questions, even if they are equal.
        digest=wanted.digest if has_key else secrets.token_hex(16),
        address=address,
    )


async def _stream(request: Request, view: View, wanted: body.CompletionRequest) -> None:
    encoder = ChunkEncoder(include_usage=wanted.include_usage, as_lines=wanted.as_lines)
    viewer_format = viewer.create_format(
        encoder.encode, encoder.encode_end, encoder.encode_idle, encoder.encode_waiting
    )
    content_type = viewer.NDJSON_TYPE if wanted.as_lines else STREAM_TYPE
    await viewer.send_stream(request, view, viewer_format, content_type, ends_on_failure=True)


def _stop_soon(request: Request, owner: Owner, turn: TurnId) -> None:
    """Stop a turn whose only client has gone, in a task: this one is being cancelled."""

    async def stop() -> None:
        try:
            await get_state(request).turns.stop(owner, turn)
        except NotFound:
            pass  # it was rejected, or has begun nothing
        except HoldlineError as error:
            logger.warning("turn %s could not be stopped (%s)", turn, error.message)
        except UNAVAILABLE_ERRORS as error:
            logger.warning("turn %s could not be stopped (%s)", turn, find_fault(error))

    task = asyncio.create_task(stop())
    _stopping.add(task)
    task.add_done_callback(_stopping.discard)


_stopping: set[asyncio.Task[None]] = set()
"""The event loop keeps only weak references to tasks."""
