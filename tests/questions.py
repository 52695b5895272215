"""A question for tests that begin turns in Redis without a request over HTTP."""

from sessions.keys import MessageId, SessionDigest
from sessions.turn_store import NewTurn, TurnRef


def question_at(ref: TurnRef) -> NewTurn:
    """Return the first question of a conversation, which `begin` creates."""
    return NewTurn(
        ref=ref,
        session=SessionDigest("digest"),
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
