"""Generate one turn: from the question in the history to the last record in the log."""

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from enum import Enum

from chat.errors import UpstreamError, UpstreamFailed, UpstreamRejected
from chat.log.backoff import Backoff
from chat.log.batch import Fenced, Writer
from chat.log.records import Kind, PartialAnswer
from chat.turns import prompt
from chat.turns.answer import Answer
from chat.turns.continuation import INTERRUPTED, TRUNCATED, Step, decide
from chat.turns.joining import Joiner, Outcome
from chat.turns.prompt import Prompt
from chat.upstream.client import Upstream
from chat.upstream.completion import Completion, Delta
from sessions.client.errors import UNAVAILABLE_ERRORS
from sessions.turn_record import State, TurnRecord

logger = logging.getLogger("holdline.turn")


class Phase(Enum):
    """The phase of a turn. Waiting (for Redis, or for an upstream) is not a phase."""

    BEGUN = "begun"
    RUNNING = "running"
    FINISHING = "finishing"
    """The generation is over; its last records are being committed."""
    FINISHED = "finished"
    HANDED_OVER = "handed over"
    """Another worker continues it: the lease is released, or will run out."""
    FENCED = "fenced"
    """Another worker has the lease already."""


class Turn:
    """Generates one answer in its own task, until its end or until it is stopped.

    A partial answer (truncated, disconnected, or left by a worker that died) is continued: it is
    requested again with the text so far, and the seam is recorded. If an upstream fails, the
    request goes to the next one.
    """

    def __init__(
        self,
        record: TurnRecord,
        partial: PartialAnswer,
        writer: Writer,
        prompt: Prompt,
        upstreams: Sequence[Upstream],
        *,
        interrupted: bool = False,
    ) -> None:
        self.record = record
        self.phase = Phase.BEGUN
        self._writer = writer
        self._prompt = prompt
        self._upstreams = sorted(upstreams, key=lambda upstream: upstream.in_cooldown)
        self._upstream_index = 0
        self._begun_at = time.monotonic()
        self._last_error: UpstreamError | None = INTERRUPTED if interrupted else None
        self._is_handed_over = False
        self._completion: Completion | None = None
        self._joiner = Joiner("", is_prefill=False)
        self._answer = Answer(
            record,
            record.model,
            self._upstream.name,
            text=bytearray(partial.text.encode()),
            reasoning=bytearray(partial.reasoning.encode()),
            continued=partial.continued,
            attempts=partial.attempts,
        )
        writer.advance = self._advance
        writer.fail = self._fail
        writer.on_stop = self.stop
        writer.on_fenced = self._fence
        self.task = asyncio.create_task(self._run(), name=f"turn {record.ref.turn}")

    @property
    def is_finished(self) -> bool:
        """Return whether the turn's last record is committed."""
        return self.phase is Phase.FINISHED

    def stop(self) -> None:
        """End the generation and keep the partial answer; do nothing if it is over."""
        self._end_generation("stopped")

    def hand_over(self) -> None:
        """End the generation and let another worker continue it; do nothing if it is over."""
        if self._end_generation(None):
            self._is_handed_over = True

    async def abandon(self) -> None:
        """Cancel the task and finish nothing: the lease runs out, and another worker continues."""
        if self.phase in (Phase.BEGUN, Phase.RUNNING, Phase.FINISHING):
            self.phase = Phase.HANDED_OVER
        self.task.cancel()
        await asyncio.wait([self.task])

    def _end_generation(self, finish_reason: str | None) -> bool:
        if self.phase not in (Phase.BEGUN, Phase.RUNNING):
            return False
        # A task that is cancelled before its first step would never reach its end.
        if self.phase is Phase.RUNNING:
            self.task.cancel()
        self.phase = Phase.FINISHING
        self._answer.finish_reason = finish_reason
        return True

    def _fence(self) -> None:
        if self.phase in (Phase.BEGUN, Phase.RUNNING, Phase.FINISHING):
            self.phase = Phase.FENCED
            self.task.cancel()

    async def _run(self) -> None:
        try:
            failure = await self._generate()
            if self._is_handed_over:
                await self._writer.hand_over()
                self.phase = Phase.HANDED_OVER
            else:
                await self._finish(failure)
                self.phase = Phase.FINISHED
        except Fenced:
            self.phase = Phase.FENCED
        except Exception:
            logger.exception("turn %s failed unexpectedly", self.record.ref.turn)
        finally:
            self._writer.close()

    async def _generate(self) -> UpstreamError | None:
        """Generate the answer until it is complete, stopped or failed; return a failure."""
        if self.phase is not Phase.BEGUN:  # stopped before the first step
            return None
        self.phase = Phase.RUNNING
        failure: UpstreamError | None = None
        try:
            failure = await self._request_until_complete()
        except asyncio.CancelledError:
            if self.phase is not Phase.FINISHING:
                raise
        except UpstreamError as error:
            failure = error
        except UNAVAILABLE_ERRORS:
            failure = UpstreamFailed(
                "history_unavailable", "The conversation could not be read. Try again in a moment."
            )
        except Fenced:
            raise
        except Exception:  # another request would fail, and cost, again
            logger.exception("turn %s failed unexpectedly", self.record.ref.turn)
            failure = UpstreamError(
                "internal", "An internal error ended this answer. Its text so far is kept."
            )
        if self.phase is Phase.RUNNING:
            self.phase = Phase.FINISHING
            return failure
        if self.phase is not Phase.FINISHING:  # fenced or abandoned
            raise asyncio.CancelledError
        # A stop or a hand-over: an error may have replaced the cancellation.
        while self.task.cancelling():
            self.task.uncancel()
        return None

    async def _request_until_complete(self) -> UpstreamError | None:
        """Request the answer and its continuations, as `decide` chooses; return a failure."""
        backoff = Backoff()
        untried = len(self._upstreams) - 1
        answer = self._answer
        while True:
            if self._last_error is not None:
                step = decide(
                    self._last_error,
                    has_output=answer.has_output,
                    continuations=answer.continuations,
                    max_continuations=self.record.max_continuations,
                    untried=untried,
                    has_others=len(self._upstreams) > 1,
                )
                if step is Step.GIVE_UP:
                    return None if self._last_error is TRUNCATED else self._last_error
                if step is Step.FAIL_OVER:
                    untried -= 1
                elif answer.has_output:
                    seam = answer.add_seam(self._last_error.kind, self._model)
                    self._writer.append(Kind.CONTINUED, seam)
            length = len(answer.text)
            try:
                await self._request()
            except (UpstreamFailed, UpstreamRejected) as error:
                if self.phase is not Phase.RUNNING:
                    return error  # stopped, and the connection failed as it was closed
                self._last_error = error
                self._use_next_upstream(error)
                if answer.has_output:
                    await backoff.wait()
                continue
            # A response that added no text would add none if it were requested again.
            if answer.finish_reason != "length" or len(answer.text) == length:
                return None
            self._last_error = TRUNCATED

    @property
    def _upstream(self) -> Upstream:
        return self._upstreams[self._upstream_index]

    @property
    def _model(self) -> str:
        """Return the name of the model to request next."""
        return self._upstream.model or self.record.model

    def _use_next_upstream(self, error: UpstreamError) -> None:
        if len(self._upstreams) == 1:
            return
        failed = self._upstream
        failed.cool_down()
        self._upstream_index = (self._upstream_index + 1) % len(self._upstreams)
        logger.warning(
            "upstream %s failed (%s); the next is %s", failed.name, error.kind, self._upstream.name
        )

    async def _request(self) -> None:
        """Stream one response, or a continuation, into the log."""
        answer, model, partial = self._answer, self._model, self._answer.text.decode()
        messages = await self._prompt.build_messages(self.record, model, partial)
        messages_size = prompt.estimate_size(messages)
        prefill = bool(partial) and self._prompt.prefill
        self._joiner = Joiner(partial, is_prefill=prefill)
        answer.model, answer.upstream = model, self._upstream.name
        mode = "prefill" if prefill else "prompt" if partial else "new"
        reason = self._last_error.kind if self._last_error else None
        self._writer.append(Kind.ATTEMPT, answer.add_attempt(mode, reason))
        async with self._upstream.request(messages, model, prefill=prefill) as completion:
            self._completion = completion
            try:
                completion.notify_when_ready(self._writer.wake)
                await completion.wait()
            finally:
                self._end_response(completion)
            completion.check()
        if completion.usage and completion.usage.prompt_tokens:
            self._prompt.calibrate(model, messages_size, completion.usage.prompt_tokens)

    def _advance(self) -> bool:
        """Append the deltas received by now; return whether there may be more at the next tick."""
        if self._completion is None:
            return False
        deltas, has_read = self._completion.take()
        self._append(deltas)
        return has_read

    def _fail(self, error: Exception) -> None:
        """End the response under way with an internal error."""
        if self._completion:
            self._completion.fail(error)

    def _end_response(self, completion: Completion) -> None:
        """Append the rest of a response that has ended, and store its finish reason and usage."""
        try:
            self._advance()
            self._append(completion.flush())
        finally:
            self._completion = None
            self._emit(self._joiner.end())
            if self.phase is Phase.RUNNING:
                restarted = self._joiner.outcome is Outcome.RESTARTED
                self._answer.finish_reason = (
                    "interrupted" if restarted else completion.finish_reason
                )
            self._answer.add_usage(completion.usage)

    def _append(self, deltas: list[Delta]) -> None:
        answer = self._answer
        for text, is_reasoning in deltas:
            if answer.first_token_ms is None:
                answer.first_token_ms = round((time.monotonic() - self._begun_at) * 1000)
            if is_reasoning:
                answer.reasoning += text.encode()
                self._writer.append(Kind.REASONING, text)
            else:
                self._emit(self._joiner.feed(text))
        if self._writer.log.is_too_long:
            raise UpstreamError("too_long", "The answer exceeds the maximum length of one turn.")

    def _emit(self, text: str) -> None:
        if text:
            self._answer.text += text.encode()
            self._writer.append(Kind.TEXT, text)

    async def _finish(self, failure: UpstreamError | None) -> None:
        answer = self._answer
        state: State = "done"
        if failure:
            state = "failed"
        elif answer.finish_reason == "stopped":
            state = "stopped"
        reason = "failed" if failure else answer.finish_reason or "stop"
        text = answer.text.decode()
        last = [
            (Kind.USAGE, answer.usage_json(reason)),
            (Kind.FAILED, _failure_json(failure)) if failure else (Kind.END, text),
        ]
        message = answer.message_json(reason) if text or state == "done" else ""
        await self._writer.finish(last, state, message)


def _failure_json(failure: UpstreamError) -> str:
    """Return the data of a `failed` frame."""
    body = {"type": failure.kind, "message": failure.message, "retryable": failure.retryable}
    return json.dumps(body, ensure_ascii=False)
