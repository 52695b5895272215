"""Read how long to wait before a retry, from a response's headers or words. Pure."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from chat.upstream.error_words.body import walk
from chat.upstream.error_words.message import find_message

MAX_WAIT_S = 3600.0

_WAIT = re.compile(
    r"(?:try again|retry|wait|available)(?: again)?(?: in| after| for)? (?:about )?"
    r"(?P<parts>(?:\d{1,9}(?:\.\d{1,9})? ?"
    r"(?:ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?)(?![a-z]) ?){1,4})",
    re.IGNORECASE,
)
_PART = re.compile(r"([\d.]+) ?(ms|milli|s|m|h)", re.IGNORECASE)
_WAIT_FIELDS = ("retrydelay", "retryafter", "retryafterseconds", "estimatedtime")
_UNITS_S = {"ms": 0.001, "milli": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def find_wait_s(headers: Mapping[str, str], body: object) -> float | None:
    """Return the seconds to wait, from 0 to 3,600; None if the upstream states none.

    The headers are `Retry-After-Ms`, and `Retry-After` in seconds or as a date. A body may state
    the time in words ("try again in 1m30s") or in a field (`retryDelay` of Gemini, `estimated_time`
    of TGI).
    """
    milliseconds = _limit(headers.get("retry-after-ms", ""), 0.001)
    if milliseconds is not None:
        return milliseconds
    header = headers.get("retry-after", "")
    for wait_s in (_limit(header), _read_date(header)):
        if wait_s is not None:
            return wait_s
    if match := _WAIT.search(find_message(body)):
        parts = _PART.findall(match["parts"])
        return min(sum(float(n) * _UNITS_S[unit.lower()] for n, unit in parts), MAX_WAIT_S)
    for key, value in walk(body):
        if key in _WAIT_FIELDS and isinstance(value, (int, float, str)):
            return _limit(str(value)[:20].removesuffix("s"))
    return None


def _limit(text: str, unit_s: float = 1.0) -> float | None:
    """Return seconds, at most MAX_WAIT_S; None if the text is not a number or is negative."""
    try:
        seconds = float(text) * unit_s
    except ValueError:
        return None
    return min(seconds, MAX_WAIT_S) if math.isfinite(seconds) and seconds >= 0 else None


def _read_date(text: str) -> float | None:
    """Return the seconds until an HTTP date."""
    try:
        date = parsedate_to_datetime(text)
        wait = date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)
    except (ValueError, OverflowError):
        return None
    return min(max(wait.total_seconds(), 0.0), MAX_WAIT_S)
