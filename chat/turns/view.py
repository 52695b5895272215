"""Build what a viewer of a turn receives: its log from an offset, or a replay from the history."""

import json
from dataclasses import dataclass
from typing import Any

from chat.log import records
from chat.log.log import Log, LogState
from chat.log.records import Kind
from sessions.conversation_store import ConversationStore
from sessions.turns.turn_record import TurnRecord


@dataclass(frozen=True, slots=True)
class Replay:
    """The records of a turn whose log has expired, and the length of that log in bytes."""

    records: bytes
    answer: str
    length: int


@dataclass(frozen=True, slots=True)
class View:
    """A log from an offset on, or its replay.

    A viewer that `is_restarted` must discard what it has shown so far.
    """

    log: Log
    offset: int
    is_restarted: bool = False
    replay: Replay | None = None


async def build_view(
    store: ConversationStore, record: TurnRecord, log: Log, offset: int | None
) -> View | None:
    """Return what a viewer that has the frames up to `offset` lacks; None if that is nothing."""
    if record.state != "running" and not await log.read(log.end - 1, log.end):
        if offset == record.length:
            return None
        return View(log, 0, is_restarted=True, replay=await _replay(store, record))
    start = offset or 0
    if not await log.is_valid_offset(start):
        return View(log, 0, is_restarted=True)
    if log.state is LogState.FINISHED and start == log.committed:
        return None
    return View(log, start)


async def _replay(store: ConversationStore, record: TurnRecord) -> Replay:
    ref = record.ref
    found = await store.read_branch(
        ref.owner, ref.conversation, start=record.answer_id, max_count=1
    )
    body = found[0].body if found else {}
    answer = body.get("content", "")
    ids = {
        "turn": ref.turn,
        "conversation": ref.conversation,
        "message": record.question_id,
        "answer": record.answer_id,
        "model": record.model,
    }
    data = b"".join(
        records.encode(ref.turn, 0, kind, payload)
        for kind, payload in (
            (Kind.TURN, json.dumps(ids)),
            (Kind.REASONING, body.get("reasoning", "")),
            (Kind.TEXT, answer),
            *((Kind.CONTINUED, json.dumps(seam)) for seam in body.get("continued", ())),
            (Kind.USAGE, json.dumps(_read_usage(body))),
        )
        if payload
    )
    return Replay(data, answer, record.length)


def _read_usage(body: dict[str, Any]) -> dict[str, Any]:
    """Return the data of a `usage` record, as far as a stored message has it."""
    names = ("finish_reason", "model", "continued")
    return {**body.get("usage", {}), **{name: body[name] for name in names if name in body}}
