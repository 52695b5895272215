"""The time to wait is read from headers and words, and absurd values are ignored."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from chat.upstream.error_words import find_wait_s


@pytest.mark.parametrize(
    ("headers", "body", "wait_s"),
    [
        ({"retry-after": "15"}, "", 15),
        ({"retry-after": "1.5"}, "", 1.5),
        ({"retry-after": "0"}, "try again in 9 s", 0),
        ({"retry-after": "15", "retry-after-ms": "250"}, "", 0.25),
        ({"retry-after": "86400"}, "", 3600),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, "", 0),
        *[
            ({"retry-after": value}, "", None)
            for value in ("-5", "nan", "inf", "soon", "", "9" * 5000, "Wed, 99 Oct 2015")
        ],
        ({"retry-after": "-5"}, {"error": "Try again in 15 s"}, 15),
        ({}, {"error": {"message": "Rate limit reached, try again in 15 s"}}, 15),
        ({}, "Please try again in 1m30s.", 90),
        ({}, "Please try again in 1h2m3.5s", 3600),
        ({}, "Please try again in 6ms. Visit us", 0.006),
        ({}, "Please retry after 26 seconds.", 26),
        ({}, "Please retry in 52.5s.", 52.5),
        ({}, "try again in 2 minutes", 120),
        ({}, {"error": {"message": "x", "details": [{"retryDelay": "34s"}]}}, 34),
        ({}, {"error": "Model m is currently loading", "estimated_time": 20.5}, 20.5),
        ({}, {"error": "x", "estimated_time": None}, None),
        ({}, "try again in 3 models", None),
        ({}, "Try again later", None),
        ({}, "", None),
    ],
)
def test_the_time_to_wait_is_found(
    headers: dict[str, str], body: Any, wait_s: float | None
) -> None:
    assert find_wait_s(headers, body) == wait_s


def test_a_date_in_the_future_is_a_time_to_wait() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    wait_s = find_wait_s({"retry-after": date}, "")
    assert wait_s is not None
    assert 50 < wait_s <= 60
