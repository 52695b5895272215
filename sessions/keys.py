"""Every key's name and lifetime; the only place that knows them.

All keys of an owner carry the hash tag `{owner}`, so that they share a slot of a Redis Cluster and a
script may touch them together. A session's own key is looked up before its owner is known and stands alone.
"""

import re
from typing import NewType

SessionDigest = NewType("SessionDigest", str)
Owner = NewType("Owner", str)
ConversationId = NewType("ConversationId", str)
MessageId = NewType("MessageId", str)
TurnId = NewType("TurnId", str)

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def is_id(text: str) -> bool:
    """Return whether `text` has the form of a conversation's or message's id: 1 to 64 of `[A-Za-z0-9_-]`."""
    return _ID.fullmatch(text) is not None


LOG_S = 3600
"""A finished turn's log is kept this long; its answer is in the history for good."""


def session(digest: SessionDigest) -> str:
    """String, JSON: the session's owner and its birth. Lives SESSION_IDLE_S after its last use."""
    return f"holdline:session:{digest}"


def current(owner: Owner, digest: SessionDigest) -> str:
    """String: the conversation that this session asks in when it names none."""
    return f"holdline:{{{owner}}}:current:{digest}"


def conversations(owner: Owner) -> str:
    """Sorted set: ids of the owner's conversations by the time of their last change, in ms."""
    return f"holdline:{{{owner}}}:conversations"


def conversation(owner: Owner, conversation_id: ConversationId) -> str:
    """Hash: title, created, updated, head (the branch's last message), running (turn), model, system, pinned,
    open (`<digest>:<message id>` of the last question, while it has no whole answer)."""
    return f"holdline:{{{owner}}}:conversation:{conversation_id}"


def messages(owner: Owner, conversation_id: ConversationId) -> str:
    """Hash: message id → `<id of its parent>\\n<JSON>`, added and never changed; `>` and a message id (or
    nothing) → the ids of what follows it, in the order made, with spaces between."""
    return f"holdline:{{{owner}}}:messages:{conversation_id}"


def turns(owner: Owner, conversation_id: ConversationId) -> str:
    """Set: the turns of a conversation, so that deleting it leaves none behind."""
    return f"holdline:{{{owner}}}:turns:{conversation_id}"


def turn(owner: Owner, turn_id: TurnId) -> str:
    """Hash: conversation, digest of the question, state, fence, lease (ms), model, user, answer, …"""
    return f"holdline:{{{owner}}}:turn:{turn_id}"


def records(owner: Owner, turn_id: TurnId) -> str:
    """String: the records of a turn's log; also the name of its channel. LOG_S from the end."""
    return f"holdline:{{{owner}}}:records:{turn_id}"


def legacy_log(owner: Owner, turn_id: TurnId) -> str:
    """String: the log of a turn that version 0.1 began, as the bytes of its event stream."""
    return f"holdline:{{{owner}}}:log:{turn_id}"


def rate(owner: Owner) -> str:
    """String: how many turns the owner began in the current window of RATE_LIMIT, which is its lifetime."""
    return f"holdline:{{{owner}}}:rate"


def running() -> str:
    """Sorted set: turns that run, as `<owner> <conversation> <turn>`, by the end of their lease in ms."""
    return "holdline:running"


def stops() -> str:
    """Channel: turns that their worker should stop, by the name of their key."""
    return "holdline:stops"
