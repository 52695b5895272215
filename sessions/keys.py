"""Names and lifetimes of all keys in Redis.

All keys of an owner carry the hash tag `{owner}`, so that they share a slot of a Redis Cluster and
one script may use them together. A session's key has no tag: it is read before its owner is known.
The keys of limits carry the name of the index of running turns as their tag: `admit` uses both.
"""

import re
from typing import NewType

SessionDigest = NewType("SessionDigest", str)
Owner = NewType("Owner", str)
AddressDigest = NewType("AddressDigest", str)
ConversationId = NewType("ConversationId", str)
MessageId = NewType("MessageId", str)
TurnId = NewType("TurnId", str)

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_GENERATED_ID = re.compile(r"[A-Za-z0-9_-]{16}")


def is_id(text: str) -> bool:
    """Return whether `text` has the form of an id: 1 to 64 of `[A-Za-z0-9_-]`."""
    return _ID.fullmatch(text) is not None


def is_conversation_id(text: str) -> bool:
    """Return whether `text` has the form of a conversation's id: 16 characters."""
    return _GENERATED_ID.fullmatch(text) is not None


def is_message_id(text: str) -> bool:
    """Return whether `text` has the form of a message's id: 16 characters."""
    return _GENERATED_ID.fullmatch(text) is not None


def is_owner(text: str) -> bool:
    """Return whether `text` has the form of an owner: an id, or `key:` and an id."""
    return is_id(text.removeprefix("key:"))


NO_CONVERSATION = ConversationId("-")
"""The conversation of turns that belong to none; no conversation has this id."""

REQUEST_TTL_S = 86_400
"""Lifetime of a stored request, and of an unfinished turn without a conversation, in seconds."""

EXPORT_TTL_S = 60
"""Time after which an export that has not ended no longer prevents another one, in seconds."""

LIMITED_TURNS_TTL_S = 60
"""Lifetime of a set of turns that a limit counts, in seconds; renewed with the turns' leases."""

FIRST_TURN_TTL_S = 60
"""Time for which anyone who knows its id may view a turn that a client without a cookie began, in
seconds."""


def instance() -> str:
    """Hash: id and secret of the servers of this Redis. Never expires."""
    return "holdline:instance"


def first_turn(turn_id: TurnId) -> str:
    """String: session digest and owner of a turn that a client without a cookie began."""
    return f"holdline:first_turn:{turn_id}"


def session(digest: SessionDigest) -> str:
    """String, JSON: the session's owner and creation time. Expires after SESSION_IDLE_S unused."""
    return f"holdline:session:{digest}"


def current(owner: Owner, digest: SessionDigest) -> str:
    """String: the conversation of this session's questions that name no conversation."""
    return f"holdline:{{{owner}}}:current:{digest}"


def conversations(owner: Owner) -> str:
    """Sorted set: ids of the owner's conversations by the time of their last change, in ms."""
    return f"holdline:{{{owner}}}:conversations"


def conversation_prefix(owner: Owner) -> str:
    """Return the part of a conversation's key before its id, for scripts that compose the key."""
    return f"holdline:{{{owner}}}:conversation:"


def conversation(owner: Owner, conversation_id: ConversationId) -> str:
    """Hash: title, created, updated, head (last message of the branch), running (turn), model,
    system, pinned, open (`<digest>:<message id>` of the last question, until it is answered)."""
    return conversation_prefix(owner) + conversation_id


def messages_prefix(owner: Owner) -> str:
    """Return the part of a key of messages before the conversation's id, for scripts."""
    return f"holdline:{{{owner}}}:messages:"


def messages(owner: Owner, conversation_id: ConversationId) -> str:
    """Hash: message id → `<id of its parent>\\n<JSON>`, never changed; `>` and a message id (or
    nothing) → the ids of its children in the order of their creation, separated by spaces."""
    return messages_prefix(owner) + conversation_id


def usage(owner: Owner) -> str:
    """Hash: how many bytes the owner stores, by conversation; `lua/shared/usage.lua` has details.

    An entry is the id of a conversation, or `request <turn>`; `*` is the sum of all entries.
    """
    return f"holdline:{{{owner}}}:usage"


def expiries(owner: Owner) -> str:
    """Sorted set: the entries of `usage` by the time at which Redis drops their keys, in ms."""
    return f"holdline:{{{owner}}}:expiries"


def turns(owner: Owner, conversation_id: ConversationId) -> str:
    """Set: the turns of a conversation, which are deleted with it."""
    return f"holdline:{{{owner}}}:turns:{conversation_id}"


def deleted_turns(owner: Owner, conversation_id: ConversationId, created_ms: int) -> str:
    """Set: turns of a deleted conversation that are not unlinked yet.

    The time of creation keeps them apart from those of a later conversation with the same id.
    """
    return f"holdline:{{{owner}}}:deleted:{conversation_id}:{created_ms}"


def turn_prefix(owner: Owner) -> str:
    """Return the part of a turn's key before its id, for scripts that compose the key."""
    return f"holdline:{{{owner}}}:turn:"


def turn(owner: Owner, turn_id: TurnId) -> str:
    """Hash: conversation, digest of the question, state, fence, lease (ms), model, user, answer,
    records (1, unless version 0.1 began the turn), address (only while the turn runs), …"""
    return turn_prefix(owner) + turn_id


def records_prefix(owner: Owner) -> str:
    """Return the part of a log's key before the turn's id, for scripts that compose the key."""
    return f"holdline:{{{owner}}}:records:"


def records(owner: Owner, turn_id: TurnId) -> str:
    """String: the records of a turn's log; also its channel's name. LOG_KEEP_S from the end."""
    return records_prefix(owner) + turn_id


def legacy_log_prefix(owner: Owner) -> str:
    """Return the part of the key of a version 0.1 log before the turn's id."""
    return f"holdline:{{{owner}}}:log:"


def legacy_log(owner: Owner, turn_id: TurnId) -> str:
    """String: the log of a turn that version 0.1 began, as the bytes of its event stream."""
    return legacy_log_prefix(owner) + turn_id


def request(owner: Owner, turn_id: TurnId) -> str:
    """String, JSON: the request of a turn of /v1, so that another worker can repeat it."""
    return f"holdline:{{{owner}}}:request:{turn_id}"


def events(owner: Owner) -> str:
    """Stream: what happened to the owner's conversations; also its channel's name.

    Its entries have one field, `event`. `lua/shared/announce.lua` has its length and lifetime.
    """
    return f"holdline:{{{owner}}}:events"


def export(owner: Owner) -> str:
    """String: an id of the owner's running export. Expires after EXPORT_TTL_S."""
    return f"holdline:{{{owner}}}:export"


def conversation_rate(owner: Owner) -> str:
    """String: number of requests for conversations that the owner sent in the current window."""
    return f"holdline:{{{owner}}}:conversation_rate"


def rejected_prefill(digest: str) -> str:
    """String: exists for a day if a model does not continue a prefilled answer.

    `digest` identifies the upstream and the model.
    """
    return f"holdline:rejected_prefill:{digest}"


def running() -> str:
    """Sorted set: running turns, as `<owner> <conversation> <turn>`, by lease expiry in ms.

    The clock is that of the node that holds this key.
    """
    return "holdline:running:2"


def legacy_running() -> str:
    """Sorted set: running turns that version 0.1 began; their logs are `legacy_log`s."""
    return "holdline:running"


def _limit(name: str) -> str:
    return f"holdline:{{{running()}}}:{name}"


def session_rate(owner: Owner) -> str:
    """String: number of turns that the owner began in the current window of RATE_LIMIT."""
    return _limit(f"session_rate:{owner}")


def session_turns(owner: Owner) -> str:
    """Set: members of `running` that the owner began, and some that have left the index."""
    return _limit(f"session_turns:{owner}")


def address_rate(address: AddressDigest) -> str:
    """String: number of turns that an address began in the window of RATE_LIMIT_ADDRESS."""
    return _limit(f"address_rate:{address}")


def address_bytes(address: AddressDigest) -> str:
    """String: number of bytes that an address stored in the window of RATE_LIMIT_ADDRESS."""
    return _limit(f"address_bytes:{address}")


def address_turns(address: AddressDigest) -> str:
    """Set: members of `running` that an address began, and some that have left the index."""
    return _limit(f"address_turns:{address}")


def address_key() -> str:
    """String: the random key with which addresses are hashed."""
    return _limit("address_key")


def probe(digest: str) -> str:
    """String, and channel: written, published and removed to try Redis. Expires after a minute."""
    return _limit(f"probe:{digest}")


def stops() -> str:
    """Channel: key names of turns that their worker must stop."""
    return "holdline:stops"
