"""HTTP in, frames out: ask, view and stop a turn."""

import msgspec
from sanic import Blueprint, HTTPResponse, Request
from sanic.response import empty, json

from chat.api import guard, parsing, viewer
from chat.errors import BadRequest, NotFound, TooLarge
from chat.formats import sse
from chat.turns.question import Question
from chat.turns.registry import Turns
from sessions.keys import TurnId
from sessions.session_store import Session
from sessions.turn_store import TurnRecord

api = Blueprint("chat", url_prefix="/api")


class QuestionBody(msgspec.Struct):
    """What a POST asks; `input` and `prompt` are other clients' words for `message`."""

    message: str | None = None
    input: str | None = None
    prompt: str | None = None
    conversation: str | None = None
    turn: str | None = None
    model: str | None = None
    parent: str | None = None
    regenerate: str | None = None
    last_event_id: str | None = None
    may_continue: bool = msgspec.field(name="continue", default=True)


@api.get("/chat_stream/")
async def stream_by_get(request: Request) -> HTTPResponse | None:
    """Ask a question, or go on with a turn, as an EventSource does."""
    if request.method != "GET":  # sanic-ext would have a HEAD begin a turn
        return HTTPResponse(status=405, headers={"Allow": "GET, POST"})
    query = parsing.query(request)
    names = ("message", "conversation", "turn", "model", "parent", "regenerate")
    last_event_id = query.get("last_event_id") or query.get("lastEventId")
    may_continue = query.get("continue", "1") not in ("0", "false")
    asked = QuestionBody(
        **{name: query.get(name) for name in names},
        last_event_id=last_event_id,
        may_continue=may_continue,
    )
    return await _stream(request, asked)


@api.post("/chat_stream/")
async def stream_by_post(request: Request) -> HTTPResponse | None:
    """The same for fetch clients, and for questions too long for a URL."""
    return await _stream(request, parsing.body(request, QuestionBody))


async def _stream(request: Request, body: QuestionBody) -> HTTPResponse | None:
    guard.check(request)
    turns: Turns = request.app.ctx.turns
    record, offset = await _turn(request, body)
    async with turns.open_view(record, offset) as view:
        if view is None:
            return empty()
        await viewer.send(request, view)
    return None


async def _turn(request: Request, body: QuestionBody) -> tuple[TurnRecord, int | None]:
    """The turn that a request means, and the offset from which its viewer goes on."""
    turns: Turns = request.app.ctx.turns
    session: Session = request.ctx.session
    last_event_id = request.headers.get("last-event-id") or body.last_event_id
    seen = sse.parse_id(last_event_id) if last_event_id else None
    if last_event_id and seen is None and body.turn is None:
        raise BadRequest("Last-Event-ID names no frame of ours.")
    if body.turn is not None and not sse.is_turn_id(body.turn):
        raise BadRequest("A turn's id has 16 to 64 of the characters A-Z, a-z, 0-9, _ and -.")
    if seen and body.turn in (None, seen[0]):
        # A line that comes back is never a new question, whatever else its URL says.
        return await turns.find(session.owner, TurnId(seen[0])), seen[1]
    message = next(
        (text for text in (body.message, body.input, body.prompt) if text is not None), None
    )
    offset = -1 if last_event_id else None
    if body.regenerate:
        if message is not None or body.parent is not None:
            raise BadRequest("To regenerate an answer takes neither message nor parent.")
        return await turns.begin(session, _ask(request, body, "")), offset
    if message is None:
        if body.turn is None:
            raise BadRequest("There is no message: what is the question?")
        return await turns.find(session.owner, TurnId(body.turn)), offset
    return await turns.begin(session, _ask(request, body, message)), offset


def _ask(request: Request, body: QuestionBody, message: str) -> Question:
    message = message.replace("\r\n", "\n").replace("\r", "\n")
    limit = request.app.ctx.settings.message_max
    if not message.strip() and not body.regenerate:
        raise BadRequest("The message is empty.")
    if len(message) > limit:
        raise TooLarge(f"The message has {len(message)} characters; at most {limit} are taken.")
    return Question(
        message=message,
        conversation=parsing.conversation_id(body.conversation) if body.conversation else None,
        turn=TurnId(body.turn) if body.turn else None,
        model=parsing.known_model(request, body.model),
        may_continue=body.may_continue,
        parent=body.parent,
        regenerate=body.regenerate,
    )


@api.post("/turns/<turn:str>/stop")
async def stop_turn(request: Request, turn: str) -> HTTPResponse:
    """Stop a turn, keeping what was made of its answer."""
    guard.check(request)
    if not sse.is_turn_id(turn):
        raise NotFound("There is no such turn.")
    await request.app.ctx.turns.stop(request.ctx.session.owner, TurnId(turn))
    return empty()


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
