"""The parts of a worker that request handlers use."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sanic import Request

from chat.api.semaphores import Semaphores
from chat.events.feeds import Feeds
from chat.export.renderer import Renderer
from chat.turns.registry import Turns
from sessions.client.connection import Client
from sessions.conversation_store import ConversationStore
from sessions.limits import ConversationLimiter
from sessions.probe.readiness import Readiness
from sessions.session_store import SessionStore
from sessions.turns.turn_limits import TurnLimiter

_MAX_LARGE_BODIES = 4
"""Conversations and exports that a worker sends to a session at a time; others wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The application context of one worker; server.py builds it before the worker serves."""

    redis: Client
    readiness: Readiness
    session_store: SessionStore
    conversation_store: ConversationStore
    conversation_limiter: ConversationLimiter
    turns: Turns
    turn_limiter: TurnLimiter
    feeds: Feeds
    models: tuple[str, ...]
    """The models that clients may choose; the first is the default."""
    message_max: int
    """Maximum length of a question, in characters."""
    system_max: int
    """Maximum length of a conversation's system prompt, in characters."""
    is_demo: bool
    api_keys: Mapping[str, str]
    """API_KEYS: each key by its name."""
    is_local: bool
    """Whether the server listens on an address of this machine's loopback network."""
    allowed_origins: tuple[str, ...]
    """CORS_ORIGINS: other origins whose pages may use the API."""
    renderer: Renderer = field(default_factory=Renderer)
    large_bodies: Semaphores = field(default_factory=lambda: Semaphores(_MAX_LARGE_BODIES))
    """By owner: responses that may have to wait for their reader with a large body."""
    rendering: Semaphores = field(default_factory=lambda: Semaphores(1))
    """By network: exports that wait for a process of `renderer`, or use it."""


def get_state(request: Request) -> State:
    """Return the state of the worker that handles the request."""
    state: State = request.app.ctx.state
    return state
