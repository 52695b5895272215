"""A turn as Redis stores it: the ids that locate it, its fields, the results of scripts. Pure."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

from sessions import keys
from sessions.keys import (
    AddressDigest,
    ConversationId,
    MessageId,
    Owner,
    SessionDigest,
    TurnId,
)

State = Literal["running", "done", "stopped", "failed"]


RECORD_FIELDS = (
    "state", "conversation", "digest", "model", "user", "answer", "continues", "length", "records",
    "request", "address",
)  # fmt: skip
"""The hash fields of a TurnRecord. A turn that version 0.1 began has no `records`."""

_OPTIONAL_FIELDS = 4


@dataclass(frozen=True)
class TurnRef:
    """The address of a turn: its owner, its conversation, its id."""

    owner: Owner
    conversation: ConversationId
    turn: TurnId
    is_legacy: bool = False
    """Whether version 0.1 began the turn: its log holds the bytes of the event stream."""
    address: AddressDigest | None = field(default=None, compare=False)
    """The client's address; stored while the turn runs. A turn read from the index has none."""

    @cached_property
    def member(self) -> str:
        """The turn's name in the index of running turns."""
        return f"{self.owner} {self.conversation} {self.turn}"

    @cached_property
    def limit_keys(self) -> list[str]:
        """The keys of the sets that count this turn while it runs."""
        if self.is_legacy:
            return []
        session = keys.session_turns(self.owner)
        return [session, keys.address_turns(self.address)] if self.address else [session]

    @cached_property
    def turn_key(self) -> str:
        return keys.turn(self.owner, self.turn)

    @cached_property
    def log_key(self) -> str:
        name = keys.legacy_log if self.is_legacy else keys.records
        return name(self.owner, self.turn)

    @property
    def usage_keys(self) -> list[str]:
        return [keys.usage(self.owner), keys.expiries(self.owner)]


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """The stored fields of a turn."""

    ref: TurnRef
    state: State
    digest: str
    model: str
    question_id: MessageId
    answer_id: MessageId
    max_continuations: int = 0
    """Maximum number of times that this answer may be continued."""
    length: int = 0
    """Length of a finished turn's log in bytes."""
    has_request: bool = False
    """Whether the turn repeats the request of a client of /v1, instead of a history."""


@dataclass(frozen=True, slots=True)
class NewTurn:
    """A turn to begin: the user's message, and the first record around that message's id.

    `message` is the question as JSON, or "" to regenerate the answer to the stored message
    `question_id`. `parent` is the message that the question follows, "" for the first one, None for
    the end of the current branch.
    """

    ref: TurnRef
    session: SessionDigest
    may_create: bool
    digest: str
    question_id: MessageId
    answer_id: MessageId
    message: str
    parent: str | None
    title: str
    model: str
    max_continuations: int
    first_record: tuple[bytes, bytes]
    attempt: str
    request: str | None = None
    """The request of a turn of /v1 as JSON, "" if it is not to be stored, None for other turns."""
    is_first: bool = False
    """Whether the turn begins its conversation, also if the session has a current one."""


@dataclass(frozen=True, slots=True)
class BeginResult:
    """The result of `begin` or `check`: `outcome` determines which other field is set."""

    outcome: Literal[
        "begun", "known", "conflict", "unknown", "moved", "attach", "busy", "elsewhere", "free"
    ]
    question_id: MessageId | None = None
    conversation: ConversationId | None = None
    turn: TurnId | None = None


@dataclass(frozen=True, slots=True)
class TakeOver:
    """The result of `take_over`: the new fence with the turn's record.

    A `fence` of 0 means that the lease has not expired, -1 that the turn does not run. Then there
    is no record.
    """

    fence: int
    record: TurnRecord | None = None


class LogRead(NamedTuple):
    """A part of a turn's log, read in one step with the turn's state."""

    state: State | None
    """None if the turn does not exist: it has expired, or its conversation was deleted."""
    length: int
    """Length of the log in bytes; 0 once it has expired."""
    data: bytes


def parse_record(owner: Owner, turn_id: TurnId, values: list[bytes | None]) -> TurnRecord | None:
    """Return a record from the values of RECORD_FIELDS; None if all of them are missing.

    Raises ValueError for a malformed one.
    """
    if not any(value is not None for value in values):
        return None
    if None in values[:-_OPTIONAL_FIELDS]:
        raise ValueError("a field is missing")
    text: list[Any] = [(value or b"").decode() for value in values]
    (
        state, conversation, digest, model, user, answer, continues, length, records, request,
        address,
    ) = text  # fmt: skip
    ids = [conversation, user, answer] + ([address] if address else [])
    if state not in get_args(State) or not all(map(keys.is_id, ids)):
        raise ValueError("a field is malformed")
    return TurnRecord(
        ref=TurnRef(
            owner,
            ConversationId(conversation),
            turn_id,
            is_legacy=not records,
            address=AddressDigest(address) if address else None,
        ),
        state=state,
        digest=digest,
        model=model,
        question_id=MessageId(user),
        answer_id=MessageId(answer),
        max_continuations=int(continues),
        length=int(length or 0),
        has_request=bool(request),
    )
