"""Begin, view, stop and drain turns: those of this worker, and through Redis all others."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from chat.errors import Conflict, Draining, NotFound, RateLimited, Unavailable
from chat.log.batches import Batches
from chat.log.log import LogState, choose_codec
from chat.log.logs import Logs
from chat.turns.admission import Admission
from chat.turns.context.client_request import ClientRequest
from chat.turns.generation import Generator
from chat.turns.moderation.moderator import Moderator
from chat.turns.question import Question, QuestionBuilder
from chat.turns.turn import Turn
from chat.turns.view import View, build_view
from sessions.conversation_store import ConversationStore, new_id
from sessions.keys import NO_CONVERSATION, ConversationId, MessageId, Owner, TurnId
from sessions.session_store import Session
from sessions.turns.turn_limits import TurnLimiter
from sessions.turns.turn_record import NewTurn, TurnRecord, TurnRef
from sessions.turns.turn_store import TurnStore

logger = logging.getLogger("holdline.turns")

MAX_VIEWERS = 200
"""Open streams of one turn on one worker."""

_STOP_TIMEOUT_S = 10
_HAND_OVER_TIMEOUT_S = 6

_MIN_DRAIN_S = 0.1
"""Time in which turns read the text that has arrived, and is paid for, before a hand-over."""

_KEY_CONFLICT = "This `Idempotency-Key` was sent with another body. Send another key."
_IS_ANSWERED = "The conversation is being answered. Ask again after its answer."
_CONFLICT = "This turn was begun with another message. Send a new turn id with a new question."


class Turns:
    """Begins, finds, shows and stops turns; keeps those that run on this worker."""

    def __init__(
        self,
        turn_store: TurnStore,
        store: ConversationStore,
        logs: Logs,
        batches: Batches,
        generator: Generator,
        questions: QuestionBuilder,
        limiter: TurnLimiter,
        moderator: Moderator | None = None,
    ) -> None:
        self._turn_store = turn_store
        self._store = store
        self._logs = logs
        self._batches = batches
        self._generator = generator
        self._questions = questions
        self._limiter = limiter
        self._moderator = moderator
        self._turns: dict[str, Turn] = {}
        self._is_draining = False
        self._is_handing_over = asyncio.Event()

    # Begin

    async def begin(self, session: Session, question: Question) -> TurnRecord:
        """Return the turn that answers a question: begun now, or the one that already does.

        Raises NotFound for an unknown conversation or message, Conflict for a turn of another
        question, RateLimited, Moderated or ModerationUnavailable for a new question that does not
        pass, and Draining for a new question to a server that is stopping.
        """
        is_new = False
        if question.conversation:
            conversation_id = question.conversation
            is_new = question.is_first or conversation_id == NO_CONVERSATION
        else:
            conversation_id, is_new = await self._store.find_current(session)
        turn_id = question.turn or TurnId(secrets.token_urlsafe(16))
        admission = Admission(self._limiter, self._turn_store, self._questions, self._moderator)
        for _ in range(4):
            if self._is_draining:
                return await self._find_begun(session, question)
            new = await self._questions.build(session, question, conversation_id, turn_id, is_new)
            begun = await self._turn_store.check(new)
            if begun.outcome in ("free", "busy"):
                if begun.turn and question.request:
                    raise Conflict(_IS_ANSWERED)
                await admission.admit(new, question.request, begun.turn)
                if begun.turn:
                    with suppress(NotFound):  # it could not be read, and was dropped
                        await self.stop(session.owner, begun.turn)
                    # The stop may have taken longer than the lease.
                    await admission.admit(new, question.request, begun.turn)
                begun = await self._turn_store.begin(new)
            if begun.outcome == "begun" and begun.question_id:
                return self._start(new, begun.question_id, question.request)
            if begun.outcome == "known":
                return await self.find(session.owner, turn_id)
            if begun.outcome == "attach" and begun.turn:
                return await self.find(session.owner, begun.turn)
            if begun.outcome == "conflict":
                raise Conflict(_KEY_CONFLICT if question.request else _CONFLICT)
            if begun.outcome == "unknown":
                raise NotFound("There is no such conversation.")
            if begun.outcome == "elsewhere":
                conversation_id, is_new = ConversationId(new_id()), True
            if begun.conversation:
                conversation_id, is_new = begun.conversation, False
        raise Unavailable("The previous answer is still being stopped. Try again.", retry_after_s=1)

    async def _find_begun(self, session: Session, question: Question) -> TurnRecord:
        """Return the turn that already answers a question; raises Draining if there is none."""
        turn_id = question.turn
        record = await self._turn_store.find(session.owner, turn_id) if turn_id else None
        if turn_id is None or record is None:
            raise Draining("The server is restarting. Try again in a moment.", retry_after_s=1)
        conversation_id = question.conversation or record.ref.conversation
        new = await self._questions.build(
            session, question, conversation_id, turn_id, question.is_first
        )
        if new.digest != record.digest:
            raise Conflict(_CONFLICT)
        return record

    def _start(
        self, new: NewTurn, question_id: MessageId, request: ClientRequest | None
    ) -> TurnRecord:
        record = TurnRecord(
            new.ref,
            "running",
            new.digest,
            new.model,
            question_id,
            new.answer_id,
            new.max_continuations,
            has_request=request is not None,
        )
        before, after = new.first_record
        self.start(record, before + question_id.encode() + after, fence=1, request=request)
        return record

    def start(
        self,
        record: TurnRecord,
        data: bytes,
        fence: int,
        *,
        request: ClientRequest | None = None,
        interrupted: bool = False,
    ) -> None:
        """Generate a turn here, with the lease of `fence`; `data` is its log in Redis so far."""
        key = record.ref.turn_key
        # Before the lease is renewed: a malformed log raises ValueError.
        partial = choose_codec(record.ref).decode_answer(data)
        log = self._logs.write(record.ref, data)
        writer = self._batches.open(log, fence)
        generation = self._generator.create(
            record, partial, writer, request, interrupted=interrupted
        )
        turn = self._turns[key] = Turn(record, writer, generation, self._generator.max_s)

        def forget(task: asyncio.Task[None]) -> None:
            del self._turns[key]
            self._logs.close(log)

        turn.task.add_done_callback(forget)
        if self._is_handing_over.is_set():  # it was set after the question arrived
            turn.hand_over()

    def has(self, ref: TurnRef) -> bool:
        """Return whether this worker generates the turn."""
        return ref.turn_key in self._turns

    # View

    async def find(self, owner: Owner, turn_id: TurnId) -> TurnRecord:
        """Return an owner's turn; raises NotFound."""
        record = await self._turn_store.find(owner, turn_id)
        if record is None:
            raise NotFound("There is no such turn.")
        return record

    @asynccontextmanager
    async def open_view(self, record: TurnRecord, offset: int | None) -> AsyncIterator[View | None]:
        """Hold the view of a turn's stream from an offset on, while the block runs.

        Yields None if the viewer already has the last frame. `offset` is None for a new viewer; an
        invalid offset gets a `restart` frame and the log from the start. Raises RateLimited if
        MAX_VIEWERS others read the turn here.
        """
        async with self._logs.open(record) as log:
            if log.viewers > MAX_VIEWERS:
                raise RateLimited("Too many viewers of this answer.", retry_after_s=5)
            yield await build_view(self._store, record, log, offset)

    # Stop

    async def stop(self, owner: Owner, turn_id: TurnId) -> None:
        """Stop a turn wherever it runs; return when it is finished.

        Raises NotFound; raises Unavailable after 10 s, or if this worker stops following the turn.
        """
        record = await self.find(owner, turn_id)
        turn = self._turns.get(record.ref.turn_key)
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                if turn:
                    turn.stop()
                    await asyncio.wait([turn.task])
                    if not turn.is_finished:  # handed over, or another worker's already
                        await self._stop_remote(record)
                elif record.state == "running":
                    await self._stop_remote(record)
        except TimeoutError:
            raise Unavailable(
                "The answer could not be stopped yet. Try again.", retry_after_s=2
            ) from None

    async def _stop_remote(self, record: TurnRecord) -> None:
        async with self._logs.open(record) as log:
            if not await self._turn_store.request_stop(record.ref):
                return
            while log.is_open:
                await log.wait_for_commit()
            if log.state is LogState.DETACHED:
                raise TimeoutError

    def stop_local(self, turn_key: str) -> None:
        """Stop a turn if this worker generates it; another worker was asked to."""
        if turn := self._turns.get(turn_key):
            turn.stop()

    # Shut down

    @property
    def is_draining(self) -> bool:
        """Return whether the server is stopping."""
        return self._is_draining

    @property
    def count(self) -> int:
        """Return the number of turns that run on this worker."""
        return len(self._turns)

    async def drain(self, timeout_s: float = 0) -> None:
        """Begin no more turns, and finish the running ones; after `timeout_s` hand over the rest.

        Then disconnect the viewers of turns that other workers run. Idempotent.
        """
        self._is_draining = True
        waits = [
            asyncio.create_task(self._wait_until_idle()),
            asyncio.create_task(self._is_handing_over.wait()),
        ]
        timeout_s = max(timeout_s, _MIN_DRAIN_S)
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        self.hand_over()
        self._logs.detach_all()
        with suppress(TimeoutError):
            async with asyncio.timeout(_HAND_OVER_TIMEOUT_S):
                await self._wait_until_idle()

    def hand_over(self) -> None:
        """Hand the running turns over to other workers, and those that still begin here."""
        self._is_draining = True
        self._is_handing_over.set()
        for turn in self._turns.values():
            turn.hand_over()

    async def _wait_until_idle(self) -> None:
        while running := [turn.task for turn in self._turns.values()]:
            await asyncio.wait(running)

    async def close(self) -> None:
        """Abandon the turns that could not be handed over in time."""
        for turn in list(self._turns.values()):
            await turn.abandon()
