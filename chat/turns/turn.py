"""The making of one answer by this worker: from the question in the history to the last frame in the log."""

import asyncio
import functools
import json
import logging
import time
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from chat.errors import UpstreamBroke, UpstreamError, UpstreamRefused
from chat.formats import sse
from chat.log.batch import Backoff, Writer
from chat.log.log import LOG_MAX
from chat.turns import prompt
from chat.turns.continuation import Seam
from chat.turns.history import History
from chat.upstream.client import Upstream
from chat.upstream.completion import Usage
from sessions.client.errors import UNAVAILABLE_ERRORS
from sessions.turn_store import State, TurnRecord

logger = logging.getLogger("holdline.generation")

Ending = Literal["stopped", "shutdown"]

_INTERRUPTED = UpstreamBroke(
    "interrupted", "The server was interrupted in the middle of this answer. What was made is kept."
)
_CUT = UpstreamBroke("length", "The model's server cut the answer off at its limit.")


class Generation:
    """Generates one turn in a task of its own, until its end or until it is stopped.

    An answer that breaks off (at its length, with the line, or with the worker that made it before) is
    continued: asked for again with the text so far, the seam recorded. Where there are more upstreams than
    one, the next is asked when one fails.
    """

    def __init__(
        self,
        record: TurnRecord,
        writer: Writer,
        history: History,
        upstreams: Sequence[Upstream],
        *,
        interrupted: bool = False,
    ) -> None:
        self.record = record
        self.log = writer.log
        self._writer = writer
        self._history = history
        self._upstreams = sorted(upstreams, key=lambda upstream: upstream.resting)
        self._asked = 0
        self._model = record.model
        self._upstream_name = self._upstream.name
        made = sse.read_back(self.log.data)
        # As bytes that grow: a list of deltas, or a StringIO, takes ten times the memory of its text.
        self._text = bytearray("".join(made.text).encode())
        self._reasoning = bytearray("".join(made.reasoning).encode())
        self._continued = [json.loads(seam) for seam in made.continued]
        self._broken: UpstreamError | None = _INTERRUPTED if interrupted else None
        self._usage: Usage | None = None
        self._finish_reason: str | None = None
        self._first_token_ms: int | None = None
        self._begun_at = time.monotonic()
        self._ending: Ending | None = None
        self._begun = False
        self._finishing = False
        writer.on_stop = lambda: self.stop("stopped")
        self.task = asyncio.create_task(self._run(), name=f"turn {record.ref.turn}")

    def stop(self, ending: Ending) -> None:
        """Break off the generation, keeping what was made; nothing happens when it is already over."""
        if not self._finishing and self._ending is None:
            self._ending = ending
            if self._begun:  # a task that is cancelled before its first step never comes to its end
                self.task.cancel()

    async def abandon(self) -> None:
        """End the task without finishing the turn: its lease runs out, and another worker goes on."""
        self._finishing = True
        self.task.cancel()
        await asyncio.wait([self.task])

    async def _run(self) -> None:
        try:
            failure = await self._generate()
            self._finishing = True
            if self._ending == "shutdown":
                await self._writer.hand_over()
            else:
                await self._finish(failure)
        except Exception:
            logger.exception("turn %s broke", self.record.ref.turn)
        finally:
            self._writer.close()

    async def _generate(self) -> UpstreamError | None:
        """Make the answer, or what can be had of it; returns what went wrong in the end, if anything did."""
        self._begun = True
        try:
            if self._ending is None:
                return await self._answer()
            self._finish_reason = "stopped"
        except asyncio.CancelledError:
            if self._ending is None or self._finishing:
                raise
            self.task.uncancel()
            self._finish_reason = "stopped"
        except UpstreamError as error:
            return error
        except UNAVAILABLE_ERRORS:
            return UpstreamBroke("store", "The history could not be read. Try again in a moment.")
        except Exception:  # to ask again would fail, and cost, again
            logger.exception("turn %s broke", self.record.ref.turn)
            return UpstreamError("internal", "Something went wrong here. What was made is kept.")
        return None

    async def _answer(self) -> UpstreamError | None:
        waits = Backoff()
        untried = len(self._upstreams) - 1
        while self._broken is None or self._go_on(self._broken.kind):
            before = len(self._text)
            try:
                await self._relay()
            except (UpstreamBroke, UpstreamRefused) as error:
                others = self._fail_over(error)
                if self._shown:
                    self._broken = error
                    if isinstance(error, UpstreamRefused) and not others:
                        return error
                    await waits.wait()
                elif not untried:
                    return (
                        error  # nothing was shown: the package has tried again, now the person may
                    )
                else:
                    untried -= 1
                continue
            # An answered request that added no text would add none if it were sent again.
            if self._finish_reason != "length" or len(self._text) == before:
                return None
            self._broken = _CUT
        return None if self._broken is _CUT else self._broken

    def _go_on(self, why: str) -> bool:
        """Whether the answer may be continued once more; if so, a frame says where and why."""
        if max(len(self._continued), self._writer.fence - 2) >= self.record.max_continuations:
            return False
        if self._shown:
            seam = {"at": len(self._text.decode()), "why": why}
            model = self._upstream.model or self.record.model
            if model != self._model:
                seam["model"] = model
            self._continued.append(seam)
            self._writer.append(json.dumps(seam), "continued")
        return True

    @property
    def _upstream(self) -> Upstream:
        return self._upstreams[self._asked]

    def _fail_over(self, error: UpstreamError) -> bool:
        """Turn to the next upstream; False if there is no other."""
        if len(self._upstreams) == 1:
            return False
        failed = self._upstream
        failed.rest()
        self._asked = (self._asked + 1) % len(self._upstreams)
        logger.warning(
            "%s failed (%s), the next is %s", failed.name, error.kind, self._upstream.name
        )
        return True

    async def _relay(self) -> None:
        """Relay one answer of the upstream, or a continuation, into the log."""
        model, partial = self._upstream.model or self.record.model, self._text.decode()
        messages = await self._history.messages(self.record, model, partial)
        size = prompt.size(messages)
        prefill = bool(partial) and self._history.prefill
        seam = Seam(partial)
        self._model, self._upstream_name = model, self._upstream.name
        async with self._upstream.ask(messages, model, prefill=prefill) as answer:
            try:
                take = functools.partial(self._take, seam)
                await answer.relay(take, self._writer.pace, self._writer.is_crowded)
            finally:
                self._say(seam.end())
                self._finish_reason = answer.finish_reason
                self._usage = (
                    answer.usage if self._usage is None else self._usage.plus(answer.usage)
                )
        if answer.usage and answer.usage.prompt_tokens:
            self._history.calibrate(model, size, answer.usage.prompt_tokens)

    def _take(self, seam: Seam, text: str, reasoning: bool) -> None:
        if self._first_token_ms is None:
            self._first_token_ms = round((time.monotonic() - self._begun_at) * 1000)
        if reasoning:
            self._reasoning += text.encode()
            self._writer.append(text, "reasoning")
        else:
            self._say(seam.feed(text))
        if self.log.end > LOG_MAX:
            raise UpstreamError("too_long", "The answer is longer than a turn may be.")

    @property
    def _shown(self) -> bool:
        """Whether anything of the answer was shown."""
        return bool(self._text or self._reasoning)

    def _say(self, text: str) -> None:
        if text:
            self._text += text.encode()
            self._writer.append(text)

    async def _finish(self, failure: UpstreamError | None) -> None:
        text = self._text.decode()
        state: State = (
            "failed" if failure else "stopped" if self._finish_reason == "stopped" else "done"
        )
        reason = "failed" if failure else self._finish_reason or "stop"
        last = [
            ("usage", json.dumps(self._described_usage(reason), ensure_ascii=False)),
            ("failed", _described(failure)) if failure else ("end", text),
        ]
        answer = ""
        if text or state == "done":
            answer = self._message(text, reason)
        await self._writer.finish(last, state, answer)

    def _message(self, text: str, reason: str) -> str:
        """The answer as the history keeps it, with what happened to it."""
        body: dict[str, Any] = {
            "role": "assistant",
            "content": text,
            "created": time.time_ns() // 1_000_000,
            "turn": self.record.ref.turn,
            "model": self._model,
            "finish_reason": reason,
        }
        if self._reasoning:
            body["reasoning"] = self._reasoning.decode()
        if self._usage:
            body["usage"] = msgspec.to_builtins(self._usage)
        if self._continued:
            body["continued"] = self._continued
        return json.dumps(body, ensure_ascii=False)

    def _described_usage(self, reason: str) -> dict[str, Any]:
        return {
            **(msgspec.to_builtins(self._usage) if self._usage else {}),
            "finish_reason": reason,
            "upstream": self._upstream_name,
            "model": self._model,
            "first_token_ms": self._first_token_ms,
            **({"continued": self._continued} if self._continued else {}),
        }


def _described(failure: UpstreamError) -> str:
    """The data of a `failed` frame."""
    body = {"type": failure.kind, "message": failure.message, "retryable": failure.retryable}
    return json.dumps(body, ensure_ascii=False)
