"""Run one turn: from the question in the history to the last record in the log."""

import asyncio
import json
import logging
from enum import Enum

from chat.errors import UpstreamError
from chat.log.batch import Fenced, Writer
from chat.log.records import Kind
from chat.turns.generation import Generation
from sessions.turns.turn_record import State, TurnRecord

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
    """Generates one answer in its own task, until its end or until it is stopped."""

    def __init__(
        self, record: TurnRecord, writer: Writer, generation: Generation, max_s: float
    ) -> None:
        self.record = record
        self.phase = Phase.BEGUN
        self._writer = writer
        self._generation = generation
        self._max_s = max_s
        self._is_handed_over = False
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
        self._generation.end(finish_reason)
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
                await self._finish_anyhow(failure)
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
            async with asyncio.timeout(self._max_s):
                await self._generation.run()
        except TimeoutError:
            failure = UpstreamError(
                "too_slow",
                "The answer took longer than TURN_MAX_S allows. Its text so far is kept.",
            )
        except asyncio.CancelledError:
            if self.phase is not Phase.FINISHING:
                raise
        except UpstreamError as error:
            failure = error
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

    async def _finish_anyhow(self, failure: UpstreamError | None) -> None:
        """Finish the turn, without its answer if that cannot be stored.

        A turn that is never finished would be taken over, and requested, again and again.
        """
        try:
            await self._finish(failure)
        except Fenced:
            raise
        except Exception:
            logger.exception("turn %s cannot be finished with its answer", self.record.ref.turn)
            error = UpstreamError("internal", "An internal error ended this answer.")
            await self._writer.finish([(Kind.FAILED, _failure_json(error))], "failed", "")

    async def _finish(self, failure: UpstreamError | None) -> None:
        answer = self._generation.answer
        state: State = "done"
        if failure:
            state = "failed"
        elif answer.finish_reason == "stopped":
            state = "stopped"
        reason = "failed" if failure else answer.finish_reason or "stop"
        text = answer.text.decode()
        last = [
            *(
                (Kind.TOOL_CALL, json.dumps({"index": index, **call}))
                for index, call in enumerate(answer.tool_calls)
            ),
            (Kind.USAGE, answer.usage_json(reason)),
            (Kind.FAILED, _failure_json(failure)) if failure else (Kind.END, text),
        ]
        message = answer.message_json(reason, failure) if text or state == "done" else ""
        await self._writer.finish(last, state, message)


def _failure_json(failure: UpstreamError) -> str:
    """Return the data of a `failed` frame."""
    return json.dumps(failure.describe(), ensure_ascii=False)
