"""Read error responses of upstreams: their messages, and the reason of a rejection. Pure.

Responses are untrusted: nothing in this package raises, and its work is bounded.
"""

from chat.upstream.error_words.body import find_status, is_web_page
from chat.upstream.error_words.message import find_message
from chat.upstream.error_words.redaction import sanitise
from chat.upstream.error_words.rejections import (
    ContextLimit,
    find_context_limit,
    names_field,
    rejects_unknown_field,
    reports_loading,
)
from chat.upstream.error_words.retry_after import find_wait_s

__all__ = [
    "ContextLimit",
    "find_context_limit",
    "find_message",
    "find_status",
    "find_wait_s",
    "is_web_page",
    "names_field",
    "rejects_unknown_field",
    "reports_loading",
    "sanitise",
]
