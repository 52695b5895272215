"""Define the errors that clients receive.

HoldlineError                  an HTTP response with a status, a type and a message
├── BadRequest          400
│   ├── InvalidField           names the field of a JSON body
│   └── UnknownModel           CHAT_MODEL does not name the requested model
├── Unauthorised        401    /v1 without a valid key
├── Moderated           400    the moderation endpoint flagged the question
├── Forbidden           403
├── NotFound            404    unknown, or another owner's
├── NotAcceptable       406
├── Conflict            409
├── TooLarge            413
├── Misdirected         421    `Host` is no name of this server
├── RateLimited         429    Retry-After
│   └── TurnsExceeded          TURNS_MAX turns run already
├── StorageFull         507    Redis has no memory left for new questions
│   ├── QuotaExceeded          the owner has as much as it may have
│   └── ConversationFull       the conversation has as many messages as it may have
├── Unavailable         503    Retry-After
│   ├── Draining               the server is stopping; the stream path replies 200 with `retry`
│   └── ModerationUnavailable  the moderation endpoint gave no verdict on the question
├── Unreadable          500    stored data is malformed; the log names it
├── TurnFailed                 a turn failed before anything of its answer was sent
└── UpstreamError              after a turn has begun: a `failed` frame
    ├── UpstreamRejected       key, model or request rejected: a retry does not help
    │   └── ContextExceeded    the request is longer than the model's context window
    ├── UpstreamFailed         unreachable, overloaded, timed out or interrupted: a retry may help
    │   └── UpstreamEnded      it answered, but its answer is not complete
    ├── ModerationFailed       no verdict on the answer; it is never continued
    └── HistoryUnavailable     Redis was unavailable for too long before the first delta

Messages are sent to clients: they must not contain a key, a header or a traceback.
"""

from typing import Any, ClassVar


class HoldlineError(Exception):
    """An error with a public message; `retry_after_s` is sent as Retry-After, in seconds."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal"

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


class BadRequest(HoldlineError):
    status = 400
    type = "bad_request"


class InvalidField(BadRequest):
    """A field of the body, `param`, has a value that is not supported."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


class UnknownModel(BadRequest):
    """The requested model is not one of CHAT_MODEL, for example after a change of this setting."""

    type = "unknown_model"


class Unauthorised(HoldlineError):
    status = 401
    type = "unauthorised"


class Moderated(HoldlineError):
    """The question was flagged: it is neither stored nor sent upstream."""

    status = 400
    type = "moderated"


class Forbidden(HoldlineError):
    status = 403
    type = "forbidden"


class NotFound(HoldlineError):
    status = 404
    type = "not_found"


class NotAcceptable(HoldlineError):
    status = 406
    type = "not_acceptable"


class Conflict(HoldlineError):
    status = 409
    type = "conflict"


class TooLarge(HoldlineError):
    status = 413
    type = "too_large"


class Misdirected(HoldlineError):
    status = 421
    type = "misdirected"


class RateLimited(HoldlineError):
    status = 429
    type = "rate_limited"


class TurnsExceeded(RateLimited):
    """As many turns run as TURNS_MAX allows: a place is free when one of them ends."""

    type = "turns_exceeded"


class StorageFull(HoldlineError):
    status = 507
    type = "storage_full"


class QuotaExceeded(StorageFull):
    type = "quota_exceeded"


class ConversationFull(StorageFull):
    type = "conversation_full"


class Unavailable(HoldlineError):
    status = 503
    type = "unavailable"


class Draining(Unavailable):
    """The server is stopping and begins no turn: ask again, or another server."""


class ModerationUnavailable(Unavailable):
    """The moderation endpoint gave no verdict on a question: nothing has begun."""

    type = "moderation_unavailable"


class Unreadable(HoldlineError):
    """Stored data is malformed; nothing that the client can send changes that."""

    type = "unreadable"


class TurnFailed(HoldlineError):
    """A turn failed before anything of its answer was sent.

    `failure` is the data of its `failed` frame, `answer` the text that the history keeps.
    """

    def __init__(self, failure: dict[str, Any], answer: str) -> None:
        super().__init__(failure["message"])
        self.failure = failure
        self.answer = answer


class UpstreamError(HoldlineError):
    """The upstream sent no complete answer; `kind` is the `type` of the `failed` frame."""

    status = 502
    type = "upstream"
    retryable: ClassVar[bool] = False

    def __init__(self, kind: str, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.kind = kind

    def describe(self) -> dict[str, str | bool]:
        """Return what clients and the history receive."""
        return {"type": self.kind, "message": self.message, "retryable": self.retryable}


class UpstreamRejected(UpstreamError):
    """A retry fails too, unless the operator or the user changes something."""


class UpstreamFailed(UpstreamError):
    """A retry of the same question may succeed."""

    retryable = True


class ContextExceeded(UpstreamRejected):
    """The request is longer than the model's window; both sizes are tokens, if they are known."""

    def __init__(self, message: str, window: int | None, requested: int | None) -> None:
        super().__init__("context_length", message)
        self.window = window
        self.requested = requested


class UpstreamEnded(UpstreamFailed):
    """The upstream answered, but not completely: the same request would be answered the same."""


class ModerationFailed(UpstreamError):
    """The moderation endpoint gave no verdict on the answer: only the user may ask again."""

    retryable = True


class HistoryUnavailable(UpstreamError):
    """Redis was unavailable for too long before the first request of an answer."""

    retryable = True
