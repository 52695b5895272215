"""Begin, view and stop turns over HTTP."""

from contextlib import suppress
from typing import Annotated

import msgspec
from msgspec import Meta
from sanic import Blueprint, HTTPResponse, Request
from sanic.response import empty, json

from chat.api import guard, parsing, viewer
from chat.api.negotiation import choose_format
from chat.api.state import get_state
from chat.api.trust.networks import hash_network
from chat.errors import BadRequest, Conflict, NotFound, TooLarge
from chat.formats import sse
from chat.turns.question import Question
from sessions.conversation_store import new_id
from sessions.keys import AddressDigest, TurnId
from sessions.middleware import get_session, keep_session
from sessions.session_store import Session
from sessions.turns.turn_record import TurnRecord

chat_stream = Blueprint("chat", url_prefix="/api")

_NEW = "new"
"""The `conversation` of a question that begins one; no conversation has this id."""


class StreamRequest(msgspec.Struct):
    """The parameters of a stream; `input` and `prompt` are aliases of `message`.

    An empty string counts as absent, except for `parent`.
    """

    message: Annotated[
        str | None, Meta(description="The question.", examples=["What is a lease?"])
    ] = None
    input: Annotated[str | None, Meta(description="Another name of `message`.")] = None
    prompt: Annotated[str | None, Meta(description="Another name of `message`.")] = None
    conversation: Annotated[
        str | None,
        Meta(
            description="The conversation to ask in, or `new`; by default the current one, or a "
            "new one while that is answering another question."
        ),
    ] = None
    turn: Annotated[
        str | None,
        Meta(description="An id of the client's choice: 16 to 64 of `[A-Za-z0-9_-]`."),
    ] = None
    model: Annotated[str | None, Meta(description="One of CHAT_MODEL.")] = None
    parent: Annotated[
        str | None, Meta(description="The message that the question follows; empty for none.")
    ] = None
    regenerate: Annotated[
        str | None, Meta(description="Instead of `message`: a question to answer again.")
    ] = None
    last_event_id: Annotated[
        str | None, Meta(description="The id of the last frame received, as `Last-Event-ID`.")
    ] = None
    may_continue: Annotated[bool, Meta(description="Request the rest of a partial answer.")] = (
        msgspec.field(name="continue", default=True)
    )

    def __post_init__(self) -> None:
        for name in _OPTIONAL_NAMES:
            setattr(self, name, getattr(self, name) or None)

    @property
    def question(self) -> str | None:
        """The question, by any of its names."""
        return self.message or self.input or self.prompt


_OPTIONAL_NAMES = (
    "message", "input", "prompt", "conversation", "turn", "model", "regenerate", "last_event_id",
)  # fmt: skip
"""Fields that count as absent if they are empty."""


@chat_stream.get("/chat_stream/")
async def stream_by_get(request: Request) -> HTTPResponse | None:
    """Begin or resume a turn and stream it, with the parameters in the query (EventSource)."""
    if request.method != "GET":  # sanic-ext routes HEAD here, which would begin a turn
        return HTTPResponse(status=405, headers={"Allow": "GET, POST"})
    query = parsing.parse_query(request)
    parameters = StreamRequest(
        **{name: query.get(name) for name in _OPTIONAL_NAMES},
        parent=query.get("parent"),
        may_continue=parsing.parse_flag(query, "continue", default=True),
    )
    parameters.last_event_id = parameters.last_event_id or query.get("lastEventId")
    return await _stream(request, parameters)


@chat_stream.post("/chat_stream/")
async def stream_by_post(request: Request) -> HTTPResponse | None:
    """Begin or resume a turn and stream it, with the parameters in a JSON body."""
    return await _stream(request, parsing.parse_body(request, StreamRequest))


async def _stream(request: Request, parameters: StreamRequest) -> HTTPResponse | None:
    guard.reject_navigation(request)
    wire_format, is_brief = choose_format(request), _is_brief(request)
    record, offset = await _find_or_begin_turn(request, parameters)
    if not viewer.has_ids(wire_format):
        offset = None
    async with get_state(request).turns.open_view(record, offset) as view:
        if view is None:
            return empty()
        return await viewer.send_view(request, view, wire_format, is_brief=is_brief)


def _is_brief(request: Request) -> bool:
    """Return whether `end` shall not repeat the answer; raises BadRequest."""
    value = parsing.parse_query(request).get("end", "full")
    if value not in ("full", "brief"):
        raise BadRequest("Invalid `end`: expected `full` or `brief`.")
    return value == "brief"


async def _find_or_begin_turn(
    request: Request, parameters: StreamRequest
) -> tuple[TurnRecord, int | None]:
    """Return the requested turn, and the offset from which to send it; None for all of it."""
    turns, session = get_state(request).turns, get_session(request)
    turn, message = parameters.turn, parameters.question
    if turn is not None and not sse.is_turn_id(turn):
        raise BadRequest("Invalid `turn`: expected 16 to 64 of the characters A-Z a-z 0-9 _ -.")
    last_event_id = request.headers.get("last-event-id") or parameters.last_event_id
    seen = sse.parse_id(last_event_id) if last_event_id else None
    if seen and turn in (None, seen[0]):
        # A reconnecting EventSource repeats its URL: that must not ask the question again.
        return await _find_turn(request, TurnId(seen[0])), seen[1]
    offset = None
    if last_event_id and turn is not None and await _is_known(request, TurnId(turn)):
        offset = -1  # not the offset of a frame: the viewer gets a `restart`
    if message is None and not parameters.regenerate:
        if turn is not None:
            return await _find_turn(request, TurnId(turn)), offset
        if last_event_id:
            raise BadRequest("Invalid Last-Event-ID: expected `<turn>.<offset>`.")
        raise BadRequest("`message` is required.")
    address = await hash_network(request, get_state(request).turn_limiter)
    question = _build_question(request, parameters, message, address)
    first = await _find_first_session(request, question.turn)
    if first:
        with suppress(Conflict):  # another client chose the same id
            return await turns.begin(first, question), offset
    record = await turns.begin(session, question)
    await keep_session(request, question.turn)
    return record, offset


async def _find_turn(request: Request, turn: TurnId) -> TurnRecord:
    """Return a turn of the session, or one that a client without a cookie has just begun."""
    state = get_state(request)
    try:
        return await state.turns.find(get_session(request).owner, turn)
    except NotFound:
        first = await state.session_store.find_first_turn(turn)
        if first is None:
            raise
        return await state.turns.find(first.owner, turn)


async def _is_known(request: Request, turn: TurnId) -> bool:
    with suppress(NotFound):
        await _find_turn(request, turn)
        return True
    return False


async def _find_first_session(request: Request, turn: TurnId | None) -> Session | None:
    """Return the other session that has just begun this turn, for a client without a cookie.

    Such a client gets a session with each of its parallel first requests, and keeps one cookie.
    """
    state, session = get_state(request), get_session(request)
    if turn is None or not session.is_recent:
        return None
    first = await state.session_store.find_first_turn(turn)
    if first is None or first == session:
        return None
    with suppress(NotFound):
        await state.turns.find(first.owner, turn)
        return first
    return None


def _build_question(
    request: Request,
    parameters: StreamRequest,
    message: str | None,
    address: AddressDigest | None,
) -> Question:
    """Return the question; raises BadRequest, TooLarge, and NotFound for a malformed id."""
    if parameters.regenerate and (message is not None or parameters.parent):
        raise BadRequest("`regenerate` excludes `message` and `parent`: send it without them.")
    text = (message or "").replace("\r\n", "\n").replace("\r", "\n")
    if not text.replace("\0", "").strip() and not parameters.regenerate:
        raise BadRequest("`message` must not be blank.")
    max_length = get_state(request).message_max
    if len(text) > max_length:
        raise TooLarge(f"`message` has {len(text)} characters: the maximum is {max_length}.")
    conversation, parent = parameters.conversation, parameters.parent
    regenerate = parameters.regenerate
    is_first = conversation == _NEW
    if is_first and (regenerate or parent):
        raise BadRequest("A `new` conversation has no message to follow or to answer again.")
    if is_first:
        conversation = new_id()
    return Question(
        message=text,
        conversation=parsing.parse_conversation_id(conversation) if conversation else None,
        is_first=is_first,
        turn=TurnId(parameters.turn) if parameters.turn else None,
        model=parsing.parse_model(request, parameters.model),
        may_continue=parameters.may_continue,
        parent=parsing.parse_message_id(parent) if parent else parent,
        regenerate=parsing.parse_message_id(regenerate) if regenerate else None,
        address=address,
    )


@chat_stream.post("/turns/<turn:str>/stop")
async def stop_turn(request: Request, turn: str) -> HTTPResponse:
    """Stop a turn and keep its partial answer."""
    guard.reject_navigation(request)
    if not sse.is_turn_id(turn):
        raise NotFound("There is no such turn.")
    await get_state(request).turns.stop(get_session(request).owner, TurnId(turn))
    return empty()


@chat_stream.get("/info")
async def get_info(request: Request) -> HTTPResponse:
    """Return the settings that the web UI needs."""
    state = get_state(request)
    return json(
        {
            "model": state.models[0],
            "models": state.models,
            "demo": state.is_demo,
            "message_max": state.message_max,
        }
    )
