"""Admit a new question, if the limits of new turns and the moderation of questions allow it."""

from chat.errors import HoldlineError, RateLimited, TurnsExceeded
from chat.turns.context.client_request import ClientRequest
from chat.turns.moderation.moderator import Moderator
from chat.turns.question import QuestionBuilder
from sessions.keys import NO_CONVERSATION, TurnId
from sessions.limits import estimate_bytes
from sessions.turns.turn_limits import Rejection, TurnLimiter
from sessions.turns.turn_record import NewTurn
from sessions.turns.turn_store import TurnStore

_RETRY_TURNS_S = 5
"""Time after which a client may ask again while too many turns run, in seconds."""

_SCOPES = {
    "session": "this session",
    "address": "your network address",
    "server": "all users together",
}


class Admission:
    """The admission of one question: counted and moderated once, however often it is tried."""

    def __init__(
        self,
        limiter: TurnLimiter,
        store: TurnStore,
        questions: QuestionBuilder,
        moderator: Moderator | None,
    ) -> None:
        self._limiter = limiter
        self._store = store
        self._questions = questions
        self._moderator = moderator
        self._is_counted = False
        self._is_moderated = moderator is None

    async def admit(
        self, new: NewTurn, request: ClientRequest | None, replaced: TurnId | None
    ) -> None:
        """Register a turn as running, if it may begin. The running turn `replaced` does not count.

        Raises RateLimited, Moderated, ModerationUnavailable and UNAVAILABLE_ERRORS.
        """
        await self._register(new, replaced)
        if self._moderator and not self._is_moderated:
            try:
                texts = await self._questions.read_texts(new, request)
                await self._moderator.check_question(texts)
            except HoldlineError:
                await self._store.withdraw(new.ref)
                raise
            self._is_moderated = True
            await self._register(new, replaced)  # the check may have taken longer than the lease

    async def _register(self, new: NewTurn, replaced: TurnId | None) -> None:
        size = 0  # a turn without a conversation stores nothing after its end
        if new.ref.conversation != NO_CONVERSATION:
            size = estimate_bytes(new.message, creates=new.may_create)
        rejection = await self._limiter.admit(
            new.ref, replaced, size=size, is_counted=self._is_counted
        )
        if rejection:
            raise _describe(rejection)
        self._is_counted = True


def _describe(rejection: Rejection) -> RateLimited:
    scope = _SCOPES[rejection.scope]
    if rejection.kind == "turns":
        return TurnsExceeded(
            f"Too many answers are being generated for {scope}. "
            "Ask again after one of them has ended, or stop one.",
            retry_after_s=_RETRY_TURNS_S,
        )
    amount = "Too many questions" if rejection.kind == "rate" else "Too much text"
    wait_s = rejection.retry_after_s
    return RateLimited(f"{amount} from {scope}. Try again in {wait_s} s.", retry_after_s=wait_s)
