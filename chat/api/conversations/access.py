"""Find the conversations that a request may use, and count the request."""

from sanic import Request

from chat.api import parsing
from chat.api.state import get_state
from chat.api.trust.networks import hash_network
from chat.errors import NotFound, RateLimited
from sessions.conversation_record import Conversation
from sessions.conversation_store import ConversationStore
from sessions.keys import Owner
from sessions.limits import estimate_bytes
from sessions.middleware import get_session


def open_store(request: Request) -> tuple[ConversationStore, Owner]:
    """Return the store, and the owner whose conversations the request may use."""
    return get_state(request).conversation_store, get_session(request).owner


async def check_rate(request: Request) -> None:
    """Count a request that lists or exports conversations; raises RateLimited over the limit."""
    limiter = get_state(request).conversation_limiter
    _reject_for(await limiter.count_read(get_session(request).owner))


async def check_write(request: Request, fields: dict[str, str], *, creates: bool) -> None:
    """Count a write against the limits of its owner and address; raises RateLimited."""
    state, owner = get_state(request), get_session(request).owner
    address = await hash_network(request, state.turn_limiter)
    size = estimate_bytes("".join(fields.values()), creates=creates)
    _reject_for(await state.conversation_limiter.count_write(owner, address, size))


def _reject_for(wait_s: int) -> None:
    if wait_s:
        message = f"Too many requests for conversations. Try again in {wait_s} s."
        raise RateLimited(message, retry_after_s=wait_s)


async def find(request: Request, conversation: str) -> Conversation:
    """Return the owner's conversation; raises NotFound."""
    store, owner = open_store(request)
    found = await store.read(owner, parsing.parse_conversation_id(conversation))
    if found is None:
        raise NotFound("There is no such conversation.")
    return found
