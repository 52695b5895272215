"""The responses of moderation endpoints, and the number of requests at a time."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from chat.upstream.moderations import MAX_CHECKS, CheckFailed, ModerationEndpoint, read_verdict
from tests.fake_moderation import fake_moderation


@pytest.mark.parametrize(
    ("results", "count", "is_flagged"),
    [
        ([{"flagged": False}], 1, False),
        ([{"flagged": True}], 1, True),
        ([{"flagged": False}, {"flagged": True}], 2, True),
        ([{"flagged": False, "categories": {"violence": True}}], 1, False),
        ([{"categories": {"violence": False, "pii": True}}], 1, True),
        ([{"categories": {"violence": False}, "category_scores": {"violence": 0.1}}], 1, False),
        ([{"categories": {"violence": 0.9}}], 1, False),
        ([{"flagged": 1}], 1, True),
        ([{"flagged": "false"}], 1, False),
        ([{"flagged": False}, {"flagged": False}, {"flagged": True}], 1, True),
    ],
    ids=str,
)
def test_a_verdict_is_read_from_flags_or_categories(
    results: list[Any], count: int, is_flagged: bool
) -> None:
    assert read_verdict(json.dumps({"id": "m", "results": results}).encode(), count) is is_flagged


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b"", 1),
        (b"<html>", 1),
        (b"[]", 1),
        (b"{}", 1),
        (b'{"results": []}', 1),
        (b'{"results": {}}', 1),
        (b'{"results": [{}]}', 1),
        (b'{"results": [{"flagged": null}]}', 1),
        (b'{"results": [{"flagged": "perhaps"}]}', 1),
        (b'{"results": [{"flagged": false}]}', 2),
        (b'{"results": ["safe"]}', 1),
        (b'{"results": ' + b"[" * 100_000, 1),
        (b'{"error": {"message": "no"}}', 1),
    ],
)
def test_a_response_without_a_verdict_on_each_text_is_invalid(body: bytes, count: int) -> None:
    with pytest.raises((ValueError, msgspec.MsgspecError, RecursionError)):
        read_verdict(body, count)


async def test_checks_over_the_limit_of_a_worker_wait() -> None:
    async with fake_moderation() as moderation:
        endpoint = ModerationEndpoint(base_url=moderation.base_url, api_key=None, model="")
        held = moderation.hold("text")
        checks = [
            asyncio.create_task(endpoint.is_flagged([f"text {number}."]))
            for number in range(MAX_CHECKS + 10)
        ]
        await moderation.check("text", MAX_CHECKS)
        assert len(moderation.checks) == MAX_CHECKS
        held.set()
        assert await asyncio.gather(*checks) == [False] * len(checks)
        assert len(moderation.checks) == len(checks)
        await endpoint.close()


@pytest.mark.parametrize(("word", "requests"), [("broken", 2), ("garbled", 2), ("glacial", 1)])
async def test_a_failed_request_is_repeated_once_within_the_time_limit(
    word: str, requests: int
) -> None:
    async with fake_moderation() as moderation:
        endpoint = ModerationEndpoint(base_url=moderation.base_url, api_key=None, model="")
        with pytest.raises(CheckFailed):
            await endpoint.is_flagged([word])
        assert len(moderation.checks) == requests
        await endpoint.close()
