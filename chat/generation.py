"""The making of one answer by this worker: from the question in the history to the last frame in the log."""

import asyncio
import json
import logging
import time
from typing import Any, Literal

import msgspec

from chat.errors import UpstreamBroke, UpstreamError, UpstreamRefused
from chat.history import History
from chat.log import LOG_MAX, Writer
from chat.upstream import Answer, Piece, Upstream, Usage
from sessions.connection import AWAY
from sessions.turn_store import State, TurnRecord

logger = logging.getLogger("holdline.generation")

Ending = Literal["stopped", "shutdown"]


class Generation:
    """Generates one turn in a task of its own, until its end or until it is stopped."""

    def __init__(self, record: TurnRecord, writer: Writer, history: History, upstream: Upstream) -> None:
        self.record = record
        self.log = writer.log
        self._writer = writer
        self._history = history
        self._upstream = upstream
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._usage: Usage | None = None
        self._finish_reason: str | None = None
        self._first_token_ms: int | None = None
        self._begun_at = time.monotonic()
        self._ending: Ending | None = None
        self._finishing = False
        writer.on_stop = lambda: self.stop("stopped")
        self.task = asyncio.create_task(self._run(), name=f"turn {record.place.turn}")

    def stop(self, ending: Ending) -> None:
        """Break off the generation, keeping what was made; nothing happens when it is already over."""
        if not self._finishing and self._ending is None:
            self._ending = ending
            self.task.cancel()

    async def abandon(self) -> None:
        """End the task without finishing the turn: its lease runs out, and another worker ends it."""
        self._finishing = True
        self.task.cancel()
        await asyncio.wait([self.task])

    async def _run(self) -> None:
        try:
            failure = await self._generate()
            self._finishing = True
            await self._finish(failure)
        except Exception:
            logger.exception("turn %s broke", self.record.place.turn)
        finally:
            self._writer.close()

    async def _generate(self) -> UpstreamError | None:
        """Relay the upstream's answer into the log; returns what went wrong, if anything did."""
        try:
            await self._relay()
        except asyncio.CancelledError:
            if self._ending is None or self._finishing:
                raise
            self.task.uncancel()
            if self._ending == "shutdown":
                return UpstreamBroke(
                    "shutdown", "The server was restarted. What was made is kept; ask again."
                )
            self._finish_reason = "stopped"
        except UpstreamError as error:
            return error
        except AWAY:
            return UpstreamBroke("store", "The history could not be read. Try again in a moment.")
        return None

    async def _relay(self) -> None:
        model = self.record.model
        messages = await self._history.messages(self.record)
        async with self._upstream.ask(messages, model) as answer:
            try:
                await self._append(answer)
            finally:
                self._usage, self._finish_reason = answer.usage, answer.finish_reason
        if self._usage and self._usage.prompt_tokens:
            self._history.learn(model, messages, self._usage.prompt_tokens)

    async def _append(self, answer: Answer) -> None:
        async for pieces in answer:
            if self._first_token_ms is None:
                self._first_token_ms = round((time.monotonic() - self._begun_at) * 1000)
            for piece in pieces:
                self._append_piece(piece)
            if len(self.log.data) > LOG_MAX:
                raise UpstreamRefused("too_long", "The answer is longer than a turn may be.")

    def _append_piece(self, piece: Piece) -> None:
        if piece.reasoning:
            self._reasoning.append(piece.text)
            self._writer.append(piece.text, "reasoning")
        else:
            self._text.append(piece.text)
            self._writer.append(piece.text)

    async def _finish(self, failure: UpstreamError | None) -> None:
        text = "".join(self._text)
        state: State = "failed" if failure else "stopped" if self._finish_reason == "stopped" else "done"
        reason = "failed" if failure else self._finish_reason or "stop"
        last = [
            ("usage", json.dumps(self._described_usage(reason), ensure_ascii=False)),
            ("failed", described(failure)) if failure else ("end", text),
        ]
        answer = ""
        if text or state == "done":
            answer = answer_json(self.record, text, "".join(self._reasoning), reason, self._usage)
        await self._writer.finish(last, state, answer)

    def _described_usage(self, reason: str) -> dict[str, Any]:
        return {
            **(msgspec.to_builtins(self._usage) if self._usage else {}),
            "finish_reason": reason,
            "upstream": self._upstream.name,
            "first_token_ms": self._first_token_ms,
        }


def answer_json(
    record: TurnRecord, text: str, reasoning: str, finish_reason: str, usage: Usage | None
) -> str:
    """An answer as the history keeps it, with what happened to it."""
    body: dict[str, Any] = {
        "role": "assistant",
        "content": text,
        "created": time.time_ns() // 1_000_000,
        "turn": record.place.turn,
        "model": record.model,
        "finish_reason": finish_reason,
    }
    if reasoning:
        body["reasoning"] = reasoning
    if usage:
        body["usage"] = msgspec.to_builtins(usage)
    return json.dumps(body, ensure_ascii=False)


def described(failure: UpstreamError) -> str:
    """The data of a `failed` frame."""
    body = {"type": failure.kind, "message": failure.message, "retryable": failure.retryable}
    return json.dumps(body, ensure_ascii=False)
