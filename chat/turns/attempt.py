"""Send one request for an answer, and append its response to the log as it arrives."""

import json
import logging
import time
from contextlib import nullcontext

from chat.errors import UpstreamError
from chat.log.batch import Writer
from chat.log.records import Kind
from chat.turns.answer import Answer
from chat.turns.context.client_request import ClientRequest
from chat.turns.context.prompt import Prompt, estimate_size, estimate_text
from chat.turns.continuation.joining import Joiner, Outcome
from chat.turns.history import read_patiently
from chat.turns.moderation.gate import Gate
from chat.turns.moderation.moderator import Moderator
from chat.turns.moderation.windows import split_text
from chat.turns.upstream_choice import Mode
from chat.turns.usage import fill_report
from chat.upstream.client import Upstream
from chat.upstream.request import Messages
from chat.upstream.response.chunk_reader import DeltaKind
from chat.upstream.response.chunks import Usage
from chat.upstream.response.completion import Completion, Delta
from chat.upstream.response.endings import Ending
from sessions.turns.turn_record import TurnRecord

logger = logging.getLogger("holdline.turn")

_MAY_HAVE_BEGUN = ("cancelled", "timeout", "connection_lost")
"""Outcomes of a request without a response after which the upstream may have begun to generate."""


class Attempt:
    """Requests an answer, or its continuation, once, and appends the response to the log."""

    def __init__(
        self,
        record: TurnRecord,
        answer: Answer,
        writer: Writer,
        upstream: Upstream,
        model: str,
        mode: Mode,
        request: ClientRequest | None,
        moderator: Moderator | None,
    ) -> None:
        self.mode = mode
        self.upstream = upstream
        self.model = model
        self.size = 0.0
        """Estimated size of the messages, in tokens."""
        self._record = record
        self._client_request = request
        self._answer = answer
        self._writer = writer
        self._length = len(answer.text)
        self._reasoning_length = len(answer.reasoning)
        # If the partial answer is only white space, a new answer is requested.
        self._partial = "" if mode is Mode.NEW else answer.text.decode()
        is_exact = mode is Mode.PREFILL and not upstream.find_kind(model).repeats_prefix
        self._joiner = Joiner(self._partial, is_prefill=is_exact)
        self._completion: Completion | None = None
        self._is_queued = False
        self._has_begun = False
        self._usage: Usage | None = None
        self._moderator = moderator
        self._gate = self._create_gate(moderator) if moderator else None
        self._deliver = self._gate.feed if self._gate else self._commit
        writer.advance = self._advance_unless_full if self._gate else self._advance
        writer.fail = self._fail

    def _create_gate(self, moderator: Moderator) -> Gate:
        answer = self._answer
        return Gate(
            moderator,
            {Kind.TEXT: answer.text.decode(), Kind.REASONING: answer.reasoning.decode()},
            release=self._commit,
            resume=self._writer.wake,
            fail=self._fail,
        )

    @property
    def has_added_text(self) -> bool:
        """Return whether the answer has more text than before, apart from white space."""
        return bool(self._answer.text[self._length :].strip())

    @property
    def has_added_only_reasoning(self) -> bool:
        """Return whether the response consisted of reasoning."""
        return not self.has_added_text and len(self._answer.reasoning) > self._reasoning_length

    @property
    def joined(self) -> Outcome:
        """Return how the continuation was joined to the partial answer."""
        return self._joiner.outcome

    async def run(self, prompt: Prompt, reason: str | None) -> Ending:
        """Stream the response into the log; return how it ended. Raises UpstreamError.

        `reason` is the failure of the previous request, if there was one.
        """
        answer, is_prefill = self._answer, self.mode is Mode.PREFILL
        messages: Messages
        if self._client_request:
            messages = self._client_request.build_messages(self._partial, prefill=is_prefill)
            self.size = sum(map(estimate_text, self._client_request.list_texts()))
        else:
            messages = await read_patiently(
                self._record.ref.turn,
                lambda: prompt.build_messages(
                    self._record, self.upstream, self.model, self._partial, prefill=is_prefill
                ),
                may_fail=not answer.has_output,
            )
            self.size = estimate_size(messages)
        answer.model, answer.upstream = self.model, self.upstream.name
        tokens = prompt.count(self.upstream, self.model, self.size)
        self._writer.append(Kind.ATTEMPT, answer.add_attempt(self.mode.value, reason, tokens))
        output_size = answer.size
        outcome = "cancelled"
        try:
            ending = await self._receive(messages)
            outcome = ending.value
        except UpstreamError as error:
            outcome = error.kind
            raise
        finally:
            self._log(reason, outcome)
            if self._has_begun or (outcome in _MAY_HAVE_BEGUN and not self._is_queued):
                output = prompt.count(self.upstream, self.model, answer.size - output_size)
                answer.add_usage(fill_report(self._usage, tokens, max(0, output)))
        if not self._client_request and self._usage and self._usage.prompt_tokens:
            prompt.calibrate(self.upstream, self.model, self.size, self._usage.prompt_tokens)
        return ending

    async def _receive(self, messages: Messages) -> Ending:
        request = self.upstream.request(
            messages,
            self.model,
            prefill=self.mode is Mode.PREFILL,
            fields=self._client_request.fields if self._client_request else None,
            on_position=self._announce_position,
        )
        async with self._gate or nullcontext(), request as completion:
            self._completion = completion
            self._has_begun = True
            try:
                completion.notify_when_ready(self._writer.wake)
                await completion.wait()
            finally:
                self._end_response(completion)
            if self._gate:
                await self._gate.drain()
            if completion.takes_reasoning_back:
                del self._answer.reasoning[self._reasoning_length :]
            if self.joined is Outcome.RESTARTED:
                return Ending.INTERRUPTED
            ending = completion.check()
            await self._take_tool_calls(completion)
            return ending

    async def _take_tool_calls(self, completion: Completion) -> None:
        """Keep the tool calls of a response that is complete, once they have passed."""
        calls = completion.reader.tool_calls.list_complete()
        if calls and self._moderator:
            for text in split_text(json.dumps(calls, ensure_ascii=False)):
                await self._moderator.check_answer([text])
        self._answer.tool_calls = calls

    def _announce_position(self, position: int) -> None:
        self._is_queued = position > 0
        wait = {"why": "queued", "position": position}
        self._writer.log.announce((lambda: wait) if position else None)

    def _log(self, reason: str | None, outcome: str) -> None:
        tokens = self._usage and self._usage.completion_tokens
        logger.info(
            "turn %s, request %d to %s: %s%s, %s, %s tokens",
            self._record.ref.turn,
            len(self._answer.attempts),
            self.upstream.name,
            self.mode.value,
            f" after {reason}" if reason else "",
            outcome,
            "unknown" if tokens is None else tokens,
        )

    # Receiving

    def _advance(self) -> bool:
        """Append the deltas received so far; return whether there may be more at the next tick."""
        if self._completion is None:
            return False
        deltas, has_read = self._completion.take()
        self._append(deltas)
        return has_read

    def _advance_unless_full(self) -> bool:
        """Leave the data in the connection while the gate is full; it wakes the writer later."""
        return not (self._gate and self._gate.is_full) and self._advance()

    def _fail(self, error: Exception) -> None:
        """End the current response with an internal error."""
        if self._completion:
            self._completion.fail(error)

    def _end_response(self, completion: Completion) -> None:
        """Append the rest of a response that has ended, and add its usage."""
        try:
            self._advance()
            self._append(completion.flush())
        finally:
            self._completion = None
            self._emit(self._joiner.end())
            self._usage = completion.reader.usage

    def _append(self, deltas: list[Delta]) -> None:
        for text, kind in deltas:
            if not self._writer.log.has_room(text):
                raise UpstreamError(
                    "too_long", "The answer exceeds the maximum length of one turn."
                )
            if kind == DeltaKind.EXTRA:
                if self._gate is None:  # it may contain text that has not passed
                    self._writer.append(Kind.EXTRA, text)
            elif kind == DeltaKind.REASONING:
                self._deliver(Kind.REASONING, text)
            elif kind == DeltaKind.REFUSAL:
                self._deliver(Kind.REFUSAL, text)
            else:
                self._emit(self._joiner.feed(text))

    def _emit(self, text: str) -> None:
        if text:
            self._deliver(Kind.TEXT, text)
        elif self.joined is Outcome.RESTARTED and self._completion:
            self._completion.end()

    def _commit(self, kind: Kind, text: str) -> None:
        """Append text to the answer and to the log."""
        answer = self._answer
        if answer.first_token_ms is None:
            answer.first_token_ms = round((time.monotonic() - answer.begun_at) * 1000)
        if kind is Kind.REASONING:
            answer.reasoning += text.encode()
        else:
            answer.text += text.encode()
        self._writer.append(kind, text)
