"""Turn a client's question into the turn that `begin` writes."""

import hashlib
import json
import secrets
import time
from dataclasses import dataclass

from chat.errors import NotFound
from chat.log import records
from chat.log.records import Kind
from chat.turns.context.client_request import ClientRequest
from sessions.conversation_store import ConversationStore, make_title, new_id
from sessions.keys import AddressDigest, ConversationId, MessageId, Owner, TurnId
from sessions.session_store import Session
from sessions.turns.turn_record import NewTurn, TurnRef


@dataclass(frozen=True, slots=True)
class Question:
    """A client's question, with the conversation, turn and model that it names, if any.

    It follows the message `parent` ("" for none), or the end of the current branch if `parent` is
    None. With `regenerate` instead of a message, that message's question is answered again. A
    partial answer is continued if `may_continue`.

    With a `request` of a client of /v1, that request goes upstream instead of the history, and
    `digest` identifies it. The message may then be kept in no conversation: NO_CONVERSATION.
    """

    message: str
    conversation: ConversationId | None
    turn: TurnId | None
    model: str | None
    may_continue: bool = True
    parent: str | None = None
    regenerate: str | None = None
    request: ClientRequest | None = None
    digest: str = ""
    is_first: bool = False
    """Whether it begins a new conversation, which `conversation` is to be the id of."""
    address: AddressDigest | None = None
    """The client's network, hashed; None if it is unknown, and so not limited."""


class QuestionBuilder:
    """Builds turns from questions; supplies the default model and the maximum of continuations."""

    def __init__(
        self, store: ConversationStore, models: tuple[str, ...], continue_max: int
    ) -> None:
        self._store = store
        self._models = models
        self._continue_max = continue_max

    async def build(
        self,
        session: Session,
        question: Question,
        conversation_id: ConversationId,
        turn_id: TurnId,
        is_new: bool,
    ) -> NewTurn:
        """Return the turn to begin; raises NotFound for a conversation or message that is missing.

        A conversation that `is_new` is not read.
        """
        conversation = None if is_new else await self._store.read(session.owner, conversation_id)
        if conversation is None and question.conversation and not is_new:
            raise NotFound("There is no such conversation.")
        model = question.model or (conversation.model if conversation else "") or self._models[0]
        again = await self._existing_question(session.owner, conversation_id, question)
        user = again or MessageId(new_id())
        answer = MessageId(new_id())
        request = question.request
        first_frame_data: dict[str, str | int] = {
            "turn": turn_id,
            "conversation": conversation_id,
            "message": user,
            "answer": answer,
            "model": model,
        }
        if request:
            first_frame_data["created"] = int(time.time())
        first = records.encode(turn_id, 0, Kind.TURN, json.dumps(first_frame_data))
        before, _, after = first.partition(user.encode())
        body = {
            "role": "user",
            "content": question.message,
            "created": time.time_ns() // 1_000_000,
            "turn": turn_id,
        }
        return NewTurn(
            ref=TurnRef(session.owner, conversation_id, turn_id, address=question.address),
            session=session.digest,
            may_create=question.is_first
            or (question.conversation is None and again is None and not question.parent),
            is_first=question.is_first,
            digest=question.digest or _compute_digest(question, again),
            question_id=user,
            answer_id=answer,
            message="" if again else json.dumps(body, ensure_ascii=False),
            parent=question.parent,
            title=make_title(question.message),
            model=model,
            max_continuations=self._continue_max if question.may_continue else 0,
            first_record=(before, after),
            attempt=secrets.token_urlsafe(12),
            request=None if request is None else request.encode() if request.is_kept else "",
        )

    async def read_texts(self, new: NewTurn, request: ClientRequest | None) -> list[str]:
        """Return the texts of a turn that its user wrote: the question, and the system prompt.

        The system prompt is that of the conversation, and not the operator's. A question that is
        answered again is read from the history, because it may be older than the moderation. All
        messages of a request are its client's.
        """
        if request:
            return ["\n".join(request.list_strings())]
        ref = new.ref
        body = json.loads(new.message) if new.message else None
        if body is None:
            found = await self._store.read_message(ref.owner, ref.conversation, new.question_id)
            body = found.body if found else {}
        conversation = await self._store.read(ref.owner, ref.conversation)
        system = conversation.system if conversation else None
        return [text for text in (body.get("content"), system) if text]

    async def _existing_question(
        self, owner: Owner, conversation_id: ConversationId, question: Question
    ) -> MessageId | None:
        """Return the question to regenerate an answer to, if any; raises NotFound."""
        named = question.regenerate or question.parent
        if not named:
            return None
        message = await self._store.read_message(owner, conversation_id, named)
        if message is None:
            raise NotFound("There is no such message.")
        if not question.regenerate:
            return None
        return message.parent if message.body["role"] == "assistant" else message.id


def _compute_digest(question: Question, again: MessageId | None) -> str:
    """Return 128 bits that identify a question by its text, and by its position if it has one."""
    has_position = again or question.parent is not None
    identity = [question.message, again, question.parent] if has_position else question.message
    # A value over 64 bytes would move the whole hash out of Redis's listpack encoding.
    return hashlib.blake2b(json.dumps(identity).encode(), digest_size=16).hexdigest()
