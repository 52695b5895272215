"""What can go wrong, in words for the person whom it meets.

HoldlineError                  status and public message of an HTTP answer
├── BadRequest          400
├── Forbidden           403
├── NotFound            404    also for what is another owner's
├── Conflict            409
├── TooLarge            413
├── RateLimited         429    Retry-After
├── Unavailable         503    Retry-After
└── UpstreamError              after a turn has begun: a `failed` frame
    ├── UpstreamRefused        key, model or request: asking again does not help
    └── UpstreamBroke          unreachable, busy, silent or broken off: asking again may help

Messages hold no key, no header and no trace, for they go to clients.
"""

from typing import ClassVar


class HoldlineError(Exception):
    """Carries a message that a client may read, and the status and type that go with it."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal"

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


class BadRequest(HoldlineError):
    status = 400
    type = "bad_request"


class Forbidden(HoldlineError):
    status = 403
    type = "forbidden"


class NotFound(HoldlineError):
    status = 404
    type = "not_found"


class Conflict(HoldlineError):
    status = 409
    type = "conflict"


class TooLarge(HoldlineError):
    status = 413
    type = "too_large"


class RateLimited(HoldlineError):
    status = 429
    type = "rate_limited"


class Unavailable(HoldlineError):
    status = 503
    type = "unavailable"


class UpstreamError(HoldlineError):
    """The upstream gave no whole answer; `kind` is the `type` of the `failed` frame."""

    status = 502
    type = "upstream"
    retryable: ClassVar[bool] = False

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class UpstreamRejected(UpstreamError):
    """The operator or the person must change something first."""


class UpstreamFailed(UpstreamError):
    """The same question may well be answered the next time."""

    retryable = True
