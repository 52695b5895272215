"""A question as it came in, made into what is written when its turn begins."""

import hashlib
import json
import secrets
import time
from dataclasses import dataclass

from chat.errors import NotFound
from chat.formats import sse
from sessions.keys import ConversationId, MessageId, Owner, TurnId
from sessions.store import Session, Store, new_id, title_of
from sessions.turn_store import NewTurn, TurnRef


@dataclass(frozen=True, slots=True)
class Question:
    """A question as it came in: what to ask, in which conversation, turn and model, where it says, and
    whether its answer may be continued when it breaks off.

    It stands at the end of the branch shown, unless `parent` names the message that it follows ("" for
    none). With `regenerate` instead of a message, that message's question is answered anew.
    """

    message: str
    conversation: ConversationId | None
    turn: TurnId | None
    model: str | None
    may_continue: bool = True
    parent: str | None = None
    regenerate: str | None = None


class QuestionBuilder:
    """Knows which model is asked, and how often an answer may be continued, where a question does not say."""

    def __init__(self, store: Store, models: tuple[str, ...], continue_max: int) -> None:
        self._store = store
        self._models = models
        self._continue_max = continue_max

    async def question(
        self,
        session: Session,
        ask: Question,
        conversation_id: ConversationId,
        turn_id: TurnId,
        is_new: bool,
    ) -> NewTurn:
        """What `begin` is to write for a question; raises NotFound for a message that is not there.

        Of a conversation that `is_new` nothing can be known.
        """
        conversation = None if is_new else await self._store.read(session.owner, conversation_id)
        model = ask.model or (conversation.model if conversation else "") or self._models[0]
        again = await self._existing_question(session.owner, conversation_id, ask)
        user = again or MessageId(new_id())
        answer = MessageId(new_id())
        first_frame_data = {
            "turn": turn_id,
            "conversation": conversation_id,
            "message": user,
            "answer": answer,
            "model": model,
        }
        first = sse.encode_first(turn_id, json.dumps(first_frame_data))
        before, _, after = first.partition(user.encode())
        body = {
            "role": "user",
            "content": ask.message,
            "created": time.time_ns() // 1_000_000,
            "turn": turn_id,
        }
        return NewTurn(
            ref=TurnRef(session.owner, conversation_id, turn_id),
            session=session.digest,
            may_create=ask.conversation is None and again is None and not ask.parent,
            digest=_digest(ask, again),
            question_id=user,
            answer_id=answer,
            message="" if again else json.dumps(body, ensure_ascii=False),
            parent=ask.parent,
            title=title_of(ask.message),
            model=model,
            max_continuations=self._continue_max if ask.may_continue else 0,
            first_frame=(before, after),
            attempt=secrets.token_urlsafe(12),
        )

    async def _existing_question(
        self, owner: Owner, conversation_id: ConversationId, ask: Question
    ) -> MessageId | None:
        """The question to answer anew, if that is asked for; raises NotFound where the named is not there."""
        named = ask.regenerate or ask.parent
        if not named:
            return None
        message = await self._store.message(owner, conversation_id, named)
        if message is None:
            raise NotFound("There is no such message.")
        if not ask.regenerate:
            return None
        return message.parent if message.body["role"] == "assistant" else message.id


def _digest(ask: Question, again: MessageId | None) -> str:
    """What tells one question from another: its words, and its place where it names one."""
    asked = [ask.message, again, ask.parent] if again or ask.parent is not None else ask.message
    # 128 bits, for a field of more than 64 bytes would take its whole hash out of Redis's compact form.
    return hashlib.blake2b(json.dumps(asked).encode(), digest_size=16).hexdigest()
