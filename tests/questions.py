"""A question as `begin` writes it, for tests of the turns' store and of those who write by it."""

from sessions.keys import MessageId, SessionDigest
from sessions.turn_store import Place, Question


def question_at(place: Place) -> Question:
    """The first question of a conversation."""
    return Question(
        place=place,
        session=SessionDigest("digest"),
        may_create=True,
        digest="d1",
        user=MessageId("user-1"),
        answer=MessageId("answer-1"),
        message='{"role": "user", "content": "q"}',
        parent=None,
        title="q",
        model="m",
        continues=4,
        first_frame=(b"<", b">"),
        attempt="attempt-1",
    )
