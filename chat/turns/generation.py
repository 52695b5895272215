"""Generate the answer of one turn: send its request, repeat it, and continue a partial answer."""

import asyncio
import time
from collections.abc import Sequence

from chat.errors import (
    ContextExceeded,
    UpstreamEnded,
    UpstreamError,
    UpstreamFailed,
    UpstreamRejected,
)
from chat.log.backoff import Backoff
from chat.log.batch import Writer
from chat.log.records import Kind, PartialAnswer
from chat.turns.answer import Answer
from chat.turns.attempt import Attempt
from chat.turns.context.client_request import ClientRequest
from chat.turns.context.prompt import Prompt, estimate_size
from chat.turns.continuation.joining import Outcome
from chat.turns.continuation.policy import (
    INTERRUPTED,
    TRUNCATED,
    Step,
    choose_wait_s,
    decide,
    rejects_prefill,
)
from chat.turns.history import read_patiently
from chat.turns.moderation.moderator import Moderator
from chat.turns.upstream_choice import ContinueMode, Mode, UpstreamChoice
from chat.turns.usage import restore_usage
from chat.upstream.client import Upstream
from chat.upstream.response.endings import Ending
from sessions.turns.turn_record import TurnRecord


class Generator:
    """Creates the generations of a worker; `max_s` is the longest that one may take, in seconds.

    Answers are checked by the `moderator`, if there is one.
    """

    def __init__(
        self,
        prompt: Prompt,
        mode: ContinueMode,
        upstreams: Sequence[Upstream],
        max_s: float,
        moderator: Moderator | None = None,
    ) -> None:
        self._prompt = prompt
        self._moderator = moderator
        self._mode = mode
        self._upstreams = upstreams
        self.max_s = max_s

    def create(
        self,
        record: TurnRecord,
        partial: PartialAnswer,
        writer: Writer,
        request: ClientRequest | None,
        *,
        interrupted: bool,
    ) -> "Generation":
        """Return the generation of a turn, which continues the partial answer, if there is one.

        `request` is the request of a turn of /v1.
        """
        return Generation(
            record,
            partial,
            writer,
            self._prompt,
            self._mode,
            UpstreamChoice(self._upstreams),
            request,
            self._moderator,
            interrupted=interrupted,
        )


class Generation:
    """Requests one answer until it is complete, and appends it to the log as it arrives.

    A partial answer (truncated, disconnected, or left by a worker that died) is continued: it is
    requested again with the text so far, and the seam is recorded. If an upstream fails, the
    request goes to the next one. A request whose response had no text is not repeated to the same
    upstream.
    """

    def __init__(
        self,
        record: TurnRecord,
        partial: PartialAnswer,
        writer: Writer,
        prompt: Prompt,
        mode: ContinueMode,
        choice: UpstreamChoice,
        request: ClientRequest | None,
        moderator: Moderator | None,
        *,
        interrupted: bool,
    ) -> None:
        self._record = record
        self._client_request = request
        self._writer = writer
        self._prompt = prompt
        self._mode = mode
        self._choice = choice
        self._moderator = moderator
        self._last_error: UpstreamError | None = INTERRUPTED if interrupted else None
        self._is_ended = False
        self._exhausted: set[Upstream] = set()
        """Upstreams that responded without text; they would receive the same request again."""
        self._has_learned = False
        self._may_prefill = True
        self._waits = 0
        self._waited_s = 0.0
        self._backoff = Backoff()
        self._attempt: Attempt
        self.answer = Answer(
            record,
            record.model,
            self._choice.current.name,
            text=bytearray(partial.text.encode()),
            reasoning=bytearray(partial.reasoning.encode()),
            continued=partial.continued,
            attempts=partial.attempts,
        )
        self.answer.usage = restore_usage(partial.attempts, round(self.answer.size))

    def end(self, finish_reason: str | None) -> None:
        """End the turn with this finish reason; the current response is ignored from now on."""
        self._is_ended = True
        self.answer.finish_reason = finish_reason

    async def run(self) -> None:
        """Return when the answer is complete, with its finish reason set; raises UpstreamError."""
        if self._last_error:
            request = self._client_request
            if request and not request.is_kept:  # its client has gone with the worker
                raise self._last_error
            await self._prepare_repetition(self._last_error)
        while True:
            try:
                ending = await self._send()
            except (UpstreamFailed, UpstreamRejected) as error:
                if self._is_ended:  # closing the connection caused the error
                    raise
                is_over = await self._handle_failure(error)
            else:
                is_over = await self._handle_ending(ending)
            if is_over:
                return

    # After a request

    async def _handle_failure(self, error: UpstreamFailed | UpstreamRejected) -> bool:
        """Prepare the next request after a failure; return whether the answer is over instead.

        Raises the error if there is no next request.
        """
        answer, attempt = self.answer, self._attempt
        if isinstance(error, ContextExceeded):
            if answer.text:
                answer.finish_reason = Ending.TRUNCATED.value
                return True
            if not self._client_request and await self._learn(error):
                return False
        if attempt.mode is Mode.PREFILL and rejects_prefill(error):
            await self._note_rejected_prefill()
            return False
        if not attempt.has_added_text and attempt.upstream.note_failure(error):
            return False
        if attempt.has_added_text:
            self._exhausted.clear()
        elif isinstance(error, UpstreamEnded):
            self._exhausted.add(attempt.upstream)
        if self._choice.next in self._exhausted:  # it would receive the same request as before
            if not answer.text.strip():
                raise error
            answer.finish_reason = Ending.TRUNCATED.value
            return True
        await self._prepare_repetition(error)
        return False

    async def _handle_ending(self, ending: Ending) -> bool:
        """Prepare the continuation after a response; return whether the answer is over instead."""
        answer, attempt = self.answer, self._attempt
        upstream, is_prefill = attempt.upstream, attempt.mode is Mode.PREFILL
        if attempt.joined is Outcome.RESTARTED:
            if is_prefill and self._may_continue:
                await self._note_rejected_prefill()
                return False
            answer.finish_reason = Ending.INTERRUPTED.value
            return True
        has_repeated = attempt.joined is Outcome.WHOLE and is_prefill
        if has_repeated and not upstream.find_kind(attempt.model).repeats_prefix:
            await self._note_rejected_prefill()
        if is_prefill and attempt.has_added_only_reasoning:
            # The server takes the continuation for reasoning: the answer is still incomplete.
            await self._note_rejected_prefill()
            if self._may_continue:
                return False
            ending = Ending.TRUNCATED
        if not answer.text.strip() and not self._client_request:
            if ending is Ending.TRUNCATED:
                raise upstream.failures.empty_at_limit()
            if ending in (Ending.WITHHELD, Ending.REFUSED):
                raise upstream.failures.withheld()
            if ending is Ending.TOOL_CALL:
                raise upstream.failures.tool_call()
        # A response that added no text would add none if it were requested again.
        continues = self._client_request is None or self._client_request.continues_at_limit
        if (
            ending is Ending.TRUNCATED
            and continues
            and attempt.has_added_text
            and self._may_continue
        ):
            await self._prepare_repetition(TRUNCATED)
            return False
        answer.finish_reason = ending.value
        return True

    @property
    def _may_continue(self) -> bool:
        if self._client_request and not self._client_request.is_plain:
            return False
        return self.answer.continuations < self._record.max_continuations

    async def _prepare_repetition(self, error: UpstreamError) -> None:
        """Choose the upstream of the next request after an error, and wait until it is due.

        Raises the error if there is no next request.
        """
        answer = self.answer
        if self._client_request and not self._client_request.is_plain and answer.has_output:
            raise error
        step = decide(
            error,
            has_output=answer.has_output,
            continuations=answer.continuations,
            max_continuations=self._record.max_continuations,
            untried=self._choice.untried,
            has_others=self._choice.has_others,
            waits=self._waits,
            waited_s=self._waited_s,
        )
        if step is Step.GIVE_UP:
            if error not in (INTERRUPTED, TRUNCATED):
                self._choice.use_next(error)
            raise error
        self._last_error = error
        if error not in (INTERRUPTED, TRUNCATED):
            if step is Step.FAIL_OVER:
                self._choice.untried -= 1
            self._choice.use_next(error)
            if step is not Step.FAIL_OVER:
                await self._wait(error)
        if step is Step.CONTINUE and answer.has_output and not answer.ends_with_seam(self._model):
            self._writer.append(Kind.CONTINUED, answer.add_seam(error.kind, self._model))

    async def _wait(self, error: UpstreamError) -> None:
        """Wait as long as the upstream asks for, and tell the viewers; else back off briefly."""
        wait_s = None if self._choice.has_others else choose_wait_s(error)
        if wait_s is None:
            await self._backoff.wait()
            return
        self._waits += 1
        self._waited_s += wait_s
        until = time.monotonic() + wait_s
        self._writer.log.announce(
            lambda: {"why": error.kind, "seconds": max(1, round(until - time.monotonic()))}
        )
        await asyncio.sleep(wait_s)
        self._writer.log.announce(None)

    async def _learn(self, error: ContextExceeded) -> bool:
        """Learn the window from a rejection; return whether a shorter request can be sent now."""
        if self._has_learned:
            return False
        self._has_learned = True
        upstream, model, size = self._attempt.upstream, self._attempt.model, self._attempt.size
        self._prompt.learn(upstream, model, size, error)
        messages = await read_patiently(
            self._record.ref.turn,
            lambda: self._prompt.build_messages(self._record, upstream, model),
            may_fail=not self.answer.has_output,
        )
        self._last_error = error
        return estimate_size(messages) < size

    async def _note_rejected_prefill(self) -> None:
        self._may_prefill = False
        await self._mode.note_rejected_prefill(self._attempt.upstream, self._attempt.model)

    @property
    def _model(self) -> str:
        """Return the name of the model to request next."""
        return self._choice.current.model or self._record.model

    async def _send(self) -> Ending:
        """Request the answer, or its continuation, once; return how the response ended."""
        upstream, model, answer = self._choice.current, self._model, self.answer
        mode = Mode.NEW
        if answer.text.strip():
            mode = await read_patiently(
                self._record.ref.turn,
                lambda: self._mode.choose(upstream, model, has_reasoning=bool(answer.reasoning)),
            )
        if mode is Mode.PREFILL and not self._may_prefill:
            mode = Mode.PROMPT
        sources = self._client_request, self._moderator
        self._attempt = Attempt(self._record, answer, self._writer, upstream, model, mode, *sources)
        reason = self._last_error.kind if self._last_error else None
        return await self._attempt.run(self._prompt, reason)
