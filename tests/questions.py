"""A question for tests that begin turns in Redis without a request over HTTP."""

from sessions.keys import MessageId, SessionDigest
from sessions.turns.turn_record import NewTurn, TurnRef
from sessions.turns.turn_store import TurnStore


def question_at(ref: TurnRef) -> NewTurn:
    """Return the first question of a conversation, which `begin` creates."""
    return NewTurn(
        ref=ref,
        session=SessionDigest(ref.conversation),  # one without a current conversation
        may_create=True,
        digest="d1",
        question_id=MessageId("user-1"),
        answer_id=MessageId("answer-1"),
        message='{"role": "user", "content": "q"}',
        parent=None,
        title="q",
        model="m",
        max_continuations=4,
        first_record=(b"<", b">"),
        attempt="attempt-1",
    )


async def read_log(store: TurnStore, ref: TurnRef) -> tuple[bytes, bool]:
    """Return a turn's whole log, and whether the turn is finished."""
    found = await store.read(ref, 0, 1 << 30)
    return found.data, found.state != "running"
