"""A turn as Redis stores it: the ids that locate it, its fields, the results of scripts. Pure."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from sessions import keys
from sessions.keys import ConversationId, MessageId, Owner, SessionDigest, TurnId

State = Literal["running", "done", "stopped", "failed"]

Moderation = Literal["off", "due", "passed"]
"""Whether a question must be checked before its turn begins."""


@dataclass(frozen=True)
class TurnRef:
    """The address of a turn: its owner, its conversation, its id."""

    owner: Owner
    conversation: ConversationId
    turn: TurnId
    is_legacy: bool = False
    """Whether version 0.1 began the turn: its log holds the bytes of the event stream."""

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


@dataclass(frozen=True, slots=True)
class BeginResult:
    """The result of `begin`: `outcome` determines which of the other fields is set."""

    outcome: Literal[
        "begun", "known", "conflict", "unknown", "attach", "busy", "limited", "unchecked"
    ]
    question_id: MessageId | None = None
    turn: TurnId | None = None
    retry_after_s: int = 0


@dataclass(frozen=True, slots=True)
class TakeOver:
    """The result of `take_over`: the new fence with the turn's record.

    A `fence` of 0 means that the lease has not expired, -1 that the turn does not run. Then there
    is no record, nor for a turn that lacks a field.
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
